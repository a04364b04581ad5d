import json
from typing import Any

import pytest

from src.models.errors import BackendBusy, BackendFailed, ModelLoadFailed, UnknownModel
from src.models.events import Ended, ModelLoaded, Retried, Started, Submitted
from src.models.jobs import Job, JobState
from src.models.metrics import ErrorLog, RequestMetrics, sanitised
from src.models.modality import Modality
from src.models.requests import REQUESTS, Txt2ImgRequest
from src.models.results import Result

from .making import CHAT, DRAW, NOW, chat, job

SECRET = "correct-horse-battery"


def completed(wait: float, work: float, at: float = NOW, **fields: Any) -> Job:
    began = at + wait
    made = job(submitted_at=at, **fields).started("gpu", began)
    return made.completed(Result(text="x"), began + work)


def test_without_jobs_there_is_nothing_to_average() -> None:
    report = RequestMetrics().report(NOW)

    assert (report.total_requests, report.window, report.recent) == (0, 0, ())
    assert report.by_modality == {}
    assert report.overall.success_rate is None
    assert report.overall.wait_avg_s is None
    assert report.overall.processing_p95_s is None
    assert report.overall.throughput_per_minute == 0.0


def test_waits_and_work_are_averaged_over_all_and_for_each_modality() -> None:
    metrics = RequestMetrics()
    drawing = Txt2ImgRequest(prompt="p")

    metrics(Ended(completed(1, 10)))
    metrics(Ended(completed(3, 20)))
    metrics(Ended(completed(5, 60, request=drawing)))
    report = metrics.report(NOW + 120)

    assert report.overall.wait_avg_s == 3
    assert report.overall.processing_avg_s == 30
    assert set(report.by_modality) == {CHAT, DRAW}
    assert report.by_modality[CHAT].count == 2
    assert report.by_modality[CHAT].processing_avg_s == 15
    assert report.overall.throughput_per_minute == pytest.approx(60 * 3 / 119)
    assert [sample.modality for sample in report.recent] == [CHAT, CHAT, DRAW]


def test_a_cancelled_job_is_nobodys_failure() -> None:
    metrics = RequestMetrics()
    ends = [
        completed(1, 1),
        job().started("gpu", NOW + 1).failed(BackendFailed("no"), NOW + 2),
        job().expired(NOW + 60),
        job(model=None).cancelled(NOW + 4),
    ]

    for end in ends:
        metrics(Ended(end))
    figures = metrics.report(NOW + 60).overall

    assert (figures.completed, figures.failed, figures.expired, figures.cancelled) == (1, 1, 1, 1)
    assert figures.success_rate == pytest.approx(1 / 3)
    assert figures.count == 4
    assert figures.wait_p95_s == 60, "the longest of four: three quarters do not reach 95 %"
    assert figures.processing_avg_s == 1


def test_a_clock_that_was_set_back_makes_no_negative_times() -> None:
    metrics = RequestMetrics()

    metrics(Ended(completed(-5, -5)))
    figures = metrics.report(NOW - 100).overall

    assert (figures.wait_avg_s, figures.processing_avg_s) == (0, 0)
    assert figures.throughput_per_minute == 60


def test_all_jobs_are_counted_and_the_last_thousand_averaged() -> None:
    metrics = RequestMetrics()

    for number in range(1500):
        metrics(Ended(completed(float(number), 1)))
    report = metrics.report(NOW)

    assert (report.total_requests, report.window) == (1500, 1000)
    assert report.overall.wait_avg_s == pytest.approx(999.5)
    assert report.overall.wait_p95_s == pytest.approx(500 + 949)


def test_only_the_end_of_a_job_is_a_sample() -> None:
    metrics, errors = RequestMetrics(), ErrorLog()

    for event in (Submitted(job(), 0), Started(job()), Ended(completed(1, 1))):
        metrics(event)
        errors(event)

    assert metrics.report(NOW).total_requests == 1
    assert errors.report().total_errors == 0


