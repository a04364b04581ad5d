"""Two requests have one fingerprint only if nothing that changes the answer is different."""

from collections.abc import Iterator
from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue

from src.models.blobs import Blob
from src.models.fingerprints import fingerprint, media_texts, repeatable
from src.models.requests import (
    MEDIA,
    Audio2TxtRequest,
    CompletionRequest,
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    InpaintRequest,
    ModerationRequest,
    RerankRequest,
    Txt2AudioRequest,
    Txt2ImgRequest,
    Txt2SoundRequest,
    Txt2TxtRequest,
    Txt2VecRequest,
    Txt2VideoRequest,
)

from .making import SMALLEST, chat, small

LEAST: dict[Any, dict[str, Any]] = {
    CompletionRequest: {"prompts": ["p"]},
    ModerationRequest: {"input": ["t"]},
    **SMALLEST,
}
KINDS: tuple[type[InferenceRequest], ...] = get_args(InferenceRequest)
CONVERSATION = [
    {
        "role": "user",
        "content": [{"type": "text", "text": "look"}, {"type": "image", "image": 0}],
        "more": {"name": "ann", "tool_calls": [{"id": "c", "function": {"arguments": "{}"}}]},
    },
    {"role": "assistant", "content": "a fox"},
]
RICH: list[InferenceRequest] = [
    *(kind.model_validate(LEAST[kind]) for kind in KINDS),
    small(Img2TxtRequest, images=["aGk=", "aG8="], messages=CONVERSATION),
    chat(
        temperature=0.5,
        seed=7,
        stop=["a", "b"],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"x": [1, None]}}}],
        options={"grammar": "g", "logit_bias": {"1": 2.5}},
    ),
    small(Txt2VecRequest, input=["t", [1, 2]]),
    small(Txt2ImgRequest, width=64, height=64, steps=3, seed=1, n=2),
]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def printed(request: InferenceRequest, *, caller: str = "ann", **changes: Any) -> str:
    digests = changes.pop("digests", {text: f"digest of {text}" for text in media_texts(request)})
    model = changes.pop("model", request.model or "the default")
    return fingerprint(request, caller=caller, model=model, digests=digests)


def others(value: object) -> Iterator[object]:
    """Yield values that differ from this one in one place, for every place there is."""
    match value:
        case None:
            yield "something"
        case bool():
            yield not value
        case int() | float():
            yield value + 1
        case str():
            yield value + "!"
        case tuple() | list():
            sequence = list(cast("list[object]", value))
            yield [*sequence, "one more"]
            for at, one in enumerate(sequence):
                yield [*sequence[:at], *sequence[at + 1 :]]
                yield from ([*sequence[:at], new, *sequence[at + 1 :]] for new in others(one))
        case dict():
            table = cast("dict[str, object]", value)
            yield {**table, "one more": None}
            for name, one in table.items():
                yield {key: table[key] for key in table if key != name}
                yield from ({**table, name: new} for new in others(one))
        case BaseModel():
            yield from changed(value)
        case _:
            raise AssertionError(f"teach this test about {type(value)}")


def changed(model: BaseModel) -> Iterator[BaseModel]:
    for name in type(model).model_fields:
        alternatives = list(others(getattr(model, name)))
        assert alternatives
        for new in alternatives:
            yield model.model_copy(
                update={name: tuple(new) if isinstance(new, list) else new}  # pyright: ignore[reportUnknownArgumentType]
            )


@pytest.mark.parametrize("request_", RICH, ids=lambda one: type(one).__name__)
def test_whatever_is_changed_anywhere_in_a_request_changes_its_fingerprint(
    request_: InferenceRequest,
) -> None:
    variants = [request_, *cast("list[InferenceRequest]", list(changed(request_)))]
    prints = [printed(variant) for variant in variants]

    assert len(set(prints)) == len(prints) > len(type(request_).model_fields)


def test_requests_of_different_kinds_have_different_fingerprints() -> None:
    assert len({printed(request) for request in RICH}) == len(RICH)
    beginnings = CompletionRequest(prompts=("t",))
    assert printed(ModerationRequest(input=("t",))) != printed(Txt2VecRequest(input=("t",)))
    assert printed(beginnings) != printed(chat("t"))


def test_another_caller_or_another_model_is_another_fingerprint() -> None:
    prints = {
        printed(chat(), caller=caller, model=model)
        for caller in ("ann", "bob", "")
        for model in ("m", "n", "")
    }

    assert len(prints) == 9


def test_a_model_that_is_named_equals_the_same_model_by_default() -> None:
    assert printed(chat(model="m")) == printed(chat(), model="m")


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_left_out_equals_its_default_written_out(kind: type[InferenceRequest]) -> None:
    least = kind.model_validate(LEAST[kind])
    written = {
        name: field.get_default()
        for name, field in kind.model_fields.items()
        if not field.is_required() and name != "messages"
    }

    assert printed(kind.model_validate(LEAST[kind] | written)) == printed(least)


