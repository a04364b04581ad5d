"""The oracle finds what it is there to find."""

from src.simulator.reports import RequestRecord

from .oracle import Diary, Kept, Step, Told, findings

BIRTHS = [0.0, 100.0]


def job(job_id: str = "a", sequence: int = 1, **changes: object) -> Kept:
    facts: dict[str, object] = {
        "lane": ("txt2txt", 1, "m"),
        "promised": True,
        "state": "completed",
        "attempts": 1,
        "code": "",
        "key": "",
        "body": '{"text": "words"}',
        "steps": [Step(0, "queued", 1.0), Step(1, "processing", 2.0), Step(2, "completed", 3.0)],
        **changes,
    }
    return Kept(id=job_id, sequence=sequence, **facts)  # type: ignore[arg-type]


def found(*kept: Kept, journal: tuple[RequestRecord, ...] = (), **told: object) -> list[str]:
    diary = Diary(births=BIRTHS, **told)  # type: ignore[arg-type]
    return findings(diary, {one.id: one for one in kept}, journal, attempts=3)


def accepted(*job_ids: str) -> dict[str, Told]:
    return {job_id: Told(job_id, "words") for job_id in job_ids}


def call(job_id: str) -> RequestRecord:
    return RequestRecord(number=1, correlation_id=job_id, path="/v1/chat/completions", arrived=1.0)


def test_what_was_kept_well_is_not_complained_of() -> None:
    assert found(job(), accepted=accepted("a"), journal=(call("a"),)) == []


def test_a_lost_job_is_found() -> None:
    assert found(accepted=accepted("a")) == ["a was accepted and is lost"]


def test_a_job_that_failed_for_no_reason_is_found() -> None:
    failed = job(
        state="failed",
        code="interrupted",
        body="",
        steps=[Step(0, "queued", 1), Step(1, "failed", 2)],
    )

    assert found(failed, accepted=accepted("a")) == ["a was accepted and is failed interrupted"]


def test_the_result_of_another_job_is_found() -> None:
    assert found(job(body="{}"), accepted=accepted("a")) == ["a has another job's result"]


def test_a_second_end_is_found() -> None:
    steps = [*job().steps, Step(3, "failed", 4.0)]

    assert found(job(steps=steps)) == ["a is completed after the ends ['completed', 'failed']"]


def test_a_missing_step_is_found() -> None:
    assert found(job(steps=job().steps[1:])) == ["a took the steps [1, 2]"]


def test_a_cancelled_job_that_went_on_is_found() -> None:
    assert found(job(), ended={"a": "cancelled"}) == ["a was said to be cancelled and is completed"]


def test_two_jobs_for_one_key_are_found() -> None:
    twice = [job("a", 1, key="k"), job("b", 2, key="k")]

    assert found(*twice) == ["the key k stands for 2 jobs"]
    assert found(keys={"k": {"a", "b"}}) == ["the key k was said to stand for ['a', 'b']"]


def test_a_call_without_a_claim_is_found() -> None:
    calls = (call("a"), call("a"))

    assert found(job(), journal=calls) == ["a was called 2 times with 1 claims"]


def test_a_job_that_was_overtaken_is_found() -> None:
    late = [Step(0, "queued", 1.0), Step(1, "processing", 9.0), Step(2, "completed", 10.0)]
    soon = [Step(0, "queued", 1.0), Step(1, "processing", 5.0), Step(2, "completed", 6.0)]

    assert found(job("a", 1, steps=late), job("b", 2, steps=soon)) == ["b was taken while a waited"]
    assert found(job("a", 1, steps=soon), job("b", 2, steps=late)) == []


def test_a_job_that_lost_its_place_in_a_crash_is_found() -> None:
    crashed = [
        Step(0, "queued", 1.0),
        Step(1, "processing", 2.0),
        Step(2, "queued", 101.0),
        Step(3, "processing", 109.0),
        Step(4, "completed", 110.0),
    ]
    soon = [Step(0, "queued", 50.0), Step(1, "processing", 105.0), Step(2, "completed", 106.0)]

    assert found(job("a", 1, steps=crashed), job("b", 2, steps=soon)) == [
        "b was taken while a waited"
    ]
