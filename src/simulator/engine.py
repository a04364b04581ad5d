"""The world in motion: requests await their turn, and the clock drives what is due."""

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import assert_never

from .clock import Alarm, Clock
from .world import Granted, Happening, Lost, Reason, Refused, World


class ProcessDied(Exception):
    """The model's process has died under a request."""


class TurnedAway(Exception):
    """The world refused a request."""

    def __init__(self, reason: Reason, retry_after: float) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.retry_after = retry_after


class Engine:
    """One world, one clock, and a future for each request that waits."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world = world
        self.clock = clock
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._working: dict[int, Callable[[], object]] = {}
        self._alarm: Alarm | None = None

    def __repr__(self) -> str:
        return f"<Engine {self.world!r} waiting {len(self._waiting)}>"

    async def slot(self, number: int, model: str, pace: float = 1.0) -> None:
        """Wait for a slot; give it back with `leave`.

        Raises:
            TurnedAway: the model could not be loaded, is in its cooldown, or has no process.
            ProcessDied: it died while the request was in line.

        """
        await self._wait(number, lambda: self.world.ask(number, model, self.clock.now(), pace))

    async def warm(self, number: int, model: str, pace: float = 1.0) -> None:
        """Wait until a model is loaded.

        Raises:
            TurnedAway: it could not be loaded, or is in its cooldown.

        """
        await self._wait(number, lambda: self.world.warm(number, model, self.clock.now(), pace))

    async def shut_down(self, number: int, model: str) -> None:
        """Wait until a model is idle, and unload it.

        Raises:
            TurnedAway: it did not fall idle in time.

        """
        await self._wait(number, lambda: self.world.shut_down(number, model, self.clock.now()))

    @contextmanager
    def alive(self, number: int) -> Generator[None]:
        """Wait for something while holding a slot, unless the model's process dies.

        Raises:
            ProcessDied: the model's process has died.

        """
        if not self.world.works(number):
            raise ProcessDied
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        died = False

        def die() -> None:
            nonlocal died
            died = task.cancel()

        self._working[number] = die
        try:
            yield
        except asyncio.CancelledError:
            if died and not task.uncancel():
                raise ProcessDied from None
            raise
        finally:
            self._working.pop(number, None)

    def crash(self, model: str, *, by: int | None = None) -> None:
        """Let the process of a model die; the request `by` knows already.

        Raises:
            ValueError: the model has no process.

        """
        happenings = self.world.crash(model, self.clock.now())
        self._working.pop(by or 0, None)
        self.tell(happenings)

    def leave(self, number: int) -> None:
        """Give a slot back, or a place in line."""
        self.tell(self.world.leave(number, self.clock.now()))

    def tell(self, happenings: Sequence[Happening]) -> None:
        """Let the requests know what follows for them, and set the alarm anew."""
        for happening in happenings:
            working = self._working.get(happening.number)
            waiting = self._waiting.get(happening.number)
            if working is not None:
                working()
            elif waiting is not None and not waiting.done():
                _answer(waiting, happening)
        self._set_alarm()

    async def _wait(self, number: int, ask: Callable[[], list[Happening]]) -> None:
        self._waiting[number] = future = asyncio.get_running_loop().create_future()
        self.tell(ask())
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                future.exception()  # asked for, or asyncio complains that nobody did
            self.leave(number)
            raise
        finally:
            del self._waiting[number]

    def _set_alarm(self) -> None:
        due = self.world.due()
        if self._alarm is not None:
            if due is not None and self._alarm.due == due and self._alarm.call is not None:
                return
            self._alarm.cancel()
            self._alarm = None
        if due is not None:
            self._alarm = self.clock.at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.tell(self.world.advance(self.clock.now()))


def _answer(waiting: asyncio.Future[None], happening: Happening) -> None:
    match happening:
        case Granted():
            waiting.set_result(None)
        case Refused(reason=reason, retry_after=seconds):
            waiting.set_exception(TurnedAway(reason, seconds))
        case Lost():
            waiting.set_exception(ProcessDied())
        case _:
            assert_never(happening)
