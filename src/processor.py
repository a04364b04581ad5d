"""The processor: asks the scheduler what to do, does it, and reports back.

One dispatcher loop acts on decisions. Every attempt and every load is a task of its own. Core
objects need no lock: only this event loop touches them, and their methods never await.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import assert_never

from .attempts import Attempts
from .handles import JobHandle
from .live_jobs import LiveJobs
from .loads import Loads
from .models.capacity import Pause
from .models.catalog import Catalog, ModelDefinition
from .models.errors import (
    BackendUnseen,
    Draining,
    InferenceManagerError,
    InvalidTransition,
    UnknownJob,
    UnknownModel,
)
from .models.events import Listener, Submitted
from .models.forecast import starts_in
from .models.jobs import Job, JobState, Level, Promise
from .models.modality import Modality
from .models.ports import Backend, Blobs, Clock, JobStore
from .models.queues import Entry
from .models.requests import InferenceRequest
from .models.scheduler import Expire, Load, Scheduler, ShutDown, Start
from .recovery import end_the_abandoned, recover
from .utils.retry import RetryPolicy
from .watch import BackendState, BackendWatch

logger = logging.getLogger("inference_manager.processor")

_AT_ONCE = 100
"""So many jobs are dealt with together."""
_BACK_S = 5.0
"""When to look whether a server that was told to stop is back."""


_PLAINLY = Promise()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things may take, in seconds.

    Attributes:
        deadline_s: from submission to the end, where the caller names no deadline.
        promised_s: the same for jobs that were promised.
        attempt_s: one attempt on a backend.
        ghost_s: for an engine to finish what nobody waits for, before its slot is given on.
        look_s: between two looks at a backend that answers.
        recheck_s: between looks at one that does not; the last value is repeated.
        crash_s: for which a model whose process died is left alone, unless the backend notices
            earlier: until then it may send requests to where nobody is.
        lost_s: for which a backend may be silent before what runs there is given up.

    """

    deadline_s: Mapping[Modality, float]
    attempt_s: Mapping[Modality, float]
    promised_s: float = 86_400.0
    ghost_s: float = 300.0
    look_s: float = 30.0
    recheck_s: Sequence[float] = (0.5, 1.0, 2.0, 5.0, 10.0)
    crash_s: float = 30.0
    lost_s: float = 60.0


