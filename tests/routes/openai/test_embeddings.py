"""OpenAI's embeddings: numbers or packed, of texts or of tokens."""

import base64
import json
import struct
import time
from array import array
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from src.models.metrics import ErrorLog, RequestMetrics
from src.models.results import Chunk, Vector
from src.routes import errors
from src.routes.doors import Manner
from src.routes.openai import embeddings
from src.routes.tools import Tools
from src.sharing import Sharing
from src.utils.blobs import FileBlobs
from tests.managing import processor_for
from tests.routes.house import CANARY, House
from tests.routes.test_contents import Ready

PATH = "/v1/embeddings"


async def post(house: House, body: Any, path: str = PATH) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(path, json=body)


async def vectors(house: House, **body: Any) -> list[Any]:
    answer = (await post(house, body)).json()
    assert [item["index"] for item in answer["data"]] == [*range(len(answer["data"]))]
    return [item["embedding"] for item in answer["data"]]


@pytest.mark.parametrize("path", [PATH, "/embeddings"])
async def test_a_text_becomes_numbers(shared_house: House, path: str) -> None:
    response = await post(shared_house, {"input": "a red fox"}, path)

    body = response.json()
    [item] = body["data"]
    assert response.status_code == 200
    assert {**body, "data": []} == {
        "object": "list",
        "data": [],
        "model": "sim-embed",
        "usage": {"prompt_tokens": 3, "total_tokens": 3, "estimated": True},
    }
    assert (item["object"], item["index"], len(item["embedding"])) == ("embedding", 0, 64)


async def test_packed_numbers_are_the_same_numbers(shared_house: House) -> None:
    given = ["a fox", "an owl"]

    plain = await vectors(shared_house, input=given, encoding_format="float")
    packed = await vectors(shared_house, input=given, encoding_format="base64")

    for numbers, text in zip(plain, packed, strict=True):
        assert list(struct.unpack("<64f", base64.b64decode(text))) == pytest.approx(numbers)


@pytest.mark.parametrize("blank", ["\n", ["a fox", " "]])
async def test_a_blank_text_becomes_numbers_too(shared_house: House, blank: Any) -> None:
    assert all(len(numbers) == 64 for numbers in await vectors(shared_house, input=blank))


async def test_tokens_are_handed_on_and_counted(shared_house: House) -> None:
    flat = await vectors(shared_house, input=[1, 2, 3])
    lists = await vectors(shared_house, input=[[1, 2, 3], [4]])
    answer = (await post(shared_house, {"input": [[1, 2, 3], [4]]})).json()

    assert flat == lists[:1]
    assert lists[0] != lists[1]
    assert answer["usage"]["prompt_tokens"] == 4


async def test_a_length_that_the_model_has_is_given(shared_house: House) -> None:
    assert [len(v) for v in await vectors(shared_house, input="a", dimensions=64)] == [64]


async def test_a_length_that_the_model_has_not_is_refused(shared_house: House) -> None:
    response = await post(shared_house, {"input": "a", "dimensions": 32})

    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["param"], error["job_id"]) == ("dimensions", response.headers["x-job-id"])
    assert "64" in error["hint"]


@asynccontextmanager
async def ready(chunks: list[Chunk]) -> AsyncGenerator[httpx2.AsyncClient]:
    """Serve the door in front of a backend that has its answer."""
    blobs = FileBlobs()
    processor = processor_for([Ready(chunks)], blobs=blobs)
    sharing = Sharing(processor, blobs, merge=False, cache_bytes=0)
    tools = Tools(processor, sharing, RequestMetrics(), ErrorLog(), clock=time.time, blobs=blobs)
    app = FastAPI()
    errors.install(app)
    app.router.routes.extend(embeddings.build(tools, Manner()))
    transport = httpx2.ASGITransport(app=app)
    async with (
        processor.running(),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        yield http
    await blobs.close()


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_many_vectors_come_whole_and_in_their_order(encoding: str) -> None:
    made = [Vector(array("d", [number / 8] * 1024)) for number in range(32)]
    async with ready([*made]) as http:
        body = {"input": ["x"] * 32, "encoding_format": encoding}
        answer = (await http.post(PATH, json=body)).json()

    def numbers(embedding: Any) -> list[float]:
        if encoding == "float":
            return list(embedding)
        return list(struct.unpack("<1024f", base64.b64decode(embedding)))

    assert [numbers(item["embedding"]) for item in answer["data"]] == [
        vector.values.tolist() for vector in made
    ]


async def test_numbers_are_written_as_the_backend_wrote_them() -> None:
    text = "[0.012345678,-1e-10,0.30000001192092896]"
    async with ready([Vector(array("d", json.loads(text)))]) as http:
        answer = await http.post(PATH, json={"input": "x"})

    assert answer.json()["data"][0]["embedding"] == json.loads(text)
    assert "0.012345678," in answer.text


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "required"),
    ({"input": ""}, "input", "must not be empty"),
    ({"input": []}, "input", "must not be empty"),
    ({"input": [CANARY, ""]}, "input.1", "must not be empty"),
    ({"input": [CANARY, 1]}, "input.1", "string"),
    ({"input": [[]]}, "input.0", "must not be empty"),
    ({"input": [[1, CANARY]]}, "input.0.1", "integer"),
    ({"input": [-1]}, "input.0", "0"),
    ({"input": [CANARY] * 2049}, "input", "at most 2048"),
    ({"input": CANARY, "encoding_format": "hex"}, "encoding_format", "'base64'"),
    ({"input": CANARY, "dimensions": 0}, "dimensions", "1"),
    ({"input": CANARY, "colour": 1, "strict": True}, "colour", "nobody"),
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
