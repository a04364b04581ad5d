"""Who goes next, where and when. Pure: told what happened and the time, it answers with values.

Policy `strict`: among the jobs that a free slot could take, the next one is the smallest by
modality (`priority_order`), level, submission number. A lower modality waits as long as a higher
one has work. A job whose model must first be loaded waits for the model it replaces to drain;
meanwhile nothing worse may start there.

A decision is also a promise: what `next` returns is already accounted for, so the same slot or
load is never given twice, and every `Start` and `Load` must be answered by a report.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

from .capacity import Capacity, LoadFirst
from .errors import Draining, QueueFull
from .modality import Modality
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

    `job_id` names the job for whose sake it happens: the best one that waits for the model.
    """

    job_id: str
    backend: str
    model: str
    evicted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expire:
    """End this job, whether it waits or runs: its deadline has passed."""

    job_id: str


Decision = Start | Load | Expire


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may wait: jobs in all and per modality, and bytes of their requests."""

    waiting: int = 10_000
    per_modality: int = 10_000
    waiting_bytes: int = 512 * 2**20


class Running(NamedTuple):
    """An attempt that holds a slot; a ghost when nobody waits for it any more."""

    entry: Entry
    backend: str
    since: float
    ghost: bool = False


class Scheduler:
    """The line of waiting jobs, the capacity they wait for, and the rule that joins them."""

    def __init__(
        self,
        capacity: Capacity,
        *,
        order: Sequence[Modality] = priority_order,
        bounds: Bounds = Bounds(),
    ) -> None:
        self.capacity = capacity
        self.line = Line(order)
        self._bounds = bounds
        self._draining = False
        self._waiting: dict[str, Entry] = {}
        self._delayed: dict[str, float] = {}
        self._promotions: list[tuple[float, int, str]] = []
        self._running: dict[str, Running] = {}
        self._deadlines: list[tuple[float, int, str]] = []
        self._swept_at = -inf
        self._count: Counter[Modality] = Counter()
        self._bytes = 0
        self._gap = 1.0
        self._last_end: float | None = None

    def __repr__(self) -> str:
        state = "draining" if self._draining else "open"
        return (
            f"<Scheduler [{state}, waiting {len(self._waiting)}/{self._bounds.waiting}, "
            f"running {len(self._running)}]>"
        )

    # What happens to jobs

    def submit(self, entry: Entry) -> int:
        """Take a job into the line and return its position; raises as `admit`."""
        self.admit(entry)
        self.restore(entry)
        return self.line.position(entry)

    def admit(self, entry: Entry) -> None:
        """Say whether there is room for a job.

        Raises:
            Draining: the manager shuts down.
            QueueFull: as many jobs, or bytes, wait as may wait.

        """
        if self._draining:
            raise Draining(
                "the manager is shutting down and takes no new work",
                retry_after=self._retry_after(),
            )
        bounds = self._bounds
        if len(self._waiting) >= bounds.waiting:
            raise self._full(f"{len(self._waiting)} jobs are waiting, as many as may wait")
        if self._count[entry.modality] >= bounds.per_modality:
            raise self._full(f"{bounds.per_modality} {entry.modality} jobs are waiting")
        if self._bytes + entry.size_bytes > bounds.waiting_bytes and self._bytes:
            raise self._full(f"the waiting requests hold {self._bytes} bytes already")

    def restore(self, entry: Entry, *, not_before: float | None = None) -> None:
        """Take a job in without asking whether there is room: it was accepted before."""
        self._watch(entry)
        self._stand(entry, not_before)

    def resolved(self, job_id: str, model: str) -> None:
        """Name the model of a job that still waits, now that it is known."""
        if job_id in self._waiting:
            not_before = self._delayed.get(job_id)
            self._stand(replace(self._leave(job_id), model=model), not_before)

    def withdrawn(self, job_id: str) -> bool:
        """Let a waiting job go; False if it does not wait (any more)."""
        waits = job_id in self._waiting
        if waits:
            self._leave(job_id)
        return waits

    def ended(self, job_id: str, now: float) -> None:
        """Note that an attempt is over for good and its slot is free."""
        running = self._release(job_id)
        if not running.ghost:
            if self._last_end is not None:
                self._gap += 0.2 * (min(now - self._last_end, 60.0) - self._gap)
            self._last_end = now

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
        """Note that a backend answers; see `Capacity.backend_up`."""
        self.capacity.backend_up(backend, offers=offers, resident=resident)

    def backend_down(self, backend: str) -> None:
        """Note that a backend cannot be reached: nothing is started there until it is up."""
        self.capacity.backend_down(backend)

    def loaded(self, backend: str, model: str) -> None:
        """Note that a load succeeded."""
        self.capacity.end_load(backend, model)

    def load_failed(self, backend: str, model: str, *, cool_until: float) -> None:
        """Note that a load failed; the model's jobs wait there until `cool_until`."""
        self.capacity.end_load(backend, model, cool_until=cool_until)

    def model_gone(self, backend: str, model: str, *, cool_until: float) -> None:
        """Note that a model turned out not to be in memory: its process died."""
        self.capacity.gone(backend, model, cool_until=cool_until)

    def drain(self) -> None:
        """Take no new work from now on; what waits and runs goes on."""
        self._draining = True

    # What to do

    def next(self, now: float) -> list[Decision]:
        """Decide everything that can be decided at this moment."""
        decisions: list[Decision] = [*self._expired(now)]
        self._promote(now)
        capacity = self.capacity
        capacity.new_round()
        for entry in self.line.first_of_each_model(without=capacity.full()):
            decision = self._place(entry, now)
            if decision is not None:
                decisions.append(decision)
            if capacity.exhausted():
                break
        return decisions

    def wake_at(self, now: float) -> float | None:
        """Return when something becomes due that no report announces."""
        times = [
            self._promotions[0][0] if self._promotions else None,
            self._deadlines[0][0] if self._deadlines else None,
            self.capacity.next_change(now) if self.line else None,
        ]
        return min((t for t in times if t is not None), default=None)

    # What is known

    @property
    def draining(self) -> bool:
        """Whether new work is refused."""
        return self._draining

    @property
    def waiting(self) -> int:
        """How many jobs wait, those in backoff included."""
        return len(self._waiting)

    @property
    def running(self) -> Sequence[Running]:
        """The attempts that hold slots, ghosts included."""
        return tuple(self._running.values())

    def position(self, job_id: str) -> int | None:
        """How many waiting jobs go first; None if the job is not in line."""
        entry = self._waiting.get(job_id)
        if entry is None or job_id in self._delayed:
            return None
        return self.line.position(entry)

    def delayed(self, modality: Modality) -> int:
        """How many jobs of a modality wait for another attempt."""
        return sum(self._waiting[job_id].modality == modality for job_id in self._delayed)

    def waiting_entries(self) -> Sequence[Entry]:
        """Return every waiting job, in no particular order."""
        return tuple(self._waiting.values())

    # Inside

    def _place(self, entry: Entry, now: float) -> Decision | None:
        model = entry.model
        assert model is not None, "jobs without a model are never first of a model"  # noqa: S101
        placement = self.capacity.place(model, now)
        if placement is None:
            return None
        backend = placement.backend
        if isinstance(placement, LoadFirst):
            self.capacity.begin_load(backend, model, placement.evicted)
            return Load(entry.id, backend, model, placement.evicted)
        self._leave(entry.id)
        self.capacity.occupy(backend, model)
        self._running[entry.id] = Running(entry, backend, now)
        return Start(entry.id, backend, model)

    def _stand(self, entry: Entry, not_before: float | None) -> None:
        self._waiting[entry.id] = entry
        self._count[entry.modality] += 1
        self._bytes += entry.size_bytes
        if not_before is None:
            self.line.put(entry)
        else:
            self._delayed[entry.id] = not_before
            heapq.heappush(self._promotions, (not_before, entry.sequence, entry.id))

    def _leave(self, job_id: str) -> Entry:
        entry = self._waiting.pop(job_id)
        self._count[entry.modality] -= 1
        self._bytes -= entry.size_bytes
        if self._delayed.pop(job_id, None) is None:
            self.line.take(entry)
        return entry

    def _release(self, job_id: str) -> Running:
        running = self._running.pop(job_id)
        model = running.entry.model
        assert model is not None, "an attempt runs on a model"  # noqa: S101
        self.capacity.vacate(running.backend, model)
        return running

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
                self.line.put(self._waiting[job_id])

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
