"""The tools, resources and prompts that the conformance suite calls by name."""

import asyncio
import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from mcp.server import MCPServer
from mcp.server.context import ServerRequestContext
from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context, UserMessage
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolResult,
    ClientCapabilities,
    Completion,
    CompletionArgument,
    CompletionContext,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    MissingRequiredClientCapabilityErrorData,
    PromptReference,
    ResourceTemplateReference,
    SamplingCapability,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
WAV = b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0@\x1f\0\0@\x1f\0\0\x01\0\x08\0data\0\0\0\0"
SCHEMA = Path(__file__).with_name("schema_2020_12.json")

Asked = str | InputRequiredResult
S = TypeVar("S", bound=BaseModel)


def register(server: MCPServer) -> None:
    """Add everything to a server."""
    _contents(server)
    _notifications(server)
    _questions_of_2025(server)
    _questions_of_2026(server)
    _capabilities(server)
    _rounds_of_2026(server)
    _changes(server)
    _schemas(server)
    _resources(server)
    _prompts(server)


def _contents(server: MCPServer) -> None:
    @server.tool(structured_output=False)
    async def test_simple_text() -> str:
        """Plain text."""
        return "This is a simple text response for testing."

    @server.tool(structured_output=False)
    async def test_image_content() -> list[ImageContent]:
        """One image."""
        return [_image()]

    @server.tool(structured_output=False)
    async def test_audio_content() -> list[AudioContent]:
        """One sound."""
        data = base64.b64encode(WAV).decode()
        return [AudioContent(type="audio", data=data, mime_type="audio/wav")]

    @server.tool(structured_output=False)
    async def test_embedded_resource() -> list[EmbeddedResource]:
        """One embedded resource."""
        text = "This is an embedded resource content."
        return [_embedded("test://embedded-resource", "text/plain", text)]

    @server.tool(structured_output=False)
    async def test_multiple_content_types() -> CallToolResult:
        """Text, image and resource."""
        data = '{"test":"data","value":123}'
        return CallToolResult(
            content=[
                _text("Multiple content types test:"),
                _image(),
                _embedded("test://mixed-content-resource", "application/json", data),
            ]
        )

    @server.tool(structured_output=False)
    async def test_error_handling() -> str:
        """Always fails."""
        raise ToolError("This tool intentionally returns an error for testing")


def _notifications(server: MCPServer) -> None:
    @server.tool(structured_output=False)
    async def test_tool_with_logging(ctx: Context) -> str:
        """Three log lines."""
        for word in ("started", "processing data", "completed"):
            await _log(ctx, f"Tool execution {word}" if " " not in word else f"Tool {word}")
            await asyncio.sleep(0.05)
        return "done"

    @server.tool(structured_output=False)
    async def test_logging_tool(ctx: Context) -> str:
        """One log line."""
        await _log(ctx, "hello")
        return "done"

    @server.tool(structured_output=False)
    async def test_tool_with_progress(ctx: Context) -> str:
        """0, 50, 100."""
        for progress in (0, 50, 100):
            await ctx.report_progress(progress, 100)
            await asyncio.sleep(0.05)
        return "done"

    @server.tool(structured_output=False)
    async def test_reconnection(ctx: Context) -> str:
        """Close the stream; the result comes by replay."""
        await ctx.close_sse_stream()
        await asyncio.sleep(0.1)
        return "Reconnection test completed successfully"


class Who(BaseModel):
    """A form."""

    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    """A form with a default of every primitive type."""

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Literal["active", "inactive", "pending"] = "active"
    verified: bool = True


