"""Which functions a model calls: those that it has to, or those that the user names.

The arguments are the least that a function's schema allows; a schema without such a value, or
without meaning, is called with none.
"""

import json
from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import BaseModel, ConfigDict

from .structures import Unbuildable, instance
from .text import Call, Message, last_question


class Function(BaseModel):
    """A function that may be called."""

    model_config = ConfigDict(strict=True, extra="ignore")

    name: str = ""
    parameters: dict[str, object] | None = None


class Tool(BaseModel):
    """A tool; functions are the only kind."""

    model_config = ConfigDict(strict=True, extra="ignore")

    function: Function = Function()


def calls(tools: Sequence[Tool], choice: object, messages: Sequence[Message]) -> tuple[Call, ...]:
    """Return the calls that answer a chat; the result of a call is answered in words."""
    functions = [tool.function for tool in tools if tool.function.name]
    mentioned = [it for it in functions if it.name in last_question(messages)]
    chosen: Sequence[Function] = ()
    wanted = _understood(choice)
    if isinstance(wanted, Mapping):
        chosen = [it for it in functions if it.name == _named(cast("Mapping[str, object]", wanted))]
    elif wanted == "required":
        chosen = (mentioned or functions)[:1]
    elif wanted != "none" and messages and messages[-1].role == "user":
        chosen = mentioned
    return tuple(Call(it.name, _arguments(it)) for it in chosen)


def _understood(choice: object) -> object:
    """Return a word or an object; a string may contain either as JSON."""
    if isinstance(choice, str):
        try:
            return json.loads(choice)
        except ValueError:
            return choice
    return choice


def _named(choice: Mapping[str, object]) -> object:
    """Name the function in a choice, which may stand in an object of its own."""
    inner = choice.get("function")
    return (
        cast("Mapping[str, object]", inner).get("name")
        if isinstance(inner, dict)
        else choice.get("name")
    )


def _arguments(function: Function) -> str:
    try:
        return json.dumps(instance(function.parameters or {"type": "object"}), ensure_ascii=False)
    except Unbuildable:
        return "{}"
