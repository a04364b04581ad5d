import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from src.models.modality import Modality
from src.models.queues import priority_order
from src.routes.errors import ErrorBody
from tests.routes.house import CANARY, House, base64_of, house, png

SMALL = {"size": "64x64", "steps": 1}


async def _post(house: House, tool: str, body: dict[str, Any]) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(f"/mcp/{tool}", json=body)


async def test_text(shared_house: House) -> None:
    response = await _post(shared_house, "txt2txt", {"prompt": "repeat: hello"})

    job = response.json()
    assert response.status_code == 200
    assert (job["text"], job["state"], job["model"]) == ("hello", "completed", "sim-chat")
    assert job["simulated"] is True
    assert "error" not in job


async def test_a_conversation(shared_house: House) -> None:
    body = {"messages": [{"role": "system", "content": "x"}, {"content": "repeat: hi"}]}

    assert (await _post(shared_house, "txt2txt", body)).json()["text"] == "hi"


async def test_a_picture_is_an_address_unless_asked_for(shared_house: House) -> None:
    plain = await _post(shared_house, "txt2img", {"prompt": "a fox", **SMALL})
    wanted = {"prompt": "a fox", "response_format": "b64_json", "n": 2, **SMALL}
    whole = await _post(shared_house, "txt2img", wanted)

    [picture] = plain.json()["images"]
    assert "b64_json" not in picture
    assert picture["url"].startswith(f"{shared_house.url}/images/")
    assert len(whole.json()["images"]) == 2
    async with shared_house.http() as http:
        for picture in whole.json()["images"]:
            fetched = await http.get(picture["url"])
            assert base64.b64decode(picture["b64_json"]) == fetched.content


async def test_a_picture_is_served_safely(shared_house: House) -> None:
    made = (await _post(shared_house, "txt2img", {"prompt": "x", **SMALL})).json()

    async with shared_house.http() as http:
        response = await http.get(made["images"][0]["url"])

    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"].startswith("private")
    name = f'inline; filename="{made["job_id"]}-0.png"'
    assert response.headers["content-disposition"] == name
    assert len(response.content) == made["images"][0]["size_bytes"]


async def test_a_chain_of_pictures(shared_house: House) -> None:
    made = (await _post(shared_house, "txt2img", {"prompt": "x", **SMALL})).json()["images"][0]

    for name in (made["reference"], made["uri"], made["url"]):
        changed = await _post(shared_house, "img2img", {"image": name, "prompt": "y", "steps": 1})
        assert changed.json()["images"][0]["height"] == 64
        told = await _post(shared_house, "img2txt", {"image": name})
        assert "64x64" in told.json()["text"]
    both = {"images": [made["reference"], base64_of(png(48, 32))], "question": "What?"}
    assert "48x32" in (await _post(shared_house, "img2txt", both)).json()["text"]


async def test_when_the_wait_runs_out_the_job_goes_on(own_house: House) -> None:
    own_house.sim.hold()

    given = await _post(own_house, "txt2txt", {"prompt": "repeat: x", "wait_seconds": 0})
    job_id = given.json()["job_id"]
    assert await own_house.running("txt2txt") == job_id
    async with own_house.http() as http:
        looked = await http.get("/mcp/get_job", params={"job_id": job_id})
        own_house.sim.release()
        done = await http.get("/mcp/get_job", params={"job_id": job_id, "wait_seconds": 10})

    assert (given.status_code, looked.status_code, done.status_code) == (202, 202, 200)
    assert "get_job" in given.json()["next"]
    assert looked.json()["state"] == "processing"
    assert done.json()["text"] == "x"


async def test_a_caller_that_hangs_up_takes_its_job_along(own_house: House) -> None:
    own_house.sim.hold()
    call = asyncio.create_task(_post(own_house, "txt2txt", {"prompt": "x"}))
    job_id = await own_house.running("txt2txt")

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    async with own_house.http() as http, asyncio.timeout(1):
        job = await http.get("/mcp/get_job", params={"job_id": job_id, "wait_seconds": 5})
    assert job.json()["state"] == "cancelled"


