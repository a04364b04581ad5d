"""Jobs in memory: gone with the process; the oldest ended jobs are forgotten for room."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from ...models.blobs import Blob
from ...models.errors import StaleJob, UnknownJob
from ...models.jobs import Job
from ...models.ports import Blobs
from ...models.results import blobs_in


class MemoryStore:
    """A `JobStore` that keeps all live jobs and as many ended ones as fit.

    Args:
        keep: how many ended jobs are kept.
        keep_bytes: how much they may hold, in memory and in blobs.
        blobs: where their blobs are; those of a request are dropped when its job ends, those of
            a result when its job is forgotten.

    """

    def __init__(
        self, *, keep: int = 10_000, keep_bytes: int = 256 * 2**20, blobs: Blobs | None = None
    ) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._bytes = 0
        self._blobs = blobs
        self._dropping: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    async def add(self, job: Job) -> None:
        """Keep a new job."""
        self._jobs[job.id] = job

    async def save(self, job: Job) -> None:
        """Keep the next version of a job.

        Raises:
            UnknownJob: the job was never added or was forgotten.
            StaleJob: the version kept is not the one this step was made from.

        """
        kept = await self.get(job.id)
        if kept.version + 1 != job.version:
            raise StaleJob("the job has changed in the meantime")
        self._jobs[job.id] = job
        if job.state.terminal:
            self._drop(job.request.blobs)
            self._ended[job.id] = size = _size_of(job)
            self._bytes += size
            self._forget()

    async def get(self, job_id: str) -> Job:
        """Return the latest version of a job.

        Raises:
            UnknownJob: the job was never added or was forgotten.

        """
        try:
            return self._jobs[job_id]
        except KeyError:
            raise UnknownJob.of_that_id() from None

    async def close(self) -> None:
        """Forget everything."""
        for job in self._jobs.values():
            self._drop([*job.request.blobs, *_blobs_made(job)])
        self._jobs.clear()
        self._ended.clear()
        self._bytes = 0
        if self._dropping:
            await asyncio.wait(self._dropping)

    def _forget(self) -> None:
        while len(self._ended) > 1 and (
            len(self._ended) > self._keep or self._bytes > self._keep_bytes
        ):
            job_id, size = self._ended.popitem(last=False)
            self._bytes -= size
            self._drop(_blobs_made(self._jobs.pop(job_id)))

    def _drop(self, blobs: Iterable[Blob]) -> None:
        """Drop blobs in the background: a step of a job is never held up, nor cut in two."""
        if self._blobs is not None and (gone := list(blobs)):
            task = asyncio.create_task(self._blobs.drop(gone))
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)


def _blobs_made(job: Job) -> Iterable[Blob]:
    return () if job.result is None else blobs_in(job.result.media)


def _size_of(job: Job) -> int:
    """Return how much an ended job holds; the blobs of its request are no more."""
    made = 0 if job.result is None else job.result.size_bytes
    return job.request.size_bytes - sum(blob.size for blob in job.request.blobs) + made
