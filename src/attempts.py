"""Attempts: carries jobs out on the backends, and decides what follows a failure.

Each attempt is a task of its own; what ends it, however it ends, gives its slot back.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial

from .handles import JobHandle
from .live_jobs import LiveJobs
from .loads import COOLDOWN_S
from .models.breaker import Trouble
from .models.capacity import Pause
from .models.errors import (
    BackendFailed,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    InferenceManagerError,
    InvalidTransition,
    ModelCrashed,
    ModelLoadFailed,
    Quarantined,
    StorageFailed,
    StreamCut,
    UnknownJob,
    UnknownModel,
)
from .models.events import ModelPaused, Retried, Started
from .models.jobs import Job, JobState
from .models.modality import Modality
from .models.ports import Backend, Blobs, Clock
from .models.results import Result, blobs_in, collect
from .models.retry_budget import RetryBudget
from .models.scheduler import Scheduler, Start
from .utils.retry import RetryPolicy
from .watch import BackendWatch

logger = logging.getLogger("inference_manager.attempts")

_CRASHES = 2
_REMEMBERED = 20
_STORE_S = 5.0  # after which a job is tried again whose beginning could not be kept
_UNREACHED = (BackendUnavailable, BackendTimeout, StreamCut)
_REFUSED = (BackendFailed, BackendProtocolError)


class Attempts:
    """Carries out attempts, and stops them; its times are those of `Timing`."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        scheduler: Scheduler,
        watch: BackendWatch,
        jobs: LiveJobs,
        *,
        clock: Clock,
        blobs: Blobs | None,
        retry: RetryPolicy,
        attempt_s: Mapping[Modality, float],
        ghost_s: float,
        crash_s: float,
        wake: Callable[[], None],
    ) -> None:
        self.running: dict[str, asyncio.Task[None]] = {}
        self.quarantined: deque[Job] = deque(maxlen=_REMEMBERED)
        """The latest jobs that were given up because models died of them."""
        self._backends = backends
        self._scheduler = scheduler
        self._watch = watch
        self._jobs = jobs
        self._clock = clock
        self._blobs = blobs
        self._retry = retry
        self._attempt_s = attempt_s
        self._ghost_s = ghost_s
        self._crash_s = crash_s
        self._wake = wake
        self._limits: dict[str, asyncio.Timeout] = {}
        self._budgets: defaultdict[tuple[str, str], RetryBudget] = defaultdict(RetryBudget)
        """For retries of failures of one model on one backend: its trouble is nobody else's."""

    def start(self, start: Start, tasks: asyncio.TaskGroup) -> None:
        """Begin an attempt."""
        task = tasks.create_task(self._attempt(start), name=f"job {start.job_id}")
        self.running[start.job_id] = task
        task.add_done_callback(partial(self._task_done, start.job_id))

    def stop(self, handle: JobHandle) -> None:
        """Let go of what still runs for an ended job.

        An engine that stops when its caller hangs up is hung up on. Any other finishes the piece
        it is at whether we listen or not, so we go on listening: that is how we know when the
        slot is really free. So we do with an answer that has not begun where the model may still
        be loading: to hang up would kill it. One that says nothing for `ghost_s` is not believed
        to work any more.
        """
        job, task = handle.job, self.running.get(handle.id)
        if task is None:
            return
        backend = self._backends.get(job.backend)
        loads = backend is not None and not backend.loads_on_demand and not handle.pieces
        if backend is None or (backend.stops_at_once(job.request) and not loads):
            task.cancel()
        else:
            self._scheduler.abandoned(job.id)
            asyncio.get_running_loop().call_later(self._ghost_s, task.cancel)

    def give_up(self, backend: str) -> None:
        """Give up what runs on a backend that has been silent for long."""
        now = asyncio.get_running_loop().time()
        for run in self._scheduler.running:
            limit = self._limits.get(run.entry.id)
            if run.backend == backend and limit is not None and not limit.expired():
                limit.reschedule(now)

    def lay_to_rest(self, backend: str, resident: frozenset[str]) -> None:
        """Stop waiting for ghosts whose model is not in memory any more, rather than not yet."""
        if self._backends[backend].loads_on_demand:
            for run in self._scheduler.running:
                ghost = run.ghost and run.backend == backend
                task = self.running.get(run.entry.id) if ghost else None
                if task is not None and run.entry.model not in resident:
                    task.cancel()

    # One attempt

    async def _attempt(self, start: Start) -> None:
        try:
            handle = self._jobs.live(start.job_id) or await self._jobs.handle(start.job_id)
        except UnknownJob:
            return  # it was ended between the decision and now
        except StorageFailed as error:
            self._store_failed(start, error)
            return
        try:
            await self._begin(handle, start)
            await self._attempt_once(handle, start)
        except InvalidTransition:
            return  # likewise
        except StorageFailed as error:
            if handle.job.state is JobState.PROCESSING:
                await self._jobs.fail(handle, error)
            else:
                self._store_failed(start, error)
        except Exception:
            logger.exception("an attempt failed unexpectedly", extra={"job_id": start.job_id})
            await self._jobs.fail(handle, InferenceManagerError("internal error"))

    async def _begin(self, handle: JobHandle, start: Start) -> None:
        now = self._clock()
        job = await self._jobs.step(handle, lambda job: job.started(start.backend, now))
        if job.fence == 1:
            self._budgets[start.backend, start.model].attempted(now)
        self._jobs.tell(Started(handle.job))

    def _store_failed(self, start: Start, error: StorageFailed) -> None:
        logger.warning("a job waits for the store: %s", error.message)
        self._put_back(start.job_id, not_before=self._clock() + _STORE_S)

    async def _attempt_once(self, handle: JobHandle, start: Start) -> None:
        try:
            result = await self._run_on(self._backends[start.backend], handle, start.model)
        except InferenceManagerError as error:
            await self._failed(handle, start, error)
            return
        self._vacate(start.job_id, well=result is not None)
        if result is not None:
            await self._jobs.end(handle, lambda job: job.completed(result, self._clock()))
            if handle.job.result is not result:
                await self._drop_pieces(handle)

    async def _run_on(self, backend: Backend, handle: JobHandle, model: str) -> Result | None:
        """Carry out one attempt; None if nobody wants its result any more."""
        request, limit = handle.job.request, self._attempt_s[handle.job.modality]
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
            if self._watch.states[backend.name].up is False:
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

    def _task_done(self, job_id: str, task: asyncio.Task[None]) -> None:
        """Give the slot back if the attempt did not come so far as to do it."""
        if self.running.get(job_id) is task:
            self._vacate(job_id)

    def _vacate(self, job_id: str, *, well: bool = False) -> None:
        del self.running[job_id]
        self._scheduler.ended(job_id, self._clock(), well=well)
        if not self._scheduler.idle:
            self._wake()

    # What follows a failure

    async def _failed(self, handle: JobHandle, start: Start, error: InferenceManagerError) -> None:
        now = self._clock()
        job = handle.job
        if job.state.terminal:
            return  # a ghost; however it ends, its slot is free now
        if isinstance(error, BackendUnavailable | UnknownModel | ModelCrashed):
            self._watch.look(start.backend)
        if isinstance(error, BackendUnavailable) and not error.reached:
            self._watch.down(start.backend, error)
            if not handle.delivered:
                await self._again(handle, Job.requeued, error, counted=False)
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
            await self._jobs.fail(handle, error)
            if poison:
                self.quarantined.append(handle.job)
            return
        delay, counted = retry.delay, retry.counted
        if counted:
            delay = max(delay, self._budgets[start.backend, start.model].retry(now))
        at = now + delay
        step = partial(Job.retrying, error=error, retry_at=at, counted=counted, crashed=crashed)
        await self._again(handle, step, error, counted=counted, not_before=at)

    async def _again(
        self,
        handle: JobHandle,
        step: Callable[[Job], Job],
        error: InferenceManagerError,
        *,
        counted: bool,
        not_before: float | None = None,
    ) -> None:
        """Put the job back into its place in line."""
        handle.begin()  # before anybody sees a piece that will be made anew
        try:
            job = await self._jobs.step(handle, step)
        except InvalidTransition:
            return
        self._put_back(handle.id, not_before=not_before)
        self._jobs.tell(Retried(job, error, counted))

    def _put_back(self, job_id: str, *, not_before: float | None) -> None:
        del self.running[job_id]
        self._scheduler.returned(job_id, not_before=not_before)
        self._wake()

    def _learn_from(self, error: InferenceManagerError, start: Start, now: float) -> None:
        """Tell the scheduler what a failure says of the model and the backend."""
        backend, model = start.backend, start.model
        if isinstance(error, ModelCrashed):
            pause = Pause(now + self._crash_s, "its process died", while_resident=True)
            self._scheduler.model_gone(backend, model, pause)
        elif isinstance(error, ModelLoadFailed):
            pause = Pause(now + (error.retry_after or COOLDOWN_S), "it could not be loaded")
            self._scheduler.model_gone(backend, model, pause)
        elif isinstance(error, UnknownModel):  # until the list has been read again
            pause = Pause(now + COOLDOWN_S, "the backend does not know it")
            self._scheduler.capacity.pause(backend, model, pause)
        elif isinstance(error, (*_UNREACHED, *_REFUSED)):
            trouble = Trouble.UNREACHED if isinstance(error, _UNREACHED) else Trouble.REFUSED
            until = self._scheduler.failed(start.job_id, trouble, now, why=error.message)
            if until is not None:
                self._jobs.tell(ModelPaused(backend, model, until - now, error.message))

    def _was_alone(self, start: Start) -> bool:
        capacity, backend, model = self._scheduler.capacity, start.backend, start.model
        others_were_there = capacity.is_dying(backend, model)
        return not others_were_there and capacity.resident(backend).get(model, 0) <= 1
