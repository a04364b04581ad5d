"""`/health`, `/ready` and `/queue-status`."""

import asyncio
import random
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2

from src import __version__
from src.app import create_app
from src.models.ports import OfferedModel
from src.models.queues import priority_order
from src.settings import Settings
from src.simulator.serve import Simulator
from tests.managing import FAST, Watched, timing
from tests.routes.house import ERAS, PATIENCE_S, House, facts, house
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


class Silent(Watched):
    """A client of a LocalAI that is too old to say what its models are for."""

    async def models(self) -> list[OfferedModel]:
        return [OfferedModel(model.name) for model in await super().models()]


@contextmanager
def _watching(kind: type[Watched]) -> Generator[tuple[House, Watched]]:
    """Build a house that looks at its backend all the time."""
    with Simulator(FAST) as simulator:
        backend = kind(simulator.url)
        app = create_app(
            Settings(log_file=None, log_level="error", grace_s=0),
            backends=[backend],
            timing=timing(look_s=0.01),
        )
        with serving(app) as url:
            yield House(url, simulator.control), backend


async def test_jobs_whose_model_is_gone_say_so_through_every_door() -> None:
    with _watching(Watched) as (built, backend):
        await built.until("/ready", lambda ready: ready["ready"])
        built.sim.hold()
        later = {**CHAT, "wait_seconds": 0}
        async with built.http() as http:
            await http.post("/mcp/txt2txt", json=later)
            await built.running("txt2txt")
            waiting = (await http.post("/mcp/txt2txt", json=later)).json()
            backend.overlooked = {"sim-chat"}

            status = await built.until("/queue-status", lambda status: status["parked"])
            one = {"job_id": waiting["job_id"], "wait_seconds": 0}
            looked = [(await http.get("/mcp/get_job", params=one)).json()]
            models = (await http.get("/mcp/list_models")).json()
            for era in ERAS:
                async with built.client(era) as client:
                    looked.append(facts(await client.call_tool("get_job", one)))
                    assert facts(await client.call_tool("list_models"))["notes"] == models["notes"]

            backend.overlooked = set()
            await built.until("/queue-status", lambda status: not status["parked"])
            back = (await http.get("/mcp/get_job", params=one)).json()
            built.sim.release()
            ended = (await http.get("/mcp/get_job", params={**one, "wait_seconds": 10})).json()

    assert waiting["doing"] == "next in line"
    assert status["parked"] == {"sim-chat": 1}
    assert {job["doing"] for job in looked} == {"parked: no backend offers sim-chat at present"}
    assert "1 job waits for sim-chat, which no backend offers at present" in models["notes"]
    assert back["doing"] == "next in line"
    assert ended["text"] == "hello"
    assert "doing" not in ended


async def test_no_job_counts_as_parked_while_no_backend_answers() -> None:
    app = create_app(Settings(log_file=None, log_level="error", grace_s=0), backends=[])
    with serving(app) as url:
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as http:
            waiting = await http.post("/mcp/txt2txt", json={**CHAT, "wait_seconds": 0})
            status = (await http.get("/queue-status")).json()

    assert waiting.json()["doing"] == "next in line, but no backend answers"
    assert (status["waiting"], status["parked"]) == (1, {})


async def test_models_of_which_nobody_says_what_they_are_for_have_to_be_named() -> None:
    with _watching(Silent) as (built, _):
        await built.until("/mcp/list_models", lambda listed: listed["known"])
        async with built.http() as http:
            listed = (await http.get("/mcp/list_models")).json()
            unnamed = (await http.post("/mcp/txt2txt", json={"prompt": "x"})).json()["error"]
            named = (await http.post("/mcp/txt2txt", json=CHAT)).json()

    assert (
        "nobody says what sim-chat is for; name it in `model`, or write a definition"
        in listed["notes"]
    )
    assert "name one in `model`" in unnamed["hint"]
    assert "sim-chat" in unnamed["hint"]
    assert named["text"] == "hello"


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
