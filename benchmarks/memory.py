"""How much memory the server takes when many callers send large pictures at once.

    python benchmarks/memory.py [--quick]

64 callers send a picture of 10 MiB each over HTTP, all at once, and wait for it to be changed,
while somebody else asks for /health. With --quick 16 callers send 4 MiB each.
"""

import asyncio
import base64
import io
import itertools
import json
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import PIL.Image
from _servers import pair

MIB = 2**20
PIECE = 256 * 1024


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


async def change(http: httpx2.AsyncClient, url: str, body: bytes) -> int:
    """Send a picture and wait for it to be changed; return how often it was sent in vain."""

    async def pieces() -> AsyncGenerator[bytes]:
        for at in range(0, len(body), PIECE):
            yield body[at : at + PIECE]

    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    for vain in itertools.count():
        response = await http.post(url, content=pieces(), headers=headers)
        if response.status_code != 503:
            response.raise_for_status()
            return vain
        await asyncio.sleep(int(response.headers["Retry-After"]))
    raise AssertionError


async def together(url: str, body: bytes, callers: int) -> list[int]:
    """Have so many callers send the same picture at once; say how often each did so in vain."""
    limits = httpx2.Limits(max_connections=callers)
    async with httpx2.AsyncClient(trust_env=False, timeout=600, limits=limits) as http:
        return await asyncio.gather(*(change(http, url, body) for _ in range(callers)))


def main(callers: int, size_bytes: int) -> None:
    """Measure and print."""
    image = picture(size_bytes)
    base64_text = base64.b64encode(image).decode("ascii")
    body = json.dumps({"image": base64_text, "prompt": "in snow", "steps": 1}).encode("ascii")
    with pair() as servers:
        pid = servers.process.pid
        print(f"peak memory before: {peak_mib(pid):.0f} MiB")
        watcher = Watcher(f"{servers.manager}/health")
        watcher.start()
        began = time.perf_counter()
        vain = asyncio.run(together(f"{servers.manager}/mcp/img2img", body, callers))
        taken = time.perf_counter() - began
        watcher.stop()
        print(f"{len(vain)} pictures of {len(image) / MIB:.1f} MiB changed in {taken:.1f} s")
        print(f"told to come again: {sum(vain)} times")
        print(f"peak memory: {peak_mib(pid):.0f} MiB")
        print(f"memory afterwards: {servers.process.memory_info().rss / MIB:.0f} MiB")
        slowest, half = max(watcher.seconds), statistics.median(watcher.seconds)
        print(f"/health meanwhile: {half * 1000:.0f} ms (median), {slowest * 1000:.0f} ms (most)")


if __name__ == "__main__":
    main(*((16, 4 * MIB) if "--quick" in sys.argv else (64, 10 * MIB)))
