"""Brings models into the backends' memories, and takes them out again, as the scheduler decides.

A load is never cancelled: LocalAI would kill the model's process and refuse it for a while.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Mapping

from .live_jobs import LiveJobs
from .models.capacity import Pause
from .models.errors import (
    BackendError,
    BackendUnavailable,
    InferenceManagerError,
    ModelLoadFailed,
    UnknownJob,
    UnknownModel,
)
from .models.events import ModelLoaded
from .models.ports import Backend, Clock
from .models.scheduler import Load, Scheduler, ShutDown
from .watch import BackendWatch

logger = logging.getLogger("inference_manager.loads")

COOLDOWN_S = 10.0
_COOLDOWN_CAP_S = 300.0
_SHUTDOWN_S = 60.0  # longer than a backend takes to answer
_PROMPT_S = 2.0


class Loads:
    """Carries out loads and shutdowns, each in a task of its own.

    Args:
        attempts: how many failures in a row a waiting job lives through.
        wake: called when the scheduler has news.

    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        scheduler: Scheduler,
        watch: BackendWatch,
        jobs: LiveJobs,
        *,
        clock: Clock,
        attempts: int,
        wake: Callable[[], None],
    ) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self.began: dict[str, float] = {}
        """When the present load of a model began, by backend."""
        self._patient: set[str] = set()
        self.trouble: dict[str, InferenceManagerError] = {}
        """Why the latest load of a model failed."""
        self._backends = backends
        self._scheduler = scheduler
        self._watch = watch
        self._jobs = jobs
        self._clock = clock
        self._wake = wake
        self._failures: dict[tuple[str, str], deque[float]] = {}
        self.allow(attempts)

    def __repr__(self) -> str:
        return f"<Loads [{', '.join(self.began)}]>"

    def allow(self, attempts: int) -> None:
        """Let waiting jobs live through so many failures in a row from now on."""
        self._attempts = attempts
        self._failures = defaultdict(
            lambda: deque(maxlen=attempts),
            {of: deque(times, maxlen=attempts) for of, times in self._failures.items()},
        )

    def start(self, load: Load, tasks: asyncio.TaskGroup) -> None:
        """Begin to load a model."""
        self.began[load.backend] = self._clock()
        task = tasks.create_task(self._load(load), name=f"load {load.model}")
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    def shut_down(self, what: ShutDown, tasks: asyncio.TaskGroup) -> None:
        """Begin to take a model out of memory; nothing is started on it meanwhile.

        A backend that waits for its work to end first, as LocalAI does unless it is told to force
        shutdowns, is not asked again: that costs more than it brings.
        """
        if what.backend in self._patient:
            return
        pause = Pause(self._clock() + _SHUTDOWN_S, "it is being shut down")
        self._scheduler.capacity.pause(what.backend, what.model, pause)
        tasks.create_task(self._shut_down(what), name=f"shut down {what.model}")

    async def _load(self, load: Load) -> None:
        try:
            await self._load_and_report(load)
        except Exception:
            logger.exception("a load could not be reported", extra={"model": load.model})

    async def _load_and_report(self, load: Load) -> None:
        began = self._clock()
        error: InferenceManagerError | None = None
        try:
            await self._backends[load.backend].load(load.model)
        except InferenceManagerError as failure:
            error = failure
        except Exception:
            logger.exception("a load failed unexpectedly", extra={"model": load.model})
            error = ModelLoadFailed("internal error")
        now = self._clock()
        took = now - began
        self.began.pop(load.backend, None)
        known = self._backends[load.backend].loads_on_demand
        if known or error is not None:
            handle = self._jobs.live(load.job_id)
            job = None if handle is None else handle.job
            self._jobs.tell(ModelLoaded(job, load.backend, load.model, took, error))
        if error is None:
            self._failures.pop((load.backend, load.model), None)
            self.trouble.pop(load.model, None)
            self._scheduler.loaded(load.backend, load.model, took if known else None)
            self._watch.look(load.backend)  # what a model can do may show only now
        else:
            await self._load_failed(load, error, now)
        self._wake()

    async def _load_failed(self, load: Load, error: InferenceManagerError, now: float) -> None:
        self._watch.look(load.backend)
        self.trouble[load.model] = error
        if isinstance(error, BackendUnavailable) and not error.reached:
            self._scheduler.load_failed(load.backend, load.model, Pause(now))
            self._watch.down(load.backend, error)
            return
        failures = self._failures[load.backend, load.model]
        told_to_wait = isinstance(error, BackendError) and error.told_to_wait
        if not told_to_wait:
            failures.append(now)
        pause_s = error.retry_after or min(COOLDOWN_S * 2 ** len(failures) / 2, _COOLDOWN_CAP_S)
        pause = Pause(now + pause_s, "it could not be loaded")
        self._scheduler.load_failed(load.backend, load.model, pause)
        if self._may_load_elsewhere(load):
            return
        lasting = isinstance(error, BackendError) and not error.transient
        if lasting or not isinstance(error, BackendError | UnknownModel):
            await self._fail_waiting(load.model, error, now)
        elif not told_to_wait and len(failures) == self._attempts:
            await self._fail_waiting(load.model, error, failures[0])

    async def _fail_waiting(self, model: str, error: InferenceManagerError, since: float) -> None:
        """Fail the jobs that have waited for a model through all its failures to load.

        A failed load is a failed attempt of every job that waits for it, no more and no less.
        """
        for entry in self._scheduler.waiting_entries():
            if entry.model != model or entry.submitted_at > since:
                continue
            try:
                handle = await self._jobs.handle(entry.id)
            except UnknownJob:
                continue
            if self._scheduler.withdrawn(entry.id):
                await self._jobs.fail(handle, error)

    def _may_load_elsewhere(self, load: Load) -> bool:
        """Whether another backend has the model, and has not failed to load it as often."""
        return any(
            len(self._failures.get((backend, load.model), ())) < self._attempts
            for backend in self._scheduler.capacity.offering(load.model)
            if backend != load.backend
        )

    async def _shut_down(self, what: ShutDown) -> None:
        began = self._clock()
        try:
            await self._backends[what.backend].unload(what.model)
        except Exception as error:
            told = error.message if isinstance(error, InferenceManagerError) else "internal error"
            logger.warning(
                "a model that works for nobody could not be shut down",
                extra={"backend": what.backend, "model": what.model, "detail": told},
                exc_info=not isinstance(error, InferenceManagerError),
            )
            self._scheduler.capacity.end_pause(what.backend, what.model)
            self._patient.add(what.backend)
        else:
            reload_s = self._scheduler.usual_load_s(what.model) or 0.0
            if self._clock() - began > max(reload_s, _PROMPT_S):
                self._patient.add(what.backend)
            self._scheduler.model_gone(what.backend, what.model, Pause(self._clock()))
        self._wake()
