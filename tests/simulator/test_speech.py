import wave
from http.client import IncompleteRead
from io import BytesIO

import pytest

from src.simulator.client import ControlClient
from src.simulator.hearing import seconds_in
from tests.simulator.raw import Answer, Raw, hang_up, read_all

TEXT = "Hello there, old friend."


def said(raw: Raw, path: str = "/v1/audio/speech", **fields: object) -> Answer:
    return raw.post(path, {"model": "sim-voice", "input": TEXT, **fields})


def test_a_text_becomes_a_wav_of_its_length(raw: Raw, control: ControlClient) -> None:
    answer = said(raw, voice="alloy")

    assert answer.status == 200
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert seconds_in(answer.body) == pytest.approx(0.06 * len(TEXT), abs=0.001)
    assert b"[simulated] Hello there" in answer.body
    entry = control.requests()[-1]
    assert (entry.modality, entry.done, entry.model) == ("txt2audio", 2, "sim-voice")


def test_three_paths_say_the_same(raw: Raw) -> None:
    bodies = {said(raw, path).body for path in ("/v1/audio/speech", "/audio/speech", "/tts")}

    assert len(bodies) == 1


def test_faster_speech_is_shorter(raw: Raw) -> None:
    slow, fast = said(raw, speed=0.25), said(raw, speed=4)

    assert seconds_in(slow.body) == pytest.approx(16 * seconds_in(fast.body), rel=0.01)


@pytest.mark.parametrize("speed", [0, 0.24, 4.01, -1])
def test_a_speed_out_of_range_is_a_400(raw: Raw, speed: float) -> None:
    assert said(raw, speed=speed).status == 400


def test_the_sample_rate_is_as_asked_for(raw: Raw) -> None:
    with wave.open(BytesIO(said(raw, sample_rate=24_000).body)) as opened:
        assert opened.getframerate() == 24_000

    assert said(raw, sample_rate=1).status == 500


def test_raw_samples_are_those_of_the_wav(raw: Raw) -> None:
    samples = said(raw, response_format="pcm")

    assert samples.headers["content-type"] == "audio/pcm"
    assert said(raw).body.endswith(samples.body)


def test_other_formats_fail_as_on_a_machine_without_ffmpeg(
    raw: Raw, control: ControlClient
) -> None:
    answer = said(raw, response_format="mp3")

    assert answer.status == 500
    assert "ffmpeg" in answer.json["error"]["message"]
    assert control.requests()[-1].done == 2


def test_more_sound_than_fits_is_a_500(raw: Raw) -> None:
    answer = said(raw, input="word " * 2001)

    assert answer.status == 500
    assert "0 to 600 seconds" in answer.json["error"]["message"]


def test_params_are_a_map_of_strings(raw: Raw) -> None:
    assert said(raw, params={"a": "b"}).status == 200
    assert said(raw, params={"a": 1}).status == 400


def test_elevenlabs_way_names_the_voice_in_the_path(raw: Raw, control: ControlClient) -> None:
    body = {"model_id": "sim-voice", "text": TEXT}

    answer = raw.post("/v1/text-to-speech/alloy", body)

    assert answer.body == said(raw, voice="alloy").body
    assert control.requests()[0].modality == "txt2audio"
    assert raw.get("/v1/text-to-speech/alloy").status == 404


def test_sound_lasts_as_long_as_asked_for(raw: Raw, control: ControlClient) -> None:
    body = {"model_id": "sim-voice", "text": "rain on a roof", "duration_seconds": 1.5}

    answer = raw.post("/v1/sound-generation", body)

    assert answer.headers["content-type"] == "audio/wav"
    assert seconds_in(answer.body) == 1.5
    assert b"[simulated] rain on a roof" in answer.body
    assert control.requests()[-1].modality == "txt2sound"
    assert raw.post("/sound-generation", body).status == 404


def test_a_sentence_is_said_to_the_end_without_its_client(raw: Raw, control: ControlClient) -> None:
    control.hold()
    left = raw.open("/tts", {"input": TEXT})
    control.wait(state="started")

    hang_up(left)

    assert control.wait(state="ended")[0].worked_on
    control.release()
    assert control.wait(state="settled")[0].done == 2


def test_speech_takes_a_twentieth_of_its_time(raw: Raw, control: ControlClient) -> None:
    said(raw, input="x" * 1000)

    entry = control.requests()[-1]
    assert entry.settled is not None
    assert entry.started is not None
    assert 3.0 <= entry.settled - entry.started < 4.0


@pytest.mark.parametrize("path", ["/tts", "/v1/sound-generation"])
def test_garbage_comes_instead_of_sound(raw: Raw, control: ControlClient, path: str) -> None:
    control.add_fault("garbage")

    answer = raw.post(path, {"input": TEXT, "text": TEXT})

    assert answer.status == 200
    assert answer.body == b'{"created":1,"object":"chat.comp'


def test_a_stream_is_a_wav_without_end_sent_bit_by_bit(raw: Raw, control: ControlClient) -> None:
    connection = raw.open("/tts", {"input": TEXT, "stream": True}, Connection="close")
    head, _, body = read_all(connection).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"content-type: audio/wav" in head.lower()
    assert b"transfer-encoding: chunked" in head.lower()
    assert body.endswith(b"0\r\n\r\n")
    whole, streamed = said(raw).body, said(raw, stream=True).body
    assert (
        streamed[40:].partition(b"data\xff\xff\xff\xff")[2] == whole[40:].partition(b"data")[2][4:]
    )
    entry = control.requests()[0]
    assert (entry.stream, entry.done, entry.modality) == (True, 15, "txt2audio")


def test_nothing_of_a_stream_is_sent_before_the_first_sound(
    raw: Raw, control: ControlClient
) -> None:
    control.hold()
    connection = raw.open("/tts", {"input": TEXT, "stream": True})
    control.wait(state="started")

    connection.settimeout(0)
    with pytest.raises(BlockingIOError):
        connection.recv(1)
    connection.settimeout(10)
    control.release()
    assert connection.recv(15) == b"HTTP/1.1 200 OK"
    connection.close()


def test_to_say_nothing_is_a_wav_of_no_length(raw: Raw) -> None:
    whole, streamed = said(raw, input=""), said(raw, input="", stream=True)

    assert seconds_in(whole.body) == 0
    assert whole.body.endswith(b"data\0\0\0\0")
    assert streamed.body.endswith(b"data\xff\xff\xff\xff")


def test_a_failure_before_the_first_sound_is_an_error_and_later_an_end(
    raw: Raw, control: ControlClient
) -> None:
    control.add_fault("stream_error", when={"times": 1})
    control.add_fault("stream_error", after_tokens=2)

    assert said(raw, stream=True).status == 500
    with pytest.raises(IncompleteRead):
        said(raw, stream=True)


def test_speech_is_never_compressed_but_other_sound_is(raw: Raw) -> None:
    body = {"input": TEXT, "text": TEXT}

    speech = raw.post("/tts", body, Accept_Encoding="gzip")
    sound = raw.post("/v1/sound-generation", body, Accept_Encoding="gzip")

    assert "content-encoding" not in speech.headers
    assert sound.headers["content-encoding"] == "gzip"
