"""Jobs as rows of tables, and back.

With a job's row, its request and its result a checksum is written, so that bytes which the disk has
changed are never taken for what was kept.
"""

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from ...models.errors import StorageFailed
from ...models.jobs import Job, JobState, Level, Promise, Step, Summary
from ...models.modality import Modality
from ...models.ports import Waiting
from ...models.queues import Entry
from . import codec
from .statement import Row, Value

CHANGING = (
    "level",
    "sequence",
    "model",
    "state",
    "version",
    "fence",
    "attempts",
    "crashes",
    "backend",
    "started_at",
    "ended_at",
    "retry_at",
    "promised",
    "key",
    "fingerprint",
    "retry_of",
    "batch",
    "line",
    "webhook",
    "error_code",
    "error",
    "size_bytes",
    "disk_bytes",
    "kept_bytes",
    "purge_at",
)
FIXED = ("id", "modality", "caller", "submitted_at", "deadline")
COLUMNS = (*FIXED, *CHANGING)
_CHECKSUM = len(COLUMNS)
_AT = {name: index for index, name in enumerate(COLUMNS)}


class Keeping(NamedTuple):
    """For how many seconds jobs are kept after their end, by how that was."""

    done_s: float = 86_400.0
    failed_s: float = 7 * 86_400.0


def new_row(job: Job, keeping: Keeping) -> Sequence[Value]:
    """Return the values of `COLUMNS` and the checksum."""
    values = _values(job, keeping)
    return *values, _crc(*values)


def next_row(job: Job, keeping: Keeping, version: int) -> Sequence[Value]:
    """Return the id, the values of `CHANGING`, the checksum, and the version before."""
    values = _values(job, keeping)
    return job.id, *values[len(FIXED) :], _crc(*values), version


def _values(job: Job, keeping: Keeping) -> Sequence[Value]:
    promise, error = job.promise or _NO_PROMISE, job.error
    on_disk = sum(blob.size for blob in job.request.blobs)
    return [
        job.id,
        str(job.modality),
        job.caller,
        float(job.submitted_at),
        float(job.deadline),
        int(job.level),
        job.sequence,
        job.model,
        str(job.state),
        job.version,
        job.fence,
        job.attempts,
        job.crashes,
        job.backend,
        _time(job.started_at),
        _time(job.ended_at),
        _time(job.retry_at),
        int(job.promise is not None),
        promise.key,
        promise.fingerprint,
        promise.retry_of,
        promise.batch,
        promise.line,
        promise.webhook,
        "" if error is None else error.code,
        None if error is None else codec.error_to_json(error),
        job.request.size_bytes - on_disk,
        on_disk,
        kept_bytes(job),
        _purge_at(job, keeping),
    ]


_NO_PROMISE = Promise()


def _time(seconds: float | None) -> float | None:
    return None if seconds is None else float(seconds)


def _purge_at(job: Job, keeping: Keeping) -> float | None:
    if job.ended_at is None:
        return None
    is_well = job.state in (JobState.COMPLETED, JobState.CANCELLED)
    return job.ended_at + (keeping.done_s if is_well else keeping.failed_s)


def payload_row(job: Job) -> Sequence[Value]:
    """Return the values of a row of payloads."""
    kind, text = codec.kind_of(job.request), codec.request_to_json(job.request)
    return job.id, kind, text, _crc(kind, text)


def result_row(job: Job) -> Sequence[Value]:
    """Return the values of a row of results."""
    assert job.result is not None  # noqa: S101 - whoever calls has looked
    body = codec.result_to_json(job.result)
    return job.id, body, _crc(body)


def _promise(row: Row) -> Promise | None:
    if not row[_AT["promised"]]:
        return None
    return Promise(
        key=row[_AT["key"]],
        fingerprint=row[_AT["fingerprint"]],
        retry_of=row[_AT["retry_of"]],
        batch=row[_AT["batch"]],
        line=row[_AT["line"]],
        webhook=row[_AT["webhook"]],
    )


