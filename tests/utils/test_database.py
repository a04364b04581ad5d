"""The database: what is written together, what fails alone, and what is opened at all."""

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from src.models.errors import StorageFailed, StoreUnusable
from src.utils.stores import opening
from src.utils.stores.database import Database
from src.utils.stores.migrations import MIGRATIONS
from src.utils.stores.statement import NothingChangedError, Statement

CANARY = "heliotrope-canary"


@asynccontextmanager
async def opened(path: Path | str = ":memory:", **options: Any) -> AsyncGenerator[Database]:
    database = Database(path, **options)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture(params=["memory", "file"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Database]:
    async with opened(":memory:" if request.param == "memory" else tmp_path / "a.db") as database:
        yield database


def put(name: str, value: str | None = "v", *, guard: bool = False) -> Statement:
    return Statement("INSERT INTO meta VALUES($1, $2) RETURNING name", name, value, guard=guard)


def change(name: str, *, guard: bool = False) -> Statement:
    sql = "UPDATE meta SET value = 'changed' WHERE name = $1 RETURNING name"
    return Statement(sql, name, guard=guard)


async def names(database: Database) -> list[str]:
    rows = await database.read("SELECT name FROM meta WHERE name <> 'schema' ORDER BY name")
    return [name for (name,) in rows]


class Gate:
    """Holds the writing thread before a commit."""

    def __init__(self) -> None:
        self.commits = 0
        self.open = threading.Event()
        self.open.set()

    def __call__(self) -> None:
        self.commits += 1
        assert self.open.wait(10)


# Writing and reading


async def test_rows_come_back_after_the_commit(database: Database) -> None:
    assert await database.write(put("a"), change("a"), change("b")) == [[("a",)], [("a",)], []]

    assert await database.read("SELECT value FROM meta WHERE name = $1", "a") == [("changed",)]
    assert await database.read_as(len, "SELECT 1 FROM meta") == 2


async def test_an_operation_happens_whole_or_not_at_all(database: Database) -> None:
    with pytest.raises(StorageFailed):
        await database.write(put("a"), put("a"))

    assert await names(database) == []


async def test_a_guard_that_finds_nothing_takes_its_operation_back(database: Database) -> None:
    with pytest.raises(NothingChangedError) as refused:
        await database.write(put("a"), change("nobody", guard=True))

    assert refused.value.index == 1
    assert await names(database) == []


async def test_what_fails_is_taken_back_alone(database: Database) -> None:
    outcomes = await asyncio.gather(
        database.write(put("a")),
        database.write(put("b"), change("nobody", guard=True)),
        database.write(put("c"), put("a")),
        database.write(put("d")),
        return_exceptions=True,
    )

    assert [type(one) for one in outcomes] == [list, NothingChangedError, StorageFailed, list]
    assert await names(database) == ["a", "d"]


async def test_values_that_are_expensive_are_made_in_the_writing_thread(database: Database) -> None:
    made: list[str] = []

    def make() -> list[str]:
        made.append(threading.current_thread().name)
        return ["a", "v"]

    await database.write(Statement("INSERT INTO meta VALUES($1, $2)", make=make))

    assert await names(database) == ["a"]
    assert made[0].startswith("database-writer")


async def test_values_that_cannot_be_made_harm_nobody_and_are_not_told(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> list[str]:
        raise ValueError("no value")

    with pytest.raises(StorageFailed) as failed:
        await database.write(Statement("INSERT INTO meta VALUES($1, $2)", make=make))
    with pytest.raises(StorageFailed) as odd:
        await database.write(put(f"{CANARY}\ud800"))
    await database.write(put("a"))

    assert await names(database) == ["a"]
    assert CANARY not in f"{failed.value}{odd.value}{caplog.messages}"


async def test_writes_that_come_while_one_is_being_written_are_written_together(
    tmp_path: Path,
) -> None:
    gate = Gate()
    async with opened(tmp_path / "a.db", before_commit=gate) as database:
        gate.open.clear()
        first = asyncio.create_task(database.write(put("first")))
        await until(lambda: gate.commits == 1)
        others = [asyncio.create_task(database.write(put(f"name-{n}"))) for n in range(100)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, *others)

        assert gate.commits == 2
        assert len(await names(database)) == 101


async def test_a_slow_disk_keeps_no_reader_waiting(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path / "a.db", before_commit=gate) as database:
        await database.write(put("a"))
        gate.open.clear()
        writing = asyncio.create_task(database.write(put("b")))
        await until(lambda: gate.commits == 2)

        assert await names(database) == ["a"]

        gate.open.set()
        await writing
        assert await names(database) == ["a", "b"]


async def test_a_write_happens_even_if_its_caller_is_cancelled(database: Database) -> None:
    writing = asyncio.create_task(database.write(put("a")))
    await asyncio.sleep(0)
    writing.cancel()

    await database.flushed()

    assert await names(database) == ["a"]


async def test_what_was_put_is_written_before_the_end(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as database:
        writing = [asyncio.create_task(database.write(put(f"name-{n}"))) for n in range(2000)]
        await asyncio.sleep(0)
    await asyncio.gather(*writing)

    async with opened(tmp_path / "a.db") as database:
        assert len(await names(database)) == 2000


async def test_a_database_that_is_not_open_says_so() -> None:
    database = Database(":memory:")
    for attempt in (database.write(put("a")), database.read("SELECT 1")):
        with pytest.raises(StorageFailed, match="not open"):
            await attempt
    await database.close()


async def test_a_database_can_be_opened_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    for name in ("a", "b"):
        await database.open()
        await database.write(put(name))
        await database.close()

    async with opened(tmp_path / "a.db") as again:
        assert await names(again) == ["a", "b"]


async def test_it_shows_what_it_is_about(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    assert repr(database) == f"<Database [{tmp_path / 'a.db'}, closed, 0 to be written]>"
    assert repr(put("secret")) == ("<Statement 'INSERT INTO meta VALUES($1, $2) RETURNING name'>")


async def until(when: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not when():  # noqa: ASYNC110 - a thread tells nobody
            await asyncio.sleep(0.001)


# Opening


async def refusal(path: Path) -> StoreUnusable:
    with pytest.raises(StoreUnusable) as refused:
        await Database(path).open()
    assert refused.value.hint
    return refused.value


async def test_directories_are_made_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "deep" / "jobs.db"
    async with opened(path):
        assert path.parent.stat().st_mode & 0o777 == 0o700
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file


async def test_a_second_one_is_told_who_has_the_file_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path):
        second = await refusal(path)
    async with opened(path):
        pass

    assert f"process {os.getpid()} has {path} open" in second.message
    assert "setting store" in second.hint


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


async def test_the_lock_of_a_process_that_was_killed_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD, f"{path}.lock"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdout is not None
    await other.stdout.readline()

    assert "another process has" in (await refusal(path)).message

    other.kill()
    await other.wait()
    async with opened(path):
        pass


async def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_text("a shopping list, which is longer than the head of a database" * 100)
    before = path.read_bytes()

    refused = await refusal(path)

    assert "is not a database" in refused.message
    assert path.read_bytes() == before


async def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE birds(name TEXT)")
    before = path.read_bytes()

    assert "another program" in (await refusal(path)).message
    assert path.read_bytes() == before


async def test_a_directory_is_no_database(tmp_path: Path) -> None:
    assert "is a directory" in (await refusal(tmp_path)).message


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert str(tmp_path / "file") in (await refusal(tmp_path / "file" / "jobs.db")).message


async def test_a_file_that_was_cut_off_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as database:
        await database.write(*(put(f"name-{n}", "v" * 1000) for n in range(100)))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    before = path.read_bytes()

    refused = await refusal(path)

    assert "is damaged" in refused.message
    assert "restore" in refused.hint
    assert path.read_bytes() == before


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as database:
        await database.write(Statement("UPDATE meta SET value = '99' WHERE name = 'schema'"))
    before = path.read_bytes()

    assert "newer version" in (await refusal(path)).message
    assert path.read_bytes() == before


async def test_a_database_whose_version_cannot_be_read_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as database:
        await database.write(Statement("UPDATE meta SET value = 'v1' WHERE name = 'schema'"))

    assert "is damaged" in (await refusal(path)).message


async def test_an_older_database_is_copied_and_then_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as database:
        await database.write(put("kept"))
    steps = [*MIGRATIONS, ["CREATE TABLE birds({number}, name TEXT)"], ["DROP TABLE birds"]]
    monkeypatch.setattr(opening, "MIGRATIONS", steps)
    async with opened(path) as database:
        assert await names(database) == ["kept"]
        assert await database.read("SELECT value FROM meta WHERE name = 'schema'") == [
            (str(len(steps)),)
        ]

    with closing(sqlite3.connect(f"{path}.version-{len(MIGRATIONS)}")) as copy:
        found = dict(copy.execute("SELECT name, value FROM meta"))
    assert found == {"kept": "v", "schema": str(len(MIGRATIONS))}


async def test_a_step_that_fails_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    async with opened(path) as database:
        await database.write(put("kept"))
    steps = [*MIGRATIONS, ["CREATE TABLE birds(name TEXT)", "CREATE TABLE jobs(name TEXT)"]]
    with monkeypatch.context() as patch:
        patch.setattr(opening, "MIGRATIONS", steps)
        await refusal(path)

    async with opened(path) as database:
        assert await names(database) == ["kept"]
        assert await database.read("SELECT 1 FROM sqlite_master WHERE name = 'birds'") == []
