"""How much memory the server takes when many callers send large pictures at once.

    python benchmarks/memory.py [--quick] [--door http|mcp]

64 callers send a picture of 10 MiB each, all at once, and wait for it to be changed, while somebody
else asks for /health: first to the HTTP twin, then, on a new server, as a call of the MCP tool.
With --quick 16 callers send 4 MiB each.
"""

import argparse
import asyncio
import base64
import io
import itertools
import json
import math
import os
import statistics
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import PIL.Image
from _servers import pair

MIB = 2**20
PIECE = 256 * 1024
ERA = "2026-07-28"


@dataclass(frozen=True, slots=True)
class Post:
    """What each caller sends."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict[str, str])


def to_http(arguments: dict[str, Any]) -> Post:
    """Ask the HTTP twin."""
    return Post("/mcp/img2img", json.dumps(arguments).encode("ascii"))


def to_mcp(arguments: dict[str, Any]) -> Post:
    """Call the MCP tool."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": ERA,
        "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    arguments = {**arguments, "output": "link", "wait_seconds": 300}
    params = {"name": "img2img", "_meta": meta, "arguments": arguments}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": ERA,
        "Mcp-Method": "tools/call",
        "Mcp-Name": "img2img",
    }
    return Post("/mcp", json.dumps(call).encode("ascii"), headers)


DOORS = {"http": to_http, "mcp": to_mcp}


def picture(size_bytes: int) -> bytes:
    """Draw noise, which no encoder makes smaller, as a PNG of about this size."""
    side = math.isqrt(size_bytes // 3)
    buffer = io.BytesIO()
    noise = PIL.Image.frombytes("RGB", (side, side), os.urandom(3 * side * side))
    noise.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has ever had."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmHWM")


class Watcher(threading.Thread):
    """Asks for /health again and again, and notes how long each answer takes."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._done = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        """Ask until it is stopped."""
        with httpx2.Client(trust_env=False, timeout=60) as http:
            while not self._done.wait(0.02):
                began = time.perf_counter()
                http.get(self._url).raise_for_status()
                self.seconds.append(time.perf_counter() - began)

    def stop(self) -> None:
        """Ask no more."""
        self._done.set()
        self.join()


async def change(http: httpx2.AsyncClient, url: str, post: Post) -> int:
    """Send a picture and wait for it to be changed; return how often it was sent in vain."""

    async def pieces() -> AsyncGenerator[bytes]:
        for at in range(0, len(post.body), PIECE):
            yield post.body[at : at + PIECE]

    length = {"Content-Type": "application/json", "Content-Length": str(len(post.body))}
    headers = {**length, **post.headers}
    for vain in itertools.count():
        response = await http.post(url + post.path, content=pieces(), headers=headers)
        if response.status_code != 503:
            response.raise_for_status()
            if "completed" not in response.text:
                raise RuntimeError(response.text[-500:])
            return vain
        await asyncio.sleep(int(response.headers["Retry-After"]))
    raise AssertionError


async def together(url: str, post: Post, callers: int) -> list[int]:
    """Have so many callers send the same picture at once; say how often each did so in vain."""
    limits = httpx2.Limits(max_connections=callers)
    async with httpx2.AsyncClient(trust_env=False, timeout=600, limits=limits) as http:
        return await asyncio.gather(*(change(http, url, post) for _ in range(callers)))


def measure(post: Post, callers: int) -> None:
    """Measure one door and print."""
    with pair() as servers:
        pid = servers.process.pid
        print(f"peak memory before: {peak_mib(pid):.0f} MiB")
        watcher = Watcher(f"{servers.manager}/health")
        watcher.start()
        began = time.perf_counter()
        vain = asyncio.run(together(servers.manager, post, callers))
        taken = time.perf_counter() - began
        watcher.stop()
        print(f"{len(vain)} pictures changed in {taken:.1f} s")
        print(f"told to come again: {sum(vain)} times")
        print(f"peak memory: {peak_mib(pid):.0f} MiB")
        print(f"memory afterwards: {servers.process.memory_info().rss / MIB:.0f} MiB")
        slowest, half = max(watcher.seconds), statistics.median(watcher.seconds)
        print(f"/health meanwhile: {half * 1000:.0f} ms (median), {slowest * 1000:.0f} ms (most)")


def main() -> None:
    """Measure the doors that were asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--door", choices=DOORS, help="only this one")
    options = parser.parse_args()
    callers, size_bytes = (16, 4 * MIB) if options.quick else (64, 10 * MIB)
    image = picture(size_bytes)
    base64_text = base64.b64encode(image).decode("ascii")
    arguments = {"image": base64_text, "prompt": "in snow", "steps": 1}
    for door in [options.door] if options.door else DOORS:
        print(f"\n{door}: {callers} callers, {len(image) / MIB:.1f} MiB each")
        measure(DOORS[door](arguments), callers)


if __name__ == "__main__":
    main()
