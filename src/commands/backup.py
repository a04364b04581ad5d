"""`backup` and `restore`: copies of the store of jobs, made at any time, and put back."""

import asyncio
import time
from pathlib import Path

from pydantic import BaseModel

from ..models.errors import StorageFailed
from ..utils.stores import backup as copying
from ..utils.stores.audit import Audit, Facts, Record
from ..utils.stores.database import Database
from .configuration import read_settings
from .terminal import ExitCode, Failure, say, say_json


class BackupMade(BaseModel):
    """What `backup --json` prints."""

    directory: str
    size_bytes: int


class Restored(BaseModel):
    """What `restore --json` prints; `aside` is where what was there before is now."""

    store: str
    aside: str | None


def backup(target: Path, *, as_json: bool) -> None:
    """Copy the store into a new directory.

    Raises:
        Failure: there is none, or it cannot be copied.

    """
    try:
        size = copying.backup(_store(), target)
    except StorageFailed as error:
        raise _failed(error) from error
    made = BackupMade(directory=str(target.resolve()), size_bytes=size)
    if as_json:
        say_json(made)
    else:
        say(f"copied {size / 2**20:.1f} MiB to {made.directory}")


def restore(source: Path, *, as_json: bool) -> None:
    """Put a backup in the place of the store, and note that in the audit log.

    Raises:
        Failure: it is none, a server runs, or it cannot be copied.

    """
    store = _store()
    try:
        aside = copying.restore(source, store)
        asyncio.run(_note(store, {"from": str(source.resolve())}))
    except StorageFailed as error:
        raise _failed(error) from error
    done = Restored(store=str(store.resolve()), aside=None if aside is None else str(aside))
    if as_json:
        say_json(done)
        return
    say(f"{done.store} is what was in {source}")
    if aside is not None:
        say(f"what was there before is in {aside}")


async def _note(store: Path, about: Facts) -> None:
    database = Database(store)
    await database.open()
    try:
        record = Record(at=time.time(), who="command line", action="restore", about=about)
        await Audit(database).note(record)
    finally:
        await database.close()


def _store() -> Path:
    path = read_settings().store_path
    if path is None:
        raise Failure(
            "jobs are kept in memory, so there is nothing to copy; see IM_STORE", ExitCode.USAGE
        )
    return path


def _failed(error: StorageFailed) -> Failure:
    return Failure("; ".join(filter(None, (error.message, error.hint))))
