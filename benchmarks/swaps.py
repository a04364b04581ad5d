"""How often models are loaded, and when the last answer is there: straight, and in line.

Run `python benchmarks/swaps.py` (or with `--quick`, for a glance). The same 200 requests for five
models, with room for one in memory, go straight to the simulator, and through the manager in front
of a fresh one. Everything runs over real sockets in one process whose time jumps
(`tests/virtual_time.py`), so an hour takes seconds and the figures do not depend on the machine.

How many requests are on their way at once decides what there is to gain. LocalAI has no queue, so a
program that calls it sends a few at a time (here 4 or 16); a queue may be given all of them. The
last table row therefore compares 4 at a time, straight, with all at once, in line. The other rows
compare like with like. "Full card": a load that LocalAI forces over the limit, after 30 s of
waiting for a busy model, fails for want of memory. Whoever is told to come back later does, as
client libraries do: after `Retry-After`, else after 0.5 s, doubled up to 8 s.
"""

import argparse
import asyncio
import itertools
import random
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1]))

from src.app import create_app
from src.settings import Settings
from src.simulator.config import SimulatorConfig
from src.simulator.serve import listen, server_for
from src.simulator.simulation import Simulation
from tests import virtual_time

EPOCH = 1_790_000_000.0
MODELS: dict[str, dict[str, Any] | None] = {
    "sim-chat": {"kind": "chat", "slots": 2, "weights_gb": 5, "load_s": 8},
    "sim-embed": {"kind": "embed", "slots": 4, "weights_gb": 4, "load_s": 3},
    "sim-voice": {"kind": "voice", "slots": 1, "weights_gb": 4, "load_s": 5},
    "sim-image": {"kind": "image", "slots": 1, "weights_gb": 7, "load_s": 15, "s_per_step": 0.2},
    "sim-vision": {"kind": "vision", "slots": 1, "weights_gb": 6, "load_s": 12},
    "sim-video": None,
}
"""What fits into 8 GB one at a time; None takes a model of the default ones away."""

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGElEQVR4nGP8//8/"
    "AymAiSTVoxpGNQwpDQDRPgMduUbpUwAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way came to."""

    loads: int
    over_limit: int
    makespan_s: float
    calls: int


@dataclass(frozen=True, slots=True)
class Wish:
    """One request, as it is written to LocalAI and to the manager."""

    straight: tuple[str, dict[str, Any]]
    in_line: tuple[str, dict[str, Any]]


def wishes(count: int) -> list[Wish]:
    """Mix requests for all five models, the same at every run."""
    dice = random.Random(4)
    made = [_wish(number) for number in range(count)]
    dice.shuffle(made)
    return made


def _wish(number: int) -> Wish:
    match number % 5:
        case 0:
            body = {"model": "sim-chat", "max_tokens": 400}
            said = {"messages": [{"role": "user", "content": f"question {number}"}]}
            return Wish(("/v1/chat/completions", body | said), ("/mcp/txt2txt", body | said))
        case 1:
            body = {"model": "sim-vision", "max_tokens": 240}
            seen = [{"type": "image_url", "image_url": {"url": PICTURE}}]
            turn = {"messages": [{"role": "user", "content": seen}]}
            return Wish(
                ("/v1/chat/completions", body | turn), ("/mcp/img2txt", body | {"image": PICTURE})
            )
        case 2:
            drawn = {"model": "sim-image", "prompt": f"picture {number}", "size": "256x256"}
            return Wish(
                ("/v1/images/generations", drawn | {"step": 150, "response_format": "b64_json"}),
                ("/mcp/txt2img", drawn | {"steps": 150}),
            )
        case 3:
            spoken = {"model": "sim-voice", "input": f"sentence {number} " * 20}
            return Wish(("/v1/audio/speech", spoken), ("/mcp/txt2audio", spoken))
        case _:
            text = {"model": "sim-embed", "input": [f"sentence {number}"] * 64}
            return Wish(("/v1/embeddings", text), ("/mcp/txt2vec", text))


@asynccontextmanager
async def served(make: Callable[[str, int], uvicorn.Server]) -> AsyncGenerator[str]:
    """Have a server answer in this event loop."""
    door = listen("127.0.0.1", 0)
    port = int(door.getsockname()[1])
    server = make("127.0.0.1", port)
    serving = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


