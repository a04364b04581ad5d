"""The processor: asks the scheduler what to do, does it, and reports back.

One dispatcher loop acts on decisions. Every attempt and every load is a task of its own; what ends
a task, however it ends, gives its slot back. Core objects need no lock: only this event loop
touches them, and their methods never await.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from .handles import JobHandle
from .loads import COOLDOWN_S, Loads
from .models.breaker import Trouble
from .models.capacity import Pause
from .models.catalog import Catalog, ModelDefinition
from .models.errors import (
    BackendFailed,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    BackendUnseen,
    Draining,
    InferenceManagerError,
    InvalidTransition,
    ModelCrashed,
    ModelLoadFailed,
    Quarantined,
    StaleJob,
    StreamCut,
    UnknownModel,
)
from .models.events import (
    Ended,
    Event,
    Listener,
    ModelPaused,
    Retried,
    Started,
    Submitted,
)
from .models.jobs import Job, Level
from .models.modality import Modality
from .models.ports import Backend, Blobs, Clock, JobStore
from .models.queues import Entry
from .models.requests import InferenceRequest
from .models.results import Result, blobs_in, collect
from .models.retry_budget import RetryBudget
from .models.scheduler import Decision, Expire, Load, Running, Scheduler, ShutDown, Start
from .utils.retry import RetryPolicy
from .watch import BackendState, BackendWatch

logger = logging.getLogger("inference_manager.processor")

_CRASHES = 2
_REMEMBERED = 20


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
        self._retry = retry
        self._timing = timing
        self._clock = clock
        self._new_id = new_id
        self._listeners = tuple(listeners)
        self._sequence = 0
        self._handles: dict[str, JobHandle] = {}
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._limits: dict[str, asyncio.Timeout] = {}
        self._budget = RetryBudget()
        self._blobs = blobs
        self._closing = False
        self.quarantined: deque[Job] = deque(maxlen=_REMEMBERED)
        """The latest jobs that were given up because models died of them."""
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._watch = BackendWatch(
            backends,
            scheduler,
            definitions,
            clock=clock,
            look_s=timing.look_s,
            recheck_s=timing.recheck_s,
            lost_s=timing.lost_s,
            tell=self._tell,
            looked=self._after_look,
            lost=self._give_up,
        )
        self.loads = Loads(
            self._backends,
            scheduler,
            self._watch,
            clock=clock,
            attempts=retry.attempts,
            fail_waiting=self._fail_waiting,
            job=self._live_job,
            tell=self._tell,
            wake=self.wake,
        )
        scheduler.warm_up(warm)

    def __repr__(self) -> str:
        return f"<Processor [{len(self._handles)} live jobs] {self.scheduler!r}>"

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
        )
        self.scheduler.admit(entry)
        handle = self._handles[job.id] = JobHandle(job)
        try:
            await self._store.add(job)
        except BaseException:
            del self._handles[job.id]
            raise
        self.scheduler.restore(entry)
        self._tell(Submitted(job, self.scheduler.line.position(entry)))
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
        live = self._handles.get(job_id)
        return live if live is not None else JobHandle(await self._store.get(job_id))

    def position(self, job_id: str) -> int | None:
        """How many waiting jobs go first; None if the job does not wait in line."""
        return self.scheduler.position(job_id)

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
            if (running := {*self._attempts.values(), *self.loads.running}) and grace_s > 0:
                await asyncio.wait(running, timeout=grace_s)
            self._loop.cancel()
            await asyncio.wait([self._loop])
            for handle in list(self._handles.values()):
                await self._fail(handle, Draining("the server shut down before the job could end"))
            for backend in self._backends.values():
                await backend.close()
            await self._store.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for backend in self._backends.values():
                tasks.create_task(self._watch.run(backend), name=f"watch {backend.name}")
            while True:
                self._wake.clear()
                try:
                    if not self._closing:
                        await self._act(self.scheduler.next(self._clock()), tasks)
                except Exception:
                    logger.exception("the dispatcher failed to act and goes on")
                await self._rest()

    async def _rest(self) -> None:
        now = self._clock()
        due = self.scheduler.wake_at(now)
        delay = None if due is None else min(max(due - now, 0.0), 1.0)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    async def _act(self, decisions: Sequence[Decision], tasks: asyncio.TaskGroup) -> None:
        expired: list[str] = []
        for decision in decisions:
            match decision:
                case Start(job_id):
                    task = tasks.create_task(self._attempt(decision), name=f"job {job_id}")
                    self._attempts[job_id] = task
                    task.add_done_callback(partial(self._task_done, job_id))
                case Load():
                    self.loads.start(decision, tasks)
                case ShutDown():
                    self.loads.shut_down(decision, tasks)
                case Expire(job_id):
                    expired.append(job_id)
                case _:
                    assert_never(decision)
        for job_id in expired:
            await self._end_early(job_id, self._expired)

    # Attempts

    async def _attempt(self, start: Start) -> None:
        handle = self._handles.get(start.job_id)
        if handle is None:
            return  # it was ended between the decision and now
        try:
            await self._attempt_once(handle, start)
        except Exception:
            logger.exception("an attempt failed unexpectedly", extra={"job_id": start.job_id})
            await self._fail(handle, InferenceManagerError("internal error"))

    async def _attempt_once(self, handle: JobHandle, start: Start) -> None:
        try:
            now = self._clock()
            job = await self._step(handle, lambda job: job.started(start.backend, now))
            if job.fence == 1:
                self._budget.attempted(now)
            self._tell(Started(handle.job))
            result = await self._run_on(self._backends[start.backend], handle, start.model)
        except InvalidTransition:
            return  # likewise
        except InferenceManagerError as error:
            await self._attempt_failed(handle, start, error)
            return
        self._vacate(start.job_id, well=result is not None)
        if result is not None:
            await self._end(handle, lambda job: job.completed(result, self._clock()))
            if handle.job.result is not result:
                await self._drop_pieces(handle)

    async def _run_on(self, backend: Backend, handle: JobHandle, model: str) -> Result | None:
        """Carry out one attempt; None if nobody wants its result any more."""
        request, limit = handle.job.request, self._timing.attempt_s[handle.job.modality]
        handle.begin()
        whole = False
        try:
            async with (
                asyncio.timeout(limit) as timeout,
                aclosing(backend.run(request, model, handle.id)) as chunks,
            ):
                self._limits[handle.id] = timeout
                async for chunk in chunks:
                    handle.push(chunk)
                    if handle.job.state.terminal:
                        return None
            whole = True
        except TimeoutError as error:
            if self.backends[backend.name].up is False:
                raise BackendUnavailable(
                    f"backend {backend.name} does not answer any more", reached=True
                ) from error
            raise BackendTimeout(f"the attempt took longer than {limit:g} s") from error
        finally:
            self._limits.pop(handle.id, None)
            if not whole:
                await self._drop_pieces(handle)
        return collect(handle.pieces)

    async def _drop_pieces(self, handle: JobHandle) -> None:
        """Let go of what an attempt has made that nobody will ask for."""
        if self._blobs is not None and (blobs := list(blobs_in(handle.pieces))):
            await self._blobs.drop(blobs)

    async def _attempt_failed(
        self, handle: JobHandle, start: Start, error: InferenceManagerError
    ) -> None:
        now = self._clock()
        job = handle.job
        if job.state.terminal:
            return  # a ghost; however it ends, its slot is free now
        if isinstance(error, BackendUnavailable | UnknownModel | ModelCrashed):
            self._watch.look(start.backend)
        if isinstance(error, BackendUnavailable) and not error.reached:
            self._watch.down(start.backend, error)
            if not handle.delivered:
                await self._again(handle, start, Job.requeued, error, counted=False)
                return
        crashed = isinstance(error, ModelCrashed)
        poison = crashed and job.crashes + 1 >= _CRASHES and self._was_alone(start)
        retry = None
        if not handle.delivered and not poison:
            retry = self._retry.decide(error, attempts=job.attempts, claims=job.fence)
        self._learn_from(error, start, now)
        if poison:
            error = Quarantined(
                f"the process of the model {start.model} died {job.crashes + 1} times "
                "while it worked on this job",
                hint="send it again by hand if you think that it was not the cause",
            )
        if retry is None:
            self._vacate(start.job_id)
            await self._fail(handle, error)
            if poison:
                self.quarantined.append(handle.job)
            return
        at, counted = now + max(retry.delay, self._budget.retry(now)), retry.counted
        await self._again(
            handle,
            start,
            lambda job: job.retrying(error, at, counted=counted, crashed=crashed),
            error,
            counted=counted,
            not_before=at,
        )

    def _learn_from(self, error: InferenceManagerError, start: Start, now: float) -> None:
        """Tell the scheduler what a failure says of the model and the backend."""
        backend, model = start.backend, start.model
        if isinstance(error, ModelCrashed):
            pause = Pause(now + self._timing.crash_s, "its process died", while_resident=True)
            self.scheduler.model_gone(backend, model, pause)
        elif isinstance(error, ModelLoadFailed):
            pause = Pause(now + (error.retry_after or COOLDOWN_S), "it could not be loaded")
            self.scheduler.model_gone(backend, model, pause)
        elif isinstance(error, UnknownModel):  # until the list has been read again
            pause = Pause(now + COOLDOWN_S, "the backend does not know it")
            self.scheduler.capacity.pause(backend, model, pause)
        elif (trouble := _trouble(error)) is not None:
            until = self.scheduler.failed(start.job_id, trouble, now, why=error.message)
            if until is not None:
                self._tell(ModelPaused(backend, model, until - now, error.message))

    def _was_alone(self, start: Start) -> bool:
        capacity, backend, model = self.scheduler.capacity, start.backend, start.model
        others_were_there = capacity.is_dying(backend, model)
        return not others_were_there and capacity.resident(backend).get(model, 0) <= 1

    def _give_up(self, backend: str) -> None:
        """Give up what runs on a backend that has been silent for long."""
        now = asyncio.get_running_loop().time()
        for run in self.scheduler.running:
            limit = self._limits.get(run.entry.id)
            if run.backend == backend and limit is not None and not limit.expired():
                limit.reschedule(now)

    def _live_job(self, job_id: str) -> Job | None:
        handle = self._handles.get(job_id)
        return None if handle is None else handle.job

    async def _again(
        self,
        handle: JobHandle,
        start: Start,
        step: Callable[[Job], Job],
        error: InferenceManagerError,
        *,
        counted: bool,
        not_before: float | None = None,
    ) -> None:
        """Put the job back into its place in line."""
        handle.begin()  # before anybody sees a piece that will be made anew
        try:
            job = await self._step(handle, step)
        except InvalidTransition:
            return
        del self._attempts[start.job_id]
        self.scheduler.returned(start.job_id, not_before=not_before)
        self._tell(Retried(job, error, counted))
        self.wake()

    def _task_done(self, job_id: str, task: asyncio.Task[None]) -> None:
        """Give the slot back if the attempt did not come so far as to do it."""
        if self._attempts.get(job_id) is task:
            self._vacate(job_id)

    def _vacate(self, job_id: str, *, well: bool = False) -> None:
        del self._attempts[job_id]
        self.scheduler.ended(job_id, self._clock(), well=well)
        self.wake()

    # Steps of jobs

    async def _step(self, handle: JobHandle, step: Callable[[Job], Job]) -> Job:
        """Take a job's next step: stored first, then told to those who hold its handle.

        Raises:
            InvalidTransition: somebody else ended the job.

        """
        job = handle.job
        while True:
            job = step(job)
            try:
                await self._store.save(job)
            except StaleJob:
                job = await self._store.get(job.id)
                continue
            if job.version > handle.job.version:
                handle.update(job)
            return job

    async def _end(self, handle: JobHandle, step: Callable[[Job], Job]) -> None:
        """Take a job's last step. Its callers are told even if the store cannot keep it."""
        try:
            job = await self._step(handle, step)
        except InvalidTransition:
            return  # it has ended already; a late result is nobody's
        except Exception:
            logger.exception("the end of a job cannot be kept", extra={"job_id": handle.id})
            if handle.job.state.terminal:
                return
            job = step(handle.job)
            handle.update(job)
        self._handles.pop(job.id, None)
        self._tell(Ended(job))

    async def _fail(self, handle: JobHandle, error: InferenceManagerError) -> None:
        await self._end(handle, lambda job: job.failed(error, self._clock()))

    async def _end_early(self, job_id: str, step: Callable[[Job, float], Job]) -> Job:
        handle = self._handles.get(job_id)
        if handle is None:
            return await self._store.get(job_id)
        self.scheduler.withdrawn(job_id)
        await self._end(handle, lambda job: step(job, self._clock()))
        self._stop_attempt(handle.job, begun=bool(handle.pieces))
        self.wake()
        return handle.job

    def _stop_attempt(self, job: Job, *, begun: bool) -> None:
        """Let go of what still runs for an ended job.

        An engine that stops when its caller hangs up is hung up on. Any other finishes the piece
        it is at whether we listen or not, so we go on listening: that is how we know when the
        slot is really free. So we do with an answer that has not begun where the model may still
        be loading: to hang up would kill it. One that says nothing for `ghost_s` is not believed
        to work any more.
        """
        task = self._attempts.get(job.id)
        if task is None:
            return
        backend = self._backends.get(job.backend)
        loads = backend is not None and not backend.loads_on_demand and not begun
        if backend is None or (backend.stops_at_once(job.modality) and not loads):
            task.cancel()
        else:
            self.scheduler.abandoned(job.id)
            asyncio.get_running_loop().call_later(self._timing.ghost_s, task.cancel)

    def _expired(self, job: Job, now: float) -> Job:
        return job.expired(now, self.trouble(job.model))

    async def _fail_waiting(
        self, model: str, error: InferenceManagerError, *, since: float
    ) -> None:
        """Fail the jobs that have waited for a model through all its failures to load.

        A failed load is a failed attempt of every job that waits for it, no more and no less.
        """
        for entry in self.scheduler.waiting_entries():
            handle = self._handles.get(entry.id)
            if handle is not None and entry.model == model and entry.submitted_at <= since:
                self.scheduler.withdrawn(entry.id)
                await self._fail(handle, error)

    # Models

    async def _after_look(self, backend: str, resident: frozenset[str] | None) -> None:
        for run in self.scheduler.running:
            if run.ghost and run.backend == backend and resident is not None:
                self._lay_to_rest(run, resident)
        await self._check_waiting()
        self.wake()

    def _lay_to_rest(self, run: Running, resident: frozenset[str]) -> None:
        """Stop waiting for a ghost whose model is not in memory any more, rather than not yet."""
        task = self._attempts.get(run.entry.id)
        was_loaded = self._backends[run.backend].loads_on_demand
        if task is not None and was_loaded and run.entry.model not in resident:
            task.cancel()

    async def _check_waiting(self) -> None:
        """Check the jobs that were accepted before it was known which models there are."""
        for entry in self.scheduler.waiting_entries():
            if entry.model is None:
                await self._name_model(entry.id)

    async def _name_model(self, job_id: str) -> None:
        handle = self._handles.get(job_id)
        if handle is None:
            return  # it was ended meanwhile
        request = handle.job.request
        try:
            model = self.catalog.resolve(request)
            if model is not None:
                request = self.catalog.with_defaults(request, model)
        except InferenceManagerError as error:
            self.scheduler.withdrawn(job_id)
            await self._fail(handle, error)
            return
        if model is not None:
            with suppress(InvalidTransition):
                await self._step(handle, lambda job: job.resolved(model, request))
                self.scheduler.resolved(job_id, model)

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener failed; nobody else is concerned")


def _tell_if_it_failed(loop: asyncio.Task[None]) -> None:
    if not loop.cancelled() and (error := loop.exception()) is not None:
        logger.critical("the dispatcher has ended; the server must be restarted", exc_info=error)


def _trouble(error: InferenceManagerError) -> Trouble | None:
    """Say what a failed attempt tells about its backend, if anything."""
    match error:
        case BackendUnavailable() | BackendTimeout() | StreamCut():
            return Trouble.UNREACHED
        case BackendFailed() | BackendProtocolError():
            return Trouble.REFUSED
        case _:
            return None
