"""Simulated time: it flows `speed` times as fast as on the wall, jumps, or is moved by hand.

At speed 0 nobody waits. Whenever the event loop comes round, time jumps to the next alarm, so
everything still happens in its order and one turn apart. Between jumps time flows as on the
wall, hence nothing ever lasts longer than it would in reality.

A manual clock stands still but for `advance`, which goes from alarm to alarm and lets everything
that an alarm has set going come to rest before it goes on.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

TURNS = 20
"""How many turns of the event loop, with no real work elsewhere, count as rest: more than the
chain of callbacks from the last step of a picture to the end of its answer."""


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

    def __init__(
        self,
        speed: float,
        *,
        manual: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._manual = manual
        self._speed = speed
        self._at = 0.0
        self._mark = monotonic()
        self._alarms: list[Alarm] = []
        self._numbers = itertools.count()
        self._handle: asyncio.Handle | None = None
        self._held = 0
        self._released = asyncio.Event()
        self._advancing = asyncio.Lock()

    def __repr__(self) -> str:
        pace = "manual" if self._manual else f"speed {self._speed:g}"
        return f"<Clock {self.now():.3f} {pace} alarms {len(self._alarms)}>"

    def now(self) -> float:
        """Tell the simulated seconds since the start."""
        if self._manual:
            return self._at
        return self._at + (self._monotonic() - self._mark) * (self._speed or 1.0)

    def set_speed(self, speed: float) -> None:
        """Go on at another speed; alarms that are set keep their simulated moment."""
        self._move_to(self.now())
        self._speed = speed
        self._rearm()

    async def advance(self, seconds: float) -> None:
        """Let time pass at once; return when everything that was due by then has happened."""
        async with self._advancing:
            until = self.now() + seconds
            await self._rest()
            while (due := self._next()) is not None and due <= until:
                self._move_to(max(due, self.now()))
                self._ring()
                await self._rest()
            self._move_to(max(until, self.now()))
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
            self._released.set()
            self._rearm()

    def stop(self) -> None:
        """Forget every alarm, and the event loop."""
        self._alarms.clear()
        self._released = asyncio.Event()
        self._advancing = asyncio.Lock()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _move_to(self, moment: float) -> None:
        self._at, self._mark = moment, self._monotonic()

    def _next(self) -> float | None:
        while self._alarms and self._alarms[0].call is None:
            heapq.heappop(self._alarms)
        return self._alarms[0].due if self._alarms else None

    def _rearm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        due = self._next()
        if due is None:
            return
        loop = asyncio.get_running_loop()
        wait = due - self.now()
        if self._manual:
            self._handle = loop.call_soon(self._ring) if wait <= 0 else None
        elif self._speed:
            self._handle = loop.call_later(max(wait, 0.0) / self._speed, self._ring)
        elif self._held:
            self._handle = loop.call_later(max(wait, 0.0), self._ring)
        else:
            self._handle = loop.call_soon(self._ring)

    def _ring(self) -> None:
        self._handle = None
        jumping = not self._manual and not self._speed
        due = self._next()
        if jumping and not self._held and due is not None and due > self.now():
            self._move_to(due)
        now = self.now()
        while (due := self._next()) is not None and due <= now:
            call = heapq.heappop(self._alarms).call
            if call is not None:
                call()
            if jumping:
                break
        self._rearm()

    async def _rest(self) -> None:
        """Wait until nothing moves: no real work elsewhere, and then so many turns of the loop."""
        turns = 0
        while turns < TURNS:
            if self._held:
                self._released.clear()
                await self._released.wait()
                turns = 0
            await asyncio.sleep(0)
            turns += 1
