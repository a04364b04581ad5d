"""Hours of bad weather in minutes: every fault of the simulator, in virtual time.

The manager, the simulator and the callers live in one event loop whose time jumps. IM_SOAK_HOURS
says how many hours are played; the suite plays half an hour, `make soak` six.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from src.handles import JobHandle
from src.models.capacity import BackendLimits, Capacity
from src.models.catalog import ModelDefinition
from src.models.errors import InferenceManagerError
from src.models.events import Ended
from src.models.jobs import JobState, Level
from src.models.metrics import ErrorLog, RequestMetrics
from src.models.modality import Modality
from src.models.requests import REQUESTS, InferenceRequest
from src.models.scheduler import Scheduler
from src.processor import Processor
from src.routes.figures import ErrorFigures, RequestFigures
from src.routes.overview import queue_status
from src.simulator.config import DEFAULT_MODELS, SimulatorConfig
from src.simulator.reports import RequestRecord, Summary
from src.simulator.serve import listen, server_for
from src.simulator.simulation import Simulation
from src.utils.attachments import prepare
from src.utils.blobs import FileBlobs
from src.utils.localai_client import LocalAIClient
from src.utils.logs import EventLog
from src.utils.retry import RetryPolicy
from src.utils.stores.memory import MemoryStore

from . import virtual_time
from .managing import Recorder, timing
from .oracle import Diary, findings

HOURS = float(os.environ.get("IM_SOAK_HOURS", "0.5"))
SEED = int(os.environ.get("IM_SOAK_SEED", "7"))
CANARY = "heliotrope-canary"
EPOCH = 1_790_000_000.0
EVERY_S = 4.0

SMALL: dict[Modality, dict[str, Any]] = {
    Modality.TXT2TXT: {"prompt": f"tell of {CANARY}", "max_tokens": 20, "model": "sim-chat"},
    Modality.TXT2VEC: {"input": [CANARY, "another"], "model": "sim-embed"},
    Modality.RERANK: {"query": CANARY, "documents": ["one", "two"], "model": "sim-embed"},
    Modality.TXT2AUDIO: {"input": f"say {CANARY}", "model": "sim-voice"},
    Modality.TXT2IMG: {
        "prompt": f"draw {CANARY}",
        "width": 64,
        "height": 64,
        "steps": 5,
        "model": "sim-image",
    },
    Modality.TXT2SOUND: {"prompt": CANARY, "seconds": 1, "model": "sim-voice"},
}


@dataclass
class Weather:
    """A processor in front of a simulator in the same loop."""

    simulation: Simulation
    processor: Processor
    recorder: Recorder
    blobs: FileBlobs
    metrics: RequestMetrics
    errors: ErrorLog
    cancelled: dict[str, float] = field(default_factory=dict[str, float])
    calls: list[RequestRecord] = field(default_factory=list[RequestRecord])

    def read_journal(self) -> None:
        """Take over what is new; the entries go on changing, but old ones are forgotten there."""
        last = self.calls[-1].number if self.calls else 0
        self.calls += self.simulation.journal.entries(since=last)

    def summary(self) -> Summary:
        """Add up what the simulator has seen."""
        world = self.simulation.engine.world
        return self.simulation.journal.summary(
            loads={}, swaps=world.swaps, over_budget=world.over_budget
        )

    async def submit(self, modality: Modality, **options: Any) -> JobHandle:
        request: InferenceRequest = REQUESTS[modality].model_validate(SMALL[modality])
        prepared = await prepare(request, cast("Any", None), self.blobs)
        return await self.processor.submit(prepared, **options)

    async def live(self, dice: random.Random) -> None:
        """Be one caller: wait for the result, read the stream, give up, or be in a hurry."""
        hurry = dice.random() < 0.1
        handle = await self.submit(
            dice.choice(list(SMALL)),
            level=dice.choice(list(Level)),
            deadline_s=dice.uniform(1, 60) if hurry else None,
        )
        mood = dice.random()
        if mood < 0.2:
            await asyncio.sleep(dice.expovariate(1 / 5))
            began = asyncio.get_running_loop().time()
            await self.processor.cancel(handle.id)
            self.cancelled[handle.id] = asyncio.get_running_loop().time() - began
        elif mood < 0.5:
            with contextlib.suppress(InferenceManagerError):
                async for chunk in handle.stream():
                    assert chunk is not None
        await handle.settled()


@asynccontextmanager
async def weather(profile: str) -> AsyncGenerator[Weather]:
    loop = asyncio.get_running_loop()
    config = SimulatorConfig.model_validate({"profile": profile, "seed": SEED})
    simulation = Simulation(config, monotonic=loop.time)
    door = listen("127.0.0.1", 0)
    port = door.getsockname()[1]
    server = server_for(simulation, "127.0.0.1", port)
    serving = asyncio.create_task(server.serve(sockets=[door]))

    def clock() -> float:
        return EPOCH + loop.time()

    recorder, blobs = Recorder(), FileBlobs()
    metrics, errors, numbers = RequestMetrics(), ErrorLog(), itertools.count(1)
    backend = LocalAIClient(
        name="localai",
        url=f"http://127.0.0.1:{port}",
        first_byte_s=60.0,
        idle_s=30.0,
        load_s=120.0,
        clock=clock,
        blobs=blobs,
    )
    definitions = [
        ModelDefinition(
            name=name,
            weights_gb=model.get("weights_gb"),
            parallel=model.get("slots", 1),
        )
        for name, model in cast("dict[str, dict[str, Any]]", DEFAULT_MODELS).items()
    ]
    processor = Processor(
        backends=[backend],
        store=MemoryStore(blobs=blobs),
        scheduler=Scheduler(Capacity({"localai": BackendLimits(memory_gb=config.memory_gb)})),
        definitions=definitions,
        retry=RetryPolicy(),
        timing=timing(
            deadline_s=dict.fromkeys(Modality, 900.0),
            attempt_s=dict.fromkeys(Modality, 120.0),
            recheck_s=(0.5, 1.0, 2.0, 5.0),
        ),
        clock=clock,
        new_id=lambda: f"job-{next(numbers)}",
        listeners=[recorder, metrics, errors, EventLog()],
        blobs=blobs,
    )
    async with processor.running():
        yield Weather(simulation, processor, recorder, blobs, metrics, errors)
    server.should_exit = True
    await serving
    await blobs.close()


class Outside(logging.Handler):
    """Everything that was logged, with all that stands in the records."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.__dict__}")


