"""The journal: one entry for each request for work, and a way to wait for what it will say."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Literal

from .reports import RequestRecord, Summary

NEWEST = 10_000

RequestState = Literal["arrived", "waiting", "started", "running", "answering", "ended", "settled"]

STATES: dict[RequestState, Callable[[RequestRecord], bool]] = {
    "arrived": lambda _: True,
    "waiting": lambda entry: entry.started is None and entry.ended is None,
    "started": lambda entry: entry.started is not None,
    "running": lambda entry: entry.started is not None and entry.settled is None,
    "answering": lambda entry: entry.first_byte is not None,
    "ended": lambda entry: entry.ended is not None,
    "settled": lambda entry: entry.settled is not None,
}
"""`waiting` and `running` are passing states; the others, once true of an entry, stay true."""


class Journal:
    """Entries by number, the newest ten thousand of them."""

    def __init__(self) -> None:
        self._entries: deque[RequestRecord] = deque(maxlen=NEWEST)
        self._numbers = 0
        self._waiters: list[asyncio.Event] = []

    def __repr__(self) -> str:
        return f"<Journal {len(self._entries)} of {self._numbers} requests>"

    @property
    def numbers(self) -> int:
        """How many requests for work there have been."""
        return self._numbers

    def open(self, entry: Callable[[int], RequestRecord]) -> RequestRecord:
        """Write down a request under the next number."""
        self._numbers += 1
        made = entry(self._numbers)
        self._entries.append(made)
        self.changed()
        return made

    def changed(self) -> None:
        """Tell those who wait that an entry has changed."""
        for waiter in self._waiters:
            waiter.set()

    def clear(self) -> None:
        """Forget the entries, not the count."""
        self._entries.clear()
        self.changed()

    def reset(self) -> None:
        """Forget everything."""
        self._numbers = 0
        self.clear()

    def entries(
        self, *, since: int = 0, state: RequestState = "arrived", model: str | None = None
    ) -> list[RequestRecord]:
        """Return the entries after number `since` that are in a state."""
        matches = STATES[state]
        return [
            entry
            for entry in self._entries
            if entry.number > since and model in (None, entry.model) and matches(entry)
        ]

    async def wait(
        self, *, since: int, state: RequestState, model: str | None, count: int, patience: float
    ) -> list[RequestRecord] | None:
        """Wait until so many entries are in a state; None when it took too long."""
        waiter = asyncio.Event()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(patience):
                while len(found := self.entries(since=since, state=state, model=model)) < count:
                    waiter.clear()
                    await waiter.wait()
                return found
        except TimeoutError:
            return None
        finally:
            self._waiters.remove(waiter)

    def summary(self, *, loads: dict[str, int], swaps: int, over_budget: int) -> Summary:
        """Add the entries up."""
        busy: defaultdict[str, float] = defaultdict(float)
        started: list[tuple[float, int, str]] = []
        steps: dict[str, list[tuple[float, int]]] = {}
        for entry in self._entries:
            if entry.started is None or entry.model is None:
                continue
            started.append((entry.started, entry.number, entry.model))
            steps.setdefault(entry.model, []).append((entry.started, 1))
            if entry.settled is not None:
                busy[entry.model] += entry.settled - entry.started
                steps[entry.model].append((entry.settled, -1))
        return Summary(
            requests=self._numbers,
            loads=loads,
            swaps=swaps,
            over_budget=over_budget,
            busy_seconds=dict(busy),
            most_at_once={name: _peak(changes) for name, changes in steps.items()},
            started_in_order=[model for _, _, model in sorted(started)],
        )


def _peak(changes: list[tuple[float, int]]) -> int:
    level = peak = 0
    for _, change in sorted(changes):
        level += change
        peak = max(peak, level)
    return peak
