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
  cooldown; the others who waited get one more try;
* if a process dies, everybody who worked or waited there is lost. LocalAI looks after a process
  only with the first request 30 s after the last look; until then the dead one counts as loaded,
  and whoever comes is turned away.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

BUSY_WAIT = 30.0
FIRST_COOLDOWN = 10.0
LONGEST_COOLDOWN = 300.0
HEALTH_CHECK = 30.0

Reason = Literal["load_failed", "out_of_memory", "cooldown", "still_busy", "crashed"]
Phase = Literal["unloaded", "loading", "ready", "busy", "cooling", "crashed"]


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


@dataclass(frozen=True, slots=True)
class Lost:
    """The process died under the request, whether it worked or waited for a slot."""

    number: int


Happening = Granted | Refused | Lost


@dataclass(slots=True)
class _Model:
    weight: Weight
    resident: bool = False
    busy: set[int] = field(default_factory=set[int])
    waiting: list[int] = field(default_factory=list[int])
    """In line: for a slot, or (if also in `warming`) only for the model to be loaded."""
    warming: set[int] = field(default_factory=set[int])
    paces: dict[int, float] = field(default_factory=dict[int, float])
    """How many times longer than usual a load takes on behalf of those in line."""
    shutdowns: dict[int, float] = field(default_factory=dict[int, float])
    """Who wants the model out of memory, and until when they wait for it to fall idle."""
    last_used: float = 0.0
    failures: int = 0
    cooldown_until: float = 0.0
    doomed: int = 0
    doom: Reason = "load_failed"
    next_load_s: float | None = None
    checked_at: float = 0.0
    noticed_at: float | None = None
    """When the death of its process will be noticed; None while none has died."""
    loads: int = 0


