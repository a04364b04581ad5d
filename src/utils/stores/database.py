"""The database: one file, one thread that writes, one that reads.

Writes pile up while the writing thread is busy. What has piled up goes into the next transaction,
so that one wait for the disk serves them all; one that fails is taken back alone.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from ...models.errors import StorageFailed
from .database_file import Batch, DatabaseFile, Outcome
from .reserve import RESERVE_BYTES
from .statement import NothingChangedError, Row, Rows, Statement

logger = logging.getLogger("inference_manager.database")

T = TypeVar("T")

_AT_ONCE = 512
_BOUND_S = 60.0


class Operation(Protocol):
    """Something to be written, all of it or nothing."""

    @property
    def even_if_full(self) -> bool:
        """Whether it is tried on a full disk too, with the room reserved for it."""
        ...

    def statements(self) -> Sequence[Statement]:
        """Say what to write; asked once, in the event loop, when the turn has come."""
        ...

    def settled(self, outcome: Outcome) -> None:
        """Take the rows of each statement, or the reason why nothing was written."""
        ...


class Database:
    """Keeps rows; opened by one process at a time.

    Args:
        path: the file, or `:memory:` for one that is gone when it is closed.
        reserve_bytes: room held back on the disk for what must be written when it is full.
        busy_s: for how long another program may hold the file.
        before_commit: called in the writing thread before each commit; for tests.

    """

    def __init__(
        self,
        path: Path | str,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        busy_s: float = 10.0,
        before_commit: Callable[[], object] | None = None,
    ) -> None:
        self.path = None if str(path) == ":memory:" else Path(path)
        self._make = partial(
            DatabaseFile,
            self.path,
            reserve_bytes=reserve_bytes,
            busy_s=busy_s,
            before_commit=before_commit,
        )
        self._file: DatabaseFile | None = None
        self._queue: deque[Operation] = deque()
        self._writing = False
        self._at_rest: asyncio.Future[None] | None = None
        self._writer: ThreadPoolExecutor
        self._reader: ThreadPoolExecutor

    def __repr__(self) -> str:
        state = "closed" if self._file is None else "in trouble" if self.trouble else "open"
        return f"<Database [{self.path or 'in memory'}, {state}, {len(self._queue)} to be written]>"

    @property
    def is_open(self) -> bool:
        """Whether it can be read and written."""
        return self._file is not None

    @property
    def trouble(self) -> StorageFailed | None:
        """Why nothing new is written now; None while the disk and the file are well."""
        return None if self._file is None else self._file.trouble

    async def open(self) -> None:
        """Open the file, or make it; raises `StoreUnusable`, which says what to do."""
        file = self._make()
        writer = ThreadPoolExecutor(1, thread_name_prefix="database-writer")
        try:
            await _in(writer, file.open)
        except BaseException:
            writer.shutdown(wait=False)
            raise
        self._writer = self._reader = writer
        if self.path is not None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix="database-reader")
        self._file = file
        self._begin()

    async def write(self, *statements: Statement, even_if_full: bool = False) -> list[Rows]:
        """Execute statements in one transaction; return the rows of each, after the commit.

        It happens to its end even if the caller is cancelled.

        Raises:
            NothingChangedError: a guarded statement returned no row, so nothing happened.
            StorageFailed: nothing happened; or the disk does not answer, and nobody knows.

        """
        if self._file is None:
            raise StorageFailed("the database is not open")
        operation = _Write(statements, even_if_full)
        self.put(operation)
        try:
            async with asyncio.timeout(_BOUND_S):
                return await asyncio.shield(operation.future)
        except TimeoutError:
            raise StorageFailed(f"the disk has not answered for {_BOUND_S:g} seconds") from None

    def put(self, operation: Operation) -> None:
        """Have an operation written in its turn; it is told what came of it."""
        self._queue.append(operation)
        self._begin()

    async def read(self, sql: str, *params: object) -> list[Row]:
        """Return the rows of a query: what was committed before; raises `StorageFailed`."""
        return await self.read_as(_unchanged, sql, *params)

    async def read_as(self, make: Callable[[list[Row]], T], sql: str, *params: object) -> T:
        """Return what is made of the rows of a query, in the reading thread; raises as `read`."""
        file = self._file
        if file is None:
            raise StorageFailed("the database is not open")
        try:
            async with asyncio.timeout(_BOUND_S):
                return await _in(self._reader, lambda: make(file.read(sql, params)))
        except TimeoutError:
            raise StorageFailed(f"the disk has not answered for {_BOUND_S:g} seconds") from None

    async def tidy(self) -> None:
        """Keep the files small; called now and then."""
        if self._file is not None:
            await _in(self._writer, self._file.tidy)

    async def flushed(self) -> None:
        """Wait until everything that was put so far, and since, has been written or has failed."""
        if self._queue or self._writing:
            if self._at_rest is None:
                self._at_rest = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._at_rest)

    async def close(self) -> None:
        """Write what was put, and let go of the file; harmless if it is not open."""
        file = self._file
        if file is None:
            return
        try:
            async with asyncio.timeout(_BOUND_S):
                await self.flushed()
                self._file = None
                await _in(self._writer, file.close)
        except TimeoutError:
            self._file = None
            logger.critical("the disk does not answer; what was to be written is lost")
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False)

    def _begin(self) -> None:
        if self._file is not None and not self._writing and self._queue:
            self._writing = True
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        """Hand everything that waits to the writing thread."""
        taken = [self._queue.popleft() for _ in range(min(len(self._queue), _AT_ONCE))]
        batch = [Batch(operation.statements(), operation.even_if_full) for operation in taken]
        assert self._file is not None  # noqa: S101 - it is closed only when nothing is written
        work = asyncio.get_running_loop().run_in_executor(self._writer, self._file.write, batch)
        work.add_done_callback(partial(self._written, taken))

    def _written(
        self, taken: Sequence[Operation], work: "asyncio.Future[Sequence[Outcome]]"
    ) -> None:
        error = work.exception()
        outcomes: Sequence[Outcome] = [_reason(error)] * len(taken) if error else work.result()
        for operation, outcome in zip(taken, outcomes, strict=True):
            try:
                operation.settled(outcome)
            except Exception:
                logger.exception("somebody failed to hear that it was written; the others do")
        self._writing = False
        self._begin()
        if not self._writing and self._at_rest is not None:
            self._at_rest.set_result(None)
            self._at_rest = None


class _Write:
    """Statements that somebody waits for."""

    def __init__(self, statements: Sequence[Statement], even_if_full: bool) -> None:
        self.even_if_full = even_if_full
        self.future: asyncio.Future[list[Rows]] = asyncio.get_running_loop().create_future()
        self._statements = statements

    def statements(self) -> Sequence[Statement]:
        return self._statements

    def settled(self, outcome: Outcome) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(_reason(outcome))
            self.future.exception()  # whoever waited may be gone
        else:
            self.future.set_result(outcome)


def _reason(error: BaseException) -> Exception:
    """Return the error that callers are told of."""
    if isinstance(error, StorageFailed | NothingChangedError):
        return error
    logger.error("something cannot be written", exc_info=error)
    failed = StorageFailed(f"the database does not take this: {type(error).__name__}")
    failed.__cause__ = error
    return failed


def _unchanged(rows: list[Row]) -> list[Row]:
    return rows


async def _in(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)
