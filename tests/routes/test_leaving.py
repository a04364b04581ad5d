"""Callers who hang up before their answer."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.routes.house import House, house


async def hang_up(own: House) -> str:
    """Ask for a text, leave as soon as it is worked on, and return the job's id at its end."""
    own.sim.hold()
    async with own.http() as http:
        headers = {"X-Request-Id": "mine"}
        post = http.post("/mcp/txt2txt", json={"prompt": "CANARY"}, headers=headers)
        call = asyncio.create_task(post)
        job_id = await own.running("txt2txt")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        asked: dict[str, Any] = {"job_id": job_id, "wait_seconds": 10}
        assert (await http.get("/mcp/get_job", params=asked)).json()["state"] == "cancelled"
    return job_id


async def test_a_caller_that_hangs_up_is_logged_once_as_a_proxy_would(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with house(log_file=log, log_level="info", log_console=False) as own:
        job_id = await hang_up(own)

    lines: list[dict[str, Any]] = list(map(json.loads, log.read_text("utf-8").splitlines()))
    (left,) = [line for line in lines if line.get("status") == 499]
    assert (left["job_id"], left["request_id"], left["level"]) == (job_id, "mine", "info")
    assert "CANARY" not in log.read_text("utf-8")
