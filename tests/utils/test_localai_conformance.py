"""What LocalAI sends and what comes of it, byte for byte.

The tables follow the wire reference of LocalAI 4.9: its refusals, its streams, its answers, and the
bytes that no healthy server sends. Every row is one that a server was seen, or read, to send.
"""

import asyncio
import gzip
import json
from dataclasses import dataclass
from email.utils import formatdate

import pytest

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
from src.models.ports import OfferedModel
from src.models.requests import (
    CompletionRequest,
    Img2TxtRequest,
    InferenceRequest,
    Txt2TxtRequest,
)
from src.models.results import Chunk, Finish, Image, TextDelta
from tests.utils.localai_asking import (
    CANARY,
    DATA_URI,
    FILM,
    FOX,
    HAT,
    HELLO,
    LISTEN,
    MOVIE,
    NOW,
    ONE_PICTURE,
    ORDER,
    PNG,
    RAIN,
    SAY,
    SNOW,
    TEXTS,
    answer,
    base64_of,
    client_of,
    drawn,
    failure,
    failure_of,
    media,
    png,
    small,
    stream,
    wav,
)
from tests.utils.raw_server import (
    DONE,
    SSE_HEAD,
    Act,
    Script,
    chunk,
    delta,
    event,
    raw_server,
    reply,
)

REQUESTS: dict[str, InferenceRequest] = {
    str(request.modality): request
    for request in (HELLO, FOX, SNOW, HAT, TEXTS, ORDER, SAY, RAIN, LISTEN, MOVIE)
}
EVERY_KIND = pytest.mark.parametrize(
    "request_", [HELLO, FOX, LISTEN, SAY], ids=["stream", "JSON", "form", "recording"]
)
IN_JSON = [FOX, SNOW, HAT, TEXTS, ORDER, LISTEN, MOVIE]


# Refusals: the table of statuses


@dataclass(frozen=True)
class Row:
    """What a refusal looks like and what it has to become."""

    status: int
    message: str
    kind: str
    expected: type[InferenceManagerError]
    transient: bool = False
    waits: bool = False
    retry_after: float | None = None
    more: tuple[tuple[str, object], ...] = ()

    @property
    def answer(self) -> bytes:
        error = {"code": self.status, "message": self.message, "type": self.kind}
        headers = {} if self.retry_after is None else {"retry_after": f"{self.retry_after:g}"}
        return reply(self.status, {"error": error, **dict(self.more)}, keep=True, **headers)


LOAD = "failed to load model with internal loader: could not load model: rpc error: code = "
COOLS = 'model "m" load is in cooldown after a recent failure; retry after 10s'

