"""What the backends can run: slots, resident models, loads and ghosts.

Two rules are never broken. No more attempts run on a model than its `parallel`. No model is
evicted while anything runs on it: LocalAI would wait 30 s for it and then load over its memory
limit, so a model that must make room is *drained* first, and the load is asked for explicitly.

An attempt that nobody waits for any more but that the engine finishes all the same is a *ghost*:
it holds its slot until it has really ended.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


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

    @property
    def room(self) -> float:
        """What fits in: GB where they are counted, models otherwise."""
        return self.resident if self.memory_gb is None else self.memory_gb


@dataclass(frozen=True, slots=True)
class Run:
    """A free slot: the attempt may start on this backend now."""

    backend: str


@dataclass(frozen=True, slots=True)
class LoadFirst:
    """Room for the model: it may be loaded on this backend now, in place of idle `evicted`."""

    backend: str
    evicted: tuple[str, ...]


class Pause(NamedTuple):
    """A model is left alone on a backend.

    Attributes:
        until: when it may be tried again, in seconds since 1970.
        why: the reason, for people.
        while_resident: whether it ends at once when the backend has noticed that the model's
            process is gone. Until then LocalAI sends requests to it, for up to 30 s.

    """

    until: float
    why: str = ""
    while_resident: bool = False


Placement = Run | LoadFirst | None
_ANY = ModelLimits()


@dataclass(slots=True)
class _Backend:
    name: str
    limits: BackendLimits
    run: Run
    up: bool = False
    careful: bool = False
    """Whether it was away: each of its models begins again with one attempt at a time."""
    offers: frozenset[str] | None = None
    running: dict[str, int] = field(default_factory=dict[str, int])
    """Resident models, least recently used first, with the attempts and ghosts on each."""
    full: set[str] = field(default_factory=set[str])
    """Resident models without a free slot."""
    loading: str | None = None
    leaving: frozenset[str] = frozenset()
    """Models that the present load evicts."""
    paused: dict[str, Pause] = field(default_factory=dict[str, Pause])
    allowed: dict[str, int | None] = field(default_factory=dict[str, int | None])
    """Models that may run fewer attempts at once than usual, or again as many."""
    dead: set[str] = field(default_factory=set[str])
    """Models whose process died under attempts that are still to end; they leave with the last."""
    held: set[str] = field(default_factory=set[str])
    """Models that drain for a better job during the present round of placements."""
    reserved: bool = False
    """Whether a better job waits for room here in the present round."""


class _Room(NamedTuple):
    """A way to make room for a model: what must end and what must leave before it can load."""

    busy: int
    loading: bool
    evicted: list[str]
    backend: _Backend


class Capacity:
    """Every backend's slots and models. It is told what happens; it never looks."""

    def __init__(
        self,
        backends: Mapping[str, BackendLimits],
        models: Mapping[str, ModelLimits] | None = None,
    ) -> None:
        self._backends = {
            name: _Backend(name, limits, Run(name)) for name, limits in backends.items()
        }
        self._each = tuple(self._backends.values())
        self._models = dict(models or {})

    def __repr__(self) -> str:
        return f"<Capacity [{', '.join(self._show(b) for b in self._each)}]>"

    def set_models(self, models: Mapping[str, ModelLimits]) -> None:
        """Replace what is known of how models may be used."""
        self._models = dict(models)
        for b in self._each:
            self._recount(b)

    # What has happened

    def backend_up(
        self, backend: str, *, offers: Iterable[str] | None, resident: Iterable[str] | None
    ) -> None:
        """Note that a backend answers, what it offers and which models are in its memory.

        `None` means that the backend does not say: it may then be asked for any model, or the
        models believed resident stay so unless the backend was away. A model that is busy here
        stays whatever the backend reported. One that is being loaded is not there yet, and one
        that leaves for it is not there any more. Idle models beyond the backend's limits are not
        counted on: to use them they are loaded by name, as if they were not there.
        """
        b = self._backends[backend]
        b.offers = None if offers is None else frozenset(offers)
        if resident is not None:
            resident = frozenset(resident)
            for m in [m for m, p in b.paused.items() if p.while_resident and m not in resident]:
                del b.paused[m]
        seen = set(b.running if b.up else ()) if resident is None else set(resident)
        seen -= {b.loading, *b.leaving}
        b.up = True
        b.running = {m: n for m, n in b.running.items() if n or m in seen} | {
            m: 0 for m in sorted(seen) if m not in b.running
        }
        for m in reversed(list(b.running)):
            if self._used(b) <= b.limits.room or len(b.running) == 1:
                break
            if not b.running[m]:
                del b.running[m]
        self._recount(b)

    def backend_down(self, backend: str) -> None:
        """Note that a backend cannot be reached."""
        self._backends[backend].up = False

    def occupy(self, backend: str, model: str) -> None:
        """Take a slot."""
        b = self._backends[backend]
        running = b.running[model] = b.running.pop(model) + 1
        if running >= self._slots(model, b):
            b.full.add(model)

    def vacate(self, backend: str, model: str) -> None:
        """Give a slot back."""
        b = self._backends[backend]
        running = b.running[model] = b.running[model] - 1
        if model not in b.dead:
            if running < self._slots(model, b):
                b.full.discard(model)
        elif not running:
            del b.running[model]
            b.dead.remove(model)
            b.full.remove(model)

    def begin_load(self, backend: str, model: str, evicted: Iterable[str]) -> None:
        """Note that a load was asked for."""
        b = self._backends[backend]
        b.loading = model
        b.leaving = frozenset(evicted)
        for idle in b.leaving:
            del b.running[idle]

    def end_load(self, backend: str, model: str, pause: Pause | None = None) -> None:
        """Note that a load is over; with `pause` it failed and may be tried again afterwards."""
        b = self._backends[backend]
        b.loading, b.leaving = None, frozenset()
        if pause is None:
            b.paused.pop(model, None)
            b.running.setdefault(model, 0)
            self._recount_one(model, b)
        else:
            b.paused[model] = pause

    def gone(self, backend: str, model: str, pause: Pause) -> None:
        """Note that a model is not in memory although it was thought to be.

        Attempts that still run on it keep their slots until they end; no other may join them.
        """
        b = self._backends[backend]
        b.paused[model] = pause
        if b.running.get(model):
            b.dead.add(model)
            b.full.add(model)
        else:
            b.running.pop(model, None)

    def pause(self, backend: str, model: str, pause: Pause) -> None:
        """Leave a model alone for a while, if it is not for longer already.

        What runs on it goes on.
        """
        paused = self._backends[backend].paused
        if model not in paused or paused[model].until < pause.until:
            paused[model] = pause

    def end_pause(self, backend: str, model: str) -> None:
        """Leave a model alone no longer."""
        self._backends[backend].paused.pop(model, None)

    def allow(self, backend: str, model: str, limit: int | None) -> None:
        """Let a model run so many attempts at once here, or (None) as many as it may anywhere."""
        b = self._backends[backend]
        b.allowed[model] = limit
        self._recount_one(model, b)

    def be_careful(self, backend: str) -> None:
        """Let every model begin with one attempt at a time: the backend was away."""
        b = self._backends[backend]
        b.careful = True
        b.allowed.clear()
        self._recount(b)

    # What can be done

    def new_round(self) -> None:
        """Forget what was held back for better jobs: the best job is placed again first."""
        for b in self._each:
            if b.reserved:
                b.reserved = False
                b.held.clear()

    def place(
        self, model: str, now: float, *, waiting: int = 1, wanted: Container[str] = ()
    ) -> Placement:
        """Say what can be done now for a job of this model, all better jobs being placed.

        A model that is resident somewhere is loaded elsewhere into free memory; in place of idle
        models only if more jobs wait for it than can run at home, and none for those models. One
        that is resident nowhere gets the place with the least to wait for; while that is still
        busy, it is held back from the worse jobs that are placed after this one in this round, so
        that it drains.

        Args:
            model: what the job needs.
            now: seconds since 1970.
            waiting: how many jobs wait for this model.
            wanted: the models for which jobs wait.

        """
        run = self.slot(model, now)
        if run is not None:
            return run
        at_home = on_its_way = False
        elsewhere: list[_Backend] = []
        for b in self._each:
            if not b.up or not self._usable(model, b, now):
                continue
            if model not in b.running:
                on_its_way = on_its_way or b.loading == model
                elsewhere.append(b)
            elif model not in b.held and model not in b.dead:
                at_home = True
        if on_its_way or not elsewhere:
            return None
        if not at_home:
            return self._make_room(model, elsewhere)
        many = waiting > sum(self._slots(model, b) for b in self._each if model in b.running)
        spare = [b for b in elsewhere if self._is_spare(model, b, wanted if many else None)]
        return self._make_room(model, spare)

    def slot(self, model: str, now: float) -> Run | None:
        """Say where a job of this model may start at once: where the fewest run."""
        best: Run | None = None
        fewest = 0
        for b in self._each:
            running = b.running.get(model)
            if running is None or model in b.full or model in b.held or not b.up:
                continue
            if (best is None or running < fewest) and self._usable(model, b, now):
                best, fewest = b.run, running
        return best

    def place_spare(self, model: str, now: float) -> LoadFirst | None:
        """Say where a model fits beside everything that is in memory, with nobody to wait."""
        for b in self._each:
            free = b.up and b.loading is None and not b.reserved and model not in b.running
            if free and self._usable(model, b, now) and self._evicted_for(model, b) == []:
                return LoadFirst(b.name, ())
        return None

    def exhausted(self) -> bool:
        """Whether no further job could be placed in this round, whatever its model."""
        for b in self._each:  # noqa: SIM110 - a generator would cost more than the answer
            if b.up and self._has_room(b):
                return False
        return True

    def full(self) -> set[str]:
        """Return models that `place` cannot help: resident everywhere, without a free slot."""
        if not self._each:
            return set()
        first, *others = self._each
        return first.full.intersection(*[b.full for b in others]) if others else first.full

    def next_change(self, now: float) -> float | None:
        """Return when the next pause ends."""
        return min(
            (p.until for b in self._each for p in b.paused.values() if p.until > now),
            default=None,
        )

    # What is known

    @property
    def up(self) -> Sequence[str]:
        """The backends that answer."""
        return [name for name in self._backends if self.is_up(name)]

    def is_up(self, backend: str) -> bool:
        """Whether the backend answers."""
        return self._backends[backend].up

    def resident(self, backend: str) -> Mapping[str, int]:
        """Return the models in memory, with the attempts and ghosts on each."""
        return dict(self._backends[backend].running)

    def is_dying(self, backend: str, model: str) -> bool:
        """Whether the model's process has died under attempts that are still to end."""
        return model in self._backends[backend].dead

    def loading(self, backend: str) -> str | None:
        """Return the model that is being loaded."""
        return self._backends[backend].loading

    def pauses(self, backend: str, now: float) -> Mapping[str, Pause]:
        """Return the models that are left alone, and until when and why."""
        return {m: p for m, p in self._backends[backend].paused.items() if p.until > now}

    def limit(self, backend: str, model: str) -> int:
        """Return how many attempts may run at once on a model here, at present."""
        return self._slots(model, self._backends[backend])

    def offering(self, model: str) -> Sequence[str]:
        """Return the backends that answer and have the model, as far as is known."""
        return [b.name for b in self._each if b.up and (b.offers is None or model in b.offers)]

    def is_resident(self, model: str) -> bool:
        """Whether the model is in the memory of a backend that answers."""
        for b in self._each:  # noqa: SIM110 - a generator would cost more than the answer
            if b.up and model in b.running and model not in b.dead:
                return True
        return False

    def free_slots(self, now: float) -> Iterable[str]:
        """Yield the models of which `place` would let a job run at once."""
        for b in self._each:
            if not b.up:
                continue
            for m in b.running:
                if m not in b.full and m not in b.held and self._usable(m, b, now):
                    yield m

    def parallel(self, model: str) -> int:
        """Return how many attempts may run at once on one resident copy of a model."""
        return self._models.get(model, _ANY).parallel

    def _usable(self, model: str, b: _Backend, now: float) -> bool:
        paused = model in b.paused and b.paused[model].until > now
        return not paused and (b.offers is None or model in b.offers)

    def _slots(self, model: str, b: _Backend) -> int:
        if not b.allowed and not b.careful:
            return self._models.get(model, _ANY).parallel
        parallel = self._models.get(model, _ANY).parallel
        limit = b.allowed.get(model, 1 if b.careful else None)
        return parallel if limit is None else min(limit, parallel)

    def _recount(self, b: _Backend) -> None:
        b.full = {m for m, n in b.running.items() if n >= self._slots(m, b) or m in b.dead}

    def _recount_one(self, model: str, b: _Backend) -> None:
        if model in b.running and model not in b.dead:
            if b.running[model] < self._slots(model, b):
                b.full.discard(model)
            else:
                b.full.add(model)

    def _has_room(self, b: _Backend) -> bool:
        taken = b.full | b.held if b.held else b.full
        if len(taken) < len(b.running):
            return True
        return b.loading is None and not b.reserved and self._used(b) < b.limits.room

    def _is_spare(self, model: str, b: _Backend, wanted: Container[str] | None) -> bool:
        """Whether the model may come here though it has a home: nobody must wait for that."""
        if b.loading is not None:
            return False
        evicted = self._evicted_for(model, b)
        if not evicted or wanted is None:
            return evicted == []
        return not any(b.running[m] or m in wanted for m in evicted)

    def _make_room(self, model: str, backends: Iterable[_Backend]) -> LoadFirst | None:
        rooms = [
            _Room(sum(b.running[m] for m in evicted), b.loading is not None, evicted, b)
            for b in backends
            if not b.reserved and (evicted := self._evicted_for(model, b)) is not None
        ]
        if not rooms:
            return None
        best = min(rooms, key=lambda room: (room.busy, room.loading, len(room.evicted)))
        b = best.backend
        if not best.busy and not best.loading:
            return LoadFirst(b.name, tuple(best.evicted))
        b.reserved = True
        b.held.update(best.evicted)
        return None

    def _evicted_for(self, model: str, b: _Backend) -> list[str] | None:
        """Return the models that must leave, idle and least recently used first.

        None when room cannot come about before the present load is over.
        """
        excess = self._excess(model, b)
        if excess <= 0:
            return []
        evicted: list[str] = []
        for resident in sorted(b.running, key=lambda m: b.running[m] > 0):
            evicted.append(resident)
            excess -= self._weight(resident, b)
            if excess <= 0:
                break
        if excess > 0:
            return evicted if b.loading is None else None
        for resident in reversed(evicted[:-1]):
            if excess + self._weight(resident, b) <= 0:
                excess += self._weight(resident, b)
                evicted.remove(resident)
        return evicted

    def _excess(self, model: str, b: _Backend) -> float:
        return self._used(b) + self._weight(model, b) - b.limits.room

    def _used(self, b: _Backend) -> float:
        models = b.running if b.loading is None else (*b.running, b.loading)
        if b.limits.memory_gb is None:
            return len(models)
        return sum(self._weight(m, b) for m in models)

    def _weight(self, model: str, b: _Backend) -> float:
        memory_gb = b.limits.memory_gb
        if memory_gb is None:
            return 1.0
        return self._models.get(model, _ANY).weights_gb or memory_gb

    def _show(self, b: _Backend) -> str:
        models = ", ".join(f"{m} {n}/{self.parallel(m)}" for m, n in b.running.items())
        loading = f" loading {b.loading}" if b.loading else ""
        return f"{b.name} {'up' if b.up else 'down'}: {models or 'empty'}{loading}"
