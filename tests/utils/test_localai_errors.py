import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.errors import (
    BackendBusy,
    BackendError,
    BackendFailed,
    BackendProtocolError,
    BackendRejected,
    BackendTimeout,
    BackendUnauthorised,
    BackendUnavailable,
    InferenceManagerError,
    ModelCrashed,
    ModelLoadFailed,
    NotOffered,
    UnknownModel,
)
from src.utils.localai_errors import (
    LONGEST_QUOTE,
    LONGEST_SEARCH,
    Failure,
    Scene,
    error_of,
    failure_in,
    failure_of,
    retry_after,
)
from src.utils.strict_json import Json

NOW = 1_790_000_000.0
SCENE = Scene("gpu", "m")
LOAD = "failed to load model with internal loader: could not load model: rpc error: code = "


def told(status: int, message: str = "", kind: str = "", **more: object) -> InferenceManagerError:
    """Return what an error in LocalAI's envelope becomes."""
    body = {"error": {"code": status, "message": message, "type": kind}, **more}
    return error_of(failure_of(status, json.dumps(body).encode()), SCENE)


@pytest.mark.parametrize(
    ("status", "message", "kind", "expected"),
    [
        (400, "failed parsing request body", "", BackendRejected),
        (401, "An authentication key is required", "invalid_request_error", BackendUnauthorised),
        (403, "admin required", "authorization_error", BackendUnauthorised),
        (403, "model is disabled", "model_disabled", BackendRejected),
        (404, 'model "m" not found. To see available models', "", UnknownModel),
        (404, "Resource not found", "", BackendProtocolError),
        (405, "code=405, message=Method Not Allowed", "", BackendRejected),
        (408, "", "", BackendTimeout),
        (413, "code=413, message=Request Entity Too Large", "", BackendRejected),
        (418, "", "", BackendRejected),
        (422, "", "", BackendRejected),
        (429, "quota", "quota_exceeded", BackendBusy),
        (500, "", "", BackendFailed),
        (500, "no idea", "", BackendFailed),
        (500, LOAD + "Unknown desc = no such file", "", ModelLoadFailed),
        (500, LOAD + "Unavailable desc = error reading from server: EOF", "", ModelLoadFailed),
        (500, LOAD + "Unknown desc = CUDA out of memory", "", ModelLoadFailed),
        (500, "grpc service not ready: backend process exited with code 137", "", ModelLoadFailed),
        (500, "backend not found: nothing", "", ModelLoadFailed),
        (500, 'model "m" load is in cooldown after a recent failure', "", ModelLoadFailed),
        (
            500,
            "rpc error: code = Unavailable desc = error reading from server: EOF",
            "",
            ModelCrashed,
        ),
        (500, "rpc error: code = Unavailable desc = connection refused", "", ModelCrashed),
        (500, "rpc error: code = Canceled desc = context canceled", "", ModelCrashed),
        (500, "rpc error: code = Unknown desc = CUDA out of memory", "", BackendFailed),
        (
            500,
            "rpc error: code = Internal desc = request exceeds the available context size",
            "",
            BackendRejected,
        ),
        (500, "invalid value for 'size'", "", BackendRejected),
        (502, "", "", BackendUnavailable),
        (503, "", "", BackendBusy),
        (503, "too many", "admission_rejected", BackendBusy),
        (503, "backend inference capacity reached (max_concurrent=1024)", "", BackendBusy),
        (503, "staging", "model_loading", BackendBusy),
        (503, 'model "m" load is in cooldown after a recent failure', "", ModelLoadFailed),
        (504, "", "", BackendUnavailable),
        (301, "", "", BackendProtocolError),
    ],
)
def test_each_way_to_say_no_has_its_error(
    status: int, message: str, kind: str, expected: type[InferenceManagerError]
) -> None:
    error = told(status, message, kind)

    assert type(error) is expected
    assert "gpu" in error.message


