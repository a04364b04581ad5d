"""Request and error metrics: the last 1000 jobs, the last 100 errors, and no word of content."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from .errors import DeadlineExceeded, InferenceManagerError, UnknownModel
from .events import Ended, Event, ModelLoaded, Retried
from .jobs import Job, JobState
from .modality import Modality
from .requests import InferenceRequest

Parameter = str | int | float | bool
_MAX_COUNTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSample:
    """How one job went. Times are seconds; `ended_at` seconds since 1970."""

    model: str
    modality: Modality
    state: JobState
    wait_s: float
    processing_s: float
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSample:
    """One error, with parameters that hold sizes and numbers but never content."""

    at: float
    job_id: str
    model: str
    modality: Modality
    code: str
    message: str
    final: bool
    parameters: Mapping[str, Parameter]


def sanitised(request: InferenceRequest) -> Mapping[str, Parameter]:
    """Describe a request by numbers alone: texts, pictures and recordings become their lengths."""
    told: dict[str, Parameter] = {}
    lengths = request.lengths()
    for name, value in request:
        if name == "model" or value in (None, (), {}):
            continue
        if isinstance(value, int | float):
            told[name] = value
            continue
        if isinstance(value, tuple | list):
            told[name] = len(cast("list[object]", value))
        told[f"{name}_chars"] = lengths[name]
    return told


class RequestMetrics:
    """Waits, processing times, throughput and success rate over the last jobs that ended."""

    def __init__(self, keep: int = 1000) -> None:
        self._samples: deque[RequestSample] = deque(maxlen=keep)
        self._total: Counter[Modality] = Counter()

    def __call__(self, event: Event) -> None:
        """Listen."""
        if isinstance(event, Ended):
            job = event.job
            assert job.ended_at is not None, "an ended job has a time of its end"  # noqa: S101
            began = job.started_at if job.started_at is not None else job.ended_at
            self._total[job.modality] += 1
            self._samples.append(
                RequestSample(
                    model=job.model or "",
                    modality=job.modality,
                    state=job.state,
                    wait_s=max(began - job.submitted_at, 0.0),
                    processing_s=max(job.ended_at - began, 0.0),
                    ended_at=job.ended_at,
                )
            )

    def report(self, now: float) -> "RequestReport":
        """Sum up, over all modalities and for each."""
        samples = list(self._samples)
        return RequestReport(
            total_requests=self._total.total(),
            window=len(samples),
            overall=_figures(samples, now),
            by_modality={
                m: _figures([s for s in samples if s.modality is m], now)
                for m in Modality
                if self._total[m]
            },
            recent=tuple(samples[-10:]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Averages and rates over some jobs; None where there is nothing to average.

    `success_rate` is completed / (completed + failed + expired): a cancelled job is nobody's
    failure. `throughput_per_minute` counts completed jobs over the time since the oldest sample.
    """

    count: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    success_rate: float | None
    throughput_per_minute: float
    wait_avg_s: float | None
    wait_p95_s: float | None
    processing_avg_s: float | None
    processing_p95_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReport:
    """What `get_request_metrics` answers."""

    total_requests: int
    window: int
    overall: Figures
    by_modality: Mapping[Modality, Figures]
    recent: tuple[RequestSample, ...]


def _figures(samples: list[RequestSample], now: float) -> Figures:
    states = Counter(s.state for s in samples)
    completed = states[JobState.COMPLETED]
    decided = len(samples) - states[JobState.CANCELLED]
    waits = sorted(s.wait_s for s in samples)
    runs = sorted(s.processing_s for s in samples if s.state is JobState.COMPLETED)
    oldest = min((s.ended_at - s.processing_s for s in samples), default=now)
    return Figures(
        count=len(samples),
        completed=completed,
        failed=states[JobState.FAILED],
        cancelled=states[JobState.CANCELLED],
        expired=states[JobState.EXPIRED],
        success_rate=completed / decided if decided else None,
        throughput_per_minute=60.0 * completed / max(now - oldest, 1.0),
        wait_avg_s=_mean(waits),
        wait_p95_s=_p95(waits),
        processing_avg_s=_mean(runs),
        processing_p95_s=_p95(runs),
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _p95(ascending: list[float]) -> float | None:
    """Return the nearest rank: the smallest value that 95 % do not exceed."""
    return ascending[(len(ascending) * 95 - 1) // 100] if ascending else None


class ErrorLog:
    """Errors by modality and model, and the last ones in detail.

    A model that nobody offers, or one too many, is counted as `unknown`: callers can make up as
    many names as they like.
    """

    def __init__(self, keep: int = 100) -> None:
        self._recent: deque[ErrorSample] = deque(maxlen=keep)
        self._counts: Counter[tuple[Modality, str, str]] = Counter()

    def __call__(self, event: Event) -> None:
        """Listen."""
        match event:
            case Retried(job, error):
                self._note(job, error, final=False)
            case ModelLoaded(Job() as job, error=InferenceManagerError() as error):
                self._note(job, error, final=False)
            case Ended(job) if job.state is JobState.FAILED and job.error is not None:
                self._note(job, job.error, final=True)
            case Ended(job) if job.state is JobState.EXPIRED:
                self._note(job, DeadlineExceeded("the deadline passed first"), final=True)
            case _:
                pass

    def report(self) -> "ErrorReport":
        """Sum up."""
        by_modality: dict[str, dict[str, int]] = {}
        by_code: Counter[str] = Counter()
        for (modality, model, code), count in self._counts.items():
            models = by_modality.setdefault(modality, {})
            models[model] = models.get(model, 0) + count
            by_code[code] += count
        return ErrorReport(
            total_errors=self._counts.total(),
            counts_by_type=by_modality,
            counts_by_code=dict(by_code),
            recent_errors=tuple(reversed(self._recent)),
        )

    def _note(self, job: Job, error: InferenceManagerError, *, final: bool) -> None:
        model = "unknown" if isinstance(error, UnknownModel) else job.model or "unknown"
        if (
            len(self._counts) >= _MAX_COUNTS
            and (job.modality, model, error.code) not in self._counts
        ):
            model = "unknown"
        self._counts[job.modality, model, error.code] += 1
        at = job.ended_at if job.ended_at is not None else job.started_at
        self._recent.append(
            ErrorSample(
                at=at if at is not None else job.submitted_at,
                job_id=job.id,
                model=model,
                modality=job.modality,
                code=error.code,
                message=error.message,
                final=final,
                parameters=sanitised(job.request),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReport:
    """What `get_error_metrics` answers; `recent_errors` newest first."""

    total_errors: int
    counts_by_type: Mapping[str, Mapping[str, int]]
    counts_by_code: Mapping[str, int]
    recent_errors: tuple[ErrorSample, ...]
