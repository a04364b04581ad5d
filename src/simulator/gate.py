"""The gate before the first token: closed, it lets requests through only on command."""

import asyncio
import heapq


class Gate:
    """Open unless held; then requests stand in the order of their arrival."""

    def __init__(self) -> None:
        self.holding = False
        self._passes = 0
        self._standing: list[tuple[int, asyncio.Event]] = []

    def __repr__(self) -> str:
        return f"<Gate {'held' if self.holding else 'open'}, standing {self.standing()}>"

    def standing(self) -> list[int]:
        """Return the numbers of the requests that stand here, in order."""
        return sorted(number for number, _ in self._standing)

    def hold(self) -> None:
        """Close, whoever was promised a way through."""
        self.holding = True
        self._passes = 0

    def release(self, count: int | None = None) -> None:
        """Let the next `count` requests through, now or when they come; without a number, open."""
        if count is None:
            self.holding = False
            self._passes = 0
            self._let_through(len(self._standing))
        elif self.holding:
            now = min(count, len(self._standing))
            self._passes += count - now
            self._let_through(now)

    async def go_through(self, number: int) -> None:
        """Wait to be let through."""
        if not self.holding:
            return
        if self._passes:
            self._passes -= 1
            return
        event = asyncio.Event()
        entry = (number, event)
        heapq.heappush(self._standing, entry)
        try:
            await event.wait()
        finally:
            if entry in self._standing:
                self._standing.remove(entry)
                heapq.heapify(self._standing)

    def _let_through(self, count: int) -> None:
        for _ in range(count):
            _, event = heapq.heappop(self._standing)
            event.set()
