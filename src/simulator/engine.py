"""The world in motion: requests await their turn, and the clock drives what is due."""

import asyncio
from collections.abc import Callable, Sequence

from .clock import Alarm, Clock
from .world import Granted, Happening, Reason, World


class TurnedAway(Exception):
    """The world refused a request."""

    def __init__(self, reason: Reason, retry_after: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class Engine:
    """One world, one clock, and a future for each request that waits."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world = world
        self.clock = clock
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._alarm: Alarm | None = None

    def __repr__(self) -> str:
        return f"<Engine {self.world!r} waiting {len(self._waiting)}>"

    async def slot(self, number: int, model: str) -> None:
        """Wait for a slot; give it back with `leave`.

        Raises:
            TurnedAway: the model could not be loaded, or is in its cooldown.

        """
        await self._wait(number, lambda: self.world.ask(number, model, self.clock.now()))

    async def warm(self, number: int, model: str) -> None:
        """Wait until a model is loaded.

        Raises:
            TurnedAway: it could not be loaded, or is in its cooldown.

        """
        await self._wait(number, lambda: self.world.warm(number, model, self.clock.now()))

    async def shut_down(self, number: int, model: str) -> None:
        """Wait until a model is idle, and unload it.

        Raises:
            TurnedAway: it did not fall idle in time.

        """
        await self._wait(number, lambda: self.world.shut_down(number, model, self.clock.now()))

    def leave(self, number: int) -> None:
        """Give a slot back, or a place in line."""
        self.tell(self.world.leave(number, self.clock.now()))

    def tell(self, happenings: Sequence[Happening]) -> None:
        """Let the requests know what follows for them, and set the alarm anew."""
        for happening in happenings:
            future = self._waiting.get(happening.number)
            if future is None or future.done():
                continue
            if isinstance(happening, Granted):
                future.set_result(None)
            else:
                future.set_exception(TurnedAway(happening.reason, happening.retry_after))
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
