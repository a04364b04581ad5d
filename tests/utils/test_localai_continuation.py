"""What LocalAI writes where it goes on with a text, failures among it."""

import json

import pytest

from src.models.errors import (
    BackendError,
    BackendFailed,
    BackendProtocolError,
    EmptyResult,
    ModelCrashed,
    ModelLoadFailed,
    StreamCut,
)
from src.models.results import ChoiceEnd, TextDelta
from src.utils.localai_continuation import Continuation
from src.utils.localai_errors import Scene

SCENE = Scene("gpu", private=("a secret prompt",))
USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
DONE = "[DONE]"
CRASH = "Internal error: rpc error: code = Unavailable desc = error reading from server: EOF"


def piece(text: object, reason: object = None) -> str:
    choice = {"index": 0, "finish_reason": reason, "text": text}
    return json.dumps({"object": "text_completion", "choices": [choice]})


def read(*events: str, longest: int | None = None) -> tuple[list[str], ChoiceEnd]:
    told = Continuation(SCENE, choice=2, longest=longest)
    deltas = [told.read(event) for event in events]
    found = [delta for delta in deltas if delta is not None]
    assert all(delta == TextDelta(delta.text, choice=2) for delta in found)
    return [delta.text for delta in found], told.end()


def failure(*events: str) -> BackendError:
    with pytest.raises(BackendError) as failed:
        read(*events)
    return failed.value


def test_a_text_is_gone_on_with_piece_by_piece() -> None:
    texts, end = read(piece("1"), piece(" 2"), piece(""), piece("", "stop"), USAGE, DONE)

    assert (texts, end) == (["1", " 2"], ChoiceEnd("stop", 2))


def test_it_shows_how_far_it_is_and_counts_what_the_backend_counted() -> None:
    told = Continuation(SCENE)
    assert not told.begun

    for event in (piece("1"), piece("", "stop"), USAGE, DONE):
        told.read(event)

    assert repr(told) == "<Continuation [done=True, reason='stop']>"
    assert told.begun
    assert told.tokens == (5, 2)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (CRASH, ModelCrashed),
        ("Internal error: failed to load model with internal loader: no file", ModelLoadFailed),
        ("Internal error: something", BackendFailed),
    ],
)
@pytest.mark.parametrize("before", [(), (piece("1"),)])
def test_a_failure_that_is_written_as_text_is_one(
    text: str, kind: type[BackendError], before: tuple[str, ...]
) -> None:
    told = Continuation(SCENE)
    for event in before:
        told.read(event)

    assert told.read(piece(text, "stop")) is None, "nobody sees it as text"
    with pytest.raises(kind):
        told.end()


def test_a_failure_repeats_nothing_of_the_prompt() -> None:
    text = "Internal error: failed to load model: a secret prompt"

    assert "secret" not in failure(piece(text, "stop")).message


def test_a_text_that_only_looks_like_a_failure_is_a_text() -> None:
    last, _ = read(piece(CRASH, "stop"), USAGE, DONE)
    middle, _ = read(piece(CRASH), piece(" so it said"), piece("", "stop"), DONE)
    goes_on, _ = read(piece(CRASH, "stop"), piece("!", "stop"), DONE)

    assert last == [CRASH]
    assert middle == [CRASH, " so it said"]
    assert goes_on == [CRASH + "!"]


def test_what_may_be_a_failure_is_none_of_the_answer_if_only_the_end_mark_is_torn() -> None:
    told = Continuation(SCENE)
    told.read(piece(CRASH, "stop"))

    told.last(["[DONE]"])

    with pytest.raises(ModelCrashed):
        told.end()


def test_a_torn_end_mark_is_one_all_the_same() -> None:
    told = Continuation(SCENE)
    told.read(piece("1", "stop"))

    told.last([" [DONE]"])

    assert told.end() == ChoiceEnd("stop")


def test_an_answer_that_is_as_long_as_was_allowed_ended_for_its_length() -> None:
    whole = (piece("1 2"), piece("", "stop"), USAGE, DONE)

    reasons = [read(*whole, longest=longest)[1].reason for longest in (None, 3, 2, 1)]

    assert reasons == ["stop", "stop", "length", "length"]


def test_what_ends_before_it_is_done_is_cut_short() -> None:
    assert isinstance(failure(piece("1")), StreamCut)
    assert isinstance(failure(piece("1", "stop")), StreamCut)
    assert isinstance(failure(), StreamCut)


def test_an_end_without_a_reason_is_no_answer() -> None:
    assert isinstance(failure(piece("1"), DONE), EmptyResult)


def test_an_error_event_is_an_error() -> None:
    event = json.dumps({"error": {"message": "code = Unavailable desc = EOF"}})

    assert isinstance(failure(piece("1"), event), ModelCrashed)


def test_events_without_a_text_are_skipped_and_halves_of_characters_mended() -> None:
    texts, _ = read('{"type": "odd"}', piece(None), piece("a\ud800"), piece(None, "stop"), DONE)

    assert texts == ["a\ufffd"]


@pytest.mark.parametrize(
    "event",
    [
        "17",
        "{",
        '{"choices": 17}',
        '{"choices": [17]}',
        piece(17),
        piece("1", 17),
        piece(["1"]),
    ],
)
def test_what_is_no_part_of_a_completion_is_refused(event: str) -> None:
    assert isinstance(failure(event), BackendProtocolError)
