"""Whether and when a failed attempt is repeated: the one place that knows the rules.

Connection trouble, timeouts, a lost model and a stream cut before anybody saw it are worth
`attempts` attempts; an internal error or an empty answer is worth one more. Waits grow
exponentially with full jitter; a backend's own Retry-After is honoured. A backend that merely
says "later" does not use up an attempt: the job's deadline bounds that.
"""

from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_random_exponential

from ..models.errors import (
    BackendError,
    BackendUnavailable,
    InferenceManagerError,
    UnknownModel,
)

MAX_RETRY_AFTER = 300.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay` seconds; `counted` if the failed attempt is used up."""

    delay: float
    counted: bool


class RetryPolicy:
    """Decides about errors."""

    def __init__(self, *, attempts: int = 3, base_s: float = 1.0, cap_s: float = 60.0) -> None:
        self.attempts = attempts
        self._wait = wait_random_exponential(multiplier=base_s, max=cap_s)

    def decide(self, error: InferenceManagerError, *, attempts: int, claims: int) -> Retry | None:
        """Say when to try again, or None if the error is final.

        Args:
            error: why the attempt failed.
            attempts: how many attempts have counted so far, this one included.
            claims: how many attempts have begun, whether they counted or not.

        """
        if isinstance(error, UnknownModel):  # it was offered a moment ago, and may be again
            error = BackendUnavailable(error.message, reached=True)
        if not isinstance(error, BackendError) or not error.transient:
            return None
        asked = min(max(error.retry_after or 0.0, 0.0), MAX_RETRY_AFTER)
        if error.told_to_wait:
            return Retry(asked or self._wait(_state(claims)), counted=False)
        limit = self.attempts if error.attempts is None else min(error.attempts, self.attempts)
        if stop_after_attempt(limit)(_state(attempts)):
            return None
        return Retry(max(asked, self._wait(_state(attempts))), counted=True)


def _state(attempt: int) -> RetryCallState:
    nothing: Any = None
    state = RetryCallState(Retrying(), nothing, (), {})
    state.attempt_number = attempt
    return state
