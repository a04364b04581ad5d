"""Who goes next, where and when. Pure: told what happened and the time, it answers with values.

Policy `strict`: among the jobs that a free slot could take, the next one is the smallest by
modality (`priority_order`), level, submission number. A lower modality waits as long as a higher
one has work. A job whose model must first be loaded waits for the model it replaces to drain;
meanwhile nothing worse may start there.

*Affinity* bends this where models would be loaded in turns: a resident model may have a *turn*, in
which its jobs go before better ones, of whatever modality, that would need another model loaded. A
turn ends `affinity_s` after its first such job, or twice the usual load time of the model if that
is longer; then the best job has its way. It begins anew when the model is loaded again, or when
nobody waits for a load any more. So a model that was loaded is used before it has to leave, and a
job is overtaken for at most one turn at a time by each of the other models.

A decision is also a promise: what `next` returns is already accounted for, so the same slot or
load is never given twice, and every `Start` and `Load` must be answered by a report.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from .breaker import Breaker, BreakerRules, Trouble
from .capacity import Capacity, LoadFirst, Pause
from .controls import Controls
from .durations import Durations
from .errors import Draining, QueueFull, TooManyWaiting
from .modality import Modality
from .moving import Place
from .queues import Entry, Line, priority_order


@dataclass(frozen=True, slots=True)
class Start:
    """Run this job on this backend now. Answered by `ended`, `abandoned` or `returned`."""

    job_id: str
    backend: str
    model: str


@dataclass(frozen=True, slots=True)
class Load:
    """Bring this model into the backend's memory. Answered by `loaded` or `load_failed`.

    `job_id` names the job for whose sake it happens: the best one that waits for the model. It is
    empty when the model is merely warmed up.
    """

    job_id: str
    backend: str
    model: str
    evicted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expire:
    """End this job, whether it waits or runs: its deadline has passed."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ShutDown:
    """Shut this model down: it works on nothing but cancelled jobs, and loading is quicker.

    A hint: it need not be answered. The ghosts end when the backend has done it.
    """

    backend: str
    model: str


Decision = Start | Load | Expire | ShutDown

