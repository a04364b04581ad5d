"""A processor in front of simulators in one event loop whose time jumps, with a `Front` each."""

import asyncio
import itertools
import logging
import ssl
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from src.handles import JobHandle
from src.models.capacity import BackendLimits, Capacity
from src.models.catalog import ModelDefinition
from src.models.jobs import Job
from src.models.metrics import ErrorLog, RequestMetrics
from src.models.modality import Modality
from src.models.requests import REQUESTS, InferenceRequest
from src.models.scheduler import Scheduler
from src.processor import Processor, Timing
from src.routes.figures import ErrorFigures, RequestFigures
from src.routes.overview import queue_status
from src.simulator.config import SimulatorConfig
from src.simulator.reports import RequestRecord
from src.simulator.serve import listen, server_for
from src.simulator.simulation import Simulation
from src.utils.attachments import prepare
from src.utils.blobs import FileBlobs
from src.utils.localai_client import LocalAIClient
from src.utils.logs import EventLog
from src.utils.retry import RetryPolicy

from . import virtual_time
from .front import Front
from .kept import in_memory
from .oracle import HANG_UP_S, Diary, Witness, findings

CANARY = "heliotrope-canary"
KEY = f"key-{CANARY}"
EPOCH = 1_790_000_000.0
DRAWS = frozenset({Modality.TXT2IMG, Modality.IMG2IMG, Modality.INPAINT})
PLAIN = ssl.create_default_context()


@dataclass
class Site:
    """One simulator and what stands before it."""

    name: str
    simulation: Simulation
    front: Front
    worked: list[RequestRecord] = field(default_factory=list[RequestRecord])

    def read_journal(self) -> None:
        """Take over what is new; the entries go on changing, but old ones are forgotten there."""
        last = self.worked[-1].number if self.worked else 0
        self.worked += self.simulation.journal.entries(since=last)

    def journal(self) -> list[RequestRecord]:
        """Tell the calls as the wire saw them: an answer that nobody heard was left."""
        self.read_journal()
        seen: list[RequestRecord] = []
        for record in self.worked:
            job_id, _, number = record.correlation_id.removeprefix("chatcmpl-").partition("#")
            unheard = record.ending == "completed" and self.front.calls[int(number)].left
            ending = "client_left" if unheard else record.ending
            seen.append(record.model_copy(update={"correlation_id": job_id, "ending": ending}))
        return seen + [
            RequestRecord(
                number=call.number,
                correlation_id=call.job_id,
                path=call.path,
                arrived=call.at,
                ended=call.ended,
                ending="fault:front",
            )
            for call in self.front.calls
            if call.scripted
        ]


@dataclass
class Stage:
    """Everything that plays, and what is written down of it."""

    sites: Sequence[Site]
    processor: Processor
    witness: Witness
    blobs: FileBlobs
    metrics: RequestMetrics
    errors: ErrorLog
    outside: "Outside"
    attempt_s: float
    cancelled: dict[str, float] = field(default_factory=dict[str, float])
    overheard: list[str] = field(default_factory=list[str])

    @property
    def front(self) -> Front:
        """What stands before the first simulator."""
        return self.sites[0].front

    async def submit(self, modality: Modality, fields: Mapping[str, Any], **how: Any) -> JobHandle:
        """Submit a request as a door does."""
        request: InferenceRequest = REQUESTS[modality].model_validate(fields)
        prepared = await prepare(request, cast("Any", None), self.blobs)
        return await self.processor.submit(prepared, **how)

    async def cancel(self, job_id: str) -> None:
        """Cancel a job, and look a second later whether somebody still listens for it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self.processor.cancel(job_id)
        self.cancelled[job_id] = loop.time() - began
        loop.call_later(HANG_UP_S, self._overhear, job_id)

    def _overhear(self, job_id: str) -> None:
        ghosts = {run.entry.id for run in self.processor.scheduler.running if run.ghost}
        calls = [call for site in self.sites for call in site.front.open_calls(job_id)]
        if calls and job_id not in ghosts:
            self.overheard.append(job_id)

    def findings(self, fresh: Sequence[Job]) -> list[str]:
        """Ask the oracle, after everything has come to rest."""
        now = clock()
        first = self.sites[0].simulation
        diary = Diary(
            told=self.witness.told,
            seen=self.witness.seen,
            journals=[site.journal() for site in self.sites],
            summaries=[
                site.simulation.journal.summary(
                    loads={},
                    swaps=site.simulation.engine.world.swaps,
                    over_budget=site.simulation.engine.world.over_budget,
                )
                for site in self.sites
            ],
            cancelled=self.cancelled,
            overheard=self.overheard,
            fresh=fresh,
            parallel={name: model.slots for name, model in first.config.models.items()},
            attempt_s=self.attempt_s,
            canary=CANARY,
            outside=[
                *self.outside.lines,
                queue_status(self.processor, now).model_dump_json(),
                RequestFigures.model_validate(self.metrics.report(now)).model_dump_json(),
                ErrorFigures.model_validate(self.errors.report()).model_dump_json(),
            ],
        )
        return findings(self.processor, diary)


class Outside(logging.Handler):
    """Everything that was logged, with all that stands in the records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.__dict__}")


