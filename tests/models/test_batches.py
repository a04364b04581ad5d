"""The lines of batches, and what is found out about them before the first is asked."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.batches import (
    MOST_LINES,
    MOST_PROBLEMS,
    AskedLine,
    BatchState,
    OpenLine,
    Problem,
    RawLine,
    Validation,
    answer_line,
    asked_in,
    check_metadata,
    error_line,
    share,
    window_in,
)
from src.models.errors import InvalidInput

CHAT = "/v1/chat/completions"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def line(custom_id: Any = "a", **fields: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {}, **fields}


def raw_lines(*lines: Any) -> Iterator[RawLine]:
    """Lay lines out as they stand in a file."""
    at = 0
    for number, each in enumerate(lines):
        raw = each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n"
        yield RawLine(number, at, raw)
        at += len(raw)


def problems_of(*lines: Any, longest: int = 1000) -> Sequence[Problem]:
    validation = Validation(CHAT, longest)
    for each in raw_lines(*lines):
        validation.look(each)
    return validation.verdict()


def found(*lines: Any, **limits: int) -> list[tuple[str, int | None, str | None]]:
    return [(p.code, p.line, p.param) for p in problems_of(*lines, **limits)]


# What a line asks


@given(custom_id=TEXTS, body=st.dictionaries(TEXTS, JSON, max_size=5), ascii_only=st.booleans())
def test_a_line_is_read_as_it_was_meant(
    custom_id: str, body: dict[str, Any], ascii_only: bool
) -> None:
    raw = json.dumps(line(custom_id, body=body), ensure_ascii=ascii_only).encode()

    asked = asked_in(b"\xef\xbb\xbf" + raw + b"\r\n", CHAT, 1)

    assert isinstance(asked, AskedLine)
    assert (asked.custom_id, json.loads(asked.body)) == (custom_id, body)


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b'"\\ud800"', "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (b'{"custom_id":NaN}', "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (line(None), "invalid_custom_id", "custom_id"),
        (line(""), "invalid_custom_id", "custom_id"),
        (line(7), "invalid_custom_id", "custom_id"),
        (line("x" * 513), "invalid_custom_id", "custom_id"),
        (line(method="GET"), "invalid_method", "method"),
        (line(url="/v1/embeddings"), "mismatched_endpoint", "url"),
        (line(body=None), "invalid_body", "body"),
        (line(body=[1]), "invalid_body", "body"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_its_number(
    wrong: Any, code: str, param: str | None
) -> None:
    assert found(line("good"), wrong) == [(code, 2, param)]


def test_a_problem_quotes_nothing_of_the_line() -> None:
    told = problems_of(line("CANARY", url="CANARY"), b"CANARY", line("CANARY", body="CANARY"))

    assert len(told) == 3
    assert not any("CANARY" in problem.message for problem in told)


# The whole file


def test_lines_may_be_blank_and_are_not_counted() -> None:
    validation = Validation(CHAT, 1000)

    for each in raw_lines(line("a"), b"\n", b" \r\n", line("b"), b""):
        validation.look(each)

    assert validation.total == 2
    assert not validation.verdict()


def test_each_custom_id_is_used_once() -> None:
    told = found(line("a"), line("b"), line("a"), line("a"))

    assert told == [
        ("duplicate_custom_id", 3, "custom_id"),
        ("duplicate_custom_id", 4, "custom_id"),
    ]


def test_a_file_without_a_request_is_refused() -> None:
    assert found() == found(b"\n") == [("empty_file", None, None)]


def test_a_line_has_its_limit() -> None:
    assert found(line("a"), line("b", body={"x": "y" * 1000})) == [("line_too_long", 2, None)]


def test_too_many_lines_are_refused_without_reading_all_of_them() -> None:
    validation = Validation(CHAT, 1000)

    for number in range(MOST_LINES):
        validation.look(RawLine(number, 0, json.dumps(line(str(number))).encode()))
    assert not validation.hopeless
    validation.look(RawLine(MOST_LINES, 0, json.dumps(line("one more")).encode()))

    assert validation.hopeless
    assert [(p.code, p.line) for p in validation.verdict()] == [("too_many_lines", MOST_LINES + 1)]


def test_after_a_hundred_problems_nobody_reads_on() -> None:
    validation = Validation(CHAT, 1000)

    for each in raw_lines(*[b"{\n"] * MOST_PROBLEMS):
        assert not validation.hopeless
        validation.look(each)

    assert validation.hopeless
    assert len(validation.verdict()) == MOST_PROBLEMS


def test_a_line_says_where_the_next_one_begins() -> None:
    first, second = raw_lines(line("a"), line("b"))

    assert first.next_at == second.at


# What is answered


@given(custom_id=TEXTS, body=JSON, status=st.sampled_from([200, 404, 503]))
def test_an_answer_is_one_line_of_json(custom_id: str, body: Any, status: int) -> None:
    text = json.dumps(body, indent=1).encode()

    written = answer_line("r-1", custom_id, status=status, request_id="job", body=text)

    assert written.endswith(b"\n")
    assert b"\n" not in written[:-1]
    assert json.loads(written) == {
        "id": "r-1",
        "custom_id": custom_id,
        "response": {"status_code": status, "request_id": "job", "body": body},
        "error": None,
    }


def test_a_line_that_was_not_carried_out_has_an_error_and_no_response() -> None:
    written = error_line("r-1", "a", code="batch_expired", message="too late")

    assert json.loads(written) == {
        "id": "r-1",
        "custom_id": "a",
        "response": None,
        "error": {"code": "batch_expired", "message": "too late"},
    }


# What callers say besides


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86_400), ("30m", 1800), ("7d", 604_800), ("168h", 604_800)]
)
def test_a_window_is_a_time(text: str, seconds: float) -> None:
    assert window_in(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0h", "24", "h", "8d", "169h", "1.5h", "24H", "-1h", "99999d"]
)
def test_anything_else_is_no_window(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        window_in(text)

    assert caught.value.param == "completion_window"


def test_metadata_has_limits() -> None:
    check_metadata({str(n): "x" * 512 for n in range(16)})

    for wrong in ({str(n): "" for n in range(17)}, {"k" * 65: ""}, {"k": "v" * 513}):
        with pytest.raises(InvalidInput):
            check_metadata(wrong)


@given(window=st.integers(1, 1000), active=st.integers(0, 1000))
def test_batches_share_the_window_and_each_gets_on(window: int, active: int) -> None:
    part = share(window, active)

    assert part >= 1
    assert part == 1 or part * active <= window


# The life of a batch


def test_four_states_are_the_end() -> None:
    assert {state for state in BatchState if state.terminal} == {
        BatchState.COMPLETED,
        BatchState.FAILED,
        BatchState.EXPIRED,
        BatchState.CANCELLED,
    }


def test_a_line_that_is_open_has_no_job_at_first() -> None:
    assert not OpenLine(0, 0, 10).job
