"""The batches: takes them in, has each carried out whatever happens meanwhile, and tidies up."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import replace
from hashlib import sha256

from .batch_questions import Desk
from .batch_runs import BatchRun
from .models.batches import Batch, BatchState, share, window_in
from .models.errors import IdempotencyConflict, InvalidTransition, QueueFull, StorageFailed
from .models.events import Ended, Event
from .models.ports import Clock
from .models.sharing import check_key
from .processor import Processor
from .utils.stores.batches import Batches
from .utils.stores.files import Files

logger = logging.getLogger("inference_manager.batches")

MOST_BATCHES = 1000
"""How many batches may be on their way."""

_LATER_S = 5.0
_TIDY_S = 60.0
_MEANT = ("endpoint", "input_file", "window", "metadata", "keep_s")


def _digest(caller: str, key: str) -> str:
    """Make of a caller's key what its batch is called."""
    check_key(key)
    return sha256(f"{caller} {key}".encode()).hexdigest()[:32]


def _same(batch: Batch, kept: Batch) -> Batch:
    """Return the batch that is kept, if it is the one that was meant."""
    if any(getattr(batch, name) != getattr(kept, name) for name in _MEANT):
        raise IdempotencyConflict(
            "this Idempotency-Key was used for another batch",
            hint="send a new key with a new batch",
        )
    return kept


class BatchRunner:
    """Carries batches out.

    Args:
        batches: where they are kept.
        files: where their files are.
        processor: what runs the jobs of their lines.
        desk: what turns lines into jobs, and jobs into answers.
        clock: tells the time.
        new_id: makes an id that nobody can guess.
        window: how many lines, of all batches together, may be in the queue.
        longest: how many bytes a line may have.
        keep_s: how long a batch is remembered after its end.
        breath_s: how long after the end of a job others are waited for, to write all at once.

    """

    def __init__(
        self,
        batches: Batches,
        files: Files,
        processor: Processor,
        desk: Desk,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        window: int,
        longest: int,
        keep_s: float,
        breath_s: float = 0.1,
    ) -> None:
        self._batches = batches
        self._files = files
        self._processor = processor
        self._desk = desk
        self._clock = clock
        self._new_id = new_id
        self._window = window
        self._longest = longest
        self._keep_s = keep_s
        self._breath_s = breath_s
        self._runs: dict[str, BatchRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<BatchRunner [{len(self._runs)} batches]>"

    def __call__(self, event: Event) -> None:
        """Listen: the jobs of lines end."""
        if not isinstance(event, Ended) or event.job.promise is None:
            return
        run = self._runs.get(event.job.promise.batch)
        if run is not None:
            run.ended(event.job.id)

    # For the doors

    async def submit(
        self,
        *,
        caller: str,
        endpoint: str,
        input_file: str,
        window: str,
        base_url: str,
        metadata: dict[str, str] | None = None,
        keep_s: float | None = None,
        key: str | None = None,
    ) -> Batch:
        """Take a batch in.

        Args:
            caller: who asks.
            endpoint: where all its lines lead.
            input_file: the id of the file with the lines.
            window: how long it may take, such as `24h`.
            base_url: where its caller reached this server.
            metadata: what is kept with it.
            keep_s: for how long the answers are kept.
            key: the same for the same batch of the caller, if it is handed over again.

        Raises:
            UnknownFile: there is no such file.
            InvalidInput: the window or the key is none.
            IdempotencyConflict: the key was used for another batch.
            QueueFull: as many batches are on their way as may be.
            StorageFailed: it cannot be kept.

        """
        seconds = window_in(window)
        await self._files.get(caller, input_file)
        if len(self._tasks) >= MOST_BATCHES:
            raise QueueFull(
                f"{MOST_BATCHES:,} batches are on their way, which is as many as may be",
                retry_after=60.0,
            )
        now = self._clock()
        batch = Batch(
            id=f"batch_{self._new_id() if key is None else _digest(caller, key)}",
            caller=caller,
            endpoint=endpoint,
            input_file=input_file,
            window=window,
            base_url=base_url,
            output_file=f"file-{self._new_id()}",
            error_file=f"file-{self._new_id()}",
            created_at=now,
            expires_at=now + seconds,
            keep_s=keep_s,
            metadata=metadata,
        )
        if not await self._batches.add(batch):
            return _same(batch, await self._batches.get(batch.id, caller))
        self._start(batch.id)
        return batch

    async def get(self, caller: str, batch_id: str) -> Batch:
        """Return a batch of a caller; raises `UnknownBatch`."""
        return await self._batches.get(batch_id, caller)

    async def list(self, caller: str, *, after: str | None, limit: int) -> Sequence[Batch]:
        """Return batches of a caller, the latest first."""
        return await self._batches.list(caller, after=after, limit=limit)

    async def cancel(self, caller: str, batch_id: str) -> Batch:
        """Begin to cancel a batch; harmless if somebody has.

        Raises:
            UnknownBatch: there is none.
            InvalidTransition: it is being finished, or has ended.

        """
        while True:
            batch = await self._batches.get(batch_id, caller)
            if batch.state in (BatchState.CANCELLING, BatchState.CANCELLED):
                return batch
            if batch.state not in (BatchState.VALIDATING, BatchState.IN_PROGRESS):
                raise InvalidTransition(f"a batch that is {batch.state} cannot be cancelled")
            cancelling = replace(batch, state=BatchState.CANCELLING, cancelling_at=self._clock())
            if await self._batches.change(cancelling, batch.state):
                if (run := self._runs.get(batch_id)) is not None:
                    run.stale = True
                    run.poke.set()
                return cancelling

    def wake(self) -> None:
        """Have every batch look again now."""
        for run in self._runs.values():
            run.poke.set()

    # The life of the runner

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Carry batches out for as long as the block lasts, those from before first."""
        await self._files.open()
        self._processor.listen(self)
        for batch_id in await self._batches.live():
            self._start(batch_id)
        tidying = asyncio.create_task(self._tidy(), name="tidy batches")
        try:
            yield
        finally:
            tasks = [tidying, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._files.shelf.close()

    def _start(self, batch_id: str) -> None:
        name = f"batch {batch_id}"  # and nothing of the request through which it came
        task = asyncio.create_task(self._carry_out(batch_id), name=name, context=Context())
        self._tasks[batch_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(batch_id, None))

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_S)
            try:
                await self._files.purge(self._clock())
                await self._batches.purge(self._clock() - self._keep_s)
            except StorageFailed:
                logger.warning("old files of batches cannot be removed now", exc_info=True)

    async def _carry_out(self, batch_id: str) -> None:
        """Carry a batch out; after a failure take it up again from what is kept of it."""
        while True:
            try:
                run = self._runs[batch_id] = await self._run(batch_id)
                await run.go_on()
            except Exception:
                logger.exception("a batch is taken up again later", extra={"batch": batch_id})
            else:
                if run.batch.state.terminal:
                    return
            finally:
                self._runs.pop(batch_id, None)
            await asyncio.sleep(_LATER_S)

    async def _run(self, batch_id: str) -> BatchRun:
        return BatchRun(
            await self._batches.get(batch_id),
            self._batches,
            self._files,
            self._processor,
            self._desk,
            clock=self._clock,
            room=lambda: share(self._window, len(self._runs)),
            longest=self._longest,
            breath_s=self._breath_s,
        )
