"""The composition root: makes every part and says who gets what."""

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from mcp.server import MCPServer

from . import __version__, pool
from .batches import BatchRunner
from .broadcast import Broadcast
from .groups import Groups
from .housekeeping import Housekeeping
from .models.capacity import BackendLimits, Capacity
from .models.errors import StoreUnusable
from .models.metrics import ErrorLog, RequestMetrics
from .models.ports import Backend, Clock, JobStore
from .models.scheduler import Bounds, Scheduler
from .models.tally import Tally
from .models.webhooks import WebhookRules, read_secret
from .moving import Moving
from .operating import Operating
from .processor import Processor, Timing
from .reading import settings_from
from .reload import Reload
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
from .routes.job_desk import JobDesk
from .routes.mcp_caller import user_of
from .routes.openai import batches as openai_batches
from .routes.openai import files as openai_files
from .routes.openai.batch_desk import BatchDesk
from .routes.openai.files import FORM_BYTES, UPLOADS
from .routes.operators import Operators
from .routes.request_ids import RequestIds
from .routes.shortcut import Shortcut
from .routes.spooling import Spooling
from .routes.tools import Tools
from .settings import Settings
from .sharing import Sharing
from .stopping import Stopping
from .utils.allocator import give_back_large_blocks
from .utils.hangup import at_hangup
from .utils.key_file import read_key_file
from .utils.logs import EventLog, set_up
from .utils.model_files import read_definitions
from .utils.retry import RetryPolicy
from .utils.spool import Spool
from .utils.stores.audit import Audit
from .utils.stores.batches import Batches
from .utils.stores.controls import KeptControls
from .utils.stores.database import Database
from .utils.stores.deliveries import Deliveries, outbox
from .utils.stores.files import Files
from .utils.stores.rows import Keeping
from .utils.stores.shelf import Shelf
from .utils.stores.sqlite import SQLiteStore
from .utils.webhook_client import WebhookClient
from .webhooks import Webhooks

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
    path = settings.store_path
    database = Database(path or ":memory:")
    metrics, error_log = RequestMetrics(), ErrorLog()
    blobs = Spool(None if path is None else path.parent / "blobs")
    if backends is None:
        backends = list(pool.clients(settings, clock=clock, blobs=blobs))
        rooms = pool.limits(settings)
    else:
        room = BackendLimits(resident=settings.resident, memory_gb=settings.memory_gb)
        rooms = {backend.name: room for backend in backends}
    retry = retry or RetryPolicy(attempts=settings.max_attempts)
    kept = SQLiteStore(
        database,
        blobs=blobs,
        keep_bytes=settings.keep_results_mb * MIB,
        keeping=_keeping(settings),
        clock=clock,
        outbox=outbox(settings.public_url),
    )
    store = kept if store is None else store
    processor = Processor(
        backends=backends,
        store=store,
        scheduler=Scheduler(
            Capacity(rooms),
            order=settings.order,
            bounds=_bounds(settings),
            affinity_s=settings.affinity_s,
            shut_down_ghosts=settings.reload_when_cheaper,
        ),
        definitions=read_definitions(settings.models_dir),
        retry=retry,
        timing=timing
        or Timing(
            deadline_s=settings.deadline_s,
            attempt_s=settings.attempt_s,
            ghost_s=settings.ghost_s,
            look_s=settings.look_s,
            crash_s=settings.crash_s,
            promised_s=settings.job_deadline_s,
        ),
        clock=clock,
        new_id=new_id,
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
    rules = _webhook_rules(settings)
    deliveries = Deliveries(database)
    client = WebhookClient(rules, clock=clock)
    webhooks = Webhooks(deliveries, client, rules=rules, clock=clock)
    processor.listen(webhooks)
    broadcast, tally = Broadcast(), Tally()
    processor.listen(broadcast)
    processor.listen(tally)
    job_desk = JobDesk(
        tools,
        processor,
        Groups(processor, new_id),
        Moving(processor, show=broadcast.show),
        check_webhook=rules.check,
        deliveries=deliveries,
    )
    mcp_server = mcp.build(job_desk, wait_seconds=settings.wait_seconds, keep_s=settings.keep_s)
    if extend_mcp is not None:
        extend_mcp(mcp_server)
    stopping = Stopping(processor, grace_s=settings.grace_s)
    files = Files(
        database,
        Shelf(None if database.path is None else database.path.parent / "files"),
        clock=clock,
        new_id=new_id,
        budget_bytes=settings.files_mb * MIB,
        keep_s=settings.keep_files_s,
    )
    housekeeping = Housekeeping(store, tidy=database.tidy, clock=clock)
    operators = Operators(settings.operators, keyed=bool(keys))
    puts = {**_puts(processor, retry, operators, stopping), **_keeps(kept)}
    reload = Reload(settings, again or (lambda: settings), puts)
    operating = Operating(
        processor,
        blobs=blobs,
        kept=KeptControls(database),
        audit=Audit(database),
        reload=reload,
        clock=clock,
    )
    body_limit = settings.body_limit_mb * MIB
    mcp_app = mcp.http_app(mcp_server, body_limit=body_limit)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        set_up(settings.log_file, settings.log_level, console=settings.log_console)
        give_back_large_blocks()
        _warn_of_unverified(settings)
        async with AsyncExitStack() as stack:
            stack.enter_context(stopping.on_signals())
            stack.push_async_callback(blobs.close)
            try:
                await database.open()
            except StoreUnusable as error:
                app.state.unusable = error
                raise
            stack.push_async_callback(database.close)
            await operating.open()
            await stack.enter_async_context(processor.running())
            stack.push_async_callback(stopping.wind_down)
            await stack.enter_async_context(housekeeping.running())
            await stack.enter_async_context(at_hangup(lambda: operating.reload("signal SIGHUP")))
            await stack.enter_async_context(runner.running())
            await stack.enter_async_context(webhooks.running())
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
    desk = BatchDesk(doors, tools, longest=body_limit)
    runner = BatchRunner(
        Batches(database),
        files,
        processor,
        desk,
        clock=clock,
        new_id=new_id,
        window=_window(settings),
        longest=body_limit,
        keep_s=settings.keep_files_s,
    )
    largest = settings.max_file_mb * MIB + FORM_BYTES
    app.router.routes.extend(openai_files.build(files, longest=largest, send_s=manner.send_s))
    app.router.routes.extend(openai_batches.build(runner))
    app.router.routes.extend(sdapi.build(tools, processor, manner))
    app.router.routes.extend(plain.build(tools, manner))
    app.include_router(status.build(processor, clock=clock))
    app.include_router(queue_admin.build(operating, processor.scheduler, operators))
    app.include_router(error_pages.build())
    app.include_router(twins.build(tools), max_body_size=body_limit)
    submitting = jobs.submit(job_desk, longest=body_limit)
    app.router.routes.append(submitting)
    app.router.routes.extend(aliases.submit(job_desk, longest=body_limit))
    app.include_router(jobs.build(job_desk), max_body_size=body_limit)
    app.include_router(aliases.build(job_desk, tally))
    app.include_router(sockets.build(sockets.Sockets(job_desk, broadcast)))
    app.router.routes.extend(mcp_app.routes)
    app.add_middleware(Shortcut, routes=[*doors, submitting])
    app.add_middleware(Spooling, spool=blobs, longest=body_limit)
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
    app.state.stopping = stopping
    app.state.batches = runner
    return app


def new_id() -> str:
    """Make an id that nobody can guess."""
    return secrets.token_urlsafe(12)


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        waiting=settings.max_waiting,
        per_modality=settings.max_waiting,
        per_caller=settings.max_waiting_per_caller,
        waiting_bytes=settings.max_waiting_mb * MIB,
        waiting_disk_bytes=settings.max_waiting_disk_mb * MIB,
    )