ROWS: dict[str, Row] = {
    "unknown model": Row(
        404,
        'model "m" not found. To see available models, call GET /v1/models',
        "invalid_request_error",
        UnknownModel,
    ),
    "unknown model with a slash in its name": Row(
        500,
        "could not load model - all backends returned error: m: no such file",
        "",
        ModelLoadFailed,
        transient=True,
    ),
    "unknown model without a backend": Row(
        500, "backend not found: m", "", ModelLoadFailed, transient=True
    ),
    "model disabled": Row(403, "the model is disabled", "model_disabled", BackendRejected),
    "alias without a target": Row(
        400, "alias points nowhere", "invalid_request_error", BackendRejected
    ),
    "malformed JSON": Row(
        400, f"code=400, message=failed parsing request body: {CANARY}", "", BackendRejected
    ),
    "no model resolvable": Row(400, "code=400, message=Bad Request", "", BackendRejected),
    "body over the limit": Row(
        413, "code=413, message=Request Entity Too Large", "", BackendRejected
    ),
    "bad or missing key": Row(
        401, "An authentication key is required", "invalid_request_error", BackendUnauthorised
    ),
    "not for this user": Row(403, "forbidden", "authorization_error", BackendUnauthorised),
    "quota used up": Row(
        429, "quota", "quota_exceeded", BackendBusy, transient=True, waits=True, retry_after=7
    ),
    "load fails": Row(500, LOAD + "Unknown desc = no file", "", ModelLoadFailed, transient=True),
    "load runs out of memory": Row(
        500, LOAD + "Unknown desc = CUDA out of memory", "", ModelLoadFailed, transient=True
    ),
    "backend does not come up": Row(
        500,
        "grpc service not ready: backend process exited with code 137: killed",
        "",
        ModelLoadFailed,
        transient=True,
    ),
    "cooldown": Row(503, COOLS, "", ModelLoadFailed, transient=True, waits=True, retry_after=10),
    "cooldown of a model without backend": Row(
        500, f"could not load model: {COOLS}", "", ModelLoadFailed, transient=True, waits=True
    ),
    "limit of the model": Row(
        503,
        "too many",
        "admission_rejected",
        BackendBusy,
        transient=True,
        waits=True,
        retry_after=1,
    ),
    "cap of the process": Row(
        503,
        "backend inference capacity reached (max_concurrent=1024); retry after 1s",
        "",
        BackendBusy,
        transient=True,
        waits=True,
        retry_after=1,
    ),
    "model still staging": Row(
        503,
        "model is being staged",
        "model_loading",
        BackendBusy,
        transient=True,
        waits=True,
        retry_after=42,
        more=(("loading", {"progress": 0.5, "bytes_sent": 1, "total_bytes": 2}),),
    ),
    "process dies": Row(
        500,
        "rpc error: code = Unavailable desc = error reading from server: EOF",
        "",
        ModelCrashed,
        transient=True,
    ),
    "process refuses": Row(
        500,
        'rpc error: code = Unavailable desc = connection error: desc = "connection refused"',
        "",
        ModelCrashed,
        transient=True,
    ),
    "process is evicted": Row(
        500, "rpc error: code = Canceled desc = context canceled", "", ModelCrashed, transient=True
    ),
    "exception in Python": Row(
        500,
        f"rpc error: code = Unknown desc = Exception calling application: {CANARY}",
        "",
        BackendFailed,
        transient=True,
    ),
    "out of memory": Row(
        500,
        "rpc error: code = Unknown desc = Exception calling application: CUDA out of memory",
        "",
        BackendFailed,
        transient=True,
    ),
    "prompt longer than the context": Row(
        500,
        "rpc error: code = Internal desc = request (9000 tokens) exceeds the available context "
        "size (4096 tokens)",
        "",
        BackendRejected,
    ),
    "prompt too long to be compressed": Row(413, "prompt is too long", "", BackendRejected),
    "blind model": Row(
        500,
        "image input is not supported - hint: you may need to provide the mmproj",
        "server_error",
        BackendRejected,
    ),
    "bad size": Row(500, "invalid value for 'size'", "", BackendRejected),
    "unreadable picture": Row(400, f"invalid image input: {CANARY}", "", BackendRejected),
    "no file": Row(500, "http: no such file", "", BackendRejected),
    "panic": Row(500, "runtime error: index out of range", "", BackendFailed, transient=True),
    "invalid argument": Row(400, "rpc error: code = InvalidArgument", "", BackendRejected),
    "failed precondition": Row(412, "rpc error: code = FailedPrecondition", "", BackendRejected),
    "unimplemented": Row(501, "rpc error: code = Unimplemented", "", BackendRejected),
    "unknown route": Row(404, "Resource not found", "", BackendProtocolError),
    "forbidden path of a browser": Row(403, "", "", BackendUnauthorised),
}


@EVERY_KIND
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_a_refusal_becomes_the_error_that_says_what_to_do(
    row: Row, request_: InferenceRequest
) -> None:
    error = await failure_of(row.answer, request=request_)

    assert type(error) is row.expected
    assert getattr(error, "transient", False) is row.transient
    assert getattr(error, "told_to_wait", False) is row.waits
    assert error.retry_after == (row.retry_after or (10.0 if row.waits else None))


