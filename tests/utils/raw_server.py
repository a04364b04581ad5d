"""A server that says exactly what it is told, byte by byte: what no HTTP server would send."""

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count
from ssl import SSLContext
from typing import cast


class Act(Enum):
    """What else a script can do but send bytes; without an act it closes the connection."""

    RESET = auto()
    HANG = auto()
    KEEP = auto()


Script = Sequence[bytes | Act | asyncio.Event]


@dataclass(frozen=True)
class Part:
    """One part of a multipart form."""

    head: str
    content: bytes


@dataclass(frozen=True)
class Heard:
    """One request, as it came in."""

    head: str
    body: bytes

    @property
    def line(self) -> str:
        return self.head.split("\r\n", 1)[0]

    @property
    def path(self) -> str:
        return self.line.split()[1]

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    @property
    def json(self) -> dict[str, object]:
        return cast("dict[str, object]", json.loads(self.body))

    @property
    def form(self) -> dict[str, Part]:
        kind, _, boundary = (self.header("content-type") or "").partition("; boundary=")
        assert kind == "multipart/form-data"
        parts: dict[str, Part] = {}
        for part in self.body.split(f"--{boundary}".encode())[1:-1]:
            head, _, content = part.decode("latin-1").partition("\r\n\r\n")
            name = re.search('name="([^"]*)"', head)
            assert name is not None
            parts[name[1]] = Part(head.strip(), content.removesuffix("\r\n").encode("latin-1"))
        return parts


@dataclass
class RawServer:
    url: str = ""
    heard: list[Heard] = field(default_factory=list[Heard])
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request has been heard."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client went away while a script was hanging."""


def reply(
    status: int | str, body: bytes | str | object = b"", *, keep: bool = False, **headers: str
) -> bytes:
    """Write a complete answer; a body that is no bytes and no text becomes JSON."""
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = {"content-type": "application/json", "content-length": str(len(body))}
    lines["connection"] = "keep-alive" if keep else "close"
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"


def chunk(data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(payload: object) -> bytes:
    return chunk(f"data: {json.dumps(payload)}\n\n")


def delta(content: object = None, reason: object = None, **more: object) -> bytes:
    """Write one event of a chat."""
    choice = {"index": 0, "finish_reason": reason, "delta": {"content": content, **more}}
    return event({"id": "u", "model": "m", "choices": [choice]})


DONE = chunk("data: [DONE]\n\n")


@asynccontextmanager
async def raw_server(
    *scripts: Script, tls: SSLContext | None = None, routes: Mapping[str, Script] | None = None
) -> AsyncGenerator[RawServer]:
    """Answer the n-th request by the n-th script, and all later ones by the last.

    A path that is among the `routes` has a script of its own. Where a script has an event, its
    server waits for it.
    """
    server = RawServer()
    own = routes or {}
    others = count()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while (heard := await _hear(reader)) is not None:
                script = own.get(heard.path) or scripts[min(next(others), len(scripts) - 1)]
                server.heard.append(heard)
                server.asked.set()
                if not await _play(script, reader, writer, server):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            server.left.set()
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hear(reader: asyncio.StreamReader) -> Heard | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    heard = Heard(head.rstrip(), b"")
    length = int(heard.header("content-length") or 0)
    return Heard(heard.head, await reader.readexactly(length))


async def _play(
    script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: RawServer
) -> bool:
    """Play a script; return whether the connection lives on."""
    for step in script:
        match step:
            case bytes():
                writer.write(step)
                await writer.drain()
                await asyncio.sleep(0)
            case asyncio.Event():
                await step.wait()
            case Act.HANG:
                await reader.read(1)  # comes back when the client is gone
                server.left.set()
                return False
            case Act.RESET:
                connection = writer.get_extra_info("socket")
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return False
            case Act.KEEP:
                return True
    return False


def free_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port
