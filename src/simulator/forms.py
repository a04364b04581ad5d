"""Multipart forms: fields and files."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from . import wire
from .exchange import Exchange

MULTIPART = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Form:
    """What a form contains."""

    fields: Mapping[str, list[str]] = field(default_factory=dict[str, list[str]])
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    def first(self, name: str) -> str | None:
        """Return the first value of a field, if it has one that is not empty."""
        return next(iter(self.fields.get(name, ())), None) or None

    def number(self, name: str) -> int | None:
        """Return a field as a whole number, if it is one."""
        text = self.first(name) or ""
        return int(text) if text.isascii() and text.isdigit() else None


async def read_form(exchange: Exchange) -> Form:
    """Read the form in a body; any other body is an empty form.

    Raises:
        Refusal: it cannot be parsed.

    """
    if not exchange.headers.get("content-type", "").lower().startswith(MULTIPART):
        return Form()

    async def body() -> AsyncGenerator[bytes]:
        yield exchange.body

    try:
        parsed = await MultiPartParser(Headers(exchange.headers), body()).parse()
    except MultiPartException as error:
        raise wire.unreadable_body(error.message) from error
    fields: dict[str, list[str]] = {}
    files: dict[str, bytes] = {}
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            files[name] = await value.read()
        else:
            fields.setdefault(name, []).append(value)
    await parsed.close()
    return Form(fields, files)
