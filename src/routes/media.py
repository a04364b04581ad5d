"""The addresses of what jobs made: pictures, recordings and films, piece by piece from the disk."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from fastapi.responses import Response

from ..models.blobs import size_of
from .errors import error_responses
from .pieces import SEND_S, Pieces
from .tools import KINDS, Kind, Tools
from .views import EXTENSIONS, file_name

_KEEP_S = 86_400  # how long a browser may keep it; what an address shows never changes


def add(router: APIRouter, tools: Tools, *, send_s: float = SEND_S) -> None:
    """Add the routes."""
    for kind, word in KINDS.items():
        path, fetch = f"/{kind}/{{job_id}}/{{index}}", _fetch(tools, kind, send_s)
        router.head(path, include_in_schema=False)(fetch)
        router.get(
            path,
            name=kind,
            summary=f"Fetch a {word}",
            description=f"Fetch a {word} that a job made. `index` counts from 0.",
            response_class=Response,
            responses={
                200: {
                    "content": {"audio/*" if kind == "audio" else f"{kind[:-1]}/*": {}},
                    "description": f"The {word}, as it was made",
                },
                **error_responses(401, 403, 404, 409, 410, 422, 507),
            },
        )(fetch)


def _fetch(tools: Tools, kind: Kind, send_s: float) -> Callable[[str, int], Awaitable[Response]]:
    async def fetch(job_id: str, index: int) -> Response:
        medium = await tools.medium(kind, job_id, index)
        name = file_name(job_id, index, medium.media_type)
        shown = "inline" if medium.media_type in EXTENSIONS else "attachment"
        return Pieces(
            tools.blobs.stream(medium.data),
            length=size_of(medium.data),
            media_type=medium.media_type,
            headers={
                "Content-Disposition": f'{shown}; filename="{name}"',
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": f"private, max-age={_KEEP_S}, immutable",
            },
            send_s=send_s,
        )

    return fetch
