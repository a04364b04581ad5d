"""Models that vanish, fail, die, or are taken out of memory, in front of the simulator."""

import asyncio
import base64
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from typing import Any

import httpx2
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from src.handles import JobHandle
from src.models.blobs import Blob
from src.models.breaker import BreakerRules
from src.models.capacity import BackendLimits, Capacity
from src.models.catalog import ModelDefinition
from src.models.errors import (
    BackendFailed,
    BackendTimeout,
    BackendUnavailable,
    ModelCrashed,
    Quarantined,
    UnknownModel,
)
from src.models.events import (
    BackendChanged,
    Ended,
    Event,
    ModelLoaded,
    ModelPaused,
    Retried,
    Started,
)
from src.models.jobs import JobState, Level
from src.models.modality import Modality
from src.models.ports import OfferedModel
from src.models.requests import InferenceRequest
from src.models.results import Chunk, Finish
from src.processor import Processor
from src.routes.overview import queue_status
from src.routes.situation import situation
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.utils.retry import RetryPolicy

from .kept import DictBlobs
from .managing import (
    FAST,
    Control,
    Offset,
    Recorder,
    Watched,
    chat,
    draw,
    processor_for,
    timing,
)
from .serving import serving

CHATS = {"path": "/v1/chat/completions"}
PICTURES = {"path": "/v1/images/generations"}
TWO_AT_ONCE = (ModelDefinition(name="sim-chat", parallel=2),)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(FAST) as simulator:
        yield simulator


@pytest.fixture
def control(sim: Simulator) -> Control:
    return Control(sim)


@pytest.fixture(autouse=True)
async def in_time() -> AsyncGenerator[None]:
    async with asyncio.timeout(30):
        yield


@asynccontextmanager
async def watched(
    sim: Simulator, *, client: dict[str, Any] | None = None, **options: Any
) -> AsyncGenerator[tuple[Processor, Watched, Recorder]]:
    """Run a processor that looks at its backend all the time."""
    events = Recorder()
    backend = Watched(sim.url, **(client or {}))
    options = {"times": timing(look_s=0.01), "listeners": [events], **options}
    processor = processor_for([backend], **options)
    async with processor.running():
        await events.until(BackendChanged)
        yield processor, backend, events


async def paths(control: Control, model: str = "sim-chat") -> list[str]:
    return [r.path for r in await control("requests") if r.model == model]


def put_forward(clock: Offset, processor: Processor, seconds: float) -> None:
    clock.ahead_s += seconds
    processor.wake()


def of(handle: JobHandle) -> Callable[[Retried], bool]:
    return lambda event: event.job.id == handle.id


def is_load_of(model: str, event: ModelLoaded) -> bool:
    return event.model == model


# A model that vanishes


async def test_a_model_that_is_not_offered_any_more_parks_its_jobs_until_it_is_back(
    sim: Simulator, control: Control
) -> None:
    async with watched(sim) as (processor, backend, _):
        await control("hold")
        running = await processor.submit(chat("repeat: running"))
        await control("wait", model="sim-chat", state="started")
        parked = await processor.submit(chat("repeat: parked"))
        backend.overlooked = {"sim-chat"}
        await backend.looked()
        with pytest.raises(UnknownModel):
            await processor.submit(chat())
        await control("release")
        assert (await running.result()).text == "running"
        assert (await (await processor.submit(draw())).result()).images
        assert parked.job.state is JobState.QUEUED
        told = situation(processor, parked.job, time.time())
        assert told == "parked: no backend offers sim-chat at present"

        backend.overlooked = set()

        assert (await parked.result()).text == "parked"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/backend/load"])
async def test_a_model_that_is_offered_but_unknown_is_asked_for_again_and_then_given_up(
    sim: Simulator, control: Control, path: str
) -> None:
    clock = Offset()
    await control(
        "add_fault", "status", match={"path": path}, status=404, message="model not found"
    )

    async with watched(sim, clock=clock) as (processor, _, events):
        handle = await processor.submit(chat())
        for failures in (1, 2):
            await events.until_count(is_failure, failures)
            put_forward(clock, processor, 50)
        with pytest.raises(UnknownModel):
            await handle.result()

    assert (await paths(control)).count(path) == 3
    assert len([e for e in events.events if isinstance(e, Ended)]) == 1


