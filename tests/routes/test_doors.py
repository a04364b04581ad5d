"""What all doors for other programs' clients have in common, through that of a conversation."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.responses import Response
from starlette.types import Message

from src.routes.errors import ErrorBody, ErrorDetail
from src.routes.incoming import aside
from src.routes.openai import chat as chat_door
from src.routes.pieces import in_slices
from tests.routes.house import CANARY, PATIENCE_S, House, house

CHAT = "/v1/chat/completions"
KEYS = {name: f"key-of-{name}" for name in ("ann", "bob", "cyd", "dan")}
MIB = 2**20


def said(text: str = "repeat: hello", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


async def ask(house: House, body: Any = None, **headers: str) -> httpx2.Response:
    """Call; an underscore in the name of a header stands for a hyphen."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    async with house.http() as http:
        return await http.post(CHAT, json=said() if body is None else body, headers=told)


def text_of(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def error_of(response: httpx2.Response) -> ErrorDetail:
    """Take the error out of an answer, and see that its envelope is complete and says nothing."""
    assert response.headers["content-type"] == "application/json"
    error = ErrorBody.model_validate(response.json()).error
    assert error.request_id == response.headers["x-request-id"]
    assert error.docs == f"/errors/{error.code}"
    assert error.type
    assert error.message
    assert ("retry-after" in response.headers) == (error.retry_after is not None)
    assert CANARY not in f"{response.text} {response.headers}"
    assert len(response.content) < 1000
    return error


async def warm(house: House, **headers: str) -> None:
    """Have the model in memory, so that what goes wrong does so in the call and not in the load."""
    assert text_of(await ask(house, **headers)) == "hello"


def asked_upstream(house: House) -> int:
    return sum(record.path == CHAT for record in house.sim.requests())


# What is read


async def raw(house: House, body: bytes | AsyncGenerator[bytes], **headers: str) -> httpx2.Response:
    told = {"content-type": "application/json"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    async with house.http() as http:
        return await http.post(CHAT, content=body, headers=told)


@pytest.fixture(scope="module")
def narrow() -> Generator[House]:
    """A server for which bodies of a MiB are large."""
    with house(body_limit_mb=1) as built:
        yield built


async def test_a_body_that_is_too_long_is_refused(narrow: House) -> None:
    response = await raw(narrow, json.dumps(said(CANARY * 100_000)).encode())

    assert response.status_code == 413
    assert error_of(response).code == "body_too_large"


async def test_a_body_of_untold_length_is_measured(narrow: House) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        yield b'{"messages": [{"role": "user", "content": "'
        for _ in range(20):
            yield CANARY.encode() * 10_000

    response = await raw(narrow, pieces())

    assert response.status_code == 413
    assert "1,048,576 bytes" in error_of(response).message


async def test_a_body_of_untold_length_is_read_if_it_is_short_enough(narrow: House) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        body = json.dumps(said()).encode()
        yield body[:20]
        yield body[20:]

    assert text_of(await raw(narrow, pieces())) == "hello"


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/x"])
async def test_a_body_that_is_something_else_is_refused(shared_house: House, kind: str) -> None:
    response = await raw(shared_house, json.dumps(said(CANARY)).encode(), content_type=kind)

    assert response.status_code == 415
    assert error_of(response).code == "unsupported_media_type"


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/x+json", ""]
)
async def test_json_may_be_said_to_be_json_in_several_ways(shared_house: House, kind: str) -> None:
    body = json.dumps(said()).encode()

    assert text_of(await raw(shared_house, body, content_type=kind)) == "hello"


def with_number(number: str) -> bytes:
    return json.dumps(said(CANARY)).encode()[:-1] + b', "seed": ' + number.encode() + b"}"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", "body"),
        (b"\x00", "body"),
        (b'{"messages": [{"role": "user", "content": "CANARY-4711', "body"),
        (b'{"messages": "\xff CANARY-4711"}', "body"),
        (b'{"messages": [{"role": "user", "content": "CANARY-4711 \\ud800"}]}', "body"),
        (b"[" * 100_000, "body"),
        (b'{"a":' * 100_000, "body"),
        (json.dumps(said(CANARY)).encode()[:-1] + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}", ""),
        (with_number("NaN"), "body"),
        (with_number("-Infinity"), "body"),
        (with_number("9" * 300), "seed"),
        (with_number("9" * 5000), "body"),
        (with_number("1e300"), "seed"),
        (with_number("1.5"), "seed"),
        (with_number('"7"'), "seed"),
        (b"null", "body"),
        (b'"CANARY-4711"', "body"),
        (b'["CANARY-4711"]', "body"),
        (b"{}", "messages"),
        (b'{"messages": "CANARY-4711"}', "messages"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": [{"role": "CANARY-4711", "content": "x"}]}', "messages.0.role"),
        (json.dumps(said(" \n")).encode(), "messages"),
        (json.dumps(said(CANARY, temperature=9)).encode(), "temperature"),
        (json.dumps(said(CANARY, n=11)).encode(), "n"),
        (json.dumps(said(CANARY, timeout=0)).encode(), "timeout"),
        (json.dumps(said(CANARY, stream="yes")).encode(), "stream"),
        (json.dumps(said(CANARY, stop=["x" * 300])).encode(), "stop"),
    ],
)
async def test_what_no_client_would_send_is_a_bad_request_that_names_the_field(
    shared_house: House, body: bytes, param: str
) -> None:
    response = await raw(shared_house, body)

    if param:
        error = error_of(response)
        assert response.status_code == 400
        assert (error.type, error.code) == ("invalid_request_error", "invalid_request")
        assert (error.param or "").startswith(param)
    else:
        assert response.status_code in (200, 400)


