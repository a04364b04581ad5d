"""An answer that is found out after its request was let go of.

What answers a request is called while the parsed body is still held around it, and a job may wait
for an hour. So a route that waits returns a `Later`, and the wait begins when nothing but the
`Later` itself is held any more.
"""

import json
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .incoming import aside


class Later(Response):
    """Finds out the answer when it is to be sent; `find` must not hold the request's body."""

    def __init__(self, find: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__()
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out the answer and send it."""
        response = await self._find(Request(scope, receive))
        await response(scope, receive, send)


class _Reading(Request):
    """Parses a large body in a thread."""

    async def json(self) -> Any:
        body = await self.body()
        return await aside(len(body), partial(json.loads, body))


class ForgetfulRoute(APIRoute):
    """Reads the body through a request of its own, so that no other keeps it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Make the handler."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_Reading(request.scope, request.receive))

        return handle
