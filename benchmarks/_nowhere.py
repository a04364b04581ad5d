"""The server with a store that keeps jobs in a dict: what durability is measured against."""

from collections.abc import Collection, Sequence

from src.app import create_app
from src.models.errors import StaleJob, UnknownJob
from src.models.jobs import Job, JobQuery, Step
from src.models.ports import Page, Waiting

_KEPT = 1000


class NowhereStore:
    """A `JobStore` without lists, keys and history, for as many jobs as are live, and some more."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._ended: list[str] = []

    @property
    def trouble(self) -> None:
        """None: there is no disk."""

    async def open(self) -> None:
        """Nothing is kept from before."""

    async def add(self, *jobs: Job) -> None:
        """Keep new jobs."""
        self._jobs.update((job.id, job) for job in jobs)

    async def save(self, *jobs: Job) -> None:
        """Keep the next versions of jobs."""
        for job in jobs:
            if (await self.get(job.id)).version + 1 != job.version:
                raise StaleJob("the job has changed in the meantime")
        for job in jobs:
            self._jobs[job.id] = job
            if job.state.terminal:
                self._ended.append(job.id)
        while len(self._ended) > _KEPT:
            del self._jobs[self._ended.pop(0)]

    async def get(self, job_id: str) -> Job:
        """Return the latest version of a job."""
        if job_id not in self._jobs:
            raise UnknownJob.of_that_id()
        return self._jobs[job_id]

    async def bind(self, caller: str, key: str, fingerprint: str, job_id: str) -> None:
        """Forget it."""

    async def find(self, caller: str, key: str) -> tuple[str, str] | None:  # noqa: ARG002
        """Know nothing."""
        return None

    async def list(self, query: JobQuery) -> Page:  # noqa: ARG002
        """Know nothing."""
        return Page([], None)

    async def history(self, job_id: str, after: int = -1) -> Sequence[Step]:  # noqa: ARG002
        """Know nothing."""
        return []

    async def delete(self, *job_ids: str) -> int:  # noqa: ARG002
        """Do nothing."""
        return 0

    async def purge(self, now: float, *, limit: int) -> int:  # noqa: ARG002
        """Do nothing."""
        return 0

    async def repeated(self, *job_ids: str) -> Collection[str]:  # noqa: ARG002
        """Know nothing."""
        return ()

    async def waiting(self) -> Sequence[Waiting]:
        """Nothing waits from before."""
        return []

    async def unfinished(self, *, promised: bool, until: int, limit: int) -> Sequence[Job]:  # noqa: ARG002
        """Nothing is left from before."""
        return []

    async def last_sequence(self) -> int:
        """Begin anew."""
        return 0

    async def flushed(self) -> None:
        """There is no disk."""

    async def close(self) -> None:
        """Forget everything."""
        self._jobs.clear()


app = create_app(store=NowhereStore())
