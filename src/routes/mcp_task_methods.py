"""The tasks extension of MCP: what a client that follows tasks may ask about one."""

from collections.abc import Sequence
from typing import Any

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp.types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    RequestParams,
)
from pydantic import Field
from starlette.requests import Request

from ..models.errors import InferenceManagerError, UnknownJob
from .errors import in_words
from .mcp_caller import Caller
from .mcp_tasks import ERA, TASKS, AsTask

_Context = ServerRequestContext[Any, Any]
_DONE: dict[str, Any] = {"resultType": "complete"}


class WhichTask(RequestParams):
    """Names a task."""

    task_id: str = Field(max_length=200)


class Answers(WhichTask):
    """What a task has asked for; none of ours asks for anything."""

    input_responses: dict[str, Any] = Field(default_factory=dict)


class TaskMethods(Extension):
    """Gives a task for a call that goes on, to those who take it, and answers questions about it.

    Args:
        caller: what carries calls through their jobs.

    """

    identifier = TASKS

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def methods(self) -> Sequence[MethodBinding]:
        """Say which methods there are."""
        era = frozenset({ERA})
        return [
            MethodBinding("tasks/get", WhichTask, self._get, era),
            MethodBinding("tasks/update", Answers, self._update, era),
            MethodBinding("tasks/cancel", WhichTask, self._cancel, era),
        ]

    async def intercept_tool_call(
        self,
        params: CallToolRequestParams,  # noqa: ARG002
        ctx: _Context,
        call_next: CallNext,
    ) -> HandlerResult:
        """Give the task, if a tool has made one."""
        result = await call_next(ctx)
        return result.task if isinstance(result, AsTask) else result

    async def _get(self, ctx: _Context, which: WhichTask) -> HandlerResult:
        _check(ctx, which)
        try:
            return _DONE | await self._caller.task(which.task_id, ctx)
        except InferenceManagerError as error:
            raise _refused(error) from None

    async def _update(self, ctx: _Context, which: Answers) -> HandlerResult:
        await self._get(ctx, which)
        return _DONE

    async def _cancel(self, ctx: _Context, which: WhichTask) -> HandlerResult:
        _check(ctx, which)
        try:
            await self._caller.cancel_task(which.task_id)
        except InferenceManagerError as error:
            raise _refused(error) from None
        return _DONE


def _check(ctx: _Context, which: WhichTask) -> None:
    """Refuse clients that do not follow tasks, and headers that name another task."""
    require_client_extension(ctx, TASKS)
    request: object = ctx.request
    if isinstance(request, Request):
        named = decode_header_value(request.headers.get(MCP_NAME_HEADER))
        if named != which.task_id:
            raise MCPError(
                code=HEADER_MISMATCH,
                message="the Mcp-Name header must be there, and be the taskId of the request",
            )


def _refused(error: InferenceManagerError) -> MCPError:
    code = INVALID_PARAMS if isinstance(error, UnknownJob) else INTERNAL_ERROR
    return MCPError(code=code, message=in_words(error))
