"""Turns of resident models: what they may overtake, and for how long."""

import heapq
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from src.models.capacity import BackendLimits, Capacity, ModelLimits, Pause
from src.models.jobs import Level
from src.models.scheduler import Decision, Load, Scheduler, Start

from .making import CHAT, DRAW, NOW, entry


def scheduler(
    *resident: str,
    affinity_s: float = 20.0,
    backends: int = 1,
    parallel: int = 1,
) -> Scheduler:
    limits = {model: ModelLimits(parallel=parallel) for model in ("a", "b", "c")}
    names = [f"gpu-{number}" for number in range(1, backends + 1)]
    made = Scheduler(
        Capacity({name: BackendLimits() for name in names}, limits), affinity_s=affinity_s
    )
    for name in names:
        made.backend_up(name, resident=frozenset(resident))
    return made


def run(s: Scheduler, number: int, now: float, took: float = 1.0) -> list[Decision]:
    """Let a job end and say what follows."""
    s.ended(f"job-{number}", now + took, well=True)
    return s.next(now + took)


def start(number: int, model: str) -> Start:
    return Start(f"job-{number}", "gpu-1", model)


def load(number: int, model: str, evicted: str) -> Load:
    return Load(f"job-{number}", "gpu-1", model, (evicted,))


def test_jobs_of_the_resident_model_go_before_an_older_one_that_needs_a_load() -> None:
    s = scheduler("a")
    s.submit(entry(1, model="b"))
    s.submit(entry(2, model="a"))
    s.submit(entry(3, model="a"))

    assert s.next(NOW) == [start(2, "a")]
    assert run(s, 2, NOW) == [start(3, "a")]
    assert run(s, 3, NOW + 1) == [load(1, "b", "a")]


def test_without_affinity_the_oldest_job_goes_first_whatever_must_be_loaded() -> None:
    s = scheduler("a", affinity_s=0.0)
    s.submit(entry(1, model="b"))
    s.submit(entry(2, model="a"))

    assert s.next(NOW) == [load(1, "b", "a")]


@pytest.mark.parametrize(("passed", "ends"), [(19.9, False), (20.0, True)])
def test_a_turn_ends_so_many_seconds_after_its_first_job(passed: float, ends: bool) -> None:
    s = scheduler("a")
    s.submit(entry(1, model="b"))
    s.submit(entry(2, model="a"))
    s.submit(entry(3, model="a"))
    s.next(NOW)

    assert run(s, 2, NOW, passed) == [load(1, "b", "a") if ends else start(3, "a")]


@pytest.mark.parametrize(("passed", "ends"), [(59.9, False), (60.0, True)])
def test_a_turn_lasts_at_least_twice_the_usual_load(passed: float, ends: bool) -> None:
    s = scheduler()
    s.submit(entry(1, model="a"))
    s.next(NOW)
    s.loaded("gpu-1", "a", 30.0)
    s.next(NOW)
    s.submit(entry(2, model="b"))
    s.submit(entry(3, model="a"))
    s.submit(entry(4, model="a"))
    assert run(s, 1, NOW) == [start(3, "a")]

    assert run(s, 3, NOW + 1, passed) == [load(2, "b", "a") if ends else start(4, "a")]


def test_the_turn_of_a_freshly_loaded_model_begins_anew() -> None:
    s = scheduler("a")
    for number, model in enumerate("babab", start=1):
        s.submit(entry(number, model=model))
    assert s.next(NOW) == [start(2, "a")]
    assert run(s, 2, NOW, 20) == [load(1, "b", "a")]
    s.submit(entry(6, model="a"))
    s.loaded("gpu-1", "b")
    assert s.next(NOW + 20) == [start(1, "b")]
    assert run(s, 1, NOW + 20) == [start(3, "b")]
    assert run(s, 3, NOW + 21) == [start(5, "b")]

    assert run(s, 5, NOW + 22) == [load(4, "a", "b")]
    s.submit(entry(7, model="b"))
    s.submit(entry(8, model="a"))
    s.loaded("gpu-1", "a")
    assert s.next(NOW + 23) == [start(4, "a")]
    assert run(s, 4, NOW + 23) == [start(6, "a")]

    assert run(s, 6, NOW + 24) == [start(8, "a")]


