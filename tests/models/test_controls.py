"""What an operator switches, and what follows from it for the line."""

import pytest

from src.models.capacity import BackendLimits, Capacity, ModelLimits, Pause
from src.models.controls import EVERYTHING, MOST_PAUSES, Controls, Scope, Switched
from src.models.durations import Durations
from src.models.errors import Draining, InvalidInput, QueueFull
from src.models.forecast import starts_in
from src.models.scheduler import Bounds, Expire, Load, Scheduler, Start

from .making import CHAT, DRAW, NOW, entry

BY_ANN = Switched(NOW, "ann")
CHATS, M, BOB = Scope("modality", CHAT), Scope("model", "m"), Scope("caller", "bob")


def paused(*scopes: Scope) -> Controls:
    controls = Controls()
    for scope in scopes:
        controls = controls.pause(scope, BY_ANN)
    return controls


def scheduler(*, waiting: int = 100) -> Scheduler:
    limits = {"m": ModelLimits(parallel=9)}
    made = Scheduler(
        Capacity({"gpu": BackendLimits()}, limits), bounds=Bounds(waiting=waiting), affinity_s=0.0
    )
    made.backend_up("gpu", resident=frozenset({"m"}))
    return made


def started(s: Scheduler, now: float = NOW) -> list[str]:
    return [d.job_id for d in s.next(now) if isinstance(d, Start)]


# The switches


def test_nothing_is_held_back_at_first() -> None:
    assert not Controls().holds(entry(1))


@pytest.mark.parametrize("scope", [EVERYTHING, CHATS, M, BOB])
def test_a_pause_holds_back_whom_it_names(scope: Scope) -> None:
    controls = paused(scope)

    assert controls.holds(entry(1, modality=CHAT, model="m", caller="bob"))
    other = entry(2, modality=DRAW, model="n", caller="ann")
    assert controls.holds(other) == (scope is EVERYTHING)


def test_a_second_pause_of_the_same_changes_nothing() -> None:
    once = paused(M)

    assert once.pause(M, Switched(NOW + 5, "bob")) == once


def test_to_resume_lifts_that_pause_alone_and_everything_lifts_all() -> None:
    controls = paused(EVERYTHING, M, BOB)

    assert set(controls.resume(M).paused) == {EVERYTHING, BOB}
    assert controls.resume(CHATS) == controls
    assert controls.resume(EVERYTHING) == Controls()


def test_only_so_much_may_be_paused() -> None:
    controls = paused(*(Scope("caller", f"c{n}") for n in range(MOST_PAUSES)))

    assert controls.pause(Scope("caller", "c0"), BY_ANN) == controls
    with pytest.raises(InvalidInput) as refused:
        controls.pause(M, BY_ANN)
    assert refused.value.param == "model"


def test_a_scope_is_told_in_words() -> None:
    assert [str(scope) for scope in (EVERYTHING, M)] == ["everything", "model m"]


# Pausing


def test_who_is_paused_lets_others_pass_and_finds_the_old_place_again() -> None:
    s = scheduler()
    s.control(paused(BOB))
    s.submit(entry(1, caller="bob"))
    s.submit(entry(2))
    s.submit(entry(3, modality=DRAW, caller="bob"))
    s.submit(entry(4, modality=DRAW))

    assert started(s) == ["job-2", "job-4"]
    assert (s.count(CHAT), s.count(DRAW), s.waiting) == (1, 1, 2)
    s.control(Controls())
    assert [one.id for one in s.line] == ["job-1", "job-3"]
    assert started(s) == ["job-1", "job-3"]


def test_jobs_that_wait_already_are_held_back_too_and_runs_go_on() -> None:
    s = scheduler()
    s.submit(entry(1))
    s.next(NOW)
    s.submit(entry(2))

    s.control(paused(CHATS))

    assert started(s) == []
    assert [run.entry.id for run in s.running] == ["job-1"]
    assert s.is_held("job-2")
    assert not s.is_held("job-1")
    s.ended("job-1", NOW)
    assert started(s) == []


def test_a_position_counts_who_is_held_back() -> None:
    s = scheduler()
    s.control(paused(BOB))

    assert s.submit(entry(1, caller="bob")) == 0
    assert s.submit(entry(2)) == 1
    assert (s.position("job-1"), s.position("job-2")) == (0, 1)
    assert s.oldest(CHAT) == entry(1, caller="bob")
    assert s.oldest(DRAW) is None


