"""Sends webhooks: to an address that was checked a moment ago, and hears no more than a status.

The name of a host is resolved here, once, and the connection goes to what was found and checked;
so a name that stands for something else a moment later leads nowhere. Redirects, cookies and
proxies there are none.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from ssl import SSLContext, SSLError
from typing import NamedTuple

import httpx2

from .. import __version__
from ..models.errors import InvalidInput
from ..models.ports import Clock
from ..models.webhooks import Target, WebhookRules
from .localai_errors import retry_after

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Finds the IP addresses of a host; raises `OSError` or `UnicodeError` if it has none."""

_CONNECT_S = 3.0
_ADDRESSES = 3  # of one host that are tried


class Heard(NamedTuple):
    """What came of one try: a status or why there is none, and for how long to leave them alone."""

    status: int | None
    said: str
    retry_after: float | None = None


class WebhookClient:
    """Sends, one try at a time.

    Args:
        rules: where something may be sent.
        clock: what dates in Retry-After are compared with.
        seconds: the longest that a try may take.
        resolve: finds addresses; by default the system does.
        verify: whom to trust, as httpx2 takes it.

    """

    def __init__(
        self,
        rules: WebhookRules,
        *,
        clock: Clock,
        seconds: float = 10.0,
        resolve: Resolve | None = None,
        verify: SSLContext | bool = True,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._seconds = seconds
        self._resolve = resolve or _addresses
        self._verify = verify

    @cached_property
    def _transport(self) -> httpx2.AsyncHTTPTransport:
        # No connection is used again: it belongs to an address, and another name may share that.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        return httpx2.AsyncHTTPTransport(verify=self._verify, trust_env=False, limits=limits)

    def prepare(self) -> None:
        """Read whom to trust, which takes a moment: to be called in a thread."""
        _ = self._transport

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Heard:
        """Send something once. Whatever goes wrong is told in the answer."""
        try:
            target = self._rules.check(url)
            async with asyncio.timeout(self._seconds):
                addresses = await self._resolve(target.host, target.port)
                if not addresses or not all(map(self._rules.reaches, addresses)):
                    return Heard(None, "its name stands for an address that is not public")
                return await self._send(target, addresses[:_ADDRESSES], body, headers)
        except InvalidInput as error:
            return Heard(None, error.message)
        except (TimeoutError, httpx2.TimeoutException):
            return Heard(None, f"silent for {self._seconds:g} s")
        except (OSError, UnicodeError):
            return Heard(None, "its name cannot be resolved")

    async def close(self) -> None:
        """Let go of everything."""
        await self._transport.aclose()

    async def _send(
        self, target: Target, addresses: Sequence[str], body: bytes, headers: Mapping[str, str]
    ) -> Heard:
        heard = Heard(None, "cannot be reached")
        for address in addresses:
            try:
                answer = await self._transport.handle_async_request(
                    _request(target, address, body, headers)
                )
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
                heard = Heard(None, "its certificate is not trusted" if untrusted else heard.said)
                continue
            except (httpx2.TransportError, SSLError):
                return Heard(None, "broke off without an answer")
            wait = retry_after(answer.headers.get("retry-after"), self._clock())
            await answer.aclose()
            return Heard(answer.status_code, f"answered {answer.status_code}", wait)
        return heard


def _request(
    target: Target, address: str, body: bytes, headers: Mapping[str, str]
) -> httpx2.Request:
    """Write a request to an IP address that says, to whoever is there, which host it is for."""
    there = f"[{address}]" if ":" in address else address
    url = httpx2.URL(f"{target.scheme}://{there}:{target.port}/")
    return httpx2.Request(
        "POST",
        url.copy_with(raw_path=target.path.encode("ascii")),
        content=body,
        headers={
            "Host": target.authority,
            "User-Agent": f"inference-manager/{__version__}",
            "Content-Type": "application/json",
            "Accept": "*/*",
            **headers,
        },
        extensions={
            "sni_hostname": target.host,
            "timeout": httpx2.Timeout(None, connect=_CONNECT_S).as_dict(),
        },
    )


async def _addresses(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))
