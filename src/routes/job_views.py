"""How jobs look at `/jobs`: all that is known of one, and a line of a list."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..models.jobs import Job, JobState, Level, Step, Summary
from ..models.modality import Modality
from ..processor import Processor
from ..utils.stores.deliveries import Report
from .errors import ErrorDetail, describe
from .situation import ghost, rest_of
from .tools import Tools
from .views import JobView

LevelName = Literal["high", "normal", "low"]
_NAMES: dict[Level, LevelName] = {
    Level.HIGH: "high",
    Level.NORMAL: "normal",
    Level.LOW: "low",
}
LEVELS = {name: level for level, name in _NAMES.items()}
_LARGE = {"text", "reasoning", "calls", "choices", "logprobs", "vectors", "ranking", "transcript"}


class WebhookView(BaseModel):
    """What became of telling that a job has ended."""

    state: Literal["waiting", "delivered", "given_up"]
    tries: int
    said: str | None = Field(default=None, description="What came of the latest try")
    next_at: datetime | None = Field(default=None, description="When it is tried again")


class JobFacts(BaseModel):
    """What is told of a job at `/jobs` besides."""

    level: LevelName = Field(description="Its place inside its modality")
    version: int = Field(description="One more with every step it takes")
    starts_in_s: float | None = Field(
        default=None, description="About how many seconds until it starts, if that can be told"
    )
    submitted_at: datetime
    started_at: datetime | None = Field(default=None, description="Start of the latest attempt")
    ended_at: datetime | None = None
    retry_at: datetime | None = Field(
        default=None, description="When it may be tried again, after an attempt that failed"
    )
    deadline: datetime = Field(description="After which nobody wants the result")
    backend: str | None = Field(default=None, description="Where the latest attempt ran")
    retry_of: str | None = Field(default=None, description="The job that this one repeats")
    batch: str | None = Field(default=None, description="What it was handed over with")
    card_free_in_s: float | None = Field(
        default=None,
        description="After it was cancelled: about how many seconds the engine still works on it",
    )
    deduplicated: bool | None = Field(
        default=None, description="It was there already: the same key was sent again"
    )
    webhook: WebhookView | None = Field(
        default=None, description="Whether its `webhook` was told that it has ended"
    )


class JobReport(JobFacts, JobView):
    """All that is known of one job."""

    model_config = ConfigDict(use_enum_values=True)


class JobLine(BaseModel):
    """A job in a list."""

    job_id: str
    modality: Modality
    state: JobState
    model: str | None = None
    level: LevelName
    position: int | None = Field(default=None, description="Jobs that go first; 0 is next")
    attempts: int
    version: int
    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline: datetime
    backend: str | None = None
    retry_of: str | None = None
    batch: str | None = None
    error: ErrorDetail | None = Field(
        default=None, description="Why it failed, or why its latest attempt did"
    )


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    jobs: list[JobLine]
    next: str | None = Field(
        default=None, description="The `cursor` of the next page; left out on the last one"
    )


class JobReports(BaseModel):
    """Jobs that were taken in together."""

    jobs: list[JobReport]
    batch: str = Field(description="By this they are found again in the list")
    deduplicated: bool | None = Field(
        default=None, description="They were there already: the same key was sent again"
    )


def report(
    tools: Tools, processor: Processor, job: Job, base_url: str, *, estimate: bool = True
) -> JobReport:
    """Tell all of a job; `base_url` is where the caller reached this server.

    Without an `estimate` of its start it costs little, however long the line is.
    """
    shown = tools.view(job, base_url)
    now, run = tools.now(), ghost(processor, job)
    waits = shown.position is not None
    starts_in = processor.starts_in(job.id) if estimate and waits else None
    promise = job.promise
    told = JobReport(
        **dict(shown),
        level=_NAMES[job.level],
        version=job.version,
        starts_in_s=None if starts_in is None else round(starts_in, 1),
        submitted_at=moment(job.submitted_at),
        started_at=_moment(job.started_at),
        ended_at=_moment(job.ended_at),
        retry_at=_moment(job.retry_at),
        deadline=moment(job.deadline),
        backend=job.backend or None,
        retry_of=(promise and promise.retry_of) or None,
        batch=(promise and promise.batch) or None,
        card_free_in_s=None if run is None else rest_of(processor, run, now),
    )
    if not job.state.terminal:
        told.next = f"GET /jobs/{job.id}?wait=30, or follow GET /jobs/{job.id}/events"
    return told


def webhook_view(told: Report) -> WebhookView:
    """Show what became of telling that a job has ended."""
    return WebhookView(
        state=told.state.value,
        tries=told.tries,
        said=told.said or None,
        next_at=_moment(told.next_at),
    )


def outline(told: JobReport) -> dict[str, object]:
    """Return a report without what may be large, for a message: the job itself has the rest."""
    return told.model_dump(mode="json", exclude_none=True, exclude=_LARGE)


def line(job: Summary, position: int | None) -> JobLine:
    """Show a job in a list."""
    return JobLine(
        job_id=job.id,
        modality=job.modality,
        state=job.state,
        model=job.model,
        level=_NAMES[job.level],
        position=position,
        attempts=job.attempts,
        version=job.version,
        submitted_at=moment(job.submitted_at),
        started_at=_moment(job.started_at),
        ended_at=_moment(job.ended_at),
        deadline=moment(job.deadline),
        backend=job.backend or None,
        retry_of=job.retry_of or None,
        batch=job.batch or None,
        error=None if job.error is None else describe(job.error),
    )


def told_step(job_id: str, step: Step) -> dict[str, object]:
    """Show a step of a job's history."""
    return {
        "job_id": job_id,
        "state": str(step.state),
        "version": step.version,
        "at": moment(step.at).isoformat(),
        "attempt": step.attempt,
        **({"detail": step.detail} if step.detail else {}),
    }


def moment(at: float) -> datetime:
    """Write a time, in seconds since 1970, as people do."""
    return datetime.fromtimestamp(round(at, 3), UTC)


def _moment(at: float | None) -> datetime | None:
    return None if at is None else moment(at)