def _check(row: Row) -> None:
    if _crc(*row[:_CHECKSUM]) != row[_CHECKSUM]:
        raise damaged()


def _crc(*values: Value) -> int:
    return crc32(repr(values).encode(errors="surrogatepass"))


def kept_bytes(job: Job) -> int:
    """Return how much an ended job takes, with its blobs; nothing while it lives."""
    if not job.state.terminal:
        return 0
    return 1000 + job.request.size_bytes + (0 if job.result is None else job.result.size_bytes)


def job_from(row: Row) -> Job:
    """Return a job from a row of `GET` and the like; raises `StorageFailed` if it is damaged."""
    _check(row)
    kind, text, checksum, body, body_checksum = row[_CHECKSUM + 1 :]
    if checksum != _crc(kind, text) or (body is not None and body_checksum != _crc(body)):
        raise damaged()
    try:
        error = row[_AT["error"]]
        return Job(
            id=row[0],
            request=codec.request_from_json(kind, text),
            model=row[_AT["model"]],
            caller=row[_AT["caller"]],
            level=Level(row[_AT["level"]]),
            sequence=row[_AT["sequence"]],
            submitted_at=row[_AT["submitted_at"]],
            deadline=row[_AT["deadline"]],
            promise=_promise(row),
            state=JobState(row[_AT["state"]]),
            fence=row[_AT["fence"]],
            attempts=row[_AT["attempts"]],
            crashes=row[_AT["crashes"]],
            version=row[_AT["version"]],
            backend=row[_AT["backend"]],
            started_at=row[_AT["started_at"]],
            ended_at=row[_AT["ended_at"]],
            retry_at=row[_AT["retry_at"]],
            result=None if body is None else codec.result_from_json(body),
            error=None if error is None else codec.error_from_json(error),
        )
    except ValueError as error:
        raise damaged() from error


def summary_from(row: Row) -> Summary:
    """Return a job's summary from a row of `listing`; raises `StorageFailed` if it is damaged."""
    _check(row)
    error = row[_AT["error"]]
    try:
        return Summary(
            number=row[_CHECKSUM + 1],
            id=row[0],
            modality=Modality(row[_AT["modality"]]),
            model=row[_AT["model"]],
            caller=row[_AT["caller"]],
            level=Level(row[_AT["level"]]),
            state=JobState(row[_AT["state"]]),
            version=row[_AT["version"]],
            attempts=row[_AT["attempts"]],
            backend=row[_AT["backend"]],
            submitted_at=row[_AT["submitted_at"]],
            deadline=row[_AT["deadline"]],
            started_at=row[_AT["started_at"]],
            ended_at=row[_AT["ended_at"]],
            retry_at=row[_AT["retry_at"]],
            retry_of=row[_AT["retry_of"]],
            batch=row[_AT["batch"]],
            error=None if error is None else codec.error_from_json(error),
        )
    except ValueError as wrong:
        raise damaged() from wrong


def waiting_from(rows: Sequence[Row]) -> list[Waiting]:
    """Return what waits, from the rows of `WAITING`; raises `StorageFailed` if it is damaged."""
    modalities = {str(modality): modality for modality in Modality}
    levels = {int(level): level for level in Level}
    try:
        return [
            Waiting(Entry(job_id, modalities[modality], levels[level], *others), retry_at)
            for job_id, modality, level, *others, retry_at in rows
        ]
    except KeyError as error:
        raise damaged() from error


def steps_from(rows: Sequence[Row]) -> list[Step]:
    """Return steps from the rows of `HISTORY`; raises `StorageFailed` if they are damaged."""
    try:
        return [
            Step(version, JobState(state), at, attempt, detail)
            for version, state, at, attempt, detail in rows
        ]
    except ValueError as error:
        raise damaged() from error


def damaged() -> StorageFailed:
    """Say that the disk has changed what was kept."""
    return StorageFailed(
        "what was kept of this job is damaged", hint="the disk may be failing; restore a backup"
    )
