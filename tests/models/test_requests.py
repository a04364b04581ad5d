"""Every field with its range, and no way to get one's own words back from an error."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from src.models.modality import Modality
from src.models.requests import (
    MAX_PIXELS,
    REQUESTS,
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    Message,
    Txt2ImgRequest,
    Txt2TxtRequest,
)

SMALLEST: dict[type[InferenceRequest], dict[str, Any]] = {
    Txt2TxtRequest: {"prompt": "p"},
    Txt2ImgRequest: {"prompt": "p"},
    Img2ImgRequest: {"prompt": "p", "image": "aGk="},
    Img2TxtRequest: {"image": "aGk="},
}
TEXT = (Txt2TxtRequest, Img2TxtRequest)
PICTURE = (Txt2ImgRequest, Img2ImgRequest)
CANARY = "canary-7f3a"


def make(kind: type[InferenceRequest], **fields: Any) -> InferenceRequest:
    return kind.model_validate({**SMALLEST[kind], **fields})


def refusal(kind: type[InferenceRequest], **fields: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        make(kind, **fields)
    return str(refused.value)


def each(
    kinds: tuple[type[InferenceRequest], ...], table: dict[str, tuple[Any, ...]]
) -> list[tuple[type[InferenceRequest], str, Any]]:
    return [(kind, name, value) for kind in kinds for name in table for value in table[name]]


INFINITE = (float("nan"), float("inf"), -float("inf"))
ANY_NUMBER: tuple[object, ...] = (*INFINITE, 10**300, -(10**300), "9" * 5000, "x", {})
TEXT_ACCEPTED: dict[str, tuple[object, ...]] = {
    "temperature": (0, -0.0, 2, 0.7, "1.5", None),
    "top_p": (1, 0.01, None),
    "top_k": (0, 1000, None),
    "max_tokens": (1, 1_000_000, None),
    "stop": ("x", ["x"] * 8, [], "x" * 256, None),
    "seed": (0, 2**31 - 1, None),
    "presence_penalty": (-2, 2, None),
    "frequency_penalty": (-2, 2, None),
    "model": ("m", "x" * 256, None),
}
TEXT_REFUSED: dict[str, tuple[Any, ...]] = {
    "temperature": (-0.1, 2.1, *ANY_NUMBER),
    "top_p": (0, 1.01, *ANY_NUMBER),
    "top_k": (-1, 1001, 1.5, *ANY_NUMBER),
    "max_tokens": (0, -1, 1_000_001, *ANY_NUMBER),
    "stop": ("", ["x"] * 9, [""], "x" * 257, 5, [5], "\ud800"),
    "seed": (-1, 2**31, 2**64, *ANY_NUMBER),
    "presence_penalty": (-2.1, 2.1, *ANY_NUMBER),
    "frequency_penalty": (-2.1, 2.1, *ANY_NUMBER),
    "model": ("", "   ", "x" * 257, 5, "\udfff"),
}
PICTURE_ACCEPTED: dict[str, tuple[object, ...]] = {
    "prompt": ("x", "x" * 100_000, "\u2028\u202e\x1b[31m\x00"),
    "negative_prompt": ("", "x" * 100_000),
    "width": (16, 4096, 512.0, "512", None),
    "height": (16, 4096, None),
    "steps": (1, 150, None),
    "step": (1, 150, None),
    "seed": (0, 2**31 - 1, None),
    "n": (1, 8),
    "size": ("512x512", " 64X96 ", "16x4096", None),
}
PICTURE_REFUSED: dict[str, tuple[Any, ...]] = {
    "prompt": ("", " \n", "x" * 100_001, None, 5, "a\ud800b"),
    "negative_prompt": ("a|b", "x" * 100_001, None),
    "width": (15, 4097, 0, -512, *ANY_NUMBER),
    "height": (15, 4097, *ANY_NUMBER),
    "steps": (0, -1, 151, 10**6, *ANY_NUMBER),
    "step": (0, 151, *ANY_NUMBER),
    "seed": (-1, 2**64, *ANY_NUMBER),
    "n": (0, 9, 10**9, None, *ANY_NUMBER),
    "size": (
        *("", "512", "512x", "x512", "512 x 512", "-512x512", "512x512x3", "auto"),
        *("15x512", "512x4097", "99999x99999", "5" * 5000 + "x512"),
        *("512\u00d7512", "\u0665\u0661\u0662x512", "\ud800x512"),
        *(512, [512, 512], 1.5),
    ),
}


@pytest.mark.parametrize(("kind", "name", "value"), each(TEXT, TEXT_ACCEPTED))
def test_text_requests_take_what_is_in_range(
    kind: type[InferenceRequest], name: str, value: object
) -> None:
    make(kind, **{name: value})


@pytest.mark.parametrize(("kind", "name", "value"), each(TEXT, TEXT_REFUSED))
def test_text_requests_refuse_what_is_not(
    kind: type[InferenceRequest], name: str, value: object
) -> None:
    assert name in refusal(kind, **{name: value})


@pytest.mark.parametrize(("kind", "name", "value"), each(PICTURE, PICTURE_ACCEPTED))
def test_picture_requests_take_what_is_in_range(
    kind: type[InferenceRequest], name: str, value: object
) -> None:
    make(kind, **{name: value})


@pytest.mark.parametrize(("kind", "name", "value"), each(PICTURE, PICTURE_REFUSED))
def test_picture_requests_refuse_what_is_not(
    kind: type[InferenceRequest], name: str, value: object
) -> None:
    told = refusal(kind, **{name: value})

    assert name in told or "width" in told or "height" in told


@pytest.mark.parametrize("strength", [0.001, 1, None])
def test_a_strength_is_a_share(strength: float | None) -> None:
    make(Img2ImgRequest, strength=strength)


@pytest.mark.parametrize("strength", [0, -1, 1.0001, *ANY_NUMBER])
def test_a_strength_beyond_one_is_refused(strength: object) -> None:
    assert "strength" in refusal(Img2ImgRequest, strength=strength)


@pytest.mark.parametrize("modality", Modality)
def test_every_modality_has_its_request(modality: Modality) -> None:
    assert REQUESTS[modality].modality is modality


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_request_is_a_value(kind: type[InferenceRequest]) -> None:
    request = make(kind)

    assert make(kind) == request
    assert kind.model_validate(request) is request
    with pytest.raises(ValidationError):
        request.model = "other"


@pytest.mark.parametrize("kind", SMALLEST)
@pytest.mark.parametrize("data", [[], "p", None, 5, {1: 2}, {}])
def test_what_is_no_request_at_all_is_refused(kind: type[InferenceRequest], data: object) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(data)


@pytest.mark.parametrize("kind", SMALLEST)
def test_unknown_fields_are_refused(kind: type[InferenceRequest]) -> None:
    assert "Extra inputs are not permitted" in refusal(kind, tempreature=1)


def test_a_prompt_is_short_for_one_user_message() -> None:
    request = Txt2TxtRequest.model_validate({"prompt": "hi"})

    assert request.messages == (Message(role="user", content="hi"),)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "hi", "messages": [{"content": "ho"}]},
        {"messages": []},
        {"messages": [{"content": " "}, {"role": "system", "content": ""}]},
        {"messages": [{"content": "x"}] * 2001},
        {"messages": [{"role": "oracle", "content": "x"}]},
        {"messages": [{"content": "x", "name": "y"}]},
        {"messages": [{"content": None}]},
        {"messages": "hi"},
        {"prompt": ""},
        {"prompt": "x" * 1_000_001},
        {"prompt": None},
        {"prompt": "a\ud800b"},
    ],
)
def test_a_conversation_has_words_and_known_roles(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Txt2TxtRequest.model_validate(fields)


def test_a_conversation_may_be_long() -> None:
    turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": "x" * 1_000_000}]

    request = Txt2TxtRequest.model_validate({"messages": turns * 1000})

    assert len(request.messages) == 2000


def test_one_stop_is_a_list_of_one() -> None:
    request = Txt2TxtRequest.model_validate({"prompt": "p", "stop": "END"})

    assert request.stop == ["END"]


@pytest.mark.parametrize("kind", PICTURE)
def test_a_size_is_a_width_and_a_height(kind: type[InferenceRequest]) -> None:
    assert make(kind, size="640x480") == make(kind, width=640, height=480)
    assert make(kind, size=None, width=640, height=None) == make(kind, width=640)
    assert "together with width and height" in refusal(kind, size="640x480", width=640)
    assert "together with width and height" in refusal(kind, size="640x480", height=480)


def test_step_is_another_word_for_steps() -> None:
    request = Txt2ImgRequest.model_validate({"prompt": "p", "step": 7})

    assert request.steps == 7
    assert "step" in refusal(Txt2ImgRequest, step=7, steps=8)


def test_a_picture_has_only_so_many_pixels() -> None:
    side = int(MAX_PIXELS**0.5)

    make(Txt2ImgRequest, width=side, height=side)

    assert "16,000,000 pixels" in refusal(Txt2ImgRequest, width=4096, height=4096)


def test_an_image_is_short_for_one_image() -> None:
    request = Img2TxtRequest.model_validate({"image": "aGk="})

    assert request.images == ("aGk=",)
    assert request.question == "Describe this image."


@pytest.mark.parametrize(
    "fields",
    [
        {"images": []},
        {"images": ["x"] * 9},
        {"images": [""]},
        {"images": "x"},
        {"image": ""},
        {"image": None},
        {"image": "x", "images": ["x"]},
        {"image": "x", "question": " "},
        {"image": "\ud800"},
    ],
)
def test_what_shows_no_picture_or_asks_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Img2TxtRequest.model_validate(fields)


def test_the_size_of_a_request_is_the_length_of_its_texts() -> None:
    turns = [{"role": "user", "content": "12345"}, {"role": "user", "content": "123"}]
    conversation = Txt2TxtRequest.model_validate({"messages": turns, "stop": ["12"], "model": "m"})
    question = make(Img2TxtRequest, image="x" * 1000, question="why?", temperature=1)

    assert conversation.size_bytes == 5 + 3 + 2 + 1 + 2 * len("user")
    assert question.size_bytes == 1004


WRONG: dict[type[InferenceRequest], list[dict[str, Any]]] = {
    Txt2TxtRequest: [
        {"prompt": [CANARY]},
        {"prompt": CANARY, "messages": [{"content": CANARY}]},
        {"prompt": CANARY + "\ud800"},
        {"prompt": CANARY, "temperature": CANARY},
        {"prompt": CANARY, "stop": [CANARY] * 9},
        {"messages": CANARY},
        {"messages": [{"role": CANARY, "content": CANARY}]},
        {"messages": [{"content": CANARY, "more": CANARY}]},
    ],
    Txt2ImgRequest: [
        {"prompt": CANARY * 10_000},
        {"prompt": CANARY, "size": CANARY},
        {"prompt": CANARY, "size": "512x512", "width": 3},
        {"prompt": CANARY, "negative_prompt": CANARY + "|"},
        {"prompt": CANARY, "n": CANARY},
        {"prompt": CANARY, "width": 4096, "height": 4096},
        {"prompt": CANARY, "model": CANARY * 100},
    ],
    Img2ImgRequest: [
        {"prompt": CANARY, "image": ""},
        {"prompt": " ", "image": CANARY},
        {"prompt": CANARY, "image": CANARY, "strength": 7},
    ],
    Img2TxtRequest: [
        {"image": [CANARY]},
        {"image": CANARY, "question": ""},
        {"images": [CANARY] * 9, "question": CANARY},
    ],
}


@pytest.mark.parametrize(("kind", "fields"), [(k, f) for k in WRONG for f in WRONG[k]])
def test_an_error_never_repeats_what_was_said(
    kind: type[InferenceRequest], fields: dict[str, object]
) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(fields)

    assert CANARY not in str(refused.value)
    assert CANARY not in repr(refused.value)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(SMALLEST)), st.data())
def test_no_value_of_any_field_does_worse_than_being_refused(
    kind: type[InferenceRequest], data: st.DataObject
) -> None:
    names = [*kind.model_fields, "prompt", "image", "size", "step", "model"]
    fields = data.draw(st.dictionaries(st.sampled_from(names), junk, max_size=4))

    try:
        request = kind.model_validate({**SMALLEST[kind], **fields})
    except ValidationError:
        return

    assert kind.model_validate_json(request.model_dump_json()) == request
