"""Who calls. Once there are keys, every door asks for one before it reads anything else.

What says only that the server is there, or explains something, is open to everybody; so is what a
job made, under an address that was signed for it.
"""

import hashlib
import hmac
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..models.errors import AddressExpired, Unauthenticated, WrongSignature
from ..models.keys import ANONYMOUS
from ..models.ports import Clock
from .errors import answer, plain
from .signing import check

_OPEN = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})
_HEADERS = frozenset({b"authorization", b"x-api-key"})
_OPEN_BELOW = ("/docs/", "/static-offline-docs/", "/errors/")

_caller: ContextVar[str | None] = ContextVar("caller", default=ANONYMOUS)
"""The name; None for whoever holds an address that was signed."""


def current_caller() -> str:
    """Return the name of whoever sent the request that is being answered."""
    return _caller.get() or ANONYMOUS


def may_see(owner: str) -> bool:
    """Say whether a job of `owner` exists for whoever sent the request."""
    caller = _caller.get()
    return caller is None or caller == owner


@contextmanager
def acting_for(caller: str) -> Generator[None]:
    """Do something in the name of a caller who is not there any more."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


class Callers:
    """Finds out who calls, and refuses strangers.

    Args:
        app: what is behind it.
        keys: the key of each caller, by name; without any, nobody is asked.
        clock: what the time of signed addresses is compared with.
        user: says a caller's name as the MCP SDK wants it, which keeps sessions apart by it.

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Mapping[str, str],
        clock: Clock,
        user: Callable[[str], object] = str,
    ) -> None:
        self._app = app
        self._digests = {name: _digest(key.encode()) for name, key in keys.items()}
        self._users = {name: user(name) for name in keys}
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Callers [{len(self._digests)} keys]>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, under its caller's name, or answer why not."""
        if scope["type"] in ("http", "websocket"):
            caller = self._judge(scope)
            if isinstance(caller, Response):
                await caller(scope, receive, send)
                return
            _caller.set(caller)
            if caller in self._users:
                scope["user"] = self._users[caller]
        await self._app(scope, receive, send)

    def _judge(self, scope: Scope) -> str | Response | None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        try:
            if check(path, scope["query_string"], self._clock()):
                return None
        except (WrongSignature, AddressExpired) as error:
            return answer(error)
        if not self._digests or path in _OPEN or path.startswith(_OPEN_BELOW):
            return ANONYMOUS
        given = [(header, value) for header, value in scope["headers"] if header in _HEADERS]
        keys = {key for header, value in given if (key := _key(header, value))}
        if len(keys) > 1 or len({header for header, _ in given}) < len(given):
            return plain(400, "more than one key was sent", hint="send one, in one header")
        name = self._name(keys.pop()) if keys else None
        return _stranger() if name is None else name

    def _name(self, key: bytes) -> str | None:
        """Compare a key with all keys, so that the time it takes says nothing about any."""
        digest, found = _digest(key), None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def _key(header: bytes, value: bytes) -> bytes:
    """Take the key out of a header; empty if there is none, as in the password of a proxy."""
    if header == b"x-api-key":
        return value.strip()
    scheme, _, key = value.strip().partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _stranger() -> Response:
    """Refuse a caller, with the same words whether its key is missing or wrong."""
    response = answer(
        Unauthenticated(
            "this server asks for a key that it knows",
            hint="send it as Authorization: Bearer KEY, or as x-api-key: KEY",
        )
    )
    response.headers["WWW-Authenticate"] = "Bearer"
    return response
