"""Batches are carried out: every line is answered, once, whatever happens on the way."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from src.models.batches import Batch, BatchState
from src.models.errors import (
    Draining,
    InvalidInput,
    InvalidTransition,
    QueueFull,
    StorageFailed,
    UnknownBatch,
    UnknownFile,
)
from tests import virtual_time
from tests.office import EPOCH, Office

LINES: list[Any] = [{"n": 0}, {"n": 1}, b"  ", {"refused": 1}, {"failed": 1}, {"n": 5}, {"n": 6}]
FEW: list[Any] = [{"n": 0}, {"refused": 1}, {"failed": 1}, {"n": 3}]


async def answers(office: Office, batch: Batch) -> dict[str, Any]:
    """Return what each line was answered, and see that no line was answered twice."""
    output = await office.lines_of(batch.output_file)
    errors = await office.lines_of(batch.error_file)
    told = {
        each["custom_id"]: each["response"]["body"] if each["response"] else each["error"]["code"]
        for each in [*output, *errors]
    }
    assert len(told) == len(output) + len(errors)
    assert len({each["id"] for each in [*output, *errors]}) == len(told)
    assert all(each["response"]["status_code"] == 200 for each in output)
    return told


ALL_ANSWERED = {
    "line-0": {"said": "0"},
    "line-1": {"said": "1"},
    "line-3": {"error": "invalid_request"},
    "line-4": {"error": "invalid_request"},
    "line-5": {"said": "5"},
    "line-6": {"said": "6"},
}


async def test_every_line_is_answered(tmp_path: Path) -> None:
    async with Office(tmp_path).open() as office, office.runner():
        batch = await office.until_ended(await office.submit(*LINES))

        assert batch.state is BatchState.COMPLETED
        assert (batch.total, batch.completed, batch.failed) == (6, 4, 2)
        assert await answers(office, batch) == ALL_ANSWERED


async def test_a_process_may_die_at_any_moment(tmp_path: Path) -> None:
    """Die at the first moment, at the second, and so on, until a process lives to the end."""
    at, lived = 0, False
    while not lived:
        at += 1
        async with Office(tmp_path / str(at), window=2).open() as office:
            async with office.runner():
                batch = await office.submit(*FEW)
                office.death.at, office.death.moments = at, 0
                lived = await dies_or_ends(office, batch)
            office.death.at = 0
            async with office.runner():
                batch = await office.until_ended(batch)

                assert batch.state is BatchState.COMPLETED, at
                assert (batch.total, batch.completed, batch.failed) == (4, 2, 2), at
                assert (await answers(office, batch)).keys() == {f"line-{n}" for n in range(4)}, at
                assert not office.waiting, at
                assert office.begun[0] == office.begun[3] == 1, at
    assert at > 20


async def test_a_process_may_die_at_any_moment_of_a_cancellation(tmp_path: Path) -> None:
    at, lived = 0, False
    while not lived:
        at += 1
        async with Office(tmp_path / str(at), window=2, at_once=False).open() as office:
            async with office.runner():
                batch = await office.submit(*LINES)
                await office.until(lambda: len(office.waiting) == 2)
                office.end(office.waiting[0])
                await office.living.cancel("ann", batch.id)
                office.death.at, office.death.moments = at, 0
                lived = await dies_or_ends(office, batch)
            office.death.at = 0
            async with office.runner():
                batch = await office.until_ended(batch)

                told = await answers(office, batch)
                assert batch.state is BatchState.CANCELLED, at
                assert told.keys() == ALL_ANSWERED.keys(), at
                assert told.pop("line-0") == {"said": "0"}, at
                assert set(told.values()) == {"batch_cancelled"}, at
                assert not office.waiting, at
    assert at > 5


async def dies_or_ends(office: Office, batch: Batch) -> bool:
    """Say whether a process has lived until the end of a batch."""
    living = asyncio.create_task(office.until_ended(batch))
    dying = asyncio.create_task(office.death.came.wait())
    done, left = await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
        await asyncio.wait([task])
    return living in done


# The window


async def test_only_a_few_lines_wait_at_once(tmp_path: Path) -> None:
    async with Office(tmp_path, at_once=False, window=4).open() as office, office.runner():
        batch = await office.submit(*({"n": n} for n in range(30)))
        while not (await office.living.get("ann", batch.id)).state.terminal:
            for job in office.waiting[:1]:
                office.end(job)
            await asyncio.sleep(0)

        assert office.most_waiting == 4
        assert len(await answers(office, await office.living.get("ann", batch.id))) == 30


async def test_batches_share_the_window(tmp_path: Path) -> None:
    async with Office(tmp_path, at_once=False, window=4).open() as office, office.runner():
        first = await office.submit(*({"n": n} for n in range(9)))
        await office.until(lambda: len(office.waiting) == 4)
        second = await office.submit(*({"n": n} for n in range(9)))
        for _ in range(3):
            office.end(office.waiting[0])
        await office.until(lambda: len(batches_waiting(office)) == 2)
        await office.living.get("ann", second.id)

        assert batches_waiting(office) == {first.id, second.id}


def batches_waiting(office: Office) -> set[str]:
    return {job.promise.batch for job in office.waiting if job.promise is not None}


@pytest.mark.parametrize(
    "trouble",
    [QueueFull("full", retry_after=7.0), Draining("closing"), StorageFailed("the disk is full")],
)
async def test_a_queue_that_refuses_is_asked_again_later(tmp_path: Path, trouble: Any) -> None:
    async with Office(tmp_path).open() as office, office.runner():
        office.trouble = trouble
        batch = await office.submit({"n": 0}, {"n": 1})
        await office.until(lambda: office.asked == 2)
        for _ in range(50):
            await office.living.get("ann", batch.id)
        office.trouble = None
        office.living.wake()
        for _ in range(50):
            await office.living.get("ann", batch.id)
        assert not office.begun, "it was not left alone"
        office.now += 8.0
        office.living.wake()

        batch = await office.until_ended(batch)
        assert await answers(office, batch) == {"line-0": {"said": "0"}, "line-1": {"said": "1"}}


# The end of a window


async def test_when_the_window_is_over_the_rest_is_not_carried_out(tmp_path: Path) -> None:
    async with Office(tmp_path, at_once=False, window=2).open() as office, office.runner():
        batch = await office.submit(*LINES, window="1h")
        await office.until(lambda: len(office.waiting) == 2)
        assert all(EPOCH + 3600 < job.deadline < EPOCH + 3610 for job in office.waiting)
        office.end(office.waiting[0])
        office.now += 3600
        office.living.wake()

        batch = await office.until_ended(batch)
        told = await answers(office, batch)
        assert batch.state is BatchState.EXPIRED
        assert (batch.total, batch.completed, batch.failed) == (6, 1, 0)
        assert told.keys() == ALL_ANSWERED.keys()
        assert told.pop("line-0") == {"said": "0"}
        assert set(told.values()) == {"batch_expired"}
        assert not office.waiting


async def test_a_batch_whose_last_line_ends_with_the_window_is_completed(tmp_path: Path) -> None:
    async with Office(tmp_path, at_once=False, window=1).open() as office, office.runner():
        batch = await office.submit({"n": 0}, window="1h")
        await office.until(lambda: len(office.waiting) == 1)
        office.end(office.waiting[0])
        while not (await office.living.get("ann", batch.id)).completed:
            pass
        office.now += 3600

        assert (await office.until_ended(batch)).state is BatchState.COMPLETED


# Cancelling


async def test_what_was_answered_before_a_batch_was_cancelled_is_kept(tmp_path: Path) -> None:
    async with Office(tmp_path, at_once=False, window=2).open() as office, office.runner():
        batch = await office.submit(*LINES)
        await office.until(lambda: len(office.waiting) == 2)
        office.end(office.waiting[0])

        cancelling = await office.living.cancel("ann", batch.id)
        assert cancelling.state is BatchState.CANCELLING
        assert (await office.living.cancel("ann", batch.id)).cancelling_at is not None

        batch = await office.until_ended(batch)
        assert batch.state is BatchState.CANCELLED
        assert (await answers(office, batch))["line-0"] == {"said": "0"}
        assert (await office.living.cancel("ann", batch.id)).state is BatchState.CANCELLED


async def test_a_batch_that_has_ended_cannot_be_cancelled(tmp_path: Path) -> None:
    async with Office(tmp_path).open() as office, office.runner():
        batch = await office.until_ended(await office.submit(*LINES))

        with pytest.raises(InvalidTransition, match="completed"):
            await office.living.cancel("ann", batch.id)


async def test_a_batch_may_be_cancelled_before_it_has_begun(tmp_path: Path) -> None:
    async with Office(tmp_path).open() as office, office.runner():
        batch = await office.submit(*LINES)
        await office.living.cancel("ann", batch.id)

        batch = await office.until_ended(batch)
        assert batch.state is BatchState.CANCELLED
        assert set((await answers(office, batch)).values()) == {"batch_cancelled"}
        assert not office.begun


async def test_a_line_whose_job_a_person_cancelled_is_answered_as_the_door_would(
    tmp_path: Path,
) -> None:
    async with Office(tmp_path, at_once=False).open() as office, office.runner():
        batch = await office.submit({"n": 0})
        await office.until(lambda: len(office.waiting) == 1)
        await office.cancel(office.waiting[0].id)

        batch = await office.until_ended(batch)
        assert batch.state is BatchState.COMPLETED
        assert await answers(office, batch) == {"line-0": {"error": "none"}}


async def test_a_line_whose_job_was_forgotten_is_answered_too(tmp_path: Path) -> None:
    async with Office(tmp_path, at_once=False).open() as office:
        async with office.runner():
            batch = await office.submit({"n": 0})
            await office.until(lambda: len(office.waiting) == 1)
            for _ in range(50):
                await office.living.get("ann", batch.id)
        office.store.kept.clear()

        async with office.runner():
            batch = await office.until_ended(batch)
            assert await answers(office, batch) == {"line-0": {"error": "job_not_found"}}


# What is wrong


async def test_a_file_with_problems_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    async with Office(tmp_path).open() as office, office.runner():
        batch = await office.submit({"n": 0}, b"{", b"x" * 20_000, b"{")

        batch = await office.until_ended(batch)
        assert batch.state is BatchState.FAILED
        assert [(p.code, p.line) for p in batch.problems] == [
            ("invalid_json_line", 2),
            ("line_too_long", 3),
        ]
        assert not office.begun


async def test_a_batch_whose_file_is_lost_fails(tmp_path: Path) -> None:
    async with Office(tmp_path, at_once=False, window=1).open() as office, office.runner():
        batch = await office.submit({"n": 0}, {"n": 1})
        await office.until(lambda: len(office.waiting) == 1)
        await office.shelf.remove([batch.input_file])
        office.end(office.waiting[0])

        batch = await office.until_ended(batch)
        assert batch.state is BatchState.FAILED
        assert [problem.code for problem in batch.problems] == ["file_lost"]


def test_what_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with Office(tmp_path).open() as office, office.runner():
            office.shelf.trouble = StorageFailed("the disk is full")
            batch = await office.submit(*LINES)
            await asyncio.sleep(60)
            assert not (await office.living.get("ann", batch.id)).state.terminal
            office.shelf.trouble = None
            await asyncio.sleep(60)

            batch = await office.living.get("ann", batch.id)
            assert batch.state is BatchState.COMPLETED
            assert await answers(office, batch) == ALL_ANSWERED

    virtual_time.run(main())


async def test_there_is_no_batch_of_somebody_else(tmp_path: Path) -> None:
    async with Office(tmp_path).open() as office, office.runner() as runner:
        batch = await office.submit(*LINES)

        with pytest.raises(UnknownBatch):
            await runner.get("bob", batch.id)
        with pytest.raises(UnknownBatch):
            await runner.cancel("bob", batch.id)
        assert not await runner.list("bob", after=None, limit=10)
        with pytest.raises(UnknownFile):
            await runner.submit(
                caller="bob",
                endpoint=batch.endpoint,
                input_file=batch.input_file,
                window="24h",
                base_url="",
            )


# What is kept


async def test_the_jobs_of_written_answers_are_forgotten_and_failed_ones_kept(
    tmp_path: Path,
) -> None:
    async with Office(tmp_path).open() as office, office.runner():
        await office.until_ended(await office.submit(*LINES))
        [kept] = office.store.kept.values()
        assert kept.error is not None


async def test_a_file_that_a_batch_reads_cannot_be_deleted(tmp_path: Path) -> None:
    async with Office(tmp_path, at_once=False).open() as office, office.runner():
        batch = await office.submit({"n": 0})

        with pytest.raises(InvalidTransition):
            await office.files.delete("ann", batch.input_file)
        await office.living.cancel("ann", batch.id)
        await office.until_ended(batch)
        await office.files.delete("ann", batch.input_file)

        with pytest.raises(UnknownFile):
            await office.files.get("ann", batch.input_file)
        assert batch.input_file not in await office.shelf.names()


async def test_files_have_a_budget(tmp_path: Path) -> None:
    async with Office(tmp_path).open() as office, office.runner(budget_bytes=20_000):
        await office.upload(b"x" * 5000)
        async with office.files.room(5000):
            with pytest.raises(StorageFailed, match="files_mb"):
                async with office.files.room(1):
                    pass
        async with office.files.room(1):
            pass


def test_old_files_and_batches_are_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        async with Office(tmp_path).open() as office, office.runner():
            batch = await office.until_ended(await office.submit(*LINES))
            assert len(await office.shelf.names()) == 3
            office.now += 86_401
            await asyncio.sleep(61)

            assert not await office.shelf.names()
            assert not await office.all_files()
            with pytest.raises(UnknownBatch):
                await office.living.get("ann", batch.id)

    virtual_time.run(main())


async def test_what_a_process_left_unfinished_is_swept_away(tmp_path: Path) -> None:
    async with Office(tmp_path).open() as office:
        async with office.runner():
            kept = await office.upload({"n": 0})
            (tmp_path / "file-unknown").write_bytes(b"x")
            (tmp_path / "file-half.part").write_bytes(b"x")
        async with office.runner():
            assert await office.shelf.names() == {kept.id}


async def test_a_window_must_be_one(tmp_path: Path) -> None:
    async with Office(tmp_path).open() as office, office.runner():
        with pytest.raises(InvalidInput):
            await office.submit({"n": 0}, window="soon")