async def test_a_prompt_too_long_to_be_compressed_is_not_taken_for_a_large_picture() -> None:
    error = await failure_of(ROWS["prompt too long to be compressed"].answer)

    assert "context" in error.message
    assert "picture" not in error.hint


async def test_a_model_still_staging_says_when_it_will_be_there() -> None:
    told = {"error": {"type": "model_loading"}, "loading": {"eta_seconds": 42}}

    assert (await failure_of(reply(503, told))).retry_after == 42.0


@pytest.mark.parametrize("status", [400, 500])
async def test_a_model_that_cannot_see_says_which_ones_do(status: int) -> None:
    told = {"error": {"message": "image input is not supported - hint: provide the mmproj"}}

    error = await failure_of(reply(status, told))

    assert type(error) is BackendRejected
    assert "cannot see" in error.message
    assert "list_models" in error.hint


async def test_a_llama_server_that_still_loads_is_busy_and_did_not_fail_to_load() -> None:
    told = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}

    assert type(await failure_of(reply(503, told))) is BackendBusy


async def test_a_reranker_refuses_with_a_bare_text() -> None:
    error = await failure_of(reply(422, '"top_n must be at least 1"'), request=ORDER)

    assert type(error) is BackendRejected


async def test_opaque_errors_are_read_from_their_status() -> None:
    expected: dict[int, type[InferenceManagerError]] = {
        400: BackendRejected, 401: BackendUnauthorised, 404: UnknownModel, 413: BackendRejected,
        429: BackendBusy, 500: BackendFailed, 503: BackendBusy,
    }  # fmt: skip
    for status, kind in expected.items():
        assert type(await failure_of(reply(status))) is kind


async def test_a_body_over_the_limit_may_be_refused_before_it_was_read() -> None:
    large = Img2TxtRequest(images=(f"data:image/png;base64,{base64_of(bytes(12_000_000))}",))

    error = await failure_of(ROWS["body over the limit"].answer, request=large)

    assert type(error) is BackendRejected
    assert "LOCALAI_UPLOAD_LIMIT" in error.hint


async def test_a_broken_model_fails_once_and_then_cools_down_ever_longer() -> None:
    cooling = [
        (reply(503, {"error": {"message": COOLS}}, retry_after=str(wait)),) for wait in (10, 20, 40)
    ]
    async with client_of((ROWS["load fails"].answer,), *cooling) as (client, _):
        errors = [await failure(client) for _ in range(4)]

    assert [error.retry_after for error in errors] == [None, 10.0, 20.0, 40.0]
    assert [isinstance(e, ModelLoadFailed) and e.cooling for e in errors] == [False, *[True] * 3]


async def test_a_crash_may_go_on_for_a_while_and_ends() -> None:
    crash = (ROWS["process dies"].answer, Act.KEEP)
    async with client_of(crash, crash, stream(delta("x", "stop"), DONE)) as (client, server):
        assert type(await failure(client)) is ModelCrashed
        assert type(await failure(client)) is ModelCrashed
        assert await answer(client) == [TextDelta("x"), Finish("stop")]

    assert server.connections == 1


# Errors that come with HTTP 200


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


async def test_an_error_of_a_completion_has_no_end_and_is_no_answer() -> None:
    told = {"choices": [{"index": 0, "text": f"Internal error: {CANARY}", "finish_reason": "stop"}]}

    assert type(await failure_of(*stream(event(told)))) is StreamCut


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_an_error_in_place_of_what_was_asked_for_is_that_error(
    request_: InferenceRequest,
) -> None:
    told = reply(200, {"error": {"message": "could not load model: no file", "type": ""}})

    assert type(await failure_of(told, request=request_)) is ModelLoadFailed


