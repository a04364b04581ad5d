"""Jobs in memory, and blobs in a dict, for tests that look at what is kept.

All bytes become blobs there, be they few.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from hashlib import sha256

from src.models.blobs import Blob, Content
from src.models.errors import UnknownJob
from src.utils.stores.database import Database
from src.utils.stores.sqlite import SavedBlobs, SQLiteStore


def in_memory(blobs: SavedBlobs | None = None) -> SQLiteStore:
    """Make a store that is gone when it is closed."""
    return SQLiteStore(Database(":memory:"), blobs=blobs)


class DictBlobs:
    """Keeps everything; tells when something is dropped."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.secured: set[str] = set()
        self.dropped = asyncio.Event()
        self._count = 0

    async def keep(self, data: bytes) -> Content:
        self._count += 1
        blob = Blob(f"k{self._count}", len(data))
        self.kept[blob.key] = data
        return blob

    async def read(self, content: Content) -> bytes:
        if isinstance(content, bytes):
            return content
        if content.key not in self.kept:
            raise UnknownJob("it is not kept any more")
        return self.kept[content.key]

    async def stream(self, content: Content) -> AsyncGenerator[bytes]:
        yield await self.read(content)

    async def digest(self, content: Content) -> str:
        return sha256(await self.read(content)).hexdigest()

    def open(self) -> "_Writer":
        return _Writer(self)

    async def copy(self, blob: Blob) -> Blob:
        copied = await self.keep(await self.read(blob))
        assert isinstance(copied, Blob)
        return copied

    async def secure(self, blobs: Iterable[Blob]) -> None:
        for blob in blobs:
            await self.read(blob)
            self.secured.add(blob.key)

    async def listed(self) -> Sequence[str]:
        return list(self.kept)

    async def drop(self, blobs: Iterable[Blob]) -> None:
        for blob in blobs:
            self.kept.pop(blob.key, None)
        self.dropped.set()


class _Writer:
    def __init__(self, blobs: DictBlobs) -> None:
        self._blobs = blobs
        self._pieces: list[bytes] = []

    async def write(self, piece: bytes) -> None:
        self._pieces.append(piece)

    async def finish(self) -> Content:
        return await self._blobs.keep(b"".join(self._pieces))

    async def discard(self) -> None:
        self._pieces.clear()
