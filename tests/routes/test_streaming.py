"""Streams: what is heard while nothing is said, and those who leave or do not listen."""

import asyncio
import json
import re
import socket
from itertools import pairwise
from typing import Any

import httpx2
import pytest

from src.models.jobs import JobState
from src.routes.streaming import SLOW_BYTES
from tests import virtual_time
from tests.routes.doorstep import CHAT, Call, Doorstep, doorstep, said
from tests.routes.house import House
from tests.utils.localai_asking import stream
from tests.utils.raw_server import DONE, END, SSE_HEAD, Act, chunk, delta, reply

BEAT_S = 10.0
ENDED = (delta(None, "stop"), DONE)
WORDS = stream(delta("Hel"), delta("lo"), *ENDED)
KEPT = '"content":"Hel"'


def comments(call: Call) -> list[str]:
    return [event for event in call.body.decode().split("\n\n") if event.startswith(":")]


def places(call: Call) -> list[dict[str, Any]]:
    """Return what the queue events say."""
    start = "event: queue\ndata: "
    events = call.body.decode().split("\n\n")
    return [json.loads(e.removeprefix(start)) for e in events if e.startswith(start)]


def without_news(call: Call) -> str:
    events = call.body.decode().split("\n\n")
    told = [event for event in events if not event.startswith((":", "event: queue"))]
    return re.sub(r'"created":\d+', "", "\n\n".join(told).replace(call.job_id, "JOB"))


def silences(call: Call, since: float) -> list[float]:
    times = [since, *(at for at, _ in call.pieces)]
    return [later - earlier for earlier, later in pairwise(times)]


def now() -> float:
    return asyncio.get_running_loop().time()


async def state_of(here: Doorstep, job_id: str) -> JobState:
    return (await here.processor.handle(job_id)).job.state


def the_job(here: Doorstep) -> str:
    (running,) = here.processor.scheduler.running
    return running.entry.id


# While nothing is said


def test_whoever_waits_in_line_hears_something_every_ten_seconds() -> None:
    async def play() -> None:
        go = asyncio.Event()
        async with doorstep((SSE_HEAD, delta("x"), go, *ENDED, END, Act.KEEP), WORDS) as here:
            first = here.call(said())
            await here.until(lambda: bool(here.asked))
            began = now()
            second = here.call(said(stream=True))
            await asyncio.sleep(55)
            go.set()
            await first.answered()
            await second.answered()
            direct = await here.ask(said(stream=True))

        assert max(silences(second, began)) <= BEAT_S
        assert set(comments(second)) == {": next in line"}
        assert without_news(second) == without_news(direct)

    virtual_time.run(play())


def test_whoever_waits_for_the_next_word_hears_something_every_ten_seconds() -> None:
    async def play() -> None:
        go = asyncio.Event()
        halted = (SSE_HEAD, delta("Hel"), go, delta("lo"), *ENDED, END, Act.KEEP)
        async with doorstep(halted) as here:
            began = now()
            call = here.call(said(stream=True))
            await asyncio.sleep(45)
            go.set()
            await call.answered()

        assert max(silences(call, began)) <= BEAT_S
        assert set(comments(call)) == {": running on m, attempt 1"}
        assert len(comments(call)) == 5

    virtual_time.run(play())


def test_whoever_hears_words_is_told_nothing_else() -> None:
    async def play() -> None:
        script: list[Any] = [SSE_HEAD]
        steps = [asyncio.Event() for _ in range(20)]
        for step in steps:
            script += [delta("word "), step]
        async with doorstep((*script, *ENDED, END, Act.KEEP)) as here:
            call = here.call(said(stream=True))
            for step in steps:
                await asyncio.sleep(5)
                step.set()
            await call.answered()

        assert comments(call) == []

    virtual_time.run(play())


@pytest.mark.parametrize(
    "how",
    [{"body": {"stream_options": {"queue_events": True}}}, {"headers": {"X_Queue_Events": "1"}}],
)
def test_who_wants_to_know_is_told_of_its_place_whenever_it_changes(how: dict[str, Any]) -> None:
    async def play() -> None:
        gates = [asyncio.Event() for _ in range(2)]
        scripts = [(SSE_HEAD, delta("x"), gate, *ENDED, END, Act.KEEP) for gate in gates]
        async with doorstep(*scripts, WORDS) as here:
            ahead = [here.call(said()) for _ in range(2)]
            await here.until(lambda: len(here.asked) == 1)
            call = here.call(said(stream=True, **how.get("body", {})), **how.get("headers", {}))
            for gate in gates:
                await asyncio.sleep(30)
                gate.set()
            await asyncio.gather(call.answered(), *(one.answered() for one in ahead))

        told = places(call)
        assert told[0] == {
            "job_id": call.job_id,
            "state": "queued",
            "position": 1,
            "starts_in_s": None,
            "doing": "queued, 1 ahead",
        }
        assert [p["position"] for p in told] == sorted((p["position"] for p in told), reverse=True)
        assert told[-1]["position"] == 0
        assert told[-1]["starts_in_s"] is not None
        assert all(one != other for one, other in pairwise(told))
        assert max(silences(call, call.pieces[0][0])) <= BEAT_S
        assert call.pieces[0][0] < 0.1

    virtual_time.run(play())


