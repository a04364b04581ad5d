"""When a waiting job will start, from what usually takes how long: a first, plain estimate."""

from itertools import islice, takewhile

from .queues import Entry
from .scheduler import Scheduler

_LOOKED_AT = 1000


def starts_in(scheduler: Scheduler, job_id: str, now: float) -> float | None:
    """Return about how many seconds pass before a job starts; None if that cannot be told.

    Everything that runs or goes first takes its usual time; what may run side by side shares it.
    Of a very long line only the first thousand are looked at, and stand for the rest. Nobody can
    tell when an operator will let go of what is paused or stopped.
    """
    entry, held_back = scheduler.waiting_entry(job_id), scheduler.is_held(job_id)
    if entry is None or held_back or scheduler.controls.stopped is not None:
        return None
    if scheduler.position(job_id) is None or not (backends := scheduler.capacity.up):
        return None
    ahead = scheduler.line.position(entry)
    seconds = 0.0
    for running in scheduler.running:
        end = scheduler.ends_at(running)
        if end is None:
            return None
        seconds += max(end - now, 0.0) / _side_by_side(scheduler, running.entry)
    first = list(islice(takewhile(lambda one: one.id != job_id, scheduler.line), _LOOKED_AT))
    for one in first:
        usual = scheduler.usual_attempt_s(one)
        if usual is None:
            return None
        seconds += usual / _side_by_side(scheduler, one) * (ahead / len(first))
    load = 0.0
    if entry.model is not None and not scheduler.capacity.is_resident(entry.model):
        load = scheduler.usual_load_s(entry.model) or 0.0
    return seconds / len(backends) + load


def _side_by_side(scheduler: Scheduler, entry: Entry) -> int:
    return 1 if entry.model is None else max(1, scheduler.capacity.parallel(entry.model))
