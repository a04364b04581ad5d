"""An answer as a stream of server-sent events, from the first moment there is something to say.

One task watches whether the caller is there, one timer whether it has heard anything lately; no
piece of the answer costs a task or a timer. What a caller does not take waits for it, 256 KiB at
most: then it is cut off, for an engine must not be held up by a reader.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from pydantic_core import to_json
from starlette.types import Message, Receive, Scope, Send

from ..handles import JobHandle, Tail
from ..models.errors import InferenceManagerError
from ..models.jobs import Job
from ..models.results import Chunk, Result
from ..sharing import How, Taken
from .errors import ErrorDetail, answer, detail_of
from .facts import facts
from .leaving import left

logger = logging.getLogger("inference_manager.streaming")

SLOW_BYTES = 256 * 1024
"""How much a caller may leave untaken."""

BEAT_S = 9.0
"""The longest silence of a stream, in seconds."""

SEND_S = 60.0
"""How long a caller may leave a piece untaken, in seconds."""

TICK_S = 1.0
"""How often those who want to know are told of their place in line, in seconds."""


class Frames(Protocol):
    """Writes a job's pieces as server-sent events."""

    def frame(self, chunk: Chunk) -> bytes:
        """Write a piece; nothing if it has no event of its own."""
        ...

    def closing(self, job: Job, result: Result) -> bytes:
        """Write what follows the last piece."""
        ...

    def failed(self, detail: ErrorDetail) -> bytes:
        """Write that there will be no more, and why."""
        ...


class Streaming:
    """Streams one job to the caller that it belongs to.

    Args:
        taken: the job.
        frames: how its pieces are written.
        doing: says in words what the job is doing.
        place: its place in line, if the caller wants to be told.
        leave: called when nobody reads any more.
        beat_s: the longest silence, in seconds.
        send_s: how long a piece may stay untaken, in seconds.

    """

    def __init__(
        self,
        taken: Taken,
        frames: Frames,
        *,
        doing: Callable[[Job], str],
        place: Callable[[Job], object] | None,
        leave: Callable[[JobHandle], Awaitable[None]],
        beat_s: float = BEAT_S,
        send_s: float = SEND_S,
    ) -> None:
        self._handle = taken.handle
        self._how: How = taken.how
        self._frames = frames
        self._doing = doing
        self._place = place
        self._leave = leave
        self._beat_s = beat_s
        self._send_s = send_s
        self._begun = False
        self._gone = False
        self._due = place is not None
        self._placed: object = None
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream the job to its end, or to that of the caller's patience."""
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._send = send
        self._since = loop.time()
        self._sending = False
        watching = asyncio.create_task(self._watch(receive))
        try:
            async with asyncio.timeout(None) as limit:
                self._limit = limit
                with self._handle.tail(limit=SLOW_BYTES, overrun=self._overrun) as self._tail:
                    self._timer = loop.call_later(self._interval, self._tick)
                    await self._relay(self._tail)
            await self._finish(scope, receive)
        except TimeoutError:
            logger.warning("cut off a caller that did not take its stream", extra=self._about)
            await self._leave(self._handle)
        except BaseException:
            await self._leave(self._handle)
            raise
        finally:
            watching.cancel()
            if self._timer is not None:
                self._timer.cancel()

    async def _relay(self, tail: Tail) -> None:
        frame = self._frames.frame
        while not self._gone:
            if chunks := tail.take():
                await self._put(b"".join(map(frame, chunks)))
            elif not tail.waiting:
                return
            elif self._due:
                self._due = False
                await self._put(self._news())
            else:
                await tail.more()

    async def _finish(self, scope: Scope, receive: Receive) -> None:
        job = self._handle.job
        if self._gone:
            left(job.id)
            await self._leave(self._handle)
            return
        try:
            result = self._handle.outcome()
        except InferenceManagerError as error:
            if not self._begun:
                response = answer(error, job_id=job.id, v1=True)
                response.raw_headers.extend(facts(job, self._how))
                await response(scope, receive, self._send)
                return
            last = self._frames.failed(detail_of(error, job_id=job.id))
        else:
            last = self._frames.closing(job, result)
        async with asyncio.timeout(self._send_s):
            await self._begin()
            await self._send(_body(last, more=False))

    async def _put(self, data: bytes) -> None:
        if not data:
            return
        self._since, self._sending = self._clock(), True
        await self._begin()
        await self._send(_body(data))
        self._since, self._sending = self._clock(), False

    async def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *facts(self._handle.job, self._how),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    def _news(self) -> bytes:
        """Say that the job is still there: to those who asked, with its place in line."""
        job = self._handle.job
        place = None if self._place is None else self._place(job)
        if place is not None and place != self._placed:
            self._placed = place
            return b"event: queue\ndata: " + to_json(place) + b"\n\n"
        if self._clock() - self._since < self._beat_s:
            return b""
        return f": {' '.join(self._doing(job).split())}\n\n".encode()

    @property
    def _interval(self) -> float:
        return self._beat_s if self._place is None else min(TICK_S, self._beat_s)

    def _tick(self) -> None:
        now = self._clock()
        if self._sending:
            due = self._since + self._send_s
            if now >= due:
                self._cut_off()
                return
        else:
            due = self._since + self._beat_s
            if now >= due or self._place is not None:
                self._due = True
                self._tail.poke()
                due = now + self._interval
        self._timer = asyncio.get_running_loop().call_at(max(due, now + 0.01), self._tick)

    def _overrun(self) -> None:
        """Let go of a caller that does not take its stream; others have not had their turn yet."""
        if self._sending:
            self._cut_off()

    def _cut_off(self) -> None:
        if not self._limit.expired():
            self._limit.reschedule(self._clock())

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._tail.poke()

    @property
    def _about(self) -> dict[str, str]:
        return {"job_id": self._handle.id}


def _body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
