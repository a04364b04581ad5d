"""Moves while jobs start and end at the same time."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from src.models.errors import InvalidTransition, StaleJob
from src.models.jobs import Job
from src.models.moving import Target
from src.moving import Moving
from tests.routes.doorstep import Doorstep, doorstep
from tests.utils.raw_server import Act

FRONT = Target("front")


@asynccontextmanager
async def busy_server() -> AsyncGenerator[Doorstep]:
    """A server whose engine never answers, and four jobs, of which the first one runs."""
    async with doorstep((Act.HANG,)) as here:
        for _ in range(4):
            body = {"modality": "txt2txt", "prompt": "x", "model": "m"}
            await here.call(body, path="/jobs").answered()
        await here.until(lambda: bool(here.processor.scheduler.running))
        yield here


def line(here: Doorstep) -> list[str]:
    return [entry.id for entry in here.processor.scheduler.line]


async def test_a_job_that_takes_a_step_meanwhile_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with busy_server() as busy:
        shown: list[Job] = []
        store, moving = busy.processor.store, Moving(busy.processor, show=shown.append)
        first, second, third = line(busy)
        save = store.save
        stale = 1

        async def raced(*jobs: Job) -> None:
            nonlocal stale
            stale -= 1
            if stale == 0:
                await busy.processor.cancel(second)
                raise StaleJob("the job has changed in the meantime")
            await save(*jobs)

        monkeypatch.setattr(store, "save", raced)
        moved = await moving.move(third, target=FRONT)

        assert line(busy) == [third, first]
        assert {job.id for job in shown} == {third, first}
        assert (await store.get(third)).sequence == moved.sequence
        assert (await busy.processor.handle(first)).job.sequence > moved.sequence


async def test_a_move_that_never_comes_through_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def stale(*_: Job) -> None:
        raise StaleJob("the job has changed in the meantime")

    async with busy_server() as busy:
        before, shown = line(busy), list[Job]()
        with monkeypatch.context() as patch:
            patch.setattr(busy.processor.store, "save", stale)
            with pytest.raises(StaleJob):
                await Moving(busy.processor, show=shown.append).move(before[-1], target=FRONT)

        assert line(busy) == before
        assert shown == []


async def test_what_has_no_other_place_takes_no_step() -> None:
    async with busy_server() as busy:
        shown: list[Job] = []
        first, moving = line(busy)[0], Moving(busy.processor, show=shown.append)
        (running,) = busy.processor.scheduler.running

        assert (await moving.move(first, target=FRONT)).version == 0
        with pytest.raises(InvalidTransition):
            await moving.move(running.entry.id, target=FRONT)
        assert line(busy)[0] == first
        assert shown == []
