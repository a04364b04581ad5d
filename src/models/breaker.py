"""When a model on a backend is left alone for a while, because attempts on it keep failing.

A *breaker* stands for one model on one backend. Failures in a row open it: the model is *ejected*
there, longer with every ejection, up to a limit; quiet time lets old ejections be forgotten. That
is how Envoy's outlier detection counts. "Could not reach it" and "said no" are counted apart, so
that a network that stumbles and an engine that fails do not add up. Afterwards it *recovers*: one
attempt at a time, then 2, 4, ... with each success. Only real work closes a breaker; that a
backend says it is healthy proves nothing of its models.
"""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum


class Trouble(StrEnum):
    """In which way an attempt failed, as far as it tells something about the backend."""

    UNREACHED = "could not be reached"
    REFUSED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When breakers open, and for how long.

    Attributes:
        unreached: failures in a row to reach the backend that open a breaker.
        refused: failures in a row that it reports itself which do so.
        base_s: seconds of the first ejection; the n-th takes n times as long.
        cap_s: the longest ejection, in seconds.
        forgive_s: seconds without a new ejection after which one is forgotten.
        wide: attempts at once at which a recovering model is trusted again.

    """

    unreached: int = 3
    refused: int = 5
    base_s: float = 5.0
    cap_s: float = 60.0
    forgive_s: float = 60.0
    wide: int = 16


class Breaker:
    """The record of one model on one backend. Times are seconds since 1970."""

    def __init__(self, rules: BreakerRules, *, recovering: bool = False) -> None:
        self._rules = rules
        self._failures: Counter[Trouble] = Counter()
        self._until = 0.0
        self.ejections = 0
        self.limit: int | None = 1 if recovering else None
        """How many attempts may run at once; None: as many as the model allows."""

    def __repr__(self) -> str:
        return f"<Breaker [limit {self.limit}, {self.ejections} ejections, until {self._until:g}]>"

    def failed(self, trouble: Trouble, now: float, *, began: float) -> float | None:
        """Note a failed attempt; if it ejects the model, return until when.

        An attempt that `began` before the latest ejection was over tells nothing new.
        """
        if began < self._until:
            return None
        rules = self._rules
        self._failures[trouble] += 1
        threshold = rules.unreached if trouble is Trouble.UNREACHED else rules.refused
        if self.limit is None and self._failures[trouble] < threshold:
            return None
        forgotten = int((now - self._until) // rules.forgive_s)
        self.ejections = max(self.ejections - forgotten, 0) + 1
        self._until = now + min(rules.base_s * self.ejections, rules.cap_s)
        self.limit = 1
        return self._until

    def succeeded(self) -> None:
        """Note an attempt that ended well: recovery goes on, or is complete."""
        self._failures.clear()
        if self.limit is not None:
            self.limit = None if self.limit >= self._rules.wide else self.limit * 2

    def recover(self) -> None:
        """Begin with one attempt at a time: the backend was away, or the model had died."""
        self.limit = 1
