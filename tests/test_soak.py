"""Hours of bad weather in minutes: every fault of the simulator, in virtual time.

The manager, two simulators and the callers live in one event loop whose time jumps. Now and then
one simulator is away for a while, or stands still. IM_SOAK_HOURS says how many hours are played.
"""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from src.models.errors import InferenceManagerError
from src.models.events import Ended
from src.models.jobs import Level
from src.models.modality import Modality
from src.simulator.config import SimulatorConfig

from . import virtual_time
from .managing import timing
from .staging import CANARY, Site, Stage, stage
from .utils.localai_asking import base64_of, png, wav

HOURS = float(os.environ.get("IM_SOAK_HOURS", "0.5"))
SEED = int(os.environ.get("IM_SOAK_SEED", "7"))
EVERY_S = 4.0
AWAY_S, FROZEN_S, BETWEEN_S = 90.0, 120.0, 600.0

PICTURE = base64_of(png(64))
SMALL: Mapping[Modality, Mapping[str, Any]] = {
    Modality.TXT2TXT: {"prompt": f"tell of {CANARY}", "max_tokens": 20, "model": "sim-chat"},
    Modality.TXT2VEC: {"input": [CANARY, "another"], "model": "sim-embed"},
    Modality.RERANK: {"query": CANARY, "documents": ["one", "two"], "model": "sim-embed"},
    Modality.AUDIO2TXT: {"audio": base64_of(wav()), "prompt": CANARY, "model": "sim-voice"},
    Modality.TXT2AUDIO: {"input": f"say {CANARY}", "model": "sim-voice"},
    Modality.TXT2IMG: {
        "prompt": f"draw {CANARY}",
        "size": "64x64",
        "steps": 5,
        "model": "sim-image",
    },
    Modality.IMG2IMG: {
        "image": PICTURE,
        "prompt": f"more {CANARY}",
        "steps": 5,
        "model": "sim-image",
    },
    Modality.INPAINT: {
        "image": PICTURE,
        "mask": base64_of(png(64, "white")),
        "prompt": f"a hat, {CANARY}",
        "steps": 5,
        "model": "sim-image",
    },
    Modality.IMG2TXT: {"image": PICTURE, "question": f"a {CANARY}?", "model": "sim-vision"},
    Modality.TXT2SOUND: {"prompt": CANARY, "seconds": 1, "model": "sim-voice"},
    Modality.TXT2VIDEO: {
        "prompt": f"waves, {CANARY}",
        "width": 64,
        "height": 64,
        "model": "sim-video",
    },
}


async def live(it: Stage, dice: random.Random) -> None:
    """Be one caller: wait for the result, read the stream, give up, or be in a hurry."""
    hurry = dice.random() < 0.1
    modality = dice.choice(list(SMALL))
    handle = await it.submit(
        modality,
        SMALL[modality],
        level=dice.choice(list(Level)),
        deadline_s=dice.uniform(1, 60) if hurry else None,
    )
    mood = dice.random()
    if mood < 0.2:
        await asyncio.sleep(dice.expovariate(1 / 5))
        await it.cancel(handle.id)
    elif mood < 0.5:
        with contextlib.suppress(InferenceManagerError):
            async for chunk in handle.stream():
                assert chunk is not None
    await handle.settled()


async def trouble(sites: tuple[Site, Site]) -> None:
    """Have one simulator vanish for a while, then the other stand still, and so on."""
    for one, other in [sites, sites[::-1]] * 1000:
        await asyncio.sleep(BETWEEN_S)
        one.front.close_port()
        one.front.reset_everyone()
        await asyncio.sleep(AWAY_S)
        await one.front.open()
        await asyncio.sleep(BETWEEN_S)
        other.front.freeze()
        await asyncio.sleep(FROZEN_S)
        other.front.thaw()


async def play(hours: float) -> list[str]:
    """Live through bad weather, then through fair weather, and judge both."""
    loop, dice = asyncio.get_running_loop(), random.Random(SEED)
    config = SimulatorConfig.model_validate(
        {"profile": "everything", "seed": SEED, "inpainting_files_served": True}
    )
    times = timing(
        deadline_s=dict.fromkeys(Modality, 900.0),
        attempt_s=dict.fromkeys(Modality, 120.0),
        recheck_s=(0.5, 1.0, 2.0, 5.0),
        crash_s=30.0,
    )
    client = {"first_byte_s": 60.0, "idle_s": 30.0, "load_s": 120.0}
    async with stage(config, times, names=("north", "south"), client=client) as it:
        north, south = it.sites
        stormy = asyncio.create_task(trouble((north, south)))
        async with asyncio.TaskGroup() as callers:
            while loop.time() < hours * 3600:
                callers.create_task(live(it, dice))
                for site in it.sites:
                    site.read_journal()
                await asyncio.sleep(dice.expovariate(1 / EVERY_S))
        stormy.cancel()
        for site in it.sites:
            site.front.thaw()
            site.front.close_port()
            await site.front.open()
            site.simulation.faults.replace(())
        await asyncio.sleep(600)
        fresh = [await it.submit(modality, fields) for modality, fields in SMALL.items()]
        ended = [await handle.settled() for handle in fresh]
        await asyncio.sleep(60)
        ends = [event.job for _, event in it.witness.told if isinstance(event, Ended)]
        states = Counter(str(job.state) for job in ends)
        codes = Counter(job.error.code for job in ends if job.error is not None)
        at = Counter(job.backend for job in ends if job.backend)
        print(f"{len(ends)} jobs in {hours:g} h: {dict(states)}, {dict(codes)}, {dict(at)}")  # noqa: T201
        return it.findings(ended)


@pytest.mark.timeout(1800)
def test_no_promise_is_broken_in_bad_weather() -> None:
    assert virtual_time.run(play(HOURS)) == []
