"""Something that stands between the manager and a backend: it may speak TLS, and hears all."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from urllib.parse import urlsplit


@dataclass
class Between:
    url: str = ""
    connections: int = 0
    heard: bytearray = field(default_factory=bytearray)
    """What the manager said, all connections together."""


@asynccontextmanager
async def between(backend: str, tls: SSLContext | None = None) -> AsyncGenerator[Between]:
    """Pass everything on to a backend."""
    stage, address = Between(), urlsplit(backend)
    tasks: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stage.connections += 1
        try:
            answers, asks = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as both:
            both.create_task(_pass_on(reader, asks, stage.heard))
            both.create_task(_pass_on(answers, writer, bytearray()))

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(connect(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    stage.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield stage
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray
) -> None:
    try:
        while data := await reader.read(65_536):
            heard += data
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