async def test_who_does_not_ask_is_not_told_of_its_place() -> None:
    async with doorstep(WORDS) as here:
        quiet = await here.ask(said(stream=True))
        told = await here.ask(said(stream=True), X_Queue_Events="true")

    assert places(quiet) == []
    assert [place["state"] for place in places(told)][:1] in ([], ["queued"], ["processing"])
    assert without_news(quiet) == without_news(told)


def test_an_error_that_comes_after_a_sign_of_life_is_an_event() -> None:
    async def play() -> None:
        go = asyncio.Event()
        refusal = reply(400, {"error": {"code": 400, "message": "no"}})
        async with doorstep((go, refusal)) as here:
            call = here.call(said(stream=True))
            await asyncio.sleep(15)
            go.set()
            await call.answered()

        comment, error, *rest = call.body.decode().split("\n\n")
        assert call.status == 200
        assert comment.startswith(": running on m")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "backend_rejected"
        assert rest == ["data: [DONE]", ""]

    virtual_time.run(play())


async def test_a_word_is_heard_as_soon_as_it_is_said() -> None:
    go = asyncio.Event()
    async with doorstep((SSE_HEAD, delta("Hel"), go, delta("lo"), *ENDED, END, Act.KEEP)) as here:
        call = here.call(said(stream=True))
        async with asyncio.timeout(5):
            await call.until(lambda body: KEPT.encode() in body)
        assert not call.task.done()
        go.set()
        await call.answered()

    assert call.body.endswith(b"data: [DONE]\n\n")


# Those who leave


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said_something", [False, True])
def test_who_leaves_while_it_is_worked_for_takes_its_job_along_within_a_second(
    *, stream: bool, said_something: bool
) -> None:
    async def play() -> None:
        words = [SSE_HEAD, delta("Hel")] if said_something else []
        async with doorstep((*words, Act.HANG)) as here:
            call = here.call(said(stream=stream))
            await asyncio.sleep(25)
            job_id = the_job(here)
            left_at = now()
            call.leave()
            await call.answered()
            await here.upstream.left.wait()

            assert await state_of(here, job_id) is JobState.CANCELLED
            assert now() - left_at < 1
            await here.idle()

    virtual_time.run(play())


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_the_line_takes_its_job_along_within_a_second(*, stream: bool) -> None:
    async def play() -> None:
        go = asyncio.Event()
        async with doorstep((SSE_HEAD, delta("x"), go, *ENDED, END, Act.KEEP)) as here:
            first = here.call(said())
            await here.until(lambda: bool(here.asked))
            second = here.call(said(stream=stream))
            await asyncio.sleep(25)
            assert here.processor.scheduler.waiting == 1
            left_at = now()
            second.leave()
            await second.answered()

            assert here.processor.scheduler.waiting == 0
            assert now() - left_at < 1
            go.set()
            assert (await first.answered()).status == 200
            assert len(here.asked) == 1

    virtual_time.run(play())


@pytest.mark.parametrize("stream", [False, True])
def test_a_shared_job_goes_on_for_whoever_stays(*, stream: bool) -> None:
    async def play() -> None:
        go = asyncio.Event()
        script = (SSE_HEAD, delta("Hel"), go, delta("lo"), *ENDED, END, Act.KEEP)
        async with doorstep(script, merge=True) as here:
            goes = here.call(said(seed=7, stream=stream))
            await here.until(lambda: bool(here.asked))
            stays = here.call(said(seed=7))
            await asyncio.sleep(1)
            goes.leave()
            await goes.answered()
            await asyncio.sleep(5)
            go.set()
            await stays.answered()

            assert stays.json["choices"][0]["message"]["content"] == "Hello"
            assert stays.headers["x-cache"] == "merged"
            assert len(here.asked) == 1

    virtual_time.run(play())


def test_whoever_was_promised_a_job_may_leave() -> None:
    async def play() -> None:
        go = asyncio.Event()
        script = (SSE_HEAD, delta("Hel"), go, delta("lo"), *ENDED, END, Act.KEEP)
        async with doorstep(script) as here:
            call = await here.call(said(), Prefer="respond-async").answered()
            call.leave()
            await asyncio.sleep(5)
            go.set()

            assert await here.ended(call.job_id) is JobState.COMPLETED

    virtual_time.run(play())


