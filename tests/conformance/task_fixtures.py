"""The tools that the conformance suite calls by name where it looks at tasks.

Each asks the product's own tool for a text, so that the tasks are those of real jobs.
"""

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, require_client_extension
from mcp.types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)

from src.routes.mcp_tasks import AFTER_S, TASKS

_Result = CallToolResult | InputRequiredResult
_LONGER_S = AFTER_S + 0.5


def register(server: MCPServer) -> None:
    """Add them to a server."""

    async def ask(prompt: str, ctx: Context) -> _Result:
        return await server.call_tool("txt2txt", {"prompt": prompt}, ctx)

    @server.tool(structured_output=False)
    async def greet(name: str) -> str:
        """Answers at once."""
        return f"Hello, {name}!"

    @server.tool(structured_output=False)
    async def slow_compute(ctx: Context, seconds: float, label: str = "") -> _Result:
        """Takes as long as it is told to."""
        return await ask(f"take {seconds} and say {label} is done", ctx)

    @server.tool(structured_output=False)
    async def failing_job(ctx: Context) -> _Result:
        """Cannot be had but as a task, and fails."""
        require_client_extension(ctx.request_context, TASKS)
        return await ask(f"take {_LONGER_S} and refuse", ctx)

    @server.tool(structured_output=False)
    async def protocol_error_job(ctx: Context) -> _Result:
        """Fails by the server's fault."""
        return await ask(f"take {_LONGER_S} and fail", ctx)

    @server.tool(structured_output=False)
    async def test_tool_with_task(ctx: Context) -> _Result:
        """Asks a name first, and takes a while then."""
        answer = (ctx.input_responses or {}).get("user_name")
        if isinstance(answer, ElicitResult) and answer.content is not None:
            return await ask(f"take {_LONGER_S} and say {answer.content['name']}", ctx)
        fields = {"type": "object", "properties": {"name": {"type": "string"}}}
        form = ElicitRequestFormParams(message="What is your name?", requested_schema=fields)
        return InputRequiredResult(input_requests={"user_name": ElicitRequest(params=form)})
