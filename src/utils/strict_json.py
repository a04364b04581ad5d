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
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        return cast("Json", _decoder.decode(text))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def encodable(text: str) -> str:
    """Return a text that UTF-8 can hold: JSON may escape halves of characters, alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def mended(value: Json) -> Json:
    """Return the same with every text `encodable`."""
    match value:
        case str():
            return encodable(value)
        case list():
            return [mended(one) for one in value]
        case dict():
            return {encodable(key): mended(one) for key, one in value.items()}
        case _:
            return value


def _no_number(name: str) -> Json:
    raise ValueError(f"{name} is not a number")


def _each_key_once(pairs: list[tuple[str, Json]]) -> JsonObject:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key occurs twice")
    return fields


_decoder = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_each_key_once)
