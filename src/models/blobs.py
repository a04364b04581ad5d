"""Bytes that are too large to hold in memory while a job waits or is kept: known by name only."""

import re
from dataclasses import dataclass
from typing import Self

_REFERENCE = re.compile(r"blob:(\d{1,15}):([\w-]{1,128})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Blob:
    """So many bytes, kept under a key by whoever implements `ports.Blobs`."""

    key: str
    size: int

    @property
    def reference(self) -> str:
        """The text that stands for the blob in a request."""
        return f"blob:{self.size}:{self.key}"

    @classmethod
    def referred_to(cls, text: str) -> Self | None:
        """Return the blob that a text stands for; None if it is something else.

        Only texts that were written by `reference` may be trusted: callers' own never are.
        """
        found = _REFERENCE.fullmatch(text) if len(text) <= 150 else None
        return None if found is None else cls(found[2], int(found[1]))


Content = bytes | Blob
"""Bytes at hand, or where they are kept."""


def size_of(content: Content) -> int:
    """Return how many bytes there are."""
    return content.size if isinstance(content, Blob) else len(content)
