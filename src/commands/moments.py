"""Moments as people write them: `2h` is two hours ago, `2026-11-21T06:00Z` that moment."""

import re
from datetime import UTC, datetime, timedelta

from .terminal import ExitCode, Failure, seconds

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def moment(text: str, option: str, now: datetime | None = None) -> str:
    """Return a moment as a server reads it; one without a zone is this machine's time.

    Raises:
        Failure: it is none.

    """
    now = now or datetime.now(UTC)
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text)
    try:
        if ago is not None:
            return (now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])).isoformat()
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise Failure(
            f"{option}: write how long ago, such as 30m, 2h or 7d, or a moment, "
            f"such as 2026-11-21T06:00Z",
            ExitCode.USAGE,
        ) from error


def since(moment: datetime, now: datetime | None = None) -> str:
    """Write how long ago a moment was."""
    return seconds(max(((now or datetime.now(UTC)) - moment).total_seconds(), 0.0))
