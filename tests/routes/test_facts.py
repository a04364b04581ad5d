"""What the headers of an answer say of its job."""

from dataclasses import replace

import pytest

from src.models.jobs import Job
from src.models.results import Result
from src.routes.facts import facts
from src.sharing import How
from tests.models.making import NOW, job


def headers(job: Job, how: How = "new") -> dict[str, str]:
    told = facts(job, how)
    assert all(name == name.lower() for name, _ in told)
    return {name.decode(): value.decode() for name, value in told}


def test_a_job_that_has_ended_tells_all_that_is_known() -> None:
    ended = job().started("gpu", NOW + 1.5).completed(Result(text="x"), NOW + 4)

    assert headers(ended) == {
        "x-job-id": "job-1",
        "x-queue-wait": "1.500",
        "x-attempts": "1",
        "x-model": "m",
        "x-backend": "gpu",
    }


def test_a_job_that_waits_tells_no_wait_and_no_attempt() -> None:
    assert headers(job(model=None)) == {"x-job-id": "job-1"}


def test_a_job_that_ended_in_line_has_waited_until_then() -> None:
    told = headers(job().cancelled(NOW + 7))

    assert told["x-queue-wait"] == "7.000"
    assert "x-attempts" not in told


def test_a_clock_that_was_put_back_gives_no_negative_wait() -> None:
    assert headers(job().started("gpu", NOW - 5))["x-queue-wait"] == "0.000"


@pytest.mark.parametrize(
    ("how", "cache"),
    [("new", None), ("cached", "hit"), ("merged", "merged"), ("repeated", "repeated")],
)
def test_an_answer_that_needed_no_job_of_its_own_says_why(how: How, cache: str | None) -> None:
    assert headers(job(), how).get("x-cache") == cache


def test_names_can_start_no_header_of_their_own() -> None:
    sly = replace(job(model="a\r\nset-cookie: x=1\x7f"), backend="g\npu")

    told = headers(sly)

    assert told["x-model"] == "a??set-cookie: x=1?"
    assert told["x-backend"] == "g?pu"
    assert headers(job(model="Größe"))["x-model"] == "Größe"
