"""The guard for recordings: what may come in, and what is said of everything else."""

import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.models.errors import InvalidInput
from src.utils.sound import MAX_SENT_BYTES, recording_type


def wav(seconds: float = 0.5, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(bytes(2 * int(seconds * rate)))
    return buffer.getvalue()


def box(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def frames(header: bytes) -> bytes:
    return (header + bytes(413)) * 4


SOUND = bytes(range(200))
RECORDINGS = {
    "audio/wav": wav(),
    "audio/mpeg": frames(b"\xff\xfb\x90\x00"),
    "audio/flac": b"fLaC\x00\x00\x00\x22" + SOUND,
    "audio/ogg": b"OggS\x00\x02" + SOUND,
    "audio/mp4": box(b"ftyp", b"M4A " + bytes(8)) + box(b"moov", SOUND) + box(b"mdat", SOUND),
    "audio/webm": b"\x1a\x45\xdf\xa3" + SOUND,
}
OTHERS = {
    "text": b"hello, I am no recording, but a text of some length",
    "text in UTF-16": "hello, I am a text in UTF-16, which begins like MP3".encode("utf-16"),
    "a picture": b"\xff\xd8\xff\xe0" + SOUND,
    "bare AAC": frames(b"\xff\xf1\x50\x80"),
    "MPEG layer I": frames(b"\xff\xff\x90\x00"),
    "MPEG without a rate": frames(b"\xff\xfb\xf0\x00"),
    "AVI": b"RIFF\x00\x01\x00\x00AVI " + SOUND,
    "a page": b"<html>" + SOUND,
    "two bytes": b"\xff\xfb",
}


def refusal(data: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        recording_type(data, "audio")
    assert refused.value.param == "audio"
    assert "audio" in refused.value.message
    return refused.value


@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_recording_is_known_by_what_it_holds(kind: str) -> None:
    assert recording_type(RECORDINGS[kind], "audio") == kind


def test_an_mp3_may_begin_with_a_tag() -> None:
    assert recording_type(b"ID3\x04\x00\x00" + SOUND, "audio") == "audio/mpeg"


@pytest.mark.parametrize("other", OTHERS)
def test_anything_else_is_refused_with_what_would_be_right(other: str) -> None:
    error = refusal(OTHERS[other])

    assert "is not a WAV, MP3" in error.message
    assert "job:<id>" in error.hint


def test_nothing_is_refused_as_empty() -> None:
    assert refusal(b"").message == "audio is empty"


def test_a_wav_without_sound_is_refused() -> None:
    assert "no sound" in refusal(wav(0)).message


@pytest.mark.parametrize("kept", [20, 43, 100, 4000])
def test_a_wav_that_was_cut_short_is_refused(kept: int) -> None:
    assert "cut short" in refusal(wav()[:kept]).message


def test_a_wav_that_was_recorded_without_knowing_its_length_is_taken() -> None:
    endless = bytearray(wav())
    endless[40:44] = b"\xff\xff\xff\xff"

    assert recording_type(bytes(endless), "audio") == "audio/wav"


@pytest.mark.parametrize("missing", [1, 150, 300])
def test_an_m4a_that_was_cut_short_is_refused(missing: int) -> None:
    assert "cut short" in refusal(RECORDINGS["audio/mp4"][:-missing]).message


@pytest.mark.parametrize("kind", RECORDINGS)
def test_a_mere_beginning_is_refused(kind: str) -> None:
    assert "cut short" in refusal(RECORDINGS[kind][:16]).message


def test_as_much_is_taken_as_localai_takes_and_no_more() -> None:
    assert recording_type(RECORDINGS["audio/ogg"].ljust(MAX_SENT_BYTES, b"."), "audio")

    error = refusal(RECORDINGS["audio/ogg"].ljust(MAX_SENT_BYTES + 1, b"."))

    assert "14,000,000" in error.message
    assert "MP3" in error.hint


@given(st.sampled_from([b"", *(data[:60] for data in RECORDINGS.values())]), st.binary())
def test_any_bytes_are_either_a_recording_or_refused(start: bytes, rest: bytes) -> None:
    try:
        kind = recording_type(start + rest, "audio")
    except InvalidInput:
        return
    assert kind in RECORDINGS
