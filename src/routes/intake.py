"""The intake: how many bytes of large bodies are read and checked at once.

A picture takes several times its size while it is read, parsed and decoded. So large bodies come in
one after another, as many as fit; the others stay unread, which makes their senders wait, and get
their turn in the order in which they came. A body has its share of the room until the application
waits for its job, which shows in its asking for what comes after the body, or begins to answer.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..models.errors import QueueFull
from .errors import answer, plain

LARGE = 256 * 1024
_GONE: Message = {"type": "http.disconnect"}


class Intake:
    """Reads at most `room` bytes of large bodies at once, and none that trickles.

    Args:
        app: what is behind it.
        room: bytes of bodies larger than 256 KiB.
        longest: bytes that a body may have which does not declare its length.
        wait_s: how long a body may wait for its turn; then the answer is 503.
        pace_bytes: how much of any body must arrive, unless it ends, in each `pace_s`.
        pace_s: seconds of waiting for it; when they are over, the answer is 408.
        streamed: paths at which no body is held, so that it needs no room.

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        room: int = 64 * 2**20,
        longest: int = 32 * 2**20,
        wait_s: float = 60.0,
        pace_bytes: int = 64 * 1024,
        pace_s: float = 30.0,
        streamed: Collection[str] = (),
    ) -> None:
        self._app = app
        self.room = Room(room)
        self.longest = longest
        self.wait_s = wait_s
        self.pace_bytes = pace_bytes
        self.pace_s = pace_s
        self.streamed = streamed

    def __repr__(self) -> str:
        return f"<Intake [{self.room}]>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, its body in its turn."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            exchange.leave()


class Room:
    """So many bytes, given out in shares in the order in which they were asked for."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __str__(self) -> str:
        return f"{self._free:,} of {self._size:,} bytes free, {len(self._waiting)} waiting"

    async def take(self, size: int) -> int:
        """Wait for a share and return it; what is larger than the room takes all of it."""
        share = min(size, self._size)
        if not self._waiting and share <= self._free:
            self._free -= share
            return share
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((share, turn))
        try:
            await turn
        except BaseException:
            if turn.cancelled():
                self._admit()
            else:
                self.give_back(share)  # its turn came as it was leaving
            raise
        return share

    def give_back(self, share: int) -> None:
        """Give a share to those who wait."""
        self._free += share
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            share, turn = self._waiting[0]
            if not turn.cancelled():
                if share > self._free:
                    return
                self._free -= share
                turn.set_result(None)
            self._waiting.popleft()


class _Exchange:
    """One request and its answer."""

    def __init__(self, intake: Intake, scope: Scope, receive: Receive, send: Send) -> None:
        self._intake = intake
        self._scope = scope
        self._receive = receive
        self._send = send
        self._declared = declared_length(dict(scope["headers"]))
        self._share = 0
        self._size = 0
        self._arrived = 0
        self._patience = intake.pace_s
        self._complete = False
        self._answered = False
        self._refused = False

    async def receive(self) -> Message:
        """Hand on what comes next; to the application a refused caller has gone."""
        if self._refused:
            return _GONE
        if self._complete:
            self.leave()
            return await self._receive()
        if not await self._come_in():
            return await self._refuse(_busy(self._intake.wait_s))
        message = await self._next()
        return message if message is not None else await self._refuse(_slow())

    async def send(self, message: Message) -> None:
        """Hand on the answer, unless there was one already."""
        if not self._refused:
            self._answered = True
            self.leave()
            await self._send(message)

    def leave(self) -> None:
        """Give the share back; harmless when there is none."""
        if self._share:
            self._intake.room.give_back(self._share)
            self._share = 0

    async def _come_in(self) -> bool:
        """Wait for a share if the body is large; say whether it may be read."""
        if self._share or max(self._declared, self._size) <= LARGE:
            return True
        if self._scope["path"] in self._intake.streamed:
            return True
        try:
            async with asyncio.timeout(self._intake.wait_s):
                self._share = await self._intake.room.take(self._declared or self._intake.longest)
        except TimeoutError:
            return False
        return True

    async def _next(self) -> Message | None:
        """Wait for the next piece of the body; None if it does not come."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._patience):
                message = await self._receive()
        except TimeoutError:
            return None
        self._patience -= clock() - began
        arrived = len(message.get("body", b""))
        self._size += arrived
        self._arrived += arrived
        if self._arrived >= self._intake.pace_bytes:
            self._arrived, self._patience = 0, self._intake.pace_s
        self._complete = not message.get("more_body", False)
        return message

    async def _refuse(self, response: Response) -> Message:
        self.leave()
        if not self._answered:
            self._refused = True
            await response(self._scope, self._receive, self._send)
        return _GONE


def declared_length(headers: Mapping[bytes, bytes]) -> int:
    """Return how long a body is said to be; 0 if nothing sensible is said."""
    length = headers.get(b"content-length", b"")
    return int(length) if length.isdigit() and len(length) < 20 else 0


def _busy(waited: float) -> Response:
    return answer(
        QueueFull(
            f"too many large bodies are being read; this one waited for {waited:g} s",
            retry_after=5.0,
        )
    )


def _slow() -> Response:
    response = plain(408, "the body came too slowly")
    response.headers["Connection"] = "close"  # nobody wants the rest of it
    return response
