"""The stdio door: a bridge from stdin and stdout to the MCP endpoint of a running server.

However many hosts start a bridge, there is one queue, in the server. Cancellation and progress
travel through, whichever protocol era the host speaks; the bridge itself speaks the newest one.
"""

from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
)

from .. import __version__

Context = ServerRequestContext[Any, Any]
_Page = PaginatedRequestParams | None

_CONNECT_S = 5.0
_SILENCE_S = 60.0  # the server sends a sign of life every 15 s while it works


async def serve_stdio(url: str) -> None:
    """Carry messages between stdin and stdout and the MCP endpoint at `url`, until stdin ends.

    stdout belongs to the protocol: nothing else may write there.
    """
    timeout = httpx2.Timeout(_SILENCE_S, connect=_CONNECT_S)
    async with (
        httpx2.AsyncClient(timeout=timeout, trust_env=False) as http,
        Client(
            streamable_http_client(url, http_client=http, max_sse_event_size=None), cache=None
        ) as upstream,
        stdio_server() as (reader, writer),
    ):
        server = bridge(upstream)
        await server.run(reader, writer, server.create_initialization_options())


def bridge(upstream: Client) -> Server[Any]:
    """Make a server that answers as `upstream` does."""

    async def list_tools(_: Context, page: _Page) -> ListToolsResult:
        return await upstream.list_tools(cursor=_cursor(page))

    async def call_tool(ctx: Context, call: CallToolRequestParams) -> CallToolResult:
        async def relay(progress: float, total: float | None, message: str | None) -> None:
            await ctx.session.report_progress(progress, total, message)

        return await upstream.call_tool(call.name, call.arguments, progress_callback=relay)

    async def list_resources(_: Context, page: _Page) -> ListResourcesResult:
        return await upstream.list_resources(cursor=_cursor(page))

    async def list_templates(_: Context, page: _Page) -> ListResourceTemplatesResult:
        return await upstream.list_resource_templates(cursor=_cursor(page))

    async def read_resource(_: Context, which: ReadResourceRequestParams) -> ReadResourceResult:
        return await upstream.read_resource(str(which.uri))

    info = upstream.server_info
    return Server(
        info.name if info is not None else "inference-manager",
        title=info.title if info is not None else None,
        version=info.version if info is not None else __version__,
        instructions=upstream.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )


def _cursor(page: _Page) -> str | None:
    return None if page is None else page.cursor
