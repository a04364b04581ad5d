"""A value for a JSON schema: the first of its choices, the least of its numbers, little more.

A schema with a keyword that is not known here has none. What is built is checked against its
schema before it is given out, since the parts of a schema may contradict one another.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

Schema = Mapping[str, object]

_WORDS = ("[simulated]", "simulated", "SIMULATED", "Simulated", "a", "A", "0", "a0")
_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "uri": "https://example.com/simulated",
}
_HINTS = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_KNOWN = {
    *("$ref", "$defs", "definitions", "$schema", "$id", "title", "description", "default"),
    *("examples", "type", "const", "enum", "anyOf", "oneOf", "allOf"),
    *(name for names in _HINTS.values() for name in names),
}
_TYPES: Mapping[object, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
_LONGEST = 10_000
_STEPS = 10_000


class Unbuildable(ValueError):
    """There is no value for a schema, or none that is found here."""


def instance(schema: object) -> object:
    """Return a small value that a schema allows.

    Raises:
        Unbuildable: none was found.

    """
    builder = _Builder(schema)
    try:
        value = builder.build(schema)
        if not builder.fits(value, schema):
            raise Unbuildable("the parts of the schema contradict one another")
    except RecursionError:
        raise Unbuildable("the schema has no end") from None
    except re.error as error:
        raise Unbuildable(f"a pattern is no regular expression: {error}") from error
    return value


class _Builder:
    """Builds and checks; the references of all schemas lead into the root."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._steps = 0

    def build(self, schema: object) -> object:
        """Return a value, which may not fit."""
        it = self._known(schema)
        if "$ref" in it:
            return self.build(self._target(it))
        if "const" in it:
            return it["const"]
        if "enum" in it:
            return self._first(it, _list(it, "enum"))
        for name in ("anyOf", "oneOf"):
            if name in it:
                return self._first(it, self._branches(it, name))
        if "allOf" in it:
            return self.build(self._merged(it))
        match _type(it):
            case "object":
                return self._object(it)
            case "array":
                return self._array(it)
            case "string":
                return self._first(it, _texts(it))
            case "number" | "integer":
                return self._first(it, _numbers(it))
            case "boolean":
                return True
            case _:
                return None

    def fits(self, value: object, schema: object) -> bool:
        """Whether a schema allows a value."""
        if isinstance(schema, bool):
            return schema
        it = self._known(schema)
        one_of = [self.fits(value, part) for part in _list(it, "oneOf")]
        any_of = [self.fits(value, part) for part in _list(it, "anyOf")]
        return (
            ("$ref" not in it or self.fits(value, self._target(it)))
            and all(self.fits(value, part) for part in _list(it, "allOf"))
            and ("anyOf" not in it or any(any_of))
            and ("oneOf" not in it or one_of.count(True) == 1)
            and ("const" not in it or _same(value, it["const"]))
            and ("enum" not in it or any(_same(value, each) for each in _list(it, "enum")))
            and ("type" not in it or any(_is(value, name) for name in _types(it)))
            and all(self._inside(value, it))
        )

    def _inside(self, value: object, it: Schema) -> Iterator[bool]:
        """Check what the schema says of values of this type."""
        match value:
            case dict():
                entries = cast("dict[str, object]", value)
                declared, others = _mapping(it, "properties"), it.get("additionalProperties", True)
                yield all(name in entries for name in _list(it, "required"))
                yield _between(len(entries), it, "minProperties", "maxProperties")
                for name, entry in entries.items():
                    yield self.fits(entry, declared.get(name, others))
            case list():
                items = cast("list[object]", value)
                firsts, rest = _list(it, "prefixItems"), it.get("items", True)
                yield _between(len(items), it, "minItems", "maxItems")
                yield not it.get("uniqueItems") or len({repr(item) for item in items}) == len(items)
                for place, item in enumerate(items):
                    yield self.fits(item, firsts[place] if place < len(firsts) else rest)
            case str():
                yield _between(len(value), it, "minLength", "maxLength")
                yield re.search(str(it.get("pattern", "")), value) is not None
                yield value == _FORMATS.get(str(it.get("format")), value)
            case int() | float() if not isinstance(value, bool):
                yield from _in_range(value, it)
            case _:
                pass

    def _object(self, it: Schema) -> object:
        declared, others = _mapping(it, "properties"), it.get("additionalProperties", True)
        required = [str(name) for name in _list(it, "required")]
        more = _count(it, "minProperties", 0) - len(required)
        spare = [name for name in declared if name not in required]
        spare += [f"simulated{number}" for number in range(1, more + 1)]
        names = [*required, *spare[: max(0, more)]]
        return {name: self.build(declared.get(name, others)) for name in names}

    def _array(self, it: Schema) -> object:
        firsts, rest = _list(it, "prefixItems"), it.get("items", True)
        return [
            self.build(firsts[place] if place < len(firsts) else rest)
            for place in range(_count(it, "minItems", 0))
        ]

    def _branches(self, it: Schema, name: str) -> Iterator[object]:
        """Yield a value for each of the schemas of which one shall hold."""
        own = {key: value for key, value in it.items() if key != name}
        for part in _list(it, name):
            try:
                yield self.build({"allOf": [own, part]})
            except Unbuildable:
                continue

    def _merged(self, it: Schema) -> Schema:
        """Return one schema that says what all the parts say."""
        merged: dict[str, object] = {}
        own: object = {**it, "allOf": list[object]()}
        for part in (own, *_list(it, "allOf")):
            known = self._known(part)
            while "$ref" in known:
                known = self._known(self._target(known))
            if _list(known, "allOf"):
                known = self._merged(known)
            properties = {**_mapping(merged, "properties"), **_mapping(known, "properties")}
            required = [*_list(merged, "required"), *_list(known, "required")]
            merged |= known
            if properties:
                merged["properties"] = properties
            if required:
                merged["required"] = list(dict.fromkeys(required))
        del merged["allOf"]
        return merged

    def _first(self, it: Schema, values: Iterable[object]) -> object:
        for value in values:
            if self.fits(value, it):
                return value
        raise Unbuildable("none of the choices fits")

    def _known(self, schema: object) -> Schema:
        self._steps += 1
        if self._steps > _STEPS:
            raise Unbuildable("the schema has no end")
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            raise Unbuildable("not a schema")
        it = cast("Schema", schema)
        if not it.keys() <= _KNOWN:
            raise Unbuildable(f"unknown keywords: {', '.join(sorted(it.keys() - _KNOWN))}")
        return it

    def _target(self, it: Schema) -> object:
        place = self._root
        first, *path = str(it["$ref"]).split("/")
        for step in path:
            name = step.replace("~1", "/").replace("~0", "~")
            if first != "#" or not isinstance(place, dict) or name not in place:
                raise Unbuildable(f"{it['$ref']} leads nowhere")
            place = cast("dict[str, object]", place)[name]
        return place


