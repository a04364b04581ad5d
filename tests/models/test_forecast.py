"""When a waiting job will start, from what usually takes how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models import forecast
from src.models.capacity import BackendLimits, Capacity, ModelLimits
from src.models.forecast import starts_in
from src.models.modality import Modality
from src.models.scheduler import Scheduler

from .making import CHAT, DRAW, NOW, entry

ATTEMPT_S, DRAW_S, LOAD_S = 10.0, 40.0, 25.0


def scheduler(
    *backends: str, resident: frozenset[str] = frozenset("m"), known: bool = True
) -> Scheduler:
    """Make one whose backends answer, each with two slots for `wide` and one for all others."""
    names = backends or ("gpu",)
    made = Scheduler(
        Capacity(dict.fromkeys(names, BackendLimits()), {"wide": ModelLimits(parallel=2)}),
        affinity_s=0.0,
    )
    for name in names:
        made.backend_up(name, resident=resident)
    if known:
        for modality, seconds in ((CHAT, ATTEMPT_S), (DRAW, DRAW_S)):
            for model in ("m", "wide"):
                made.durations.add(("attempt", names[0], model, modality), seconds)
    return made


def occupied(*backends: str, model: str = "m", known: bool = True) -> Scheduler:
    """Make one whose every slot has just been taken."""
    made = scheduler(*backends, resident=frozenset([model]), known=known)
    slots = made.capacity.parallel(model) * max(len(backends), 1)
    for number in range(slots):
        made.submit(entry(900 + number, model=model))
    assert len(made.next(NOW)) == slots
    return made


def test_whoever_is_next_waits_for_what_runs() -> None:
    s = occupied()
    s.submit(entry(1))

    assert starts_in(s, "job-1", NOW) == ATTEMPT_S
    assert starts_in(s, "job-1", NOW + 4) == ATTEMPT_S - 4


def test_what_takes_longer_than_usual_may_end_at_any_moment() -> None:
    s = occupied()
    s.submit(entry(1))

    assert starts_in(s, "job-1", NOW + 1000) == 0


def test_everybody_who_goes_first_takes_the_usual_time_of_its_kind() -> None:
    s = occupied()
    s.submit(entry(1, modality=DRAW))
    s.submit(entry(2, modality=DRAW))
    s.submit(entry(3))

    assert starts_in(s, "job-2", NOW) == ATTEMPT_S + ATTEMPT_S + DRAW_S


def test_what_may_run_side_by_side_shares_the_time() -> None:
    s = occupied(model="wide")
    s.submit(entry(1, model="wide"))
    s.submit(entry(2, model="wide"))

    assert starts_in(s, "job-1", NOW) == ATTEMPT_S
    assert starts_in(s, "job-2", NOW) == ATTEMPT_S + ATTEMPT_S / 2


def test_backends_that_answer_share_the_work() -> None:
    s = occupied("north", "south")
    s.submit(entry(1))
    s.durations.add(("attempt", "south", "m", CHAT), ATTEMPT_S)
    both = starts_in(s, "job-1", NOW)
    s.submit(entry(2))
    assert starts_in(s, "job-2", NOW) == 1.5 * ATTEMPT_S

    s.backend_down("south")

    assert both == ATTEMPT_S
    assert s.capacity.up == ["north"]
    assert starts_in(s, "job-2", NOW) == 3 * ATTEMPT_S


def test_the_load_of_its_model_comes_on_top_where_it_is_not_in_memory() -> None:
    s = occupied()
    s.submit(entry(1, model="cold"))
    without = starts_in(s, "job-1", NOW)

    s.durations.add(("load", "gpu", "cold"), LOAD_S)

    assert (without, starts_in(s, "job-1", NOW)) == (ATTEMPT_S, ATTEMPT_S + LOAD_S)


def test_a_job_whose_model_is_not_known_yet_takes_one_slot_like_any_other() -> None:
    s = scheduler(known=False)
    s.durations.add(("attempt", "gpu", None, CHAT), ATTEMPT_S)
    s.submit(entry(1, model=None))
    s.submit(entry(2, model=None))

    assert starts_in(s, "job-2", NOW) == ATTEMPT_S


@pytest.mark.parametrize("job_id", ["job-900", "job-unheard-of", "job-1"])
def test_nothing_is_said_of_what_does_not_wait_in_line(job_id: str) -> None:
    s = occupied()
    s.restore(entry(1), not_before=NOW + 60)  # it waits for its next attempt

    assert starts_in(s, job_id, NOW) is None


def test_nothing_is_said_while_no_backend_answers() -> None:
    s = scheduler()
    s.submit(entry(1))
    s.backend_down("gpu")

    assert list(s.capacity.up) == []
    assert starts_in(s, "job-1", NOW) is None


def test_nothing_is_said_without_experience_of_what_runs() -> None:
    s = occupied(known=False)
    s.submit(entry(1))

    assert starts_in(s, "job-1", NOW) is None


def test_nothing_is_said_without_experience_of_what_goes_first() -> None:
    s = scheduler(known=False)
    s.submit(entry(1))
    s.submit(entry(2))

    assert starts_in(s, "job-1", NOW) == 0
    assert starts_in(s, "job-2", NOW) is None


def test_the_first_of_a_very_long_line_stand_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_LOOKED_AT", 10)
    s = scheduler()
    for number in range(1, 102):
        s.submit(entry(number))

    assert starts_in(s, "job-101", NOW) == pytest.approx(100 * ATTEMPT_S)


@given(st.lists(st.sampled_from([CHAT, DRAW]), min_size=1, max_size=30))
def test_nobody_starts_earlier_than_those_who_go_first(line: list[Modality]) -> None:
    s = occupied()
    for number, modality in enumerate(line):
        s.submit(entry(number, modality=modality))

    told = [starts_in(s, waiting.id, NOW) for waiting in s.line]

    assert None not in told
    assert told == sorted(told, key=lambda seconds: seconds or 0.0)


def test_the_usual_time_is_that_of_the_quickest_backend() -> None:
    s = scheduler("north", "south", known=False)
    assert s.usual_attempt_s(entry(1)) is None

    s.durations.add(("attempt", "north", "m", CHAT), 8.0)
    s.durations.add(("attempt", "south", "m", CHAT), 6.0)

    assert s.usual_attempt_s(entry(1)) == 6.0
    assert s.usual_attempt_s(entry(1, modality=DRAW)) is None


def test_the_entry_of_a_job_is_there_while_it_waits() -> None:
    s = scheduler()
    one = entry(1)
    s.submit(one)
    assert s.waiting_entry("job-1") == one

    s.next(NOW)

    assert s.waiting_entry("job-1") is None