def is_failure(event: Event) -> bool:
    return isinstance(event, Retried) or (isinstance(event, ModelLoaded) and bool(event.error))


# A model that keeps failing


async def test_a_model_that_keeps_failing_is_left_alone_and_the_others_are_served(
    sim: Simulator, control: Control
) -> None:
    clock = Offset()
    await control("load", "sim-chat")
    fault = await control("add_fault", "status", match=CHATS, status=500, message="boom")

    rules = BreakerRules(base_s=500, cap_s=500)
    async with watched(sim, clock=clock, breaker=rules, definitions=TWO_AT_ONCE) as (
        processor,
        backend,
        events,
    ):
        failing = [await processor.submit(chat()) for _ in range(6)]
        paused = await events.until(ModelPaused)
        pauses = processor.scheduler.capacity.pauses("localai", clock())
        assert (paused.backend, paused.model) == ("localai", "sim-chat")
        assert paused.seconds == pytest.approx(500, abs=1)
        assert [*pauses] == ["sim-chat"]
        assert (
            pauses["sim-chat"].why
            == paused.why
            == "backend localai reports an internal error (500)"
        )
        assert (await (await processor.submit(draw())).result()).images
        (waiting, *_) = [h.job for h in failing if processor.position(h.id) == 0]
        told = situation(processor, waiting, clock())
        assert re.fullmatch(r"next in line, sim-chat is left alone for \d+ s: backend .*", told)
        shown = queue_status(processor, clock()).backends["localai"].paused["sim-chat"]
        assert shown.seconds == pytest.approx(500, abs=5)
        assert shown.why == paused.why
        asked = len(await paths(control))
        await control("remove_fault", fault)
        await backend.looked(5)
        assert len(await paths(control)) == asked
        assert any(job.job.state is not JobState.FAILED for job in failing)
        assert processor.scheduler.capacity.limit("localai", "sim-chat") == 1

        put_forward(clock, processor, 500)
        outcomes = await asyncio.gather(*(h.result() for h in failing), return_exceptions=True)

    assert len([e for e in events.events if isinstance(e, ModelPaused)]) == 1
    assert all(not isinstance(o, BaseException) or isinstance(o, BackendFailed) for o in outcomes)
    assert any(not isinstance(o, BaseException) for o in outcomes)
    assert processor.scheduler.capacity.limit("localai", "sim-chat") == 2
    assert processor.pause("sim-chat") is None


# A model whose process dies


async def crash(control: Control, *handles: JobHandle, events: Recorder) -> None:
    """Let the model die under the attempts of these jobs."""
    await control("crash", "sim-chat")
    for handle in handles:
        await events.until(Retried, of(handle))


async def test_a_model_that_died_is_left_alone_until_the_backend_has_noticed(
    sim: Simulator, control: Control
) -> None:
    async with watched(sim, times=timing(look_s=0.01, crash_s=1000)) as (
        processor,
        backend,
        events,
    ):
        await control("hold")
        handle = await processor.submit(chat())
        await control("wait", model="sim-chat", state="started")
        await crash(control, handle, events=events)
        retried = await events.until(Retried)
        assert isinstance(retried.error, ModelCrashed)
        await control("release")
        await backend.looked(5)
        assert await paths(control) == ["/backend/load", "/v1/chat/completions"]
        assert processor.pause("sim-chat") is not None

        await control("advance", 30)

        assert (await handle.result()).text == "hello"

    assert (handle.job.attempts, handle.job.crashes) == (2, 1)
    assert (await paths(control)).count("/backend/load") == 2