_OPTIONS = ["option1", "option2", "option3"]
_TITLED = [
    {"const": f"value{number}", "title": f"{title} Option"}
    for number, title in enumerate(("First", "Second", "Third"), start=1)
]
_ENUMS: dict[str, Any] = {
    "untitledSingle": {"type": "string", "enum": _OPTIONS},
    "titledSingle": {"type": "string", "oneOf": _TITLED},
    "legacyEnum": {
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
}


def _questions_of_2025(server: MCPServer) -> None:
    @server.tool(structured_output=False)
    async def test_sampling(prompt: str, ctx: Context) -> str:
        """Ask the client's model."""
        answer = await ctx.session.create_message(  # pyright: ignore[reportDeprecated]
            [SamplingMessage(role="user", content=_text(prompt))],
            max_tokens=100,
            related_request_id=ctx.request_id,
        )
        return f"LLM response: {getattr(answer.content, 'text', answer.content)}"

    @server.tool(structured_output=False)
    async def test_elicitation(message: str, ctx: Context) -> str:
        """Ask the user."""
        return "User response: " + _shown(await ctx.elicit(message, Who))

    @server.tool(structured_output=False)
    async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
        """Ask the user, with defaults."""
        answer = await ctx.elicit("Check the defaults", Defaults)
        return "Elicitation completed: " + _shown(answer)

    @server.tool(structured_output=False)
    async def test_elicitation_sep1330_enums(ctx: Context) -> str:
        """Ask the user to choose, in all five spellings."""
        answer = await ctx.session.elicit_form(
            "Pick",
            {"type": "object", "properties": _ENUMS},
            related_request_id=ctx.request_id,
        )
        content = json.dumps(answer.content)
        return f"Elicitation completed: action={answer.action}, content={content}"


def _questions_of_2026(server: MCPServer) -> None:
    @server.tool(structured_output=False)
    async def test_input_required_result_elicitation(ctx: Context) -> Asked:
        """Ask a name."""
        name = _field(ctx, "user_name", "name")
        if isinstance(name, str):
            return f"Hello, {name}!"
        return InputRequiredResult(input_requests={"user_name": _name()})

    @server.tool(structured_output=False)
    async def test_input_required_result_sampling(ctx: Context) -> Asked:
        """Ask the client's model."""
        answer = _answer(ctx, "capital_question")
        if isinstance(answer, CreateMessageResult):
            return f"Model said: {getattr(answer.content, 'text', answer.content)}"
        question = _sample("What is the capital of France?", 100)
        return InputRequiredResult(input_requests={"capital_question": question})

    @server.tool(structured_output=False)
    async def test_input_required_result_list_roots(ctx: Context) -> Asked:
        """Ask the client's roots."""
        answer = _answer(ctx, "client_roots")
        if isinstance(answer, ListRootsResult):
            return "Roots: " + ", ".join(str(root.uri) for root in answer.roots)
        return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})

    @server.tool(structured_output=False)
    async def test_input_required_result_multiple_inputs(ctx: Context) -> Asked:
        """Ask three things at once."""
        keys = ("user_name", "greeting", "client_roots")
        if all(_answer(ctx, key) is not None for key in keys):
            return "all answered"
        return InputRequiredResult(
            input_requests={
                "user_name": _name(),
                "greeting": _sample("Generate a greeting", 50),
                "client_roots": ListRootsRequest(),
            },
            request_state="multi",
        )


def _capabilities(server: MCPServer) -> None:
    @server.tool(structured_output=False)
    async def test_input_required_result_capabilities(ctx: Context) -> Asked:
        """Ask only what the client declared."""
        can = ctx.client_capabilities or ClientCapabilities()
        asked: dict[str, ElicitRequest | CreateMessageRequest | ListRootsRequest] = {}
        if can.elicitation is not None:
            asked["user_name"] = _name()
        if can.sampling is not None:
            asked["greeting"] = _sample("Generate a greeting", 50)
        if can.roots is not None:
            asked["client_roots"] = ListRootsRequest()
        if ctx.input_responses or not asked:
            return "done"
        return InputRequiredResult(input_requests=asked)

    @server.tool(structured_output=False)
    async def test_streaming_elicitation(ctx: Context) -> Asked:
        """Stream first, then ask."""
        await ctx.report_progress(1, 2)
        if _answer(ctx, "user_name") is not None:
            return "done"
        return InputRequiredResult(input_requests={"user_name": _name()})

    @server.tool(structured_output=False)
    async def test_missing_capability(ctx: Context) -> str:
        """Needs sampling."""
        if ctx.client_capabilities is None or ctx.client_capabilities.sampling is None:
            data = MissingRequiredClientCapabilityErrorData(
                required_capabilities=ClientCapabilities(sampling=SamplingCapability())
            )
            raise MCPError(
                code=MISSING_REQUIRED_CLIENT_CAPABILITY,
                message="sampling is required",
                data=data.model_dump(by_alias=True, mode="json", exclude_none=True),
            )
        return "ok"


def _rounds_of_2026(server: MCPServer) -> None:
    confirm = _form("Please confirm", {"ok": {"type": "boolean"}}, ["ok"])

    @server.tool(structured_output=False)
    async def test_input_required_result_request_state(ctx: Context) -> Asked:
        """The state comes back."""
        if ctx.request_state == "s1" and _answer(ctx, "confirm") is not None:
            return "state-ok"
        return InputRequiredResult(input_requests={"confirm": confirm}, request_state="s1")

    @server.tool(structured_output=False)
    async def test_input_required_result_tampered_state(ctx: Context) -> Asked:
        """The state is sealed; the SDK refuses an altered one."""
        if ctx.request_state == "sealed":
            return "state-ok"
        return InputRequiredResult(input_requests={"confirm": confirm}, request_state="sealed")

    @server.tool(structured_output=False)
    async def test_input_required_result_multi_round(ctx: Context) -> Asked:
        """Ask twice."""
        state: Mapping[str, object] = json.loads(ctx.request_state) if ctx.request_state else {}
        color = _field(ctx, "step2", "color")
        if "name" in state and color is not None:
            return f"{state['name']} likes {color}"
        name = _field(ctx, "step1", "name")
        if name is not None:
            question = "Step 2: What is your favorite color?"
            form = _form(question, {"color": {"type": "string"}}, ["color"])
            return InputRequiredResult(
                input_requests={"step2": form}, request_state=json.dumps({"name": name})
            )
        form = _form("Step 1: What is your name?", {"name": {"type": "string"}}, ["name"])
        return InputRequiredResult(
            input_requests={"step1": form}, request_state=json.dumps({"round": 1})
        )


