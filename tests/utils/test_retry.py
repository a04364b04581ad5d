"""What is repeated, when, and how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models import errors
from src.models.errors import InferenceManagerError
from src.utils.retry import MAX_RETRY_AFTER, RetryPolicy

POLICY = RetryPolicy(attempts=3, base_s=1.0, cap_s=60.0)


def unavailable() -> errors.BackendUnavailable:
    return errors.BackendUnavailable("gone", reached=True)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (unavailable(), 3),
        (errors.BackendTimeout("silent"), 3),
        (errors.ModelLoadFailed("broken"), 3),
        (errors.ModelCrashed("died"), 3),
        (errors.StreamCut("cut"), 3),
        (errors.BackendFailed("500"), 2),
        (errors.EmptyResult("nothing"), 2),
        (errors.BackendRejected("400"), 1),
        (errors.BackendUnauthorised("401"), 1),
        (errors.BackendProtocolError("html"), 1),
        (errors.UnknownModel("gone"), 3),
        (errors.InvalidInput("bad", param="n"), 1),
    ],
)
def test_each_error_is_worth_so_many_attempts(error: InferenceManagerError, attempts: int) -> None:
    made = 1
    while (retry := POLICY.decide(error, attempts=made, claims=made)) is not None:
        assert retry.counted
        made += 1

    assert made == attempts


@pytest.mark.parametrize(
    "error",
    [
        errors.BackendBusy("later", retry_after=7),
        errors.ModelLoadFailed("cooling", cooling=True, retry_after=7),
    ],
)
def test_being_told_to_wait_uses_up_no_attempt(error: InferenceManagerError) -> None:
    retry = POLICY.decide(error, attempts=99, claims=99)

    assert retry is not None
    assert not retry.counted
    assert retry.delay == 7


@given(attempts=st.integers(1, 2), asked=st.floats(0, 10_000))
def test_waits_grow_with_jitter_and_honour_retry_after_within_reason(
    attempts: int, asked: float
) -> None:
    error = errors.BackendFailed("500", retry_after=asked)
    error.attempts = 3

    retry = POLICY.decide(error, attempts=attempts, claims=attempts)

    assert retry is not None
    assert min(asked, MAX_RETRY_AFTER) <= retry.delay <= max(2.0**attempts, asked)
    assert retry.delay <= MAX_RETRY_AFTER