async def test_one_that_only_looks_may_hang_up(own_house: House) -> None:
    own_house.sim.hold()
    job_id = (await _post(own_house, "txt2txt", {"prompt": "x", "wait_seconds": 0})).json()[
        "job_id"
    ]
    await own_house.running("txt2txt")
    async with own_house.http() as http:
        params: dict[str, Any] = {"job_id": job_id, "wait_seconds": 60}
        with pytest.raises(httpx2.ReadTimeout):
            await http.get("/mcp/get_job", params=params, timeout=0.05)
        assert (await http.get("/mcp/get_job", params={"job_id": job_id})).status_code == 202


async def test_cancel(own_house: House) -> None:
    own_house.sim.hold()
    given = (await _post(own_house, "txt2txt", {"prompt": "x", "wait_seconds": 0})).json()

    first = await _post(own_house, "cancel_job", {"job_id": given["job_id"]})
    second = await _post(own_house, "cancel_job", {"job_id": given["job_id"]})

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["state"] == second.json()["state"] == "cancelled"


async def test_a_caller_whose_job_is_cancelled_is_told(own_house: House) -> None:
    own_house.sim.hold()
    call = asyncio.create_task(_post(own_house, "txt2txt", {"prompt": "x"}))
    job_id = await own_house.running("txt2txt")

    await _post(own_house, "cancel_job", {"job_id": job_id})

    response = await call
    assert response.status_code == 409
    assert response.json()["error"]["job_id"] == job_id


async def test_a_deadline_ends_the_job(own_house: House) -> None:
    own_house.sim.hold()

    response = await _post(own_house, "txt2txt", {"prompt": "x", "deadline_seconds": 0.05})

    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"


async def test_low_priority_waits_behind_the_others(own_house: House) -> None:
    own_house.sim.hold()
    draw = {"prompt": "x", "wait_seconds": 0, **SMALL}
    await _post(own_house, "txt2img", draw)
    await own_house.running("txt2img")

    low = (await _post(own_house, "txt2img", {**draw, "priority": "low"})).json()
    await _post(own_house, "txt2img", draw)

    async with own_house.http() as http:
        again = (await http.get("/mcp/get_job", params={"job_id": low["job_id"]})).json()
    assert (low["position"], again["position"]) == (0, 1)


async def test_a_failure_has_the_status_of_its_error_and_the_job(own_house: House) -> None:
    own_house.sim.add_fault("status", status=400, message=f"bad {CANARY}")

    response = await _post(own_house, "txt2txt", {"prompt": "x"})

    error = response.json()["error"]
    assert response.status_code == 400
    assert error["code"] == "backend_rejected"
    async with own_house.http() as http:
        job = await http.get("/mcp/get_job", params={"job_id": error["job_id"]})
        figures = (await http.get("/mcp/get_error_metrics")).json()
    assert (job.status_code, job.json()["state"]) == (200, "failed")
    assert job.json()["error"]["code"] == "backend_rejected"
    assert figures["recent_errors"][0]["job_id"] == error["job_id"]


async def test_a_full_queue_says_when_to_come_back() -> None:
    with house(max_waiting=1) as small:
        small.sim.hold()
        draw = {"prompt": "x", "wait_seconds": 0, **SMALL}
        await _post(small, "txt2img", draw)
        await small.running("txt2img")
        await _post(small, "txt2img", draw)

        response = await _post(small, "txt2img", draw)

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["code"] == "queue_full"


async def test_a_picture_of_a_job_that_has_not_ended(own_house: House) -> None:
    own_house.sim.hold()
    given = (await _post(own_house, "txt2img", {"prompt": "x", "wait_seconds": 0, **SMALL})).json()

    async with own_house.http() as http:
        response = await http.get(f"/images/{given['job_id']}/0")

    assert response.status_code == 409


async def test_figures(own_house: House) -> None:
    await _post(own_house, "txt2txt", {"prompt": "repeat: x"})

    async with own_house.http() as http:
        metrics = (await http.get("/mcp/get_request_metrics")).json()
        errors = (await http.get("/mcp/get_error_metrics")).json()
        status = (await http.get("/mcp/get_queue_status")).json()
        models = (await http.get("/mcp/list_models")).json()

    assert metrics["by_modality"]["txt2txt"]["success_rate"] == 1
    assert "counts_by_type" in errors
    assert list(status["queues"]) == list(priority_order)
    assert "sim-chat" in {model["name"] for model in models["models"]}


