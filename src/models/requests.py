"""What callers ask for: one class per modality, every field with its range.

A picture is written as base64, as a ``data:`` URI, or as ``job:<id>`` (or ``job:<id>/<n>``) for a
picture that an earlier job made; a recording likewise. The door checks it, keeps it as a blob, and
writes the blob's reference in its place before the request is submitted, so everything behind the
doors sees one form only, and a waiting job holds no picture in memory.
"""

import re
from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    field_validator,
    model_validator,
)

from .blobs import Blob
from .fields import (
    MAX_ANSWERS,
    MAX_IMAGE_TEXT,
    MAX_PICTURES,
    MAX_PIXELS,
    MAX_TEXT,
    Further,
    Name,
    Picture,
    Prompt,
    Recording,
    Seed,
    Side,
    Text,
    Tokens,
)
from .messages import Message, TextPart
from .modality import Modality

MEDIA = frozenset({"image", "images", "mask", "audio"})
"""Fields that hold pictures and recordings: only here may a text stand for a blob."""

_SIZE = re.compile(r"([0-9]{1,5})[xX]([0-9]{1,5})")


def _fields(data: object) -> dict[str, object]:
    """Return the fields of an unchecked request; none if it is not an object at all."""
    return dict(cast("dict[str, object]", data)) if isinstance(data, dict) else {}


def _lacks(data: object, name: str) -> bool:
    return isinstance(data, dict) and name not in data


def _short_form(name: str, value: object, longest: int) -> str:
    """Check a text that stands for a longer form, so that an error names what was written."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text")  # noqa: TRY004 - pydantic takes ValueError
    if len(value) > longest:
        raise ValueError(f"{name} must have at most {longest:,} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be valid Unicode") from None
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


_LONG = frozenset({str, tuple, list, dict})
_NUMBER_BYTES = 8  # what a number in a list or an object counts for


def _room(text: str) -> int:
    blob = Blob.referred_to(text)
    return len(text) if blob is None else blob.size


def _length(value: object, of_text: Callable[[str], int]) -> int:
    match value:
        case str():
            return of_text(value)
        case tuple() | list():
            return _length_of_list(cast("list[object]", value), of_text)
        case dict():
            pairs = cast("dict[str, object]", value).items()
            return sum(len(key) + _length_inside(one, of_text) for key, one in pairs)
        case Message():
            return _length(value.content, of_text) + _length(value.more, of_text)
        case TextPart():
            return of_text(value.text)
        case _:
            return 0


def _length_of_list(values: Sequence[object], of_text: Callable[[str], int]) -> int:
    """Add up a list; one that begins with a number is taken for numbers, which may be many."""
    if values and isinstance(values[0], int | float):
        return _NUMBER_BYTES * len(values)
    return sum(_length_inside(one, of_text) for one in values)


def _length_inside(value: object, of_text: Callable[[str], int]) -> int:
    return _NUMBER_BYTES if isinstance(value, int | float) else _length(value, of_text)


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return cast("tuple[str, ...]", value) if isinstance(value, tuple) else ()


class _Request(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )
    modality: ClassVar[Modality]

    model: Name | None = Field(
        default=None, description="Model name; leave it out to use the default of the modality"
    )

    def lengths(self) -> dict[str, int]:
        """Return how many characters the texts of each field have, or bytes its blobs.

        Numbers in lists and objects count for eight each.
        """
        return {name: _length(value, _room if name in MEDIA else len) for name, value in self}

    def __copy__(self) -> Self:
        """Copy the fields, to be changed perhaps, but not what was found out about them."""
        copied = super().__copy__()
        for found_out in ("size_bytes", "blobs"):
            vars(copied).pop(found_out, None)
        return copied

    def __iter__(self) -> Generator[tuple[str, Any], None, None]:
        """Yield the fields, and not what was found out about them."""
        for name in type(self).model_fields:
            yield name, getattr(self, name)

    @cached_property
    def size_bytes(self) -> int:
        """About how much room the request takes: the length of all its texts and blobs."""
        return sum(
            _length(value, _room if name in MEDIA else len)
            for name, value in self
            if type(value) in _LONG
        )

    @cached_property
    def blobs(self) -> tuple[Blob, ...]:
        """The pictures and recordings of the request that are kept as blobs."""
        if MEDIA.isdisjoint(type(self).model_fields):
            return ()
        texts = (text for name, value in self if name in MEDIA for text in _texts(value))
        return tuple(blob for text in texts if (blob := Blob.referred_to(text)) is not None)


class _Handing(_Request):
    """What is handed on to the backend unread."""

    options: Further = Field(
        default={},
        description="Further fields for the backend, handed on as they are, such as `grammar`",
    )

    @field_validator("options")
    @classmethod
    def _only_further(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        own = {*cls.model_fields, "prompt", "stream", "stream_options"} & options.keys()
        if own:
            raise ValueError(f"{min(own)} must be given beside options, or not at all")
        return options


class _Sampling(_Handing):
    """How text is sampled; what is left out is the model's own default."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1000)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="The longest answer, in tokens"
    )
    stop: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(max_length=8)]
        | None
    ) = Field(default=None, description="End the answer before any of these texts")
    seed: Seed | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, stop: object) -> object:
        return [stop] if isinstance(stop, str) else stop


