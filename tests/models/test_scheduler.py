"""Examples of what the scheduler says; `test_scheduler_properties.py` has the rules."""

import pickle

import pytest

from src.models.breaker import BreakerRules, Trouble
from src.models.capacity import BackendLimits, Capacity, ModelLimits, Pause
from src.models.controls import Controls, Scope, Switched
from src.models.errors import Draining, QueueFull, TooManyWaiting
from src.models.jobs import Level
from src.models.scheduler import Bounds, Decision, Expire, Load, Scheduler, ShutDown, Start

from .making import CHAT, DRAW, NOW, entry

BOUNDS = Bounds()


def scheduler(
    *resident: str,
    models: dict[str, ModelLimits] | None = None,
    bounds: Bounds = BOUNDS,
    shut_down_ghosts: bool = False,
) -> Scheduler:
    made = Scheduler(
        Capacity({"gpu": BackendLimits()}, models),
        bounds=bounds,
        affinity_s=0.0,
        shut_down_ghosts=shut_down_ghosts,
    )
    made.backend_up("gpu", resident=frozenset(resident))
    return made


def starts(*numbers: int, model: str = "m") -> list[Decision]:
    return [Start(f"job-{number}", "gpu", model) for number in numbers]


def test_the_best_job_gets_the_slot_and_the_next_one_follows() -> None:
    s = scheduler("m")
    assert s.submit(entry(1, modality=DRAW)) == 0
    assert s.submit(entry(2)) == 0
    assert s.submit(entry(3)) == 1

    assert s.next(NOW) == starts(2)
    assert s.next(NOW) == []
    s.ended("job-2", NOW)
    assert s.next(NOW) == starts(3)
    s.ended("job-3", NOW)
    assert s.next(NOW) == starts(1)


def test_a_model_is_loaded_before_its_job_starts() -> None:
    s = scheduler("old")
    s.submit(entry(1))
    s.submit(entry(2))

    assert s.next(NOW) == [Load("job-1", "gpu", "m", ("old",))]
    assert s.next(NOW) == []
    s.loaded("gpu", "m")
    assert s.next(NOW) == starts(1)


def test_a_job_whose_model_could_not_be_loaded_lets_others_pass_meanwhile() -> None:
    s = scheduler()
    s.submit(entry(1, model="broken"))
    s.submit(entry(2, model="m", modality=DRAW))
    assert s.next(NOW) == [Load("job-1", "gpu", "broken", ())]

    s.load_failed("gpu", "broken", Pause(NOW + 30))

    assert s.next(NOW) == [Load("job-2", "gpu", "m", ())]
    s.loaded("gpu", "m")
    assert s.next(NOW) == starts(2)
    assert s.wake_at(NOW) == NOW + 30
    s.ended("job-2", NOW)
    assert s.next(NOW + 30) == [Load("job-1", "gpu", "broken", ("m",))]


def test_nothing_worse_starts_where_a_better_job_waits_for_room() -> None:
    s = scheduler("image", models={"image": ModelLimits(parallel=2)})
    s.submit(entry(1, model="image", modality=DRAW))
    s.next(NOW)
    s.submit(entry(2, model="image", modality=DRAW))
    s.submit(entry(3, model="chat"))

    assert s.next(NOW) == []

    s.ended("job-1", NOW)
    assert s.next(NOW) == [Load("job-3", "gpu", "chat", ("image",))]


def test_a_ghost_keeps_its_slot_until_the_engine_is_done() -> None:
    s = scheduler("m")
    s.submit(entry(1, deadline=NOW + 5))
    s.submit(entry(2))
    s.next(NOW)

    s.abandoned("job-1")

    assert [running.ghost for running in s.running] == [True]
    assert s.next(NOW + 10) == []
    s.ended("job-1", NOW + 10)
    assert s.next(NOW + 10) == starts(2)


def test_a_returned_job_has_its_old_place_once_its_pause_is_over() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    s.next(NOW)
    s.submit(entry(2))
    s.submit(entry(3))

    s.returned("job-1", not_before=NOW + 5)

    assert s.delayed(CHAT) == 1
    assert s.position("job-1") is None
    assert s.waiting == 3
    assert s.wake_at(NOW) == NOW + 5
    assert s.next(NOW) == starts(2)
    assert s.next(NOW + 5) == []
    assert s.position("job-1") == 0
    s.returned("job-2")
    assert s.next(NOW + 5) == starts(1)


