"""A processor without a network: the same steps, scheduler, store and recovery, one at a time."""

from collections.abc import Callable, Sequence

from src.models.capacity import BackendLimits, Capacity, ModelLimits
from src.models.events import Event
from src.models.jobs import Job, Level, Promise
from src.models.modality import Modality
from src.models.moving import Place
from src.models.ports import JobStore
from src.models.queues import Entry
from src.models.requests import REQUESTS, InferenceRequest
from src.models.scheduler import Decision, Expire, Scheduler, Start
from src.recovery import end_the_abandoned, recover

MODEL, BACKEND = "m", "b"


def asked(modality: str) -> InferenceRequest:
    request: InferenceRequest = REQUESTS[Modality(modality)].model_validate({"prompt": "p"})
    return request


class Driver:
    """One process: it begins by recovery, and then does as it is told."""

    def __init__(self, store: JobStore, *, slots: int, attempts: int) -> None:
        self.store = store
        self.now = 0.0
        self.told: list[Event] = []
        self.running: dict[str, Job] = {}
        """The jobs as they were when their attempts began."""
        self._attempts = attempts
        self._sequence = 0
        self.scheduler = Scheduler(Capacity({BACKEND: BackendLimits()}), affinity_s=0)
        self.scheduler.capacity.set_models({MODEL: ModelLimits(parallel=slots)})
        self.scheduler.backend_up(BACKEND, offers=[MODEL], resident=frozenset({MODEL}))

    async def begin(self, now: float) -> None:
        self.now = now
        self._sequence = await recover(
            self.store,
            self.scheduler,
            attempts=self._attempts,
            clock=lambda: self.now,
            tell=self.told.append,
        )
        await end_the_abandoned(
            self.store, self._sequence, clock=lambda: self.now, tell=self.told.append
        )

    async def submit(self, *wanted: tuple[str, str, int, str, float, Promise | None]) -> list[Job]:
        """Take jobs in, all or none: id, modality, level, caller, deadline, promise."""
        jobs: list[Job] = []
        for job_id, modality, level, caller, deadline, promise in wanted:
            self._sequence += 1
            job = Job(
                id=job_id,
                request=asked(modality),
                model=MODEL,
                caller=caller,
                level=Level(level),
                sequence=self._sequence,
                submitted_at=self.now,
                deadline=deadline,
                promise=promise,
            )
            jobs.append(job)
        await self.store.add(*jobs)
        for job in jobs:
            self.scheduler.restore(_entry(job))
        return jobs

    async def dispatch(self) -> tuple[list[str], list[str]]:
        """Do what the scheduler decides now; return who expired and who was started."""
        expired: list[str] = []
        started: list[str] = []
        while decisions := self.scheduler.next(self.now):
            overdue = await self._act(decisions, started)
            for job_id in overdue:
                await self.end(job_id, lambda job: job.expired(self.now))
            expired += overdue
        return expired, started

    async def _act(self, decisions: Sequence[Decision], started: list[str]) -> list[str]:
        overdue: list[str] = []
        for decision in decisions:
            match decision:
                case Expire(job_id):
                    overdue.append(job_id)
                case Start(job_id):
                    job = (await self.store.get(job_id)).started(BACKEND, self.now)
                    await self.store.save(job)
                    self.running[job_id] = job
                    started.append(job_id)
                case _:
                    raise AssertionError(decision)
        return overdue

    async def end(self, job_id: str, step: Callable[[Job], Job]) -> None:
        """End a job, waiting or running, and give its slot back."""
        await self.store.save(step(await self.store.get(job_id)))
        self.scheduler.withdrawn(job_id)
        if self.running.pop(job_id, None) is not None:
            self.scheduler.ended(job_id, self.now)

    async def put_back(self, job_id: str, step: Callable[[Job], Job]) -> None:
        """End an attempt after which the job waits again."""
        job = step(self.running.pop(job_id))
        await self.store.save(job)
        self.scheduler.returned(job_id, not_before=job.retry_at)

    async def promise(self, job_id: str) -> None:
        job = (await self.store.get(job_id)).promised()
        await self.store.save(job)
        if job_id in self.running:
            self.running[job_id] = job

    async def move(self, *places: tuple[str, int, int]) -> None:
        """Give waiting jobs other places: id, level, sequence."""
        jobs = [
            (await self.store.get(job_id)).moved(Level(level), sequence)
            for job_id, level, sequence in places
        ]
        await self.store.save(*jobs)
        self.scheduler.moved({job.id: Place(job.level, job.sequence) for job in jobs})

    async def stop(self, plain: Sequence[str], step: Callable[[Job], Job]) -> None:
        """End well: put back what was promised and runs; what was not takes a last step."""
        for job in self.running.values():
            if job.promise is not None:
                await self.store.save(job.requeued())
        for job_id in plain:
            await self.store.save(step(await self.store.get(job_id)))
        await self.store.close()


def _entry(job: Job) -> Entry:
    return Entry(
        id=job.id,
        modality=job.modality,
        level=job.level,
        model=job.model,
        sequence=job.sequence,
        submitted_at=job.submitted_at,
        deadline=job.deadline,
        caller=job.caller,
    )
