"""`/health`, `/ready` and `/queue-status`."""

import asyncio
import random
from contextlib import suppress
from typing import Any

import httpx2

from src import __version__
from src.app import create_app
from src.models.queues import priority_order
from src.settings import Settings
from src.simulator.serve import Simulator
from tests.routes.house import PATIENCE_S, House, house
from tests.serving import serving

CHAT = {"prompt": "repeat: hello", "model": "sim-chat"}


async def test_health_says_what_lives_and_what_stands_behind_it(shared_house: House) -> None:
    async with shared_house.http() as http:
        health = (await http.get("/health")).json()
        ready = (await http.get("/ready")).json()

    assert health["status"] == "healthy"
    assert health["service"] == "inference-manager"
    assert health["version"] == __version__
    assert health["simulated"] is True
    assert health["backends"]["localai"]["up"] is True
    assert ready == {"ready": True, "reasons": []}


async def test_without_localai_the_server_lives_is_not_ready_and_says_why() -> None:
    nobody = Simulator()
    nobody.start()
    nobody.stop()
    app = create_app(Settings(localai_url=nobody.url, log_file=None, log_level="error", grace_s=0))
    with serving(app) as url:
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
            while "cannot be reached" not in (ready := await http.get("/ready")).text:
                pass
            health = (await http.get("/health")).json()
            submitted = await http.post("/mcp/txt2txt", json={**CHAT, "wait_seconds": 0})

    assert ready.status_code == 503
    away = "cannot be reached; check that it runs, and that its URL is right"
    assert ready.json()["reasons"] == [f"localai: backend localai at {nobody.url} {away}"]
    assert health["status"] == "degraded"
    assert submitted.status_code == 202
    assert submitted.json()["state"] == "queued"


async def test_health_does_not_wait_for_a_backend_that_hangs(own_house: House) -> None:
    own_house.sim.add_fault("hang")

    async with own_house.http() as http, asyncio.timeout(2):
        health = await http.get("/health")
        status = await http.get("/queue-status")

    assert health.status_code == status.status_code == 200


async def test_queue_status_shows_what_waits_what_runs_and_what_is_in_memory(
    own_house: House,
) -> None:
    own_house.sim.hold()
    async with own_house.http() as http:
        for _ in range(3):
            await http.post("/mcp/txt2txt", json={**CHAT, "wait_seconds": 0})
        await http.post("/mcp/txt2img", json={"prompt": "a boat", "wait_seconds": 0})
        running = await own_house.running("txt2txt")
        status: Any = (await http.get("/queue-status")).json()
        own_house.sim.release()

    text, picture = status["queues"]["txt2txt"], status["queues"]["txt2img"]
    assert list(status["queues"]) == list(priority_order)
    assert [queue["priority"] for queue in status["queues"].values()] == [*range(1, 12)]
    assert text["waiting"] == 2
    assert picture["waiting"] == 1
    assert text["oldest_age_s"] >= 0
    assert text["running"][0]["job_id"] == running
    assert text["running"][0]["model"] == "sim-chat"
    assert text["running"][0]["elapsed_s"] >= 0
    assert status["backends"]["localai"]["resident"]["sim-chat"] == {"running": 1, "parallel": 1}
    assert 0 <= status["system"]["cpu_percent"] <= 100
    assert 0 < status["system"]["memory_percent"] <= 100


async def test_two_hundred_callers_that_hang_up_at_random_leave_a_working_server() -> None:
    dice = random.Random(5)
    with house() as crowded:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(
            base_url=crowded.url, trust_env=False, timeout=PATIENCE_S, limits=limits
        ) as http:

            async def caller() -> None:
                patience = dice.uniform(0.001, 0.5)
                with suppress(httpx2.TimeoutException):
                    await http.post("/mcp/txt2txt", json={"prompt": "tokens 20"}, timeout=patience)

            async with asyncio.TaskGroup() as callers:
                for _ in range(200):
                    callers.create_task(caller())
            await crowded.until("/queue-status", lambda s: not s["waiting"] and not s["running"])
            answers = [await http.post("/mcp/txt2txt", json=CHAT) for _ in range(20)]

        assert [answer.json()["text"] for answer in answers] == ["hello"] * 20