def test_a_model_that_died_is_loaded_again_for_the_job_that_met_it() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    s.next(NOW)

    s.model_gone("gpu", "m", Pause(NOW + 2))
    s.returned("job-1")

    assert s.next(NOW) == []
    assert s.next(NOW + 2) == [Load("job-1", "gpu", "m", ())]


def test_a_deadline_ends_a_job_whether_it_waits_or_runs() -> None:
    s = scheduler("m")
    s.submit(entry(1, deadline=NOW + 5))
    s.submit(entry(2, deadline=NOW + 4))
    s.submit(entry(3))
    s.next(NOW)

    assert s.wake_at(NOW) == NOW + 4
    assert s.next(NOW + 5) == [Expire("job-2"), Expire("job-1")]
    assert s.next(NOW + 5) == []

    assert s.waiting == 1
    assert [running.entry.id for running in s.running] == ["job-1"]


def test_a_job_that_comes_back_after_its_deadline_is_ended_again() -> None:
    s = scheduler("m")
    s.submit(entry(1, deadline=NOW + 5))
    s.next(NOW)
    assert s.next(NOW + 5) == [Expire("job-1")]

    s.returned("job-1")

    assert s.next(NOW + 5) == [Expire("job-1")]
    assert s.waiting == 0


def test_a_withdrawn_job_never_starts() -> None:
    s = scheduler()
    s.submit(entry(1, size_bytes=10))
    s.restore(entry(2), not_before=NOW + 1)

    assert s.withdrawn("job-1")
    assert s.withdrawn("job-2")

    assert not s.withdrawn("job-1")
    assert s.next(NOW + 1) == []


def test_a_job_waits_for_its_model_to_be_named() -> None:
    s = scheduler("m")
    s.submit(entry(1, model=None))
    s.submit(entry(2))
    assert s.next(NOW) == starts(2)
    s.ended("job-2", NOW)

    s.resolved("job-1", "m")
    s.resolved("job-2", "m")

    assert s.next(NOW) == starts(1)


def test_naming_the_model_does_not_shorten_a_pause() -> None:
    s = scheduler("m")
    s.restore(entry(1, model=None), not_before=NOW + 5)

    s.resolved("job-1", "m")

    assert s.next(NOW) == []
    assert s.next(NOW + 5) == starts(1)


def test_only_so_many_jobs_may_wait() -> None:
    s = scheduler(bounds=Bounds(waiting=2, per_modality=2))
    s.submit(entry(1))
    s.submit(entry(2))

    with pytest.raises(QueueFull, match="2 jobs are waiting") as refused:
        s.submit(entry(3))

    assert refused.value.retry_after == 1.0
    s.restore(entry(4))
    assert s.waiting == 3


def test_a_job_that_is_being_kept_has_its_room_and_gives_it_back_if_it_cannot_be_kept() -> None:
    s = scheduler(bounds=Bounds(waiting=2, per_caller=1))
    s.admit(entry(1, caller="ann"))
    s.admit(entry(2, caller="bob"))

    with pytest.raises(QueueFull, match="2 jobs are waiting"):
        s.admit(entry(3, caller="eve"))
    s.dismissed(entry(1, caller="ann"))
    s.restore(entry(2, caller="bob"))
    assert (s.waiting, s.position("job-2")) == (1, 0)
    s.admit(entry(3, caller="ann"))
    with pytest.raises(TooManyWaiting):
        s.admit(entry(4, caller="ann"))


def test_jobs_that_are_taken_up_together_wait_as_if_one_had_come_after_the_other() -> None:
    together, apart = scheduler("m"), scheduler("m")
    paused = Controls().pause(Scope("modality", DRAW), Switched(NOW, "ann"))
    entries = [entry(n, modality=DRAW if n % 2 else CHAT, deadline=NOW + n) for n in (4, 1, 3, 2)]
    for s in (together, apart):
        s.control(paused)
    together.restore_all(entries)
    for one in entries:
        apart.restore(one)

    for s in (together, apart):
        assert (s.waiting, list(s.line), list(s.held)) == (
            4,
            [entries[3], entries[0]],
            [entries[1], entries[2]],
        )
        assert s.next(NOW + 2) == [Expire("job-1"), Expire("job-2"), *starts(4)]


