"""`/jobs`: what is handed over is kept, and can be found, stopped, moved and repeated."""

import asyncio
import io
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import PIL.Image
import pytest

from tests.routes.house import CANARY, House, base64_of, house

CHAT = "/v1/chat/completions"
KEYS = {"anna": "key-of-anna-1", "ben": "key-of-ben-22"}


def chat(text: str = "repeat: hello", **fields: Any) -> dict[str, Any]:
    return {"modality": "txt2txt", "prompt": text, **fields}


async def post(house: House, body: Any, path: str = "/jobs", **headers: str) -> httpx2.Response:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    async with house.http() as http:
        return await http.post(path, json=body, headers=told)


async def get(house: House, path: str, **query: Any) -> Any:
    async with house.http() as http:
        return (await http.get(path, params=query)).json()


@pytest.fixture
async def held(own_house: House) -> AsyncGenerator[House]:
    """A server whose engine is busy with a chat of somebody, and does not finish."""
    own_house.sim.hold()
    await post(own_house, chat("first"))
    await own_house.running("txt2txt")
    yield own_house
    own_house.sim.release()


# Handing over


async def test_a_job_is_handed_over_and_collected_later(shared_house: House) -> None:
    accepted = await post(shared_house, chat("repeat: later"))

    told = accepted.json()
    assert accepted.status_code == 202
    assert accepted.headers["location"] == f"/jobs/{told['job_id']}"
    assert (told["level"], told["modality"]) == ("normal", "txt2txt")
    ended = await get(shared_house, accepted.headers["location"], wait=10)
    assert (ended["state"], ended["text"]) == ("completed", "later")
    assert ended["backend"] == "localai"
    times = [datetime.fromisoformat(ended[f"{what}_at"]) for what in ("submitted", "ended")]
    assert times[0] <= datetime.fromisoformat(ended["started_at"]) <= times[1]
    assert datetime.fromisoformat(ended["deadline"]) > times[1]


async def test_several_are_taken_in_together_in_their_order(held: House) -> None:
    jobs = [chat(f"repeat: {n}") for n in range(3)] + [{"modality": "rerank", **RERANK}]

    accepted = await post(held, {"jobs": jobs, "priority": "low", "deadline_seconds": 99})

    told = accepted.json()
    assert accepted.status_code == 202
    assert [job["position"] for job in told["jobs"]] == [0, 1, 2, 3]
    assert {job["level"] for job in told["jobs"]} == {"low"}
    assert {job["batch"] for job in told["jobs"]} == {told["batch"]}
    listed = await get(held, "/jobs", batch=told["batch"])
    ids = [job["job_id"] for job in told["jobs"]]
    assert [job["job_id"] for job in listed["jobs"]] == ids[::-1]


RERANK = {"query": "red", "documents": ["a", "b"]}


async def test_of_several_none_is_taken_in_if_one_is_wrong(held: House) -> None:
    before = (await get(held, "/queue-status"))["waiting"]
    good, unknown = chat(), chat(model="nobody-has-it")
    bad = {"modality": "img2img", "image": base64_of(b"no picture"), "prompt": CANARY}

    refused = await post(held, {"jobs": [good, unknown]})
    spoiled = await post(held, {"jobs": [good, bad]})

    assert (refused.status_code, spoiled.status_code) == (404, 422)
    assert spoiled.json()["error"]["param"] == "jobs.1.image"
    assert (await get(held, "/queue-status"))["waiting"] == before


async def test_of_too_many_none_is_taken_in() -> None:
    with house(max_waiting=5) as own:
        own.sim.hold()
        refused = await post(own, {"jobs": [chat()] * 9})

        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        assert (await get(own, "/jobs"))["jobs"] == []
        assert (await post(own, {"jobs": [chat()] * 5})).status_code == 202
        own.sim.release()


@pytest.mark.parametrize("many", [False, True])
async def test_the_same_key_finds_the_same_jobs(held: House, many: bool) -> None:
    body = {"jobs": [chat("a"), chat("b")]} if many else chat("a")
    other = {"jobs": [chat("a"), chat("c")]} if many else chat("c")

    first = await post(held, body, idempotency_key="k-1")
    again = [await post(held, body, idempotency_key="k-1") for _ in range(2)]
    conflict = await post(held, other, idempotency_key="k-1")
    new = await post(held, body, idempotency_key="k-2")

    assert first.status_code == 202
    assert "deduplicated" not in first.json()
    for one in again:
        assert one.status_code == 200
        assert one.json()["deduplicated"] is True
        assert ids_in(one) == ids_in(first)
    assert conflict.status_code == 409
    assert conflict.json()["error"]["code"] == "idempotency_conflict"
    assert not set(ids_in(new)) & set(ids_in(first))
    bad = await post(held, body, idempotency_key="x" * 256)
    assert bad.status_code == 422


