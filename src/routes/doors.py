"""What every door for other programs' clients does: read, take in, answer, and let go.

A door says two things of its own: how a request is read (`Door.asked`), and how a result is written
(`Asked.whole`, and `Asked.frames` where it may be streamed). Everything between is here, as plain
ASGI: FastAPI describes the routes and does not run them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..handles import JobHandle
from ..models.errors import InferenceManagerError
from ..models.jobs import Job, Promise
from ..models.requests import InferenceRequest
from ..models.results import Result
from ..sharing import Taken
from .errors import answer, error_responses, plain
from .facts import facts, of_a_job_that_goes_on
from .incoming import Incoming, aside, base_url
from .leaving import left, stayed
from .pieces import in_slices
from .streaming import BEAT_S, SEND_S, Frames, Streaming
from .tools import Tools
from .wishes import Wishes, seconds, wishes_in

LONGEST = 32 * 2**20

Written = Response | Awaitable[Response]
Whole = Callable[[Job, Result], Written]
"""Writes a result; awaited if there may be so much of it that a thread has to."""

_GENERATES = (400, 401, 403, 404, 409, 413, 415, 429, 502, 503, 504, 507)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller wants, and how it is answered.

    Attributes:
        request: what to do.
        uploads: the files that came with it, by the texts that stand for them in the request.
        whole: writes the result, when the job has ended well.
        frames: writes its pieces, for a caller that wants a stream.
        timeout_s: seconds from now after which nobody wants the result.
        queue_events: whether the stream tells of the job's place in line.

    """

    request: InferenceRequest
    whole: Whole
    uploads: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    frames: Callable[[JobHandle], Frames] | None = None
    timeout_s: float | None = None
    queue_events: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How all doors are kept.

    Attributes:
        longest: how many bytes a body may have.
        beat_s: the longest silence of a stream, in seconds.
        send_s: how long a caller may leave a piece of an answer untaken, in seconds.

    """

    longest: int = LONGEST
    beat_s: float = BEAT_S
    send_s: float = SEND_S


class Door:
    """Answers one kind of request."""

    def __init__(self, tools: Tools, manner: Manner) -> None:
        self.tools = tools
        self.manner = manner

    async def asked(self, incoming: Incoming) -> Asked:
        """Read a request; raises what is wrong with it."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; it is let go of before its job is waited for."""
        try:
            taken, asked, wishes = await self._taken(scope, receive)
        except InferenceManagerError as error:
            await answer(error, v1=True)(scope, receive, send)
            return
        except HTTPException as error:
            await plain(error.status_code, error.detail)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        if asked.frames is not None and wishes.wait_s is None:
            await self._stream(taken, asked, asked.frames)(scope, receive, send)
        else:
            await self._whole(taken, asked.whole, wishes, scope, receive, send)

    async def _taken(self, scope: Scope, receive: Receive) -> tuple[Taken, Asked, Wishes]:
        wishes = wishes_in(dict(scope["headers"]), self.tools.now())
        incoming = Incoming(scope, receive, wishes, self.manner.longest)
        asked = await self.asked(incoming)
        await aside(incoming.size, lambda: asked.request.size_bytes)  # found out once
        given = [s for s in (wishes.deadline_s, _timeout(asked)) if s is not None]
        taken = await self.tools.take(
            asked.request,
            level=wishes.level,
            deadline_s=min(given, default=None),
            key=wishes.key,
            promise=Promise() if wishes.wait_s == 0 else None,
            uploads=asked.uploads,
        )
        kept = replace(  # a waiting job holds its request in its own way
            asked,
            request=taken.handle.job.request,
            uploads={},
            queue_events=asked.queue_events or wishes.queue_events,
        )
        return taken, kept, wishes

    def _stream(
        self, taken: Taken, asked: Asked, frames: Callable[[JobHandle], Frames]
    ) -> Streaming:
        return Streaming(
            taken,
            frames(taken.handle),
            doing=self.tools.situation,
            place=self.tools.place if asked.queue_events else None,
            leave=self.tools.abandon,
            beat_s=self.manner.beat_s,
            send_s=self.manner.send_s,
        )

    async def _whole(
        self,
        taken: Taken,
        write: Whole,
        wishes: Wishes,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        handle = taken.handle
        try:
            there = await stayed(handle, receive, wishes.wait_s)
        except BaseException:
            await self.tools.abandon(handle)
            raise
        if not there:
            left(handle.id)
            await self.tools.abandon(handle)
            return
        try:
            if handle.over:
                response = in_slices(await self._written(handle, write), self.manner.send_s)
            else:
                await self.tools.promise(handle)
                response = self._later(scope, handle.job, wishes.preference)
        except InferenceManagerError as error:
            response = answer(error, job_id=handle.id, v1=True)
        response.raw_headers.extend(facts(handle.job, taken.how))
        await response(scope, receive, send)

    async def _written(self, handle: JobHandle, write: Whole) -> Response:
        written = write(handle.job, handle.outcome())
        return written if isinstance(written, Response) else await written

    def _later(self, scope: Scope, job: Job, preference: str) -> Response:
        """Answer with the job itself, which goes on without its caller."""
        body = self.tools.view(job, base_url(scope)).model_dump_json(exclude_none=True)
        headers = of_a_job_that_goes_on(job, preference)
        return Response(body, 202, headers, media_type="application/json")


class DoorRoute(APIRoute):
    """A route that is described as FastAPI does, and answered by its door alone."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], *, door: ASGIApp, **told: Any
    ) -> None:
        super().__init__(path, endpoint, **told)
        self.app = door


def routes(
    paths: Sequence[str],
    door: Door,
    described: Callable[..., Any],
    *,
    tag: str,
    summary: str,
    answers: Mapping[int | str, Mapping[str, Any]],
    body: Mapping[str, Any] | None = None,
    errors: Sequence[int] = _GENERATES,
) -> list[APIRoute]:
    """Make the routes of a door, the first of which is shown in the documentation.

    Args:
        paths: where it is.
        door: what answers.
        described: a function whose signature, name and docstring describe the request.
        tag: under which heading it is shown.
        summary: what it does, in a few words.
        answers: what it answers by status, in OpenAPI's words.
        body: the body in OpenAPI's words, where the signature cannot say it.
        errors: with which statuses it may fail.

    """
    return [
        DoorRoute(
            path,
            described,
            door=door,
            methods=["POST"],
            tags=[tag],
            summary=summary,
            response_class=Response,
            responses={
                **{status: dict(told) for status, told in answers.items()},
                **error_responses(*errors),
            },
            include_in_schema=place == 0,
            openapi_extra=None if body is None else {"requestBody": dict(body)},
            name=f"{described.__name__}_{place}" if place else described.__name__,
        )
        for place, path in enumerate(paths)
    ]


def _timeout(asked: Asked) -> float | None:
    return None if asked.timeout_s is None else seconds(asked.timeout_s, "timeout")
