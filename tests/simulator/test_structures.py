from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from src.simulator.structures import Unbuildable, instance

OTHERS: Any = import_module("jsonschema")


class Fox(BaseModel):
    name: str = Field(min_length=3)
    age: int = Field(ge=2, lt=9)
    friends: list["Fox"] = []
    kind: str | None = None


class Den(BaseModel):
    first: Fox
    others: list[Fox] = Field(min_length=2)
    warmth: float = Field(gt=0.5)


MAZE: Any = {
    "$ref": "#/$defs/0",
    "$defs": {str(n): {"anyOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(20)}
    | {"20": False},
}
LEAST: list[tuple[Any, object]] = [
    ({"enum": ["b", "a"]}, "b"),
    ({"const": None}, None),
    ({"type": "string"}, "[simulated]"),
    ({"type": "string", "maxLength": 4}, "[sim"),
    ({"type": "string", "minLength": 13}, "[simulated][s"),
    ({"type": "string", "pattern": "^[a-z]+$"}, "simulated"),
    ({"type": "string", "format": "date"}, "2000-01-01"),
    ({"type": "string", "format": "unheard-of"}, "[simulated]"),
    ({"type": "integer", "minimum": 3}, 3),
    ({"type": "integer", "exclusiveMinimum": 3}, 4),
    ({"type": "integer", "minimum": 2.5}, 3),
    ({"type": "integer", "maximum": -7}, -7),
    ({"type": "integer", "minimum": 8, "multipleOf": 5}, 10),
    ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, 0.25),
    ({"minimum": 2}, 2),
    ({"type": ["boolean", "null"]}, True),
    ({"type": "null"}, None),
    ({"type": "array", "items": {"type": "integer"}}, []),
    ({"minItems": 2, "items": {"type": "integer"}}, [0, 0]),
    ({"prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 3}, [1, 2, 2]),
    ({"type": "object", "properties": {"a": {"type": "null"}}}, {}),
    ({"properties": {"a": {"const": 1}, "b": True}, "required": ["a"]}, {"a": 1}),
    ({"required": ["x"], "additionalProperties": {"const": 5}}, {"x": 5}),
    ({"type": "object", "minProperties": 1}, {"simulated1": "[simulated]"}),
    ({"anyOf": [{"enum": []}, {"type": "integer"}]}, 0),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}, {"const": "x"}]}, "x"),
    ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}}]}, {"a": 1}),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 9}}}, 9),
    ({"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"const": 9}}}, 9),
    (True, "[simulated]"),
]


@pytest.mark.parametrize(("schema", "expected"), LEAST)
def test_a_value_is_the_first_or_the_least_that_is_allowed(schema: Any, expected: object) -> None:
    assert instance(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        False,
        7,
        {"$ref": "#"},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        MAZE,
        {"required": ["me"], "properties": {"me": {"$ref": "#"}}},
        {"type": "string", "pattern": "^[0-9]{17}$"},
        {"type": "string", "pattern": "("},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "integer", "multipleOf": 0},
        {"type": "integer", "minimum": "2"},
        {"type": "array", "minItems": 2, "uniqueItems": True},
        {"type": "array", "minItems": 99_999},
        {"type": "array", "minItems": "two"},
        {"const": 1, "type": "string"},
        {"enum": "ab"},
        {"properties": []},
        {"not": {"type": "string"}},
        {"type": "unheard-of"},
    ],
)
def test_where_no_value_is_found_there_is_none(schema: Any) -> None:
    with pytest.raises(Unbuildable):
        instance(schema)


@pytest.mark.parametrize("model", [Fox, Den])
def test_what_pydantic_asks_for_pydantic_accepts(model: type[BaseModel]) -> None:
    model.model_validate(instance(model.model_json_schema()))


def schemas(required: dict[str, Any], /, **optional: Any) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(required, optional=optional)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    names = st.sampled_from("abcd")
    return st.one_of(
        schemas(
            {"properties": st.dictionaries(names, inner)},
            required=st.lists(names, unique=True),
            additionalProperties=inner,
            minProperties=st.integers(0, 4),
        ),
        schemas(
            {"items": inner},
            prefixItems=several,
            minItems=st.integers(0, 3),
            uniqueItems=st.booleans(),
        ),
        *(schemas({name: several}) for name in ("anyOf", "oneOf", "allOf")),
    )


NUMBER = schemas(
    {"type": st.sampled_from(["integer", "number"])},
    minimum=st.integers(-9, 9),
    exclusiveMaximum=st.integers(-9, 9),
    multipleOf=st.integers(1, 4),
)
TEXT = schemas(
    {"type": st.just("string")}, minLength=st.integers(0, 20), maxLength=st.integers(0, 20)
)
CHOICE = schemas({"enum": st.lists(st.integers() | st.booleans() | st.text())})
SCHEMAS = st.recursive(st.one_of(NUMBER, TEXT, CHOICE, st.booleans()), nested, max_leaves=8)


@given(SCHEMAS)
def test_whatever_is_built_another_validator_accepts(schema: Any) -> None:
    try:
        built = instance(schema)
    except Unbuildable:
        return
    OTHERS.Draft202012Validator(schema).validate(built)
