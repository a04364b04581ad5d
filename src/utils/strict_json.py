"""JSON from strangers: typed, without NaN and infinities, and nothing but ValueError goes wrong."""

import json
from typing import TypeAlias, cast

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"


def parse(text: str | bytes) -> Json:
    """Parse JSON.

    Raises:
        ValueError: it is none, or nested too deeply, or holds a number that is none.

    """
    try:
        return cast("Json", json.loads(text, parse_constant=_no_number))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_number(name: str) -> Json:
    raise ValueError(f"{name} is not a number")
