"""One conformance suite for every store: what a `JobStore` promises."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from src.models.blobs import Blob
from src.models.errors import (
    BackendBusy,
    BackendFailed,
    InvalidTransition,
    ModelCrashed,
    StaleJob,
    UnknownJob,
)
from src.models.jobs import Job, JobQuery, JobState, Level, Promise
from src.models.modality import Modality
from src.models.ports import JobStore
from src.models.queues import Entry
from src.models.requests import Img2ImgRequest, Txt2ImgRequest, Txt2TxtRequest
from src.models.results import Image, Result
from src.utils.stores.database import Database
from src.utils.stores.rows import Keeping
from src.utils.stores.sqlite import SavedBlobs, SQLiteStore
from src.utils.stores.statement import Statement
from tests.kept import DictBlobs

from .storing import facts, job, opened, promised

STORES = ["memory", "file"]
MAKES: dict[str, Callable[..., Job]] = {"plain": job, "promised": promised}


@pytest.fixture
def blobs() -> DictBlobs:
    return DictBlobs()


class Place:
    """Where a store is opened, and opened again."""

    def __init__(self, path: Path | str, blobs: SavedBlobs, stack: AsyncExitStack) -> None:
        self.path = path
        self._blobs = blobs
        self._stack = stack

    async def open(self) -> SQLiteStore:
        """Open the store; the end of the test closes it."""
        kept = Keeping(done_s=1000.0, failed_s=5000.0)
        store = opened(self.path, blobs=self._blobs, keeping=kept, clock=lambda: 55.0)
        return await self._stack.enter_async_context(store)


@pytest.fixture(params=STORES)
async def place(
    request: pytest.FixtureRequest, blobs: DictBlobs, tmp_path: Path
) -> AsyncGenerator[Place]:
    async with AsyncExitStack() as stack:
        where = ":memory:" if request.param == "memory" else tmp_path / "jobs.db"
        yield Place(where, blobs, stack)


@pytest.fixture
async def store(place: Place) -> JobStore:
    return await place.open()


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> Callable[..., Job]:
    return MAKES[request.param]


async def run(store: JobStore, new: Job, result: Result | None = None) -> Job:
    """Let a job come in and end well."""
    await store.add(new)
    started = new.started("b", 11.0)
    await store.save(started)
    await store.save(done := started.completed(result or Result(text="done"), 12.0))
    return done


# One job


async def test_a_job_is_found_as_it_was_kept(store: JobStore, make: Callable[..., Job]) -> None:
    await store.add(make())

    assert await store.get("a") == make()


async def test_a_job_is_found_as_it_was_kept_when_it_is_on_the_disk(
    store: JobStore, make: Callable[..., Job]
) -> None:
    new = make(model=None, level=Level.LOW, request=Txt2ImgRequest(prompt="ü", seed=3))
    crashed = new.started("b", 11.5).retrying(ModelCrashed("gone"), 20.0, crashed=True)
    await store.add(new)
    await store.save(new.started("b", 11.5))
    await store.save(crashed)
    await store.flushed()

    assert facts(await store.get("a")) == facts(crashed)


async def test_the_end_of_a_job_is_found_when_it_is_on_the_disk(
    store: JobStore, make: Callable[..., Job]
) -> None:
    done = await run(
        store, make(), Result(text="ü\ud800", images=(Image(b"1", "image/png", 9, 9),))
    )
    await store.flushed()

    assert await store.get("a") == done


async def test_all_that_was_promised_is_kept(store: JobStore) -> None:
    promise = Promise(
        key="k", fingerprint="f", retry_of="x", batch="b", line=7, webhook="https://w"
    )
    await store.add(job(promise=promise))

    assert (await store.get("a")).promise == promise


async def test_the_next_version_replaces_the_one_before(
    store: JobStore, make: Callable[..., Job]
) -> None:
    await store.add(make())
    started = make().started("b", 11.0)

    await store.save(started)

    assert await store.get("a") == started


async def test_of_two_steps_from_the_same_version_the_second_is_refused(
    store: JobStore, make: Callable[..., Job]
) -> None:
    await store.add(make())
    await store.save(make().started("b", 11.0))

    with pytest.raises(StaleJob):
        await store.save(make().cancelled(11.0))
    assert (await store.get("a")).fence == 1


async def test_of_steps_that_race_exactly_one_is_taken(
    store: JobStore, make: Callable[..., Job]
) -> None:
    await store.add(make())
    steps = [make().started(f"b{n}", 11.0) for n in range(5)] + [make().promised()]

    outcomes = await asyncio.gather(*(store.save(one) for one in steps), return_exceptions=True)

    assert [type(one) for one in outcomes].count(StaleJob) == len(steps) - 1
    assert await store.get("a") == steps[outcomes.index(None)]


async def test_an_ended_job_leads_nowhere(store: JobStore) -> None:
    await store.add(job())
    await store.save(job().cancelled(11.0))

    with pytest.raises(InvalidTransition):
        (await store.get("a")).started("b", 12.0)


@pytest.mark.parametrize("ask", ["get", "save"])
async def test_a_job_that_was_never_added_is_unknown(
    store: JobStore, make: Callable[..., Job], ask: str
) -> None:
    step = make("nobody").started("b", 11.0)

    with pytest.raises(UnknownJob):
        await (store.get("nobody") if ask == "get" else store.save(step))


async def test_a_model_that_is_named_late_changes_the_request(
    store: JobStore, make: Callable[..., Job]
) -> None:
    await store.add(new := make(model=None))
    await store.flushed()
    full = Txt2TxtRequest.model_validate({"prompt": "hello", "seed": 3})
    await store.save(named := new.resolved("m", full))
    await store.save(started := named.started("b", 11.0))
    await store.flushed()

    assert await store.get("a") == started


async def test_a_plain_job_that_is_promised_is_kept_from_then_on(place: Place) -> None:
    store = await place.open()
    await store.add(new := job())
    await store.save(new.promised())

    (waits,) = await store.waiting()
    assert waits.entry.id == "a"
    assert await store.get("a") == new.promised()


async def test_a_promise_of_a_running_job_neither_loses_a_step_nor_waits_for_one(
    store: JobStore,
) -> None:
    await store.add(new := job())
    await store.save(started := new.started("b", 11.0))

    promising = asyncio.create_task(store.save(kept := started.promised()))
    await asyncio.sleep(0)
    with pytest.raises(StaleJob):
        await store.save(started.completed(Result(text="done"), 12.0))
    await promising
    await store.save(done := kept.completed(Result(text="done"), 12.0))

    assert await store.get("a") == done


# Several at once


async def test_several_jobs_come_in_together_or_not_at_all(store: JobStore) -> None:
    await store.add(promised("a", sequence=1))

    with pytest.raises(Exception, match="does not take this"):
        await store.add(promised("b", sequence=2), promised("a", sequence=3))

    with pytest.raises(UnknownJob):
        await store.get("b")


@pytest.mark.parametrize("kinds", ["pp", "kk", "pk", "kp"])
async def test_several_jobs_change_together_or_not_at_all(store: JobStore, kinds: str) -> None:
    a, b = (job if kind == "p" else promised for kind in kinds)
    await store.add(a("a", sequence=1))
    await store.add(b("b", sequence=2))
    await store.save(b("b", sequence=2).started("x", 11.0))

    with pytest.raises(StaleJob):
        await store.save(a("a").moved(Level.LOW, 2), b("b", sequence=2).moved(Level.LOW, 1))
    assert (await store.get("a")).sequence == 1

    await store.save(a("a").moved(Level.LOW, 2), (await store.get("b")).requeued())
    assert (await store.get("a")).sequence == 2
    assert (await store.get("b")).state is JobState.QUEUED


# Keys


async def test_a_key_stands_for_the_job_that_came_with_it(store: JobStore) -> None:
    await store.add(job(promise=Promise(key="k", fingerprint="f")))

    assert await store.find("anonymous", "k") == ("f", "a")
    assert await store.find("ann", "k") is None
    assert await store.find("anonymous", "other") is None


async def test_a_key_is_bound_to_a_job_that_is_there_and_the_last_one_counts(
    store: JobStore, make: Callable[..., Job]
) -> None:
    await store.add(make("a"))
    await store.add(make("b"))

    await store.bind("ann", "k", "f", "a")
    await store.bind("ann", "k", "g", "b")

    assert await store.find("ann", "k") == ("g", "b")


async def test_a_key_is_forgotten_with_its_job(store: JobStore) -> None:
    await run(store, job(promise=Promise(key="k", fingerprint="f")))

    assert await store.delete("a") == 1

    assert await store.find("anonymous", "k") is None


# Lists and history


async def test_lists_show_the_newest_first_page_by_page(
    store: JobStore, make: Callable[..., Job]
) -> None:
    for number in range(5):
        await store.add(make(f"job-{number}", sequence=number))

    first = await store.list(JobQuery(limit=2))
    second = await store.list(JobQuery(limit=2, before=first.before))
    third = await store.list(JobQuery(limit=2, before=second.before))

    assert [j.id for p in (first, second, third) for j in p.jobs] == [
        f"job-{n}" for n in (4, 3, 2, 1, 0)
    ]
    assert third.before is None


async def test_a_summary_tells_what_the_job_tells(store: JobStore) -> None:
    promise = Promise(retry_of="x", batch="b", line=7)
    failed = job(promise=promise).started("b", 11.0).failed(BackendFailed("no"), 12.0)
    await store.add(job(promise=promise))
    await store.save(job(promise=promise).started("b", 11.0))
    await store.save(failed)

    (seen,) = (await store.list(JobQuery())).jobs

    names = "id modality model caller level state version attempts backend submitted_at deadline"
    for name in f"{names} started_at ended_at retry_at".split():
        assert getattr(seen, name) == getattr(failed, name), name
    assert (seen.retry_of, seen.batch) == ("x", "b")
    assert seen.error is not None
    assert (type(seen.error), seen.error.message) == (BackendFailed, "no")


DRAW = Txt2ImgRequest(prompt="p")
ASKED: dict[str, tuple[JobQuery, str]] = {
    "caller": (JobQuery(caller="ann"), "a"),
    "state": (JobQuery(states=frozenset({JobState.FAILED, JobState.EXPIRED})), "f"),
    "no state": (JobQuery(states=frozenset()), ""),
    "modality": (JobQuery(modality=Modality.TXT2IMG), "d"),
    "model": (JobQuery(model="other"), "m"),
    "level": (JobQuery(level=Level.HIGH), "l"),
    "batch": (JobQuery(batch="b"), "b"),
    "code": (JobQuery(code="backend_failed"), "f"),
    "after": (JobQuery(submitted_after=20.0), "s"),
    "before": (JobQuery(submitted_before=5.0), "e"),
    "all of them": (JobQuery(caller="ann", level=Level.HIGH), ""),
}


@pytest.mark.parametrize("question", ASKED)
async def test_lists_hold_what_was_asked_for(store: JobStore, question: str) -> None:
    await store.add(job("x"))
    await store.add(job("a", caller="ann"))
    await store.add(job("d", request=DRAW))
    await store.add(job("m", model="other"))
    await store.add(job("l", level=Level.HIGH))
    await store.add(job("b", promise=Promise(batch="b")))
    await store.add(job("s", submitted_at=20.0))
    await store.add(job("e", submitted_at=4.0))
    await store.add(job("f"))
    await store.save(job("f").failed(BackendFailed("no"), 11.0))
    query, wanted = ASKED[question]

    assert "".join(found.id for found in (await store.list(query)).jobs) == wanted


async def test_history_tells_each_step_in_order(store: JobStore, make: Callable[..., Job]) -> None:
    steps = [new := make()]
    steps.append(new.started("b", 11.0))
    steps.append(steps[-1].retrying(BackendBusy("later"), 20.0))
    steps.append(steps[-1].started("c", 21.0))
    steps.append(steps[-1].completed(Result(text="done"), 22.0))
    await store.add(new)
    for step in steps[1:]:
        await store.save(step)
    before = await store.history("a")
    await store.flushed()

    told = await store.history("a")

    assert told == before
    assert [(step.version, step.state) for step in told] == [(s.version, s.state) for s in steps]
    assert [step.at for step in told] == [10.0, 11.0, 55.0, 21.0, 22.0]
    assert [step.attempt for step in told] == [0, 1, 1, 2, 2]
    assert [step.detail for step in told] == ["", "b", "backend_busy", "c", ""]
    assert [step.version for step in await store.history("a", 2)] == [3, 4]
    assert await store.history("nobody") == []


async def test_it_is_told_which_jobs_are_repeated(store: JobStore) -> None:
    for number in range(3):
        await store.add(job(f"again-{number}", promise=Promise(retry_of=f"job-{number}")))

    asked = [f"job-{number}" for number in range(1, 500)]

    assert set(await store.repeated(*asked)) == {"job-1", "job-2"}
    assert set(await store.repeated()) == set()


# Blobs


async def kept(blobs: DictBlobs, size: int = 1000) -> Blob:
    blob = await blobs.keep(bytes(size))
    assert isinstance(blob, Blob)
    return blob


async def brought_along(blobs: DictBlobs, make: Callable[..., Job], job_id: str = "a") -> Job:
    """Make a job that changes a picture which is kept as a blob."""
    picture = await kept(blobs)
    return make(job_id, request=Img2ImgRequest(image=picture.reference, prompt="p"))


ENDS: dict[str, Callable[[Job], Job]] = {
    "completed": lambda job: job.completed(Result(text="done"), 12.0),
    "failed": lambda job: job.failed(ModelCrashed("it crashed"), 12.0),
    "cancelled": lambda job: job.cancelled(12.0),
    "expired": lambda job: job.expired(12.0),
}


@pytest.mark.parametrize("end", ENDS)
async def test_what_a_job_brought_and_made_stays_for_as_long_as_the_job(
    store: JobStore, blobs: DictBlobs, make: Callable[..., Job], end: str
) -> None:
    made = await kept(blobs)
    other = await kept(blobs)
    await run(store, make("z"), Result(images=(Image(made, "image/png", 9, 9),)))
    new = await brought_along(blobs, make)
    await store.add(new)
    await store.save(started := new.started("b", 11.0))
    await store.save(ENDS[end](started))
    await store.flushed()
    assert len(blobs.kept) == 3

    assert await store.delete("a", "z") == 2

    assert list(blobs.kept) == [other.key]


async def test_a_blob_is_on_the_disk_before_anything_is_promised_of_it(
    place: Place, blobs: DictBlobs
) -> None:
    store = await place.open()
    await store.add(plain := await brought_along(blobs, job, "plain"))
    await store.add(sure := await brought_along(blobs, promised, "sure"))
    in_file = place.path != ":memory:"
    assert blobs.secured == ({b.key for b in sure.request.blobs} if in_file else set())

    await store.save(plain.promised())
    await store.save(started := sure.started("b", 11.0))
    made = await kept(blobs)
    await store.save(started.completed(Result(images=(Image(made, "image/png", 9, 9),)), 12.0))

    assert blobs.secured == (set(blobs.kept) if in_file else set())


async def test_words_that_look_like_a_reference_drop_nothing(
    store: JobStore, blobs: DictBlobs
) -> None:
    strangers = await kept(blobs)
    words = Txt2TxtRequest.model_validate({"prompt": strangers.reference})
    await store.add(job("a", request=words))
    await store.save(job("a", request=words).cancelled(11.0))

    await store.delete("a")

    assert list(blobs.kept) == [strangers.key]


# Forgetting


async def test_only_jobs_that_have_ended_are_deleted(
    store: JobStore, make: Callable[..., Job]
) -> None:
    await store.add(make("live"))
    await run(store, make("done"))

    assert await store.delete("live", "done", "nobody") == 1

    assert (await store.get("live")).id == "live"
    assert await store.history("done") == []
    with pytest.raises(UnknownJob):
        await store.get("done")


async def test_results_are_forgotten_when_their_time_is_over_and_failures_later(
    store: JobStore, make: Callable[..., Job]
) -> None:
    await run(store, make("done"))
    await store.add(make("failed"))
    await store.save(make("failed").failed(ModelCrashed("it crashed"), 12.0))
    await store.add(make("live"))
    await store.flushed()

    assert await store.purge(1011.9, limit=10) == 0
    assert await store.purge(1012.0, limit=10) == 1
    with pytest.raises(UnknownJob):
        await store.get("done")
    assert await store.purge(5012.0, limit=10) == 1
    assert await store.purge(1e9, limit=10) == 0
    assert (await store.get("live")).id == "live"


async def test_the_oldest_results_are_forgotten_for_room_in_slices() -> None:
    picture = Result(images=(Image(b"x" * 10_000, "image/png", 1, 1),))
    async with opened(keep_bytes=35_000) as store:
        await store.add(job("live"))
        for number in range(6):
            done = job(f"job-{number}").started("b", 11.0).completed(picture, 20.0 + number)
            await store.add(job(f"job-{number}"))
            await store.save(job(f"job-{number}").started("b", 11.0))
            await store.save(done)
        await store.flushed()

        assert await store.purge(30.0, limit=2) == 2
        assert await store.purge(30.0, limit=2) == 1
        assert await store.purge(30.0, limit=2) == 0
        left = (await store.list(JobQuery())).jobs

    assert [job.id for job in left] == ["job-5", "job-4", "job-3", "live"]


async def test_room_is_counted_from_what_an_earlier_process_left(tmp_path: Path) -> None:
    path, picture = tmp_path / "jobs.db", Result(images=(Image(b"x" * 9000, "image/png", 1, 1),))
    async with opened(path) as store:
        await run(store, job("a"), picture)
        await run(store, promised("b"), picture)
    async with opened(path, keep_bytes=15_000) as store:
        assert await store.purge(30.0, limit=9) == 1
        assert await store.purge(30.0, limit=9) == 0


async def test_a_line_of_a_batch_stays_until_it_was_written_out() -> None:
    async with opened(keep_bytes=0) as store:
        await run(store, job(promise=Promise(batch="b", line=3)))
        await _leave_open(store.database, "b", 3)
        assert await store.purge(1e9, limit=9) == 0

        await store.database.write(Statement("DELETE FROM open_lines"))

        assert await store.purge(1e9, limit=9) == 1


async def _leave_open(database: Database, batch: str, line: int) -> None:
    """Let a line of a batch not be written out yet."""
    columns = await database.read(
        "SELECT name FROM pragma_table_info('batches') WHERE name <> 'id'"
    )
    names = ", ".join(name for (name,) in columns)
    zeros = ", ".join("0" for _ in columns)
    await database.write(
        Statement(f"INSERT INTO batches(id, {names}) VALUES($1, {zeros})", batch),
        Statement("INSERT INTO open_lines VALUES($1, $2, 0, 0, 'a')", batch, line),
    )


# Another process


async def test_promised_jobs_wait_in_the_next_process_where_they_waited(place: Place) -> None:
    store = await place.open()
    await store.add(one := promised("one", sequence=5, level=Level.HIGH, model=None))
    await store.add(promised("two", sequence=6, caller="ann", request=DRAW))
    await store.add(job("plain", sequence=7))
    await store.add(running := promised("running", sequence=8))
    await store.save(running.started("b", 11.0))
    retried = promised("two", sequence=6, caller="ann", request=DRAW).started("b", 11.0)
    await store.save(retried)
    await store.save(retried.retrying(BackendBusy("later"), 20.0))

    waiting = {waits.entry.id: waits for waits in await store.waiting()}

    assert waiting.keys() == {"one", "two"}
    assert waiting["one"].entry == Entry(
        id="one",
        modality=Modality.TXT2TXT,
        level=Level.HIGH,
        model=None,
        sequence=5,
        submitted_at=10.0,
        deadline=100.0,
        size_bytes=one.request.size_bytes,
    )
    assert (waiting["one"].not_before, waiting["two"].not_before) == (None, 20.0)
    assert (waiting["two"].entry.caller, waiting["two"].entry.modality) == ("ann", "txt2img")
    assert await store.last_sequence() == 8


async def test_what_waits_tells_how_much_it_holds_in_memory_and_on_the_disk(
    store: JobStore, blobs: DictBlobs
) -> None:
    await store.add(await brought_along(blobs, promised))

    ((entry, _),) = await store.waiting()

    assert (entry.size_bytes, entry.disk_bytes) == (1, 1000)


async def test_what_a_process_left_unfinished_is_told_by_whether_it_was_promised(
    place: Place,
) -> None:
    store = await place.open()
    for number, make in enumerate((job, promised, job, promised)):
        new = make(f"job-{number}", sequence=number)
        await store.add(new)
        if number < 2:
            await store.save(new.started("b", 11.0))
    await run(store, job("done", sequence=9))
    await store.flushed()

    kept = await store.unfinished(promised=True, until=99, limit=9)
    plain = await store.unfinished(promised=False, until=99, limit=9)

    assert [job.id for job in kept] == ["job-1"]
    assert [job.id for job in plain] == ["job-0", "job-2"]
    assert await store.unfinished(promised=True, until=0, limit=9) == []
    assert len(await store.unfinished(promised=False, until=1, limit=9)) == 1
    assert len(await store.unfinished(promised=False, until=99, limit=1)) == 1


async def test_an_empty_store_knows_nothing(store: JobStore) -> None:
    assert await store.last_sequence() == 0
    assert await store.waiting() == []
    assert (await store.list(JobQuery())).jobs == []


async def test_everything_is_there_again_after_a_clean_end(
    tmp_path: Path, make: Callable[..., Job]
) -> None:
    path = tmp_path / "data" / "jobs.db"
    async with opened(path) as store:
        done = await run(store, make("done"))
        await store.add(make("new"))

    async with opened(path) as store:
        assert await store.get("done") == done
        assert await store.get("new") == make("new")
        assert [one.id for one in (await store.list(JobQuery())).jobs] == ["new", "done"]


async def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    async with opened(tmp_path / "jobs.db") as store:
        await run(store, job("a"))
        (first,) = (await store.list(JobQuery())).jobs
        await store.delete("a")
    async with opened(tmp_path / "jobs.db") as store:
        await store.add(job("b"))
        (second,) = (await store.list(JobQuery())).jobs

    assert second.number > first.number


async def test_files_that_no_job_names_are_dropped_at_the_next_start(
    tmp_path: Path, blobs: DictBlobs
) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path, blobs=blobs) as store:
        await store.add(await brought_along(blobs, promised))
        named = set(blobs.kept)
        await kept(blobs)

    async with opened(path, blobs=blobs):
        young = await kept(blobs)

    assert blobs.kept.keys() == named | {young.key}
