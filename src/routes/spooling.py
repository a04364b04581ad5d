"""What comes in by MCP without its pictures and recordings, which the tool fetches from the spool.

The SDK keeps a request several times, as bytes and as values, for as long as its tool waits. So
the long texts among the arguments of a call are set aside before the SDK sees them. What is no such
call, or cannot be read, goes on as it came.
"""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..models.errors import StorageFailed
from ..models.fields import MAX_AUDIO_TEXT, MAX_IMAGE_TEXT
from ..models.requests import MEDIA, REQUESTS
from ..utils.spool import LONG, Spool, new_word
from ..utils.strict_json import Json, JsonObject, parse
from .intake import LARGE, declared_length

TAKERS = frozenset(str(m) for m, kind in REQUESTS.items() if MEDIA & kind.model_fields.keys())
"""Tools that take pictures or recordings; what others are given is theirs to read."""

_LONGEST = min(MAX_IMAGE_TEXT, MAX_AUDIO_TEXT)  # a longer one is refused where it is measured


class Spooling:
    """Sets the pictures and recordings of MCP calls aside until the calls are over.

    Args:
        app: what is behind it.
        spool: where they are.
        longest: bytes that a body may have; a longer one is refused by the SDK.
        path: where the MCP endpoint is.

    """

    def __init__(self, app: ASGIApp, *, spool: Spool, longest: int, path: str = "/mcp") -> None:
        self._app = app
        self._spool = spool
        self._longest = longest
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through; forget afterwards what its tool has not fetched."""
        if not self._may_be_large(scope):
            await self._app(scope, receive, send)
            return
        words: list[str] = []
        try:
            scope, receive = await self._lighter(scope, receive, words)
            await self._app(scope, receive, send)
        finally:
            await self._spool.forget(words)

    def _may_be_large(self, scope: Scope) -> bool:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", self._path):
            return False
        declared = declared_length(dict(scope["headers"]))
        return declared == 0 or declared > LARGE

    async def _lighter(
        self, scope: Scope, receive: Receive, words: list[str]
    ) -> tuple[Scope, Receive]:
        """Read the body and set aside what is long; `words` then has what stands for it."""
        messages = await self._read(receive)
        body = _whole(messages)
        if len(body) <= LARGE:
            return scope, _first(messages, receive)
        messages = [{"type": "http.request", "body": body}]
        split = await asyncio.to_thread(_split, body)
        if split is None:
            return scope, _first(messages, receive)
        rest, texts = split
        try:
            for word, text in texts.items():
                words.append(word)
                await self._spool.set_aside(word, text)
        except StorageFailed:
            return scope, _first(messages, receive)  # the tool will find it out, and say so
        return _declaring(scope, len(rest)), _first(
            [{"type": "http.request", "body": rest}], receive
        )

    async def _read(self, receive: Receive) -> list[Message]:
        messages: list[Message] = []
        size, more = 0, True
        while more and size <= self._longest:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        return messages


def _whole(messages: Sequence[Message]) -> bytes:
    """Join a body; nothing if its end is missing."""
    last = messages[-1]
    if last["type"] != "http.request" or last.get("more_body", False):
        return b""
    return b"".join(message.get("body", b"") for message in messages)


def _first(messages: Sequence[Message], receive: Receive) -> Receive:
    """Hand out messages, holding each no longer than until then, before what comes next."""
    left = deque(messages)

    async def next_one() -> Message:
        return left.popleft() if left else await receive()

    return next_one


def _declaring(scope: Scope, length: int) -> Scope:
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if name not in (b"content-length", b"transfer-encoding")
    ]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}


def _split(body: bytes) -> tuple[bytes, dict[str, bytes]] | None:
    """Return a call without its long texts, and these; None if it has none. Slow."""
    texts: dict[str, bytes] = {}

    def shortened(value: Json) -> Json:
        if isinstance(value, list):
            return [shortened(each) if isinstance(each, str) else each for each in value]
        if not isinstance(value, str) or not LONG <= len(value) <= _LONGEST or not value.isascii():
            return value
        word = new_word()
        texts[word] = value.encode("ascii")
        return word

    try:
        message = parse(body.decode())
        arguments = _arguments(message)
        for name in MEDIA & arguments.keys():
            arguments[name] = shortened(arguments[name])
        return (json.dumps(message, allow_nan=False).encode(), texts) if texts else None
    except (ValueError, RecursionError):
        return None


def _arguments(message: Json) -> JsonObject:
    """Return the arguments of a call of one of `TAKERS`; of anything else none."""
    match message:
        case {"method": "tools/call", "params": {"name": str(name), "arguments": dict(arguments)}}:
            return cast("JsonObject", arguments) if name in TAKERS else {}
        case _:
            return {}
