"""What the manager adds to one text call: through its HTTP twin and through an MCP tool.

    python benchmarks/overhead.py [--quick]

The simulator answers without delay, so the difference to asking it directly is the manager's own
time: queue, scheduler, attempt, answer. One caller; the three ways take turns in every round.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

import httpx2
from _servers import pair
from mcp import Client

CHAT = {"model": "sim-chat", "messages": [{"role": "user", "content": "repeat: hello"}]}


async def main(rounds: int) -> None:
    """Measure and print."""
    with pair() as servers:
        async with (
            httpx2.AsyncClient(trust_env=False, timeout=30) as http,
            Client(f"{servers.manager}/mcp") as mcp,
        ):

            async def direct() -> None:
                body = {**CHAT, "stream": True}
                response = await http.post(f"{servers.simulator}/v1/chat/completions", json=body)
                assert "[DONE]" in response.text

            async def twin() -> None:
                response = await http.post(f"{servers.manager}/mcp/txt2txt", json=CHAT)
                assert response.json()["text"] == "hello"

            async def tool() -> None:
                arguments = {"prompt": "repeat: hello", "model": "sim-chat"}
                result = await mcp.call_tool("txt2txt", arguments)
                assert not result.is_error

            ways = {"direct": direct, "HTTP twin": twin, "MCP tool": tool}
            times = {name: [await _timed(way)] for name, way in ways.items()}
            for _ in range(rounds):
                for name, way in ways.items():
                    times[name].append(await _timed(way))

    base = statistics.median(times["direct"][20:])
    print(f"one caller, {rounds} rounds, simulator without delays, medians")
    print(f"{'':10} {'p50 ms':>8} {'added ms':>9} {'ratio':>6}")
    for name, taken in times.items():
        p50 = statistics.median(taken[20:])
        print(f"{name:10} {p50 * 1e3:8.2f} {(p50 - base) * 1e3:9.2f} {p50 / base:6.2f}")


async def _timed(way: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await way()
    return time.perf_counter() - began


if __name__ == "__main__":
    asyncio.run(main(60 if "--quick" in sys.argv else 500))
