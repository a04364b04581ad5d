"""Who calls: keys, whose job is whose, and addresses that need no key."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from src.routes.callers import Callers, current_caller
from src.routes.signing import sign
from tests.routes.house import ERAS, PATIENCE_S, House, facts, house, words

ANN, BOB = {"Authorization": "Bearer sesame"}, {"x-api-key": "barley"}
SMALL = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
STRANGERS = [
    {},
    {"Authorization": "Bearer canary-key"},
    {"Authorization": "Bearer"},
    {"Authorization": "Basic c2VzYW1l"},
    {"Authorization": "sesame"},
    {"x-api-key": "sesame2"},
    {"x-api-key": "ключ".encode().decode("latin-1")},
    {"api-key": "sesame"},
]


@pytest.fixture(scope="module")
def guarded() -> Generator[House]:
    """A server that asks for keys."""
    with house(api_keys="ann=sesame,bob=barley") as built:
        yield built


@asynccontextmanager
async def mcp_client(house: House, mode: str, key: dict[str, str]) -> AsyncGenerator[Client]:
    async with (
        httpx2.AsyncClient(headers=key, trust_env=False) as http,
        Client(streamable_http_client(f"{house.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def draw(house: House, key: dict[str, str]) -> Any:
    async with house.http() as http:
        return (await http.post("/mcp/txt2img", json=SMALL, headers=key)).json()


async def begun(http: httpx2.AsyncClient, job_id: str, key: dict[str, str]) -> None:
    """Wait until a job is worked on."""
    state = ""
    async with asyncio.timeout(PATIENCE_S):
        while state != "processing":
            job = await http.get("/mcp/get_job", params={"job_id": job_id}, headers=key)
            state = job.json()["state"]


@pytest.mark.parametrize("headers", STRANGERS)
@pytest.mark.parametrize(
    "path", ["/mcp/list_models", "/queue-status", "/images/j/0", "/mcp", "/nowhere", "/docsx"]
)
async def test_a_stranger_learns_nothing_but_that_there_is_a_key(
    guarded: House, path: str, headers: dict[str, str]
) -> None:
    async with guarded.http() as http:
        raw = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
        answer = await http.get(path, headers=raw)

    error = answer.json()["error"]
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert error["message"] == "this server asks for a key that it knows"
    assert "canary" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        ANN,
        BOB,
        {"Authorization": "bearer  sesame"},
        {"Authorization": "Bearer sesame", "x-api-key": "sesame"},
        {"Authorization": "Basic cHJveHk6cHJveHk=", "x-api-key": "barley"},
    ],
)
async def test_a_key_opens_every_door_in_either_header(
    guarded: House, headers: dict[str, str]
) -> None:
    async with guarded.http() as http:
        assert (await http.get("/mcp/list_models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer sesame"), ("x-api-key", "barley")],
        [("x-api-key", "sesame"), ("x-api-key", "sesame")],
        [("Authorization", "Bearer sesame"), ("Authorization", "Basic c2VzYW1l")],
    ],
)
async def test_whoever_shows_several_keys_has_to_choose(
    guarded: House, headers: list[tuple[str, str]]
) -> None:
    async with guarded.http() as http:
        answer = await http.get("/mcp/list_models", headers=headers)

    assert answer.status_code == 400
    assert answer.json()["error"]["hint"] == "send one, in one header"


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/ready",
        "/docs",
        "/docs/oauth2-redirect",
        "/static-offline-docs/swagger-ui.css",
        "/openapi.json",
        "/errors/invalid_api_key",
    ],
)
async def test_what_says_that_the_server_is_there_and_explains_it_is_open(
    guarded: House, path: str
) -> None:
    async with guarded.http() as http:
        assert (await http.get(path)).status_code == 200
        assert (await http.get("/")).status_code == 307


async def test_without_keys_nobody_is_asked_and_whatever_is_shown_is_good(
    shared_house: House,
) -> None:
    async with shared_house.http() as http:
        headers = {**ANN, **BOB}
        assert (await http.get("/mcp/list_models", headers=headers)).status_code == 200


async def test_the_body_of_a_stranger_is_not_read(guarded: House) -> None:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(guarded.url[-5:]))
        head = "POST /mcp/txt2txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        writer.write(head.encode())

        assert b" 401 " in await reader.readline()
        writer.close()


async def test_the_job_of_another_caller_looks_as_if_there_were_none(guarded: House) -> None:
    made = await draw(guarded, ANN)
    asked = {"job_id": made["job_id"]}

    async def answers(http: httpx2.AsyncClient, job_id: str, key: dict[str, str]) -> list[Any]:
        named = {"image": f"job:{job_id}", "question": "What?"}
        headers = {**key, "X-Request-Id": "same"}
        return [
            (answer.status_code, answer.json())
            for answer in (
                await http.get("/mcp/get_job", params={"job_id": job_id}, headers=headers),
                await http.post("/mcp/cancel_job", json={"job_id": job_id}, headers=headers),
                await http.get(f"/images/{job_id}/0", headers=headers),
                await http.post("/mcp/img2txt", json=named, headers=headers),
            )
        ]

    async with guarded.http() as http:
        foreign = await answers(http, asked["job_id"], BOB)
        nobody_s = await answers(http, "x" * 16, BOB)
        own = await http.get("/mcp/get_job", params=asked, headers=ANN)

    assert foreign == nobody_s
    assert [status for status, _ in foreign] == [404] * 4
    assert own.json()["state"] == "completed"


@pytest.mark.parametrize("era", ERAS)
async def test_the_tools_of_mcp_know_their_caller(guarded: House, era: str) -> None:
    async with mcp_client(guarded, era, ANN) as ann:
        made = facts(await ann.call_tool("txt2img", SMALL))
        assert facts(await ann.call_tool("get_job", {"job_id": made["job_id"]}))["images"]
    async with mcp_client(guarded, era, BOB) as bob:
        for tool in ("get_job", "cancel_job"):
            told = await bob.call_tool(tool, {"job_id": made["job_id"]})
            assert words(told).startswith("job_not_found")
        with pytest.raises(MCPError, match="job_not_found"):
            await bob.read_resource(made["images"][0]["uri"])


async def test_a_session_of_one_caller_is_unknown_to_another(guarded: House) -> None:
    headers = {"Accept": "application/json, text/event-stream"}
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    async with guarded.http() as http:
        begun = await http.post("/mcp", json=hello, headers={**headers, **ANN})
        session = {"Mcp-Session-Id": begun.headers["mcp-session-id"], **headers}
        theirs = await http.post("/mcp", json=ping, headers={**session, **BOB})
        ours = await http.post("/mcp", json=ping, headers={**session, **ANN})

    assert (theirs.status_code, ours.status_code) == (404, 200)


async def test_an_address_in_an_answer_opens_in_a_browser(guarded: House) -> None:
    made = await draw(guarded, ANN)
    signed = made["images"][0]["url"]
    plain = signed.partition("?")[0]

    async with guarded.http() as http:
        assert (await http.get(signed)).headers["content-type"] == "image/png"
        assert (await http.get(plain)).status_code == 401
        assert (await http.get(plain, headers=ANN)).status_code == 200
        forged = await http.get(f"{signed[:-1]}{'0' if signed[-1] != '0' else '1'}", headers=ANN)
        looked = {"image": signed, "question": "What?"}
        told = await http.post("/mcp/img2txt", json=looked, headers=ANN)

    assert forged.status_code == 403
    assert forged.json()["error"]["type"] == "permission_error"
    assert "64x64" in told.json()["text"]


async def test_without_keys_addresses_are_as_short_as_ever(shared_house: House) -> None:
    made = await draw(shared_house, {})

    assert made["images"][0]["url"] == f"{shared_house.url}/images/{made['job_id']}/0"


async def test_only_so_many_jobs_of_one_caller_wait() -> None:
    with house(api_keys="ann=sesame,bob=barley", max_waiting_per_caller=2) as own:
        own.sim.hold()
        body = {"prompt": "x", "wait_seconds": 0}
        async with own.http() as http:
            first = (await http.post("/mcp/txt2txt", json=body, headers=ANN)).json()
            await begun(http, first["job_id"], ANN)
            for _ in range(2):
                taken = await http.post("/mcp/txt2txt", json=body, headers=ANN)
                assert taken.status_code == 202
            refused = await http.post("/mcp/txt2txt", json=body, headers=ANN)
            other = await http.post("/mcp/txt2txt", json=body, headers=BOB)

    error = refused.json()["error"]
    assert (refused.status_code, other.status_code) == (429, 202)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert refused.headers["Retry-After"] == "5"


async def test_the_log_says_whose_job_it_was_and_never_the_key(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with house(api_keys="ann=sesame", log_file=log, log_level="debug", log_console=False) as own:
        async with own.http() as http:
            await http.post("/mcp/txt2txt", json={"prompt": "repeat: x"}, headers=ANN)
            await http.get("/mcp/list_models", headers={"x-api-key": "canary-key"})

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {"ann"} == {line["caller"] for line in lines if "caller" in line}
    assert "sesame" not in log.read_text(encoding="utf-8")
    assert "canary" not in log.read_text(encoding="utf-8")


# In front of an application that has nothing to hide


async def who(_: Request) -> PlainTextResponse:
    return PlainTextResponse(current_caller())


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(current_caller())
    await websocket.close()


def client(now: float = 0.0, **keys: str) -> TestClient:
    routes = [Route("/images/j/0", who), Route("/", who), WebSocketRoute("/ws", talk)]
    return TestClient(Callers(Starlette(routes=routes), keys=keys, clock=lambda: now))


def test_whoever_is_not_asked_is_anonymous() -> None:
    assert client().get("/").text == client(ann="sesame").get("/").text == "anonymous"


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "sesame"}])
def test_an_address_whose_time_is_over_says_so_whoever_asks(headers: dict[str, str]) -> None:
    address = f"/images/j/0?{sign('/images/j/0', 1000)}"

    assert client(999.0, ann="sesame").get(address, headers=headers).status_code == 200
    late = client(1000.0, ann="sesame").get(address, headers=headers)
    assert late.status_code == 410
    assert late.json()["error"]["code"] == "address_expired"


def test_a_websocket_needs_a_key_too() -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client(ann="sesame").websocket_connect("/ws"),
    ):
        raise AssertionError("it was let in")
    assert refused.value.status_code == 401

    with client(ann="sesame").websocket_connect("/ws", headers={"x-api-key": "sesame"}) as open_one:
        assert open_one.receive_text() == "ann"


def test_a_path_below_a_prefix_is_as_open_as_without() -> None:
    served = TestClient(
        Callers(Starlette(routes=[Route("/health", who)]), keys={"ann": "k"}, clock=lambda: 0.0),
        root_path="/inference",
    )

    assert served.get("/health").status_code == 200
