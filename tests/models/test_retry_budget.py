"""How much load retries may add, whatever happens."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.retry_budget import RetryBudget

SLACK = 1e-6  # of arithmetic
Schedule = list[tuple[float, bool]]
SCHEDULES: st.SearchStrategy[Schedule] = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(0, 20)), st.booleans()), max_size=120
)


def play(budget: RetryBudget, schedule: Schedule) -> tuple[list[float], list[tuple[float, float]]]:
    """Return when first attempts began, and when each retry was asked for and may start."""
    firsts: list[float] = []
    retries: list[tuple[float, float]] = []
    moments = accumulate(gap for gap, _ in schedule)
    for now, (_, is_retry) in zip(moments, schedule, strict=True):
        if is_retry:
            delay = budget.retry(now)
            assert delay >= 0
            retries.append((now, now + delay))
        else:
            budget.attempted(now)
            firsts.append(now)
    return firsts, retries


@given(
    schedule=SCHEDULES,
    share=st.sampled_from((0.0, 0.1, 0.5)),
    reserve=st.sampled_from((1.0, 3.0, 10.0)),
    per_second=st.sampled_from((0.2, 1.0)),
)
def test_in_any_stretch_of_time_retries_stay_within_their_budget(
    schedule: Schedule, share: float, reserve: float, per_second: float
) -> None:
    budget = RetryBudget(share=share, reserve=reserve, per_second=per_second)

    firsts, retries = play(budget, schedule)

    starts = sorted({start for _, start in retries})
    for since in starts:
        for until in (start for start in starts if start >= since):
            within = [asked for asked, start in retries if since <= start <= until]
            paid_since = min(since, *within)
            paid = share * sum(paid_since <= first <= until for first in firsts)
            assert len(within) <= reserve + paid + per_second * (until - since) + SLACK


@given(schedule=SCHEDULES)
def test_however_much_fails_retries_never_exceed_a_tenth_of_the_work_plus_what_time_brings(
    schedule: Schedule,
) -> None:
    firsts, retries = play(RetryBudget(), schedule)

    for _, until in retries:
        started = sum(start <= until for _, start in retries)
        attempts = sum(first <= until for first in firsts)
        assert started <= 10 + 0.1 * attempts + 0.2 * until + SLACK


@given(schedule=SCHEDULES)
def test_nothing_is_lost_only_delayed(schedule: Schedule) -> None:
    _, retries = play(RetryBudget(), schedule)

    for ahead, (asked, start) in enumerate(retries, start=1):
        assert asked <= start <= asked + ahead / 0.2


def test_a_few_retries_go_at_once_and_the_next_waits_for_its_token() -> None:
    budget = RetryBudget(reserve=3.0, per_second=0.2)

    assert [budget.retry(0.0) for _ in range(5)] == [0.0, 0.0, 0.0, 5.0, 10.0]


def test_first_attempts_pay_for_retries() -> None:
    budget = RetryBudget(reserve=1.0, share=0.5, per_second=0.01)
    assert budget.retry(0.0) == 0.0

    budget.attempted(0.0)
    budget.attempted(0.0)

    assert budget.retry(0.0) == 0.0
    assert budget.retry(0.0) == pytest.approx(100.0)


def test_no_more_is_saved_up_than_the_reserve() -> None:
    budget = RetryBudget(reserve=2.0)
    for _ in range(1000):
        budget.attempted(0.0)

    assert [budget.retry(1e6) for _ in range(3)] == [0.0, 0.0, 5.0]


def test_a_clock_that_is_set_back_harms_nobody() -> None:
    budget = RetryBudget(reserve=1.0, per_second=1.0)
    assert budget.retry(1000.0) == 0.0

    assert budget.retry(0.0) == 1.0
    assert budget.retry(0.5) == 1.5