async def test_a_model_that_died_is_tried_again_after_a_while_though_nobody_noticed(
    sim: Simulator, control: Control
) -> None:
    clock = Offset()
    async with watched(sim, clock=clock, times=timing(look_s=0.01, crash_s=300)) as (
        processor,
        backend,
        events,
    ):
        await control("add_fault", "stream_error", match=CHATS, when={"times": 1})
        handle = await processor.submit(chat())
        await events.until(Retried)
        await backend.looked()
        assert not handle.job.state.terminal

        put_forward(clock, processor, 300)

        assert (await handle.result()).text == "hello"


async def test_a_job_of_which_a_model_dies_twice_is_quarantined_and_the_others_flow(
    sim: Simulator, control: Control
) -> None:
    crashes = {"path": "/v1/chat/completions", "prompt": "poison"}
    await control("add_fault", "crash", match=crashes, after_tokens=0)
    times = timing(look_s=0.01, crash_s=1000)
    at_once = RetryPolicy(base_s=0, cap_s=0)  # so that chance lets nobody go before the first
    async with watched(sim, times=times, definitions=TWO_AT_ONCE, retry=at_once) as (
        processor,
        _,
        events,
    ):
        await control("hold")
        poison = await processor.submit(chat("repeat: poison"))
        await control("wait", model="sim-chat", state="started")
        beside = await processor.submit(chat("repeat: beside"))
        behind = await processor.submit(chat("repeat: behind"))
        await control("wait", model="sim-chat", state="started", count=2)
        await control("release", 1)
        for handle in (poison, beside):
            await events.until(Retried, of(handle))
        await control("release")
        await control("advance", 30)
        with pytest.raises(Quarantined, match="died 2 times"):
            await poison.result()
        await control("advance", 30)
        assert (await beside.result()).text == "beside"
        assert (await behind.result()).text == "behind"
        assert [job.id for job in processor.quarantined] == [poison.id]
        (shown,) = queue_status(processor, time.time()).quarantined
        assert (shown.job_id, shown.model, shown.modality) == (poison.id, "sim-chat", "txt2txt")

    started = [e.job.id for e in events.events if isinstance(e, Started)]
    assert started.count(poison.id) == 2
    assert poison.job.state is JobState.FAILED


async def test_jobs_that_ran_together_when_their_model_died_are_not_quarantined(
    sim: Simulator, control: Control
) -> None:
    times = timing(look_s=0.01, crash_s=1000)
    async with watched(sim, times=times, definitions=TWO_AT_ONCE) as (processor, _, events):
        await control("hold")
        both = [await processor.submit(chat(f"repeat: {n}")) for n in range(2)]
        await control("wait", model="sim-chat", state="started", count=2)
        await crash(control, *both, events=events)
        proof = await processor.submit(chat(), level=Level.HIGH)
        await control("release")
        await control("hold")
        await control("advance", 30)
        await control("release", 1)
        await proof.result()
        await control("wait", model="sim-chat", state="started", count=5)
        await control("crash", "sim-chat")
        await events.until_count(lambda e: isinstance(e, Retried), 4)
        await control("release")
        await control("advance", 30)

        assert [(await handle.result()).text for handle in both] == ["0", "1"]

    assert [handle.job.crashes for handle in both] == [2, 2]
    assert not processor.quarantined


# A load that failed elsewhere


async def fail_a_load_for_somebody_else(sim: Simulator, control: Control) -> None:
    await control("add_fault", "load_failure", when={"times": 1})
    async with httpx2.AsyncClient(base_url=sim.url) as somebody:
        answer = await somebody.post("/backend/load", json={"model": "sim-chat"})
        assert answer.status_code == 500


