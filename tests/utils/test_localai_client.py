import asyncio
import base64
import gzip
import io
import json
import logging
import random
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image as Pillow

from src.models.errors import (
    BackendBusy,
    BackendError,
    BackendFailed,
    BackendProtocolError,
    BackendRejected,
    BackendTimeout,
    BackendUnauthorised,
    BackendUnavailable,
    EmptyResult,
    InferenceManagerError,
    ModelCrashed,
    ModelLoadFailed,
    StreamCut,
    UnknownModel,
)
from src.models.modality import Modality
from src.models.ports import Backend, OfferedModel
from src.models.requests import (
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    Message,
    Txt2ImgRequest,
    Txt2TxtRequest,
)
from src.models.results import Chunk, Finish, Image, TextDelta
from src.utils.localai_client import LocalAIClient
from tests.utils.raw_server import (
    DONE,
    END,
    SSE_HEAD,
    Act,
    RawServer,
    Script,
    chunk,
    delta,
    event,
    free_port,
    raw_server,
    reply,
)

TLS = ssl.create_default_context()
NOW = 1_790_000_000.0
CANARY = "canary-7d1f"
HELLO = Txt2TxtRequest.model_validate({"prompt": f"hello {CANARY}"})
FOX = Txt2ImgRequest(prompt=f"a red fox {CANARY}", seed=7)


def png(size: int = 32, color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (size, size), color).save(buffer, "PNG")
    return buffer.getvalue()


PNG = base64.b64encode(png()).decode()
DATA_URI = f"data:image/png;base64,{PNG}"


def drawn(*data: object) -> bytes:
    return reply(200, {"created": 1, "id": "u", "data": list(data), "usage": None}, keep=True)


Pair = tuple[LocalAIClient, RawServer]
ONE_PICTURE = (drawn({"embedding": None, "index": 0, "b64_json": PNG}), Act.KEEP)


@asynccontextmanager
async def client_of(*scripts: Script, **options: object) -> AsyncGenerator[Pair]:
    """Make a client of a raw server; its patience is short unless a test says otherwise."""
    patience: dict[str, object] = {"first_byte_s": 5.0, "idle_s": 5.0, "connect_s": 1.0}
    async with raw_server(*scripts) as server:
        usual = {"name": "gpu", "url": server.url, "verify": TLS, "clock": lambda: NOW}
        made = {**usual, **patience, **options}
        client = LocalAIClient(**made)  # type: ignore[arg-type]
        try:
            yield client, server
        finally:
            await client.close()


async def answer(client: LocalAIClient, request: InferenceRequest = HELLO) -> list[Chunk]:
    async with asyncio.timeout(10), aclosing(client.run(request, "m", "job-1")) as chunks:
        return [chunk async for chunk in chunks]


async def failure(
    client: LocalAIClient, request: InferenceRequest = HELLO
) -> InferenceManagerError:
    with pytest.raises(InferenceManagerError) as failed:
        await answer(client, request)
    assert CANARY not in f"{failed.value.message} {failed.value.hint}"
    return failed.value


async def failure_of(
    *script: bytes | Act, request: InferenceRequest = HELLO, **options: object
) -> InferenceManagerError:
    async with client_of(script, **options) as (client, _):
        return await failure(client, request)


def stream(*events: bytes) -> Script:
    return (SSE_HEAD, *events, END, Act.KEEP)


# Conversations


async def test_a_chat_comes_piece_by_piece_and_ends_with_what_it_counted() -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    script = stream(
        delta(None, role="assistant"), delta("Hel"), delta("lo"), delta(None, "stop"), usage, DONE
    )

    async with client_of(script) as (client, _):
        chunks = await answer(client)

    assert chunks == [TextDelta("Hel"), TextDelta("lo"), Finish("stop", 5, 2)]


async def test_a_chat_asks_for_a_stream_with_its_usage() -> None:
    request = Txt2TxtRequest(
        messages=(
            Message(role="developer", content="Be brief."),
            Message(role="user", content="grüß Gott 🦊"),
        ),
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        max_tokens=9,
        stop=["END"],
        seed=1,
        presence_penalty=-1.0,
        frequency_penalty=1.0,
    )
    async with client_of(stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client, request)

    [heard] = server.heard
    assert heard.line == "POST /v1/chat/completions HTTP/1.1"
    assert heard.json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "grüß Gott 🦊"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "max_tokens": 9,
        "stop": ["END"],
        "seed": 1,
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
    }


async def test_what_a_request_leaves_out_is_left_to_the_model() -> None:
    async with client_of(stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client)

    assert set(server.heard[0].json) == {"model", "messages", "stream", "stream_options"}


