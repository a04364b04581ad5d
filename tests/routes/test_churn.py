"""Callers who hang up at any moment: whoever stays is served, and nothing is left behind.

`IM_SOAK=1` lets them come and go for half a minute.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import httpx2
import psutil
import pytest

from src.app import create_app
from src.settings import Settings
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from tests.routes.house import House
from tests.serving import serving

CALLERS = 40
CALLS = 5
SOAK_S = 30.0 if os.environ.get("IM_SOAK") else 0.0
KEPT = 64  # connections that clients on either side keep for later

CALLS_MADE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/mcp/txt2txt", {"prompt": "tokens 30"}),
    ("/mcp/txt2img", {"prompt": "a fox", "size": "64x64", "steps": 2}),
    ("/mcp/txt2vec", {"input": "a fox"}),
    ("/mcp/txt2audio", {"input": "a fox"}),
)


def times() -> Iterable[None]:
    loop = asyncio.get_running_loop()
    end = loop.time() + SOAK_S
    made = 0
    while made < CALLS or loop.time() < end:
        made += 1
        yield


async def come_and_go(http: httpx2.AsyncClient, chance: random.Random, ends: Counter[str]) -> None:
    for _ in times():
        path, body = chance.choice(CALLS_MADE)
        try:
            async with asyncio.timeout(chance.choice((0.001, 0.02, 0.1, 10.0))):
                answer = await http.post(path, json=body)
            ends[str(answer.status_code)] += 1
        except TimeoutError:
            ends["left"] += 1


def sockets() -> int:
    return len(psutil.Process().net_connections("inet"))


async def at_rest(house: House) -> dict[str, Any]:
    """Wait until nothing runs or waits."""
    status: dict[str, Any] = await house.until(
        "/queue-status", lambda s: s["waiting"] == 0 and s["running"] == 0
    )
    return status


@pytest.mark.timeout(120)
async def test_callers_who_hang_up_at_random_leave_everything_as_it_was() -> None:
    chance, ends = random.Random(11), Counter[str]()
    config = SimulatorConfig(speed=0, memory_gb=16)
    with Simulator(config) as sim:
        settings = Settings(localai_url=sim.url, memory_gb=16, log_file=None, log_console=False)
        with serving(create_app(settings)) as url:
            house = House(url, sim.control)
            await house.until("/ready", lambda answer: answer["ready"])
            before = sockets()
            limits = httpx2.Limits(max_connections=None)
            async with httpx2.AsyncClient(
                base_url=url, timeout=30.0, limits=limits, trust_env=False
            ) as http:
                await asyncio.gather(*(come_and_go(http, chance, ends) for _ in range(CALLERS)))
            await at_rest(house)
            async with house.http() as http:
                answers = [
                    await http.post(path, json=body)
                    for number in range(100)
                    for path, body in [CALLS_MADE[number % len(CALLS_MADE)]]
                ]
            status = await at_rest(house)
            after = sockets()

    assert set(ends) == {"200", "left"}, ends
    assert [answer.status_code for answer in answers] == [200] * 100
    for backend in status["backends"].values():
        assert not any(model["running"] for model in backend["resident"].values())
    assert after <= before + KEPT
