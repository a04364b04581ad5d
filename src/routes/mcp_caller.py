"""One caller of an MCP tool: where it reached us, what it is told meanwhile, and whether it stays.

Until a caller has the id of its job, its leaving takes the job along. A job whose id is told is
promised first: it goes on whether anybody stays or not, and outlives the process.
"""

from collections.abc import Awaitable
from typing import Any, cast

from mcp.server import ServerRequestContext
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.mcpserver import Context
from mcp.types import INTERNAL_ERROR, CallToolResult
from starlette.requests import Request

from ..models.errors import InferenceManagerError
from ..models.jobs import Job, Level
from ..models.requests import InferenceRequest
from .errors import in_words
from .leaving import attended
from .mcp_answers import Output, answer, facts, refusal
from .mcp_arguments import Priority
from .mcp_tasks import AFTER_S, AsTask, job_of, takes_tasks, task
from .tools import Beat, Tools

_HOME = "http://127.0.0.1:8000"  # where the server is when a caller did not come over HTTP


class Caller:
    """Carries requests through their jobs, and waits for jobs, on behalf of callers of tools.

    Args:
        tools: what takes requests in.
        keep_s: for how many seconds a job is kept at least, which clients of tasks are told.

    """

    def __init__(self, tools: Tools, *, keep_s: float) -> None:
        self._tools = tools
        self._keep_s = keep_s

    async def run(
        self,
        request: InferenceRequest,
        ctx: Context,
        *,
        priority: Priority,
        wait_seconds: float,
        key: str,
        output: Output = "preview",
    ) -> CallToolResult:
        """Submit a request and wait for its job; one that goes on is promised, and told so.

        With a `key` that the caller used before, it waits for the job that has it.
        """
        level = Level.LOW if priority == "low" else Level.NORMAL
        follows = takes_tasks(ctx.request_context)
        wait_s = min(wait_seconds, AFTER_S) if follows else wait_seconds
        handle = (await self._tools.take(request, level=level, key=key or None)).handle
        try:
            present = await _attended(ctx, self._tools.wait(handle, wait_s, _beat(ctx)))
            if present:
                await self._tools.promise(handle)
        except BaseException:
            await self._tools.abandon(handle)
            raise
        if not present:
            await self._tools.abandon(handle)
        job = handle.job
        if follows and not job.state.terminal:
            return AsTask(content=[], task={"resultType": "task", **self._task(job, output)})
        return await self._told(job, ctx.request_context, output)

    async def look(
        self, job_id: str, ctx: Context, *, wait_seconds: float, output: Output
    ) -> CallToolResult:
        """Wait for a job that goes on whether its caller stays or not."""
        handle = await self._tools.handle(job_id)
        await _attended(ctx, self._tools.wait(handle, wait_seconds, _beat(ctx)))
        return await self._told(handle.job, ctx.request_context, output)

    def facts(self, job: Job, ctx: ServerRequestContext[Any, Any]) -> dict[str, Any]:
        """Say all about a job that a program may want to know."""
        return facts(job, self._tools.view(job, base_url(ctx)))

    async def task(self, task_id: str, ctx: ServerRequestContext[Any, Any]) -> dict[str, Any]:
        """Describe a task, with what its call would have answered if it has ended.

        Raises:
            UnknownJob: there is no such task.
            StorageFailed: its job cannot be read.

        """
        job_id, output = job_of(task_id)
        job = (await self._tools.handle(job_id)).job
        told = self._task(job, output)
        if told["status"] == "completed":
            result = await self._told(job, ctx, output)
            told["result"] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        elif told["status"] == "failed" and job.error is not None:
            told["error"] = {"code": INTERNAL_ERROR, "message": in_words(job.error, job_id=job.id)}
        return told

    async def cancel_task(self, task_id: str) -> None:
        """Cancel the job of a task, if it has not ended; raises as `task`."""
        await self._tools.cancel(job_of(task_id)[0])

    def _task(self, job: Job, output: Output) -> dict[str, Any]:
        return task(job, output, doing=self._tools.situation(job), keep_s=self._keep_s)

    async def _told(
        self, job: Job, ctx: ServerRequestContext[Any, Any], output: Output
    ) -> CallToolResult:
        view = self._tools.view(job, base_url(ctx))
        try:
            return await answer(job, view, output, self._tools.blobs)
        except InferenceManagerError as error:
            return refusal(error, job.id)


def user_of(caller: str) -> AuthenticatedUser:
    """Say who calls as the SDK wants it; a session that one began refuses all others."""
    return AuthenticatedUser(AccessToken(token="", client_id=caller, scopes=[]))


def base_url(ctx: ServerRequestContext[Any, Any]) -> str:
    """Return the address under which the caller reached the server."""
    request = _request(ctx)
    return _HOME if request is None else str(request.base_url)


async def _attended(ctx: Context, work: Awaitable[object]) -> bool:
    """Work until it is done or the caller hangs up; say whether the caller has stayed.

    In the protocol until 2025 the SDK lets a tool go on when the stream for its answer is gone, in
    case the caller comes back for it. Nobody can come back here: we keep no events.
    """
    request = _request(ctx.request_context)
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


def _request(ctx: ServerRequestContext[Any, Any]) -> Request | None:
    """Return the HTTP request that a call came with; None through any other door."""
    request: object = ctx.request
    return cast("Request", request) if isinstance(request, Request) else None
