"""One conformance suite for every store: what a `JobStore` promises."""

from collections.abc import AsyncGenerator, Callable

import pytest

from src.models.errors import InvalidTransition, StaleJob, UnknownJob
from src.models.jobs import Job, Level
from src.models.ports import JobStore
from src.models.requests import Txt2TxtRequest
from src.models.results import Image, Result
from src.utils.stores.memory import MemoryStore

STORES: dict[str, Callable[[], JobStore]] = {"memory": MemoryStore}


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncGenerator[JobStore]:
    store = STORES[request.param]()
    yield store
    await store.close()


def job(job_id: str = "a") -> Job:
    return Job(
        id=job_id,
        request=Txt2TxtRequest.model_validate({"prompt": "hello"}),
        model="m",
        caller="anonymous",
        level=Level.NORMAL,
        sequence=1,
        submitted_at=10.0,
        deadline=100.0,
    )


async def test_a_job_is_found_as_it_was_kept(store: JobStore) -> None:
    await store.add(job())

    assert await store.get("a") == job()


async def test_the_next_version_replaces_the_one_before(store: JobStore) -> None:
    await store.add(job())
    started = job().started("b", 11.0)

    await store.save(started)

    assert await store.get("a") == started


async def test_of_two_steps_from_the_same_version_the_second_is_refused(store: JobStore) -> None:
    await store.add(job())
    await store.save(job().started("b", 11.0))

    with pytest.raises(StaleJob):
        await store.save(job().cancelled(11.0))
    assert (await store.get("a")).fence == 1


async def test_an_ended_job_leads_nowhere(store: JobStore) -> None:
    await store.add(job())
    await store.save(job().cancelled(11.0))

    with pytest.raises(InvalidTransition):
        (await store.get("a")).started("b", 12.0)


@pytest.mark.parametrize("ask", ["get", "save"])
async def test_a_job_that_was_never_added_is_unknown(store: JobStore, ask: str) -> None:
    with pytest.raises(UnknownJob):
        await (store.get("nobody") if ask == "get" else store.save(job("nobody")))


async def test_memory_forgets_the_oldest_ended_jobs_for_room_but_never_a_live_one() -> None:
    store = MemoryStore(keep=100, keep_bytes=2500)
    picture = Result(images=(Image(b"x" * 1000, "image/png", 1, 1),))
    await store.add(job("live"))
    for number in range(4):
        new = job(f"job-{number}")
        await store.add(new)
        await store.save(new.started("b", 11.0))
        await store.save((await store.get(new.id)).completed(picture, 12.0))

    with pytest.raises(UnknownJob):
        await store.get("job-1")
    assert (await store.get("job-2")).result == picture
    assert (await store.get("live")).id == "live"
    assert len(store) == 3
