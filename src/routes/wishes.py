"""How a caller wants to be served, as the headers of its request say; the same in every door."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ..models.errors import DeadlineExceeded, InvalidInput
from ..models.jobs import Level

LONGEST_S = 604_800.0
"""The longest time, in seconds, that a caller may give its job."""

_LEVELS = {"normal": Level.NORMAL, "low": Level.LOW}
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
_YES = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the headers ask for.

    Attributes:
        level: the job's place inside its modality.
        deadline_s: seconds from now after which nobody wants the result.
        key: the `Idempotency-Key`.
        wait_s: seconds after which the answer is the job itself, if it has not ended: 0 with
            `Prefer: respond-async`; None to wait for the end.
        preference: what of `Prefer` is heeded, for `Preference-Applied`.
        queue_events: whether a stream should tell of the job's place in line.
        strict: whether fields that nobody understands are refused.

    """

    level: Level = Level.NORMAL
    deadline_s: float | None = None
    key: str | None = None
    wait_s: float | None = None
    preference: str = ""
    queue_events: bool = False
    strict: bool = False


_NONE = Wishes()
_READ = frozenset(
    {
        b"x-priority",
        b"x-deadline",
        b"x-timeout",
        b"idempotency-key",
        b"prefer",
        b"x-queue-events",
        b"x-strict",
    }
)


def wishes_in(headers: Mapping[bytes, bytes], now: float) -> Wishes:
    """Read the headers of a request; `now` is seconds since 1970.

    Raises:
        InvalidInput: one of them says what cannot be had; `param` names it.
        DeadlineExceeded: the deadline has passed already.

    """
    if _READ.isdisjoint(headers):
        return _NONE
    told = {name: headers[name].decode("latin-1").strip() for name in _READ & headers.keys()}
    level = _LEVELS.get(told.get(b"x-priority", "normal").lower())
    if level is None:
        raise InvalidInput(
            "X-Priority must be normal or low",
            param="X-Priority",
            hint="a caller can let others go first, not go before them",
        )
    wait_s, preference = _wait(told.get(b"prefer", ""))
    return Wishes(
        level=level,
        deadline_s=_deadline(told, now),
        key=told.get(b"idempotency-key"),
        wait_s=wait_s,
        preference=preference,
        queue_events=told.get(b"x-queue-events", "").lower() in _YES,
        strict=told.get(b"x-strict", "").lower() in _YES,
    )


def seconds(value: float, param: str) -> float:
    """Check how long a caller gives its job.

    Raises:
        InvalidInput: that is no time to work in.

    """
    if not 0 < value <= LONGEST_S:
        raise InvalidInput(f"{param} must be more than 0 and at most 604,800 seconds", param=param)
    return value


def _deadline(told: Mapping[bytes, str], now: float) -> float | None:
    at, within = told.get(b"x-deadline"), told.get(b"x-timeout")
    found: list[float] = []
    if within is not None:
        if _NUMBER.fullmatch(within) is None:
            raise InvalidInput("X-Timeout must be a number of seconds", param="X-Timeout")
        found.append(seconds(float(within), "X-Timeout"))
    if at is not None:
        left = _instant(at) - now
        if left <= 0:
            raise DeadlineExceeded("the deadline has passed already", hint="give a later one")
        found.append(min(left, LONGEST_S))
    return min(found, default=None)


def _instant(text: str) -> float:
    """Read a moment: seconds since 1970, or RFC 3339 with its offset from UTC."""
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    raise InvalidInput(
        "X-Deadline must be seconds since 1970 or a time such as 2030-01-31T12:00:00Z",
        param="X-Deadline",
    )


def _wait(prefer: str) -> tuple[float | None, str]:
    """Read what RFC 7240 calls preferences; return also those that were understood."""
    wait: float | None = None
    heeded: list[str] = []
    for preference in prefer.lower().replace(";", ",").split(","):
        name, _, value = preference.strip().partition("=")
        name, value = name.strip(), value.strip().strip('"')
        if name == "respond-async":
            wait = wait or 0.0
            heeded.append(name)
        elif name == "wait" and _NUMBER.fullmatch(value):
            wait = float(value)
            heeded.append(f"{name}={value}")
    return wait, ", ".join(heeded)
