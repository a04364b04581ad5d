"""The notes: jobs that memory knows better than the disk, and how the disk catches up with them."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from ...models.errors import StorageFailed
from ...models.jobs import Job, Step
from .database import Database
from .database_file import Outcome
from .note import Note
from .rows import Keeping
from .statement import NothingChangedError, Statement

logger = logging.getLogger("inference_manager.notes")

_SOON_S = 0.1
_AGAIN_S = 1.0
_ROOM_S = 60.0
_OVERHEAD = 500


class Notes:
    """Keeps a note of each plain job that lives, and of each end that is not on the disk yet.

    Args:
        database: where they are written, a moment later.
        outbox: what else is to be written when a job that was promised ends.
        room_bytes: how much may wait to be written.
        written: told of each version that is on the disk.

    Attributes:
        unwritten_bytes: about how much waits to be written.

    """

    def __init__(
        self,
        database: Database,
        *,
        outbox: Callable[[Job], Sequence[Statement]],
        room_bytes: int,
        written: Callable[[Job], None],
    ) -> None:
        self.unwritten_bytes = 0
        self._database = database
        self._outbox = outbox
        self._room_bytes = room_bytes
        self._written = written
        self._notes: dict[str, Note] = {}
        self._unwritten: dict[str, Note] = {}
        self._failure: StorageFailed | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._progress: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"{len(self._unwritten)} to be written"

    def get(self, job_id: str) -> Note | None:
        """Return the note of a job; None if the disk knows all of it, or nobody does."""
        return self._notes.get(job_id)

    def last_sequence(self) -> int:
        """Return the largest sequence of the jobs noted; 0 without any."""
        return max((note.job.sequence for note in self._notes.values()), default=0)

    def lack(self, job_ids: Collection[str]) -> bool:
        """Whether something of these jobs is to be written."""
        return any(job_id in self._unwritten for job_id in job_ids)

    def add(self, job: Job, step: Step, keeping: Keeping) -> None:
        """Note a new job."""
        self._lacks(self._new(job, step, None, keeping), job.request.size_bytes)

    def keep_end(self, job: Job, step: Step, keeping: Keeping) -> None:
        """Note the end of a job that cannot be written now, if there is room."""
        size = _size_of_result(job)
        if self.unwritten_bytes + size <= self._room_bytes:
            self._lacks(self._new(job, step, job.version - 1, keeping), size)

    def take(self, note: Note, job: Job, step: Step) -> None:
        """Note the next version of a job."""
        note.take(job, step)
        self._lacks(note, _size_of_result(job))

    def committed(self, note: Note, job: Job) -> None:
        """Note a version that was written apart."""
        note.job = job
        note.is_written(job)
        self._settle(note)

    async def free(self, job_ids: Sequence[str]) -> dict[str, Note]:
        """Return the notes of jobs, when none of them is being committed."""
        while True:
            notes = {i: note for i in job_ids if (note := self._notes.get(i)) is not None}
            held = [note.held for note in notes.values() if note.held is not None]
            if not held:
                return notes
            await asyncio.wait(held)

    def flush(self, job_ids: Collection[str]) -> None:
        """Have what the disk lacks of these jobs written now."""
        for job_id in job_ids:
            note = self._unwritten.get(job_id)
            if note is not None and not note.queued and note.held is None:
                note.queued = True
                self._database.put(note)

    async def tried(self) -> None:
        """Wait until everything that was noted so far was written, or could not be."""
        if self._unwritten:
            self.flush(self._unwritten)
            with suppress(StorageFailed):
                await self._database.write(even_if_full=True)  # which comes after them

    async def flushed(self) -> None:
        """Wait until everything that was noted so far is on the disk; raises `StorageFailed`."""
        before = tuple(self._unwritten.values())
        await self.tried()
        if self._failure is not None and any(note.unwritten for note in before):
            raise self._failure

    async def room(self) -> None:
        """Wait until not too much is to be written: a slow disk slows down whoever needs it.

        Raises:
            StorageFailed: that does not come about.

        """
        if self.unwritten_bytes <= self._room_bytes:
            return
        try:
            async with asyncio.timeout(_ROOM_S):
                while self.unwritten_bytes > self._room_bytes:
                    if self._failure is not None:
                        self._forget_plain()
                        break
                    self.flush(self._unwritten)
                    if self._progress is None:
                        self._progress = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._progress)
        except TimeoutError:
            pass
        if self.unwritten_bytes > self._room_bytes:
            raise self._failure or StorageFailed(
                "the disk is too slow for what is to be kept", retry_after=10.0
            )

    async def close(self) -> None:
        """Write what can be written, and forget everything."""
        try:
            await self.flushed()
        except StorageFailed:
            logger.exception("what became of %d jobs is lost", len(self._unwritten))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._notes.clear()
        self._unwritten.clear()
        self.unwritten_bytes = 0

    def _new(self, job: Job, step: Step, written: int | None, keeping: Keeping) -> Note:
        self._notes[job.id] = note = Note(
            job,
            step,
            written=written,
            keeping=keeping,
            outbox=self._outbox,
            settled=self._settled,
        )
        return note

    def _lacks(self, note: Note, size: int) -> None:
        """Note that something is to be written, soon."""
        self._unwritten[note.job.id] = note
        note.size += size + _OVERHEAD
        self.unwritten_bytes += size + _OVERHEAD
        self._flush_in(_SOON_S)

    def _flush_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._flush_now)

    def _flush_now(self) -> None:
        self._timer = None
        self.flush(self._unwritten)

    def _settled(self, note: Note, outcome: Outcome) -> None:
        """Take note that something was written, or was not."""
        if self._progress is not None:
            self._progress.set_result(None)
            self._progress = None
        if isinstance(outcome, StorageFailed):
            if self._failure is None:
                logger.warning("what became of jobs cannot be written now: %s", outcome.message)
            self._failure = outcome
            self._flush_in(_AGAIN_S)
            return
        if isinstance(outcome, Exception):
            if not isinstance(outcome, NothingChangedError):  # else it is there already
                logger.error("a job cannot be kept", exc_info=outcome)
        else:
            self._failure = None
            self._written(note.taken)
        note.is_written()
        self._settle(note)

    def _settle(self, note: Note) -> None:
        """Forget what need not be remembered of a job."""
        if note.unwritten:
            self._flush_in(_SOON_S)
            return
        self._unwritten.pop(note.job.id, None)
        self.unwritten_bytes -= note.size
        note.size = 0
        if note.job.state.terminal or note.job.promise is not None:
            self._notes.pop(note.job.id, None)

    def _forget_plain(self) -> None:
        """Forget ended jobs of which nothing was promised, the oldest first, for room."""
        for note in list(self._unwritten.values()):
            if self.unwritten_bytes <= self._room_bytes:
                return
            if note.job.state.terminal and note.job.promise is None and not note.queued:
                self._unwritten.pop(note.job.id)
                self._notes.pop(note.job.id, None)
                self.unwritten_bytes -= note.size


def _size_of_result(job: Job) -> int:
    return 0 if job.result is None else job.result.size_bytes
