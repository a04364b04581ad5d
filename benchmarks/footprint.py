"""How long the server takes to import and start, and how much memory it holds.

    python benchmarks/footprint.py [--quick]

The memory with jobs waiting is measured with so many text jobs in line, handed in through the HTTP
twin, behind one job that the simulator holds.
"""

import asyncio
import statistics
import subprocess
import sys
import time

import httpx2
from _servers import ROOT, pair

CHAT = {"model": "sim-chat", "prompt": "x" * 200, "wait_seconds": 0}


def import_seconds() -> float:
    """Import the application in a fresh interpreter."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import main"], cwd=ROOT, check=True)
    return time.perf_counter() - began


async def submit(manager: str, count: int) -> None:
    """Submit so many jobs and take their handles."""
    limits = httpx2.Limits(max_connections=32)
    async with httpx2.AsyncClient(trust_env=False, timeout=60, limits=limits) as http:
        gate = asyncio.Semaphore(32)

        async def one() -> None:
            async with gate:
                response = await http.post(f"{manager}/mcp/txt2txt", json=CHAT)
                assert response.status_code == 202, response.text

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one())


def main(waiting: int) -> None:
    """Measure and print."""
    imports = [import_seconds() for _ in range(5)]
    bare = statistics.median(imports)
    print(f"import main: {bare:.2f} s (median of 5, a fresh interpreter each)")
    with pair(IM_MAX_WAITING=str(waiting + 10)) as servers:
        print(f"start to first /health: {servers.start_s:.2f} s")
        print(f"resident memory, idle: {servers.process.memory_info().rss / 2**20:.0f} MiB")
        httpx2.post(f"{servers.simulator}/sim/hold", trust_env=False)
        began = time.perf_counter()
        asyncio.run(submit(servers.manager, waiting))
        taken = time.perf_counter() - began
        status = httpx2.get(f"{servers.manager}/queue-status", trust_env=False).json()
        print(f"submitted {waiting} jobs in {taken:.1f} s; {status['waiting']} wait")
        rss = servers.process.memory_info().rss / 2**20
        print(f"resident memory, {waiting} waiting: {rss:.0f} MiB")


if __name__ == "__main__":
    main(500 if "--quick" in sys.argv else 10_000)