async def test_pictures_go_as_data_uris_before_the_question() -> None:
    request = Img2TxtRequest(images=(DATA_URI, DATA_URI), question="What is it?")
    async with client_of(stream(delta("red", "stop"), DONE)) as (client, server):
        await answer(client, request)

    assert server.heard[0].json["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": DATA_URI}},
                {"type": "image_url", "image_url": {"url": DATA_URI}},
                {"type": "text", "text": "What is it?"},
            ],
        }
    ]


async def test_every_call_says_who_calls_and_for_which_job() -> None:
    async with client_of(stream(delta("x", "stop"), DONE), api_key="sesame") as (client, server):
        await answer(client)

    [heard] = server.heard
    assert heard.header("X-Correlation-ID") == "job-1"
    assert heard.header("Authorization") == "Bearer sesame"
    assert heard.header("Accept-Encoding") == "identity"
    assert (heard.header("User-Agent") or "").startswith("inference-manager/0")


async def test_without_a_key_none_is_sent_and_the_environment_adds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with client_of(stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client)

    assert server.heard[0].header("Authorization") is None
    assert server.heard[0].line.startswith("POST /v1/")


async def test_thinking_is_told_apart_from_the_answer() -> None:
    script = stream(
        delta(None, reasoning="hm"),
        delta("", reasoning_content="mh"),
        delta("yes", reasoning="ok"),
        delta(None, "stop"),
        DONE,
    )

    async with client_of(script) as (client, _):
        chunks = await answer(client)

    assert chunks[:-1] == [TextDelta("", "hm"), TextDelta("", "mh"), TextDelta("yes", "ok")]


async def test_events_that_are_no_part_of_the_answer_are_skipped() -> None:
    script = stream(
        chunk(": comment\n\n"),
        event({"type": "mcp_tool_result", "name": "n", "result": "r"}),
        event({"choices": None}),
        event({"choices": [{"index": 0}]}),
        event({"choices": [{"delta": None, "finish_reason": ""}]}),
        event({"error": None, "choices": []}),
        delta("x", "length"),
        event({"choices": [], "usage": {"prompt_tokens": None, "completion_tokens": -3}}),
        DONE,
    )

    async with client_of(script) as (client, _):
        assert await answer(client) == [TextDelta("x"), Finish("length", 0, 0)]


async def test_an_empty_text_with_a_reason_is_an_answer() -> None:
    async with client_of(stream(delta(None, "stop"), DONE)) as (client, _):
        assert await answer(client) == [Finish("stop")]


async def test_a_text_without_a_reason_is_an_answer_when_it_is_done() -> None:
    async with client_of(stream(delta("x"), DONE)) as (client, _):
        assert await answer(client) == [TextDelta("x"), Finish("stop")]


async def test_neither_text_nor_reason_is_no_answer() -> None:
    error = await failure_of(*stream(delta(None, role="assistant"), DONE))

    assert isinstance(error, EmptyResult)


async def test_what_comes_after_the_end_is_ignored_and_the_connection_used_again() -> None:
    script = stream(delta("x", "stop"), DONE, DONE, delta("y"), event({"error": "late"}))

    async with client_of(script) as (client, server):
        for _ in range(3):
            assert await answer(client) == [TextDelta("x"), Finish("stop")]

    assert server.connections == 1


async def test_an_end_that_does_not_come_after_done_is_not_waited_for() -> None:
    script = (SSE_HEAD, delta("x", "stop"), DONE, Act.HANG)

    async with client_of(script, idle_s=60.0) as (client, server):
        assert await answer(client) == [TextDelta("x"), Finish("stop")]
        async with asyncio.timeout(5):
            await server.left.wait()


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_however_a_stream_is_cut_up_it_reads_the_same(end: str, size: int) -> None:
    events = [
        json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False)
        for text in ("grüß", " 🦊", "\u2028")
    ]
    told = "\ufeff" + "".join(f"data:{each}{end}{end}" for each in [*events, "[DONE]"])
    raw = told.encode()
    pieces = [chunk(raw[at : at + size]) for at in range(0, len(raw), size)]

    async with client_of(stream(*pieces)) as (client, _):
        chunks = await answer(client)

    assert chunks == [TextDelta("grüß"), TextDelta(" 🦊"), TextDelta("\u2028"), Finish("stop")]


@pytest.mark.parametrize("tail", ["data: [DONE]", "data: [DONE]\n"])
async def test_a_done_whose_line_end_was_lost_is_still_an_end(tail: str) -> None:
    async with client_of(stream(delta("x", "stop"), chunk(tail))) as (client, _):
        assert await answer(client) == [TextDelta("x"), Finish("stop")]


# Streams that are cut or strange


