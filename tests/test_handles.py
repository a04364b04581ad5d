"""What a caller holds of a job, and what is kept for those who follow its pieces."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager

import pytest

from src.handles import JobHandle
from src.models.errors import BackendFailed
from src.models.results import ChoiceEnd, Finish, Image, Result, TextDelta
from tests.models.making import NOW, job

PICTURE = Image(b"\x89PNG" * 1000, "image/png", 8, 8)
ONE, TWO, THREE = (TextDelta(text) for text in ("one", "two", "three"))


def running() -> JobHandle:
    handle = JobHandle(job())
    handle.update(handle.job.started("gpu", NOW))
    return handle


def complete(handle: JobHandle) -> None:
    handle.update(handle.job.completed(Result(text="all"), NOW + 1))


@asynccontextmanager
async def waiting(what: Awaitable[object]) -> AsyncGenerator[asyncio.Future[object]]:
    """Have somebody wait for something, and let it be known when that came."""
    task = asyncio.ensure_future(what)
    await turns()
    assert not task.done()
    yield task
    task.cancel()
    await asyncio.wait([task])


async def turns() -> None:
    """Let everybody do what there is to do."""
    for _ in range(10):
        await asyncio.sleep(0)


# Pieces


async def test_pieces_are_followed_in_their_order_from_the_first_on() -> None:
    handle = running()
    handle.push(ONE)

    with handle.tail() as tail:
        handle.push(TWO)
        first = tail.take()
        handle.push(PICTURE)
        handle.push(THREE)

        assert [*first, *tail.take()] == [ONE, TWO, PICTURE, THREE]
        assert tail.take() == ()


async def test_each_who_follows_gets_all_pieces_at_its_own_pace() -> None:
    handle = running()

    with handle.tail() as eager, handle.tail() as slow:
        handle.push(ONE)
        eager.take()
        handle.push(TWO)

        assert eager.take() == (TWO,)
        assert slow.take() == (ONE, TWO)


@pytest.mark.parametrize("event", ["next piece", "next step", "poke"])
async def test_who_waits_is_woken_by_whatever_comes_next(event: str) -> None:
    handle = running()

    with handle.tail() as tail:
        async with waiting(tail.more()) as woken, asyncio.timeout(5):
            match event:
                case "next piece":
                    handle.push(ONE)
                case "next step":
                    complete(handle)
                case _:
                    tail.poke()
                    tail.poke()
            await woken


async def test_nobody_waits_while_there_is_something_to_take() -> None:
    handle = running()

    with handle.tail() as tail:
        handle.push(ONE)
        async with asyncio.timeout(5):
            await tail.more()


async def test_it_goes_on_until_the_last_piece_of_an_ended_job_is_taken() -> None:
    handle = running()

    with handle.tail() as tail:
        assert tail.waiting
        handle.push(ONE)
        complete(handle)
        assert tail.waiting
        tail.take()

        assert not tail.waiting


async def test_who_comes_after_the_end_gets_all_pieces() -> None:
    handle = running()
    handle.push(ONE)
    handle.push(TWO)
    complete(handle)

    with handle.tail() as tail:
        assert tail.take() == (ONE, TWO)
        assert not tail.waiting
    assert [piece async for piece in handle.stream()] == [ONE, TWO]


async def test_who_finds_only_the_result_of_a_job_gets_that_in_pieces() -> None:
    handle = running()
    complete(handle)

    with JobHandle(handle.job).tail() as tail:
        assert tail.take() == (TextDelta("all"), ChoiceEnd("stop"), Finish())
        assert not tail.waiting


async def test_pieces_that_nobody_has_taken_are_forgotten_with_their_attempt() -> None:
    handle = running()

    with handle.tail() as tail:
        handle.push(ONE)
        handle.begin()
        assert not handle.delivered
        assert tail.take() == ()
        handle.push(TWO)

        assert tail.take() == (TWO,)
    assert list(handle.pieces) == [TWO]


async def test_only_a_piece_that_was_taken_counts_as_delivered() -> None:
    handle = running()

    with handle.tail() as tail:
        tail.take()
        handle.push(ONE)
        before = handle.delivered
        tail.take()

    assert (before, handle.delivered) == (False, True)


async def test_an_event_goes_to_those_who_follow_and_is_not_kept() -> None:
    handle = running()
    piece = TextDelta("one", event="{" + "x" * 1000 + "}")

    with handle.tail() as early:
        handle.push(piece)
        with handle.tail() as late:
            assert early.take() == (piece,)
            assert late.take() == (ONE,)
    assert list(handle.pieces) == [ONE]


async def test_one_who_has_left_is_told_nothing_and_keeps_nothing() -> None:
    handle = running()
    overruns: list[str] = []

    with handle.tail(limit=0, overrun=lambda: overruns.append("late")) as tail:
        pass
    handle.push(ONE)
    handle.unfollow(tail)

    assert tail.take() == ()
    assert overruns == []
    assert repr(tail) == "<Tail of job-1 [0 pieces, 0 bytes]>"


# Those who are slow


async def test_more_than_may_lie_there_is_told_once() -> None:
    handle = running()
    overruns: list[int] = []
    size = ONE.size

    with handle.tail(limit=2 * size, overrun=lambda: overruns.append(1)):
        handle.push(ONE)
        handle.push(ONE)
        assert overruns == []
        handle.push(ONE)
        handle.push(ONE)

    assert overruns == [1]


async def test_what_was_taken_or_forgotten_lies_there_no_more() -> None:
    handle = running()
    overruns: list[int] = []

    with handle.tail(limit=2 * ONE.size, overrun=lambda: overruns.append(1)) as tail:
        for _ in range(5):
            handle.push(ONE)
            handle.push(ONE)
            tail.take()
            handle.push(ONE)
            handle.begin()

    assert overruns == []


async def test_pictures_are_no_burden_as_they_are_kept_elsewhere() -> None:
    handle = running()
    overruns: list[int] = []

    with handle.tail(limit=10, overrun=lambda: overruns.append(1)):
        handle.push(PICTURE)

    assert overruns == []


async def test_without_a_limit_nothing_is_too_much() -> None:
    handle = running()

    with handle.tail() as tail:
        for _ in range(10_000):
            handle.push(ONE)

        assert len(tail.take()) == 10_000


async def test_a_limit_that_nobody_asked_about_is_only_counted() -> None:
    handle = running()

    with handle.tail(limit=0) as tail:
        handle.push(ONE)
        handle.push(TWO)

        assert tail.take() == (ONE, TWO)


# Steps


async def test_who_waits_for_the_end_is_not_woken_by_pieces() -> None:
    handle = running()
    steps = handle.settled().__await__()
    end = next(steps)

    handle.push(ONE)
    handle.update(handle.job.retrying(BackendFailed("once more"), NOW))
    woken_early = end.done()
    handle.update(handle.job.cancelled(NOW + 1))

    assert not woken_early
    assert end.done()
    with pytest.raises(StopIteration) as ended:
        next(steps)
    assert ended.value.value is handle.job


async def test_the_end_is_told_to_those_who_left_a_future_and_did_not_take_it_back() -> None:
    handle = running()
    told, done, forgotten = (asyncio.get_running_loop().create_future() for _ in range(3))
    for future in (told, done, forgotten):
        handle.tell_end(future)
    done.cancel()

    handle.forget(forgotten)
    handle.forget(forgotten)
    complete(handle)

    assert told.done()
    assert not forgotten.done()


async def test_every_step_and_piece_wakes_those_who_watch() -> None:
    handle = running()

    async with waiting(handle.changed()) as changed, asyncio.timeout(5):
        handle.push(ONE)
        await changed
    async with waiting(handle.changed()) as changed, asyncio.timeout(5):
        complete(handle)
        await changed


async def test_one_who_stops_waiting_is_forgotten_and_the_others_are_not() -> None:
    handle = running()

    async with waiting(handle.settled()) as left, waiting(handle.settled()) as stays:
        left.cancel()
        await asyncio.wait([left])
        complete(handle)

        async with asyncio.timeout(5):
            assert (await stays) is handle.job


async def test_a_settled_job_is_settled_at_once() -> None:
    handle = running()
    complete(handle)

    async with asyncio.timeout(5):
        assert (await handle.settled()) is handle.job
        assert await handle.result() == Result(text="all")


async def test_a_stream_ends_with_the_error_of_its_job() -> None:
    handle = running()
    handle.push(ONE)
    handle.push(Finish())
    handle.update(handle.job.failed(BackendFailed("broken"), NOW + 1))

    stream = handle.stream()

    assert [await anext(stream), await anext(stream)] == [ONE, Finish()]
    with pytest.raises(BackendFailed):
        await anext(stream)


async def test_a_handle_shows_its_job_and_how_many_pieces_it_has() -> None:
    handle = running()
    handle.push(ONE)

    assert repr(handle) == "<JobHandle job-1 [processing, 1 pieces]>"