def test_a_cooldown_is_told_from_a_first_failure_to_load() -> None:
    first = told(500, LOAD + "Unknown desc = no such file")
    second = told(503, 'model "m" load is in cooldown after a recent failure; retry after 1m20s')

    assert isinstance(first, ModelLoadFailed)
    assert isinstance(second, ModelLoadFailed)
    assert (first.cooling, second.cooling) == (False, True)
    assert second.retry_after == 80.0


def test_a_gateway_that_cannot_reach_the_backend_counts_as_reached() -> None:
    error = told(502)

    assert isinstance(error, BackendUnavailable)
    assert error.reached


def test_a_prompt_that_is_too_long_is_rejected_whatever_the_status() -> None:
    for status in (400, 500):
        error = told(status, "the request exceeds the available context size")
        assert isinstance(error, BackendRejected)
        assert "context" in error.message
        assert error.hint


def test_a_model_being_fetched_says_how_long_it_takes() -> None:
    error = told(503, "staging", "model_loading", loading={"eta_seconds": 42, "progress": 0.5})

    assert isinstance(error, BackendBusy)
    assert error.retry_after == 42.0


@pytest.mark.parametrize("eta", [-1, None, "soon", [], 1e400])
def test_a_senseless_estimate_is_ignored_or_cut(eta: object) -> None:
    error = told(503, "staging", "model_loading", loading={"eta_seconds": eta})

    assert error.retry_after in (None, 300.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("retry after 10s", 10.0),
        ("retry after 2m0s", 120.0),
        ("retry after 1h0m0s", 300.0),
        ("retry after 1.5s", 1.5),
        ("retry after 500ms", None),
        ("retry after 5", None),
        ("retry after a while", None),
        ("", None),
    ],
)
def test_a_wait_written_in_the_text_is_read_as_go_writes_it(
    text: str, seconds: float | None
) -> None:
    assert told(503, f'model "m" load is in cooldown; {text}').retry_after == seconds


def test_the_header_wins_over_the_text() -> None:
    body = b'{"error":{"message":"model load is in cooldown; retry after 10s"}}'

    assert error_of(failure_of(503, body, 7.0), SCENE).retry_after == 7.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("1", 1.0),
        (" 2.5 ", 2.5),
        ("99999", 300.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("0x10", None),
        ("9" * 400, None),
        ("١٢", None),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        (formatdate(NOW + 10_000, usegmt=True), 300.0),
        ("Mon, 99 Foo 2026 99:99:99 GMT", None),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_leniently_and_cut_to_five_minutes(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value, NOW) == seconds


@given(value=st.text())
def test_no_retry_after_header_breaks_anything(value: str) -> None:
    seconds = retry_after(value, NOW)

    assert seconds is None or 0 <= seconds <= 300


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"<html>no</html>",
        b"{",
        b"null",
        b"[]",
        b"17",
        b"NaN",
        b'"words"',
        b"{}",
        b'{"error": null}',
        b'{"error": []}',
        b'{"error": "words"}',
        b'{"error": {"message": 5, "type": null, "code": "x"}}',
        b'{"message": "words"}',
        b'{"detail": {"a": 1}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_any_body_of_an_error_is_an_error(status: int, body: bytes) -> None:
    assert isinstance(error_of(failure_of(status, body), SCENE), BackendError | UnknownModel)


@given(
    status=st.integers(300, 599),
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["error", "message", "type", "code", "loading", "eta_seconds"]),
                inner,
            )
        ),
    ),
)
def test_no_shape_of_an_error_breaks_anything(status: int, body: object) -> None:
    error = error_of(failure_of(status, json.dumps(body).encode()), SCENE)

    assert isinstance(error, BackendError | UnknownModel)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "Resource not found"}'])
