"""What a call holds while it waits."""

import asyncio
import io
import json
import random
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import PIL.Image
from fastapi import FastAPI
from starlette.types import Message

from src.app import create_app
from src.settings import Settings
from tests.holding import held_by_each
from tests.routes.house import base64_of
from tests.serving import logging_kept

CALLS = 3
PROMPT_CHARS = 900_000


class Post:
    """One POST, made without a network, that is answered when its caller hangs up."""

    def __init__(self, path: str, body: Callable[[], dict[str, Any]]) -> None:
        self.waits, self.left = asyncio.Event(), asyncio.Event()
        self.status = 0
        self._path = path
        self._body: Callable[[], dict[str, Any]] | None = body

    async def __call__(self, app: FastAPI) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": self._path,
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }
        await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": json.dumps(body()).encode()}
        self.waits.set()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)


@asynccontextmanager
async def _without_backend() -> AsyncGenerator[FastAPI]:
    app = create_app(Settings(log_file=None, log_level="error", grace_s=0), backends=[])
    with logging_kept():
        async with app.router.lifespan_context(app):
            yield app


async def _held_while_waiting(
    path: str, body: Callable[[int], dict[str, Any]], at_most: float
) -> float:
    """Return the bytes that each of a few calls holds while it waits."""
    async with _without_backend() as app, asyncio.timeout(30), asyncio.TaskGroup() as calls:

        async def call(number: int) -> Post:
            post = Post(path, lambda: body(number))
            calls.create_task(post(app))
            await post.waits.wait()
            return post

        posts = [await call(0)]  # what is made once does not count
        tracemalloc.start()
        try:
            posts += [await call(number) for number in range(1, CALLS + 1)]
            held = await held_by_each(CALLS, at_most=at_most)
        finally:
            tracemalloc.stop()
        assert app.state.processor.scheduler.waiting == CALLS + 1
        for post in posts:
            post.left.set()
    assert {post.status for post in posts} == {409}
    return held


async def test_a_waiting_call_holds_its_prompt_once_in_the_job_and_nowhere_else() -> None:
    at_most = 1.1 * PROMPT_CHARS
    held = await _held_while_waiting(
        "/mcp/txt2txt", lambda number: {"prompt": str(number) + "x" * PROMPT_CHARS}, at_most
    )

    assert PROMPT_CHARS <= held < at_most


async def test_a_waiting_call_holds_no_picture() -> None:
    at_most = 0.05 * len(_noise())
    held = await _held_while_waiting(
        "/mcp/img2img", lambda _: {"prompt": "x", "image": _noise()}, at_most
    )

    assert held < at_most


def _noise() -> str:
    pixels = PIL.Image.frombytes("RGB", (600, 600), random.Random(1).randbytes(600 * 600 * 3))
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG", compress_level=0)
    return base64_of(buffer.getvalue())
