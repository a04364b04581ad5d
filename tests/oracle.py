"""What must hold of any run, whatever went wrong in it: one function, used by every such test.

It compares three diaries: what callers asked for and saw (the events of the jobs), what the wire
saw (the journals) and what the scheduler holds, at every event and in the end. Each finding is a
sentence.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from src.models.errors import InferenceManagerError
from src.models.events import (
    BackendChanged,
    Ended,
    Event,
    ModelLoaded,
    ModelPaused,
    Retried,
    Started,
    Submitted,
)
from src.models.jobs import Job, JobState
from src.processor import Processor
from src.simulator.reports import RequestRecord, Summary

SLACK_S = 30.0
"""How much later than its deadline a job may end: the dispatcher's second, and a slow machine."""

CANCEL_S = 0.1
HANG_UP_S = 1.0
LEFT_ALONE_S = 9.0
"""For how long at least nobody is sent to a model that has died, or could not be loaded."""


class Witness:
    """A listener that keeps everything with its time, and counts the slots at every event."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.told: list[tuple[float, Event]] = []
        self.seen: set[str] = set()
        self.processor: Processor | None = None
        """Whose slots are counted."""
        self._clock = clock

    def __call__(self, event: Event) -> None:
        self.told.append((self._clock(), event))
        if self.processor is not None:
            self.seen.update(_slots_add_up(self.processor))

    @property
    def events(self) -> list[Event]:
        """What was told, without the times."""
        return [event for _, event in self.told]


@dataclass
class Diary:
    """Everything that can be known of a run when it has come to rest.

    Attributes:
        told: all that the processor told, in order, with the time.
        seen: what a `Witness` found on the way.
        journals: the calls that each backend got; a whole answer that nobody heard is none.
        summaries: what each simulator added up.
        cancelled: the jobs that were cancelled, with how long each cancel took, in seconds.
        overheard: those to whose attempts somebody still listened long after, and no ghost.
        fresh: jobs that were submitted after everything had been put right.
        parallel: how many attempts may run at once on a model.
        attempt_s: how long an attempt may last.
        canary: a text that stood in every prompt and in the key.
        outside: everything written for others' eyes: logs, metrics, errors, status.

    """

    told: Sequence[tuple[float, Event]]
    seen: Iterable[str] = ()
    journals: Sequence[Sequence[RequestRecord]] = ()
    summaries: Sequence[Summary] = ()
    cancelled: Mapping[str, float] = field(default_factory=dict[str, float])
    overheard: Sequence[str] = ()
    fresh: Sequence[Job] = ()
    parallel: Mapping[str, int] = field(default_factory=dict[str, int])
    attempt_s: float | None = None
    canary: str = ""
    outside: Iterable[str] = ()

    @property
    def events(self) -> list[Event]:
        """What was told, without the times."""
        return [event for _, event in self.told]


def findings(processor: Processor, diary: Diary) -> list[str]:
    """Say what is wrong; nothing if all promises were kept."""
    return [
        *_one_end(diary.events),
        *_one_result(diary),
        *sorted(diary.seen),
        *_no_slot_is_stuck(processor, diary),
        *_the_dead_are_left_alone(diary),
        *_no_wait_without_end(diary),
        *_cancel_works(diary),
        *_it_recovers(diary),
        *_nothing_leaks(diary),
    ]


def _one_end(events: Sequence[Event]) -> Iterator[str]:
    """P2: every job has exactly one end, and nothing happens to it afterwards."""
    submitted, ended = Counter[str](), Counter[str]()
    for event in events:
        match event:
            case Submitted(job):
                submitted[job.id] += 1
            case Ended(job):
                ended[job.id] += 1
                if not job.state.terminal:
                    yield f"{job.id} ended as {job.state}"
                if (job.result is not None) != (job.state is JobState.COMPLETED):
                    yield f"{job.id} is {job.state} and its result is {job.result is not None}"
            case Started(job) | Retried(job):
                if ended[job.id]:
                    yield f"{job.id} went on after its end"
            case _:
                pass
    for job_id, count in submitted.items():
        if count != 1 or ended[job_id] != 1:
            yield f"{job_id} was submitted {count} times and ended {ended[job_id]} times"


def _one_result(diary: Diary) -> Iterator[str]:
    """P3: an attempt is one call, and none follows the call that gave the result."""
    started = Counter(event.job.id for event in diary.events if isinstance(event, Started))
    calls: defaultdict[str, list[RequestRecord]] = defaultdict(list)
    for record in (record for journal in diary.journals for record in journal):
        calls[record.correlation_id].append(record)
    for event in diary.events:
        if not isinstance(event, Ended):
            continue
        job, made = event.job, calls[event.job.id]
        pieces = getattr(job.request, "n", 1)
        if len(made) > started[job.id] * pieces:
            yield f"{job.id} was called {len(made)} times in {started[job.id]} attempts"
        if job.state is JobState.COMPLETED and diary.journals:
            whole = [record for record in made if record.ending == "completed"]
            spoilt = [record for record in made if (record.ending or "").startswith("fault:")]
            if len(whole) > pieces or (not whole and not spoilt):
                yield f"{job.id} has its result from {len(whole)} whole answers"


def _slots_add_up(processor: Processor) -> Iterator[str]:
    """P4, always: whatever runs holds one slot, and nothing else does."""
    scheduler = processor.scheduler
    running = Counter((run.backend, run.entry.model) for run in scheduler.running)
    taken = Counter[tuple[str, str | None]]()
    for name in processor.backends:
        for model, count in scheduler.capacity.resident(name).items():
            taken[name, model] = count
            if count > scheduler.capacity.parallel(model):
                yield f"{count} attempts ran at once on {model} on {name}"
    if +running != +taken:
        yield f"{dict(running)} ran while these slots were taken: {dict(+taken)}"


def _no_slot_is_stuck(processor: Processor, diary: Diary) -> Iterator[str]:
    """P4: in the end nothing runs and no slot is taken; never did more run than may."""
    scheduler = processor.scheduler
    yield from _slots_add_up(processor)
    for run in scheduler.running:
        yield f"{run.entry.id} still holds a slot{' as a ghost' if run.ghost else ''}"
    if scheduler.waiting:
        yield f"{scheduler.waiting} jobs still wait"
    for summary in diary.summaries:
        if summary.over_budget:
            yield f"{summary.over_budget} loads were over the memory limit"
        for model, most in summary.most_at_once.items():
            if most > diary.parallel.get(model, 1):
                yield f"{most} requests worked at once on {model}"


def _the_dead_are_left_alone(diary: Diary) -> Iterator[str]:
    """P11: a model that turned a call away for want of a process is not asked again at once."""
    for journal in diary.journals:
        refused: dict[str | None, float] = {}
        for record in sorted(journal, key=lambda record: record.arrived):
            if record.status != 500 or record.ending != "refused" or record.started is not None:
                continue
            if record.path == "/backend/load" or record.ended is None:
                continue
            last = refused.get(record.model)
            if last is not None and 0 < record.arrived - last < LEFT_ALONE_S:
                yield f"{record.correlation_id} was sent to {record.model}, known to be dead"
            refused[record.model] = max(last or 0.0, record.ended)


def _no_wait_without_end(diary: Diary) -> Iterator[str]:
    """P7: no job outlives its deadline, and no attempt its limit."""
    began: dict[str, float] = {}
    for at, event in diary.told:
        match event:
            case Started(job):
                began[job.id] = at
            case Retried(job) | Ended(job):
                took = at - began.pop(job.id, at)
                if diary.attempt_s is not None and took > diary.attempt_s + SLACK_S:
                    yield f"an attempt of {job.id} took {took:.0f} s"
            case _:
                continue
        if isinstance(event, Ended):
            job = event.job
            if job.ended_at is None or job.ended_at > job.deadline + SLACK_S:
                yield f"{job.id} ended long after its deadline"


def _cancel_works(diary: Diary) -> Iterator[str]:
    """P9: a cancelled job has ended at once, and nobody listens to the backend for it any more."""
    for job_id, seconds in diary.cancelled.items():
        if seconds > CANCEL_S:
            yield f"cancelling {job_id} took {seconds:.1f} s"
    for job_id in diary.overheard:
        yield f"{job_id} was cancelled and its call went on, though it is no ghost"
    for record in (record for journal in diary.journals for record in journal):
        if record.ended is None:
            yield f"request {record.number} of {record.correlation_id} is still open"


def _it_recovers(diary: Diary) -> Iterator[str]:
    """P11: what is asked for after everything was put right is done, without a restart."""
    for job in diary.fresh:
        if job.state is not JobState.COMPLETED:
            yield f"after the storm a {job.modality} ended as {job.state}: {job.error}"


def _nothing_leaks(diary: Diary) -> Iterator[str]:
    """P12: what callers wrote stands nowhere but in their jobs."""
    canary = diary.canary
    if not canary:
        return
    if any(canary in text for text in diary.outside):
        yield "a prompt or a key has leaked"
    for event in diary.events:
        if any(canary in text for text in _words_of(event)):
            yield f"a prompt or a key has leaked into {type(event).__name__}"


def _words_of(event: Event) -> Iterator[str]:
    """Say what an event tells people besides the request itself."""
    error: InferenceManagerError | None = None
    match event:
        case Ended(job):
            error = job.error
        case Retried(_, told, _):
            error = told
        case ModelLoaded():
            error = event.error
        case ModelPaused():
            yield event.why
        case BackendChanged():
            yield event.detail
        case _:
            pass
    if error is not None:
        yield f"{error.message} {error.hint}"
