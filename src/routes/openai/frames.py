"""What OpenAI's streams of text have in common: how an event begins, and how a stream ends."""

from typing import Any

from pydantic_core import to_json

from ...handles import JobHandle
from ...models.jobs import Job
from ...models.results import Result
from ..errors import ErrorDetail
from .shapes import DONE, sse
from .usage import usage


class TextFrames:
    """Writes the pieces of a job as events; with `counted` the last tells what it has cost."""

    def __init__(self, handle: JobHandle, *, counted: bool) -> None:
        self._handle = handle
        self._counted = counted
        self._head = b""
        self._begun: set[int] = set()

    def closing(self, job: Job, result: Result) -> bytes:
        """Write the count, if it is wanted, and the end."""
        if not self._counted:
            return DONE
        told = to_json(usage(job, result))
        return self._top() + b'"choices":[],"usage":' + told + b"}\n\n" + DONE

    def failed(self, detail: ErrorDetail) -> bytes:
        """Write that there will be no more, and why."""
        return sse({"error": detail.model_dump(exclude_none=True)}) + DONE

    def _about(self) -> dict[str, Any]:
        """Return what every event begins with."""
        raise NotImplementedError

    def _top(self) -> bytes:
        """Write the beginning of an event."""
        if not self._head:
            self._head = b"data: " + to_json(self._about())[:-1] + b","
        return self._head
