"""What one decision costs, with a short line and with a long one.

Run `python benchmarks/scheduler.py` (or with `--quick`, for a glance). A *cycle* is what one job
costs the scheduler: one `ended` that frees a slot, one `submit` that keeps the line as long as it
was, and `next` until it has filled the slot. Both depths take turns, round by round, so that
whatever else the machine does disturbs both alike; what is printed are medians.
"""

import argparse
import random
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1]))

from src.models.capacity import BackendLimits, Capacity, ModelLimits
from src.models.jobs import Level
from src.models.queues import Entry, priority_order
from src.models.scheduler import Bounds, Load, Scheduler, Start

NOW = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A pool and the models that its jobs ask for."""

    name: str
    models: int
    parallel: int = 1
    resident: int = 1
    backends: int = 1


SCENES = (
    Scene(name="1 model, 1 slot", models=1),
    Scene(name="1 model, 64 slots", models=1, parallel=64),
    Scene(name="50 models resident, 64 slots each", models=50, parallel=64, resident=50),
    Scene(name="50 models resident, 1 slot each", models=50, resident=50),
    Scene(name="50 models take turns in memory", models=50),
    Scene(name="50 models, 4 backends, 4 resident", models=50, parallel=2, resident=4, backends=4),
)


class Stage:
    """One scheduler with a line of constant length in front of it."""

    def __init__(self, scene: Scene, depth: int) -> None:
        self._random = random.Random(depth)
        self._names = [f"model-{n}" for n in range(scene.models)]
        self._sequence = 0
        self._running: deque[Start] = deque()
        capacity = Capacity(
            {f"gpu-{n}": BackendLimits(resident=scene.resident) for n in range(scene.backends)},
            {name: ModelLimits(parallel=scene.parallel) for name in self._names},
        )
        self.scheduler = Scheduler(
            capacity, bounds=Bounds(waiting=10**9, per_modality=10**9, waiting_bytes=10**15)
        )
        share = scene.models if scene.resident >= scene.models else 0
        for backend in range(scene.backends):
            self.scheduler.backend_up(
                f"gpu-{backend}", offers=self._names, resident=frozenset(self._names[:share])
            )
        slots = scene.parallel * min(scene.resident, scene.models) * scene.backends
        for entry in self.entries(depth + slots):
            self.scheduler.submit(entry)
        self.decide()
        while self.scheduler.waiting < depth:
            self.scheduler.submit(self.entries(1)[0])

    def entries(self, count: int, model: str | None = None) -> list[Entry]:
        """Make up jobs: of one model, or evenly of all."""
        return [self._entry(model) for _ in range(count)]

    def _entry(self, model: str | None) -> Entry:
        self._sequence += 1
        number = self._sequence % len(self._names) if model is None else self._names.index(model)
        return Entry(
            id=f"job-{self._sequence:012}",
            modality=priority_order[number % len(priority_order)],
            level=self._random.choice(tuple(Level)),
            model=self._names[number],
            sequence=self._sequence,
            submitted_at=NOW,
            deadline=NOW + 3600.0 + self._sequence / 1000,
            size_bytes=1000,
        )

    def decide(self) -> int:
        """Carry out decisions until there are none; return how many there were."""
        count, loads = 0, True
        while loads:
            loads = False
            for decision in self.scheduler.next(NOW):
                count += 1
                if isinstance(decision, Load):
                    loads = True
                    self.scheduler.loaded(decision.backend, decision.model)
                elif isinstance(decision, Start):
                    self._running.append(decision)
        return count

    def cycles(self, count: int) -> float:
        """Return the decisions per second over so many cycles."""
        seconds, decisions = 0.0, 0
        scheduler, running = self.scheduler, self._running
        for _ in range(count):
            running.rotate(-self._random.randrange(len(running)))
            ended = running.popleft()
            entry = self._entry(ended.model)
            began = perf_counter()
            scheduler.ended(ended.job_id, NOW)
            scheduler.submit(entry)
            decisions += self.decide()
            seconds += perf_counter() - began
        return decisions / seconds

    def submit_withdraw_position(self, count: int) -> tuple[float, float, float]:
        """Return the seconds that one call of each takes, for jobs all over the line."""
        entries = self.entries(count)
        scheduler = self.scheduler
        submit = _seconds(lambda: [scheduler.submit(entry) for entry in entries]) / count
        self._random.shuffle(entries)
        position = _seconds(lambda: [scheduler.position(entry.id) for entry in entries]) / count
        withdraw = _seconds(lambda: [scheduler.withdrawn(entry.id) for entry in entries]) / count
        return submit, withdraw, position


def _seconds(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return perf_counter() - began


def _bytes_per_entry(depth: int) -> float:
    tracemalloc.start()
    stage = Stage(SCENES[3], depth)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / stage.scheduler.waiting


def _row(name: str, values: Sequence[str]) -> None:
    print(f"{name:38}" + "".join(f"{value:>12}" for value in values))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a shorter long line")
    quick = parser.parse_args().quick
    depths = (1_000, 10_000) if quick else (1_000, 100_000)
    rounds, cycles = (3, 1_000) if quick else (9, 4_000)

    heads = [f"at {depth:,}" for depth in depths]
    _row("decisions per second", [*heads, "ratio"])
    for scene in SCENES:
        stages = [Stage(scene, depth) for depth in depths]
        rates: list[list[float]] = [[], []]
        for _ in range(rounds):
            for rate, stage in zip(rates, stages, strict=True):
                rate.append(stage.cycles(cycles))
        low, high = (median(rate) for rate in rates)
        _row(scene.name, [f"{low:,.0f}", f"{high:,.0f}", f"{high / low:.2f}"])

    print()
    _row("microseconds per call", [*heads, "ratio"])
    stages = [Stage(SCENES[3], depth) for depth in depths]
    times: list[list[tuple[float, float, float]]] = [[], []]
    for _ in range(rounds):
        for costs, stage in zip(times, stages, strict=True):
            costs.append(stage.submit_withdraw_position(cycles))
    for at, call in enumerate(("submit", "withdrawn", "position")):
        low, high = (1e6 * median(cost[at] for cost in costs) for costs in times)
        _row(call, [f"{low:.2f}", f"{high:.2f}", f"{high / low:.2f}"])

    print()
    _row("bytes per waiting job", [f"{_bytes_per_entry(depth):,.0f}" for depth in depths])


if __name__ == "__main__":
    main()
