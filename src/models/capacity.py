"""What the backends can run: slots, resident models, loads and ghosts.

Two rules are never broken. No more attempts run on a model than its `parallel`. No model is
evicted while anything runs on it: LocalAI would wait 30 s for it and then load over its memory
limit, so a model that must make room is *drained* first, and the load is asked for explicitly.

An attempt that nobody waits for any more but that the engine finishes all the same is a *ghost*:
it holds its slot until it has really ended.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """How one model may be used: attempts at once, and its size in GB where known."""

    parallel: int = 1
    weights_gb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendLimits:
    """What fits into a backend's memory at once: a number of models, or GB of weights.

    With `memory_gb`, a model of unknown weights is taken to fill the memory, and a model larger
    than the memory may be loaded when nothing else is resident.
    """

    resident: int = 1
    memory_gb: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A free slot: the attempt may start on this backend now."""

    backend: str


@dataclass(frozen=True, slots=True)
class LoadFirst:
    """Room for the model: it may be loaded on this backend now, in place of idle `evicted`."""

    backend: str
    evicted: tuple[str, ...]


Placement = Run | LoadFirst | None
_ANY = ModelLimits()


@dataclass(slots=True)
class _Backend:
    name: str
    limits: BackendLimits
    up: bool = False
    offers: frozenset[str] | None = None
    running: dict[str, int] = field(default_factory=dict[str, int])
    """Resident models, least recently used first, with the attempts and ghosts on each."""
    loading: str | None = None
    cooling: dict[str, float] = field(default_factory=dict[str, float])
    held: set[str] = field(default_factory=set[str])
    """Models that drain for a better job during the present round of placements."""
    reserved: bool = False
    """Whether the next load in the present round is promised to a better job."""


