"""Simulated time: it flows `speed` times as fast as on the wall, or jumps at speed 0.

At speed 0 nobody waits. Whenever the event loop comes round, time jumps to the next alarm, so
everything still happens in its order and one turn apart. Between jumps time flows as on the
wall, hence nothing ever lasts longer than it would in reality.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Alarm:
    """Something to be called at a moment; ordered by that moment."""

    __slots__ = ("_number", "call", "due")

    def __init__(self, due: float, number: int, call: Callable[[], None]) -> None:
        self.due = due
        self._number = number
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: "Alarm") -> bool:
        return (self.due, self._number) < (other.due, other._number)

    def cancel(self) -> None:
        """Never call."""
        self.call = None


class Clock:
    """Simulated seconds since the start, and alarms on them. Belongs to one event loop."""

    def __init__(self, speed: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._speed = speed
        self._at = 0.0
        self._mark = monotonic()
        self._alarms: list[Alarm] = []
        self._numbers = itertools.count()
        self._handle: asyncio.Handle | None = None
        self._held = 0

    def __repr__(self) -> str:
        return f"<Clock {self.now():.3f} speed {self._speed:g} alarms {len(self._alarms)}>"

    def now(self) -> float:
        """Tell the simulated seconds since the start."""
        return self._at + (self._monotonic() - self._mark) * (self._speed or 1.0)

    def set_speed(self, speed: float) -> None:
        """Go on at another speed; alarms that are set keep their simulated moment."""
        self._move_to(self.now())
        self._speed = speed
        self._rearm()

    def advance(self, seconds: float) -> None:
        """Let time pass at once; what is due by then rings in its order."""
        self._move_to(self.now() + seconds)
        self._rearm()

    def at(self, due: float, call: Callable[[], None]) -> Alarm:
        """Call `call` when the simulated moment `due` has come."""
        alarm = Alarm(due, next(self._numbers), call)
        heapq.heappush(self._alarms, alarm)
        if self._alarms[0] is alarm:
            self._rearm()
        return alarm

    async def sleep_until(self, due: float) -> None:
        """Wait for a simulated moment; at least one turn of the event loop."""
        woken = asyncio.get_running_loop().create_future()
        alarm = self.at(due, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            alarm.cancel()

    async def sleep(self, seconds: float) -> None:
        """Wait for some simulated seconds; at least one turn of the event loop."""
        await self.sleep_until(self.now() + seconds)

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep time from jumping while real work is done elsewhere."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._rearm()

    def stop(self) -> None:
        """Forget every alarm."""
        self._alarms.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _move_to(self, moment: float) -> None:
        self._at, self._mark = moment, self._monotonic()

    def _rearm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        while self._alarms and self._alarms[0].call is None:
            heapq.heappop(self._alarms)
        if not self._alarms:
            return
        loop = asyncio.get_running_loop()
        wait = self._alarms[0].due - self.now()
        if self._speed:
            self._handle = loop.call_later(max(wait, 0.0) / self._speed, self._ring)
        elif self._held:
            self._handle = loop.call_later(max(wait, 0.0), self._ring)
        else:
            self._handle = loop.call_soon(self._ring)

    def _ring(self) -> None:
        self._handle = None
        if not self._speed and not self._held:
            self._jump()
        now = self.now()
        while self._alarms and (self._alarms[0].call is None or self._alarms[0].due <= now):
            call = heapq.heappop(self._alarms).call
            if call is not None:
                call()
                if not self._speed:
                    break
        self._rearm()

    def _jump(self) -> None:
        while self._alarms and self._alarms[0].call is None:
            heapq.heappop(self._alarms)
        if self._alarms and self._alarms[0].due > self.now():
            self._move_to(self._alarms[0].due)