def test_the_next_turn_is_a_new_one_when_nobody_is_overtaken_any_more() -> None:
    s = scheduler("a")
    s.submit(entry(1, model="b"))
    s.submit(entry(2, model="a"))
    s.next(NOW)
    s.withdrawn("job-1")
    assert run(s, 2, NOW) == []

    s.submit(entry(3, model="b"))
    s.submit(entry(4, model="a"))
    s.submit(entry(5, model="a"))

    assert s.next(NOW + 19) == [start(4, "a")]
    assert run(s, 4, NOW + 19, 19) == [start(5, "a")]
    assert run(s, 5, NOW + 38) == [load(3, "b", "a")]


@pytest.mark.parametrize(
    "worse", [{"modality": DRAW}, {"level": Level.LOW}], ids=["modality", "level"]
)
def test_even_worse_jobs_have_their_turn_but_no_longer(worse: dict[str, Any]) -> None:
    s = scheduler("a")
    s.submit(entry(1, model="a", **worse))
    s.submit(entry(2, model="a", **worse))
    s.submit(entry(3, model="b"))

    assert s.next(NOW) == [start(1, "a")]
    assert run(s, 1, NOW, 20) == [load(3, "b", "a")]


def test_where_models_are_in_memory_the_better_job_goes_first() -> None:
    s = Scheduler(Capacity({"gpu-1": BackendLimits(resident=2)}))
    s.backend_up("gpu-1", resident=frozenset({"a", "b"}))
    s.submit(entry(1, model="a", modality=DRAW))
    s.submit(entry(2, model="b"))

    assert s.next(NOW) == [start(2, "b"), start(1, "a")]


def test_of_several_models_that_have_their_turns_the_best_job_goes_first() -> None:
    s = Scheduler(Capacity({"gpu-1": BackendLimits(resident=2)}))
    s.backend_up("gpu-1", resident=frozenset({"a", "b"}))
    s.submit(entry(1, model="c"))
    s.submit(entry(2, model="b", modality=DRAW))
    s.submit(entry(3, model="a", modality=DRAW))

    assert s.next(NOW) == [start(2, "b"), start(3, "a")]


def test_better_jobs_of_the_resident_model_do_not_prolong_its_turn() -> None:
    s = scheduler("a")
    s.submit(entry(1, model="b"))
    s.submit(entry(2, model="a"))
    assert s.next(NOW) == [start(2, "a")]
    s.submit(entry(3, model="a", level=Level.HIGH))
    s.submit(entry(4, model="a"))

    assert run(s, 2, NOW, 19) == [start(3, "a")]
    assert run(s, 3, NOW + 19) == [load(1, "b", "a")]


def test_a_turn_is_not_prolonged_by_what_starts_on_another_backend() -> None:
    s = scheduler("a", backends=2, parallel=2)
    s.submit(entry(1, model="b"))
    for number in range(2, 20):
        s.submit(entry(number, model="a"))
    running = [d.job_id for d in s.next(NOW) if isinstance(d, Start)]
    assert len(running) == 4

    now, loads = NOW, list[Load]()
    while not loads:
        now += 10
        s.ended(running.pop(0), now, well=True)
        decisions = s.next(now)
        running += [d.job_id for d in decisions if isinstance(d, Start)]
        loads += [d for d in decisions if isinstance(d, Load)]

    assert now <= NOW + 60
    assert loads[0].model == "b"


# The bound


@dataclass(frozen=True)
class Day:
    """Jobs that come in one by one: after which gap, for which model, and whether texts."""

    jobs: tuple[tuple[int, str, bool], ...]
    attempt_s: int
    load_s: int
    affinity_s: int
    parallel: int


