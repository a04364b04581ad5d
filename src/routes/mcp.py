"""The MCP door: ten tools and the pictures they make, on the official SDK, in both protocol eras.

A tool that generates waits for its job for as long as hosts usually put up with, telling progress
all the while, and then hands out the job's id. Until then a caller that leaves takes its job with
it; afterwards the job belongs to whoever holds the id.
"""

from collections.abc import Awaitable
from typing import Annotated, TypeVar, cast

from mcp.server import MCPServer
from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request

from .. import __version__
from ..handles import JobHandle
from ..models.errors import InferenceManagerError, InvalidInput
from ..models.jobs import Level
from ..models.requests import (
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    Txt2ImgRequest,
    Txt2TxtRequest,
)
from .errors import from_validation, in_words
from .figures import ErrorFigures, RequestFigures
from .leaving import attended
from .mcp_answers import Output, answer, plainly
from .mcp_arguments import (
    AnySeed,
    Conversation,
    Count,
    Height,
    JobId,
    MaxTokens,
    Model,
    Negative,
    Picture,
    Pictures,
    Place,
    Priority,
    Show,
    Size,
    Steps,
    Stop,
    Strength,
    Temperature,
    TopP,
    Wait,
    Width,
)
from .mcp_server import Server
from .overview import QueueStatus
from .tools import Beat, ModelList, Tools

INSTRUCTIONS = """\
Text and pictures from a local inference server. Every request waits in a queue; text goes first.
A tool waits for its job for up to wait_seconds. If the job has not finished by then, the result
has a job_id and a state instead: call get_job with that job_id until the job has ended. Do not
send the same request again; it would wait behind itself.
To use a picture as input, pass the `reference` of an earlier result (job:<id>/<n>) as `image`.
Leave `model` out unless the user asks for one; list_models has the names.
`simulated: true` in a result means that a simulator made it, not a model: say so to the user."""

_HOME = "http://127.0.0.1:8000"  # where the server is when a caller did not come over HTTP
_LIST_TTL_MS = 300_000

R = TypeVar("R", Txt2TxtRequest, Txt2ImgRequest, Img2ImgRequest, Img2TxtRequest)

_GENERATES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
_LOOKS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_CANCELS = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)


def build(tools: Tools, *, wait_seconds: float) -> MCPServer:
    """Make the server; `wait_seconds` is how long a tool waits where its caller does not say."""
    server = Server(
        "inference-manager",
        title="Inference Manager",
        version=__version__,
        instructions=INSTRUCTIONS,
        log_level="WARNING",
        cache_hints={"tools/list": CacheHint(ttl_ms=_LIST_TTL_MS, scope="public")},
    )
    _add_generators(server, _Caller(tools), wait_seconds)
    _add_jobs(server, tools, wait_seconds)
    _add_figures(server, tools)

    @server.resource(
        "inference://images/{job_id}/{index}",
        title="A picture that a job made",
        description="The picture in full size. `index` counts from 0.",
        mime_type="image/png",
    )
    async def image(job_id: str, index: int) -> bytes:
        return (await tools.image(job_id, index)).data

    return server


def http_app(server: MCPServer, *, body_limit: int) -> Starlette:
    """Make the streamable HTTP endpoint at `/mcp`; bodies may have `body_limit` bytes.

    `Guard` stands in front of every door and judges `Host` and `Origin`, so the SDK need not.
    """
    return server.streamable_http_app(
        max_request_body_size=body_limit,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )


