"""The ASGI application: LocalAI's routes on one side, the control routes under `/sim` beside them.

It is the outermost callable on purpose, with no middleware above it: a TCP reset needs the
server's own transport, which only the server's own `send` can reach.

Where the simulator knowingly differs from LocalAI: no gallery, no realtime, no detection, no
upscaling, no text editing, no legacy functions of chats, no Anthropic, Responses or Ollama chat
faces, no user database, no watchdog; sound is WAV or raw samples only, and only WAV is listened to;
logprobs are not streamed; texts are judged by a few words; pictures by address are not fetched; a
request that still waits for its slot is forgotten when its client leaves, except for videos.
"""

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.types import Message, Receive, Scope, Send

from . import control, listings, wire
from .chat import chat
from .completions import completions
from .embeddings import embeddings
from .exchange import Exchange, HungUp
from .images import images
from .inpainting import inpainting
from .moderation import moderations
from .rerank import rerank
from .simulation import Simulation
from .speech import VOICES, sound_generation, speech, text_to_speech
from .transcription import transcription
from .video import video

Handler = Callable[[Exchange, Simulation], Awaitable[None]]

LOOKS: dict[str, Handler] = {
    "/healthz": listings.health,
    "/readyz": listings.health,
    "/version": listings.about,
    "/v1/models": listings.models,
    "/models": listings.models,
    "/v1/models/capabilities": listings.capabilities,
    "/system": listings.system,
    "/api/ps": listings.processes,
    "/api/tags": listings.tags,
}
"""What is read with GET."""

WORK: dict[str, Handler] = {
    "/v1/chat/completions": chat,
    "/chat/completions": chat,
    "/v1/completions": completions,
    "/completions": completions,
    "/v1/images/generations": images,
    "/images/generations": images,
    "/v1/images/inpainting": inpainting,
    "/images/inpainting": inpainting,
    "/v1/embeddings": embeddings,
    "/embeddings": embeddings,
    "/v1/moderations": moderations,
    "/moderations": moderations,
    "/v1/rerank": rerank,
    "/v1/audio/speech": speech,
    "/audio/speech": speech,
    "/tts": speech,
    "/v1/sound-generation": sound_generation,
    "/v1/audio/transcriptions": transcription,
    "/audio/transcriptions": transcription,
    "/video": video,
    "/backend/load": listings.load,
    "/backend/shutdown": listings.shutdown,
}
"""What is asked for with POST; each such request has its entry in the journal."""

FORMS = (inpainting, transcription)
"""The work that is asked for with a multipart form instead of JSON."""

PUBLIC = ("/healthz", "/readyz")