@dataclass(slots=True)
class _Load:
    model: str
    leader: int
    asked_at: float
    ready_at: float | None = None
    """None while room is being made."""
    evicted: bool = False
    over_budget: bool = False


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
        self,
        models: Mapping[str, Weight],
        *,
        memory_gb: float,
        max_active: int = 0,
        idle_s: float | None = None,
        oom_over_budget: bool = False,
    ) -> None:
        self._oom_over_budget = oom_over_budget
        self._models = {name: _Model(weight) for name, weight in models.items()}
        self._memory_gb = memory_gb
        self._max_active = max_active
        self._idle_s = idle_s
        self._load: _Load | None = None
        self._tried_again: set[int] = set()
        self.swaps = 0
        self.over_budget = 0

    def __repr__(self) -> str:
        phases = ", ".join(f"{name} {self.view(name, 0.0).phase}" for name in self._models)
        return f"<World [{phases}] {self.memory_used():g}/{self._memory_gb:g} GB>"

    # What happens to it

    def ask(self, number: int, name: str, now: float, pace: float = 1.0) -> list[Happening]:
        """Let a request line up for a slot; a load on its behalf takes `pace` times as long."""
        return self._line_up(number, name, now, slot=True, pace=pace)

    def warm(self, number: int, name: str, now: float, pace: float = 1.0) -> list[Happening]:
        """Let a request wait until a model is loaded; it wants no slot."""
        return self._line_up(number, name, now, slot=False, pace=pace)

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
            or self._unload_idle(now)
            or self._start_load(now)
        ):
            pass
        return happenings

    def due(self) -> float | None:
        """When the world wants to be told the time again, or None if nothing is coming."""
        models = self._models.values()
        moments = [until for model in models for until in model.shutdowns.values()]
        if self._idle_s is not None:
            moments += [model.last_used + self._idle_s for model in models if _idle(model)]
        if self._load is not None:
            if self._load.ready_at is None:
                moments.append(self._load.asked_at + BUSY_WAIT)
            else:
                moments.append(self._load.ready_at)
        return min(moments, default=None)

    # What is done to it by hand

    def doom(self, name: str, loads: int, reason: Reason = "load_failed") -> None:
        """Let the next loads of a model fail."""
        model = self._models[name]
        model.doomed = max(model.doomed, loads)
        model.doom = reason

    def crash(self, name: str, now: float) -> list[Happening]:
        """Let the process of a model die; one that is still loading fails to load.

        Raises:
            ValueError: the model has no process.

        """
        model = self._models[name]
        if self._load is not None and self._load.model == name and self._load.ready_at is not None:
            self._load.ready_at = now
            self.doom(name, 1)
            return self.advance(now)
        if not model.resident:
            raise ValueError(f"{name} is not in memory")
        lost: list[Happening] = [Lost(number) for number in (*sorted(model.busy), *model.waiting)]
        model.busy.clear()
        for number in list(model.waiting):
            self._drop(number, model)
        model.resident = False
        model.noticed_at = max(now, model.checked_at + HEALTH_CHECK)
        return lost + self.advance(now)

    def unload(self, name: str, now: float, *, next_load_s: float) -> list[Happening]:
        """Have a model out of memory at once, and its next load take so many seconds.

        Raises:
            ValueError: it is at work or being loaded.

        """
        happenings = self.take_out(name, now)
        self._models[name].next_load_s = next_load_s
        return happenings

    def put_in(self, name: str, now: float) -> list[Happening]:
        """Have a model in memory at once, and its cooldown over.

        Raises:
            ValueError: it would not fit beside the models that work.

        """
        model = self._models[name]
        load = self._load
        if load is not None and load.model == name and load.ready_at is not None:
            load.ready_at = now
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
        model.noticed_at = None
        return self.advance(now)

    def resize(
        self,
        models: Mapping[str, Weight],
        *,
        memory_gb: float,
        max_active: int,
        idle_s: float | None = None,
        now: float,
    ) -> list[Happening]:
        """Go on with other slots, sizes, load times and limits; the models stay the same."""
        for name, weight in models.items():
            self._models[name].weight = weight
        self._memory_gb = memory_gb
        self._max_active = max_active
        self._idle_s = idle_s
        return self.advance(now)

    # How it stands

    def resident(self, now: float) -> list[str]:
        """Name the models that LocalAI takes for loaded, a dead one until that is noticed."""
        models = self._models.items()
        return [name for name, model in models if model.resident or _haunting(model, now)]

    def works(self, number: int) -> bool:
        """Whether a request holds a slot."""
        return any(number in model.busy for model in self._models.values())

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
        elif _haunting(model, now):
            phase = "crashed"
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
        if load.over_budget and self._oom_over_budget:
            happenings += self._turn_away(model, list(model.waiting), "out_of_memory")
            self._arm_cooldown(model, now)
        elif model.doomed:
            model.doomed -= 1
            happenings += self._turn_away(model, list(model.waiting), model.doom)
            self._arm_cooldown(model, now)
        else:
            self._settle_in(model, now)
        return True

    def _unload_idle(self, now: float) -> bool:
        if self._idle_s is None:
            return False
        unloaded = False
        for model in self._models.values():
            if _idle(model) and now >= model.last_used + self._idle_s:
                model.resident = False
                unloaded = True
        return unloaded

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
                    model.noticed_at = None
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
            if self._taken() and now < load.asked_at + BUSY_WAIT:
                return False
            self.over_budget += 1
            load.over_budget = True
        model = self._models[load.model]
        seconds = model.weight.load_s if model.next_load_s is None else model.next_load_s
        model.next_load_s = None
        load.ready_at = now + seconds * model.paces[load.leader]
        model.loads += 1
        self.swaps += load.evicted
        return True

    # Smaller movements

    def _line_up(
        self, number: int, name: str, now: float, *, slot: bool, pace: float
    ) -> list[Happening]:
        happenings = self.advance(now)
        model = self._models[name]
        if _haunting(model, now):
            return [*happenings, Refused(number, "crashed") if slot else Granted(number)]
        if model.resident and now >= model.checked_at + HEALTH_CHECK:
            model.checked_at = now
        if self.cooling(name, now):
            return [*happenings, Refused(number, "cooldown", model.cooldown_until - now)]
        model.waiting.append(number)
        model.paces[number] = pace
        if not slot:
            model.warming.add(number)
        return happenings + self.advance(now)

    def _drop(self, number: int, model: _Model) -> None:
        model.waiting.remove(number)
        model.warming.discard(number)
        del model.paces[number]
        self._tried_again.discard(number)

    def _turn_away(self, model: _Model, numbers: Iterable[int], reason: Reason) -> list[Happening]:
        happenings: list[Happening] = []
        for number in numbers:
            self._drop(number, model)
            happenings.append(Refused(number, reason))
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
        return self._turn_away(model, again, "load_failed")

    def _arm_cooldown(self, model: _Model, now: float) -> None:
        model.failures += 1
        seconds = min(FIRST_COOLDOWN * 2.0 ** (model.failures - 1), LONGEST_COOLDOWN)
        model.cooldown_until = now + seconds

    def _settle_in(self, model: _Model, now: float) -> None:
        model.resident = True
        model.noticed_at = None
        model.last_used = now
        model.checked_at = now
        model.failures = 0
        model.cooldown_until = 0.0

    def _taken(self) -> list[str]:
        taken = [name for name, model in self._models.items() if model.resident]
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


def _idle(model: _Model) -> bool:
    return model.resident and not model.busy and not model.waiting


def _haunting(model: _Model, now: float) -> bool:
    """Whether a process has died and nobody has noticed."""
    return model.noticed_at is not None and now < model.noticed_at
