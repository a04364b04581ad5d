"""One batch on its way: its lines become jobs, a window of them at a time, and jobs answers.

A line becomes a promised job; its key is the line's own, so that a line has one job however often
it is asked. When the job has ended, its answer is written behind what is in the file already, and
then the database is told how much of the file counts. What a process leaves unfinished the next
one cuts off and does again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from .batch_questions import Answer, Desk, asked_on, name_of, question_of, skipped, why_left
from .models.batches import (
    Batch,
    BatchState,
    OpenLine,
    Problem,
    RawLine,
    Validation,
    answer_line,
    error_line,
)
from .models.errors import (
    InferenceManagerError,
    Refused,
    StorageFailed,
    UnknownFile,
    UnknownJob,
)
from .models.jobs import Job, JobQuery, JobState, Promise
from .models.ports import Clock
from .processor import Processor
from .utils.stores.batches import Batches
from .utils.stores.files import OUTPUT, Files

logger = logging.getLogger("inference_manager.batches")

_LATER_S = 5.0
_LOOK_S = 60.0
_AT_ONCE = 20
_SKIPPED_AT_ONCE = 1000
_WRITTEN_AT_ONCE = 2**20
_MARGIN_S = 1.0  # so that at the end of a window it is the batch that ends, and not its jobs


class BatchRun:
    """Carries a batch out, from wherever it is; whoever listens for the ends of jobs tells it.

    Args:
        batch: as it is kept.
        batches: where it is kept.
        files: where its files are.
        processor: what runs the jobs of its lines.
        desk: what turns lines into jobs, and jobs into answers.
        clock: tells the time.
        room: says how many lines may be in the queue.
        longest: how many bytes a line may have.
        breath_s: how long after the end of a job others are waited for, to write all at once.

    """

    def __init__(
        self,
        batch: Batch,
        batches: Batches,
        files: Files,
        processor: Processor,
        desk: Desk,
        *,
        clock: Clock,
        room: Callable[[], int],
        longest: int,
        breath_s: float,
    ) -> None:
        self.batch = batch
        self.stale = False
        """Whether somebody else has changed the batch."""
        self.poke = asyncio.Event()
        """Set when there is something to do."""
        self._batches = batches
        self._files = files
        self._processor = processor
        self._desk = desk
        self._clock = clock
        self._room = room
        self._longest = longest
        self._breath_s = breath_s
        self._lines: dict[int, OpenLine] = {}
        self._over: set[str] = set()
        """The jobs that have ended."""
        self._refusals: dict[int, Answer] = {}
        """The answers to lines that have no job."""
        self._at_end = False
        self._later = 0.0
        """Until when the queue is left alone."""
        self._looked: float | None = None

    def __repr__(self) -> str:
        return f"<BatchRun {self.batch.id} [{self.batch.state}, {len(self._lines)} lines]>"

    @property
    def _answered(self) -> list[OpenLine]:
        """The lines whose answers can be written."""
        return [
            line
            for line in self._lines.values()
            if line.job in self._over or line.number in self._refusals
        ]

    @property
    def _unasked(self) -> list[OpenLine]:
        """The lines that have no job yet: there was no room, or a process ended."""
        return [
            line
            for line in self._lines.values()
            if not line.job and line.number not in self._refusals
        ]

    def ended(self, job_id: str) -> None:
        """Take note of the end of a job."""
        self._over.add(job_id)
        self.poke.set()

    async def go_on(self) -> None:
        """Carry the batch out to its end, unless somebody else interferes at the last moment."""
        try:
            if self.batch.state is BatchState.VALIDATING:
                await self._validate()
            if self.batch.state in (BatchState.IN_PROGRESS, BatchState.CANCELLING):
                await self._answer()
            if not self.batch.state.terminal:
                await self._finish()
        except UnknownFile as error:
            problem = Problem("file_lost", error.message)
            now = self._clock()
            await self._step(BatchState.FAILED, problems=[problem], ended_at=now)
        if self.batch.state.terminal:
            told = {"batch": self.batch.id, "state": str(self.batch.state)}
            logger.info("a batch has ended", extra=told)

    async def _step(self, state: BatchState, **changes: object) -> None:
        """Take a batch's next step, unless somebody else has taken another."""
        batch = replace(self.batch, state=state, **changes)  # type: ignore[arg-type]
        if await self._batches.change(batch, self.batch.state):
            self.batch = batch
        else:
            await self._refresh()

    async def _refresh(self) -> None:
        fresh = await self._batches.get(self.batch.id)
        self.stale = False
        self.batch = replace(self.batch, state=fresh.state, cancelling_at=fresh.cancelling_at)

    # Before the first line

    async def _validate(self) -> None:
        validation = Validation(self.batch.endpoint, self._longest)
        at = number = 0
        while not validation.hopeless and not self.stale:
            lines = await self._read(at, number, _SKIPPED_AT_ONCE)
            if not lines:
                break
            await asyncio.to_thread(_look_at, validation, lines)
            at, number = lines[-1].next_at, lines[-1].number + 1
            if len(lines[-1].raw) > self._longest:
                break
        now = self._clock()
        if self.stale:
            await self._refresh()
        elif problems := validation.verdict():
            await self._step(BatchState.FAILED, problems=problems, ended_at=now)
        else:
            total = validation.total
            await self._step(BatchState.IN_PROGRESS, total=total, in_progress_at=now)

    # Line after line

    async def _answer(self) -> None:
        """Have all lines answered, or say of each why it was not."""
        self._lines = {line.number: line for line in await self._batches.open_lines(self.batch.id)}
        while self._lines or not self._at_end:
            self.poke.clear()
            if self.stale:
                await self._refresh()
            await self._look()
            if self.batch.state is BatchState.CANCELLING or self._clock() >= self.batch.expires_at:
                await self._stop()
            else:
                await self._ask()
            if not await self._write() and (self._lines or not self._at_end):
                await self._rest()

    async def _rest(self) -> None:
        now = self._clock()
        delays = [_LOOK_S, self.batch.expires_at - now]
        if self._later > now:
            delays.append(self._later - now)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(min(d for d in delays if d > 0), 0.01)):
                await self.poke.wait()
                if not all(line.job in self._over for line in self._lines.values()):
                    await asyncio.sleep(self._breath_s)

    async def _look(self) -> None:
        """Look, now and then, whether a job has ended without our hearing of it."""
        now = asyncio.get_running_loop().time()
        if self._looked is not None and now - self._looked < _LOOK_S:
            return
        self._looked = now
        for line in self._lines.values():
            if line.job and line.job not in self._over:
                try:
                    job = await self._processor.store.get(line.job)
                except UnknownJob:
                    self._over.add(line.job)
                else:
                    if job.state.terminal:
                        self._over.add(line.job)

    async def _ask(self) -> None:
        """Fill the window."""
        if self._clock() < self._later:
            return
        again = self._unasked
        for slice_ in (again[at : at + _AT_ONCE] for at in range(0, len(again), _AT_ONCE)):
            known = [await self._line(line) for line in slice_]
            if not await self._take(known, self.batch):
                return
        while not self._at_end:
            room = self._room() - len(self._lines)
            if room <= 0 or self.stale:
                return
            batch = self.batch
            lines = await self._read(batch.next_at, batch.next_line, min(room, _AT_ONCE))
            self._at_end = not lines
            if lines:
                at, number = lines[-1].next_at, lines[-1].number + 1
                if not await self._take(lines, replace(batch, next_at=at, next_line=number)):
                    return

    async def _take(self, lines: Sequence[RawLine], batch: Batch) -> bool:
        """Have lines taken in, and keep how far the batch has then come; say if all were."""
        wanted = [line for line in lines if not line.blank]
        outcomes = await asyncio.gather(*map(self._job, wanted), return_exceptions=True)
        taken: list[OpenLine] = []
        for line, outcome in zip(wanted, outcomes, strict=True):
            job = ""
            if isinstance(outcome, Refused | StorageFailed):
                self._later = self._clock() + min(outcome.retry_after or _LATER_S, _LOOK_S)
            elif isinstance(outcome, BaseException):
                raise outcome
            elif isinstance(outcome, Answer):
                self._refusals[line.number] = outcome
            else:
                job = outcome.id
                if outcome.state.terminal:
                    self._over.add(job)
            taken.append(OpenLine(line.number, line.at, len(line.raw), job))
        await self._batches.begin(batch, taken)
        self.batch = batch
        self._lines |= {line.number: line for line in taken}
        return self._later <= self._clock()

    async def _job(self, line: RawLine) -> Job | Answer:
        """Return the job of a line, or why it has none; raises what stands in the way for now."""
        batch = self.batch
        question = question_of(batch, (await asked_on(batch, line)).body)
        try:
            return await self._desk.take(
                question,
                key=f"{batch.id}/{line.number}",
                promise=Promise(batch=batch.id, line=line.number),
                deadline_s=max(batch.expires_at - self._clock(), 0.0) + _MARGIN_S,
            )
        except (Refused, StorageFailed):
            raise
        except InferenceManagerError as error:
            return self._desk.refusal(error)

    async def _stop(self) -> None:
        """Cancel what runs; then say of each line that is left that it was not carried out."""
        batch = self.batch
        left = batch.completed + batch.failed < batch.total
        if left and batch.over_at is None and batch.state is BatchState.IN_PROGRESS:
            await self._step(batch.state, over_at=self._clock())
        store, live = self._processor.store, JobQuery(batch=self.batch.id, states=_LIVE, limit=500)
        for job in (await store.list(live)).jobs:
            with suppress(UnknownJob):
                await self._processor.cancel(job.id)
        self._over.update(line.job for line in self._lines.values())
        while await self._write():
            pass
        while not self._at_end:
            batch = self.batch
            lines = await self._read(batch.next_at, batch.next_line, _SKIPPED_AT_ONCE)
            self._at_end = not lines
            if lines:
                written = await asyncio.to_thread(skipped, batch, lines)
                size = await self._files.shelf.append(batch.error_file, batch.error_bytes, written)
                at, number = lines[-1].next_at, lines[-1].number + 1
                batch = replace(batch, next_at=at, next_line=number, error_bytes=size)
                await self._batches.end(batch, ())
                self.batch = batch

    # What is written

    async def _write(self) -> bool:
        """Write answers that are there, or a part of them; say if there were any."""
        answered = self._answered
        if not answered:
            return False
        batch, output, errors = self.batch, bytearray(), bytearray()
        written: list[OpenLine] = []
        jobs: list[Job] = []
        for line in answered:
            job = await self._ended(line)
            text, well = await self._answer_to(line, job)
            written.append(line)
            if well:
                output += text
                jobs.extend([job] if job is not None else [])
            else:
                errors += text
            if well is not None:
                completed, failed = batch.completed + well, batch.failed + (not well)
                batch = replace(batch, completed=completed, failed=failed)
            if len(output) + len(errors) > _WRITTEN_AT_ONCE:
                break
        shelf = self._files.shelf
        if output:
            size = await shelf.append(batch.output_file, batch.output_bytes, bytes(output))
            batch = replace(batch, output_bytes=size)
        if errors:
            size = await shelf.append(batch.error_file, batch.error_bytes, bytes(errors))
            batch = replace(batch, error_bytes=size)
        await self._batches.end(batch, [line.number for line in written])
        self.batch = batch
        for line in written:
            del self._lines[line.number]
            if line.job:
                self._over.discard(line.job)
            self._refusals.pop(line.number, None)
        await self._forget(batch, jobs)
        return True

    async def _ended(self, line: OpenLine) -> Job | None:
        """Return the job of a line; None if it has none, or none any more."""
        try:
            return await self._processor.store.get(line.job) if line.job else None
        except UnknownJob:
            return None

    async def _answer_to(self, line: OpenLine, job: Job | None) -> tuple[bytes, bool | None]:
        """Write the line of an answer; say whether it went well, None if it was not carried out."""
        batch, name = self.batch, name_of(self.batch, line.number)
        asked = await asked_on(batch, await self._line(line))
        refusal = self._refusals.get(line.number)
        if refusal is None and (job is None or job.state in _UNDONE):
            why = why_left(batch)
            if why is not None:
                return error_line(name, asked.custom_id, code=why[0], message=why[1]), None
        if job is not None:
            answer = await self._desk.answer(question_of(batch, asked.body), job)
        else:
            answer = refusal or self._desk.refusal(UnknownJob.of_that_id())
        text = answer_line(
            name,
            asked.custom_id,
            status=answer.status,
            request_id=name if job is None else job.id,
            body=answer.body,
        )
        return text, answer.status == 200

    async def _forget(self, batch: Batch, jobs: Iterable[Job]) -> None:
        """Forget jobs that were answered well, but not what answers lead to."""
        done = [
            job.id
            for job in jobs
            if job.promise is not None
            and job.promise.batch == batch.id
            and job.result is not None
            and not list(job.result.media)
        ]
        if done:
            with suppress(StorageFailed):  # they are then forgotten when their time is over
                await self._processor.store.delete(*done)

    async def _finish(self) -> None:
        """Hand the files over."""
        if self.batch.state is BatchState.IN_PROGRESS:
            await self._step(BatchState.FINALIZING, finalizing_at=self._clock())
        batch = self.batch
        final = BatchState.COMPLETED if batch.over_at is None else BatchState.EXPIRED
        if batch.state is BatchState.CANCELLING:
            final = BatchState.CANCELLED
        files = [
            self._files.made(file_id, batch.caller, f"{batch.id}_{word}.jsonl", OUTPUT, size, keep)
            for file_id, word, size, keep in (
                (batch.output_file, "output", batch.output_bytes, batch.keep_s),
                (batch.error_file, "error", batch.error_bytes, batch.keep_s),
            )
            if size
        ]
        ended = replace(batch, state=final, ended_at=self._clock())
        if await self._batches.change(ended, batch.state, *files):
            self.batch = ended

    async def _read(self, at: int, number: int, most: int) -> Sequence[RawLine]:
        name, longest = self.batch.input_file, self._longest
        return await self._files.shelf.lines(name, at, number, most=most, longest=longest)

    async def _line(self, line: OpenLine) -> RawLine:
        raw = await self._files.shelf.read(self.batch.input_file, line.at, line.size)
        return RawLine(line.number, line.at, raw)


_LIVE = frozenset(state for state in JobState if not state.terminal)
_UNDONE = (JobState.CANCELLED, JobState.EXPIRED)


def _look_at(validation: Validation, lines: Iterable[RawLine]) -> None:
    for line in lines:
        validation.look(line)