async def test_a_model_that_cools_down_is_left_alone_as_long_as_the_backend_says(
    sim: Simulator, control: Control
) -> None:
    clock = Offset()
    await fail_a_load_for_somebody_else(sim, control)
    async with watched(sim, clock=clock) as (processor, backend, events):
        handles = [await processor.submit(chat()) for _ in range(3)]
        told = await events.until(ModelLoaded)
        assert told.error is not None
        assert told.error.retry_after == pytest.approx(10, abs=1)
        await backend.looked()
        assert len(await paths(control)) == 2
        pause = processor.pause("sim-chat")
        assert pause is not None
        assert pause.until - clock() == pytest.approx(10, abs=1.5)

        await control("advance", 10)
        put_forward(clock, processor, 11)

        for handle in handles:
            assert (await handle.result()).text == "hello"

    assert await paths(control) == ["/backend/load"] * 3 + ["/v1/chat/completions"] * 3
    assert [handle.job.attempts for handle in handles] == [1, 1, 1]


async def test_an_attempt_that_meets_a_cooldown_waits_for_its_end_and_one_single_load(
    sim: Simulator, control: Control
) -> None:
    clock = Offset()
    async with watched(sim, clock=clock, times=timing(look_s=1000)) as (processor, backend, events):
        await (await processor.submit(chat())).result()
        await backend.looked_in_all(2)
        await control("unload", "sim-chat")
        await fail_a_load_for_somebody_else(sim, control)
        await control("forget_requests")
        handle = await processor.submit(chat("repeat: at last"))
        await events.until(Retried)
        await control("advance", 10)
        put_forward(clock, processor, 11)

        assert (await handle.result()).text == "at last"

    assert handle.job.attempts == 1
    wanted = ["/v1/chat/completions", "/backend/load", "/v1/chat/completions"]
    assert await paths(control) == wanted


# Ghosts


async def test_a_ghost_is_expected_to_end_as_pictures_usually_do(
    sim: Simulator, control: Control
) -> None:
    clock = Offset()
    async with watched(sim, clock=clock) as (processor, _, _):
        await take_100_s(processor, control, clock)
        await control("hold")
        unwanted = await processor.submit(draw())
        await control("wait", model="sim-image", state="started", count=2)
        await processor.cancel(unwanted.id)

        (ghost,) = processor.scheduler.running
        ends_at = processor.scheduler.ends_at(ghost)

        assert ghost.ghost
        assert ends_at is not None
        assert ends_at - clock() == pytest.approx(100, abs=5)
        following = await processor.submit(chat())
        told = situation(processor, following.job, clock())
        works_on = "next in line, the backend still works on a cancelled job, about "
        assert told.startswith(works_on)
        assert 90 < float(told.removeprefix(works_on).removesuffix(" s more")) <= 100
        (shown,) = queue_status(processor, clock()).queues[Modality.TXT2IMG].running
        assert shown.ghost
        assert shown.ends_in_s == pytest.approx(100, abs=5)
        clock.ahead_s += 101
        assert situation(processor, following.job, clock()) == works_on.removesuffix(", about ")
        done = await processor.store.get(unwanted.id)
        told = situation(processor, done, clock())
        assert told == "cancelled; the engine does not stop before it has finished what it began"
        await control("release")


async def take_100_s(processor: Processor, control: Control, clock: Offset) -> None:
    """Let it be known that a picture takes 100 s, and a load next to nothing."""
    await control("hold")
    handle = await processor.submit(draw())
    await control("wait", model="sim-image", state="started")
    clock.ahead_s += 100
    await control("release")
    await handle.result()


async def test_a_ghost_is_laid_to_rest_when_its_model_is_gone_from_memory(
    sim: Simulator, control: Control
) -> None:
    await control("add_fault", "hang", match=PICTURES)
    async with watched(sim) as (processor, _, _):
        unwanted = await processor.submit(draw())
        await control("wait", model="sim-image", state="arrived", count=2)
        await processor.cancel(unwanted.id)
        following = await processor.submit(chat())
        assert processor.scheduler.running[0].ghost

        await control("unload", "sim-image")

        assert (await following.result()).text == "hello"


