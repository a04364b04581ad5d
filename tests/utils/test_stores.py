"""One conformance suite for every store: what a `JobStore` promises."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from src.models.blobs import Blob
from src.models.errors import InvalidTransition, ModelCrashed, StaleJob, UnknownJob
from src.models.jobs import Job, Level
from src.models.ports import Blobs, JobStore
from src.models.requests import Img2ImgRequest, InferenceRequest, Txt2TxtRequest
from src.models.results import Image, Result
from src.utils.stores.memory import MemoryStore
from tests.kept import DictBlobs

STORES: dict[str, Callable[[Blobs], JobStore]] = {
    "memory": lambda blobs: MemoryStore(blobs=blobs),
}


@pytest.fixture
def blobs() -> DictBlobs:
    return DictBlobs()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, blobs: DictBlobs) -> AsyncGenerator[JobStore]:
    store = STORES[request.param](blobs)
    yield store
    await store.close()


HELLO = Txt2TxtRequest.model_validate({"prompt": "hello"})


def job(job_id: str = "a", request: InferenceRequest = HELLO) -> Job:
    return Job(
        id=job_id,
        request=request,
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


async def kept(blobs: DictBlobs, size: int = 1000) -> Blob:
    blob = await blobs.keep(bytes(size))
    assert isinstance(blob, Blob)
    return blob


async def brought_along(blobs: DictBlobs, job_id: str = "a") -> Job:
    """Make a job that changes a picture which is kept as a blob."""
    picture = await kept(blobs)
    return job(job_id, Img2ImgRequest(image=picture.reference, prompt="p"))


async def until_dropped(blobs: DictBlobs) -> None:
    async with asyncio.timeout(5):
        await blobs.dropped.wait()


ENDS: dict[str, Callable[[Job], Job]] = {
    "completed": lambda job: job.completed(Result(text="done"), 12.0),
    "failed": lambda job: job.failed(ModelCrashed("it crashed"), 12.0),
    "cancelled": lambda job: job.cancelled(12.0),
    "expired": lambda job: job.expired(12.0),
}


@pytest.mark.parametrize("end", ENDS)
async def test_what_a_request_brought_is_dropped_when_its_job_ends_and_not_before(
    store: JobStore, blobs: DictBlobs, end: str
) -> None:
    new = await brought_along(blobs)
    await store.add(new)
    started = new.started("b", 11.0)
    await store.save(started)
    retrying = started.retrying(ModelCrashed("it crashed"), 12.0)
    await store.save(retrying)
    again = retrying.started("b", 12.0)
    await store.save(again)
    assert blobs.kept

    await store.save(ENDS[end](again))

    await until_dropped(blobs)
    assert blobs.kept == {}


async def test_what_a_job_made_stays_for_as_long_as_the_job(
    store: JobStore, blobs: DictBlobs
) -> None:
    made = await kept(blobs)
    new = await brought_along(blobs)
    await store.add(new)
    started = new.started("b", 11.0)
    await store.save(started)

    await store.save(started.completed(Result(images=(Image(made, "image/png", 9, 9),)), 12.0))

    await until_dropped(blobs)
    assert list(blobs.kept) == [made.key]


async def test_a_step_that_comes_too_late_drops_nothing(store: JobStore, blobs: DictBlobs) -> None:
    new = await brought_along(blobs)
    await store.add(new)
    await store.save(new.started("b", 11.0))

    with pytest.raises(StaleJob):
        await store.save(new.cancelled(11.0))

    assert blobs.kept
    assert not blobs.dropped.is_set()


async def test_words_that_look_like_a_reference_drop_nothing(
    store: JobStore, blobs: DictBlobs
) -> None:
    strangers = await kept(blobs)
    words = Txt2TxtRequest.model_validate({"prompt": strangers.reference})
    await store.add(job("a", words))

    await store.save(job("a", words).cancelled(11.0))
    await store.close()

    assert list(blobs.kept) == [strangers.key]


async def ended(store: MemoryStore, new: Job, result: Result) -> None:
    await store.add(new)
    started = new.started("b", 11.0)
    await store.save(started)
    await store.save(started.completed(result, 12.0))


async def test_memory_forgets_the_oldest_ended_jobs_for_room_but_never_a_live_one() -> None:
    store = MemoryStore(keep=100, keep_bytes=2500)
    picture = Result(images=(Image(b"x" * 1000, "image/png", 1, 1),))
    await store.add(job("live"))
    for number in range(4):
        await ended(store, job(f"job-{number}"), picture)

    with pytest.raises(UnknownJob):
        await store.get("job-1")
    assert (await store.get("job-2")).result == picture
    assert (await store.get("live")).id == "live"
    assert len(store) == 3


async def test_memory_drops_what_a_forgotten_job_made() -> None:
    blobs = DictBlobs()
    store = MemoryStore(keep_bytes=2500, blobs=blobs)
    made = [await kept(blobs) for _ in range(3)]
    for number, blob in enumerate(made):
        await ended(store, job(f"job-{number}"), Result(images=(Image(blob, "image/png", 9, 9),)))

    await until_dropped(blobs)
    with pytest.raises(UnknownJob):
        await store.get("job-0")
    assert list(blobs.kept) == [made[1].key, made[2].key]


async def test_what_ended_requests_brought_takes_no_room_any_more() -> None:
    blobs = DictBlobs()
    store = MemoryStore(keep_bytes=1500, blobs=blobs)
    for number in range(5):
        await ended(store, await brought_along(blobs, f"job-{number}"), Result(text="done"))

    assert len(store) == 5


async def test_memory_lets_go_of_all_blobs_when_it_closes() -> None:
    blobs = DictBlobs()
    store = MemoryStore(blobs=blobs)
    await store.add(await brought_along(blobs, "live"))
    made = Result(images=(Image(await kept(blobs), "image/png", 9, 9),))
    await ended(store, await brought_along(blobs, "ended"), made)

    await store.close()

    assert blobs.kept == {}
    assert len(store) == 0