# What is said when


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504])
@EVERY_KIND
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
    monkeypatch.setattr("src.utils.localai_http._ERROR_S", 0.05)

    error = await failure_of(b"HTTP/1.1 503 X\r\nContent-Length: 99\r\n\r\n{", Act.HANG)

    assert type(error) is BackendBusy


async def test_an_error_with_an_endless_body_is_read_from_its_status() -> None:
    head = b"HTTP/1.1 500 X\r\nContent-Length: 99999999\r\n\r\n"

    assert type(await failure_of(head, b"x" * 1_000_000, Act.HANG)) is BackendFailed


# Streams


async def test_a_chat_begins_with_a_role_and_ends_with_its_usage() -> None:
    base = {"created": 1, "object": "chat.completion.chunk", "id": "U", "model": "m"}

    def said(choice: dict[str, object]) -> bytes:
        return event({**base, "choices": [{"index": 0, **choice}]})

    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    script = stream(
        said({"finish_reason": None, "delta": {"role": "assistant", "content": None}}),
        said({"finish_reason": None, "delta": {"content": None, "reasoning": "hm"}}),
        said({"finish_reason": None, "delta": {"content": "Hel"}}),
        said({"finish_reason": None, "delta": {"content": "lo"}}),
        said({"finish_reason": "stop", "delta": {"content": None}}),
        event({**base, "choices": [], "usage": usage}),
        DONE,
    )

    async with client_of(script) as (client, _):
        chunks = await answer(client)

    assert chunks == [
        TextDelta("", "hm"), TextDelta("Hel"), TextDelta("lo"), Finish("stop", 5, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "begun", [(SSE_HEAD,), (SSE_HEAD, delta(None, role="assistant"))], ids=["headers", "a role"]
)
async def test_a_model_may_load_after_its_stream_has_begun(begun: tuple[bytes, ...]) -> None:
    error = await failure_of(*begun, Act.HANG, first_byte_s=0.2, idle_s=0.01)

    assert isinstance(error, BackendTimeout)
    assert "0.2 s" in error.message


@pytest.mark.parametrize(
    "script",
    [
        stream(delta("x"), delta(None, "stop")),
        stream(delta("x"), chunk('data: {"choices": [{"delta"')),
        stream(delta("x"), chunk('data: {"choices": []}')),
        stream(delta("x"), chunk("data: [DO")),
        stream(delta(None, role="assistant")),
        (SSE_HEAD,),
        (SSE_HEAD, delta("x")),
        (SSE_HEAD, delta("x"), Act.RESET),
        (SSE_HEAD, delta("x"), b"5\r\nda"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\ndata",),
    ],
    ids=[
        "no done", "half an event", "an event without its end", "half a done", "no text",
        "closed at once", "closed", "reset", "half a chunk", "shorter than promised",
    ],
)  # fmt: skip
async def test_a_stream_that_ends_before_its_end_is_never_an_answer(script: Script) -> None:
    assert type(await failure_of(*script)) is StreamCut


@pytest.mark.parametrize("pieces", [(), (chunk(": only\n\n: comments\n\n"),)])
async def test_a_whole_stream_without_a_single_event_is_empty(pieces: tuple[bytes, ...]) -> None:
    assert type(await failure_of(*stream(*pieces))) is EmptyResult


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
        '{"choices": [], "choices": []}',
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


async def test_half_a_character_is_replaced_rather_than_given_on() -> None:
    told = r'{"choices": [{"delta": {"content": "a\ud83d b \ud83e\udd8a"}}]}'

    async with client_of(stream(chunk(f"data: {told}\n\n"), delta(None, "stop"), DONE)) as (
        client,
        _,
    ):
        chunks = await answer(client)

    assert chunks[0] == TextDelta("a\ufffd b 🦊")


async def test_a_huge_line_is_refused() -> None:
    line = chunk("data: " + "x" * 10_000_000)

    for chat_bytes in (8_000_000, 80_000_000):
        error = await failure_of(SSE_HEAD, line, Act.HANG, chat_bytes=chat_bytes)
        assert type(error) is BackendProtocolError


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


# Answers in one piece


@pytest.mark.parametrize(
    "told",
    [
        reply(200, "<html>hello</html>", content_type="text/html"),
        reply(200, ""),
        reply(200, '{"data": [{"b64_'),
        reply(200, '{"data": NaN, "results": NaN, "text": NaN}'),
        reply(200, '{"data": [], "data": [], "results": [], "results": []}'),
        reply(200, []),
        reply(200, "17"),
        reply(200, {"data": {}, "results": {}, "text": {}}),
        reply(200, {"data": [5], "results": [5], "text": 5}),
        reply(200, b"\xff\xfe\x00"),
        reply(200, b"\xef\xbb\xbf{"),
        reply(200, "[" * 100_000),
        reply(200, gzip.compress(bytes(10_000_000)), content_encoding="gzip"),
        reply(200, b" " * 3_000_000),
        reply(307, "", location="http://127.0.0.1:9/"),
    ],
    ids=[
        "html", "nothing", "truncated", "NaN", "keys twice", "a list", "a number", "wrong shape",
        "wrong items", "no UTF-8", "a mark of order", "nested", "gzip bomb", "too much",
        "elsewhere",
    ],
)  # fmt: skip
@pytest.mark.parametrize("request_", IN_JSON, ids=[str(each.modality) for each in IN_JSON])
async def test_an_answer_that_is_none_breaks_the_protocol(
    request_: InferenceRequest, told: bytes
) -> None:
    error = await failure_of(told, request=request_, image_bytes=2_000_000)

    assert type(error) is BackendProtocolError
    assert not error.transient


async def test_a_mark_of_byte_order_before_an_answer_does_no_harm() -> None:
    told = b"\xef\xbb\xbf" + json.dumps({"data": [{"b64_json": PNG}]}).encode()

    async with client_of((reply(200, told),)) as (client, _):
        assert isinstance((await answer(client, FOX))[0], Image)


@pytest.mark.parametrize("request_", [SAY, RAIN], ids=["speech", "sound"])
@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (media(b"<html>hello</html>", "text/html"), BackendProtocolError),
        (media(b"<html>hello</html>", "audio/wav"), BackendProtocolError),
        (reply(200, {"audio": "?"}), BackendProtocolError),
        (media(b""), EmptyResult),
        (media(wav(0)), EmptyResult),
        (media(wav()[:30]), BackendProtocolError),
        (media(wav()[:500]), BackendProtocolError),
        (media(b"RIFF\x00\x00\x00\x00WAVE" + bytes(100)), BackendProtocolError),
        (media(gzip.compress(bytes(999)), content_encoding="gzip"), BackendProtocolError),
        (media(wav(60)), BackendProtocolError),
        (media(wav())[:-100], BackendUnavailable),
    ],
    ids=[
        "html", "html that says it is sound", "json", "nothing", "no sound", "half a header",
        "half the sound", "no chunks", "gzip", "too much", "cut on the way",
    ],
)  # fmt: skip
async def test_what_is_no_recording_is_no_answer(
    request_: InferenceRequest, told: bytes, expected: type[BackendError]
) -> None:
    assert type(await failure_of(told, request=request_, media_bytes=500_000)) is expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (drawn(), EmptyResult),
        (drawn({"embedding": None, "index": 0}), EmptyResult),
        (drawn({"b64_json": ""}), EmptyResult),
        (drawn({"b64_json": None}), EmptyResult),
        (drawn({"b64_json": base64_of(b"no picture")}), EmptyResult),
        (drawn({"b64_json": base64_of(png()[:60])}), EmptyResult),
        (drawn({"b64_json": base64_of(png(1))}), EmptyResult),
        (drawn({"b64_json": base64_of(png(128))}), BackendProtocolError),
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


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(32, 32, True), (95, 95, True), (96, 32, False), (32, 96, False)],
)
async def test_a_picture_of_about_the_size_that_was_asked_for_counts(
    width: int, height: int, fits: bool
) -> None:
    request = small(size=f"{width}x{height}")
    async with client_of(ONE_PICTURE) as (client, _):
        if fits:
            assert isinstance((await answer(client, request))[0], Image)
        else:
            error = await failure(client, request)
            assert type(error) is BackendProtocolError
            assert "32x32" in error.message
            assert f"{width}x{height}" in error.message