async def test_a_text_of_a_megabyte_is_taken(shared_house: House) -> None:
    text = "repeat: " + "so " * 330_000

    response = await ask(shared_house, said(text))

    assert error_of(response).code in ("backend_rejected", "backend_failed")  # it is too long there


async def test_what_is_large_is_worked_on_in_a_thread_and_what_is_small_at_once() -> None:
    here = threading.get_ident()

    assert await aside(64 * 1024, threading.get_ident) == here
    assert await aside(64 * 1024 + 1, threading.get_ident) != here


async def test_who_leaves_before_its_body_is_complete_has_asked_for_nothing(
    own_house: House,
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(own_house.url).port)
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        'Content-Length: 1000\r\n\r\n{"messages": ['.encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert await reader.read() == b""
    assert text_of(await ask(own_house)) == "hello"
    assert asked_upstream(own_house) == 1


# What is told


async def test_every_answer_tells_of_its_job_in_its_headers(own_house: House) -> None:
    await warm(own_house)
    own_house.sim.add_fault("status", status=502, when={"times": 1})

    response = await ask(own_house)

    told = response.headers
    assert text_of(response) == "hello"
    assert re.fullmatch(r"[\w-]{16}", told["x-job-id"])
    assert re.fullmatch(r"\d+\.\d{3}", told["x-queue-wait"])
    assert (told["x-attempts"], told["x-model"], told["x-backend"]) == ("2", "sim-chat", "localai")
    assert "x-cache" not in told


async def test_a_stream_tells_of_its_job_in_its_headers(shared_house: House) -> None:
    response = await ask(shared_house, said(stream=True))

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-model"] == "sim-chat"
    assert response.headers["x-job-id"]


async def test_an_error_tells_of_its_job_too(own_house: House) -> None:
    await warm(own_house)
    own_house.sim.add_fault("status", status=400, message=CANARY)

    for stream in (False, True):
        response = await ask(own_house, said(CANARY, stream=stream))

        assert response.status_code == 400
        assert error_of(response).job_id == response.headers["x-job-id"]
        assert response.headers["x-attempts"] == "1"


# A job instead of an answer


async def test_who_does_not_want_to_wait_gets_the_job(own_house: House) -> None:
    own_house.sim.hold()

    given = await ask(own_house, Prefer="respond-async")

    assert given.status_code == 202
    assert given.headers["preference-applied"] == "respond-async"
    assert given.headers["retry-after"] == "1"
    job_id = given.json()["job_id"]
    assert given.headers["location"] == f"/jobs/{job_id}"
    assert given.headers["x-job-id"] == job_id
    async with own_house.http() as http:
        waits = await http.get(given.headers["location"])
        own_house.sim.release()
        ended = await http.get(given.headers["location"], params={"wait": 10})
    assert (waits.status_code, ended.status_code) == (202, 200)
    assert (ended.json()["state"], ended.json()["text"]) == ("completed", "hello")


