import pytest

from src.simulator.client import ControlClient
from tests.simulator.raw import Answer, Raw, hang_up

PATH = "/v1/moderations"


def judged(raw: Raw, given: object, **fields: object) -> Answer:
    return raw.post(PATH, {"model": "sim-chat", "input": given, **fields})


def flags(answer: Answer) -> list[bool]:
    return [result["flagged"] for result in answer.json["results"]]


def test_an_answer_has_openais_shape(raw: Raw, control: ControlClient) -> None:
    answer = judged(raw, "I will kill the lamp")

    body = answer.json
    assert answer.status == 200
    assert list(body) == ["id", "model", "results"]
    assert (body["id"], body["model"]) == (answer.headers["x-correlation-id"], "sim-chat")
    [result] = body["results"]
    assert list(result) == ["flagged", "categories", "category_scores"]
    assert result["flagged"] is True
    assert [name for name, found in result["categories"].items() if found] == ["violence"]
    assert result["category_scores"].keys() == result["categories"].keys()
    assert result["category_scores"]["violence"] > 0.9 > result["category_scores"]["hate"] > 0
    assert control.requests()[-1].modality == "txt2txt"


def test_each_text_is_judged_by_its_words_whatever_their_case(raw: Raw) -> None:
    given = ["A red fox", "I HATE, hate it", "the skill of whatever", ""]

    assert flags(judged(raw, given)) == [False, True, False, False]
    assert flags(judged(raw, [])) == []


def test_a_model_that_does_not_chat_does_not_judge(raw: Raw) -> None:
    answer = judged(raw, "fox", model="sim-embed")

    assert answer.status == 500
    assert "code = Unimplemented" in answer.json["error"]["message"]
    assert judged(raw, "fox", model=None).json["model"] == "sim-chat"


@pytest.mark.parametrize("given", [7, [7], {"text": "fox"}])
def test_an_input_of_another_type_is_a_400(raw: Raw, given: object) -> None:
    assert judged(raw, given).status == 400


def test_a_text_that_exceeds_the_context_is_a_500(raw: Raw, control: ControlClient) -> None:
    control.patch_model("sim-chat", context=3)

    assert judged(raw, ["one two", "one two three four"]).status == 500


def test_the_limit_of_a_model_turns_it_away(raw: Raw, control: ControlClient) -> None:
    control.patch_model("sim-chat", max_concurrent=1)
    control.hold()
    first = raw.open(PATH, {"model": "sim-chat", "input": "fox"})
    control.wait(state="started")

    answer = judged(raw, "fox")

    assert answer.status == 503
    assert answer.json["error"]["type"] == "admission_rejected"
    hang_up(first)


def test_a_fault_befalls_it_as_any_other_work(raw: Raw, control: ControlClient) -> None:
    control.add_fault("status", status=502)

    assert judged(raw, "fox").status == 502
