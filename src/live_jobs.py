"""The live jobs: handles for those that somebody holds, and the steps they take until their end.

A step is stored first, then shown to those who hold the handle, then told to those who listen.
A job that waits and that nobody holds is in the store only.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from .handles import JobHandle
from .models.errors import InferenceManagerError, InvalidTransition, StaleJob
from .models.events import Ended, Event, Listener
from .models.jobs import Job, Promise
from .models.ports import Clock, JobStore

logger = logging.getLogger("inference_manager.live_jobs")

T = TypeVar("T")


class LiveJobs:
    """Finds the handles of jobs, and tells what becomes of them."""

    def __init__(self, store: JobStore, *, clock: Clock, listeners: Sequence[Listener]) -> None:
        self.listeners = list(listeners)
        self._handles: WeakValueDictionary[str, JobHandle] = WeakValueDictionary()
        self._reading: dict[str, asyncio.Task[JobHandle]] = {}
        self._keeping: set[asyncio.Task[Any]] = set()
        self._store = store
        self._clock = clock

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def held(self) -> Sequence[JobHandle]:
        """The handles that somebody holds."""
        return list(self._handles.values())

    def live(self, job_id: str) -> JobHandle | None:
        """Return the handle of a job that has not ended, if somebody holds it."""
        return self._handles.get(job_id)

    async def handle(self, job_id: str) -> JobHandle:
        """Return the handle of a job, live or ended; there is one for each live job.

        Raises:
            UnknownJob: there is no such job.
            StorageFailed: it cannot be read.

        """
        live = self._handles.get(job_id)
        if live is not None:
            return live
        reading = self._reading.get(job_id)
        if reading is None:
            reading = self._reading[job_id] = asyncio.create_task(self._read(job_id))
        return await asyncio.shield(reading)

    async def add(self, *jobs: Job) -> list[JobHandle]:
        """Store new jobs and return their handles; raises `StorageFailed`, and then has none."""
        handles = [JobHandle(job) for job in jobs]
        self._handles.update((handle.id, handle) for handle in handles)
        try:
            await self._store.add(*jobs)
        except BaseException:
            for job in jobs:
                self._handles.pop(job.id, None)
            raise
        return handles

    async def promise(self, handle: JobHandle, promise: Promise) -> None:
        """Promise that a job is carried out; raises `StorageFailed`."""
        if handle.job.promise is None:
            await self.certainly(self._step(handle, lambda job: job.promised(promise)))

    async def step(self, handle: JobHandle, step: Callable[[Job], Job]) -> Job:
        """Take a job's next step: stored first, then told to those who hold its handle.

        Raises:
            InvalidTransition: somebody else ended the job.
            StorageFailed: it cannot be stored.

        """
        work = self._step(handle, step)
        return await (work if handle.job.promise is None else self.certainly(work))

    async def end(self, handle: JobHandle, step: Callable[[Job], Job]) -> None:
        """Take a job's last step. Its callers are told even if the store cannot keep it yet."""
        work = self._end(handle, step)
        await (work if handle.job.promise is None else self.certainly(work))

    async def fail(self, handle: JobHandle, error: InferenceManagerError) -> None:
        """End a job with an error."""
        await self.end(handle, lambda job: job.failed(error, self._clock()))

    def tell(self, event: Event) -> None:
        """Tell an event to all who listen."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener failed; nobody else is concerned")

    async def certainly(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work to its end, even if whoever waits for it is cancelled."""
        task = asyncio.create_task(work)
        self._keeping.add(task)
        task.add_done_callback(self._kept)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for the steps that are being stored."""
        while self._keeping:
            await asyncio.wait(self._keeping)

    async def _read(self, job_id: str) -> JobHandle:
        try:
            handle = JobHandle(await self._store.get(job_id))
            if not handle.job.state.terminal:
                self._handles[job_id] = handle
            return handle
        finally:
            del self._reading[job_id]

    async def _step(self, handle: JobHandle, step: Callable[[Job], Job]) -> Job:
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
        self.tell(Ended(job))

    def _kept(self, task: asyncio.Task[Any]) -> None:
        self._keeping.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waits; if nobody does, nobody is concerned
