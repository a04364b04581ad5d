"""Reads `models/*.yaml`, one model definition a file."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from ..models.catalog import ModelDefinition


class BadModelFile(ValueError):
    """A model definition cannot be read; the message names the file and what is wrong."""


def read_definitions(folder: Path) -> list[ModelDefinition]:
    """Read all definitions of a folder, in the order of their file names.

    A folder that does not exist holds none.

    Raises:
        BadModelFile: a file is not YAML or not a definition, or two name the same model.

    """
    definitions: dict[str, ModelDefinition] = {}
    for path in sorted(folder.glob("*.y*ml")):
        definition = _read(path)
        if definition.name in definitions:
            raise BadModelFile(f"{path}: the model {definition.name} is defined twice")
        definitions[definition.name] = definition
    return list(definitions.values())


def _read(path: Path) -> ModelDefinition:
    try:
        return ModelDefinition.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadModelFile(f"{path}: not readable as YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        why = first["msg"].removeprefix("Value error, ")
        raise BadModelFile(f"{path}: {where}: {why}") from error
