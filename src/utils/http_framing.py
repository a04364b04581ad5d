"""HTTP/1.1 as bytes: the head of a request, that of an answer, and where the answer ends. Pure.

It is as strict as h11, and tests compare the two; but it takes what has come in one step rather
than one for each line and each chunk, and knows nothing that a client of one server does not need.
"""

import re
from typing import NamedTuple

import httpx2

_LINE_BYTES = 4096
_TRAILER_BYTES = 64 * 1024
_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_LINE_END = b"\r\n"
_HEAD_BYTES = 64 * 1024
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LINES = re.compile(rb"\r?\n")
_STATUS = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
_FIELD = re.compile(rb"([-!#$%&'*+.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")


class Head(NamedTuple):
    """The head of an answer; names of fields are in small letters."""

    status: int
    version: bytes
    reason: bytes
    headers: list[tuple[bytes, bytes]]


def request_head(request: httpx2.Request) -> bytes:
    """Write the head of a request.

    Raises:
        httpx2.LocalProtocolError: something in it would not stay in its place.

    """
    lines = [
        b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path),
        *(b"%b: %b" % field for field in request.headers.raw),
        b"\r\n",
    ]
    head = b"\r\n".join(lines)
    breaks = len(lines)
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise httpx2.LocalProtocolError("a field of the head would not stay in its line")
    if lines[0].count(b" ") != 2:
        raise httpx2.LocalProtocolError("the first line of the head must have three words")
    return head


def read_head(data: bytes) -> tuple[Head, bytes] | None:
    """Read the head of an answer, and return what is behind it; None if more has to come.

    Raises:
        httpx2.RemoteProtocolError: it is none, or far too long.

    """
    end = _HEAD_END.search(data)
    if end is None or end.start() > _HEAD_BYTES:
        if len(data) > _HEAD_BYTES:
            raise httpx2.RemoteProtocolError("the head of the answer is too long")
        return None
    first, *lines = _LINES.split(data[: end.start()])
    status = _STATUS.fullmatch(first)
    if status is None:
        raise httpx2.RemoteProtocolError("illegal status line")
    if status[2] == b"101":
        raise httpx2.RemoteProtocolError("the protocol was switched, which nobody asked for")
    headers: list[tuple[bytes, bytes]] = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise httpx2.RemoteProtocolError("illegal header line")
        headers.append((field[1].lower(), field[2]))
    head = Head(int(status[2]), status[1], status[3] or b"", headers)
    return head, data[end.end() :]


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


def framing_of(head: Head, method: str) -> tuple[Framing, bool]:
    """Tell how a body is framed, and whether its connection may be used again (RFC 9112, 6.3).

    Raises:
        httpx2.RemoteProtocolError: what the head says of it does not fit together.

    """
    lengths: set[bytes] = set()
    chunked = False
    keep = head.version >= b"1.1"
    for name, value in head.headers:
        if name == b"content-length":
            lengths.update(part.strip() for part in value.split(b","))
        elif name == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise httpx2.RemoteProtocolError("unknown transfer-encoding")
            chunked = True
        elif name == b"connection" and b"close" in re.split(rb"[,\s]+", value.lower()):
            keep = False
    length = _length(lengths) if lengths else None
    if method == "HEAD" or head.status in (204, 304):
        return Counted(0), keep
    if chunked:
        return Chunked(), keep and length is None
    if length is not None:
        return Counted(length), keep
    return UntilClosed(), False


def _length(told: set[bytes]) -> int:
    if len(told) > 1:
        raise httpx2.RemoteProtocolError("conflicting content-length headers")
    [length] = told
    if not length.isdigit() or len(length) > 20:
        raise httpx2.RemoteProtocolError("bad content-length")
    return int(length)


def _incomplete(what: str) -> httpx2.RemoteProtocolError:
    return httpx2.RemoteProtocolError(
        f"peer closed connection without sending complete message body ({what})"
    )