def clock() -> float:
    """Tell the Unix seconds of the running loop."""
    return EPOCH + asyncio.get_running_loop().time()


@asynccontextmanager
async def stage(
    config: SimulatorConfig,
    timing: Timing,
    *,
    names: Sequence[str] = ("localai",),
    host: str = "127.0.0.1",
    server_tls: ssl.SSLContext | None = None,
    client: Mapping[str, Any],
    warm: Sequence[str] = (),
) -> AsyncGenerator[Stage]:
    """Put everything up; `client` is how a client is made, besides its name and address."""
    config = config.patched({"api_key": KEY})
    options: dict[str, Any] = {"verify": PLAIN, **client}
    async with AsyncExitStack() as stack:
        virtual_time.here().names["localai.test"] = "127.0.0.1"
        outside = stack.enter_context(_logged())
        sites = [await stack.enter_async_context(_site(n, config, server_tls)) for n in names]
        blobs = FileBlobs()
        stack.push_async_callback(blobs.close)
        scheme = "http" if server_tls is None else "https"
        numbers = itertools.count(1)
        witness, metrics, errors = Witness(clock), RequestMetrics(), ErrorLog()
        processor = Processor(
            backends=[
                LocalAIClient(
                    name=site.name,
                    url=f"{scheme}://{host}:{site.front.port}",
                    api_key=KEY,
                    clock=clock,
                    blobs=blobs,
                    **options,
                )
                for site in sites
            ],
            store=in_memory(blobs),
            scheduler=Scheduler(
                Capacity(dict.fromkeys(names, BackendLimits(memory_gb=config.memory_gb)))
            ),
            definitions=[
                ModelDefinition(
                    name=name,
                    modality=DRAWS if model.kind == "image" else frozenset(),
                    weights_gb=model.weights_gb,
                    parallel=model.slots,
                )
                for name, model in config.models.items()
            ],
            retry=RetryPolicy(),
            timing=timing,
            clock=clock,
            new_id=lambda: f"job-{next(numbers)}",
            listeners=[witness, metrics, errors, EventLog()],
            blobs=blobs,
            warm=warm,
        )
        witness.processor = processor
        await stack.enter_async_context(processor.running())
        longest = max(timing.attempt_s.values())
        yield Stage(sites, processor, witness, blobs, metrics, errors, outside, longest)


@asynccontextmanager
async def _site(
    name: str, config: SimulatorConfig, tls: ssl.SSLContext | None
) -> AsyncGenerator[Site]:
    """Serve a simulator without the ticks of its server, which would stop time from jumping."""
    simulation = Simulation(config, monotonic=asyncio.get_running_loop().time)
    door = listen("127.0.0.1", 0)
    upstream: tuple[str, int] = door.getsockname()
    server = server_for(simulation, *upstream)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup([door])
    front = Front(upstream, tls)
    await front.open()
    try:
        yield Site(name, simulation, front)
    finally:
        front.thaw()
        await front.close()
        await server.shutdown([door])


@contextmanager
def _logged() -> Generator[Outside]:
    """Write down everything that is logged."""
    ours = logging.getLogger("inference_manager")
    outside, level = Outside(), ours.level
    ours.addHandler(outside)
    ours.setLevel(logging.DEBUG)
    try:
        yield outside
    finally:
        ours.removeHandler(outside)
        ours.setLevel(level)
