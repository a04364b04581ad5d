"""Runs the simulator and the manager as processes of their own, for the benchmarks."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
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
_PROFILED = """
import cProfile, signal, sys
import main, uvicorn
profile = cProfile.Profile()
signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
try:
    uvicorn.main(sys.argv[2:], standalone_mode=False)
finally:
    profile.disable()
    profile.dump_stats(sys.argv[1])
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
    with simulator() as there, manager(there, settings) as started:
        yield Pair(there, started.url, started.process, started.start_s)


@contextmanager
def simulator() -> Generator[str]:
    """Start a simulator without delays and tell its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process([sys.executable, "-c", _SIMULATOR, str(port)], {}):
        wait_for(f"{url}/readyz")
        yield url


@dataclass(frozen=True, slots=True)
class Started:
    """The manager, and how long it took to answer."""

    url: str
    process: psutil.Process
    start_s: float


@contextmanager
def manager(
    localai: str,
    settings: Mapping[str, str],
    *,
    profile: Path | None = None,
    app: str = "main:app",
    wait: bool = True,
) -> Generator[Started]:
    """Start the manager; with a file for a profile, SIGUSR1 has cProfile begin.

    Jobs are kept in a file that is gone afterwards, unless the settings say otherwise.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    how = ["-m", "uvicorn"] if profile is None else ["-c", _PROFILED, str(profile)]
    command = [sys.executable, *how, app, "--port", str(port)]
    command += ["--http", "h11", "--no-access-log", "--log-level", "warning"]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {
            "LOCALAI_URL": localai,
            "IM_LOG_FILE": str(scratch / "app.log"),
            "IM_LOG_LEVEL": "error",
            "IM_STORE": f"sqlite:///{scratch / 'jobs.db'}",
            **settings,
        }
        began = time.perf_counter()
        started = stack.enter_context(process(command, environment))
        if wait:
            wait_for(f"{url}/health", running=started)
        start_s = time.perf_counter() - began
        if wait:
            wait_for(f"{url}/ready")
        yield Started(url, psutil.Process(started.pid), start_s)


@contextmanager
def process(
    command: list[str], environment: dict[str, str], *, log: Path | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """Run a program; end it at the end. What it says goes to the console or into a file."""
    with ExitStack() as stack:
        out = None if log is None else stack.enter_context(log.open("wb"))
        running = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=out, stderr=out
        )
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait(20)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(
    url: str, patience_s: float = 20, running: subprocess.Popen[bytes] | None = None
) -> None:
    """Return when somebody answers there; do not wait for a process that has ended.

    Raises:
        TimeoutError: nobody does.

    """
    until = time.monotonic() + patience_s
    while time.monotonic() < until and (running is None or running.poll() is None):
        try:
            if httpx2.get(url, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.01)
    raise TimeoutError(url)
