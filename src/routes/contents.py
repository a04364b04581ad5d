"""JSON with the content of media in it, of which no more than a piece is ever held."""

import base64
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing

from ..models.blobs import Content, size_of
from ..models.ports import Blobs
from ..models.results import Result
from .pieces import SEND_S, Pieces
from .views import JobView


def with_contents(
    view: JobView, result: Result, blobs: Blobs, *, status: int, send_s: float = SEND_S
) -> Pieces:
    """Write a job with all pictures and recordings of its result as base64."""
    mark = secrets.token_hex()  # stands where a content goes; no text of the job can hold it
    for place in (*(view.images or ()), *(view.audio or ())):
        place.b64_json = mark
    texts = view.model_dump_json(exclude_none=True).encode().split(mark.encode())
    contents = [*(image.data for image in result.images), *(audio.data for audio in result.audio)]
    return interwoven(texts, contents, blobs, status=status, send_s=send_s)


def interwoven(
    texts: Sequence[bytes],
    contents: Sequence[Content],
    blobs: Blobs,
    *,
    status: int = 200,
    send_s: float = SEND_S,
) -> Pieces:
    """Write JSON: each text, and base64 of the content that follows it; one text follows the last.

    Args:
        texts: the JSON, cut where contents go.
        contents: one fewer than there are texts.
        blobs: where they are kept.
        status: the status of the answer.
        send_s: seconds after which a caller that leaves a piece untaken is cut off.

    """
    return Pieces(
        _woven(texts, contents, blobs),
        length=sum(map(len, texts)) + sum(4 * -(-size_of(content) // 3) for content in contents),
        media_type="application/json",
        status_code=status,
        send_s=send_s,
    )


async def _woven(
    texts: Sequence[bytes], contents: Sequence[Content], blobs: Blobs
) -> AsyncGenerator[bytes]:
    """Yield the texts with the contents between them; the first piece has some of the first."""
    for text, content in zip(texts, contents, strict=False):  # a text follows the last content
        before = text
        async with aclosing(blobs.stream(content)) as stream, aclosing(_base64(stream)) as encoded:
            async for piece in encoded:
                yield before + piece
                before = b""
    yield texts[-1]


async def _base64(stream: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Yield the base64 of all pieces together, so that only the last can be padded."""
    left = b""
    async for piece in stream:
        data = left + piece
        whole = len(data) - len(data) % 3
        left = data[whole:]
        yield base64.b64encode(data[:whole])
    yield base64.b64encode(left)
