import base64

import pytest

from src.simulator.client import ControlClient
from src.simulator.config import ModelConfig, SimulatorConfig
from src.simulator.pictures import Wish, png
from src.simulator.serve import Simulator
from tests.simulator.raw import Raw, chat_body, hang_up


def data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def with_picture(url: str) -> list[object]:
    return [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


def test_an_answer_in_one_piece_has_localais_shape(raw: Raw) -> None:
    answer = raw.chat("repeat: Hi there")

    assert answer.status == 200
    body = answer.json
    assert list(body) == ["created", "object", "id", "model", "choices", "usage"]
    assert body["object"] == "chat.completion"
    assert body["id"] == answer.headers["x-correlation-id"]
    assert body["choices"] == [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hi there"},
        }
    ]
    assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


def test_a_stream_opens_with_a_role_and_null_and_ends_with_an_empty_delta_and_done(
    raw: Raw,
) -> None:
    answer = raw.chat("count to 2", stream=True)

    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    created, correlation = answer.events[0]["created"], answer.headers["x-correlation-id"]
    head = (
        f'data: {{"created":{created},"object":"chat.completion.chunk","id":"{correlation}",'
        '"model":"sim-chat","choices":[{"index":0,"finish_reason":'
    )
    assert answer.body.decode() == (
        head
        + 'null,"delta":{"role":"assistant","content":null}}]}\n\n'
        + head
        + 'null,"delta":{"content":"1"}}]}\n\n'
        + head
        + 'null,"delta":{"content":" 2"}}]}\n\n'
        + head
        + '"stop","delta":{"content":null}}]}\n\n'
        + "data: [DONE]\n\n"
    )


def test_usage_comes_as_a_chunk_without_choices_only_if_asked_for(raw: Raw) -> None:
    without = raw.chat("count to 2", stream=True)
    asked = raw.chat("count to 2", stream=True, stream_options={"include_usage": True})

    assert all("usage" not in event for event in without.events[:-1])
    assert asked.events[-1] == "[DONE]"
    assert asked.events[-2]["choices"] == []
    assert asked.events[-2]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
    }


def test_the_correlation_id_is_echoed_and_is_the_id_of_each_chunk(raw: Raw) -> None:
    body = chat_body("count to 2", stream=True)
    answer = raw.post("/v1/chat/completions", body, X_Correlation_ID="mine")

    assert answer.headers["x-correlation-id"] == "mine"
    assert {event["id"] for event in answer.events[:-1]} == {"mine"}


def test_a_stream_and_a_single_answer_say_the_same(raw: Raw) -> None:
    single = raw.chat("tell me something", seed=3)
    streamed = raw.chat("tell me something", seed=3, stream=True)

    content = single.json["choices"][0]["message"]["content"]
    assert content.startswith('[simulated] You asked "tell me something"')
    assert streamed.content == content


def test_the_limit_of_tokens_ends_an_answer_with_length(raw: Raw) -> None:
    answer = raw.chat("hello", max_tokens=50, max_completion_tokens=5)

    assert answer.json["choices"][0]["finish_reason"] == "length"
    assert answer.json["usage"]["completion_tokens"] == 5


def test_thinking_is_a_field_of_its_own(raw: Raw) -> None:
    single = raw.chat("repeat: yes", reasoning_effort="low")
    streamed = raw.chat("repeat: yes", reasoning_effort="low", stream=True)

    assert single.json["choices"][0]["message"]["reasoning"].startswith("[simulated]")
    deltas = [event["choices"][0]["delta"] for event in streamed.events[:-1]]
    assert deltas[1] == {"content": None, "reasoning": "["}
    assert streamed.content == "yes"


def test_two_choices_come_side_by_side_but_one_after_the_other_in_a_stream(raw: Raw) -> None:
    single = raw.chat("repeat: a", n=2)
    streamed = raw.chat("repeat: a", n=2, stream=True)

    assert [choice["index"] for choice in single.json["choices"]] == [0, 1]
    assert streamed.content == "aa"


def test_a_picture_in_a_data_uri_is_described(raw: Raw) -> None:
    picture = png(Wish("a red fox", width=200, height=100, seed=7))

    answer = raw.chat(with_picture(data_uri(picture)), model="sim-vision")

    content = answer.json["choices"][0]["message"]["content"]
    assert content.startswith("[simulated] A 200x100 landscape picture")
    assert 'drawn by this simulator from "a red fox"' in content


