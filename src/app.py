"""The composition root: makes every part and says who gets what."""

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from mcp.server import MCPServer

from . import __version__, pool
from .models.capacity import BackendLimits, Capacity
from .models.metrics import ErrorLog, RequestMetrics
from .models.ports import Backend, Clock, JobStore
from .models.scheduler import Bounds, Scheduler
from .processor import Processor, Timing
from .routes import error_pages, errors, mcp, openai, plain, sdapi, status, twins
from .routes.callers import Callers
from .routes.described import describe_without_defaults
from .routes.doors import Manner
from .routes.guard import Guard
from .routes.intake import Intake
from .routes.mcp_caller import user_of
from .routes.request_ids import RequestIds
from .routes.shortcut import Shortcut
from .routes.spooling import Spooling
from .routes.tools import Tools
from .settings import Settings
from .sharing import Sharing
from .utils.allocator import give_back_large_blocks
from .utils.key_file import read_key_file
from .utils.logs import EventLog, set_up
from .utils.model_files import read_definitions
from .utils.retry import RetryPolicy
from .utils.spool import Spool
from .utils.stores.memory import MemoryStore

_log = logging.getLogger("inference_manager.app")

MIB = 2**20


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
        store: used instead of one in memory.
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
    settings = settings or Settings()
    keys = _keys(settings)
    metrics, error_log, blobs = RequestMetrics(), ErrorLog(), Spool()
    if backends is None:
        backends = list(pool.clients(settings, clock=clock, blobs=blobs))
        rooms = pool.limits(settings)
    else:
        room = BackendLimits(resident=settings.resident, memory_gb=settings.memory_gb)
        rooms = {backend.name: room for backend in backends}
    processor = Processor(
        backends=backends,
        store=MemoryStore(keep_bytes=settings.keep_results_mb * MIB, blobs=blobs)
        if store is None
        else store,
        scheduler=Scheduler(
            Capacity(rooms),
            order=settings.order,
            bounds=Bounds(
                waiting=settings.max_waiting,
                per_caller=settings.max_waiting_per_caller,
                waiting_bytes=settings.max_waiting_mb * MIB,
                waiting_disk_bytes=settings.max_waiting_disk_mb * MIB,
            ),
            affinity_s=settings.affinity_s,
            shut_down_ghosts=settings.reload_when_cheaper,
        ),
        definitions=read_definitions(settings.models_dir),
        retry=retry or RetryPolicy(attempts=settings.max_attempts),
        timing=timing
        or Timing(
            deadline_s=settings.deadline_s,
            attempt_s=settings.attempt_s,
            ghost_s=settings.ghost_s,
            look_s=settings.look_s,
            crash_s=settings.crash_s,
        ),
        clock=clock,
        new_id=lambda: secrets.token_urlsafe(12),
        listeners=[metrics, error_log, EventLog()],
        blobs=blobs,
        warm=settings.warm,
    )
    sharing = Sharing(
        processor,
        blobs,
        merge=settings.merge,
        cache_bytes=settings.cache_mb * MIB,
    )
    processor.listen(sharing)
    tools = Tools(
        processor,
        sharing,
        metrics,
        error_log,
        clock=clock,
        blobs=blobs,
        public_url=settings.public_url,
        link_s=settings.link_s,
        sign_links=bool(keys),
    )
    mcp_server = mcp.build(tools, wait_seconds=settings.wait_seconds)
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
            stack.push_async_callback(blobs.close)
            await stack.enter_async_context(processor.running(grace_s=settings.grace_s))
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
    app.router.routes.extend(sdapi.build(tools, processor, manner))
    app.router.routes.extend(plain.build(tools, manner))
    app.include_router(status.build(processor, clock=clock))
    app.include_router(error_pages.build())
    app.include_router(twins.build(tools), max_body_size=body_limit)
    app.router.routes.extend(mcp_app.routes)
    app.add_middleware(Shortcut, routes=doors)
    app.add_middleware(Spooling, spool=blobs, longest=body_limit)
    app.add_middleware(Intake, longest=body_limit)
    app.add_middleware(Callers, keys=keys, clock=clock, user=user_of)
    app.add_middleware(
        Guard,
        hosts=settings.allowed_hosts,
        origins=settings.allowed_origins,
        body_limit=body_limit,
    )
    app.add_middleware(RequestIds)
    app.state.processor = processor
    return app


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