class _Answered(_Sampling):
    """What else there is to say of an answer."""

    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] = Field(
        default=1, description="How many answers"
    )


class _Chat(_Answered):
    """What else there is to say of an answer in a conversation."""

    tools: Annotated[tuple[Further, ...], Field(max_length=256)] = Field(
        default=(), description="Functions that the model may call, as OpenAI describes them"
    )
    logprobs: bool = Field(
        default=False, description="Tell how likely each token was; the answer comes in one piece"
    )


class Txt2TxtRequest(_Chat):
    """A conversation to be continued. `prompt` is short for one user message."""

    modality = Modality.TXT2TXT

    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=2000)]

    @model_validator(mode="before")
    @classmethod
    def _prompt_is_a_message(cls, data: object) -> object:
        fields = _fields(data)
        if "prompt" not in fields:
            if _lacks(data, "messages"):
                raise ValueError("prompt must be given, or messages")
            return data
        if "messages" in fields:
            raise ValueError("prompt must not be given together with messages")
        prompt = _short_form("prompt", fields.pop("prompt"), MAX_TEXT)
        if not prompt.strip():
            raise ValueError("prompt must not be empty")
        return {**fields, "messages": [{"role": "user", "content": prompt}]}

    @model_validator(mode="after")
    def _something_is_said(self) -> Self:
        if all(message.silent for message in self.messages):
            raise ValueError("messages must not all be empty")
        if any(message.images for message in self.messages):
            raise ValueError("messages must hold words only; img2txt takes pictures")
        return self


class CompletionRequest(_Answered):
    """Texts that are gone on with as they stand, each by itself: no conversation."""

    modality = Modality.TXT2TXT

    prompts: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)] = Field(
        description="The beginnings"
    )


class ModerationRequest(_Request):
    """Texts to be judged, where a backend offers that."""

    modality = Modality.TXT2TXT

    input: Annotated[tuple[Text, ...], Field(min_length=1, max_length=64)]


class _Drawing(_Handing):
    """How a picture is drawn."""

    negative_prompt: Prompt = Field(default="", description="What the picture should not show")
    width: Side | None = Field(default=None, description="Pixels; 512 where nothing else is known")
    height: Side | None = Field(default=None, description="Pixels; 512 where nothing else is known")
    steps: Annotated[int, Field(ge=1, le=150)] | None = Field(
        default=None,
        description="Sampling steps",
        validation_alias=AliasChoices("steps", "step"),
    )
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=MAX_PICTURES)] = Field(
        default=1, description="How many pictures"
    )

    @model_validator(mode="before")
    @classmethod
    def _size_is_width_and_height(cls, data: object) -> object:
        fields = _fields(data)
        if "size" not in fields:
            return data
        size = fields.pop("size")
        if size is None:
            return fields
        match = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
        if match is None:
            raise ValueError("size must be WIDTHxHEIGHT, for example 512x512")
        if fields.get("width") is not None or fields.get("height") is not None:
            raise ValueError("size must not be given together with width and height")
        return {**fields, "width": int(match[1]), "height": int(match[2])}

    @model_validator(mode="after")
    def _pixels_are_bounded(self) -> Self:
        if (self.width or 512) * (self.height or 512) > MAX_PIXELS:
            raise ValueError(f"size must be at most {MAX_PIXELS:,} pixels, width x height")
        return self

    @field_validator("negative_prompt")
    @classmethod
    def _no_separator(cls, text: str) -> str:
        if "|" in text:
            raise ValueError("must not contain '|', which separates it from the prompt")
        return text


