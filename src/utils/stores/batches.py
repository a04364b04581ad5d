"""The batches in the database, and which of their lines are being answered."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from ...models.batches import Batch, BatchState, OpenLine, Problem, StoredFile
from ...models.errors import UnknownBatch
from .database import Database
from .files import insertion
from .statement import NothingChangedError, Row, Statement, Value

_SLICE = 500
_RENAMED = {"window": "completion_window"}  # a word of SQL
_NAMES = [field.name for field in fields(Batch)]
_COLUMNS = ", ".join(_RENAMED.get(name, name) for name in _NAMES)
_PLACES = ", ".join(f"${place}" for place in range(1, len(_NAMES) + 1))
_PROGRESS = ("completed", "failed", "next_line", "next_at", "output_bytes", "error_bytes")


class Batches:
    """Keeps batches. Every method raises `StorageFailed`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, batch: Batch) -> bool:
        """Keep a new batch; say whether its id was new, or else nothing was done."""
        sql = f"INSERT INTO batches({_COLUMNS}) VALUES({_PLACES}) ON CONFLICT DO NOTHING "
        [added] = await self._database.write(Statement(sql + "RETURNING id", *_row(batch)))
        return bool(added)

    async def get(self, batch_id: str, caller: str | None = None) -> Batch:
        """Return a batch, of this caller if one is named; raises `UnknownBatch`."""
        sql = f"SELECT {_COLUMNS} FROM batches WHERE id = $1 AND ($2 = '' OR caller = $2)"  # noqa: S608
        rows = await self._database.read(sql, batch_id, caller or "")
        if not rows:
            raise UnknownBatch("there is no batch with this id", hint="old ones are forgotten")
        return _batch(rows[0])

    async def list(self, caller: str, *, after: str | None, limit: int) -> Sequence[Batch]:
        """Return batches of a caller, the latest first; those after one, if it is given."""
        sql = (
            f"SELECT {_COLUMNS} FROM batches WHERE caller = $1 "  # noqa: S608
            "AND ($2 = '' OR (created_at, id) < "
            "(SELECT created_at, id FROM batches WHERE id = $2 AND caller = $1)) "
            "ORDER BY created_at DESC, id DESC LIMIT $3"
        )
        rows = await self._database.read(sql, caller, after or "", limit)
        return [_batch(row) for row in rows]

    async def live(self) -> Sequence[str]:
        """Return the ids of all batches that have not ended, the oldest first."""
        sql = "SELECT id FROM batches WHERE ended_at IS NULL ORDER BY created_at, id"
        return [row[0] for row in await self._database.read(sql)]

    async def change(self, batch: Batch, before: BatchState, *files: StoredFile) -> bool:
        """Keep the next state of a batch, and the files that are finished with it.

        Says whether it was done: it is not if the batch is not in the state `before` any more.
        """
        names = ["state", "problems", "total", *_TIMES]
        sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(names, 3))
        sql = f"UPDATE batches SET {sets} WHERE id = $1 AND state = $2 RETURNING id"  # noqa: S608
        told = dict(zip(_NAMES, _row(batch), strict=True))
        values = [told[name] for name in names]
        step = Statement(sql, batch.id, str(before), *values, guard=True)
        try:
            await self._database.write(step, *map(insertion, files), even_if_full=True)
        except NothingChangedError:
            return False
        return True

    async def begin(self, batch: Batch, lines: Iterable[OpenLine]) -> None:
        """Keep that lines are being answered, and where the next one is."""
        sql = (
            "INSERT INTO open_lines(batch, number, at, size, job) VALUES($1, $2, $3, $4, $5) "
            "ON CONFLICT(batch, number) DO UPDATE SET job = excluded.job"
        )
        insertions = [Statement(sql, batch.id, *line) for line in lines]
        await self._database.write(*insertions, _progress(batch))

    async def end(self, batch: Batch, lines: Iterable[int]) -> None:
        """Keep that lines were answered, and how far the batch has come."""
        sql = "DELETE FROM open_lines WHERE batch = $1 AND number = $2"
        deletions = [Statement(sql, batch.id, number) for number in lines]
        await self._database.write(*deletions, _progress(batch), even_if_full=True)

    async def open_lines(self, batch_id: str) -> Sequence[OpenLine]:
        """Return the lines of a batch that are being answered, in order."""
        sql = "SELECT number, at, size, job FROM open_lines WHERE batch = $1 ORDER BY number"
        return [OpenLine(*row) for row in await self._database.read(sql, batch_id)]

    async def purge(self, until: float) -> int:
        """Forget some batches that ended before a time; return how many."""
        sql = (
            "DELETE FROM batches WHERE id IN "  # noqa: S608
            f"(SELECT id FROM batches WHERE ended_at < $1 LIMIT {_SLICE}) RETURNING id"
        )
        [gone] = await self._database.write(Statement(sql, until), even_if_full=True)
        return len(gone)


_TIMES = ("in_progress_at", "finalizing_at", "cancelling_at", "over_at", "ended_at")


def _progress(batch: Batch) -> Statement:
    sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(_PROGRESS, 2))
    values = [getattr(batch, name) for name in _PROGRESS]
    return Statement(f"UPDATE batches SET {sets} WHERE id = $1", batch.id, *values)  # noqa: S608


def _row(batch: Batch) -> list[Value]:
    told: dict[str, Any] = {name: getattr(batch, name) for name in _NAMES}
    told["state"] = str(batch.state)
    told["problems"] = json.dumps([asdict(problem) for problem in batch.problems])
    told["metadata"] = None if batch.metadata is None else json.dumps(dict(batch.metadata))
    return list(told.values())


def _batch(row: Row) -> Batch:
    told: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    told["state"] = BatchState(told["state"])
    told["problems"] = [Problem(**problem) for problem in json.loads(told["problems"])]
    told["metadata"] = None if told["metadata"] is None else json.loads(told["metadata"])
    return Batch(**told)
