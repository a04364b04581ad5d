"""What must always hold, whatever happens: any events, in any order, at any time."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from src.models.breaker import Trouble
from src.models.capacity import BackendLimits, Capacity, ModelLimits, Pause
from src.models.controls import EVERYTHING, Controls, Scope, Switched
from src.models.jobs import Level
from src.models.modality import Modality
from src.models.queues import Entry, priority_order
from src.models.scheduler import Decision, Expire, Load, Scheduler, Start

from .plain import Job, PlainScheduler

MODELS = ("chat", "draw", "edit", "look", "huge")
SOME = (Modality.TXT2TXT, Modality.TXT2TXT, Modality.TXT2IMG, Modality.IMG2TXT)
SHORT = st.sampled_from((0.0, 1.0, 5.0, 30.0))
CALLERS = ("ann", "bob")
SCOPES = (
    EVERYTHING,
    *(Scope("modality", modality) for modality in SOME[1:]),
    *(Scope("model", model) for model in MODELS[:2]),
    *(Scope("caller", caller) for caller in CALLERS),
)
NOBODY = Switched(0.0, "")


def model_limits() -> st.SearchStrategy[ModelLimits]:
    return st.builds(
        ModelLimits,
        parallel=st.integers(1, 3),
        weights_gb=st.sampled_from((None, 0.5, 2.0, 3.0, 5.0, 9.0)),
    )


def backend_limits() -> st.SearchStrategy[BackendLimits]:
    return st.sampled_from(
        (
            BackendLimits(resident=1),
            BackendLimits(resident=1),
            BackendLimits(resident=2),
            BackendLimits(resident=3),
            BackendLimits(memory_gb=8.0),
        )
    )


@dataclass(frozen=True)
class Said:
    decisions: tuple[Decision, ...]


class AnySchedule(RuleBasedStateMachine):
    """Tell the scheduler and its plain double the same, and compare what they say."""

    @initialize(
        backends=st.lists(backend_limits(), min_size=1, max_size=3),
        models=st.dictionaries(st.sampled_from(MODELS), model_limits()),
        order=st.one_of(st.just(priority_order), st.permutations(priority_order)),
        affinity_s=st.sampled_from((0.0, 3.0, 20.0)),
        up=st.booleans(),
    )
    def begin(
        self,
        backends: list[BackendLimits],
        models: dict[str, ModelLimits],
        order: Sequence[Modality],
        affinity_s: float,
        up: bool,
    ) -> None:
        self.now = 1000.0
        self.submitted = 0
        self.told: list[Callable[[Scheduler], object]] = []
        self.said: list[Said] = []
        hosts = {f"gpu-{n}": limits for n, limits in enumerate(backends)}
        self.make: Callable[[], Scheduler] = lambda: Scheduler(
            Capacity(hosts, models), order=order, affinity_s=affinity_s
        )
        self.scheduler = self.make()
        self.plain = PlainScheduler(hosts, models, order, affinity_s)
        if up:
            for backend in hosts:
                self.tell("backend_up", backend, offers=None, resident=frozenset[str]())

    def tell(self, what: str, *args: Any, **details: Any) -> Any:
        """Tell both, and remember it."""

        def event(scheduler: Scheduler) -> object:
            return getattr(scheduler, what)(*args, **details)

        self.told.append(event)
        answer = event(self.scheduler)
        assert answer == getattr(self.plain, what)(*args, **details)
        return answer

    # What callers do

    def entry(self, data: st.DataObject, sequence: int) -> Entry:
        return Entry(
            id=f"job-{sequence}",
            modality=data.draw(st.sampled_from(SOME), "modality"),
            level=data.draw(st.sampled_from((Level.NORMAL, Level.NORMAL, Level.LOW)), "level"),
            model=data.draw(st.sampled_from((*MODELS, *MODELS, None)), "model"),
            sequence=sequence,
            submitted_at=self.now,
            deadline=self.now + data.draw(st.sampled_from((0.0, 3.0, 20.0, 1e6, 1e6)), "time"),
            size_bytes=100,
            caller=data.draw(st.sampled_from(CALLERS), "caller"),
        )

    @rule(data=st.data(), count=st.sampled_from((1, 1, 3)))
    def submit(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            self.submitted += 1
            self.tell("submit", self.entry(data, self.submitted))

    @rule(data=st.data(), pause=SHORT)
    def restore(self, data: st.DataObject, pause: float) -> None:
        self.submitted += 1
        self.tell("restore", self.entry(data, self.submitted), not_before=self.now + pause)

    @precondition(lambda self: self.plain.with_state("waiting"))
    @rule(data=st.data(), model=st.sampled_from(MODELS))
    def resolve(self, data: st.DataObject, model: str) -> None:
        waiting = self.plain.with_state("waiting")
        unresolved = [job for job in waiting if job.entry.model is None]
        self.tell("resolved", pick(data, unresolved or waiting), model)

    @precondition(lambda self: self.plain.with_state("waiting"))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        assert self.tell("withdrawn", pick(data, self.plain.with_state("waiting")))

    # What attempts do

    def attended(self) -> list[Job]:
        return [job for job in self.plain.with_state("running") if not job.ghost]

    @precondition(lambda self: self.plain.with_state("running"))
    @rule(data=st.data(), well=st.booleans())
    def end(self, data: st.DataObject, well: bool) -> None:
        job_id = pick(data, self.plain.with_state("running"))
        self.tell("ended", job_id, self.now, well=well)
        assert not self.tell("withdrawn", job_id)

    @precondition(lambda self: self.attended())
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        self.tell("abandoned", pick(data, self.attended()))

    @precondition(lambda self: self.attended())
    @rule(
        data=st.data(),
        pause=st.one_of(st.none(), SHORT),
        trouble=st.one_of(st.none(), st.sampled_from(Trouble)),
    )
    def come_back(self, data: st.DataObject, pause: float | None, trouble: Trouble | None) -> None:
        not_before = None if pause is None else self.now + pause
        job_id = pick(data, self.attended())
        if trouble is not None:
            self.tell("failed", job_id, trouble, self.now)
        self.tell("returned", job_id, not_before=not_before)

    # What backends do

    @rule(
        data=st.data(),
        offers=st.one_of(st.none(), st.sets(st.sampled_from(MODELS), min_size=2)),
        resident=st.one_of(st.none(), st.sets(st.sampled_from(MODELS), max_size=2)),
    )
    def up(self, data: st.DataObject, offers: set[str] | None, resident: set[str] | None) -> None:
        self.tell(
            "backend_up",
            data.draw(st.sampled_from(sorted(self.plain.hosts))),
            offers=None if offers is None else sorted(offers),
            resident=None if resident is None else frozenset(resident),
        )

    @rule(data=st.data())
    def down(self, data: st.DataObject) -> None:
        self.tell("backend_down", data.draw(st.sampled_from(sorted(self.plain.hosts))))

    def loading(self) -> list[tuple[str, str]]:
        return [(b, host.loading) for b, host in self.plain.hosts.items() if host.loading]

    @precondition(lambda self: self.loading())
    @rule(data=st.data(), fails=st.sampled_from((False, False, True)), pause=SHORT)
    def end_load(self, data: st.DataObject, fails: bool, pause: float) -> None:
        backend, model = data.draw(st.sampled_from(self.loading()))
        if fails:
            self.tell("load_failed", backend, model, Pause(self.now + pause))
        else:
            self.tell("loaded", backend, model, pause)

    @precondition(lambda self: self.plain.with_state("running"))
    @rule(data=st.data(), pause=SHORT, while_resident=st.booleans())
    def crash(self, data: st.DataObject, pause: float, while_resident: bool) -> None:
        job = data.draw(st.sampled_from(self.plain.with_state("running")))
        until = Pause(self.now + pause, while_resident=while_resident)
        self.tell("model_gone", job.backend, job.model, until)

    @rule(models=st.lists(st.sampled_from(MODELS), max_size=2, unique=True))
    def warm_up(self, models: list[str]) -> None:
        self.tell("warm_up", models)

    @rule(models=st.dictionaries(st.sampled_from(MODELS), model_limits()))
    def learn_limits(self, models: dict[str, ModelLimits]) -> None:
        self.told.append(lambda scheduler: scheduler.capacity.set_models(models))
        self.told[-1](self.scheduler)
        self.plain.models = dict(models)

    # What an operator does

    @rule(scopes=st.sets(st.sampled_from(SCOPES), max_size=2), stopped=st.sampled_from((0, 0, 1)))
    def switch(self, scopes: set[Scope], stopped: int) -> None:
        paused = dict.fromkeys(scopes, NOBODY)
        self.tell("control", Controls(paused=paused, stopped=NOBODY if stopped else None))

    @rule(seconds=st.sampled_from((0.5, 1.0, 5.0, 30.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # What the scheduler says

    @rule()
    def decide(self) -> None:
        self.check(self.step())

    @rule()
    def decide_again(self) -> None:
        self.check(self.step())

    def step(self) -> list[Decision]:
        before = deepcopy(self.plain)
        now = self.now

        def event(scheduler: Scheduler) -> Said:
            return Said(tuple(scheduler.next(now)))

        self.told.append(event)
        self.said.append(event(self.scheduler))
        decisions = list(self.said[-1].decisions)
        assert decisions == self.plain.next(now)
        self.check_decisions(before, decisions)
        return decisions

    def check(self, decisions: Sequence[Decision]) -> None:
        named = [d.job_id for d in decisions if isinstance(d, Start | Load) and d.job_id]
        assert len(set(named)) == len(named)
        self.check_nothing_was_overlooked()
        self.check_what_is_known()
        self.check_nothing_happens_before_the_alarm()
        self.check_short_cuts()

    def check_decisions(self, before: PlainScheduler, decisions: Sequence[Decision]) -> None:
        now, plain = self.now, self.plain
        started = [plain.job(d.job_id) for d in decisions if isinstance(d, Start)]
        if plain.controls.stopped:
            assert all(isinstance(d, Expire) for d in decisions)
        for job in started:
            assert not plain.is_paused(job)
            host = plain.hosts[job.backend]
            assert job.entry.deadline > now
            assert plain.usable(job.backend, job.model, now)
            assert job.model not in host.dead
            assert plain.attempts(job.backend, job.model) <= plain.slots(job.backend, job.model)
            assert not [
                j for j in plain.in_line() if j.entry.model == job.model and better(plain, j, job)
            ]
        for earlier, later in pairwise(started):
            assert better(plain, earlier, later) or plain.affinity_s
        for load in decisions:
            if not isinstance(load, Load):
                continue
            host = plain.hosts[load.backend]
            assert plain.usable(load.backend, load.model, now)
            assert before.hosts[load.backend].loading is None
            assert load.model not in before.hosts[load.backend].resident
            assert set(load.evicted) <= set(before.hosts[load.backend].resident)
            assert not any(plain.attempts(load.backend, m) for m in load.evicted)
            assert plain.fits(load.backend, [*host.resident, load.model])
            first = [job for job in plain.in_line() if job.entry.model == load.model]
            if load.job_id:
                assert plain.job(load.job_id) == first[0]
            else:
                assert not load.evicted

    def check_nothing_was_overlooked(self) -> None:
        """No job waits for what is there, unless a better one needs that room."""
        plain, now = self.plain, self.now
        if plain.controls.stopped:
            return
        homeless: list[Job] = []
        for job in plain.in_line():
            if job.entry.model is None:
                continue
            usable = [b for b in plain.hosts if plain.usable(b, job.model, now)]
            for backend in usable:
                host = plain.hosts[backend]
                wanted = any(plain.usable(backend, j.model, now) for j in homeless)
                if job.model in host.resident:
                    full = plain.attempts(backend, job.model) >= plain.slots(backend, job.model)
                    assert full or wanted or job.model in host.dead
                    continue
                busy = [m for m in host.resident if plain.attempts(backend, m)]
                room = host.loading is None and plain.fits(backend, [*busy, job.model])
                at_home = any(job.model in plain.hosts[b].resident for b in usable)
                on_its_way = any(plain.hosts[b].loading == job.model for b in usable)
                assert not room or wanted or at_home or on_its_way
            if not any(
                job.model in plain.hosts[b].resident and job.model not in plain.hosts[b].dead
                for b in usable
            ):
                homeless.append(job)

    def check_what_is_known(self) -> None:
        scheduler, plain = self.scheduler, self.plain
        line = [job.entry for job in plain.in_line()]
        waiting, running = plain.with_state("waiting"), plain.with_state("running")
        held = [job.entry for job in plain.held_back()]
        assert list(scheduler.line) == line
        assert list(scheduler.held) == held
        assert len(scheduler.line) == len(line)
        both = [job.entry for job in plain.all_in_line()]
        for place, entry in enumerate(both):
            assert scheduler.position(entry.id) == place
        for job in plain.jobs:
            if job.entry not in both:
                assert scheduler.position(job.entry.id) is None
            waits = job.state == "waiting"
            assert scheduler.is_held(job.entry.id) == (waits and plain.is_paused(job))
        for modality in Modality:
            of_it = [entry for entry in line if entry.modality is modality]
            assert list(scheduler.line.waiting(modality)) == of_it
            assert scheduler.line.count(modality) == len(of_it)
            oldest = min(of_it, key=lambda entry: entry.sequence, default=None)
            assert scheduler.line.oldest(modality) == oldest
            either = [entry for entry in both if entry.modality is modality]
            assert scheduler.count(modality) == len(either)
            oldest = min(either, key=lambda entry: entry.sequence, default=None)
            assert scheduler.oldest(modality) == oldest
            delayed = [j for j in waiting if j.not_before is not None]
            assert scheduler.delayed(modality) == sum(j.entry.modality is modality for j in delayed)
        assert {e.id for e in scheduler.waiting_entries()} == {j.entry.id for j in waiting}
        assert {(r.entry, r.backend, r.ghost) for r in scheduler.running} == {
            (j.entry, j.backend, j.ghost) for j in running
        }
        ended = len(plain.with_state("ended"))
        assert scheduler.waiting + len(scheduler.running) + ended == self.submitted
        for name, host in plain.hosts.items():
            assert dict(scheduler.capacity.resident(name)) == {
                m: plain.attempts(name, m) for m in host.resident
            }
            assert list(scheduler.capacity.resident(name)) == host.resident
            assert scheduler.capacity.loading(name) == host.loading
            assert scheduler.capacity.is_up(name) == host.up

    def check_nothing_happens_before_the_alarm(self) -> None:
        alarm = self.scheduler.wake_at(self.now)
        later = self.now + 1e5 if alarm is None else (self.now + alarm) / 2
        for moment in (self.now, later):
            if alarm is None or moment < alarm:
                assert deepcopy(self.scheduler).next(moment) == []

    def check_short_cuts(self) -> None:
        """Whoever is said to be beyond help is."""
        capacity = deepcopy(self.scheduler.capacity)
        for model in MODELS if capacity.exhausted() else capacity.full():
            assert capacity.place(model, self.now) is None

    # How it ends

    def teardown(self) -> None:
        if hasattr(self, "plain"):
            self.all_goes_well_from_now_on()
            self.the_same_again()

    def all_goes_well_from_now_on(self) -> None:
        """When slots keep coming free and nothing is paused, every job has its turn."""
        self.tell("control", Controls())
        for job in self.plain.with_state("waiting"):
            if job.entry.model is None:
                self.tell("resolved", job.entry.id, "chat")
        for backend in self.plain.hosts:
            self.tell("backend_up", backend, offers=None, resident=None)
        while True:
            decisions = self.step()
            for backend, model in self.loading():
                self.tell("loaded", backend, model)
            running = self.plain.with_state("running")
            for job in running:
                self.tell("ended", job.entry.id, self.now)
            if not (decisions or running):
                alarm = self.scheduler.wake_at(self.now)
                if alarm is None or not self.plain.with_state("waiting"):
                    break
                self.now = max(alarm, self.now)
        assert not self.plain.with_state("waiting")
        assert not self.scheduler.waiting

    def the_same_again(self) -> None:
        """The same events at the same times give the same decisions."""
        scheduler = self.make()
        said = [answer for event in self.told if isinstance(answer := event(scheduler), Said)]
        assert said == self.said


def pick(data: st.DataObject, jobs: Sequence[Job]) -> str:
    return data.draw(st.sampled_from([job.entry.id for job in jobs]))


def better(plain: PlainScheduler, one: Job, other: Job) -> bool:
    return plain.rank(one) < plain.rank(other)


TestAnySchedule = AnySchedule.TestCase
TestAnySchedule.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
