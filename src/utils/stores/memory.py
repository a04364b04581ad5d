"""Jobs in memory: gone with the process; the oldest ended jobs are forgotten for room."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from ...models.blobs import Blob
from ...models.errors import StaleJob, UnknownJob
from ...models.jobs import Job, JobQuery, Step, Summary
from ...models.ports import Blobs, Page, Waiting
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
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._steps: dict[str, list[Step]] = {}
        self._number: dict[str, int] = {}
        self._dropping: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    async def open(self) -> None:
        """Nothing is kept from before."""

    async def add(self, *jobs: Job) -> None:
        """Keep new jobs, all of them."""
        for job in jobs:
            self._jobs[job.id] = job
            self._number[job.id] = len(self._number)
            self._note(job)
            if job.promise is not None and job.promise.key:
                key, fingerprint = job.promise.key, job.promise.fingerprint
                await self.bind(job.caller, key, fingerprint, job.id)

    async def save(self, *jobs: Job) -> None:
        """Keep the next versions of jobs, all of them or none.

        Raises:
            UnknownJob: a job was never added or was forgotten.
            StaleJob: the version kept is not the one this step was made from.

        """
        for job in jobs:
            kept = await self.get(job.id)
            if kept.version + 1 != job.version:
                raise StaleJob("the job has changed in the meantime")
        for job in jobs:
            self._jobs[job.id] = job
            self._note(job)
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

    async def bind(self, caller: str, key: str, fingerprint: str, job_id: str) -> None:
        """Let a caller's key stand for a job that is kept already."""
        self._keys[caller, key] = fingerprint, job_id

    async def find(self, caller: str, key: str) -> tuple[str, str] | None:
        """Return the fingerprint and the job of a caller's key; None if it stands for none."""
        found = self._keys.get((caller, key))
        return found if found is not None and found[1] in self._jobs else None

    async def list(self, query: JobQuery) -> Page:
        """Return jobs, the newest first."""
        found = [
            s
            for job in reversed(self._jobs.values())
            if _is_asked_for(s := self._summary(job), query)
        ]
        more = len(found) > query.limit
        return Page(found[: query.limit], found[query.limit - 1].number if more else None)

    async def history(self, job_id: str, after: int = 0) -> Sequence[Step]:
        """Return the steps of a job after a version, in order; none for an unknown job."""
        return [step for step in self._steps.get(job_id, ()) if step.version > after]

    async def delete(self, *job_ids: str) -> int:
        """Forget jobs that have ended."""
        ended = [job_id for job_id in job_ids if job_id in self._ended]
        for job_id in ended:
            self._bytes -= self._ended.pop(job_id)
            self._drop(_blobs_made(self._jobs.pop(job_id)))
        return len(ended)

    async def purge(self, now: float, *, limit: int) -> int:  # noqa: ARG002
        """Nothing is left to be done: what has no room is forgotten at once."""
        return 0

    async def waiting(self) -> Sequence[Waiting]:
        """Nothing waits from before."""
        return []

    async def unfinished(
        self, *, promised: bool, until: int, limit: int  # noqa: ARG002
    ) -> Sequence[Job]:
        """Nothing is left from before."""
        return []

    async def last_sequence(self) -> int:
        """Return the largest sequence of all jobs; 0 without any."""
        return max((job.sequence for job in self._jobs.values()), default=0)

    async def flushed(self) -> None:
        """There is no disk to wait for."""

    async def close(self) -> None:
        """Forget everything."""
        for job in self._jobs.values():
            self._drop([*job.request.blobs, *_blobs_made(job)])
        self._jobs.clear()
        self._ended.clear()
        self._bytes = 0
        if self._dropping:
            await asyncio.wait(self._dropping)

    def _note(self, job: Job) -> None:
        detail = job.error.code if job.error is not None else job.backend
        at = job.ended_at or job.started_at or job.submitted_at
        step = Step(job.version, job.state, at, job.attempts, detail)
        self._steps.setdefault(job.id, []).append(step)

    def _summary(self, job: Job) -> Summary:
        return Summary(
            number=self._number[job.id],
            id=job.id,
            modality=job.modality,
            model=job.model,
            caller=job.caller,
            level=job.level,
            state=job.state,
            version=job.version,
            attempts=job.attempts,
            backend=job.backend,
            submitted_at=job.submitted_at,
            deadline=job.deadline,
            started_at=job.started_at,
            ended_at=job.ended_at,
            retry_at=job.retry_at,
            retry_of="" if job.promise is None else job.promise.retry_of,
            batch="" if job.promise is None else job.promise.batch,
            error=job.error,
        )

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


def _is_asked_for(job: Summary, query: JobQuery) -> bool:
    wanted = (
        (query.caller, job.caller),
        (query.modality, job.modality),
        (query.model, job.model),
        (query.level, job.level),
        (query.batch, job.batch),
        (query.code, None if job.error is None else job.error.code),
    )
    return (
        all(asked is None or asked == found for asked, found in wanted)
        and (query.states is None or job.state in query.states)
        and (query.submitted_after is None or job.submitted_at >= query.submitted_after)
        and (query.submitted_before is None or job.submitted_at < query.submitted_before)
        and (query.before is None or job.number < query.before)
    )


def _blobs_made(job: Job) -> Iterable[Blob]:
    return () if job.result is None else blobs_in(job.result.media)


def _size_of(job: Job) -> int:
    """Return how much an ended job holds; the blobs of its request are no more."""
    made = 0 if job.result is None else job.result.size_bytes
    return job.request.size_bytes - sum(blob.size for blob in job.request.blobs) + made