async def test_where_a_busy_model_cannot_be_shut_down_its_ghost_is_waited_for_ever_after(
    sim: Simulator, control: Control
) -> None:
    clock = Offset()
    async with watched(sim, clock=clock, shut_down_ghosts=True) as (processor, _, _):
        await take_100_s(processor, control, clock)
        await control("hold")
        unwanted = await processor.submit(draw())
        await control("wait", model="sim-image", state="started", count=2)
        await processor.cancel(unwanted.id)
        following = await processor.submit(draw("a blue boat"))
        await control("wait", model="sim-image", state="ended", count=3)
        assert [run.ghost for run in processor.scheduler.running] == [True]
        await control("release")
        assert (await following.result()).images
        await control("hold")
        unwanted = await processor.submit(draw())
        await control("wait", model="sim-image", state="started", count=4)
        await processor.cancel(unwanted.id)
        following = await processor.submit(draw("a red boat"))
        assert [run.ghost for run in processor.scheduler.running] == [True]
        await control("release")
        assert (await following.result()).images

    picture = PICTURES["path"]
    wanted = ["/backend/load", picture, picture, "/backend/shutdown", *[picture] * 3]
    assert await paths(control, "sim-image") == wanted


async def test_a_shutdown_that_goes_wrong_in_an_unknown_way_stops_nobody(
    sim: Simulator, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Event()

    async def break_down(_: str) -> None:
        tried.set()
        raise RuntimeError("nobody thought of this")

    clock = Offset()
    async with watched(sim, clock=clock, shut_down_ghosts=True) as (processor, backend, _):
        monkeypatch.setattr(backend, "unload", break_down)
        await take_100_s(processor, control, clock)
        await control("hold")
        unwanted = await processor.submit(draw())
        await control("wait", model="sim-image", state="started", count=2)
        await processor.cancel(unwanted.id)
        following = await processor.submit(draw("a blue boat"))
        await tried.wait()
        await control("release")

        assert (await following.result()).images
        assert processor.alive


@asynccontextmanager
async def forceful() -> AsyncGenerator[tuple[str, list[str]]]:
    """Serve as LocalAI does with LOCALAI_FORCE_BACKEND_SHUTDOWN; the second picture never ends.

    The answer to the shutdown comes late, so that whoever does not wait for it is there before.
    """
    asked: list[str] = []
    resident: list[dict[str, str]] = []
    killed, hurried = threading.Event(), threading.Event()
    picture = base64.b64encode(encoded_picture()).decode()

    async def answer(request: Request) -> Response:
        path = request.url.path
        if request.method == "POST":
            asked.append(path)
        match path:
            case "/version":
                return JSONResponse({"version": "v4.9.0"})
            case "/v1/models/capabilities":
                return JSONResponse({"data": [{"id": "sim-image", "capabilities": ["image"]}]})
            case "/system":
                return JSONResponse({"loaded_models": resident})
            case "/backend/load":
                resident[:] = [{"id": "sim-image"}]
                return JSONResponse({"loaded": ["sim-image"]})
            case "/backend/shutdown":
                resident.clear()
                killed.set()
                await asyncio.to_thread(hurried.wait, 0.3)
                return JSONResponse({"message": "model stopped"})
            case _:
                if asked.count(path) == 2:
                    await asyncio.to_thread(killed.wait, 10)
                    error = {"code": 500, "message": "rpc error: code = Unavailable desc = EOF"}
                    return JSONResponse({"error": error}, 500)
                if killed.is_set():
                    hurried.set()
                return JSONResponse({"data": [{"b64_json": picture}]})

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    with serving(app) as url:
        yield url, asked


def encoded_picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    return file.getvalue()


async def test_a_shutdown_that_is_forced_ends_the_ghost_and_the_next_job_has_the_model_loaded() -> (
    None
):
    clock, events = Offset(), Recorder()
    async with forceful() as (url, asked):
        backend = Watched(url)
        processor = processor_for([backend], clock=clock, listeners=[events], shut_down_ghosts=True)
        async with processor.running():
            scheduler = processor.scheduler
            await (await processor.submit(draw())).result()
            scheduler.durations.add(("attempt", "localai", "sim-image", Modality.TXT2IMG), 500)
            unwanted = await processor.submit(draw())
            await events.until(Started, lambda e: e.job.id == unwanted.id)
            await processor.cancel(unwanted.id)

            following = await processor.submit(draw("a blue boat"))

            assert (await following.result()).images
            assert following.job.attempts == 1
            assert not scheduler.running

    picture = PICTURES["path"]
    assert asked == [
        "/backend/load",
        picture,
        picture,
        "/backend/shutdown",
        "/backend/load",
        picture,
    ]


# Loads are never cancelled


@pytest.fixture
def slow() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(clock="manual")) as simulator:
        yield simulator


