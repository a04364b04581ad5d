"""Examples of what the scheduler says; `test_scheduler_properties.py` has the rules."""

import pickle

import pytest

from src.models.capacity import BackendLimits, Capacity, ModelLimits
from src.models.errors import Draining, QueueFull
from src.models.jobs import Level
from src.models.scheduler import Bounds, Decision, Expire, Load, Scheduler, Start

from .making import CHAT, DRAW, NOW, entry

BOUNDS = Bounds()


def scheduler(
    *resident: str,
    models: dict[str, ModelLimits] | None = None,
    bounds: Bounds = BOUNDS,
) -> Scheduler:
    made = Scheduler(Capacity({"gpu": BackendLimits()}, models), bounds=bounds)
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

    s.load_failed("gpu", "broken", cool_until=NOW + 30)

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

    s.model_gone("gpu", "m", cool_until=NOW + 2)
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
