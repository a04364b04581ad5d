import json

import pytest

from src.simulator.client import ControlClient
from tests.simulator.raw import Answer, Raw

DOCUMENTS = ["quarterly tax report", "the red fox sleeps", "a fox"]


def ranked(raw: Raw, **fields: object) -> Answer:
    asked = {"model": "sim-embed", "query": "a red fox", "documents": DOCUMENTS}
    return raw.post("/v1/rerank", {**asked, **fields})


def test_documents_come_in_the_order_of_their_likeness(raw: Raw, control: ControlClient) -> None:
    body = ranked(raw).json

    assert list(body) == ["model", "usage", "results"]
    assert body["usage"] == {"total_tokens": 12, "prompt_tokens": 12}
    scores = [result["relevance_score"] for result in body["results"]]
    assert scores == sorted(scores, reverse=True)
    assert body["results"][-1]["index"] == 0
    assert body["results"][-1]["document"] == {"text": "quarterly tax report"}
    entry = control.requests()[-1]
    assert (entry.modality, entry.done) == ("rerank", 3)


def test_only_so_many_are_returned_as_asked_for(raw: Raw) -> None:
    assert ranked(raw, top_n=2).json["results"] == ranked(raw).json["results"][:2]
    assert len(ranked(raw, top_n=9).json["results"]) == 3


@pytest.mark.parametrize("number", [0, -1])
def test_less_than_one_is_a_422_with_nothing_but_a_string(raw: Raw, number: int) -> None:
    answer = ranked(raw, top_n=number)

    assert answer.status == 422
    assert isinstance(json.loads(answer.body), str)


def test_no_documents_have_no_order(raw: Raw) -> None:
    assert ranked(raw, documents=[]).json["results"] == []


def test_documents_are_strings(raw: Raw) -> None:
    assert ranked(raw, documents=[{"text": "fox"}]).status == 400
    assert raw.post("/rerank", {}).status == 404
