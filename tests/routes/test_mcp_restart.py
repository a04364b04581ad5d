"""What a client of MCP was told is true after a restart of the server."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult

from src.app import create_app
from src.settings import Settings
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from tests.routes.following import begin, ended, following
from tests.routes.house import House, facts, words
from tests.serving import serving

DRAW = {"prompt": "a fox", "size": "64x64", "steps": 1, "output": "full"}


@pytest.fixture
def simulator() -> Generator[Simulator]:
    with Simulator(SimulatorConfig(speed=0)) as started:
        yield started


@contextmanager
def server(simulator: Simulator, data: Path) -> Generator[House]:
    settings = Settings(
        localai_url=simulator.url,
        store=f"sqlite:///{data / 'jobs.db'}",
        public_url="http://pictures.example",
        log_file=None,
        log_level="error",
        grace_s=0,
    )
    with serving(create_app(settings)) as url:
        yield House(url, simulator.control)


async def test_results_are_told_in_the_same_form(simulator: Simulator, tmp_path: Path) -> None:
    with server(simulator, tmp_path) as before:
        async with before.client() as client:
            drawn = await client.call_tool("txt2img", {**DRAW, "idempotency_key": "fox"})
            said = await client.call_tool("txt2txt", {"prompt": "repeat: x"})
            spoken = await client.call_tool("txt2audio", {"input": "and so on " * 20})
            simulator.control.add_fault("status", status=400, message="bad")
            failed = await client.call_tool("txt2txt", {"prompt": "x"})
            failed_id = facts(await client.call_tool("list_jobs"))["jobs"][0]["job_id"]
            job_id = facts(drawn)["job_id"]
            picture = await client.read_resource(f"inference://images/{job_id}/0")
            job = await client.read_resource(f"inference://jobs/{job_id}")

    with server(simulator, tmp_path) as after:
        async with after.client() as client:
            again = await client.call_tool("get_job", {"job_id": job_id, "output": "full"})
            repeated = await client.call_tool("txt2img", {**DRAW, "idempotency_key": "fox"})
            same_failure = await client.call_tool("get_job", {"job_id": failed_id})
            same_text, same_sound = await _job(client, said), await _job(client, spoken)
            assert await client.read_resource(f"inference://images/{job_id}/0") == picture
            assert await client.read_resource(f"inference://jobs/{job_id}") == job
            listed = facts(await client.call_tool("list_jobs"))["jobs"]

    assert failed.is_error
    assert _told(same_failure) == _told(failed)
    assert _told(again) == _told(repeated) == _told(drawn)
    assert _told(same_text) == _told(said)
    assert _told(same_sound) == _told(spoken)
    assert facts(spoken)["audio"][0]["size_bytes"] > 65_536, "so it is a file, not a row"
    made = [facts(result)["job_id"] for result in (spoken, said, drawn)]
    assert [line["job_id"] for line in listed] == [failed_id, *made]


async def test_what_was_handed_out_goes_on(simulator: Simulator, tmp_path: Path) -> None:
    simulator.control.hold()
    with server(simulator, tmp_path) as before:
        async with before.client() as client, following(before) as follower:
            ask = {"prompt": "repeat: fine", "wait_seconds": 0}
            handle = facts(await client.call_tool("txt2txt", ask))
            await before.running("txt2txt")
            begun = await begin(follower, "txt2img", **DRAW)

    simulator.control.release()
    with server(simulator, tmp_path) as after:
        async with after.client("legacy") as client, following(after) as follower:
            done = await client.call_tool("get_job", {"job_id": handle["job_id"]})
            told = await ended(follower.session, begun.task_id)

    assert words(done) == "fine"
    assert facts(CallToolResult.model_validate(told.result))["images"]


async def _job(client: Client, told: CallToolResult) -> CallToolResult:
    return await client.call_tool("get_job", {"job_id": facts(told)["job_id"]})


def _told(result: CallToolResult) -> dict[str, Any]:
    return result.model_dump(exclude={"meta"})
