"""Watches the backends: who answers, what they offer, and what is in their memory."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .models.catalog import Catalog, ModelDefinition
from .models.errors import BackendError, InferenceManagerError
from .models.events import BackendChanged, Event
from .models.ports import Backend, Clock, OfferedModel
from .models.scheduler import Scheduler

logger = logging.getLogger("inference_manager.watch")

_ANXIOUS_S = 5.0


@dataclass(slots=True)
class BackendState:
    """What is known of a backend's health; `up` is None before the first look at it."""

    since: float
    up: bool | None = None
    detail: str = "not looked at yet"
    version: str = ""

    @property
    def simulated(self) -> bool:
        """Whether it is the simulator, which says so in its version."""
        return self.version.startswith("simulated")


class BackendWatch:
    """Looks at backends, tells the scheduler, and keeps the catalogue of what they offer.

    Args:
        definitions: what operators know of models.
        look_s: seconds between two looks at a backend that answers.
        recheck_s: seconds between looks at one that does not; the last value is repeated.
        lost_s: seconds of silence after which a backend is lost.
        tell: called when a backend comes or goes.
        looked: called after each look that found something, with the models in memory.
        lost: called once when a backend is lost.

    """

    def __init__(
        self,
        backends: Iterable[Backend],
        scheduler: Scheduler,
        definitions: Iterable[ModelDefinition],
        *,
        clock: Clock,
        look_s: float,
        recheck_s: Sequence[float],
        lost_s: float,
        tell: Callable[[Event], None],
        looked: Callable[[str, frozenset[str] | None], Awaitable[None]],
        lost: Callable[[str], None],
    ) -> None:
        self.states = {backend.name: BackendState(since=clock()) for backend in backends}
        self._definitions = tuple(definitions)
        self.catalog = Catalog(None, self._definitions)
        self._scheduler = scheduler
        self._clock = clock
        self._look_s = look_s
        self._recheck_s = recheck_s
        self._tell = tell
        self._looked = looked
        self._lost_s = lost_s
        self._lost = lost
        self._offers: dict[str, Sequence[OfferedModel]] = {}
        self._look = {name: asyncio.Event() for name in self.states}

    def look(self, name: str) -> None:
        """Look at a backend at once: something is not as it was thought to be."""
        self._look[name].set()

    def look_everywhere(self) -> None:
        """Look at every backend soon: somebody asked for what none of them had."""
        for look in self._look.values():
            look.set()

    def down(self, name: str, error: InferenceManagerError) -> None:
        """Note that a backend cannot be reached, and tell so once."""
        self._scheduler.backend_down(name)
        state = self.states[name]
        state.detail = f"{error.message}; {error.hint}" if error.hint else error.message
        if state.up is not False:
            state.up, state.since = False, self._clock()
            self._tell(BackendChanged(name, up=False, detail=error.message))

    async def run(self, backend: Backend) -> None:
        """Look at a backend from time to time, and at once when an attempt finds it silent."""
        look, recheck_s = self._look[backend.name], self._recheck_s
        misses, lost = 0, False
        while True:
            look.clear()
            try:
                await self._look_at(backend)
                misses, lost = 0, False
            except InferenceManagerError as error:
                self.down(backend.name, error)
                misses += 1
                if not lost and self._clock() - self.states[backend.name].since >= self._lost_s:
                    lost = True
                    self._lost(backend.name)
            except Exception:
                logger.exception("looking at a backend failed unexpectedly")
                self.down(backend.name, BackendError("looking at it failed", hint="see the log"))
                misses += 1
            await asyncio.sleep(recheck_s[min(max(misses - 1, 0), len(recheck_s) - 1)])
            if not misses:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._until_next_look(backend.name)):
                        await look.wait()

    def _until_next_look(self, name: str) -> float:
        """Look more often while something is wrong: the backend may notice before we do."""
        wrong = self._scheduler.capacity.pauses(name, self._clock())
        return min(self._look_s, _ANXIOUS_S) if wrong else self._look_s

    async def _look_at(self, backend: Backend) -> None:
        version = await backend.ping()
        offered = await backend.models()
        resident = await backend.resident()
        state = self.states[backend.name]
        self._scheduler.backend_up(
            backend.name, offers=[model.name for model in offered], resident=resident
        )
        if not state.up:
            state.up, state.version, state.since = True, version, self._clock()
            state.detail = "answers"
            self._tell(BackendChanged(backend.name, up=True, detail=version))
        if self._offers.get(backend.name) != offered:
            self._offers[backend.name] = offered
            models = [model for offer in self._offers.values() for model in offer]
            unseen = [name for name in self.states if name not in self._offers]
            self.catalog = Catalog(models, self._definitions, unseen=unseen)
            self._scheduler.capacity.set_models(self.catalog.limits())
        await self._looked(backend.name, resident)
