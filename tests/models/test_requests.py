"""Every field with its range, and no way to get one's own words back from an error."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from src.models.blobs import Blob
from src.models.fields import MAX_AUDIO_TEXT, MAX_IMAGE_TEXT, MAX_PIXELS
from src.models.messages import Message, TextPart
from src.models.modality import Modality
from src.models.requests import (
    MEDIA,
    REQUESTS,
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

Kind = type[InferenceRequest]
Table = dict[str, tuple[Any, ...]]
CANARY = "canary-7f3a"


def refusal(kind: Kind, **fields: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        small(kind, **fields)
    return str(refused.value)


def name_of(error: ErrorDetails) -> str:
    """Return the field that an error is about: where it is, or what its text begins with."""
    return str(error["loc"][0]) if error["loc"] else error["msg"].split()[2]


def shortly(value: object) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)[:20]


def each(table: dict[tuple[Kind, ...], Table]) -> list[tuple[Kind, str, Any]]:
    return [
        (kind, name, value)
        for kinds, fields in table.items()
        for kind in kinds
        for name, values in fields.items()
        for value in values
    ]


INFINITE = (float("nan"), float("inf"), -float("inf"))
FUNCTION: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {}}}
ANY_NUMBER: tuple[object, ...] = (*INFINITE, 10**300, -(10**300), "9" * 5000, "x", {})
LONG = "x" * 100_000
CHATS = (Txt2TxtRequest, Img2TxtRequest)
TEXT = (*CHATS, CompletionRequest)
PICTURE = (Txt2ImgRequest, Img2ImgRequest)
PROMPTED = (*PICTURE, InpaintRequest, Txt2SoundRequest, Txt2VideoRequest)
SPEECH = (Txt2AudioRequest, Audio2TxtRequest)
HANDING = (*TEXT, *PICTURE, Txt2VecRequest, RerankRequest, Txt2AudioRequest)
STEPWISE = (*PICTURE, InpaintRequest, Txt2VideoRequest)

ACCEPTED: dict[tuple[Kind, ...], Table] = {
    tuple(SMALLEST): {"model": ("m", "x" * 256, None)},
    TEXT: {
        "temperature": (0, -0.0, 2, 0.7, "1.5", None),
        "top_p": (0, 1, 0.01, None),
        "top_k": (0, 1000, None),
        "max_tokens": (1, 1_000_000, None),
        "stop": ("x", ["x"] * 8, [], "x" * 256, None),
        "seed": (0, 2**31 - 1, None),
        "presence_penalty": (-2, 2, None),
        "frequency_penalty": (-2, 2, None),
        "n": (1, 10, "2"),
    },
    HANDING: {
        "options": ({}, {"grammar": "root ::= x", "logit_bias": {"1": -5.5}, "deep": [[None]]}),
    },
    CHATS: {
        "tools": ([], [{}], [FUNCTION] * 256, [{"type": "odd"}]),
        "logprobs": (True, False),
    },
    (CompletionRequest,): {"prompts": (["x"], ["", " "], ["x"] * 64, ["x" * 1_000_000])},
    (ModerationRequest,): {"input": (["x"], [""], ["x"] * 64, ["x" * 1_000_000])},
    PROMPTED: {"prompt": ("x", LONG, "\u2028\u202e\x1b[31m\x00")},
    STEPWISE: {"steps": (1, 150, None)},
    (*PICTURE, Txt2VideoRequest): {
        "negative_prompt": ("", LONG),
        "width": (16, 4096, 512.0, "512", None),
        "height": (16, 4096, None),
        "seed": (0, 2**31 - 1, None),
    },
    PICTURE: {
        "step": (1, 150, None),
        "n": (1, 10),
        "size": ("512x512", " 64X96 ", "16x4096", None),
    },
    (Img2ImgRequest,): {"strength": (0.001, 1, None)},
    (Img2ImgRequest, InpaintRequest, Txt2VideoRequest): {"image": ("x", "job:1/0")},
    (InpaintRequest,): {"mask": ("x", "job:1/0")},
    (Txt2VecRequest,): {
        "input": (
            *("x", ["x"] * 2048, "x" * 1_000_000),
            *([[0]], [[10_000_000] * 100_000], ["x", [1, 2]], ((1, 2), (3,))),
        )
    },
    (RerankRequest,): {
        "query": ("x", LONG),
        "documents": (["x"] * 1000, ["", "x" * 1_000_000]),
        "top_n": (1, 1000, None),
    },
    SPEECH: {"language": ("", "en", "x" * 64)},
    (Txt2AudioRequest,): {
        "input": ("x", LONG),
        "voice": ("", "x" * 256),
        "instructions": ("", LONG),
        "speed": (0.25, 4, "1", None),
        "format": ("wav", "mp3", "flac", "opus", "aac", "pcm"),
    },
    (Audio2TxtRequest,): {
        "audio": ("x", "job:1/0"),
        "prompt": ("", LONG),
        "temperature": (0, 2, None),
        "translate": (True, False),
    },
    (Txt2SoundRequest,): {
        "seconds": (0.01, 600, None),
        "lyrics": ("", LONG),
        "bpm": (20, 400, None),
        "instrumental": (True, False, None),
    },
    (Txt2VideoRequest,): {
        "image": (None,),
        "num_frames": (1, 1000, None),
        "fps": (1, 120, None),
        "cfg_scale": (0, 50, None),
    },
}

BLANK = ("", " \n", LONG + "x", None, 5, "a\ud800b")
FURTHER: tuple[object, ...] = (
    *(None, 5, "x", [], {"\ud800": 1}, {1: 2}),
    *({"x": odd} for odd in (*INFINITE, b"x", "\ud800", [{"y": object()}])),
)
NO_TEXTS: tuple[object, ...] = (
    *([], "x", ["x"] * 65, ["x" * 1_000_001], [None], [5], [[1]], None, ["\ud800"], {}),
)
NO_MEDIA: tuple[object, ...] = ("", 5, {}, [], ["x"], "\ud800")
REFUSED: dict[tuple[Kind, ...], Table] = {
    tuple(SMALLEST): {"model": ("", "   ", "x" * 257, 5, "\udfff")},
    TEXT: {
        "temperature": (-0.1, 2.1, *ANY_NUMBER),
        "top_p": (-0.01, 1.01, *ANY_NUMBER),
        "top_k": (-1, 1001, 1.5, *ANY_NUMBER),
        "max_tokens": (0, -1, 1_000_001, *ANY_NUMBER),
        "stop": ("", ["x"] * 9, [""], "x" * 257, 5, [5], "\ud800"),
        "seed": (-1, 2**31, 2**64, *ANY_NUMBER),
        "presence_penalty": (-2.1, 2.1, *ANY_NUMBER),
        "frequency_penalty": (-2.1, 2.1, *ANY_NUMBER),
        "n": (0, 11, 10**9, None, *ANY_NUMBER),
    },
    HANDING: {"options": FURTHER},
    CHATS: {
        "tools": (FUNCTION, [FUNCTION] * 257, ["x"], None, 5, *([one] for one in FURTHER)),
        "logprobs": (None, 2, "perhaps"),
    },
    (CompletionRequest,): {"prompts": NO_TEXTS},
    (ModerationRequest,): {"input": NO_TEXTS},
    PROMPTED: {"prompt": BLANK},
    STEPWISE: {"steps": (0, -1, 151, 10**6, *ANY_NUMBER)},
    (*PICTURE, Txt2VideoRequest): {
        "negative_prompt": (LONG + "x", None),
        "width": (15, 4097, 0, -512, *ANY_NUMBER),
        "height": (15, 4097, *ANY_NUMBER),
        "seed": (-1, 2**31, 2**64, *ANY_NUMBER),
    },
    PICTURE: {
        "negative_prompt": ("a|b",),
        "step": (0, 151, *ANY_NUMBER),
        "n": (0, 11, 10**9, None, *ANY_NUMBER),
        "size": (
            *("", "512", "512x", "x512", "512 x 512", "-512x512", "512x512x3", "auto"),
            *("5" * 5000 + "x512", "512\u00d7512", "\u0665\u0661\u0662x512", "\ud800x512"),
            *(512, [512, 512], 1.5),
        ),
    },
    (Img2ImgRequest,): {"strength": (0, -1, 1.0001, *ANY_NUMBER)},
    (Img2ImgRequest, InpaintRequest): {"image": (*NO_MEDIA, None)},
    (InpaintRequest,): {"mask": (*NO_MEDIA, None)},
    (Txt2VecRequest,): {
        "input": (
            *("", [], ["x", ""], ["x"] * 2049, "x" * 1_000_001, 5, [5], None, "\ud800"),
            *([[]], [[-1]], [[10_000_001]], [[1] * 100_001], [["x"]], [[1.5]], [[[1]]]),
        ),
    },
    (RerankRequest,): {
        "query": BLANK,
        "documents": ([], "x", ["x"] * 1001, ["x" * 1_000_001], [None], None, ["\ud800"]),
        "top_n": (0, -1, 1001, *ANY_NUMBER),
    },
    SPEECH: {"language": ("x" * 65, None, 5)},
    (Txt2AudioRequest,): {
        "input": BLANK,
        "voice": ("x" * 257, None, 5),
        "instructions": (LONG + "x", None),
        "speed": (0.24, 4.01, 0, *ANY_NUMBER),
        "format": ("", "ogg", "WAV", None, 5),
    },
    (Audio2TxtRequest,): {
        "audio": (*NO_MEDIA, None),
        "prompt": (LONG + "x", None),
        "temperature": (-0.1, 2.1, *ANY_NUMBER),
        "translate": (None, 2, "perhaps"),
    },
    (Txt2SoundRequest,): {
        "seconds": (0, -1, 600.1, *ANY_NUMBER),
        "lyrics": (LONG + "x", None),
        "bpm": (19, 401, 90.5, *ANY_NUMBER),
        "instrumental": (2, "perhaps"),
    },
    (Txt2VideoRequest,): {
        "image": NO_MEDIA,
        "num_frames": (0, 1001, 1.5, *ANY_NUMBER),
        "fps": (0, 121, 23.976, *ANY_NUMBER),
        "cfg_scale": (-0.1, 50.1, *ANY_NUMBER),
    },
}


@pytest.mark.parametrize(("kind", "name", "value"), each(ACCEPTED), ids=shortly)
def test_what_is_in_range_is_taken(kind: Kind, name: str, value: object) -> None:
    small(kind, **{name: value})


@pytest.mark.parametrize(("kind", "name", "value"), each(REFUSED), ids=shortly)
def test_what_is_not_is_refused_by_the_name_of_its_field(
    kind: Kind, name: str, value: object
) -> None:
    with pytest.raises(ValidationError) as refused:
        small(kind, **{name: value})

    assert all(name_of(error) in {name, name + "s"} for error in refused.value.errors())


@pytest.mark.parametrize("kind", SMALLEST)
def test_every_field_of_a_request_has_been_tried(kind: Kind) -> None:
    tried = {name for tried_kind, name, _ in each(REFUSED) if tried_kind is kind}
    in_tests_of_their_own = {"messages", "images", "question"}

    assert set(kind.model_fields) - in_tests_of_their_own <= tried


def test_fields_that_are_handed_on_are_not_nested_without_end() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"x": deep}

    assert "options" in refusal(CompletionRequest, options=deep)


@pytest.mark.parametrize("size", ["15x512", "512x4097", "99999x99999"])
def test_a_size_out_of_range_is_refused_by_its_sides(size: str) -> None:
    told = refusal(Txt2ImgRequest, size=size)

    assert "width" in told or "height" in told


@pytest.mark.parametrize(
    ("kind", "name", "longest"),
    [
        (Img2ImgRequest, "image", MAX_IMAGE_TEXT),
        (InpaintRequest, "mask", MAX_IMAGE_TEXT),
        (Txt2VideoRequest, "image", MAX_IMAGE_TEXT),
        (Img2TxtRequest, "image", MAX_IMAGE_TEXT),
        (Audio2TxtRequest, "audio", MAX_AUDIO_TEXT),
    ],
)
def test_a_picture_or_a_recording_has_only_so_many_characters(
    kind: Kind, name: str, longest: int
) -> None:
    small(kind, **{name: "x" * longest})

    assert name in refusal(kind, **{name: "x" * (longest + 1)})


@pytest.mark.parametrize("modality", Modality)
def test_every_modality_has_its_request(modality: Modality) -> None:
    assert REQUESTS[modality].modality is modality
    assert set(REQUESTS.values()) == set(SMALLEST) - {CompletionRequest, ModerationRequest}
    assert set(get_args(InferenceRequest)) == set(SMALLEST)


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_request_is_a_value(kind: Kind) -> None:
    request = small(kind)

    assert small(kind) == request
    assert kind.model_validate(request) is request
    with pytest.raises(ValidationError):
        request.model = "other"


@pytest.mark.parametrize("kind", SMALLEST)
@pytest.mark.parametrize("data", [[], "p", None, 5, {1: 2}, {}])
def test_what_is_no_request_at_all_is_refused(kind: Kind, data: object) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(data)


@pytest.mark.parametrize("kind", SMALLEST)
def test_unknown_fields_are_refused(kind: Kind) -> None:
    assert "Extra inputs are not permitted" in refusal(kind, tempreature=1)


def test_a_prompt_is_short_for_one_user_message() -> None:
    request = Txt2TxtRequest.model_validate({"prompt": "hi"})

    assert request.messages == (Message(role="user", content="hi"),)


NO_TALK: list[dict[str, Any]] = [
    {"prompt": "hi", "messages": [{"content": "ho"}]},
    {"messages": []},
    {"messages": [{"content": " "}, {"role": "system", "content": ""}]},
    {"messages": [{"content": "x"}] * 2001},
    {"messages": [{"role": "oracle", "content": "x"}]},
    {"messages": [{"content": "x", "name": "y"}]},
    {"messages": [{"content": None}]},
    {"messages": "hi"},
    {"messages": [{"content": []}]},
    {"messages": [{"content": [{"type": "text", "text": " "}]}]},
    {"messages": [{"content": [{"type": "text", "text": "x"}] * 1001}]},
    {"messages": [{"content": [{"type": "video", "text": "x"}]}]},
    {"messages": [{"content": [{"type": ["text"], "text": "x"}]}]},
    {"messages": [{"content": [{"text": "x"}]}]},
    {"messages": [{"content": ["x"]}]},
    {"messages": [{"content": {"type": "text", "text": "x"}}]},
    {"messages": [{"content": "x", "more": {"name": float("nan")}}]},
    {"messages": [{"content": "", "more": {"tool_calls": []}}]},
    {"messages": [{"content": "x", "more": None}]},
    {"messages": [{"content": "x"}, {"content": [{"type": "image", "image": 0}]}]},
    {"prompt": ""},
    {"prompt": "x" * 1_000_001},
    {"prompt": None},
    {"prompt": "a\ud800b"},
]


@pytest.mark.parametrize("fields", NO_TALK)
def test_a_conversation_has_words_and_known_roles(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Txt2TxtRequest.model_validate(fields)


def test_a_message_may_have_parts_of_words_or_only_calls() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    calls = {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}

    split = Txt2TxtRequest.model_validate({"messages": [{"content": parts}]})
    called = Txt2TxtRequest.model_validate(
        {"messages": [{"role": "assistant", "content": "", "more": calls}]}
    )

    assert split.messages[0].words == "one\ntwo"
    assert Message(content=(TextPart(text="one"), TextPart(text="two"))) == split.messages[0]
    assert called.messages[0].more == calls


def test_a_conversation_about_pictures_takes_the_place_of_a_question() -> None:
    looked = [{"content": [{"type": "image", "image": 1}, {"type": "text", "text": "and this?"}]}]

    request = small(Img2TxtRequest, images=["x", "y"], messages=[*looked, {"content": "well?"}])

    assert isinstance(request, Img2TxtRequest)
    assert [message.images for message in request.messages] == [(1,), ()]
    assert request.messages[0].words == "and this?"


@pytest.mark.parametrize("shown", [[], [2], [0, 2], [64], [-1], ["x"]])
def test_such_a_conversation_shows_pictures_that_are_there(shown: list[object]) -> None:
    parts = [{"type": "image", "image": number} for number in shown]
    content = [{"type": "text", "text": "well?"}, *parts]

    assert "messages" in refusal(Img2TxtRequest, images=["x", "y"], messages=[{"content": content}])


def test_a_conversation_may_be_long() -> None:
    turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": "x" * 1_000_000}]

    request = Txt2TxtRequest.model_validate({"messages": turns * 1000})

    assert len(request.messages) == 2000


def test_one_stop_is_a_list_of_one() -> None:
    request = Txt2TxtRequest.model_validate({"prompt": "p", "stop": "END"})

    assert request.stop == ["END"]


@pytest.mark.parametrize("kind", PICTURE)
def test_a_size_is_a_width_and_a_height(kind: Kind) -> None:
    assert small(kind, size="640x480") == small(kind, width=640, height=480)
    assert small(kind, size=None, width=640, height=None) == small(kind, width=640)
    assert "together with width and height" in refusal(kind, size="640x480", width=640)
    assert "together with width and height" in refusal(kind, size="640x480", height=480)


def test_step_is_another_word_for_steps() -> None:
    request = Txt2ImgRequest.model_validate({"prompt": "p", "step": 7})

    assert request.steps == 7
    assert "step" in refusal(Txt2ImgRequest, step=7, steps=8)


def test_a_picture_has_only_so_many_pixels() -> None:
    side = int(MAX_PIXELS**0.5)

    small(Txt2ImgRequest, width=side, height=side)

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
        {
            "image": "x",
            "question": "why?",
            "messages": [{"content": [{"type": "image", "image": 0}]}],
        },
        {"image": "\ud800"},
    ],
)
def test_what_shows_no_picture_or_asks_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Img2TxtRequest.model_validate(fields)


def test_one_text_to_embed_is_a_list_of_one() -> None:
    assert small(Txt2VecRequest, input="x") == small(Txt2VecRequest, input=["x"])


def test_a_film_may_begin_with_a_picture_but_need_not() -> None:
    assert Txt2VideoRequest(prompt="p").image is None
    assert Txt2VideoRequest(prompt="p", image="job:1").image == "job:1"


def test_the_size_of_a_request_is_the_length_of_its_texts() -> None:
    turns = [{"role": "user", "content": "12345"}, {"role": "user", "content": "123"}]
    conversation = Txt2TxtRequest.model_validate({"messages": turns, "stop": ["12"], "model": "m"})
    question = small(Img2TxtRequest, image="x" * 1000, question="why?", temperature=1)

    assert conversation.size_bytes == 5 + 3 + 2 + 1
    assert question.size_bytes == 1004
    assert small(Txt2VecRequest, input=["123", "45"]).size_bytes == 5
    assert small(CompletionRequest, prompts=["123", "45"]).size_bytes == 5
    parts = [{"type": "text", "text": "12"}, {"type": "image", "image": 0}]
    talk = small(Img2TxtRequest, image="x", messages=[{"content": parts, "more": {"3": "4"}}])
    assert talk.lengths()["messages"] == 4
    assert chat("123", options={"1234": ["5", None, {"6": 7}]}, tools=[{"8": "9"}]).size_bytes == 19
    assert small(RerankRequest, query="12", documents=["345", "6"]).size_bytes == 6


PHOTO, SKETCH, SPEECH_BLOB = Blob("photo", 5_000_000), Blob("sketch", 300), Blob("speech", 70_000)


@pytest.mark.parametrize(
    ("kind", "fields", "blobs"),
    [
        (Img2ImgRequest, {"image": PHOTO.reference}, [PHOTO]),
        (Img2TxtRequest, {"images": [SKETCH.reference, PHOTO.reference]}, [SKETCH, PHOTO]),
        (InpaintRequest, {"image": PHOTO.reference, "mask": SKETCH.reference}, [PHOTO, SKETCH]),
        (Audio2TxtRequest, {"audio": SPEECH_BLOB.reference}, [SPEECH_BLOB]),
        (Txt2VideoRequest, {"image": SKETCH.reference}, [SKETCH]),
        (Txt2VideoRequest, {}, []),
    ],
)
def test_a_request_is_as_large_as_its_blobs(
    kind: Kind, fields: dict[str, Any], blobs: list[Blob]
) -> None:
    request = small(kind, **fields)
    lengths = request.lengths()
    words = sum(lengths[name] for name in lengths if name not in MEDIA)

    assert request.size_bytes == words + sum(blob.size for blob in blobs)
    assert list(request.blobs) == blobs


def test_only_fields_for_pictures_and_recordings_may_stand_for_blobs() -> None:
    for kind in SMALLEST:
        for name, schema in kind.model_json_schema()["properties"].items():
            large = f'"maxLength": {MAX_IMAGE_TEXT}' in json.dumps(schema)
            assert large == (name in MEDIA), f"{kind.__name__}.{name}"


def test_a_small_picture_stays_in_its_request() -> None:
    request = small(Img2ImgRequest, prompt="123", image="data:image/png;base64,aGk=")

    assert request.size_bytes == 3 + len("data:image/png;base64,aGk=")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Txt2TxtRequest, "prompt"), (Txt2AudioRequest, "input"), (Audio2TxtRequest, "prompt")],
)
def test_words_that_look_like_a_reference_are_words(kind: Kind, name: str) -> None:
    words = Blob("somebody-elses", 10**14).reference

    request = small(kind, **{name: words})

    assert request.size_bytes == small(kind, **{name: "x" * len(words)}).size_bytes
    assert request.blobs == ()


WRONG: dict[Kind, list[dict[str, Any]]] = {
    CompletionRequest: [
        {"prompts": CANARY},
        {"prompts": [CANARY] * 65},
        {"prompts": [CANARY], "options": [CANARY]},
        {"prompts": [CANARY], "options": {CANARY: [CANARY, {CANARY: CANARY + "\ud800"}]}},
        {"prompts": [CANARY], "options": {CANARY: float("nan")}},
    ],
    ModerationRequest: [{"input": CANARY}, {"input": [CANARY, [CANARY]]}],
    Txt2TxtRequest: [
        {"prompt": [CANARY]},
        {"prompt": CANARY, "messages": [{"content": CANARY}]},
        {"prompt": CANARY + "\ud800"},
        {"prompt": CANARY, "temperature": CANARY},
        {"prompt": CANARY, "stop": [CANARY] * 9},
        {"messages": CANARY},
        {"messages": [{"role": CANARY, "content": CANARY}]},
        {"messages": [{"content": CANARY, "more": CANARY}]},
        {"messages": [{"content": [{"type": CANARY, "text": CANARY}]}]},
        {"messages": [{"content": [{"type": "text", "text": [CANARY]}]}]},
        {"messages": [{"content": [{"type": "image", "image": CANARY}]}]},
        {"prompt": CANARY, "tools": [CANARY]},
        {"prompt": CANARY, "options": CANARY},
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
        {"image": CANARY, "question": CANARY, "messages": [{"content": CANARY}]},
        {"image": CANARY, "messages": [{"content": CANARY}]},
    ],
    Txt2VecRequest: [
        {"input": [CANARY, ""]},
        {"input": {CANARY: CANARY}},
        {"input": [[CANARY]]},
    ],
    RerankRequest: [
        {"query": CANARY, "documents": CANARY},
        {"query": [CANARY], "documents": [CANARY]},
        {"query": CANARY, "documents": [CANARY, 5], "top_n": CANARY},
    ],
    Audio2TxtRequest: [
        {"audio": [CANARY]},
        {"audio": CANARY, "language": CANARY * 10},
        {"audio": CANARY, "prompt": [CANARY], "translate": CANARY},
    ],
    Txt2AudioRequest: [
        {"input": CANARY * 10_000},
        {"input": CANARY, "voice": CANARY * 30},
        {"input": CANARY, "format": CANARY},
        {"input": CANARY, "instructions": [CANARY], "speed": CANARY},
    ],
    Txt2SoundRequest: [
        {"prompt": CANARY, "lyrics": CANARY * 10_000},
        {"prompt": CANARY, "bpm": CANARY, "instrumental": CANARY},
    ],
    InpaintRequest: [
        {"prompt": CANARY, "image": CANARY, "mask": ""},
        {"prompt": CANARY, "image": [CANARY], "mask": CANARY},
    ],
    Txt2VideoRequest: [
        {"prompt": CANARY, "image": [CANARY]},
        {"prompt": CANARY, "negative_prompt": [CANARY], "fps": CANARY},
    ],
}


@pytest.mark.parametrize(("kind", "fields"), [(k, f) for k in WRONG for f in WRONG[k]])
def test_an_error_never_repeats_what_was_said(kind: Kind, fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(fields)

    assert CANARY not in str(refused.value)
    assert CANARY not in repr(refused.value)


def test_every_kind_of_request_has_been_tried_with_mistakes() -> None:
    assert set(WRONG) == set(SMALLEST)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(list(SMALLEST)), st.data())
def test_no_value_of_any_field_does_worse_than_being_refused(
    kind: Kind, data: st.DataObject
) -> None:
    names = [*kind.model_fields, "prompt", "image", "size", "step", "model"]
    fields = data.draw(st.dictionaries(st.sampled_from(names), junk, max_size=4))

    try:
        request = kind.model_validate({**SMALLEST[kind], **fields})
    except ValidationError:
        return

    assert kind.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize("name", ["model", "n", "temperature", "stream", "messages", "options"])
def test_a_field_of_its_own_is_not_hidden_among_the_further_ones(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} must be given beside options"):
        Txt2TxtRequest.model_validate({"prompt": "hi", "options": {name: 1}})


def test_numbers_in_lists_and_objects_count_for_the_room_that_they_take() -> None:
    tokens = Txt2VecRequest(input=((1,) * 1000, "word"))
    odd = Txt2TxtRequest.model_validate({"prompt": "hi", "options": {"x": [[1, 2]], "y": 3}})

    assert tokens.size_bytes == 8000 + 4
    assert odd.size_bytes == len("hi") + len("xy") + 3 * 8
