"""How a caller wants to be served, as the headers of its request say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.errors import DeadlineExceeded, InvalidInput
from src.models.jobs import Level
from src.routes.wishes import LONGEST_S, Wishes, wishes_in

NOW = 1_893_456_000.0  # 2030-01-01T00:00:00Z


def wishes(**headers: str) -> Wishes:
    """Read headers; an underscore stands for a hyphen."""
    told = {
        name.replace("_", "-").lower().encode(): value.encode("latin-1")
        for name, value in headers.items()
    }
    return wishes_in(told, NOW)


def test_who_wishes_nothing_is_served_as_everybody() -> None:
    assert wishes() == wishes(Content_Type="application/json") == Wishes()


@pytest.mark.parametrize(
    ("sent", "level"),
    [("low", Level.LOW), (" LOW ", Level.LOW), ("normal", Level.NORMAL), ("Normal", Level.NORMAL)],
)
def test_a_caller_may_let_others_go_first(sent: str, level: Level) -> None:
    assert wishes(X_Priority=sent).level is level


@pytest.mark.parametrize("sent", ["high", "urgent", "1", "", "low, normal"])
def test_a_caller_may_not_go_before_others(sent: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        wishes(X_Priority=sent)

    assert refused.value.param == "X-Priority"
    assert "normal or low" in refused.value.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"X_Timeout": "30"}, 30.0),
        ({"X_Timeout": "0.25"}, 0.25),
        ({"X_Timeout": "604800"}, 604_800.0),
        ({"X_Deadline": "1893456060"}, 60.0),
        ({"X_Deadline": "1893456000.5"}, 0.5),
        ({"X_Deadline": "2030-01-01T00:02:00Z"}, 120.0),
        ({"X_Deadline": "2030-01-01T01:01:00+01:00"}, 60.0),
        ({"X_Deadline": "2999-01-01T00:00:00Z"}, LONGEST_S),
        ({"X_Deadline": "2030-01-01T00:00:10Z", "X_Timeout": "20"}, 10.0),
        ({"X_Deadline": "2030-01-01T00:00:20Z", "X_Timeout": "10"}, 10.0),
    ],
)
def test_a_deadline_is_a_moment_or_a_time_from_now(headers: dict[str, str], seconds: float) -> None:
    assert wishes(**headers).deadline_s == pytest.approx(seconds)


@pytest.mark.parametrize("sent", ["1893455999", "2029-12-31T23:59:59Z", "1893456000", "0"])
def test_a_deadline_that_has_passed_is_too_late(sent: str) -> None:
    with pytest.raises(DeadlineExceeded):
        wishes(X_Deadline=sent)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("X-Timeout", "0"),
        ("X-Timeout", "-1"),
        ("X-Timeout", "604801"),
        ("X-Timeout", "9" * 400),
        ("X-Timeout", "1e3"),
        ("X-Timeout", "nan"),
        ("X-Timeout", "inf"),
        ("X-Timeout", "30s"),
        ("X-Timeout", ""),
        ("X-Timeout", "²"),
        ("X-Deadline", "tomorrow"),
        ("X-Deadline", ""),
        ("X-Deadline", "-1"),
        ("X-Deadline", "9" * 400),
        ("X-Deadline", "2030-01-01T00:00:00"),
        ("X-Deadline", "2030-13-01T00:00:00Z"),
    ],
)
def test_a_time_that_is_none_is_refused_by_name_and_not_quoted(name: str, sent: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        wishes(**{name: sent})

    assert refused.value.param == name
    assert refused.value.message.startswith(name)
    assert len(refused.value.message) < 100


@pytest.mark.parametrize(
    ("prefer", "wait_s"),
    [
        ("respond-async", 0.0),
        ("Respond-Async", 0.0),
        ("wait=10", 10.0),
        ("wait = 2.5", 2.5),
        ('wait="10"', 10.0),
        ("respond-async, wait=10", 10.0),
        ("wait=10,respond-async", 10.0),
        ("respond-async; wait=10", 10.0),
        ("handling=lenient, respond-async", 0.0),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=soon", None),
        ("return=minimal", None),
        ("", None),
        (",;=,", None),
    ],
)
def test_a_caller_may_prefer_not_to_wait_and_what_is_not_understood_is_no_preference(
    prefer: str, wait_s: float | None
) -> None:
    assert wishes(Prefer=prefer).wait_s == wait_s


@pytest.mark.parametrize(
    ("sent", "yes"), [("1", True), ("TRUE", True), (" yes ", True), ("on", True), ("0", False)]
)
def test_switches(sent: str, *, yes: bool) -> None:
    both = wishes(X_Queue_Events=sent, X_Strict=sent)

    assert (both.queue_events, both.strict) == (yes, yes)


def test_a_key_is_taken_as_it_is() -> None:
    assert wishes(Idempotency_Key=" k-1 ").key == "k-1"


@given(
    st.dictionaries(
        st.sampled_from(
            [b"x-priority", b"x-deadline", b"x-timeout", b"prefer", b"idempotency-key", b"x-strict"]
        ),
        st.binary(max_size=30) | st.from_regex(rb"[0-9T:Z.+-]{0,25}", fullmatch=True),
    )
)
def test_whatever_is_sent_is_understood_or_refused_in_words(headers: dict[bytes, bytes]) -> None:
    try:
        wish = wishes_in(headers, NOW)
    except (InvalidInput, DeadlineExceeded):
        return
    assert wish.deadline_s is None or 0 < wish.deadline_s <= LONGEST_S
    assert wish.wait_s is None or wish.wait_s >= 0