@pytest.mark.parametrize("stream", [False, True])
async def test_who_does_not_want_to_wait_gets_no_stream(own_house: House, *, stream: bool) -> None:
    own_house.sim.hold()

    given = await ask(own_house, said(stream=stream), Prefer="respond-async")

    assert given.status_code == 202
    assert given.headers["content-type"] == "application/json"


async def test_who_waits_for_a_while_gets_the_answer_if_it_comes_in_time(own_house: House) -> None:
    assert text_of(await ask(own_house, Prefer="wait=10")) == "hello"

    own_house.sim.hold()
    given = await ask(own_house, Prefer="wait=0.05")

    assert given.status_code == 202
    assert given.json()["state"] in ("queued", "processing")


async def test_a_job_is_cancelled_by_its_address(own_house: House) -> None:
    own_house.sim.hold()
    given = await ask(own_house, Prefer="respond-async")

    async with own_house.http() as http:
        deleted = await http.delete(given.headers["location"])
        again = await http.delete(given.headers["location"])
        seen = await http.get(given.headers["location"])

    assert [r.status_code for r in (deleted, again, seen)] == [200, 200, 200]
    assert [r.json()["state"] for r in (deleted, again, seen)] == ["cancelled"] * 3


async def test_a_job_that_nobody_knows_has_no_address(shared_house: House) -> None:
    async with shared_house.http() as http:
        for call in (http.get, http.delete):
            response = await call("/jobs/none")
            assert response.status_code == 404
            assert error_of(response).code == "job_not_found"


# The same again


async def test_a_hundred_calls_with_one_key_are_one_job_with_a_hundred_equal_answers(
    own_house: House,
) -> None:
    own_house.sim.hold()
    async with own_house.http() as http:
        headers = {"Idempotency-Key": "once"}
        calls = [
            asyncio.create_task(http.post(CHAT, json=said("a tale"), headers=headers))
            for _ in range(100)
        ]
        await own_house.running("txt2txt")
        own_house.sim.release()
        answers = await asyncio.gather(*calls)

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert [a.headers.get("x-cache") for a in answers].count("repeated") == 99
    assert asked_upstream(own_house) == 1


async def test_a_key_that_comes_with_another_body_is_refused(shared_house: House) -> None:
    first = await ask(shared_house, Idempotency_Key="one-body")
    other = await ask(shared_house, said(CANARY), Idempotency_Key="one-body")

    assert text_of(first) == "hello"
    assert other.status_code == 409
    assert error_of(other).code == "idempotency_conflict"


@pytest.mark.parametrize("sent", ["", "x" * 256, "a\tb", "ü"])
async def test_a_key_that_is_none_is_a_bad_request(shared_house: House, sent: str) -> None:
    async with shared_house.http() as http:
        headers = {b"Idempotency-Key": sent.encode("latin-1")}
        response = await http.post(CHAT, json=said(CANARY), headers=headers)

    assert response.status_code == 400
    assert error_of(response).param == "Idempotency-Key"


async def test_a_call_repeated_as_a_stream_gets_the_same_answer(shared_house: House) -> None:
    whole = await ask(shared_house, Idempotency_Key="stream it")
    stream = await ask(shared_house, said(stream=True), Idempotency_Key="stream it")

    assert stream.headers["x-cache"] == "repeated"
    assert stream.headers["x-job-id"] == whole.headers["x-job-id"]
    assert '"content":"hello"' in stream.text.replace(" ", "")
    assert stream.text.endswith("data: [DONE]\n\n")


async def test_equal_calls_join_the_one_under_way_and_later_ones_find_its_answer() -> None:
    with house(merge=True, cache_mb=1) as own:
        own.sim.hold()
        body = said("a tale", seed=7)
        first = asyncio.create_task(ask(own, body))
        await own.running("txt2txt")
        second = asyncio.create_task(ask(own, {**body, "stream": True}))
        other = asyncio.create_task(ask(own, said("a tale", seed=8)))
        await own.until("/queue-status", lambda s: s["queues"]["txt2txt"]["waiting"] == 1)
        own.sim.release()
        answers = [await first, await second, await other]
        late = await ask(own, body)
        unseeded = [await ask(own, said("a tale")) for _ in range(2)]

        assert [a.headers.get("x-cache") for a in answers] == [None, "merged", None]
        assert late.headers["x-cache"] == "hit"
        assert late.json()["choices"] == answers[0].json()["choices"]
        assert [a.headers.get("x-cache") for a in unseeded] == [None, None]
        assert asked_upstream(own) == 4


