"""The error table."""

import json
import re
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from src.models import errors
from src.models.errors import InferenceManagerError, InvalidInput, QueueFull, TooManyWaiting
from src.models.requests import REQUESTS, Img2TxtRequest, Txt2ImgRequest, Txt2TxtRequest
from src.routes.calls import Options
from src.routes.errors import (
    OPTIONS,
    STATUS,
    answer,
    describe,
    detail_of,
    from_validation,
    install,
    plain,
)
from src.routes.incoming import checked
from src.routes.openai.chat_body import ChatBody


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
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "invalid_request_error"),
        (405, "invalid_request_error"),
        (409, "invalid_request_error"),
        (413, "invalid_request_error"),
        (415, "invalid_request_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (499, "server_error"),
        (500, "server_error"),
        (504, "server_error"),
    ],
)
def test_the_type_is_the_one_that_openai_gives_to_the_status(status: int, kind: str) -> None:
    assert json.loads(bytes(plain(status, "").body))["error"]["type"] == kind


def test_a_caller_with_too_much_waiting_is_told_so_as_openai_does() -> None:
    response = answer(TooManyWaiting("2 jobs", retry_after=5.0))

    error = json.loads(bytes(response.body))["error"]
    assert (response.status_code, response.headers["Retry-After"]) == (429, "5")
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")


@pytest.mark.parametrize(
    ("error", "own", "openai_s"),
    [(InvalidInput("no", param="n"), 422, 400), (QueueFull("full"), 503, 503)],
)
def test_invalid_input_is_a_400_where_openai_would_say_so(
    error: InferenceManagerError, own: int, openai_s: int
) -> None:
    assert (answer(error).status_code, answer(error, v1=True).status_code) == (own, openai_s)


def test_who_asks_is_told_where_to_read_more_and_who_looks_at_a_job_is_not() -> None:
    error = QueueFull("full")

    assert detail_of(error, job_id="j").docs == "/errors/queue_full"
    assert detail_of(error, job_id="j").job_id == "j"
    assert describe(error).docs is None


@pytest.mark.parametrize(
    "sent", [{"content": b'{"prompt": "hi"}'}, {"content": b""}, {"json": [1]}]
)
async def test_a_body_that_is_no_json_object_is_told_how_to_be_one(sent: dict[str, Any]) -> None:
    app = FastAPI()
    install(app)

    @app.post("/")
    async def take(request: Txt2TxtRequest) -> str:
        return request.messages[0].role

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
        (Txt2TxtRequest, {"prompt": "x", "top_p": -1}, "allowed is 0 to 1", "top_p"),
        (Txt2TxtRequest, {"messages": []}, "messages: must not be empty", "messages"),
        (Txt2TxtRequest, {"messages": [TURN] * 2001}, "must have at most 2000 items", "messages"),
        (Txt2TxtRequest, {"messages": [{"content": 1}]}, "valid string$", "messages.0.content"),
        (Txt2TxtRequest, {"prompt": "x", "temprature": 1}, "no such field", "temprature"),
        (Img2TxtRequest, {}, "image must be given, or images", "image"),
        (Img2TxtRequest, {"image": 7}, "image must be a text", "image"),
        (Img2TxtRequest, {"images": ["x"] * 9}, "must have at most 8 items", "images"),
        (Txt2ImgRequest, {"prompt": "x", "size": "huge"}, "size must be WIDTHxHEIGHT", "size"),
        (Txt2ImgRequest, {"prompt": "x", "n": 11, "steps": 0}, "(and 1 more)", "steps"),
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


class Forms(BaseModel):
    """What may be written in several ways."""

    model_config = ConfigDict(strict=True)

    query: Annotated[str, Field(min_length=2)] | list[Annotated[str, Field(min_length=2)]] = "ab"
    more: list[list[int] | dict[str, str]] = []
    max_tokens: Annotated[int, Field(le=40)] = 1


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        ({"query": "a"}, "at least 2 characters", "query"),
        ({"query": 5}, "valid string", "query"),
        ({"query": ["ab", "a"]}, "at least 2 characters", "query.1"),
        ({"query": ["ab", 5]}, "valid string", "query.1"),
        ({"query": ["a"], "max_tokens": 50}, "at least 2 characters (and 1 more)", "query.0"),
        ({"more": [[1], [2, "x"]]}, "valid integer", "more.1.1"),
        ({"more": [{"a": 1}]}, "valid string", "more.0.a"),
        ({"max_tokens": 50}, "less than or equal to 40", "max_tokens"),
    ],
)
@pytest.mark.parametrize("before", [(), ("body",)])
def test_of_a_value_that_has_several_forms_the_one_that_was_meant_is_told_of(
    body: dict[str, Any], says: str, param: str, before: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as found:
        Forms.model_validate(body)
    problems = [{**p, "loc": (*before, *p["loc"])} for p in found.value.errors()]

    error = from_validation(problems)

    assert (error.message.endswith(says), error.param) == (True, param), error.message


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


def test_a_range_is_told_only_if_its_own_end_was_overstepped() -> None:
    class One(BaseModel):
        n: Annotated[int, Field(ge=1, le=1)]

    with pytest.raises(ValidationError) as caught:
        One.model_validate({"n": 2})

    assert "allowed is" not in from_validation(caught.value.errors()).message


@pytest.mark.parametrize("body", [[], "x", 5, None])
def test_a_body_that_is_no_object_is_said_to_be_none(body: object) -> None:
    with pytest.raises(InvalidInput, match="not a JSON object"):
        checked(ChatBody, body)
