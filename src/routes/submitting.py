"""Takes jobs in without waiting for them: `POST /jobs`, and the other forms of it."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import Body
from fastapi.openapi.models import Example
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..models.errors import InferenceManagerError
from ..models.modality import Modality
from .doors import DoorRoute
from .errors import answer, error_responses, plain
from .facts import facts
from .incoming import Incoming, base_url
from .job_calls import EXAMPLES, Order, described, order_in
from .job_desk import Accepted, JobDesk
from .wishes import wishes_in

Answer = Callable[[Accepted, Order, str], Response]
"""Writes what was taken in; the text is where the caller reached this server."""


class Submitting:
    """Answers requests that hand jobs over.

    Args:
        desk: where they go.
        longest: how many bytes a body may have.
        write: writes the answer.
        default: the modality of a request that names none; then there may only be one.

    """

    def __init__(
        self, desk: JobDesk, longest: int, write: Answer, *, default: Modality | None = None
    ) -> None:
        self._desk = desk
        self._longest = longest
        self._write = write
        self._read = partial(order_in, default=default)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; nothing is said of a job before it is kept."""
        try:
            response = await self._answered(scope, receive)
        except InferenceManagerError as error:
            response = answer(error)
        except HTTPException as error:
            response = plain(error.status_code, error.detail)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answered(self, scope: Scope, receive: Receive) -> Response:
        wishes = wishes_in(dict(scope["headers"]), self._desk.tools.now())
        incoming = Incoming(scope, receive, wishes, self._longest)
        order = await incoming.read(self._read)
        accepted = await self._desk.submit(order, wishes, incoming.size)
        response = self._write(accepted, order, base_url(scope))
        if not order.together:
            response.raw_headers.extend(facts(accepted.handles[0].job, accepted.how))
        return response


def route(
    path: str,
    door: Submitting,
    *,
    tag: str,
    summary: str,
    about: str,
    several: bool = True,
    **told: Any,
) -> APIRoute:
    """Make a route that takes jobs in; `told` is what FastAPI is told of its answers."""

    async def submit(call: object) -> None: ...

    shown = {n: Example(value=body) for n, body in EXAMPLES.items() if several or n == "one"}
    kind = described(several=several)
    submit.__annotations__["call"] = Annotated[kind, Body(openapi_examples=shown)]
    submit.__doc__ = about
    responses = {
        **told.pop("responses", {}),
        **error_responses(400, 401, 404, 409, 413, 415, 422, 429, 503, 504, 507),
    }
    return DoorRoute(
        path,
        submit,
        door=door,
        methods=["POST"],
        tags=[tag],
        summary=summary,
        responses=responses,
        name=f"submit {path}",
        **told,
    )
