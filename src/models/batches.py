"""Batches: files of requests, one on each line, that are answered one by one while nobody waits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, cast

from pydantic_core import from_json, to_json

from .errors import InvalidInput

MOST_LINES = 50_000
MOST_PROBLEMS = 100
LONGEST_S = 604_800.0
"""The longest window, in seconds."""

_WINDOW = re.compile(r"([1-9]\d{0,4})([mhd])", re.ASCII)
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
_LONGEST_ID = 512
_MOST_PAIRS, _LONGEST_KEY, _LONGEST_VALUE = 16, 64, 512


class BatchState(StrEnum):
    """Where a batch is on its way."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the batch has ended."""
        return self in _ENDS


_ENDS = frozenset(
    {BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED}
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a line of the input, counted from 1; None if it is the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch, and how far it has come. Times are seconds since 1970.

    Attributes:
        window: how long it may take, as its caller wrote it.
        base_url: where its caller reached this server; addresses in answers begin with it.
        output_file: the name of the file with the answers, there or not; `error_file` likewise.
        keep_s: for how long these files are kept; None as long as all files are.
        total: how many lines have a request, `completed` and `failed` how many were carried out.
        next_line: the first line, counted from 0, that is not dealt with; it begins at the byte
            `next_at` of the input.
        output_bytes: how much of the file with the answers counts; `error_bytes` likewise.
        over_at: when its window was over, if lines were left then.
        ended_at: when it came to its end, however it did.

    """

    id: str
    caller: str
    endpoint: str
    input_file: str
    window: str
    base_url: str
    output_file: str
    error_file: str
    created_at: float
    expires_at: float
    keep_s: float | None = None
    metadata: Mapping[str, str] | None = None
    state: BatchState = BatchState.VALIDATING
    problems: Sequence[Problem] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    next_line: int = 0
    next_at: int = 0
    output_bytes: int = 0
    error_bytes: int = 0
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    cancelling_at: float | None = None
    over_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that a caller sent, or that was made for one."""

    id: str
    caller: str
    name: str
    purpose: str
    size: int
    created_at: float
    expires_at: float | None = None


class RawLine(NamedTuple):
    """A line of a file: its number, counted from 0, the byte at which it begins, and its bytes."""

    number: int
    at: int
    raw: bytes

    @property
    def next_at(self) -> int:
        """Where the next line begins."""
        return self.at + len(self.raw)

    @property
    def blank(self) -> bool:
        """Whether nothing is on it."""
        return not _text(self.raw)


class OpenLine(NamedTuple):
    """A line that is being answered; `job` is empty if it has none yet."""

    number: int
    at: int
    size: int
    job: str = ""


class AskedLine(NamedTuple):
    """What a line asks for."""

    custom_id: str
    body: bytes


@dataclass(slots=True)
class Validation:
    """Looks at the lines of an input, one after the other.

    Args:
        endpoint: where all of them must lead.
        longest: how many bytes a line may have.

    """

    endpoint: str
    longest: int
    total: int = 0
    problems: list[Problem] = field(default_factory=list[Problem])
    _seen: set[str] = field(default_factory=set[str])

    @property
    def hopeless(self) -> bool:
        """Whether it is not worth while to look at more lines."""
        return len(self.problems) >= MOST_PROBLEMS or self.total > MOST_LINES

    def look(self, line: RawLine) -> None:
        """Look at the next line."""
        if line.blank:
            return
        self.total += 1
        if self.total > MOST_LINES:
            message = f"a batch has at most {MOST_LINES:,} lines; send several"
            self.problems.append(Problem("too_many_lines", message, line.number + 1))
            return
        found = self._judge(line)
        if isinstance(found, Problem):
            self.problems.append(found)
        else:
            self._seen.add(found.custom_id)

    def verdict(self) -> Sequence[Problem]:
        """Say what is wrong, after all lines; nothing if all is well."""
        if not self.total and not self.problems:
            return [Problem("empty_file", "the file has no requests in it")]
        return self.problems

    def _judge(self, line: RawLine) -> AskedLine | Problem:
        number = line.number + 1
        if len(line.raw) > self.longest:
            message = f"a line has at most {self.longest:,} bytes"
            return Problem("line_too_long", message, number)
        asked = asked_in(line.raw, self.endpoint, number)
        if isinstance(asked, AskedLine) and asked.custom_id in self._seen:
            message = "another line has this custom_id; each must be of its own"
            return Problem("duplicate_custom_id", message, number, "custom_id")
        return asked


def asked_in(raw: bytes, endpoint: str, number: int) -> AskedLine | Problem:
    """Read a line, the number of which is counted from 1."""
    try:
        value = from_json(_text(raw), allow_inf_nan=False)
    except ValueError:
        return Problem("invalid_json_line", "the line is not valid JSON in UTF-8", number)
    if not isinstance(value, dict):
        return Problem("invalid_json_line", "the line is not a JSON object", number)
    return _asked(cast("dict[str, Any]", value), endpoint, number)


def _asked(told: dict[str, Any], endpoint: str, number: int) -> AskedLine | Problem:
    custom_id, body = told.get("custom_id"), told.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _LONGEST_ID:
        message = f"custom_id must be a text of 1 to {_LONGEST_ID} characters"
        return Problem("invalid_custom_id", message, number, "custom_id")
    if told.get("method") != "POST":
        return Problem("invalid_method", "method must be POST", number, "method")
    if told.get("url") != endpoint:
        message = f"url must be the endpoint of the batch, {endpoint}"
        return Problem("mismatched_endpoint", message, number, "url")
    if not isinstance(body, dict):
        return Problem("invalid_body", "body must be a JSON object", number, "body")
    return AskedLine(custom_id, to_json(body))


def answer_line(name: str, custom_id: str, *, status: int, request_id: str, body: bytes) -> bytes:
    """Write the line of a request that was carried out; `body` is JSON."""
    return b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,%b%b},"error":null}\n' % (
        to_json(name),
        to_json(custom_id),
        status,
        b'"request_id":%b,"body":' % to_json(request_id),
        body.replace(b"\n", b" "),  # where JSON has one it means no more than a space
    )


def error_line(name: str, custom_id: str, *, code: str, message: str) -> bytes:
    """Write the line of a request that was not carried out."""
    error = {"code": code, "message": message}
    line = {"id": name, "custom_id": custom_id, "response": None, "error": error}
    return to_json(line) + b"\n"


def window_in(text: str) -> float:
    """Return the seconds of a window such as `24h`.

    Raises:
        InvalidInput: it is none.

    """
    found = _WINDOW.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= LONGEST_S:
        raise InvalidInput(
            "completion_window must be a time such as 24h, 30m or 7d, which is the longest",
            param="completion_window",
        )
    return seconds


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Check what a caller wants to be kept with its batch; raises `InvalidInput`."""
    fits = all(len(k) <= _LONGEST_KEY and len(v) <= _LONGEST_VALUE for k, v in metadata.items())
    if len(metadata) > _MOST_PAIRS or not fits:
        raise InvalidInput(
            f"metadata must have at most {_MOST_PAIRS} pairs, of a key of at most "
            f"{_LONGEST_KEY} characters and a text of at most {_LONGEST_VALUE}",
            param="metadata",
        )


def share(window: int, active: int) -> int:
    """Return how many lines of each batch may be in the queue, if so many may be of all."""
    return max(1, window // max(active, 1))


def _text(raw: bytes) -> bytes:
    """Return a line without its end, and without the mark that some editors begin files with."""
    return raw.removeprefix(b"\xef\xbb\xbf").strip()
