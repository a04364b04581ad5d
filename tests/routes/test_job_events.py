"""`/jobs/{id}/events`: a job's story, told to its end, and gone on with where it broke off."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from src.models.errors import StorageFailed
from src.models.jobs import Step
from src.routes.streaming import SLOW_BYTES
from tests import virtual_time
from tests.routes.doorstep import CHAT, Call, Doorstep, doorstep, said
from tests.utils.localai_asking import stream
from tests.utils.raw_server import DONE, END, SSE_HEAD, Act, Script, delta, reply

BEAT_S = 10.0
ENDED = (delta(None, "stop"), DONE)
WORDS = stream(delta("Hel"), delta("lo"), *ENDED)
BUSY = (reply(500, {"error": {"message": "out of luck"}}),)
Event = tuple[str, str, Any]


def events(call: Call) -> list[Event]:
    """What came: the name, the id and the data of each event."""
    found: list[Event] = []
    for block in call.body.decode().split("\n\n"):
        told = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if told:
            found.append((told["event"], told.get("id", ""), json.loads(told["data"])))
    return found


def states(call: Call) -> list[str]:
    return [data["state"] for name, _, data in events(call) if name == "state"]


def text_of(told: list[Event]) -> str:
    """What somebody has read in the end who heeds `restart`."""
    text = ""
    for name, _, data in told:
        text = "" if name == "restart" else text
        text += data["text"] if name == "delta" else ""
    return text


async def handed_over(here: Doorstep, **fields: Any) -> str:
    """Hand a text over and return the id of its job."""
    body = {"modality": "txt2txt", "prompt": "x", "model": "m", **fields}
    call = await here.call(body, path="/jobs").answered()
    assert call.status == 202, call.body
    return str(call.json["job_id"])


def contains(word: bytes, body: bytes) -> bool:
    return word in body


def follow(here: Doorstep, job_id: str, **headers: str) -> Call:
    return here.get(f"/jobs/{job_id}/events", **headers)


def halting(go: asyncio.Event) -> Script:
    """Say half of a word, and the rest when told to."""
    return (SSE_HEAD, delta("Hel"), go, delta("lo"), *ENDED, END, Act.KEEP)


async def test_a_story_is_told_from_its_beginning_to_its_end() -> None:
    go = asyncio.Event()
    async with doorstep(halting(go)) as here:
        job_id = await handed_over(here)
        live = follow(here, job_id)
        await live.until(lambda body: b"Hel" in body)
        go.set()
        await live.answered()
        late = await follow(here, job_id).answered()

    assert live.headers["content-type"].startswith("text/event-stream")
    for call in (live, late):
        assert states(call) == ["queued", "processing", "completed"]
        assert text_of(events(call)) == "Hello"
    name, _, last = events(live)[-1]
    assert (name, last["job"]["state"], last["job"]["job_id"]) == ("state", "completed", job_id)
    assert "text" not in last["job"]


async def test_whoever_breaks_off_anywhere_goes_on_exactly_there() -> None:
    gates = [asyncio.Event() for _ in range(3)]
    script: list[Any] = [SSE_HEAD]
    for word, gate in zip(("one ", "two ", "three "), gates, strict=True):
        script += [delta(word), gate]
    async with doorstep((*script, delta("four"), *ENDED, END, Act.KEEP)) as here:
        job_id = await handed_over(here)
        whole = follow(here, job_id)
        halves: list[Call] = []
        for gate, said_last in zip(gates, (b"one ", b"two ", b"three "), strict=True):
            await whole.until(partial(contains, said_last))
            halves.append(follow(here, job_id, last_event_id=events(whole)[-1][1]))
            gate.set()
        for call in (whole, *halves):
            await call.answered()
        told = events(whole)
        again = [await follow(here, job_id, last_event_id=one[1]).answered() for one in told]

    assert text_of(told) == "one two three four"
    heard = [text_of(told[:end]) for end in range(len(told))]
    for half, so_far in zip(halves, ("one ", "one two ", "one two three "), strict=True):
        at = heard.index(so_far)
        assert text_of(told[:at] + events(half)) == "one two three four"
    for number, call in enumerate(again[:-1], start=1):
        assert text_of(told[:number] + events(call)) == "one two three four"
        assert states(call) == [d["state"] for n, _, d in told[number:] if n == "state"]
    assert (again[-1].status, again[-1].body) == (204, b"")


async def test_who_only_follows_does_not_forbid_another_attempt() -> None:
    broken = (SSE_HEAD, delta("Hel"), Act.RESET)
    async with doorstep(broken, WORDS) as here:
        job_id = await handed_over(here)
        call = await follow(here, job_id).answered()

    told = events(call)
    assert states(call) == ["queued", "processing", "retrying", "processing", "completed"]
    assert [n for n, _, _ in told if n == "restart"] in (["restart"], [])
    assert text_of(told) == "Hello"
    assert [d["detail"] for n, _, d in told if n == "state" and d["state"] == "retrying"] == [
        "stream_cut"
    ]


async def test_words_of_an_attempt_that_failed_are_taken_back() -> None:
    go = asyncio.Event()
    async with doorstep((SSE_HEAD, delta("Hel"), go, Act.RESET), WORDS) as here:
        job_id = await handed_over(here)
        call = follow(here, job_id)
        await call.until(lambda body: b"Hel" in body)
        place = events(call)[-1][1]
        go.set()
        await call.answered()
        late = await follow(here, job_id, last_event_id=place).answered()

    assert [name for name, _, _ in events(call)] == [
        *["state", "state", "delta", "state", "state", "restart"],
        *["delta"] * (len(events(call)) - 7),
        "state",
    ]
    assert text_of(events(call)) == "Hello"
    assert [name for name, _, _ in events(late)].count("restart") == 1
    assert text_of(events(late)) == "Hello"


async def test_a_failed_job_says_why_at_the_end() -> None:
    async with doorstep(BUSY) as here:
        job_id = await handed_over(here)
        call = await follow(here, job_id).answered()

    assert states(call)[-1] == "failed"
    assert events(call)[-1][2]["job"]["error"]["code"] == "backend_failed"


async def test_a_place_that_is_none_is_refused() -> None:
    async with doorstep(WORDS) as here:
        job_id = await handed_over(here)
        words = ("nonsense", "1.2", "99999999999.1.1", "x" * 2000)
        calls = [await follow(here, job_id, last_event_id=word).answered() for word in words]

    assert {call.status for call in calls} == {422}
    assert {call.json["error"]["param"].lower() for call in calls} == {"last-event-id"}


async def test_a_place_behind_the_end_leads_to_the_beginning() -> None:
    async with doorstep(WORDS) as here:
        job_id = await handed_over(here)
        await here.ended(job_id)
        call = await follow(here, job_id, last_event_id="50.9.100").answered()

    assert [name for name, _, _ in events(call)].count("restart") == 1
    assert text_of(events(call)) == "Hello"
    assert states(call) == ["queued", "processing", "completed"]


def test_whoever_waits_hears_something_every_ten_seconds() -> None:
    async def play() -> None:
        go = asyncio.Event()
        async with doorstep(halting(go)) as here:
            first, second = await handed_over(here), await handed_over(here)
            began = asyncio.get_running_loop().time()
            calls = [follow(here, first), follow(here, second)]
            await asyncio.sleep(45)
            go.set()
            for call in calls:
                await call.answered()

        for call in calls:
            times = [began, *(at for at, _ in call.pieces)]
            assert max(b - a for a, b in pairwise(times)) <= BEAT_S
        assert b": running on m, attempt 1\n" in calls[0].body
        assert b": next in line" in calls[1].body

    virtual_time.run(play())


def test_a_reader_that_takes_nothing_is_cut_off_and_nobody_else() -> None:
    async def play() -> None:
        words = [delta("x" * 1000) for _ in range(2 * SLOW_BYTES // 1000)]
        go = asyncio.Event()
        async with doorstep((SSE_HEAD, delta("a"), go, *words, *ENDED, END, Act.KEEP)) as here:
            job_id = await handed_over(here)
            slow, other = follow(here, job_id), follow(here, job_id)
            await slow.until(lambda body: b"delta" in body)
            slow.taking.clear()
            go.set()
            await other.answered()
            await slow.answered()

        assert states(other)[-1] == "completed"
        assert len(text_of(events(other))) == 1 + 1000 * len(words)
        assert len(slow.body) < SLOW_BYTES

    virtual_time.run(play())


def test_a_reader_that_leaves_a_piece_untaken_for_a_minute_is_cut_off() -> None:
    async def play() -> None:
        go = asyncio.Event()
        async with doorstep(halting(go)) as here:
            job_id = await handed_over(here)
            slow = follow(here, job_id)
            await slow.until(lambda body: b"delta" in body)
            slow.taking.clear()
            await asyncio.sleep(80)
            await slow.answered()
            go.set()
            assert (await here.ended(job_id)) == "completed"

    virtual_time.run(play())


async def test_a_reader_that_leaves_takes_nothing_along() -> None:
    go = asyncio.Event()
    async with doorstep(halting(go)) as here:
        job_id = await handed_over(here)
        call = follow(here, job_id)
        await call.until(lambda body: b"Hel" in body)
        call.leave()
        await call.answered()
        go.set()
        assert (await here.ended(job_id)) == "completed"


async def test_when_the_server_stops_a_promised_job_goes_on_and_its_reader_is_let_go() -> None:
    go = asyncio.Event()
    async with doorstep(halting(go)) as here:
        job_id = await handed_over(here)
        call = follow(here, job_id)
        await call.until(lambda body: b"Hel" in body)
    await call.answered()

    assert states(call)[-1] == "queued"


async def test_a_plain_call_can_be_followed_as_well() -> None:
    go = asyncio.Event()
    async with doorstep(halting(go)) as here:
        first = here.call(said(), path=CHAT)
        await here.until(lambda: bool(here.processor.scheduler.running))
        (running,) = here.processor.scheduler.running
        call = follow(here, running.entry.id)
        go.set()
        await call.answered()
        await first.answered()

    assert text_of(events(call)) == "Hello"


async def test_steps_that_cannot_be_read_are_told_as_an_error_and_the_job_itself_if_they_lack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> Sequence[Step]:
        raise StorageFailed("the disk is broken")

    async def forgetful(*_: object) -> Sequence[Step]:
        return []

    async with doorstep(WORDS) as here:
        job_id = await handed_over(here)
        await here.ended(job_id)
        calls: list[Call] = []
        for history in (broken, forgetful):
            monkeypatch.setattr(here.processor.store, "history", history)
            calls.append(await follow(here, job_id).answered())

    [(name, _, data)] = events(calls[0])
    assert (name, data["code"]) == ("error", "storage_failed")
    assert states(calls[1]) == ["completed"]
    assert text_of(events(calls[1])) == "Hello"