def test_a_404_for_what_not_every_localai_has_means_that_this_one_has_it_not(body: bytes) -> None:
    scene = Scene("gpu", "m", service="moderations")

    error = error_of(failure_of(404, body), scene)

    assert isinstance(error, NotOffered)
    assert error.message == "backend gpu does not offer moderations"
    assert isinstance(error_of(failure_of(404, b'{"error": "no model m"}'), scene), UnknownModel)


def test_a_silent_404_means_an_unknown_model_and_a_web_page_a_wrong_address() -> None:
    assert isinstance(error_of(failure_of(404, b""), SCENE), UnknownModel)
    assert isinstance(error_of(failure_of(404, b"<html>"), SCENE), BackendProtocolError)
    detail = b'{"detail": "Not Found"}'
    assert isinstance(error_of(failure_of(404, detail), SCENE), BackendProtocolError)


def test_an_error_inside_a_stream_reads_like_a_500_unless_it_has_its_own_number() -> None:
    texts: Json = {"code": "server_error", "type": "server_error", "message": LOAD + "Unknown"}

    assert isinstance(error_of(failure_in(texts), SCENE), ModelLoadFailed)
    assert isinstance(error_of(failure_in({"code": 503, "message": "x"}), SCENE), BackendBusy)
    assert isinstance(error_of(failure_in({"code": 7, "message": "x"}), SCENE), BackendFailed)
    assert isinstance(error_of(failure_in({"code": True}), SCENE), BackendFailed)


# What is quoted, and what never is


def test_why_a_model_could_not_be_loaded_is_told_in_the_backends_words() -> None:
    error = told(500, LOAD + "Unknown desc = no such file: flux.gguf")

    assert error.message.startswith("backend gpu could not load the model: failed to load model")
    assert "flux.gguf" in error.message


def test_a_refusal_without_a_name_says_where_its_reason_is_found() -> None:
    error = told(400, "failed parsing request body: a fox")

    assert "fox" not in error.message
    assert error.hint.startswith("its log says why")


def test_quoted_words_are_cut_and_escaped() -> None:
    error = told(500, "could not load model: \x1b[31m\u202e\n\x00" + "x" * 5000)

    assert len(error.message) < LONGEST_QUOTE + 100
    assert error.message.isprintable()
    assert "\\u001b" in error.message


@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 500, 501, 502, 503, 504]
)
@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "failed parsing request body: {}",
        "rpc error: code = Unknown desc = Exception calling application: {}",
        "could not load model: {}",
        "could not load model:\n{}",
        "{} load is in cooldown",
        "capacity reached: {}",
        "out of memory at {}",
        "context size {}",
    ],
)
def test_nothing_that_a_caller_wrote_comes_back_in_an_error(status: int, around: str) -> None:
    prompt = "a fox called canary-7d1f under the moon"
    scene = Scene("gpu", "m", private=("something else", prompt, "key-canary-91"))

    for secret in (prompt, prompt.upper().lower(), prompt[4:30], "key-canary-91"):
        failure = Failure(status, kind=around.format(secret), text=around.format(secret))
        error = error_of(failure, scene)
        assert "canary" not in f"{error.message} {error.hint}"


def test_a_secret_is_recognised_whatever_its_white_space() -> None:
    scene = Scene("gpu", "m", private=("one two\n\tthree four  five",))

    error = error_of(Failure(500, text="could not load model: two three\nfour five"), scene)

    assert "three" not in error.message


def test_nothing_is_quoted_when_a_request_is_too_long_to_be_searched() -> None:
    scene = Scene("gpu", "m", private=("word " * (LONGEST_SEARCH // 5), "?"))

    error = error_of(Failure(500, text="could not load model: no such file"), scene)

    assert "no such file" not in error.message


def test_words_that_are_too_short_to_be_a_secret_do_not_silence_the_backend() -> None:
    scene = Scene("gpu", "m", private=("", "a", "no"))

    error = error_of(Failure(500, text="could not load model: no such file"), scene)

    assert "no such file" in error.message
