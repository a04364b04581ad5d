"""What LocalAI means when it says no: statuses and texts become errors of ours. Pure.

The same words arrive as an HTTP error, as an error event inside a stream that began with 200, or
as an ``error`` object in a JSON answer; all three are read here, by one table.

A backend's own words are quoted only where they were spoken before it looked at any input: when a
model could not be loaded, when it cools down, when there is no room. Everything else may repeat
what a caller sent (parse errors do, and so do exceptions of Python backends), so it is read, named
in words of ours, and dropped. Even the quoted words are cut, escaped, and left out altogether when
they share a piece with the request or the key.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto

from ..models.errors import (
    BackendBusy,
    BackendError,
    BackendFailed,
    BackendProtocolError,
    BackendRejected,
    BackendTimeout,
    BackendUnauthorised,
    BackendUnavailable,
    InferenceManagerError,
    ModelCrashed,
    ModelLoadFailed,
    NotOffered,
    UnknownModel,
)
from .strict_json import Json, parse

LONGEST_WAIT = 300.0
LONGEST_QUOTE = 200
LONGEST_SEARCH = 100_000  # characters of a request that are compared with a quote
_SHARED = 12  # characters in a row that no quote may have in common with a request


class _Sign(Enum):
    """What a text says, whatever status it came with."""

    COOLDOWN = auto()
    STAGING = auto()
    TOO_LONG = auto()
    NOT_LOADED = auto()
    NO_ROOM = auto()
    NO_SIGHT = auto()
    BAD_SIZE = auto()
    NO_FILE = auto()
    NO_ENCODER = auto()
    NO_MEMORY = auto()
    CRASHED = auto()


_SIGNS: Mapping[_Sign, re.Pattern[str]] = {
    sign: re.compile(pattern, re.IGNORECASE)
    for sign, pattern in {
        _Sign.COOLDOWN: r"load is in cooldown",
        _Sign.STAGING: r"model_loading",
        _Sign.TOO_LONG: r"context (size|length|window)|exceed_context|prompt is too long"
        r"|too large to process",
        _Sign.NOT_LOADED: r"(failed|unable|could not|cannot) (to )?load (the )?model"
        r"|\berror loading model|grpc service not ready|backend not found",
        _Sign.NO_ROOM: r"admission_rejected|capacity reached|quota_exceeded",
        _Sign.NO_SIGHT: r"(image|multimodal|mmproj).{0,40} not (be )?support"
        r"|does not support (image|multimodal)",
        _Sign.BAD_SIZE: r"invalid value for 'size'",
        _Sign.NO_FILE: r"http: no such file",
        _Sign.NO_ENCODER: r"ffmpeg",
        _Sign.NO_MEMORY: r"out of memory|cudamalloc failed|failed to allocate|OutOfMemory",
        _Sign.CRASHED: r"code = (Unavailable|Canceled)|error reading from server"
        r"|connection refused|connection reset|transport is closing|\bEOF\b",
    }.items()
}
"""In order: the first that is found in the text wins, as the causes come before their effects."""

_GO_WAIT = re.compile(
    r"retry after (?=\d)(?:(\d{1,4})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d*)?)s)?"
)
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the backend told it."""

    status: int
    kind: str = ""
    text: str = ""
    retry_after: float | None = None
    foreign: bool = False  # a web page, or JSON of somebody in between

    @property
    def words(self) -> str:
        """Everything it said."""
        return f"{self.kind} {self.text}".strip()


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a failure happened, and the words that must not be repeated when telling of it.

    `service` is what was asked for, if not every LocalAI has it.
    """

    backend: str
    model: str = ""
    private: tuple[str, ...] = ()
    service: str = ""


def retry_after(value: str | None, now: float) -> float | None:
    """Read a Retry-After header: seconds or a date, cut to five minutes; None for anything else."""
    if value is None:
        return None
    value = value.strip()
    if _NUMBER.fullmatch(value):
        return min(float(value), LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(moment - now, 0.0), LONGEST_WAIT)


def failure_of(status: int, body: bytes, wait: float | None = None) -> Failure:
    """Read the body of an error answer; it may be empty, or a web page of somebody in between."""
    if not body.strip():
        return Failure(status, retry_after=wait)
    try:
        parsed = parse(body)
    except ValueError:
        return Failure(status, retry_after=wait, foreign=True)
    match parsed:
        case {"error": error, "loading": {"eta_seconds": eta}}:
            return failure_in(error, status=status, wait=_seconds(eta) if wait is None else wait)
        case {"error": error}:
            return failure_in(error, status=status, wait=wait)
        case {"message": str(text)} | {"detail": str(text)} | str(text):
            return Failure(status, text=text, retry_after=wait)
        case _:
            return Failure(status, retry_after=wait, foreign=True)


def failure_in(error: Json, *, status: int = 500, wait: float | None = None) -> Failure:
    """Read an error object; one that came with HTTP 200 counts as a 500 unless it says better."""
    match error:
        case dict() as fields:
            kind, code, text = fields.get("type"), fields.get("code"), fields.get("message")
            if status == 500 and type(code) is int and 400 <= code <= 599:
                status = code
            words = [word for word in (kind, code) if isinstance(word, str)]
            return Failure(
                status, " ".join(words), text if isinstance(text, str) else "", _wait(wait, text)
            )
        case str(text):
            return Failure(status, text=text, retry_after=_wait(wait, text))
        case _:
            return Failure(status, retry_after=wait)


def _seconds(value: Json) -> float | None:
    if isinstance(value, int | float) and value >= 0:
        return min(float(value), LONGEST_WAIT)
    return None


def _wait(wait: float | None, text: Json) -> float | None:
    """Prefer the header; LocalAI also writes the time into the text, as Go writes durations."""
    if wait is not None or not isinstance(text, str):
        return wait
    found = _GO_WAIT.search(text)
    if found is None or not any(found.groups()):
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return min(hours * 3600 + minutes * 60 + seconds, LONGEST_WAIT)


def error_of(failure: Failure, scene: Scene) -> InferenceManagerError:
    """Name a failure."""
    status, backend = failure.status, scene.backend
    if status in (401, 403) and "model_disabled" not in failure.kind:
        return BackendUnauthorised(
            f"backend {backend} refuses its key ({status})",
            hint="check the key that is configured for this backend",
        )
    if status == 404:
        return _missing(failure, scene)
    if status == 429:
        return BackendBusy(f"backend {backend} is busy (429)", retry_after=failure.retry_after)
    if status == 408:
        return BackendTimeout(f"backend {backend} gave up waiting (408)")
    if 300 <= status <= 399:
        return BackendProtocolError(f"backend {backend} points elsewhere ({status}): not followed")
    if status < 500:
        return _rejection(failure, scene)
    return _inability(failure, scene)


def _missing(failure: Failure, scene: Scene) -> InferenceManagerError:
    if scene.service and "model" not in failure.words.lower():
        return NotOffered(
            f"backend {scene.backend} does not offer {scene.service}",
            hint="not every version of LocalAI does",
        )
    if not failure.foreign and (not failure.words or "model" in failure.words.lower()):
        return UnknownModel(f"backend {scene.backend} does not know the model {scene.model!r}")
    return BackendProtocolError(
        f"backend {scene.backend} does not know the address (404)",
        hint="check the URL of this backend: is it a LocalAI server?",
    )


def _rejection(failure: Failure, scene: Scene) -> BackendError:
    sign = _sign_of(failure)
    if sign is _Sign.TOO_LONG:
        hint, reason = _SHORTER, "the prompt is longer than the model's context"
    elif sign is _Sign.NO_SIGHT:
        hint, reason = _SEEING, "the model cannot see pictures"
    elif failure.status == 413:
        hint = "send a smaller picture, or raise LOCALAI_UPLOAD_LIMIT on the backend"
        reason = "the request is too large for it"
    elif "model_disabled" in failure.kind:
        hint, reason = "", "the model is disabled there"
    else:
        hint, reason = _LOGGED, "it finds the request faulty"
    return BackendRejected(
        f"backend {scene.backend} rejects the request ({failure.status}): {reason}", hint=hint
    )


_LOGGED = "its log says why; often it is a field that is handed on, or one the model does not take"
_SHORTER = "shorten the conversation, or give the model a larger context"
_SEEING = "choose a model that has vision; list_models tells which do"


def _inability(failure: Failure, scene: Scene) -> BackendError:
    backend, wait = scene.backend, failure.retry_after
    match _sign_of(failure):
        case _Sign.COOLDOWN:
            return ModelLoadFailed(
                f"the model cools down on backend {backend} after it could not be loaded"
                + _quote(failure, scene),
                cooling=True,
                retry_after=wait,
            )
        case _Sign.STAGING:
            return BackendBusy(f"backend {backend} is still fetching the model", retry_after=wait)
        case _Sign.TOO_LONG:
            return BackendRejected(
                f"backend {backend} rejects the request: "
                "the prompt is longer than the model's context",
                hint=_SHORTER,
            )
        case _Sign.NOT_LOADED:
            return ModelLoadFailed(
                f"backend {backend} could not load the model" + _quote(failure, scene),
                retry_after=wait,
            )
        case _Sign.NO_ROOM:
            return BackendBusy(
                f"backend {backend} has no room" + _quote(failure, scene), retry_after=wait
            )
        case _Sign.NO_SIGHT:
            return BackendRejected(
                f"backend {backend} rejects the request: the model cannot see pictures",
                hint=_SEEING,
            )
        case _Sign.NO_ENCODER:
            return BackendRejected(
                f"backend {backend} cannot encode sound in this format",
                hint="ask for wav, or install ffmpeg on the backend",
            )
        case _Sign.BAD_SIZE:
            return BackendRejected(f"backend {backend} rejects the request: the size of the image")
        case _Sign.NO_FILE:
            return BackendRejected(f"backend {backend} rejects the request: no file came with it")
        case _Sign.NO_MEMORY:
            return BackendFailed(
                f"backend {backend} ran out of memory",
                hint="ask for a smaller picture or a shorter answer, or free memory there",
            )
        case _Sign.CRASHED if failure.status == 500:
            return ModelCrashed(f"the model's process on backend {backend} died")
        case _:
            return _by_status(failure, scene)


def _by_status(failure: Failure, scene: Scene) -> BackendError:
    match failure.status:
        case 501:
            return BackendRejected(
                f"backend {scene.backend} rejects the request: its engine cannot do this (501)"
            )
        case 503:
            return BackendBusy(
                f"backend {scene.backend} is busy (503)", retry_after=failure.retry_after
            )
        case 502 | 504 as status:
            return BackendUnavailable(
                f"backend {scene.backend} cannot be reached by the gateway before it ({status})",
                reached=True,
            )
        case status:
            return BackendFailed(f"backend {scene.backend} reports an internal error ({status})")


def _sign_of(failure: Failure) -> _Sign | None:
    return next((sign for sign, pattern in _SIGNS.items() if pattern.search(failure.words)), None)


def _quote(failure: Failure, scene: Scene) -> str:
    """Return the backend's words, cut and escaped; nothing if they could repeat the caller's."""
    text = " ".join(failure.text.split())
    if len(text) > LONGEST_QUOTE:
        text = text[: LONGEST_QUOTE - 1] + "…"
    long = sum(map(len, scene.private)) > LONGEST_SEARCH
    if not text or long or any(_share(text, secret) for secret in scene.private):
        return ""
    return ": " + "".join(_escaped(text))


def _escaped(text: str) -> Iterator[str]:
    for character in text:
        yield character if character.isprintable() else f"\\u{ord(character):04x}"


def _share(text: str, secret: str) -> bool:
    secret = " ".join(secret.split())
    if len(secret) < 4:
        return False
    if len(secret) <= _SHARED:
        return secret in text
    return any(text[at : at + _SHARED] in secret for at in range(len(text) - _SHARED + 1))
