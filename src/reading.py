"""Reads the settings, and says in words what is wrong with them."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import yaml
from pydantic import AliasChoices, ValidationError
from pydantic_settings import SettingsError

from .settings import BackendSettings, Settings


class BadSettings(Exception):
    """The settings are wrong; the message names each and its environment variable."""


def settings_from(**overrides: Any) -> Settings:
    """Read the settings; what is given here wins, and None means not given.

    One LocalAI that is given here stands alone, whatever backends are written elsewhere.

    Raises:
        BadSettings: they cannot be used.

    """
    if overrides.get("localai_url") is not None:
        overrides["backends"] = []
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        wrong = [_said(tuple(map(str, e["loc"])), e["type"], e["msg"]) for e in error.errors()]
        raise BadSettings("; ".join(dict.fromkeys(wrong))) from error
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        name = named[1] if named else ""
        raise BadSettings(
            f"setting {name}: cannot be read as JSON; change {variable(name)}"
            if name
            else str(error)
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSettings(f"config.yaml cannot be read as YAML: {_flat(error)}") from error
    except OSError as error:
        raise BadSettings(f"config.yaml cannot be read: {error.strerror}") from error


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    top, *inner = re.split(r"\W", name)
    if top == "backends":
        inner.clear()  # the variable holds all of them, as JSON
    field = Settings.model_fields.get(top)
    if field is not None and isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0]).upper()
    return "__".join([f"IM_{top}", *inner]).upper()


def _said(where: tuple[str, ...], kind: str, message: str) -> str:
    """Say one thing that is wrong with the settings."""
    message = message.removeprefix("Value error, ")
    if not where:
        return f"settings: {message}"
    top, *inner = (part for part in where if not part.isdigit())
    top = top.removeprefix("im_")
    known: Iterable[str] = Settings.model_fields
    if top == "backends" and len(where) > 1:
        known, top = BackendSettings.model_fields, f"{top}[{where[1]}]"
    name = ".".join([top, *inner])
    if kind == "extra_forbidden":
        near = get_close_matches(name.rpartition(".")[2], known, n=1)
        return f"unknown setting {name}{f', did you mean {near[0]}?' if near else ''}"
    return f"setting {name}: {message}; change {variable(name)} or config.yaml"


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())
