"""Everything one simulator has: its configuration, its world in motion, its instruments."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from urllib.parse import parse_qs
from uuid import UUID

from . import wire
from .clock import Clock
from .config import Kind, ModelConfig, SimulatorConfig
from .engine import Engine, TurnedAway
from .exchange import ON_ARRIVAL, Exchange
from .faults import Facts, FaultBook, LoadFailure
from .gate import Gate
from .journal import Journal
from .reports import RequestRecord
from .seeds import rng_for
from .world import Weight, World

LOOSE_FILE = "loose-file"
"""An entry of the model lists that has no configuration, hence null capabilities."""

_KEPT_PICTURES = 256
_Result = TypeVar("_Result")


@contextmanager
def turned_away(name: str) -> Generator[None]:
    """Say as LocalAI does why the world has turned a request away."""
    try:
        yield
    except TurnedAway as away:
        if away.reason == "cooldown":
            raise wire.cooldown(name, away.retry_after) from away
        if away.reason == "load_failed":
            raise wire.load_failed() from away
        raise wire.Refusal(500, f"model {name} is still busy") from away


class Simulation:
    """The state behind the routes. All but the world itself survives a restart."""

    def __init__(self, config: SimulatorConfig) -> None:
        self._given = config
        self.config = config
        self.journal = Journal()
        self.faults = FaultBook()
        self.clock = Clock(config.speed)
        self.gate = Gate()
        self._background: set[asyncio.Task[object]] = set()
        self.restart()

    def __repr__(self) -> str:
        return f"<Simulation {self.engine!r} {self.journal!r}>"

    def restart(self) -> None:
        """Be as after the start of a process: nothing in memory, nobody waiting."""
        self.clock.stop()
        world = World(
            self._weights(),
            memory_gb=self.config.memory_gb,
            max_active=self.config.max_active_backends,
        )
        self.engine = Engine(world, self.clock)
        self.pictures: dict[str, bytes] = {}

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
        self.clock = Clock(self.config.speed)
        self.gate = Gate()
        self.restart()

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
        known = facts.model is not None and facts.model in self.config.models
        fault = self.faults.decide(facts, seed=self.config.seed)
        exchange.fault = fault
        if fault is not None and known and isinstance(fault.action, LoadFailure):
            self.engine.world.doom(self.config.target(facts.model or ""), fault.action.times)
        await self.suffer(exchange, ON_ARRIVAL)

    def facts(self, exchange: Exchange, *, modality: str | None = None, prompt: str = "") -> Facts:
        """Tell what the fault rules may look at."""
        entry = exchange.entry
        model = None if entry is None else entry.model
        if entry is not None:
            entry.modality = modality
            self.journal.changed()
        return Facts(
            path=exchange.path,
            headers=exchange.headers,
            model=model,
            modality=modality,
            stream=entry is not None and entry.stream,
            prompt=prompt,
            needs_load=model in self.config.models and self._needs_load(model),
        )

    async def suffer(self, exchange: Exchange, moment: float) -> None:
        """Let the fault strike if its moment has come; silence takes its time here."""
        hang = exchange.hanging(moment)
        if hang is None:
            await exchange.suffer(moment)
        elif hang.seconds is None:
            await asyncio.Event().wait()
        else:
            await self.clock.sleep(hang.seconds)

    async def take_slot(self, exchange: Exchange) -> None:
        """Wait for a slot of the model.

        Raises:
            Refusal: it could not be loaded.

        """
        entry = exchange.record
        name = entry.model or ""
        with turned_away(name):
            await self.engine.slot(entry.number, self.config.target(name))
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
            Refusal: it could not be loaded.

        """
        await self.take_slot(exchange)
        engine = self.engine
        try:
            yield
        finally:
            self.give_back(engine, exchange.record)

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

    def _needs_load(self, name: str) -> bool:
        phase = self.engine.world.view(self.config.target(name), self.clock.now()).phase
        return phase == "unloaded"

    def _weights(self) -> Mapping[str, Weight]:
        return {
            name: Weight(slots=model.slots, weights_gb=model.weights_gb, load_s=model.load_s)
            for name, model in self.config.models.items()
            if model.alias_of is None
        }
