"""A name for every request, by which its answer is found again in the log, and the other way round.

Pure ASGI, and the outermost of all: whoever answers, the answer has the name.
"""

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"

_GOOD = re.compile(rb"[\w.:-]{1,128}")
_NAME = HEADER.lower().encode()
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def current_request_id() -> str | None:
    """Return the name of the request that is being answered; None outside of all requests."""
    return _request_id.get()


class RequestIds:
    """Takes the caller's `X-Request-Id` if it is a good one, else makes one, and sends it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, under its name."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = _given(scope["headers"]) or f"req_{secrets.token_urlsafe(12)}".encode()
        # Never taken back: what answers for unexpected errors stands outside of all middleware.
        _request_id.set(name.decode())

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (_NAME, name)]
            await send(message)

        await self._app(scope, receive, named)


def _given(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    return next((v for k, v in headers if k == _NAME and _GOOD.fullmatch(v)), None)