_OWN_TURN_S = 5.0  # after which a caller that has too much waiting may ask again
_DRAINED_S = 60.0  # after which anybody may, while an operator lets the server drain


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may wait: jobs in all, per modality and per caller, bytes in memory and on disk."""

    waiting: int = 10_000
    per_modality: int = 10_000
    per_caller: int | None = None
    waiting_bytes: int = 512 * 2**20
    waiting_disk_bytes: int = 4096 * 2**20


class Running(NamedTuple):
    """An attempt that holds a slot; a ghost when nobody waits for it any more."""

    entry: Entry
    backend: str
    since: float
    ghost: bool = False


class Scheduler:
    """The line of waiting jobs, the capacity they wait for, and the rule that joins them.

    Args:
        capacity: what the backends can run.
        order: which modality goes first.
        bounds: how much may wait.
        affinity_s: how long a turn of a resident model lasts at least, in seconds; 0: no turns.
        breaker: when a model that keeps failing is left alone.
        shut_down_ghosts: whether to shut a model down when that is quicker than to wait for it.

    """

    def __init__(
        self,
        capacity: Capacity,
        *,
        order: Sequence[Modality] = priority_order,
        bounds: Bounds = Bounds(),
        affinity_s: float = 20.0,
        breaker: BreakerRules | None = None,
        shut_down_ghosts: bool = False,
    ) -> None:
        self.capacity = capacity
        self.line = Line(order)
        self.held = Line(order)
        """Those that an operator's pause holds back: the line itself has none of them."""
        self.durations = Durations()
        self.bounds = bounds
        self.affinity_s = affinity_s
        self._controls = Controls()
        self._turns: dict[str, float] = {}
        self._breaker_rules = breaker or BreakerRules()
        self._breakers: dict[tuple[str, str], Breaker] = {}
        self._seen: set[str] = set()
        self._revived: set[str] = set()
        self._shut_down_ghosts = shut_down_ghosts
        self._shutting_down: set[tuple[str, str]] = set()
        self._warm: list[str] = []
        self._draining = False
        self._waiting: dict[str, Entry] = {}
        self._admitted: set[str] = set()
        self._delayed: dict[str, float] = {}
        self._promotions: list[tuple[float, int, str]] = []
        self._running: dict[str, Running] = {}
        self._deadlines: list[tuple[float, int, str]] = []
        self._swept_at = -inf
        self._count: Counter[Modality] = Counter()
        self._callers: Counter[str] = Counter()
        self._bytes = 0
        self._disk_bytes = 0
        self._gap = 1.0
        self._last_end: float | None = None

    def __repr__(self) -> str:
        state = "draining" if self._draining else "open"
        return (
            f"<Scheduler [{state}, waiting {len(self._waiting)}/{self.bounds.waiting}, "
            f"running {len(self._running)}]>"
        )

    # What happens to jobs

    def submit(self, entry: Entry) -> int:
        """Take a job into the line and return its position; raises as `admit`."""
        self.admit(entry)
        self.restore(entry)
        return self._ahead(entry)

    def admit(self, entry: Entry) -> None:
        """Keep room for a job until it is taken in by `restore`, or not after all: `dismissed`.

        Raises:
            Draining: the manager shuts down, or an operator lets it drain.
            TooManyWaiting: as many jobs of this caller wait as may wait.
            QueueFull: as many jobs, or bytes, wait as may wait.

        """
        if self._draining:
            raise Draining(
                "the manager is shutting down and takes no new work",
                retry_after=self._retry_after(),
            )
        if self._controls.draining is not None:
            raise Draining(
                "an operator lets the server drain: it takes no new work",
                hint="what was taken in before is carried out; ask for that as ever",
                retry_after=_DRAINED_S,
            )
        bounds = self.bounds
        own = self._callers[entry.caller]
        if bounds.per_caller is not None and own >= bounds.per_caller:
            raise TooManyWaiting(
                f"{own} of your jobs are waiting, as many as may wait for one caller",
                hint="wait until some of them have begun, or cancel those that nobody needs",
                retry_after=_OWN_TURN_S,
            )
        waiting = len(self._waiting) + len(self._admitted)
        if waiting >= bounds.waiting:
            raise self._full(f"{waiting} jobs are waiting, as many as may wait")
        if self._count[entry.modality] >= bounds.per_modality:
            raise self._full(f"{bounds.per_modality} {entry.modality} jobs are waiting")
        if self._bytes + entry.size_bytes > bounds.waiting_bytes and self._bytes:
            raise self._full(f"the waiting requests hold {self._bytes} bytes already")
        on_disk = self._disk_bytes
        if on_disk + entry.disk_bytes > bounds.waiting_disk_bytes and on_disk and entry.disk_bytes:
            raise self._full(f"the waiting pictures and recordings take {on_disk} bytes already")
        self._admitted.add(entry.id)
        self._count_in(entry)

    def dismissed(self, entry: Entry) -> None:
        """Give the room back that was kept for a job."""
        self._admitted.remove(entry.id)
        self._count_out(entry)

    def restore(self, entry: Entry, *, not_before: float | None = None) -> None:
        """Take a job in without asking whether there is room: it was accepted before."""
        self._watch(entry)
        self._stand(entry, not_before)

    def restore_all(self, entries: Sequence[Entry]) -> None:
        """Take in many jobs at once that may be taken now; as `restore`."""
        self._waiting.update((entry.id, entry) for entry in entries)
        self._count.update(entry.modality for entry in entries)
        self._callers.update(entry.caller for entry in entries)
        self._bytes += sum(entry.size_bytes for entry in entries)
        self._disk_bytes += sum(entry.disk_bytes for entry in entries)
        holds = self._controls.holds
        held = [entry for entry in entries if holds(entry)] if self._controls.paused else []
        self.held.put_all(held)
        self.line.put_all([e for e in entries if not holds(e)] if held else entries)
        self._deadlines += [(entry.deadline, entry.sequence, entry.id) for entry in entries]
        heapq.heapify(self._deadlines)

    def resolved(self, job_id: str, model: str) -> None:
        """Name the model of a job that still waits, now that it is known."""
        if job_id in self._waiting:
            not_before = self._delayed.get(job_id)
            self._stand(self._leave(job_id)._replace(model=model), not_before)

    def moved(self, places: Mapping[str, Place]) -> None:
        """Give jobs other places, by id; one that was started meanwhile may come back to its."""
        standing: list[tuple[Entry, float | None]] = []
        for job_id, (level, sequence) in places.items():
            if job_id in self._waiting:
                not_before = self._delayed.get(job_id)
                entry = self._leave(job_id)._replace(level=level, sequence=sequence)
                standing.append((entry, not_before))
            elif (run := self._running.get(job_id)) is not None:
                entry = run.entry._replace(level=level, sequence=sequence)
                self._running[job_id] = run._replace(entry=entry)
        for entry, not_before in standing:
            self._stand(entry, not_before)

    def withdrawn(self, job_id: str) -> bool:
        """Let a waiting job go; False if it does not wait (any more)."""
        waits = job_id in self._waiting
        if waits:
            self._leave(job_id)
        return waits

    def ended(self, job_id: str, now: float, *, well: bool = False) -> None:
        """Note that an attempt is over for good and its slot is free; `well`: with a result."""
        running = self._release(job_id)
        if well:
            self._went_well(running, now)
        if not running.ghost:
            if self._last_end is not None:
                self._gap += 0.2 * (min(now - self._last_end, 60.0) - self._gap)
            self._last_end = now

    def failed(self, job_id: str, trouble: Trouble, now: float, *, why: str = "") -> float | None:
        """Note how a running attempt failed, before it is reported as ended or returned.

        Returns:
            Until when the model is left alone on this backend, if this failure was one too many.

        """
        running = self._running[job_id]
        backend, model = running.backend, _model_of(running.entry)
        breaker = self._breakers.get((backend, model))
        if breaker is None:
            breaker = Breaker(self._breaker_rules, recovering=backend in self._revived)
            self._breakers[backend, model] = breaker
        until = breaker.failed(trouble, now, began=running.since)
        if until is not None:
            self.capacity.pause(backend, model, Pause(until, why or trouble))
            self.capacity.allow(backend, model, breaker.limit)
        return until

    def abandoned(self, job_id: str) -> None:
        """Note that nobody waits for a running attempt any more, but the engine goes on.

        The slot stays taken until `ended`.
        """
        self._running[job_id] = self._running[job_id]._replace(ghost=True)

    def returned(self, job_id: str, *, not_before: float | None = None) -> None:
        """Note that an attempt is over and its job waits again, in its old place.

        With `not_before` it may not be taken before that time.
        """
        entry = self._release(job_id).entry
        if entry.deadline <= self._swept_at:
            self._watch(entry)  # its Expire was given while it still ran
        self._stand(entry, not_before)

    # What happens to backends

    def backend_up(
        self,
        backend: str,
        *,
        offers: Sequence[str] | None = None,
        resident: frozenset[str] | None = None,
    ) -> None:
        """Note that a backend answers; see `Capacity.backend_up`.

        One that was away takes up work gently: each of its models one attempt at first.
        """
        if backend in self._seen and not self.capacity.is_up(backend):
            self._revived.add(backend)
            for (where, _), breaker in self._breakers.items():
                if where == backend:
                    breaker.recover()
            self.capacity.be_careful(backend)
        self._seen.add(backend)
        self.capacity.backend_up(backend, offers=offers, resident=resident)

    def backend_down(self, backend: str) -> None:
        """Note that a backend cannot be reached: nothing is started there until it is up."""
        self.capacity.backend_down(backend)

    def loaded(self, backend: str, model: str, took_s: float | None = None) -> None:
        """Note that a load succeeded, and how long it took."""
        if not self.capacity.is_resident(model):
            self._turns.pop(model, None)
        self.capacity.end_load(backend, model)
        if took_s is not None:
            self.durations.add(("load", backend, model), took_s)

    def load_failed(self, backend: str, model: str, pause: Pause) -> None:
        """Note that a load failed; the model's jobs wait there until the pause is over."""
        self.capacity.end_load(backend, model, pause)

    def model_gone(self, backend: str, model: str, pause: Pause) -> None:
        """Note that a model turned out not to be in memory: its process died.

        After the pause it begins with one attempt at a time.
        """
        self.capacity.gone(backend, model, pause)
        breaker = self._breakers.setdefault((backend, model), Breaker(self._breaker_rules))
        breaker.recover()
        self.capacity.allow(backend, model, breaker.limit)

    def warm_up(self, models: Sequence[str]) -> None:
        """Have models loaded as soon as they fit into free memory; each is tried once."""
        self._warm += models

    def drain(self) -> None:
        """Take no new work from now on; what waits and runs goes on."""
        self._draining = True

    def control(self, controls: Controls) -> None:
        """Do as an operator has switched; jobs that are paused leave the line, and come back."""
        self._controls = controls
        resumed = self.held.take_all(lambda entry: not controls.holds(entry))
        if controls.paused:
            self.held.put_all(self.line.take_all(controls.holds))
        self.line.put_all(resumed)

    # What to do

    def next(self, now: float) -> list[Decision]:
        """Decide everything that can be decided at this moment."""
        decisions: list[Decision] = [*self._expired(now)]
        self._promote(now)
        if self._controls.stopped is not None:
            return decisions
        capacity = self.capacity
        capacity.new_round()
        for entry in self.line.first_of_each_model(without=capacity.full()):
            model = _model_of(entry)
            run = capacity.slot(model, now)
            if run is not None:
                decisions.append(self._start(entry, model, run.backend, now))
            else:
                if self.affinity_s and not capacity.is_resident(model):
                    decisions += self._turn_before(entry, now)
                if (load := self._load_for(entry, now)) is not None:
                    decisions.append(load)
            if capacity.exhausted():
                break
        if self._turns and self._nobody_waits_for_a_load():
            self._turns.clear()
        if self._warm:
            decisions += self._warming(now)
        if self._shut_down_ghosts:
            decisions += self._shut_down(now)
        return decisions

    def wake_at(self, now: float) -> float | None:
        """Return when something becomes due that no report announces."""
        wanted = self._controls.stopped is None and (self.line or self._warm)
        times = [
            self._promotions[0][0] if self._promotions else None,
            self._deadlines[0][0] if self._deadlines else None,
            self.capacity.next_change(now) if wanted else None,
        ]
        return min((t for t in times if t is not None), default=None)

    # What is known

    @property
    def draining(self) -> bool:
        """Whether new work is refused because the manager shuts down."""
        return self._draining

    @property
    def controls(self) -> Controls:
        """What an operator has switched."""
        return self._controls

    @property
    def waiting(self) -> int:
        """How many jobs wait, those in backoff included."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether a free slot would change nothing: nothing waits for one."""
        return not self._waiting and not self._warm

    @property
    def running(self) -> Sequence[Running]:
        """The attempts that hold slots, ghosts included."""
        return tuple(self._running.values())

    def ends_at(self, running: Running) -> float | None:
        """Return when an attempt usually would end; None if there is no experience of it."""
        kind = ("attempt", running.backend, running.entry.model, running.entry.modality)
        usual = self.durations.usual(kind)
        return None if usual is None else running.since + usual

    def usual_attempt_s(self, entry: Entry) -> float | None:
        """Return how long such an attempt usually takes, where that is quickest."""
        kinds = (("attempt", b, entry.model, entry.modality) for b in self._seen)
        known = (self.durations.usual(kind) for kind in kinds)
        return min((seconds for seconds in known if seconds is not None), default=None)

    def waiting_entry(self, job_id: str) -> Entry | None:
        """Return the entry of a waiting job; None if it does not wait."""
        return self._waiting.get(job_id)

    def usual_load_s(self, model: str) -> float | None:
        """Return how long a model usually takes to load, where that is quickest."""
        known = (self.durations.usual(("load", b, model)) for b in self._seen)
        return min((seconds for seconds in known if seconds is not None), default=None)

    def position(self, job_id: str) -> int | None:
        """How many waiting jobs go first, paused ones included; None if the job is not in line."""
        entry = self._waiting.get(job_id)
        if entry is None or job_id in self._delayed:
            return None
        return self._ahead(entry)

    def is_held(self, job_id: str) -> bool:
        """Whether a job waits that an operator's pause holds back."""
        entry = self._waiting.get(job_id)
        return entry is not None and self._controls.holds(entry)

    def count(self, modality: Modality) -> int:
        """How many jobs of a modality wait in line, paused ones included."""
        return self.line.count(modality) + self.held.count(modality)

    def oldest(self, modality: Modality) -> Entry | None:
        """Return the job of a modality in line, paused or not, that was submitted first."""
        found = (line.oldest(modality) for line in (self.line, self.held))
        oldest = (entry for entry in found if entry is not None)
        return min(oldest, key=lambda entry: entry.sequence, default=None)

    def delayed(self, modality: Modality) -> int:
        """How many jobs of a modality wait for another attempt."""
        return sum(self._waiting[job_id].modality == modality for job_id in self._delayed)

    def waiting_entries(self) -> Sequence[Entry]:
        """Return every waiting job, in no particular order."""
        return tuple(self._waiting.values())

    # Inside

    def _load_for(self, entry: Entry, now: float) -> Load | None:
        model, line = _model_of(entry), self.line
        placement = self.capacity.place(
            model, now, waiting=line.count_of(model), wanted=line.models
        )
        if not isinstance(placement, LoadFirst):
            return None
        return self._load(entry.id, model, placement)

    def _start(self, entry: Entry, model: str, backend: str, now: float) -> Start:
        self._leave(entry.id)
        self.capacity.occupy(backend, model)
        self._running[entry.id] = Running(entry, backend, now)
        return Start(entry.id, backend, model)

    def _load(self, job_id: str, model: str, placement: LoadFirst) -> Load:
        self.capacity.begin_load(placement.backend, model, placement.evicted)
        return Load(job_id, placement.backend, model, placement.evicted)

    def _turn_before(self, entry: Entry, now: float) -> Iterator[Start]:
        """Let resident models have their turns before a job that would end them."""
        while (follower := self._follower(entry, now)) is not None:
            model = _model_of(follower)
            run = self.capacity.slot(model, now)
            assert run is not None, "its model has a free slot"  # noqa: S101
            self._turns.setdefault(model, now)
            yield self._start(follower, model, run.backend, now)

    def _follower(self, entry: Entry, now: float) -> Entry | None:
        """Return the best of the worse jobs whose models have their turns."""
        heads = [
            head
            for model in self.capacity.free_slots(now)
            if (head := self.line.head(model)) is not None
            and self.line.is_better(entry, head)
            and self._has_its_turn(model, now)
        ]
        return min(heads, key=self.line.place, default=None)

    def _has_its_turn(self, model: str, now: float) -> bool:
        began = self._turns.get(model, now)
        loads = [self.durations.usual(("load", b, model)) or 0.0 for b in self._seen]
        return now - began < max(self.affinity_s, 2 * max(loads, default=0.0))

    def _nobody_waits_for_a_load(self) -> bool:
        heads = self.line.first_of_each_model()
        return all(self.capacity.is_resident(_model_of(head)) for head in heads)

    def _warming(self, now: float) -> Iterator[Load]:
        """Load what shall be warm into memory that is free and wanted by nobody."""
        for model in tuple(self._warm):
            if self.capacity.is_resident(model):
                self._warm.remove(model)
            elif (placement := self.capacity.place_spare(model, now)) is not None:
                self._warm.remove(model)
                yield self._load("", model, placement)

    def _shut_down(self, now: float) -> Iterator[ShutDown]:
        """Shut down what works for nobody while somebody waits, where loading is quicker."""
        ghosts = [run for run in self._running.values() if run.ghost]
        self._shutting_down &= {(run.backend, _model_of(run.entry)) for run in ghosts}
        for run in ghosts:
            backend, model = run.backend, _model_of(run.entry)
            alone = all(r.ghost for r in self._running.values() if r.backend == backend)
            reload_s = self.durations.usual(("load", backend, model))
            ends_at = self.ends_at(run)
            if not alone or not self.line or reload_s is None or ends_at is None:
                continue
            if (backend, model) not in self._shutting_down and ends_at - now > reload_s:
                self._shutting_down.add((backend, model))
                yield ShutDown(backend, model)

    def _stand(self, entry: Entry, not_before: float | None) -> None:
        self._waiting[entry.id] = entry
        if entry.id in self._admitted:
            self._admitted.remove(entry.id)
        else:
            self._count_in(entry)
        if not_before is None:
            self._line_of(entry).put(entry)
        else:
            self._delayed[entry.id] = not_before
            heapq.heappush(self._promotions, (not_before, entry.sequence, entry.id))

    def _leave(self, job_id: str) -> Entry:
        entry = self._waiting.pop(job_id)
        self._count_out(entry)
        if self._delayed.pop(job_id, None) is None:
            self._line_of(entry).take(entry)
        return entry

    def _line_of(self, entry: Entry) -> Line:
        return self.held if self._controls.holds(entry) else self.line

    def _ahead(self, entry: Entry) -> int:
        return self.line.position(entry) + self.held.position(entry)

    def _count_in(self, entry: Entry) -> None:
        self._count[entry.modality] += 1
        self._callers[entry.caller] += 1
        self._bytes += entry.size_bytes
        self._disk_bytes += entry.disk_bytes

    def _count_out(self, entry: Entry) -> None:
        self._count[entry.modality] -= 1
        self._callers[entry.caller] -= 1
        if not self._callers[entry.caller]:
            del self._callers[entry.caller]  # callers come and go
        self._bytes -= entry.size_bytes
        self._disk_bytes -= entry.disk_bytes

    def _release(self, job_id: str) -> Running:
        running = self._running.pop(job_id)
        self.capacity.vacate(running.backend, _model_of(running.entry))
        return running

    def _went_well(self, running: Running, now: float) -> None:
        backend, model = running.backend, _model_of(running.entry)
        kind = ("attempt", backend, model, running.entry.modality)
        self.durations.add(kind, now - running.since)
        breaker = self._breakers.get((backend, model))
        if breaker is None and backend in self._revived:
            breaker = self._breakers[backend, model] = Breaker(self._breaker_rules, recovering=True)
        if breaker is not None:
            breaker.succeeded()
            self.capacity.allow(backend, model, breaker.limit)

    def _watch(self, entry: Entry) -> None:
        due = self._deadlines
        if len(due) > 2 * (len(self._waiting) + len(self._running)) + 100:
            due[:] = [d for d in due if d[2] in self._waiting or d[2] in self._running]
            heapq.heapify(due)  # jobs that end leave their deadlines behind
        heapq.heappush(due, (entry.deadline, entry.sequence, entry.id))

    def _promote(self, now: float) -> None:
        due = self._promotions
        while due and due[0][0] <= now:
            at, _, job_id = heapq.heappop(due)
            if self._delayed.get(job_id) == at:
                del self._delayed[job_id]
                entry = self._waiting[job_id]
                self._line_of(entry).put(entry)

    def _expired(self, now: float) -> list[Expire]:
        expired: list[Expire] = []
        self._swept_at = now
        due = self._deadlines
        while due and due[0][0] <= now:
            _, _, job_id = heapq.heappop(due)
            running = self._running.get(job_id)
            if self.withdrawn(job_id) or (running is not None and not running.ghost):
                expired.append(Expire(job_id))
        return expired

    def _full(self, message: str) -> QueueFull:
        return QueueFull(message, retry_after=self._retry_after())

    def _retry_after(self) -> float:
        """About when the next place becomes free: the usual time between two endings."""
        return round(min(max(self._gap, 1.0), 60.0), 1)


def _model_of(entry: Entry) -> str:
    model = entry.model
    assert model is not None, "only jobs whose model is known are placed"  # noqa: S101
    return model