def _keeping(settings: Settings) -> Keeping:
    return Keeping(done_s=settings.keep_s, failed_s=settings.keep_failed_s)


def _puts(
    processor: Processor, retry: RetryPolicy, operators: Operators, stopping: Stopping
) -> Mapping[str, Callable[[Settings], object]]:
    """Say how each setting that can be changed while the server runs is put into force."""
    scheduler = processor.scheduler

    def bounds(new: Settings) -> None:
        scheduler.bounds = _bounds(new)

    def affinity(new: Settings) -> None:
        scheduler.affinity_s = new.affinity_s

    def attempts(new: Settings) -> None:
        retry.attempts = new.max_attempts
        processor.loads.allow(new.max_attempts)

    def log_level(new: Settings) -> None:
        logging.getLogger().setLevel(new.log_level.upper())

    def grace(new: Settings) -> None:
        stopping.grace_s = new.grace_s

    def named(new: Settings) -> None:
        operators.names = new.operators

    return {
        "grace_s": grace,
        "max_waiting": bounds,
        "max_waiting_per_caller": bounds,
        "max_waiting_mb": bounds,
        "max_waiting_disk_mb": bounds,
        "affinity_s": affinity,
        "max_attempts": attempts,
        "log_level": log_level,
        "operators": named,
    }


def _keeps(store: SQLiteStore) -> Mapping[str, Callable[[Settings], object]]:
    """Say the same of what is kept, and how long."""

    def keeping(new: Settings) -> None:
        store.keep_bytes = new.keep_results_mb * MIB
        store.keeping = _keeping(new)

    return dict.fromkeys(("keep_results_mb", "keep_s", "keep_failed_s"), keeping)


def _window(settings: Settings) -> int:
    """Return how many lines of batches may be in the queue, so that there is room for others."""
    per_caller = settings.max_waiting_per_caller or settings.max_waiting
    return max(1, min(100, settings.max_waiting // 4, per_caller // 2))


def _webhook_rules(settings: Settings) -> WebhookRules:
    return WebhookRules(
        keys=[read_secret(secret.get_secret_value()) for secret in settings.webhook_secrets],
        allow_http=settings.webhook_allow_http,
        allow_private=settings.webhook_allow_private,
    )


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