async def measure(count: int, *, at_once: int, in_line: bool, full_card: bool) -> Outcome:
    """Send everything one way, and see what it comes to."""
    loop = asyncio.get_running_loop()
    config = SimulatorConfig.model_validate(
        {"models": MODELS, "oom_over_budget": full_card, "max_active_backends": 1}
    )
    simulation = Simulation(config, monotonic=loop.time)
    async with served(lambda host, port: server_for(simulation, host, port)) as simulator:
        if not in_line:
            calls = [wish.straight for wish in wishes(count)]
            return await _send(simulator, calls, at_once, simulation)
        with TemporaryDirectory() as folder:
            app = create_app(_settings(simulator, Path(folder)), clock=lambda: EPOCH + loop.time())
            async with served(lambda host, port: _manager(app, host, port)) as manager:
                calls = [wish.in_line for wish in wishes(count)]
                return await _send(manager, calls, at_once, simulation)


def _settings(simulator: str, folder: Path) -> Settings:
    models = folder / "models"
    models.mkdir()
    for name, slots in (("sim-chat", 2), ("sim-embed", 4)):
        (models / f"{name}.yaml").write_text(f"name: {name}\nparallel: {slots}\n")
    return Settings(
        localai_url=simulator, models_dir=models, log_file=None, log_console=False, resident=1
    )


def _manager(app: Any, host: str, port: int) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(app, host=host, port=port, http="h11", log_config=None, access_log=False)
    )


async def _send(
    url: str, calls: list[tuple[str, dict[str, Any]]], at_once: int, at: Simulation
) -> Outcome:
    loop = asyncio.get_running_loop()
    began = loop.time()
    left = iter(calls)
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=url, timeout=None, limits=limits, trust_env=False
    ) as client:

        async def caller() -> int:
            return sum([await _insist(client, path, body) for path, body in left])

        tries = await asyncio.gather(*(caller() for _ in range(at_once)))
    world = at.engine.world
    states = [world.view(name, at.clock.now()) for name, given in MODELS.items() if given]
    return Outcome(
        loads=sum(state.loads for state in states),
        over_limit=world.over_budget,
        makespan_s=loop.time() - began,
        calls=sum(tries),
    )


async def _insist(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> int:
    """Call until there is an answer; return how often that was."""
    for tries in itertools.count(1):
        answer = await client.post(path, json=body)
        if answer.status_code == 200:
            return tries
        if answer.status_code not in (429, 500, 502, 503):
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:200]}")
        pause = min(0.5 * 2 ** (tries - 1), 8.0)
        await asyncio.sleep(float(answer.headers.get("retry-after", pause)))
    raise AssertionError


def main() -> None:
    """Measure each way and print them side by side."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="50 requests instead of 200")
    count = 50 if options.parse_args().quick else 200

    def run(*, at_once: int, in_line: bool, full_card: bool = False) -> Outcome:
        return virtual_time.run(
            measure(count, at_once=at_once, in_line=in_line, full_card=full_card)
        )

    print(f"{count} requests for 5 models, room for one (simulated seconds)")
    print(f"{'':26} {'loads':>7} {'over limit':>11} {'calls':>7} {'last answer':>12}")

    def show(name: str, outcome: Outcome) -> None:
        print(
            f"{name:26} {outcome.loads:>7} {outcome.over_limit:>11} {outcome.calls:>7}"
            f" {outcome.makespan_s:>10.1f} s"
        )

    def compare(before: Outcome, after: Outcome) -> None:
        print(
            f"{'ratio':26} {after.loads / before.loads:>7.2f} {'':>11} {'':>7}"
            f" {after.makespan_s / before.makespan_s:>12.2f}"
        )

    straight: list[Outcome] = []
    queued: list[Outcome] = []
    for at_once in (4, 16, count):
        straight.append(run(at_once=at_once, in_line=False))
        show(f"{at_once} at once, straight", straight[-1])
        queued.append(run(at_once=at_once, in_line=True))
        show(f"{at_once} at once, in line", queued[-1])
        compare(straight[-1], queued[-1])
    full = run(at_once=count, in_line=False, full_card=True)
    show(f"{count} at once, full card", full)
    compare(full, queued[-1])
    print("4 at once, straight, beside all at once, in line:")
    compare(straight[0], queued[-1])


if __name__ == "__main__":
    main()
