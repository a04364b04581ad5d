"""Every fault of the table, met by an idle, a half-loaded and a saturated manager.

The fault strikes, is gone again, and nobody restarts anything. Then the row's own sentence must be
true, and the oracle must have nothing to say.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from src.handles import JobHandle
from src.models.errors import (
    BackendError,
    BackendUnavailable,
    InferenceManagerError,
    StreamCut,
)
from src.models.jobs import Job, JobState, Level
from src.models.modality import Modality
from src.models.ports import OfferedModel
from src.models.requests import InferenceRequest
from src.models.results import Chunk, Finish, TextDelta
from src.simulator.config import SimulatorConfig

from . import virtual_time
from .fault_table import (
    ATTEMPT_S,
    FIRST_BYTE_S,
    HALF,
    IDLE_S,
    LARGEST,
    ROWS,
    SMALL,
    Certificate,
    Row,
    Story,
)
from .managing import chat, processor_for, timing
from .staging import Stage, clock, stage

TEXT, DRAWING, CHANGE, VECTORS, SPEECH = SMALL
MODELS: dict[str, dict[str, Any]] = {
    "sim-chat": {"slots": 4},
    "sim-image": {"s_per_step": 12.8},
    "sim-embed": {"slots": 4, "s_per_input": 0.5},
    "sim-voice": {"times_real_time": 1.0},
}
CONFIG = SimulatorConfig.model_validate({"memory_gb": 16.0, "models": MODELS})
"""Ten slots, all models side by side, and a second or so for each job."""

TIMING = timing(
    deadline_s=dict.fromkeys(Modality, 3600.0),
    attempt_s=dict.fromkeys(Modality, ATTEMPT_S),
    recheck_s=(0.5, 1.0, 2.0, 5.0, 10.0),
    ghost_s=60.0,
    crash_s=30.0,
)


class Load(Enum):
    """How much is going on when a fault strikes: what runs, and what waits behind it."""

    IDLE = ((), ())
    HALF = ((TEXT,) * 3 + (DRAWING, SPEECH), (DRAWING, CHANGE, SPEECH))
    SATURATED = (
        (TEXT,) * 4 + (VECTORS,) * 4 + (DRAWING, SPEECH),
        (TEXT,) * 10 + (DRAWING,) * 6 + (CHANGE,) * 4 + (VECTORS,) * 6 + (SPEECH,) * 4,
    )

    def __init__(self, runs: Sequence[Modality], waits: Sequence[Modality]) -> None:
        self.runs = runs
        self.waits = waits


EACH = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@EACH
@pytest.mark.parametrize("load", Load, ids=[load.name.lower() for load in Load])
def test_a_fault_passes_and_no_promise_is_broken(row: Row, load: Load, tmp_path: Path) -> None:
    assert virtual_time.run(_live_through(row, load, tmp_path)) == []


@EACH
def test_callers_may_leave_during_any_fault(row: Row, tmp_path: Path) -> None:
    assert virtual_time.run(_leave_during(row, tmp_path)) == []


class _Breaks:
    """A backend whose first answer breaks off so many seconds after its first piece."""

    name = "breaks"
    loads_on_demand = False

    def __init__(self, after_s: float, error: BackendError) -> None:
        self._after_s = after_s
        self._error = error
        self._asked = 0

    async def run(
        self, request: InferenceRequest, model: str, job_id: str
    ) -> AsyncGenerator[Chunk]:
        assert (request.modality, model, job_id) == (TEXT, "m", "job-1")
        self._asked += 1
        if self._asked == 1:
            yield TextDelta(HALF)
            if self._after_s:
                await asyncio.sleep(self._after_s)
            raise self._error
        yield TextDelta("all ")
        yield TextDelta("of it")
        yield Finish("stop")

    def stops_at_once(self, request: InferenceRequest) -> bool:
        return request.modality is TEXT

    async def load(self, model: str) -> None:
        assert model == "m"

    async def unload(self, model: str) -> None:
        assert model == "m"

    async def models(self) -> list[OfferedModel]:
        return [OfferedModel("m", frozenset({TEXT}))]

    async def resident(self) -> frozenset[str]:
        return frozenset({"m"})

    async def ping(self) -> str:
        return "here"

    async def close(self) -> None:
        pass


async def _read_what_breaks(backend: _Breaks) -> tuple[list[Chunk], Job]:
    processor, read = processor_for([backend]), list[Chunk]()
    async with processor.running():
        handle = await processor.submit(chat(model="m"))
        await _read(handle, read)
    return read, handle.job


def test_a_piece_of_a_failed_attempt_is_not_seen_once_it_is_repeated() -> None:
    backend = _Breaks(0.0, StreamCut("cut"))

    read, job = virtual_time.run(_read_what_breaks(backend))

    assert read == [TextDelta("all "), TextDelta("of it"), Finish("stop")]
    assert job.attempts == 2


def test_nothing_is_repeated_for_who_saw_a_piece_though_its_backend_is_away() -> None:
    backend = _Breaks(1.0, BackendUnavailable("away", reached=False))

    read, job = virtual_time.run(_read_what_breaks(backend))

    assert read == [TextDelta(HALF)]
    assert job.state is JobState.FAILED
    assert job.attempts == 1


async def _live_through(row: Row, load: Load, folder: Path) -> list[str]:
    async with asyncio.timeout(7200), _playing(row, folder) as it:
        jobs = await _busy(it, load)
        await row.fault.strike(it)
        struck = clock()
        probe = await it.submit(row.modality, SMALL[row.modality], level=Level.HIGH)
        read: list[Chunk] = []
        reader = asyncio.create_task(_read(probe, read)) if row.read else None
        await asyncio.sleep(row.seconds)
        await row.during(it)
        await row.fault.cease(it)
        ceased = clock()
        ended = [await handle.settled() for handle in (*jobs, probe)]
        if reader is not None:
            await reader
        found = await _afterwards(it)
        row.after(Story(it, load is Load.IDLE, struck, ceased, probe.job, read, ended))
    return found


async def _leave_during(row: Row, folder: Path) -> list[str]:
    async with asyncio.timeout(7200), _playing(row, folder) as it:
        jobs = await _busy(it, Load.HALF)
        await row.fault.strike(it)
        jobs.append(await it.submit(row.modality, SMALL[row.modality]))
        await asyncio.sleep(0.75)
        for handle in jobs:
            await it.cancel(handle.id)
        await asyncio.sleep(max(row.seconds - 0.75, 2.0))
        await row.fault.cease(it)
        return await _afterwards(it)


async def _afterwards(it: Stage) -> list[str]:
    """Ask for one thing of each kind after the next look, wait for ghosts, and ask the oracle."""
    await asyncio.sleep(TIMING.look_s + 1.0)
    fresh = [await it.submit(modality, fields) for modality, fields in SMALL.items()]
    ended = [await handle.settled() for handle in fresh]
    async with asyncio.timeout(TIMING.ghost_s + 5.0):
        await virtual_time.until(lambda: not it.processor.scheduler.running)
    return it.findings(ended)


async def _busy(it: Stage, load: Load) -> list[JobHandle]:
    """Submit as many jobs as the load asks for; return when they run and wait as it says."""
    modalities = (*load.runs, *load.waits)
    handles = [await it.submit(modality, SMALL[modality]) for modality in modalities]
    scheduler, runs = it.processor.scheduler, len(load.runs)
    await virtual_time.until(lambda: sum(c.ended is None for c in it.front.calls) == runs, 0.001)
    assert len(scheduler.running) == runs
    assert scheduler.waiting == len(load.waits)
    await asyncio.sleep(0.001)
    return handles


async def _read(handle: JobHandle, into: list[Chunk]) -> None:
    with suppress(InferenceManagerError):
        async for piece in handle.stream():
            into.append(piece)  # noqa: PERF401 - what came before a failure counts


@asynccontextmanager
async def _playing(row: Row, folder: Path) -> AsyncGenerator[Stage]:
    """Put up the stage, all models in memory."""
    client: dict[str, Any] = {
        "first_byte_s": FIRST_BYTE_S,
        "idle_s": IDLE_S,
        "load_s": 120.0,
        "chat_bytes": LARGEST,
        "image_bytes": LARGEST,
        "media_bytes": LARGEST,
    }
    server_tls = None
    if isinstance(row.fault, Certificate):
        server_tls, client["verify"] = row.fault.set_up(folder)
    async with stage(
        CONFIG, TIMING, host=row.host, server_tls=server_tls, client=client, warm=tuple(MODELS)
    ) as it:
        resident = it.processor.scheduler.capacity.is_resident
        async with asyncio.timeout(60):
            await virtual_time.until(lambda: all(map(resident, MODELS)), 0.1)
        yield it
