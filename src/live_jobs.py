"""The live jobs: a handle for each, and the steps they take until their end.

A step is stored first, then shown to those who hold the handle, then told to those who listen.
"""

import logging
from collections.abc import Callable, Sequence

from .handles import JobHandle
from .models.errors import InferenceManagerError, InvalidTransition, StaleJob
from .models.events import Ended, Event, Listener
from .models.jobs import Job
from .models.ports import Clock, JobStore

logger = logging.getLogger("inference_manager.live_jobs")


class LiveJobs:
    """Keeps the handles of the jobs that have not ended, and tells what becomes of them."""

    def __init__(self, store: JobStore, *, clock: Clock, listeners: Sequence[Listener]) -> None:
        self.handles: dict[str, JobHandle] = {}
        self._store = store
        self._clock = clock
        self.listeners = list(listeners)

    async def add(self, job: Job) -> JobHandle:
        """Store a new job and return its handle."""
        handle = self.handles[job.id] = JobHandle(job)
        try:
            await self._store.add(job)
        except BaseException:
            del self.handles[job.id]
            raise
        return handle

    async def step(self, handle: JobHandle, step: Callable[[Job], Job]) -> Job:
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

    async def end(self, handle: JobHandle, step: Callable[[Job], Job]) -> None:
        """Take a job's last step. Its callers are told even if the store cannot keep it."""
        try:
            job = await self.step(handle, step)
        except InvalidTransition:
            return  # it has ended already; a late result is nobody's
        except Exception:
            logger.exception("the end of a job cannot be kept", extra={"job_id": handle.id})
            if handle.job.state.terminal:
                return
            job = step(handle.job)
            handle.update(job)
        self.handles.pop(job.id, None)
        self.tell(Ended(job))

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
