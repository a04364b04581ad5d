"""The stdio door: a bridge from stdin and stdout to the MCP endpoint of a running server.

However many hosts start a bridge, there is one queue, in the server. Cancellation and progress
travel through, whichever protocol era the host speaks. Towards the server the bridge speaks the
newest one, which knows no sessions: so every request can open a connection of its own, and a
server that is restarted, or replaced by another, is found without the host noticing.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.types import (
    CONNECTION_CLOSED,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    TextContent,
)

from .. import __version__

ERA = "2026-07-28"

Context = ServerRequestContext[Any, Any]
_Page = PaginatedRequestParams | None
_T = TypeVar("_T")
Seek = Callable[[], str]
"""Called in a thread where nobody answers: tells where a server is now, or raises `NoServer`."""

_CONNECT_S = 5.0
_SILENCE_S = 60.0  # the server sends a sign of life every 15 s while it works


class NoServer(Exception):
    """There is no server, and none can be had; the message says what would help."""


async def serve_stdio(url: str, seek: Seek, headers: Mapping[str, str] | None = None) -> None:
    """Carry messages between stdin and stdout and the MCP endpoint at `url`, until the host ends.

    stdout belongs to the protocol: nothing else may write there. `headers` go with every request.

    Raises:
        MCPError: no server answers.

    """
    timeout = httpx2.Timeout(_SILENCE_S, connect=_CONNECT_S)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout, trust_env=False) as http:
        server = await bridge(Upstream(url, http, seek))
        try:
            async with stdio_server() as (reader, writer):
                await server.run(reader, writer, server.create_initialization_options())
        except* BrokenPipeError:
            pass  # the host is gone before its answers; nobody is left to be told


class Upstream:
    """The server on the other side of the bridge."""

    def __init__(self, url: str, http: httpx2.AsyncClient, seek: Seek) -> None:
        self._url = url
        self._http = http
        self._seek = seek
        self._seeking = anyio.Lock()

    @asynccontextmanager
    async def client(self, mode: str = ERA) -> AsyncGenerator[Client]:
        """Open a connection for one request."""
        transport = streamable_http_client(
            self._url, http_client=self._http, max_sse_event_size=None
        )
        async with Client(transport, mode=mode, cache=None) as client:
            yield client

    async def ask(self, question: Callable[[Client], Awaitable[_T]], mode: str = ERA) -> _T:
        """Put one question to the server, and to its successor where it is not there any more.

        Raises:
            MCPError: its refusal, or ours when it cannot be reached.

        """
        try:
            try:
                return await self._ask(question, mode)
            except httpx2.ConnectError:  # so that nothing has been sent
                await self._find_again()
                return await self._ask(question, mode)
        except NoServer as failure:
            raise _lost(str(failure)) from None
        except httpx2.TransportError:
            raise _lost(f"the server at {self._url} does not answer; try again") from None
        except MCPError as refusal:
            if refusal.code != CONNECTION_CLOSED:
                raise
            raise _lost(f"the server at {self._url} went away; try again") from None

    async def _ask(self, question: Callable[[Client], Awaitable[_T]], mode: str) -> _T:
        try:
            async with self.client(mode) as client:
                return await question(client)
        except ExceptionGroup as group:
            raise _only(group) from None

    async def _find_again(self) -> None:
        async with self._seeking:
            self._url = await anyio.to_thread.run_sync(self._seek)


async def bridge(upstream: Upstream) -> Server[Any]:
    """Make a server that answers as `upstream` does.

    Raises:
        MCPError: it cannot be reached.

    """

    async def list_tools(_: Context, page: _Page) -> ListToolsResult:
        return await upstream.ask(lambda client: client.list_tools(cursor=_cursor(page)))

    async def call_tool(ctx: Context, call: CallToolRequestParams) -> CallToolResult:
        async def relay(progress: float, total: float | None, message: str | None) -> None:
            await ctx.session.report_progress(progress, total, message)

        def question(client: Client) -> Awaitable[CallToolResult]:
            return client.call_tool(call.name, call.arguments, progress_callback=relay)

        try:
            return await upstream.ask(question)
        except MCPError as error:
            if error.code != CONNECTION_CLOSED:
                raise
            # Models see the results of tools, but hardly any host shows them protocol errors.
            text = TextContent(type="text", text=f"server_unreachable: {error}.")
            return CallToolResult(content=[text], is_error=True)

    async def list_resources(_: Context, page: _Page) -> ListResourcesResult:
        return await upstream.ask(lambda client: client.list_resources(cursor=_cursor(page)))

    async def list_templates(_: Context, page: _Page) -> ListResourceTemplatesResult:
        return await upstream.ask(
            lambda client: client.list_resource_templates(cursor=_cursor(page))
        )

    async def read_resource(_: Context, which: ReadResourceRequestParams) -> ReadResourceResult:
        return await upstream.ask(lambda client: client.read_resource(str(which.uri)))

    async def introduce(client: Client) -> tuple[Implementation | None, str | None]:
        return client.server_info, client.instructions

    info, instructions = await upstream.ask(introduce, mode="auto")
    return Server(
        info.name if info is not None else "inference-manager",
        title=info.title if info is not None else None,
        version=info.version if info is not None else __version__,
        instructions=instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )


def _lost(message: str) -> MCPError:
    return MCPError(code=CONNECTION_CLOSED, message=message)


def _only(error: Exception) -> Exception:
    """Take the one error out of the groups that task groups wrap around it."""
    if not isinstance(error, ExceptionGroup):
        return error
    inner = cast("ExceptionGroup[Exception]", error).exceptions
    return _only(inner[0]) if len(inner) == 1 else cast("Exception", error)


def _cursor(page: _Page) -> str | None:
    return None if page is None else page.cursor
