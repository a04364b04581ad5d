"""The addresses of what jobs made, behind a store that has it already."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from starlette.types import Message, Scope

from src.models.blobs import Blob, Content
from src.models.metrics import ErrorLog, RequestMetrics
from src.models.results import Audio, Result, Video
from src.routes import errors, media
from src.routes.pieces import SEND_S
from src.routes.tools import Tools
from src.sharing import Sharing
from src.utils.blobs import PIECE, FileBlobs
from tests.kept import in_memory
from tests.managing import processor_for
from tests.models.making import NOW, job
from tests.serving import PATIENCE_S, serving

MIB = 2**20
FILM = bytes(range(256)) * (5 * MIB // 256)
SOON_S = 0.05


class Watched(FileBlobs):
    """Blobs that say when a stream of them is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()

    async def stream(self, content: Content, piece: int = PIECE) -> AsyncGenerator[bytes]:
        try:
            async for some in super().stream(content, piece):
                yield some
        finally:
            self.closed.set()


class Caller:
    """A caller that takes so many messages of an answer, or all of them."""

    def __init__(self, takes: int | None = None) -> None:
        self.messages: list[Message] = []
        self._takes = takes

    async def __call__(self, app: FastAPI, path: str) -> None:
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [],
        }
        async with asyncio.timeout(PATIENCE_S):
            await app(scope, self._receive, self._send)

    @property
    def pieces(self) -> list[bytes]:
        return [message.get("body", b"") for message in self.messages]

    async def _receive(self) -> Message:
        return await asyncio.Future()

    async def _send(self, message: Message) -> None:
        if len(self.messages) == self._takes:
            await asyncio.Future()
        self.messages.append(message)


@pytest.fixture
async def blobs() -> AsyncGenerator[Watched]:
    kept = Watched()
    yield kept
    await kept.close()


async def _showing(blobs: FileBlobs, result: Result, *, send_s: float = SEND_S) -> FastAPI:
    """Make the routes in front of a job that ended with a result."""
    store = in_memory()
    await store.add(job(id="j", caller="anonymous").started("b", NOW).completed(result, NOW))
    processor = processor_for([], store=store)
    sharing = Sharing(processor, blobs, merge=False, cache_bytes=0)
    tools = Tools(processor, sharing, RequestMetrics(), ErrorLog(), clock=time.time, blobs=blobs)
    app, router = FastAPI(), APIRouter()
    errors.install(app)
    media.add(router, tools, send_s=send_s)
    app.include_router(router)
    return app


async def _get(app: FastAPI, path: str, method: str = "GET") -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
        return await http.request(method, path)


async def test_a_film_comes_in_pieces_and_whole(blobs: Watched) -> None:
    kept = await blobs.keep(FILM)
    app = await _showing(blobs, Result(videos=(Video(kept, "video/mp4"),)))
    caller = Caller()

    await caller(app, "/videos/j/0")

    assert isinstance(kept, Blob)
    assert b"".join(caller.pieces) == FILM
    assert max(map(len, caller.pieces)) < MIB


async def test_a_caller_that_stops_taking_a_film_is_cut_off(
    blobs: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="inference_manager.pieces")
    film = Video(await blobs.keep(FILM), "video/mp4")
    app = await _showing(blobs, Result(videos=(film,)), send_s=SOON_S)
    caller = Caller(takes=3)

    await caller(app, "/videos/j/0")

    assert len(caller.messages) == 3
    assert blobs.closed.is_set()
    assert "cut off a caller that took nothing for 0.05 s" in caplog.text


def test_the_reference_says_when_a_caller_is_cut_off() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/http.md").read_text(encoding="utf-8")

    assert f"untaken for {SEND_S:g} s is cut off" in " ".join(page.split())


async def test_a_connection_from_which_nobody_reads_is_closed(blobs: Watched) -> None:
    film = Video(await blobs.keep(FILM * 5), "video/mp4")
    app = await _showing(blobs, Result(videos=(film,)), send_s=SOON_S)

    def read_late(port: int) -> int:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE_S)
            connection.connect(("127.0.0.1", port))
            connection.sendall(b"GET /videos/j/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert blobs.closed.wait(PATIENCE_S)
            return sum(map(len, iter(lambda: connection.recv(MIB), b"")))

    with serving(app) as url:
        taken = await asyncio.to_thread(read_late, int(url.rpartition(":")[2]))

    assert taken < len(FILM) * 5


@pytest.mark.parametrize(
    ("path", "status"), [("/videos/j/0", 200), ("/videos/j/1", 404), ("/images/j/0", 404)]
)
async def test_head_answers_as_get_without_the_body(blobs: Watched, path: str, status: int) -> None:
    app = await _showing(blobs, Result(videos=(Video(await blobs.keep(FILM), "video/mp4"),)))

    head, got = await _get(app, path, "HEAD"), await _get(app, path)

    assert head.status_code == got.status_code == status
    assert head.headers == got.headers
    assert status != 200 or head.content == b""
    assert status != 200 or head.headers["content-length"] == str(len(FILM))


@pytest.mark.parametrize(
    ("media_type", "disposition"),
    [
        ("audio/mpeg", 'inline; filename="j-0.mp3"'),
        ("text/html", 'attachment; filename="j-0.bin"'),
        ("image/svg+xml", 'attachment; filename="j-0.bin"'),
    ],
)
async def test_what_is_no_medium_is_saved_and_never_shown(
    blobs: Watched, media_type: str, disposition: str
) -> None:
    app = await _showing(blobs, Result(audio=(Audio(b"RIFF", media_type),)))

    response = await _get(app, "/audio/j/0")

    assert response.content == b"RIFF"
    assert response.headers["content-type"].startswith(media_type)
    assert response.headers["content-disposition"] == disposition
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_what_was_forgotten_is_not_found(blobs: Watched) -> None:
    kept = await blobs.keep(FILM)
    assert isinstance(kept, Blob)
    app = await _showing(blobs, Result(videos=(Video(kept, "video/mp4"),)))

    await blobs.drop([kept])

    response = await _get(app, "/videos/j/0")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "job_not_found"
