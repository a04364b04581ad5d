"""What is said to the database about jobs: one text of SQL for SQLite and PostgreSQL."""
# ruff: noqa: S608 - every text that is put together here is this module's own

from collections.abc import Sequence
from functools import partial

from ...models.blobs import Blob
from ...models.jobs import TRANSITIONS, Job, JobQuery, JobState, Step
from ...models.results import blobs_in
from .rows import CHANGING, COLUMNS, Keeping, new_row, next_row, payload_row, result_row
from .statement import Statement, Value

_ENDED = ", ".join(f"'{state}'" for state in JobState if not TRANSITIONS[state])
_WAITS = f"'{JobState.QUEUED}', '{JobState.RETRYING}'"

INSERT_JOB = (
    f"INSERT INTO jobs({', '.join(COLUMNS)}, checksum) "
    f"VALUES({', '.join(f'${n}' for n in range(1, len(COLUMNS) + 2))})"
)
UPDATE_JOB = (
    f"UPDATE jobs SET {', '.join(f'{name} = ${n}' for n, name in enumerate(CHANGING, 2))}, "
    f"checksum = ${len(CHANGING) + 2} WHERE id = $1 AND version = ${len(CHANGING) + 3} RETURNING id"
)
INSERT_PAYLOAD = "INSERT INTO payloads(job_id, kind, request, checksum) VALUES($1, $2, $3, $4)"
UPDATE_PAYLOAD = """
    UPDATE payloads SET kind = $2, request = $3, checksum = $4
    WHERE job_id = $1 AND checksum <> $4
"""
INSERT_RESULT = "INSERT INTO results(job_id, body, checksum) VALUES($1, $2, $3)"
INSERT_EVENT = (
    "INSERT INTO events(job_id, version, state, at, attempt, detail) VALUES($1, $2, $3, $4, $5, $6)"
)
INSERT_BLOB = "INSERT INTO blobs(key, job_id, size) VALUES($1, $2, $3)"
BIND_KEY = (
    "INSERT INTO keys(caller, key, fingerprint, job_id) VALUES($1, $2, $3, $4) "
    "ON CONFLICT(caller, key) DO UPDATE SET fingerprint = excluded.fingerprint, "
    "job_id = excluded.job_id"
)
FIND_KEY = "SELECT fingerprint, job_id FROM keys WHERE caller = $1 AND key = $2"

_WHOLE = (
    f"SELECT {', '.join(f'jobs.{name}' for name in COLUMNS)}, jobs.checksum, "
    "payloads.kind, payloads.request, payloads.checksum, results.body, results.checksum "
    "FROM jobs JOIN payloads ON payloads.job_id = jobs.id "
    "LEFT JOIN results ON results.job_id = jobs.id "
)
GET = f"{_WHOLE} WHERE jobs.id = $1"
IS_THERE = "SELECT version FROM jobs WHERE id = $1"
LEFT_RUNNING = (
    f"{_WHOLE} WHERE jobs.state = '{JobState.PROCESSING}' AND jobs.promised = 1 "
    "AND jobs.sequence <= $1 ORDER BY jobs.number LIMIT $2"
)
LEFT_PLAIN = (
    f"{_WHOLE} WHERE jobs.state IN ({_WAITS}, '{JobState.PROCESSING}') AND jobs.promised = 0 "
    "AND jobs.sequence <= $1 ORDER BY jobs.number LIMIT $2"
)
WAITING = (
    "SELECT id, modality, level, model, sequence, submitted_at, deadline, size_bytes, disk_bytes, "
    f"caller, retry_at FROM jobs WHERE state IN ({_WAITS}) AND promised = 1"
)
LAST_SEQUENCE = "SELECT COALESCE(MAX(sequence), 0) FROM jobs"
HISTORY = (
    "SELECT version, state, at, attempt, detail FROM events "
    "WHERE job_id = $1 AND version > $2 ORDER BY version"
)
BLOBS_OF = "SELECT key, size FROM blobs WHERE job_id = $1"
ALL_BLOBS = "SELECT key FROM blobs"
REPEATED = "SELECT DISTINCT retry_of FROM jobs WHERE retry_of <> '' AND retry_of IN "
DELETE = f"DELETE FROM jobs WHERE id = $1 AND state IN ({_ENDED}) RETURNING kept_bytes"
KEPT_BYTES = "SELECT COALESCE(SUM(kept_bytes), 0) FROM jobs WHERE ended_at IS NOT NULL"
_NOBODY_WAITS = (
    "(batch = '' OR NOT EXISTS (SELECT 1 FROM open_lines "
    "WHERE open_lines.batch = jobs.batch AND open_lines.number = jobs.line))"
)
OVERDUE = (
    "SELECT id, kept_bytes FROM jobs WHERE purge_at IS NOT NULL AND purge_at <= $1 "
    f"AND {_NOBODY_WAITS} ORDER BY purge_at LIMIT $2"
)
OLDEST = (
    "SELECT id, kept_bytes FROM jobs WHERE ended_at IS NOT NULL "
    f"AND {_NOBODY_WAITS} ORDER BY ended_at LIMIT $1"
)


