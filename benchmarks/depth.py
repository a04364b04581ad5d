"""A deep line: a burst of submissions, a hundred thousand jobs that wait, and a start with them.

    python benchmarks/depth.py [--quick]

The simulator holds what it is given, so that all but the first few wait. The burst: 5,000
submissions of four modalities in 5 seconds. Then more are handed over in lists until the line is
deep, and what is read is timed. Last the server is killed and started again on the same file.
"""

import asyncio
import itertools
import json
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from _servers import Started, manager, simulator

BURST, BURST_S = 5000, 5.0
CALLERS = 64
LIST = 500
SMALL = {"width": 64, "height": 64, "steps": 1}
KINDS: Sequence[dict[str, Any]] = (
    {"modality": "txt2txt", "model": "sim-chat", "prompt": "Name three rivers. " * 10},
    {"modality": "txt2img", "model": "sim-image", "prompt": "a red fox", **SMALL},
    {"modality": "txt2vec", "model": "sim-embed", "input": ["one text", "another"]},
    {"modality": "txt2audio", "model": "sim-voice", "input": "say it"},
)


async def burst(started: Started, count: int, seconds: float) -> None:
    """Submit at an even pace, whatever the answers take; each caller has a connection."""
    where = urlsplit(started.url)
    asked = [_request(where.netloc, body) for body in KINDS]
    taken: list[float] = []
    answers: Counter[str] = Counter()
    start = time.perf_counter() + 0.5
    due = ((start + seconds * n / count, asked[n % len(asked)]) for n in range(count))

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        for at, request in due:  # which all callers share
            await asyncio.sleep(at - time.perf_counter())
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(length)
            taken.append(time.perf_counter() - at)
            answers[head[9:12].decode()] += 1
        writer.close()

    used = _cpu(started)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(caller())
    whole, used = time.perf_counter() - start, _cpu(started) - used
    cuts = statistics.quantiles(taken, n=100)
    print(
        f"{count} submissions of four modalities in {seconds:.0f} s took {whole:.1f} s: "
        f"{dict(answers)}, {used / count * 1e3:.2f} ms of CPU each"
    )
    print(
        f"  p50 {cuts[49] * 1e3:.0f} ms, p99 {cuts[98] * 1e3:.0f} ms, longest {max(taken):.2f} s "
        "(to reach: p99 150 ms, longest 1 s)"
    )


def _request(host: str, body: dict[str, Any]) -> bytes:
    text = json.dumps(body).encode()
    head = (
        f"POST /jobs HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


def _cpu(started: Started) -> float:
    """Return how many seconds of CPU the server has used: what else runs here does not matter."""
    times = started.process.cpu_times()
    return float(times.user + times.system)


async def deepen(http: httpx2.AsyncClient, count: int) -> str:
    """Hand over as many more, in lists; return the id of one in the middle."""
    began = time.perf_counter()
    ids: list[str] = []
    bodies = itertools.cycle(KINDS)
    for _ in range(count // LIST):
        jobs = [next(bodies) for _ in range(LIST)]
        answer = await http.post("/jobs", json={"jobs": jobs})
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["jobs"][0]["job_id"])
    passed = time.perf_counter() - began
    print(f"{count} more in lists of {LIST}: {passed:.1f} s, {count / passed:.0f} a second")
    return ids[len(ids) // 2]


async def timed(name: str, ask: Callable[[], Awaitable[httpx2.Response]], times: int) -> None:
    """Tell how long an answer takes."""
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        answer = await ask()
        taken.append(time.perf_counter() - began)
        assert answer.status_code in (200, 202), answer.text
    longest = max(taken)
    print(f"  {name}: p50 {statistics.median(taken) * 1e3:.1f} ms, longest {longest * 1e3:.0f} ms")


async def reads(http: httpx2.AsyncClient, job_id: str) -> None:
    """Time what is asked of a deep line."""
    await timed("GET /queue-status", lambda: http.get("/queue-status"), 50)
    await timed("GET /jobs/{id}", lambda: http.get(f"/jobs/{job_id}"), 50)
    await timed("GET /jobs", lambda: http.get("/jobs"), 20)
    await timed("POST /jobs", lambda: http.post("/jobs", json=KINDS[0]), 50)


async def until_dispatched(simulated: str, before: int) -> None:
    """Wait for the first call of a new life."""
    query: dict[str, str | int] = {"since": before, "state": "arrived", "timeout": 60}
    async with httpx2.AsyncClient(trust_env=False, base_url=simulated, timeout=70) as http:
        answer = await http.get("/sim/requests/wait", params=query)
        assert answer.status_code == 200, answer.text


async def main(*, quick: bool) -> None:
    """Measure and print."""
    depth = 10_000 if quick else 100_000
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        simulated = stack.enter_context(simulator())
        httpx2.post(f"{simulated}/sim/hold", trust_env=False)
        settings = {
            "IM_STORE": f"sqlite:///{directory / 'jobs.db'}",
            "IM_MAX_WAITING": "200000",
            "IM_MAX_WAITING_MB": "4096",
        }
        started = stack.enter_context(manager(simulated, settings))
        http = httpx2.AsyncClient(base_url=started.url, trust_env=False, timeout=60)
        idle = started.process.memory_info().rss
        await burst(started, BURST // 5 if quick else BURST, BURST_S / 5 if quick else BURST_S)
        job_id = await deepen(http, depth)
        rss = started.process.memory_info().rss
        print(f"resident memory: {rss / 2**20:.0f} MiB, idle it was {idle / 2**20:.0f}")
        await reads(http, job_id)
        await http.aclose()
        started.process.send_signal(signal.SIGKILL)
        started.process.wait(10)
        made = httpx2.get(f"{simulated}/sim", trust_env=False).json()["requests"]
        began = time.perf_counter()
        again = stack.enter_context(manager(simulated, settings, wait=False))
        await until_dispatched(simulated, made)
        passed = time.perf_counter() - began
        print(
            f"killed and started with the line on the disk: first call after {passed:.2f} s, "
            f"{_cpu(again):.2f} s of CPU, the imports among them (to reach: 2 s)"
        )
        wait = httpx2.get(f"{again.url}/queue-status", trust_env=False, timeout=30).json()
        print(f"  {wait['waiting']} wait, {again.process.memory_info().rss / 2**20:.0f} MiB")


if __name__ == "__main__":
    asyncio.run(main(quick="--quick" in sys.argv))