async def test_a_changed_picture_may_keep_the_size_of_its_source() -> None:
    other = SNOW.model_copy(update={"image": f"data:image/png;base64,{base64_of(png(256))}"})
    asked = other.model_copy(update={"width": 64, "height": 64})
    async with client_of(ONE_PICTURE) as (client, _):
        assert isinstance((await answer(client, SNOW))[0], Image)
        assert isinstance((await answer(client, asked))[0], Image)
        assert type(await failure(client, other)) is BackendProtocolError


# What goes to LocalAI, where it would otherwise be dropped in silence


async def test_a_chat_gets_data_uris_and_an_image_model_gets_bare_base64() -> None:
    look = Img2TxtRequest(images=(DATA_URI,))
    async with client_of(ONE_PICTURE, stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client, SNOW)
        await answer(client, look)

    drawing, chat = (heard.json for heard in server.heard)
    assert drawing["file"] == PNG
    assert DATA_URI in json.dumps(chat["messages"])


async def test_what_to_avoid_goes_behind_a_bar_and_only_one_bar_is_sent() -> None:
    async with client_of(ONE_PICTURE) as (client, server):
        await answer(client, small(prompt="a|b", negative_prompt="c"))

    assert server.heard[0].json["prompt"] == "a,b|c"
    assert "negative_prompt" not in server.heard[0].json


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_no_answer_is_asked_for_in_compressed_form(request_: InferenceRequest) -> None:
    async with client_of((reply(500),)) as (client, server):
        await failure(client, request_)

    assert server.heard[0].header("Accept-Encoding") == "identity"


