"""However often and wherever the server is killed, nobody who was promised something is let down.

The real server, with its store in a file, is killed under load, at random and at named points;
each time it starts again on the same file. In the end callers' diaries, the store and the journal
of the simulated LocalAI are compared. IM_SOAK kills it a thousand times.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator

from .crash import Phoenix, Swarm, idle
from .oracle import findings, read

POINTS = (
    "before a commit",
    "after a commit",
    "before a job is added",
    "after a job was added",
    "before a claim",
    "after a claim",
    "during a call",
    "before the end",
    "after the end",
    "during recovery",
)
SOAK = bool(os.environ.get("IM_SOAK"))
KILLS = 1000 if SOAK else 25
SEED = int(os.environ.get("IM_SOAK_SEED", "11"))
ATTEMPTS = 20


@pytest.mark.timeout(3600 if SOAK else 120)
async def test_nothing_that_was_accepted_is_lost_or_ends_twice_and_order_is_kept(
    tmp_path: Path,
) -> None:
    dice = random.Random(SEED)
    database = tmp_path / "jobs.db"
    died = Counter[str]()
    with Simulator(SimulatorConfig(speed=8)) as simulator:
        environment = {
            "LOCALAI_URL": simulator.url,
            "IM_STORE": f"sqlite:///{database}",
            "IM_MAX_ATTEMPTS": str(ATTEMPTS),
            "IM_RESIDENT": "6",
            "IM_LOG_FILE": str(tmp_path / "app.log"),
            "IM_LOG_CONSOLE": "false",
            "IM_GRACE_S": "0.2",
        }
        async with Phoenix(environment) as server:
            swarm = Swarm(server, SEED)
            playing = asyncio.create_task(swarm.play(callers=6, pause_s=0.02))
            for number in range(KILLS):
                if number % 2:
                    point = POINTS[number // 2 % len(POINTS)]
                    await server.live(point, _nth(point, dice))
                    died[point] += await server.ended(within_s=2)
                elif number % 10 == 4:  # before it is ready, or hardly
                    await server.begin()
                    await server.ended(within_s=dice.uniform(0, 0.3))
                else:
                    await server.live()
                    await swarm.is_told_of(dice.randint(0, 40), within_s=2)
                assert await server.end() == -signal.SIGKILL
            await server.live()
            swarm.stop()
            await playing
            await idle(server.url, patience_s=60)
            assert await server.end(signal.SIGTERM) == 0
        journal = simulator.control.requests()
    kept = read(database)

    assert findings(swarm.diary, kept, journal, attempts=ATTEMPTS) == []
    assert len(swarm.diary.accepted) > 5 * KILLS
    assert swarm.diary.keys
    assert "cancelled" in swarm.diary.ended.values()
    assert len(+died) > len(POINTS) // 2


def _nth(point: str, dice: random.Random) -> int:
    """Say when a point is to be met: some are met often, and one at most once in a life."""
    most = 40 if "commit" in point else 1 if "recovery" in point else 10
    return dice.randint(1, most)