BAD: list[tuple[str, Any, int, str]] = [
    ("txt2txt", {}, 422, "messages"),
    ("txt2txt", {"prompt": "  "}, 422, "prompt must not be empty"),
    ("txt2txt", [CANARY], 422, "body"),
    ("txt2txt", CANARY, 422, "body"),
    ("txt2txt", {"prompt": "x", "messages": [{"content": CANARY}]}, 422, "prompt"),
    ("txt2txt", {"prompt": CANARY, "temperature": 9}, 422, "temperature: .*2"),
    ("txt2txt", {"prompt": CANARY, "max_tokens": 10**300}, 422, "max_tokens"),
    ("txt2txt", {"prompt": CANARY, "seed": 2**64}, 422, "seed: .*2147483647"),
    ("txt2txt", {"prompt": CANARY, "temperatur": 1}, 422, "temperatur: there is no such field"),
    ("txt2txt", {"prompt": CANARY, "wait_seconds": -1}, 422, "wait_seconds: .*0"),
    ("txt2txt", {"prompt": CANARY, "priority": "high"}, 422, "priority: .*'normal' or 'low'"),
    ("txt2txt", {"prompt": CANARY, "model": CANARY}, 404, "model"),
    ("txt2txt", {"prompt": CANARY, "model": "../../etc/passwd"}, 404, "model"),
    ("txt2img", {"prompt": ""}, 422, "prompt: must not be empty"),
    ("txt2img", {"prompt": CANARY, "size": "99999x99999"}, 422, "width: .*4096"),
    ("txt2img", {"prompt": CANARY, "size": "512\u00d7512"}, 422, "WIDTHxHEIGHT"),
    ("txt2img", {"prompt": CANARY, "n": 10**9}, 422, "n: .*10"),
    ("txt2img", {"prompt": CANARY, "steps": -1}, 422, "steps: .*1"),
    ("txt2img", {"prompt": CANARY, "response_format": CANARY}, 422, "response_format: .*'url'"),
    ("img2img", {"prompt": CANARY, "image": CANARY + "!"}, 422, "image is not valid base64"),
    ("img2img", {"prompt": CANARY, "image": base64_of(png(1, 1))}, 422, "16 to 4096"),
    ("img2img", {"prompt": "x", "image": base64_of(b"<svg>CANARY-4711</svg>")}, 422, "image"),
    ("img2img", {"prompt": CANARY, "image": "job:none"}, 404, "no job"),
    ("img2img", {"prompt": "x", "image": base64_of(png()), "strength": 1.0001}, 422, "strength"),
    ("img2img", {"prompt": "x", "image": base64_of(png()), "strength": 0.5}, 422, "strength"),
    ("img2txt", {"images": []}, 422, "images"),
    ("img2txt", {"image": "http://169.254.169.254/" + CANARY}, 422, "must not be an address"),
    ("cancel_job", {"job_id": CANARY}, 404, "no job"),
    ("cancel_job", {}, 422, "job_id"),
]


@pytest.mark.parametrize(("tool", "body", "status", "says"), BAD)
async def test_bad_input_is_answered_with_what_to_change(
    shared_house: House, tool: str, body: Any, status: int, says: str
) -> None:
    response = await _post(shared_house, tool, body)

    error = ErrorBody.model_validate(response.json()).error
    assert response.status_code == status
    assert re.search(says, error.message)
    assert CANARY not in response.text
    assert len(response.text) < 600


@pytest.mark.parametrize(
    "body",
    [
        '{"prompt": "CANARY-4711", "temperature": NaN}',
        '{"prompt": "CANARY-4711", "temperature": -Infinity}',
        '{"prompt": "CANARY-4711", "deadline_seconds": 1e999}',
        '{"prompt": "CANARY-4711", "seed": %s}' % ("9" * 5000),
        '{"prompt": "CANARY-4711 \\ud800"}',
        '{"prompt": "CANARY-4711", "seed": 1e300}',
        '{"prompt": "CANARY-4711"',
        "[" * 100_000,
        "",
        "\ufeff{}",
        b'{"prompt": "\xff"}',
        b"\x00",
    ],
)
async def test_json_that_no_client_would_send_is_refused(
    shared_house: House, body: str | bytes
) -> None:
    async with shared_house.http() as http:
        headers = {"content-type": "application/json"}
        response = await http.post("/mcp/txt2txt", content=body, headers=headers)

    assert response.status_code in (400, 422)
    assert ErrorBody.model_validate(response.json())
    assert CANARY not in response.text


