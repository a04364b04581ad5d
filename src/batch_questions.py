"""What the lines of a batch ask, and what those that are not carried out are answered."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .models.batches import (
    AskedLine,
    Batch,
    BatchState,
    Problem,
    RawLine,
    asked_in,
    error_line,
)
from .models.errors import InferenceManagerError, UnknownFile
from .models.jobs import Job, Promise

_PARSED_HERE = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a line asks, through which door, and for whom."""

    caller: str
    base_url: str
    endpoint: str
    body: bytes


class Answer(NamedTuple):
    """What the door would have answered: a status, and JSON."""

    status: int
    body: bytes


class Desk(Protocol):
    """Passes questions through the doors at which they would be asked one by one."""

    async def take(
        self, question: Question, *, key: str, promise: Promise, deadline_s: float
    ) -> Job:
        """Return the job of a question.

        Raises:
            Refused: not now.
            StorageFailed: not now either.
            InferenceManagerError: there will be none; `refusal` writes what the door answers.

        """
        ...

    async def answer(self, question: Question, job: Job) -> Answer:
        """Write what came of a job that has ended."""
        ...

    def refusal(self, error: InferenceManagerError) -> Answer:
        """Write why there is no job."""
        ...


def why_left(batch: Batch) -> tuple[str, str] | None:
    """Say why lines are left; None if they are not."""
    if batch.state is BatchState.CANCELLING:
        return "batch_cancelled", "the batch was cancelled before this request was carried out"
    if batch.over_at is not None:
        return "batch_expired", "the completion window was over before this request was carried out"
    return None


def skipped(batch: Batch, lines: Sequence[RawLine]) -> bytes:
    """Write lines that are not carried out."""
    code, message = why_left(batch) or ("", "")
    return b"".join(
        error_line(
            name_of(batch, line.number), _parsed(batch, line).custom_id, code=code, message=message
        )
        for line in lines
        if not line.blank
    )


def name_of(batch: Batch, number: int) -> str:
    """Return what a line is called in the files of answers."""
    return f"batch_req_{batch.id.removeprefix('batch_')}_{number}"


async def asked_on(batch: Batch, line: RawLine) -> AskedLine:
    """Read a line that was found to be good; raises `UnknownFile` if it is not what it was."""
    if len(line.raw) <= _PARSED_HERE:
        return _parsed(batch, line)
    return await asyncio.to_thread(_parsed, batch, line)


def _parsed(batch: Batch, line: RawLine) -> AskedLine:
    asked = asked_in(line.raw, batch.endpoint, line.number + 1)
    if isinstance(asked, Problem):
        raise UnknownFile("the file is not what it was when the batch began")
    return asked


def question_of(batch: Batch, body: bytes) -> Question:
    """Return what a line of a batch asks."""
    return Question(
        caller=batch.caller, base_url=batch.base_url, endpoint=batch.endpoint, body=body
    )
