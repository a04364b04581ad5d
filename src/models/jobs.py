"""A job: one request on its way, as a value. Each step returns the next value.

The life cycle is the table `TRANSITIONS`; the diagram in the docs is drawn from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from types import MappingProxyType

from .errors import InferenceManagerError, InvalidTransition
from .modality import Modality
from .requests import InferenceRequest
from .results import Result


class Level(IntEnum):
    """A job's place inside its modality; smaller goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class JobState(StrEnum):
    """Where a job is on its way."""

    QUEUED = "queued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset(
            {JobState.PROCESSING, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
        ),
        JobState.PROCESSING: frozenset(
            {
                JobState.COMPLETED,
                JobState.RETRYING,
                JobState.FAILED,
                JobState.CANCELLED,
                JobState.EXPIRED,
                JobState.QUEUED,
            }
        ),
        JobState.RETRYING: frozenset(
            {JobState.PROCESSING, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
        ),
        JobState.COMPLETED: frozenset(),
        JobState.FAILED: frozenset(),
        JobState.CANCELLED: frozenset(),
        JobState.EXPIRED: frozenset(),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request on its way. Times are seconds since 1970, as the clock told them.

    Attributes:
        model: the model that will run it; None while the backend's models are not known yet.
        sequence: the submission number; a retried job keeps it, and so its place.
        fence: the number of the latest claim; reports of an earlier claim change nothing.
        attempts: how many attempts have begun and count.
        crashes: how many attempts ended with the death of the model's process.
        version: one more with every step; what compare-and-set in the store looks at.

    """

    id: str
    request: InferenceRequest
    model: str | None
    caller: str
    level: Level
    sequence: int
    submitted_at: float
    deadline: float
    state: JobState = JobState.QUEUED
    fence: int = 0
    attempts: int = 0
    crashes: int = 0
    version: int = 0
    backend: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    retry_at: float | None = None
    result: Result | None = None
    error: InferenceManagerError | None = None

    @property
    def modality(self) -> Modality:
        """The queue in which the job waits."""
        return self.request.modality

    def resolved(self, model: str, request: InferenceRequest) -> "Job":
        """Name the model, now that it is known, and take its defaults into the request."""
        return replace(self, model=model, request=request, version=self.version + 1)

    def started(self, backend: str, now: float) -> "Job":
        """Claim the job for an attempt on a backend."""
        return self._step(
            JobState.PROCESSING,
            backend=backend,
            fence=self.fence + 1,
            attempts=self.attempts + 1,
            started_at=now,
            retry_at=None,
        )

    def requeued(self) -> "Job":
        """Put a running job back into its place; the attempt never began and does not count."""
        return self._step(JobState.QUEUED, backend="", attempts=self.attempts - 1, started_at=None)

    def retrying(
        self,
        error: InferenceManagerError,
        retry_at: float,
        *,
        counted: bool = True,
        crashed: bool = False,
    ) -> "Job":
        """Wait until `retry_at` for another attempt; `counted` if this one is used up."""
        return self._step(
            JobState.RETRYING,
            backend="",
            attempts=self.attempts if counted else self.attempts - 1,
            crashes=self.crashes + crashed,
            error=error,
            retry_at=retry_at,
        )

    def completed(self, result: Result, now: float) -> "Job":
        """End with a result."""
        return self._step(JobState.COMPLETED, result=result, error=None, ended_at=now)

    def failed(self, error: InferenceManagerError, now: float) -> "Job":
        """End with an error."""
        return self._ended(JobState.FAILED, now, error)

    def cancelled(self, now: float) -> "Job":
        """End because nobody wants the result any more."""
        return self._ended(JobState.CANCELLED, now, self.error)

    def expired(self, now: float, trouble: InferenceManagerError | None = None) -> "Job":
        """End because the deadline passed; `trouble` is what kept the job waiting, if known."""
        return self._ended(JobState.EXPIRED, now, trouble or self.error)

    def _ended(self, state: JobState, now: float, error: InferenceManagerError | None) -> "Job":
        """End without a result; a job that ends while it waits was not being worked on."""
        began = self.started_at if self.state is JobState.PROCESSING else None
        return self._step(state, ended_at=now, retry_at=None, error=error, started_at=began)

    def _step(self, state: JobState, **changes: object) -> "Job":
        if state not in TRANSITIONS[self.state]:
            raise InvalidTransition(f"a job that is {self.state} cannot become {state}")
        return replace(self, state=state, version=self.version + 1, **changes)  # type: ignore[arg-type]
