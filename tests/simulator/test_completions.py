import json

import pytest

from src.simulator.client import ControlClient
from tests.simulator.raw import Answer, Raw

PATH = "/v1/completions"


def completed(raw: Raw, prompt: object, **fields: object) -> Answer:
    return raw.post(PATH, {"model": "sim-chat", "prompt": prompt, **fields})


def test_an_answer_has_localais_shape_and_usage_of_zeros(raw: Raw, control: ControlClient) -> None:
    answer = completed(raw, "repeat: Hi there")

    body = answer.json
    assert list(body) == ["created", "object", "id", "model", "choices", "usage"]
    assert body["object"] == "text_completion"
    assert body["id"] == answer.headers["x-correlation-id"]
    assert body["choices"] == [{"index": 0, "finish_reason": "stop", "text": "Hi there"}]
    assert body["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert control.requests()[-1].modality == "txt2txt"


def test_each_of_several_prompts_is_answered(raw: Raw) -> None:
    choices = completed(raw, ["repeat: a", "repeat: b"], n=2).json["choices"]

    assert [(choice["index"], choice["text"]) for choice in choices] == [
        (0, "a"),
        (0, "a"),
        (1, "b"),
        (1, "b"),
    ]


def test_the_reason_is_stop_even_at_the_limit(raw: Raw) -> None:
    [choice] = completed(raw, "count to 9", max_tokens=2).json["choices"]

    assert choice == {"index": 0, "finish_reason": "stop", "text": "1 2"}


def test_a_stop_text_ends_it(raw: Raw) -> None:
    assert completed(raw, "count to 9", stop="3").json["choices"][0]["text"] == "1 2 "


def test_a_stream_is_chunks_of_text(raw: Raw) -> None:
    answer = completed(raw, "count to 2", stream=True)

    created, correlation = answer.events[0]["created"], answer.headers["x-correlation-id"]
    head = (
        f'data: {{"created":{created},"object":"text_completion","id":"{correlation}",'
        '"model":"sim-chat","choices":[{"index":0,"finish_reason":'
    )
    assert answer.body.decode() == (
        f'{head}null,"text":"1"}}]}}\n\n'
        f'{head}null,"text":" 2"}}]}}\n\n'
        f'{head}"stop","text":""}}]}}\n\n'
        "data: [DONE]\n\n"
    )


def test_the_usage_of_a_stream_comes_in_a_chunk_of_a_chat(raw: Raw) -> None:
    answer = completed(raw, "count to 2", stream=True, stream_options={"include_usage": True})

    trailer = answer.events[-2]
    assert (trailer["object"], trailer["choices"]) == ("chat.completion.chunk", [])
    assert trailer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.mark.parametrize("prompt", [[], ["a", "b"], None])
def test_a_stream_takes_exactly_one_prompt(raw: Raw, prompt: object) -> None:
    assert completed(raw, prompt, stream=True).status == 400


def test_a_failure_of_a_stream_is_text_and_nothing_follows(
    raw: Raw, control: ControlClient
) -> None:
    control.add_fault("stream_error", after_tokens=1)

    answer = completed(raw, "count to 3", stream=True)

    assert answer.status == 200
    first, last = answer.events
    assert first["choices"][0]["text"] == "1"
    assert last["choices"][0]["text"].startswith("Internal error: rpc error: ")
    assert last["choices"][0]["finish_reason"] == "stop"


def test_a_load_that_fails_is_such_a_failure_too(raw: Raw, control: ControlClient) -> None:
    control.add_fault("load_failure")

    [only] = completed(raw, "hello", stream=True).events

    assert "Internal error: failed to load model" in only["choices"][0]["text"]


def test_a_prompt_that_exceeds_the_context_is_a_500(raw: Raw, control: ControlClient) -> None:
    control.patch_model("sim-chat", context=3)

    assert completed(raw, "one two three four").status == 500


def test_a_stream_may_lack_its_done(raw: Raw, control: ControlClient) -> None:
    control.add_fault("no_done")

    assert completed(raw, "count to 2", stream=True).events[-1] != "[DONE]"


def test_json_objects_are_honoured_but_schemas_are_not(raw: Raw) -> None:
    schema = {"type": "json_schema", "json_schema": {"schema": {"const": 1}}}

    as_object = completed(raw, "hello", response_format={"type": "json_object"})
    as_schema = completed(raw, "repeat: hello", response_format=schema)

    assert json.loads(as_object.json["choices"][0]["text"])["asked"] == "hello"
    assert as_schema.json["choices"][0]["text"] == "hello"


def test_the_same_seed_says_the_same(raw: Raw) -> None:
    texts = [completed(raw, "hi", seed=seed).json["choices"][0]["text"] for seed in (3, 3, 4)]

    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("[simulated]")
