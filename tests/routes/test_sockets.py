"""`/ws`: steps of a caller's own jobs, pushed."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from src.routes import sockets
from tests import virtual_time
from tests.routes.doorstep import doorstep
from tests.routes.house import CANARY, PATIENCE_S, House, house
from tests.utils.localai_asking import stream
from tests.utils.raw_server import DONE, delta

KEYS = {"anna": "key-of-anna-1", "ben": "key-of-ben-22"}


@asynccontextmanager
async def listening(
    house: House, path: str = "/ws", origin: str | None = None, **headers: str
) -> AsyncGenerator[ClientConnection]:
    url = house.url.replace("http:", "ws:") + path
    told = {**headers, **({"Origin": origin} if origin else {})}
    async with asyncio.timeout(PATIENCE_S):
        async with connect(url, additional_headers=told, proxy=None) as socket:
            await say(socket, {"type": "ping"})
            assert await heard(socket) == {"type": "pong"}
            yield socket


async def say(socket: ClientConnection, message: Any) -> None:
    await socket.send(message if isinstance(message, str) else json.dumps(message))


async def heard(socket: ClientConnection) -> Any:
    return json.loads(await socket.recv())


async def heard_of(socket: ClientConnection, job_id: str) -> list[dict[str, Any]]:
    """What is told of a job, to its end."""
    told: list[dict[str, Any]] = []
    while not told or told[-1]["state"] not in ("completed", "failed", "cancelled", "expired"):
        message = await heard(socket)
        assert message["type"] == "job"
        if message["job_id"] == job_id:
            told.append(message)
    return told


async def hand_over(house: House, text: str = "repeat: hi", **headers: str) -> str:
    async with house.http() as http:
        body = {"modality": "txt2txt", "prompt": text}
        answer = await http.post("/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def test_every_step_is_pushed_and_no_word_of_the_content(own_house: House) -> None:
    async with listening(own_house) as socket:
        job_id = await hand_over(own_house, f"repeat: {CANARY}")

        told = await heard_of(socket, job_id)

    assert [message["state"] for message in told] == ["queued", "processing", "completed"]
    assert [message["version"] for message in told] == [0, 1, 2]
    assert told[0]["position"] == 0
    assert CANARY not in json.dumps(told)


async def test_one_may_choose_the_jobs_that_one_hears_of(own_house: House) -> None:
    own_house.sim.hold()
    first, second = await hand_over(own_house), await hand_over(own_house)
    async with listening(own_house) as socket:
        await say(socket, {"subscribe": [second]})
        assert await heard(socket) == {"type": "subscribed", "jobs": [second]}
        assert (await heard(socket))["job_id"] == second
        async with own_house.http() as http:
            await http.patch(f"/jobs/{second}", json={"level": "low"})
        assert (await heard(socket))["level"] == "low"
        own_house.sim.release()
        told = await heard_of(socket, second)
        assert {message["job_id"] for message in told} == {second}

        await say(socket, {"subscribe": []})
        assert await heard(socket) == {"type": "subscribed", "jobs": None}
        third = await hand_over(own_house)
        assert (await heard_of(socket, third))[-1]["state"] == "completed"
    assert first != second


async def test_what_is_not_understood_is_answered_and_the_socket_stays(
    shared_house: House,
) -> None:
    async with listening(shared_house) as socket:
        for message, param in (
            ("hello", "body"),
            ("[1]", "body"),
            ('{"type": "dance"}', "body"),
            ('{"subscribe": "all"}', "subscribe"),
            ('{"subscribe": [7]}', "subscribe"),
            (json.dumps({"subscribe": ["x"] * 1001}), "subscribe"),
            ("[" * 50_000, "body"),
        ):
            await say(socket, message)
            told = await heard(socket)
            assert (told["type"], told["error"]["param"]) == ("error", param), message
        await say(socket, {"subscribe": ["nobodys"]})
        assert (await heard(socket))["error"]["code"] == "job_not_found"
        await socket.send(b"\x00\x01")
        assert (await heard(socket))["type"] == "error"
        await say(socket, "ping")
        assert await heard(socket) == {"type": "pong"}


async def test_a_message_that_is_far_too_long_ends_the_conversation(shared_house: House) -> None:
    async with listening(shared_house) as socket:
        await say(socket, "x" * 70_000)
        with pytest.raises(ConnectionClosed) as closed:
            await heard(socket)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_a_caller_hears_of_its_own_jobs_only() -> None:
    with house(api_keys=KEYS) as own:
        anna, ben = ({"Authorization": f"Bearer {KEYS[name]}"} for name in ("anna", "ben"))
        async with listening(own, **anna) as hers, listening(own, "/ws/ben", **ben) as his:
            of_anna, of_ben = await hand_over(own, **anna), await hand_over(own, **ben)
            for socket, job_id, other in ((hers, of_anna, of_ben), (his, of_ben, of_anna)):
                assert (await heard(socket))["job_id"] == job_id
                told = await heard_of(socket, job_id)
                assert {message["job_id"] for message in told} == {job_id}
                await say(socket, {"subscribe": [other]})
                assert (await heard(socket))["error"]["code"] == "job_not_found"
        with pytest.raises(ConnectionClosed) as closed:
            async with listening(own, "/ws/ben", **anna):
                pass
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        with pytest.raises(InvalidStatus) as refused:
            async with listening(own):
                pass
        assert refused.value.response.status_code == 401


async def test_without_keys_any_name_will_do(shared_house: House) -> None:
    async with listening(shared_house, "/ws/whoever") as socket:
        await say(socket, "ping")
        assert await heard(socket) == {"type": "pong"}


async def test_a_page_of_another_site_cannot_listen(
    shared_house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(shared_house, origin=shared_house.url):
        pass
    port = shared_house.url.rpartition(":")[2]
    for host, origin, status in (
        ("127.0.0.1", "https://evil.example", 403),
        ("evil.example", None, 421),
    ):
        told = {"Origin": origin} if origin else {}
        url = f"ws://{host}:{port}/ws"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, host="127.0.0.1", additional_headers=told, proxy=None):
                pass
        assert refused.value.response.status_code == status
    assert caplog.messages == []


async def test_too_many_are_asked_to_come_later(
    own_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets.Sockets, "most", 1)
    async with listening(own_house):
        with pytest.raises(ConnectionClosed) as closed:
            async with listening(own_house):
                pass
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013
    async with listening(own_house):
        pass


class Deaf:
    """A connection that takes one message, and then none."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.closed = asyncio.Event()

    async def receive(self) -> Message:
        if not self.sent:
            return {"type": "websocket.connect"}
        await self.closed.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            await asyncio.Event().wait()
        self.sent.append(message)


