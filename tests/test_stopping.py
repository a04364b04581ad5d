"""How the server stops: real processes, real signals."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from src.simulator.serve import Simulator

from .managing import FAST, Control

ROOT = Path(__file__).parents[1]
PATIENCE_S = 40.0
HOUR = "3600"
PROMPT = {"prompt": "repeat: hello"}
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "host", "version": "1"},
}
SERVE = ("-m", "src", "serve")
UVICORN = ("-m", "uvicorn", "--log-level", "warning", "main:app")
COMMANDS = pytest.mark.parametrize("command", [SERVE, UVICORN], ids=["serve", "uvicorn"])


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(FAST) as simulator:
        yield simulator


@pytest.fixture
def control(sim: Simulator) -> Control:
    return Control(sim)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def settings(sim: Simulator, grace_s: str, **others: str) -> dict[str, str]:
    """The environment of a server: nothing of ours but what is said here."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("IM_", "LOCALAI_"))}
    ours = {
        "PYTHONPATH": str(ROOT),
        "LOCALAI_URL": sim.url,
        "IM_GRACE_S": grace_s,
        "IM_STORE": "sqlite:///jobs.db",
    }
    return {**kept, **ours, **others}


class Running:
    """A server in a process of its own, and a client of it."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx2.AsyncClient) -> None:
        self.process = process
        self.client = client

    def told(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ready(self) -> httpx2.Response:
        return await self.client.get("/ready")

    async def until_ready(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    if (await self.ready()).status_code == 200:
                        return
                except httpx2.TransportError:
                    assert self.process.returncode is None
                await asyncio.sleep(0.05)

    async def until_not_ready(self) -> httpx2.Response:
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await self.ready()).status_code == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return answer

    def ask(self, text: str) -> "asyncio.Task[httpx2.Response]":
        return asyncio.create_task(self.client.post("/mcp/txt2txt", json={"prompt": text}))

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


@asynccontextmanager
async def running(
    folder: Path, command: tuple[str, ...], sim: Simulator, grace_s: str
) -> AsyncGenerator[Running]:
    port = free_port()
    words = (sys.executable, "-W", "error", *command, "--port", str(port))
    with (folder / "shown.txt").open("wb") as shown:
        process = await asyncio.create_subprocess_exec(
            *words, cwd=folder, env=settings(sim, grace_s), stdout=shown, stderr=shown
        )
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S
        ) as client:
            server = Running(process, client)
            await server.until_ready()
            yield server
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def troubles(folder: Path) -> list[str]:
    shown = (folder / "shown.txt").read_text()
    return [line for line in shown.splitlines() if "Traceback" in line or "rror" in line]


@COMMANDS
async def test_what_runs_may_finish_nothing_else_begins_and_the_end_is_a_good_one(
    command: tuple[str, ...], sim: Simulator, control: Control, tmp_path: Path
) -> None:
    await control("load", "sim-chat")
    await control("hold")
    async with running(tmp_path, command, sim, HOUR) as server:
        runs = server.ask("repeat: finished")
        await control("wait", model="sim-chat", state="started", timeout=PATIENCE_S)
        waits = server.ask("repeat: never begun")
        while (await server.client.get("/queue-status")).json()["waiting"] < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

        server.told(signal.SIGTERM)
        not_ready = await server.until_not_ready()
        refused = await server.ask("repeat: too late")
        await control("release")
        code = await server.ended()

        assert not_ready.status_code == 503
        assert not_ready.json()["reasons"] == ["the server is shutting down"]
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "shutting_down"
        assert (await runs).json()["text"] == "finished"
        answered = await waits
        assert answered.json()["error"]["code"] == "shutting_down"

    assert code == 0
    assert not troubles(tmp_path)
    asked = [r for r in await control("requests") if r.path == "/v1/chat/completions"]
    assert len(asked) == 1


async def test_a_promised_job_goes_on_after_a_restart_as_if_nothing_had_been(
    sim: Simulator, control: Control, tmp_path: Path
) -> None:
    await control("hold")
    asked = {"modality": "txt2txt", "prompt": "repeat: after all"}
    async with running(tmp_path, SERVE, sim, "0") as server:
        jobs = [(await server.client.post("/jobs", json=asked)).json()["job_id"] for _ in range(2)]
        await control("wait", model="sim-chat", state="started", timeout=PATIENCE_S)
        waiter = asyncio.create_task(server.client.get(f"/jobs/{jobs[0]}?wait=60"))
        while (await server.client.get("/queue-status")).json()["waiting"] < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        server.told(signal.SIGTERM)
        assert await server.ended() == 0
        answer = await waiter

    await control("release")
    async with running(tmp_path, SERVE, sim, "0") as server:
        ended = [(await server.client.get(f"/jobs/{job}?wait=30")).json() for job in jobs]
        server.told(signal.SIGTERM)
        assert await server.ended() == 0

    assert answer.status_code in (202, 503)
    assert [(job["text"], job["attempts"]) for job in ended] == [("after all", 1)] * 2
    assert ended[0]["started_at"] <= ended[1]["started_at"]
    assert not troubles(tmp_path)


async def test_when_the_grace_is_over_a_stream_says_why_it_ends(
    sim: Simulator, control: Control, tmp_path: Path
) -> None:
    await control("hold")
    async with running(tmp_path, SERVE, sim, "0.1") as server:
        body = {"messages": [{"role": "user", "content": "hello"}], "stream": True}

        async def stream() -> str:
            answer = await server.client.post("/v1/chat/completions", json=body)
            return answer.text

        streamed = asyncio.create_task(stream())
        await control("wait", model="sim-chat", state="started", timeout=PATIENCE_S)
        server.told(signal.SIGINT)

        assert await server.ended() == 0
        last = (await streamed).strip().splitlines()[-1]

    assert "shutting_down" in last or "shutting down" in json.dumps(last)
    assert not troubles(tmp_path)


async def test_a_second_signal_ends_the_grace(
    sim: Simulator, control: Control, tmp_path: Path
) -> None:
    await control("hold")
    async with running(tmp_path, UVICORN, sim, HOUR) as server:
        runs = server.ask("repeat: never finished")
        await control("wait", model="sim-chat", state="started", timeout=PATIENCE_S)
        server.told(signal.SIGINT)
        await server.until_not_ready()
        server.told(signal.SIGTERM)

        assert await server.ended() == 0
        assert (await runs).json()["error"]["code"] == "shutting_down"

    assert not troubles(tmp_path)


async def test_the_stdio_door_ends_well_when_its_host_hangs_up_on_a_call(
    sim: Simulator, control: Control, tmp_path: Path
) -> None:
    await control("hold")
    ours = settings(sim, HOUR, IM_PORT=str(free_port()))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "src", "mcp"),
        cwd=tmp_path,
        env=ours,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        for message in (
            {"id": 1, "method": "initialize", "params": HELLO},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/call", "params": {"name": "txt2img", "arguments": PROMPT}},
        ):
            line = json.dumps({"jsonrpc": "2.0", **message})
            process.stdin.write(f"{line}\n".encode())
        await control("wait", model="sim-image", state="started", timeout=PATIENCE_S)
        process.stdin.close()
        async with asyncio.timeout(10):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert process.returncode == 0
    assert "Traceback" not in errors.decode()