def _texts(it: Schema) -> Iterator[str]:
    if it.get("format") in _FORMATS:
        yield _FORMATS[str(it["format"])]
    least, most = _count(it, "minLength", 0), _count(it, "maxLength", _LONGEST)
    for word in _WORDS:
        yield (word if len(word) >= least else (word * least)[:least])[:most]


def _numbers(it: Schema) -> Iterator[float]:
    """Yield the numbers near the bounds, the lower one first."""
    lower = [it[name] for name in ("minimum", "exclusiveMinimum") if name in it]
    upper = [it[name] for name in ("maximum", "exclusiveMaximum") if name in it]
    step = it.get("multipleOf", 1)
    bounds = [bound for bound in (*lower, 0, *upper) if isinstance(bound, int | float)]
    if not isinstance(step, int | float) or step <= 0:
        raise Unbuildable("multipleOf is no positive number")
    for bound in bounds:
        yield bound
        for turns in (math.ceil(bound / step), math.floor(bound / step)):
            yield from (step * turns, step * (turns + 1), step * (turns - 1))
    if lower and upper:
        yield (bounds[0] + bounds[-1]) / 2


def _in_range(value: float, it: Schema) -> Iterator[bool]:
    bounds = {name: it[name] for name in _HINTS["number"] if name in it}
    for name, bound in bounds.items():
        if not isinstance(bound, int | float):
            raise Unbuildable(f"{name} is no number")
        match name:
            case "minimum":
                yield value >= bound
            case "maximum":
                yield value <= bound
            case "exclusiveMinimum":
                yield value > bound
            case "exclusiveMaximum":
                yield value < bound
            case _:
                yield math.isclose(value, bound * round(value / bound), abs_tol=1e-12)


def _type(it: Schema) -> str:
    """Name the type of the value to build; where none is said, what is said of it tells."""
    if "type" in it:
        return next(iter(_types(it)), "null")
    return next((name for name, hints in _HINTS.items() if hints & it.keys()), "string")


def _types(it: Schema) -> list[str]:
    given = it["type"]
    return (
        [str(name) for name in cast("list[object]", given)]
        if isinstance(given, list)
        else [str(given)]
    )


def _is(value: object, name: str) -> bool:
    return name in _TYPES and _TYPES[name](value)


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _between(size: int, it: Schema, least: str, most: str) -> bool:
    return _count(it, least, 0) <= size <= _count(it, most, size)


def _count(it: Schema, name: str, otherwise: int) -> int:
    given = it.get(name, otherwise)
    if not isinstance(given, int) or given > _LONGEST:
        raise Unbuildable(f"{name} is no number, or too high")
    return given


def _list(it: Schema, name: str) -> list[object]:
    given = it.get(name, [])
    if not isinstance(given, list):
        raise Unbuildable(f"{name} is no list")
    return cast("list[object]", given)


def _mapping(it: Schema, name: str) -> Schema:
    given = it.get(name, {})
    if not isinstance(given, dict):
        raise Unbuildable(f"{name} is no object")
    return cast("Schema", given)
