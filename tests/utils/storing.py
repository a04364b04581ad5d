"""Stores to test with, and the jobs that are put into them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from src.models.errors import InferenceManagerError
from src.models.jobs import Job, Level, Promise
from src.models.requests import Txt2TxtRequest
from src.utils.stores.database import Database
from src.utils.stores.sqlite import SavedBlobs, SQLiteStore

HELLO = Txt2TxtRequest.model_validate({"prompt": "hello"})
PROMISE = Promise()


@asynccontextmanager
async def opened(
    path: Path | str = ":memory:", *, blobs: SavedBlobs | None = None, **options: Any
) -> AsyncGenerator[SQLiteStore]:
    """Open a store for as long as the block lasts; `before_commit` goes to its database."""
    database = Database(
        path, **{name: options.pop(name) for name in _OF_THE_DATABASE & options.keys()}
    )
    store = SQLiteStore(database, blobs=blobs, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


_OF_THE_DATABASE = {"before_commit", "busy_s", "reserve_bytes"}


def job(job_id: str = "a", **fields: Any) -> Job:
    values: dict[str, Any] = {
        "request": HELLO,
        "model": "m",
        "caller": "anonymous",
        "level": Level.NORMAL,
        "sequence": 1,
        "submitted_at": 10.0,
        "deadline": 100.0,
        **fields,
    }
    return Job(id=job_id, **values)


def promised(job_id: str = "a", **fields: Any) -> Job:
    return job(job_id, promise=fields.pop("promise", PROMISE), **fields)


def facts(job: Job) -> tuple[Job, object]:
    """Return what two jobs have in common that are alike; errors of Python are never equal."""
    return replace(job, error=None), told(job.error)


def told(error: InferenceManagerError | None) -> object:
    return None if error is None else (type(error), error.code, str(error), vars(error))
