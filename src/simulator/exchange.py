"""One request on its way: what came in, what goes wrong with it, what goes out.

Handlers speak through an exchange only. It echoes the correlation id, marks every answer as
simulated, compresses where LocalAI does, and lets a fault strike when its moment has come.
"""

import asyncio
import gzip
import json
import math
from collections.abc import Callable, Mapping
from uuid import UUID

from starlette.types import Receive, Scope, Send

from . import faults, wire
from .clock import Clock
from .reports import RequestRecord

GZIP_FROM = 1024
ON_ARRIVAL = -1.0
AT_THE_END = math.inf

_NEVER_COMPRESSED = (
    *("/v1/chat/completions", "/chat/completions", "/v1/completions", "/completions"),
    *("/v1/audio/speech", "/audio/speech", "/tts"),
    *("/v1/audio/transcriptions", "/audio/transcriptions"),
)
"""What may come as a stream, be it one or not."""


class HungUp(Exception):
    """The connection shall end here and now; with a TCP reset if `reset`.

    With `refuse_s` all the others end too, and new ones are refused for so many real seconds.
    """

    def __init__(self, *, reset: bool, refuse_s: float = 0.0) -> None:
        super().__init__("reset" if reset else "cut")
        self.reset = reset
        self.refuse_s = refuse_s