def test_only_so_many_jobs_of_a_modality_may_wait_pausing_ones_included() -> None:
    s = scheduler(bounds=Bounds(per_modality=1))
    s.restore(entry(1, modality=DRAW), not_before=NOW + 60)

    with pytest.raises(QueueFull, match="1 txt2img jobs are waiting"):
        s.submit(entry(2, modality=DRAW))

    assert s.submit(entry(3)) == 0


def test_only_so_many_bytes_may_wait_but_one_large_job_always_may() -> None:
    s = scheduler(bounds=Bounds(waiting_bytes=100))
    s.submit(entry(1, size_bytes=1000))

    with pytest.raises(QueueFull, match="1000 bytes"):
        s.submit(entry(2, size_bytes=1))

    s.withdrawn("job-1")
    s.submit(entry(3, size_bytes=60))
    s.submit(entry(4, size_bytes=40))


def test_only_so_much_may_wait_on_disk_and_words_may_wait_all_the_same() -> None:
    s = scheduler(bounds=Bounds(waiting_disk_bytes=100))
    s.submit(entry(1, disk_bytes=1000))

    with pytest.raises(QueueFull, match="pictures and recordings take 1000 bytes"):
        s.submit(entry(2, disk_bytes=1))
    s.submit(entry(3, size_bytes=10))

    s.withdrawn("job-1")
    s.submit(entry(4, disk_bytes=60))
    s.submit(entry(5, disk_bytes=40))


def test_a_caller_may_have_only_so_many_waiting_and_others_are_not_concerned() -> None:
    s = scheduler("m", bounds=Bounds(per_caller=2))
    s.submit(entry(1, caller="ann"))
    s.restore(entry(2, caller="ann"), not_before=NOW + 60)

    with pytest.raises(TooManyWaiting, match="2 of your jobs are waiting") as refused:
        s.submit(entry(3, caller="ann"))

    assert refused.value.retry_after == 5.0
    assert s.submit(entry(4, caller="bob")) == 1


def test_a_caller_s_job_that_has_begun_or_gone_does_not_wait_any_more() -> None:
    s = scheduler("m", bounds=Bounds(per_caller=1))
    s.submit(entry(1, caller="ann"))
    s.next(NOW)
    s.submit(entry(2, caller="ann"))

    s.withdrawn("job-2")

    s.submit(entry(3, caller="ann"))
    s.returned("job-1")  # it was accepted before
    s.withdrawn("job-3")
    with pytest.raises(TooManyWaiting, match="1 of your jobs"):
        s.submit(entry(4, caller="ann"))


def test_while_draining_no_job_comes_in_but_those_inside_go_on() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    assert not s.draining

    s.drain()

    assert s.draining
    with pytest.raises(Draining) as refused:
        s.admit(entry(2))
    assert refused.value.retry_after == 1.0
    assert s.next(NOW) == starts(1)


@pytest.mark.parametrize(("pause", "told"), [(0.1, 1.0), (20.0, 20.0), (9999.0, 60.0)])
def test_retry_after_is_the_usual_time_between_two_endings(pause: float, told: float) -> None:
    s = scheduler("m", bounds=Bounds(waiting=0))
    now = NOW
    for number in range(40):
        s.restore(entry(number, deadline=float("inf")))
        s.next(now)
        s.ended(f"job-{number}", now)
        now += pause

    with pytest.raises(QueueFull) as refused:
        s.submit(entry(99))

    assert refused.value.retry_after == pytest.approx(told, abs=0.1)


def test_the_end_of_a_ghost_says_nothing_about_the_pace() -> None:
    s = scheduler("m", bounds=Bounds(waiting=0))
    for number in range(2):
        s.restore(entry(number))
        s.next(NOW)
        s.abandoned(f"job-{number}")
        s.ended(f"job-{number}", NOW + 60 * number)

    with pytest.raises(QueueFull) as refused:
        s.submit(entry(9))

    assert refused.value.retry_after == 1.0


def test_a_free_slot_is_not_offered_while_nothing_can_be_reached() -> None:
    s = scheduler("m")
    s.backend_down("gpu")
    s.submit(entry(1))

    assert s.next(NOW) == []

    s.backend_up("gpu", resident=frozenset({"m"}))
    assert s.next(NOW) == starts(1)


