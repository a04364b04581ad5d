"""A job's story as server-sent events: its steps, its text as it comes, and its end.

Every event has an id that says how far its reader has come, so that whoever breaks off goes on
exactly there. Who only follows does not keep a failed attempt from being made again: that is told
as `restart`, and the text begins anew.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ..handles import JobHandle, Tail
from ..models.errors import InferenceManagerError
from ..models.following import Bookmark, Script
from ..models.jobs import Job, Step
from ..models.results import Chunk
from .errors import detail_of
from .job_views import JobReport, outline, told_step
from .streaming import SLOW_BYTES

logger = logging.getLogger("inference_manager.following")


class History(Protocol):
    """Knows which steps a job has taken."""

    def __call__(self, job_id: str, after: int = 0) -> Awaitable[Sequence[Step]]:
        """Return the steps after a version, in order."""
        ...


class Following(Response):
    """Follows one job for one reader.

    Args:
        handle: the job.
        bookmark: how far the reader has come.
        history: its steps.
        report: all that is known of it.
        doing: what it does, in words.
        beat_s: the longest silence, in seconds.
        send_s: how long a piece may stay untaken, in seconds.

    """

    def __init__(
        self,
        handle: JobHandle,
        bookmark: Bookmark,
        *,
        history: History,
        report: Callable[[Job], JobReport],
        doing: Callable[[Job], str],
        beat_s: float,
        send_s: float,
    ) -> None:
        super().__init__()
        self._handle = handle
        self._script = Script(bookmark)
        self._history = history
        self._report = report
        self._doing = doing
        self._beat_s = beat_s
        self._send_s = send_s
        self._gone = False
        self._sending = False

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Tell the story to its end, or to that of the reader's patience."""
        self._send = send
        watching = asyncio.create_task(self._watch(receive))
        try:
            async with asyncio.timeout(None) as self._limit:
                with self._tail_of(self._handle) as self._tail:
                    await self._put(_START)
                    await self._tell()
                    await self._put(_body(b"", more=False))
        except TimeoutError:
            facts = {"job_id": self._handle.id}
            logger.warning("cut off a reader that did not take a job's events", extra=facts)
        finally:
            watching.cancel()

    def _tail_of(self, handle: JobHandle) -> Tail:
        return handle.tail(limit=SLOW_BYTES, overrun=self._overrun, onlooker=True)

    async def _tell(self) -> None:
        while not self._gone:
            over, job, pieces = self._handle.over, self._handle.job, self._tail.take()
            try:
                told = await self._put_news(job, pieces)
            except InferenceManagerError as error:
                await self._put(_body(_frame("error", detail_of(error, job_id=job.id))))
                return
            if over:
                return
            if not told:
                await self._rest()

    async def _put_news(self, job: Job, pieces: Sequence[Chunk]) -> bool:
        """Tell the steps before the pieces, the pieces, and the end; whether there was any."""
        mark = self._script.bookmark
        if mark.steps > job.version + 1:  # the reader knows what never was: a store was restored
            mark.steps = 0
        steps = await self._steps(job)
        told = bool(steps or pieces)
        for step in steps:
            if not step.state.terminal:
                await self._put_step(job, step)
        if job.fence and self._script.turn_to(job.fence):
            await self._put_event("restart", {"job_id": job.id, "attempt": job.attempts})
        for text, choice, reasoning in self._script.news(pieces):
            field = "reasoning" if reasoning else "text"
            await self._put_event("delta", {field: text, **({"choice": choice} if choice else {})})
        if steps and steps[-1].state.terminal:
            await self._put_step(job, steps[-1])
        return told

    async def _steps(self, job: Job) -> Sequence[Step]:
        """Return the steps up to this one that were not told; the job itself knows the latest."""
        last = self._script.bookmark.steps - 1
        if job.version <= last:
            return ()
        known = [s for s in await self._history(job.id, last) if s.version <= job.version]
        if not known or known[-1].version < job.version:
            known.append(_latest(job))
        return known

    async def _put_step(self, job: Job, step: Step) -> None:
        self._script.bookmark.steps = step.version + 1
        told = told_step(job.id, step)
        if step.version == job.version:
            told["job"] = outline(self._report(job))
        await self._put_event("state", told)

    async def _put_event(self, name: str, data: object) -> None:
        await self._put(_body(_frame(name, data, str(self._script.bookmark))))

    async def _rest(self) -> None:
        """Wait until something happens; say now and then that the job is still there."""
        try:
            async with asyncio.timeout(self._beat_s):
                await self._tail.more()
        except TimeoutError:
            doing = " ".join(self._doing(self._handle.job).split())
            await self._put(_body(f": {doing}\n\n".encode()))

    async def _put(self, message: Message) -> None:
        self._sending = True
        async with asyncio.timeout(self._send_s):
            await self._send(message)
        self._sending = False

    def _overrun(self) -> None:
        """Let go of a reader that does not take what was told."""
        if self._sending and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._tail.poke()


_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ],
}


def _latest(job: Job) -> Step:
    at = job.ended_at or job.started_at or job.submitted_at
    detail = job.error.code if job.error is not None else job.backend
    return Step(job.version, job.state, at, job.attempts, detail)


def _frame(name: str, data: object, place: str = "") -> bytes:
    said = f"id: {place}\n" if place else ""
    return f"{said}event: {name}\ndata: ".encode() + to_json(data, exclude_none=True) + b"\n\n"


def _body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
