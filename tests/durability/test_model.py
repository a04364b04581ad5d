"""Whatever is done to the queue, and whenever its process dies, it is where the model says.

Hypothesis makes the histories; each is played to a real store, scheduler and recovery, and to a
model that knows none of them. IM_SOAK plays more of them.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from src.models.errors import (
    BackendRejected,
    BackendUnavailable,
    Draining,
    StaleJob,
    UnknownJob,
)
from src.models.jobs import Job, JobQuery, JobState, Level, Promise
from src.models.modality import Modality
from src.models.results import Result
from src.utils.stores.database import Database
from src.utils.stores.sqlite import SQLiteStore

from .driver import Driver
from .model import ENDS, RANKS, WAITING, Model

T = TypeVar("T")

ATTEMPTS = 3
QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None
RESERVE_BYTES = 64 * 1024
HOUR = 3600.0
DAY = 24 * HOUR
KEEP = {"completed": DAY, "cancelled": DAY, "expired": 7 * DAY, "failed": 7 * DAY}
CALLERS = ("ann", "bob")
KEYS = ("k1", "k2")
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
FOREVER = 10.0**9

modalities = st.sampled_from(RANKS)
levels = st.integers(0, 2)
patience = st.sampled_from([5.0, 60.0, FOREVER, FOREVER, FOREVER])
pick = st.integers(0, 10**6)


class Queue(RuleBasedStateMachine):
    """Plays each step twice and compares."""

    on_disk: ClassVar[bool]

    @initialize(slots=st.integers(1, 3))
    def begins(self, slots: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp(prefix="queue", dir=QUICK)) if self.on_disk else None
        self.now = 1_000_000.0
        self.slots = slots
        self.model = Model(slots=slots, attempts=ATTEMPTS)
        self.zombies: list[Job] = []
        self.made = 0
        self.plainly: set[str] = set()
        """Jobs of which nothing was promised at first."""
        self._start()

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            if sys.exception() is None:
                self._look()
            self.wait(self.driver.store.close())
        finally:
            self.loop.close()
            if self.directory is not None:
                shutil.rmtree(self.directory, ignore_errors=True)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    # Callers

    @rule(
        what=st.lists(st.tuples(modalities, levels), min_size=1, max_size=3),
        caller=st.sampled_from(CALLERS),
        within=patience,
        promised=st.booleans(),
    )
    def submit(
        self, what: list[tuple[str, int]], caller: str, within: float, promised: bool
    ) -> None:
        promise = Promise() if promised else None
        self._submit(what, caller, within, [promise] * len(what))

    @rule(caller=st.sampled_from(CALLERS), key=st.sampled_from(KEYS), body=modalities)
    def submit_with_a_key(self, caller: str, key: str, body: str) -> None:
        """The body is its own fingerprint; a key whose job came to nothing is as good as new."""
        found = self.model.found(caller, key)
        assert self.wait(self.driver.store.find(caller, key)) == found
        if found is None or self.model.rows[found[1]].state in ("failed", "cancelled", "expired"):
            promise = Promise(key=key, fingerprint=body)
            [job_id] = self._submit([(body, 1)], caller, FOREVER, [promise])
            self.model.bind(caller, key, body, job_id)

    @precondition(lambda self: any(row.promised for row in self.model.rows.values()))
    @rule(at=pick, key=st.sampled_from(KEYS))
    def give_a_job_a_key(self, at: int, key: str) -> None:
        rows = [row for row in self.model.rows.values() if row.promised]
        row = rows[at % len(rows)]
        self.wait(self.driver.store.bind(row.caller, key, "f", row.id))
        self.model.bind(row.caller, key, "f", row.id)

    @precondition(lambda self: self._plain())
    @rule(at=pick)
    def promise(self, at: int) -> None:
        job_id = self._one(self._plain(), at)
        self.wait(self.driver.promise(job_id))
        self.model.promise(job_id)
        self.zombies = [job for job in self.zombies if job.id != job_id]

    @precondition(lambda self: self.model.rows)
    @rule(at=pick)
    def cancel(self, at: int) -> None:
        job_id = self._one(list(self.model.rows), at)
        if self.model.rows[job_id].state not in ENDS:
            self._remember(job_id)
            self.wait(self.driver.end(job_id, lambda job: job.cancelled(self.now)))
        self.model.cancel(job_id, self.now)

    @precondition(lambda self: self._neighbours())
    @rule(at=pick)
    def swap(self, at: int) -> None:
        """Two waiting jobs of one caller, modality and level change places."""
        pairs = self._neighbours()
        one, other = (self.model.rows[job_id] for job_id in pairs[at % len(pairs)])
        self.wait(
            self.driver.move(
                (one.id, one.level, other.sequence), (other.id, other.level, one.sequence)
            )
        )
        self.model.swap(one.id, other.id)

    @precondition(lambda self: self.model.of(*WAITING))
    @rule(at=pick, level=levels)
    def relevel(self, at: int, level: int) -> None:
        row = self.model.rows[self._one([r.id for r in self.model.of(*WAITING)], at)]
        self.wait(self.driver.move((row.id, level, row.sequence)))
        self.model.relevel(row.id, level)

    # Workers

    @rule()
    def dispatch(self) -> None:
        for job_id in self.driver.running:
            if self.model.rows[job_id].deadline <= self.now:
                self._remember(job_id)
        expired, started = self.wait(self.driver.dispatch())
        overdue, taken = self.model.dispatch(self.now)
        assert sorted(expired) == sorted(overdue)
        assert started == taken

    @precondition(lambda self: self.driver.running)
    @rule(at=pick)
    def complete(self, at: int) -> None:
        job_id = self._one(list(self.driver.running), at)
        self._remember(job_id)
        result = Result(text=f"done {job_id}")
        self.wait(self.driver.end(job_id, lambda job: job.completed(result, self.now)))
        self.model.complete(job_id, self.now)

    @precondition(lambda self: self.driver.running)
    @rule(at=pick, final=st.booleans(), later=st.sampled_from([0.5, 30.0]))
    def fail(self, at: int, final: bool, later: float) -> None:
        job_id = self._one(list(self.driver.running), at)
        self._remember(job_id)
        error = BackendRejected("no") if final else BackendUnavailable("gone", reached=True)
        retry_at = None if final else self.now + later
        if final or self.driver.running[job_id].attempts >= ATTEMPTS:
            self.wait(self.driver.end(job_id, lambda job: job.failed(error, self.now)))
        else:
            self.wait(
                self.driver.put_back(job_id, lambda job: job.retrying(error, self.now + later))
            )
        self.model.fail(job_id, self.now, error.code, retry_at)

    @precondition(lambda self: self.driver.running)
    @rule(at=pick)
    def release(self, at: int) -> None:
        job_id = self._one(list(self.driver.running), at)
        self._remember(job_id)
        self.wait(self.driver.put_back(job_id, Job.requeued))
        self.model.release(job_id)

    @precondition(lambda self: self.zombies)
    @rule(at=pick, with_another=st.booleans())
    def a_zombie_reports(self, at: int, with_another: bool) -> None:
        """Who lost the job changes nothing, neither in it nor in what it reports along with it."""
        job = self.zombies[at % len(self.zombies)]
        late = [job.completed(Result(text="a zombie's"), self.now)]
        if with_another:
            others = [one for one in self.driver.running.values() if one.id != job.id]
            late = [*(one.requeued() for one in others), *late]
        with pytest.raises((StaleJob, UnknownJob)):
            self.wait(self.driver.store.save(*late))

    # Time and housekeeping

    @rule(seconds=st.sampled_from([1.0, 10.0, 61.0, 25 * HOUR, 170 * HOUR, -7200.0]))
    def clock_jumps(self, seconds: float) -> None:
        self.now += seconds
        self.driver.now = self.now

    @rule(limit=st.integers(1, 3))
    def purge(self, limit: int) -> None:
        self.wait(self.driver.store.flushed())
        due = self.model.due(self.now, KEEP)
        count = self.wait(self.driver.store.purge(self.now, limit=limit))
        assert count == min(limit, len(due))
        gone = [job_id for job_id in due if not self._is_kept(job_id)]
        assert len(gone) == count
        self.model.forget(gone)

    @precondition(lambda self: self.model.rows)
    @rule(at=st.lists(pick, min_size=1, max_size=3))
    def delete(self, at: list[int]) -> None:
        ids = {self._one(list(self.model.rows), n) for n in at}
        ended = [job_id for job_id in ids if self.model.rows[job_id].state in ENDS]
        assert self.wait(self.driver.store.delete(*ids)) == len(ended)
        self.model.forget(ended)

    # The process

    @precondition(lambda self: self.on_disk)
    @rule(flushed=st.booleans())
    def crash(self, flushed: bool) -> None:
        """What is on the disk at this moment is all that is left."""
        if flushed:
            self.wait(self.driver.store.flushed())
        assert self.directory is not None
        left = Path(tempfile.mkdtemp(prefix="queue", dir=QUICK))
        shutil.copytree(
            self.directory, left, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.reserve")
        )
        self.wait(self.driver.store.close())
        shutil.rmtree(self.directory)
        self.directory = left
        plain = [row for row in self.model.rows.values() if not row.promised]
        self._start()
        kept = {row.id: self._steps(row.id) for row in plain}
        if flushed:
            assert all(len(kept[row.id]) >= len(row.steps) for row in plain)
        assert self.model.crash(self.now, kept) == []

    @precondition(lambda self: self.on_disk)
    @rule()
    def stop(self) -> None:
        plain = [row.id for row in self.model.of(*WAITING, "processing") if not row.promised]
        error = Draining("later")
        self.wait(self.driver.stop(plain, lambda job: job.failed(error, self.now)))
        self.model.stop(self.now)
        self._start()

    # What must hold

    @invariant()
    def everybody_stands_where_the_model_says(self) -> None:
        if hasattr(self, "driver"):
            for job_id in self.model.rows:
                assert self.driver.scheduler.position(job_id) == self.model.position(job_id)

    @rule()
    def look(self) -> None:
        self._look()

    @rule(
        state=st.none() | st.sampled_from(JobState),
        caller=st.none() | st.sampled_from(CALLERS),
        level=st.none() | levels,
        modality=st.none() | modalities,
        code=st.none() | st.sampled_from(["backend_rejected", "worker_lost"]),
        limit=st.integers(1, 4),
    )
    def ask_for_a_list(
        self,
        state: JobState | None,
        caller: str | None,
        level: int | None,
        modality: str | None,
        code: str | None,
        limit: int,
    ) -> None:
        """Page by page, however small the pages."""
        query = JobQuery(
            states=None if state is None else frozenset({state}),
            caller=caller,
            level=None if level is None else Level(level),
            modality=None if modality is None else Modality(modality),
            code=code,
            limit=limit,
        )
        facts = {
            "state": state,
            "caller": caller,
            "level": level,
            "modality": modality,
            "code": code,
        }
        asked = {name: fact for name, fact in facts.items() if fact is not None}
        self._compare(self._listed(query), self.model.listed(**asked))

    def _look(self) -> None:
        """Compare all that can be known."""
        self.wait(self.driver.store.flushed())
        self._compare(self._listed(JobQuery(limit=200)), self.model.listed())
        assert self.wait(self.driver.store.last_sequence()) == self.model.sequence()
        for row in self.model.rows.values():
            job = self.wait(self.driver.store.get(row.id))
            assert (job.state, job.version, job.attempts) == (row.state, row.version, row.attempts)
            assert (job.fence, job.level, job.sequence) == (row.fence, row.level, row.sequence)
            assert (job.promise is not None) == row.promised
            assert ("" if job.error is None else job.error.code) == row.code
            assert (job.result is not None) == (row.state == "completed")
            assert job.result is None or job.result.text == f"done {row.id}"
            assert self._steps(row.id) == row.steps
        for code in {row.code for row in self.model.rows.values() if row.code}:
            self._compare(self._listed(JobQuery(code=code)), self.model.listed(code=code))
        for caller in CALLERS:
            for key in KEYS:
                found = self.wait(self.driver.store.find(caller, key))
                assert found == self.model.found(caller, key)

    # Inside

    def _compare(self, found: list[str], listed: list[str]) -> None:
        """Each is there once; a plain job may be a moment late, and so stand elsewhere."""
        assert sorted(found) == sorted(listed)
        late = self.plainly
        assert [i for i in found if i not in late] == [i for i in listed if i not in late]

    def _start(self) -> None:
        path = ":memory:" if self.directory is None else self.directory / "jobs.db"
        store = SQLiteStore(Database(path, reserve_bytes=RESERVE_BYTES), clock=lambda: self.now)
        self.wait(store.open())
        self.driver = Driver(store, slots=self.slots, attempts=ATTEMPTS)
        self.wait(self.driver.begin(self.now))
        self.zombies.clear()

    def _submit(
        self,
        what: list[tuple[str, int]],
        caller: str,
        within: float,
        promises: list[Promise | None],
    ) -> list[str]:
        ids = [f"j{self.made + n}" for n in range(len(what))]
        self.made += len(what)
        deadline = self.now + within
        self.wait(
            self.driver.submit(
                *(
                    (job_id, modality, level, caller, deadline, promise)
                    for job_id, (modality, level), promise in zip(ids, what, promises, strict=True)
                )
            )
        )
        for job_id, (modality, level), promise in zip(ids, what, promises, strict=True):
            self.model.submit(
                job_id,
                self.now,
                modality=modality,
                level=level,
                caller=caller,
                deadline=deadline,
                promised=promise is not None,
            )
            if promise is None:
                self.plainly.add(job_id)
        return ids

    def _remember(self, job_id: str) -> None:
        """Somebody works on the job and will not hear that it was taken away."""
        if job_id in self.driver.running:
            self.zombies.append(self.driver.running[job_id])

    def _plain(self) -> list[str]:
        return [row.id for row in self.model.of(*WAITING, "processing") if not row.promised]

    def _neighbours(self) -> list[tuple[str, str]]:
        rows = self.model.of(*WAITING)
        return [
            (a.id, b.id)
            for a in rows
            for b in rows
            if a.place[:2] == b.place[:2] and a.caller == b.caller and a.sequence < b.sequence
        ]

    def _one(self, ids: list[str], at: int) -> str:
        return ids[at % len(ids)]

    def _is_kept(self, job_id: str) -> bool:
        try:
            self.wait(self.driver.store.get(job_id))
        except UnknownJob:
            return False
        return True

    def _steps(self, job_id: str) -> list[tuple[int, str, int]]:
        steps = self.wait(self.driver.store.history(job_id))
        return [(step.version, str(step.state), step.attempt) for step in steps]

    def _listed(self, query: JobQuery) -> list[str]:
        found: list[str] = []
        while True:
            page = self.wait(self.driver.store.list(query))
            found += [job.id for job in page.jobs]
            if page.before is None:
                return found
            query = replace(query, before=page.before)


class AtOnce(Executor):
    """Does what the database's threads would do, at once: the same every time, and quicker."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def submit(self, fn: Callable[..., T], /, *args: Any, **how: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **how))
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


def play(examples: int, *, on_disk: bool) -> None:
    """Make so many histories up and play them."""

    class Played(Queue):
        pass

    Played.on_disk = on_disk
    how = settings(
        max_examples=examples * (8 if os.environ.get("IM_SOAK") else 1),
        stateful_step_count=30,
        deadline=None,
        phases=PHASES,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    with (
        patch("src.utils.stores.database.ThreadPoolExecutor", AtOnce),
        patch("src.utils.stores.notes._SOON_S", FOREVER),  # what is noted is written when asked
    ):
        run_state_machine_as_test(Played, settings=how)


def test_the_queue_is_where_the_model_says() -> None:
    play(350, on_disk=False)


def test_the_queue_is_where_the_model_says_however_its_process_ends() -> None:
    play(150, on_disk=True)