def test_errors_are_counted_by_modality_model_and_code_and_shown_newest_first() -> None:
    log = ErrorLog()
    first = job(id="a").started("gpu", NOW + 1)
    second = job(id="b").started("gpu", NOW + 2)

    log(Retried(first, BackendBusy("later"), counted=True))
    log(Ended(second.failed(BackendFailed("broken"), NOW + 3)))
    report = log.report()

    assert report.total_errors == 2
    assert report.counts_by_type == {CHAT: {"m": 2}}
    assert report.counts_by_code == {"backend_busy": 1, "backend_failed": 1}
    newest, older = report.recent_errors
    assert (newest.job_id, newest.final, newest.at, newest.message) == (
        "b",
        True,
        NOW + 3,
        "broken",
    )
    assert (older.job_id, older.final, older.at) == ("a", False, NOW + 1)
    assert newest.parameters == {"messages": 1, "messages_chars": 5}


def test_a_failed_load_is_an_error_of_the_job_that_it_was_for() -> None:
    errors = ErrorLog()

    errors(ModelLoaded(job(model="big"), "gpu", "big", 1.0, ModelLoadFailed("out of memory")))
    errors(ModelLoaded(None, "gpu", "big", 1.0, ModelLoadFailed("nobody waits any more")))
    errors(ModelLoaded(job(model="big"), "gpu", "big", 1.0))
    report = errors.report()

    assert report.counts_by_code == {"model_load_failed": 1}
    assert (report.recent_errors[0].model, report.recent_errors[0].final) == ("big", False)


def test_an_expired_job_is_an_error_and_a_cancelled_one_is_not() -> None:
    log = ErrorLog()
    tried = job().started("gpu", NOW).retrying(BackendBusy("later"), NOW + 1)

    log(Ended(tried.expired(NOW + 2)))
    log(Ended(tried.cancelled(NOW + 2)))

    assert log.report().counts_by_code == {"deadline_exceeded": 1}


def test_an_error_before_the_first_attempt_has_the_time_of_the_submission() -> None:
    log = ErrorLog()

    log(Retried(job(), BackendBusy("later"), counted=False))

    assert log.report().recent_errors[0].at == NOW


def test_names_that_callers_make_up_do_not_pile_up() -> None:
    log = ErrorLog()
    for number in range(3000):
        made_up = job(model=f"made-up-{number}")
        log(Ended(made_up.failed(UnknownModel("not offered"), NOW)))
        log(Ended(made_up.started("gpu", NOW).failed(BackendFailed("no"), NOW)))
    log(Ended(job(model=None).failed(BackendFailed("no"), NOW)))

    counts = log.report().counts_by_type[CHAT]

    assert counts["unknown"] >= 3000
    assert len(counts) <= 1001
    assert log.report().total_errors == 6001
    assert len(log.report().recent_errors) == 100


@pytest.mark.parametrize("modality", Modality)
def test_a_request_is_described_without_its_content(modality: Modality) -> None:
    content: dict[Modality, dict[str, Any]] = {
        Modality.TXT2TXT: {"prompt": SECRET, "stop": [SECRET], "temperature": 0.5},
        Modality.TXT2IMG: {"prompt": SECRET, "negative_prompt": SECRET, "steps": 4},
        Modality.IMG2IMG: {"prompt": SECRET, "image": SECRET, "strength": 0.5},
        Modality.IMG2TXT: {"images": [SECRET, SECRET], "question": SECRET, "top_k": 3},
    }
    request = REQUESTS[modality].model_validate({**content[modality], "model": SECRET})

    told = sanitised(request)

    assert SECRET not in json.dumps(dict(told))
    expected: dict[Modality, dict[str, object]] = {
        Modality.TXT2TXT: {"messages": 1, "messages_chars": len(SECRET), "temperature": 0.5},
        Modality.TXT2IMG: {
            "prompt_chars": len(SECRET),
            "negative_prompt_chars": len(SECRET),
            "steps": 4,
            "n": 1,
        },
        Modality.IMG2IMG: {
            "prompt_chars": len(SECRET),
            "negative_prompt_chars": 0,
            "image_chars": len(SECRET),
            "strength": 0.5,
            "n": 1,
        },
        Modality.IMG2TXT: {
            "images": 2,
            "images_chars": 2 * len(SECRET),
            "question_chars": len(SECRET),
            "top_k": 3,
        },
    }
    assert told == expected[modality]


def test_a_failed_job_without_an_error_is_no_error_to_show() -> None:
    log = ErrorLog()

    log(Ended(job(state=JobState.FAILED, ended_at=NOW, request=chat(SECRET))))

    assert log.report().recent_errors == ()
