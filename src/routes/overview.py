"""The state of the queues and backends, as every door shows it."""

from pydantic import BaseModel, Field

from ..models.modality import Modality
from ..processor import Processor
from ..utils.system import system_load


class RunningView(BaseModel):
    """An attempt that holds a slot."""

    job_id: str
    model: str
    backend: str
    elapsed_s: float
    ghost: bool = Field(
        default=False, description="Nobody waits for it any more, but the engine finishes it"
    )


class QueueView(BaseModel):
    """One modality's queue."""

    priority: int = Field(description="1 is drained first")
    waiting: int = Field(description="Jobs in line")
    retrying: int = Field(description="Jobs that wait for another attempt")
    oldest_age_s: float | None = Field(description="Seconds the oldest waiting job has waited")
    running: list[RunningView]


class ResidentView(BaseModel):
    """A model in memory."""

    running: int
    parallel: int


class BackendView(BaseModel):
    """One backend."""

    up: bool
    detail: str
    version: str
    since_s: float = Field(description="Seconds it has been up or down")
    resident: dict[str, ResidentView]
    loading: str | None
    cooling: dict[str, float] = Field(
        description="Models that failed to load, and the seconds until the next try"
    )


class SystemView(BaseModel):
    """How busy the machine is on which the manager runs."""

    cpu_percent: float
    memory_percent: float
    timestamp: float = Field(description="Seconds since 1970")


class QueueStatus(BaseModel):
    """What `/queue-status` answers."""

    queues: dict[Modality, QueueView]
    waiting: int
    running: int
    draining: bool
    backends: dict[str, BackendView]
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
            )
        )
    queues: dict[Modality, QueueView] = {}
    for rank, modality in enumerate(line.order, start=1):
        oldest = line.oldest(modality)
        queues[modality] = QueueView(
            priority=rank,
            waiting=line.count(modality),
            retrying=scheduler.delayed(modality),
            oldest_age_s=None if oldest is None else round(max(now - oldest.submitted_at, 0), 3),
            running=running[modality],
        )
    load = system_load()
    return QueueStatus(
        queues=queues,
        waiting=scheduler.waiting,
        running=len(scheduler.running),
        draining=scheduler.draining,
        backends={name: backend_view(processor, name, now) for name in processor.backends},
        system=SystemView(
            cpu_percent=load.cpu_percent, memory_percent=load.memory_percent, timestamp=now
        ),
    )


def backend_view(processor: Processor, name: str, now: float) -> BackendView:
    """Look at one backend."""
    state, capacity = processor.backends[name], processor.scheduler.capacity
    return BackendView(
        up=bool(state.up),
        detail=state.detail,
        version=state.version,
        since_s=round(max(now - state.since, 0.0), 3),
        resident={
            model: ResidentView(running=running, parallel=capacity.parallel(model))
            for model, running in capacity.resident(name).items()
        },
        loading=capacity.loading(name),
        cooling={
            model: round(until - now, 3) for model, until in capacity.cooling(name, now).items()
        },
    )
