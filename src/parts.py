"""What works behind the doors: makes every part from the settings, and says who gets what."""

import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from . import pool
from .broadcast import Broadcast
from .groups import Groups
from .housekeeping import Housekeeping
from .models.capacity import BackendLimits, Capacity
from .models.metrics import ErrorLog, RequestMetrics
from .models.ports import Backend, Clock, JobStore
from .models.scheduler import Scheduler
from .models.tally import Tally
from .models.webhooks import WebhookRules, read_secret
from .moving import Moving
from .operating import Operating
from .processor import Processor, Timing
from .reload import Reload
from .routes.job_desk import JobDesk
from .routes.operators import Operators
from .routes.tools import Tools
from .settings import Settings
from .sharing import Sharing
from .stopping import Stopping
from .tunable import MIB, bounds_of, keeping_of, puts
from .utils.hangup import at_hangup
from .utils.logs import EventLog
from .utils.model_files import read_definitions
from .utils.retry import RetryPolicy
from .utils.spool import Spool
from .utils.stores.audit import Audit
from .utils.stores.controls import KeptControls
from .utils.stores.database import Database
from .utils.stores.deliveries import Deliveries, outbox
from .utils.stores.files import Files
from .utils.stores.opening import folder_of
from .utils.stores.shelf import Shelf
from .utils.stores.sqlite import SQLiteStore
from .utils.webhook_client import WebhookClient
from .webhooks import Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the doors lead to."""

    database: Database
    blobs: Spool
    files: Files
    processor: Processor
    tools: Tools
    desk: JobDesk
    broadcast: Broadcast
    tally: Tally
    operators: Operators
    operating: Operating
    housekeeping: Housekeeping
    webhooks: Webhooks
    stopping: Stopping

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Work for as long as the block lasts.

        Raises:
            StoreUnusable: the database cannot be opened.

        """
        async with AsyncExitStack() as stack:
            stack.enter_context(self.stopping.on_signals())
            stack.push_async_callback(self.blobs.close)
            await self.database.open()
            stack.push_async_callback(self.database.close)
            await self.operating.open()
            await stack.enter_async_context(self.processor.running())
            stack.push_async_callback(self.stopping.wind_down)
            await stack.enter_async_context(self.housekeeping.running())
            reload = at_hangup(lambda: self.operating.reload("signal SIGHUP"))
            await stack.enter_async_context(reload)
            await stack.enter_async_context(self.webhooks.running())
            yield


def make_parts(
    settings: Settings,
    *,
    backends: Sequence[Backend] | None,
    store: JobStore | None,
    retry: RetryPolicy | None,
    timing: Timing | None,
    clock: Clock,
    again: Callable[[], Settings] | None,
    keyed: bool,
) -> Parts:
    """Make the parts; opens nothing.

    Args:
        settings: what they are made from.
        backends: used instead of those of the settings; `store`, `retry` and `timing` likewise.
        store: see there.
        retry: see there.
        timing: see there.
        clock: the one clock.
        again: reads the settings anew.
        keyed: whether callers are asked for keys.

    Raises:
        BadBackend: a key or a certificate of the settings cannot be used.

    """
    path = settings.store_path
    database = Database(path or ":memory:")
    blobs = Spool(None if path is None else folder_of(path, "blobs"))
    metrics, error_log = RequestMetrics(), ErrorLog()
    retry = retry or RetryPolicy(attempts=settings.max_attempts)
    kept = SQLiteStore(
        database,
        blobs=blobs,
        keep_bytes=settings.keep_results_mb * MIB,
        keeping=keeping_of(settings),
        clock=clock,
        outbox=outbox(settings.public_url),
    )
    if backends is None:
        backends = list(pool.clients(settings, clock=clock, blobs=blobs))
        rooms = pool.limits(settings)
    else:
        room = BackendLimits(resident=settings.resident, memory_gb=settings.memory_gb)
        rooms = {backend.name: room for backend in backends}
    processor = Processor(
        backends=backends,
        store=store or kept,
        scheduler=Scheduler(
            Capacity(rooms),
            order=settings.order,
            bounds=bounds_of(settings),
            affinity_s=settings.affinity_s,
            shut_down_ghosts=settings.reload_when_cheaper,
        ),
        definitions=read_definitions(settings.models_dir),
        retry=retry,
        timing=timing or _timing(settings),
        clock=clock,
        new_id=new_id,
        listeners=[metrics, error_log, EventLog()],
        blobs=blobs,
        warm=settings.warm,
    )
    sharing = Sharing(processor, blobs, merge=settings.merge, cache_bytes=settings.cache_mb * MIB)
    rules = _webhook_rules(settings)
    deliveries = Deliveries(database)
    webhooks = Webhooks(deliveries, WebhookClient(rules, clock=clock), rules=rules, clock=clock)
    broadcast, tally = Broadcast(), Tally()
    for listener in (sharing, webhooks, broadcast, tally):
        processor.listen(listener)
    tools = Tools(
        processor,
        sharing,
        metrics,
        error_log,
        clock=clock,
        blobs=blobs,
        public_url=settings.public_url,
        link_s=settings.link_s,
        sign_links=keyed,
    )
    stopping = Stopping(processor, grace_s=settings.grace_s)
    operators = Operators(settings.operators, keyed=keyed)
    tunable = puts(processor, kept, retry, operators, stopping)
    return Parts(
        database=database,
        blobs=blobs,
        files=Files(
            database,
            Shelf(None if path is None else folder_of(path, "files")),
            clock=clock,
            new_id=new_id,
            budget_bytes=settings.files_mb * MIB,
            keep_s=settings.keep_files_s,
        ),
        processor=processor,
        tools=tools,
        desk=JobDesk(
            tools,
            processor,
            Groups(processor, new_id),
            Moving(processor, show=broadcast.show),
            check_webhook=rules.check,
            deliveries=deliveries,
        ),
        broadcast=broadcast,
        tally=tally,
        operators=operators,
        operating=Operating(
            processor,
            blobs=blobs,
            kept=KeptControls(database),
            audit=Audit(database),
            reload=Reload(settings, again or (lambda: settings), tunable),
            clock=clock,
        ),
        housekeeping=Housekeeping(processor.store, tidy=database.tidy, clock=clock),
        webhooks=webhooks,
        stopping=stopping,
    )


def new_id() -> str:
    """Make an id that nobody can guess."""
    return secrets.token_urlsafe(12)


def _timing(settings: Settings) -> Timing:
    return Timing(
        deadline_s=settings.deadline_s,
        attempt_s=settings.attempt_s,
        ghost_s=settings.ghost_s,
        look_s=settings.look_s,
        crash_s=settings.crash_s,
        promised_s=settings.job_deadline_s,
    )


def _webhook_rules(settings: Settings) -> WebhookRules:
    return WebhookRules(
        keys=[read_secret(secret.get_secret_value()) for secret in settings.webhook_secrets],
        allow_http=settings.webhook_allow_http,
        allow_private=settings.webhook_allow_private,
    )
