"""The whole application on a loopback socket, in front of a simulator that never waits."""

import asyncio
import base64
import io
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import PIL.Image
from mcp import Client
from mcp.types import CallToolResult, TextContent

from src.app import create_app
from src.settings import Settings
from src.simulator.client import ControlClient
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.utils.retry import RetryPolicy
from tests.serving import serving

CANARY = "CANARY-4711"
PATIENCE_S = 10.0
ERAS = ("legacy", "auto")


@dataclass(frozen=True)
class House:
    """A running server, its simulator, and how to call them."""

    url: str
    sim: ControlClient

    def client(self, mode: str = "auto") -> Client:
        return Client(f"{self.url}/mcp", mode=mode)

    def http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, timeout=PATIENCE_S, trust_env=False)

    async def running(self, modality: str) -> str:
        """Wait until a job of a modality runs, and return its id."""
        status = await self.until("/queue-status", lambda s: s["queues"][modality]["running"])
        job_id: str = status["queues"][modality]["running"][0]["job_id"]
        return job_id

    async def until(self, path: str, when: Callable[[Any], bool]) -> Any:
        """Ask until the answer is as wished."""
        async with asyncio.timeout(PATIENCE_S), self.http() as http:
            while not when(answer := (await http.get(path)).json()):
                pass
            return answer


class Progress:
    """What a call told while it went on; a test can wait for a word."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.messages: list[str] = []
        self._more = asyncio.Event()

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        self.values.append(progress)
        self.messages.append(message or "")
        self._more.set()

    async def until(self, word: str) -> None:
        async with asyncio.timeout(10):
            while not any(word in message for message in self.messages):
                self._more.clear()
                await self._more.wait()


@contextmanager
def house(*, config: SimulatorConfig | None = None, **settings: Any) -> Generator[House]:
    """Build one; it has looked at its backend when it is handed over."""
    with Simulator(config or SimulatorConfig(speed=0)) as simulator:
        values: dict[str, Any] = {
            "localai_url": simulator.url,
            "log_file": None,
            "log_level": "error",
            "grace_s": 0,
            **settings,
        }
        app = create_app(Settings(**values), retry=RetryPolicy(attempts=2, base_s=0.01))
        with serving(app) as url:
            _wait_until_ready(url)
            yield House(url, simulator.control)


def _wait_until_ready(url: str) -> None:
    with httpx2.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as http:
        while http.get("/ready").status_code != 200:
            pass


def png(width: int = 64, height: int = 64, color: str = "teal") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (width, height), color).save(buffer, "PNG")
    return buffer.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def facts(result: CallToolResult) -> dict[str, Any]:
    """Take the structured content out of a result that is no error."""
    assert not result.is_error, words(result)
    assert result.structured_content is not None
    return dict(result.structured_content)


def words(result: CallToolResult) -> str:
    """Take the first text out of a result."""
    first = result.content[0]
    assert isinstance(first, TextContent)
    return first.text
