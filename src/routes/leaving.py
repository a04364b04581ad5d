"""Notices that a caller over HTTP has hung up, so that nobody works for nobody.

A server that keeps no results for callers who come back has nothing to wait for once the
connection of a request is gone, whatever was asked through it.
"""

import asyncio
import logging
from collections.abc import Awaitable

import anyio
from starlette.requests import Request

from .request_ids import current_request_id

logger = logging.getLogger("inference_manager.http")


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


def left(job_id: str) -> None:
    """Log that the caller of a request hung up before its answer; a proxy would answer 499."""
    facts = {"status": 499, "job_id": job_id, "request_id": current_request_id()}
    logger.info("a caller hung up before its answer", extra=facts)


async def _end_when_left(request: Request, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
