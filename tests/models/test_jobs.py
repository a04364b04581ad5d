from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.errors import (
    BackendBusy,
    BackendFailed,
    Interrupted,
    InvalidTransition,
    WorkerLost,
)
from src.models.jobs import TRANSITIONS, Job, JobState, Level
from src.models.results import Result

from .making import CHAT, NOW, chat, job

STEPS: dict[str, tuple[Callable[[Job], Job], JobState]] = {
    "started": (lambda j: j.started("gpu", NOW), JobState.PROCESSING),
    "requeued": (lambda j: j.requeued(), JobState.QUEUED),
    "retrying": (lambda j: j.retrying(BackendBusy("later"), NOW), JobState.RETRYING),
    "completed": (lambda j: j.completed(Result(text="x"), NOW), JobState.COMPLETED),
    "failed": (lambda j: j.failed(BackendFailed("no"), NOW), JobState.FAILED),
    "cancelled": (lambda j: j.cancelled(NOW), JobState.CANCELLED),
    "expired": (lambda j: j.expired(NOW), JobState.EXPIRED),
}


def test_a_job_that_succeeds() -> None:
    queued = job()

    running = queued.started("gpu", NOW + 1)
    done = running.completed(Result(text="hi"), NOW + 2)

    assert queued.state is JobState.QUEUED
    assert (running.state, running.backend, running.started_at) == ("processing", "gpu", NOW + 1)
    assert (done.state, done.ended_at, done.result) == ("completed", NOW + 2, Result(text="hi"))
    assert done.modality is CHAT
    assert done.error is None


def test_a_retried_job_keeps_its_number_and_counts_its_attempts() -> None:
    error = BackendBusy("later")
    first = job().started("gpu", NOW)

    pausing = first.retrying(error, NOW + 5)
    second = pausing.started("gpu", NOW + 5)

    assert (pausing.retry_at, pausing.error, pausing.backend) == (NOW + 5, error, "")
    assert (second.attempts, second.fence, second.retry_at) == (2, 2, None)
    assert second.sequence == first.sequence
    assert second.completed(Result(), NOW + 6).error is None


def test_a_promised_job_whose_process_is_gone_waits_again_and_its_attempt_counts() -> None:
    running = job().promised().started("gpu", NOW)
    back = running.recovered(3, NOW + 1)

    assert (back.state, back.attempts, back.fence) == (JobState.QUEUED, 1, 1)
    assert (back.backend, back.started_at, back.sequence) == ("", None, running.sequence)
    assert back.version == running.version + 1


@pytest.mark.parametrize(("attempts", "times"), [(1, "once"), (2, "2 times")])
def test_a_job_that_takes_its_process_along_each_time_is_given_up(
    attempts: int, times: str
) -> None:
    running = job().promised().started("gpu", NOW)
    for _ in range(attempts - 1):
        running = running.recovered(attempts, NOW).started("gpu", NOW)
    lost = running.recovered(attempts, NOW + 1)

    assert (lost.state, lost.ended_at) == (JobState.FAILED, NOW + 1)
    assert isinstance(lost.error, WorkerLost)
    assert f"stopped {times} while" in lost.error.message


def test_a_promised_job_whose_time_ran_out_while_no_process_was_there_is_expired() -> None:
    running = job().promised().started("gpu", NOW)

    assert running.recovered(3, running.deadline).state is JobState.EXPIRED


def test_a_plain_job_whose_process_is_gone_ends_for_nobody_waits() -> None:
    gone = job().started("gpu", NOW).recovered(3, NOW + 1)

    assert gone.state is JobState.FAILED
    assert isinstance(gone.error, Interrupted)


def test_a_waiting_job_may_be_given_another_place() -> None:
    moved = job().moved(Level.LOW, 7)

    assert (moved.level, moved.sequence, moved.version) == (Level.LOW, 7, 1)
    with pytest.raises(InvalidTransition, match="processing has no place in line"):
        job().started("gpu", NOW).moved(Level.LOW, 7)


def test_an_attempt_that_never_began_does_not_count() -> None:
    back = job().started("gpu", NOW).requeued()

    assert (back.state, back.attempts, back.fence) == (JobState.QUEUED, 0, 1)
    assert (back.backend, back.started_at) == ("", None)


def test_an_attempt_may_fail_without_being_counted() -> None:
    pausing = job().started("gpu", NOW).retrying(BackendBusy("later"), NOW + 5, counted=False)

    assert (pausing.state, pausing.attempts, pausing.fence) == (JobState.RETRYING, 0, 1)


def test_a_job_learns_its_model_and_the_models_defaults_while_it_waits() -> None:
    warm = chat(temperature=1)

    named = job(model=None).resolved("m", warm)

    assert (named.model, named.request, named.version) == ("m", warm, 1)


@pytest.mark.parametrize("state", JobState)
def test_a_state_is_terminal_when_nothing_follows(state: JobState) -> None:
    assert state.terminal == (state in {"completed", "failed", "cancelled", "expired"})
    assert state.terminal == (not TRANSITIONS[state])


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_a_job_takes_only_steps_of_the_table(names: list[str]) -> None:
    now = job()
    for name in names:
        step, to = STEPS[name]
        if to not in TRANSITIONS[now.state]:
            with pytest.raises(InvalidTransition, match=f"that is {now.state} cannot become {to}"):
                step(now)
            continue
        after = step(now)
        assert after.state is to
        assert after.version == now.version + 1
        assert after.fence >= now.fence
        assert 0 <= after.attempts <= after.fence
        assert (after.ended_at is None) == (not to.terminal)
        now = after


@pytest.mark.parametrize("end", [Job.cancelled, Job.expired])
def test_a_job_that_ends_while_it_waits_for_another_attempt_was_not_being_worked_on(
    end: Callable[[Job, float], Job],
) -> None:
    running = job().started("gpu", NOW + 1)
    waiting = running.retrying(BackendFailed("boom"), NOW + 60)

    assert end(running, NOW + 5).started_at == NOW + 1
    assert end(waiting, NOW + 5).started_at is None
