"""Notices that a caller over HTTP has hung up, so that nobody works for nobody.

A server that keeps no results for callers who come back has nothing to wait for once the
connection of a request is gone, whatever was asked through it.
"""

import asyncio
from collections.abc import Awaitable

import anyio
from starlette.requests import Request


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


async def _end_when_left(request: Request, scope: anyio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
