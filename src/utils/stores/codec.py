"""Requests, results and errors as JSON, and back: what goes in comes out alike."""

import json
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from sys import byteorder
from typing import Any, TypeVar, cast

from ...models.blobs import Blob, Content
from ...models.errors import InferenceManagerError
from ...models.requests import (
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
from ...models.results import (
    Audio,
    Call,
    Choice,
    Finish,
    Heard,
    Image,
    Rank,
    Result,
    Segment,
    Vector,
    Verdict,
    Video,
)

T = TypeVar("T")

KINDS: Mapping[str, type[InferenceRequest]] = {
    "chat": Txt2TxtRequest,
    "completion": CompletionRequest,
    "moderation": ModerationRequest,
    "txt2img": Txt2ImgRequest,
    "img2img": Img2ImgRequest,
    "img2txt": Img2TxtRequest,
    "txt2vec": Txt2VecRequest,
    "rerank": RerankRequest,
    "audio2txt": Audio2TxtRequest,
    "txt2audio": Txt2AudioRequest,
    "txt2sound": Txt2SoundRequest,
    "inpaint": InpaintRequest,
    "txt2video": Txt2VideoRequest,
}
"""What each kind of request is called where it is kept; a name that was in use never changes."""

_KIND_OF = {kind: name for name, kind in KINDS.items()}


def _family(root: type[InferenceManagerError]) -> Iterator[type[InferenceManagerError]]:
    for child in root.__subclasses__():
        yield from _family(child)
    yield root


_ERRORS = {kind.code: kind for kind in _family(InferenceManagerError)}


def kind_of(request: InferenceRequest) -> str:
    """Return what the kind of a request is called."""
    return _KIND_OF[type(request)]


def request_to_json(request: InferenceRequest) -> str:
    """Write those fields of a request that were given."""
    return request.model_dump_json(exclude_unset=True)


def request_from_json(kind: str, text: str) -> InferenceRequest:
    """Read a request; references to blobs in it are trusted, for they were written here.

    Raises:
        ValueError: it is none.

    """
    if kind not in KINDS:
        raise ValueError("there is no such kind of request")
    return KINDS[kind].model_validate_json(text)


def result_to_json(result: Result) -> str:
    """Write a result; what is as it is by default is left out."""
    return json.dumps(_plain(result), separators=(",", ":"))


def result_from_json(text: str) -> Result:
    """Read a result.

    Raises:
        ValueError: it is none.

    """
    try:
        return _read(Result, json.loads(text))
    except (AttributeError, TypeError) as error:
        raise ValueError("this is no result") from error


def error_to_json(error: InferenceManagerError) -> str:
    """Write an error with its facts."""
    facts = {name: fact for name, fact in vars(error).items() if not name.startswith("_")}
    return json.dumps({"code": error.code, **facts}, separators=(",", ":"))


def error_from_json(text: str) -> InferenceManagerError:
    """Read an error; one of a class that is not known any more keeps its code.

    Raises:
        ValueError: it is none.

    """
    facts: dict[str, Any] = json.loads(text)
    try:
        code: str = facts.pop("code")
        kind = _ERRORS.get(code, InferenceManagerError)
        error = kind.__new__(kind)
        InferenceManagerError.__init__(error, facts["message"])
    except (AttributeError, KeyError, TypeError) as wrong:
        raise ValueError("this is no error") from wrong
    for name, fact in facts.items():
        known: object = tuple(cast("list[object]", fact)) if isinstance(fact, list) else fact
        setattr(error, name, known)
    if error.code != code:
        error.code = code
    return error


def _plain(value: object) -> object:
    """Turn a result, or a part of one, into what JSON can hold."""
    match value:
        case bytes() | Blob():
            return _content(value)
        case array():
            return _numbers(cast("array[float]", value))
        case tuple():
            return [_plain(one) for one in cast("tuple[object, ...]", value)]
        case _ if is_dataclass(value):
            named = ((one, getattr(value, one.name)) for one in fields(value))
            return {one.name: _plain(it) for one, it in named if it != one.default}
        case _:
            return value


def _content(content: Content) -> str:
    return content.reference if isinstance(content, Blob) else b64encode(content).decode()


def _content_from(text: str) -> Content:
    return Blob.referred_to(text) or b64decode(text, validate=True)


def _numbers(numbers: "array[float]") -> str:
    """Write doubles as base64, the least significant byte of each first."""
    return b64encode(_swapped(numbers).tobytes()).decode()


def _numbers_from(text: str) -> "array[float]":
    return _swapped(array("d", b64decode(text, validate=True)))


def _swapped(numbers: "array[float]") -> "array[float]":
    if byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers


def _one(kind: type[T]) -> Callable[[Any], T]:
    return lambda value: _read(kind, value)


def _each(kind: type[T]) -> Callable[[Any], tuple[T, ...]]:
    return lambda values: tuple(_read(kind, value) for value in values)


_PARTS: Mapping[type, Mapping[str, Callable[[Any], object]]] = {
    Result: {
        "calls": _each(Call),
        "logprobs": tuple,
        "others": _each(Choice),
        "verdict": _one(Verdict),
        "images": _each(Image),
        "audio": _each(Audio),
        "videos": _each(Video),
        "vectors": _each(Vector),
        "ranking": _each(Rank),
        "heard": _one(Heard),
        "finish": _one(Finish),
    },
    Choice: {"calls": _each(Call), "logprobs": tuple},
    Verdict: {"results": tuple},
    Image: {"data": _content_from},
    Audio: {"data": _content_from},
    Video: {"data": _content_from},
    Vector: {"values": _numbers_from},
    Heard: {"segments": _each(Segment)},
}
"""How the fields are read that are more than a text or a number."""


def _read(kind: type[T], value: Mapping[str, Any]) -> T:
    parts = _PARTS.get(kind, {})
    return kind(**{name: parts[name](it) if name in parts else it for name, it in value.items()})
