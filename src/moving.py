"""Moves jobs in line: first in the store, then in the line itself."""

import asyncio
from collections.abc import Callable

from .handles import JobHandle
from .models.errors import InvalidInput, InvalidTransition, StaleJob, UnknownJob
from .models.jobs import Job, Level
from .models.moving import Target, places
from .processor import Processor

_TRIES = 5


class Moving:
    """Gives waiting jobs other places, one move after another.

    Args:
        processor: what runs the jobs.
        show: shown each job that has been moved.

    """

    def __init__(self, processor: Processor, *, show: Callable[[Job], object]) -> None:
        self._processor = processor
        self._show = show
        self._turn = asyncio.Lock()

    async def move(
        self, job_id: str, *, level: Level | None = None, target: Target | None = None
    ) -> Job:
        """Move a waiting job to a level, then to a place among its caller's jobs there.

        Nobody else's job is overtaken by a change of places; one that comes to a better level
        stands there where it would have stood from the beginning.

        Raises:
            UnknownJob: there is no such job.
            InvalidTransition: it does not wait in line.
            InvalidInput: the target is no job beside which it can go; `param` names the field.
            StaleJob: the jobs keep changing; try again.
            StorageFailed: the move cannot be kept.

        """
        async with self._turn:
            for _ in range(_TRIES):
                try:
                    return await self._move(job_id, level, target)
                except StaleJob:
                    continue  # one of them was started or has ended in this moment
        raise StaleJob(
            "the jobs beside this one keep changing", hint="try again when less is going on"
        )

    async def _move(self, job_id: str, level: Level | None, target: Target | None) -> Job:
        processor, scheduler = self._processor, self._processor.scheduler
        handle = await processor.handle(job_id)
        entry = scheduler.waiting_entry(job_id)
        if entry is None or scheduler.position(job_id) is None:
            raise InvalidTransition(
                f"a job that is {handle.job.state} has no place in line to change",
                hint="only a job that is queued can be moved",
            )
        own = [
            other
            for other in scheduler.waiting_entries()
            if other.caller == entry.caller
            and other.modality == entry.modality
            and scheduler.position(other.id) is not None
        ]
        new = places(entry, own, level=level, target=target)
        if not new:
            return handle.job
        handles = [await self._waiting(other) for other in new]
        moved = [one.job.moved(*new[one.id]) for one in handles]
        await processor.store.save(*moved)
        scheduler.moved(new)
        for one, job in zip(handles, moved, strict=True):
            if job.version > one.job.version:
                one.update(job)
                self._show(job)
        processor.wake()
        return handle.job

    async def _waiting(self, job_id: str) -> JobHandle:
        """Return the handle of a job; raises `StaleJob` if it does not wait any more."""
        try:
            handle = await self._processor.handle(job_id)
            if self._processor.scheduler.position(job_id) is not None:
                return handle
        except UnknownJob:
            pass
        raise StaleJob("one of the jobs does not wait any more")


def target_of(
    *, before: str | None = None, after: str | None = None, to: str | None = None
) -> Target | None:
    """Read where a job shall go; None if nothing was said.

    Raises:
        InvalidInput: more than one place was named.

    """
    named = {"before": before, "after": after, "to": to}
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise InvalidInput(
            f"{given[1]} must not be given together with {given[0]}",
            param=given[1],
            hint="a job can only be in one place",
        )
    if before is not None:
        return Target("before", before)
    if after is not None:
        return Target("after", after)
    if to is not None:
        return Target("front" if to == "front" else "back")
    return None
