"""The world behind the wire: which models are in memory, who works there and who waits.

A pure state machine, told what happens and when in simulated seconds. Each method answers with
what follows for the requests, known by their numbers; `due()` says when to come again with
`advance()`. The rules:

* a model is loaded on first use, one load at a time, for the request that has waited longest;
* before a load, models that nobody uses are evicted, the least recently used first, until the
  new one fits; busy ones are waited for 30 s, then it is loaded over the budget;
* inside a model, requests wait in line for a slot;
* a failed load turns away all who wait for it and arms a cooldown of 10 s, doubled by each
  further failure up to 5 min, ended by a success: whoever comes meanwhile is turned away;
* whoever leaves while the model loads on their behalf aborts the load, which also arms the
  cooldown; the others who waited get one more try.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

BUSY_WAIT = 30.0
FIRST_COOLDOWN = 10.0
LONGEST_COOLDOWN = 300.0

Reason = Literal["load_failed", "cooldown", "still_busy"]
Phase = Literal["unloaded", "loading", "ready", "busy", "cooling"]


@dataclass(frozen=True, slots=True)
class Weight:
    """What the world must know of a model: its slots, its size, how long a load takes."""

    slots: int
    weights_gb: float
    load_s: float


@dataclass(frozen=True, slots=True)
class Granted:
    """The request has what it waited for: a slot, a loaded model, or an unloaded one."""

    number: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is turned away."""

    number: int
    reason: Reason
    retry_after: float = 0.0


Happening = Granted | Refused


@dataclass(slots=True)
class _Model:
    weight: Weight
    resident: bool = False
    busy: set[int] = field(default_factory=set[int])
    waiting: list[int] = field(default_factory=list[int])
    """In line: for a slot, or (if also in `warming`) only for the model to be loaded."""
    warming: set[int] = field(default_factory=set[int])
    shutdowns: dict[int, float] = field(default_factory=dict[int, float])
    """Who wants the model out of memory, and until when they wait for it to fall idle."""
    last_used: float = 0.0
    failures: int = 0
    cooldown_until: float = 0.0
    doomed: int = 0
    loads: int = 0


@dataclass(slots=True)
class _Load:
    model: str
    leader: int
    asked_at: float
    ready_at: float | None = None
    """None while room is being made."""
    evicted: bool = False


@dataclass(frozen=True, slots=True)
class ModelView:
    """How one model stands."""

    phase: Phase
    busy: int
    waiting: int
    loads: int
    cooldown_until: float | None


