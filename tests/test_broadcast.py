"""Steps of jobs for those who watch, none of whom is waited for."""

import asyncio

import pytest

from src.broadcast import Broadcast
from src.models.events import BackendChanged, Ended, Started, Submitted
from src.models.jobs import Job
from tests.models.making import NOW, job


def everything(_: Job) -> bool:
    return True


async def test_each_who_watches_hears_what_it_wants_in_order() -> None:
    broadcast = Broadcast()
    one, other = job(id="one"), job(id="other")
    with (
        broadcast.watch(everything) as all_of_them,
        broadcast.watch(lambda j: j.id == "one") as mine,
    ):
        broadcast(Submitted(one, 0))
        broadcast(Submitted(other, 1))
        broadcast(BackendChanged("gpu", True, ""))
        broadcast(Started(one.started("gpu", NOW)))
        broadcast(Ended(other.cancelled(NOW)))

        told = [await all_of_them.next() for _ in range(4)]
        assert [(j.id, j.state) for j in told if j] == [
            ("one", "queued"),
            ("other", "queued"),
            ("one", "processing"),
            ("other", "cancelled"),
        ]
        assert [(await mine.next()) for _ in range(2)] == [told[0], told[2]]
    assert len(broadcast) == 0
    broadcast(Submitted(one, 0))


async def test_who_does_not_keep_up_is_told_so_once_and_hears_what_comes_then() -> None:
    broadcast = Broadcast(room=3)
    with broadcast.watch(everything) as slow, broadcast.watch(everything) as quick:
        for number in range(6):
            broadcast.show(job(id=str(number)))
            assert (told := await quick.next()) is not None
            assert told.id == str(number)

        assert await slow.next() is None
        broadcast.show(job(id="later"))
        assert (told := await slow.next()) is not None
        assert told.id == "later"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await slow.next()
