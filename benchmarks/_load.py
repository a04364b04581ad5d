"""Callers who ask one thing over and over, each on a connection of its own: raw asyncio.

Everything that costs time and is not the server's (reading, checking) happens between one answer
and the next question, or once after all.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_PATIENCE_S = 60.0
_PAUSE_S = 0.05
_LAST = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how a whole answer is told from a broken one.

    Attributes:
        path: where it is posted to.
        body: JSON.
        whole: whether the body of an answer, without the chunks, is as it should be.
        mark: what the first piece of a streamed answer holds.
        status: the status of a good answer.

    """

    path: str
    body: bytes
    whole: Callable[[bytes], bool]
    mark: bytes = b""
    status: bytes = b"200"


@dataclass(slots=True)
class Outcome:
    """What came of it; times in seconds."""

    seconds: float = 0.0
    taken: list[float] = field(default_factory=list[float])
    to_first: list[float] = field(default_factory=list[float])
    failed: int = 0
    complaint: str = ""

    @property
    def done(self) -> int:
        """How many answers were whole."""
        return len(self.taken)

    @property
    def rate(self) -> float:
        """Whole answers a second."""
        return self.done / self.seconds

    @property
    def p50(self) -> float:
        """The median from question to end; not a number when nothing came."""
        return statistics.median(self.taken) if self.taken else float("nan")

    @property
    def first_p50(self) -> float:
        """The median from question to the first piece."""
        return statistics.median(self.to_first) if self.to_first else float("nan")

    def fail(self, why: str) -> None:
        """Count a failure; the first one says why."""
        self.failed += 1
        self.complaint = self.complaint or why


async def ask(
    url: str,
    question: Question,
    *,
    callers: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> Outcome:
    """Have so many callers ask for so long, each of them at least once."""
    where = urlsplit(url)
    assert where.hostname is not None
    assert where.port is not None
    head = [
        f"POST {question.path} HTTP/1.1",
        f"Host: {where.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(question.body)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    request = "\r\n".join([*head, "", ""]).encode("ascii") + question.body
    outcome, loop = Outcome(), asyncio.get_running_loop()
    began = time.perf_counter()
    until = began + seconds

    async def caller(host: str, port: int) -> None:
        asked = False
        while not asked or time.perf_counter() < until:
            asked = True
            line = _Line(question, request, until, outcome)
            try:
                await loop.create_connection(lambda: line, host, port)  # noqa: B023
                await line.gone
            except OSError as error:
                outcome.fail(str(error))
            if line.broken:
                await asyncio.sleep(_PAUSE_S)

    try:
        async with asyncio.timeout(seconds + _PATIENCE_S):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(callers):
                    tasks.create_task(caller(where.hostname, where.port))
    except TimeoutError:
        outcome.fail("no answer")
    outcome.seconds = time.perf_counter() - began
    return outcome


class _Line(asyncio.Protocol):
    """One connection: asks again as soon as it is answered."""

    def __init__(self, question: Question, request: bytes, until: float, outcome: Outcome) -> None:
        self._question = question
        self._request = request
        self._until = until
        self._outcome = outcome
        self._transport: asyncio.Transport | None = None
        self._answer = bytearray()
        self._length: int | None = None
        self._body_at = 0
        self._began = self._first = 0.0
        self._waits = False
        self.broken = False
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask(transport)

    def data_received(self, data: bytes) -> None:
        if self._question.mark and not self._first and self._question.mark in data:
            self._first = time.perf_counter()
        self._answer += data
        if not self._body_at:
            self._read_head()
        if self._body_at and self._complete():
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits:
            self.broken = True
            self._outcome.fail(f"the connection was lost: {exc or 'closed'}")
        if not self.gone.done():
            self.gone.set_result(None)

    def _ask(self, transport: asyncio.Transport) -> None:
        self._answer.clear()
        self._body_at, self._first, self._waits = 0, 0.0, True
        self._began = time.perf_counter()
        transport.write(self._request)

    def _read_head(self) -> None:
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return
        self._body_at = end + 4
        head = bytes(self._answer[:end]).lower()
        _, given, rest = head.partition(b"\r\ncontent-length:")
        self._length = int(rest.partition(b"\r\n")[0]) if given else None

    def _complete(self) -> bool:
        if self._length is None:
            return self._answer.endswith(_LAST)
        return len(self._answer) - self._body_at >= self._length

    def _finish(self) -> None:
        now = time.perf_counter()
        self._waits = False
        body = bytes(self._answer[self._body_at :])
        body = body if self._length is not None else _dechunked(body)
        if bytes(self._answer[9:12]) == self._question.status and self._question.whole(body):
            self._outcome.taken.append(now - self._began)
            if self._first:
                self._outcome.to_first.append(self._first - self._began)
        else:
            self.broken = True
            status = self._answer[:60].partition(b"\r\n")[0]
            self._outcome.fail((status + b" " + body[:200]).decode("utf-8", "replace"))
        assert self._transport is not None
        closing = b"connection: close" in self._answer[: self._body_at].lower()
        if closing or self.broken or time.perf_counter() >= self._until:
            self._transport.close()
        else:
            self._ask(self._transport)


def _dechunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].partition(b";")[0], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
