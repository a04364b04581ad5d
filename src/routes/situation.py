"""What a job is doing, in a few words: the same in every door."""

from collections.abc import Mapping

from ..models.jobs import Job, JobState
from ..models.scheduler import Running
from ..processor import Processor


def situation(processor: Processor, job: Job, now: float) -> str:
    """Say what a job is doing, and what it waits for if it does; `now` in seconds since 1970."""
    match job.state:
        case JobState.QUEUED | JobState.RETRYING:
            return _waiting(processor, job, now)
        case JobState.PROCESSING:
            return f"running on {job.model}, attempt {job.attempts}"
        case _:
            return f"{job.state}{_aftermath(processor, job, now)}"


def ghost(processor: Processor, job: Job) -> Running | None:
    """Return what the engine still does for a job that has ended; None if it does nothing."""
    if not job.state.terminal:
        return None
    running = processor.scheduler.running
    return next((run for run in running if run.ghost and run.entry.id == job.id), None)


def rest_of(processor: Processor, run: Running, now: float) -> float | None:
    """Return about how many seconds an attempt still takes; None if that cannot be told.

    Of one that has taken longer than usual nobody knows when it ends.
    """
    end = processor.scheduler.ends_at(run)
    return None if end is None or end <= now else round(end - now, 1)


def parked(processor: Processor) -> Mapping[str, int]:
    """Count the jobs that wait for each model that no backend offers; none while none answers."""
    if not any(state.up for state in processor.backends.values()):
        return {}
    line = processor.scheduler.line
    waited_for = [entry.model for entry in line.first_of_each_model() if entry.model is not None]
    offering = processor.scheduler.capacity.offering
    return {model: line.count_of(model) for model in waited_for if not offering(model)}


def _waiting(processor: Processor, job: Job, now: float) -> str:
    position = processor.position(job.id)
    ahead = f", {position} ahead" if position else ""
    if processor.scheduler.is_held(job.id):
        return f"paused by an operator{ahead}"
    if processor.scheduler.controls.stopped is not None:
        return f"queued{ahead}, but an operator has stopped all work"
    if position is None:
        return _not_in_line(job, now)
    if not any(state.up for state in processor.backends.values()):
        return f"queued, {position} ahead, but no backend answers" if position else _NOBODY
    if job.model is not None and not processor.scheduler.capacity.offering(job.model):
        return f"parked: no backend offers {job.model} at present"
    if position > 0:
        return f"queued, {position} ahead{_load(processor, job.model)}"
    return f"next in line{_obstacle(processor, job, now)}"


def _aftermath(processor: Processor, job: Job, now: float) -> str:
    run = ghost(processor, job)
    if run is None:
        return ""
    rest = rest_of(processor, run, now)
    if rest is None:
        return "; the engine does not stop before it has finished what it began"
    return f"; the card is free in about {rest:.0f} s"


_NOBODY = "next in line, but no backend answers"


def _not_in_line(job: Job, now: float) -> str:
    if job.state is not JobState.RETRYING:
        return "about to start"
    if job.retry_at is None or job.retry_at <= now:
        return "waiting for another attempt"
    return f"waiting for another attempt in {job.retry_at - now:.0f} s"


def _obstacle(processor: Processor, job: Job, now: float) -> str:
    model = job.model or ""
    if load := _load(processor, model):
        return load
    if (pause := processor.pause(model)) is not None:
        return f", {model} is left alone for {max(pause.until - now, 0):.0f} s: {pause.why}"
    if (trouble := processor.trouble(model)) is not None:
        return f", to be tried again: {trouble.message}"
    ghosts = [run for run in processor.scheduler.running if run.ghost]
    if ghosts:
        return f", the backend still works on a cancelled job{_rest(processor, ghosts, now)}"
    return ""


def _load(processor: Processor, model: str | None) -> str:
    if model is None or not processor.is_loading(model):
        return ""
    seconds = processor.scheduler.usual_load_s(model)
    usually = "" if seconds is None else f", usually {seconds:.0f} s"
    return f", loading model {model}{usually}"


def _rest(processor: Processor, ghosts: list[Running], now: float) -> str:
    rests = [rest_of(processor, ghost, now) for ghost in ghosts]
    known = [rest for rest in rests if rest is not None]
    return f", about {min(known):.0f} s more" if known else ""
