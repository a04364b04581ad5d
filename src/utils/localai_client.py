"""One LocalAI server over HTTP: a single attempt at a time, errors translated at the border."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from ssl import SSLContext
from typing import Literal, assert_never

import httpx2

from .. import __version__
from ..models.errors import (
    BackendError,
    BackendFailed,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    InferenceManagerError,
    ModelCrashed,
    ModelLoadFailed,
    StreamCut,
)
from ..models.modality import Modality
from ..models.ports import Clock, OfferedModel
from ..models.requests import (
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    Txt2ImgRequest,
    Txt2TxtRequest,
)
from ..models.results import Chunk, Finish
from . import localai_wire as wire
from .localai_errors import Failure, Scene, error_of, failure_of, retry_after
from .sse_reader import SSEReader
from .strict_json import JsonObject

_log = logging.getLogger("inference_manager.localai")

_CHAT = "/v1/chat/completions"
_IMAGES = "/v1/images/generations"
_SMALL = 64 * 1024  # characters of a request that are cheaper to encode here than in a thread
_ERROR_BYTES = 64 * 1024
_LIST_BYTES = 4 * 1024 * 1024
_ERROR_S = 5.0
_LIST_S = 10.0
_LAST_WORDS_S = 0.25  # for the end of a stream after its [DONE], so that its socket is used again
_SIMULATED = "x-simulated"
_NO_ROUTE = frozenset({404, 405, 501})
_NOT_FOR_US = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class _Answer:
    """All of a small answer; the status stands in the failure, be it none."""

    failure: Failure
    body: bytes = b""

    @property
    def status(self) -> int:
        return self.failure.status

    @property
    def ok(self) -> bool:
        return self.status < 300

    @property
    def no_route(self) -> bool:
        """Whether the server lacks the route, as older ones do; an unknown model is a 404 too."""
        unknown_model = not self.failure.foreign and "model" in self.failure.words.lower()
        return self.status in _NO_ROUTE and not unknown_model

    def error(self, scene: Scene) -> InferenceManagerError:
        return error_of(self.failure, scene)


class LocalAIClient:
    """The `Backend` that speaks to LocalAI; one for each server, for the life of the process.

    Nothing here is retried, and no number of parallel calls is too many: the scheduler counts.

    Args:
        name: what messages and metrics call this backend.
        url: its address; a trailing `/v1` is left out.
        api_key: sent as a bearer token.
        verify: what httpx2 takes for TLS: an `SSLContext` with your own CA, or False.
        connect_s: the longest time to connect.
        first_byte_s: the longest silence before the first word, or before a picture: loading
            the model and, for a picture, all of the work falls into it. One number, or one for
            some modalities.
        idle_s: the longest silence afterwards.
        load_s: the longest time to load a model.
        ping_s: the longest time for a sign of life.
        chat_bytes: the longest stream.
        image_bytes: the longest answer that holds a picture.
        clock: what dates in Retry-After are compared with.

    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        api_key: str | None = None,
        verify: SSLContext | bool = True,
        connect_s: float = 3.0,
        first_byte_s: float | Mapping[Modality, float] = 600.0,
        idle_s: float = 60.0,
        load_s: float = 900.0,
        ping_s: float = 3.0,
        chat_bytes: int = 8 * 1024 * 1024,
        image_bytes: int = 64 * 1024 * 1024,
        clock: Clock = time.time,
    ) -> None:
        self.name = name
        self._url = _base(url)
        self._key = api_key or ""
        self._first_byte_s = (
            {modality: first_byte_s.get(modality, 600.0) for modality in Modality}
            if isinstance(first_byte_s, Mapping)
            else dict.fromkeys(Modality, first_byte_s)
        )
        self._idle_s = idle_s
        self._load_s = load_s
        self._ping_s = ping_s
        self._chat_bytes = chat_bytes
        self._image_bytes = image_bytes
        self._clock = clock
        self._can_load = True
        self._http = httpx2.AsyncClient(
            base_url=self._url,
            headers=_headers(self._key),
            verify=verify,
            trust_env=False,
            follow_redirects=False,
            # All but connecting is timed here: silence before an answer and inside it differ.
            timeout=httpx2.Timeout(None, connect=connect_s),
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=32, keepalive_expiry=60.0
            ),
        )

    def __repr__(self) -> str:
        return f"<LocalAIClient {self.name} [{self._url}]>"

    def run(self, request: InferenceRequest, model: str, job_id: str) -> AsyncGenerator[Chunk]:
        """Carry out one attempt; the last chunk is always a `Finish`.

        Closing the generator early closes the connection to the backend.

        Raises:
            BackendError: the attempt failed.
            UnknownModel: the backend does not know the model.

        """
        match request:
            case Txt2TxtRequest() | Img2TxtRequest():
                return self._chat(request, model, job_id)
            case Txt2ImgRequest() | Img2ImgRequest():
                return self._draw(request, model, job_id)
            case _:
                assert_never(request)

    def stops_at_once(self, modality: Modality) -> bool:
        """Whether the engine stops when its caller hangs up: llama.cpp does, image engines not."""
        return modality in (Modality.TXT2TXT, Modality.IMG2TXT)

    async def load(self, model: str) -> None:
        """Bring a model into memory; return when it is there.

        Servers before 4.6 have no such route, and some keep it for administrators. Then this
        returns at once, now and from now on, and the first request loads the model.

        Raises:
            BackendError: the model could not be loaded.
            UnknownModel: the backend does not know the model.

        """
        if not self._can_load:
            return
        body = wire.encode({"model": model})
        answer = await self._call("POST", "/backend/load", self._load_s, body)
        if answer.ok:
            return
        if answer.status in _NOT_FOR_US or answer.no_route:
            self._can_load = False
            _log.info("backend %s does not load models on demand (%s)", self.name, answer.status)
            return
        error = answer.error(self._scene(model))
        if isinstance(error, BackendFailed | ModelCrashed):
            raise ModelLoadFailed(f"backend {self.name} could not load the model") from error
        raise error

    async def models(self) -> list[OfferedModel]:
        """List the models that the backend has on disk.

        Raises:
            BackendError: they cannot be listed.

        """
        answer = await self._call("GET", "/v1/models/capabilities", _LIST_S)
        if answer.no_route:
            answer = await self._call("GET", "/v1/models", _LIST_S)
        return wire.offered(self._body_of(answer), self.name)

    async def resident(self) -> frozenset[str] | None:
        """Return the models that are in memory; None when the backend does not tell.

        Raises:
            BackendError: it cannot be reached, or answers with something else.

        """
        answer = await self._call("GET", "/system", _LIST_S)
        if answer.ok:
            return wire.resident(answer.body, self.name)
        answer = await self._call("GET", "/api/ps", _LIST_S)
        return wire.resident(answer.body, self.name) if answer.ok else None

    async def ping(self) -> str:
        """Return the backend's version if it is alive and takes our key; "unknown" if untold.

        Raises:
            BackendError: it is not.

        """
        answer = await self._call("GET", "/version", self._ping_s)
        if answer.ok and (version := wire.version(answer.body)):
            return version
        if answer.ok or answer.no_route or answer.status == 403:
            self._body_of(await self._call("GET", "/healthz", self._ping_s))
            return "unknown"
        raise answer.error(self._scene())

    async def close(self) -> None:
        """Let go of all connections."""
        await self._http.aclose()

    async def _chat(
        self, request: Txt2TxtRequest | Img2TxtRequest, model: str, job_id: str
    ) -> AsyncGenerator[Chunk]:
        scene = self._scene(model, *wire.words_of(request))
        body = await _encoded(wire.chat(request, model), request.size_bytes)
        reader, told = SSEReader(), wire.ChatAnswer(scene)
        first_byte_s = self._first_byte_s[request.modality]

        def silence() -> float:
            """Before the first word a model may be loading, whatever was sent ahead of it."""
            return self._idle_s if told.begun else first_byte_s

        async with (
            self._answer(_CHAT, body, job_id, first_byte_s, scene) as answer,
            aclosing(self._pieces(answer, self._chat_bytes, silence, streamed=True)) as pieces,
        ):
            await self._check_is_stream(answer, scene)
            async for piece in pieces:
                for event in reader.feed(piece):
                    if (delta := told.read(event)) is not None:
                        yield delta
                    if told.done:
                        break
                if told.done:
                    await _drain(pieces)
                    break
            else:
                told.last(reader.close())
            yield told.finish(simulated=_SIMULATED in answer.headers)

    async def _draw(
        self, request: Txt2ImgRequest | Img2ImgRequest, model: str, job_id: str
    ) -> AsyncGenerator[Chunk]:
        scene = self._scene(model, *wire.words_of(request))
        silence = self._first_byte_s[request.modality]
        simulated = False
        for number in range(request.n):
            body = await _encoded(wire.drawing(request, model, number), request.size_bytes)
            async with self._answer(_IMAGES, body, job_id, silence, scene) as answer:
                simulated = _SIMULATED in answer.headers
                content = await self._body(answer, self._image_bytes)
            seed = wire.seed_of(request, number)
            yield await asyncio.to_thread(wire.picture, content, scene, seed)
        yield Finish(simulated=simulated)

    def _body_of(self, answer: _Answer) -> bytes:
        if not answer.ok:
            raise answer.error(self._scene())
        return answer.body

    def _scene(self, model: str = "", *private: str) -> Scene:
        return Scene(self.name, model, (*private, self._key))

    @asynccontextmanager
    async def _answer(
        self, path: str, body: bytes, job_id: str, silence: float, scene: Scene
    ) -> AsyncGenerator[httpx2.Response]:
        """Ask, and hold the answer's beginning; its connection is gone or free afterwards."""
        request = self._http.build_request(
            "POST", path, content=body, headers={"X-Correlation-ID": job_id}
        )
        with self._translated(silence):
            async with asyncio.timeout(silence):
                answer = await self._http.send(request, stream=True)
        try:
            if not answer.is_success:
                raise error_of(await self._failure(answer), scene)
            yield answer
        finally:
            await answer.aclose()

    async def _call(
        self, method: Literal["GET", "POST"], path: str, seconds: float, body: bytes | None = None
    ) -> _Answer:
        """Ask for something small; all of it has to be here in time."""
        request = self._http.build_request(method, path, content=body)
        with self._translated(seconds):
            async with asyncio.timeout(seconds):
                answer = await self._http.send(request, stream=True)
                try:
                    if not answer.is_success:
                        return _Answer(await self._failure(answer))
                    content = await self._body(answer, _LIST_BYTES)
                    return _Answer(Failure(answer.status_code), content)
                finally:
                    await answer.aclose()

    async def _failure(self, answer: httpx2.Response, *, status: int | None = None) -> Failure:
        """Read what an error answer says; its status says enough when the rest does not come."""
        body = b""
        try:
            async with asyncio.timeout(_ERROR_S):
                body = await self._body(answer, _ERROR_BYTES)
        except (BackendError, TimeoutError):
            pass
        wait = retry_after(answer.headers.get("retry-after"), self._clock())
        return failure_of(status or answer.status_code, body, wait)

    async def _check_is_stream(self, answer: httpx2.Response, scene: Scene) -> None:
        """Refuse an answer that is no stream of events, whatever it is."""
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return
        failure = await self._failure(answer, status=500)
        if failure.words:
            raise error_of(failure, scene)
        raise BackendProtocolError(f"backend {self.name} did not answer with a stream of events")

    async def _body(self, answer: httpx2.Response, limit: int) -> bytes:
        async with aclosing(self._pieces(answer, limit, lambda: self._idle_s)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def _pieces(
        self,
        answer: httpx2.Response,
        limit: int,
        silence: Callable[[], float],
        *,
        streamed: bool = False,
    ) -> AsyncGenerator[bytes]:
        """Yield the body as it comes, no more than `limit` bytes, with no long silence inside."""
        if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise BackendProtocolError(f"backend {self.name} compressed its answer unasked")
        size = 0
        async with aclosing(answer.aiter_raw()) as raw:
            while True:
                patience = silence()
                with self._translated(patience, streamed=streamed):
                    async with asyncio.timeout(patience):
                        piece = await anext(raw, None)
                if piece is None:
                    return
                size += len(piece)
                if size > limit:
                    raise BackendProtocolError(
                        f"backend {self.name} answered with more than {limit:,} bytes"
                    )
                yield piece

    @contextmanager
    def _translated(self, silence: float, *, streamed: bool = False) -> Generator[None]:
        """Say in our errors what went wrong on the wire."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            raise BackendUnavailable(
                f"backend {self.name} at {self._url} cannot be reached",
                reached=False,
                hint="is its TLS certificate trusted here, and made for this host?"
                if untrusted
                else "is it running, and is its URL right?",
            ) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise BackendTimeout(f"backend {self.name} was silent for {silence:g} s") from error
        except httpx2.TransportError as error:
            if not _hung_up(error):
                raise BackendProtocolError(f"backend {self.name} does not speak HTTP") from error
            if streamed:
                raise StreamCut(f"the answer of backend {self.name} was cut short") from error
            raise BackendUnavailable(
                f"backend {self.name} hung up before it had answered", reached=True
            ) from error
        except RuntimeError as error:
            if not self._http.is_closed:
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


def _headers(key: str) -> dict[str, str]:
    headers = {
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": f"inference-manager/{__version__}",
    }
    if key:
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError("the key of a backend must be printable ASCII without spaces")
        headers["Authorization"] = f"Bearer {key}"
    return headers


async def _encoded(body: JsonObject, size: int) -> bytes:
    """Write JSON here if it is small, in a thread if it holds pictures or a long conversation."""
    return wire.encode(body) if size <= _SMALL else await asyncio.to_thread(wire.encode, body)


async def _drain(pieces: AsyncGenerator[bytes]) -> None:
    """Wait a moment for the end of a stream that is done; if it does not come, so be it."""
    try:
        async with asyncio.timeout(_LAST_WORDS_S):
            async for _ in pieces:
                pass
    except (TimeoutError, BackendError):
        pass


def _hung_up(error: httpx2.TransportError) -> bool:
    """Whether the other side went away, rather than said something that is no HTTP."""
    if isinstance(error, httpx2.RemoteProtocolError):
        return "disconnected" in str(error) or "closed connection" in str(error)
    return isinstance(error, httpx2.NetworkError)
