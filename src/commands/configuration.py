"""Settings, model definitions, and the application made from them; troubles are said in words."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI

from ..models.catalog import ModelDefinition
from ..pool import BadBackend
from ..reading import BadSettings, settings_from, variable
from ..settings import Settings
from ..utils.key_file import BadKeyFile
from ..utils.model_files import BadModelFile, read_definitions
from .terminal import Failure


def read_settings(**overrides: Any) -> Settings:
    """Read the settings; what is given here wins, and None means not given.

    Raises:
        Failure: they are wrong; the message names the setting and its environment variable.

    """
    try:
        return settings_from(**overrides)
    except BadSettings as error:
        raise Failure(str(error)) from error


def read_models(settings: Settings) -> list[ModelDefinition]:
    """Read the model definitions.

    Raises:
        Failure: one is wrong; the message names the file.

    """
    try:
        return read_definitions(settings.models_dir)
    except (BadModelFile, OSError) as error:
        raise Failure(f"model definition {_flat(error)}") from error


def make_app(settings: Settings, *, again: Callable[[], Settings] | None = None) -> FastAPI:
    """Make the application; `again` reads the settings anew, raising `BadSettings`.

    Raises:
        Failure: it cannot be made of these settings.

    """
    from ..app import create_app  # takes a second, which commands that only look need not wait

    read_models(settings)
    with backends_named():
        return create_app(settings, again=again)


@contextmanager
def backends_named() -> Generator[None]:
    """Say which setting keeps a backend, or the whole application, from being made.

    Raises:
        Failure: one does.

    """
    try:
        yield
    except (BadBackend, BadKeyFile) as error:
        raise Failure(f"{_flat(error)}; change {variable(error.setting)} or config.yaml") from error


def _flat(error: Exception) -> str:
    return " ".join(str(error).split())