def test_without_anything_to_wait_for_there_is_no_alarm() -> None:
    assert scheduler("m").wake_at(NOW) is None


def test_jobs_that_have_ended_leave_nothing_behind() -> None:
    s = scheduler("m")
    s.restore(entry(0, level=Level.HIGH))
    s.next(NOW)
    for number in range(1, 300):
        s.submit(entry(number))
    for number in range(1, 300):
        s.withdrawn(f"job-{number}")
    s.submit(entry(300))
    small = len(pickle.dumps(s))

    for number in range(301, 5000):
        s.submit(entry(number))
        s.withdrawn(f"job-{number}")

    assert len(pickle.dumps(s)) < small + 20_000
    assert s.next(NOW + 3600) == [Expire("job-0"), Expire("job-300")]


def test_a_scheduler_shows_how_busy_it_is() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    s.submit(entry(2))
    s.next(NOW)

    assert repr(s) == "<Scheduler [open, waiting 1/10000, running 1]>"
    assert [waiting.id for waiting in s.waiting_entries()] == ["job-2"]
    s.drain()
    assert repr(s) == "<Scheduler [draining, waiting 1/10000, running 1]>"


# Several backends


def two(first: str, second: str, *, offers: tuple[str, ...] | None = None) -> Scheduler:
    backends = {"left": BackendLimits(), "right": BackendLimits()}
    made = Scheduler(Capacity(backends), affinity_s=0.0)
    made.backend_up("left", resident=frozenset({first}))
    made.backend_up("right", offers=offers, resident=frozenset({second}))
    return made


def test_a_second_copy_takes_the_place_of_an_idle_model_when_more_wait_than_run_at_home() -> None:
    s = two("m", "idle")
    for number in (1, 2, 3):
        s.submit(entry(number))

    assert s.next(NOW) == [Start("job-1", "left", "m"), Load("job-2", "right", "m", ("idle",))]


def test_no_second_copy_is_made_for_a_job_that_will_soon_run_at_home() -> None:
    s = two("m", "idle")
    s.submit(entry(1))
    s.submit(entry(2))

    assert s.next(NOW) == [Start("job-1", "left", "m")]


def test_no_second_copy_takes_the_place_of_a_model_for_which_somebody_waits() -> None:
    s = two("m", "wanted")
    for number in (1, 2, 3):
        s.submit(entry(number))
    s.submit(entry(4, model="wanted", modality=DRAW))
    s.submit(entry(5, model="wanted", modality=DRAW))

    assert s.next(NOW) == [Start("job-1", "left", "m"), Start("job-4", "right", "wanted")]
    s.ended("job-4", NOW)
    assert s.next(NOW) == [Start("job-5", "right", "wanted")]
    s.ended("job-5", NOW)
    assert s.next(NOW) == [Load("job-2", "right", "m", ("wanted",))]


def test_no_second_copy_waits_for_a_load_of_another_model() -> None:
    s = two("m", "idle")
    s.submit(entry(1, model="other"))
    s.backend_up("left", offers=["m"], resident=frozenset({"m"}))
    assert s.next(NOW) == [Load("job-1", "right", "other", ("idle",))]
    for number in (2, 3, 4):
        s.submit(entry(number))

    assert s.next(NOW) == [Start("job-2", "left", "m")]


def test_no_second_copy_takes_the_place_of_a_busy_model() -> None:
    s = two("m", "busy")
    s.submit(entry(1, model="busy"))
    s.next(NOW)
    for number in (2, 3, 4):
        s.submit(entry(number))

    assert s.next(NOW) == [Start("job-2", "left", "m")]


# Warming up


def test_models_are_warmed_up_one_after_the_other_where_they_fit() -> None:
    s = Scheduler(Capacity({"gpu": BackendLimits(resident=2)}))
    s.warm_up(["a", "b", "c"])
    assert s.next(NOW) == []

    s.backend_up("gpu", resident=frozenset())

    assert s.next(NOW) == [Load("", "gpu", "a", ())]
    assert s.next(NOW) == []
    s.loaded("gpu", "a")
    assert s.next(NOW) == [Load("", "gpu", "b", ())]
    s.loaded("gpu", "b")
    assert s.next(NOW) == []


