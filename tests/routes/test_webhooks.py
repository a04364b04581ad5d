"""Webhooks, from the request that asks for one to the receiver that is told."""

import asyncio
import base64
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook

from ..utils.raw_server import raw_server, reply
from .house import PATIENCE_S, House, house

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"
ON: dict[str, Any] = {
    "webhook_secrets": SECRET,
    "webhook_allow_http": True,
    "webhook_allow_private": True,
    "public_url": "https://queue.example/",
}
TEXT = {"modality": "txt2txt", "prompt": "repeat: hello"}


async def until_told(http: httpx2.AsyncClient, job_id: str) -> dict[str, Any]:
    """Ask for a job until somebody has been told of its end."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            job: dict[str, Any] = (await http.get(f"/jobs/{job_id}?wait=10")).json()
            if job.get("webhook", {}).get("state") == "delivered":
                return job


async def test_whoever_asked_for_it_is_told_that_the_job_has_ended() -> None:
    async with raw_server((reply(204),)) as server:
        with house(**ON) as at:
            async with at.http() as http:
                asked = {**TEXT, "webhook": f"{server.url}/told"}
                job_id = (await http.post("/jobs", json=asked)).json()["job_id"]
                job = await until_told(http, job_id)

    assert job["text"] == "hello"
    assert job["webhook"] == {"state": "delivered", "tries": 1, "said": "answered 204"}
    (request,) = server.heard
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    told = Webhook(SECRET).verify(request.body, {n: request.header(n) or "" for n in names})
    assert told["type"] == "job.completed"
    assert told["data"]["job_id"] == job_id
    assert told["data"]["links"] == {"job": f"https://queue.example/jobs/{job_id}"}


async def test_one_is_told_of_each_job_even_if_another_answers_the_same() -> None:
    async with raw_server((reply(204),)) as server:
        with house(**ON, merge=True, cache_mb=1) as at:
            async with at.http() as http:
                asked = {**TEXT, "temperature": 0, "webhook": f"{server.url}/told"}
                ids = [(await http.post("/jobs", json=asked)).json()["job_id"] for _ in range(3)]
                for job_id in ids:
                    await until_told(http, job_id)

    assert len(set(ids)) == len(server.heard) == 3


@pytest.mark.parametrize("several", [False, True])
async def test_a_key_does_not_lead_to_a_job_of_which_nobody_else_is_told(several: bool) -> None:
    with house(**ON) as at:
        async with at.http() as http:
            answers: list[httpx2.Response] = []
            for webhook in ({}, {"webhook": "http://127.0.0.1:9/"}):
                asked = {**TEXT, **webhook}
                body = {"jobs": [asked]} if several else asked
                headers = {"Idempotency-Key": "k"}
                answers.append(await http.post("/jobs", json=body, headers=headers))

    assert [one.status_code for one in answers] == [202, 409]
    assert answers[1].json()["error"]["code"] == "idempotency_conflict"


async def refused(at: House, url: str) -> dict[str, Any]:
    async with at.http() as http:
        answer = await http.post("/jobs", json={**TEXT, "webhook": url})
    assert answer.status_code == 422
    error: dict[str, Any] = answer.json()["error"]
    return error


async def test_a_webhook_is_refused_where_there_are_none_and_where_it_may_not_go() -> None:
    with house() as at:
        error = await refused(at, "https://example.org/")
        assert error["param"] == "webhook"
        assert "webhook_secrets" in error["hint"]
    with house(webhook_secrets=SECRET) as at:
        assert "must be a public one" in (await refused(at, "https://10.0.0.1/"))["message"]
        assert "https://" in (await refused(at, "http://example.org/"))["message"]
