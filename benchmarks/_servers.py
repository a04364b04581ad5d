"""Runs the simulator and the manager as processes of their own, for the benchmarks."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

ROOT = Path(__file__).parent.parent
_SIMULATOR = """
import sys
from src.simulator.config import SimulatorConfig
from src.simulator.serve import run
run(SimulatorConfig(speed=0), port=int(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A simulator without delays, and the manager in front of it."""

    simulator: str
    manager: str
    process: psutil.Process
    start_s: float


@contextmanager
def pair(**settings: str) -> Generator[Pair]:
    """Start both; stop both at the end."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        there, here = _free_port(), _free_port()
        stack.enter_context(_process([sys.executable, "-c", _SIMULATOR, str(there)], {}))
        simulator = f"http://127.0.0.1:{there}"
        _wait_for(f"{simulator}/readyz")
        manager = f"http://127.0.0.1:{here}"
        command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(here)]
        command += ["--http", "h11", "--no-access-log", "--log-level", "warning"]
        environment = {
            "LOCALAI_URL": simulator,
            "IM_LOG_FILE": str(scratch / "app.log"),
            "IM_LOG_LEVEL": "error",
            **settings,
        }
        began = time.perf_counter()
        process = stack.enter_context(_process(command, environment))
        _wait_for(f"{manager}/health")
        start_s = time.perf_counter() - began
        _wait_for(f"{manager}/ready")
        yield Pair(simulator, manager, psutil.Process(process.pid), start_s)


@contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Generator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for(url: str) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if httpx2.get(url, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.01)
    raise TimeoutError(url)
