"""The error table."""

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from src.models import errors
from src.models.errors import InferenceManagerError, InvalidInput, QueueFull
from src.models.requests import Txt2TxtRequest
from src.routes.errors import STATUS, answer, describe, install


def everything(kind: type[InferenceManagerError]) -> set[type[InferenceManagerError]]:
    return {kind}.union(*(everything(sub) for sub in kind.__subclasses__()))


def test_every_error_has_its_status() -> None:
    assert everything(InferenceManagerError) == set(STATUS)


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = errors.__doc__ or ""

    assert [kind.__name__ for kind in STATUS if kind.__name__ not in drawn] == []


def test_codes_are_distinct() -> None:
    codes = [kind.code for kind in STATUS if kind is not errors.Refused]

    assert len(codes) == len(set(codes))


def test_a_refusal_says_when_to_come_back() -> None:
    response = answer(QueueFull("full", retry_after=2.4))

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "2"


def test_an_input_error_names_the_field() -> None:
    detail = describe(InvalidInput("too small", param="width", hint="at least 16"))

    assert (detail.param, detail.hint, detail.code) == ("width", "at least 16", "invalid_request")


@pytest.mark.parametrize(
    "sent", [{"content": b'{"prompt": "hi"}'}, {"content": b""}, {"json": [1]}]
)
async def test_a_body_that_is_no_json_object_is_told_how_to_be_one(sent: dict[str, Any]) -> None:
    app = FastAPI()
    install(app)

    @app.post("/")
    async def take(request: Txt2TxtRequest) -> str:
        return request.messages[0].content

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://test"
    ) as client:
        answer = await client.post("/", **sent)

    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["error"]["hint"]
