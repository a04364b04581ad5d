"""One LocalAI server as a `Backend`: a single attempt at a time, and what operators do with it."""

import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from ssl import SSLContext

from ..models.errors import (
    BackendError,
    BackendFailed,
    BackendProtocolError,
    ModelCrashed,
    ModelLoadFailed,
    UnknownModel,
)
from ..models.modality import Modality
from ..models.ports import Blobs, Clock, OfferedModel
from ..models.requests import Img2TxtRequest, InferenceRequest, Txt2TxtRequest
from ..models.results import Chunk
from . import localai_catalog as catalog
from .localai_attempt import Attempt, Limits
from .localai_http import Answer, Server
from .localai_memory import InMemory
from .localai_requests import encode

_log = logging.getLogger("inference_manager.localai")

_LIST_S = 10.0
_UNLOAD_S = 45.0  # LocalAI waits up to 30 s for calls that run
_KEY_REFUSED = 401
_NOT_FOR_US = frozenset({_KEY_REFUSED, 403})


class LocalAIClient:
    """The `Backend` that speaks to LocalAI; one for each server, for the life of the process.

    Nothing here is retried, and no number of parallel calls is too many: the scheduler counts.

    Args:
        name: what messages and metrics call this backend.
        url: its address; a trailing `/v1` is left out.
        api_key: sent as a bearer token.
        verify: what httpx2 takes for TLS: an `SSLContext` with your own CA, or False.
        trust_env: whether the proxies that the environment names are used.
        connect_s: the longest time to connect.
        first_byte_s: the longest silence before the first word, or before a picture: loading
            the model and, for all but text, all of the work falls into it. One number, or one for
            some modalities.
        idle_s: the longest silence afterwards.
        load_s: the longest time to load a model.
        ping_s: the longest time for a sign of life.
        chat_bytes: the longest stream.
        image_bytes: the longest answer in JSON, which may hold a picture.
        media_bytes: the longest recording or film.
        blobs: keeps what is made, and has what requests refer to; by default all stays in memory.
        clock: what dates in Retry-After are compared with.

    """

    def __init__(
        self,
        *,
        name: str,
        url: str,
        api_key: str | None = None,
        verify: SSLContext | bool = True,
        trust_env: bool = False,
        connect_s: float = 3.0,
        first_byte_s: float | Mapping[Modality, float] = 600.0,
        idle_s: float = 60.0,
        load_s: float = 900.0,
        ping_s: float = 3.0,
        chat_bytes: int = 64 * 1024 * 1024,
        image_bytes: int = 64 * 1024 * 1024,
        media_bytes: int = 256 * 1024 * 1024,
        blobs: Blobs | None = None,
        clock: Clock = time.time,
    ) -> None:
        self.name = name
        self._server = Server(
            name=name,
            url=url,
            key=api_key or "",
            verify=verify,
            trust_env=trust_env,
            connect_s=connect_s,
            idle_s=idle_s,
            clock=clock,
        )
        self._limits = Limits(
            first_byte_s={modality: first_byte_s.get(modality, 600.0) for modality in Modality}
            if isinstance(first_byte_s, Mapping)
            else dict.fromkeys(Modality, first_byte_s),
            stream_bytes=chat_bytes,
            answer_bytes=image_bytes,
            media_bytes=media_bytes,
        )
        self._blobs = blobs or InMemory()
        self._load_s = load_s
        self._ping_s = ping_s
        self._can_load = True
        self._offered: list[OfferedModel] | None = None

    def __repr__(self) -> str:
        return f"<LocalAIClient {self.name} [{self._server.url}]>"

    def run(self, request: InferenceRequest, model: str, job_id: str) -> AsyncGenerator[Chunk]:
        """Carry out one attempt; the last chunk is always a `Finish`.

        Closing the generator early closes the connection to the backend.

        Raises:
            BackendError: the attempt failed.
            UnknownModel: the backend does not know the model.
            UnknownJob, StorageFailed: a picture or recording cannot be read, or not be kept.

        """
        return Attempt(self._server, self._blobs, self._limits, request, model, job_id).chunks()

    def stops_at_once(self, request: InferenceRequest) -> bool:
        """Whether the engine stops when its caller hangs up: llama.cpp does in a chat, no other.

        LocalAI's completions may be left blocked by it, and their model busy for ever.
        """
        return isinstance(request, Txt2TxtRequest | Img2TxtRequest)

    @property
    def loads_on_demand(self) -> bool:
        """Whether `load` does anything, as far as is known: False once it turned out not to."""
        return self._can_load

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
        answer = await self._server.call(
            "POST", "/backend/load", self._load_s, encode({"model": model})
        )
        if answer.ok:
            return
        if answer.status in _NOT_FOR_US or answer.no_route:
            self._can_load = False
            _log.info("backend %s does not load models on demand (%s)", self.name, answer.status)
            return
        error = answer.error(self._server.scene(model))
        if isinstance(error, BackendFailed | ModelCrashed):
            raise ModelLoadFailed(f"backend {self.name} could not load the model") from error
        raise error

    async def unload(self, model: str) -> None:
        """Take a model out of memory; one that is not there is no error.

        Raises:
            BackendError: it is still there, or this is not for us to decide.

        """
        answer = await self._server.call(
            "POST", "/backend/shutdown", _UNLOAD_S, encode({"model": model})
        )
        if not answer.ok and answer.status != 404:
            raise answer.error(self._server.scene(model))

    async def models(self) -> list[OfferedModel]:
        """List the models that the backend has on disk.

        Servers before 4.6.1 tell what they can do as Ollama does, still older ones not at all. A
        server that stumbles over its list is taken at its last word.

        Raises:
            BackendError: they cannot be listed.

        """
        answer = await self._get("/v1/models/capabilities")
        try:
            self._offered = catalog.offered(self._body_of(answer), self.name)
        except (BackendError, UnknownModel):
            if answer.status == _KEY_REFUSED:
                raise
            if self._offered is not None and not answer.no_route:
                return self._offered
        else:
            return self._offered
        answer = await self._get("/api/tags")
        with suppress(BackendError, UnknownModel):
            return catalog.tagged(self._body_of(answer), self.name)
        return catalog.offered(self._body_of(await self._get("/v1/models")), self.name)

    async def resident(self) -> frozenset[str] | None:
        """Return the models that are in memory; None when the backend does not tell.

        Raises:
            BackendError: it cannot be reached.

        """
        for path in ("/system", "/api/ps"):
            answer = await self._get(path)
            with suppress(BackendProtocolError):
                if answer.ok:
                    return catalog.resident(answer.body, self.name)
        return None

    async def ping(self) -> str:
        """Return the backend's version if it is alive and takes our key; "unknown" if untold.

        Raises:
            BackendError: it is not.

        """
        answer = await self._get("/version", self._ping_s)
        if answer.ok and (version := catalog.version(answer.body)):
            return version
        if answer.ok or answer.no_route or answer.status == 403:
            answer = await self._get("/healthz", self._ping_s)
            if answer.no_route:  # another server than LocalAI, with the same way of talking
                answer = await self._get("/v1/models", self._ping_s)
            self._body_of(answer)
            return "unknown"
        raise answer.error(self._server.scene())

    async def close(self) -> None:
        """Let go of all connections."""
        await self._server.close()

    async def _get(self, path: str, seconds: float = _LIST_S) -> Answer:
        return await self._server.call("GET", path, seconds)

    def _body_of(self, answer: Answer) -> bytes:
        if not answer.ok:
            raise answer.error(self._server.scene())
        return answer.body