def _changes(server: MCPServer) -> None:
    there = False

    @server.tool(structured_output=False)
    async def test_trigger_tool_change(ctx: Context) -> str:
        """Change the list of tools."""
        nonlocal there
        there = not there
        if there:
            server.add_tool(dynamic_tool)
        else:
            server.remove_tool("dynamic_tool")
        await ctx.notify_tools_changed()
        return "changed"

    @server.tool(structured_output=False)
    async def test_trigger_prompt_change(ctx: Context) -> str:
        """Say that the list of prompts has changed."""
        await ctx.notify_prompts_changed()
        return "changed"

    async def dynamic_tool() -> str:
        """Comes and goes."""
        return "x"


def _schemas(server: MCPServer) -> None:
    @server.tool(structured_output=False)
    async def test_x_mcp_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "eu",
        priority: Annotated[int, Field(json_schema_extra={"x-mcp-header": "Priority"})] = 1,
    ) -> str:
        """Arguments that headers repeat."""
        return f"{region} {priority}"

    @server.tool(name="json_schema_2020_12_tool", structured_output=False)
    async def json_schema() -> str:
        """Tool with JSON Schema 2020-12 features"""
        return "ok"

    # The SDK has no public way to give a schema by hand.
    tool = server._tool_manager.get_tool(  # pyright: ignore[reportPrivateUsage]
        "json_schema_2020_12_tool"
    )
    assert tool is not None
    tool.parameters = json.loads(SCHEMA.read_text())


def _resources(server: MCPServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    async def static_text() -> str:
        """Static text."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    async def static_binary() -> bytes:
        """Static PNG."""
        return PNG

    @server.resource("test://template/{id}/data", mime_type="application/json")
    async def template(id: str) -> str:  # noqa: A002 - the suite's name
        """JSON from a template."""
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.resource("test://watched-resource", mime_type="text/plain")
    async def watched() -> str:
        """A resource to subscribe to."""
        return "watched"

    async def accept(_: ServerRequestContext[Any, Any], __: object) -> EmptyResult:
        return EmptyResult()

    # Nor for these methods, which only the protocol of 2025 has.
    low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)
    low.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)


def _prompts(server: MCPServer) -> None:
    @server.prompt()
    async def test_simple_prompt() -> str:
        """Simple."""
        return "This is a simple prompt for testing."

    @server.prompt()
    async def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """With arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt()
    async def test_prompt_with_embedded_resource(
        resourceUri: str,  # noqa: N803 - the suite's name
    ) -> list[UserMessage]:
        """With a resource."""
        text = "Embedded resource content for testing."
        return [
            UserMessage(content=_embedded(resourceUri, "text/plain", text)),
            UserMessage(content=_text("Please process the embedded resource above.")),
        ]

    @server.prompt()
    async def test_prompt_with_image() -> list[UserMessage]:
        """With an image."""
        return [
            UserMessage(content=_image()),
            UserMessage(content=_text("Please analyze the image above.")),
        ]

    @server.prompt()
    async def test_input_required_result_prompt(
        ctx: Context,
    ) -> list[UserMessage] | InputRequiredResult:
        """Asks first."""
        context = _field(ctx, "user_context", "context")
        if context is not None:
            return [UserMessage(content=_text(f"Context: {context}"))]
        question = "What context should the prompt use?"
        form = _form(question, {"context": {"type": "string"}}, ["context"])
        return InputRequiredResult(input_requests={"user_context": form})

    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        _: PromptReference | ResourceTemplateReference,
        __: CompletionArgument,
        ___: CompletionContext | None,
    ) -> Completion:
        return Completion(values=["paris", "park", "party"], total=3, has_more=False)


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


def _image() -> ImageContent:
    data = base64.b64encode(PNG).decode()
    return ImageContent(type="image", data=data, mime_type="image/png")


def _embedded(uri: str, media_type: str, text: str) -> EmbeddedResource:
    resource = TextResourceContents(uri=uri, mime_type=media_type, text=text)
    return EmbeddedResource(type="resource", resource=resource)


async def _log(ctx: Context, text: str) -> None:
    await ctx.info(text)  # pyright: ignore[reportDeprecated]


def _form(message: str, fields: dict[str, Any], required: list[str]) -> ElicitRequest:
    schema = {"type": "object", "properties": fields, "required": required}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _name() -> ElicitRequest:
    return _form("What is your name?", {"name": {"type": "string"}}, ["name"])


def _sample(text: str, length: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=_text(text))
    params = CreateMessageRequestParams(messages=[message], max_tokens=length)
    return CreateMessageRequest(params=params)


def _answer(ctx: Context, key: str) -> object:
    return (ctx.input_responses or {}).get(key)


def _field(ctx: Context, key: str, name: str) -> object:
    answer = _answer(ctx, key)
    if not isinstance(answer, ElicitResult) or answer.content is None:
        return None
    return answer.content.get(name)


def _shown(answer: ElicitationResult[S]) -> str:
    data = cast("BaseModel | None", getattr(answer, "data", None))
    content = "{}" if data is None else data.model_dump_json()
    return f"action={answer.action}, content={content}"
