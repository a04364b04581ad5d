"""Tells each step of a job to those who watch, without ever waiting for one of them.

A watcher that does not keep up loses what it has not taken, and is told so: it can look for itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from .models.events import Ended, Event, Retried, Started, Submitted
from .models.jobs import Job

ROOM = 256
"""How many steps may wait for a watcher."""


class Broadcast:
    """Hears the processor's events, and hands the jobs in them to those who watch."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._watchers: list[Watcher] = []

    def __len__(self) -> int:
        return len(self._watchers)

    def __call__(self, event: Event) -> None:
        """Listen."""
        if self._watchers and isinstance(event, Submitted | Started | Retried | Ended):
            self.show(event.job)

    def show(self, job: Job) -> None:
        """Hand a job, as it is now, to those who watch it."""
        for watcher in self._watchers:
            watcher.offer(job)

    def watch(self, wanted: Callable[[Job], bool]) -> "Watcher":
        """Watch the jobs that are `wanted`, from now on until the watcher is closed."""
        watcher = Watcher(self._watchers.remove, wanted, self._room)
        self._watchers.append(watcher)
        return watcher


class Watcher:
    """The steps that one who watches has not taken yet; a context manager."""

    def __init__(
        self, leave: Callable[["Watcher"], None], wanted: Callable[[Job], bool], room: int
    ) -> None:
        self._leave = leave
        self._wanted = wanted
        self._room = room
        self._steps: deque[Job] = deque()
        self._lost = False
        self._more = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Watcher [{len(self._steps)}/{self._room}{', lost' if self._lost else ''}]>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(self)

    def offer(self, job: Job) -> None:
        """Put a step aside if it is wanted; with no room left, all are lost."""
        if self._lost or not self._wanted(job):
            return
        self._more.set()
        if len(self._steps) >= self._room:
            self._steps.clear()
            self._lost = True
        else:
            self._steps.append(job)

    async def next(self) -> Job | None:
        """Wait for the next step; None says once that some were lost."""
        await self._more.wait()
        lost, self._lost = self._lost, False
        job = None if lost else self._steps.popleft()
        if not self._steps:
            self._more.clear()
        return job
