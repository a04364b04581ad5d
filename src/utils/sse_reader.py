"""Server-sent events from bytes, however they were cut up on the way. Pure."""

import re
from collections.abc import Iterator

from ..models.errors import BackendProtocolError

_LINE_END = re.compile(rb"\r\n|\n|\r")


class SSEReader:
    """Takes bytes as they come, yields the data of each event that is complete.

    Lines may end with LF, CR or CRLF, a byte order mark and comments are skipped, `data:` may be
    followed by a space, and several data lines make one event, as the HTML standard has it.
    Names, ids and retry times of events are of no use to us and are dropped. How the bytes are
    split never matters: lines are cut before they are decoded.
    """

    def __init__(self, *, limit: int = 4 * 1024 * 1024) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: list[str] = []
        self._size = 0
        self._at_start = True
        self._after_cr = False

    def __repr__(self) -> str:
        return f"<SSEReader [{len(self._line)} bytes of a line, {len(self._data)} data lines]>"

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the events that these bytes complete. Consume it to its end before the next feed.

        Raises:
            BackendProtocolError: a line, or an event of several, exceeds the limit.

        """
        if not data:
            return
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r") if data else False
        *lines, rest = _LINE_END.split(data)
        for line in lines:
            self._extend(line)
            complete = bytes(self._line)
            self._line.clear()
            yield from self._end_of_line(complete)
        self._extend(rest)

    def close(self) -> Iterator[str]:
        """Yield the event that was under way when the stream ended, as if it had been complete.

        The standard would drop it. Whoever reads a protocol with an end mark may want to know
        whether it was just the mark's own line end that got lost.
        """
        complete = bytes(self._line)
        self._line.clear()
        yield from self._end_of_line(complete)
        yield from self._end_of_line(b"")

    def _extend(self, piece: bytes) -> None:
        if len(self._line) + len(piece) + self._size > self._limit:
            raise BackendProtocolError(f"an event of the stream exceeds {self._limit:,} bytes")
        self._line += piece

    def _end_of_line(self, line: bytes) -> Iterator[str]:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            if self._data:
                event = "\n".join(self._data)
                self._data.clear()
                self._size = 0
                yield event
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._size += len(line)
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
