"""What a new process does with the jobs that the one before it left behind."""

import logging
from collections.abc import Callable, Sequence

from .models.events import Ended, Event
from .models.jobs import Job
from .models.ports import Clock, JobStore
from .models.scheduler import Scheduler

logger = logging.getLogger("inference_manager.recovery")

_SLICE = 100


async def recover(
    store: JobStore,
    scheduler: Scheduler,
    *,
    attempts: int,
    clock: Clock,
    tell: Callable[[Event], None],
) -> int:
    """Take promised jobs up again, each in its place; return the largest sequence so far.

    What was being worked on waits again, or ends after so many attempts.
    """
    last = await store.last_sequence()
    while jobs := await store.unfinished(promised=True, until=last, limit=_SLICE):
        await _go_on(jobs, store, attempts, clock, tell)
    waiting = await store.waiting()
    scheduler.restore_all([entry for entry, not_before in waiting if not_before is None])
    for entry, not_before in waiting:
        if not_before is not None:
            scheduler.restore(entry, not_before=not_before)
    if waiting:
        logger.info("took up jobs again that were waiting", extra={"jobs": len(waiting)})
    return last


async def end_the_abandoned(
    store: JobStore, last: int, *, clock: Clock, tell: Callable[[Event], None]
) -> None:
    """End plain jobs up to a sequence: their callers went with the process before this one."""
    ended = 0
    while jobs := await store.unfinished(promised=False, until=last, limit=_SLICE):
        await _go_on(jobs, store, 0, clock, tell)
        ended += len(jobs)
    if ended:
        logger.info("ended jobs whose callers are gone", extra={"jobs": ended})


async def _go_on(
    jobs: Sequence[Job],
    store: JobStore,
    attempts: int,
    clock: Clock,
    tell: Callable[[Event], None],
) -> None:
    steps = [job.recovered(attempts, clock()) for job in jobs]
    await store.save(*steps)
    for job in steps:
        if job.state.terminal:
            tell(Ended(job))
