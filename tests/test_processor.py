"""The processor in front of the simulator, over a real socket."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from src.handles import JobHandle
from src.models.breaker import BreakerRules
from src.models.errors import (
    BackendFailed,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    DeadlineExceeded,
    Draining,
    EmptyResult,
    InferenceManagerError,
    JobCancelled,
    ModelLoadFailed,
    QueueFull,
    StreamCut,
    UnknownJob,
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
from src.models.jobs import Job, JobState
from src.models.metrics import ErrorLog
from src.models.modality import Modality
from src.models.results import Chunk, Finish, TextDelta
from src.models.scheduler import Bounds
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.utils.retry import RetryPolicy
from src.utils.stores.database import Database
from src.utils.stores.sqlite import SQLiteStore

from .managing import FAST, Control, Recorder, chat, draw, managed, timing


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


async def read(handle: JobHandle, into: list[Chunk]) -> None:
    async for piece in handle.stream():
        into.append(piece)  # noqa: PERF401 - what came before a failure counts


# The main job


async def test_a_text_job_ends_with_the_text_of_the_model(sim: Simulator) -> None:
    async with managed(sim.url) as processor:
        handle = await processor.submit(chat("repeat: good morning"))
        result = await handle.result()

    assert result.text == "good morning"
    assert result.finish.simulated
    assert handle.job.state is JobState.COMPLETED
    assert handle.job.attempts == 1


async def test_an_image_job_ends_with_as_many_different_pictures_as_asked(sim: Simulator) -> None:
    async with managed(sim.url) as processor:
        handle = await processor.submit(draw(n=2, seed=7))
        result = await handle.result()

    assert [(i.width, i.height, i.seed) for i in result.images] == [(64, 64, 7), (64, 64, 8)]
    assert result.images[0].data != result.images[1].data


async def test_the_pieces_of_a_text_reach_a_caller_as_they_come(
    sim: Simulator, control: Control
) -> None:
    async with managed(sim.url) as processor:
        await control("hold")
        handle = await processor.submit(chat("count to 3"))
        pieces: list[Chunk] = []
        reading = asyncio.create_task(read(handle, pieces))
        await control("wait", model="sim-chat", state="started")
        assert not pieces
        await control("release")
        await reading

    text = "".join(piece.text for piece in pieces if isinstance(piece, TextDelta))
    assert "1" in text
    assert "3" in text
    assert isinstance(pieces[-1], Finish)


async def test_a_model_is_loaded_by_name_before_its_first_job(
    sim: Simulator, control: Control
) -> None:
    async with managed(sim.url) as processor:
        await (await processor.submit(chat())).result()
        await (await processor.submit(chat())).result()

    paths = [r.path for r in await control("requests") if r.model == "sim-chat"]
    assert paths == ["/backend/load", "/v1/chat/completions", "/v1/chat/completions"]


async def test_where_the_first_request_loads_nobody_is_told_of_a_load(
    sim: Simulator, control: Control
) -> None:
    events = Recorder()
    await control("add_fault", "status", match={"path": "/backend/load"}, status=404)
    async with managed(sim.url, listeners=[events]) as processor:
        await (await processor.submit(chat())).result()

    assert not [e for e in events.events if isinstance(e, ModelLoaded)]


async def test_the_busy_model_drains_before_another_is_loaded_in_its_place(
    sim: Simulator, control: Control
) -> None:
    events = Recorder()
    async with managed(sim.url, listeners=[events]) as processor:
        await control("hold")
        text = await processor.submit(chat())
        await control("wait", model="sim-chat", state="started")
        picture = await processor.submit(draw())
        later_text = await processor.submit(chat())
        assert processor.position(picture.id) == 1
        assert processor.position(later_text.id) == 0
        await control("release")
        await asyncio.gather(text.result(), picture.result(), later_text.result())

    started = [e.job.id for e in events.events if isinstance(e, Started)]
    assert started == [text.id, later_text.id, picture.id]
    loads = [e.model for e in events.events if isinstance(e, ModelLoaded)]
    assert loads == ["sim-chat", "sim-image"]
    assert (await control("summary")).over_budget == 0


async def test_text_overtakes_older_pictures_that_still_wait(
    sim: Simulator, control: Control
) -> None:
    events = Recorder()
    async with managed(sim.url, listeners=[events]) as processor:
        await control("hold")
        pictures = [await processor.submit(draw(seed=n)) for n in range(3)]
        await control("wait", model="sim-image", state="started")
        text = await processor.submit(chat())
        assert processor.position(text.id) == 0
        assert [processor.position(p.id) for p in pictures[1:]] == [1, 2]
        await control("release")
        await asyncio.gather(text.result(), *(p.result() for p in pictures))

    started = [e.job.id for e in events.events if isinstance(e, Started)]
    assert started == [pictures[0].id, text.id, pictures[1].id, pictures[2].id]


async def test_jobs_of_the_model_in_memory_go_first_so_that_models_do_not_take_turns_in_vain(
    sim: Simulator, control: Control
) -> None:
    events = Recorder()
    async with managed(sim.url, listeners=[events], affinity_s=20) as processor:
        await control("hold")
        handles = [await processor.submit(draw())]
        await control("wait", model="sim-image", state="started")
        handles += [await processor.submit(r) for r in (chat(), draw(), chat(), draw())]
        await control("release")
        await asyncio.gather(*(handle.result() for handle in handles))

    loads = [e.model for e in events.events if isinstance(e, ModelLoaded)]
    assert loads == ["sim-image", "sim-chat"]


# Failures and retries

REPEATED: list[tuple[str, dict[str, Any], int]] = [
    ("status", {"status": 502}, 2),
    ("status", {"status": 504}, 2),
    ("status", {"status": 500, "message": "boom"}, 2),
    ("reset", {}, 2),
    ("reset", {"after_tokens": 1}, 2),
    ("cut", {"after_tokens": 1}, 2),
    ("stream_error", {"after_tokens": 1}, 2),
    ("no_done", {}, 2),
    ("rejected", {"retry_after": 0.01}, 1),
    ("status", {"status": 429, "retry_after": 0.01}, 1),
]


@pytest.mark.parametrize(("kind", "parameters", "attempts"), REPEATED)
async def test_a_passing_failure_is_repeated_and_nobody_notices(
    sim: Simulator, control: Control, kind: str, parameters: dict[str, Any], attempts: int
) -> None:
    sim.control.load("sim-chat")
    match = {"path": "/v1/chat/completions"}
    await control("add_fault", kind, match=match, when={"times": 1}, **parameters)

    async with managed(sim.url) as processor:
        handle = await processor.submit(chat("repeat: at last"))
        result = await handle.result()
        assert not processor.scheduler.running

    assert result.text == "at last"
    assert handle.job.attempts == attempts


LASTING: list[tuple[str, dict[str, Any], type[Exception] | None, int | None]] = [
    ("status", {"status": 500, "message": "boom"}, BackendFailed, 2),
    ("status", {"status": 503, "message": "down for maintenance"}, None, None),
    ("reset", {}, BackendUnavailable, 3),
    ("cut", {"after_tokens": 1}, StreamCut, 3),
    ("garbage", {"what": "html"}, BackendProtocolError, 1),
    ("garbage", {"what": "wrong_type"}, BackendProtocolError, 1),
    ("garbage", {"what": "not_utf8"}, BackendProtocolError, 2),
]


@pytest.mark.parametrize(("kind", "parameters", "error", "attempts"), LASTING)
async def test_a_lasting_failure_ends_the_job_and_frees_the_slot(
    sim: Simulator,
    control: Control,
    kind: str,
    parameters: dict[str, Any],
    error: type[Exception] | None,
    attempts: int | None,
) -> None:
    match = {"path": "/v1/chat/completions"}
    fault = await control("add_fault", kind, match=match, **parameters)

    async with managed(sim.url, times=timing(deadline_s=dict.fromkeys(Modality, 2.0))) as processor:
        handle = await processor.submit(chat())
        if error is None:
            with pytest.raises(DeadlineExceeded):
                await handle.result()
        else:
            with pytest.raises(error):
                await handle.result()
            assert handle.job.attempts == attempts
        await control("remove_fault", fault)

        assert (await (await processor.submit(chat())).result()).text == "hello"


@pytest.mark.parametrize("kind", ["empty_image", "corrupt_image"])
async def test_an_empty_or_broken_picture_is_a_failure_never_a_success(
    sim: Simulator, control: Control, kind: str
) -> None:
    await control("add_fault", kind)

    async with managed(sim.url) as processor:
        handle = await processor.submit(draw())
        with pytest.raises(EmptyResult):
            await handle.result()

    assert handle.job.attempts == 2


async def test_a_backend_that_falls_silent_is_given_up(sim: Simulator, control: Control) -> None:
    await control("add_fault", "hang", match={"path": "/v1/chat/completions"}, after_tokens=1)

    retry = RetryPolicy(attempts=1)
    async with managed(sim.url, client={"idle_s": 0.1}, retry=retry) as processor:
        handle = await processor.submit(chat())
        with pytest.raises(BackendTimeout):
            await handle.result()
        await control("clear_faults")

        assert (await (await processor.submit(chat())).result()).text == "hello"


async def test_nothing_is_repeated_once_a_caller_has_seen_a_piece(
    sim: Simulator, control: Control
) -> None:
    await control("hold")
    await control(
        "add_fault",
        "cut",
        match={"path": "/v1/chat/completions"},
        after_tokens=2,
        when={"times": 1},
    )

    async with managed(sim.url) as processor:
        handle = await processor.submit(chat("count to 9"))
        seen: list[Chunk] = []
        reading = asyncio.create_task(read(handle, seen))
        await control("release")
        with pytest.raises(StreamCut):
            await reading

    assert seen
    assert handle.job.attempts == 1


@pytest.mark.parametrize(("kind", "parameters"), [("status", {"status": 502}), ("reset", {})])
async def test_a_load_that_is_cut_off_is_not_asked_for_again_at_once(
    sim: Simulator, control: Control, kind: str, parameters: dict[str, Any]
) -> None:
    events, now = Recorder(), 0.0
    await control("add_fault", kind, match={"path": "/backend/load"}, **parameters)

    times = timing(deadline_s=dict.fromkeys(Modality, 1e6))
    async with managed(sim.url, listeners=[events], clock=lambda: now, times=times) as processor:
        handle = await processor.submit(chat())
        await events.until(ModelLoaded)
        assert processor.scheduler.capacity.pauses("localai", now)["sim-chat"].until >= 10
        for failures in (2, 3):
            now += 400
            processor.wake()
            await events.until_count(lambda e: isinstance(e, ModelLoaded), failures)

        with pytest.raises(BackendUnavailable):
            await handle.result()


async def test_a_failed_load_is_tried_again_after_its_cooldown(
    sim: Simulator, control: Control
) -> None:
    events = Recorder()
    await control("add_fault", "load_failure", times=1, when={"times": 1})
    skew = 0.0

    async with managed(sim.url, listeners=[events], clock=lambda: skew) as processor:
        handle = await processor.submit(chat())
        failed = await events.until(ModelLoaded)
        assert isinstance(failed.error, ModelLoadFailed)
        assert processor.scheduler.capacity.pauses("localai", skew)
        await control("load", "sim-chat")
        skew += 60
        processor.wake()
        await handle.result()

    assert handle.job.attempts == 1


async def test_a_job_gives_up_after_three_failed_loads_and_a_younger_one_does_not_yet() -> None:
    now = 0.0
    events = Recorder()

    def pass_cooldowns(event: Event) -> None:
        nonlocal now
        if isinstance(event, ModelLoaded) and not real_load_failure(event):
            now += 400
            asyncio.get_running_loop().call_soon(processor.wake)

    with Simulator(SimulatorConfig(speed=2000)) as sim:
        sim.control.add_fault("load_failure", times=100)
        times = timing(deadline_s=dict.fromkeys(Modality, 1e6))
        listeners = [events, pass_cooldowns]
        async with managed(
            sim.url, listeners=listeners, clock=lambda: now, times=times
        ) as processor:
            old = await processor.submit(chat())
            await events.until_count(real_load_failure, 1)
            now += 1
            younger = await processor.submit(chat())
            for failures in (2, 3):
                now += 400
                processor.wake()
                await events.until_count(real_load_failure, failures)

            with pytest.raises(ModelLoadFailed):
                await old.result()
            assert younger.job.state is JobState.QUEUED


async def test_waiting_jobs_live_through_fewer_failed_loads_once_that_is_said() -> None:
    now = 0.0
    events = Recorder()

    def go_on(event: Event) -> None:
        nonlocal now
        if isinstance(event, ModelLoaded):
            now += 400
            asyncio.get_running_loop().call_soon(processor.wake)

    with Simulator(SimulatorConfig(speed=2000)) as sim:
        sim.control.add_fault("load_failure", times=100)
        times = timing(deadline_s=dict.fromkeys(Modality, 1e6))
        async with managed(
            sim.url, listeners=[events, go_on], clock=lambda: now, times=times
        ) as processor:
            job = await processor.submit(chat())
            await events.until_count(real_load_failure, 1)
            processor.loads.allow(2)

            with pytest.raises(ModelLoadFailed):
                await job.result()

    assert sum(map(real_load_failure, events.events)) == 2


def real_load_failure(event: Event) -> bool:
    error = event.error if isinstance(event, ModelLoaded) else None
    return isinstance(error, ModelLoadFailed) and not error.cooling


# LocalAI away


async def test_jobs_wait_while_localai_is_absent_and_run_when_it_comes() -> None:
    sim = Simulator(FAST)
    sim.start()
    sim.stop()
    events = Recorder()
    async with managed(sim.url, listeners=[events]) as processor:
        waiting = await processor.submit(chat())
        unnamed = await processor.submit(chat(model=None))
        wrong = await processor.submit(chat(model="no-such-model"))
        down = await events.until(BackendChanged)
        assert not down.up
        assert waiting.job.state is JobState.QUEUED
        assert processor.position(unnamed.id) == 1
        with sim:
            assert (await waiting.result()).text == "hello"
            assert (await unnamed.result()).text == "hello"
            assert unnamed.job.model == "sim-chat"
            with pytest.raises(UnknownModel):
                await wrong.result()

    assert len([e for e in events.events if isinstance(e, BackendChanged)]) == 2


async def test_a_job_whose_backend_vanishes_waits_for_its_return() -> None:
    sim = Simulator(FAST)
    sim.start()
    events = Recorder()
    async with managed(sim.url, listeners=[events], retry=RetryPolicy(base_s=0)) as processor:
        await (await processor.submit(chat())).result()
        await asyncio.to_thread(sim.stop)
        handle = await processor.submit(chat())
        await events.until(BackendChanged, lambda e: not e.up)
        with sim:
            assert (await handle.result()).text == "hello"

    assert handle.job.attempts == 1, "an attempt that never reached the backend does not count"


async def test_an_unknown_model_is_refused_at_once_with_the_nearest_names(sim: Simulator) -> None:
    events = Recorder()
    async with managed(sim.url, listeners=[events]) as processor:
        await events.until(BackendChanged)
        await (await processor.submit(chat())).result()

        with pytest.raises(UnknownModel) as refused:
            await processor.submit(chat(model="sim-chatt"))

    assert "sim-chat" in refused.value.nearest


# Cancel, deadlines, bounds


async def test_a_waiting_job_is_cancelled_at_once(sim: Simulator, control: Control) -> None:
    async with managed(sim.url) as processor:
        await control("hold")
        running = await processor.submit(chat())
        waiting = await processor.submit(chat())
        job = await processor.cancel(waiting.id)
        again = await processor.cancel(waiting.id)
        await control("release")
        await running.result()

        assert job.state is again.state is JobState.CANCELLED
        with pytest.raises(JobCancelled):
            await waiting.result()
        with pytest.raises(UnknownJob):
            await processor.cancel("no-such-job")


async def test_a_running_text_is_hung_up_on_and_its_slot_is_free(
    sim: Simulator, control: Control
) -> None:
    async with managed(sim.url) as processor:
        await control("hold")
        running = await processor.submit(chat())
        await control("wait", model="sim-chat", state="started")
        await processor.cancel(running.id)
        await control("wait", model="sim-chat", state="ended", count=2)
        await control("release")
        assert (await (await processor.submit(chat())).result()).text == "hello"

    record = (await control("requests"))[-2]
    assert record.path == "/v1/chat/completions"
    assert record.ending == "client_left"


async def test_a_cancelled_picture_holds_its_slot_as_a_ghost_until_the_engine_is_done(
    sim: Simulator, control: Control
) -> None:
    events = Recorder()
    async with managed(sim.url, listeners=[events]) as processor:
        await control("hold")
        unwanted = await processor.submit(draw(n=3))
        await control("wait", model="sim-image", state="started")
        job = await processor.cancel(unwanted.id)
        following = await processor.submit(draw("a blue boat"))
        (ghost,) = processor.scheduler.running
        assert job.state is JobState.CANCELLED
        assert ghost.ghost
        assert processor.position(following.id) == 0
        await control("release")
        assert (await following.result()).images

    drawn = [r for r in await control("requests") if r.path == "/v1/images/generations"]
    assert len(drawn) == 2, "the two pictures that had not begun are never asked for"
    assert (await control("summary")).most_at_once["sim-image"] == 1


async def test_a_job_whose_deadline_passes_while_it_waits_never_reaches_the_backend(
    sim: Simulator, control: Control
) -> None:
    now = 1000.0
    async with managed(sim.url, clock=lambda: now) as processor:
        await control("hold")
        running = await processor.submit(chat())
        late = await processor.submit(chat("repeat: too late"), deadline_s=5)
        now += 6
        processor.wake()
        with pytest.raises(DeadlineExceeded, match="waited for its turn"):
            await late.result()
        await control("release")
        await running.result()

    chats = [r for r in await control("requests") if r.path == "/v1/chat/completions"]
    assert len(chats) == 1


async def test_a_job_whose_deadline_passes_while_it_runs_is_stopped(
    sim: Simulator, control: Control
) -> None:
    now = 1000.0
    async with managed(sim.url, clock=lambda: now) as processor:
        await control("hold")
        running = await processor.submit(chat(), deadline_s=5)
        await control("wait", model="sim-chat", state="started")
        now += 6
        processor.wake()
        with pytest.raises(DeadlineExceeded, match="was being worked on"):
            await running.result()
        await control("wait", model="sim-chat", state="ended", count=2)


async def test_a_full_queue_refuses_and_says_when_to_come_back(
    sim: Simulator, control: Control
) -> None:
    async with managed(sim.url, bounds=Bounds(waiting=1)) as processor:
        await control("hold")
        first = await processor.submit(chat())
        await control("wait", model="sim-chat", state="started")
        second = await processor.submit(chat())
        with pytest.raises(QueueFull) as refused:
            await processor.submit(chat())
        await control("release")
        await asyncio.gather(first.result(), second.result())

    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= 1


async def test_two_hundred_callers_cancel_at_random_and_every_later_call_works(
    sim: Simulator,
) -> None:
    dice = random.Random(11)
    async with managed(sim.url) as processor:

        async def caller() -> None:
            handle = await processor.submit(chat("tokens 10"))
            for _ in range(dice.randrange(12)):
                if handle.job.state.terminal:
                    break
                await handle.changed()
            await processor.cancel(handle.id)

        async with asyncio.TaskGroup() as callers:
            for _ in range(200):
                callers.create_task(caller())
        results = await asyncio.gather(
            *[(await processor.submit(chat())).result() for _ in range(20)]
        )

        assert [r.text for r in results] == ["hello"] * 20
        assert not processor.scheduler.running
        assert not processor.scheduler.waiting


async def test_a_cancelled_picture_that_the_engine_never_finishes_gives_its_slot_back(
    sim: Simulator, control: Control
) -> None:
    await control("add_fault", "hang", match={"path": "/v1/images/generations"})
    async with managed(sim.url, times=timing(ghost_s=0.1)) as processor:
        hung = await processor.submit(draw())
        await control("wait", model="sim-image", state="arrived", count=2)
        await processor.cancel(hung.id)
        assert processor.scheduler.running[0].ghost

        assert (await (await processor.submit(chat())).result()).text == "hello"


async def test_a_job_that_waited_in_vain_for_its_model_says_why_and_so_does_the_error_log(
    sim: Simulator, control: Control
) -> None:
    now = 0.0
    events, errors = Recorder(), ErrorLog()
    await control("add_fault", "load_failure", times=100)
    async with managed(sim.url, listeners=[events, errors], clock=lambda: now) as processor:
        handle = await processor.submit(chat(), deadline_s=5)
        await events.until(ModelLoaded)
        now += 6
        processor.wake()

        with pytest.raises(DeadlineExceeded, match=r"waited for its turn; before that: .*load"):
            await handle.result()

    assert errors.report().counts_by_code["model_load_failed"] == 1


# The loop


class FailingStore(SQLiteStore):
    """A store that cannot keep anything while `broken`."""

    broken = True

    async def save(self, *jobs: Job) -> None:
        if self.broken:
            raise OSError("disk full")
        await super().save(*jobs)


async def test_a_store_that_fails_ends_the_job_but_not_the_loop(sim: Simulator) -> None:
    store, events = FailingStore(Database(":memory:")), Recorder()
    async with managed(sim.url, store=store, listeners=[events]) as processor:
        await events.until(BackendChanged)
        unlucky = await processor.submit(chat())
        with pytest.raises(InferenceManagerError, match="internal error"):
            await unlucky.result()
        store.broken = False

        assert (await (await processor.submit(chat())).result()).text == "hello"
        assert processor.alive


async def test_a_listener_that_fails_harms_nobody(sim: Simulator) -> None:
    def broken(_: Event) -> None:
        raise RuntimeError("broken listener")

    events = Recorder()
    async with managed(sim.url, listeners=[broken, events]) as processor:
        assert (await (await processor.submit(chat())).result()).text == "hello"
        assert processor.alive

    assert any(isinstance(e, Ended) for e in events.events)


async def test_the_dispatcher_goes_on_after_a_failure_of_its_own(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with managed(sim.url) as processor:
        decide = processor.scheduler.next
        failures = iter([True, True])

        def sometimes(now: float) -> Any:
            if next(failures, False):
                raise RuntimeError("broken scheduler")
            return decide(now)

        monkeypatch.setattr(processor.scheduler, "next", sometimes)
        handle = await processor.submit(chat())
        processor.wake()

        assert (await handle.result()).text == "hello"
        assert processor.alive


async def test_callers_that_still_wait_at_shutdown_are_told_so(
    sim: Simulator, control: Control
) -> None:
    async with managed(sim.url) as processor:
        await control("hold")
        running = await processor.submit(chat())
        await control("wait", model="sim-chat", state="started")
        waiting = await processor.submit(chat())
        callers = [asyncio.create_task(h.result()) for h in (running, waiting)]

    for caller in callers:
        with pytest.raises(Draining):
            await caller
    assert not processor.alive
    with pytest.raises(Draining):
        await processor.submit(chat())


async def test_running_jobs_get_their_grace_at_shutdown(sim: Simulator, control: Control) -> None:
    async with managed(sim.url, grace_s=20) as processor:
        await control("hold")
        running = await processor.submit(chat())
        await control("wait", model="sim-chat", state="started")
        release = asyncio.create_task(control("release"))

    await release
    assert (await running.result()).text == "hello"


async def test_nothing_is_started_any_more_at_shutdown(sim: Simulator, control: Control) -> None:
    async with managed(sim.url, grace_s=20) as processor:
        await control("hold")
        running = await processor.submit(chat())
        await control("wait", model="sim-chat", state="started")
        waiting = await processor.submit(chat())
        release = asyncio.create_task(control("release"))

    await release
    assert (await running.result()).text == "hello"
    with pytest.raises(Draining):
        await waiting.result()
    chats = [r for r in await control("requests") if r.path == "/v1/chat/completions"]
    assert len(chats) == 1


async def test_every_repeated_attempt_is_told_with_its_reason(
    sim: Simulator, control: Control
) -> None:
    events = Recorder()
    await control("add_fault", "reset", match={"path": "/v1/chat/completions"}, when={"times": 2})
    async with managed(sim.url, listeners=[events]) as processor:
        await (await processor.submit(chat())).result()

    reasons = [e.error.code for e in events.events if isinstance(e, Retried)]
    assert reasons == ["backend_unavailable", "backend_unavailable"]


@pytest.mark.parametrize(
    ("kind", "parameters", "pauses"),
    [
        ("reset", {}, True),
        ("cut", {"after_tokens": 1}, True),
        ("status", {"status": 500}, True),
        ("garbage", {"what": "html"}, True),
        ("status", {"status": 503}, False),
        ("status", {"status": 400}, False),
    ],
)
async def test_only_failures_that_tell_of_the_backend_have_a_model_left_alone(
    sim: Simulator, kind: str, parameters: dict[str, object], pauses: bool
) -> None:
    control = Control(sim)
    await control("add_fault", kind, match={"path": "/v1/chat/completions"}, **parameters)
    events = Recorder()
    rules = BreakerRules(unreached=1, refused=1, base_s=600, cap_s=600)
    async with managed(sim.url, listeners=[events], breaker=rules) as processor:
        await processor.submit(chat())
        if pauses:
            assert (await events.until(ModelPaused)).model == "sim-chat"
        else:
            await events.until_count(lambda event: isinstance(event, Retried | Ended), 1)
            assert processor.pause("sim-chat") is None


async def test_retries_beyond_a_tenth_of_the_work_wait_rather_than_fail(sim: Simulator) -> None:
    control = Control(sim)
    await control("add_fault", "status", match={"path": "/v1/chat/completions"}, status=500)
    events = Recorder()
    rules = BreakerRules(unreached=1000, refused=1000)
    async with managed(sim.url, listeners=[events], breaker=rules) as processor:
        handles = [await processor.submit(chat()) for _ in range(20)]
        await events.until_count(lambda event: isinstance(event, Retried), 20)
        waiting = [h.job for h in handles if h.job.state is JobState.RETRYING]

        assert waiting
        assert max(job.retry_at or 0.0 for job in waiting) > time.time() + 10
