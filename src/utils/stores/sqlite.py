"""The store of jobs, on a database of SQLite.

A step of a job that was promised is a transaction, awaited. Any other job lives in a `Note`; what
becomes of it is written a moment later, together with whatever else has become of it by then.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol, TypeVar

from ...models.blobs import Blob
from ...models.errors import StaleJob, StorageFailed, UnknownJob
from ...models.jobs import Job, JobQuery, JobState, Step, Summary
from ...models.ports import Blobs, Clock, Page, Waiting
from . import statements as sql
from .database import Database
from .note import Note
from .notes import Notes
from .rows import (
    Keeping,
    job_from,
    kept_bytes,
    steps_from,
    summary_from,
    waiting_from,
)
from .statement import NothingChangedError, Row, Statement

logger = logging.getLogger("inference_manager.store")

T = TypeVar("T")
Statements = list[Statement]

_SWEEP = 200
_FORGET = 100
_KEEPING = Keeping()


class SavedBlobs(Blobs, Protocol):
    """Blobs that can be sure to be on the disk."""

    async def secure(self, blobs: Iterable[Blob]) -> None:
        """Wait until blobs are on the disk, so that they outlive a power cut.

        Raises:
            UnknownJob: one is not kept any more.
            StorageFailed: the disk is full or broken.

        """
        ...

    async def listed(self) -> Sequence[str]:
        """Return the keys of what was kept by a process before this one, and since."""
        ...


class SQLiteStore:
    """A `JobStore` on a database, which it opens, and then closes, unless it is open already.

    Args:
        database: where jobs are kept, perhaps with other things.
        blobs: where the blobs of requests and results are; they are dropped with their jobs.
        keep_bytes: how much ended jobs may take, with their blobs.
        keeping: how long they are kept.
        room_bytes: how much may wait to be written.
        clock: when steps are taken that carry no time.
        outbox: what else is to be written when a job that was promised ends.

    Attributes:
        notes: what is not on the disk yet.

    """

    def __init__(
        self,
        database: Database,
        *,
        blobs: SavedBlobs | None = None,
        keep_bytes: int = 2**30,
        keeping: Keeping = _KEEPING,
        room_bytes: int = 64 * 2**20,
        clock: Clock = time.time,
        outbox: Callable[[Job], Sequence[Statement]] = lambda _: (),
    ) -> None:
        self.database = database
        self.keep_bytes = keep_bytes
        self.keeping = keeping
        self._blobs = blobs
        self._clock = clock
        self._outbox = outbox
        self.notes = Notes(database, outbox=outbox, room_bytes=room_bytes, written=self._count_kept)
        self._kept_bytes = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opened = False

    def __repr__(self) -> str:
        return f"<SQLiteStore [{self.notes!r}] {self.database!r}>"

    @property
    def trouble(self) -> StorageFailed | None:
        """Why no promise can be made now; None while all is well, as far as is known."""
        return self.database.trouble

    # Its life

    async def open(self) -> None:
        """Open the database, and look for files that no job has; raises `StoreUnusable`."""
        self._opened = not self.database.is_open
        if self._opened:
            await self.database.open()
        ((self._kept_bytes,),) = await self.database.read(sql.KEPT_BYTES)
        if self._blobs is not None and self.database.path is not None:
            found = await self._blobs.listed()
            self._in_background(self._sweep(self._blobs, found))

    async def close(self) -> None:
        """Write what was noted, and close the database, if that was opened here."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.notes.close()
        if self._opened:
            await self.database.close()

    # Steps

    async def add(self, *jobs: Job) -> None:
        """Keep new jobs, all of them or none.

        Raises:
            StorageFailed: they cannot be kept.

        """
        if any(job.promise is not None for job in jobs):
            await self._for_certain(self._add(jobs))
            return
        await self.notes.room()
        for job in jobs:
            self.notes.add(job, self._step(job), self.keeping)

    async def save(self, *jobs: Job) -> None:
        """Keep the next versions of jobs, all of them or none.

        The end of a job is kept in memory, and written later, if it cannot be written now.

        Raises:
            UnknownJob: a job was never added or was forgotten.
            StaleJob: the version kept is not the one this step was made from.
            StorageFailed: they cannot be kept, or the end of a job not yet.

        """
        await self.notes.room()
        notes = await self.notes.free([job.id for job in jobs])
        for job in jobs:
            if job.id in notes:
                notes[job.id].check(job)
        if any(job.promise is not None or job.id not in notes for job in jobs):
            over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            for note in notes.values():
                note.held = over
            await self._for_certain(self._commit(jobs, notes, over))
            return
        for job in jobs:
            self.notes.take(notes[job.id], job, self._step(job))

    async def bind(self, caller: str, key: str, fingerprint: str, job_id: str) -> None:
        """Let a caller's key stand for a job that is kept already, until it is forgotten.

        Raises:
            StorageFailed: that cannot be kept.

        """
        await self.notes.free([job_id])
        self.notes.flush([job_id])
        await self.database.write(Statement(sql.BIND_KEY, caller, key, fingerprint, job_id))

    # Questions

    async def get(self, job_id: str) -> Job:
        """Return the latest version of a job.

        Raises:
            UnknownJob: the job was never added or was forgotten.
            StorageFailed: it cannot be read.

        """
        if (note := self.notes.get(job_id)) is not None:
            return note.job
        for job in await self.database.read_as(_jobs_from, sql.GET, job_id):
            return job
        raise UnknownJob.of_that_id()

    async def find(self, caller: str, key: str) -> tuple[str, str] | None:
        """Return the fingerprint and the job of a caller's key; None if it stands for none."""
        for fingerprint, job_id in await self.database.read(sql.FIND_KEY, caller, key):
            return fingerprint, job_id
        return None

    async def list(self, query: JobQuery) -> Page:
        """Return jobs, the newest first."""
        await self.notes.tried()
        text, values = sql.listing(query)
        found = await self.database.read_as(_summaries_from, text, *values)
        more = len(found) > query.limit
        return Page(found[: query.limit], found[query.limit - 1].number if more else None)

    async def history(self, job_id: str, after: int = -1) -> Sequence[Step]:
        """Return the steps of a job after a version, in order; none for an unknown job.

        The submission itself makes version 0.
        """
        note = self.notes.get(job_id)
        noted = [] if note is None else list(note.steps)
        steps = await self.database.read_as(steps_from, sql.HISTORY, job_id, after)
        last = steps[-1].version if steps else after
        return [*steps, *(step for step in noted if step.version > last)]

    async def repeated(self, *job_ids: str) -> Collection[str]:
        """Return those of the jobs that another job repeats: it names them as `retry_of`."""
        found: set[str] = set()
        for at in range(0, len(job_ids), _SWEEP):
            some = job_ids[at : at + _SWEEP]
            places = ", ".join(f"${number}" for number in range(1, len(some) + 1))
            rows = await self.database.read(f"{sql.REPEATED}({places})", *some)
            found.update(job_id for (job_id,) in rows)
        return found

    async def waiting(self) -> Sequence[Waiting]:
        """Return the promised jobs that wait, for a new process to begin with."""
        return await self.database.read_as(waiting_from, sql.WAITING)

    async def unfinished(self, *, promised: bool, until: int, limit: int) -> Sequence[Job]:
        """Return jobs that the process before this one left behind.

        Promised ones that were being worked on, or any others that have not ended; only those
        whose sequence is `until` at most.
        """
        text = sql.LEFT_RUNNING if promised else sql.LEFT_PLAIN
        return await self.database.read_as(_jobs_from, text, until, limit)

    async def last_sequence(self) -> int:
        """Return the largest sequence of all jobs; 0 without any."""
        ((written,),) = await self.database.read(sql.LAST_SEQUENCE)
        return max(int(written), self.notes.last_sequence())

    # Forgetting

    async def delete(self, *job_ids: str) -> int:
        """Forget jobs that have ended, with what they made; return how many."""
        if self.notes.lack(job_ids):
            await self.notes.tried()
        blobs: list[Blob] = []
        forgotten = 0
        for at in range(0, len(job_ids), _FORGET):
            some = job_ids[at : at + _FORGET]
            each = ((Statement(sql.BLOBS_OF, i), Statement(sql.DELETE, i)) for i in some)
            rows = await self.database.write(*chain(*each), even_if_full=True)
            for had, gone in zip(rows[::2], rows[1::2], strict=True):
                if gone:
                    forgotten += 1
                    self._kept_bytes -= gone[0][0]
                    blobs += [Blob(key, size) for key, size in had]
        if blobs and self._blobs is not None:
            await self._blobs.drop(blobs)
        return forgotten

    async def purge(self, now: float, *, limit: int) -> int:
        """Forget at most so many ended jobs whose time or room is over; return how many."""
        rows = await self.database.read(sql.OVERDUE, now, limit)
        chosen = [job_id for job_id, _ in rows]
        excess = self._kept_bytes - sum(size for _, size in rows) - self.keep_bytes
        if excess > 0 and len(chosen) < limit:
            for job_id, size in await self.database.read(sql.OLDEST, limit):
                if excess <= 0 or len(chosen) == limit:
                    break
                if job_id not in chosen:
                    chosen.append(job_id)
                    excess -= size
        return await self.delete(*chosen) if chosen else 0

    async def flushed(self) -> None:
        """Wait until everything that was noted so far is on the disk; raises `StorageFailed`."""
        await self.notes.flushed()

    # Promises

    async def _add(self, jobs: Sequence[Job]) -> None:
        await self._secure([blob for job in jobs for blob in job.request.blobs])
        await self.database.write(
            *(
                statement
                for job in jobs
                for statement in sql.added(job, [self._step(job)], self.keeping)
            )
        )

    async def _commit(
        self, jobs: Sequence[Job], notes: Mapping[str, Note], over: "asyncio.Future[None]"
    ) -> None:
        """Take steps in one transaction; the jobs noted take no other until it is `over`."""
        try:
            if any(note.queued for note in notes.values()):
                await self.database.write(even_if_full=True)  # which comes after them
            await self._secure([blob for job in jobs for blob in _to_secure(job, notes)])
            steps = {job.id: self._step(job) for job in jobs}
            await self.database.write(*self._statements(jobs, notes, steps), even_if_full=True)
        except NothingChangedError:
            raise await self._refusal(jobs) from None
        except StorageFailed:
            for job in jobs:
                if job.state.terminal and job.id not in notes:
                    self.notes.keep_end(job, self._step(job), self.keeping)
            raise
        else:
            for job in jobs:
                self._count_kept(job)
                if job.id in notes:
                    self.notes.committed(notes[job.id], job)
        finally:
            for note in notes.values():
                note.held = None
            over.set_result(None)

    def _statements(
        self, jobs: Sequence[Job], notes: Mapping[str, Note], steps: Mapping[str, Step]
    ) -> Statements:
        statements: Statements = []
        for job in jobs:
            step = steps[job.id]
            if job.id in notes:
                note = notes[job.id]
                statements += note.statements_for(job, [*note.steps, step])
            else:
                renamed = job.state is JobState.QUEUED  # only then may its model have been named
                before = job.version - 1
                statements += sql.saved(job, before, [step], self.keeping, renamed=renamed)
            if job.state.terminal and job.promise is not None:
                statements += self._outbox(job)
        return statements

    async def _refusal(self, jobs: Sequence[Job]) -> Exception:
        """Say why a step could not be taken."""
        for job in jobs:
            if self.notes.get(job.id) is None and not await self.database.read(
                sql.IS_THERE, job.id
            ):
                return UnknownJob.of_that_id()
        return StaleJob("the job has changed in the meantime")

    async def _secure(self, blobs: Sequence[Blob]) -> None:
        if blobs and self._blobs is not None and self.database.path is not None:
            await self._blobs.secure(blobs)

    def _count_kept(self, job: Job) -> None:
        self._kept_bytes += kept_bytes(job)

    def _step(self, job: Job) -> Step:
        return sql.step_of(job, self._clock())

    async def _for_certain(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something to its end, even if whoever waits for it is cancelled."""
        await asyncio.shield(self._in_background(work))

    # Files without a job

    async def _sweep(self, blobs: Blobs, found: Sequence[str]) -> None:
        """Drop the files of a process before this one that no job names."""
        try:
            named = {key for (key,) in await self.database.read(sql.ALL_BLOBS)}
            orphans = [Blob(key, 0) for key in found if key not in named]
            for at in range(0, len(orphans), _SWEEP):
                await blobs.drop(orphans[at : at + _SWEEP])
        except StorageFailed:
            logger.warning("files that nobody needs cannot be looked for", exc_info=True)

    def _in_background(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _to_secure(job: Job, notes: Mapping[str, Note]) -> Sequence[Blob]:
    """Return the blobs that a step makes a promise of."""
    if job.promise is None:
        return ()
    was_plain = job.id in notes and notes[job.id].job.promise is None
    return (*(job.request.blobs if was_plain else ()), *sql.new_blobs(job))


def _jobs_from(rows: Sequence[Row]) -> list[Job]:
    return [job_from(row) for row in rows]


def _summaries_from(rows: Sequence[Row]) -> list[Summary]:
    return [summary_from(row) for row in rows]
