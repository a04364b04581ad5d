"""The indexes that lead to jobs: what they remember, and what they forget."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from src.models.errors import IdempotencyConflict, InvalidInput
from src.models.sharing import ENTRY_BYTES, AnswerIndex, IdempotencyKeys, UnderWay

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


def test_a_key_stands_for_its_job_for_its_caller_only() -> None:
    keys = IdempotencyKeys()
    keys.bind("ann", "k", "print", "job-1", now=0)

    assert keys.find("ann", "k", "print", now=1) == "job-1"
    assert keys.find("ann", "l", "print", now=1) is None
    assert keys.find("bob", "k", "another", now=1) is None


def test_a_key_that_comes_with_another_request_is_a_conflict() -> None:
    keys = IdempotencyKeys()
    keys.bind("ann", "k", "print", "job-1", now=0)

    with pytest.raises(IdempotencyConflict, match="used for another request") as conflict:
        keys.find("ann", "k", "another", now=1)

    assert conflict.value.code == "idempotency_conflict"
    assert conflict.value.hint


def test_a_key_that_is_bound_anew_stands_for_the_new_job() -> None:
    keys = IdempotencyKeys(keep_s=10)
    keys.bind("ann", "k", "print", "job-1", now=0)
    keys.bind("ann", "k", "print", "job-2", now=5)

    assert keys.find("ann", "k", "print", now=14) == "job-2"


def test_a_key_is_forgotten_when_it_is_old() -> None:
    keys = IdempotencyKeys(keep_s=10)
    keys.bind("ann", "k", "print", "job-1", now=0)

    assert keys.find("ann", "k", "print", now=9.9) == "job-1"
    assert keys.find("ann", "k", "another", now=10) is None
    assert len(keys) == 0


@given(st.lists(names, max_size=30), st.integers(1, 4))
def test_the_keys_that_were_bound_last_are_remembered(bound: list[str], keep: int) -> None:
    keys = IdempotencyKeys(keep=keep)
    for number, key in enumerate(bound):
        keys.bind("ann", key, "print", f"job-{number}", now=number)
    last = {key: f"job-{number}" for number, key in enumerate(bound)}
    latest = sorted(last, key=lambda key: -bound[::-1].index(key))[-keep:]

    found = {key: keys.find("ann", key, "print", now=30) for key in last}
    assert found == {key: job if key in latest else None for key, job in last.items()}


@pytest.mark.parametrize("key", ["", "k" * 256, "k\n", "clé", "\x00", "a\tb", "k\x7f"])
def test_what_is_no_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 255 printable ASCII") as refused:
        IdempotencyKeys().find("ann", key, "print", now=0)

    assert refused.value.param == "Idempotency-Key"


@pytest.mark.parametrize("key", ["k", "k" * 255, "2f1a-4 ~!", " "])
def test_anything_printable_is_a_key(key: str) -> None:
    assert IdempotencyKeys().find("ann", key, "print", now=0) is None
