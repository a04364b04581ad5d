"""The addresses of what jobs made: pictures, recordings and films, piece by piece from the disk."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from ..models.blobs import size_of
from .errors import error_responses
from .tools import KINDS, Kind, Tools
from .views import EXTENSIONS, file_name

_KEEP_S = 86_400  # how long a browser may keep it; what an address shows never changes


def add(router: APIRouter, tools: Tools) -> None:
    """Add the routes."""
    for kind, word in KINDS.items():
        router.get(
            f"/{kind}/{{job_id}}/{{index}}",
            name=kind,
            summary=f"Fetch a {word}",
            description=f"Fetch a {word} that a job made. `index` counts from 0.",
            response_class=Response,
            responses={
                200: {
                    "content": {"audio/*" if kind == "audio" else f"{kind[:-1]}/*": {}},
                    "description": f"The {word}, as it was made",
                },
                **error_responses(404, 409, 422, 507),
            },
        )(_fetch(tools, kind))


def _fetch(tools: Tools, kind: Kind) -> Callable[[str, int], Awaitable[Response]]:
    async def fetch(job_id: str, index: int) -> Response:
        medium = await tools.medium(kind, job_id, index)
        pieces = tools.blobs.stream(medium.data)
        first = await anext(pieces, b"")  # what is gone is told before the answer begins
        name = file_name(job_id, index, medium.media_type)
        shown = "inline" if medium.media_type in EXTENSIONS else "attachment"
        return StreamingResponse(
            _all(first, pieces),
            media_type=medium.media_type,
            headers={
                "Content-Disposition": f'{shown}; filename="{name}"',
                "Content-Length": str(size_of(medium.data)),
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": f"private, max-age={_KEEP_S}, immutable",
            },
        )

    return fetch


async def _all(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for piece in rest:
        yield piece
