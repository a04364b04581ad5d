"""How long things usually take: the median of the last few times."""

from collections import deque
from collections.abc import Hashable
from statistics import median

_KEPT = 9


class Durations:
    """Remembers the last durations of each kind, in seconds."""

    def __init__(self, kinds: int = 10_000) -> None:
        self._last: dict[Hashable, deque[float]] = {}
        self._kinds = kinds

    def add(self, kind: Hashable, seconds: float) -> None:
        """Remember how long something took."""
        if kind in self._last or len(self._last) < self._kinds:
            self._last.setdefault(kind, deque(maxlen=_KEPT)).append(max(seconds, 0.0))

    def usual(self, kind: Hashable) -> float | None:
        """Return how long it usually takes; None if it never happened."""
        return median(self._last[kind]) if kind in self._last else None
