"""The plain doors: `/completion`, and a chat that needs no more than a sentence."""

import json
from typing import Any

import httpx2
import pytest

from tests.routes.house import CANARY, House
from tests.routes.openai.test_completions import asked, digest


async def post(house: House, path: str, body: Any) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(path, json=body)


def events(text: str) -> list[Any]:
    *rest, end = text.split("\n\n")
    assert end == ""
    return [json.loads(event.removeprefix("data: ")) for event in rest]


# /completion


async def test_a_completion_is_an_openai_completion(shared_house: House) -> None:
    response = await post(shared_house, "/completion", {"prompt": "repeat: hi"})

    body = response.json()
    assert response.status_code == 200
    assert (body["object"], body["choices"][0]["text"]) == ("text_completion", "hi")
    assert body["id"].startswith("cmpl-")
    assert body["usage"]["total_tokens"] > 0


async def test_a_completion_streams_to_its_done(shared_house: House) -> None:
    body = {"prompt": "count to 3", "stream": True}

    text = (await post(shared_house, "/completion", body)).text

    assert text.endswith("data: [DONE]\n\n")
    told = [json.loads(event[6:])["choices"][0]["text"] for event in text.split("\n\n")[:-2]]
    assert "".join(told) == "1 2 3"


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {}),
        ({"max_tokens": 7, "temperature": 0, "top_k": 1}, {"max_tokens": 7, "top_k": 1}),
        ({"n_predict": 9, "max_tokens": 7}, {"max_tokens": 9}),
        ({"n_predict": -1}, {"max_tokens": 4000}),
    ],
)
async def test_what_is_left_out_has_values_to_begin_with(
    shared_house: House, given: dict[str, Any], changed: dict[str, Any]
) -> None:
    response = await post(shared_house, "/completion", {"prompt": "repeat: hi", **given})

    expected = {
        "temperature": 0.0 if "temperature" in given else 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 150,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "model": "sim-chat",
        "prompt": "repeat: hi",
    }
    assert asked(shared_house, response) == [digest({**expected, **changed})]


# /chat


ANSWERS = [
    ({"message": "repeat: hi you"}, "hi you"),
    ({"prompt": "repeat: hi you", "system": "Be brief."}, "hi you"),
    ({"messages": [{"role": "user", "content": "repeat: hi you"}]}, "hi you"),
    ({"message": "tokens 50", "max_tokens": 1, "stop": ["x"], "user": "me"}, None),
]