# Pictures and films by address


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.invalid:8080/generated-images/b64123.png",
        "https://user:pass@elsewhere.invalid/prefix/generated-images/b64123.png?a=1#b",
        "/generated-images/b64123.png",
    ],
)
async def test_of_an_address_only_the_path_counts(url: str) -> None:
    told = reply(200, {"created": 1, "data": [{"embedding": None, "index": 0, "url": url}]})
    async with client_of((told,), (media(png(), "image/png"),), api_key="sesame") as (
        client,
        server,
    ):
        chunks = await answer(client, HAT)

    assert isinstance(chunks[0], Image)
    assert server.heard[1].line == "GET /generated-images/b64123.png HTTP/1.1"
    assert server.heard[1].header("Authorization") == "Bearer sesame"


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.invalid/models/delete/all",
        "/generated-images/../models/jobs",
        "/generated-images/",
        "/generated-images/%2e%2e/models",
        "/generated-images/a b",
        "/generated-images/.hidden",
        "/system",
        "http://[",
        "file:///etc/passwd",
        "x",
    ],
)
async def test_an_address_of_anything_else_is_not_followed(url: str) -> None:
    async with client_of((drawn({"url": url}), Act.KEEP)) as (client, server):
        for request in (HAT, FOX, MOVIE):
            assert type(await failure(client, request)) is BackendProtocolError

    assert all(heard.line.startswith("POST ") for heard in server.heard)


async def test_an_inpainted_picture_that_is_not_served_is_a_known_defect() -> None:
    url = "http://host:8080/generated-images/b64123.png"
    missing = reply(404, {"error": {"code": 404, "message": "Resource not found", "type": ""}})
    async with client_of((drawn({"url": url}), Act.KEEP), (missing,)) as (client, _):
        error = await failure(client, HAT)

    assert type(error) is BackendProtocolError
    assert "404" in error.message
    assert "inpainted" in error.hint


