"""The MCP door: fourteen tools and what they make, on the official SDK, in both protocol eras.

A tool that generates waits for its job for as long as hosts usually put up with, telling progress
all the while, and then hands out the job's id.
"""

import json

from mcp.server import MCPServer
from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolResult, ToolAnnotations
from starlette.applications import Starlette

from .. import __version__
from . import mcp_generators
from .figures import ErrorFigures, RequestFigures
from .job_desk import JobDesk
from .jobs import Listed, listed
from .mcp_answers import plainly
from .mcp_arguments import Cursor, JobId, Limit, OneModality, Show, States, Wait
from .mcp_caller import Caller
from .mcp_server import Medium, Server
from .mcp_task_methods import TaskMethods
from .overview import QueueStatus
from .tools import KINDS, Kind, ModelList, Tools

INSTRUCTIONS = """\
Text, pictures, speech and vectors from a local inference server. Every request waits in a queue;
short work, text above all, goes first.
A tool waits for its job for up to wait_seconds. If the job has not finished by then, the result
has a job_id and a state instead: call get_job with that job_id until the job has ended, now or
in a later session. Do not send the same request again; it would wait behind itself. A call with an
idempotency_key that broke off can be sent again, with the same key: it gets the same job.
To use a picture or a recording as input, pass the `reference` of an earlier result (job:<id>/<n>)
as `image` or `audio`.
Leave `model` out unless the user asks for one; list_models has the names.
`simulated: true` in a result means that a simulator made it, not a model: say so to the user."""

_LIST_TTL_MS = 300_000
_USUAL: dict[Kind, str] = {"images": "image/png", "audio": "audio/wav", "videos": "video/mp4"}
_LOOKS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_CANCELS = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)


def build(desk: JobDesk, *, wait_seconds: float, keep_s: float) -> MCPServer:
    """Make the server.

    Args:
        desk: what knows jobs, and has what every door has.
        wait_seconds: how long a tool waits where its caller does not say.
        keep_s: for how many seconds a job is kept at least.

    """
    tools = desk.tools
    caller = Caller(tools, keep_s=keep_s)
    server = Server(
        "inference-manager",
        title="Inference Manager",
        version=__version__,
        instructions=INSTRUCTIONS,
        log_level="WARNING",
        cache_hints={"tools/list": CacheHint(ttl_ms=_LIST_TTL_MS, scope="public")},
        extensions=[TaskMethods(caller)],
    )
    mcp_generators.add(server, caller, wait_seconds)
    _add_jobs(server, desk, caller, wait_seconds)
    _add_figures(server, tools)
    for kind in KINDS:
        _add_medium(server, tools, kind)
    _add_job(server, tools, caller)
    return server


def http_app(server: MCPServer, *, body_limit: int) -> Starlette:
    """Make the streamable HTTP endpoint at `/mcp`; bodies may have `body_limit` bytes.

    `Guard` stands in front of every door and judges `Host` and `Origin`, so the SDK need not.
    """
    return server.streamable_http_app(
        max_request_body_size=body_limit,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )


def _add_jobs(server: MCPServer, desk: JobDesk, caller: Caller, default_wait: float) -> None:
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
        return await caller.look(job_id, ctx, wait_seconds=wait_seconds, output=output)

    @server.tool(title="Cancel a job", annotations=_CANCELS, structured_output=False)
    async def cancel_job(ctx: Context, job_id: JobId) -> CallToolResult:
        """Give up a job that waits or runs. A job that has ended stays as it is."""
        return plainly(caller.facts(await desk.tools.cancel(job_id), ctx.request_context))

    @server.tool(title="List jobs", annotations=_LOOKS, structured_output=False)
    async def list_jobs(
        state: States = None, modality: OneModality = None, limit: Limit = 20, cursor: Cursor = ""
    ) -> CallToolResult:
        """List your own jobs, the newest first; get_job has what came of one."""
        asked = Listed(state=state, modality=modality, limit=limit, cursor=cursor or None)
        page = await listed(desk, asked)
        return plainly(page.model_dump(mode="json", exclude_none=True))


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


def _add_medium(server: MCPServer, tools: Tools, kind: Kind) -> None:
    word = KINDS[kind]

    @server.resource(
        f"inference://{kind}/{{job_id}}/{{index}}",
        name=kind,
        title=f"A {word} that a job made",
        description=f"The {word}, as it was made. `index` counts from 0.",
        mime_type=_USUAL[kind],
    )
    async def read(job_id: str, index: int) -> bytes:  # pyright: ignore[reportUnusedFunction]
        medium = await tools.medium(kind, job_id, index)
        return Medium.of(await tools.blobs.read(medium.data), medium.media_type)


def _add_job(server: MCPServer, tools: Tools, caller: Caller) -> None:
    @server.resource(
        "inference://jobs/{job_id}",
        name="jobs",
        title="A job",
        description="How a job is, and what came of it, as get_job tells it to programs.",
        mime_type="application/json",
    )
    async def read(job_id: str, ctx: Context) -> str:  # pyright: ignore[reportUnusedFunction]
        job = (await tools.handle(job_id)).job
        return json.dumps(caller.facts(job, ctx.request_context))
