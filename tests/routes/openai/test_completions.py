"""OpenAI's older door for text: what is asked for, what is answered, whole and piece by piece."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from tests.routes.house import CANARY, House

PATH = "/v1/completions"
TOP = ("id", "object", "created", "model")


async def post(house: House, body: Any, path: str = PATH) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(path, json=body)


def asked(house: House, response: httpx2.Response) -> list[str]:
    """Return the digests of what LocalAI was sent for an answer."""
    job_id = response.headers["x-job-id"]
    return [r.digest for r in house.sim.requests() if r.correlation_id == job_id]


def digest(body: Mapping[str, Any]) -> str:
    sent = {**body, "stream": True, "stream_options": {"include_usage": True}}
    return hashlib.sha256(json.dumps(sent, separators=(",", ":")).encode()).hexdigest()[:12]


def events(text: str) -> list[Any]:
    """Take a stream apart; its last line must be `[DONE]`."""
    *rest, last, end = text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in rest]


@pytest.mark.parametrize("path", [PATH, "/completions"])
async def test_a_text_is_gone_on_with(shared_house: House, path: str) -> None:
    response = await post(shared_house, {"prompt": "repeat: hi there"}, path)

    body = response.json()
    assert response.status_code == 200
    assert body == {
        "id": f"cmpl-{response.headers['x-job-id']}",
        "object": "text_completion",
        "created": body["created"],
        "model": "sim-chat",
        "choices": [{"index": 0, "text": "hi there", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
    }


async def test_the_answers_to_one_prompt_follow_each_other(shared_house: House) -> None:
    body = {"prompt": ["repeat: one", "repeat: two"], "n": 2, "best_of": 5}

    choices = (await post(shared_house, body)).json()["choices"]

    told = [(choice["index"], choice["text"]) for choice in choices]
    assert told == [(0, "one"), (1, "one"), (2, "two"), (3, "two")]


async def test_each_answer_begins_with_its_prompt_if_that_is_wanted(shared_house: House) -> None:
    body = {"prompt": ["repeat: one", "repeat: two"], "n": 2, "echo": True}

    whole = (await post(shared_house, body)).json()["choices"]
    pieces = events((await post(shared_house, body | {"stream": True})).text)

    texts = ["repeat: oneone", "repeat: oneone", "repeat: twotwo", "repeat: twotwo"]
    assert [choice["text"] for choice in whole] == texts
    for index, text in enumerate(texts):
        told = [p["choices"][0] for p in pieces if p["choices"][0]["index"] == index]
        assert "".join(piece["text"] for piece in told) == text


async def test_a_stream_is_this_byte_by_byte(shared_house: House) -> None:
    body = {
        "prompt": "repeat: hi there",
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    response = await post(shared_house, body)

    created = events(response.text)[0]["created"]
    top = (
        f'data: {{"id":"cmpl-{response.headers["x-job-id"]}","object":"text_completion",'
        f'"created":{created},"model":"sim-chat",'
    )
    usage = '"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}'
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.split("\n\n") == [
        f'{top}"choices":[{{"index":0,"text":"hi","logprobs":null,"finish_reason":null}}]}}',
        f'{top}"choices":[{{"index":0,"text":" there","logprobs":null,"finish_reason":null}}]}}',
        f'{top}"choices":[{{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}}]}}',
        f'{top}"choices":[],{usage}}}',
        "data: [DONE]",
        "",
    ]


async def test_several_streamed_texts_are_told_apart_and_each_ends(shared_house: House) -> None:
    body = {"prompt": ["repeat: a b", "tokens 50"], "max_tokens": 3, "stream": True}

    told = [event["choices"][0] for event in events((await post(shared_house, body)).text)]

    ends = {choice["index"]: choice["finish_reason"] for choice in told if choice["finish_reason"]}
    assert ends == {0: "stop", 1: "length"}
    assert "".join(choice["text"] for choice in told if choice["index"] == 0) == "a b"


async def test_a_failure_after_the_start_is_an_event(own_house: House) -> None:
    own_house.sim.add_fault("cut", match={"path": PATH}, after_tokens=1)

    response = await post(own_house, {"prompt": "repeat: a b c d", "stream": True})

    *_, last = events(response.text)
    assert response.status_code == 200
    assert last["error"]["code"] == "stream_cut"
    assert last["error"]["job_id"] == response.headers["x-job-id"]


async def test_localai_is_asked_for_exactly_what_was_said(shared_house: House) -> None:
    body = {
        "prompt": ["repeat: a", "repeat: b"],
        "model": "sim-chat",
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 7,
        "stop": "x",
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
        "suffix": "end",
        "logprobs": 2,
        "grammar": "root ::= [a-z]+",
        "user": "me",
        "n": 2,
    }

    response = await post(shared_house, body)

    assert response.json()["choices"][0]["logprobs"] is None
    assert asked(shared_house, response) == [
        digest(
            {
                "grammar": "root ::= [a-z]+",
                "suffix": "end",
                "logprobs": 2,
                "temperature": 0.0,
                "top_p": 0.5,
                "top_k": 3,
                "max_tokens": 5,
                "stop": ["x"],
                "seed": seed,
                "presence_penalty": 0.1,
                "frequency_penalty": -0.1,
                "model": "sim-chat",
                "prompt": prompt,
            }
        )
        for prompt, seed in [("repeat: a", 7), ("repeat: a", 8), ("repeat: b", 7), ("repeat: b", 8)]
    ]


async def test_what_is_left_out_is_left_to_the_model(shared_house: House) -> None:
    response = await post(shared_house, {"prompt": "repeat: a"})

    assert asked(shared_house, response) == [digest({"model": "sim-chat", "prompt": "repeat: a"})]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "prompt", "required"),
    ({"prompt": ""}, "prompt", "at least 1 character"),
    ({"prompt": " \n"}, "prompt", "must not be empty"),
    ({"prompt": []}, "prompt", "must not be empty"),
    ({"prompt": [CANARY, ""]}, "prompt.1", "at least 1 character"),
    ({"prompt": [1, 2, 3]}, "prompt", "tokens"),
    ({"prompt": [[1], [2]]}, "prompt", "tokens"),
    ({"prompt": {"a": CANARY}}, "prompt", "string"),
    ({"prompt": [CANARY] * 65}, "prompt", "at most 64"),
    ({"prompt": CANARY, "n": 11}, "n", "10"),
    ({"prompt": CANARY, "best_of": 21}, "best_of", "20"),
    ({"prompt": CANARY, "max_tokens": 0, "echo": True}, "max_tokens", "1 to 1,000,000"),
    ({"prompt": CANARY, "logprobs": 6}, "logprobs", "5"),
    ({"prompt": CANARY, "logprobs": True}, "logprobs", "integer"),
    ({"prompt": CANARY, "echo": "yes"}, "echo", "boolean"),
    ({"prompt": CANARY, "max_tokens": "5"}, "max_tokens", "integer"),
    ({"prompt": CANARY, "colour": 1, "strict": True}, "colour", "nobody"),
]


@pytest.mark.parametrize(("body", "param", "word"), BAD)
async def test_what_is_wrong_is_said_and_not_repeated(
    shared_house: House, body: dict[str, Any], param: str, word: str
) -> None:
    response = await post(shared_house, body)

    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert word in error["message"]
    assert CANARY not in response.text
