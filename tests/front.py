"""What stands between the manager and a simulator, and can go wrong in every way a server can.

It passes requests on, one for each connection, until it is told otherwise: to answer by a script,
to freeze, to close its port, to be deaf. It writes down every call, as the wire saw it.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ssl import SSLContext

from .utils.raw_server import Act, Heard

Step = bytes | float | Act
"""Bytes to send, seconds to wait, or something else to do; without an act the connection ends."""

Script = Iterable[Step]


@dataclass
class Call:
    """One request for work. Times are the loop's."""

    number: int
    job_id: str
    path: str
    at: float
    scripted: bool = False
    sent: int = 0
    """How many bytes of an answer went out."""
    left: float | None = None
    """When the manager hung up before all was said."""
    ended: float | None = None


class Front:
    """Listens for as long as it is open; `script` says who gets which answer."""

    def __init__(self, upstream: tuple[str, int], tls: SSLContext | None = None) -> None:
        self.calls: list[Call] = []
        self.script: Callable[[Heard], Script | None] = lambda _: None
        self.tls = tls
        self.port = 0
        self._upstream = upstream
        self._listener: asyncio.Server | None = None
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._deaf: list[socket.socket] = []

    def __repr__(self) -> str:
        return f"<Front :{self.port} [{len(self.calls)} calls]>"

    def open_calls(self, job_id: str) -> list[Call]:
        """Return the calls of a job that the manager still listens to."""
        return [c for c in self.calls if c.job_id == job_id and c.ended is None]

    # What can be done to it

    async def open(self) -> None:
        """Listen; again on the same port, if it was open before."""
        for each in self._deaf:
            each.close()
        self._deaf.clear()
        self._listener = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self.tls
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    def close_port(self) -> None:
        """Refuse new connections; those that exist go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def reset_everyone(self) -> None:
        """Cut every connection by a TCP reset."""
        for writer in list(self._connections.values()):
            _reset(writer)

    def be_deaf(self) -> None:
        """Let the kernel drop whoever wants to connect: its queue is full, and nobody accepts."""
        self.close_port()
        listener = socket.create_server(("127.0.0.1", self.port), backlog=0)
        self._deaf.append(listener)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._deaf.append(filler)

    def freeze(self) -> None:
        """Stand still, as a process does that was stopped; its kernel goes on accepting."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Go on as if no time had passed."""
        self._thawed.set()

    async def close(self) -> None:
        """End everything."""
        self.close_port()
        for each in self._deaf:
            each.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    # One connection

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._connections.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        call: Call | None = None
        try:
            heard = await _hear(reader)
            await self._thawed.wait()
            call = Call(len(self.calls), _job_of(heard), heard.path, loop.time())
            if heard.line.startswith("POST"):
                self.calls.append(call)
            await _unless_left(reader, self._answer(heard, writer, call), call)
        except (ConnectionError, asyncio.IncompleteReadError):
            if call is not None:
                call.left = call.left or loop.time()
        finally:
            if call is not None:
                call.ended = loop.time()
            writer.close()

    async def _answer(self, heard: Heard, writer: asyncio.StreamWriter, call: Call) -> None:
        script = self.script(heard)
        if script is None:
            await self._pass_on(heard, writer, call)
        else:
            call.scripted = True
            await _play(script, writer, call)

    async def _pass_on(self, heard: Heard, writer: asyncio.StreamWriter, call: Call) -> None:
        try:
            answers, asks = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(writer)
            return
        try:
            asks.write(_marked(heard, call))
            while data := await answers.read(65_536):
                await self._thawed.wait()
                await _say(data, writer, call)
        except ConnectionError:
            _reset(writer)
        finally:
            asks.close()


async def _unless_left(reader: asyncio.StreamReader, answer: Awaitable[None], call: Call) -> None:
    """Answer, until the other side hangs up."""
    gone = asyncio.ensure_future(reader.read(1))
    work = asyncio.ensure_future(answer)
    try:
        await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        else:
            call.left = asyncio.get_running_loop().time()
    finally:
        for each in (gone, work):
            each.cancel()
        await asyncio.gather(gone, work, return_exceptions=True)


async def _hear(reader: asyncio.StreamReader) -> Heard:
    head = Heard((await reader.readuntil(b"\r\n\r\n")).decode().rstrip(), b"")
    return Heard(head.head, await reader.readexactly(int(head.header("content-length") or 0)))


async def _say(data: bytes, writer: asyncio.StreamWriter, call: Call) -> None:
    writer.write(data)
    await writer.drain()
    call.sent += len(data)


async def _play(script: Script, writer: asyncio.StreamWriter, call: Call) -> None:
    for step in script:
        match step:
            case bytes():
                await _say(step, writer, call)
            case int() | float():
                await asyncio.sleep(step)
            case Act.RESET:
                _reset(writer)
            case Act.HANG | Act.KEEP:
                await asyncio.Event().wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _job_of(heard: Heard) -> str:
    return (heard.header("x-correlation-id") or "").removeprefix("chatcmpl-")


def _marked(heard: Heard, call: Call) -> bytes:
    """Write a request that says which call it is, and that its connection is for it alone."""
    lines = [
        line
        for line in heard.head.split("\r\n")
        if not line.lower().startswith(("connection:", "x-correlation-id:"))
    ]
    more = ["Connection: close", f"X-Correlation-ID: {call.job_id}#{call.number}"]
    return "\r\n".join([*lines, *more, "", ""]).encode() + heard.body