class Processor:
    """Takes requests in, has them run in order, and settles the handles of their callers."""

    def __init__(
        self,
        *,
        backends: Sequence[Backend],
        store: JobStore,
        scheduler: Scheduler,
        definitions: Iterable[ModelDefinition],
        retry: RetryPolicy,
        timing: Timing,
        clock: Clock,
        new_id: Callable[[], str],
        listeners: Sequence[Listener] = (),
        blobs: Blobs | None = None,
        warm: Sequence[str] = (),
    ) -> None:
        self.scheduler = scheduler
        self.store = store
        self._backends = {backend.name: backend for backend in backends}
        self._timing = timing
        self._clock = clock
        self._new_id = new_id
        self._sequence = 0
        self._stopping = False
        self._max_attempts = retry.attempts
        self._overdue: list[str] = []
        self._dozing = False
        """Whether the dispatcher looks again by itself, within a second."""
        self._tasks: asyncio.TaskGroup
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._jobs = LiveJobs(store, clock=clock, listeners=listeners)
        self._watch = BackendWatch(
            backends,
            scheduler,
            definitions,
            clock=clock,
            look_s=timing.look_s,
            recheck_s=timing.recheck_s,
            lost_s=timing.lost_s,
            tell=self._jobs.tell,
            looked=self._after_look,
            lost=lambda backend: self._attempts.give_up(backend),
        )
        parts = (self._backends, scheduler, self._watch, self._jobs)
        self.loads = Loads(*parts, clock=clock, attempts=retry.attempts, wake=self.wake)
        self._attempts = Attempts(
            *parts,
            clock=clock,
            blobs=blobs,
            retry=retry,
            attempt_s=timing.attempt_s,
            ghost_s=timing.ghost_s,
            crash_s=timing.crash_s,
            wake=self.wake,
        )
        self.quarantined: Sequence[Job] = self._attempts.quarantined
        scheduler.warm_up(warm)

    def __repr__(self) -> str:
        return f"<Processor [{len(self._jobs)} live jobs] {self.scheduler!r}>"

    # For the doors

    async def submit(
        self,
        request: InferenceRequest,
        *,
        caller: str = "anonymous",
        level: Level = Level.NORMAL,
        deadline_s: float | None = None,
        promise: Promise | None = None,
    ) -> JobHandle:
        """Take a request in and return the handle of its job.

        Args:
            request: what to do, its pictures checked by `attachments.prepare`.
            caller: who asks.
            level: the job's place inside its modality.
            deadline_s: seconds from now after which nobody wants the result.
            promise: what is promised to the caller; the job is then on the disk when this returns.

        Raises:
            UnknownModel: no backend offers the model for this modality.
            BackendUnseen: a backend that was not reached yet may offer it.
            InvalidInput: the model cannot do what the request asks for.
            TooManyWaiting: as many jobs of this caller wait as may wait.
            QueueFull: as many jobs wait as may wait.
            Draining: the manager shuts down.
            StorageFailed: the job was to be promised, and cannot be kept.

        """
        job = self._job(request, caller, level, deadline_s, promise)
        (handle,) = await self._take_in([job])
        return handle

    async def submit_all(
        self,
        asked: Sequence[tuple[InferenceRequest, Promise]],
        *,
        caller: str = "anonymous",
        level: Level = Level.NORMAL,
        deadline_s: float | None = None,
    ) -> list[JobHandle]:
        """Take requests in, all of them or none, in this order; raises as `submit`."""
        jobs = [
            self._job(request, caller, level, deadline_s, promise) for request, promise in asked
        ]
        return await self._take_in(jobs)

    async def promise(self, handle: JobHandle, promise: Promise = _PLAINLY) -> None:
        """Promise that a job is carried out: it is on the disk when this returns.

        Raises:
            StorageFailed: it cannot be kept.

        """
        await self._jobs.promise(handle, promise)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job, waiting or running, and return its state; harmless if it has ended.

        Raises:
            UnknownJob: there is no such job.

        """
        return await self._end_early(job_id, Job.cancelled)

    async def handle(self, job_id: str) -> JobHandle:
        """Return the handle of a job, live or ended.

        Raises:
            UnknownJob: there is no such job.

        """
        return await self._jobs.handle(job_id)

    def position(self, job_id: str) -> int | None:
        """How many waiting jobs go first; None if the job does not wait in line."""
        return self.scheduler.position(job_id)

    def starts_in(self, job_id: str) -> float | None:
        """About how many seconds pass before a waiting job starts; None if nobody can tell."""
        return starts_in(self.scheduler, job_id, self._clock())

    def is_loading(self, model: str | None) -> bool:
        """Whether a backend brings this model into memory right now."""
        loading = self.scheduler.capacity.loading
        return model is not None and any(loading(name) == model for name in self.backends)

    def trouble(self, model: str | None) -> InferenceManagerError | None:
        """Why the latest load of a model failed; None if it succeeded or none was tried."""
        return None if model is None else self.loads.trouble.get(model)

    def pause(self, model: str) -> Pause | None:
        """Say why a model is left alone on every backend that has it, and until when at least."""
        now, capacity = self._clock(), self.scheduler.capacity
        pauses = [capacity.pauses(name, now).get(model) for name in capacity.offering(model)]
        known = [pause for pause in pauses if pause is not None]
        return min(known, default=None) if len(known) == len(pauses) else None

    @property
    def backends(self) -> Mapping[str, BackendState]:
        """What is known of each backend's health."""
        return self._watch.states

    @property
    def catalog(self) -> Catalog:
        """The models that may be asked for now."""
        return self._watch.catalog

    @property
    def simulated(self) -> bool:
        """Whether a simulator stands in for a backend."""
        return any(state.simulated for state in self.backends.values())

    @property
    def alive(self) -> bool:
        """Whether the dispatcher runs."""
        return self._loop is not None and not self._loop.done()

    def listen(self, listener: Listener) -> None:
        """Tell every event from now on to one more who listens."""
        self._jobs.listeners.append(listener)

    def wake(self) -> None:
        """Have the dispatcher look again now."""
        self._wake.set()

    # The life of the processor

    def drain(self) -> None:
        """Prepare for the end: new work is refused, nothing is started any more."""
        self._stopping = True
        self.scheduler.drain()

    @asynccontextmanager
    async def running(self, *, grace_s: float = 0.0) -> AsyncGenerator[None]:
        """Take up what was left behind, and run the dispatcher for as long as the block lasts.

        On the way out nothing is started any more. Attempts and loads that run get `grace_s`
        seconds. Promised jobs that are left stay in the store, in their places; any others fail
        with `Draining`. So nobody waits for ever.

        Raises:
            StorageFailed: what was left behind cannot be read, or the store not be opened.

        """
        await self.store.open()
        last = await recover(
            self.store,
            self.scheduler,
            attempts=self._max_attempts,
            clock=self._clock,
            tell=self._jobs.tell,
        )
        self._sequence = max(self._sequence, last)
        self._loop = asyncio.create_task(self._run(last), name="dispatcher")
        self._loop.add_done_callback(_tell_if_it_failed)
        try:
            yield
        finally:
            self.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self.idle()
            await self.part()
            for backend in self._backends.values():
                await backend.close()
            await self.store.close()

    async def idle(self) -> None:
        """Wait until nothing is being loaded, and nothing worked on that anybody waits for."""
        while True:
            ghosts = {run.entry.id for run in self.scheduler.running if run.ghost}
            attempts = {t for job_id, t in self._attempts.running.items() if job_id not in ghosts}
            if not (running := attempts | self.loads.running):
                return
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    async def part(self) -> None:
        """Stop whatever still runs, and let go of all jobs; harmless if that was done before."""
        if self._loop is None:
            return
        left = self._jobs.held
        self._loop.cancel()
        await asyncio.wait([self._loop])
        await self._jobs.close()
        await self._part_with(left)

    async def _part_with(self, handles: Iterable[JobHandle]) -> None:
        """Put promised jobs back into their places; end the others, whose callers wait here."""
        error = Draining("the server shut down before the job could end", retry_after=_BACK_S)
        for handle in handles:
            if handle.job.promise is None:
                await self._jobs.fail(handle, error)
                continue
            if handle.job.state is JobState.PROCESSING:
                with suppress(InferenceManagerError):  # as after a crash: the attempt then counts
                    await self._jobs.step(handle, Job.requeued)
            handle.part(
                Draining(
                    "the server stops; the job goes on when it is back",
                    hint=f"ask for /jobs/{handle.id} then",
                    retry_after=_BACK_S,
                )
            )

    async def _run(self, last: int) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            for backend in self._backends.values():
                self._tasks.create_task(self._watch.run(backend), name=f"watch {backend.name}")
            self._tasks.create_task(self._end_the_abandoned(last), name="end the abandoned")
            while True:
                self._wake.clear()
                self._dispatch()
                if overdue := self._overdue:
                    self._overdue = []
                    await _each(overdue, lambda job_id: self._end_early(job_id, self._expired))
                await self._rest()

    async def _end_the_abandoned(self, last: int) -> None:
        try:
            await end_the_abandoned(self.store, last, clock=self._clock, tell=self._jobs.tell)
        except InferenceManagerError:
            logger.exception("jobs whose callers are gone cannot be ended")

    async def _rest(self) -> None:
        now = self._clock()
        due = self.scheduler.wake_at(now)
        delay = None if due is None else min(max(due - now, 0.0), 1.0)
        self._dozing = due is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    def _dispatch(self) -> None:
        """Act on what the scheduler decides now; the dispatcher ends what is overdue."""
        if self._stopping:
            return
        try:
            for decision in self.scheduler.next(self._clock()):
                match decision:
                    case Start():
                        self._attempts.start(decision, self._tasks)
                    case Load():
                        self.loads.start(decision, self._tasks)
                    case ShutDown():
                        self.loads.shut_down(decision, self._tasks)
                    case Expire(job_id):
                        self._overdue.append(job_id)
                    case _:
                        assert_never(decision)
        except Exception:
            logger.exception("the dispatcher failed to act and goes on")

    async def _end_early(self, job_id: str, step: Callable[[Job, float], Job]) -> Job:
        handle = await self._jobs.handle(job_id)
        if handle.job.state.terminal:
            return handle.job
        self.scheduler.withdrawn(job_id)
        await self._jobs.end(handle, lambda job: step(job, self._clock()))
        self._attempts.stop(handle)
        self.wake()
        return handle.job

    def _expired(self, job: Job, now: float) -> Job:
        return job.expired(now, self.trouble(job.model))

    # Taking in

    def _job(
        self,
        request: InferenceRequest,
        caller: str,
        level: Level,
        deadline_s: float | None,
        promise: Promise | None,
    ) -> Job:
        """Make a job of a request; raises what is wrong with it."""
        if self._loop is not None and not self.alive:
            raise Draining("nothing is dispatched any more; the server must be started again")
        try:
            model = self.catalog.resolve(request)
        except (UnknownModel, BackendUnseen):
            self._watch.look_everywhere()  # perhaps it was installed a moment ago
            raise
        if model is not None:
            request = self.catalog.with_defaults(request, model)
        now = self._clock()
        if promise is None:
            limit = self._timing.deadline_s[request.modality]
            deadline_s = limit if deadline_s is None else min(deadline_s, limit)
        elif deadline_s is None:
            deadline_s = self._timing.promised_s
        self._sequence += 1
        return Job(
            id=self._new_id(),
            request=request,
            model=model,
            caller=caller,
            level=level,
            sequence=self._sequence,
            submitted_at=now,
            deadline=now + deadline_s,
            promise=promise,
        )

    async def _take_in(self, jobs: Sequence[Job]) -> list[JobHandle]:
        """Let jobs into the line, all of them or none, once they are kept."""
        entries: list[Entry] = []
        try:
            for job in jobs:
                entry = self._entry(job)
                self.scheduler.admit(entry)
                entries.append(entry)
        except BaseException:
            for entry in entries:
                self.scheduler.dismissed(entry)
            raise
        work = self._enter(jobs, entries)
        plain = jobs[0].promise is None
        return await (work if plain else self._jobs.certainly(work))

    async def _enter(self, jobs: Sequence[Job], entries: Sequence[Entry]) -> list[JobHandle]:
        try:
            handles = await self._jobs.add(*jobs)
        except BaseException:
            for entry in entries:
                self.scheduler.dismissed(entry)
            raise
        for job, entry in zip(jobs, entries, strict=True):
            self.scheduler.restore(entry)
            self._jobs.tell(Submitted(job, self.scheduler.position(job.id) or 0))
        if self.catalog.known:  # which it may have become while they were being stored
            await _each([e.id for e in entries if e.model is None], self._name_model)
        if self.alive and self._dozing:  # no need to wake the dispatcher: it looks every second
            self._dispatch()
        if not self._dozing or self._overdue:
            self.wake()
        return handles

    def _entry(self, job: Job) -> Entry:
        """Say what the line must know; a promised job waits on the disk, with all it has."""
        on_disk = sum(blob.size for blob in job.request.blobs)
        in_memory = job.request.size_bytes - on_disk
        return Entry(
            id=job.id,
            modality=job.modality,
            level=job.level,
            model=job.model if self.catalog.known else None,
            sequence=job.sequence,
            submitted_at=job.submitted_at,
            deadline=job.deadline,
            size_bytes=in_memory if job.promise is None else 0,
            disk_bytes=on_disk if job.promise is None else on_disk + in_memory,
            caller=job.caller,
        )

    # Models

    async def _after_look(self, backend: str, resident: frozenset[str] | None) -> None:
        if resident is not None:
            self._attempts.lay_to_rest(backend, resident)
        unnamed = [e.id for e in self.scheduler.waiting_entries() if e.model is None]
        await _each(unnamed, self._name_model)
        self.wake()

    async def _name_model(self, job_id: str) -> None:
        """Check a job that was accepted before it was known which models there are."""
        try:
            handle = await self._jobs.handle(job_id)
        except UnknownJob:
            return
        if handle.job.state.terminal:
            return  # it was ended meanwhile
        request = handle.job.request
        try:
            model = self.catalog.resolve(request)
            if model is not None:
                request = self.catalog.with_defaults(request, model)
        except InferenceManagerError as error:
            self.scheduler.withdrawn(job_id)
            await self._jobs.fail(handle, error)
            return
        if model is not None:
            with suppress(InvalidTransition):
                await self._jobs.step(handle, lambda job: job.resolved(model, request))
                self.scheduler.resolved(job_id, model)


def _tell_if_it_failed(loop: asyncio.Task[None]) -> None:
    if not loop.cancelled() and (error := loop.exception()) is not None:
        logger.critical("the dispatcher has ended; the server must be restarted", exc_info=error)


async def _each(job_ids: Sequence[str], work: Callable[[str], Awaitable[object]]) -> None:
    """Do the same with many jobs, some at a time, so that they share what their store writes."""
    for at in range(0, len(job_ids), _AT_ONCE):
        done = await asyncio.gather(*map(work, job_ids[at : at + _AT_ONCE]), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException) and not isinstance(error, UnknownJob):
                logger.error("a job could not be dealt with", exc_info=error)