def ids_in(response: httpx2.Response) -> list[str]:
    told = response.json()
    return [job["job_id"] for job in told.get("jobs", [told])]


async def test_many_at_once_with_one_key_are_one_group(held: House) -> None:
    body = {"jobs": [chat("a"), chat("b")]}

    answers = await asyncio.gather(*(post(held, body, idempotency_key="k") for _ in range(20)))

    assert sorted(one.status_code for one in answers) == [200] * 19 + [202]
    assert len({tuple(ids_in(one)) for one in answers}) == 1


async def test_a_key_whose_jobs_were_forgotten_is_as_good_as_new(shared_house: House) -> None:
    body = {"jobs": [chat("a"), chat("b")]}
    first = ids_in(await post(shared_house, body, idempotency_key="gone"))
    async with shared_house.http() as http:
        for job_id in first:
            await http.get(f"/jobs/{job_id}", params={"wait": 10})
        await http.delete(f"/jobs/{first[1]}", params={"forget": True})
        left = ids_in(await post(shared_house, body, idempotency_key="gone"))
        await http.delete(f"/jobs/{first[0]}", params={"forget": True})
    again = await post(shared_house, body, idempotency_key="gone")

    assert left == first[:1]
    assert again.status_code == 202
    assert not set(ids_in(again)) & set(first)