@pytest.mark.parametrize(("body", "text"), ANSWERS)
async def test_a_message_is_answered(
    shared_house: House, body: dict[str, Any], text: str | None
) -> None:
    response = await post(shared_house, "/chat", body)

    answer = response.json()
    said = answer.pop("response")
    assert response.status_code == 200
    assert said == text or (text is None and said)
    assert answer["usage"].keys() == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert {**answer, "usage": 0} == {
        "done": True,
        "model": "sim-chat",
        "job_id": response.headers["x-job-id"],
        "finish_reason": "stop" if text else "length",
        "usage": 0,
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/stream", {"message": "repeat: hi you"}),
        ("/chat", {"messages": [{"role": "user", "content": "repeat: hi you"}], "stream": True}),
    ],
)
async def test_an_answer_comes_piece_by_piece(
    shared_house: House, path: str, body: dict[str, Any]
) -> None:
    response = await post(shared_house, path, body)

    first, second, last = events(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert (first, second) == ({"delta": "hi"}, {"delta": " you"})
    assert last["done"] is True
    assert (last["finish_reason"], last["job_id"]) == ("stop", response.headers["x-job-id"])


async def test_thinking_is_told_apart_from_the_answer(shared_house: House) -> None:
    asking = {"message": "why?", "reasoning_effort": "low", "seed": 1}

    whole = (await post(shared_house, "/chat", asking)).json()
    pieces = events((await post(shared_house, "/chat/stream", asking)).text)

    assert whole["reasoning"] == "".join(piece.get("reasoning", "") for piece in pieces)
    assert whole["response"] == "".join(piece.get("delta", "") for piece in pieces)
    assert whole["reasoning"]
    assert whole["response"]


async def test_the_system_speaks_first(shared_house: House) -> None:
    plain = await post(shared_house, "/chat", {"message": "repeat: a"})
    told = await post(shared_house, "/chat", {"message": "repeat: a", "system": "Be very brief."})

    tokens = [answer.json()["usage"]["prompt_tokens"] for answer in (plain, told)]
    assert told.json()["response"] == plain.json()["response"] == "a"
    assert tokens[0] < tokens[1]


async def test_a_failure_after_the_start_is_the_last_event(own_house: House) -> None:
    own_house.sim.add_fault("cut", match={"path": "/v1/chat/completions"}, after_tokens=1)

    response = await post(own_house, "/chat/stream", {"message": "repeat: a b c d"})

    *_, last = events(response.text)
    assert last["done"] is True
    assert last["error"]["code"] == "stream_cut"


@pytest.mark.parametrize("path", ["/chat/stream", "/v1/completions"])
async def test_what_was_asked_before_streams_again(shared_house: House, path: str) -> None:
    body = {"message": "repeat: hi you"} if "chat" in path else {"prompt": "repeat: hi you"}
    headers = {"Idempotency-Key": f"again {path}"}
    async with shared_house.http() as http:
        first, again = [
            await http.post(path, json={**body, "stream": True}, headers=headers) for _ in range(2)
        ]

    def said(response: httpx2.Response) -> str:
        told = [json.loads(e[6:]) for e in response.text.split("\n\n") if e.startswith("data: {")]
        return "".join(
            one.get("delta") or "".join(choice["text"] for choice in one.get("choices", []))
            for one in told
        )

    assert again.headers["x-cache"] == "repeated"
    assert again.headers["x-job-id"] == first.headers["x-job-id"]
    assert said(again) == said(first) == "hi you"


BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("/completion", {}, "prompt", "required"),
    ("/completion", {"prompt": "  "}, "prompt", "must not be empty"),
    ("/completion", {"prompt": CANARY * 1000}, "prompt", "10000"),
    ("/completion", {"prompt": [CANARY]}, "prompt", "string"),
    ("/completion", {"prompt": CANARY, "max_tokens": 4001}, "max_tokens", "equal to 4000"),
    ("/completion", {"prompt": CANARY, "n_predict": 0}, "n_predict", "1"),
    ("/completion", {"prompt": CANARY, "temperature": 2.1}, "temperature", "0 to 2"),
    ("/chat", {}, "message", "must be given"),
    ("/chat", {"message": CANARY, "prompt": CANARY}, "message", "together with prompt"),
    ("/chat", {"message": CANARY, "messages": []}, "messages", "must not be empty"),
    ("/chat", {"message": " "}, "message", "must not be empty"),
    ("/chat", {"messages": [{"role": "user", "content": " "}]}, "messages", "all be empty"),
    ("/chat", {"message": 5}, "message", "string"),
    ("/chat", {"message": CANARY, "n": 2}, "n", "1"),
    ("/chat", {"message": CANARY, "tools": [{"type": "function"}]}, "tools", "left out"),
    ("/chat", {"message": CANARY, "functions": [{"name": "f"}]}, "functions", "left out"),
    ("/chat", {"message": CANARY, "response_format": CANARY}, "response_format", "dictionary"),
    ("/chat/stream", {"message": CANARY, "temperature": CANARY}, "temperature", "number"),
]


@pytest.mark.parametrize(("path", "body", "param", "word"), BAD)
async def test_what_is_wrong_is_said_and_not_repeated(
    shared_house: House, path: str, body: dict[str, Any], param: str, word: str
) -> None:
    response = await post(shared_house, path, body)

    error = response.json()["error"]
    assert response.status_code == 400
    assert error["param"] == param
    assert word in error["message"]
    assert CANARY not in response.text
