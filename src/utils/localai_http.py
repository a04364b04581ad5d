"""One server over HTTP: bytes out, bytes in, bounded in size and in silence.

Errors of the wire are named here, once. What the bytes mean is for others to say.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from ssl import SSLContext, SSLError
from types import MappingProxyType
from typing import Literal

import httpx2

from .. import __version__
from ..models.errors import (
    BackendError,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    InferenceManagerError,
    StreamCut,
)
from ..models.ports import Clock
from .lean_transport import AnswerBody, LeanTransport
from .localai_errors import Failure, Scene, error_of, failure_of, retry_after
from .localai_requests import Form

_ERROR_BYTES = 64 * 1024
_SMALL_BYTES = 4 * 1024 * 1024
_ERROR_S = 5.0
_NO_ROUTE = frozenset({404, 405, 501})
_ROUTES = 64  # addresses that need not be put together again
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=60.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """All of a small answer; the status stands in the failure, be it none."""

    failure: Failure
    body: bytes = b""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.failure.status

    @property
    def ok(self) -> bool:
        """Whether it is no refusal."""
        return self.status < 300

    @property
    def no_route(self) -> bool:
        """Whether the server lacks the route, as older ones do; an unknown model is a 404 too."""
        unknown_model = not self.failure.foreign and "model" in self.failure.words.lower()
        return self.status in _NO_ROUTE and not unknown_model

    def error(self, scene: Scene) -> InferenceManagerError:
        """Name the refusal."""
        return error_of(self.failure, scene)


class Server:
    """A server, and the connections to it.

    Args:
        name: what messages call it.
        url: its address; a trailing `/v1` is left out.
        key: sent as a bearer token, if there is one.
        verify: what httpx2 takes for TLS.
        trust_env: whether the proxies that the environment names are used.
        connect_s: the longest time to connect.
        idle_s: the longest silence inside an answer.
        clock: what dates in Retry-After are compared with.

    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        key: str,
        verify: SSLContext | bool,
        trust_env: bool,
        connect_s: float,
        idle_s: float,
        clock: Clock,
    ) -> None:
        self.name = name
        self.url = _base(url)
        self.idle_s = idle_s
        self._key = key
        self._clock = clock
        base = httpx2.URL(self.url)
        self._url_of = lru_cache(_ROUTES)(partial(_below, base))
        self._headers = _headers(base, key)
        # All but connecting is timed here: silence before an answer and inside it differ.
        self._extensions = {"timeout": httpx2.Timeout(None, connect=connect_s).as_dict()}
        self._closed = False
        self._send: Callable[[httpx2.Request], Awaitable[httpx2.Response]]
        if trust_env:  # only httpx2 knows which proxies there are, and how to talk to them
            client = httpx2.AsyncClient(verify=verify, limits=_LIMITS)
            self._send, self._let_go = partial(client.send, stream=True), client.aclose
        else:
            transport = LeanTransport(verify)
            self._send, self._let_go = transport.handle_async_request, transport.aclose

    def scene(self, model: str = "", *private: str) -> Scene:
        """Return where failures happen, and what must not be told of them: the key never."""
        return Scene(self.name, model, (*private, self._key))

    @asynccontextmanager
    async def post(
        self, path: str, body: bytes | Form, job_id: str, silence: float, scene: Scene
    ) -> AsyncGenerator[httpx2.Response]:
        """Ask, and hold the beginning of an answer that is no refusal."""
        request = self._request("POST", path, body, {b"X-Correlation-ID": job_id.encode()})
        answer = await self._answer(request, silence)
        try:
            if not answer.is_success:
                raise error_of(await self._failure(answer), scene)
            yield answer
        finally:
            await answer.aclose()

    @asynccontextmanager
    async def file(
        self, path: str, job_id: str, scene: Scene, hint: str = ""
    ) -> AsyncGenerator[httpx2.Response]:
        """Fetch what the server says it has made; `hint` tells why that may not be there.

        Raises:
            BackendProtocolError: it is not there.

        """
        headers = {b"X-Correlation-ID": job_id.encode(), b"Accept": b"*/*"}
        request = self._request("GET", path, None, headers)
        answer = await self._answer(request, self.idle_s)
        try:
            if answer.status_code == 404:
                raise BackendProtocolError(
                    f"backend {self.name} does not serve what it has made (404)",
                    hint=hint,
                )
            if not answer.is_success:
                raise error_of(await self._failure(answer), scene)
            yield answer
        finally:
            await answer.aclose()

    async def call(
        self, method: Literal["GET", "POST"], path: str, seconds: float, body: bytes | None = None
    ) -> Answer:
        """Ask for something small; all of it has to be here in time."""
        request = self._request(method, path, body)
        with self._translated(lambda: seconds):
            async with asyncio.timeout(seconds):
                answer = await self._send(request)
                try:
                    if not answer.is_success:
                        return Answer(await self._failure(answer))
                    content = await self.body(answer, _SMALL_BYTES)
                    return Answer(Failure(answer.status_code), content)
                finally:
                    await answer.aclose()

    async def expect(
        self, answer: httpx2.Response, scene: Scene, fits: Callable[[str], bool], what: str
    ) -> None:
        """Refuse an answer whose media type does not fit, in its own words if it has any."""
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if fits(kind):
            return
        failure = await self._failure(answer, status=500)
        if failure.words:
            raise error_of(failure, scene)
        raise BackendProtocolError(f"backend {self.name} did not answer with {what}")

    async def body(self, answer: httpx2.Response, limit: int) -> bytes:
        """Read all of an answer, no more than `limit` bytes."""
        async with aclosing(self.pieces(answer, limit)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def pieces(
        self,
        answer: httpx2.Response,
        limit: int,
        silence: Callable[[], float] | None = None,
    ) -> AsyncGenerator[bytes]:
        """Yield an answer as it comes, no more than `limit` bytes, with no long silence inside.

        An answer whose `silence` is given is a stream: it may be cut, rather than not be there.
        """
        if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise BackendProtocolError(f"backend {self.name} compressed its answer unasked")
        patience = silence or (lambda: self.idle_s)
        size = 0
        body = answer.stream if isinstance(answer.stream, AnswerBody) else _Proxied(answer)
        async with aclosing(body):
            with self._translated(patience, streamed=silence is not None):
                while piece := await body.read(patience()):
                    size += len(piece)
                    if size > limit:
                        raise BackendProtocolError(
                            f"backend {self.name} answered with more than {limit:,} bytes"
                        )
                    yield piece

    async def close(self) -> None:
        """Let go of all connections."""
        self._closed = True
        await self._let_go()

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | Form | None,
        headers: Mapping[bytes, bytes] = MappingProxyType({}),
    ) -> httpx2.Request:
        """Write a request; the head of one in JSON is all here, so that httpx2 adds nothing."""
        url = self._url_of(path)
        lines = {**self._headers, **headers}
        if isinstance(body, Form):
            return httpx2.Request(
                method,
                url,
                data=body.texts,
                files=body.files,
                headers=lines,
                extensions=self._extensions,
            )
        if body is not None:
            lines |= {
                b"Content-Type": b"application/json",
                b"Content-Length": str(len(body)).encode(),
            }
        stream = httpx2.ByteStream(body or b"")
        return httpx2.Request(
            method, url, stream=stream, headers=lines, extensions=self._extensions
        )

    async def _answer(self, request: httpx2.Request, silence: float) -> httpx2.Response:
        """Ask, and return an answer's beginning; close it, or its connection is lost."""
        with self._translated(lambda: silence):
            async with asyncio.timeout(silence):
                return await self._send(request)

    async def _failure(self, answer: httpx2.Response, *, status: int | None = None) -> Failure:
        """Read what an error answer says; its status says enough when the rest does not come."""
        body = b""
        try:
            async with asyncio.timeout(_ERROR_S):
                body = await self.body(answer, _ERROR_BYTES)
        except (BackendError, TimeoutError):
            pass
        wait = retry_after(answer.headers.get("retry-after"), self._clock())
        return failure_of(status or answer.status_code, body, wait)

    @contextmanager
    def _translated(
        self, silence: Callable[[], float], *, streamed: bool = False
    ) -> Generator[None]:
        """Say in our errors what went wrong on the wire."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            raise BackendUnavailable(
                f"backend {self.name} at {self.url} cannot be reached",
                reached=False,
                hint="check that its TLS certificate is trusted here, and made for this host"
                if untrusted
                else "check that it runs, and that its URL is right",
            ) from error
        except SSLError as error:  # which the client library lets through
            raise BackendUnavailable(
                f"backend {self.name} at {self.url} breaks off the TLS handshake",
                reached=False,
                hint="check its `client_cert`: it may ask for one that it trusts",
            ) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise BackendTimeout(f"backend {self.name} was silent for {silence():g} s") from error
        except httpx2.TransportError as error:
            if not _hung_up(error):
                raise BackendProtocolError(f"backend {self.name} does not speak HTTP") from error
            if streamed:
                raise StreamCut(f"the answer of backend {self.name} was cut short") from error
            raise BackendUnavailable(
                f"backend {self.name} hung up before it had answered", reached=True
            ) from error
        except RuntimeError as error:
            if not self._closed:
                raise
            raise BackendUnavailable(f"backend {self.name} is closed", reached=False) from error


def _base(url: str) -> str:
    """Check an address; a `/v1` at its end is how other clients want it, and is left out."""
    parsed = httpx2.URL(url.strip())
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("the URL of a backend must be http://host:port or https://host:port")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("the URL of a backend must not hold credentials, a query or a fragment")
    return str(parsed).rstrip("/").removesuffix("/v1")


def _below(base: httpx2.URL, path: str) -> httpx2.URL:
    """Return the address of a path, whatever is in it, on this server and behind its prefix."""
    prefix, path_there = base.raw_path.rstrip(b"/"), httpx2.URL(path).raw_path.lstrip(b"/")
    return base.copy_with(raw_path=prefix + b"/" + path_there)


def _headers(base: httpx2.URL, key: str) -> dict[bytes, bytes]:
    headers = {
        b"Host": base.netloc,
        b"Accept": b"application/json, text/event-stream, */*;q=0.5",
        b"Accept-Encoding": b"identity",
        b"User-Agent": f"inference-manager/{__version__}".encode(),
    }
    if key:
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError("the key of a backend must be printable ASCII without spaces")
        headers[b"Authorization"] = f"Bearer {key}".encode()
    return headers


def _hung_up(error: httpx2.TransportError) -> bool:
    """Whether the other side went away, rather than said something that is no HTTP."""
    if isinstance(error, httpx2.RemoteProtocolError):
        return "disconnected" in str(error) or "closed connection" in str(error)
    return isinstance(error, httpx2.NetworkError)


class _Proxied:
    """Reads an answer that httpx2's own transport brings."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._raw = answer.aiter_raw()

    async def read(self, patience: float) -> bytes:
        """Wait for the next piece; there is nothing in it when that was all."""
        async with asyncio.timeout(patience):
            return await anext(self._raw, b"")

    async def aclose(self) -> None:
        """Break off what is not complete."""
        await self._raw.aclose()
