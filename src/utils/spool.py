"""The spool: long texts of a request that wait on the disk until its tool reads them.

A word stands for each in the meantime. It is made here, cannot be guessed, is never told to anyone,
and is good for one reading.
"""

import asyncio
import secrets
from collections.abc import Iterable
from pathlib import Path

from ..models.blobs import Blob, Content
from .blobs import FileBlobs

LONG = 65_536
"""From so many characters on a text is set aside."""

_READ_AT_ONCE = 2


class Spool(FileBlobs):
    """Blobs, and besides them texts that are set aside.

    Attributes:
        turns: held by whoever takes texts, so that few are in memory at once.

    """

    def __init__(self, directory: Path | None = None, *, inline: int = 65_536) -> None:
        super().__init__(directory, inline=inline)
        self.turns = asyncio.Semaphore(_READ_AT_ONCE)
        self._aside: dict[str, Content] = {}

    def stands(self, word: str) -> bool:
        """Say whether a word stands for a text now."""
        return word in self._aside

    async def set_aside(self, word: str, text: bytes) -> None:
        """Keep a text until it is taken or forgotten; raises `StorageFailed`."""
        self._aside[word] = await self.keep(text)

    async def take(self, word: str) -> bytes | None:
        """Return the text that a word stands for, and forget it; None if there is none.

        Raises:
            StorageFailed: the disk is broken.

        """
        content = self._aside.pop(word, None)
        if content is None:
            return None
        try:
            return await self.read(content)
        finally:
            await self._drop([content])

    async def forget(self, words: Iterable[str]) -> None:
        """Forget what was not taken; certain even if cancelled."""
        await self._drop([self._aside.pop(word, b"") for word in words])

    async def _drop(self, contents: Iterable[Content]) -> None:
        await self.drop([content for content in contents if isinstance(content, Blob)])


def new_word() -> str:
    """Make a word that nobody can guess."""
    return f"spooled:{secrets.token_urlsafe(16)}"