def test_numbers_that_are_equal_are_the_same_however_they_are_written() -> None:
    assert printed(chat(temperature=1)) == printed(chat(temperature=1.0))
    assert printed(chat(temperature=-0.0)) == printed(chat(temperature=0))
    assert printed(chat(options={"x": {"y": [-0.0]}})) == printed(chat(options={"x": {"y": [0.0]}}))


@given(values, values)
def test_options_have_one_fingerprint_if_and_only_if_they_are_written_the_same(
    one: JsonValue, other: JsonValue
) -> None:
    same = repr(settled(one)) == repr(settled(other))
    prints = [printed(chat(options={"x": value})) for value in (one, other)]

    assert (prints[0] == prints[1]) is same
    assert printed(chat(options={"x": reordered(one)})) == prints[0]


def settled(value: JsonValue) -> JsonValue:
    match value:
        case dict():
            return {key: settled(value[key]) for key in sorted(value)}
        case list():
            return [settled(one) for one in value]
        case float():
            return value + 0.0
        case _:
            return value


def reordered(value: JsonValue) -> JsonValue:
    match value:
        case dict():
            return {key: reordered(value[key]) for key in reversed(value)}
        case list():
            return [reordered(one) for one in value]
        case _:
            return value


WRITTEN = ["aGk=", "data:image/png;base64,aGk=", Blob("k1", 2).reference]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if MEDIA & kind.model_fields.keys()])
def test_a_picture_is_the_same_however_it_is_written_and_another_one_is_not(
    kind: type[InferenceRequest],
) -> None:
    (name, *_) = sorted(MEDIA & kind.model_fields.keys())
    least = kind.model_validate(LEAST[kind])

    def with_picture(text: str) -> str:
        written = least.model_copy(update={name: (text,) if name == "images" else text})
        return printed(written, digests=digests)

    digests = dict.fromkeys(WRITTEN, "one") | {"aG8=": "two"}
    prints = {with_picture(text) for text in WRITTEN}

    assert len(prints) == 1
    assert with_picture("aG8=") not in prints


def test_pictures_in_another_order_are_another_request() -> None:
    one, other = (
        small(Img2TxtRequest, images=order) for order in (["aGk=", "aG8="], ["aG8=", "aGk="])
    )

    assert printed(one) != printed(other)


def test_a_text_that_reads_like_a_picture_is_a_text() -> None:
    assert media_texts(chat(Blob("k", 5).reference)) == ()
    assert media_texts(small(Txt2VideoRequest)) == ()
    assert set(media_texts(small(InpaintRequest, mask="bQ=="))) == {"aGk=", "bQ=="}


REPEATABLE: list[tuple[type[InferenceRequest], dict[str, Any], bool]] = [
    (Txt2TxtRequest, {}, False),
    (Txt2TxtRequest, {"temperature": 0}, True),
    (Txt2TxtRequest, {"temperature": 0.1}, False),
    (Txt2TxtRequest, {"temperature": 1, "seed": 0}, True),
    (Txt2TxtRequest, {"n": 3}, False),
    (Txt2TxtRequest, {"n": 3, "seed": 7}, True),
    (CompletionRequest, {"seed": 7}, True),
    (CompletionRequest, {}, False),
    (ModerationRequest, {}, False),
    (Img2TxtRequest, {"temperature": 0}, True),
    (Img2TxtRequest, {}, False),
    (Txt2ImgRequest, {"seed": 7}, True),
    (Txt2ImgRequest, {}, False),
    (Img2ImgRequest, {"seed": 7}, True),
    (Img2ImgRequest, {}, False),
    (Txt2VideoRequest, {"seed": 7}, True),
    (Txt2VideoRequest, {}, False),
    (Txt2VecRequest, {}, True),
    (RerankRequest, {}, True),
    (Audio2TxtRequest, {"temperature": 0}, True),
    (Audio2TxtRequest, {}, False),
    (Txt2AudioRequest, {}, False),
    (Txt2SoundRequest, {}, False),
    (InpaintRequest, {}, False),
]


@pytest.mark.parametrize(("kind", "fields", "same"), REPEATABLE)
def test_the_same_request_has_the_same_answer_only_where_nothing_is_left_to_chance(
    kind: type[InferenceRequest], fields: dict[str, Any], same: bool
) -> None:
    assert repeatable(kind.model_validate(LEAST[kind] | fields)) is same


def test_of_every_kind_it_is_known_whether_its_answers_are_repeatable() -> None:
    assert {kind for kind, _, _ in REPEATABLE} == set(KINDS)
