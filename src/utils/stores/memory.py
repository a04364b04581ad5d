"""Jobs in memory: gone with the process; the oldest ended jobs are forgotten for room."""

from collections import OrderedDict

from ...models.errors import StaleJob, UnknownJob
from ...models.jobs import Job


class MemoryStore:
    """A `JobStore` that keeps all live jobs and as many ended ones as fit."""

    def __init__(self, *, keep: int = 10_000, keep_bytes: int = 256 * 2**20) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended: OrderedDict[str, int] = OrderedDict()
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._bytes = 0

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
            size = job.request.size_bytes + (job.result.size_bytes if job.result else 0)
            self._ended[job.id] = size
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
            raise UnknownJob(
                "there is no job with this id",
                hint="ids are kept while the server runs, finished jobs until room is needed",
            ) from None

    async def close(self) -> None:
        """Forget everything."""
        self._jobs.clear()
        self._ended.clear()
        self._bytes = 0

    def _forget(self) -> None:
        while len(self._ended) > 1 and (
            len(self._ended) > self._keep or self._bytes > self._keep_bytes
        ):
            job_id, size = self._ended.popitem(last=False)
            self._bytes -= size
            del self._jobs[job_id]
