"""`/ws`: the steps of a caller's own jobs, pushed as they happen, as JSON messages.

A page of another site must not listen behind its owner's back: the guard and the callers' keys in
front of every door are in front of this one as well.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import cast

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..broadcast import Broadcast, Watcher
from ..models.errors import InferenceManagerError, InvalidInput
from ..models.jobs import Job
from ..models.keys import ANONYMOUS
from .callers import current_caller
from .errors import describe
from .job_desk import JobDesk
from .job_views import outline
from .pieces import SEND_S

logger = logging.getLogger("inference_manager.sockets")

MOST_IDS = 1000
"""How many jobs one may choose."""

_NOT_YOURS = 1008
_LATER = 1013
_LONGEST = 65_536
_UNDERSTOOD = 'send a JSON object: {"type": "ping"}, or {"subscribe": ["JOB_ID"]}'


class Sockets:
    """Pushes steps to those who listen.

    Args:
        desk: what is known of jobs.
        broadcast: where their steps come from.
        send_s: how long a message may stay untaken, in seconds.

    """

    most = 1000
    """How many may listen at once."""

    def __init__(self, desk: JobDesk, broadcast: Broadcast, *, send_s: float = SEND_S) -> None:
        self._desk = desk
        self._broadcast = broadcast
        self._send_s = send_s

    async def serve(self, socket: WebSocket, user: str | None = None) -> None:
        """Serve one who listens; `user` is whose jobs are asked for, if that was said."""
        await socket.accept()
        caller = current_caller()
        if user is not None and caller not in (user, ANONYMOUS):
            await socket.close(_NOT_YOURS, "these are the jobs of somebody else")
        elif len(self._broadcast) >= self.most:
            await socket.close(_LATER, "too many listen already; try again later")
        else:
            await _Listener(self._desk, socket, caller, self._send_s).listen(self._broadcast)


class _Listener:
    """One who listens."""

    def __init__(self, desk: JobDesk, socket: WebSocket, caller: str, send_s: float) -> None:
        self._desk = desk
        self._socket = socket
        self._caller = caller
        self._send_s = send_s
        self._chosen: frozenset[str] | None = None
        self._turn = asyncio.Lock()

    async def listen(self, broadcast: Broadcast) -> None:
        """Push until the other side leaves, or takes nothing any more."""
        with broadcast.watch(self._is_wanted) as watcher:
            both = {asyncio.create_task(self._hear()), asyncio.create_task(self._push(watcher))}
            try:
                done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.wait(both)
        for task in done:
            error = task.exception()
            if isinstance(error, TimeoutError):
                await self._cut_off()
            elif error is not None and not isinstance(error, WebSocketDisconnect):
                raise error

    def _is_wanted(self, job: Job) -> bool:
        mine = job.caller == self._caller
        return mine and (self._chosen is None or job.id in self._chosen)

    async def _push(self, watcher: Watcher) -> None:
        while True:
            job = await watcher.next()
            await self._send({"type": "resync"} if job is None else self._step(job))

    async def _hear(self) -> None:
        """Answer what the other side says."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            try:
                await self._answer(_read(text))
            except InferenceManagerError as error:
                told = describe(error).model_dump(exclude_none=True)
                await self._send({"type": "error", "error": told})

    async def _answer(self, said: Mapping[str, object]) -> None:
        if said.get("type") == "ping":
            await self._send({"type": "pong"})
            return
        chosen = _chosen(said)
        if chosen is None:
            self._chosen = None
            await self._send({"type": "subscribed", "jobs": None})
            return
        jobs = [(await self._desk.tools.handle(job_id)).job for job_id in chosen]
        self._chosen = frozenset(chosen)
        await self._send({"type": "subscribed", "jobs": chosen})
        for job in jobs:
            await self._send(self._step(job))

    def _step(self, job: Job) -> Mapping[str, object]:
        told = self._desk.report(job, str(self._socket.base_url), estimate=False)
        return {"type": "job", **outline(told)}

    async def _send(self, message: Mapping[str, object]) -> None:
        async with self._turn, asyncio.timeout(self._send_s):
            await self._socket.send_text(json.dumps(message))

    async def _cut_off(self) -> None:
        logger.warning("cut off a listener that took nothing for %g s", self._send_s)
        with suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            async with asyncio.timeout(1):
                await self._socket.close(_LATER, "the messages were not taken")


def build(sockets: Sockets) -> APIRouter:
    """Make the routes."""
    router = APIRouter()

    @router.websocket("/ws")
    async def listen(socket: WebSocket) -> None:
        await sockets.serve(socket)

    @router.websocket("/ws/{user_id}")
    async def listen_as(socket: WebSocket, user_id: str) -> None:
        await sockets.serve(socket, user_id)

    return router


def _read(text: str | None) -> Mapping[str, object]:
    """Read a message; raises `InvalidInput`."""
    if text == "ping":
        return {"type": "ping"}
    value: object = None
    if text is not None and len(text) <= _LONGEST:
        with suppress(ValueError, RecursionError):
            value = json.loads(text)
    if not isinstance(value, dict):
        raise InvalidInput("the message is not understood", param="body", hint=_UNDERSTOOD)
    return cast("dict[str, object]", value)


def _chosen(said: Mapping[str, object]) -> list[str] | None:
    """Read which jobs are asked for; None for all. Raises `InvalidInput`."""
    if "subscribe" not in said:
        raise InvalidInput("the message is not understood", param="body", hint=_UNDERSTOOD)
    ids = said["subscribe"]
    if ids is None or ids == []:
        return None
    if isinstance(ids, list):
        named = [one for one in cast("list[object]", ids) if isinstance(one, str)]
        if len(named) == len(cast("list[object]", ids)) <= MOST_IDS:
            return named
    raise InvalidInput(
        f"subscribe must be a list of at most {MOST_IDS:,} ids of jobs",
        param="subscribe",
        hint="an empty list subscribes to all of yours",
    )
