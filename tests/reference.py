"""The tables of the reference pages as the code would write them, for `test_docs.py`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from src.models.errors import BackendError, BackendUnavailable, InferenceManagerError
from src.reading import variable
from src.settings import Settings
from src.utils.retry import RetryPolicy

Row = tuple[str, ...]
NONE = "none"


def tables(page: str) -> Mapping[str, list[Row]]:
    """The first table below each heading, without its head, by the heading's text."""
    found: dict[str, list[Row]] = {}
    heading, inside = "", False
    for line in page.splitlines():
        if line.startswith("#"):
            heading, inside = line.lstrip("#").strip(), False
        elif line.startswith("|"):
            inside = True
            rows = found.setdefault(heading, [])
            rows.append(_cells(line))
        elif inside:
            heading, inside = f"{heading}.", False
    return {name: rows[2:] for name, rows in found.items()}


def _cells(line: str) -> Row:
    masked = line.replace(r"\|", "\0").strip().strip("|")
    return tuple(cell.strip().replace("\0", "|") for cell in masked.split("|"))


def written(rows: Iterable[Row], *head: str) -> str:
    """A table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in lines
    )


def code(text: object) -> str:
    return f"`{text}`"


def settings() -> Iterator[Row]:
    """Name, environment variable, default, meaning."""
    for name, field in Settings.model_fields.items():
        yield code(name), code(variable(name)), default(field), field.description or ""


def default(field: FieldInfo) -> str:
    """A default as people write it."""
    return _value(field.get_default(call_default_factory=True, validated_data={}))


def _value(value: object) -> str:
    match value:
        case None | "" | () | []:
            return NONE
        case bool():
            return code(str(value).lower())
        case float():
            return code(f"{value:g}")
        case list():
            return code(",".join(map(str, cast("list[object]", value))))
        case dict():
            pairs = cast("dict[object, object]", value).items()
            return ", ".join(f"{key} {_value(inner)}" for key, inner in pairs) or NONE
        case frozenset():
            return ", ".join(map(str, cast("frozenset[object]", value))) or NONE
        case Path():
            return code(value.as_posix())
        case _:
            return code(value)


def fields(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Each field of an answer and what the code says of it."""
    for name, field in model.model_fields.items():
        yield code(name), field.description or ""


def definition(model: type[BaseModel]) -> Iterator[Row]:
    """Each key of a file: name, default, meaning."""
    for name, field in model.model_fields.items():
        yield (
            code(name),
            "required" if field.is_required() else default(field),
            (field.description or ""),
        )


def properties(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Row]:
    """Each property of an object in JSON Schema: name, what is allowed, default, meaning."""
    required: Sequence[str] = schema.get("required", ())
    either = {name for one in schema.get("oneOf", ()) for name in one["required"]}
    for name, described in schema.get("properties", {}).items():
        inner = _not_null(described)
        value = _value(described.get("default"))
        if name in required:
            value = "required"
        elif name in either:
            value = f"or {' or '.join(sorted(code(n) for n in either - {name}))}"
        meaning = described.get("description") or inner.get("description") or ""
        yield code(name), allowed(described, definitions), value, meaning


def allowed(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    schema = _not_null(schema)
    if "anyOf" in schema:
        forms = [one for one in schema["anyOf"] if one.get("type") != "null"]
        return "; or ".join(allowed(one, definitions) for one in forms)
    if "$ref" in schema:
        return allowed(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    match schema.get("type"):
        case "string" if "enum" in schema:
            return ", ".join(map(code, schema["enum"]))
        case "string" if "pattern" in schema:
            return "text"
        case "string":
            return "text" + _at_most(schema.get("maxLength"), " characters")
        case "array":
            each, most = allowed(schema["items"], definitions), schema.get("maxItems")
            return f"list of {each}" if most is None else f"list of at most {most:,}: {each}"
        case "object" if "properties" in schema:
            return "object of " + ", ".join(map(code, schema["properties"]))
        case "object":
            return "object"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as kind:
            return ("whole number" if kind == "integer" else "number") + _between(schema)
        case _:
            return "anything"


def _not_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    kinds = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    return kinds[0] if len(kinds) == 1 else schema


def _at_most(number: int | None, unit: str) -> str:
    return "" if number is None else f", at most {number:,}{unit}"


def _between(schema: Mapping[str, Any]) -> str:
    above, low, high = (schema.get(k) for k in ("exclusiveMinimum", "minimum", "maximum"))
    below = schema.get("exclusiveMaximum")
    if below is not None:
        assert schema["type"] == "integer", "there is no word for this yet"
        high = int(below) - 1
    first = f" above {_number(above)}" if above is not None else ""
    first = f" {_number(low)}" if low is not None else first
    return first + ("" if high is None else f" to {_number(high)}")


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def options(command: Any) -> Iterator[Row]:
    """Each option of a command: name, default, meaning."""
    for option in command.params:
        if option.name == "help" or not option.help:
            continue
        plain = option.default is None or option.default is False
        variable = f" ({option.envvar})" if option.envvar else ""
        yield (
            ", ".join(map(code, option.opts)),
            NONE if plain else code(option.default),
            option.help.removesuffix(".") + variable,
        )


def attempts(kind: type[InferenceManagerError]) -> str:
    """How often an attempt that fails this way is tried, as the retry policy says."""
    if not issubclass(kind, BackendError):
        return "no"
    error = kind("", reached=True) if kind is BackendUnavailable else kind("")
    policy = RetryPolicy()
    for number in range(1, 100):
        retry = policy.decide(error, attempts=number, claims=number)
        if retry is None:
            return "no" if number == 1 else str(number)
        if not retry.counted:
            return "waits"
    raise AssertionError("it never ends")
