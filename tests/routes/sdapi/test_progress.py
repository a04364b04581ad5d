"""How far pictures are, and their end, as the web UI's clients see and want it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from src.models.jobs import JobState
from src.models.metrics import ErrorLog, RequestMetrics
from src.models.modality import Modality
from src.models.requests import InferenceRequest
from src.models.results import Chunk
from src.routes.sdapi.progress import progress_of
from src.routes.tools import Tools
from src.sharing import Sharing
from src.utils.blobs import FileBlobs
from tests.managing import Offset, draw, processor_for
from tests.routes.house import House, house
from tests.routes.sdapi.asking import SMALL, TXT2IMG, get, post
from tests.routes.test_contents import Ready

PROGRESS, INTERRUPT, SKIP = (f"/sdapi/v1/{name}" for name in ("progress", "interrupt", "skip"))
KEYS = {"ann": "key-of-ann-0123456789abcdef", "bob": "key-of-bob-0123456789abcdef"}
ANN, BOB = ({"x-api-key": key} for key in KEYS.values())

Drawing = asyncio.Task[httpx2.Response]


@asynccontextmanager
async def drawing(
    house: House, count: int, headers: Mapping[str, str] | None = None, **more: Any
) -> AsyncGenerator[list[Drawing]]:
    """Have pictures drawn, in order, of which none gets ready before the simulator is released."""
    house.sim.hold()
    tasks: list[Drawing] = []
    for number in range(count):
        tasks.append(asyncio.create_task(post(house, TXT2IMG, {**SMALL, **more}, headers)))
        async with asyncio.timeout(10):
            while _under_way(await get(house, "/queue-status", headers)) <= number:
                pass
    yield tasks
    house.sim.release()
    await asyncio.gather(*tasks)


def _under_way(status: Any) -> int:
    queue = status["queues"]["txt2img"]
    return int(queue["waiting"]) + len(queue["running"])


async def test_where_nothing_is_drawn_there_is_no_progress(shared_house: House) -> None:
    told = await get(shared_house, f"{PROGRESS}?skip_current_image=true")

    assert told == {
        "progress": 0,
        "eta_relative": 0,
        "state": {
            "skipped": False,
            "interrupted": False,
            "job": "",
            "job_count": 0,
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": 0,
            "sampling_steps": 0,
        },
        "current_image": None,
        "textinfo": None,
    }


async def test_progress_is_that_of_the_oldest_pictures(own_house: House) -> None:
    async with drawing(own_house, 2, batch_size=2, steps=4) as (first, _):
        running = await own_house.running("txt2img")
        told = await get(own_house, PROGRESS)

        assert told["state"]["job"] == running
        assert (told["state"]["job_count"], told["state"]["job_no"]) == (2, 0)
        assert told["state"]["sampling_steps"] == 4
        assert 0 < told["progress"] < 1
        assert told["textinfo"] == "running on sim-image, attempt 1"
        own_house.sim.release(1)
        told = await own_house.until(PROGRESS, lambda one: one["state"]["job_no"] == 1)
        assert told["progress"] >= 0.5
        own_house.sim.release(1)
        await first
        told = await own_house.until(PROGRESS, lambda one: one["state"]["job"] != running)
        assert told["state"]["job_no"] == 0


async def test_what_waits_is_told_of_in_words(own_house: House) -> None:
    async with drawing(own_house, 2) as (first, second):
        await post(own_house, SKIP)
        assert (await first).status_code == 409
        told = await get(own_house, PROGRESS)

        assert told["state"]["job_count"] == 1
        assert told["textinfo"].startswith(("next in line", "running"))
        assert not second.done()


class Busy(Ready):
    """A backend that never gets ready."""

    async def run(
        self, request: InferenceRequest, model: str, job_id: str
    ) -> AsyncGenerator[Chunk]:
        await asyncio.Event().wait()
        async for chunk in super().run(request, model, job_id):
            yield chunk


async def test_from_experience_the_seconds_that_are_left_are_told() -> None:
    blobs, clock = FileBlobs(), Offset()
    processor = processor_for([Busy([])], blobs=blobs, clock=clock)
    sharing = Sharing(processor, blobs, merge=False, cache_bytes=0)
    tools = Tools(processor, sharing, RequestMetrics(), ErrorLog(), clock=clock, blobs=blobs)

    async with processor.running():
        running, waiting = [await tools.submit(draw(model="m", steps=40)) for _ in range(2)]
        async with asyncio.timeout(10):
            while running.job.state is not JobState.PROCESSING:
                await running.changed()
        unknown = progress_of(running, tools, processor)
        processor.scheduler.durations.add(("attempt", "ready", "m", Modality.TXT2IMG), 20.0)
        clock.ahead_s += 5.0
        first, second = (progress_of(one, tools, processor) for one in (running, waiting))
        clock.ahead_s += 100.0
        late = progress_of(running, tools, processor)

    assert (unknown.progress, unknown.eta_relative) == (0.01, 0)
    assert first.progress == pytest.approx(0.25, abs=0.1)
    assert first.eta_relative == pytest.approx(15, abs=2)
    assert 5 <= first.state.sampling_step <= 15
    assert second.progress == 0.01
    assert second.eta_relative == pytest.approx(35, abs=2)
    assert (late.progress, late.eta_relative) == (0.99, 0)


async def test_interrupting_ends_all_that_is_drawn_here(own_house: House) -> None:
    async with own_house.http() as http, drawing(own_house, 2) as tasks:
        other = asyncio.create_task(http.post("/mcp/txt2img", json={"prompt": "x", "steps": 1}))
        await own_house.until("/queue-status", lambda one: _under_way(one) == 3)
        response = await post(own_house, INTERRUPT)
        answers = [await task for task in tasks]
        told = await get(own_house, PROGRESS)
        own_house.sim.release()
        by_mcp = await other

    assert (response.status_code, response.json()) == (200, {})
    assert [answer.status_code for answer in answers] == [409, 409]
    assert answers[0].json()["error"]["code"] == "cancelled"
    assert told["state"]["job_count"] == 0
    assert by_mcp.status_code == 200


async def test_skipping_ends_the_oldest_alone(own_house: House) -> None:
    async with drawing(own_house, 2) as (first, second):
        assert (await post(own_house, SKIP)).json() == {}
        assert (await first).status_code == 409
    assert (await second).status_code == 200


async def test_there_may_be_nothing_to_end(shared_house: House) -> None:
    for path in (INTERRUPT, SKIP):
        assert (await post(shared_house, path)).json() == {}


async def test_everybody_sees_and_ends_only_their_own() -> None:
    with house(api_keys=KEYS) as locked:
        async with drawing(locked, 1, ANN) as [anns]:
            seen = [(await get(locked, PROGRESS, who))["state"]["job_count"] for who in (ANN, BOB)]
            await post(locked, INTERRUPT, headers=BOB)
            assert (await get(locked, PROGRESS, ANN))["state"]["job_count"] == 1
        assert (await anns).status_code == 200
        assert (await post(locked, INTERRUPT)).status_code == 401

    assert seen == [1, 0]