async def test_a_load_goes_on_though_the_only_job_that_waits_for_it_is_cancelled(
    slow: Simulator,
) -> None:
    control = Control(slow)
    async with watched(slow) as (processor, _, events):
        handle = await processor.submit(chat())
        await control("wait", model="sim-chat", state="arrived")
        await processor.cancel(handle.id)
        await control("advance", 5)
        loaded = await events.until(ModelLoaded)

    (record,) = await control("requests")
    assert (record.path, record.ending) == ("/backend/load", "completed")
    assert loaded.error is None
    assert (await control("state")).models["sim-chat"].state == "ready"


async def test_where_the_first_request_loads_a_cancelled_text_is_listened_to_until_it_begins(
    slow: Simulator,
) -> None:
    control = Control(slow)
    await control("add_fault", "status", match={"path": "/backend/load"}, status=403)
    async with watched(slow) as (processor, backend, _):
        handle = await processor.submit(chat("count to 200"))
        await control("wait", model="sim-chat", state="arrived", count=2)
        await processor.cancel(handle.id)
        (ghost,) = processor.scheduler.running
        assert ghost.ghost
        await backend.looked(5)
        assert (await control("state")).models["sim-chat"].state == "loading"

        await control("advance", 2)
        await control("wait", model="sim-chat", state="ended", count=2)

    record = (await control("requests"))[-1]
    assert record.ending == "client_left"
    assert record.done > 0
    assert (await control("state")).models["sim-chat"].state == "ready"


async def test_models_are_warmed_up_at_the_start(slow: Simulator) -> None:
    control = Control(slow)
    capacity = Capacity({"localai": BackendLimits(resident=2)})
    async with watched(
        slow, warm=["sim-chat", "no-such-model", "sim-embed"], capacity=capacity
    ) as (processor, _, events):
        for model in ("sim-chat", "sim-embed"):
            await control("wait", model=model, state="arrived")
            assert processor.is_loading(model)
            shown = queue_status(processor, time.time()).backends["localai"]
            assert shown.loading == model
            assert shown.loading_for_s is not None
            await control("advance", 1)
            loaded = await events.until(ModelLoaded, partial(is_load_of, model))
            assert (loaded.job, loaded.error) == (None, None)

    assert capacity.resident("localai") == {"sim-chat": 0, "sim-embed": 0}
    assert [r.path for r in await control("requests")] == ["/backend/load"] * 2


# A backend that freezes


async def test_work_on_a_backend_that_stays_silent_is_given_up_and_done_by_another(
    sim: Simulator, control: Control
) -> None:
    clock, events = Offset(), Recorder()
    with Simulator(FAST) as other:
        backends = [
            Watched(sim.url, "frozen", ping_s=0.2),
            Watched(other.url, "other", ping_s=5.0),
        ]
        times = timing(look_s=0.01, lost_s=60.0)
        processor = processor_for(backends, clock=clock, listeners=[events], times=times)
        async with processor.running():
            await events.until_count(lambda e: isinstance(e, BackendChanged), 2)
            await control("hold")
            handle = await processor.submit(chat("repeat: done elsewhere"))
            await control("wait", model="sim-chat", state="started")
            assert handle.job.backend == "frozen"
            await control("add_fault", "hang", match={"path": "/version"})
            await events.until(BackendChanged, lambda e: not e.up)
            assert handle.job.state is JobState.PROCESSING

            put_forward(clock, processor, 60)
            result = await handle.result()
            await control("clear_faults")
            await control("release")
            await events.until_count(lambda e: isinstance(e, BackendChanged), 4)

    assert result.text == "done elsewhere"
    assert handle.job.result is result
    assert (handle.job.backend, handle.job.attempts) == ("other", 2)
    (retried,) = [e for e in events.events if isinstance(e, Retried)]
    assert "does not answer any more" in retried.error.message
    assert len([e for e in events.events if isinstance(e, Ended)]) == 1


