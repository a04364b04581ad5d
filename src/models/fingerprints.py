"""When two requests are the same, and whether the same request has the same answer."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import cast

from pydantic import BaseModel

from .requests import MEDIA, InferenceRequest, RerankRequest, Txt2VecRequest


def fingerprint(
    request: InferenceRequest, *, caller: str, model: str, digests: Mapping[str, str]
) -> str:
    """Return 64 hexadecimal digits: equal for equal requests of one caller, and only for those.

    A field that is left out equals its default written out.

    Args:
        request: what is asked for.
        caller: who asks.
        model: what will answer; it stands in place of the request's own field.
        digests: for each of the request's `media_texts`, a digest of the bytes it stands for, so
            that it does not matter how they are written.

    """
    fields = {
        name: _digested(value, digests) if name in MEDIA else _normal(value)
        for name, value in request
        if name != "model"
    }
    asked = [caller, type(request).__name__, model, fields]
    return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def media_texts(request: InferenceRequest) -> tuple[str, ...]:
    """Return the texts that stand for the request's pictures and recordings."""
    return tuple(text for name, value in request if name in MEDIA for text in _texts(value))


def repeatable(request: InferenceRequest) -> bool:
    """Whether the same request has the same answer, on the same model."""
    if isinstance(request, Txt2VecRequest | RerankRequest):
        return True
    seed: object = getattr(request, "seed", None)
    temperature: object = getattr(request, "temperature", None)
    return seed is not None or temperature == 0


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else cast("tuple[str, ...]", value)


def _digested(value: object, digests: Mapping[str, str]) -> object:
    return [{"sha256": digests[text]} for text in _texts(value)]


def _normal(value: object) -> object:
    """Return what JSON can write, the same for equal values."""
    match value:
        case float():
            return value + 0.0  # there is no -0.0
        case BaseModel():
            return {name: _normal(one) for name, one in value}
        case dict():
            return {key: _normal(one) for key, one in cast("dict[str, object]", value).items()}
        case tuple() | list():
            return [_normal(one) for one in cast("list[object]", value)]
        case _:
            return value