def test_a_job_that_two_pauses_hold_back_waits_for_both() -> None:
    s = scheduler()
    s.control(paused(BOB, CHATS))
    s.submit(entry(1, caller="bob"))
    s.submit(entry(2))

    s.control(paused(BOB))

    assert started(s) == ["job-2"]
    s.control(Controls())
    assert started(s) == ["job-1"]


def test_a_job_that_gets_its_model_comes_to_where_that_belongs() -> None:
    s = scheduler()
    s.control(paused(M))
    s.submit(entry(1, model=None))
    assert not s.is_held("job-1")

    s.resolved("job-1", "m")

    assert s.is_held("job-1")
    assert started(s) == []
    assert s.withdrawn("job-1")
    assert s.count(CHAT) == len(s.held) == 0


def test_a_retry_keeps_its_place_and_waits_for_its_pause_to_be_lifted() -> None:
    s = scheduler()
    s.submit(entry(1))
    s.next(NOW)
    s.returned("job-1", not_before=NOW + 5)
    s.control(paused(CHATS))
    s.submit(entry(2))

    assert s.is_held("job-1")
    assert s.position("job-1") is None
    assert started(s, NOW + 5) == []
    assert [one.id for one in s.held] == ["job-1", "job-2"]
    s.control(Controls())
    assert started(s, NOW + 5) == ["job-1", "job-2"]


def test_deadlines_end_what_is_held_back() -> None:
    s = scheduler()
    s.control(paused(EVERYTHING))
    s.submit(entry(1, deadline=NOW + 5))

    assert s.wake_at(NOW) == NOW + 5
    assert s.next(NOW + 5) == [Expire("job-1")]
    assert s.waiting == 0


def test_what_is_held_back_counts_where_only_so_many_may_wait() -> None:
    s = scheduler(waiting=1)
    s.control(paused(EVERYTHING))
    s.submit(entry(1))

    with pytest.raises(QueueFull):
        s.submit(entry(2))


def test_no_model_is_loaded_for_whom_is_held_back() -> None:
    s = scheduler()
    s.submit(entry(1, model="n"))
    s.control(paused(Scope("model", "n")))

    assert s.next(NOW) == []
    s.control(Controls())
    assert s.next(NOW) == [Load("job-1", "gpu", "n", ("m",))]


# Stopping


def test_while_it_is_stopped_nothing_starts_and_nothing_is_loaded() -> None:
    s = scheduler()
    s.submit(entry(1))
    s.next(NOW)
    s.submit(entry(2, deadline=NOW + 5))
    s.submit(entry(3))
    s.submit(entry(4, model="n"))
    s.warm_up(["w"])

    s.control(Controls(stopped=BY_ANN))

    assert s.controls.stopped == BY_ANN
    assert s.next(NOW) == []
    assert s.next(NOW + 5) == [Expire("job-2")]
    s.ended("job-1", NOW + 5)
    assert s.next(NOW + 5) == []
    assert [one.id for one in s.line] == ["job-3", "job-4"]
    s.control(Controls())
    assert started(s, NOW + 5) == ["job-3"]


def test_while_it_is_stopped_nobody_looks_whether_a_model_may_be_tried_again() -> None:
    s = scheduler()
    s.submit(entry(1, deadline=NOW + 60))
    s.capacity.pause("gpu", "m", Pause(NOW + 5))
    assert s.wake_at(NOW) == NOW + 5

    s.control(Controls(stopped=BY_ANN))

    assert s.wake_at(NOW) == NOW + 60


# Draining


def test_while_it_drains_nothing_is_taken_in_and_the_rest_is_carried_out() -> None:
    s = scheduler()
    s.submit(entry(1))

    s.control(Controls(draining=BY_ANN))

    with pytest.raises(Draining, match="operator") as refused:
        s.submit(entry(2))
    assert refused.value.retry_after == 60
    assert not s.draining
    assert started(s) == ["job-1"]
    s.control(Controls())
    s.submit(entry(2))


# Estimates


def test_nobody_can_tell_when_what_is_paused_or_stopped_will_start() -> None:
    s = scheduler()
    kind = ("attempt", "gpu", "m", CHAT)
    s.durations = Durations()
    s.durations.add(kind, 10.0)
    for number, caller in enumerate(("bob", "ann", "bob", "ann"), start=1):
        s.submit(entry(number, caller=caller))
    before = starts_in(s, "job-4", NOW)

    s.control(paused(BOB))

    assert starts_in(s, "job-1", NOW) is None
    assert before is not None
    assert starts_in(s, "job-4", NOW) == pytest.approx(before / 3)
    s.control(Controls(stopped=BY_ANN))
    assert starts_in(s, "job-4", NOW) is None
