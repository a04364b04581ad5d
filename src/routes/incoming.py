"""One HTTP request as a door reads it: its body once, as late as possible, and never for long."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope

from ..models.errors import InvalidInput
from .errors import from_validation
from .wishes import Wishes

_AT_ONCE = 64 * 1024  # bytes that are parsed here; more of them in a thread

Body = TypeVar("Body", bound=BaseModel)
T = TypeVar("T")


class Incoming:
    """A request that a door answers.

    Args:
        scope: of the request.
        receive: hands its body out.
        wishes: what its headers ask for.
        longest: how many bytes its body may have.

    """

    def __init__(self, scope: Scope, receive: Receive, wishes: Wishes, longest: int) -> None:
        self.wishes = wishes
        self._scope = scope
        self._receive = receive
        self._longest = longest
        self.size = 0
        """How many bytes of JSON were read."""

    @property
    def path_params(self) -> dict[str, str]:
        """What stands in the path."""
        return dict(self._scope.get("path_params", {}))

    @property
    def base_url(self) -> str:
        """Where the caller reached this server."""
        return base_url(self._scope)

    @property
    def has_form(self) -> bool:
        """Whether its body is said to be a multipart form."""
        return self._media_type() == "multipart/form-data"

    async def json(self, kind: type[Body]) -> Body:
        """Read and check a body of JSON.

        Raises:
            HTTPException: it is too large, or is said to be something else.
            InvalidInput: it is no JSON, or a field is wrong; `param` names it.
            ClientDisconnect: its caller has gone.

        """
        return await self.read(partial(checked, kind))

    async def read(self, check: Callable[[object], T]) -> T:
        """Read a body of JSON and have its value checked; raises as `json`."""
        media_type = self._media_type()
        if media_type not in ("application/json", "") and not media_type.endswith("+json"):
            raise HTTPException(415, "send the body as application/json")
        body = await self._bytes()
        self.size = len(body)
        return await aside(len(body), lambda: check(_parsed(body)))

    async def form(self, *, files: int) -> FormData:
        """Read a multipart form with at most so many files.

        Raises:
            HTTPException: it is too large, or something else than a form.
            InvalidInput: it is broken.
            ClientDisconnect: its caller has gone.

        """
        if not self.has_form:
            raise HTTPException(415, "send the body as multipart/form-data")
        request = Request(self._scope, _measured(self._receive, self._longest))
        try:
            return await request.form(max_files=files, max_fields=100, max_part_size=self._longest)
        except (MultiPartException, HTTPException) as error:
            if isinstance(error, HTTPException) and error.status_code != 400:
                raise
            raise InvalidInput("the form cannot be read", param="body") from None

    def _media_type(self) -> str:
        for name, value in self._scope["headers"]:
            if name == b"content-type":
                return str(value.decode("latin-1")).partition(";")[0].strip().lower()
        return ""

    async def _bytes(self) -> bytes:
        receive = self._receive
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > self._longest:
                raise _too_large(self._longest)
            return body
        parts: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._longest:
                raise _too_large(self._longest)
            if not message.get("more_body", False):
                return b"".join(parts)
            message = await receive()


def base_url(scope: Scope) -> str:
    """Return where the sender of a request reached this server, without a slash at its end."""
    return str(Request(scope).base_url).rstrip("/")


async def aside(size: int, work: Callable[[], T]) -> T:
    """Work here if there is little of it, in a thread if there is much."""
    return work() if size <= _AT_ONCE else await asyncio.to_thread(work)


def checked(kind: type[Body], value: object) -> Body:
    """Check a body; raises `InvalidInput` that names the field, and never shows its value."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise from_validation(error.errors(include_input=False, include_url=False)) from None


def _parsed(body: bytes) -> object:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        if "hex escape" in str(error):
            raise InvalidInput(
                "a text in the body holds half of a character (a lone surrogate)",
                param="body",
                hint="texts were perhaps cut in the middle of a character",
            ) from None
        raise InvalidInput(
            "the body is not valid JSON",
            param="body",
            hint="send a JSON object in UTF-8, without numbers of thousands of digits",
        ) from None


def _measured(receive: Receive, longest: int) -> Receive:
    size = 0

    async def measured() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > longest:
            raise _too_large(longest)
        return message

    return measured


def _too_large(longest: int) -> HTTPException:
    return HTTPException(413, f"the body must be at most {longest:,} bytes")
