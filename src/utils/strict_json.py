"""JSON from strangers: typed, no NaN, no key twice, and nothing but ValueError goes wrong."""

import json
from typing import TypeAlias, cast

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"


def parse(text: str | bytes) -> Json:
    """Parse JSON.

    Raises:
        ValueError: it is none, nested too deeply, holds a number that is none, or a key twice.

    """
    try:
        return cast(
            "Json", json.loads(text, parse_constant=_no_number, object_pairs_hook=_each_key_once)
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def encodable(text: str) -> str:
    """Return a text that UTF-8 can hold: JSON may escape halves of characters, alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _no_number(name: str) -> Json:
    raise ValueError(f"{name} is not a number")


def _each_key_once(pairs: list[tuple[str, Json]]) -> JsonObject:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key occurs twice")
    return fields
