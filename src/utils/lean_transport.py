"""HTTP/1.1 over plain asyncio, for the one server that all work goes to.

It does what httpx2's own transport does, with far less work for each call: `http_framing.py` knows
the protocol, and nothing but the socket is between the loop and whoever waits. There is no number
of connections to wait for, so nothing can be lost by leaving.
"""

import asyncio
import logging
import os
import select
import sys
from asyncio.trsock import TransportSocket
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from ipaddress import ip_address
from socket import SOCK_STREAM
from ssl import SSLContext, SSLError
from typing import cast

import httpx2

from .http_framing import Framing, Head, framing_of, read_head, request_head

_log = logging.getLogger("inference_manager.localai")

_KEPT = 32  # idle connections to one server
_KEPT_S = 60.0  # LocalAI closes them after 120 s
_PIECE = 64 * 1024  # bytes that are read or written in one go
_NEXT_ADDRESS_S = 0.25

Origin = tuple[str, str, int | None]


class LeanTransport(httpx2.AsyncBaseTransport):
    """Sends requests to where they go, over connections that are used again.

    Of the timeouts of a request only `connect` counts; other waits are for the caller to bound.

    Args:
        verify: whom to trust, as httpx2 takes it.

    """

    def __init__(self, verify: SSLContext | bool = True) -> None:
        self._tls = httpx2.create_ssl_context(verify, trust_env=False)
        self._tls.set_alpn_protocols(["http/1.1"])
        self._buffer = memoryview(bytearray(_PIECE))  # all connections read into it, one at a time
        self._idle: dict[Origin, list[_Connection]] = {}
        self._connections: set[_Connection] = set()
        self._closed = False

    def __repr__(self) -> str:
        idle = sum(map(len, self._idle.values()))
        return f"<LeanTransport [{len(self._connections)} connections, {idle} idle]>"

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask, and return an answer whose head has come; its `stream` is an `AnswerBody`.

        Raises:
            httpx2.TransportError: as httpx2's own transport does.
            SSLError: the server broke off a handshake that seemed to be over.
            RuntimeError: this is closed.

        """
        head = request_head(request)
        if "transfer-encoding" in request.headers:
            raise httpx2.LocalProtocolError("the length of a request must be known")
        connection = await self._connection(request)
        content = cast("httpx2.AsyncByteStream", request.stream)
        body = AnswerBody(connection, request.method)
        try:
            await connection.ask(head, content, body)
            answer = await body.head()
        except BaseException:
            body.abandon()
            raise
        return httpx2.Response(
            answer.status,
            headers=answer.headers,
            stream=body,
            request=request,
            extensions={
                "http_version": b"HTTP/" + answer.version,
                "reason_phrase": answer.reason,
            },
        )

    async def aclose(self) -> None:
        """Break all connections off, and wait until their sockets are closed."""
        self._closed = True
        for connection in self._connections:
            connection.abort()
        if self._connections:
            await asyncio.wait([connection.gone for connection in self._connections])

    async def _connection(self, request: httpx2.Request) -> "_Connection":
        """Take the connection that was used last, or make one."""
        if self._closed:
            raise RuntimeError("the transport is closed")
        origin = (request.url.scheme, request.url.raw_host.decode("ascii"), request.url.port)
        idle = self._idle.setdefault(origin, [])
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
            connection.abort()
        return await self._connect(origin, request.extensions.get("timeout", {}).get("connect"))

    async def _connect(self, origin: Origin, seconds: float | None) -> "_Connection":
        _, host, _ = origin
        try:
            async with asyncio.timeout(seconds):
                addresses = [host] if _is_address(host) else await _addresses(host)
                return await _first([self._reach(origin, address) for address in addresses])
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time") from error
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError(str(error)) from error

    async def _reach(self, origin: Origin, address: str) -> "_Connection":
        scheme, host, port = origin
        secure = scheme == "https"
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._buffer, self._connections, self._idle[origin]),
            address,
            port or (443 if secure else 80),
            ssl=self._tls if secure else None,
            server_hostname=host if secure else None,
        )
        if self._closed:
            connection.abort()
            raise RuntimeError("the transport is closed")
        _log.debug("a new connection to %s", host)
        return connection


class AnswerBody(httpx2.AsyncByteStream):
    """What is said on a connection in answer to one request."""

    def __init__(self, connection: "_Connection", method: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._method = method
        self._unread = b""  # the beginning of a head
        self._head: Head | None = None
        self._framing: Framing | None = None
        self._keep = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._error: Exception | None = None
        self._over = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0

    # For whoever waits for the answer

    async def head(self) -> Head:
        """Wait for the head."""
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self.wait()
        return self._head

    async def read(self, patience: float | None = None) -> bytes:
        """Return what has come, or wait for it; nothing when that was all.

        Raises:
            TimeoutError: nothing has come for `patience` seconds.
            httpx2.TransportError: the answer is cut short, or is no HTTP.

        """
        deadline = None
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._over:
                return b""
            if deadline is None and patience is not None:
                deadline = self._loop.time() + patience
            await self.wait(deadline)
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if not self._over:
            self._connection.go_on_reading()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    def abandon(self) -> None:
        """Break off what is not complete; a connection that has served its turn is not touched."""
        self._stop_timer()
        if not self._over:
            self._connection.abort()

    async def aclose(self) -> None:
        """Break off what is not complete; its socket is closed then."""
        if not self._over:
            self.abandon()
            await asyncio.sleep(0)

    async def wait(self, deadline: float | None = None) -> None:
        """Wait until something happens.

        One timer serves all waits of an answer: it is set anew only when it was due before the
        last of them is, or is too late for a shorter patience.

        Raises:
            TimeoutError: nothing has happened until then, by the clock of the loop.

        """
        if deadline is None:
            self._stop_timer()
        else:
            self._deadline = deadline
            if self._timer is None or self._timer.when() > deadline:
                self._stop_timer()
                self._timer = self._loop.call_at(deadline, self._look)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # For the connection

    @property
    def refused(self) -> bool:
        """Whether there is no use in saying more."""
        return self._over or (self._head is not None and self._head.status >= 300)

    def feed(self, data: bytes) -> None:
        """Take what came."""
        try:
            if self._framing is None:
                data = self._read_head(data)
        except httpx2.RemoteProtocolError as error:
            self._break_off(error)
        else:
            if self._framing is not None:
                self._read_body(self._framing, data)
        self.wake()

    def end(self, error: Exception | None) -> None:
        """Take note that nothing more will come."""
        if self._over:
            return
        if error is None and self._framing is None:
            error = httpx2.RemoteProtocolError("Server disconnected without sending a response.")
        elif error is None and self._framing is not None:
            error = self._framing.cut()
        self._end(error)
        self.wake()

    def wake(self) -> None:
        """Tell whoever waits that something has happened."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read_head(self, data: bytes) -> bytes:
        """Read what there is of the head; return what is left behind it."""
        data = self._unread + data
        while (read := read_head(data)) is not None:
            head, data = read
            if head.status >= 200:
                self._head = head
                self._framing, self._keep = framing_of(head, self._method)
                return data
        self._unread = data
        return b""

    def _read_body(self, framing: Framing, data: bytes) -> None:
        if content := framing.feed(data):
            self._pieces.append(content)
            self._size += len(content)
        if framing.error is not None:
            self._break_off(framing.error)
        elif framing.done:
            self._end(None)
            self._connection.finish(keep=self._keep and not framing.surplus)
        elif self._size > _PIECE:
            self._connection.stop_reading()

    def _break_off(self, error: httpx2.RemoteProtocolError) -> None:
        self._end(error)
        self._connection.abort()

    def _end(self, error: Exception | None) -> None:
        self._over = True
        self._error = error
        self._stop_timer()

    def _look(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() >= self._deadline:
            self._waiter.set_exception(TimeoutError())
        else:
            self._timer = self._loop.call_at(self._deadline, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Connection(asyncio.BufferedProtocol):
    """One connection, and the exchange on it if there is one.

    Args:
        buffer: what is read into.
        living: holds this from the moment it is made until its socket is closed.
        idle: holds this while it waits for another request; the last one was used last.

    """

    def __init__(
        self, buffer: memoryview, living: "set[_Connection]", idle: "list[_Connection]"
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.gone = self._loop.create_future()
        self._buffer = buffer
        self._living = living
        self._idle = idle
        self._transport: asyncio.Transport
        self._body: AnswerBody | None = None
        self._sending = False
        self._full = False
        self._paused = False
        self._idle_since = 0.0

    def __repr__(self) -> str:
        state = "idle" if self._body is None else "sending" if self._sending else "receiving"
        return f"<_Connection [{state}]>"

    async def ask(self, head: bytes, content: AsyncIterable[bytes], body: AnswerBody) -> None:
        """Send a request, or as much of it as the server wants to hear."""
        self._body = body
        self._sending = True
        if self.gone.done():
            body.end(None)
        unsent = bytearray(head)
        async for piece in content:
            if len(unsent) + len(piece) > _PIECE:
                await self._send(unsent, body)
                await self._send(piece, body)
                unsent = bytearray()
            else:
                unsent += piece
            if body.refused:
                return
        await self._send(unsent, body)
        self._sending = False

    def finish(self, *, keep: bool) -> None:
        """End the exchange; be there for another one, if that may be."""
        self._body = None
        if not keep or self._sending or self._full or self._paused:
            self.abort()
            return
        self._idle_since = self._loop.time()
        self._idle.append(self)
        while len(self._idle) > _KEPT or self._idle[0].expired():
            self._idle.pop(0).abort()

    def expired(self) -> bool:
        """Whether nothing was asked for so long that the server may be about to hang up."""
        return self._loop.time() - self._idle_since >= _KEPT_S

    def usable(self) -> bool:
        """Whether the server seems to be there still: it has said nothing since."""
        return not self.expired() and not _readable(self._transport.get_extra_info("socket"))

    def abort(self) -> None:
        """Close the socket at once."""
        self._transport.abort()

    def stop_reading(self) -> None:
        """Leave to the kernel, and by and by to the server, what nobody takes."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def go_on_reading(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    async def _send(self, data: bytes | bytearray, body: AnswerBody) -> None:
        """Hand over bytes piece by piece, no faster than they go."""
        view = memoryview(data)
        for at in range(0, len(data), _PIECE):
            if at:
                await asyncio.sleep(0)
            while self._full and not body.refused:
                await body.wait()
            if body.refused:
                return
            self._transport.write(view[at : at + _PIECE])

    # For the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._living.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._take(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> None:
        self._lose(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._body is not None and isinstance(exc, ConnectionError):
            self._take(self._last_words())
        self._lose(exc)
        self._living.discard(self)
        self.gone.set_result(None)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._body is not None:
            self._body.wake()

    def _take(self, data: bytes) -> None:
        if self._body is None:  # nobody has asked for anything
            self._lose(None)
            self.abort()
        elif data:
            self._body.feed(data)

    def _lose(self, exc: Exception | None) -> None:
        if self._body is None:
            if self in self._idle:
                self._idle.remove(self)
        elif exc is None or isinstance(exc, SSLError):
            self._body.end(exc)
        else:
            kind = httpx2.WriteError if self._sending else httpx2.ReadError
            self._body.end(kind(str(exc)))

    def _last_words(self) -> bytes:
        """Read what the server said before it hung up on a request that it would not hear."""
        if self._transport.get_extra_info("sslcontext") is not None:
            return b""
        try:
            return os.read(self._transport.get_extra_info("socket").fileno(), _PIECE)
        except OSError:
            return b""


async def _first(attempts: Iterable[Coroutine[None, None, _Connection]]) -> _Connection:
    """Return the first connection that is made (RFC 8305); no other is left open.

    An attempt begins when the one before has failed, or has not succeeded for a moment. The loop's
    own way to do so may lose a socket when its caller leaves.

    Raises:
        OSError: none could be made; this is why the first one could not.

    """
    waiting, running = deque(attempts), list[asyncio.Task[_Connection]]()
    errors: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                running.append(asyncio.create_task(waiting.popleft()))
            moment = _NEXT_ADDRESS_S if waiting else None
            done, _ = await asyncio.wait(
                running, timeout=moment, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                running.remove(task)
                if (error := task.exception()) is None:
                    return task.result()
                errors.append(error)
        raise errors[0]
    finally:
        for attempt in waiting:
            attempt.close()
        for task in running:
            task.cancel()
            task.add_done_callback(_drop)


def _drop(task: "asyncio.Task[_Connection]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


async def _addresses(host: str) -> Iterable[str]:
    """Look a name up; the best address comes first."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=SOCK_STREAM)
    return dict.fromkeys(str(address[0]) for *_, address in found)


def _is_address(host: str) -> bool:
    """Whether a host has just one address: itself."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _readable(socket: TransportSocket) -> bool:
    """Whether there is something to read, be it the end."""
    if sys.platform == "win32":
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))
