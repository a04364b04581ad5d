"""Housekeeping forgets what is over, in slices, and goes on whatever happens."""

import asyncio
from collections.abc import Callable

import pytest

from src import housekeeping
from src.housekeeping import Housekeeping
from src.models.errors import StorageFailed
from src.models.ports import JobStore

from .kept import in_memory
from .models.making import job


async def full_store(jobs: int) -> JobStore:
    store = in_memory()
    await store.open()
    for number in range(jobs):
        await store.add(new := job(id=f"job-{number}"))
        await store.save(new.cancelled(1000.0))
    await store.flushed()
    return store


async def nothing() -> None:
    pass


async def until(when: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not when():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


async def test_what_is_over_is_forgotten_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "SLICE", 4)
    store, now = await full_store(10), 1000.0
    keeper = Housekeeping(store, tidy=nothing, clock=lambda: now)

    assert not await keeper.look()
    now += 86_400
    assert [await keeper.look() for _ in range(4)] == [True, True, False, False]
    await store.close()


async def test_it_goes_on_at_once_while_there_is_more_and_tidies_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "SLICE", 1)
    store, tidied = await full_store(3), list[None]()

    async def tidy() -> None:
        tidied.append(None)

    async with Housekeeping(store, tidy=tidy, clock=lambda: 1e9, every_s=1000.0).running():
        await until(lambda: len(tidied) == 4)
    await store.close()


async def test_a_failure_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    store, errors = await full_store(0), [StorageFailed("full"), RuntimeError("a mistake")]

    async def tidy() -> None:
        if errors:
            raise errors.pop()

    async with Housekeeping(store, tidy=tidy, clock=lambda: 1e9, every_s=0.001).running():
        await until(lambda: not errors)
    await store.close()

    assert "goes on" in caplog.text
