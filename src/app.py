"""The application: the doors, and what a request passes before it reaches one."""

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from mcp.server import MCPServer

from . import __version__
from .batches import BatchRunner
from .models.errors import StoreUnusable
from .models.ports import Backend, Clock, JobStore
from .parts import make_parts, new_id
from .processor import Timing
from .reading import settings_from
from .routes import (
    aliases,
    error_pages,
    errors,
    jobs,
    mcp,
    openai,
    plain,
    queue_admin,
    sdapi,
    sockets,
    status,
    twins,
)
from .routes.callers import Callers
from .routes.described import describe_without_defaults
from .routes.doors import Manner
from .routes.guard import Guard
from .routes.intake import Intake
from .routes.mcp_caller import user_of
from .routes.openai import batches as openai_batches
from .routes.openai import files as openai_files
from .routes.openai.batch_desk import BatchDesk
from .routes.openai.files import FORM_BYTES, UPLOADS
from .routes.request_ids import RequestIds
from .routes.shortcut import Shortcut
from .routes.spooling import Spooling
from .settings import Settings
from .tunable import MIB
from .utils.allocator import give_back_large_blocks
from .utils.key_file import read_key_file
from .utils.logs import set_up
from .utils.retry import RetryPolicy
from .utils.stores.batches import Batches

_log = logging.getLogger("inference_manager.app")


def create_app(
    settings: Settings | None = None,
    *,
    backends: Sequence[Backend] | None = None,
    store: JobStore | None = None,
    retry: RetryPolicy | None = None,
    timing: Timing | None = None,
    clock: Clock = time.time,
    extend_mcp: Callable[[MCPServer], object] | None = None,
    again: Callable[[], Settings] | None = None,
) -> FastAPI:
    """Make the application. Opens nothing: sockets, files and tasks begin with its lifespan.

    Args:
        settings: where everything is read from; by default the environment and `config.yaml`.
        backends: used instead of those of the settings.
        store: used for jobs, instead of that of the settings.
        retry: used instead of the policy of the settings.
        timing: used instead of that of the settings.
        clock: the one clock of the application.
        extend_mcp: registers further tools, resources and prompts with the MCP server.
        again: reads the settings anew when the server is told to, raising `BadSettings`; by
            default from where they came, or not at all if they were given.

    Raises:
        BadBackend: a key or a certificate of the settings cannot be used.
        BadKeyFile: the file with the keys of callers cannot be used.

    """
    if settings is None:
        settings, again = Settings(), again or settings_from
    keys = _keys(settings)
    parts = make_parts(
        settings,
        backends=backends,
        store=store,
        retry=retry,
        timing=timing,
        clock=clock,
        again=again,
        keyed=bool(keys),
    )
    processor, tools, desk = parts.processor, parts.tools, parts.desk
    mcp_server = mcp.build(desk, wait_seconds=settings.wait_seconds, keep_s=settings.keep_s)
    if extend_mcp is not None:
        extend_mcp(mcp_server)
    body_limit = settings.body_limit_mb * MIB
    mcp_app = mcp.http_app(mcp_server, body_limit=body_limit)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        set_up(settings.log_file, settings.log_level, console=settings.log_console)
        give_back_large_blocks()
        _warn_of_unverified(settings)
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(parts.running())
            except StoreUnusable as error:
                app.state.unusable = error
                _log.critical("the store cannot be used: %s; %s", error.message, error.hint)
                raise
            await stack.enter_async_context(runner.running())
            await stack.enter_async_context(mcp_server.session_manager.run())
            yield

    app = FastAPIOffline(
        title="Inference Manager",
        version=__version__,
        summary="Type-ordered queues in front of LocalAI",
        redoc_url=None,
        lifespan=lifespan,
    )
    errors.install(app)
    describe_without_defaults(app)
    manner = Manner(longest=body_limit)
    doors = openai.build(tools, manner)
    app.router.routes.extend(doors)
    runner = BatchRunner(
        Batches(parts.database),
        parts.files,
        processor,
        BatchDesk(doors, tools, longest=body_limit),
        clock=clock,
        new_id=new_id,
        window=_window(settings),
        longest=body_limit,
        keep_s=settings.keep_files_s,
    )
    largest = settings.max_file_mb * MIB + FORM_BYTES
    app.router.routes.extend(openai_files.build(parts.files, longest=largest, send_s=manner.send_s))
    app.router.routes.extend(openai_batches.build(runner))
    app.router.routes.extend(sdapi.build(tools, processor, manner))
    app.router.routes.extend(plain.build(tools, manner))
    app.include_router(status.build(processor, clock=clock))
    app.include_router(queue_admin.build(parts.operating, processor.scheduler, parts.operators))
    app.include_router(error_pages.build())
    app.include_router(twins.build(tools), max_body_size=body_limit)
    submitting = jobs.submit(desk, longest=body_limit)
    app.router.routes.append(submitting)
    app.router.routes.extend(aliases.submit(desk, longest=body_limit))
    app.include_router(jobs.build(desk), max_body_size=body_limit)
    app.include_router(aliases.build(desk, parts.tally))
    app.include_router(sockets.build(sockets.Sockets(desk, parts.broadcast)))
    app.router.routes.extend(mcp_app.routes)
    app.add_middleware(Shortcut, routes=[*doors, submitting])
    app.add_middleware(Spooling, spool=parts.blobs, longest=body_limit)
    app.add_middleware(Intake, longest=body_limit, streamed=UPLOADS)
    app.add_middleware(Callers, keys=keys, clock=clock, user=user_of)
    app.add_middleware(
        Guard,
        hosts=settings.allowed_hosts,
        origins=settings.allowed_origins,
        body_limit=body_limit,
        limits=dict.fromkeys(UPLOADS, largest),
    )
    app.add_middleware(RequestIds)
    app.state.processor = processor
    app.state.unusable = None
    app.state.stopping = parts.stopping
    app.state.batches = runner
    return app


def _window(settings: Settings) -> int:
    """Return how many lines of batches may be in the queue, so that there is room for others."""
    per_caller = settings.max_waiting_per_caller or settings.max_waiting
    return max(1, min(100, settings.max_waiting // 4, per_caller // 2))


def _keys(settings: Settings) -> dict[str, str]:
    """Return the key of each caller."""
    if settings.api_keys_file is not None:
        return read_key_file(settings.api_keys_file)
    return {name: key.get_secret_value() for name, key in settings.api_keys.items()}


def _warn_of_unverified(settings: Settings) -> None:
    for backend in settings.pool:
        if not backend.verify:
            _log.warning(
                "backend %s: its TLS certificate is not verified (verify: false); "
                "whoever answers in its place is believed, and gets its key",
                backend.name,
            )