class Exchange:
    """A request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, clock: Clock) -> None:
        self.clock = clock
        self._scope = scope
        self._receive = receive
        self._send = send
        self._struck = False
        self.method: str = scope["method"]
        self.path: str = scope["path"].rstrip("/") or "/"
        self.query: bytes = scope["query_string"]
        self.headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        self.correlation_id = self.headers.get("x-correlation-id", "")
        self.body = b""
        self.entry: RequestRecord | None = None
        self.fault: faults.Fault | None = None
        self.pace = 1.0
        """How many times longer than usual everything takes."""
        self.on_death: Callable[[], None] | None = None
        """Called when the fault kills the model's process."""
        self.begun = False
        self.refused = False
        self.finished = False
        self.on_finish: Callable[[], None] | None = None
        """Called just before the last byte goes out: what follows it can rely on what is noted."""

    def __repr__(self) -> str:
        return f"<Exchange {self.method} {self.path} begun={self.begun} finished={self.finished}>"

    @property
    def record(self) -> RequestRecord:
        """The entry in the journal, which every request for work has."""
        assert self.entry is not None  # noqa: S101
        return self.entry

    @property
    def base_url(self) -> str:
        """The address under which the client knows this server."""
        scheme = self.headers.get("x-forwarded-proto", "http")
        host = self.headers.get("x-forwarded-host") or self.headers.get("host", "localhost")
        return f"{scheme}://{host}"

    def identify(self, generated: UUID) -> None:
        """Take an id, unless the client has given one."""
        self.correlation_id = self.correlation_id or str(generated)

    # In

    async def read(self, limit: int) -> bool:
        """Read the whole body; False if the client has left.

        Raises:
            Refusal: the body is longer than the limit. All of it was received all the same, so
                that the client has ears for the answer.

        """
        pieces: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return False
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size <= limit:
                pieces.append(piece)
            more = message.get("more_body", False)
        if size > limit:
            if "content-length" in self.headers:
                raise wire.framework_error(413, "Request Entity Too Large")
            raise wire.unreadable_body("unexpected EOF")
        self.body = b"".join(pieces)
        return True

    async def client_gone(self) -> None:
        """Wait until the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # What goes wrong

    async def suffer(self, moment: float) -> None:
        """Let the fault strike if its moment has come: on arrival, after some tokens, at the end.

        Silence takes its time here.

        Raises:
            Refusal: the fault is an error.
            HungUp: the fault ends the connection.

        """
        action = self.action
        if action is None or self._struck or not _due(action, moment):
            return
        self._struck = True
        match action:
            case faults.Status(status=status, retry_after=seconds, message=message):
                headers = {} if seconds is None else {"Retry-After": f"{math.ceil(seconds)}"}
                raise wire.Refusal(status, message, headers=headers)
            case faults.Rejected(retry_after=seconds):
                raise wire.rejected(self.entry.model or "" if self.entry else "", seconds)
            case faults.StreamError(message=message):
                raise wire.Refusal(500, message)
            case faults.Hang(seconds=None):
                await asyncio.Event().wait()
            case faults.Hang(seconds=float(seconds)):
                await self.clock.sleep(seconds)
            case faults.Oom() | faults.Crash():
                if self.on_death is not None:
                    self.on_death()
                raise wire.process_died() if action.kind == "crash" else wire.out_of_memory()
            case faults.Refuse(seconds=seconds):
                raise HungUp(reset=True, refuse_s=seconds)
            case faults.Reset():
                raise HungUp(reset=True)
            case faults.Cut() if self.entry is not None and self.entry.stream:
                raise HungUp(reset=False)
            case _:
                pass

    async def wear(self, steps: int) -> None:
        """Let the process die if the fault says so, in work that goes on without the client.

        Raises:
            Refusal: it has died.

        """
        if isinstance(self.action, faults.Oom | faults.Crash):
            await self.suffer(steps)

    @property
    def action(self) -> faults.AnyAction | None:
        """What goes wrong, if anything does."""
        return None if self.fault is None else self.fault.action

    @property
    def garbage(self) -> faults.Garbage | None:
        """What shall come instead of the answer, if anything."""
        return self.action if isinstance(self.action, faults.Garbage) else None

    # Out

    async def answer(self, value: object, *, event_stream: bool = False) -> None:
        """Answer with JSON, or with the garbage that shall come instead."""
        await self.suffer(AT_THE_END)
        if self.garbage is None:
            await self.reply(200, wire.encoded(value))
        else:
            body, headers = _garbled(self.garbage.what, event_stream=event_stream)
            await self.reply(200, body, headers=headers)

    async def refuse(self, refusal: wire.Refusal) -> None:
        """Answer with an error."""
        self.refused = True
        await self.reply(refusal.status, wire.encoded(refusal.body), headers=refusal.headers)

    async def refuse_in_stream(self, refusal: wire.Refusal) -> None:
        """Answer with 200 and an event that tells of the error."""
        self.refused = True
        await self.begin_stream()
        await self.event(wire.stream_error(refusal.message))
        await self.end_stream()

    async def reply(
        self, status: int, body: bytes = b"", *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer in one piece; compressed if that is wanted and worth while."""
        out = {"Content-Type": "application/json", **(headers or {})}
        if self._wants_gzip(out) and len(body) >= GZIP_FROM:
            with self.clock.held():
                body = await asyncio.to_thread(gzip.compress, body, 1, mtime=0)
            out |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        out["Content-Length"] = str(len(body))
        await self._start(status, out)
        if isinstance(self.action, faults.Cut) and status == 200:
            await self._body(body[: len(body) // 2], more=True)
            raise HungUp(reset=False)
        await self._body(body, more=False)

    async def begin_stream(self) -> None:
        """Send the head of a stream of events, unless that is done."""
        if not self.begun:
            await self._start(
                200, {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
            )

    async def event(self, value: object) -> None:
        """Send one event of a stream."""
        await self._body(wire.event(value), more=True)

    async def end_stream(self, *, done: bool = True) -> None:
        """End a stream, with or without its `[DONE]`."""
        await self._body(wire.DONE if done else b"", more=False)

    async def begin_sound(self) -> None:
        """Send the head of a sound of unknown length."""
        await self._start(200, {"Content-Type": "audio/wav"})

    async def sound(self, piece: bytes) -> None:
        """Send a piece of it."""
        await self._body(piece, more=True)

    async def end_sound(self) -> None:
        """End it."""
        await self._body(b"", more=False)

    def _finish(self) -> None:
        self.finished = True
        if self.on_finish is not None:
            self.on_finish()

    def _wants_gzip(self, out: Mapping[str, str]) -> bool:
        wanted = "gzip" in self.headers.get("accept-encoding", "")
        return wanted and "Content-Encoding" not in out and self.path not in _NEVER_COMPRESSED

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.begun = True
        if self.entry is not None:
            self.entry.status = status
        raw = [(key.lower().encode(), value.encode("latin-1")) for key, value in headers.items()]
        if self.correlation_id:
            raw.append((b"x-correlation-id", self.correlation_id.encode("latin-1")))
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*raw, wire.SIMULATED],
            }
        )

    async def _body(self, body: bytes, *, more: bool) -> None:
        action = self.action
        if isinstance(action, faults.Drip):
            while len(body) > action.bytes:
                piece, body = body[: action.bytes], body[action.bytes :]
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                await self.clock.sleep(action.delay)
        if not more:
            self._finish()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _due(action: faults.AnyAction, moment: float) -> bool:
    """Whether an action that has a moment of its own has reached it."""
    match action:
        case faults.Status() | faults.Rejected() | faults.Refuse():
            return True
        case faults.Reset(after_tokens=None) | faults.Hang(after=None):
            return True
        case faults.Reset(after_tokens=int(after)) | faults.Hang(after=int(after)):
            return moment >= after
        case faults.Cut(after_tokens=after) | faults.StreamError(after_tokens=after):
            return moment >= after
        case faults.Crash(after=after):
            return moment >= after
        case faults.Oom(at="work"):
            return moment >= 0
        case _:
            return False


def _garbled(what: str, *, event_stream: bool) -> tuple[bytes, dict[str, str]]:
    """Return a body that does not parse, and the headers that go with it."""
    wrong = json.dumps({"created": "now", "choices": {}, "data": "none", "usage": []}).encode()
    bodies = {
        "truncated_json": b'{"created":1,"object":"chat.comp',
        "wrong_type": wrong,
        "not_utf8": b'{"id":"\xff\xfe\xfa"}',
        "html": b"<html><body><h1>It works!</h1></body></html>",
        "empty_body": b"",
        "bad_gzip": b"this is not gzip",
    }
    body = bodies[what]
    headers: dict[str, str] = {}
    if what == "html":
        headers = {"Content-Type": "text/html; charset=utf-8"}
    elif event_stream:
        headers = {"Content-Type": "text/event-stream"}
        if what not in ("empty_body", "bad_gzip"):
            body = b"data: " + body + b"\n\n" + wire.DONE
    if what == "bad_gzip":
        headers["Content-Encoding"] = "gzip"
    return body, headers