def test_what_is_in_memory_already_is_not_warmed_up() -> None:
    s = scheduler("m")
    s.warm_up(["m"])

    assert s.next(NOW) == []

    s.backend_up("gpu", resident=frozenset())
    assert s.next(NOW) == []


def test_warming_up_never_evicts_and_waits_for_nobody() -> None:
    s = scheduler("old")
    s.warm_up(["m"])

    assert s.next(NOW) == []

    s.backend_up("gpu", resident=frozenset())
    assert s.next(NOW) == [Load("", "gpu", "m", ())]


def test_a_job_that_waits_goes_before_what_shall_be_warm() -> None:
    s = scheduler()
    s.warm_up(["m"])
    s.submit(entry(1, model="other"))

    assert s.next(NOW) == [Load("job-1", "gpu", "other", ())]


def test_what_could_not_be_warmed_up_is_not_tried_again() -> None:
    s = scheduler()
    s.warm_up(["m"])
    s.next(NOW)

    s.load_failed("gpu", "m", Pause(NOW))

    assert s.next(NOW) == []


def test_what_is_not_offered_or_left_alone_is_not_warmed_up_yet() -> None:
    s = scheduler()
    s.backend_up("gpu", offers=["n"], resident=frozenset())
    s.load_failed("gpu", "n", Pause(NOW + 5))
    s.warm_up(["m", "n"])

    assert s.next(NOW) == []
    assert s.wake_at(NOW) == NOW + 5
    assert s.next(NOW + 5) == [Load("", "gpu", "n", ())]


# Ghosts


def haunted(
    *, attempt_s: float = 100.0, load_s: float | None = 10.0, parallel: int = 1
) -> Scheduler:
    """Return a scheduler with experience, and a ghost that began just now."""
    s = scheduler(models={"m": ModelLimits(parallel=parallel)}, shut_down_ghosts=True)
    s.submit(entry(1))
    s.next(NOW)
    s.loaded("gpu", "m", load_s)
    s.next(NOW)
    s.ended("job-1", NOW + attempt_s, well=True)
    s.submit(entry(2))
    assert s.next(NOW + attempt_s) == starts(2)
    s.abandoned("job-2")
    return s


def test_a_model_that_works_for_nobody_is_shut_down_once_if_to_load_it_is_quicker() -> None:
    s = haunted()
    assert s.next(NOW + 100) == []
    s.submit(entry(3))

    assert s.next(NOW + 100) == [ShutDown("gpu", "m")]
    assert s.next(NOW + 101) == []

    s.model_gone("gpu", "m", Pause(NOW + 102))
    s.ended("job-2", NOW + 102)
    assert s.next(NOW + 102) == [Load("job-3", "gpu", "m", ())]


@pytest.mark.parametrize(
    ("attempt_s", "load_s", "later"),
    [(100.0, 101.0, 0.0), (100.0, None, 0.0), (100.0, 10.0, 90.0)],
    ids=["slow to load", "never loaded", "nearly done"],
)
def test_a_ghost_is_waited_for_where_that_is_quicker_or_nobody_knows(
    attempt_s: float, load_s: float | None, later: float
) -> None:
    s = haunted(attempt_s=attempt_s, load_s=load_s)
    s.submit(entry(3))

    assert s.next(NOW + attempt_s + later) == []


def test_a_ghost_of_which_nobody_knows_how_long_it_takes_is_waited_for() -> None:
    s = haunted()
    s.ended("job-2", NOW + 100)
    s.submit(entry(3, modality=DRAW))
    s.next(NOW + 100)
    s.abandoned("job-3")
    s.submit(entry(4))

    assert s.next(NOW + 100) == []


def test_nothing_is_shut_down_where_somebody_is_worked_for() -> None:
    s = haunted(parallel=2)
    s.submit(entry(3))
    s.submit(entry(4))

    assert s.next(NOW + 100) == starts(3)
    s.ended("job-3", NOW + 100)
    assert s.next(NOW + 100) == starts(4)