class _Caller:
    """Carries one request through its job, on behalf of one caller of a tool."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def __call__(
        self,
        request: InferenceRequest,
        ctx: Context,
        *,
        priority: Priority,
        wait_seconds: float,
        output: Output = "link",
    ) -> CallToolResult:
        level = Level.LOW if priority == "low" else Level.NORMAL
        handle = await self._tools.submit(request, level=level)
        try:
            present = await _attended(ctx, self._tools.wait(handle, wait_seconds, _beat(ctx)))
        except BaseException:
            await self._tools.abandon(handle)
            raise
        if not present:
            await self._tools.abandon(handle)
        return await _told(self._tools, handle, ctx, output)


async def _told(tools: Tools, handle: JobHandle, ctx: Context, output: Output) -> CallToolResult:
    try:
        return await answer(handle.job, tools.view(handle.job, _base_url(ctx)), output)
    except InferenceManagerError as error:
        raise ToolError(in_words(error, job_id=handle.id)) from None


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


def _base_url(ctx: Context) -> str:
    request = _request(ctx)
    return _HOME if request is None else str(request.base_url)


def _request(ctx: Context) -> Request | None:
    """Return the HTTP request that a call came with; None through any other door."""
    request: object = ctx.request_context.request
    return cast("Request", request) if isinstance(request, Request) else None


def _checked(kind: type[R], **fields: object) -> R:
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise from_validation(error.errors(), whole="arguments") from None


def _add_generators(server: MCPServer, run: _Caller, default_wait: float) -> None:
    @server.tool(title="Generate text", annotations=_GENERATES, structured_output=False)
    async def txt2txt(
        ctx: Context,
        prompt: Annotated[str, Field(description="What to ask the model")] = "",
        messages: Conversation = None,
        system: Annotated[str, Field(description="How the model should behave")] = "",
        model: Model = "",
        temperature: Temperature = None,
        top_p: TopP = None,
        max_tokens: MaxTokens = None,
        stop: Stop = None,
        seed: AnySeed = None,
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
    ) -> CallToolResult:
        """Ask a language model on the local server. Give `prompt`, or `messages`, not both."""
        if bool(prompt.strip()) == bool(messages):
            raise InvalidInput("give either prompt or messages, and not empty", param="prompt")
        turns: list[object] = [*messages] if messages else [{"role": "user", "content": prompt}]
        if system:
            turns.insert(0, {"role": "system", "content": system})
        request = _checked(
            Txt2TxtRequest,
            messages=turns,
            model=model or None,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            stop=stop,
            seed=seed,
        )
        return await run(request, ctx, priority=priority, wait_seconds=wait_seconds)

    @server.tool(title="Draw a picture", annotations=_GENERATES, structured_output=False)
    async def txt2img(
        ctx: Context,
        prompt: Annotated[str, Field(description="What to draw")],
        negative_prompt: Negative = "",
        size: Size = "",
        width: Width = None,
        height: Height = None,
        steps: Steps = None,
        seed: AnySeed = None,
        n: Count = 1,
        model: Model = "",
        output: Show = "preview",
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
    ) -> CallToolResult:
        """Draw pictures from words. The result has their addresses: show the url to the user."""
        request = _checked(
            Txt2ImgRequest,
            prompt=prompt,
            negative_prompt=negative_prompt,
            size=size or None,
            width=width,
            height=height,
            steps=steps,
            seed=seed,
            n=n,
            model=model or None,
        )
        return await run(request, ctx, priority=priority, wait_seconds=wait_seconds, output=output)

    @server.tool(title="Change a picture", annotations=_GENERATES, structured_output=False)
    async def img2img(
        ctx: Context,
        image: Picture,
        prompt: Annotated[str, Field(description="What the picture should become")],
        strength: Strength = None,
        negative_prompt: Negative = "",
        size: Size = "",
        width: Width = None,
        height: Height = None,
        steps: Steps = None,
        seed: AnySeed = None,
        n: Count = 1,
        model: Model = "",
        output: Show = "preview",
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
    ) -> CallToolResult:
        """Draw a picture anew as the prompt says. It keeps the size of `image` unless told."""
        request = _checked(
            Img2ImgRequest,
            image=image,
            prompt=prompt,
            strength=strength,
            negative_prompt=negative_prompt,
            size=size or None,
            width=width,
            height=height,
            steps=steps,
            seed=seed,
            n=n,
            model=model or None,
        )
        return await run(request, ctx, priority=priority, wait_seconds=wait_seconds, output=output)

    @server.tool(title="Look at a picture", annotations=_GENERATES, structured_output=False)
    async def img2txt(
        ctx: Context,
        image: Picture = "",
        images: Pictures = None,
        question: Annotated[
            str, Field(description="What to say about the picture")
        ] = "Describe this image.",
        model: Model = "",
        temperature: Temperature = None,
        max_tokens: MaxTokens = None,
        seed: AnySeed = None,
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
    ) -> CallToolResult:
        """Describe a picture, or answer a question about it. Give `image`, or `images`."""
        if bool(image) == bool(images):
            raise InvalidInput("give either image or images, and not empty", param="image")
        request = _checked(
            Img2TxtRequest,
            images=images or [image],
            question=question,
            model=model or None,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
        )
        return await run(request, ctx, priority=priority, wait_seconds=wait_seconds)


def _add_jobs(server: MCPServer, tools: Tools, default_wait: float) -> None:
    @server.tool(
        title="Wait for a job and collect its result",
        description="Collect what an earlier call began. Answers as that call would have done: "
        "with the result, or, if the job has not ended after wait_seconds, with its place in "
        "line. Can be called again and again.",
        annotations=_LOOKS,
        structured_output=False,
    )
    async def get_job(
        ctx: Context, job_id: JobId, output: Show = "preview", wait_seconds: Wait = default_wait
    ) -> CallToolResult:
        handle = await tools.handle(job_id)
        await _attended(ctx, tools.wait(handle, wait_seconds, _beat(ctx)))
        return await _told(tools, handle, ctx, output)

    @server.tool(title="Cancel a job", annotations=_CANCELS, structured_output=False)
    async def cancel_job(ctx: Context, job_id: JobId) -> CallToolResult:
        """Give up a job that waits or runs. A job that has ended stays as it is."""
        return plainly(tools.view(await tools.cancel(job_id), _base_url(ctx)))


def _add_figures(server: MCPServer, tools: Tools) -> None:
    @server.tool(
        title="Queues, running jobs and backends",
        description="Show what waits and runs, which models are in memory, and whether the "
        "inference server answers. Look here when something takes long.",
        annotations=_LOOKS,
    )
    async def get_queue_status() -> QueueStatus:
        return tools.queue_status()

    @server.tool(title="List models", annotations=_LOOKS)
    async def list_models() -> ModelList:
        """List the models that may be asked for, and for which kinds of requests each is."""
        return tools.models()

    @server.tool(title="Request metrics", annotations=_LOOKS)
    async def get_request_metrics() -> RequestFigures:
        """Show waiting times, processing times, throughput and success rate of recent jobs."""
        return RequestFigures.model_validate(tools.request_metrics())

    @server.tool(title="Error metrics", annotations=_LOOKS)
    async def get_error_metrics() -> ErrorFigures:
        """Show how often requests failed, by kind and model, and the latest failures."""
        return ErrorFigures.model_validate(tools.error_metrics())