@pytest.mark.parametrize(
    "script",
    [
        stream(delta("x"), delta(None, "stop")),
        stream(delta("x"), chunk("data: {")),
        stream(delta("x"), chunk('data: {"choices": []}')),
        stream(delta("x"), chunk("data: [DO")),
        stream(chunk(": only\n\n: comments\n\n")),
        stream(),
        (SSE_HEAD, delta("x")),
        (SSE_HEAD, delta("x"), Act.RESET),
        (SSE_HEAD, delta("x"), b"5\r\nda"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata",),
    ],
    ids=[
        "no done", "half an event", "an event without its end", "half a done", "only comments",
        "nothing", "closed", "reset", "half a chunk", "shorter than promised",
    ],
)  # fmt: skip
async def test_a_stream_that_ends_before_its_end_is_never_an_answer(script: Script) -> None:
    assert type(await failure_of(*script)) is StreamCut


async def test_what_came_before_a_cut_was_given_on() -> None:
    chunks: list[Chunk] = []
    async with client_of((SSE_HEAD, delta("a"), delta("b"), Act.RESET)) as (client, _):
        with pytest.raises(StreamCut):  # noqa: PT012
            async for each in client.run(HELLO, "m", "j"):
                chunks.append(each)  # noqa: PERF401

    assert chunks == [TextDelta("a"), TextDelta("b")]


@pytest.mark.parametrize(
    "told",
    [
        "nonsense",
        '{"choices"',
        "[]",
        "null",
        "17",
        '"text"',
        "NaN",
        '{"choices": [{"delta": {"content": NaN}}]}',
        '{"choices": [17]}',
        '{"choices": {"0": 1}}',
        '{"choices": "x"}',
        '{"choices": [{"delta": 5}]}',
        '{"choices": [{"delta": {"content": 5}}]}',
        '{"choices": [{"delta": {"content": ["a"]}}]}',
        '{"choices": [{"delta": {"reasoning": {}}}]}',
        '{"choices": [{"finish_reason": 5}]}',
        "[" * 100_000,
        "9" * 10_000,
    ],
)
async def test_an_event_of_the_wrong_shape_breaks_the_protocol_and_nothing_else(told: str) -> None:
    error = await failure_of(*stream(chunk(f"data: {told}\n\n"), DONE))

    assert type(error) is BackendProtocolError


async def test_a_huge_line_is_refused() -> None:
    line = chunk("data: " + "x" * 5_000_000)

    assert type(await failure_of(SSE_HEAD, line, Act.HANG)) is BackendProtocolError


async def test_a_stream_that_is_too_long_is_refused() -> None:
    error = await failure_of(
        SSE_HEAD, *[delta("x" * 100)] * 100, Act.HANG, chat_bytes=5000, first_byte_s=5.0
    )

    assert type(error) is BackendProtocolError
    assert "5,000 bytes" in error.message


@pytest.mark.parametrize(
    "told",
    [
        reply(200, "<html>hello</html>", content_type="text/html"),
        reply(200, ""),
        reply(200, '{"choices": ['),
        reply(200, {"choices": []}),
        reply(200, "data: [DONE]\n\n", content_type="text/plain"),
        reply(301, "", location="http://127.0.0.1:9/"),
        reply(302, "", location="/elsewhere"),
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"\x00" * 200_000,
    ],
    ids=[
        "html", "nothing", "truncated json", "json", "plain text", "moved", "found", "noise",
        "bad status", "zeros",
    ],
)  # fmt: skip
async def test_an_answer_that_is_no_stream_breaks_the_protocol(told: bytes) -> None:
    assert type(await failure_of(told)) is BackendProtocolError


async def test_redirects_are_not_followed() -> None:
    async with (
        raw_server(stream(delta("x", "stop"), DONE)) as other,
        client_of((reply(307, "", location=f"{other.url}/v1/chat/completions"),)) as (client, _),
    ):
        assert type(await failure(client)) is BackendProtocolError

    assert other.heard == []


async def test_a_compressed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(b"data: " + bytes(10_000_000))

    error = await failure_of(
        reply(200, bomb, content_type="text/event-stream", content_encoding="gzip")
    )

    assert type(error) is BackendProtocolError


# Errors inside a 200


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("failed to load model with internal loader: could not load model", ModelLoadFailed),
        ('model "m" load is in cooldown after a recent failure; retry after 20s', ModelLoadFailed),
        ("backend inference capacity reached (max_concurrent=9); retry after 1s", BackendBusy),
        ("rpc error: code = Unavailable desc = error reading from server: EOF", ModelCrashed),
        ("rpc error: code = Unknown desc = CUDA out of memory", BackendFailed),
        ("request exceeds the available context size", BackendRejected),
        (f"something about {CANARY}", BackendFailed),
    ],
)
async def test_an_error_inside_a_stream_is_the_error_it_would_be_outside(
    message: str, expected: type[BackendError]
) -> None:
    told = {"code": "server_error", "message": message, "type": "server_error"}

    early = await failure_of(*stream(event({"error": told}), DONE))
    late = await failure_of(*stream(delta("x"), event({"error": told}), DONE))
    plain = await failure_of(reply(200, {"error": told}))
    outside = await failure_of(reply(500, {"error": told}))

    assert {type(error) for error in (early, late, plain, outside)} == {expected}
    assert early.retry_after == late.retry_after == outside.retry_after


