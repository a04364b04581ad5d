import base64
import struct

import pytest

from src.simulator.client import ControlClient
from tests.simulator.raw import Answer, Raw, hang_up

PATH = "/v1/embeddings"


def embedded(raw: Raw, given: object, **fields: object) -> Answer:
    return raw.post(PATH, {"model": "sim-embed", "input": given, **fields})


def test_an_answer_has_localais_shape_and_no_usage(raw: Raw) -> None:
    answer = embedded(raw, "a red fox")

    body = answer.json
    assert answer.status == 200
    assert list(body) == ["created", "object", "id", "model", "data"]
    assert (body["object"], body["model"]) == ("list", "sim-embed")
    assert body["id"] == answer.headers["x-correlation-id"]
    [item] = body["data"]
    assert list(item) == ["embedding", "index", "object"]
    assert len(item["embedding"]) == 64
    assert (item["index"], item["object"]) == (0, "embedding")


def test_each_input_has_its_numbers_and_equal_texts_equal_ones(
    raw: Raw, control: ControlClient
) -> None:
    data = embedded(raw, ["fox", "owl", "fox"]).json["data"]

    assert [item["index"] for item in data] == [0, 1, 2]
    assert data[0]["embedding"] == data[2]["embedding"] != data[1]["embedding"]
    entry = control.requests()[-1]
    assert (entry.modality, entry.done) == ("txt2vec", 3)


def test_lists_of_tokens_are_inputs_but_a_flat_list_yields_nothing(raw: Raw) -> None:
    nested, flat = embedded(raw, [[1, 2], [3]]), embedded(raw, [1, 2, 3])

    assert len(nested.json["data"]) == 2
    assert flat.status == 200
    assert "data" not in flat.json


def test_base64_carries_the_same_numbers_as_little_endian_floats(raw: Raw) -> None:
    plain = embedded(raw, "fox").json["data"][0]["embedding"]
    packed = embedded(raw, "fox", encoding_format="base64").json["data"][0]["embedding"]

    assert struct.unpack("<64f", base64.b64decode(packed)) == pytest.approx(plain)


def test_messages_stand_in_for_input(raw: Raw) -> None:
    parts = [{"type": "text", "text": "a fox"}]
    messages = [{"role": "user", "content": parts}, {"role": "user", "content": "asleep"}]

    said = raw.post("/embeddings", {"messages": messages}).json["data"]

    assert said == embedded(raw, "a fox\nasleep").json["data"]


@pytest.mark.parametrize("given", [7, {"text": "fox"}, [1.5], ["fox", None]])
def test_an_input_of_another_type_is_a_400(raw: Raw, given: object) -> None:
    assert embedded(raw, given).status == 400


def test_a_model_that_chats_does_not_embed(raw: Raw) -> None:
    answer = raw.post(PATH, {"model": "sim-chat", "input": "fox"})

    assert answer.status == 500
    assert "code = Unimplemented" in answer.json["error"]["message"]


def test_embedding_goes_on_without_its_client(raw: Raw, control: ControlClient) -> None:
    control.hold()
    left = raw.open(PATH, {"model": "sim-embed", "input": ["fox", "owl"]})
    control.wait(state="started")

    hang_up(left)

    entry = control.wait(state="ended")[0]
    assert (entry.ending, entry.worked_on) == ("client_left", True)
    control.release()
    assert control.wait(state="settled")[0].done == 2


def test_four_requests_are_embedded_at_once(raw: Raw, control: ControlClient) -> None:
    control.hold()
    connections = [raw.open(PATH, {"model": "sim-embed", "input": "fox"}) for _ in range(5)]
    control.wait(state="started", count=4)
    control.wait(state="arrived", count=5)

    embed = control.state().models["sim-embed"]

    assert (embed.busy, embed.waiting) == (4, 1)
    for connection in connections:
        hang_up(connection)