class Application:
    """What uvicorn calls."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self._control = control.build(simulation, drop_everyone=self.drop_everyone)
        self._live: dict[asyncio.Task[None], Exchange] = {}
        self.close_door: Callable[[float], None] | None = None
        """Called when everybody shall be refused for so many real seconds."""

    def __repr__(self) -> str:
        return f"<Application live {len(self._live)} {self.simulation!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope.get("path", "")
        if path == "/sim" or path.startswith("/sim/"):
            await self._serve_control(scope, receive, _marking(send))
            return
        exchange = Exchange(scope, receive, send, self.simulation.clock)
        try:
            await self._serve(exchange)
        except HungUp as end:
            self._conclude(exchange, "completed")
            if end.refuse_s and self.close_door is not None:
                self.close_door(end.refuse_s)
            await _hang_up(send, exchange, reset=end.reset)

    def drop_everyone(self) -> None:
        """Cut every connection that waits for an answer."""
        for work in list(self._live):
            work.cancel()

    def close(self) -> None:
        """Drop everyone, and what works without a client."""
        self.drop_everyone()
        self.simulation.halt()

    async def _serve(self, exchange: Exchange) -> None:
        """Answer, unless the client leaves first or the server stops."""
        try:
            limit = int(self.simulation.config.body_limit_mb * 1_000_000)
            if not await exchange.read(limit):
                return
        except wire.Refusal as refusal:
            await exchange.refuse(refusal)
            return
        work = asyncio.create_task(self._answer(exchange))
        gone = asyncio.create_task(exchange.client_gone())
        self._live[work] = exchange
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if exchange.finished:
                await asyncio.wait({work})
        finally:
            del self._live[work]
            left = gone.done()
            work.cancel()
            gone.cancel()
            await asyncio.wait({work, gone})
        if not work.cancelled():
            work.result()
        elif left:
            self._conclude(exchange, "client_left")
        else:
            self._conclude(exchange, "stopped")
            raise HungUp(reset=False)

    async def _answer(self, exchange: Exchange) -> None:
        simulation = self.simulation
        exchange.on_finish = lambda: self._conclude(
            exchange, "refused" if exchange.refused else "completed"
        )
        try:
            if exchange.path not in PUBLIC and not self._knows(exchange):
                raise wire.key_required()
            handler = self._handler(exchange)
            if exchange.method == "POST":
                simulation.enter(exchange)
                if handler not in FORMS:
                    _check_content_type(exchange)
            await handler(exchange, simulation)
        except wire.Refusal as refusal:
            await exchange.refuse(refusal)

    def _handler(self, exchange: Exchange) -> Handler:
        if exchange.path.startswith(tuple(listings.GENERATED)) and exchange.method == "GET":
            return listings.generated
        if exchange.path.startswith(VOICES) and exchange.method == "POST":
            return text_to_speech
        routes = {"GET": LOOKS, "POST": WORK}.get(exchange.method, {})
        if exchange.path in routes:
            return routes[exchange.path]
        if exchange.path in LOOKS or exchange.path in WORK:
            raise wire.framework_error(405, "Method Not Allowed")
        raise wire.no_such_route()

    def _knows(self, exchange: Exchange) -> bool:
        """Whether the client shows the key, if one is asked for."""
        key = self.simulation.config.api_key
        if key is None:
            return True
        headers = exchange.headers
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get("token")
        except CookieError:
            cookie = None
        shown = (
            headers.get("authorization", "").removeprefix("Bearer "),
            headers.get("x-api-key"),
            headers.get("xi-api-key"),
            None if cookie is None else cookie.value,
        )
        return key in shown

    def _conclude(self, exchange: Exchange, ending: str) -> None:
        entry = exchange.entry
        if entry is None or entry.ended is not None:
            return
        fault = exchange.fault
        if fault is not None and ending in ("completed", "refused"):
            ending = f"fault:{fault.rule}"
        entry.ending = ending
        entry.ended = self.simulation.clock.now()
        entry.worked_on = entry.started is not None and entry.settled is None
        self.simulation.journal.changed()

    async def _serve_control(self, scope: Scope, receive: Receive, send: Send) -> None:
        client: tuple[str, int] | None = scope.get("client")
        local = client is not None and ipaddress.ip_address(client[0]).is_loopback
        if self.simulation.config.control and local and _means_this_machine(scope):
            await self._control(scope, receive, send)
        else:
            exchange = Exchange(scope, receive, send, self.simulation.clock)
            await exchange.refuse(wire.no_such_route())


def _means_this_machine(scope: Scope) -> bool:
    """Whether a request names this machine, rather than a name that was bent to lead here."""
    headers = {name.lower(): value for name, value in scope["headers"]}
    host = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}").hostname or ""
    return b"origin" not in headers and host in ("localhost", "127.0.0.1", "::1")


def _check_content_type(exchange: Exchange) -> None:
    """Take JSON; forget the body of a form; refuse anything else."""
    given = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not exchange.body or given == "application/json":
        return
    if given in ("application/x-www-form-urlencoded", "multipart/form-data"):
        exchange.body = b""
        return
    raise wire.unreadable_body("code=415, message=Unsupported Media Type")


def _marking(send: Send) -> Send:
    async def mark(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *(pair for pair in message["headers"] if pair[0] != wire.SIMULATED[0]),
                wire.SIMULATED,
            ]
        await send(message)

    return mark


def reset_connection(transport: asyncio.Transport) -> None:
    """End a connection with a TCP reset."""
    connection: socket.socket = transport.get_extra_info("socket")
    # Linger for no time at all: closing then sends a reset instead of an orderly end.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _hang_up(send: Send, exchange: Exchange, *, reset: bool) -> None:
    """End the connection below HTTP, and wait until the server has noticed."""
    transport: asyncio.Transport = cast("Any", send).__self__.transport
    if reset:
        reset_connection(transport)
    else:
        transport.close()
    await exchange.client_gone()