def waits_of_texts(day: Day) -> list[tuple[int, float]]:
    """Play a day on one backend with room for one model; texts go before pictures.

    Returns:
        For each text how many jobs were ahead of it when it came, running ones included, and how
        long it waited for its start.

    """
    models = {model: ModelLimits(parallel=day.parallel) for _, model, _ in day.jobs}
    s = Scheduler(Capacity({"gpu": BackendLimits()}, models), affinity_s=float(day.affinity_s))
    s.backend_up("gpu", resident=frozenset())
    events: list[tuple[float, int, str, str]] = []
    now = 0.0
    for number, (gap, model, _) in enumerate(day.jobs, start=1):
        now += gap
        heapq.heappush(events, (now, number, "submit", model))
    came: dict[str, tuple[int, float]] = {}
    waits: dict[str, float] = {}
    while events:
        now, number, what, name = heapq.heappop(events)
        if what == "submit":
            modality = CHAT if day.jobs[number - 1][2] else DRAW
            better = s.submit(entry(number, model=name, modality=modality, deadline=1e9))
            came[f"job-{number}"] = better + len(s.running), now
        elif what == "ended":
            s.ended(name, now, well=True)
        else:
            s.loaded("gpu", name, day.load_s)
        for decision in s.next(now):
            if isinstance(decision, Start):
                waits[decision.job_id] = now - came[decision.job_id][1]
                heapq.heappush(events, (now + day.attempt_s, 0, "ended", decision.job_id))
            elif isinstance(decision, Load):
                heapq.heappush(events, (now + day.load_s, 0, "loaded", decision.model))
    texts = [f"job-{number}" for number, job in enumerate(day.jobs, start=1) if job[2]]
    return [(came[job_id][0], waits[job_id]) for job_id in texts]


def longest_wait_s(day: Day, ahead: int) -> float:
    """Return the bound of `docs/explanation/ordering.md`."""
    turn_s = max(day.affinity_s, 2 * day.load_s) if day.affinity_s else 0
    others = len({model for _, model, _ in day.jobs}) - 1
    turns = others * (turn_s + day.attempt_s) if turn_s else 0
    return ahead * (day.attempt_s + day.load_s) + 2 * day.load_s + turns


@st.composite
def days(draw: st.DrawFn) -> Day:
    models = draw(st.sampled_from(("ab", "abc", "abcd")))
    gaps = st.one_of(st.just(0), st.integers(0, 12))
    return Day(
        jobs=tuple(
            draw(st.lists(st.tuples(gaps, st.sampled_from(models), st.booleans()), max_size=40))
        ),
        attempt_s=draw(st.integers(1, 10)),
        load_s=draw(st.integers(0, 12)),
        affinity_s=draw(st.sampled_from((0, 1, 5, 20))),
        parallel=draw(st.integers(1, 3)),
    )


@given(day=days())
@example(Day(((0, "a", True), (0, "b", True), *[(5, "a", True)] * 30), 5, 3, 20, 1))
@example(Day(((0, "a", False), (1, "b", True), *[(4, "a", False)] * 30), 5, 3, 20, 1))
def test_a_job_starts_within_the_work_ahead_of_it_and_one_turn_of_each_other_model(
    day: Day,
) -> None:
    for ahead, waited in waits_of_texts(day):
        assert waited <= longest_wait_s(day, ahead)


def test_the_bound_is_not_idle_talk() -> None:
    """A job can really wait for a whole turn of the model in memory, and its last attempt."""
    pictures = [(4, "a", False)] * 30
    day = Day(((0, "a", False), (1, "b", True), *pictures), 5, 3, 20, 1)

    ((ahead, waited),) = waits_of_texts(day)

    assert waited > day.affinity_s
    assert longest_wait_s(day, ahead) - waited <= 2 * day.load_s


def test_a_model_that_is_left_alone_is_overtaken_without_end_but_holds_nobody_up() -> None:
    s = scheduler("a")
    s.submit(entry(1, model="b"))
    s.load_failed("gpu-1", "b", Pause(NOW + 500))
    now = NOW
    for number in range(2, 10):
        s.submit(entry(number, model="a"))
        assert s.next(now) == [start(number, "a")]
        now += 10
        s.ended(f"job-{number}", now)

    assert s.next(NOW + 500) == [load(1, "b", "a")]