def test_who_takes_nothing_for_a_minute_is_let_go() -> None:
    async def play() -> None:
        async with doorstep(stream(delta("x"), delta(None, "stop"), DONE)) as here:
            deaf = Deaf()
            headers = [(b"host", b"localhost")]
            scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": headers}
            listener = asyncio.ensure_future(here.app(scope, deaf.receive, deaf.send))
            await here.until(lambda: bool(deaf.sent))
            for _ in range(3):
                body = {"modality": "txt2txt", "prompt": "x", "model": "m"}
                await here.call(body, path="/jobs").answered()
            await listener

        assert [message["type"] for message in deaf.sent] == [
            "websocket.accept",
            "websocket.close",
        ]
        assert deaf.sent[-1]["code"] == 1013

    virtual_time.run(play())


def test_who_does_not_keep_up_is_told_to_look() -> None:
    async def play() -> None:
        async with doorstep(stream(delta("x"), delta(None, "stop"), DONE)) as here:
            slow = Slow()
            headers = [(b"host", b"localhost")]
            scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": headers}
            listener = asyncio.ensure_future(here.app(scope, slow.receive, slow.send))
            await here.until(lambda: bool(slow.sent))
            jobs = [{"modality": "txt2txt", "prompt": "x", "model": "m"}] * 300
            await here.call({"jobs": jobs}, path="/jobs").answered()
            slow.taking.set()
            await here.idle()
            await here.until(lambda: "resync" in slow.said)
            slow.closed.set()
            await listener

    virtual_time.run(play())


class Slow(Deaf):
    """One that takes nothing for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.taking = asyncio.Event()

    @property
    def said(self) -> list[str]:
        return [json.loads(m["text"])["type"] for m in self.sent if m["type"] == "websocket.send"]

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            await self.taking.wait()
        self.sent.append(message)
