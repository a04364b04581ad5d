import wave
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.simulator.sound import RATE, seconds_of, sounding, spoken, wav, wav_head


@given(st.text(max_size=60), st.sampled_from([0.25, 1.0, 1.7, 4.0]))
def test_what_is_said_is_as_long_as_its_text(text: str, speed: float) -> None:
    samples = b"".join(spoken(text, speed=speed))

    assert len(samples) % 2 == 0
    assert len(samples) / 2 / RATE == pytest.approx(seconds_of(text, speed), abs=0.01)


def test_a_voice_and_a_word_have_their_tones() -> None:
    def said(text: str, voice: str) -> bytes:
        return b"".join(spoken(text, voice=voice))

    assert said("hello there", "a") == said("hello there", "a")
    assert said("hello there", "a") != said("hello there", "b")
    assert said("hello there", "a") != said("evening sun", "a")


@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.3])
def test_a_tune_lasts_exactly(seconds: float) -> None:
    assert len(b"".join(sounding("rain", seconds))) == 2 * round(seconds * RATE)


def test_a_wav_can_be_read_and_says_where_it_comes_from() -> None:
    data = wav(b"\1\0\2\0", note="[simulated] odd", rate=8000)

    with wave.open(BytesIO(data)) as opened:
        facts = opened.getparams()[:4]
        samples = opened.readframes(2)
    assert facts == (1, 2, 8000, 2)
    assert samples == b"\1\0\2\0"
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    assert b"ISFT" in data
    assert b"[simulated] odd\0" in data


def test_a_wav_without_end_has_the_highest_sizes() -> None:
    head = wav_head(None, note="")

    assert head[4:8] == head[-4:] == b"\xff\xff\xff\xff"
