"""Lines of batches go through the same doors as requests: read and answered by them alone."""

import asyncio
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope

from ...batch_questions import Answer, Question
from ...handles import result_of
from ...models.errors import InferenceManagerError
from ...models.jobs import Job, Level, Promise
from ..callers import acting_for
from ..doors import Asked, Door, DoorRoute
from ..errors import answer
from ..incoming import Incoming, aside
from ..tools import Tools
from ..wishes import Wishes

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/moderations",
    "/v1/rerank",
)
"""Where lines may lead: doors that take JSON and answer with JSON."""

_WISHES = Wishes(level=Level.LOW)


class BatchDesk:
    """Asks at doors.

    Args:
        doors: the routes of all doors.
        tools: which take requests in.
        longest: how many bytes a body may have.

    """

    def __init__(self, doors: Iterable[Route], tools: Tools, *, longest: int) -> None:
        found: Mapping[str, Door] = {
            route.path: route.app
            for route in doors
            if isinstance(route, DoorRoute) and isinstance(route.app, Door)
        }
        self._doors = {path: found[path] for path in ENDPOINTS}
        self._tools = tools
        self._longest = longest

    async def take(
        self, question: Question, *, key: str, promise: Promise, deadline_s: float
    ) -> Job:
        """Return the job of a question; raises as `Tools.take`."""
        with acting_for(question.caller):
            incoming, asked = await self._asked(question)
            await aside(incoming.size, lambda: asked.request.size_bytes)  # found out once
            taken = await self._tools.take(
                asked.request,
                level=_WISHES.level,
                deadline_s=min(deadline_s, asked.timeout_s or deadline_s),
                key=key,
                promise=promise,
                uploads=asked.uploads,
            )
            return taken.handle.job

    async def answer(self, question: Question, job: Job) -> Answer:
        """Write what came of a job that has ended."""
        with acting_for(question.caller):
            try:
                _, asked = await self._asked(question)
                written = asked.whole(job, result_of(job))
                response = written if isinstance(written, Response) else await written
                return await _sent(response)
            except InferenceManagerError as error:
                return _refusal(error, job.id)

    def refusal(self, error: InferenceManagerError) -> Answer:
        """Write why there is no job."""
        return _refusal(error, None)

    async def _asked(self, question: Question) -> tuple[Incoming, Asked]:
        door = self._doors[question.endpoint]
        incoming = Incoming(_scope(question), _body(question.body), _WISHES, self._longest)
        return incoming, await door.asked(incoming)


def _refusal(error: InferenceManagerError, job_id: str | None) -> Answer:
    response = answer(error, job_id=job_id, v1=True)
    return Answer(response.status_code, bytes(response.body))


async def _sent(response: Response) -> Answer:
    """Collect what a response sends."""
    pieces: list[bytes] = []

    async def send(message: Message) -> None:
        pieces.append(message.get("body", b""))

    await response({"type": "http", "method": "POST", "headers": []}, _for_ever, send)
    return Answer(response.status_code, b"".join(pieces))


async def _for_ever() -> Message:
    """Receive from a caller that never leaves."""
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await never


def _scope(question: Question) -> Scope:
    """Describe the request that the line would have been."""
    base = urlsplit(question.base_url)
    return {
        "type": "http",
        "method": "POST",
        "scheme": base.scheme,
        "path": question.endpoint,
        "root_path": base.path,
        "query_string": b"",
        "headers": [
            (b"host", base.netloc.encode("latin-1", "replace")),
            (b"content-type", b"application/json"),
        ],
    }


def _body(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
