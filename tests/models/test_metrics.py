import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.blobs import Blob
from src.models.errors import BackendBusy, BackendFailed, ModelLoadFailed, UnknownModel
from src.models.events import Ended, ModelLoaded, Retried, Started, Submitted
from src.models.jobs import Job, JobState
from src.models.metrics import ErrorLog, RequestMetrics, sanitised
from src.models.modality import Modality
from src.models.requests import (
    REQUESTS,
    CompletionRequest,
    Img2TxtRequest,
    InferenceRequest,
    ModerationRequest,
    Txt2AudioRequest,
    Txt2ImgRequest,
    Txt2TxtRequest,
)
from src.models.results import Result

from .making import CHAT, DRAW, NOW, SMALLEST, chat, job

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
    assert newest.parameters == {
        "messages": 1,
        "messages_chars": 5,
        "n": 1,
        "logprobs": False,
    }


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


CONTENT: dict[Modality, tuple[dict[str, Any], dict[str, object]]] = {
    Modality.TXT2TXT: (
        {"prompt": SECRET, "stop": [SECRET], "temperature": 0.5},
        {
            "messages": 1,
            "messages_chars": 21,
            "stop": 1,
            "stop_chars": 21,
            "temperature": 0.5,
            "n": 1,
            "logprobs": False,
        },
    ),
    Modality.TXT2IMG: (
        {"prompt": SECRET, "negative_prompt": SECRET, "steps": 4},
        {"prompt_chars": 21, "negative_prompt_chars": 21, "steps": 4, "n": 1},
    ),
    Modality.IMG2IMG: (
        {"prompt": SECRET, "image": SECRET, "strength": 0.5},
        {
            "prompt_chars": 21,
            "negative_prompt_chars": 0,
            "image_chars": 21,
            "strength": 0.5,
            "n": 1,
        },
    ),
    Modality.IMG2TXT: (
        {"images": [SECRET, SECRET], "question": SECRET, "top_k": 3, "n": 2, "logprobs": True},
        {
            "images": 2,
            "images_chars": 42,
            "question_chars": 21,
            "top_k": 3,
            "n": 2,
            "logprobs": True,
        },
    ),
    Modality.TXT2VEC: ({"input": [SECRET, SECRET]}, {"input": 2, "input_chars": 42}),
    Modality.RERANK: (
        {"query": SECRET, "documents": [SECRET, SECRET, SECRET], "top_n": 2},
        {"query_chars": 21, "documents": 3, "documents_chars": 63, "top_n": 2},
    ),
    Modality.AUDIO2TXT: (
        {"audio": Blob(SECRET, 70_000).reference, "prompt": SECRET, "language": SECRET},
        {"audio_chars": 70_000, "prompt_chars": 21, "language_chars": 21, "translate": False},
    ),
    Modality.TXT2AUDIO: (
        {"input": SECRET, "voice": SECRET, "instructions": SECRET, "speed": 2},
        {
            "input_chars": 21,
            "voice_chars": 21,
            "instructions_chars": 21,
            "language_chars": 0,
            "format_chars": 3,
            "speed": 2.0,
        },
    ),
    Modality.TXT2SOUND: (
        {"prompt": SECRET, "lyrics": SECRET, "bpm": 90, "instrumental": True},
        {"prompt_chars": 21, "lyrics_chars": 21, "bpm": 90, "instrumental": True},
    ),
    Modality.INPAINT: (
        {"prompt": SECRET, "image": SECRET, "mask": SECRET},
        {"prompt_chars": 21, "image_chars": 21, "mask_chars": 21},
    ),
    Modality.TXT2VIDEO: (
        {"prompt": SECRET, "negative_prompt": SECRET, "image": SECRET, "fps": 24},
        {"prompt_chars": 21, "negative_prompt_chars": 21, "image_chars": 21, "fps": 24},
    ),
}


