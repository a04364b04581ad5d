"""The intake: large bodies come in one after another, small ones whenever they like."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from src.app import create_app
from src.routes.callers import Callers
from src.routes.guard import Guard
from src.routes.intake import LARGE, Intake, Room
from src.routes.request_ids import RequestIds
from src.routes.shortcut import Shortcut
from src.routes.spooling import Spooling
from src.settings import Settings

PATIENCE_S = 5.0
KIB = 1024
BIG = 2 * LARGE


class Caller:
    """Somebody who calls an application, and sends a body when the test says so."""

    def __init__(self, app: Any, length: int | None = None) -> None:
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        self._read = asyncio.Event()
        self.sent: list[Message] = []
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        self.call = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        self._read.set()
        return await self._coming.get()

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def send(self, size: int, *, more: bool = False) -> None:
        self._coming.put_nowait({"type": "http.request", "body": bytes(size), "more_body": more})

    def leave(self) -> None:
        self._coming.put_nowait({"type": "http.disconnect"})

    async def read_from(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self._read.wait()

    @property
    def is_read_from(self) -> bool:
        return self._read.is_set()

    async def status(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            await self.call
        assert [m["type"] for m in self.sent] == ["http.response.start", "http.response.body"]
        return int(self.sent[0]["status"])

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.sent[1]["body"])["error"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


class App:
    """Reads a body, checks it for as long as the test wants, and then waits, answers or breaks."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.left = 0
        self.afterwards = "answer"
        self._checked = asyncio.Event()
        self._more = asyncio.Event()

    def check(self, *, then: str = "answer") -> None:
        self.afterwards = then
        self._checked.set()

    async def has_read(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.sizes) < count:
                self._more.clear()
                await self._more.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, scope["method"] == "POST"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                break
            size, more = size + len(message["body"]), message["more_body"]
        else:
            self.sizes.append(size)
            self._more.set()
            await self._checked.wait()
            if self.afterwards == "break":
                raise RuntimeError("broken")
            if self.afterwards == "wait":
                await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if self.afterwards == "stream":
            await asyncio.Event().wait()
        await send({"type": "http.response.body", "body": b"{}"})


async def settle() -> None:
    """Let everybody do what they can do at once."""
    for _ in range(10):
        await asyncio.sleep(0)