def test_two_ghosts_on_one_model_are_shut_down_once() -> None:
    s = haunted(parallel=2)
    s.submit(entry(3))
    assert s.next(NOW + 100) == starts(3)
    s.abandoned("job-3")
    s.submit(entry(4, model="other"))
    assert s.next(NOW + 100) == [ShutDown("gpu", "m")]

    s.ended("job-2", NOW + 101)

    assert s.next(NOW + 101) == []


def test_nothing_is_shut_down_unless_that_is_wanted() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    s.next(NOW)
    s.ended("job-1", NOW + 100, well=True)
    s.loaded("gpu", "m", 1.0)
    s.submit(entry(2))
    s.next(NOW + 100)
    s.abandoned("job-2")
    s.submit(entry(3))

    assert s.next(NOW + 100) == []


# What is known of durations


def test_an_attempt_is_expected_to_take_as_long_as_such_attempts_usually_do() -> None:
    s = scheduler("m")
    for number, took in ((1, 8.0), (2, 2.0), (3, 4.0)):
        s.submit(entry(number))
        s.next(NOW)
        assert number > 1 or s.ends_at(s.running[0]) is None
        s.ended(f"job-{number}", NOW + took, well=True)
    s.submit(entry(4))
    s.submit(entry(5, modality=DRAW))
    s.next(NOW)

    (text,) = s.running
    assert s.ends_at(text) == NOW + 4.0
    s.ended("job-4", NOW)
    s.next(NOW)
    (picture,) = s.running
    assert s.ends_at(picture) is None


def test_attempts_that_did_not_go_well_say_nothing_about_durations() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    s.next(NOW)
    s.ended("job-1", NOW + 1)
    s.submit(entry(2))
    s.next(NOW)

    assert s.ends_at(s.running[0]) is None


def test_the_usual_load_is_that_of_the_quickest_backend() -> None:
    s = two("m", "m")
    assert s.usual_load_s("m") is None

    s.loaded("left", "m", 9.0)
    s.loaded("right", "m", 4.0)
    s.loaded("right", "m")

    assert s.usual_load_s("m") == 4.0
    assert s.usual_load_s("other") is None


# Failures


def fail(s: Scheduler, number: int, now: float) -> float | None:
    """Start a job, let it fail, and give it back."""
    assert s.next(now) == starts(number)
    until = s.failed(f"job-{number}", Trouble.REFUSED, now, why="boom")
    s.returned(f"job-{number}")
    return until


def test_a_model_that_keeps_failing_is_left_alone_and_others_are_served_meanwhile() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    s.submit(entry(2, model="other", modality=DRAW))

    told = [fail(s, 1, NOW) for _ in range(5)]

    assert told == [None, None, None, None, NOW + 5]
    assert s.capacity.pauses("gpu", NOW) == {"m": Pause(NOW + 5, "boom")}
    assert s.next(NOW) == [Load("job-2", "gpu", "other", ("m",))]
    assert s.wake_at(NOW) == NOW + 5


def test_a_look_at_the_backend_does_not_end_an_ejection() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    for _ in range(5):
        fail(s, 1, NOW)

    s.backend_up("gpu", resident=frozenset({"m"}))
    s.backend_up("gpu", resident=frozenset())

    assert s.next(NOW) == []


def test_an_ejected_model_comes_back_with_one_attempt_then_two_then_all() -> None:
    s = scheduler("m", models={"m": ModelLimits(parallel=4)})
    s.submit(entry(1))
    for _ in range(5):
        fail(s, 1, NOW)
    for number in range(2, 20):
        s.submit(entry(number))

    assert s.capacity.limit("gpu", "m") == 1
    assert s.next(NOW + 5) == starts(1)
    s.ended("job-1", NOW + 6, well=True)
    assert s.next(NOW + 6) == starts(2, 3)
    s.ended("job-2", NOW + 7)
    assert s.next(NOW + 7) == starts(4)
    s.ended("job-3", NOW + 7, well=True)
    assert s.next(NOW + 7) == starts(5, 6, 7)
    assert s.capacity.limit("gpu", "m") == 4


def test_one_failure_while_recovering_ejects_longer_than_before() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    for _ in range(5):
        fail(s, 1, NOW)

    assert fail(s, 1, NOW + 5) == NOW + 15


