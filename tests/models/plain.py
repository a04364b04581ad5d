"""A scheduler so plain that one can see that it is right: lists, and a look at everything.

It knows no index, no cache and no short cut. Attempts are counted by looking at every job, and at
each decision every waiting job is asked whether its turn has come. `Scheduler` must say the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from src.models.breaker import Breaker, BreakerRules, Trouble
from src.models.capacity import BackendLimits, ModelLimits, Pause
from src.models.controls import Controls
from src.models.durations import Durations
from src.models.modality import Modality
from src.models.queues import Entry
from src.models.scheduler import Decision, Expire, Load, Start


@dataclass
class Job:
    entry: Entry
    state: str = "waiting"
    backend: str = ""
    since: float = 0.0
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
    paused: dict[str, Pause] = field(default_factory=dict[str, Pause])
    seen: bool = False
    revived: bool = False
    breakers: dict[str, Breaker] = field(default_factory=dict[str, Breaker])

    def breaker(self, model: str) -> Breaker:
        return self.breakers.setdefault(model, Breaker(BreakerRules(), recovering=self.revived))


class PlainScheduler:
    def __init__(
        self,
        hosts: Mapping[str, BackendLimits],
        models: Mapping[str, ModelLimits],
        order: Sequence[Modality],
        affinity_s: float = 20.0,
    ) -> None:
        self.affinity_s = affinity_s
        self.controls = Controls()
        self.turns: dict[str, float] = {}
        self.loads = Durations()
        self.warm: list[str] = []
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

    def is_paused(self, job: Job) -> bool:
        entry = job.entry
        whose = {"modality": entry.modality, "model": entry.model, "caller": entry.caller}
        return any(s.kind == "everything" or whose[s.kind] == s.name for s in self.controls.paused)

    def all_in_line(self) -> list[Job]:
        line = [job for job in self.with_state("waiting") if job.not_before is None]
        return sorted(line, key=self.rank)

    def in_line(self) -> list[Job]:
        return [job for job in self.all_in_line() if not self.is_paused(job)]

    def held_back(self) -> list[Job]:
        return [job for job in self.all_in_line() if self.is_paused(job)]

    def attempts(self, backend: str, model: str) -> int:
        running = self.with_state("running")
        return sum(job.backend == backend and job.model == model for job in running)

    def limits(self, model: str) -> ModelLimits:
        return self.models.get(model, ModelLimits())

    def usable(self, backend: str, model: str, now: float) -> bool:
        host = self.hosts[backend]
        offered = host.offers is None or model in host.offers
        paused = model in host.paused and host.paused[model].until > now
        return host.up and offered and not paused

    def slots(self, backend: str, model: str) -> int:
        host, parallel = self.hosts[backend], self.limits(model).parallel
        limit = 1 if host.revived else None
        if model in host.breakers:
            limit = host.breakers[model].limit
        return parallel if limit is None else min(limit, parallel)

    def fits(self, backend: str, models: Sequence[str]) -> bool:
        limits = self.hosts[backend].limits
        if limits.memory_gb is None:
            return len(models) <= limits.resident
        weights = [self.limits(m).weights_gb or limits.memory_gb for m in models]
        return len(models) == 1 or sum(weights) <= limits.memory_gb

    # What happens

    def submit(self, entry: Entry) -> int:
        self.restore(entry)
        return [job.entry.id for job in self.all_in_line()].index(entry.id)

    def restore(self, entry: Entry, *, not_before: float | None = None) -> None:
        self.jobs.append(Job(entry, not_before=not_before))

    def resolved(self, job_id: str, model: str) -> None:
        job = self.job(job_id)
        job.entry = job.entry._replace(model=model)

    def withdrawn(self, job_id: str) -> bool:
        waits = self.job(job_id).state == "waiting"
        if waits:
            self.job(job_id).state = "ended"
        return waits

    def ended(self, job_id: str, now: float, *, well: bool = False) -> None:  # noqa: ARG002
        job = self.job(job_id)
        job.state = "ended"
        self._bury(job)
        host = self.hosts[job.backend]
        if well and (host.revived or job.model in host.breakers):
            host.breaker(job.model).succeeded()

    def failed(self, job_id: str, trouble: Trouble, now: float) -> float | None:
        job = self.job(job_id)
        host = self.hosts[job.backend]
        until = host.breaker(job.model).failed(trouble, now, began=job.since)
        if until is not None:
            before = host.paused.get(job.model, Pause(0.0))
            host.paused[job.model] = max(before, Pause(until, trouble), key=lambda p: p.until)
        return until

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
        if host.seen and not host.up:
            host.revived = True
            for breaker in host.breakers.values():
                breaker.recover()
        host.seen = True
        host.offers = None if offers is None else frozenset(offers)
        if resident is not None:
            host.paused = {
                m: p for m, p in host.paused.items() if m in resident or not p.while_resident
            }
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

    def loaded(self, backend: str, model: str, took_s: float | None = None) -> None:
        host = self.hosts[backend]
        host.loading, host.leaving = None, ()
        host.paused.pop(model, None)
        if not self.resident_somewhere(model):
            self.turns.pop(model, None)
        host.resident.append(model)
        if took_s is not None:
            self.loads.add((backend, model), took_s)

    def load_failed(self, backend: str, model: str, pause: Pause) -> None:
        host = self.hosts[backend]
        host.loading, host.leaving = None, ()
        host.paused[model] = pause

    def warm_up(self, models: Sequence[str]) -> None:
        self.warm += models

    def model_gone(self, backend: str, model: str, pause: Pause) -> None:
        host = self.hosts[backend]
        host.paused[model] = pause
        host.breakers.setdefault(model, Breaker(BreakerRules())).recover()
        if self.attempts(backend, model):
            host.dead.add(model)
        elif model in host.resident:
            host.resident.remove(model)

    def control(self, controls: Controls) -> None:
        self.controls = controls

    # What to do

    def next(self, now: float) -> list[Decision]:  # noqa: C901 - plainly, one after the other
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
        if self.controls.stopped:
            return decisions
        drained: dict[str, list[str]] = {}
        stuck: set[str | None] = {None}  # first in, first out: nobody passes a job of his model
        for job in self.in_line():
            if job.state != "waiting":
                continue  # it has overtaken
            if job.entry.model not in stuck:
                decisions += self._overtaking(job, drained, now)
            decision = None if job.entry.model in stuck else self._turn(job, drained, now)
            if decision is not None:
                decisions.append(decision)
            if job.state == "waiting":
                stuck.add(job.entry.model)
        if not self._somebody_waits_for_a_load():
            self.turns.clear()  # nobody is overtaken
        for model in tuple(self.warm):
            if self.resident_somewhere(model):
                self.warm.remove(model)
                continue
            for b, host in self.hosts.items():
                free = self.usable(b, model, now) and b not in drained and host.loading is None
                if model in host.resident or not free:
                    continue
                if self.fits(b, [*host.resident, model]):
                    host.loading, host.leaving = model, ()
                    self.warm.remove(model)
                    decisions.append(Load("", b, model, ()))
                    break
        return decisions

    def resident_somewhere(self, model: str) -> bool:
        hosts = self.hosts.values()
        return any(h.up and model in h.resident and model not in h.dead for h in hosts)

    def _somebody_waits_for_a_load(self) -> bool:
        wanted = {job.entry.model for job in self.in_line()}
        return any(m is not None and not self.resident_somewhere(m) for m in wanted)

    def _overtaking(self, job: Job, drained: dict[str, list[str]], now: float) -> list[Decision]:
        decisions: list[Decision] = []
        if not self.affinity_s or self.resident_somewhere(job.model):
            return decisions
        while followers := [j for j in self.in_line() if self._may_pass(j, job, drained, now)]:
            follower = followers[0]
            self.turns.setdefault(follower.model, now)
            decision = self._turn(follower, drained, now)
            assert decision is not None
            decisions.append(decision)
        return decisions

    def _may_pass(self, one: Job, other: Job, drained: dict[str, list[str]], now: float) -> bool:
        if one.entry.model is None:
            return False
        first = next(j for j in self.in_line() if j.entry.model == one.model)
        loads = [self.loads.usual((b, one.model)) or 0.0 for b in self.hosts]
        patience = max(self.affinity_s, *(2 * seconds for seconds in loads))
        return (
            one is first
            and self.rank(one) > self.rank(other)
            and bool(self._free_homes(one.model, drained, now))
            and now - self.turns.get(one.model, now) < patience
        )

    def _free_homes(self, model: str, drained: dict[str, list[str]], now: float) -> list[str]:
        return [
            b
            for b in self._homes(model, drained, now)
            if self.attempts(b, model) < self.slots(b, model)
        ]

    def _homes(self, model: str, drained: dict[str, list[str]], now: float) -> list[str]:
        return [
            b
            for b, host in self.hosts.items()
            if self.usable(b, model, now)
            and model in host.resident
            and model not in host.dead
            and model not in drained.get(b, [])
        ]

    def _turn(self, job: Job, drained: dict[str, list[str]], now: float) -> Decision | None:
        model = job.model
        usable = [b for b in self.hosts if self.usable(b, model, now)]
        homes = self._homes(model, drained, now)
        free = self._free_homes(model, drained, now)
        if free:
            backend = min(free, key=lambda b: self.attempts(b, model))
            job.state, job.backend, job.since = "running", backend, now
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
            busy = sum(self.attempts(b, m) for m in leaving)
            if homes and (waits_for_load or busy):
                continue
            if homes and leaving and not self._worth_it(model, leaving):
                continue
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

    def _worth_it(self, model: str, leaving: Sequence[str]) -> bool:
        """More wait than can run at home, and nobody for those who would have to leave."""
        waiting = [job.entry.model for job in self.in_line()]
        at_home = [b for b, host in self.hosts.items() if model in host.resident]
        return waiting.count(model) > sum(self.slots(b, model) for b in at_home) and not any(
            m in waiting for m in leaving
        )

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
