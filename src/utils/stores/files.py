"""The files of callers: what is known of each is in the database, what is in it on the shelf."""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import BinaryIO

from ...models.batches import StoredFile
from ...models.errors import InvalidTransition, StorageFailed, UnknownFile
from ...models.ports import Clock
from .database import Database
from .shelf import Shelf
from .statement import Row, Statement

logger = logging.getLogger("inference_manager.files")

INPUT, OUTPUT = "batch", "batch_output"
"""What files are for."""

_ENTRY_BYTES = 4096  # what a file costs besides what is in it
_SLICE = 500
_COLUMNS = "id, caller, name, purpose, size, created_at, expires_at"
_INSERT = f"INSERT INTO files({_COLUMNS}) VALUES($1, $2, $3, $4, $5, $6, $7)"
_FREE = "NOT EXISTS (SELECT 1 FROM batches b WHERE b.input_file = files.id AND b.ended_at IS NULL)"


class Files:
    """Keeps files.

    Args:
        database: where what is known of them is kept.
        shelf: where they are.
        clock: tells the time.
        new_id: makes an id that nobody can guess.
        budget_bytes: how much they may take; nothing more is then taken in.
        keep_s: how long they are kept where their caller does not say.

    """

    def __init__(
        self,
        database: Database,
        shelf: Shelf,
        *,
        clock: Clock,
        new_id: Callable[[], str],
        budget_bytes: int,
        keep_s: float,
    ) -> None:
        self.shelf = shelf
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._budget = budget_bytes
        self._keep_s = keep_s
        self._coming = 0
        """Bytes of files that are being sent now."""

    async def open(self) -> None:
        """Make the directory, and remove from it what a process before this one left unfinished."""
        await self.shelf.open()
        lost = await self.shelf.names()
        for sql in (
            "SELECT id FROM files",
            "SELECT output_file FROM batches WHERE ended_at IS NULL",
            "SELECT error_file FROM batches WHERE ended_at IS NULL",
        ):
            lost.difference_update(row[0] for row in await self._database.read(sql))
        await self.shelf.remove(lost)

    @asynccontextmanager
    async def room(self, size: int) -> AsyncGenerator[None]:
        """Have room for so many bytes as long as the block lasts; raises `StorageFailed`."""
        self._coming += size + _ENTRY_BYTES
        try:
            sql = "SELECT COALESCE(SUM(size), 0), COUNT(*) FROM files"
            [(taken, count)] = await self._database.read(sql)
            if taken + count * _ENTRY_BYTES + self._coming > self._budget:
                raise StorageFailed(
                    "files may not take more room (files_mb)",
                    hint="delete some that nobody needs, or wait until old ones are forgotten",
                )
            yield
        finally:
            self._coming -= size + _ENTRY_BYTES

    async def keep(
        self, caller: str, name: str, source: BinaryIO, keep_s: float | None = None
    ) -> StoredFile:
        """Keep a file that a caller sent; raises `StorageFailed`."""
        file_id = f"file-{self._new_id()}"
        size = await self.shelf.keep(file_id, source)
        file = self.made(file_id, caller, name, INPUT, size, keep_s)
        try:
            await self._database.write(insertion(file))
        except BaseException:
            await self.shelf.remove([file_id])
            raise
        return file

    def made(
        self,
        file_id: str,
        caller: str,
        name: str,
        purpose: str,
        size: int,
        keep_s: float | None = None,
    ) -> StoredFile:
        """Say what is known of a file that is made now."""
        now = self._clock()
        return StoredFile(
            id=file_id,
            caller=caller,
            name=name,
            purpose=purpose,
            size=size,
            created_at=now,
            expires_at=now + (self._keep_s if keep_s is None else keep_s),
        )

    async def get(self, caller: str, file_id: str) -> StoredFile:
        """Return a file of a caller; raises `UnknownFile`."""
        sql = f"SELECT {_COLUMNS} FROM files WHERE id = $1 AND caller = $2"  # noqa: S608
        rows = await self._database.read(sql, file_id, caller)
        if not rows:
            raise UnknownFile("there is no file with this id", hint="it was perhaps deleted")
        return _file(rows[0])

    async def list(
        self, caller: str, *, purpose: str | None, after: str | None, limit: int, rising: bool
    ) -> Sequence[StoredFile]:
        """Return files of a caller in the order in which they were made, or the other way round.

        Args:
            caller: whose files.
            purpose: only those for this.
            after: the file after which to begin.
            limit: at most so many.
            rising: the oldest first.

        """
        order, less = ("ASC", ">") if rising else ("DESC", "<")
        sql = (
            f"SELECT {_COLUMNS} FROM files WHERE caller = $1 AND ($2 = '' OR purpose = $2) "  # noqa: S608
            f"AND ($3 = '' OR (created_at, id) {less} "
            "(SELECT created_at, id FROM files WHERE id = $3 AND caller = $1)) "
            f"ORDER BY created_at {order}, id {order} LIMIT $4"
        )
        rows = await self._database.read(sql, caller, purpose or "", after or "", limit)
        return [_file(row) for row in rows]

    async def delete(self, caller: str, file_id: str) -> None:
        """Delete a file of a caller.

        Raises:
            UnknownFile: there is none.
            InvalidTransition: a batch reads it.

        """
        await self.get(caller, file_id)
        sql = f"DELETE FROM files WHERE id = $1 AND {_FREE} RETURNING id"  # noqa: S608
        [gone] = await self._database.write(Statement(sql, file_id), even_if_full=True)
        if not gone:
            raise InvalidTransition(
                "a batch that has not ended reads this file", hint="cancel the batch, or wait"
            )
        await self.shelf.remove([file_id])

    async def purge(self, now: float) -> int:
        """Delete some files whose time is over; return how many."""
        sql = (
            "DELETE FROM files WHERE id IN "  # noqa: S608
            f"(SELECT id FROM files WHERE expires_at <= $1 AND {_FREE} LIMIT {_SLICE}) RETURNING id"
        )
        [gone] = await self._database.write(Statement(sql, now), even_if_full=True)
        await self.shelf.remove(row[0] for row in gone)
        return len(gone)


def insertion(file: StoredFile) -> Statement:
    """Return the statement that makes a file known."""
    return Statement(
        _INSERT,
        file.id,
        file.caller,
        file.name,
        file.purpose,
        file.size,
        file.created_at,
        file.expires_at,
    )


def _file(row: Row) -> StoredFile:
    file_id, caller, name, purpose, size, created_at, expires_at = row
    return StoredFile(
        id=file_id,
        caller=caller,
        name=name,
        purpose=purpose,
        size=size,
        created_at=created_at,
        expires_at=expires_at,
    )
