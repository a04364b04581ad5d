"""One caller of an MCP tool: where it reached us, what it is told meanwhile, and whether it stays.

Until a caller has the id of its job, its leaving takes the job along; afterwards the job belongs to
whoever holds the id.
"""

from collections.abc import Awaitable
from typing import cast

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult
from starlette.requests import Request

from ..handles import JobHandle
from ..models.errors import InferenceManagerError
from ..models.jobs import Level
from ..models.requests import InferenceRequest
from .errors import in_words
from .leaving import attended
from .mcp_answers import Output, answer
from .mcp_arguments import Priority
from .tools import Beat, Tools

_HOME = "http://127.0.0.1:8000"  # where the server is when a caller did not come over HTTP


class Caller:
    """Carries requests through their jobs, and waits for jobs, on behalf of callers of tools."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(
        self,
        request: InferenceRequest,
        ctx: Context,
        *,
        priority: Priority,
        wait_seconds: float,
        output: Output = "preview",
    ) -> CallToolResult:
        """Submit a request and wait for its job."""
        level = Level.LOW if priority == "low" else Level.NORMAL
        handle = await self._tools.submit(request, level=level)
        try:
            present = await _attended(ctx, self._tools.wait(handle, wait_seconds, _beat(ctx)))
        except BaseException:
            await self._tools.abandon(handle)
            raise
        if not present:
            await self._tools.abandon(handle)
        return await self._told(handle, ctx, output)

    async def look(
        self, job_id: str, ctx: Context, *, wait_seconds: float, output: Output
    ) -> CallToolResult:
        """Wait for a job that goes on whether its caller stays or not."""
        handle = await self._tools.handle(job_id)
        await _attended(ctx, self._tools.wait(handle, wait_seconds, _beat(ctx)))
        return await self._told(handle, ctx, output)

    async def _told(self, handle: JobHandle, ctx: Context, output: Output) -> CallToolResult:
        view = self._tools.view(handle.job, base_url(ctx))
        try:
            return await answer(handle.job, view, output, self._tools.blobs)
        except InferenceManagerError as error:
            raise ToolError(in_words(error, job_id=handle.id)) from None


def user_of(caller: str) -> AuthenticatedUser:
    """Say who calls as the SDK wants it; a session that one began refuses all others."""
    return AuthenticatedUser(AccessToken(token="", client_id=caller, scopes=[]))


def base_url(ctx: Context) -> str:
    """Return the address under which the caller reached the server."""
    request = _request(ctx)
    return _HOME if request is None else str(request.base_url)


async def _attended(ctx: Context, work: Awaitable[object]) -> bool:
    """Work until it is done or the caller hangs up; say whether the caller has stayed.

    In the protocol until 2025 the SDK lets a tool go on when the stream for its answer is gone, in
    case the caller comes back for it. Nobody can come back here: we keep no events.
    """
    request = _request(ctx)
    if request is None:
        await work
        return True
    return await attended(request, work)


def _beat(ctx: Context) -> Beat:
    """Report progress: the seconds so far, because the protocol wants a value that grows."""
    last = 0.0

    async def beat(passed: float, doing: str) -> None:
        nonlocal last
        last = round(max(passed, last + 0.001), 3)
        await ctx.report_progress(last, None, doing)

    return beat


def _request(ctx: Context) -> Request | None:
    """Return the HTTP request that a call came with; None through any other door."""
    request: object = ctx.request_context.request
    return cast("Request", request) if isinstance(request, Request) else None
