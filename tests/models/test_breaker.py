"""When a model is left alone because attempts on it keep failing, and how it comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.breaker import Breaker, BreakerRules, Trouble

from .making import NOW

RULES = BreakerRules()
THRESHOLDS = {Trouble.UNREACHED: RULES.unreached, Trouble.REFUSED: RULES.refused}
TROUBLE = st.sampled_from(Trouble)


def ejected(*, at: float = NOW, rules: BreakerRules = RULES) -> tuple[Breaker, float]:
    breaker = Breaker(rules)
    until = None
    while until is None:
        until = breaker.failed(Trouble.REFUSED, at, began=at)
    return breaker, until


def test_three_failures_in_a_row_to_reach_it_open_a_breaker_for_five_seconds() -> None:
    breaker = Breaker(RULES)

    told = [breaker.failed(Trouble.UNREACHED, NOW, began=NOW) for _ in range(3)]

    assert told == [None, None, NOW + 5]


def test_five_failures_that_it_reports_itself_open_a_breaker() -> None:
    breaker = Breaker(RULES)

    told = [breaker.failed(Trouble.REFUSED, NOW, began=NOW) for _ in range(5)]

    assert told == [None, None, None, None, NOW + 5]


@given(troubles=st.lists(TROUBLE, max_size=30), data=st.data())
def test_below_the_thresholds_nothing_is_ejected_and_both_kinds_are_counted_apart(
    troubles: list[Trouble], data: st.DataObject
) -> None:
    breaker = Breaker(RULES)
    in_a_row = dict.fromkeys(Trouble, 0)

    for trouble in troubles:
        in_a_row[trouble] += 1
        if in_a_row[trouble] == THRESHOLDS[trouble] or data.draw(st.booleans()):
            breaker.succeeded()
            in_a_row = {**dict.fromkeys(Trouble, 0), trouble: 1}

        assert breaker.failed(trouble, NOW, began=NOW) is None
        assert breaker.limit is None


@given(
    ejections=st.integers(1, 30),
    base_s=st.floats(0.1, 10),
    cap_s=st.floats(10, 100),
)
def test_each_ejection_takes_longer_than_the_last_up_to_a_limit(
    ejections: int, base_s: float, cap_s: float
) -> None:
    rules = BreakerRules(base_s=base_s, cap_s=cap_s, forgive_s=1e9)
    breaker, until = ejected(rules=rules)
    took = [until - NOW]

    for _ in range(ejections):
        now = until
        again = breaker.failed(Trouble.REFUSED, now, began=now)
        assert again is not None
        took.append(again - now)
        until = again

    expected = [min(base_s * n, cap_s) for n in range(1, ejections + 2)]
    assert took == pytest.approx(expected, abs=1e-6)


@given(ejections=st.integers(1, 12), quiet=st.integers(0, 15))
def test_each_minute_of_quiet_lets_one_ejection_be_forgotten(ejections: int, quiet: int) -> None:
    breaker, until = ejected()
    for _ in range(ejections - 1):
        again = breaker.failed(Trouble.REFUSED, until, began=until)
        assert again is not None
        until = again
    assert breaker.ejections == ejections

    now = until + 60.0 * quiet + 1
    again = breaker.failed(Trouble.UNREACHED, now, began=now)

    assert again is not None
    assert breaker.ejections == max(ejections - quiet, 0) + 1
    assert again - now == pytest.approx(min(5.0 * breaker.ejections, 60.0))


@given(
    failures=st.lists(st.tuples(TROUBLE, st.floats(0, 1), st.floats(0, 100)), max_size=10),
)
def test_attempts_that_began_before_the_ejection_change_nothing_however_late_they_fail(
    failures: list[tuple[Trouble, float, float]],
) -> None:
    breaker, until = ejected()
    before = repr(breaker)

    for trouble, earlier, later in failures:
        assert breaker.failed(trouble, NOW + later, began=NOW - earlier) is None

    assert repr(breaker) == before == f"<Breaker [limit 1, 1 ejections, until {until:g}]>"


def test_recovery_doubles_with_each_success_until_the_model_is_trusted_again() -> None:
    breaker, _ = ejected()
    limits = [breaker.limit]

    for _ in range(6):
        breaker.succeeded()
        limits.append(breaker.limit)

    assert limits == [1, 2, 4, 8, 16, None, None]


@pytest.mark.parametrize("successes", range(5))
@pytest.mark.parametrize("trouble", Trouble)
def test_one_failure_while_recovering_ejects_again(successes: int, trouble: Trouble) -> None:
    breaker, until = ejected()
    for _ in range(successes):
        breaker.succeeded()

    assert breaker.failed(trouble, until, began=until) == until + 10
    assert breaker.limit == 1


def test_a_model_that_was_trusted_again_has_all_its_failures_before_it() -> None:
    breaker, until = ejected()
    for _ in range(5):
        breaker.succeeded()

    told = [breaker.failed(Trouble.UNREACHED, until, began=until) for _ in range(3)]

    assert told == [None, None, until + 10]


@given(
    what=st.lists(
        st.one_of(st.sampled_from(["recover"]), st.tuples(TROUBLE, st.floats(0, 1000))),
        max_size=30,
    )
)
def test_only_a_success_ends_a_recovery(what: list[str | tuple[Trouble, float]]) -> None:
    breaker, now = ejected()

    for step in what:
        if isinstance(step, str):
            breaker.recover()
        else:
            now += step[1]
            breaker.failed(step[0], now, began=now)
        assert breaker.limit == 1

    breaker.succeeded()
    assert breaker.limit == 2


@given(trouble=TROUBLE)
def test_where_the_backend_was_away_a_model_begins_with_one_attempt(trouble: Trouble) -> None:
    breaker, trusted = Breaker(RULES, recovering=True), Breaker(RULES)

    trusted.recover()

    assert breaker.limit == trusted.limit == 1
    assert breaker.failed(trouble, NOW, began=NOW) == NOW + 5


def test_a_success_of_a_trusted_model_forgives_its_failures() -> None:
    breaker = Breaker(RULES)
    for _ in range(2):
        breaker.failed(Trouble.UNREACHED, NOW, began=NOW)

    breaker.succeeded()

    assert breaker.limit is None
    assert breaker.failed(Trouble.UNREACHED, NOW, began=NOW) is None
