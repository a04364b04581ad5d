"""How much extra load retries may cause: a tenth of the work, however much of it fails.

A token bucket, as in Finagle's retry budgets: each first attempt pays in a part of a token, each
retry takes out a whole one. Where there a request without a token fails, here it waits: a queue
can afford to, and nothing is lost.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class RetryBudget:
    """Tokens for retries.

    Attributes:
        share: what a first attempt pays in; retries are at most this share of first attempts.
        reserve: tokens in the beginning, and the most that can be saved up.
        per_second: tokens that come by themselves, so that a quiet server retries as well.

    """

    share: float = 0.1
    reserve: float = 10.0
    per_second: float = 0.2
    _tokens: float | None = None
    _at: float = 0.0

    def attempted(self, now: float) -> None:
        """Note a first attempt."""
        self._tokens = self._accrued(now) + self.share

    def retry(self, now: float) -> float:
        """Take a token out for a retry; return after how many seconds it is there."""
        self._tokens = self._accrued(now) - 1.0
        return max(0.0, -self._tokens / self.per_second)

    def _accrued(self, now: float) -> float:
        tokens = self.reserve if self._tokens is None else self._tokens
        grown = tokens + max(now - self._at, 0.0) * self.per_second
        self._at = now
        return min(grown, self.reserve)
