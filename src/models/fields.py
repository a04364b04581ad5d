"""What the fields of requests may hold: texts, pictures, numbers, and how much of each."""

import json
from typing import Annotated, cast

from pydantic import (
    Field,
    JsonValue,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

MAX_TEXT = 1_000_000
MIN_SIDE, MAX_SIDE = 16, 4096
MAX_PIXELS = 16_000_000
MAX_IMAGE_TEXT = 28_000_000  # characters of base64: 20 MiB of picture and some air
MAX_AUDIO_TEXT = 28_000_000
MAX_ANSWERS = MAX_PICTURES = 10

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
Prompt = Annotated[str, StringConstraints(max_length=100_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256, strip_whitespace=True)]
Picture = Annotated[str, StringConstraints(min_length=1, max_length=MAX_IMAGE_TEXT)]
Recording = Annotated[str, StringConstraints(min_length=1, max_length=MAX_AUDIO_TEXT)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)]
Tokens = Annotated[
    tuple[Annotated[int, Field(ge=0, le=10_000_000)], ...],
    Field(min_length=1, max_length=100_000),
]


def _plain(value: object, read: ValidatorFunctionWrapHandler) -> dict[str, JsonValue]:
    """Take what JSON can hold. Of the rest nothing is told: even keys are the caller's."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return cast("dict[str, JsonValue]", read(value))
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must be an object that JSON can hold") from None


Further = Annotated[dict[str, JsonValue], WrapValidator(_plain)]
"""Fields that mean nothing here and are handed on as they are."""