@pytest.mark.parametrize("scheme", ["", "http://127.0.0.1/", "data:image/png,"])
def test_any_other_picture_is_dropped_without_a_word(
    raw: Raw, control: ControlClient, scheme: str
) -> None:
    picture = base64.b64encode(png(Wish("fox", width=32, height=32))).decode()

    answer = raw.chat(with_picture(scheme + picture), model="sim-vision")

    assert answer.status == 200
    assert "You asked" in answer.json["choices"][0]["message"]["content"]
    assert control.requests()[-1].modality == "txt2txt"


def test_bytes_that_are_no_picture_are_dropped_too(raw: Raw) -> None:
    answer = raw.chat(with_picture(data_uri(b"no picture")), model="sim-vision")

    assert answer.status == 200
    assert "You asked" in answer.json["choices"][0]["message"]["content"]


def test_a_prompt_that_exceeds_the_context_is_a_500(raw: Raw, control: ControlClient) -> None:
    control.patch_model("sim-chat", context=3)

    single = raw.chat("one two three four")
    streamed = raw.chat("one two three four", stream=True)

    assert single.status == 500
    assert "exceeds the available context size" in single.json["error"]["message"]
    assert streamed.status == 200
    assert streamed.events[0]["error"]["code"] == "server_error"


def test_a_model_that_draws_does_not_chat(raw: Raw) -> None:
    assert raw.chat("hello", model="sim-image").status == 500


def test_without_a_model_the_first_that_chats_answers(raw: Raw) -> None:
    body = {"messages": [{"role": "user", "content": "repeat: me"}]}

    assert raw.post("/v1/chat/completions", body).json["model"] == "sim-chat"
    assert raw.post("/chat/completions?model=sim-vision", body).json["model"] == "sim-vision"
    bearer = raw.post("/v1/chat/completions", body, Authorization="Bearer sim-vision")
    assert bearer.json["model"] == "sim-vision"


def test_nothing_is_sent_before_the_first_token(raw: Raw, control: ControlClient) -> None:
    control.hold()
    connection = raw.open_chat("count to 2", stream=True)
    control.wait(state="started")

    connection.settimeout(0)
    with pytest.raises(BlockingIOError):
        connection.recv(1)

    connection.settimeout(10)
    control.release()
    assert connection.recv(15) == b"HTTP/1.1 200 OK"
    connection.close()


def test_a_client_that_leaves_frees_its_slot_within_a_token(
    raw: Raw, control: ControlClient
) -> None:
    control.patch(speed=20)
    connection = raw.open_chat("tokens 100000", stream=True)
    control.wait(state="answering")

    hang_up(connection)

    entry = control.wait(state="ended")[0]
    assert entry.ending == "client_left"
    assert not entry.worked_on
    assert entry.settled is not None
    assert control.state().models["sim-chat"].busy == 0


def test_requests_beyond_the_slots_wait_inside_the_engine(raw: Raw, control: ControlClient) -> None:
    control.hold()
    connections = [raw.open_chat(f"repeat: {number}") for number in range(3)]

    control.wait(state="started", count=2)
    control.wait(state="arrived", count=3)

    chat = control.state().models["sim-chat"]
    assert (chat.state, chat.busy, chat.waiting) == ("busy", 2, 1)
    control.release()
    control.wait(state="ended", count=3)
    for connection in connections:
        connection.close()


def test_a_models_limit_turns_requests_away() -> None:
    limited = ModelConfig(max_concurrent=1)
    config = SimulatorConfig(speed=0, models={"sim-chat": limited})

    with Simulator(config) as simulator:
        raw, control = Raw(simulator), simulator.control
        control.hold()
        connection = raw.open_chat("hello")
        control.wait(state="started")
        rejected = raw.chat("hello", stream=True)
        connection.close()

    assert rejected.status == 503
    assert rejected.headers["retry-after"] == "1"
    assert rejected.json["error"]["type"] == "admission_rejected"
    assert "code" not in rejected.json["error"]


def test_an_alias_answers_under_its_own_name() -> None:
    config = SimulatorConfig(speed=0, models={"my-alias": ModelConfig(alias_of="sim-chat")})

    with Simulator(config) as simulator:
        answer = Raw(simulator).chat("repeat: hi", model="my-alias")
        loaded = Raw(simulator).get("/system").json["loaded_models"]

    assert answer.json["model"] == "my-alias"
    assert loaded == [{"id": "sim-chat"}]
