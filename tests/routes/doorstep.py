"""The application in the loop of the test, before a server that says exactly what it is told.

Its callers are in the same loop, without a network between: they take what they want, when they
want, and hang up. So the loop may be one whose time jumps.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Message

from src.app import create_app
from src.models.jobs import JobState
from src.processor import Processor
from src.settings import Settings
from src.utils.retry import RetryPolicy
from tests.serving import logging_kept
from tests.utils.raw_server import Act, RawServer, Script, raw_server, reply
from tests.virtual_time import VirtualLoop

CHAT = "/v1/chat/completions"
EPOCH = 1_790_000_000
PATIENCE_S = 20.0
_USUAL = {"host": "localhost", "content-type": "application/json", "x-request-id": "req-1"}
MODELS = [
    {"id": "m", "capabilities": ["chat"]},
    {"id": "eye", "capabilities": ["chat", "vision"], "input_modalities": ["text", "image"]},
]
ROUTES: Mapping[str, Script] = {
    "/version": (reply(200, {"version": "v4.9"}, keep=True), Act.KEEP),
    "/v1/models/capabilities": (reply(200, {"data": MODELS}, keep=True), Act.KEEP),
    "/system": (reply(200, {"loaded_models": MODELS}, keep=True), Act.KEEP),
}


def said(text: str = "hello", /, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "model": "m", **fields}


class Call:
    """One request; the caller takes what comes unless `taking` is cleared, and may `leave`."""

    def __init__(
        self, app: FastAPI, path: str, body: Any, headers: Mapping[str, str], method: str = "POST"
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.pieces: list[tuple[float, bytes]] = []
        """What came, and when."""
        self.taking = asyncio.Event()
        self.taking.set()
        self._left = asyncio.Event()
        self._more = asyncio.Event()
        self._unread: list[Message] = [{"type": "http.request", "body": json.dumps(body).encode()}]
        told = {**_USUAL, **headers}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(n.lower().encode(), v.encode()) for n, v in told.items()],
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    @property
    def json(self) -> Any:
        """What was answered, as JSON."""
        return json.loads(self.body)

    @property
    def job_id(self) -> str:
        """The job that the headers name."""
        return self.headers["x-job-id"]

    def leave(self) -> None:
        """Hang up."""
        self._left.set()

    async def until(self, when: Callable[[bytes], bool]) -> None:
        """Wait until what has come is as wished."""
        async with asyncio.timeout(3600):
            while not when(self.body):
                assert not self.task.done(), self.body
                self._more.clear()
                await self._more.wait()

    async def answered(self) -> "Call":
        """Wait for the end of the answer."""
        await self.task
        return self

    async def _receive(self) -> Message:
        if self._unread:
            return self._unread.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.taking.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {n.decode(): v.decode() for n, v in message["headers"]}
        elif piece := message["body"]:
            self.body += piece
            self.pieces.append((asyncio.get_running_loop().time(), piece))
        self._more.set()


@dataclass
class Doorstep:
    """The application, and the server behind it."""

    app: FastAPI
    upstream: RawServer

    @property
    def processor(self) -> Processor:
        """What runs the jobs."""
        processor: Processor = self.app.state.processor
        return processor

    def call(self, body: Any = None, /, *, path: str = CHAT, **headers: str) -> Call:
        """Begin a call; an underscore in the name of a header stands for a hyphen."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return Call(self.app, path, said() if body is None else body, told)

    def get(self, path: str, **headers: str) -> Call:
        """Begin to read; headers as in `call`."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return Call(self.app, path, None, told, "GET")

    async def ask(self, body: Any = None, /, **headers: str) -> Call:
        """Call, and wait for the whole answer."""
        return await self.call(body, **headers).answered()

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What the server behind was asked."""
        return [heard.json for heard in self.upstream.heard if heard.path == CHAT]

    async def idle(self) -> None:
        """Wait until nothing waits or runs."""
        scheduler = self.processor.scheduler
        await self.until(lambda: not scheduler.waiting and not scheduler.running)

    async def ended(self, job_id: str) -> JobState:
        """Wait for the end of a job, and return how it ended."""
        return (await (await self.processor.handle(job_id)).settled()).state

    async def until(self, when: Callable[[], bool]) -> None:
        """Wait until something is so, however many turns of the loop that takes."""
        async with asyncio.timeout(PATIENCE_S):
            while not when():  # noqa: ASYNC110 - there is nothing to wait for but the next turn
                await asyncio.sleep(0)


@asynccontextmanager
async def doorstep(*scripts: Script, **settings: Any) -> AsyncGenerator[Doorstep]:
    """Put it up; the n-th conversation is answered by the n-th script, later ones by the last.

    Jobs are called `job-1` and so on. It is `EPOCH`, and the second lasts long: answers tell it.
    """
    numbers = itertools.count(1)
    loop = asyncio.get_running_loop()
    began = loop.time()

    def clock() -> float:
        passed = loop.time() - began
        return EPOCH + (passed if isinstance(loop, VirtualLoop) else passed / 20)

    def named(_: int) -> str:
        return f"job-{next(numbers)}"

    async with raw_server(*scripts, routes=ROUTES) as upstream:
        values: dict[str, Any] = {"localai_url": upstream.url, "log_file": None, "resident": 2}
        with logging_kept(), pytest.MonkeyPatch.context() as patch:
            patch.setattr("src.parts.secrets.token_urlsafe", named)
            app = create_app(
                Settings(grace_s=0, log_console=False, **values, **settings),
                retry=RetryPolicy(attempts=2, base_s=0.01),
                clock=clock,
            )
            async with app.router.lifespan_context(app):
                made = Doorstep(app, upstream)
                await made.until(lambda: made.processor.scheduler.capacity.is_resident("m"))
                yield made