async def play(hours: float, profile: str, outside: Outside) -> list[str]:
    """Live through bad weather, then through fair weather, and judge both."""
    dice = random.Random(SEED)
    async with weather(profile) as it:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as callers:
            while loop.time() < hours * 3600:
                callers.create_task(it.live(dice))
                it.read_journal()
                await asyncio.sleep(dice.expovariate(1 / EVERY_S))
        it.simulation.faults.replace(())
        await asyncio.sleep(600)
        fresh = [await it.submit(modality) for modality in SMALL]
        sick = [
            f"after the storm a {job.modality} ended as {job.state}: {job.error}"
            for job in [await handle.settled() for handle in fresh]
            if job.state is not JobState.COMPLETED
        ]
        await asyncio.sleep(60)
        it.read_journal()
        now = EPOCH + loop.time()
        diary = Diary(
            events=it.recorder.events,
            journals=[it.calls],
            summaries=[it.summary()],
            cancelled=it.cancelled,
            parallel={name: model.slots for name, model in it.simulation.config.models.items()},
            canary=CANARY,
            outside=[
                *outside.lines,
                queue_status(it.processor, now).model_dump_json(),
                RequestFigures.model_validate(it.metrics.report(now)).model_dump_json(),
                ErrorFigures.model_validate(it.errors.report()).model_dump_json(),
            ],
        )
        ends = [event.job for event in it.recorder.events if isinstance(event, Ended)]
        states = Counter(job.state for job in ends)
        codes = Counter(job.error.code for job in ends if job.error is not None)
        print(f"{len(ends)} jobs in {hours:g} h: {dict(states)}, errors {dict(codes)}")  # noqa: T201
        return sick + findings(it.processor, diary)


@pytest.mark.timeout(1800)
def test_no_promise_is_broken_in_bad_weather(caplog: pytest.LogCaptureFixture) -> None:
    outside = Outside()
    caplog.set_level(logging.DEBUG, logger="inference_manager")
    logging.getLogger("inference_manager").addHandler(outside)
    try:
        found = virtual_time.run(play(HOURS, "everything", outside))
    finally:
        logging.getLogger("inference_manager").removeHandler(outside)
    assert not found
