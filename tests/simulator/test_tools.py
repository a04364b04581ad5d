import json
from typing import Any

import pytest

from src.simulator.client import ControlClient
from tests.simulator.raw import Raw

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Bern"]}, "days": {"type": "integer"}},
    "required": ["city"],
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": CITY},
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "get_time"}}
TOOLS = [WEATHER, TIME]


def called(raw: Raw, content: str, choice: object = None, **fields: object) -> Any:
    answer = raw.chat(content, tools=TOOLS, tool_choice=choice, **fields)
    assert answer.status == 200
    return answer.json["choices"][0]


def names(choice: Any) -> list[str]:
    return [call["function"]["name"] for call in choice["message"].get("tool_calls", ())]


def test_a_call_has_localais_shape(raw: Raw) -> None:
    answer = raw.chat("hello", tools=TOOLS, tool_choice="required")

    [choice] = answer.json["choices"]
    [call] = choice["message"].pop("tool_calls")
    assert choice == {
        "index": 0,
        "finish_reason": "tool_calls",
        "message": {"role": "assistant", "content": ""},
    }
    assert list(call) == ["index", "id", "type", "function"]
    assert (call["index"], call["type"]) == (0, "function")
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
    assert answer.json["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "get_time"}},
        {"type": "function", "name": "get_time"},
        '{"type": "function", "function": {"name": "get_time"}}',
    ],
)
def test_a_function_may_be_named_in_three_ways(raw: Raw, choice: object) -> None:
    found = called(raw, "hello", choice)

    assert names(found) == ["get_time"]
    assert found["message"]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_left_to_itself_a_model_calls_what_the_user_names(raw: Raw) -> None:
    assert names(called(raw, "please get_time")) == ["get_time"]
    assert names(called(raw, "get_time and get_weather", "auto")) == ["get_weather", "get_time"]
    assert names(called(raw, "hello")) == []
    assert names(called(raw, "get_time", "none")) == []
    assert names(called(raw, "get_time", {"name": "get_lost"})) == []


def test_the_result_of_a_call_is_answered_in_words(raw: Raw) -> None:
    messages: list[Any] = [
        {"role": "user", "content": "please get_time"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "12:00"},
    ]

    body = {"model": "sim-chat", "messages": messages, "tools": TOOLS}

    choice = raw.post("/v1/chat/completions", body).json["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"].startswith("[simulated]")


def test_a_stream_tells_the_name_first_and_then_the_arguments(raw: Raw) -> None:
    answer = raw.chat("hello", tools=TOOLS, tool_choice="required", stream=True)

    deltas = [event["choices"][0] for event in answer.events[:-1]]
    assert deltas[0]["delta"] == {"role": "assistant", "content": None}
    (first,), (second,) = (deltas[n]["delta"]["tool_calls"] for n in (1, 2))
    assert first["function"] == {"name": "get_weather", "arguments": ""}
    assert second["function"] == {"arguments": '{"city": "Oslo"}'}
    assert first["id"] == second["id"]
    assert deltas[3] == {"index": 0, "finish_reason": "tool_calls", "delta": {"content": None}}
    assert answer.events[4:] == ["[DONE]"]


def test_calls_have_ids_of_their_own_unless_a_fault_takes_them_away(
    raw: Raw, control: ControlClient
) -> None:
    def ids() -> list[str]:
        found = called(raw, "get_time and get_weather")
        return [call["id"] for call in found["message"]["tool_calls"]]

    assert len(set(ids())) == 2
    control.add_fault("duplicate_ids")
    assert len(set(ids())) == 1


def test_arguments_of_a_schema_without_meaning_are_none(raw: Raw) -> None:
    odd: Any = {"function": {"name": "odd", "parameters": {"not": {}}}}

    answer = raw.chat("hello", tools=[odd], tool_choice="required")

    call = answer.json["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["arguments"] == "{}"


def test_a_json_object_tells_the_facts(raw: Raw) -> None:
    answer = raw.chat("how are you?", response_format={"type": "json_object"})

    assert json.loads(answer.json["choices"][0]["message"]["content"]) == {
        "simulated": True,
        "asked": "how are you?",
        "messages": 1,
        "system_prompt": False,
    }


def test_a_json_schema_gets_an_instance_in_one_piece_and_as_a_stream(raw: Raw) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": CITY}}

    single = raw.chat("hello", response_format=form)
    streamed = raw.chat("hello", response_format=form, stream=True)

    content = single.json["choices"][0]["message"]["content"]
    assert json.loads(content) == {"city": "Oslo"}
    assert streamed.content == content


@pytest.mark.parametrize("schema", [{"not": {}}, "odd", None])
def test_a_schema_that_is_not_understood_is_ignored(raw: Raw, schema: object) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": schema}}

    answer = raw.chat("repeat: words", response_format=form)

    assert answer.json["choices"][0]["message"]["content"] == "words"


def test_json_may_be_cut_short_by_the_limit(raw: Raw) -> None:
    answer = raw.chat("hi", response_format={"type": "json_object"}, max_tokens=3)

    choice = answer.json["choices"][0]
    assert choice["finish_reason"] == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(choice["message"]["content"])


def test_logprobs_tell_each_token_with_the_likeliest(raw: Raw) -> None:
    plain = raw.chat("repeat: Hi thére", logprobs=True)
    likely = raw.chat("repeat: Hi thére", logprobs=True, top_logprobs=3)

    content = plain.json["choices"][0]["logprobs"]["content"]
    assert [list(token) for token in content] == [
        ["id", "token", "bytes", "logprob", "top_logprobs"]
    ] * 2
    assert content[1]["token"] == " thére"
    assert bytes(content[1]["bytes"]).decode() == " thére"
    assert content[1]["logprob"] < 0
    assert content[1]["top_logprobs"] == []
    likeliest = likely.json["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert likeliest[0]["token"] == "Hi"
    assert [it["logprob"] for it in likeliest] == sorted(
        (it["logprob"] for it in likeliest), reverse=True
    )
    assert len({it["token"] for it in likeliest}) == 3
    assert "logprobs" not in raw.chat("hi").json["choices"][0]


def test_only_a_model_for_chats_thinks(raw: Raw) -> None:
    answer = raw.chat("hi", model="sim-vision", reasoning_effort="high")

    assert "reasoning" not in answer.json["choices"][0]["message"]
