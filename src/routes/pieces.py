"""An answer that goes out piece by piece, as fast as its caller takes it, but not slower than that.

What waits for a caller is one piece and what the server buffers, however long the answer is; and
a caller that has stopped taking it does not keep even that for long.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .leaving import attended

logger = logging.getLogger("inference_manager.pieces")

_LARGE = 256 * 1024
_SLICE = 64 * 1024

SEND_S = 60.0
"""How long a caller may leave a piece untaken, in seconds."""


class Pieces(Response):
    """Sends bytes as they come. What fails before the first of them is answered as an error.

    Args:
        pieces: the body; it is closed when the answer ends, however it does.
        length: how many bytes it has.
        media_type: what it is.
        headers: what else is told of it.
        status_code: the status of the answer.
        send_s: seconds after which a caller that leaves a piece untaken is cut off.

    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        *,
        length: int,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        status_code: int = 200,
        send_s: float = SEND_S,
    ) -> None:
        told = {**(headers or {}), "Content-Length": str(length)}
        super().__init__(status_code=status_code, headers=told, media_type=media_type)
        self._pieces = pieces
        self._send_s = send_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, to `HEAD` without the body, unless its caller leaves or stops."""

        async def in_time(message: Message) -> None:
            async with asyncio.timeout(self._send_s):
                await send(message)

        headers_only = scope["method"] == "HEAD"
        try:
            await attended(Request(scope, receive), self._all(in_time, headers_only=headers_only))
        except TimeoutError:
            logger.warning("cut off a caller that took nothing for %g s", self._send_s)
        finally:
            await self._pieces.aclose()

    async def _all(self, send: Send, *, headers_only: bool) -> None:
        piece = await anext(self._pieces, b"")
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        if not headers_only:
            await send(_body(piece))
            async for piece in self._pieces:
                await send(_body(piece))
        await send(_body(b"", more=False))


def in_slices(response: Response, send_s: float = SEND_S) -> Response:
    """Have a large answer taken slice by slice, so that nobody keeps all of it for long."""
    if isinstance(response, Pieces) or len(response.body) <= _LARGE:
        return response
    headers = {
        k: v for k, v in response.headers.items() if k not in ("content-length", "content-type")
    }
    return Pieces(
        _slices(bytes(response.body)),
        length=len(response.body),
        media_type=response.headers["content-type"],
        headers=headers,
        status_code=response.status_code,
        send_s=send_s,
    )


async def _slices(body: bytes) -> AsyncGenerator[bytes]:
    for at in range(0, len(body), _SLICE):
        yield body[at : at + _SLICE]


def _body(piece: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": more}
