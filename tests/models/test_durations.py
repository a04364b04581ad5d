from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from src.models.durations import Durations


def test_what_never_happened_has_no_usual_duration() -> None:
    durations = Durations()

    assert durations.usual("load") is None

    durations.add("load", 3.0)
    assert durations.usual("load") == 3.0
    assert durations.usual("attempt") is None


@given(st.lists(st.floats(-5, 1e6), min_size=1, max_size=40))
def test_the_usual_duration_is_the_median_of_the_last_nine(seconds: list[float]) -> None:
    durations = Durations()

    for took in seconds:
        durations.add("load", took)

    assert durations.usual("load") == median(max(took, 0.0) for took in seconds[-9:])


def test_one_slow_time_changes_nothing() -> None:
    durations = Durations()

    for took in (2.0, 2.0, 900.0, 2.0):
        durations.add("load", took)

    assert durations.usual("load") == 2.0


def test_only_so_many_kinds_are_remembered() -> None:
    durations = Durations(kinds=2)

    for kind in ("a", "b", "c"):
        durations.add(kind, 1.0)
    durations.add("a", 3.0)

    assert [durations.usual(kind) for kind in ("a", "b", "c")] == [2.0, 1.0, None]
