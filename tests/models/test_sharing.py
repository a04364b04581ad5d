"""The indexes that lead to jobs: what they remember, and what they forget."""

from typing import cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from src.models.errors import InvalidInput
from src.models.sharing import ENTRY_BYTES, AnswerIndex, UnderWay, check_key

names = st.sampled_from(["a", "b", "c", "d", "e"])


# Answers


def test_an_answer_is_found_by_its_fingerprint_and_the_latest_counts() -> None:
    index = AnswerIndex(10_000)
    index.remember("a", "job-1", 100)

    assert index.find("a") == "job-1"
    assert index.find("b") is None
    index.remember("a", "job-2", 100)
    assert index.find("a") == "job-2"


def test_an_index_of_no_size_is_off() -> None:
    index = AnswerIndex(0)
    index.remember("a", "job-1", 0)

    assert index.find("a") is None


def test_an_answer_that_is_larger_than_the_index_drives_nobody_out() -> None:
    index = AnswerIndex(3 * ENTRY_BYTES)
    index.remember("a", "job-1", 0)
    index.remember("b", "job-2", 3 * ENTRY_BYTES)

    assert index.find("a") == "job-1"
    assert index.find("b") is None


def test_small_answers_take_room_as_well() -> None:
    index = AnswerIndex(10 * ENTRY_BYTES)
    for number in range(1000):
        index.remember(f"print-{number}", f"job-{number}", 0)

    assert len(index) == 10


class Answers(RuleBasedStateMachine):
    """The index compared with a list: what was used last stands at its end."""

    LIMIT = 4 * ENTRY_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.index = AnswerIndex(self.LIMIT)
        self.plain: list[tuple[str, str, int]] = []

    @rule(name=names, job=st.integers(1, 99), size=st.integers(0, 2000))
    def remember(self, name: str, job: int, size: int) -> None:
        self.index.remember(name, f"job-{job}", size)
        self._drop(name)
        if size + ENTRY_BYTES <= self.LIMIT:
            self.plain.append((name, f"job-{job}", size + ENTRY_BYTES))
        while self._bytes() > self.LIMIT:
            self.plain.pop(0)

    @rule(name=names)
    def find(self, name: str) -> None:
        known = [entry for entry in self.plain if entry[0] == name]
        assert self.index.find(name) == (known[0][1] if known else None)
        self._drop(name)
        self.plain += known

    @invariant()
    def agrees(self) -> None:
        assert len(self.index) == len(self.plain)
        assert f"{len(self.plain)} answers, {self._bytes()} bytes" in repr(self.index)

    def _drop(self, name: str) -> None:
        self.plain = [entry for entry in self.plain if entry[0] != name]

    def _bytes(self) -> int:
        return sum(size for _, _, size in self.plain)


TestAnswers = cast("type", Answers.TestCase)


# Jobs under way


def test_a_job_is_found_while_it_is_under_way() -> None:
    under_way = UnderWay()
    under_way.began("a", "job-1")

    assert under_way.running("a") == "job-1"
    assert under_way.running("b") is None
    under_way.ended("job-1")
    under_way.ended("job-9")
    assert under_way.running("a") is None
    assert len(under_way) == 0


def test_the_end_of_a_job_does_not_hide_the_one_that_took_its_place() -> None:
    under_way = UnderWay()
    under_way.began("a", "job-1")
    under_way.began("a", "job-2")
    under_way.ended("job-1")

    assert under_way.running("a") == "job-2"
    under_way.ended("job-2")
    assert under_way.running("a") is None
    assert len(under_way) == 0


# Keys


@pytest.mark.parametrize("key", ["", "k" * 256, "k\n", "clé", "\x00", "a\tb", "k\x7f"])
def test_what_is_no_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 255 printable ASCII") as refused:
        check_key(key)

    assert refused.value.param == "Idempotency-Key"


@pytest.mark.parametrize("key", ["k", "k" * 255, "2f1a-4 ~!", " "])
def test_anything_printable_is_a_key(key: str) -> None:
    check_key(key)