# Those who do not listen


def a_lot(events: int = 4000) -> list[bytes]:
    return [delta(f"{number:06d} " + "x" * 993) for number in range(events)]


async def test_whoever_leaves_more_than_256_kib_untaken_is_cut_off_and_holds_nobody_up() -> None:
    async with doorstep((SSE_HEAD, *a_lot(), *ENDED, END, Act.KEEP), WORDS) as here:
        slow = here.call(said(stream=True))
        slow.taking.clear()
        await here.until(lambda: bool(here.asked))
        job_id = the_job(here)
        async with asyncio.timeout(10):
            await slow.answered()

        assert await state_of(here, job_id) is JobState.CANCELLED
        pieces = (await here.processor.handle(job_id)).pieces
        assert sum(len(getattr(piece, "text", "")) for piece in pieces) < 3 * SLOW_BYTES
        assert (await here.ask(said())).json["choices"][0]["message"]["content"] == "Hello"


async def test_the_engine_goes_on_for_those_who_listen_while_one_does_not() -> None:
    async with doorstep((SSE_HEAD, *a_lot(), *ENDED, END, Act.KEEP), merge=True) as here:
        slow = here.call(said(seed=7, stream=True))
        slow.taking.clear()
        await here.until(lambda: bool(here.asked))
        quick = here.call(said(seed=7, stream=True))
        whole = here.call(said(seed=7))
        async with asyncio.timeout(10):
            await asyncio.gather(*(call.answered() for call in (slow, quick, whole)))

        assert len(here.asked) == 1
    assert slow.body == b""
    assert quick.body.endswith(b"data: [DONE]\n\n")
    assert quick.body.count(b"xxx ") == 0
    assert len(whole.json["choices"][0]["message"]["content"]) == 4_000_000


async def test_whoever_takes_what_it_is_given_is_not_cut_off_however_much_comes_at_once() -> None:
    text = "x" * 2 * SLOW_BYTES
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    at_once = (reply(200, {"choices": [choice]}, keep=True), Act.KEEP)
    short = chunk('data: {"choices":[{"delta":{"content":"x"}}]}\n\n' * 20_000)
    async with doorstep(at_once, (SSE_HEAD, short, *ENDED, END, Act.KEEP)) as here:
        one_piece = await here.ask(said(stream=True, logprobs=True))
        many = await here.ask(said(stream=True))

    assert text.encode() in one_piece.body
    assert many.body.count(b'"content":"x"') == 20_000
    assert one_piece.body.endswith(b"data: [DONE]\n\n")
    assert many.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("ended", [False, True])
def test_whoever_takes_nothing_for_a_minute_is_cut_off(*, ended: bool) -> None:
    async def play() -> None:
        rest = (*ENDED, END, Act.KEEP) if ended else (Act.HANG,)
        async with doorstep((SSE_HEAD, delta("Hel"), *rest)) as here:
            began = now()
            call = here.call(said(stream=True))
            call.taking.clear()
            await asyncio.sleep(59)
            assert not call.task.done()
            await call.answered()

            assert 60 <= now() - began <= 62
            await here.idle()

    virtual_time.run(play())


def test_whoever_takes_a_piece_now_and_then_is_served() -> None:
    async def play() -> None:
        gates = [asyncio.Event() for _ in range(4)]
        script: list[Any] = [SSE_HEAD]
        for gate in gates:
            script += [delta("word "), gate]
        async with doorstep((*script, *ENDED, END, Act.KEEP)) as here:
            call = here.call(said(stream=True))
            for gate in gates:
                call.taking.clear()
                await asyncio.sleep(50)
                call.taking.set()
                await asyncio.sleep(1)
                gate.set()
            await call.answered()

        assert call.body.endswith(b"data: [DONE]\n\n")

    virtual_time.run(play())


async def test_a_reader_that_reads_nothing_from_its_socket_does_not_fill_the_memory(
    own_house: House,
) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "tokens 40000"}], "stream": True})
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", httpx2.URL(own_house.url).port or 0))
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        reader.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        (started,) = own_house.sim.wait(model="sim-chat")
        job_id = started.correlation_id.removeprefix("chatcmpl-")
        async with own_house.http() as http:
            ended = (await http.get(f"/jobs/{job_id}", params={"wait": 20})).json()

    (seen,) = [r for r in own_house.sim.requests() if r.number == started.number]
    assert ended["state"] == "cancelled"
    assert seen.done < 40_000
