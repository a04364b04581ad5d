"""A processor in front of a simulator, for tests of everything behind the doors."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from src.models.breaker import BreakerRules
from src.models.capacity import BackendLimits, Capacity
from src.models.catalog import ModelDefinition
from src.models.events import Event, Listener
from src.models.modality import Modality
from src.models.ports import Backend, Blobs, JobStore, OfferedModel
from src.models.requests import Txt2ImgRequest, Txt2TxtRequest
from src.models.scheduler import Bounds, Scheduler
from src.processor import Processor, Timing
from src.simulator.client import ControlClient
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.utils.localai_client import LocalAIClient
from src.utils.retry import RetryPolicy

from .kept import in_memory

E = TypeVar("E")

FAST = SimulatorConfig(speed=0)
BRIEFLY = BreakerRules(base_s=0.01, cap_s=0.05)
"""As many failures as usual, but nothing is left alone for long."""


def chat(text: str = "repeat: hello", **fields: Any) -> Txt2TxtRequest:
    return Txt2TxtRequest.model_validate({"prompt": text, "model": "sim-chat", **fields})


def draw(text: str = "a red fox", **fields: Any) -> Txt2ImgRequest:
    return Txt2ImgRequest.model_validate(
        {"prompt": text, "model": "sim-image", "width": 64, "height": 64, "steps": 1, **fields}
    )


def timing(**changes: Any) -> Timing:
    values: dict[str, Any] = {
        "deadline_s": dict.fromkeys(Modality, 600.0),
        "attempt_s": dict.fromkeys(Modality, 60.0),
        "look_s": 30.0,
        "recheck_s": (0.01,),
        "crash_s": 0.01,
        **changes,
    }
    return Timing(**values)


class Recorder:
    """A listener that keeps everything and lets a test wait for something."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    async def until(self, kind: type[E], when: Callable[[E], bool] = lambda _: True) -> E:
        async with asyncio.timeout(10):
            while True:
                self._more.clear()
                for event in self.events:
                    if isinstance(event, kind) and when(event):
                        return event
                await self._more.wait()

    async def until_count(self, when: Callable[[Event], bool], count: int) -> None:
        async with asyncio.timeout(10):
            while sum(map(when, self.events)) < count:
                self._more.clear()
                await self._more.wait()


def processor_for(
    backends: Sequence[Backend],
    *,
    capacity: Capacity | None = None,
    definitions: Iterable[ModelDefinition] = (),
    listeners: Sequence[Listener] = (),
    retry: RetryPolicy | None = None,
    bounds: Bounds | None = None,
    clock: Callable[[], float] = time.time,
    store: JobStore | None = None,
    times: Timing | None = None,
    breaker: BreakerRules | None = None,
    affinity_s: float = 0.0,
    shut_down_ghosts: bool = False,
    warm: Sequence[str] = (),
    blobs: Blobs | None = None,
) -> Processor:
    numbers = itertools.count(1)
    return Processor(
        backends=backends,
        store=in_memory() if store is None else store,
        scheduler=Scheduler(
            capacity or Capacity({backend.name: BackendLimits() for backend in backends}),
            bounds=bounds or Bounds(),
            affinity_s=affinity_s,
            breaker=breaker or BRIEFLY,
            shut_down_ghosts=shut_down_ghosts,
        ),
        definitions=definitions,
        retry=retry or RetryPolicy(base_s=0.01, cap_s=0.05),
        timing=times or timing(),
        clock=clock,
        new_id=lambda: f"job-{next(numbers)}",
        listeners=listeners,
        blobs=blobs,
        warm=warm,
    )


@asynccontextmanager
async def managed(
    url: str, *, client: dict[str, Any] | None = None, grace_s: float = 0.0, **options: Any
) -> AsyncGenerator[Processor]:
    backend = LocalAIClient(name="localai", url=url, **(client or {}))
    processor = processor_for([backend], **options)
    async with processor.running(grace_s=grace_s):
        yield processor


class Offset:
    """A clock that can be put forward; between two leaps it goes as on the wall."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class Watched(LocalAIClient):
    """A client that counts looks, and can be made to overlook models."""

    def __init__(self, url: str, name: str = "localai", **options: Any) -> None:
        super().__init__(name=name, url=url, **options)
        self.overlooked: set[str] = set()
        self.looks = 0
        self._looked = asyncio.Condition()

    async def models(self) -> list[OfferedModel]:
        return [model for model in await super().models() if model.name not in self.overlooked]

    async def resident(self) -> frozenset[str] | None:
        resident = await super().resident()
        async with self._looked:
            self.looks += 1
            self._looked.notify_all()
        return resident

    async def looked(self, times: int = 2) -> None:
        """Wait for so many more looks; one may have begun before."""
        await self.looked_in_all(self.looks + times)

    async def looked_in_all(self, times: int) -> None:
        """Wait until so many looks have been taken since the beginning."""
        async with asyncio.timeout(10), self._looked:
            await self._looked.wait_for(lambda: self.looks >= times)


class Control:
    """The simulator's control routes without blocking the loop of the test."""

    def __init__(self, sim: Simulator) -> None:
        self.sync: ControlClient = sim.control

    async def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(self.sync, name), *args, **kwargs)
