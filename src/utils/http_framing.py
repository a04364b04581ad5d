"""Where the body of an HTTP/1.1 answer ends, and what in it is content. Pure.

h11 reads heads; bodies are cut here, in one step for all that has come rather than one for each
chunk and each line.
"""

import re

import h11
import httpx2

_LINE_BYTES = 4096
_TRAILER_BYTES = 64 * 1024
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_LINE_END = b"\r\n"


class Counted:
    """A body whose length was told.

    Attributes, as of the other ways:
        done: whether all of the body has come.
        surplus: whether more has come than that.
        error: what is wrong with what has come; nothing is read after it.

    """

    def __init__(self, length: int) -> None:
        self._length = self._missing = length
        self.done = length == 0
        self.surplus = False
        self.error: httpx2.RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the content in the bytes that came, however they were cut up on the way."""
        if len(data) > self._missing:
            self.surplus = True
            data = data[: self._missing]
        self._missing -= len(data)
        self.done = self._missing == 0
        return data

    def cut(self) -> httpx2.RemoteProtocolError | None:
        """Tell what it means that nothing more will come."""
        come = self._length - self._missing
        return _incomplete(f"received {come} bytes, expected {self._length}")


class Chunked:
    """A body in chunks, each with its size before it; extensions and trailers are dropped."""

    def __init__(self) -> None:
        self._line = b""  # the beginning of a line that is not complete
        self._missing = 0  # bytes of a chunk, and of the line end after it
        self._trailer: int | None = None  # its size, as soon as it has begun
        self.done = False
        self.surplus = False
        self.error: httpx2.RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the content in the bytes that came, however they were cut up on the way."""
        if self._line:
            data = self._line + data
            self._line = b""
        content: list[bytes] = []
        at, size = 0, len(data)
        while at < size and not self.done and self.error is None:
            if self._missing > len(_LINE_END):
                piece = data[at : at + self._missing - len(_LINE_END)]
                content.append(piece)
                at += len(piece)
                self._missing -= len(piece)
            elif self._missing:
                end = data[at : at + self._missing]
                if end != _LINE_END[-self._missing :][: len(end)]:
                    self.error = httpx2.RemoteProtocolError("malformed end of a chunk")
                at += len(end)
                self._missing -= len(end)
            else:
                at = self._after_line(data, at)
        self.surplus = at < size
        return content[0] if len(content) == 1 else b"".join(content)

    def cut(self) -> httpx2.RemoteProtocolError | None:
        """Tell what it means that nothing more will come."""
        return _incomplete("incomplete chunked read")

    def _after_line(self, data: bytes, at: int) -> int:
        """Read one line, of a size or of the trailer; return where the next thing begins."""
        end = data.find(_LINE_END, at)
        if (len(data) if end < 0 else end) - at > _LINE_BYTES:
            self.error = httpx2.RemoteProtocolError("a line between chunks is too long")
        elif end < 0:
            self._line = data[at:]
            return len(data)
        elif self._trailer is not None:
            self._trailer += end - at
            if self._trailer > _TRAILER_BYTES:
                self.error = httpx2.RemoteProtocolError("the trailer is too long")
            self.done = end == at
        elif (told := _SIZE.fullmatch(data, at, end)) is None:
            self.error = httpx2.RemoteProtocolError("illegal size of a chunk")
        elif length := int(told[1], 16):
            self._missing = length + len(_LINE_END)
        else:
            self._trailer = 0
        return end + len(_LINE_END)


class UntilClosed:
    """A body that ends with its connection."""

    done = surplus = False
    error: httpx2.RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        """Return the content in the bytes that came: all of them."""
        return data

    def cut(self) -> httpx2.RemoteProtocolError | None:
        """Tell what it means that nothing more will come: nothing bad."""
        return None


Framing = Counted | Chunked | UntilClosed


def framing_of(head: h11.Response, method: str) -> tuple[Framing, bool]:
    """Tell how a body is framed, and whether its connection may be used again (RFC 9112, 6.3)."""
    length: int | None = None
    chunked = False
    keep = head.http_version >= b"1.1"
    for name, value in head.headers:
        if name == b"content-length":
            length = int(value)  # h11 has seen to it that there is one, in digits
        elif name == b"transfer-encoding":
            chunked = True  # h11 lets no other pass
        elif name == b"connection" and b"close" in re.split(rb"[,\s]+", value.lower()):
            keep = False
    if method == "HEAD" or head.status_code in (204, 304):
        return Counted(0), keep
    if chunked:
        return Chunked(), keep and length is None
    if length is not None:
        return Counted(length), keep
    return UntilClosed(), False


def _incomplete(what: str) -> httpx2.RemoteProtocolError:
    return httpx2.RemoteProtocolError(
        f"peer closed connection without sending complete message body ({what})"
    )
