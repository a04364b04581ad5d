"""What must hold after any number of deaths: callers' diaries, the store and the wire compared."""

import sqlite3
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from src.simulator.reports import RequestRecord

ENDS = frozenset({"completed", "failed", "cancelled", "expired"})
SLACK_S = 0.5
"""How much later than its submission a job may come into line: its commit takes a moment."""


class Told(NamedTuple):
    """What a caller was told of a job: that it is taken in, and what it should become."""

    job_id: str
    words: str


@dataclass
class Diary:
    """What the callers were told, over all lives of the server.

    Attributes:
        accepted: the jobs whose ids were given out.
        keys: the jobs that each key was said to stand for.
        cancelling: those whose cancellation was asked for; the answer may have been lost.
        ended: jobs that were said to have ended, with their states.
        births: when each life began, in seconds since 1970.
        refused: how often an answer was a refusal.
        broken: how often a connection was lost.
        odd: answers that should not be.

    """

    accepted: dict[str, Told] = field(default_factory=dict[str, Told])
    keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    cancelling: set[str] = field(default_factory=set[str])
    ended: dict[str, str] = field(default_factory=dict[str, str])
    births: list[float] = field(default_factory=list[float])
    refused: int = 0
    broken: int = 0
    odd: list[str] = field(default_factory=list[str])


class Step(NamedTuple):
    version: int
    state: str
    at: float


@dataclass
class Kept:
    """A job as the store has it."""

    id: str
    sequence: int
    lane: tuple[str, int, str]
    promised: bool
    state: str
    attempts: int
    code: str
    key: str
    body: str
    steps: list[Step]


def read(database: Path) -> dict[str, Kept]:
    """Read every job of a store that nobody has open."""
    kept: dict[str, Kept] = {}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for row in connection.execute(
            "SELECT j.id, sequence, modality, level, coalesce(model, ''), promised, state, "
            "attempts, error_code, key, coalesce(r.body, '') "
            "FROM jobs j LEFT JOIN results r ON r.job_id = j.id"
        ):
            job_id, sequence, modality, level, model, promised, state, attempts, code, key, body = (
                row
            )
            lane = (modality, level, model)
            kept[job_id] = Kept(
                job_id, sequence, lane, bool(promised), state, attempts, code, key, body, []
            )
        for job_id, version, state, at in connection.execute(
            "SELECT job_id, version, state, at FROM events ORDER BY job_id, version"
        ):
            kept[job_id].steps.append(Step(version, state, at))
    return kept


def findings(
    diary: Diary, kept: Mapping[str, Kept], journal: Sequence[RequestRecord], *, attempts: int
) -> list[str]:
    """Say what is wrong; nothing if all promises were kept."""
    return [
        *diary.odd,
        *_none_is_lost(diary, kept, attempts),
        *_each_ended_once(kept),
        *_one_job_for_a_key(diary, kept),
        *_no_call_without_a_claim(kept, journal),
        *_in_order(kept, diary.births),
    ]


def _none_is_lost(diary: Diary, kept: Mapping[str, Kept], attempts: int) -> Iterator[str]:
    for job_id, told in diary.accepted.items():
        job = kept.get(job_id)
        if job is None:
            yield f"{job_id} was accepted and is lost"
            continue
        if not job.promised:
            yield f"{job_id} was accepted and not promised"
        given_up = job.code == "worker_lost" and job.attempts >= attempts
        wanted = job_id not in diary.cancelling
        if job.state != "completed" and wanted and not given_up:
            yield f"{job_id} was accepted and is {job.state} {job.code}"
        if job.state == "completed" and told.words not in job.body:
            yield f"{job_id} has another job's result"
    for job_id, state in diary.ended.items():
        job = kept.get(job_id)
        if job is not None and job.promised and job.state != state:
            yield f"{job_id} was said to be {state} and is {job.state}"


def _each_ended_once(kept: Mapping[str, Kept]) -> Iterator[str]:
    for job in kept.values():
        versions = [step.version for step in job.steps]
        if versions != list(range(len(versions))):
            yield f"{job.id} took the steps {versions}"
        ends = [step.state for step in job.steps if step.state in ENDS]
        if len(ends) != 1 or job.steps[-1].state != job.state or job.state not in ENDS:
            yield f"{job.id} is {job.state} after the ends {ends}"
        if bool(job.body) != (job.state == "completed"):
            yield f"{job.id} is {job.state} and its result is there: {bool(job.body)}"
    for sequence, count in Counter(job.sequence for job in kept.values()).items():
        if count > 1:
            yield f"{count} jobs have the place {sequence}"


def _one_job_for_a_key(diary: Diary, kept: Mapping[str, Kept]) -> Iterator[str]:
    for key, ids in diary.keys.items():
        if len(ids) > 1:
            yield f"the key {key} was said to stand for {sorted(ids)}"
    for key, count in Counter(job.key for job in kept.values() if job.key).items():
        if count > 1:
            yield f"the key {key} stands for {count} jobs"


def _no_call_without_a_claim(
    kept: Mapping[str, Kept], journal: Sequence[RequestRecord]
) -> Iterator[str]:
    """A call is made only after its claim was written: so a job is called once for each claim."""
    calls = Counter(record.correlation_id.removeprefix("chatcmpl-") for record in journal)
    for job in kept.values():
        claims = sum(step.state == "processing" for step in job.steps)
        if job.promised and calls[job.id] > claims:
            yield f"{job.id} was called {calls[job.id]} times with {claims} claims"


def _in_order(kept: Mapping[str, Kept], births: Sequence[float]) -> Iterator[str]:
    """Nobody is taken while a better one of the same kind waited and was free all the time."""
    lanes: defaultdict[tuple[str, int, str], list[Kept]] = defaultdict(list)
    for job in kept.values():
        if job.promised and job.steps:
            lanes[job.lane].append(job)
    for jobs in lanes.values():
        waits = sorted(
            (began, until, job.sequence, job.id)
            for job in jobs
            for began, until in _waits(job.steps, births)
        )
        claims = sorted(
            (step.at, job.sequence, job.id)
            for job in jobs
            for step in job.steps
            if step.state == "processing"
        )
        due, waiting = deque(waits), list[tuple[float, float, int, str]]()
        for at, sequence, job_id in claims:
            while due and due[0][0] < at:
                waiting.append(due.popleft())
            waiting = [wait for wait in waiting if wait[1] > at]
            for _, _, better, other in waiting:
                if better < sequence:
                    yield f"{job_id} was taken while {other} waited"


def _waits(steps: Sequence[Step], births: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Tell from when until when a job certainly waited."""
    claimed = 0.0
    for step, after in pairwise(steps):
        if step.state == "processing":
            claimed = step.at
        if step.state == "queued":
            began = step.at
            if claimed:  # it was put back by the life after the one that had it
                index = bisect_right(births, claimed)
                began = births[index] if index < len(births) else after.at
            yield began + SLACK_S, after.at
