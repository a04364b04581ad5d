"""A scheduler so plain that one can see that it is right: lists, and a look at everything.

It knows no index, no cache and no short cut. Attempts are counted by looking at every job, and at
each decision every waiting job is asked whether its turn has come. `Scheduler` must say the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from src.models.capacity import BackendLimits, ModelLimits
from src.models.modality import Modality
from src.models.queues import Entry
from src.models.scheduler import Decision, Expire, Load, Start


@dataclass
class Job:
    entry: Entry
    state: str = "waiting"
    backend: str = ""
    ghost: bool = False
    not_before: float | None = None
    told_to_expire: bool = False

    @property
    def model(self) -> str:
        assert self.entry.model is not None
        return self.entry.model


@dataclass
class Host:
    limits: BackendLimits
    up: bool = False
    offers: frozenset[str] | None = None
    resident: list[str] = field(default_factory=list[str])  # least recently used first
    dead: set[str] = field(default_factory=set[str])
    loading: str | None = None
    leaving: tuple[str, ...] = ()
    cooling: dict[str, float] = field(default_factory=dict[str, float])


class PlainScheduler:
    def __init__(
        self,
        hosts: Mapping[str, BackendLimits],
        models: Mapping[str, ModelLimits],
        order: Sequence[Modality],
    ) -> None:
        self.hosts = {name: Host(limits) for name, limits in hosts.items()}
        self.models = dict(models)
        self.order = list(order)
        self.jobs: list[Job] = []

    # What one can ask

    def job(self, job_id: str) -> Job:
        return next(job for job in self.jobs if job.entry.id == job_id)

    def with_state(self, state: str) -> list[Job]:
        return [job for job in self.jobs if job.state == state]

    def rank(self, job: Job) -> tuple[int, int, int]:
        entry = job.entry
        return self.order.index(entry.modality), entry.level, entry.sequence

    def in_line(self) -> list[Job]:
        line = [job for job in self.with_state("waiting") if job.not_before is None]
        return sorted(line, key=self.rank)

    def attempts(self, backend: str, model: str) -> int:
        running = self.with_state("running")
        return sum(job.backend == backend and job.model == model for job in running)

    def limits(self, model: str) -> ModelLimits:
        return self.models.get(model, ModelLimits())

    def usable(self, backend: str, model: str, now: float) -> bool:
        host = self.hosts[backend]
        offered = host.offers is None or model in host.offers
        return host.up and offered and host.cooling.get(model, now) <= now

    def fits(self, backend: str, models: Sequence[str]) -> bool:
        limits = self.hosts[backend].limits
        if limits.memory_gb is None:
            return len(models) <= limits.resident
        weights = [self.limits(m).weights_gb or limits.memory_gb for m in models]
        return len(models) == 1 or sum(weights) <= limits.memory_gb

    # What happens

    def submit(self, entry: Entry) -> int:
        self.restore(entry)
        return [job.entry.id for job in self.in_line()].index(entry.id)

    def restore(self, entry: Entry, *, not_before: float | None = None) -> None:
        self.jobs.append(Job(entry, not_before=not_before))

    def resolved(self, job_id: str, model: str) -> None:
        job = self.job(job_id)
        job.entry = replace(job.entry, model=model)

    def withdrawn(self, job_id: str) -> bool:
        waits = self.job(job_id).state == "waiting"
        if waits:
            self.job(job_id).state = "ended"
        return waits

    def ended(self, job_id: str, now: float) -> None:  # noqa: ARG002
        job = self.job(job_id)
        job.state = "ended"
        self._bury(job)

    def abandoned(self, job_id: str) -> None:
        self.job(job_id).ghost = True

    def returned(self, job_id: str, *, not_before: float | None = None) -> None:
        job = self.job(job_id)
        job.state, job.not_before, job.told_to_expire = "waiting", not_before, False
        self._bury(job)

    def _bury(self, job: Job) -> None:
        host = self.hosts[job.backend]
        if job.model in host.dead and not self.attempts(job.backend, job.model):
            host.dead.remove(job.model)
            host.resident.remove(job.model)

    def backend_up(
        self, backend: str, *, offers: Sequence[str] | None, resident: frozenset[str] | None
    ) -> None:
        host = self.hosts[backend]
        host.offers = None if offers is None else frozenset(offers)
        if resident is None:
            resident = frozenset(host.resident if host.up else ())
        there = {m for m in resident if m != host.loading and m not in host.leaving}
        kept = [m for m in host.resident if m in there or self.attempts(backend, m)]
        host.resident = kept + sorted(there.difference(kept))
        host.up = True
        coming = [] if host.loading is None else [host.loading]
        for model in reversed(host.resident.copy()):
            over = len(host.resident) > 1 and not self.fits(backend, [*host.resident, *coming])
            if over and not self.attempts(backend, model):
                host.resident.remove(model)

    def backend_down(self, backend: str) -> None:
        self.hosts[backend].up = False

    def loaded(self, backend: str, model: str) -> None:
        host = self.hosts[backend]
        host.loading, host.leaving = None, ()
        host.cooling.pop(model, None)
        host.resident.append(model)

    def load_failed(self, backend: str, model: str, *, cool_until: float) -> None:
        host = self.hosts[backend]
        host.loading, host.leaving = None, ()
        host.cooling[model] = cool_until

    def model_gone(self, backend: str, model: str, *, cool_until: float) -> None:
        host = self.hosts[backend]
        host.cooling[model] = cool_until
        if self.attempts(backend, model):
            host.dead.add(model)
        elif model in host.resident:
            host.resident.remove(model)

    # What to do

    def next(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        for job in sorted(self.jobs, key=lambda job: (job.entry.deadline, job.entry.sequence)):
            if job.entry.deadline > now or job.told_to_expire or job.ghost:
                continue
            if job.state != "ended":
                job.told_to_expire = True
                decisions.append(Expire(job.entry.id))
            if job.state == "waiting":
                job.state = "ended"
        for job in self.jobs:
            if job.not_before is not None and job.not_before <= now:
                job.not_before = None
        drained: dict[str, list[str]] = {}
        stuck: set[str | None] = {None}  # first in, first out: nobody passes a job of his model
        for job in self.in_line():
            decision = None if job.entry.model in stuck else self._turn(job, drained, now)
            if decision is not None:
                decisions.append(decision)
            if job.state == "waiting":
                stuck.add(job.entry.model)
        return decisions

    def _turn(self, job: Job, drained: dict[str, list[str]], now: float) -> Decision | None:
        model = job.model
        usable = [b for b in self.hosts if self.usable(b, model, now)]
        homes = [
            b
            for b in usable
            if model in self.hosts[b].resident
            and model not in self.hosts[b].dead
            and model not in drained.get(b, [])
        ]
        free = [b for b in homes if self.attempts(b, model) < self.limits(model).parallel]
        if free:
            backend = min(free, key=lambda b: self.attempts(b, model))
            job.state, job.backend = "running", backend
            resident = self.hosts[backend].resident
            resident.remove(model)
            resident.append(model)
            return Start(job.entry.id, backend, model)
        if any(self.hosts[b].loading == model for b in usable):
            return None
        ways: list[tuple[int, bool, int, str, list[str]]] = []
        for b in usable:
            leaving = self._leaving(b, model)
            if model in self.hosts[b].resident or b in drained or leaving is None:
                continue
            waits_for_load = self.hosts[b].loading is not None
            if homes and (leaving or waits_for_load):
                continue
            busy = sum(self.attempts(b, m) for m in leaving)
            ways.append((busy, waits_for_load, len(leaving), b, leaving))
        if not ways:
            return None
        busy, waits_for_load, _, backend, leaving = min(ways, key=lambda way: way[:3])
        if busy or waits_for_load:
            drained[backend] = leaving
            return None
        host = self.hosts[backend]
        host.loading, host.leaving = model, tuple(leaving)
        host.resident = [m for m in host.resident if m not in leaving]
        return Load(job.entry.id, backend, model, tuple(leaving))

    def _leaving(self, backend: str, model: str) -> list[str] | None:
        """Let them go idle first, longest unused first; then call back whoever need not go."""
        host = self.hosts[backend]
        staying = [model] if host.loading is None else [model, host.loading]
        idle = [m for m in host.resident if not self.attempts(backend, m)]
        busy = [m for m in host.resident if self.attempts(backend, m)]
        leaving: list[str] = []
        for m in [*idle, *busy]:
            rest = [other for other in host.resident if other not in leaving]
            if self.fits(backend, staying + rest):
                break
            leaving.append(m)
        rest = [other for other in host.resident if other not in leaving]
        if not self.fits(backend, staying + rest):
            return None
        for m in reversed(tuple(leaving)):
            if self.fits(backend, [*staying, *rest, m]):
                rest.append(m)
                leaving.remove(m)
        return leaving
