"""The jobs API in the forms of two older services."""

from typing import Any

import httpx2
import pytest

from tests.routes.house import House

KEYS = {"anna": "key-of-anna-1", "ben": "key-of-ben-22"}
CHAT = {"prompt": "repeat: hello"}


async def post(house: House, path: str, body: Any) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(path, json=body)


async def get(house: House, path: str) -> Any:
    async with house.http() as http:
        return (await http.get(path)).json()


async def ended(house: House, job_id: str) -> None:
    async with house.http() as http:
        await http.get(f"/jobs/{job_id}", params={"wait": 10})


async def test_a_request_is_submitted_and_asked_for(shared_house: House) -> None:
    submitted = await post(shared_house, "/api/v1/submit-request", CHAT)

    told = submitted.json()
    assert submitted.status_code == 202
    assert told["status"] == "queued"
    assert told["estimated_wait"] is None or told["estimated_wait"] >= 0
    place = f"/api/v1/request-status/{told['request_id']}"
    assert submitted.headers["location"] == place
    await ended(shared_house, told["request_id"])
    status = await get(shared_house, place)
    assert status["request_id"] == told["request_id"]
    assert status["status"] == "completed"
    assert status["result"]["text"] == "hello"
    assert status["error"] is None


async def test_a_job_is_queued_looked_at_and_cancelled(own_house: House) -> None:
    own_house.sim.hold()
    first = (await post(own_house, "/queue/jobs", CHAT)).json()["job_id"]
    await own_house.running("txt2txt")
    queued = await post(own_house, "/queue/jobs", {**CHAT, "priority": "low"})
    waiting = queued.json()

    assert queued.headers["location"] == f"/queue/jobs/{waiting['job_id']}"
    assert (waiting["status"], waiting["position"]) == ("queued", 0)
    state = await get(own_house, "/queue/status")
    assert state["workers"] == [
        {"id": "localai", "type": "localai", "status": "busy", "current_job": first}
    ]
    assert (state["running"], state["paused"], state["active_workers"]) == (True, False, 1)
    assert {state[name] for name in ("queue_size", "queue_depth", "pending_jobs")} == {1}
    assert (state["current_job_id"], state["completed_jobs_24h"]) == (first, 0)
    async with own_house.http() as http:
        cancelled = (await http.delete(f"/queue/jobs/{waiting['job_id']}")).json()
    assert (cancelled["status"], cancelled["error"]["code"]) == ("cancelled", "cancelled")
    own_house.sim.release()
    await ended(own_house, first)
    done = await get(own_house, f"/queue/jobs/{first}")
    assert (done["status"], done["result"]["text"]) == ("completed", "hello")
    state = await own_house.until("/queue/status", lambda s: not s["active_workers"])
    assert (state["current_job_id"], state["completed_jobs_24h"]) == (None, 1)
    assert state["workers"][0]["status"] == "idle"


@pytest.mark.parametrize("path", ["/api/v1/submit-request", "/queue/jobs"])
async def test_what_is_no_request_is_refused_by_name(shared_house: House, path: str) -> None:
    for body, param in (
        ({"jobs": [CHAT]}, "jobs"),
        ({}, "prompt"),
        ({**CHAT, "priority": "urgent"}, "priority"),
        ({**CHAT, "modality": "txt2gold"}, "modality"),
    ):
        refused = await post(shared_house, path, body)
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["/api/v1/request-status/nobodys", "/queue/jobs/nobodys"])
async def test_nobodys_request_is_not_found(shared_house: House, path: str) -> None:
    async with shared_house.http() as http:
        assert (await http.get(path)).status_code == 404