BAD: list[tuple[Any, str]] = [
    ([], "body"),
    ({}, "modality"),
    ({"modality": "txt2gold", "prompt": "x"}, "modality"),
    ({"modality": ["txt2txt"], "prompt": "x"}, "modality"),
    ({"modality": "txt2txt"}, "prompt"),
    (chat(wait_seconds=3), "wait_seconds"),
    (chat(priority="high"), "priority"),
    (chat(deadline_seconds=0), "deadline_seconds"),
    (chat(webhook="https://example.org/"), "webhook"),
    ({"jobs": []}, "jobs"),
    ({"jobs": {}}, "jobs"),
    ({"jobs": [chat()] * 1001}, "jobs"),
    ({"jobs": [chat(), 7]}, "jobs.1"),
    ({"jobs": [chat(), {"modality": "txt2img", "prompt": "x", "steps": 999}]}, "jobs.1.steps"),
    ({"jobs": [chat(priority="low")]}, "jobs.0.priority"),
    ({"jobs": [chat()], "modality": "txt2txt"}, "modality"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
async def test_a_bad_order_is_refused_by_name(shared_house: House, body: Any, param: str) -> None:
    response = await post(shared_house, body)

    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == param


async def test_what_is_no_json_is_refused(shared_house: House) -> None:
    async with shared_house.http() as http:
        broken = await http.post("/jobs", content=b"{", headers={"Content-Type": "text/json"})
        text = await http.post("/jobs", content=b"{", headers={"Content-Type": "application/json"})

    assert broken.status_code == 415
    assert text.status_code == 422


# Listing


async def test_a_list_is_read_page_by_page(held: House) -> None:
    accepted = await post(held, {"jobs": [chat(str(n)) for n in range(7)]})
    ids, found, cursor = ids_in(accepted), list[str](), None

    while True:
        query = {"batch": accepted.json()["batch"], "limit": 3}
        page = await get(held, "/jobs", **query, **({"cursor": cursor} if cursor else {}))
        found += [job["job_id"] for job in page["jobs"]]
        if (cursor := page.get("next")) is None:
            break

    assert found == ids[::-1]


async def test_a_list_has_what_was_asked_for(own_house: House) -> None:
    own_house.sim.add_fault("status", status=400, when={"times": 1}, match={"path": CHAT})
    failed = (await post(own_house, chat("x"))).json()
    await get(own_house, f"/jobs/{failed['job_id']}", wait=10)
    low = (await post(own_house, chat("y", priority="low"))).json()
    drawn = {"modality": "txt2img", "prompt": "z", "size": "64x64", "steps": 1}
    picture = (await post(own_house, drawn)).json()
    for job in (low, picture):
        await get(own_house, f"/jobs/{job['job_id']}", wait=10)

    async def found(**query: Any) -> list[str]:
        return [job["job_id"] for job in (await get(own_house, "/jobs", **query))["jobs"]]

    everything = [job["job_id"] for job in (picture, low, failed)]
    assert await found() == everything
    assert await found(state="failed") == [failed["job_id"]]
    assert await found(state=["failed", "completed"]) == everything
    assert await found(code="backend_rejected") == [failed["job_id"]]
    assert await found(modality="txt2img") == [picture["job_id"]]
    assert await found(model="sim-image") == [picture["job_id"]]
    assert await found(level="low") == [low["job_id"]]
    assert await found(submitted_after=picture["submitted_at"], level="low") == []
    assert await found(submitted_before="2001-01-01T00:00:00Z") == []
    [line] = (await get(own_house, "/jobs", state="failed"))["jobs"]
    assert line["error"]["code"] == "backend_rejected"


BAD_QUERIES = [
    ({"state": "gone"}, "state.0"),
    ({"limit": 201}, "limit"),
    ({"cursor": "x"}, "cursor"),
    ({"cursor": "YWZ0ZXIgMQ=="}, "cursor"),
    ({"submitted_after": "2026-01-01T00:00:00"}, "submitted_after"),
    ({"color": "red"}, "color"),
]


@pytest.mark.parametrize(("query", "param"), BAD_QUERIES)
async def test_a_bad_question_is_refused_by_name(
    shared_house: House, query: dict[str, Any], param: str
) -> None:
    async with shared_house.http() as http:
        response = await http.get("/jobs", params=query)

    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == param


async def test_callers_have_their_own_jobs_only() -> None:
    with house(api_keys=KEYS) as own:
        anna, ben = ({"Authorization": f"Bearer {KEYS[name]}"} for name in ("anna", "ben"))
        job_id = (await post(own, chat(), **anna)).json()["job_id"]
        async with own.http() as http:
            for method, path in (
                ("GET", ""),
                ("GET", "/events"),
                ("DELETE", ""),
                ("DELETE", "?forget=true"),
                ("POST", "/retry"),
            ):
                refused = await http.request(method, f"/jobs/{job_id}{path}", headers=ben)
                assert refused.status_code == 404, path
            moved = await http.patch(f"/jobs/{job_id}", json={"to": "front"}, headers=ben)
            assert moved.status_code == 404
            lists = [(await http.get("/jobs", headers=who)).json() for who in (anna, ben)]
            assert [len(one["jobs"]) for one in lists] == [1, 0]
            assert (await http.get("/jobs")).status_code == 401


# Cancelling, forgetting, repeating


async def test_a_waiting_job_is_cancelled_at_once_and_again_without_harm(held: House) -> None:
    job_id = (await post(held, chat())).json()["job_id"]

    async with held.http() as http:
        for _ in range(2):
            told = await http.delete(f"/jobs/{job_id}")
            assert (told.status_code, told.json()["state"]) == (200, "cancelled")
            assert "card_free_in_s" not in told.json()


async def test_a_drawing_that_cannot_be_stopped_says_when_the_card_is_free() -> None:
    with house() as own:
        drawn = {"modality": "txt2img", "prompt": "x", "size": "64x64", "steps": 1}
        own.sim.hold()
        for told_before in (False, True):
            job_id = (await post(own, drawn)).json()["job_id"]
            await own.running("txt2img")
            async with own.http() as http:
                if told_before:
                    told = (await http.delete(f"/jobs/{job_id}")).json()
                    assert told["state"] == "cancelled"
                    assert told["doing"].startswith("cancelled; the ")
                    can_tell = "card is free in about" in told["doing"]
                    assert can_tell == ("card_free_in_s" in told)
                else:  # so that such drawings are known to take their time
                    await http.get(f"/jobs/{job_id}", params={"wait": 0.3})
                own.sim.release()
                told = (await http.get(f"/jobs/{job_id}", params={"wait": 10})).json()
            await own.until("/queue-status", lambda s: s["running"] == 0)
            own.sim.hold()
        told = await get(own, f"/jobs/{job_id}")
        assert "doing" not in told
        assert "card_free_in_s" not in told
        own.sim.release()


async def test_an_ended_job_is_forgotten_on_demand_and_no_other(held: House) -> None:
    job_id = (await post(held, chat())).json()["job_id"]

    async with held.http() as http:
        early = await http.delete(f"/jobs/{job_id}", params={"forget": True})
        await http.delete(f"/jobs/{job_id}")
        forgotten = await http.delete(f"/jobs/{job_id}", params={"forget": True})
        gone = await http.get(f"/jobs/{job_id}")

    assert early.status_code == 409
    assert (forgotten.status_code, forgotten.content) == (204, b"")
    assert gone.status_code == 404


def noise() -> str:
    """A picture too large to be kept in a request."""
    pixels = PIL.Image.frombytes("RGB", (300, 300), Random(1).randbytes(300 * 300 * 3))
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return base64_of(buffer.getvalue())


async def test_an_ended_job_is_run_again_as_a_new_one(own_house: House) -> None:
    body = {"modality": "img2txt", "image": noise(), "question": "What is it?"}
    first = (await post(own_house, {**body, "priority": "low"})).json()
    ended = await get(own_house, f"/jobs/{first['job_id']}", wait=10)

    again = await post(own_house, None, f"/jobs/{first['job_id']}/retry")

    told = again.json()
    assert again.status_code == 202
    assert again.headers["location"] == f"/jobs/{told['job_id']}"
    assert (told["retry_of"], told["level"]) == (first["job_id"], "low")
    async with own_house.http() as http:
        await http.delete(f"/jobs/{first['job_id']}", params={"forget": True})
    repeated = await get(own_house, f"/jobs/{told['job_id']}", wait=10)
    assert (repeated["state"], repeated["text"]) == ("completed", ended["text"])


async def test_many_retries_at_once_with_one_key_are_one_job(shared_house: House) -> None:
    first, other = [(await post(shared_house, chat(text))).json()["job_id"] for text in "ab"]
    for job_id in (first, other):
        await get(shared_house, f"/jobs/{job_id}", wait=10)
    path = f"/jobs/{first}/retry"

    answers = await asyncio.gather(
        *(post(shared_house, None, path, idempotency_key="again") for _ in range(20))
    )
    another = await post(shared_house, None, f"/jobs/{other}/retry", idempotency_key="again")

    assert sorted(one.status_code for one in answers) == [200] * 19 + [202]
    assert len({one.json()["job_id"] for one in answers} - {first}) == 1
    assert sum("deduplicated" in one.json() for one in answers) == 19
    assert another.json()["error"]["code"] == "idempotency_conflict"


async def test_a_job_that_has_not_ended_is_not_run_again(held: House) -> None:
    job_id = (await post(held, chat())).json()["job_id"]

    assert (await post(held, None, f"/jobs/{job_id}/retry")).status_code == 409


# Moving


async def patch(house: House, job_id: str, **move: Any) -> httpx2.Response:
    async with house.http() as http:
        return await http.patch(f"/jobs/{job_id}", json=move)


async def test_jobs_change_places_and_run_in_their_new_order(held: House) -> None:
    first, second, third, fourth = ids_in(
        await post(held, {"jobs": [chat(str(n)) for n in "1234"]})
    )

    assert (await patch(held, fourth, to="front")).json()["position"] == 0
    assert (await patch(held, first, to="back")).json()["position"] == 3
    assert (await patch(held, third, before=second)).json()["position"] == 1
    assert (await patch(held, second, after=first)).json()["position"] == 3
    assert (await patch(held, third, level="low")).json()["level"] == "low"
    held.sim.release()

    order = [fourth, first, second, third]
    told = [await get(held, f"/jobs/{job_id}", wait=10) for job_id in order]
    starts = [job["started_at"] for job in told]
    assert starts == sorted(starts)
    assert {job["state"] for job in told} == {"completed"}


async def test_what_cannot_be_moved_says_why(held: House) -> None:
    running = await held.running("txt2txt")
    one, two = ids_in(await post(held, {"jobs": [chat("1"), chat("2")]}))
    low = (await post(held, chat(priority="low"))).json()["job_id"]

    assert (await patch(held, running, to="front")).status_code == 409
    for move, param in (
        ({}, "body"),
        ({"before": low}, "before"),
        ({"after": "nobody"}, "after"),
        ({"before": two, "to": "front"}, "to"),
        ({"level": "high"}, "level"),
        ({"to": "moon"}, "to"),
    ):
        refused = await patch(held, one, **move)
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == param
    assert (await patch(held, "nobody", to="front")).status_code == 404


async def test_nobody_else_is_overtaken_by_a_move() -> None:
    with house(api_keys=KEYS) as own:
        own.sim.hold()
        anna, ben = ({"Authorization": f"Bearer {KEYS[name]}"} for name in ("anna", "ben"))
        ids = [(await post(own, chat(), **who)).json()["job_id"] for who in (anna, anna, ben, anna)]
        async with own.http() as http:
            moved = await http.patch(f"/jobs/{ids[3]}", json={"to": "front"}, headers=anna)
            bens = await http.get(f"/jobs/{ids[2]}", headers=ben)
        assert moved.json()["position"] == 0
        assert bens.json()["position"] == 1
        own.sim.release()


async def test_what_was_handed_over_outlives_the_server(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'jobs.db'}"
    with house(store=store) as before:
        before.sim.hold()
        job_ids = ids_in(await post(before, {"jobs": [chat("repeat: a"), chat("repeat: b")]}))
        await before.running("txt2txt")
        await patch(before, job_ids[1], level="low")
        key = (await post(before, chat("repeat: c"), idempotency_key="k")).json()["job_id"]
    with house(store=store) as after:
        told = [await get(after, f"/jobs/{job_id}", wait=10) for job_id in (*job_ids, key)]
        again = await post(after, chat("repeat: c"), idempotency_key="k")
        async with after.http() as http:
            story = (await http.get(f"/jobs/{job_ids[0]}/events")).text

    assert [job["text"] for job in told] == ["a", "b", "c"]
    assert told[1]["level"] == "low"
    assert (again.status_code, again.json()["job_id"]) == (200, key)
    assert story.count("event: state") >= 4
    assert '"text":"a"' in story
