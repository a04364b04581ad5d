"""Everything one simulator has: its configuration, its world in motion, its instruments."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from urllib.parse import parse_qs
from uuid import UUID

from . import wire
from .clock import Clock
from .config import Kind, ModelConfig, SimulatorConfig
from .engine import Engine, ProcessDied, TurnedAway
from .exchange import ON_ARRIVAL, Exchange
from .faults import Facts, FaultBook, LoadFailure, Loading, Oom, Slow, Starting
from .gate import Gate
from .journal import Journal
from .profiles import CHANGED, PROFILES, ProfileName
from .reports import RequestRecord
from .seeds import rng_for
from .world import Phase, Weight, World

LOOSE_FILE = "loose-file"
"""An entry of the model lists that has no configuration, hence null capabilities."""

MANUAL_EPOCH = 1_790_000_000
"""Where a clock that is moved by hand begins, in Unix seconds."""

_KEPT_PICTURES = 256
_Result = TypeVar("_Result")


@contextmanager
def turned_away(name: str) -> Generator[None]:
    """Say as LocalAI does why the world has turned a request away, or ended its work."""
    try:
        yield
    except ProcessDied as died:
        raise wire.process_died() from died
    except TurnedAway as away:
        match away.reason:
            case "cooldown":
                raise wire.cooldown(name, away.retry_after) from away
            case "load_failed":
                raise wire.load_failed() from away
            case "out_of_memory":
                raise wire.load_failed(wire.OUT_OF_MEMORY) from away
            case "crashed":
                raise wire.process_gone() from away
            case "still_busy":
                raise wire.Refusal(500, f"model {name} is still busy") from away


class Simulation:
    """The state behind the routes. All but the world itself survives a restart."""

    def __init__(
        self, config: SimulatorConfig, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._given = config
        self._monotonic = monotonic
        self.config = config
        self.journal = Journal()
        self.faults = FaultBook()
        self.clock = self._new_clock()
        self.gate = Gate()
        self.starting_until = 0.0
        self._background: set[asyncio.Task[object]] = set()
        self.restart()
        self.adopt(config.profile)

    def __repr__(self) -> str:
        return f"<Simulation {self.engine!r} {self.journal!r}>"

    def restart(self) -> None:
        """Be as after the start of a process: nothing in memory, nobody waiting."""
        self.clock.stop()
        world = World(
            self._weights(),
            memory_gb=self.config.memory_gb,
            max_active=self.config.max_active_backends,
            idle_s=self.config.unload_idle_s,
            oom_over_budget=self.config.oom_over_budget,
        )
        self.engine = Engine(world, self.clock)
        self.pictures: dict[str, bytes] = {}

    def _new_clock(self) -> Clock:
        manual = self.config.clock == "manual"
        return Clock(self.config.speed, manual=manual, monotonic=self._monotonic)

    def halt(self) -> None:
        """Stop all work that goes on without a client."""
        for task in self._background:
            task.cancel()
        self._background.clear()
        self.clock.stop()

    def reset(self) -> None:
        """Be as new: the configuration that was given at first, no faults, an empty journal."""
        self.halt()
        self.config = self._given
        self.journal.reset()
        self.faults = FaultBook()
        self.clock = self._new_clock()
        self.gate = Gate()
        self.starting_until = 0.0
        self.restart()
        self.adopt(self.config.profile)

    def adopt(self, profile: ProfileName) -> None:
        """Have the rules of a profile and no others, and its changes instead of the last one's.

        Raises:
            ValueError: the models do not fit into it.

        """
        values = {key: getattr(self._given, key) for key in CHANGED}
        config = self.config.patched({**values, **PROFILES[profile].changes, "profile": profile})
        self.reconfigure(config)
        self.faults.replace(PROFILES[profile].rules)

    def reconfigure(self, config: SimulatorConfig) -> None:
        """Go on with another configuration of the same models."""
        self.config = config
        self.clock.set_speed(config.speed)
        world = self.engine.world
        self.engine.tell(
            world.resize(
                self._weights(),
                memory_gb=config.memory_gb,
                max_active=config.max_active_backends,
                idle_s=config.unload_idle_s,
                now=self.clock.now(),
            )
        )

    # A request's way

    def enter(self, exchange: Exchange) -> None:
        """Write a request for work into the journal."""
        arrived = self.clock.now()

        def entry(number: int) -> RequestRecord:
            exchange.identify(UUID(int=rng_for("id", self.config.seed, number).getrandbits(128)))
            return RequestRecord(
                number=number,
                correlation_id=exchange.correlation_id,
                path=exchange.path,
                digest=hashlib.sha256(exchange.body).hexdigest()[:12],
                arrived=arrived,
            )

        exchange.entry = self.journal.open(entry)

    def requested(self, exchange: Exchange, given: str | None, kinds: tuple[Kind, ...]) -> str:
        """Name the model a request means: in its body, its query, its key; else the first able.

        Raises:
            Refusal: there is no such model.

        """
        query = parse_qs(exchange.query.decode("latin-1")).get("model", [""])[0]
        bearer = exchange.headers.get("authorization", "").removeprefix("Bearer ")
        able = [name for name in self.config.models if self.model(name).kind in kinds]
        named = given or query or (bearer if bearer in self.config.models else "")
        name = named or next(iter(able), "")
        if not name:
            raise wire.framework_error(400, "Bad Request")
        if exchange.entry is not None:
            exchange.entry.model = name
        return name

    def installed(self, name: str, kinds: tuple[Kind, ...]) -> ModelConfig:
        """Return the model of that name if it can do the work.

        Raises:
            Refusal: it is not installed, or of another kind.

        """
        if name not in self.config.models:
            raise wire.unknown_model(name, [*self.config.models, LOOSE_FILE])
        model = self.model(name)
        if model.kind not in kinds:
            raise wire.wrong_kind(name)
        return model

    def model(self, name: str) -> ModelConfig:
        """Return the model that works for a name."""
        return self.config.models[self.config.target(name)]

    async def befall(self, exchange: Exchange, facts: Facts) -> None:
        """Decide what goes wrong with a request, and let it if that is at once."""
        exchange.fault = self.faults.decide(facts, seed=self.config.seed)
        if exchange.entry is not None and self.config.jitter:
            drawn = rng_for("jitter", self.config.seed, exchange.entry.number)
            exchange.pace *= 1 + self.config.jitter * drawn.uniform(-1, 1)
        if facts.model in self.config.models:
            self._affect(exchange, self.config.target(facts.model or ""))
        action = exchange.action
        if isinstance(action, Starting) and self.clock.now() >= self.starting_until:
            self.starting_until = self.clock.now() + action.seconds
        await self.suffer(exchange, ON_ARRIVAL)

    def _affect(self, exchange: Exchange, model: str) -> None:
        """Let a fault do to the world what it does."""
        world, now = self.engine.world, self.clock.now()

        def die() -> None:
            if world.view(model, self.clock.now()).phase in ("ready", "busy"):
                self.engine.crash(model, by=exchange.record.number)

        exchange.on_death = die
        match exchange.action:
            case LoadFailure(times=times):
                world.doom(model, times)
            case Oom(at="load"):
                world.doom(model, 1, "out_of_memory")
            case Loading(seconds=seconds):
                self.engine.tell(world.unload(model, now, next_load_s=seconds))
            case Slow(factor=factor):
                exchange.pace *= factor
            case _:
                pass

    def facts(self, exchange: Exchange, *, modality: str | None = None, prompt: str = "") -> Facts:
        """Tell what the fault rules may look at."""
        entry = exchange.entry
        model = None if entry is None else entry.model
        if entry is not None:
            entry.modality = modality
            self.journal.changed()
        phase = self._phase(model) if model in self.config.models else None
        return Facts(
            path=exchange.path,
            headers=exchange.headers,
            model=model,
            modality=modality,
            stream=entry is not None and entry.stream,
            prompt=prompt,
            needs_load=phase == "unloaded",
            idle=phase in ("unloaded", "ready"),
        )

    async def suffer(self, exchange: Exchange, moment: float) -> None:
        """Let the fault strike if its moment has come."""
        await exchange.suffer(moment)

    async def take_slot(self, exchange: Exchange) -> None:
        """Wait for a slot of the model.

        Raises:
            Refusal: it could not be loaded.

        """
        entry = exchange.record
        name = entry.model or ""
        with turned_away(name):
            await self.engine.slot(entry.number, self.config.target(name), exchange.pace)
        entry.started = self.clock.now()
        self.journal.changed()

    def give_back(self, engine: Engine, entry: RequestRecord) -> None:
        """Give the slot back."""
        engine.leave(entry.number)
        entry.settled = engine.clock.now()
        self.journal.changed()

    @asynccontextmanager
    async def slot(self, exchange: Exchange) -> AsyncGenerator[None]:
        """Hold a slot of the model while something is done with it.

        Raises:
            Refusal: it could not be loaded, or its process has died.

        """
        engine, entry = self.engine, exchange.record
        await self.take_slot(exchange)
        try:
            with turned_away(entry.model or ""):
                yield
        finally:
            self.give_back(engine, entry)

    def keep_running(self, work: Coroutine[object, object, _Result]) -> asyncio.Task[_Result]:
        """Run something that goes on though its client leaves."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    def keep_picture(self, picture: bytes) -> str:
        """Keep a picture where it can be fetched, and return its name."""
        number = int(next(reversed(self.pictures), "b640.png")[3:-4]) + 1
        name = f"b64{number}.png"
        self.pictures[name] = picture
        if len(self.pictures) > _KEPT_PICTURES:
            del self.pictures[next(iter(self.pictures))]
        return name

    def unix_time(self) -> int:
        """Tell the Unix seconds of an answer; of the simulated clock if that is moved by hand."""
        if self.config.clock == "manual":
            return MANUAL_EPOCH + int(self.clock.now())
        return int(time.time())

    def _phase(self, name: str) -> Phase:
        return self.engine.world.view(self.config.target(name), self.clock.now()).phase

    def _weights(self) -> Mapping[str, Weight]:
        return {
            name: Weight(slots=model.slots, weights_gb=model.weights_gb, load_s=model.load_s)
            for name, model in self.config.models.items()
            if model.alias_of is None
        }
