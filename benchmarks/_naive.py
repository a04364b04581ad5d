"""How one would do it without thinking: a row for each job and a commit for each call."""

import json
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
from fastapi import FastAPI

_TABLE = (
    "CREATE TABLE IF NOT EXISTS jobs(number INTEGER PRIMARY KEY AUTOINCREMENT, "
    "id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, request TEXT NOT NULL)"
)


class Naive:
    """Jobs in SQLite, as safe against a power cut as ours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: aiosqlite.Connection

    async def open(self) -> None:
        """Open the file."""
        self._database = await aiosqlite.connect(self._path, isolation_level=None)
        await self._database.execute("PRAGMA journal_mode = WAL")
        await self._database.execute("PRAGMA synchronous = FULL")
        await self._database.execute(_TABLE)

    async def add(self, job_id: str, request: str) -> None:
        """Keep a job; it is on the disk when this returns."""
        await self._database.execute(
            "INSERT INTO jobs(id, state, request) VALUES(?, 'queued', ?)", (job_id, request)
        )

    async def close(self) -> None:
        """Let go of the file."""
        await self._database.close()


_naive = Naive(Path(os.environ.get("NAIVE_DATABASE", "naive.db")))


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncGenerator[None]:
    await _naive.open()
    yield
    await _naive.close()


app = FastAPI(lifespan=_lifespan)


@app.get("/health")
@app.get("/ready")
async def health() -> dict[str, bool]:
    """Say that it is there."""
    return {"ready": True}


@app.post("/jobs", status_code=202)
async def submit(request: dict[str, Any]) -> dict[str, str]:
    """Take a job in."""
    job_id = secrets.token_urlsafe(12)
    await _naive.add(job_id, json.dumps(request))
    return {"job_id": job_id}