def test_attempts_that_began_before_an_ejection_do_not_prolong_it() -> None:
    s = Scheduler(
        Capacity({"gpu": BackendLimits()}, {"m": ModelLimits(parallel=2)}),
        breaker=BreakerRules(unreached=1),
    )
    s.backend_up("gpu", resident=frozenset({"m"}))
    s.submit(entry(1))
    s.submit(entry(2))
    s.next(NOW)
    assert s.failed("job-1", Trouble.UNREACHED, NOW + 1) == NOW + 6
    s.returned("job-1")

    assert s.failed("job-2", Trouble.UNREACHED, NOW + 60) is None
    s.returned("job-2")

    assert s.next(NOW + 60) == starts(1)


def test_a_backend_that_was_away_begins_with_one_attempt_on_each_of_its_models() -> None:
    models = {"m": ModelLimits(parallel=4), "n": ModelLimits(parallel=4)}
    s = Scheduler(Capacity({"gpu": BackendLimits(resident=2)}, models))
    s.backend_up("gpu", resident=frozenset({"m", "n"}))
    for number in range(1, 20):
        s.submit(entry(number, model="mn"[number % 2]))
    first = s.next(NOW)
    assert len(first) == 8
    s.backend_down("gpu")
    for number in range(1, 9):
        s.returned(f"job-{number}")
    assert s.next(NOW) == []

    s.backend_up("gpu", resident=frozenset({"m", "n"}))

    assert s.next(NOW) == [*starts(1, model="n"), *starts(2)]
    s.ended("job-2", NOW + 1, well=True)
    assert s.next(NOW + 1) == starts(4, 6)
    s.ended("job-4", NOW + 2, well=True)
    assert s.next(NOW + 2) == starts(8, 10, 12)
    assert (s.capacity.limit("gpu", "m"), s.capacity.limit("gpu", "n")) == (4, 1)


def test_a_model_with_a_record_recovers_as_well_when_its_backend_was_away() -> None:
    s = scheduler("m", models={"m": ModelLimits(parallel=4)})
    s.submit(entry(1))
    fail(s, 1, NOW)
    s.backend_down("gpu")

    s.backend_up("gpu", resident=frozenset({"m"}))

    assert s.capacity.limit("gpu", "m") == 1
    assert fail(s, 1, NOW) == NOW + 5


def test_that_one_backend_was_away_changes_nothing_for_the_others() -> None:
    s = two("m", "m")
    for number in (1, 2):
        s.submit(entry(number))
    s.next(NOW)
    for number in (1, 2):
        s.failed(f"job-{number}", Trouble.REFUSED, NOW)
        s.ended(f"job-{number}", NOW)
    s.capacity.set_models({"m": ModelLimits(parallel=4)})

    s.backend_down("left")
    s.backend_up("left", resident=frozenset({"m"}))

    assert (s.capacity.limit("left", "m"), s.capacity.limit("right", "m")) == (1, 4)


def test_a_model_whose_process_died_begins_with_one_attempt() -> None:
    s = scheduler("m", models={"m": ModelLimits(parallel=2)})
    s.submit(entry(1))
    s.submit(entry(2))
    assert s.next(NOW) == starts(1, 2)

    s.model_gone("gpu", "m", Pause(NOW + 30, "its process died", while_resident=True))
    s.returned("job-1")
    assert s.next(NOW + 30) == []
    s.returned("job-2")

    assert s.next(NOW + 30) == [Load("job-1", "gpu", "m", ())]
    s.loaded("gpu", "m")
    assert s.next(NOW + 30) == starts(1)


def test_a_dead_model_is_loaded_again_as_soon_as_the_backend_has_noticed() -> None:
    s = scheduler("m")
    s.submit(entry(1))
    s.next(NOW)
    s.model_gone("gpu", "m", Pause(NOW + 30, "its process died", while_resident=True))
    s.returned("job-1")

    s.backend_up("gpu", resident=frozenset({"m"}))
    assert s.next(NOW + 1) == []
    s.backend_up("gpu", resident=frozenset())
    assert s.next(NOW + 2) == [Load("job-1", "gpu", "m", ())]


def test_a_scheduler_is_idle_while_nothing_waits_for_a_slot_or_to_be_warmed() -> None:
    made = scheduler()
    assert made.idle

    made.submit(entry(1))
    assert not made.idle
    made.withdrawn(entry(1).id)
    assert made.idle

    made.warm_up(["other"])
    assert not made.idle