class World:
    """Models, memory, slots and cooldowns."""

    def __init__(
        self, models: Mapping[str, Weight], *, memory_gb: float, max_active: int = 0
    ) -> None:
        self._models = {name: _Model(weight) for name, weight in models.items()}
        self._memory_gb = memory_gb
        self._max_active = max_active
        self._load: _Load | None = None
        self._tried_again: set[int] = set()
        self.swaps = 0
        self.over_budget = 0

    def __repr__(self) -> str:
        phases = ", ".join(f"{name} {self.view(name, 0.0).phase}" for name in self._models)
        return f"<World [{phases}] {self.memory_used():g}/{self._memory_gb:g} GB>"

    # What happens to it

    def ask(self, number: int, name: str, now: float) -> list[Happening]:
        """Let a request line up for a slot of a model."""
        return self._line_up(number, name, now, slot=True)

    def warm(self, number: int, name: str, now: float) -> list[Happening]:
        """Let a request wait until a model is loaded; it wants no slot."""
        return self._line_up(number, name, now, slot=False)

    def shut_down(self, number: int, name: str, now: float) -> list[Happening]:
        """Let a request wait for a resident model to fall idle, and unload it then."""
        self._models[name].shutdowns[number] = now + BUSY_WAIT
        return self.advance(now)

    def leave(self, number: int, now: float) -> list[Happening]:
        """Let a request go, wherever it was: at work, in line, or waiting for its load."""
        for name, model in self._models.items():
            model.shutdowns.pop(number, None)
            if number in model.busy:
                model.busy.discard(number)
                model.last_used = now
            if number in model.waiting:
                self._drop(number, model)
                if self._load is not None and self._load.leader == number:
                    return self._abort(name, model, self._load, now) + self.advance(now)
        return self.advance(now)

    def advance(self, now: float) -> list[Happening]:
        """Do everything that is due."""
        happenings: list[Happening] = []
        while (
            self._finish_load(now, happenings)
            or self._grant_slots(happenings)
            or self._finish_shutdowns(now, happenings)
            or self._start_load(now)
        ):
            pass
        return happenings

    def due(self) -> float | None:
        """When the world wants to be told the time again, or None if nothing is coming."""
        moments = [until for model in self._models.values() for until in model.shutdowns.values()]
        if self._load is not None:
            if self._load.ready_at is None:
                moments.append(self._load.asked_at + BUSY_WAIT)
            else:
                moments.append(self._load.ready_at)
        return min(moments, default=None)

    # What is done to it by hand

    def doom(self, name: str, loads: int) -> None:
        """Let the next loads of a model fail."""
        self._models[name].doomed = max(self._models[name].doomed, loads)

    def put_in(self, name: str, now: float) -> list[Happening]:
        """Have a model in memory at once, and its cooldown over.

        Raises:
            ValueError: it would not fit beside the models that work.

        """
        model = self._models[name]
        if self._load is not None and self._load.model == name:
            self._load.ready_at = now
        elif not model.resident:
            if not self._make_room(name, evicted=[]):
                raise ValueError(f"no room for {name} beside the models that are busy")
            model.loads += 1
            self._settle_in(model, now)
        return self.advance(now)

    def take_out(self, name: str, now: float) -> list[Happening]:
        """Have a model out of memory at once.

        Raises:
            ValueError: it is at work or being loaded.

        """
        model = self._models[name]
        if model.busy or (self._load is not None and self._load.model == name):
            raise ValueError(f"{name} is busy")
        model.resident = False
        return self.advance(now)

    def resize(
        self, models: Mapping[str, Weight], *, memory_gb: float, max_active: int, now: float
    ) -> list[Happening]:
        """Go on with other slots, sizes, load times and limits; the models stay the same."""
        for name, weight in models.items():
            self._models[name].weight = weight
        self._memory_gb = memory_gb
        self._max_active = max_active
        return self.advance(now)

    # How it stands

    def resident(self) -> list[str]:
        """Name the models that are loaded."""
        return [name for name, model in self._models.items() if model.resident]

    def memory_used(self) -> float:
        """Tell the gigabytes taken by loaded models and the one that is being loaded."""
        return sum(self._models[name].weight.weights_gb for name in self._taken())

    def crowd(self, name: str) -> int:
        """Count the requests that work or wait at a model."""
        return len(self._models[name].busy) + len(self._models[name].waiting)

    def cooling(self, name: str, now: float) -> bool:
        """Whether a request for this model would be turned away because a load failed."""
        model = self._models[name]
        loading = self._load is not None and self._load.model == name
        return not model.resident and not loading and now < model.cooldown_until

    def view(self, name: str, now: float) -> ModelView:
        """Tell how a model stands."""
        model = self._models[name]
        loading = self._load is not None and self._load.model == name
        cooling = self.cooling(name, now)
        phase: Phase = "unloaded"
        if model.resident:
            phase = "busy" if model.busy else "ready"
        elif loading:
            phase = "loading"
        elif cooling:
            phase = "cooling"
        return ModelView(
            phase=phase,
            busy=len(model.busy),
            waiting=len(model.waiting),
            loads=model.loads,
            cooldown_until=model.cooldown_until if cooling else None,
        )

    # The steps of `advance`: each does one thing and says whether it did

    def _finish_load(self, now: float, happenings: list[Happening]) -> bool:
        load = self._load
        if load is None or load.ready_at is None or now < load.ready_at:
            return False
        self._load = None
        model = self._models[load.model]
        if model.doomed:
            model.doomed -= 1
            happenings += self._turn_away(model, list(model.waiting))
            self._arm_cooldown(model, now)
        else:
            self._settle_in(model, now)
        return True

    def _grant_slots(self, happenings: list[Happening]) -> bool:
        granted: list[Happening] = []
        for model in self._models.values():
            for number in list(model.waiting) if model.resident else ():
                if number in model.warming:
                    self._drop(number, model)
                elif len(model.busy) < model.weight.slots:
                    self._drop(number, model)
                    model.busy.add(number)
                else:
                    continue
                granted.append(Granted(number))
        happenings += granted
        return bool(granted)

    def _finish_shutdowns(self, now: float, happenings: list[Happening]) -> bool:
        done: list[Happening] = []
        for model in self._models.values():
            for number, until in list(model.shutdowns.items()):
                if not model.busy:
                    model.resident = False
                    done.append(Granted(number))
                elif now >= until:
                    done.append(Refused(number, "still_busy"))
                else:
                    continue
                del model.shutdowns[number]
        happenings += done
        return bool(done)

    def _start_load(self, now: float) -> bool:
        load = self._load
        if load is None:
            wanted = [
                (model.waiting[0], name)
                for name, model in self._models.items()
                if model.waiting and not model.resident
            ]
            if not wanted:
                return False
            leader, name = min(wanted)
            load = self._load = _Load(name, leader, asked_at=now)
        if load.ready_at is not None:
            return False
        evicted: list[str] = []
        fits = self._make_room(load.model, evicted=evicted)
        load.evicted = load.evicted or bool(evicted)
        if not fits:
            if self.resident() and now < load.asked_at + BUSY_WAIT:
                return False
            self.over_budget += 1
        model = self._models[load.model]
        load.ready_at = now + model.weight.load_s
        model.loads += 1
        self.swaps += load.evicted
        return True

    # Smaller movements

    def _line_up(self, number: int, name: str, now: float, *, slot: bool) -> list[Happening]:
        happenings = self.advance(now)
        model = self._models[name]
        if self.cooling(name, now):
            return [*happenings, Refused(number, "cooldown", model.cooldown_until - now)]
        model.waiting.append(number)
        if not slot:
            model.warming.add(number)
        return happenings + self.advance(now)

    def _drop(self, number: int, model: _Model) -> None:
        model.waiting.remove(number)
        model.warming.discard(number)
        self._tried_again.discard(number)

    def _turn_away(self, model: _Model, numbers: Iterable[int]) -> list[Happening]:
        happenings: list[Happening] = []
        for number in numbers:
            self._drop(number, model)
            happenings.append(Refused(number, "load_failed"))
        return happenings

    def _abort(self, name: str, model: _Model, load: _Load, now: float) -> list[Happening]:
        """End the load whose leader has left; nothing has failed while room was being made."""
        assert load.model == name  # noqa: S101
        self._load = None
        if load.ready_at is None:
            return []
        self._arm_cooldown(model, now)
        again = [number for number in model.waiting if number in self._tried_again]
        self._tried_again.update(model.waiting)
        return self._turn_away(model, again)

    def _arm_cooldown(self, model: _Model, now: float) -> None:
        model.failures += 1
        seconds = min(FIRST_COOLDOWN * 2.0 ** (model.failures - 1), LONGEST_COOLDOWN)
        model.cooldown_until = now + seconds

    def _settle_in(self, model: _Model, now: float) -> None:
        model.resident = True
        model.last_used = now
        model.failures = 0
        model.cooldown_until = 0.0

    def _taken(self) -> list[str]:
        taken = self.resident()
        if self._load is not None and self._load.ready_at is not None:
            taken.append(self._load.model)
        return taken

    def _fits(self, name: str) -> bool:
        memory = self.memory_used() + self._models[name].weight.weights_gb
        in_number = not self._max_active or len(self._taken()) < self._max_active
        return in_number and memory <= self._memory_gb + 1e-9

    def _make_room(self, name: str, *, evicted: list[str]) -> bool:
        """Evict idle models until one fits; say whether it does."""
        while not self._fits(name):
            idle = [
                (model.last_used, other)
                for other, model in self._models.items()
                if model.resident and not model.busy
            ]
            if not idle:
                return False
            _, oldest = min(idle)
            self._models[oldest].resident = False
            evicted.append(oldest)
        return True