class Deaf:
    """A backend that answers nothing, and takes its time to let go of an attempt."""

    name = "localai"
    loads_on_demand = True

    def __init__(self) -> None:
        self.silent = False
        self.pinged = asyncio.Event()
        self.letting_go = asyncio.Event()
        self.let_go = asyncio.Event()

    async def run(
        self,
        request: InferenceRequest,  # noqa: ARG002
        model: str,  # noqa: ARG002
        job_id: str,  # noqa: ARG002
    ) -> AsyncGenerator[Chunk]:
        try:
            await asyncio.Event().wait()
            yield Finish()
        finally:
            self.letting_go.set()
            await self.let_go.wait()

    def stops_at_once(self, request: InferenceRequest) -> bool:  # noqa: ARG002
        return True

    async def load(self, model: str) -> None:
        pass

    async def unload(self, model: str) -> None:
        pass

    async def models(self) -> list[OfferedModel]:
        return [OfferedModel("sim-chat")]

    async def resident(self) -> frozenset[str] | None:
        return None

    async def ping(self) -> str:
        self.pinged.set()
        if self.silent:
            raise BackendUnavailable("no answer", reached=True)
        return "deaf"

    async def close(self) -> None:
        pass


async def test_an_attempt_whose_time_is_over_is_not_given_up_once_more() -> None:
    clock, events, backend = Offset(), Recorder(), Deaf()
    times = timing(look_s=0.01, attempt_s=dict.fromkeys(Modality, 0.01))
    processor = processor_for(
        [backend], clock=clock, listeners=[events], times=times, retry=RetryPolicy(attempts=1)
    )
    async with processor.running():
        handle = await processor.submit(chat())
        await backend.letting_go.wait()
        backend.silent = True
        await events.until(BackendChanged, lambda e: not e.up)
        put_forward(clock, processor, 60)
        for _ in range(2):
            backend.pinged.clear()
            await backend.pinged.wait()
        backend.silent = False
        await events.until_count(lambda e: isinstance(e, BackendChanged), 3)
        backend.let_go.set()
        with pytest.raises(BackendTimeout):
            await handle.result()
        assert processor.alive


# What failed attempts have made


async def test_what_a_failed_attempt_has_made_is_not_kept(sim: Simulator, control: Control) -> None:
    blobs = DictBlobs()
    await control("add_fault", "status", match=PICTURES, status=500, when={"skip": 1, "times": 1})
    async with watched(sim, client={"blobs": blobs}, blobs=blobs) as (processor, _, _):
        handle = await processor.submit(draw(n=2))
        result = await handle.result()

    assert handle.job.attempts == 2
    assert blobs.dropped.is_set()
    keys = [i.data.key for i in result.images if isinstance(i.data, Blob)]
    assert len(keys) == 2
    assert set(keys) == set(blobs.kept)


async def test_what_is_made_for_nobody_is_not_kept(sim: Simulator, control: Control) -> None:
    blobs = DictBlobs()
    async with watched(sim, client={"blobs": blobs}, blobs=blobs) as (processor, _, _):
        await control("hold")
        unwanted = await processor.submit(draw(n=2))
        await control("wait", model="sim-image", state="started")
        await processor.cancel(unwanted.id)
        await control("release")
        async with asyncio.timeout(10):
            await blobs.dropped.wait()

    assert not blobs.kept
