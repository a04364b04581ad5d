"""Documents in order, in the shape that clients of Jina and Cohere read."""

from typing import Any

import httpx2
import pytest

from tests.routes.house import CANARY, House

PATH = "/v1/rerank"
DOCUMENTS = ["a gold moon", {"text": "a red fox", "id": 7}]


async def post(house: House, body: Any, path: str = PATH) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(path, json=body)


@pytest.mark.parametrize("path", [PATH, "/rerank", "/v2/rerank"])
async def test_documents_come_back_the_best_first(shared_house: House, path: str) -> None:
    response = await post(shared_house, {"query": "fox", "documents": DOCUMENTS}, path)

    body = response.json()
    scores = [result.pop("relevance_score") for result in body["results"]]
    assert response.status_code == 200
    assert scores == sorted(scores, reverse=True)
    assert body == {
        "id": f"rerank-{response.headers['x-job-id']}",
        "model": "sim-embed",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
        "results": [
            {"index": 1, "document": {"text": "a red fox"}},
            {"index": 0, "document": {"text": "a gold moon"}},
        ],
    }


async def test_only_the_best_and_without_their_texts(shared_house: House) -> None:
    body = {"query": "fox", "documents": DOCUMENTS, "top_n": 1, "return_documents": False}

    [best] = (await post(shared_house, body)).json()["results"]

    assert best.keys() == {"index", "relevance_score"}
    assert best["index"] == 1


async def test_what_other_services_know_besides_is_no_mistake(shared_house: House) -> None:
    body = {"query": "fox", "documents": DOCUMENTS, "rank_fields": ["text"], "strict": True}

    assert (await post(shared_house, body)).status_code == 200


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"query": CANARY}, "documents", "required"),
    ({"documents": [CANARY]}, "query", "required"),
    ({"query": "", "documents": [CANARY]}, "query", "must not be empty"),
    ({"query": " ", "documents": [CANARY]}, "query", "must not be empty"),
    ({"query": CANARY, "documents": []}, "documents", "must not be empty"),
    ({"query": CANARY, "documents": CANARY}, "documents", "list"),
    ({"query": CANARY, "documents": ["a", 1]}, "documents.1", "string"),
    ({"query": CANARY, "documents": [{"txt": CANARY}]}, "documents.0.text", "required"),
    ({"query": CANARY, "documents": [CANARY] * 1001}, "documents", "at most 1000"),
    ({"query": CANARY, "documents": ["a"], "top_n": 0}, "top_n", "1 to 1,000"),
    ({"query": CANARY, "documents": ["a"], "topn": 1, "strict": True}, "topn", "nobody"),
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
