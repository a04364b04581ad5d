import math
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.simulator.hearing import NotAudio, heard, seconds_in
from src.simulator.sound import RATE, spoken, wav


def tone(hertz: float, seconds: float, rate: int = 8000, loudness: int = 16384) -> list[int]:
    turn = math.tau * hertz / rate
    return [round(loudness * math.sin(turn * n)) for n in range(round(seconds * rate))]


def recording(samples: list[int], *, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """A WAV with the same samples in each channel, of 8, 16, 24 or 32 bits."""
    scaled = (value * 256 ** (width - 2) if width > 1 else value // 256 + 128 for value in samples)
    frames = b"".join(
        int(value).to_bytes(width, "little", signed=width > 1) * channels for value in scaled
    )
    block = width * channels
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * block, block, 8 * width)
    body = b"WAVE" + form + b"data" + struct.pack("<I", len(frames)) + frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize(("channels", "said"), [(1, "mono"), (2, "stereo"), (3, "3 channels")])
def test_a_tone_is_described_truly(width: int, channels: int, said: str) -> None:
    found = heard(recording(tone(440, 0.5), channels=channels, width=width))

    assert found.seconds == 0.5
    assert found.sentences[0] == f"0.50 seconds of sound, 8000 Hz, {said}."
    level = re.fullmatch(r"Loudness -9 dB, main frequency (\d+) Hz.", found.sentences[1])
    assert level is not None
    assert int(level[1]) == pytest.approx(440, abs=2)
    assert found.sentences[2] == "Pauses: 0."


def test_pauses_are_counted() -> None:
    quiet = [0] * 1600

    found = heard(recording([*tone(300, 0.2), *quiet, *tone(300, 0.2), *quiet, *tone(300, 0.2)]))

    assert found.sentences[2] == "Pauses: 2."


@pytest.mark.parametrize("samples", [[], [0] * 800])
def test_silence_is_heard_as_such(samples: list[int]) -> None:
    assert heard(recording(samples)).sentences[1] == "Nothing but silence."


def test_the_simulators_own_voice_is_understood() -> None:
    said = wav(b"".join(spoken("hello there")), note="[simulated] hello there")

    assert heard(said).sentences[-1] == 'It was made by this simulator from "hello there".'
    assert seconds_in(said) == pytest.approx(0.66, abs=1 / RATE)


def test_of_other_formats_no_more_than_the_name_is_told() -> None:
    found = heard(b"ID3" + bytes(97))

    assert found.sentences == ["MP3 audio of 100 bytes, not listened to."]
    assert found.seconds == seconds_in(b"ID3") == 0
    assert heard(b"\0\0\0\x1cftypM4A ").sentences == ["MP4 audio of 12 bytes, not listened to."]


@given(st.binary(max_size=200))
def test_no_bytes_are_worse_than_no_audio(data: bytes) -> None:
    try:
        heard(data)
    except NotAudio:
        assert seconds_in(data) == 0


@given(st.integers(0, 60), st.binary(min_size=1, max_size=4))
def test_a_wav_with_a_damaged_head_is_described_or_refused(place: int, damage: bytes) -> None:
    sound = recording(tone(300, 0.05))

    try:
        found = heard(sound[:place] + damage + sound[place + len(damage) :])
    except NotAudio:
        return
    assert found.seconds >= 0
