"""The error table."""

import re
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ValidationError

from src.models import errors
from src.models.errors import InferenceManagerError, InvalidInput, QueueFull
from src.models.requests import REQUESTS, Img2TxtRequest, Txt2ImgRequest, Txt2TxtRequest
from src.routes.calls import Options
from src.routes.errors import OPTIONS, STATUS, answer, describe, from_validation, install


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


TURN = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("kind", "body", "says", "param"),
    [
        (Txt2TxtRequest, {}, "prompt must be given, or messages", "prompt"),
        (Txt2TxtRequest, {"prompt": 7}, "prompt must be a text", "prompt"),
        (Txt2TxtRequest, {"prompt": "x" * 1_000_001}, "at most 1,000,000 characters", "prompt"),
        (Txt2TxtRequest, {"prompt": "\ud800"}, "prompt must be valid Unicode", "prompt"),
        (Txt2TxtRequest, {"prompt": "x", "temperature": 9}, "allowed is 0 to 2", "temperature"),
        (Txt2TxtRequest, {"prompt": "x", "top_p": 0}, "allowed is more than 0 to 1", "top_p"),
        (Txt2TxtRequest, {"messages": []}, "messages: must not be empty", "messages"),
        (Txt2TxtRequest, {"messages": [TURN] * 2001}, "must have at most 2000 items", "messages"),
        (Txt2TxtRequest, {"messages": [{"content": 1}]}, "valid string$", "messages.0.content"),
        (Txt2TxtRequest, {"prompt": "x", "temprature": 1}, "no such field", "temprature"),
        (Img2TxtRequest, {}, "image must be given, or images", "image"),
        (Img2TxtRequest, {"image": 7}, "image must be a text", "image"),
        (Img2TxtRequest, {"images": ["x"] * 9}, "must have at most 8 items", "images"),
        (Txt2ImgRequest, {"prompt": "x", "size": "huge"}, "size must be WIDTHxHEIGHT", "size"),
        (Txt2ImgRequest, {"prompt": "x", "n": 9, "steps": 0}, "(and 1 more)", "steps"),
    ],
)
def test_a_problem_is_named_as_the_caller_wrote_it(
    kind: type[BaseModel], body: dict[str, Any], says: str, param: str
) -> None:
    with pytest.raises(ValidationError) as found:
        kind.model_validate(body)

    error = from_validation(found.value.errors())

    assert re.search(says.replace("(and", r"\(and").replace("more)", r"more\)"), error.message)
    assert error.param == param


def test_an_unknown_field_gets_the_nearest_and_is_only_repeated_if_it_is_a_name() -> None:
    near = from_validation([{"type": "extra_forbidden", "loc": ("body", "promt"), "msg": ""}])
    strange = from_validation(
        [{"type": "extra_forbidden", "loc": ("body", "a secret: 42"), "msg": ""}]
    )

    assert near.hint == "did you mean prompt?"
    assert (strange.message, strange.param) == ("there is an unknown field", "body")


def test_the_ranges_of_options_are_those_of_the_routes() -> None:
    described = Options.model_json_schema()["properties"]

    for name, allowed in OPTIONS.items():
        numbers = [form for form in described[name]["anyOf"] if "maximum" in form]
        assert allowed.endswith(f"{numbers[0]['maximum']:,}")


def test_a_name_has_the_same_range_in_every_request() -> None:
    ranges: dict[str, set[str]] = {}
    for request in REQUESTS.values():
        for name, field in request.model_json_schema(by_alias=False)["properties"].items():
            for form in field.get("anyOf", [field]):
                if "maximum" in form:
                    limits = {k: v for k, v in form.items() if "imum" in k.lower()}
                    ranges.setdefault(name, set()).add(str(sorted(limits.items())))

    assert {name: found for name, found in ranges.items() if len(found) > 1} == {}
