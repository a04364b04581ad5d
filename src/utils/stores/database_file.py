"""The file of the database, as its threads see it; nothing here knows of an event loop."""

import logging
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...models.errors import StorageFailed
from . import opening
from .connection import failure, is_busy, is_full, rows_of, transact
from .lock import Lock
from .reserve import RESERVE_BYTES, Reserve
from .statement import Row, Rows, Statement

logger = logging.getLogger("inference_manager.database")

_NO_ROOM_BYTES = 2**20
_SLICES, _SLICE_PAGES = 10, 100


class Batch(NamedTuple):
    """One operation of many that are written together."""

    statements: Sequence[Statement]
    even_if_full: bool


Outcome = list[Rows] | Exception


class DatabaseFile:
    """What is open. `write` and `tidy` are for one thread, `read` for one other.

    Attributes:
        broken: why nothing is written any more; None while all is well.
        full: whether only what frees room and what ends is written.

    """

    def __init__(
        self,
        path: Path | None,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        busy_s: float = 10.0,
        before_commit: Callable[[], object] | None = None,
    ) -> None:
        self.broken: StorageFailed | None = None
        self.full = False
        self._path = path
        self._busy_s = busy_s
        self._before_commit = before_commit
        self._lock: Lock | None = None
        self._reserve = (
            None if path is None else Reserve(path.with_name(f"{path.name}.reserve"), reserve_bytes)
        )
        self._identity: Sequence[tuple[Path, int, int]] = ()
        self._writer: sqlite3.Connection
        self._reader: sqlite3.Connection

    @property
    def trouble(self) -> StorageFailed | None:
        """Why nothing new is written; None while all is well."""
        return self.broken or (failure(_full()) if self.full else None)

    def open(self) -> None:
        """Open it; raises `StoreUnusable`."""
        if self._path is None:
            self._writer = self._reader = opening.open_in_memory(busy_s=self._busy_s)
            return
        lock = opening.take_hold(self._path)
        try:
            self._writer = opening.open_checked(self._path, busy_s=self._busy_s)
            self._reader = opening.open_for_reading(self._path, busy_s=self._busy_s)
            self._reader.execute("SELECT value FROM meta").fetchall()
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        self._identity = _identity_of(self._path)
        self._make_reserve()
        if self._reserve is not None:  # which must be enough to move all of the log
            pages = max(16, min(1000, self._reserve.size // 8192))
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {pages}")

    def write(self, batch: Sequence[Batch]) -> Sequence[Outcome]:
        """Write what can be written, in one transaction; say of each operation what it brought.

        Raises:
            StorageFailed: nothing was written.

        """
        if self.broken is not None:
            raise self.broken
        self._check_that_it_is_there()
        if self.full and not self._make_reserve():
            return self._write_without_room(batch)
        try:
            return self._transact(batch)
        except sqlite3.Error as error:
            if not self._has_no_room(error):
                raise self._gave_up(error) from error
        self.full = True
        logger.warning("the disk is full; jobs are refused until there is room again")
        if self._reserve is not None:
            self._reserve.give_up()
        self._checkpoint("TRUNCATE")
        return self._write_without_room(batch)

    def read(self, sql: str, params: Sequence[object]) -> list[Row]:
        """Return rows; raises `StorageFailed`."""
        try:
            return rows_of(self._reader, sql, params)
        except sqlite3.Error as error:
            raise self._gave_up(error) from error

    def tidy(self) -> None:
        """Move what was written to its final place, and give back room that is not used."""
        if self._path is None or self.broken is not None:
            return
        self._checkpoint("PASSIVE")
        with suppress(sqlite3.Error):  # what matters is found by the next write
            for _ in range(_SLICES):
                if not self.full and self._unused_pages() <= self._pages() // 4:
                    break
                # As a script: `execute` would give back a single page.
                self._writer.executescript(f"PRAGMA incremental_vacuum({_SLICE_PAGES})")
                self._checkpoint("TRUNCATE" if self.full else "PASSIVE")
        if self.full:
            self._make_reserve()

    def close(self) -> None:
        """Close everything, and let others have the file."""
        for connection in {self._reader, self._writer}:
            with suppress(sqlite3.Error):
                connection.close()
        if self._lock is not None:
            self._lock.release()

    def _transact(self, batch: Sequence[Batch]) -> Sequence[Outcome]:
        operations = [statements for statements, _ in batch]
        return transact(self._writer, operations, self._before_commit)

    def _write_without_room(self, batch: Sequence[Batch]) -> Sequence[Outcome]:
        """Write only what must be, together or else one after the other."""
        chosen = [one for one in batch if one.even_if_full]
        outcomes = iter(self._one_by_one(chosen))
        refused = failure(_full())
        return [next(outcomes) if one.even_if_full else refused for one in batch]

    def _one_by_one(self, batch: Sequence[Batch]) -> Sequence[Outcome]:
        if not batch:
            return []
        with suppress(sqlite3.Error):
            return self._transact(batch)
        self._checkpoint("TRUNCATE")
        outcomes: list[Outcome] = []
        for one in batch:
            try:
                outcomes += self._transact([one])
            except sqlite3.Error as error:
                outcomes.append(failure(_full() if self._has_no_room(error) else error))
        return outcomes

    def _checkpoint(self, how: str) -> None:
        """Move what was written to its final place, as far as that can be done now."""
        with suppress(sqlite3.Error):
            self._writer.execute(f"PRAGMA wal_checkpoint({how})").fetchall()

    def _has_no_room(self, error: sqlite3.Error) -> bool:
        if is_full(error):
            return True
        if self._path is None or not error.sqlite_errorname.startswith("SQLITE_IOERR"):
            return False
        with suppress(OSError):
            return shutil.disk_usage(self._path.parent).free < _NO_ROOM_BYTES
        return False

    def _gave_up(self, error: sqlite3.Error) -> StorageFailed:
        """Say what went wrong; unless it passes, nothing is promised on this file any more."""
        failed = failure(error)
        name = getattr(error, "sqlite_errorname", "")
        if is_busy(error) or not name.startswith(_LASTING):
            return failed
        return self._broke(failed)

    def _broke(self, why: StorageFailed) -> StorageFailed:
        if self.broken is None:
            self.broken = why
            logger.critical("nothing is kept any more in %s: %s", self._path, why.message)
        return why

    def _check_that_it_is_there(self) -> None:
        for path, device, inode in self._identity:
            try:
                now = path.stat()
            except OSError:
                now = None
            if now is None or (now.st_dev, now.st_ino) != (device, inode):
                raise self._broke(
                    StorageFailed(
                        f"{path.name} was removed or replaced while the server had it open",
                        hint="stop the server and put the file back, or restore a backup",
                    )
                )

    def _make_reserve(self) -> bool:
        made = self._reserve is None or self._reserve.make()
        if made and self.full:
            logger.info("there is room on the disk again")
        self.full = not made
        return made

    def _pages(self) -> int:
        return int(self._writer.execute("PRAGMA page_count").fetchone()[0])

    def _unused_pages(self) -> int:
        return int(self._writer.execute("PRAGMA freelist_count").fetchone()[0])


_LASTING = (
    "SQLITE_IOERR",
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
    "SQLITE_PROTOCOL",
)


def _identity_of(path: Path) -> Sequence[tuple[Path, int, int]]:
    """Return what tells the files of a database from others of their names."""
    files = [path, path.with_name(f"{path.name}-wal")]
    return [(file, (now := file.stat()).st_dev, now.st_ino) for file in files if file.exists()]


def _full() -> sqlite3.Error:
    error = sqlite3.OperationalError("full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error
