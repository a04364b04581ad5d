"""The SDK's server, with our words for what goes wrong."""

import logging
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Self, cast

from mcp.server import MCPServer
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import (
    ResourceError,
    ResourceNotFoundError,
    ToolError,
    UnexpectedResourceError,
    UnexpectedToolError,
)
from mcp.types import CallToolResult, InputRequiredResult, Tool
from pydantic import AnyUrl, ValidationError

from ..models.errors import InferenceManagerError, UnknownJob
from .errors import from_validation, in_words

logger = logging.getLogger("inference_manager.mcp")


class Medium(bytes):
    """Bytes that know what they are, whatever their address was announced to hold."""

    media_type = ""

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Self:
        """Make them."""
        medium = cls(data)
        medium.media_type = media_type
        return medium


class Server(MCPServer):
    """Says every failure in words that tell a model what to change, and never quotes its input."""

    async def list_tools(self) -> list[Tool]:
        """List the tools, without the titles that schemas get by themselves: they repeat names."""
        listed = await super().list_tools()
        for tool in listed:
            tool.input_schema = _untitled(tool.input_schema)
            tool.output_schema = tool.output_schema and _untitled(tool.output_schema)
        return listed

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; an argument that is null counts as left out."""
        given = {key: value for key, value in arguments.items() if value is not None}
        await self._refuse_unknown(name, given)
        try:
            return await super().call_tool(name, given, context)
        except ToolError as error:
            raise ToolError(_in_words(error, name)) from None

    async def read_resource(
        self, uri: AnyUrl | str, context: Context | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Read a resource; a medium comes with the type that it has."""
        try:
            found = await super().read_resource(uri, context)
        except UnexpectedResourceError as error:
            match error.__cause__:
                case UnknownJob() as cause:
                    raise ResourceNotFoundError(in_words(cause)) from None
                case InferenceManagerError() as cause:
                    raise ResourceError(in_words(cause)) from None
                case ValidationError():
                    raise ResourceNotFoundError("there is no such medium") from None
                case _:
                    raise
        if isinstance(found, InputRequiredResult):
            return found
        return [_typed(contents) for contents in found]

    async def _refuse_unknown(self, name: str, given: Mapping[str, object]) -> None:
        """Refuse arguments that do not exist; the SDK would drop them without a word."""
        listed = {tool.name: tool.input_schema for tool in await super().list_tools()}
        if name not in listed:
            raise ToolError(f"unknown_tool: there is no such tool. There are: {', '.join(listed)}.")
        known: Mapping[str, object] = listed[name].get("properties", {})
        if not known:  # some hosts send a dummy argument to tools that have none
            return
        for key in given.keys() - known.keys():
            near = get_close_matches(key[:100], known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ToolError(f"invalid_request: {key[:100]}: there is no such argument; {hint}")


def _in_words(error: ToolError, name: str) -> str:
    match error.__cause__:
        case InferenceManagerError() as cause:
            return in_words(cause)
        case ValidationError() as cause if not isinstance(error, UnexpectedToolError):
            return in_words(from_validation(cause.errors(), whole="arguments"))
        case ToolError() as cause if not isinstance(cause, UnexpectedToolError):
            return str(cause)
        case _:
            logger.error("the tool %s failed unexpectedly", name, exc_info=error)
            return "internal_error: the server made a mistake; its log says more."


def _untitled(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the titles out; a field of that name stays, for its value is no text."""
    return {
        key: _untitled(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


def _typed(contents: ReadResourceContents) -> ReadResourceContents:
    if isinstance(contents.content, Medium):
        contents.mime_type = contents.content.media_type
    return contents
