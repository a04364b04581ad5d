"""Notices that a caller over HTTP has hung up, so that nobody works for nobody.

A server that keeps no results for callers who come back has nothing to wait for once the
connection of a request is gone, whatever was asked through it.
"""

import asyncio
import logging
from collections.abc import Awaitable

import anyio
from starlette.requests import Request
from starlette.types import Receive

from ..handles import JobHandle
from .request_ids import current_request_id

logger = logging.getLogger("inference_manager.http")

_MOMENT_S = 0.05  # of waiting, before a task is worth while that watches for the caller's leaving


async def attended(request: Request, work: Awaitable[object]) -> bool:
    """Work until it is done or the caller hangs up; say whether the caller has stayed.

    The request's body must have been read. Others may listen for the end of the request as well.
    """
    with anyio.CancelScope() as scope:
        leaving = asyncio.create_task(_end_when_left(request, scope))
        try:
            await work
        finally:
            leaving.cancel()
    return not scope.cancelled_caught


async def stayed(handle: JobHandle, receive: Receive, wait_s: float | None = None) -> bool:
    """Wait until the job has ended, its caller has hung up or so many seconds are over.

    Says whether the caller is still there. It is not looked after before a moment has passed.
    """
    if handle.over:
        return True
    loop, gone = asyncio.get_running_loop(), False
    over: asyncio.Future[None] = loop.create_future()
    watching: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        _done(over)

    def begin() -> None:
        nonlocal watching
        watching = loop.create_task(watch())

    timers = [loop.call_later(_MOMENT_S, begin)]
    if wait_s is not None:
        timers.append(loop.call_later(wait_s, _done, over))
    handle.tell_end(over)
    try:
        await over
    finally:
        handle.forget(over)
        for timer in timers:
            timer.cancel()
        if watching is not None:
            watching.cancel()
    return not gone


def left(job_id: str) -> None:
    """Log that the caller of a request hung up before its answer; a proxy would answer 499."""
    facts = {"status": 499, "job_id": job_id, "request_id": current_request_id()}
    logger.info("a caller hung up before its answer", extra=facts)


async def _end_when_left(request: Request, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
