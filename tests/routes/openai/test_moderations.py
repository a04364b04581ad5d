"""Verdicts on texts, and what is said where no backend gives any."""

from typing import Any

import httpx2
import pytest

from tests.routes.house import CANARY, House

PATH = "/v1/moderations"


async def post(house: House, body: Any, path: str = PATH) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(path, json=body)


@pytest.mark.parametrize("path", [PATH, "/moderations"])
async def test_a_text_is_judged(shared_house: House, path: str) -> None:
    response = await post(shared_house, {"input": "I like foxes"}, path)

    body = response.json()
    [result] = body["results"]
    assert response.status_code == 200
    assert body.keys() == {"id", "model", "results"}
    assert (body["id"], body["model"]) == (f"modr-{response.headers['x-job-id']}", "sim-chat")
    assert result["flagged"] is False
    assert result["categories"].keys() == result["category_scores"].keys()


async def test_each_text_has_its_own_verdict(shared_house: House) -> None:
    body = {"input": ["I like foxes", "I hate them"], "model": "sim-chat"}

    results = (await post(shared_house, body)).json()["results"]

    assert [result["flagged"] for result in results] == [False, True]


async def test_parts_are_judged_together(shared_house: House) -> None:
    parts = [{"type": "text", "text": text} for text in ("I like foxes", "I hate them")]

    results = (await post(shared_house, {"input": parts})).json()["results"]

    assert [result["flagged"] for result in results] == [True]


async def test_a_backend_that_cannot_judge_is_not_asked_again_nor_given_up(
    own_house: House,
) -> None:
    own_house.sim.add_fault(
        "status", match={"path": PATH}, status=404, message="Resource not found"
    )

    refused = [await post(own_house, {"input": CANARY}) for _ in range(6)]
    async with own_house.http() as http:
        chat = await http.post("/v1/completions", json={"prompt": "repeat: hi"})

    assert {response.status_code for response in refused} == {404}
    error = refused[-1].json()["error"]
    assert error["code"] == "not_offered"
    assert "does not offer moderations" in error["message"]
    assert refused[-1].headers["x-attempts"] == "1"
    assert [r.path for r in own_house.sim.requests()].count(PATH) == 6
    assert chat.status_code == 200


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "required"),
    ({"input": []}, "input", "must not be empty"),
    ({"input": [CANARY, 1]}, "input.1", "string"),
    ({"input": [{"type": "text"}]}, "input.0.text", "required"),
    (
        {"input": [{"type": "image_url", "image_url": {"url": CANARY}}]},
        "input.0",
        "parts of type image_url are not judged here",
    ),
    ({"input": [CANARY] * 65}, "input", "at most 64"),
]


@pytest.mark.parametrize(("body", "param", "word"), BAD)
async def test_what_is_wrong_is_said_and_not_repeated(
    shared_house: House, body: dict[str, Any], param: str, word: str
) -> None:
    response = await post(shared_house, body)

    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"] == param
    assert word in error["message"]
    assert CANARY not in response.text
