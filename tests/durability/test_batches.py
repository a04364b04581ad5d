"""A batch outlives a server that is killed again and again: every line is answered, once."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator

from .crash import Phoenix

POINTS = ("", "after a job was added", "before a commit", "after the end", "after a commit")
SOAK = bool(os.environ.get("IM_SOAK"))
KILLS = 200 if SOAK else 3
SEED = int(os.environ.get("IM_SOAK_SEED", "11"))
LINES = 40 * KILLS
CHAT = "/v1/chat/completions"


def line(number: int) -> bytes:
    body = {
        "model": "sim-chat",
        "messages": [{"role": "user", "content": f"repeat: {number}"}],
    }
    told = {"custom_id": str(number), "method": "POST", "url": CHAT, "body": body}
    return json.dumps(told).encode() + b"\n"


@pytest.mark.timeout(3600 if SOAK else 60)
async def test_a_batch_outlives_the_server(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with Simulator(SimulatorConfig(speed=20)) as simulator:
        environment = {
            "LOCALAI_URL": simulator.url,
            "IM_STORE": f"sqlite:///{tmp_path / 'jobs.db'}",
            "IM_MAX_ATTEMPTS": "20",
            "IM_LOG_FILE": str(tmp_path / "app.log"),
            "IM_LOG_CONSOLE": "false",
            "IM_GRACE_S": "0.2",
        }
        async with Phoenix(environment) as server:
            await server.live()
            batch = await begun(server)
            for number in range(KILLS):
                await server.ended(dice.uniform(0.1, 0.4))
                assert await server.end() == -signal.SIGKILL
                await server.live(POINTS[number % len(POINTS)], dice.randint(10, 60))
            await server.ended(0.4)
            await server.end()
            await server.live()
            output, errors = await answers(server, batch)
            assert await server.end(signal.SIGTERM) == 0

    assert errors == []
    assert sorted(int(told["custom_id"]) for told in output) == list(range(LINES))
    assert all(said(told) == told["custom_id"] for told in output)


def said(told: dict[str, Any]) -> str:
    content: str = told["response"]["body"]["choices"][0]["message"]["content"]
    return content


async def begun(server: Phoenix) -> str:
    async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as http:
        content = b"".join(map(line, range(LINES)))
        sent = await http.post(
            "/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"}
        )
        asked = {
            "input_file_id": sent.json()["id"],
            "endpoint": CHAT,
            "completion_window": "24h",
        }
        made = await http.post("/v1/batches", json=asked)
        return str(made.json()["id"])


async def answers(server: Phoenix, batch_id: str) -> tuple[list[Any], list[Any]]:
    """Wait for the end of a batch and return what it has written."""
    async with httpx2.AsyncClient(base_url=server.url, trust_env=False) as http:
        batch: dict[str, Any] = {"status": ""}
        while batch["status"] != "completed":
            batch = (await http.get(f"/v1/batches/{batch_id}")).json()
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        files = [batch["output_file_id"], batch["error_file_id"]]
        texts = [
            (await http.get(f"/v1/files/{name}/content")).text if name else "" for name in files
        ]
    output, errors = ([json.loads(told) for told in text.splitlines()] for text in texts)
    return output, errors
