"""What it costs that nothing is lost: durable submissions a second, and what a chat is slowed by.

    python benchmarks/durable.py [--quick]

Submissions: 1, 16 and 100 callers at once, each of whom waits until its job is on the disk; beside
them aiosqlite with a commit for each call. First the stores alone, then both behind HTTP. Chats:
one caller asks the simulator, which answers without delay, through three servers: with the store in
a file, with `sqlite::memory:`, and with a dict. All ways take turns in every round; medians.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import httpx2
from _load import Question, ask
from _naive import Naive
from _servers import ROOT, free_port, manager, process, simulator, wait_for

sys.path.insert(0, str(ROOT))

from src.models.jobs import Job, Level, Promise
from src.models.requests import Txt2TxtRequest
from src.utils.stores.database import Database
from src.utils.stores.sqlite import SQLiteStore

CALLERS = (1, 16, 100)
PROMPT = "Name three rivers and say where they rise. " * 5
CHAT = {"model": "sim-chat", "messages": [{"role": "user", "content": "repeat: hello"}]}
JOB = {"modality": "txt2txt", "model": "sim-chat", "prompt": PROMPT}

_numbers = count(1)


def _job() -> Job:
    number = next(_numbers)
    now = time.time()
    return Job(
        id=f"job-{number}",
        request=Txt2TxtRequest.model_validate({"prompt": PROMPT, "model": "sim-chat"}),
        model="sim-chat",
        caller="anonymous",
        level=Level.NORMAL,
        sequence=number,
        submitted_at=now,
        deadline=now + 3600,
        promise=Promise(),
    )


async def _rate(add: Callable[[], Awaitable[None]], callers: int, seconds: float) -> float:
    """Have so many callers add jobs for so long; return how many a second."""
    began = time.perf_counter()
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await add()
            done += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())
    return done / (time.perf_counter() - began)


async def stores(rounds: int, seconds: float) -> None:
    """Compare the stores alone."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database(Path(directory) / "jobs.db")
        store = SQLiteStore(database)
        naive = Naive(Path(directory) / "naive.db")
        await store.open()
        await naive.open()

        async def ours() -> None:
            await store.add(_job())

        async def theirs() -> None:
            job = _job()
            await naive.add(job.id, job.request.model_dump_json())

        rates: dict[tuple[str, int], list[float]] = {}
        for _ in range(rounds):
            for callers in CALLERS:
                for name, add in (("ours", ours), ("naive", theirs)):
                    rates.setdefault((name, callers), []).append(await _rate(add, callers, seconds))
        await store.close()
        await naive.close()
    _tell("durable submissions a second, the stores alone", rates)


async def doors(rounds: int, seconds: float) -> None:
    """Compare both behind HTTP; the simulator holds, so nothing but submitting is done."""
    body = json.dumps(JOB).encode()
    question = Question("/jobs", body, lambda answer: b"job_id" in answer, status=b"202")
    rates: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        simulated = stack.enter_context(simulator())
        httpx2.post(f"{simulated}/sim/hold", trust_env=False)
        store = f"sqlite:///{directory / 'jobs.db'}"
        settings = {"IM_STORE": store, "IM_MAX_WAITING": "1000000", "IM_MAX_WAITING_MB": "4096"}
        ours = stack.enter_context(manager(simulated, settings)).url
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "benchmarks._naive:app", "--port", str(port)]
        command += ["--http", "h11", "--no-access-log", "--log-level", "warning"]
        stack.enter_context(process(command, {"NAIVE_DATABASE": str(directory / "naive.db")}))
        naive = f"http://127.0.0.1:{port}"
        wait_for(f"{naive}/health")
        for _ in range(rounds):
            for callers in CALLERS:
                for name, url in (("ours", ours), ("naive", naive)):
                    outcome = await ask(url, question, callers=callers, seconds=seconds)
                    assert not outcome.failed, outcome.complaint
                    rates.setdefault((name, callers), []).append(outcome.rate)
    _tell("durable submissions a second, over HTTP", rates)


def _tell(title: str, rates: Mapping[tuple[str, int], list[float]]) -> None:
    print(f"{title} (medians)")
    print(f"{'callers':>8} {'ours':>8} {'naive':>8} {'ratio':>6}")
    for callers in CALLERS:
        ours, naive = (statistics.median(rates[name, callers]) for name in ("ours", "naive"))
        print(f"{callers:8} {ours:8.0f} {naive:8.0f} {ours / naive:6.1f}")


async def chats(rounds: int) -> None:
    """Compare what one caller waits for a chat, by where jobs are kept."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        simulated = stack.enter_context(simulator())
        servers = {
            name: stack.enter_context(manager(simulated, {"IM_STORE": store}, app=app)).url
            for name, store, app in (
                ("a dict", "sqlite::memory:", "benchmarks._nowhere:app"),
                ("in memory", "sqlite::memory:", "main:app"),
                ("a file", f"sqlite:///{directory / 'jobs.db'}", "main:app"),
            )
        }
        taken: dict[str, list[float]] = {name: [] for name in servers}
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            for number in range(rounds + 20):
                for name, url in servers.items():
                    began = time.perf_counter()
                    answer = await http.post(f"{url}/v1/chat/completions", json=CHAT)
                    passed = time.perf_counter() - began
                    assert answer.status_code == 200, answer.text
                    if number >= 20:
                        taken[name].append(passed)
    base = statistics.median(taken["a dict"])
    print(f"a chat, one caller, {rounds} rounds, by where jobs are kept")
    print(f"{'':10} {'p50 ms':>8} {'p99 ms':>8} {'ratio':>6}")
    for name, times in taken.items():
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        print(f"{name:10} {p50 * 1e3:8.2f} {p99 * 1e3:8.2f} {p50 / base:6.2f}")


async def main(*, quick: bool) -> None:
    """Measure and print."""
    rounds, seconds = (3, 0.5) if quick else (7, 2.0)
    await stores(rounds, seconds)
    await doors(rounds, seconds)
    await chats(60 if quick else 500)


if __name__ == "__main__":
    asyncio.run(main(quick="--quick" in sys.argv))
