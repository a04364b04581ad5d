import json

import pytest

from src.simulator.client import ControlClient
from src.simulator.sound import spoken, wav
from tests.simulator.form import multipart, post_form
from tests.simulator.raw import Answer, Raw, hang_up

PATH = "/v1/audio/transcriptions"
TEXT = "hello there"
HELLO = wav(b"".join(spoken(TEXT)), note=f"[simulated] {TEXT}")


def heard(raw: Raw, data: bytes = HELLO, **fields: str) -> Answer:
    return post_form(raw, PATH, {"model": "sim-voice", **fields}, {"file": data})


def test_the_usual_answer_has_text_duration_and_segments(raw: Raw, control: ControlClient) -> None:
    answer = heard(raw, language="en")

    body = answer.json
    assert answer.status == 200
    assert list(body) == ["text", "language", "duration", "segments"]
    assert body["text"].startswith("[simulated] 0.66 seconds of sound, 16000 Hz, mono.")
    assert body["text"].endswith('It was made by this simulator from "hello there".')
    assert (body["language"], body["duration"]) == ("en", 0.66)
    assert list(body["segments"][0]) == ["id", "start", "end", "text", "tokens"]
    assert body["segments"][-1]["end"] == 0.66
    entry = control.requests()[-1]
    assert (entry.modality, entry.done) == ("audio2txt", 1)


def test_words_are_timed_on_demand(raw: Raw) -> None:
    fields = {"timestamp_granularities[]": ["word", "segment"]}
    body = post_form(raw, PATH, fields, {"file": HELLO}).json

    assert " ".join(word["word"] for word in body["words"]) == body["text"]
    assert body["words"][-1]["end"] == pytest.approx(0.66)


def test_json_is_the_text_alone(raw: Raw) -> None:
    assert list(heard(raw, response_format="json").json) == ["text"]


@pytest.mark.parametrize(
    ("wanted", "content_type", "opening"),
    [
        ("txt", "text/plain; charset=utf-8", "[simulated] 0.66 seconds"),
        ("srt", "application/x-subrip", "1\n00:00:00,000 --> 00:00:"),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n00:00:00.000 --> "),
        ("lrc", "text/plain; charset=utf-8", "[00:00.00] [simulated]"),
    ],
)
def test_subtitles_come_as_text(raw: Raw, wanted: str, content_type: str, opening: str) -> None:
    answer = heard(raw, response_format=wanted)

    assert answer.headers["content-type"] == content_type
    assert answer.body.decode().startswith(opening)


def test_the_format_text_is_refused_once_the_work_is_done(raw: Raw, control: ControlClient) -> None:
    answer = heard(raw, response_format="text")

    assert answer.status == 500
    assert control.requests()[-1].done == 1


def test_a_form_without_a_file_is_a_500_in_gos_words(raw: Raw) -> None:
    missing = post_form(raw, PATH, {"model": "sim-voice"}, {})
    no_form = raw.post(PATH, {"model": "sim-voice"})

    assert (missing.status, missing.json["error"]["message"]) == (500, "http: no such file")
    assert (no_form.status, no_form.json["error"]["message"]) == (500, "http: no such file")


def test_a_form_that_does_not_parse_is_a_400(raw: Raw) -> None:
    answer = raw.send("POST", PATH, b"no form", Content_Type="multipart/form-data; boundary=x")
    unbound = raw.send("POST", PATH, b"no form", Content_Type="multipart/form-data")

    assert (answer.status, unbound.status) == (400, 400)


def test_bytes_that_are_no_audio_are_the_backends_error(raw: Raw) -> None:
    answer = heard(raw, b"no audio")

    assert answer.status == 500
    assert answer.json["error"]["message"].startswith("rpc error: code = Unknown desc = ")


def test_a_stream_tells_what_is_heard_bit_by_bit(raw: Raw) -> None:
    answer = heard(raw, stream="true")

    *deltas, whole, done = answer.events
    assert answer.headers["content-type"] == "text/event-stream"
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert whole["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == whole["text"] == heard(raw).json["text"]
    assert done == "[DONE]"


def test_the_head_of_a_stream_is_sent_before_anything_is_loaded(
    raw: Raw, control: ControlClient
) -> None:
    control.patch_model("sim-voice", load_s=1000)
    control.patch(speed=1)
    body, content_type = multipart({"stream": "true"}, {"file": HELLO})
    connection = raw.open_bytes(PATH, body, Content_Type=content_type)

    try:
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        control.wait(state="waiting")
        while control.state().models["sim-voice"].state == "unloaded":
            pass  # the journal is written just before the engine is asked
        assert control.state().models["sim-voice"].state == "loading"
    finally:
        hang_up(connection)


def test_failures_of_a_stream_come_as_an_event(raw: Raw, control: ControlClient) -> None:
    control.add_fault("load_failure")

    failed = heard(raw, stream="true")

    assert failed.status == 200
    assert list(failed.events[0]) == ["type", "error"]
    assert failed.events[0]["type"] == "error"
    assert "could not load model" in failed.events[0]["error"]["message"]
    assert failed.events[0]["error"]["type"] == "server_error"
    assert failed.events[1:] == ["[DONE]"]


def test_a_stream_may_lack_its_done(raw: Raw, control: ControlClient) -> None:
    control.add_fault("no_done")

    assert heard(raw, stream="true").events[-1]["type"] == "transcript.text.done"


@pytest.mark.parametrize("fields", [{}, {"response_format": "srt"}, {"stream": "true"}])
def test_garbage_comes_instead_of_a_transcript(
    raw: Raw, control: ControlClient, fields: dict[str, str]
) -> None:
    control.add_fault("garbage")

    with pytest.raises(json.JSONDecodeError):
        json.loads(post_form(raw, PATH, fields, {"file": HELLO}).body)
