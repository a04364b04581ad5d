"""Requests that are answered by jobs that exist already, in front of the simulator."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from src.models.blobs import Blob
from src.models.catalog import ModelDefinition
from src.models.errors import (
    BackendFailed,
    IdempotencyConflict,
    InvalidInput,
    JobCancelled,
    QueueFull,
    UnknownModel,
)
from src.models.events import Ended, Event, Submitted
from src.models.jobs import Job, JobState, Level
from src.models.requests import Img2TxtRequest, InferenceRequest
from src.models.scheduler import Bounds
from src.processor import Processor
from src.sharing import Sharing, Taken
from src.simulator.serve import Simulator
from src.utils.stores.database import Database
from src.utils.stores.sqlite import SQLiteStore

from .kept import DictBlobs, in_memory
from .managing import FAST, Control, Offset, Recorder, chat, draw, managed

MIB = 2**20
ALIKE: dict[str, Any] = {"temperature": 0}
BROKEN: dict[str, Any] = {
    "match": {"path": "/v1/chat/completions"},
    "when": {"times": 2},
    "status": 500,
    "message": "boom",
}
"""Both attempts on a job fail."""


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(FAST) as simulator:
        yield simulator


@pytest.fixture
def control(sim: Simulator) -> Control:
    return Control(sim)


@pytest.fixture(autouse=True)
async def in_time() -> AsyncGenerator[None]:
    async with asyncio.timeout(30):
        yield


class Counted(DictBlobs):
    """Counts what is hashed, and can be made to fail or to hang when it drops."""

    def __init__(self) -> None:
        super().__init__()
        self.digests = 0
        self.hang = False
        self.dropping = asyncio.Event()

    async def digest(self, content: bytes | Blob) -> str:
        self.digests += 1
        return await super().digest(content)

    async def drop(self, blobs: Any) -> None:
        self.dropping.set()
        if self.hang:
            await asyncio.Event().wait()
        await super().drop(blobs)


@dataclass
class House:
    sharing: Sharing
    processor: Processor
    blobs: Counted
    events: Recorder
    clock: Offset

    async def ask(self, request: InferenceRequest, **how: Any) -> Taken:
        return await self.sharing.submit(request, **how)

    async def answered(self, request: InferenceRequest, **how: Any) -> Taken:
        taken = await self.ask(request, **how)
        await taken.handle.result()
        return taken

    @property
    def jobs(self) -> int:
        return sum(isinstance(event, Submitted) for event in self.events.events)


@asynccontextmanager
async def house(
    sim: Simulator,
    *,
    merge: bool = False,
    cache_bytes: int = 0,
    known: bool = True,
    store: SQLiteStore | None = None,
    **options: Any,
) -> AsyncGenerator[House]:
    """Put a processor up with what shares before it; by default when the models are known."""
    events, clock, blobs, listening = Recorder(), Offset(), Counted(), list[Sharing]()

    def hear(event: Event) -> None:
        for sharing in listening:
            sharing(event)

    async with managed(
        sim.url,
        listeners=[events, hear],
        clock=clock,
        blobs=blobs,
        store=in_memory(blobs) if store is None else store,
        **options,
    ) as processor:
        sharing = Sharing(processor, blobs, merge=merge, cache_bytes=cache_bytes)
        listening.append(sharing)
        if known:
            await (await processor.submit(chat("repeat: the first look"))).result()
            events.events.clear()
        yield House(sharing, processor, blobs, events, clock)


def looked_at(*blobs: Blob, **fields: Any) -> Img2TxtRequest:
    images = [blob.reference for blob in blobs]
    return Img2TxtRequest.model_validate({"images": images, "model": "sim-vision", **fields})


async def kept(blobs: DictBlobs, data: bytes = b"a picture") -> Blob:
    content = await blobs.keep(data)
    assert isinstance(content, Blob)
    return content


# Switched off


async def test_without_a_key_and_with_everything_off_each_request_is_a_job_and_nothing_is_hashed(
    sim: Simulator, control: Control
) -> None:
    await control("hold")
    async with house(sim, known=False) as here:
        blob = await kept(here.blobs)
        first = await here.ask(looked_at(blob, **ALIKE))
        second = await here.ask(looked_at(blob, **ALIKE))

        assert (first.how, second.how) == ("new", "new")
        assert first.handle is not second.handle
        assert here.blobs.digests == 0
        assert repr(here.sharing) == "<Sharing [0 under way]>"


async def test_a_caller_who_leaves_its_own_job_cancels_it(sim: Simulator, control: Control) -> None:
    await control("hold")
    async with house(sim, known=False) as here:
        taken = await here.ask(chat())
        await here.sharing.leave(taken.handle)

        assert taken.handle.job.state is JobState.CANCELLED
        await here.sharing.leave(taken.handle)  # harmless


# Keys


async def test_a_request_that_is_sent_again_with_its_key_is_answered_by_its_job(
    sim: Simulator,
) -> None:
    async with house(sim) as here:
        first = await here.answered(chat("repeat: once"), key="k", caller="ann")
        again = await here.answered(chat("repeat: once"), key="k", caller="ann")
        bobs = await here.answered(chat("repeat: once"), key="k", caller="bob")

    assert [taken.how for taken in (first, again, bobs)] == ["new", "repeated", "new"]
    assert first.handle.id == again.handle.id != bobs.handle.id


class Leisurely(SQLiteStore):
    """Lets others go first whenever a job is added."""

    async def add(self, *jobs: Job) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        await super().add(*jobs)


async def test_a_hundred_that_come_at_once_with_one_key_are_one_job(
    sim: Simulator, control: Control
) -> None:
    await control("hold")
    async with house(sim, known=False, store=Leisurely(Database(":memory:"))) as here:
        asking = [here.ask(chat("repeat: once"), key="k") for _ in range(100)]
        taken = await asyncio.gather(*asking)
        await control("release")
        results = await asyncio.gather(*(one.handle.result() for one in taken))

    assert sorted(one.how for one in taken) == ["new", *["repeated"] * 99]
    assert {one.handle.id for one in taken} == {taken[0].handle.id}
    assert {result.text for result in results} == {"once"}
    assert here.jobs == 1


async def test_a_key_that_comes_with_another_request_is_refused(sim: Simulator) -> None:
    async with house(sim) as here:
        await here.answered(chat("repeat: once"), key="k")

        with pytest.raises(IdempotencyConflict):
            await here.ask(chat("repeat: something else"), key="k")
        with pytest.raises(IdempotencyConflict):
            await here.ask(chat("repeat: once", model="sim-vision"), key="k")
        with pytest.raises(InvalidInput, match="Idempotency-Key"):
            await here.ask(chat(), key="")
        assert here.jobs == 1


async def test_if_the_first_is_refused_the_next_with_its_key_is_tried(
    sim: Simulator, control: Control
) -> None:
    await control("hold")
    async with house(sim, known=False, bounds=Bounds(waiting=1)) as here:
        await here.ask(draw())
        await control("wait", model="sim-image", state="started")
        waiting = await here.ask(chat("repeat: in the way"))
        refused = await asyncio.gather(
            *(here.ask(chat("repeat: once"), key="k") for _ in range(3)), return_exceptions=True
        )
        await here.sharing.leave(waiting.handle)
        taken = await here.ask(chat("repeat: once"), key="k")

        assert [type(error) for error in refused] == [QueueFull] * 3
        assert taken.how == "new"


@pytest.mark.parametrize("gone", ["failed", "forgotten"])
async def test_a_key_whose_job_has_no_result_any_more_is_as_good_as_new(
    sim: Simulator, control: Control, gone: str
) -> None:
    store = in_memory()
    async with house(sim, store=store) as here:
        if gone == "failed":
            await control("add_fault", "status", **BROKEN)
        first = await here.ask(chat("repeat: once"), key="k")
        if gone == "failed":
            with pytest.raises(BackendFailed):
                await first.handle.result()
        else:
            await first.handle.result()
            assert await store.delete(first.handle.id) == 1
        again = await here.answered(chat("repeat: once"), key="k")

        assert again.how == "new"
        assert again.handle.id != first.handle.id


async def test_what_was_cancelled_is_not_done_after_all_because_its_request_comes_again(
    sim: Simulator, control: Control
) -> None:
    async with house(sim) as here:
        await control("hold")
        first = await here.ask(chat("repeat: once"), key="k")
        await here.processor.cancel(first.handle.id)
        again = await here.ask(chat("repeat: once"), key="k")

        assert (again.how, again.handle.id) == ("repeated", first.handle.id)
        with pytest.raises(JobCancelled):
            await again.handle.result()


async def test_a_key_stands_for_the_request_as_it_was_sent_although_the_default_model_was_unknown(
    sim: Simulator, control: Control
) -> None:
    await control("hold")
    async with house(sim, known=False) as here:
        asked = chat("repeat: once", model=None)
        first = await here.ask(asked, key="k")
        await control("release")
        await first.handle.result()
        again = await here.ask(asked, key="k")

        assert again.how == "repeated"


async def test_with_a_key_the_same_picture_is_the_same_wherever_it_is_kept_and_is_kept_once(
    sim: Simulator, control: Control
) -> None:
    await control("hold")
    async with house(sim, known=False) as here:
        first, copy = await kept(here.blobs), await kept(here.blobs)
        another = await kept(here.blobs, b"another picture")
        await here.ask(looked_at(first), key="k")
        again = await here.ask(looked_at(copy), key="k")
        small = "data:image/png;base64,YSBwaWN0dXJl"
        once_more = await here.ask(
            looked_at(first).model_copy(update={"images": (small,)}), key="k"
        )
        with pytest.raises(IdempotencyConflict):
            await here.ask(looked_at(another), key="k")

        assert (again.how, once_more.how) == ("repeated", "repeated")
        assert first.key in here.blobs.kept
        assert copy.key not in here.blobs.kept
        assert another.key in here.blobs.kept  # whoever submitted it drops what was refused


async def test_texts_of_a_megabyte_are_told_apart(sim: Simulator) -> None:
    long = "repeat: " + 900_000 * "x"
    async with house(sim) as here:
        first = await here.ask(chat(long), key="k")
        again = await here.ask(chat(long), key="k")

        assert first.handle is again.handle
        with pytest.raises(IdempotencyConflict):
            await here.ask(chat(long + "y"), key="k")
        await here.sharing.leave(again.handle)


# Merging


async def test_the_same_request_joins_the_one_under_way_and_both_read_all_of_it(
    sim: Simulator, control: Control
) -> None:
    async with house(sim, merge=True) as here:
        await control("hold")
        first, second = [await here.ask(chat("repeat: once", **ALIKE)) for _ in range(2)]
        await control("release")
        results = [await one.handle.result() for one in (first, second)]
        later = await here.answered(chat("repeat: once", **ALIKE))

    assert [one.how for one in (first, second, later)] == ["new", "merged", "new"]
    assert [result.text for result in results] == ["once", "once"]
    assert here.jobs == 2


async def test_a_hundred_that_come_at_once_are_merged_into_one(
    sim: Simulator, control: Control
) -> None:
    async with house(sim, merge=True, store=Leisurely(Database(":memory:"))) as here:
        await control("hold")
        taken = await asyncio.gather(*(here.ask(draw(seed=7)) for _ in range(100)))

        assert sorted(one.how for one in taken) == [*["merged"] * 99, "new"]
        assert here.jobs == 1


DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "left to chance": ({"temperature": 1}, {}),
    "another text": ({"text": "repeat: another"}, {}),
    "another seed": ({"seed": 8}, {}),
    "another caller": ({}, {"caller": "bob"}),
    "another level": ({}, {"level": Level.LOW}),
    "a deadline": ({}, {"deadline_s": 60.0}),
}


@pytest.mark.parametrize("what", DIFFERENT)
async def test_what_is_not_the_same_is_not_merged(
    sim: Simulator, control: Control, what: str
) -> None:
    fields, how = DIFFERENT[what]
    async with house(sim, merge=True) as here:
        await control("hold")
        await here.ask(chat(**ALIKE))
        if what == "left to chance":
            await here.ask(chat(**fields))

        assert (await here.ask(chat(**{**ALIKE, **fields}), **how)).how == "new"


async def test_nothing_joins_a_job_with_a_deadline_of_its_own(
    sim: Simulator, control: Control
) -> None:
    async with house(sim, merge=True) as here:
        await control("hold")
        await here.ask(chat(**ALIKE), deadline_s=60.0)

        assert (await here.ask(chat(**ALIKE))).how == "new"


async def test_the_defaults_of_a_model_say_whether_its_answers_can_be_shared(
    sim: Simulator, control: Control
) -> None:
    definition = ModelDefinition(name="sim-chat", defaults={"seed": 7})
    async with house(sim, merge=True, definitions=[definition]) as here:
        await control("hold")
        await here.ask(chat())

        assert (await here.ask(chat(seed=7))).how == "merged"


async def test_what_the_processor_refuses_is_refused_in_its_words(sim: Simulator) -> None:
    async with house(sim, merge=True) as here:
        with pytest.raises(UnknownModel):
            await here.ask(chat(model="nobody", **ALIKE))


async def test_while_the_models_are_not_known_nothing_is_merged(
    sim: Simulator, control: Control
) -> None:
    await control("add_fault", "status", match={"path": "/v1/models"}, status=500)
    async with house(sim, merge=True, known=False) as here:
        taken = [await here.ask(chat(**ALIKE)) for _ in range(2)]

        assert [one.how for one in taken] == ["new", "new"]


async def test_different_keys_may_lead_to_one_job(sim: Simulator, control: Control) -> None:
    async with house(sim, merge=True) as here:
        await control("hold")
        first = await here.ask(chat(**ALIKE), key="k")
        merged = await here.ask(chat(**ALIKE), key="l")
        again = await here.ask(chat(**ALIKE), key="l")

        assert [one.how for one in (first, merged, again)] == ["new", "merged", "repeated"]
        assert first.handle is merged.handle is again.handle


# Those who share a job


async def test_a_job_goes_on_until_the_last_of_its_callers_has_left(
    sim: Simulator, control: Control
) -> None:
    async with house(sim, merge=True) as here:
        await control("hold")
        taken = [await here.ask(chat(**ALIKE)) for _ in range(3)]
        handle = taken[0].handle

        await here.sharing.leave(handle)
        await here.sharing.leave(handle)
        assert not handle.job.state.terminal
        await here.sharing.leave(handle)
        assert handle.job.state is JobState.CANCELLED


class SlowStore(SQLiteStore):
    """Takes its time to keep the end of a job."""

    def __init__(self) -> None:
        super().__init__(Database(":memory:"))
        self.ending = asyncio.Event()
        self.go_on = asyncio.Event()

    async def save(self, *jobs: Job) -> None:
        if any(job.state is JobState.CANCELLED for job in jobs):
            self.ending.set()
            await self.go_on.wait()
        await super().save(*jobs)


async def test_nobody_joins_a_job_that_its_last_caller_is_leaving(
    sim: Simulator, control: Control
) -> None:
    store = SlowStore()
    async with house(sim, merge=True, store=store) as here:
        await control("hold")
        first = await here.ask(chat("repeat: once", **ALIKE))
        leaving = asyncio.create_task(here.sharing.leave(first.handle))
        await store.ending.wait()
        second = await here.ask(chat("repeat: once", **ALIKE))
        store.go_on.set()
        await leaving
        third = await here.ask(chat("repeat: once", **ALIKE))
        await control("release")

        assert second.handle.id != first.handle.id
        assert third.handle is second.handle
        assert (await third.handle.result()).text == "once"
        with pytest.raises(JobCancelled):
            await first.handle.result()


async def test_a_job_with_a_key_goes_on_when_its_caller_leaves_for_it_may_come_again(
    sim: Simulator, control: Control
) -> None:
    async with house(sim) as here:
        await control("hold")
        first = await here.ask(chat("repeat: once"), key="k")
        await here.sharing.leave(first.handle)
        again = await here.ask(chat("repeat: once"), key="k")
        await control("release")

        assert again.how == "repeated"
        assert (await again.handle.result()).text == "once"


async def test_a_caller_that_is_cut_off_while_it_joins_has_no_interest_in_the_job(
    sim: Simulator, control: Control
) -> None:
    async with house(sim, merge=True) as here:
        await control("hold")
        first, copy = await kept(here.blobs), await kept(here.blobs)
        taken = await here.ask(looked_at(first, **ALIKE))
        here.blobs.hang = True
        here.blobs.dropping.clear()
        joining = asyncio.create_task(here.ask(looked_at(copy, **ALIKE)))
        await here.blobs.dropping.wait()
        joining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await joining
        here.blobs.hang = False

        assert not taken.handle.job.state.terminal
        await here.sharing.leave(taken.handle)
        assert taken.handle.job.state is JobState.CANCELLED


# Answers


async def test_the_same_request_is_answered_at_once_by_the_job_that_answered_it(
    sim: Simulator,
) -> None:
    async with house(sim, cache_bytes=MIB) as here:
        first = await here.answered(chat("repeat: once", **ALIKE), deadline_s=60.0)
        again = await here.ask(chat("repeat: once", **ALIKE), level=Level.LOW, deadline_s=1.0)
        other = await here.ask(chat("repeat: twice", **ALIKE))

        assert [one.how for one in (first, again, other)] == ["new", "cached", "new"]
        assert again.handle.id == first.handle.id
        assert again.handle.job.result is not None
        assert again.handle.job.result.text == "once"


async def test_a_picture_with_a_seed_is_drawn_once(sim: Simulator) -> None:
    async with house(sim, cache_bytes=MIB) as here:
        first = await here.answered(draw(seed=7))
        again = await here.answered(draw(seed=7))
        bobs = await here.ask(draw(seed=7), caller="bob")
        chance = [await here.ask(draw()) for _ in range(2)]

        assert (first.how, again.how, bobs.how) == ("new", "cached", "new")
        assert [one.how for one in chance] == ["new", "new"]


async def test_an_answer_that_the_store_has_forgotten_is_made_anew(sim: Simulator) -> None:
    store = in_memory()
    async with house(sim, cache_bytes=MIB, store=store) as here:
        forgotten = await here.answered(chat("repeat: once", **ALIKE))
        assert await store.delete(forgotten.handle.id) == 1
        made_anew = await here.answered(chat("repeat: once", **ALIKE))
        again = await here.answered(chat("repeat: once", **ALIKE))

        assert (made_anew.how, again.how) == ("new", "cached")


async def test_answers_take_no_more_room_than_there_is(sim: Simulator) -> None:
    async with house(sim, cache_bytes=1500) as here:
        how = [
            (await here.answered(chat(f"repeat: {text}", **ALIKE))).how
            for text in ("one", "two", "three", "three", "one")
        ]

    assert how == ["new", "new", "new", "cached", "new"]


async def test_a_failure_is_no_answer(sim: Simulator, control: Control) -> None:
    async with house(sim, cache_bytes=MIB) as here:
        await control("add_fault", "status", **BROKEN)
        failed = await here.ask(chat("repeat: once", **ALIKE))
        with pytest.raises(BackendFailed):
            await failed.handle.result()

        assert (await here.answered(chat("repeat: once", **ALIKE))).how == "new"


async def test_with_the_cache_alone_nothing_joins_what_is_under_way(
    sim: Simulator, control: Control
) -> None:
    async with house(sim, cache_bytes=MIB) as here:
        await control("hold")
        taken = [await here.ask(chat("repeat: once", **ALIKE)) for _ in range(2)]
        await control("release")
        await asyncio.gather(*(one.handle.result() for one in taken))

        assert [one.how for one in taken] == ["new", "new"]
        assert (await here.ask(chat("repeat: once", **ALIKE))).how == "cached"


async def test_nothing_is_remembered_of_jobs_that_have_ended(
    sim: Simulator, control: Control
) -> None:
    async with house(sim, merge=True, cache_bytes=MIB) as here:
        await control("hold")
        taken = [await here.ask(chat(f"repeat: {n % 5}", **ALIKE), key=f"{n}") for n in range(20)]
        for one in taken[::5]:
            await here.sharing.leave(one.handle)
        await control("release")
        await asyncio.gather(*(one.handle.settled() for one in taken))
        await here.events.until_count(lambda event: isinstance(event, Ended), here.jobs)

        inside: dict[str, Any] = vars(here.sharing)
        for name in ("_fingerprints", "_others", "_left", "_turns"):
            assert len(inside[name]) == 0
        assert repr(here.sharing) == "<Sharing [0 under way]>"
