"""Blobs that stay in memory: for a client without a disk."""

from collections.abc import AsyncGenerator, Iterable

from ..models.blobs import Blob, Content
from ..models.errors import UnknownJob
from .blobs import digest_of


class InMemory:
    """Hands back what it is given, so that there is nothing to keep and nothing to drop."""

    async def keep(self, data: bytes) -> Content:
        """Return the bytes themselves."""
        return data

    async def read(self, content: Content) -> bytes:
        """Return the bytes.

        Raises:
            UnknownJob: they are a blob, and none is kept here.

        """
        if isinstance(content, Blob):
            raise UnknownJob("there is no store of pictures and recordings to read from")
        return content

    async def stream(self, content: Content) -> AsyncGenerator[bytes]:
        """Yield the bytes, in one piece; raises as `read`."""
        yield await self.read(content)

    async def digest(self, content: Content) -> str:
        """Return the SHA-256 of the bytes in hexadecimal; raises as `read`."""
        return await digest_of(await self.read(content))

    def open(self) -> "_Writer":
        """Begin to collect bytes."""
        return _Writer()

    async def copy(self, blob: Blob) -> Blob:
        """Fail: none was kept.

        Raises:
            UnknownJob: always.

        """
        await self.read(blob)
        return blob

    async def drop(self, blobs: Iterable[Blob]) -> None:
        """Do nothing: none was kept."""


class _Writer:
    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    async def write(self, piece: bytes) -> None:
        self._pieces.append(piece)

    async def finish(self) -> Content:
        return b"".join(self._pieces)

    async def discard(self) -> None:
        self._pieces.clear()
