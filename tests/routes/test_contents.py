"""Answers with the content of what was made in them, behind a backend that has it ready."""

import asyncio
import base64
import json
import time
import tracemalloc
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from starlette.types import Message

from src.models.blobs import Content
from src.models.metrics import ErrorLog, RequestMetrics
from src.models.modality import Modality
from src.models.ports import OfferedModel
from src.models.requests import InferenceRequest
from src.models.results import Audio, Chunk, Finish, Image
from src.routes import errors, twins
from src.routes.pieces import SEND_S
from src.routes.tools import Tools
from src.routes.views import JobView
from src.sharing import Sharing
from src.utils.blobs import FileBlobs
from tests.managing import processor_for

MIB = 2**20
LENGTHS = (0, 1, 2, 3, 70_000, 262_143, 262_144, 262_145, 600_001)
"""In memory and on disk, of every remainder, in one piece and in more."""


class Ready:
    """A backend that has its results before anybody asks."""

    name = "ready"
    loads_on_demand = False

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks

    async def run(
        self, request: InferenceRequest, model: str, job_id: str
    ) -> AsyncGenerator[Chunk]:
        del request, model, job_id
        for chunk in (*self._chunks, Finish()):
            yield chunk

    def stops_at_once(self, request: InferenceRequest) -> bool:
        del request
        return True

    async def load(self, model: str) -> None:
        pass

    async def unload(self, model: str) -> None:
        pass

    async def models(self) -> Sequence[OfferedModel]:
        return [OfferedModel("m", frozenset(Modality))]

    async def resident(self) -> frozenset[str] | None:
        return None

    async def ping(self) -> str:
        return "v1"

    async def close(self) -> None:
        pass


class Caller:
    """Posts a request, takes so many messages of the answer or all of them, and may keep them."""

    def __init__(
        self, body: Mapping[str, str], takes: int | None = None, *, keeps: bool = True
    ) -> None:
        self.received = bytearray()
        self.messages = self.longest = 0
        self.headers: dict[bytes, bytes] = {}
        self.complete = False
        self._takes = takes
        self._keeps = keeps
        self._bodies = [json.dumps(body).encode()]

    async def __call__(self, app: FastAPI, path: str) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }
        async with asyncio.timeout(30):
            await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._bodies:
            await asyncio.Future()
        return {"type": "http.request", "body": self._bodies.pop()}

    async def _send(self, message: Message) -> None:
        if self.messages == self._takes:
            await asyncio.Future()
        self.messages += 1
        self.headers.update(message.get("headers", ()))
        piece: bytes = message.get("body", b"")
        self.longest = max(self.longest, len(piece))
        self.complete = message["type"].endswith("body") and not message.get("more_body")
        if self._keeps:
            self.received += piece


@pytest.fixture
async def blobs() -> AsyncGenerator[FileBlobs]:
    kept = FileBlobs()
    yield kept
    await kept.close()


@asynccontextmanager
async def _twins(
    blobs: FileBlobs, chunks: Sequence[Chunk], *, send_s: float = SEND_S
) -> AsyncGenerator[FastAPI]:
    """Serve the twins in front of a backend that makes this."""
    processor = processor_for([Ready(chunks)], blobs=blobs)
    sharing = Sharing(processor, blobs, merge=False, cache_bytes=0)
    tools = Tools(processor, sharing, RequestMetrics(), ErrorLog(), clock=time.time, blobs=blobs)
    app = FastAPI()
    errors.install(app)
    app.include_router(twins.build(tools, send_s=send_s))
    async with processor.running():
        yield app


def _picture(data: Content) -> Image:
    return Image(data, "image/png", 16, 16)


WHOLE = {"prompt": "x", "response_format": "b64_json"}
SPEECH = {"input": "x", "response_format": "b64_json"}


async def test_an_answer_with_contents_is_the_json_of_the_job_and_the_contents(
    blobs: FileBlobs,
) -> None:
    contents = [bytes(range(256)) * (length // 256 + 1) for length in LENGTHS]
    contents = [data[:length] for data, length in zip(contents, LENGTHS, strict=True)]
    pictures = [_picture(await blobs.keep(data)) for data in contents]

    async with _twins(blobs, pictures) as app:
        caller = Caller(WHOLE)
        await caller(app, "/mcp/txt2img")

    body = bytes(caller.received)
    shown = JobView.model_validate_json(body)
    assert shown.images is not None
    assert [picture.b64_json for picture in shown.images] == [
        base64.b64encode(data).decode() for data in contents
    ]
    assert json.loads(body) == shown.model_dump(mode="json", exclude_none=True)
    assert body == shown.model_dump_json(exclude_none=True).encode()
    assert caller.headers[b"content-length"] == str(len(body)).encode()
    assert caller.headers[b"content-type"] == b"application/json"
    assert caller.complete


async def test_no_more_than_a_piece_of_a_recording_is_ever_held(blobs: FileBlobs) -> None:
    kept = await blobs.keep(bytes(20 * MIB))

    async with _twins(blobs, [Audio(kept, "audio/wav")]) as app:
        caller = Caller(SPEECH, keeps=False)
        tracemalloc.start()
        try:
            await caller(app, "/mcp/txt2audio")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert caller.complete
    assert int(caller.headers[b"content-length"]) > 26 * MIB
    assert caller.longest < MIB
    assert peak < 4 * MIB


async def test_a_caller_that_stops_taking_contents_is_cut_off(blobs: FileBlobs) -> None:
    kept = await blobs.keep(bytes(5 * MIB))

    async with _twins(blobs, [Audio(kept, "audio/wav")], send_s=0.05) as app:
        caller = Caller(SPEECH, takes=3)
        await caller(app, "/mcp/txt2audio")

    assert caller.messages == 3
    assert not caller.complete


async def test_contents_that_are_gone_are_told_instead_of_an_answer(blobs: FileBlobs) -> None:
    kept = await blobs.keep(bytes(MIB))
    assert not isinstance(kept, bytes)
    await blobs.drop([kept])

    async with _twins(blobs, [Audio(kept, "audio/wav")]) as app:
        caller = Caller(SPEECH)
        await caller(app, "/mcp/txt2audio")

    assert json.loads(caller.received)["error"]["code"] == "job_not_found"
