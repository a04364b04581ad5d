"""What operators switched and did, in the database."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.models.controls import EVERYTHING, Controls, Scope, Switched
from src.models.modality import Modality
from src.utils.stores import audit
from src.utils.stores.audit import Audit, Record
from src.utils.stores.controls import KeptControls
from src.utils.stores.database import Database

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
SWITCHED = st.builds(Switched, st.floats(0, 4e9), NAMES)
SCOPES = st.one_of(
    st.just(EVERYTHING),
    st.sampled_from(Modality).map(lambda modality: Scope("modality", modality)),
    NAMES.map(lambda name: Scope("model", name)),
    NAMES.map(lambda name: Scope("caller", name)),
)
CONTROLS = st.builds(
    Controls,
    paused=st.dictionaries(SCOPES, SWITCHED, max_size=4),
    stopped=st.none() | SWITCHED,
    draining=st.none() | SWITCHED,
)


@asynccontextmanager
async def opened(path: Path | str = ":memory:") -> AsyncGenerator[Database]:
    database = Database(path)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@settings(max_examples=20)
@given(first=CONTROLS, second=CONTROLS)
async def test_what_was_switched_last_is_what_is_read(first: Controls, second: Controls) -> None:
    async with opened() as database:
        kept = KeptControls(database)
        assert await kept.read() == Controls()

        for controls in (first, second):
            await kept.write(controls)
            assert await kept.read() == controls


async def test_switches_and_the_audit_log_outlive_the_process(tmp_path: Path) -> None:
    controls = Controls().pause(Scope("model", "m"), Switched(5.0, "ann"))
    done = Record(at=5.0, who="ann", action="pause", about={"model": "m"})
    async with opened(tmp_path / "jobs.db") as database:
        await KeptControls(database).write(controls, *Audit(database).statements(done))

    async with opened(tmp_path / "jobs.db") as database:
        assert await KeptControls(database).read() == controls
        (record,) = await Audit(database).read(limit=10)
        assert (record.who, record.action, record.about) == ("ann", "pause", {"model": "m"})


async def test_what_came_of_an_action_is_written_to_its_record() -> None:
    async with opened() as database:
        log = Audit(database)
        first = await log.note(Record(at=1.0, who="ann", action="purge"))
        await log.note(Record(at=2.0, who="bob", action="retry"))

        await log.finish(first, {"jobs": 3})

        assert [(r.action, r.after) for r in await log.read(limit=10)] == [
            ("retry", {}),
            ("purge", {"jobs": 3}),
        ]


async def test_the_log_is_read_in_pages_the_latest_first() -> None:
    async with opened() as database:
        log = Audit(database)
        numbers = [await log.note(Record(at=1.0, who="ann", action="stop")) for _ in range(5)]

        page = await log.read(limit=2)
        rest = await log.read(limit=10, before=page[-1].number)

    assert [record.number for record in (*page, *rest)] == numbers[::-1]


async def test_the_oldest_records_go_when_there_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "KEPT", 3)
    async with opened() as database:
        log = Audit(database)
        numbers = [await log.note(Record(at=1.0, who="ann", action="stop")) for _ in range(5)]

        assert [record.number for record in await log.read(limit=10)] == numbers[:1:-1]