@pytest.mark.parametrize("modality", Modality)
def test_a_request_is_described_by_its_numbers_and_lengths(modality: Modality) -> None:
    fields, described = CONTENT[modality]
    request = REQUESTS[modality].model_validate({**fields, "model": SECRET})

    assert sanitised(request) == described


@pytest.mark.parametrize(
    ("request_", "described"),
    [
        (
            CompletionRequest(prompts=(SECRET, SECRET), options={SECRET: [SECRET, 7]}),
            {"prompts": 2, "prompts_chars": 42, "options_chars": 50, "n": 1},
        ),
        (ModerationRequest(input=(SECRET,)), {"input": 1, "input_chars": 21}),
        (
            chat(SECRET, tools=[{"name": SECRET}, {}], options={}),
            {
                "messages": 1,
                "messages_chars": 21,
                "tools": 2,
                "tools_chars": 25,
                "n": 1,
                "logprobs": False,
            },
        ),
    ],
    ids=["completion", "moderation", "chat with tools"],
)
def test_so_is_one_that_only_some_doors_make(
    request_: InferenceRequest, described: dict[str, object]
) -> None:
    assert sanitised(request_) == described


def text_fields(kind: type[InferenceRequest]) -> dict[str, st.SearchStrategy[Any]]:
    """Return a way to fill each field of a request that holds words, pictures or recordings."""
    words = st.text("abc", max_size=3).map(lambda more: SECRET + more)
    several = st.lists(words, min_size=1, max_size=3)
    inner = st.recursive(words, lambda some: st.lists(some) | st.dictionaries(words, some))
    further = st.dictionaries(words, inner, min_size=1, max_size=3)
    turn = st.fixed_dictionaries({"role": st.just("user"), "content": words, "more": further})
    shapes: dict[str, st.SearchStrategy[Any]] = {
        "messages": st.lists(turn, min_size=1, max_size=3),
        "options": further,
        "tools": st.lists(further, min_size=1, max_size=3),
        **dict.fromkeys(("images", "input", "documents", "stop", "prompts"), several),
    }
    if kind is Txt2AudioRequest:
        shapes["input"] = words
    if kind is Img2TxtRequest:
        picture = {"type": "image", "image": 0}
        shapes["messages"] = words.map(
            lambda text: [{"content": [picture, {"type": "text", "text": text}]}]
        )
    numbers = {
        name
        for name, schema in kind.model_json_schema()["properties"].items()
        if "string" not in json.dumps(schema) and "$ref" not in json.dumps(schema)
    }
    return {
        name: shapes.get(name, words)
        for name in kind.model_fields
        if name not in numbers and name != "format"
    }


@given(st.sampled_from(sorted(SMALLEST, key=lambda kind: kind.modality)), st.data())
def test_nothing_that_was_said_shown_or_played_is_in_the_description(
    kind: type[InferenceRequest], data: st.DataObject
) -> None:
    everything = data.draw(st.fixed_dictionaries(text_fields(kind)))
    if kind is Img2TxtRequest:
        del everything[data.draw(st.sampled_from(["question", "messages"]))]

    told = json.dumps(dict(sanitised(kind.model_validate(everything))))

    assert json.dumps(everything).count(SECRET) >= len(everything)
    assert SECRET not in told
    assert "abc" not in told


def test_every_text_of_a_request_is_tried() -> None:
    assert set(text_fields(Txt2AudioRequest)) == {
        "model",
        "input",
        "voice",
        "language",
        "instructions",
        "options",
    }
    talk = {"model", "stop", "options", "tools", "messages"}
    assert set(text_fields(Img2TxtRequest)) == {*talk, "images", "question"}
    assert set(text_fields(Txt2TxtRequest)) == talk
    assert set(text_fields(CompletionRequest)) == {"model", "prompts", "stop", "options"}
    assert set(text_fields(ModerationRequest)) == {"model", "input"}


def test_a_failed_job_without_an_error_is_no_error_to_show() -> None:
    log = ErrorLog()

    log(Ended(job(state=JobState.FAILED, ended_at=NOW, request=chat(SECRET))))

    assert log.report().recent_errors == ()