class Txt2ImgRequest(_Drawing):
    """A picture to be drawn from words."""

    modality = Modality.TXT2IMG

    prompt: Prompt = Field(description="What to draw")

    _said = field_validator("prompt")(_not_blank)


class Img2ImgRequest(_Drawing):
    """A picture to be changed as the prompt says."""

    modality = Modality.IMG2IMG

    image: Picture = Field(
        description="base64, a data: URI, or job:<id> for a picture made earlier"
    )
    prompt: Prompt = Field(description="What to make of it")
    strength: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="How far from the original, where the backend has it"
    )

    _said = field_validator("prompt")(_not_blank)


class Img2TxtRequest(_Chat):
    """Pictures to be described, or asked about. `image` is short for one picture."""

    modality = Modality.IMG2TXT

    images: Annotated[tuple[Picture, ...], Field(min_length=1, max_length=8)] = Field(
        description="Each base64, a data: URI, or job:<id> for a picture made earlier"
    )
    question: Prompt = Field(
        default="Describe this image.", description="What to say about the pictures"
    )
    messages: Annotated[tuple[Message, ...], Field(max_length=2000)] = Field(
        default=(), description="A conversation about the pictures, instead of a question"
    )

    _asked = field_validator("question")(_not_blank)

    @model_validator(mode="after")
    def _each_picture_is_there(self) -> Self:
        if not self.messages:
            return self
        if "question" in self.model_fields_set:
            raise ValueError("question must not be given together with messages")
        shown = {number for message in self.messages for number in message.images}
        if not shown or max(shown) >= len(self.images):
            raise ValueError("messages must show the pictures, by their numbers from 0")
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_image(cls, data: object) -> object:
        fields = _fields(data)
        if "image" not in fields:
            if _lacks(data, "images"):
                raise ValueError("image must be given, or images")
            return data
        if "images" in fields:
            raise ValueError("image must not be given together with images")
        image = _short_form("image", fields.pop("image"), MAX_IMAGE_TEXT)
        if not image:
            raise ValueError("image must not be empty")
        return {**fields, "images": [image]}


class InpaintRequest(_Request):
    """A picture of which the white part of a mask is drawn anew; LocalAI answers in 512x512."""

    modality = Modality.INPAINT

    image: Picture = Field(
        description="base64, a data: URI, or job:<id> for a picture made earlier"
    )
    mask: Picture = Field(description="A picture of the same shape: white is drawn anew")
    prompt: Prompt = Field(description="What to draw there")
    steps: Annotated[int, Field(ge=1, le=150)] | None = Field(
        default=None, description="Sampling steps"
    )

    _said = field_validator("prompt")(_not_blank)


class Txt2VecRequest(_Handing):
    """Texts of which each becomes a vector: an embedding."""

    modality = Modality.TXT2VEC

    input: Annotated[tuple[Text | Tokens, ...], Field(min_length=1, max_length=2048)] = Field(
        description="The texts, or a single one; a list of numbers is a text as the model's tokens"
    )

    @field_validator("input", mode="before")
    @classmethod
    def _one_text(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("input")
    @classmethod
    def _said(cls, texts: tuple[str | tuple[int, ...], ...]) -> tuple[str | tuple[int, ...], ...]:
        if "" in texts:
            raise ValueError("must not hold an empty text")
        return texts


class RerankRequest(_Handing):
    """Documents to be ordered by how well they answer a query."""

    modality = Modality.RERANK

    query: Prompt = Field(description="What is looked for")
    documents: Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)]
    top_n: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="How many of the best to return; all if left out"
    )

    _said = field_validator("query")(_not_blank)


