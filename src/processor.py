"""The processor: asks the scheduler what to do, does it, and reports back.

One dispatcher loop acts on decisions. Every attempt and every load is a task of its own. Core
objects need no lock: only this event loop touches them, and their methods never await.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
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
    UnknownModel,
)
from .models.events import Listener, Submitted
from .models.forecast import starts_in
from .models.jobs import Job, Level
from .models.modality import Modality
from .models.ports import Backend, Blobs, Clock, JobStore
from .models.queues import Entry
from .models.requests import InferenceRequest
from .models.scheduler import Expire, Load, Scheduler, ShutDown, Start
from .utils.retry import RetryPolicy
from .watch import BackendState, BackendWatch

logger = logging.getLogger("inference_manager.processor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things may take, in seconds.

    Attributes:
        deadline_s: from submission to the end, where the caller names no deadline.
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
        self._backends = {backend.name: backend for backend in backends}
        self._store = store
        self._timing = timing
        self._clock = clock
        self._new_id = new_id
        self._sequence = 0
        self._closing = False
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
        return f"<Processor [{len(self._jobs.handles)} live jobs] {self.scheduler!r}>"

    # For the doors

    async def submit(
        self,
        request: InferenceRequest,
        *,
        caller: str = "anonymous",
        level: Level = Level.NORMAL,
        deadline_s: float | None = None,
    ) -> JobHandle:
        """Take a request in and return the handle of its job.

        Args:
            request: what to do, its pictures checked by `attachments.prepare`.
            caller: who asks.
            level: the job's place inside its modality.
            deadline_s: seconds from now after which nobody wants the result.

        Raises:
            UnknownModel: no backend offers the model for this modality.
            BackendUnseen: a backend that was not reached yet may offer it.
            InvalidInput: the model cannot do what the request asks for.
            TooManyWaiting: as many jobs of this caller wait as may wait.
            QueueFull: as many jobs wait as may wait.
            Draining: the manager shuts down.

        """
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
        limit = self._timing.deadline_s[request.modality]
        self._sequence += 1
        job = Job(
            id=self._new_id(),
            request=request,
            model=model,
            caller=caller,
            level=level,
            sequence=self._sequence,
            submitted_at=now,
            deadline=now + (limit if deadline_s is None else min(deadline_s, limit)),
        )
        entry = Entry(
            id=job.id,
            modality=job.modality,
            level=level,
            model=model if self.catalog.known else None,
            sequence=job.sequence,
            submitted_at=now,
            deadline=job.deadline,
            size_bytes=request.size_bytes - (on_disk := sum(b.size for b in request.blobs)),
            disk_bytes=on_disk,
            caller=caller,
        )
        self.scheduler.admit(entry)
        handle = await self._jobs.add(job)
        self.scheduler.restore(entry)
        self._jobs.tell(Submitted(job, self.scheduler.line.position(entry)))
        if self.alive and self._dozing:  # no need to wake the dispatcher: it looks every second
            self._dispatch()
        if not self._dozing or self._overdue:
            self.wake()
        return handle

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
        live = self._jobs.handles.get(job_id)
        return live if live is not None else JobHandle(await self._store.get(job_id))

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

    @asynccontextmanager
    async def running(self, *, grace_s: float = 0.0) -> AsyncGenerator[None]:
        """Run the dispatcher for as long as the block lasts, then wind down.

        On the way out new work is refused and nothing is started any more. Attempts and loads that
        run get `grace_s` seconds; every job that is left then fails with `Draining`, so that no
        caller waits for ever.
        """
        self._loop = asyncio.create_task(self._run(), name="dispatcher")
        self._loop.add_done_callback(_tell_if_it_failed)
        try:
            yield
        finally:
            self._closing = True
            self.scheduler.drain()
            if (running := {*self._attempts.running.values(), *self.loads.running}) and grace_s > 0:
                await asyncio.wait(running, timeout=grace_s)
            self._loop.cancel()
            await asyncio.wait([self._loop])
            for handle in list(self._jobs.handles.values()):
                error = Draining("the server shut down before the job could end")
                await self._jobs.fail(handle, error)
            for backend in self._backends.values():
                await backend.close()
            await self._store.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            for backend in self._backends.values():
                self._tasks.create_task(self._watch.run(backend), name=f"watch {backend.name}")
            while True:
                self._wake.clear()
                self._dispatch()
                while self._overdue:
                    await self._end_early(self._overdue.pop(), self._expired)
                await self._rest()

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
        if self._closing:
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
        handle = self._jobs.handles.get(job_id)
        if handle is None:
            return await self._store.get(job_id)
        self.scheduler.withdrawn(job_id)
        await self._jobs.end(handle, lambda job: step(job, self._clock()))
        self._attempts.stop(handle)
        self.wake()
        return handle.job

    def _expired(self, job: Job, now: float) -> Job:
        return job.expired(now, self.trouble(job.model))

    # Models

    async def _after_look(self, backend: str, resident: frozenset[str] | None) -> None:
        if resident is not None:
            self._attempts.lay_to_rest(backend, resident)
        for entry in self.scheduler.waiting_entries():
            if entry.model is None:
                await self._name_model(entry.id)
        self.wake()

    async def _name_model(self, job_id: str) -> None:
        """Check a job that was accepted before it was known which models there are."""
        handle = self._jobs.handles.get(job_id)
        if handle is None:
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
