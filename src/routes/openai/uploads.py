"""Multipart forms: their texts are checked as bodies of JSON are, their files are read at once."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from starlette.datastructures import UploadFile

from ...models.errors import InvalidInput
from ..incoming import Incoming, checked

AS_TEXT = ConfigDict(strict=False)
"""For the fields of a form, which are all texts."""

_MOST_FILES = 20  # so that one too many is told of by its name

Form = TypeVar("Form", bound=BaseModel)


async def read_form(
    incoming: Incoming,
    kind: type[Form],
    *,
    required: str,
    optional: Iterable[str] = (),
    single: str = "the backend takes one: send each in a call of its own",
) -> tuple[Form, Mapping[str, bytes]]:
    """Read a form with one file, and perhaps others; nothing is left open.

    Texts whose name ends in `[]` are a list. An empty text counts as left out.

    Args:
        incoming: the request.
        kind: what the texts must be.
        required: the name of the file.
        optional: the names of further files; those of other names are left alone.
        single: what to do instead of sending several files by one name.

    Returns:
        the texts, and each file by its name.

    Raises:
        InvalidInput: a field is wrong or missing; `param` names it.
        HTTPException, ClientDisconnect: as `Incoming.form`.

    """
    texts: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    known = {required, *optional}
    form = await incoming.form(files=_MOST_FILES)
    try:
        for name, value in form.multi_items():
            plain = name.removesuffix("[]")
            if isinstance(value, UploadFile):
                if plain in files:
                    raise InvalidInput(f"{plain} must be a single file", param=plain, hint=single)
                if plain in known:
                    files[plain] = await value.read()
            elif plain != name:
                texts.setdefault(name, []).append(value)
            elif value:
                texts[name] = value
    finally:
        await form.close()
    if required not in files:
        raise InvalidInput(
            f"{required} must be given, as a file",
            param=required,
            hint=f"with curl: -F {required}=@FILE",
        )
    return checked(kind, texts), files


def described(
    kind: type[BaseModel], *, required: str, optional: Mapping[str, str] | None = None, about: str
) -> dict[str, Any]:
    """Describe a form, in OpenAPI's words.

    Args:
        kind: what the texts must be.
        required: the name of the file.
        optional: what further files are, by their names.
        about: what the file is.

    """
    texts = kind.model_json_schema()
    files = {required: about, **(optional or {})}
    schema = {
        **texts,
        "properties": {
            **{name: _file(text) for name, text in files.items()},
            **texts["properties"],
        },
        "required": [required, *texts.get("required", ())],
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _file(about: str) -> dict[str, str]:
    return {"type": "string", "format": "binary", "description": about}