def added(job: Job, steps: Sequence[Step], keeping: Keeping) -> list[Statement]:
    """Say that there is a job, which took these steps already."""
    request = job.request
    statements = [
        Statement(INSERT_JOB, make=partial(new_row, job, keeping)),
        Statement(INSERT_PAYLOAD, make=partial(payload_row, job)),
        *_of_blobs(job, request.blobs),
        *_of_steps(job, steps),
        *_of_result(job),
    ]
    promise = job.promise
    if promise is not None and promise.key:
        statements.append(Statement(BIND_KEY, job.caller, promise.key, promise.fingerprint, job.id))
    return statements


def saved(
    job: Job, version: int, steps: Sequence[Step], keeping: Keeping, *, renamed: bool
) -> list[Statement]:
    """Say what became of a job since a version; the first statement fails if that is not kept.

    `renamed` tells whether its request may have changed, as when its model is named.
    """
    statements = [
        Statement(UPDATE_JOB, make=partial(next_row, job, keeping, version), guard=True),
        *_of_steps(job, steps),
        *_of_result(job),
    ]
    if renamed:
        statements.append(Statement(UPDATE_PAYLOAD, make=partial(payload_row, job)))
    return statements


def listing(query: JobQuery) -> tuple[str, list[Value]]:
    """Return the SQL that finds jobs, one more than asked for, and its values."""
    values: list[Value] = []
    terms = ["1 = 1"]

    def term(sql: str, value: Value) -> None:
        if value is not None:
            values.append(value)
            terms.append(f"{sql} ${len(values)}")

    term("caller =", query.caller)
    term("modality =", query.modality)
    term("model =", query.model)
    term("level =", None if query.level is None else int(query.level))
    term("batch =", query.batch)
    term("error_code =", query.code)
    term("submitted_at >=", query.submitted_after)
    term("submitted_at <", query.submitted_before)
    term("number <", query.before)
    if query.batch:
        terms.append("batch <> ''")
    if query.states is not None:
        names = ", ".join(f"'{state}'" for state in sorted(query.states)) or "''"
        terms.append(f"state IN ({names})")
    sql = (
        f"SELECT {', '.join(COLUMNS)}, checksum, number FROM jobs "
        f"WHERE {' AND '.join(terms)} ORDER BY number DESC LIMIT {int(query.limit) + 1}"
    )
    return sql, values


def step_of(job: Job, now: float) -> Step:
    """Return the step that made this version of a job."""
    if job.state is JobState.PROCESSING:
        return Step(job.version, job.state, job.started_at or now, job.attempts, job.backend)
    detail = "" if job.error is None or job.state is JobState.QUEUED else job.error.code
    at = job.submitted_at if job.version == 0 else job.ended_at or now
    return Step(job.version, job.state, at, job.attempts, detail)


def new_blobs(job: Job) -> Sequence[Blob]:
    """Return the blobs that a job's result consists of."""
    return () if job.result is None else tuple(blobs_in(job.result.media))


def _of_steps(job: Job, steps: Sequence[Step]) -> list[Statement]:
    return [
        Statement(INSERT_EVENT, job.id, version, str(state), float(at), attempt, detail)
        for version, state, at, attempt, detail in steps
    ]


def _of_result(job: Job) -> list[Statement]:
    if job.result is None:
        return []
    body = Statement(INSERT_RESULT, make=partial(result_row, job))
    return [body, *_of_blobs(job, new_blobs(job))]


def _of_blobs(job: Job, blobs: Sequence[Blob]) -> list[Statement]:
    return [Statement(INSERT_BLOB, blob.key, job.id, blob.size) for blob in blobs]