class Capacity:
    """Every backend's slots and models. It is told what happens; it never looks."""

    def __init__(
        self,
        backends: Mapping[str, BackendLimits],
        models: Mapping[str, ModelLimits] | None = None,
    ) -> None:
        self._backends = {name: _Backend(name, limits) for name, limits in backends.items()}
        self._models = dict(models or {})

    def __repr__(self) -> str:
        return f"<Capacity [{', '.join(self._show(b) for b in self._backends.values())}]>"

    def set_models(self, models: Mapping[str, ModelLimits]) -> None:
        """Replace what is known of how models may be used."""
        self._models = dict(models)

    # What has happened

    def backend_up(
        self, backend: str, *, offers: Iterable[str] | None, resident: Iterable[str] | None
    ) -> None:
        """Note that a backend answers, what it offers and which models are in its memory.

        `None` means that the backend does not say: it may then be asked for any model, or the
        models believed resident stay so unless the backend was away. A model that is busy here
        stays whatever the backend reported; one that is being loaded is not there yet.
        """
        b = self._backends[backend]
        b.offers = None if offers is None else frozenset(offers)
        seen = set(b.running if b.up else ()) if resident is None else set(resident)
        seen.discard(b.loading or "")
        b.up = True
        b.running = {m: n for m, n in b.running.items() if n or m in seen} | {
            m: 0 for m in sorted(seen) if m not in b.running
        }

    def backend_down(self, backend: str) -> None:
        """Note that a backend cannot be reached."""
        self._backends[backend].up = False

    def occupy(self, backend: str, model: str) -> None:
        """Take a slot."""
        running = self._backends[backend].running
        running[model] = running.pop(model) + 1

    def vacate(self, backend: str, model: str) -> None:
        """Give a slot back."""
        b = self._backends[backend]
        b.running[model] -= 1
        if not b.running[model] and model in b.cooling:
            del b.running[model]

    def begin_load(self, backend: str, model: str, evicted: Iterable[str]) -> None:
        """Note that a load was asked for."""
        b = self._backends[backend]
        b.loading = model
        for idle in evicted:
            del b.running[idle]

    def end_load(self, backend: str, model: str, *, cool_until: float | None = None) -> None:
        """Note that a load is over; with `cool_until` it failed and may be tried again then."""
        b = self._backends[backend]
        b.loading = None
        if cool_until is None:
            b.cooling.pop(model, None)
            b.running.setdefault(model, 0)
        else:
            b.cooling[model] = cool_until

    def gone(self, backend: str, model: str, *, cool_until: float) -> None:
        """Note that a model is not in memory although it was thought to be."""
        b = self._backends[backend]
        b.cooling[model] = cool_until
        if not b.running.get(model):
            b.running.pop(model, None)

    # What can be done

    def new_round(self) -> None:
        """Forget what was held back for better jobs: the best job is placed again first."""
        for b in self._backends.values():
            b.held.clear()
            b.reserved = False

    def place(self, model: str, now: float) -> Placement:
        """Say what can be done now for a job of this model, all better jobs being placed.

        When the model needs room that is still busy, what it needs is held back from the worse
        jobs that are placed after it in this round, so that it drains.
        """
        usable = [
            b
            for b in self._backends.values()
            if b.up and (b.offers is None or model in b.offers) and b.cooling.get(model, now) <= now
        ]
        homes = [b for b in usable if model in b.running]
        parallel = self._models.get(model, _ANY).parallel
        free = [b for b in homes if b.running[model] < parallel and model not in b.held]
        if free:
            return Run(min(free, key=lambda b: b.running[model]).name)
        if any(b.loading == model for b in usable):
            return None
        drainable: list[tuple[int, _Backend, list[str]]] = []
        for b in usable:
            if model in b.running or b.reserved:
                continue
            evicted = self._evicted_for(model, b)
            if evicted is None or (homes and evicted):
                continue
            busy = sum(b.running[m] for m in evicted)
            if not busy and b.loading is None:
                b.reserved = True
                return LoadFirst(b.name, tuple(evicted))
            drainable.append((busy, b, evicted))
        if drainable and not homes:
            _, b, evicted = min(drainable, key=lambda option: option[0])
            b.reserved = True
            b.held.update(evicted)
        return None

    def exhausted(self) -> bool:
        """Whether no further job could be placed in this round, whatever its model."""
        return not any(b.up and self._has_room(b) for b in self._backends.values())

    def next_change(self, now: float) -> float | None:
        """Return when the next cooling model may be tried again."""
        return min(
            (t for b in self._backends.values() for t in b.cooling.values() if t > now),
            default=None,
        )

    # What is known

    def is_up(self, backend: str) -> bool:
        """Whether the backend answers."""
        return self._backends[backend].up

    def resident(self, backend: str) -> Mapping[str, int]:
        """Return the models in memory, with the attempts and ghosts on each."""
        return dict(self._backends[backend].running)

    def loading(self, backend: str) -> str | None:
        """Return the model that is being loaded."""
        return self._backends[backend].loading

    def cooling(self, backend: str, now: float) -> Mapping[str, float]:
        """Return the models whose last load failed, with the time they may be tried again."""
        return {m: t for m, t in self._backends[backend].cooling.items() if t > now}

    def parallel(self, model: str) -> int:
        """Return how many attempts may run at once on one resident copy of a model."""
        return self._models.get(model, _ANY).parallel

    def _has_room(self, b: _Backend) -> bool:
        for model, running in b.running.items():
            if running < self._models.get(model, _ANY).parallel and model not in b.held:
                return True
        if b.reserved or b.loading is not None:
            return False
        if not all(b.running.values()):
            return True
        if b.limits.memory_gb is None:
            return len(b.running) < b.limits.resident
        return self._weights(b.running, b.limits.memory_gb) < b.limits.memory_gb

    def _weights(self, models: Iterable[str], unknown: float) -> float:
        return sum(self._models.get(m, _ANY).weights_gb or unknown for m in models)

    def _evicted_for(self, model: str, b: _Backend) -> list[str] | None:
        """Return the models that must leave, idle and least recently used first.

        None when room cannot come about before the present load is over.
        """
        kept = [*b.running, *([b.loading] if b.loading is not None else [])]
        evicted: list[str] = []
        for idle_first in sorted(b.running, key=lambda m: b.running[m] > 0):
            if self._fits(model, kept, b.limits):
                return evicted
            kept.remove(idle_first)
            evicted.append(idle_first)
        return evicted if not kept or self._fits(model, kept, b.limits) else None

    def _fits(self, model: str, others: list[str], limits: BackendLimits) -> bool:
        if limits.memory_gb is None:
            return len(others) < limits.resident
        return self._weights([*others, model], limits.memory_gb) <= limits.memory_gb

    def _show(self, b: _Backend) -> str:
        models = ", ".join(f"{m} {n}/{self.parallel(m)}" for m, n in b.running.items())
        loading = f" loading {b.loading}" if b.loading else ""
        return f"{b.name} {'up' if b.up else 'down'}: {models or 'empty'}{loading}"