async def test_what_is_not_served_is_not_waited_for() -> None:
    missing = (b"HTTP/1.1 404 X\r\nContent-Length: 99\r\n\r\n", Act.HANG)
    address = (drawn({"url": "/generated-images/a.png"}), Act.KEEP)
    async with client_of(address, missing, idle_s=60.0) as (client, server):
        await failure(client, HAT)

        async with asyncio.timeout(5):
            await server.left.wait()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (media(b"", "image/png"), EmptyResult),
        (media(b"no picture", "image/png"), EmptyResult),
        (reply(500), BackendFailed),
        (reply(401), BackendUnauthorised),
        (reply(302, "", location="/elsewhere"), BackendProtocolError),
        (media(png(), "image/png")[:-20], BackendUnavailable),
        (media(png(), "image/png", content_encoding="gzip"), BackendProtocolError),
    ],
)
async def test_a_picture_that_cannot_be_fetched_is_no_answer(
    told: bytes, expected: type[BackendError]
) -> None:
    address = drawn({"url": "/generated-images/a.png"})
    async with client_of((address, Act.KEEP), (told,)) as (client, _):
        assert type(await failure(client, HAT)) is expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (media(b"", "video/mp4"), EmptyResult),
        (media(b"<html>", "text/html"), BackendProtocolError),
        (media(b"no film at all", "video/mp4"), BackendProtocolError),
        (media(FILM[:-1], "video/mp4"), BackendProtocolError),
        (media(FILM[:60], "video/mp4"), BackendProtocolError),
        (media(FILM, "video/mp4")[:-1], BackendUnavailable),
        (media(FILM + bytes(5), "video/mp4"), BackendProtocolError),
        (reply(404), BackendProtocolError),
        (reply(200, b"x" * 99_999, content_type="video/mp4"), BackendProtocolError),
    ],
)
async def test_a_film_that_cannot_be_fetched_is_no_answer(
    told: bytes, expected: type[BackendError]
) -> None:
    address = drawn({"url": "/generated-videos/a.mp4"})
    async with client_of((address, Act.KEEP), (told,), media_bytes=9_999) as (client, _):
        assert type(await failure(client, MOVIE)) is expected


# Lists and signs of life


async def test_a_loose_file_has_nulls_for_what_it_can_do() -> None:
    loose = {"id": "loose-file", "object": "model", "capabilities": None}
    nulls = {"input_modalities": None, "output_modalities": None}
    async with client_of((reply(200, {"object": "list", "data": [{**loose, **nulls}]}),)) as (
        client,
        _,
    ):
        assert await client.models() == [OfferedModel("loose-file", frozenset())]


async def test_what_is_in_memory_is_told_by_the_system() -> None:
    told = {"backends": ["llama-cpp"], "loaded_models": [{"id": "m", "backend": "llama-cpp"}]}
    async with client_of((reply(200, told),)) as (client, server):
        assert await client.resident() == frozenset({"m"})

    assert server.heard[0].line == "GET /system HTTP/1.1"


async def test_a_server_that_preloads_is_alive() -> None:
    async with client_of((reply(200, {"version": "v4.9.0 (82c191af)"}),)) as (client, server):
        assert await client.ping() == "v4.9.0 (82c191af)"

    assert "/readyz" not in [heard.line.split()[1] for heard in server.heard]


# Who leaves


async def test_only_a_chat_stops_at_once_but_every_caller_may_leave() -> None:
    async with client_of((Act.HANG,)) as (client, server):
        for request in (*REQUESTS.values(), CompletionRequest(prompts=("once",))):
            server.asked.clear()
            server.left.clear()
            task = asyncio.create_task(answer(client, request))
            async with asyncio.timeout(5):
                await server.asked.wait()
                task.cancel()
                await asyncio.wait([task])
                await server.left.wait()
            talk = isinstance(request, Txt2TxtRequest | Img2TxtRequest)
            assert client.stops_at_once(request) is talk