# Every error


@contextmanager
def strict_house() -> Generator[House]:
    """Build a server that refuses whatever can be refused."""
    keys = ",".join(f"{name}={value}" for name, value in KEYS.items())
    with house(api_keys=keys, max_waiting=2, max_waiting_per_caller=1, body_limit_mb=1) as built:
        yield built


async def ann(house: House, body: Any = None, **headers: str) -> httpx2.Response:
    return await ask(house, said(CANARY) if body is None else body, **key("ann"), **headers)


async def with_waiting(house: House, *callers: str) -> None:
    """Have a job of Dan run, and one of each caller wait."""
    house.sim.hold()
    given = await ask(house, said("x"), Prefer="respond-async", **key("dan"))
    async with asyncio.timeout(PATIENCE_S), house.http() as http:
        while (await http.get(given.headers["location"], headers=key("dan"))).json()[
            "state"
        ] != "processing":
            pass
    for caller in callers:
        given = await ask(house, said("x"), Prefer="respond-async", **key(caller))
        assert given.status_code == 202


async def bad_request(house: House) -> httpx2.Response:
    return await ann(house, said(CANARY, temperature=9))


async def too_high(house: House) -> httpx2.Response:
    return await ann(house, X_Priority="high")


async def rejected(house: House) -> httpx2.Response:
    await warm(house, **key("ann"))
    house.sim.add_fault("status", status=422, message=CANARY)
    return await ann(house)


async def stranger(house: House) -> httpx2.Response:
    return await ask(house, said(CANARY), Authorization=f"Bearer {CANARY}")


async def foreign_page(house: House) -> httpx2.Response:
    return await ann(house, Origin=f"https://{CANARY.lower()}.example")


async def unknown_model(house: House) -> httpx2.Response:
    return await ann(house, said(CANARY, model="sim-chta"))


async def unknown_path(house: House) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(f"/v1/{CANARY}", json=said(CANARY), headers=key("ann"))


async def wrong_method(house: House) -> httpx2.Response:
    async with house.http() as http:
        return await http.get(CHAT, headers=key("ann"))


async def other_body(house: House) -> httpx2.Response:
    await ann(house, said("x"), Idempotency_Key="k")
    return await ann(house, Idempotency_Key="k")


async def cancelled(house: House) -> httpx2.Response:
    await with_waiting(house)
    call = asyncio.create_task(ann(house, Idempotency_Key="k"))
    async with house.http() as http:
        async with asyncio.timeout(PATIENCE_S):
            while not (await http.get("/queue-status", headers=key("ann"))).json()["waiting"]:
                pass
        given = await ann(house, Idempotency_Key="k", Prefer="respond-async")
        await http.delete(given.headers["location"], headers=key("ann"))
    return await call


async def too_large(house: House) -> httpx2.Response:
    return await ann(house, said(CANARY * MIB))


async def other_type(house: House) -> httpx2.Response:
    return await raw(house, CANARY.encode(), content_type="text/plain", **key("ann"))


async def wrong_field(house: House) -> httpx2.Response:
    async with house.http() as http:
        body = {"prompt": CANARY, "temperature": 9}
        return await http.post("/mcp/txt2txt", json=body, headers=key("ann"))


async def too_many(house: House) -> httpx2.Response:
    await with_waiting(house, "ann")
    return await ann(house)


async def full(house: House) -> httpx2.Response:
    await with_waiting(house, "bob", "cyd")
    return await ann(house)


async def mistake(house: House) -> httpx2.Response:
    def write(*_: object) -> None:
        raise RuntimeError(CANARY)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_door, "_completion", write)
        return await ann(house)


async def failing_backend(house: House) -> httpx2.Response:
    await warm(house, **key("ann"))
    house.sim.add_fault("status", status=500, message=CANARY)
    return await ann(house)


async def too_late(house: House) -> httpx2.Response:
    return await ann(house, X_Deadline="2020-01-01T00:00:00Z")


async def out_of_time(house: House) -> httpx2.Response:
    await with_waiting(house)
    return await ann(house, X_Timeout="0.05")