async def test_a_body_that_is_too_large_is_refused_readably(shared_house: House) -> None:
    response = await _post(shared_house, "img2txt", {"image": "A" * 33 * 2**20})

    assert response.status_code == 413
    assert response.json()["error"]["message"] == "the body must be at most 33,554,432 bytes"


async def test_a_body_of_unknown_length_is_measured(shared_house: House) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        for _ in range(34):
            yield b"A" * 2**20

    async with shared_house.http() as http:
        response = await http.post("/mcp/img2txt", content=pieces())

    assert response.status_code == 413


async def test_a_text_that_unpacks_to_too_large_a_picture(shared_house: House) -> None:
    response = await _post(shared_house, "img2txt", {"image": base64_of(png(5000, 16))})

    assert response.status_code == 422
    assert "16 to 4096" in response.json()["error"]["message"]


async def test_things_that_do_not_exist(shared_house: House) -> None:
    async with shared_house.http() as http:
        for path, status in (
            ("/images/none/0", 404),
            ("/images/none/-1", 404),
            ("/images/none/x", 422),
            ("/mcp/get_job?job_id=none", 404),
            ("/mcp/get_job", 422),
            ("/mcp/get_job?job_id=x&wait_seconds=nan", 422),
            ("/mcp/draw_me", 404),
            ("/mcp/txt2txt", 405),
        ):
            response = await http.get(path)
            assert response.status_code == status, path
            assert ErrorBody.model_validate(response.json())


async def test_every_operation_tells_its_answers(shared_house: House) -> None:
    async with shared_house.http() as http:
        described = (await http.get("/openapi.json")).json()

    for tool in Modality:
        operation = described["paths"][f"/mcp/{tool}"]["post"]
        refused = {"400", "401", "404", "409", "413", "422", "429", "502", "503", "504", "507"}
        assert operation["responses"].keys() == {"200", "202"} | refused
        for code, response in operation["responses"].items():
            schema = response["content"]["application/json"]["schema"]
            wanted = "JobView" if code in ("200", "202") else "ErrorBody"
            assert schema == {"$ref": f"#/components/schemas/{wanted}"}
        assert operation["requestBody"]["content"]["application/json"]["examples"]
    assert "HTTPValidationError" not in json.dumps(described)


@pytest.mark.parametrize(
    "tool", ["txt2txt", "txt2img", "txt2vec", "rerank", "txt2audio", "txt2sound", "txt2video"]
)
async def test_the_examples_of_the_description_work(shared_house: House, tool: str) -> None:
    async with shared_house.http() as http:
        described = (await http.get("/openapi.json")).json()
    content = described["paths"][f"/mcp/{tool}"]["post"]["requestBody"]["content"]

    for example in content["application/json"]["examples"].values():
        assert (await _post(shared_house, tool, example["value"])).status_code == 200


async def test_the_docs_need_no_other_server(shared_house: House) -> None:
    async with shared_house.http() as http:
        page = (await http.get("/docs")).text
        for asset in re.findall(r'(?:href|src)="([^"]+)"', page):
            assert asset.startswith("/")
            assert (await http.get(asset)).status_code == 200


async def test_an_answer_before_the_end_has_the_address_of_the_job(own_house: House) -> None:
    own_house.sim.hold()
    async with own_house.http() as http:
        later = await http.post(
            "/mcp/txt2txt", json={"prompt": "hi"}, headers={"Prefer": "respond-async"}
        )
        waited = await http.post("/mcp/txt2txt", json={"prompt": "hi", "wait_seconds": 0})
        job = (await http.get(later.headers["location"])).json()
        for one in (later, waited):
            await http.delete(one.headers["location"])
    own_house.sim.release()

    assert (later.status_code, waited.status_code) == (202, 202)
    assert later.headers["preference-applied"] == "respond-async"
    assert "preference-applied" not in waited.headers
    assert later.headers["retry-after"] == "1"
    assert job["job_id"] == later.json()["job_id"]


async def test_a_large_body_is_read_as_a_small_one(shared_house: House) -> None:
    response = await _post(
        shared_house, "txt2vec", {"input": ["a red fox under a gold moon, asleep"] * 2048}
    )

    assert len(response.json()["vectors"]) == 2048
