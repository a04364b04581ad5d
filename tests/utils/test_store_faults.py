"""What a store does when the disk is full, slow, broken, taken away or has changed its mind."""

import asyncio
import errno
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from src.models.errors import InferenceManagerError, StorageFailed, StoreUnusable
from src.models.jobs import Job, JobQuery
from src.models.requests import Txt2TxtRequest
from src.models.results import Result
from src.utils.stores.sqlite import SQLiteStore

from .storing import facts, job, opened, promised

LONG = 100_000
SMALL_DISK = 6 * 2**20


def long(job_id: str, make: Callable[..., Job] = promised) -> Job:
    """Make a job that takes some room; no two are alike."""
    words = f"{job_id} " * (LONG // (len(job_id) + 1))
    return make(job_id, request=Txt2TxtRequest.model_validate({"prompt": words}))


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        _mount(place, f"size={SMALL_DISK}")
    except (OSError, subprocess.SubprocessError):
        pytest.skip("only root can make a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def _mount(place: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    subprocess.run(command, check=True, capture_output=True)


class Disk:
    """What the disk does at the next commits, in the writing thread."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.commits = 0

    def __call__(self) -> None:
        self.commits += 1
        assert self.go_on.wait(10)
        if self.error is not None:
            raise self.error

    def fails(self, code: int, name: str) -> None:
        self.error = sqlite3.OperationalError("disk I/O error")
        self.error.sqlite_errorcode, self.error.sqlite_errorname = code, name

    def has_no_room(self) -> None:
        self.fails(sqlite3.SQLITE_FULL, "SQLITE_FULL")

    def breaks(self) -> None:
        self.fails(sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC")


@pytest.fixture
def fickle() -> Disk:
    return Disk()


@pytest.fixture
async def store(tmp_path: Path, fickle: Disk) -> AsyncGenerator[SQLiteStore]:
    async with opened(tmp_path / "jobs.db", before_commit=fickle, room_bytes=1_000_000) as store:
        yield store
        fickle.error = None


async def until(when: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not when():  # noqa: ASYNC110 - a thread tells nobody
            await asyncio.sleep(0.005)


# A full disk


async def fill(store: SQLiteStore) -> list[Job]:
    """Promise jobs until there is no room."""
    taken: list[Job] = []
    while True:
        new = long(f"job-{len(taken)}")
        if store.trouble is not None:
            with pytest.raises(StorageFailed, match="disk is full") as refused:
                await store.add(new)
            assert refused.value.retry_after
            return taken
        with suppress(StorageFailed):
            await store.add(new)
            taken.append(new)


async def test_on_a_full_disk_jobs_are_refused_but_can_end_and_be_forgotten(disk: Path) -> None:
    async with opened(disk / "jobs.db") as store:
        taken = await fill(store)
        ends: list[Job] = []
        for new in taken:
            await store.save(started := new.started("b", 11.0))
            await store.save(done := started.completed(Result(text="done"), 12.0))
            ends.append(done)
        with pytest.raises(StorageFailed):
            await store.add(long("one more"))

        assert [await store.get(done.id) for done in ends] == ends
        assert len((await store.list(JobQuery(limit=99))).jobs) == len(ends)
        assert await store.delete(*(done.id for done in ends[:40])) == 40

    async with opened(disk / "jobs.db") as store:
        assert [await store.get(done.id) for done in ends[40:]] == ends[40:]


async def test_when_there_is_room_again_jobs_are_taken_in_and_room_is_reserved(disk: Path) -> None:
    ballast = disk / "of somebody else"
    ballast.write_bytes(bytes(SMALL_DISK // 2))
    async with opened(disk / "jobs.db") as store:
        taken = await fill(store)
        assert not (disk / "jobs.db.reserve").exists()
        assert store.trouble is not None

        ballast.unlink()
        await store.add(promised("one more"))

        assert store.trouble is None
        assert (disk / "jobs.db.reserve").stat().st_size > 0
        assert (await store.get("one more")).id == "one more"
        assert await store.get(taken[0].id) == taken[0]


async def test_room_is_gained_by_forgetting_and_tidying_up(disk: Path) -> None:
    async with opened(disk / "jobs.db") as store:
        for new in await fill(store):
            await store.save(new.cancelled(12.0))
        with pytest.raises(StorageFailed):
            await store.add(long("too early"))

        assert await store.purge(1e9, limit=100) > 20
        for _ in range(3):
            await store.database.tidy()
        await store.add(long("one more"))

        assert (await store.get("one more")).id == "one more"


async def test_a_disk_that_is_full_from_the_beginning_is_seen(disk: Path) -> None:
    async with opened(disk / "jobs.db") as store:
        await store.add(new := promised())
    (disk / "of somebody else").write_bytes(bytes(shutil.disk_usage(disk).free - 200_000))
    (disk / "jobs.db.reserve").unlink()

    async with opened(disk / "jobs.db") as store:
        assert store.trouble is not None
        with pytest.raises(StorageFailed):
            await store.add(promised("b"))
        await store.save(done := new.cancelled(12.0))
        assert await store.get("a") == done


async def test_an_end_that_finds_no_room_at_all_is_kept_in_memory_and_written_later(
    store: SQLiteStore, fickle: Disk, tmp_path: Path
) -> None:
    await store.add(promised())
    await store.save(started := promised().started("b", 11.0))
    fickle.has_no_room()

    done = started.completed(Result(text="done"), 12.0)
    with pytest.raises(StorageFailed, match="disk is full"):
        await store.save(done)
    assert await store.get("a") == done
    assert [step.version for step in await store.history("a")] == [0, 1, 2]
    with pytest.raises(StorageFailed):
        await store.flushed()

    fickle.error = None
    await store.flushed()
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as other:
        assert other.execute("SELECT state, version FROM jobs").fetchall() == [("completed", 2)]
    assert await store.get("a") == done


async def test_what_could_not_be_written_is_tried_again_by_itself(
    store: SQLiteStore, fickle: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.utils.stores.notes._AGAIN_S", 0.01)
    await store.add(promised())
    fickle.has_no_room()
    with pytest.raises(StorageFailed):
        await store.save(promised().cancelled(12.0))
    tried = fickle.commits
    await until(lambda: fickle.commits > tried + 3)

    fickle.error = None

    await until(lambda: "[0 to be written]" in repr(store))


async def test_a_step_that_is_no_end_is_refused_and_can_be_taken_again(
    store: SQLiteStore, fickle: Disk
) -> None:
    await store.add(promised())
    fickle.has_no_room()
    started = promised().started("b", 11.0)
    with pytest.raises(StorageFailed):
        await store.save(started)
    assert await store.get("a") == promised()

    fickle.error = None
    await store.save(started)

    assert await store.get("a") == started


async def test_a_promise_that_cannot_be_kept_is_not_made_and_the_plain_job_goes_on(
    store: SQLiteStore, fickle: Disk
) -> None:
    await store.add(job())
    fickle.has_no_room()
    with pytest.raises(StorageFailed):
        await store.save(job().promised())

    await store.save(started := job().started("b", 11.0))
    await store.save(done := started.completed(Result(text="done"), 12.0))

    assert await store.get("a") == done


@pytest.mark.parametrize("how", ["has_no_room", "breaks"])
async def test_plain_jobs_go_on_without_a_disk_and_take_no_more_memory_than_there_is(
    store: SQLiteStore, fickle: Disk, how: str
) -> None:
    getattr(fickle, how)()
    for number in range(50):
        await store.add(new := long(f"job-{number}", job))
        await store.save(started := new.started("b", 11.0))
        await store.save(done := started.completed(Result(text="done"), 12.0))
        assert await store.get(done.id) == done
        with pytest.raises(StorageFailed):
            await store.flushed()

    assert store.notes.unwritten_bytes <= 1_000_000 + 2 * LONG
    with pytest.raises(InferenceManagerError):
        await store.get("job-0")


# A disk that is slow, or held by somebody else


async def test_a_slow_disk_makes_nobody_wait_for_a_plain_job(
    store: SQLiteStore, fickle: Disk
) -> None:
    fickle.go_on.clear()
    promising = asyncio.create_task(store.add(promised("b")))
    await until(lambda: fickle.commits == 1)

    async with asyncio.timeout(1):
        await store.add(new := job())
        await store.save(started := new.started("b", 11.0))
        await store.save(done := started.completed(Result(text="done"), 12.0))
        assert await store.get("a") == done
        with pytest.raises(InferenceManagerError):
            await store.get("b")

    assert not promising.done()
    fickle.go_on.set()
    await promising


async def test_a_slow_disk_slows_down_those_who_bring_more_than_it_takes(
    store: SQLiteStore, fickle: Disk
) -> None:
    fickle.go_on.clear()
    taken: list[str] = []

    async def bring() -> None:
        for number in range(40):
            await store.add(new := long(f"job-{number}", job))
            taken.append(new.id)

    bringing = asyncio.create_task(bring())
    await until(lambda: fickle.commits == 1 and len(taken) > 9)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(taken) < 12

    fickle.go_on.set()
    async with asyncio.timeout(5):
        await bringing
    await store.flushed()

    assert len((await store.list(JobQuery(limit=99))).jobs) == 40


async def test_a_file_that_another_program_holds_is_waited_for_and_then_complained_about(
    tmp_path: Path,
) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path, busy_s=0.05) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageFailed, match="another program") as refused:
                await store.add(promised())
            assert refused.value.retry_after
            other.execute("ROLLBACK")

        await store.add(promised())
        assert await store.get("a") == promised()


# A disk that fails


async def test_after_an_error_of_the_disk_nothing_is_promised_any_more(
    store: SQLiteStore, fickle: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    await store.add(promised())
    fickle.breaks()
    with pytest.raises(StorageFailed, match="SQLITE_IOERR_FSYNC"):
        await store.add(promised("b"))

    fickle.error = None
    with pytest.raises(StorageFailed, match="SQLITE_IOERR_FSYNC"):
        await store.add(promised("c"))

    assert store.trouble is not None
    assert await store.get("a") == promised()
    critical = [one for one in caplog.records if one.levelno == logging.CRITICAL]
    assert len(critical) == 1


@pytest.mark.parametrize("how", ["removed", "replaced", "its log removed"])
async def test_a_file_that_is_taken_away_is_missed(tmp_path: Path, how: str) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as store:
        await store.add(promised())
        match how:
            case "removed":
                path.unlink()
            case "replaced":
                shutil.copy(path, tmp_path / "other")
                (tmp_path / "other").rename(path)
            case _:
                path.with_name("jobs.db-wal").unlink()

        with pytest.raises(StorageFailed, match="removed or replaced") as refused:
            await store.add(promised("b"))

        assert "put the file back" in refused.value.hint


async def test_a_disk_that_cannot_be_written_is_refused(disk: Path) -> None:
    (disk / "data").mkdir()
    _mount(disk, "remount,ro")
    with pytest.raises(StoreUnusable, match=os.strerror(errno.EROFS)) as refused:
        async with opened(disk / "data" / "jobs.db"):
            pass

    assert "writable" in refused.value.hint


async def test_bytes_that_the_disk_changes_are_never_taken_for_what_was_kept(
    tmp_path: Path,
) -> None:
    path, damaged = tmp_path / "jobs.db", tmp_path / "damaged.db"
    kept: dict[str, Job] = {}
    async with opened(path) as store:
        for number in range(20):
            new = promised(f"job-{number}", sequence=number, caller=f"caller-{number}")
            done = new.started("b", 11.0).completed(Result(text=f"answer {number} " * 30), 12.0)
            kept[new.id] = done
            await store.add(new)
            await store.save(new.started("b", 11.0))
            await store.save(done)
    whole = path.read_bytes()
    chance = random.Random(7)
    outcomes = {"refused": 0, "complained": 0, "right": 0}
    for _ in range(60):
        bytes_ = bytearray(whole)
        for _ in range(chance.choice([1, 8])):
            bytes_[chance.randrange(len(bytes_))] ^= 1 << chance.randrange(8)
        damaged.write_bytes(bytes_)
        try:
            async with opened(damaged, reserve_bytes=0) as store:
                for job_id, job_kept in kept.items():
                    try:
                        assert facts(await store.get(job_id)) == facts(job_kept)
                        outcomes["right"] += 1
                    except StorageFailed:
                        outcomes["complained"] += 1
        except StoreUnusable:
            outcomes["refused"] += 1
        for name in ("damaged.db-wal", "damaged.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)

    assert all(outcomes.values()), outcomes
