"""The addresses of what jobs made, behind a store that has it already."""

import time
from collections.abc import AsyncGenerator

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from starlette.types import Message, Scope

from src.models.blobs import Blob
from src.models.metrics import ErrorLog, RequestMetrics
from src.models.results import Audio, Result, Video
from src.routes import errors, media
from src.routes.tools import Tools
from src.utils.blobs import FileBlobs
from src.utils.stores.memory import MemoryStore
from tests.managing import processor_for
from tests.models.making import NOW, job

MIB = 2**20
FILM = bytes(range(256)) * (5 * MIB // 256)


@pytest.fixture
async def blobs() -> AsyncGenerator[FileBlobs]:
    kept = FileBlobs()
    yield kept
    await kept.close()


async def _showing(blobs: FileBlobs, result: Result) -> FastAPI:
    """Make the routes in front of a job that ended with a result."""
    store = MemoryStore()
    await store.add(job(id="j").started("b", NOW).completed(result, NOW))
    processor = processor_for([], store=store)
    tools = Tools(processor, RequestMetrics(), ErrorLog(), clock=time.time, blobs=blobs)
    app, router = FastAPI(), APIRouter()
    errors.install(app)
    media.add(router, tools)
    app.include_router(router)
    return app


async def _get(app: FastAPI, path: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.get(path)


async def test_a_film_comes_in_pieces_and_whole(blobs: FileBlobs) -> None:
    kept = await blobs.keep(FILM)
    app = await _showing(blobs, Result(videos=(Video(kept, "video/mp4"),)))
    pieces: list[bytes] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        pieces.append(message.get("body", b""))

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/videos/j/0",
        "query_string": b"",
        "headers": [],
        "asgi": {"spec_version": "2.4"},
    }
    await app(scope, receive, send)

    assert isinstance(kept, Blob)
    assert b"".join(pieces) == FILM
    assert max(map(len, pieces)) < MIB


@pytest.mark.parametrize(
    ("media_type", "disposition"),
    [
        ("audio/mpeg", 'inline; filename="j-0.mp3"'),
        ("text/html", 'attachment; filename="j-0.bin"'),
        ("image/svg+xml", 'attachment; filename="j-0.bin"'),
    ],
)
async def test_what_is_no_medium_is_saved_and_never_shown(
    blobs: FileBlobs, media_type: str, disposition: str
) -> None:
    app = await _showing(blobs, Result(audio=(Audio(b"RIFF", media_type),)))

    response = await _get(app, "/audio/j/0")

    assert response.content == b"RIFF"
    assert response.headers["content-type"].startswith(media_type)
    assert response.headers["content-disposition"] == disposition
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_what_was_forgotten_is_not_found(blobs: FileBlobs) -> None:
    kept = await blobs.keep(FILM)
    assert isinstance(kept, Blob)
    app = await _showing(blobs, Result(videos=(Video(kept, "video/mp4"),)))

    await blobs.drop([kept])

    response = await _get(app, "/videos/j/0")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "job_not_found"
