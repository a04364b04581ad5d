"""Recordings and films as a backend sends them: checked piece by piece, never held whole. Pure.

A recording is known by its first bytes, and a WAV must hold sound; a film is an MP4 whose boxes
(ISO 14496-12) follow one another to the end, or a WebM by its first bytes.
"""

import struct
from math import inf

from ..models.errors import BackendProtocolError, EmptyResult

HEAD_BYTES = 64 * 1024
MAX_BOXES = 10_000
_STREAMED = 0x7FFF_F000  # lengths from here on are written by those who do not know them yet
_WEBM = b"\x1a\x45\xdf\xa3"


class Recording:
    """A recording as it comes.

    Args:
        backend: who made it, for messages.
        raw: whether it is to be bare samples, which have nothing to be known by.

    Attributes:
        media_type: what it is, once it is complete.
        seconds: its length, once it is complete and where the format says so.

    """

    def __init__(self, backend: str, *, raw: bool = False) -> None:
        self.media_type = "audio/pcm"
        self.seconds: float | None = None
        self._backend = backend
        self._raw = raw
        self._head = bytearray()
        self._size = 0

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes."""
        self._size += len(piece)
        self._head += piece[: max(HEAD_BYTES - len(self._head), 0)]

    def complete(self) -> None:
        """Judge it, now that all of it has come.

        Raises:
            EmptyResult: there is no sound in it.
            BackendProtocolError: it is no recording, or less than it says.

        """
        if not self._size:
            raise EmptyResult(f"backend {self._backend} made an empty recording")
        kind = audio_type(self._head)
        if kind is None and not self._raw:
            raise BackendProtocolError(
                f"backend {self._backend} answered with what is no recording"
            )
        self.media_type = kind or self.media_type
        if kind == "audio/wav":
            self.seconds = self._length()

    def _length(self) -> float:
        """Walk through the chunks of a WAV to its sound; return how many seconds it lasts."""
        head, at, rate = bytes(self._head), 12, 0
        while at + 8 <= len(head):
            name, length = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
            at += 8
            if name == b"fmt " and at + 12 <= len(head):
                rate = int.from_bytes(head[at + 8 : at + 12], "little")
            if name == b"data" and rate:
                return self._sound(length, self._size - at) / rate
            at += length + length % 2
        raise BackendProtocolError(f"backend {self._backend} made a WAV that cannot be read")

    def _sound(self, told: int, there: int) -> int:
        if not told or not there:
            raise EmptyResult(f"backend {self._backend} made a recording without sound")
        if there < told < _STREAMED:
            raise BackendProtocolError(f"backend {self._backend} made a WAV that is cut short")
        return min(told, there)


def audio_type(head: bytes | bytearray) -> str | None:
    """Return the media type of a recording that begins like this; None for anything else."""
    for at, magic, kind in (
        (8, b"WAVE", "audio/wav"),
        (0, b"fLaC", "audio/flac"),
        (0, b"OggS", "audio/ogg"),
        (0, b"ID3", "audio/mpeg"),
        (4, b"ftyp", "audio/mp4"),
        (0, _WEBM, "audio/webm"),
    ):
        if head[at : at + len(magic)] == magic:
            return kind
    if len(head) < 2 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    return "audio/mpeg" if head[1] & 0xE0 == 0xE0 and head[1] & 0x06 else None


class Film:
    """A film as it comes; `media_type` is known once it is complete."""

    def __init__(self, backend: str) -> None:
        self.media_type = "video/mp4"
        self._backend = backend
        self._start = b""
        self._names: set[bytes] = set()
        self._boxes = 0
        self._header = bytearray()
        self._left: float = 0  # bytes that the present box still has; infinitely many in some

    def feed(self, piece: bytes) -> None:
        """Look at the next bytes; walk over the boxes that they hold."""
        self._start += piece[: max(8 - len(self._start), 0)]
        if self._start.startswith(_WEBM):
            return
        at = 0
        while at < len(piece):
            if self._left:
                step = min(self._left, len(piece) - at)
                self._left -= step
                at += int(step)
            else:
                self._header.append(piece[at])
                at += 1
                self._enter()

    def complete(self) -> None:
        """Judge it, now that all of it has come.

        Raises:
            EmptyResult: there is nothing.
            BackendProtocolError: it is no film, or cut short.

        """
        if not self._start:
            raise EmptyResult(f"backend {self._backend} made an empty film")
        if self._start.startswith(_WEBM):
            self.media_type = "video/webm"
            return
        if self._start[4:] != b"ftyp":
            raise BackendProtocolError(f"backend {self._backend} answered with what is no film")
        if self._header or self._left not in (0, inf) or not {b"moov", b"mdat"} <= self._names:
            raise BackendProtocolError(f"backend {self._backend} made a film that is cut short")

    def _enter(self) -> None:
        """Open the next box once its header is here: a length, a name, perhaps a longer length."""
        if len(self._header) < 8:
            return
        length, name = struct.unpack_from(">I4s", self._header)
        if length == 1:
            if len(self._header) < 16:
                return
            (length,) = struct.unpack_from(">Q", self._header, 8)
        size = len(self._header)
        self._boxes += 1
        if 0 < length < size or self._boxes > MAX_BOXES:
            raise BackendProtocolError(f"backend {self._backend} made a film that cannot be read")
        self._left = length - size if length else inf
        self._names.add(name)
        self._header.clear()
