"""The state of the queues and backends, as every door shows it."""

from pydantic import BaseModel, Field

from ..models.controls import EVERYTHING, Scope
from ..models.modality import Modality
from ..processor import Processor
from ..utils.system import system_load
from .callers import current_caller
from .situation import parked


class RunningView(BaseModel):
    """An attempt that holds a slot."""

    job_id: str
    model: str
    backend: str
    elapsed_s: float
    ghost: bool = Field(
        default=False, description="Nobody waits for it any more, but the engine finishes it"
    )
    ends_in_s: float | None = Field(
        default=None, description="Seconds until such attempts usually end"
    )


class QueueView(BaseModel):
    """One modality's queue."""

    priority: int = Field(description="1 is drained first")
    waiting: int = Field(description="Jobs in line, paused ones included")
    paused: int = Field(description="How many of them an operator's pauses hold back")
    retrying: int = Field(description="Jobs that wait for another attempt")
    oldest_age_s: float | None = Field(description="Seconds the oldest waiting job has waited")
    running: list[RunningView]


class ResidentView(BaseModel):
    """A model in memory."""

    running: int
    parallel: int = Field(description="Attempts that may run at once now; fewer after a failure")


class PauseView(BaseModel):
    """A model that is left alone, because it failed to load, died, or kept failing."""

    seconds: float = Field(description="Until it is tried again")
    why: str


class QuarantinedView(BaseModel):
    """A job that was given up because the model's process died of it more than once."""

    job_id: str
    modality: Modality
    model: str
    age_s: float = Field(description="Seconds since it was given up")


class BackendView(BaseModel):
    """One backend."""

    up: bool
    detail: str
    version: str
    since_s: float = Field(description="Seconds it has been up or down")
    resident: dict[str, ResidentView]
    loading: str | None
    loading_for_s: float | None = Field(description="Seconds for which it has been loading")
    usual_load_s: float | None = Field(description="Seconds that this usually takes")
    paused: dict[str, PauseView] = Field(description="Models that are left alone for a while")


class SystemView(BaseModel):
    """How busy the machine is on which the manager runs."""

    cpu_percent: float
    memory_percent: float
    timestamp: float = Field(description="Seconds since 1970")


class ScopeView(BaseModel):
    """Which jobs are meant; all of them where nothing is named."""

    modality: Modality | None = None
    model: str | None = None
    caller: str | None = None


class QueueStatus(BaseModel):
    """What `/queue-status` answers."""

    queues: dict[Modality, QueueView]
    waiting: int
    running: int
    draining: bool = Field(description="No new work is taken in")
    stopped: bool = Field(description="An operator has stopped all work: nothing is started")
    paused: list[ScopeView] = Field(description="What an operator has paused, but not whom else")
    parked: dict[str, int] = Field(
        description="Jobs that wait for models which no backend that answers offers, by model"
    )
    backends: dict[str, BackendView]
    quarantined: list[QuarantinedView] = Field(
        description="Jobs that were given up because models died of them, the latest last"
    )
    system: SystemView


def queue_status(processor: Processor, now: float) -> QueueStatus:
    """Look at everything once."""
    scheduler, line = processor.scheduler, processor.scheduler.line
    running: dict[Modality, list[RunningView]] = {modality: [] for modality in line.order}
    for run in scheduler.running:
        running[run.entry.modality].append(
            RunningView(
                job_id=run.entry.id,
                model=run.entry.model or "",
                backend=run.backend,
                elapsed_s=round(max(now - run.since, 0.0), 3),
                ghost=run.ghost,
                ends_in_s=_rest(scheduler.ends_at(run), now),
            )
        )
    queues: dict[Modality, QueueView] = {}
    for rank, modality in enumerate(line.order, start=1):
        oldest = scheduler.oldest(modality)
        queues[modality] = QueueView(
            priority=rank,
            waiting=scheduler.count(modality),
            paused=scheduler.held.count(modality),
            retrying=scheduler.delayed(modality),
            oldest_age_s=None if oldest is None else round(max(now - oldest.submitted_at, 0), 3),
            running=running[modality],
        )
    load = system_load()
    return QueueStatus(
        queues=queues,
        waiting=scheduler.waiting,
        running=len(scheduler.running),
        draining=scheduler.draining or scheduler.controls.draining is not None,
        stopped=scheduler.controls.stopped is not None,
        paused=[
            scope_view(scope)
            for scope in scheduler.controls.paused
            if scope.kind != "caller" or scope.name == current_caller()
        ],
        parked=dict(parked(processor)),
        backends={name: backend_view(processor, name, now) for name in processor.backends},
        quarantined=[
            QuarantinedView(
                job_id=job.id,
                modality=job.modality,
                model=job.model or "",
                age_s=round(max(now - (job.ended_at or now), 0.0), 3),
            )
            for job in processor.quarantined
        ],
        system=SystemView(
            cpu_percent=load.cpu_percent, memory_percent=load.memory_percent, timestamp=now
        ),
    )


def scope_view(scope: Scope) -> ScopeView:
    """Show a scope."""
    return ScopeView.model_validate({} if scope == EVERYTHING else {scope.kind: scope.name})


def backend_view(processor: Processor, name: str, now: float) -> BackendView:
    """Look at one backend."""
    state, capacity = processor.backends[name], processor.scheduler.capacity
    loading, began = capacity.loading(name), processor.loads.began.get(name)
    return BackendView(
        up=bool(state.up),
        detail=state.detail,
        version=state.version,
        since_s=round(max(now - state.since, 0.0), 3),
        resident={
            model: ResidentView(running=running, parallel=capacity.limit(name, model))
            for model, running in capacity.resident(name).items()
        },
        loading=loading,
        loading_for_s=None if began is None else _rounded(max(now - began, 0.0)),
        usual_load_s=_rounded(processor.scheduler.usual_load_s(loading) if loading else None),
        paused={
            model: PauseView(seconds=round(pause.until - now, 3), why=pause.why)
            for model, pause in capacity.pauses(name, now).items()
        },
    )


def _rest(ends_at: float | None, now: float) -> float | None:
    return None if ends_at is None else _rounded(max(ends_at - now, 0.0))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