AudioFormat = Literal["wav", "mp3", "flac", "opus", "aac", "pcm"]


class Txt2AudioRequest(_Handing):
    """A text to be spoken."""

    modality = Modality.TXT2AUDIO

    input: Prompt = Field(description="What to say")
    voice: Annotated[str, StringConstraints(max_length=256)] = Field(
        default="", description="A voice of the model; empty for its own default"
    )
    language: Annotated[str, StringConstraints(max_length=64)] = Field(
        default="", description="Such as `en`, for models of several languages"
    )
    instructions: Prompt = Field(default="", description="How to say it, where the model heeds it")
    speed: Annotated[float, Field(ge=0.25, le=4)] | None = Field(
        default=None, description="1 is the usual speed"
    )
    format: AudioFormat = Field(default="wav", description="How the recording is encoded")

    _said = field_validator("input")(_not_blank)


class Audio2TxtRequest(_Request):
    """A recording to be written down."""

    modality = Modality.AUDIO2TXT

    audio: Recording = Field(
        description="base64, a data: URI, or job:<id> for a recording made earlier"
    )
    language: Annotated[str, StringConstraints(max_length=64)] = Field(
        default="", description="Such as `en`; found out if empty"
    )
    prompt: Prompt = Field(default="", description="Words that are likely to occur")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    translate: bool = Field(default=False, description="Write it down in English")


class Txt2SoundRequest(_Request):
    """A sound or a piece of music to be made from words."""

    modality = Modality.TXT2SOUND

    prompt: Prompt = Field(description="What it should sound like")
    seconds: Annotated[float, Field(gt=0, le=600)] | None = Field(
        default=None, description="Its length"
    )
    lyrics: Prompt = Field(default="", description="What is sung, where the model sings")
    bpm: Annotated[int, Field(ge=20, le=400)] | None = Field(
        default=None, description="Beats per minute"
    )
    instrumental: bool | None = Field(default=None, description="Without a voice")

    _said = field_validator("prompt")(_not_blank)


class Txt2VideoRequest(_Request):
    """A film to be drawn from words, perhaps from its first picture on."""

    modality = Modality.TXT2VIDEO

    prompt: Prompt = Field(description="What to show")
    negative_prompt: Prompt = Field(default="", description="What the film should not show")
    image: Picture | None = Field(
        default=None, description="The first picture: base64, a data: URI, or job:<id>"
    )
    width: Side | None = None
    height: Side | None = None
    num_frames: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="How many pictures the film has"
    )
    fps: Annotated[int, Field(ge=1, le=120)] | None = Field(
        default=None, description="Pictures per second"
    )
    steps: Annotated[int, Field(ge=1, le=150)] | None = Field(
        default=None, description="Sampling steps"
    )
    cfg_scale: Annotated[float, Field(ge=0, le=50)] | None = Field(
        default=None, description="How closely it follows the prompt"
    )
    seed: Seed | None = None

    _said = field_validator("prompt")(_not_blank)


InferenceRequest = (
    Txt2TxtRequest
    | CompletionRequest
    | ModerationRequest
    | Txt2ImgRequest
    | Img2ImgRequest
    | Img2TxtRequest
    | Txt2VecRequest
    | RerankRequest
    | Audio2TxtRequest
    | Txt2AudioRequest
    | Txt2SoundRequest
    | InpaintRequest
    | Txt2VideoRequest
)

REQUESTS: dict[Modality, type[InferenceRequest]] = {
    Modality.TXT2TXT: Txt2TxtRequest,
    Modality.TXT2IMG: Txt2ImgRequest,
    Modality.IMG2IMG: Img2ImgRequest,
    Modality.IMG2TXT: Img2TxtRequest,
    Modality.TXT2VEC: Txt2VecRequest,
    Modality.RERANK: RerankRequest,
    Modality.AUDIO2TXT: Audio2TxtRequest,
    Modality.TXT2AUDIO: Txt2AudioRequest,
    Modality.TXT2SOUND: Txt2SoundRequest,
    Modality.INPAINT: InpaintRequest,
    Modality.TXT2VIDEO: Txt2VideoRequest,
}
"""The request that each modality is known by; some doors make others of the same modality."""
