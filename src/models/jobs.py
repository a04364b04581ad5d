"""A job: one request on its way, as a value. Each step returns the next value.

The life cycle is the table `TRANSITIONS`; the diagram in the docs is drawn from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import NamedTuple

from .errors import InferenceManagerError, Interrupted, InvalidTransition, WorkerLost
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
class Promise:
    """What was promised: that the job is carried out, whether its caller stays or not.

    Such a job is on the disk before anybody hears of it, and outlives the process.

    Attributes:
        key: the caller's `Idempotency-Key`; empty if there was none.
        fingerprint: of the request that came with the key.
        retry_of: the job that this one repeats.
        batch: the batch it belongs to, and `line` its line there, counted from 0.
        webhook: the address that is told of its end.

    """

    key: str = ""
    fingerprint: str = ""
    retry_of: str = ""
    batch: str = ""
    line: int = 0
    webhook: str = ""


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
        promise: None for a plain call, which was promised nothing before its answer.

    """

    id: str
    request: InferenceRequest
    model: str | None
    caller: str
    level: Level
    sequence: int
    submitted_at: float
    deadline: float
    promise: Promise | None = None
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

    def promised(self, promise: Promise = Promise()) -> "Job":
        """Promise that the job is carried out, now that its caller was told its id."""
        return replace(self, promise=promise, version=self.version + 1)

    def moved(self, level: Level, sequence: int) -> "Job":
        """Give a waiting job another place.

        Raises:
            InvalidTransition: it does not wait any more.

        """
        if self.state not in (JobState.QUEUED, JobState.RETRYING):
            raise InvalidTransition(f"a job that is {self.state} has no place in line to change")
        return replace(self, level=level, sequence=sequence, version=self.version + 1)

    def recovered(self, attempts: int, now: float) -> "Job":
        """Go on after the process that had the job is gone, though nobody saw it end.

        One that was promised waits in its old place. If it was being worked on, that attempt
        counts: it may have been the cause. With `attempts` used up it is given up. One that was
        not promised ends: its caller is gone.
        """
        if self.promise is None:
            error = Interrupted("the server stopped before the job had ended, and nobody waits")
            return self.failed(error, now)
        if self.deadline <= now:
            return self.expired(now)
        if self.attempts >= attempts:
            times = f"{self.attempts} times" if self.attempts > 1 else "once"
            return self.failed(
                WorkerLost(
                    f"the server stopped {times} while it worked on this job",
                    hint="send it again by hand if you think that it was not the cause",
                ),
                now,
            )
        return self._step(JobState.QUEUED, backend="", started_at=None)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A job without what it asks for and what came of it; for lists.

    Attributes:
        number: in which order the store came to know its jobs; later ones have larger numbers.

    """

    number: int
    id: str
    modality: Modality
    model: str | None
    caller: str
    level: Level
    state: JobState
    version: int
    attempts: int
    backend: str
    submitted_at: float
    deadline: float
    started_at: float | None
    ended_at: float | None
    retry_at: float | None
    retry_of: str
    batch: str
    error: InferenceManagerError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs are asked for, the newest first; None leaves a question open.

    Attributes:
        code: the error code of a failed job.
        submitted_after: seconds since 1970; `submitted_before` likewise.
        before: only jobs with smaller numbers: where the page before ended.

    """

    caller: str | None = None
    states: frozenset[JobState] | None = None
    modality: Modality | None = None
    model: str | None = None
    level: Level | None = None
    batch: str | None = None
    code: str | None = None
    submitted_after: float | None = None
    submitted_before: float | None = None
    before: int | None = None
    limit: int = 50


class Step(NamedTuple):
    """A step that a job took: the version it made, the state, and when; `detail` says more.

    `detail` is the backend of an attempt, or the code of the error that ended one.
    """

    version: int
    state: JobState
    at: float
    attempt: int
    detail: str
