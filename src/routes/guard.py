"""The guard in front of every door: who may call under which name, and how much they may send.

A page in a browser must not reach a server on the same machine or network behind its owner's back
(DNS rebinding, cross-site requests). So the `Host` must be localhost, an IP address or a name from
the settings, and an `Origin`, where a browser sends one, must be ours or from the settings. An IP
address cannot be rebound, which is why it needs no setting.

Pure ASGI: a `BaseHTTPMiddleware` would hide from the endpoints that their caller has gone.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import plain
from .intake import declared_length

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32_768


class Guard:
    """Refuses requests that come under a foreign name, from a foreign page, or far too large.

    A body that does not declare its length is measured by the doors, which answer more curtly.

    Args:
        app: what is behind it.
        hosts: names under which the server is called.
        origins: of web pages that may call it.
        body_limit: how many bytes a body may have.
        limits: how many it may have at other paths.

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        body_limit: int | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._body_limit = body_limit
        self._limits = limits or {}
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer why not."""
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await plain(*refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        if len(raw) > MAX_HEADERS or sum(len(k) + len(v) for k, v in raw) > MAX_HEADER_BYTES:
            return 431, "too many or too long headers"
        headers = dict(raw)
        length = declared_length(headers)
        if b"content-length" in headers and b"transfer-encoding" in headers:
            return 400, "content-length and transfer-encoding exclude each other"
        limit = self._limits.get(scope["path"], self._body_limit)
        if limit is not None and length > limit:
            return 413, f"the body must be at most {limit:,} bytes"
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._known_host(host):
            return 421, "this host name is not served here; add it to allowed_hosts"
        origin = headers.get(b"origin")
        if origin is not None and not self._known_origin(origin.decode("latin-1"), host):
            return 403, "this origin may not call the server; add it to allowed_origins"
        return None

    def _known_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if name is None:
            return False
        return name in self._hosts or _is_ip(name)

    def _known_origin(self, origin: str, host: str) -> bool:
        if origin.lower() in self._origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        ours = parts.netloc.lower() == host.lower()
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        return parts.scheme in ("http", "https") and (ours or local)


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
