"""What is kept comes out as it went in, whatever it is."""

from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from src.models.blobs import Blob
from src.models.errors import (
    BackendUnavailable,
    InferenceManagerError,
    InvalidInput,
    ModelLoadFailed,
    UnknownModel,
)
from src.models.requests import Img2TxtRequest, InferenceRequest, Txt2TxtRequest
from src.models.results import Result, Vector
from src.utils.stores import codec
from tests.models.making import SMALLEST

WORDS = st.text(max_size=20)
TEXTS = st.text(alphabet=st.characters(codec=None), max_size=20)  # halves of surrogates too
NUMBERS = st.floats(allow_nan=False)
BLOBS = st.builds(
    Blob, st.text("abcXYZ019_-", min_size=1, max_size=128), st.integers(0, 10**15 - 1)
)


def json_of(words: st.SearchStrategy[str]) -> st.SearchStrategy[JsonValue]:
    numbers = st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | st.integers() | numbers | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=6,
    )


# Requests

LEAST: dict[type[InferenceRequest], dict[str, Any]] = {
    **SMALLEST,
    Txt2TxtRequest: {"messages": [{"content": "p"}]},
    Img2TxtRequest: {"images": ["aGk="]},
}
KINDS: tuple[type[InferenceRequest], ...] = get_args(InferenceRequest)
ANYTHING: list[object] = [
    2,
    20,
    64,
    0.5,
    True,
    "words",
    "ü \u2028 \x00 '\"",
    "mp3",
    "blob:12:a-key",
    "data:image/png;base64,aGk=",
    ["one", "two"],
    ["one", [1, 2]],
    {"grammar": "g", "more": [None, -0.0, 10**30, {"a": 1e300}]},
    [{"type": "function", "function": {"name": "f"}}],
    [{"role": "user", "content": "hi", "more": {"name": "ann"}}],
    [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image", "image": 0}]}],
]


def with_fields(kind: type[InferenceRequest], fields: dict[str, object]) -> InferenceRequest:
    """Make a request with as many of the fields as it takes."""
    made = kind.model_validate(given := LEAST[kind])
    for name, value in fields.items():
        with suppress(ValidationError):
            made = kind.model_validate({**given, name: value})
            given = {**given, name: value}
    return made


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(data=st.data())
def test_a_request_comes_out_as_it_went_in(
    kind: type[InferenceRequest], data: st.DataObject
) -> None:
    values = st.sampled_from(ANYTHING) | json_of(WORDS)
    fields = data.draw(st.dictionaries(st.sampled_from(sorted(kind.model_fields)), values))
    request = with_fields(kind, fields)

    again = codec.request_from_json(codec.kind_of(request), codec.request_to_json(request))

    assert again == request
    assert again.model_fields_set == request.model_fields_set
    assert (again.blobs, again.size_bytes) == (request.blobs, request.size_bytes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_request_is_tried(kind: type[InferenceRequest]) -> None:
    least = kind.model_validate(LEAST[kind])
    for name in kind.model_fields:
        tried = [getattr(with_fields(kind, {name: value}), name) for value in ANYTHING]
        assert any(value != getattr(least, name) for value in tried), f"teach ANYTHING {name}"


def test_kinds_of_requests_are_called_what_they_were_always_called() -> None:
    assert set(codec.KINDS.values()) == set(KINDS)
    assert sorted(codec.KINDS) == [
        "audio2txt",
        "chat",
        "completion",
        "img2img",
        "img2txt",
        "inpaint",
        "moderation",
        "rerank",
        "txt2audio",
        "txt2img",
        "txt2sound",
        "txt2vec",
        "txt2video",
    ]


def test_a_request_that_is_kept_as_a_kind_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        codec.request_from_json("dream", "{}")


# Results

PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(),
    float: NUMBERS,
    bool: st.booleans(),
    bytes: st.binary(max_size=50),
    type(None): st.none(),
    Blob: BLOBS,
    JsonValue: json_of(TEXTS),
    Vector: st.builds(Vector, st.lists(NUMBERS, max_size=5).map(lambda n: array("d", n))),
}


def anything(kind: Any) -> st.SearchStrategy[Any]:
    """Return whatever may stand where a type does; a type that is new must be taught."""
    if kind in PLAIN:
        return PLAIN[kind]
    if get_origin(kind) is tuple:
        return st.lists(anything(get_args(kind)[0]), max_size=2).map(tuple)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        make: Callable[..., Any] = kind  # type: ignore[assignment]
        return st.builds(make, **{name: anything(hint) for name, hint in hints.items()})
    return st.one_of([anything(one) for one in get_args(kind)])


RESULTS: st.SearchStrategy[Result] = anything(Result)


@settings(max_examples=50)
@given(result=RESULTS)
def test_a_result_comes_out_as_it_went_in(result: Result) -> None:
    assert codec.result_from_json(codec.result_to_json(result)) == result


@pytest.mark.parametrize(
    "text", ["", "[]", "7", '{"dreams": 1}', '{"images": [{}]}', '{"calls": 7}']
)
def test_what_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        codec.result_from_json(text)


# Errors


def family(root: type[InferenceManagerError]) -> list[type[InferenceManagerError]]:
    return [root, *(one for child in root.__subclasses__() for one in family(child))]


def made(kind: type[InferenceManagerError], text: str) -> InferenceManagerError:
    """Make an error of a class, with all that it can tell."""
    if kind is InvalidInput:
        return InvalidInput(text, param=text, hint=text)
    if kind is UnknownModel:
        return UnknownModel(text, nearest=[text, "b"], hint=text)
    if issubclass(kind, ModelLoadFailed):
        return kind(text, cooling=True, retry_after=2.5)
    if issubclass(kind, BackendUnavailable):
        return kind(text, reached=False, hint=text)
    return kind(text, hint=text, retry_after=2.5)


@pytest.mark.parametrize("kind", family(InferenceManagerError))
@settings(max_examples=5)
@given(text=TEXTS)
def test_an_error_comes_out_as_it_went_in(kind: type[InferenceManagerError], text: str) -> None:
    error = made(kind, text)
    again = codec.error_from_json(codec.error_to_json(error))

    expected = InferenceManagerError if error.code == InferenceManagerError.code else kind
    assert type(again) is expected
    assert (again.code, str(again), vars(again)) == (error.code, text, vars(error))


def test_an_error_of_a_class_that_is_no_more_keeps_its_code() -> None:
    again = codec.error_from_json('{"code": "bad_weather", "message": "it rains"}')

    assert (again.code, again.message, again.hint) == ("bad_weather", "it rains", "")


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", '{"code": "x"}'])
def test_what_is_no_error_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        codec.error_from_json(text)