class Clock:
    """The clock of the event loop, which goes on only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self._now)

    async def move(self, seconds: float) -> None:
        self._now += seconds
        await settle()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@asynccontextmanager
async def calling(intake: Intake, *lengths: int | None) -> AsyncGenerator[Sequence[Caller]]:
    callers = [Caller(intake, length) for length in lengths]
    try:
        await settle()
        yield callers
    finally:
        for caller in callers:
            caller.call.cancel()
        await asyncio.wait([caller.call for caller in callers])


async def test_large_bodies_beyond_the_room_stay_unread() -> None:
    app = App()

    async with calling(Intake(app, room=2 * BIG), BIG, BIG, BIG) as callers:
        for caller in callers:
            caller.send(BIG)
        await app.has_read(2)
        await settle()

        assert [caller.is_read_from for caller in callers] == [True, True, False]


async def test_a_small_body_is_never_held_up() -> None:
    app = App()

    async with calling(Intake(app, room=BIG), BIG, LARGE, None) as (_, small, chunked):
        small.send(LARGE)
        chunked.send(LARGE)

        await app.has_read(2)


@pytest.mark.parametrize("then", ["answer", "stream", "wait", "break"])
async def test_the_room_is_given_back_when_the_application_waits_answers_or_breaks(
    then: str,
) -> None:
    app = App()

    async with calling(Intake(app, room=BIG), BIG, BIG) as (first, second):
        first.send(BIG)
        await app.has_read(1)
        await settle()
        assert not second.is_read_from

        app.check(then=then)

        await second.read_from()


async def test_the_room_is_given_back_when_a_caller_leaves_in_the_middle() -> None:
    app = App()

    async with calling(Intake(app, room=BIG), BIG, BIG) as (first, second):
        first.send(1000, more=True)
        first.leave()

        await second.read_from()
        assert app.left == 1


async def test_turns_come_in_the_order_of_arrival_even_if_a_later_one_would_fit() -> None:
    app = App()

    async with calling(Intake(app, room=3 * BIG), 2 * BIG, 2 * BIG, BIG) as callers:
        first, second, third = callers
        first.send(2 * BIG)
        await app.has_read(1)
        await settle()
        assert (second.is_read_from, third.is_read_from) == (False, False)

        app.check(then="wait")

        await second.read_from()
        await third.read_from()


async def test_who_stops_waiting_makes_room_for_those_behind() -> None:
    app = App()

    async with calling(Intake(app, room=3 * BIG), 2 * BIG, 2 * BIG, BIG) as (_, second, third):
        second.call.cancel()

        await third.read_from()
        assert not second.is_read_from


async def test_who_stops_waiting_as_the_turn_comes_passes_it_on() -> None:
    room = Room(BIG)
    share = await room.take(BIG)
    second, third = (asyncio.create_task(room.take(BIG)) for _ in range(2))
    await settle()

    room.give_back(share)
    second.cancel()

    async with asyncio.timeout(PATIENCE_S):
        assert await third == BIG
    assert second.cancelled()


async def test_it_tells_how_full_it_is() -> None:
    async with calling(intake := Intake(App(), room=BIG), BIG, BIG):
        assert repr(intake) == "<Intake [0 of 524,288 bytes free, 1 waiting]>"


async def test_a_body_larger_than_the_room_has_it_to_itself() -> None:
    app = App()

    async with calling(Intake(app, room=BIG), 3 * BIG, BIG) as (first, second):
        first.send(3 * BIG)
        await app.has_read(1)
        assert not second.is_read_from
        app.check()

        assert await first.status() == 200


async def test_a_body_of_unknown_length_needs_room_once_it_is_large() -> None:
    app = App()

    async with calling(Intake(app, room=BIG, longest=BIG), BIG, None) as (first, unknown):
        unknown.send(LARGE, more=True)
        unknown.send(1, more=True)
        unknown.send(1)
        first.send(BIG)
        await app.has_read(1)
        await settle()
        assert app.sizes == [BIG]

        app.check(then="wait")

        await app.has_read(2)
        assert app.sizes == [BIG, LARGE + 2]


async def test_a_body_whose_turn_does_not_come_in_60_s_is_answered_with_503(clock: Clock) -> None:
    app = App()

    async with calling(Intake(app, room=BIG), BIG, BIG) as (first, second):
        first.send(BIG)
        await clock.move(59)
        assert second.sent == []

        await clock.move(2)

        assert await second.status() == 503
        assert second.headers[b"retry-after"] == b"5"
        assert second.error["code"] == "queue_full"
        assert not second.is_read_from
        assert app.left == 1  # and what the application says to nobody is not sent
        app.check()
        assert await first.status() == 200


async def test_a_body_of_which_less_than_64_kib_come_in_30_s_is_cut_off_with_408(
    clock: Clock,
) -> None:
    app = App()

    async with calling(Intake(app, room=BIG), BIG, BIG) as (slow, second):
        slow.send(64 * KIB - 1, more=True)
        await clock.move(29)
        assert slow.sent == []

        await clock.move(2)

        assert await slow.status() == 408
        assert slow.headers[b"connection"] == b"close"
        assert slow.error["code"] == "body_too_slow"
        await second.read_from()


async def test_a_small_body_that_does_not_end_is_cut_off_as_well(clock: Clock) -> None:
    async with calling(Intake(App()), 10) as (slow,):
        slow.send(9, more=True)
        await clock.move(31)

        assert await slow.status() == 408


async def test_every_64_kib_give_a_body_another_30_s(clock: Clock) -> None:
    app = App()

    async with calling(Intake(app), BIG) as (caller,):
        for _ in range(7):
            await clock.move(29)
            caller.send(64 * KIB, more=True)
            await settle()
        caller.send(64 * KIB)

        await app.has_read(1)
        app.check()
        assert await caller.status() == 200


async def test_the_time_that_the_application_takes_is_not_the_callers(clock: Clock) -> None:
    on = asyncio.Event()

    async def slow(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await on.wait()
        assert (await receive())["type"] == "http.request"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async with calling(Intake(slow), 20) as (caller,):
        caller.send(10, more=True)
        await settle()
        await clock.move(100)
        on.set()
        await settle()
        caller.send(10)

        assert await caller.status() == 200


async def test_an_answer_that_has_begun_is_not_mixed_with_another(clock: Clock) -> None:
    async def early(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"{}"})

    async with calling(Intake(early), BIG) as (caller,):
        caller.send(10, more=True)
        await clock.move(31)

        assert await caller.status() == 200


async def test_a_refused_caller_has_gone_however_often_the_application_asks(clock: Clock) -> None:
    asked: list[str] = []

    async def stubborn(_: Scope, receive: Receive, __: Send) -> None:
        asked.extend([(await receive())["type"], (await receive())["type"]])

    async with calling(Intake(stubborn), BIG) as (caller,):
        await clock.move(31)

        assert await caller.status() == 408
        assert asked == ["http.disconnect", "http.disconnect"]


async def test_what_is_no_request_is_let_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _: Receive, __: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Message) -> Any:
        raise AssertionError

    await Intake(app)({"type": "lifespan"}, nothing, nothing)

    assert seen == ["lifespan"]


def test_strangers_are_refused_before_the_intake_and_whoever_refuses_names_the_request() -> None:
    app = create_app(Settings(log_file=None))

    classes: list[object] = [middleware.cls for middleware in app.user_middleware]

    assert classes == [RequestIds, Guard, Callers, Intake, Spooling, Shortcut]


@given(
    sizes=st.lists(st.integers(1, 15), max_size=12),
    steps=st.lists(st.tuples(st.sampled_from(["leave", "give up"]), st.integers(0, 11))),
)
async def test_shares_never_exceed_the_room_and_are_given_in_order(
    sizes: list[int], steps: list[tuple[str, int]]
) -> None:
    room = Room(10)
    inside: dict[int, int] = {}
    came_in: list[int] = []

    async def come(number: int, size: int) -> None:
        inside[number] = await room.take(size)
        came_in.append(number)
        assert sum(inside.values()) <= 10

    tasks = [asyncio.create_task(come(number, size)) for number, size in enumerate(sizes)]
    await settle()
    for step, number in [*steps, *(("leave", n) for _ in sizes for n in range(len(sizes)))]:
        if step == "leave" and number in inside:
            room.give_back(inside.pop(number))
        elif step == "give up" and number < len(tasks):
            tasks[number].cancel()
        await settle()

    assert came_in == sorted(came_in)
    assert all(task.done() for task in tasks)
    assert str(room).startswith("10 of 10 bytes free, 0 waiting")
