"""How many jobs were completed lately."""

from collections import deque

from .events import Ended, Event
from .jobs import JobState

_HOUR_S = 3600.0
_HOURS = 24


class Tally:
    """Counts what was completed in the last 24 hours, to the hour, since it began to listen."""

    def __init__(self) -> None:
        self._hours: deque[tuple[int, int]] = deque(maxlen=_HOURS + 1)

    def __call__(self, event: Event) -> None:
        """Listen."""
        if not isinstance(event, Ended) or event.job.state is not JobState.COMPLETED:
            return
        hour = int((event.job.ended_at or 0.0) // _HOUR_S)
        if self._hours and self._hours[-1][0] == hour:
            hour, count = self._hours.pop()
            self._hours.append((hour, count + 1))
        else:
            self._hours.append((hour, 1))

    def completed(self, now: float) -> int:
        """Return how many were completed; `now` in seconds since 1970."""
        first = int(now // _HOUR_S) - _HOURS
        return sum(count for hour, count in self._hours if hour > first)