# Refusals


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("request_", [HELLO, FOX], ids=["text", "picture"])
async def test_a_refusal_never_repeats_what_it_refused(
    status: int, request_: InferenceRequest
) -> None:
    told = f"could not load model because of {CANARY} and sesame-{CANARY}"

    error = await failure_of(
        reply(status, {"error": {"message": told, "type": told}}),
        request=request_,
        api_key=f"sesame-{CANARY}",
    )

    assert isinstance(error, BackendError | UnknownModel)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("1", 1.0),
        ("99999", 300.0),
        ("-1", None),
        ("junk", None),
        (formatdate(NOW + 20, usegmt=True), 20.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_backend_says_when_to_come_back(
    status: int, header: str | None, seconds: float | None
) -> None:
    told = reply(status) if header is None else reply(status, retry_after=header)

    error = await failure_of(told)

    assert type(error) is BackendBusy
    assert error.retry_after == seconds


async def test_an_error_whose_body_never_comes_is_read_from_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("src.utils.localai_client._ERROR_S", 0.05)

    error = await failure_of(b"HTTP/1.1 503 X\r\nContent-Length: 99\r\n\r\n{", Act.HANG)

    assert type(error) is BackendBusy


async def test_an_error_with_an_endless_body_is_read_from_its_status() -> None:
    head = b"HTTP/1.1 500 X\r\nContent-Length: 99999999\r\n\r\n"

    assert type(await failure_of(head, b"x" * 1_000_000, Act.HANG)) is BackendFailed


# Silence and absence


async def test_a_closed_port_was_not_reached() -> None:
    client = LocalAIClient(name="gpu", url=f"http://127.0.0.1:{free_port()}")

    error = await failure(client)
    await client.close()

    assert isinstance(error, BackendUnavailable)
    assert not error.reached


async def test_a_name_that_does_not_resolve_was_not_reached() -> None:
    client = LocalAIClient(name="gpu", url="http://does-not-exist.invalid:1")

    error = await failure(client)
    await client.close()

    assert isinstance(error, BackendUnavailable)
    assert not error.reached


async def test_a_closed_client_reaches_nobody() -> None:
    async with client_of(stream(DONE)) as (client, _):
        await client.close()
        error = await failure(client)

    assert isinstance(error, BackendUnavailable)
    assert not error.reached


def certificate(folder: Path, host: str, days: int = 1) -> Path:
    """Write a certificate that trusts itself, and its key, into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = datetime.now(UTC) - timedelta(days=10)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=10 + days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "pair.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.mark.parametrize(
    ("host", "days", "trusted", "works"),
    [
        ("127.0.0.1", 1, True, True),
        ("127.0.0.1", 1, False, False),
        ("127.0.0.1", -1, True, False),
        ("127.0.0.2", 1, True, False),
    ],
    ids=["its CA given", "self-signed", "expired", "another host"],
)
async def test_only_a_certificate_that_is_trusted_is_spoken_to(
    tmp_path: Path, host: str, days: int, trusted: bool, works: bool
) -> None:
    path = certificate(tmp_path, host, days)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    verify = ssl.create_default_context(cafile=path if trusted else None)

    async with raw_server(stream(delta("x", "stop"), DONE), tls=tls) as server:
        client = LocalAIClient(name="gpu", url=server.url, api_key="sesame", verify=verify)
        if works:
            assert await answer(client) == [TextDelta("x"), Finish("stop")]
        else:
            error = await failure(client)
            assert isinstance(error, BackendUnavailable)
            assert not error.reached
            assert "certificate" in error.hint
            assert server.heard == []
        await client.close()


@pytest.mark.parametrize("request_", [HELLO, FOX], ids=["text", "picture"])
@pytest.mark.parametrize(
    "script",
    [(), (Act.RESET,), (b"HTTP/1.1 200 OK\r\nContent-Ty", Act.RESET)],
    ids=["closed", "reset", "reset in the headers"],
)
async def test_a_backend_that_hangs_up_before_it_answers_was_reached(
    script: Script, request_: InferenceRequest
) -> None:
    error = await failure_of(*script, request=request_)

    assert isinstance(error, BackendUnavailable)
    assert error.reached


@pytest.mark.parametrize("end", [b"", Act.RESET], ids=["closed", "reset"])
async def test_a_picture_that_breaks_off_was_reached(end: bytes | Act) -> None:
    error = await failure_of(ONE_PICTURE[0][:200], end, request=FOX)

    assert isinstance(error, BackendUnavailable)
    assert error.reached


@pytest.mark.parametrize("request_", [HELLO, FOX], ids=["text", "picture"])
async def test_silence_before_the_first_byte_ends(request_: InferenceRequest) -> None:
    async with client_of((Act.HANG,), first_byte_s=0.05) as (client, server):
        error = await failure(client, request_)
        async with asyncio.timeout(5):
            await server.left.wait()

    assert isinstance(error, BackendTimeout)


async def test_each_modality_has_its_own_patience() -> None:
    patience = {Modality.TXT2IMG: 0.05}
    async with client_of((Act.HANG,), ONE_PICTURE, first_byte_s=patience) as (client, server):
        assert isinstance(await failure(client, FOX), BackendTimeout)
        task = asyncio.create_task(answer(client, Img2ImgRequest(image=DATA_URI, prompt="p")))
        chunks = await task

    assert len(chunks) == 2
    assert len(server.heard) == 2


@pytest.mark.parametrize(
    ("request_", "begun"),
    [(HELLO, (SSE_HEAD, delta("x"))), (FOX, (ONE_PICTURE[0][:300],))],
    ids=["after a word", "inside a picture"],
)
async def test_silence_inside_an_answer_ends(
    request_: InferenceRequest, begun: tuple[bytes, ...]
) -> None:
    async with client_of((*begun, Act.HANG), idle_s=0.05) as (client, server):
        error = await failure(client, request_)
        async with asyncio.timeout(5):
            await server.left.wait()

    assert isinstance(error, BackendTimeout)


@pytest.mark.parametrize(
    "begun", [(SSE_HEAD,), (SSE_HEAD, delta(None, role="assistant"))], ids=["headers", "a role"]
)
async def test_what_is_sent_ahead_of_the_first_word_does_not_start_the_clock(
    begun: tuple[bytes, ...],
) -> None:
    error = await failure_of(*begun, Act.HANG, first_byte_s=0.2, idle_s=0.01)

    assert isinstance(error, BackendTimeout)
    assert "0.2 s" in error.message


# Leaving early


async def test_closing_the_generator_closes_the_connection() -> None:
    async with client_of((SSE_HEAD, delta("x"), Act.HANG)) as (client, server):
        chunks = client.run(HELLO, "m", "j")
        assert await anext(chunks) == TextDelta("x")

        await chunks.aclose()

        async with asyncio.timeout(1):
            await server.left.wait()


@pytest.mark.parametrize("request_", [HELLO, FOX], ids=["text", "picture"])
async def test_cancelling_the_caller_closes_the_connection(request_: InferenceRequest) -> None:
    async with client_of((Act.HANG,)) as (client, server):
        task = asyncio.create_task(answer(client, request_))
        async with asyncio.timeout(5):
            await server.asked.wait()

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async with asyncio.timeout(1):
            await server.left.wait()


async def test_callers_who_leave_at_random_moments_cost_no_connection() -> None:
    chance = random.Random(7)
    slow = [chunk(bytes([byte])) for byte in b"data: {}\n\n" * 3]
    script = stream(delta("x"), *slow, delta("y", "stop"), DONE)
    requests: list[InferenceRequest] = [HELLO, FOX]

    async with client_of(script) as (client, server):

        async def leave_again_and_again() -> None:
            for _ in range(25):
                task = asyncio.create_task(answer(client, chance.choice(requests)))
                for _ in range(chance.randrange(80)):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    task.exception()

        await asyncio.gather(*(leave_again_and_again() for _ in range(20)))
        left = len(server.heard)

        async with asyncio.timeout(5):
            answers = await asyncio.gather(*(answer(client) for _ in range(20)))

    assert left > 100
    assert all(chunks[-1] == Finish("stop") for chunks in answers)


# Pictures


async def test_a_picture_is_asked_for_in_one_go_and_checked() -> None:
    request = Txt2ImgRequest(prompt="a fox", negative_prompt="blurry", steps=4, seed=7, width=64)
    async with client_of(ONE_PICTURE) as (client, server):
        chunks = await answer(client, request)

    assert chunks == [Image(png(), "image/png", 32, 32, 7), Finish()]
    assert server.heard[0].line == "POST /v1/images/generations HTTP/1.1"
    assert server.heard[0].json == {
        "model": "m",
        "prompt": "a fox|blurry",
        "size": "64x512",
        "n": 1,
        "response_format": "b64_json",
        "step": 4,
        "seed": 7,
    }


async def test_a_bar_in_the_prompt_does_not_begin_a_negative_prompt() -> None:
    async with client_of(ONE_PICTURE) as (client, server):
        await answer(client, Txt2ImgRequest(prompt="fox|moon", negative_prompt=" "))
        await answer(client, Txt2ImgRequest(prompt="fox|moon", negative_prompt="sun"))

    assert [heard.json["prompt"] for heard in server.heard] == ["fox,moon", "fox,moon|sun"]


async def test_several_pictures_are_drawn_one_by_one_with_seeds_of_their_own() -> None:
    last = 2**31 - 1
    async with client_of(ONE_PICTURE) as (client, server):
        chunks = await answer(client, Txt2ImgRequest(prompt="p", n=3, seed=last))
        await answer(client, Txt2ImgRequest(prompt="p", n=2))

    assert [chunk.seed for chunk in chunks if isinstance(chunk, Image)] == [last, 0, 1]
    assert [heard.json.get("seed") for heard in server.heard] == [last, 0, 1, None, None]
    assert server.connections == 1


async def test_each_picture_is_given_on_before_the_next_is_asked_for() -> None:
    async with client_of(ONE_PICTURE, (Act.HANG,)) as (client, server):
        chunks = client.run(Txt2ImgRequest(prompt="p", n=2), "m", "j")

        assert isinstance(await anext(chunks), Image)
        assert len(server.heard) == 1
        await chunks.aclose()


async def test_the_picture_to_be_changed_goes_as_bare_base64() -> None:
    plain = Img2ImgRequest(image=DATA_URI, prompt="snow")
    strong = Img2ImgRequest(image=DATA_URI, prompt="snow", strength=0.3)
    async with client_of(ONE_PICTURE) as (client, server):
        await answer(client, plain)
        await answer(client, strong)

    first, second = (heard.json for heard in server.heard)
    assert first["file"] == PNG
    assert "strength" not in first
    assert second["strength"] == 0.3


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (drawn(), EmptyResult),
        (drawn({"embedding": None, "index": 0}), EmptyResult),
        (drawn({"b64_json": ""}), EmptyResult),
        (drawn({"b64_json": None}), EmptyResult),
        (drawn({"b64_json": base64.b64encode(b"no picture").decode()}), EmptyResult),
        (drawn({"b64_json": base64.b64encode(png()[:60]).decode()}), EmptyResult),
        (drawn({"b64_json": base64.b64encode(png(1)).decode()}), EmptyResult),
        (drawn({"b64_json": "*"}), BackendProtocolError),
        (drawn({"b64_json": "🦊"}), BackendProtocolError),
        (drawn({"b64_json": 5}), BackendProtocolError),
        (drawn({"url": "http://127.0.0.1:9/x.png"}), BackendProtocolError),
        (drawn(5), BackendProtocolError),
        (reply(200, {"data": {}}), BackendProtocolError),
        (reply(200, {"data": None}), EmptyResult),
        (reply(200, {"created": 1}), EmptyResult),
        (reply(200, []), BackendProtocolError),
        (reply(200, ""), BackendProtocolError),
        (reply(200, '{"data": [{"b64_'), BackendProtocolError),
        (reply(200, '{"data": NaN}'), BackendProtocolError),
        (reply(200, "<html>", content_type="text/html"), BackendProtocolError),
        (reply(200, b"\xff\xfe\x00"), BackendProtocolError),
        (reply(200, "[" * 100_000), BackendProtocolError),
        (reply(200, {"error": {"message": "could not load model"}}), ModelLoadFailed),
        (reply(200, gzip.compress(bytes(99)), content_encoding="gzip"), BackendProtocolError),
        (
            reply(500, {"error": {"code": 500, "message": "invalid value for 'size'"}}),
            BackendRejected,
        ),
    ],
)
async def test_an_answer_without_a_good_picture_is_no_answer(
    told: bytes, expected: type[BackendError]
) -> None:
    assert type(await failure_of(told, request=FOX)) is expected


async def test_an_answer_that_is_too_large_is_refused() -> None:
    error = await failure_of(reply(200, b"x" * 3000), request=FOX, image_bytes=2000)

    assert type(error) is BackendProtocolError
    assert "2,000 bytes" in error.message


async def test_it_is_told_when_an_answer_was_simulated() -> None:
    head = SSE_HEAD.replace(b"\r\n\r\n", b"\r\nX-Simulated: inference-manager\r\n\r\n")
    data = {"data": [{"b64_json": PNG}]}
    async with client_of(
        (head, delta("x", "stop"), DONE, END, Act.KEEP),
        (reply(200, data, X_Simulated="inference-manager"),),
    ) as (client, _):
        text, picture = await answer(client), await answer(client, FOX)

    assert text[-1] == Finish("stop", simulated=True)
    assert picture[-1] == Finish("stop", simulated=True)


# What a backend offers


async def test_models_are_listed_with_what_they_can_do() -> None:
    listed = {
        "object": "list",
        "data": [
            {"id": "chat", "capabilities": ["chat", "tools"], "input_modalities": ["text"]},
            {"id": "old", "capabilities": ["completion"], "input_modalities": None},
            {"id": "eyes", "capabilities": ["chat", "vision"]},
            {"id": "sees", "capabilities": ["chat"], "input_modalities": ["text", "image"]},
            {"id": "sd", "capabilities": ["image"], "input_modalities": ["text"]},
            {"id": "edit", "capabilities": ["image"], "input_modalities": ["text", "image"]},
            {"id": "voice", "capabilities": ["tts"], "input_modalities": ["text"]},
            {"id": "loose", "capabilities": None, "input_modalities": None},
            {"id": "odd", "capabilities": ["chat", 5, None], "input_modalities": "image"},
            {"id": "", "capabilities": ["chat"]},
            {"id": 5},
            {"id": "a\nb"},
            {"id": "x" * 300},
            {"name": "nameless"},
            None,
            "text",
        ],
    }
    async with client_of((reply(200, listed),)) as (client, server):
        models = await client.models()

    t2t, t2i, i2i, i2t = Modality.TXT2TXT, Modality.TXT2IMG, Modality.IMG2IMG, Modality.IMG2TXT
    assert server.heard[0].line == "GET /v1/models/capabilities HTTP/1.1"
    assert models == [
        OfferedModel("chat", frozenset({t2t})),
        OfferedModel("old", frozenset({t2t})),
        OfferedModel("eyes", frozenset({t2t, i2t})),
        OfferedModel("sees", frozenset({t2t, i2t})),
        OfferedModel("sd", frozenset({t2i})),
        OfferedModel("edit", frozenset({t2i, i2i})),
        OfferedModel("voice", frozenset()),
        OfferedModel("loose", frozenset()),
        OfferedModel("odd", frozenset({t2t})),
    ]


async def test_an_older_server_lists_models_without_a_word_on_what_they_can_do() -> None:
    missing = reply(404, {"error": {"code": 404, "message": "Resource not found", "type": ""}})
    listed = reply(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})
    async with client_of((missing,), (listed,)) as (client, server):
        models = await client.models()

    assert models == [OfferedModel("m", None)]
    assert server.heard[1].line == "GET /v1/models HTTP/1.1"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (reply(200, {"data": "x"}), BackendProtocolError),
        (reply(200, []), BackendProtocolError),
        (reply(200, "<html>"), BackendProtocolError),
        (reply(401, ""), BackendUnauthorised),
        (reply(503, ""), BackendBusy),
        (b"", BackendUnavailable),
    ],
)
async def test_a_list_that_cannot_be_had_is_an_error(
    told: bytes, expected: type[BackendError]
) -> None:
    async with client_of((told,)) as (client, _):
        with pytest.raises(expected):
            await client.models()


async def test_a_server_without_models_offers_none() -> None:
    async with client_of((reply(200, {"data": None}),)) as (client, _):
        assert await client.models() == []


async def test_it_is_known_which_models_are_in_memory() -> None:
    told = {"backends": ["llama-cpp"], "loaded_models": [{"id": "a"}, {"id": "b"}, None, {}]}
    async with client_of((reply(200, told),), (reply(200, {"loaded_models": None}),)) as (
        client,
        _,
    ):
        assert await client.resident() == frozenset({"a", "b"})
        assert await client.resident() == frozenset()


async def test_who_may_not_see_the_system_asks_as_ollama_does() -> None:
    told = {"models": [{"name": "a", "model": "a"}, {"model": "b"}, {"size": 5}]}
    async with client_of((reply(403, ""),), (reply(200, told),)) as (client, server):
        assert await client.resident() == frozenset({"a", "b"})

    assert [heard.line.split()[1] for heard in server.heard] == ["/system", "/api/ps"]


async def test_a_server_may_not_tell_what_is_in_memory() -> None:
    async with client_of((reply(404, ""),)) as (client, _):
        assert await client.resident() is None


async def test_a_strange_list_of_what_is_in_memory_is_an_error() -> None:
    async with client_of((reply(200, [1]),)) as (client, _):
        with pytest.raises(BackendProtocolError):
            await client.resident()


# Loading


async def test_a_model_is_loaded_before_it_is_needed() -> None:
    told = {"loaded": ["m"], "message": "model loaded"}
    async with client_of((reply(200, told),)) as (client, server):
        await client.load("m")

    assert server.heard[0].line == "POST /backend/load HTTP/1.1"
    assert server.heard[0].json == {"model": "m"}


@pytest.mark.parametrize(
    "told",
    [
        reply(404, {"error": {"code": 404, "message": "Resource not found"}}),
        reply(404, "<html>"),
        reply(404, ""),
        reply(405, ""),
        reply(401, ""),
        reply(403, {"error": {"type": "authorization_error"}}),
    ],
)
async def test_a_server_that_does_not_load_on_demand_is_asked_only_once(told: bytes) -> None:
    async with client_of((told,)) as (client, server):
        await client.load("m")
        await client.load("m")

    assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (reply(404, {"error": {"message": 'model "m" not found.'}}), UnknownModel),
        (reply(500, {"error": {"message": "could not load model: no such file"}}), ModelLoadFailed),
        (reply(500, {"error": {"message": "rpc error: code = Unavailable"}}), ModelLoadFailed),
        (reply(500, {"loaded": [], "message": "something else"}), ModelLoadFailed),
        (reply(503, {"error": {"message": "load is in cooldown"}}), ModelLoadFailed),
        (reply(503, {"error": {"type": "model_loading"}}), BackendBusy),
        (reply(400, ""), BackendRejected),
        (b"", BackendUnavailable),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_an_error(
    told: bytes, expected: type[InferenceManagerError]
) -> None:
    async with client_of((told,)) as (client, _):
        with pytest.raises(expected) as failed:
            await client.load("m")

    assert type(failed.value) is expected


async def test_loading_does_not_take_for_ever() -> None:
    async with client_of((Act.HANG,), load_s=0.05) as (client, _):
        with pytest.raises(BackendTimeout):
            await client.load("m")


# Signs of life


async def test_a_living_backend_tells_its_version() -> None:
    told = {"version": "v4.9.0 (82c191af)\x1b"}
    async with client_of((reply(200, told),)) as (client, server):
        assert await client.ping() == "v4.9.0 (82c191af)"

    assert server.heard[0].line == "GET /version HTTP/1.1"


@pytest.mark.parametrize(
    "first", [reply(404, ""), reply(200, "<html>"), reply(200, {"version": None}), reply(403, "")]
)
async def test_a_backend_without_a_version_shows_that_it_lives(first: bytes) -> None:
    async with client_of((first,), (reply(200, ""),)) as (client, server):
        assert await client.ping() == "unknown"

    assert server.heard[1].line == "GET /healthz HTTP/1.1"


@pytest.mark.parametrize(
    ("scripts", "expected"),
    [
        (((reply(401, ""),),), BackendUnauthorised),
        (((reply(500, ""),),), BackendFailed),
        (((reply(404, ""),), (reply(404, ""),)), InferenceManagerError),
        (((Act.HANG,),), BackendTimeout),
        (((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", Act.HANG),), BackendTimeout),
        (((),), BackendUnavailable),
    ],
)
async def test_a_backend_that_is_not_well_does_not_seem_to_be(
    scripts: tuple[Script, ...], expected: type[InferenceManagerError]
) -> None:
    async with client_of(*scripts, ping_s=0.1) as (client, _):
        with pytest.raises(expected):
            await client.ping()


# Making one


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8080", "ftp://host", "http://", "http://user:pass@host", "http://host/?a=1"],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL of a backend"):
        LocalAIClient(name="gpu", url=url)


@pytest.mark.parametrize("key", ["top secret", "top\nsecret", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(key: str) -> None:
    with pytest.raises(ValueError, match="key of a backend") as refused:
        LocalAIClient(name="gpu", url="http://host", api_key=key)

    assert key not in str(refused.value)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_an_address_may_end_as_other_clients_want_it(path: str) -> None:
    async with raw_server((reply(200, {"version": "v4"}),)) as server:
        client = LocalAIClient(name="gpu", url=server.url + path)
        await client.ping()
        await client.close()

    assert server.heard[0].line == "GET /version HTTP/1.1"


async def test_a_path_before_the_routes_is_kept() -> None:
    async with raw_server((reply(200, {"version": "v4"}),)) as server:
        client = LocalAIClient(name="gpu", url=f"{server.url}/ai/")
        await client.ping()
        await client.close()

    assert server.heard[0].line == "GET /ai/version HTTP/1.1"


async def test_it_is_a_backend_and_shows_where_but_not_its_key() -> None:
    client = LocalAIClient(name="gpu", url="http://host:8080/v1", api_key="sesame")
    backend: Backend = client

    assert backend.stops_at_once(Modality.TXT2TXT)
    assert backend.stops_at_once(Modality.IMG2TXT)
    assert not backend.stops_at_once(Modality.TXT2IMG)
    assert not backend.stops_at_once(Modality.IMG2IMG)
    assert repr(client) == "<LocalAIClient gpu [http://host:8080]>"
    await client.close()


async def test_no_log_line_holds_what_a_caller_wrote_or_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    request = Img2TxtRequest(images=(DATA_URI,), question=CANARY)
    async with client_of(
        stream(delta(CANARY, "stop"), DONE), (reply(500, CANARY),), api_key=f"sesame-{CANARY}"
    ) as (client, _):
        await answer(client, request)
        await failure(client)

    assert caplog.text
    assert CANARY not in caplog.text
    assert PNG not in caplog.text