async def out_of_its_own_time(house: House) -> httpx2.Response:
    house.sim.hold()
    return await ann(house, said(CANARY, timeout=0.05))


Reach = Callable[[House], Awaitable[httpx2.Response]]
WAYS: list[tuple[Reach, int, str, str, str | None]] = [
    (bad_request, 400, "invalid_request_error", "invalid_request", "temperature"),
    (too_high, 400, "invalid_request_error", "invalid_request", "X-Priority"),
    (rejected, 400, "invalid_request_error", "backend_rejected", None),
    (stranger, 401, "authentication_error", "invalid_api_key", None),
    (foreign_page, 403, "permission_error", "forbidden", None),
    (unknown_model, 404, "invalid_request_error", "model_not_found", "model"),
    (unknown_path, 404, "invalid_request_error", "not_found", None),
    (wrong_method, 405, "invalid_request_error", "method_not_allowed", None),
    (other_body, 409, "invalid_request_error", "idempotency_conflict", None),
    (cancelled, 409, "invalid_request_error", "cancelled", None),
    (too_large, 413, "invalid_request_error", "body_too_large", None),
    (other_type, 415, "invalid_request_error", "unsupported_media_type", None),
    (wrong_field, 422, "invalid_request_error", "invalid_request", "temperature"),
    (too_many, 429, "rate_limit_error", "rate_limit_exceeded", None),
    (mistake, 500, "server_error", "internal_error", None),
    (failing_backend, 502, "server_error", "backend_failed", None),
    (full, 503, "server_error", "queue_full", None),
    (too_late, 504, "server_error", "deadline_exceeded", None),
    (out_of_time, 504, "server_error", "deadline_exceeded", None),
    (out_of_its_own_time, 504, "server_error", "deadline_exceeded", None),
]
WAITING_HELPS = {"rate_limit_exceeded", "queue_full"}


@pytest.mark.parametrize(
    ("reach", "status", "kind", "code", "param"), WAYS, ids=lambda one: getattr(one, "__name__", "")
)
async def test_every_error_is_answered_in_one_shape(
    reach: Reach, status: int, kind: str, code: str, param: str | None
) -> None:
    with strict_house() as own:
        response = await reach(own)
        error = error_of(response)
        async with own.http() as http:
            page = (await http.get(error.docs or "")).json()

    assert (response.status_code, error.type, error.code) == (status, kind, code)
    assert error.param == param
    assert (error.retry_after is not None) == (code in WAITING_HELPS)
    assert page["code"] == code


async def test_an_unknown_model_is_answered_with_the_nearest(shared_house: House) -> None:
    error = error_of(await ask(shared_house, said(CANARY, model="sim-chta")))

    assert "sim-chat" in (error.hint or "")


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_is_logged_once_as_a_proxy_would(tmp_path: Path, *, stream: bool) -> None:
    log = tmp_path / "app.log"
    with house(log_file=log, log_level="info", log_console=False) as own:
        own.sim.hold()
        call = asyncio.create_task(ask(own, said(CANARY, stream=stream), X_Request_Id="mine"))
        job_id = await own.running("txt2txt")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with own.http() as http:
            ended = await http.get(f"/jobs/{job_id}", params={"wait": 10})

    lines: list[dict[str, Any]] = list(map(json.loads, log.read_text("utf-8").splitlines()))
    (left,) = [line for line in lines if line.get("status") == 499]
    assert ended.json()["state"] == "cancelled"
    assert (left["job_id"], left["request_id"], left["level"]) == (job_id, "mine", "info")
    assert CANARY not in log.read_text("utf-8")


async def test_a_large_answer_goes_out_in_slices_as_its_caller_takes_it() -> None:
    body = bytes(range(256)) * 4096
    whole = in_slices(Response(body, 203, {"X-A": "b"}, media_type="application/json"))
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    await whole({"type": "http", "method": "POST"}, receive, send)

    start, *rest = sent
    assert start["status"] == 203
    assert {(b"x-a", b"b"), (b"content-length", b"%d" % len(body))} <= {*start["headers"]}
    assert b"".join(message["body"] for message in rest) == body
    assert max(len(message["body"]) for message in rest) <= 64 * 1024
    small = Response(b"x")
    assert in_slices(small) is small
