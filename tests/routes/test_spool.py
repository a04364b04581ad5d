"""Large pictures and recordings by MCP: set aside before the SDK sees them, fetched by the tool."""

import asyncio
import json
import math
import tracemalloc
import wave
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import PIL.Image
import pytest
from mcp import Client
from mcp.types import CallToolResult
from starlette.types import Message, Receive, Scope, Send

from src.app import create_app
from src.models.errors import InvalidInput
from src.models.fields import MAX_IMAGE_TEXT
from src.models.requests import MEDIA, Img2TxtRequest
from src.models.results import Image
from src.routes.intake import LARGE
from src.routes.spooling import TAKERS, Spooling
from src.routes.stdio import Upstream, bridge
from src.settings import Settings
from src.utils.attachments import prepare
from src.utils.spool import LONG, Spool, new_word
from tests.holding import held_by_each
from tests.routes.house import ERAS, PATIENCE_S, House, base64_of, facts, house, words
from tests.serving import logging_kept

CALLS = 3


def _noise() -> bytes:
    pixels = PIL.Image.frombytes("RGB", (600, 600), Random(1).randbytes(600 * 600 * 3))
    buffer = BytesIO()
    pixels.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _hum() -> bytes:
    buffer = BytesIO()
    with wave.open(buffer, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(16_000)
        recording.writeframes(Random(1).randbytes(800_000))
    return buffer.getvalue()


PICTURE, RECORDING = base64_of(_noise()), base64_of(_hum())
LARGE_CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("img2txt", {"image": PICTURE, "seed": 1}),
    ("img2txt", {"images": [PICTURE, f"data:image/png;base64,{PICTURE}"], "seed": 1}),
    ("img2img", {"image": PICTURE, "prompt": "a fox", "seed": 1, "steps": 1}),
    ("audio2txt", {"audio": RECORDING}),
)


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """List the blobs of whatever is made in this test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return lambda: _files(tmp_path)


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def _nothing_is_left(house: House, kept: Callable[[], list[Path]]) -> None:
    async with asyncio.timeout(PATIENCE_S), house.http() as http:
        while kept():
            await http.get("/health")


# What a caller sees


@pytest.mark.parametrize(("tool", "arguments"), LARGE_CALLS)
async def test_what_is_large_works_as_it_does_by_plain_http(
    shared_house: House, era: str, tool: str, arguments: dict[str, Any]
) -> None:
    async with shared_house.http() as http, shared_house.client(era) as client:
        by_http = (await http.post(f"/mcp/{tool}", json=arguments)).json()
        by_mcp = facts(await client.call_tool(tool, arguments))

        assert (by_http["state"], by_mcp["state"]) == ("completed", "completed")
        assert by_mcp.get("text") == by_http.get("text")
        assert await _made(http, by_mcp) == await _made(http, by_http)


async def _made(http: httpx2.AsyncClient, job: dict[str, Any]) -> list[bytes]:
    return [(await http.get(image["url"])).content for image in job.get("images") or ()]


async def test_what_is_large_comes_through_the_stdio_door(shared_house: House, era: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        server = await bridge(Upstream(f"{shared_house.url}/mcp", http, str))
        async with Client(server, mode=era) as client:
            result = await client.call_tool("img2txt", {"image": PICTURE})

    assert facts(result)["state"] == "completed"


async def test_every_tool_that_takes_pictures_or_recordings_fetches_them(
    shared_house: House,
) -> None:
    async with shared_house.client() as client:
        tools = (await client.list_tools()).tools

    take = {tool.name for tool in tools if MEDIA & tool.input_schema["properties"].keys()}
    assert take == {name for name, _ in LARGE_CALLS}
    assert take <= TAKERS


WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("img2txt", {"image": PICTURE[:-7]}, "invalid_request: image is not valid base64"),
    ("img2txt", {"images": [PICTURE, "no!" * LONG]}, "images.1 is not valid base64"),
    ("img2txt", {"image": "ü" * LARGE}, "image is not valid base64"),
    ("img2txt", {"image": RECORDING}, "image"),
    ("img2txt", {"image": PICTURE, "seed": "x"}, "seed"),
    ("img2txt", {"image": PICTURE, "images": [PICTURE]}, "give either image or images"),
    ("img2txt", {"image": PICTURE, "mask": PICTURE}, "mask: there is no such argument"),
    ("img2txt", {"images": [PICTURE] * 9}, "images"),
    ("img2text", {"image": PICTURE}, "unknown_tool"),
)


async def test_a_call_that_is_refused_leaves_nothing_behind(
    kept: Callable[[], list[Path]], era: str
) -> None:
    with house() as own:
        for tool, arguments, told in WRONG:
            async with own.client(era) as client:
                result = await client.call_tool(tool, arguments)
            await _nothing_is_left(own, kept)

            assert result.is_error
            assert told in words(result)
            assert "spooled" not in words(result)


async def test_a_call_that_is_carried_out_leaves_nothing_behind_but_its_job(
    kept: Callable[[], list[Path]], era: str
) -> None:
    with house() as own:
        async with own.client(era) as client:
            made = facts(await client.call_tool("img2txt", {"image": PICTURE}))
            assert made["text"]
        async with own.http() as http:
            gone = await http.delete(f"/jobs/{made['job_id']}", params={"forget": True})
        assert gone.status_code == 204
        await _nothing_is_left(own, kept)


async def test_a_word_is_good_for_one_reading_by_its_own_call(
    shared_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def noted() -> str:
        given.append(new_word())
        return given[-1]

    monkeypatch.setattr("src.routes.spooling.new_word", noted)

    async def look(image: str) -> CallToolResult:
        return await client.call_tool("img2txt", {"image": image})

    async with shared_house.client() as client:
        assert facts(await look(PICTURE))["text"]
        [word] = given
        again, guessed, no_picture = await look(word), await look(new_word()), await look("no:!")

    assert again.is_error
    assert words(again) == words(guessed) == words(no_picture)


@pytest.mark.parametrize("body", ["{" * LARGE + "}", f'["{PICTURE}"]', '"' + "x" * LARGE])
async def test_a_body_that_cannot_be_read_is_answered_by_the_sdk(
    shared_house: House, body: str
) -> None:
    headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}

    async with shared_house.http() as http:
        answers = [
            await http.post("/mcp", content=content, headers=headers) for content in (body, "{{")
        ]

    assert {answer.status_code for answer in answers} == {400}
    assert "error" in answers[0].json()


# What a call holds while it waits


class Post:
    """One POST to the MCP endpoint, made without a network."""

    def __init__(self, headers: dict[str, str], message: Callable[[], dict[str, Any]]) -> None:
        self.waits, self.left = asyncio.Event(), asyncio.Event()
        self.session = ""
        self._headers = {"host": "localhost", "content-type": "application/json", **headers}
        self._message: Callable[[], dict[str, Any]] | None = message

    async def __call__(self, app: Any) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in self._headers.items()],
        }
        await app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._message is not None:
            message, self._message = self._message, None
            body = json.dumps({"jsonrpc": "2.0", **message()}).encode()
            return {"type": "http.request", "body": body}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.session = dict(message["headers"]).get(b"mcp-session-id", b"").decode()
        elif b"notifications/progress" in message["body"]:
            self.waits.set()


async def _headers(app: Any, era: str) -> dict[str, str]:
    """Return what a call has to say; in the protocol until 2025 a handshake comes first."""
    headers = {"accept": "application/json, text/event-stream"}
    if era == "auto":
        called = {"mcp-method": "tools/call", "mcp-name": "img2txt"}
        return {**headers, **called, "mcp-protocol-version": "2026-07-28"}
    who = {"name": "test", "version": "1"}
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": who}
    post = Post(headers, lambda: {"id": 1, "method": "initialize", "params": hello})
    await post(app)
    headers |= {"mcp-protocol-version": "2025-11-25", "mcp-session-id": post.session}
    await Post(headers, lambda: {"method": "notifications/initialized"})(app)
    return headers


def _call(number: int) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": number,
    }
    # A picture of its own, which nobody else may hold.
    arguments = {"image": base64_of(_noise()), "wait_seconds": 300}
    params = {"name": "img2txt", "_meta": meta, "arguments": arguments}
    return {"id": number, "method": "tools/call", "params": params}


@asynccontextmanager
async def _without_backend() -> AsyncGenerator[Any]:
    app = create_app(Settings(log_file=None, log_level="error", grace_s=0), backends=[])
    with logging_kept():
        async with app.router.lifespan_context(app):
            yield app


async def test_a_waiting_call_holds_no_picture_and_leaves_it_to_its_job(
    kept: Callable[[], list[Path]], era: str
) -> None:
    async with _without_backend() as app, asyncio.timeout(30):
        async with asyncio.TaskGroup() as calls:
            headers = await _headers(app, era)

            async def call(number: int) -> Post:
                post = Post(headers, lambda: _call(number))
                calls.create_task(post(app))
                await post.waits.wait()
                return post

            posts = [await call(10)]  # what is made once does not count
            tracemalloc.start()
            try:
                posts += [await call(10 + number) for number in range(1, CALLS + 1)]
                held = await held_by_each(CALLS, at_most=0.2 * len(PICTURE))
            finally:
                tracemalloc.stop()
            waiting = [path.stat().st_size for path in kept()]
            for post in posts:
                post.left.set()
        store = app.state.processor.store
        while kept():  # the server still runs
            await store.purge(math.inf, limit=CALLS)

    assert held < 0.2 * len(PICTURE)
    assert len(waiting) == CALLS + 1  # the job's own, and no more what was set aside


# What goes through


class Behind:
    """Takes the whole body of each request, and notes what it was."""

    def __init__(self, fails: bool = False) -> None:
        self.body = b""
        self.declared: list[bytes] = []
        self.has_gone = False
        self._fails = fails

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.declared = [v for name, v in headers if name == b"content-length"]
        assert scope["path"] == "/mcp"
        more = True
        while more:
            message = await receive()
            self.has_gone = message["type"] == "http.disconnect"
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        if self._fails:
            raise ZeroDivisionError


async def _through(
    pieces: Sequence[bytes],
    spool: Spool,
    behind: Behind,
    *,
    ends: bool = True,
    declares: bool = True,
    longest: int = 2**25,
) -> Behind:
    """Send a body in pieces; `ends` says whether its sender stays to the end."""
    length = [(b"content-length", str(len(b"".join(pieces))).encode())] if declares else []
    scope: Scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": length}
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": not ends or piece is not pieces[-1]}
        for piece in pieces
    ]
    coming = iter([*messages, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(coming)

    async def send(_: Message) -> None:
        raise AssertionError

    await Spooling(behind, spool=spool, longest=longest)(scope, receive, send)
    return behind


def _body(**params: Any) -> bytes:
    params = {"name": "img2txt", "arguments": {"image": PICTURE}, **params}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return json.dumps(message).encode()


@pytest.mark.parametrize("declares", [True, False])
async def test_only_what_is_long_is_taken_out_of_a_call(tmp_path: Path, declares: bool) -> None:
    spool, image = Spool(tmp_path), "i" * LARGE
    small = "s" * (LONG - 1)
    arguments = {"image": image, "images": [image, small, 1, None], "question": image, "seed": 1.5}
    body = _body(arguments=arguments)

    behind = await _through([body[:1000], body[1000:]], spool, Behind(), declares=declares)
    seen = json.loads(behind.body)
    first, second = seen["params"]["arguments"]["image"], seen["params"]["arguments"]["images"][0]

    assert behind.declared == [str(len(behind.body)).encode()]
    assert first != second
    assert len(first) + len(second) < 100
    seen["params"]["arguments"]["image"] = seen["params"]["arguments"]["images"][0] = image
    assert seen == json.loads(body)
    assert _files(tmp_path) == []


UNTOUCHED: dict[str, bytes] = {
    "small": _body(arguments={"image": "x" * LONG}),
    "empty": b"",
    "of a tool that does not fetch": _body(name="other"),
    "of a tool without a name": _body(name=["img2txt"]),
    "of another method": _body().replace(b"tools/call", b"tools/list"),
    "a batch": b"[" + _body() + b"]",
    "with other arguments": _body(arguments={"prompt": PICTURE}),
    "with arguments that are none": _body(arguments=[PICTURE]),
    "with what is no ASCII": _body(arguments={"image": "ü" * LARGE}),
    "with a picture that is too long": _body(arguments={"image": "x" * (MAX_IMAGE_TEXT + 1)}),
    "with a key twice": _body().replace(b'"id": 1', b'"id": 1, "id": 2'),
    "with a number that is none": _body(arguments={"image": PICTURE, "seed": float("nan")}),
    "with a number that is too large": _body().replace(b'"id": 1', b'"id": 1e999'),
    "not in UTF-8": _body().decode().encode("utf-16"),
    "no JSON": _body()[:-1],
}


@pytest.mark.parametrize("body", UNTOUCHED.values(), ids=UNTOUCHED.keys())
@pytest.mark.parametrize("declares", [True, False])
async def test_what_is_no_such_call_goes_on_as_it_came(
    tmp_path: Path, body: bytes, declares: bool
) -> None:
    behind = await _through([body], Spool(tmp_path / "none"), Behind(), declares=declares)

    assert behind.body == body
    assert behind.declared == ([str(len(body)).encode()] if declares else [])
    assert not (tmp_path / "none").exists()


async def test_a_body_that_is_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    pieces = [bytes([n]) * LARGE for n in range(5)]

    behind = await _through(pieces, Spool(tmp_path), Behind(), declares=False, longest=2 * LARGE)

    assert behind.body == b"".join(pieces)


async def test_a_caller_who_leaves_amid_the_body_is_seen_leaving(tmp_path: Path) -> None:
    behind = await _through([_body()], Spool(tmp_path), Behind(), ends=False)

    assert behind.has_gone
    assert _files(tmp_path) == []


async def test_a_call_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    behind = Behind(fails=True)

    with pytest.raises(ZeroDivisionError):
        await _through([_body()], Spool(tmp_path), behind)

    assert "spooled:" in behind.body.decode()
    assert _files(tmp_path) == []


async def test_a_call_goes_on_as_it_came_when_the_disk_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    behind = await _through([_body()], Spool(tmp_path / "file"), Behind())

    assert behind.body == _body()


# What is taken back


async def _no_jobs(job_id: str, index: int) -> Image:
    raise AssertionError(job_id, index)


async def test_what_was_set_aside_is_taken_once(tmp_path: Path) -> None:
    spool, word = Spool(tmp_path), new_word()
    await spool.set_aside(word, PICTURE.encode())

    prepared = await prepare(Img2TxtRequest(images=(word,)), _no_jobs, spool)

    [blob] = prepared.blobs
    assert [path.name for path in _files(tmp_path)] == [blob.key]
    assert (await spool.read(blob)).startswith(b"\x89PNG")
    with pytest.raises(InvalidInput, match="image is not valid base64"):
        await prepare(Img2TxtRequest(images=(word,)), _no_jobs, spool)


async def test_only_words_that_were_given_out_stand_for_something(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    blob = await spool.keep(PICTURE.encode())

    for word in (new_word(), f"spooled:{_files(tmp_path)[0].name}"):
        with pytest.raises(InvalidInput, match="image is not valid base64"):
            await prepare(Img2TxtRequest(images=(word,)), _no_jobs, spool)

    assert await spool.read(blob) == PICTURE.encode()


async def test_few_are_in_memory_at_once_and_the_others_can_still_be_forgotten(
    tmp_path: Path,
) -> None:
    spool, word = Spool(tmp_path), new_word()
    await spool.set_aside(word, PICTURE.encode())
    async with spool.turns, spool.turns:
        late = asyncio.create_task(prepare(Img2TxtRequest(images=(word,)), _no_jobs, spool))
        assert await prepare(Img2TxtRequest(images=(PICTURE,)), _no_jobs, spool)  # not held up
        assert spool.stands(word)

        await spool.forget([word])

    with pytest.raises(InvalidInput, match="image is not valid base64"):
        await late
