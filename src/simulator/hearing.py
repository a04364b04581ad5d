"""What a simulated model hears: true statements about a WAV, computed from its samples."""

import math
import re
import struct
import wave
from array import array
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby, pairwise
from operator import mul

from .sound import SOFTWARE

_CHANNELS = {1: "mono", 2: "stereo"}
_OTHERS = {
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"\xff\xf3": "MP3",
    b"OggS": "Ogg",
    b"ftyp": "MP4",
    b"fLaC": "FLAC",
    b"\x1aE\xdf\xa3": "WebM",
}
_WINDOW_S = 0.05
_QUIET = 0.02
"""A window with less than this share of the loudest one's power belongs to a pause."""

_MADE_FROM = re.compile(rb"ICMT(....)", re.DOTALL)


class NotAudio(ValueError):
    """The bytes are no audio."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What is said of a recording, and how many seconds it lasts."""

    sentences: list[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Recording:
    """The first channel of a WAV, in 16 bits."""

    samples: "array[int]"
    rate: int
    channels: int


def seconds_in(data: bytes) -> float:
    """Tell how long a recording lasts; 0 if it is no WAV."""
    recording = _opened(data)
    return 0.0 if recording is None else len(recording.samples) / recording.rate


def heard(data: bytes) -> Heard:
    """Describe a recording. Only a WAV is listened to; of others no more than the format is told.

    Raises:
        NotAudio: it is none.

    """
    recording = _opened(data)
    if recording is None:
        known = [name for mark, name in _OTHERS.items() if mark in (data[: len(mark)], data[4:8])]
        if not known:
            raise NotAudio("invalid data found when processing input")
        return Heard([f"{known[0]} audio of {len(data)} bytes, not listened to."], 0.0)
    seconds = len(recording.samples) / recording.rate
    channels = _CHANNELS.get(recording.channels, f"{recording.channels} channels")
    facts = f"{seconds:.2f} seconds of sound, {recording.rate} Hz, {channels}."
    sentences = [facts, *_listened(recording)]
    text = _made_from(data)
    if text is not None:
        sentences.append(f'It was made by this simulator from "{text}".')
    return Heard(sentences, seconds)


def _opened(data: bytes) -> _Recording | None:
    try:
        with wave.open(BytesIO(data)) as opened:
            width, channels = opened.getsampwidth(), opened.getnchannels()
            rate, frames = opened.getframerate(), opened.readframes(opened.getnframes())
    except (wave.Error, EOFError, RuntimeError):  # the last at a chunk that ends too late
        return None
    if not rate or width > 4:
        return None
    if width == 1:  # the only one without a sign
        samples = array("h", ((value - 128) << 8 for value in frames[::channels]))
    else:
        step = width * channels
        whole = len(frames) - len(frames) % step
        upper = bytearray(2 * (whole // step))
        upper[::2], upper[1::2] = frames[width - 2 : whole : step], frames[width - 1 : whole : step]
        samples = array("h", struct.unpack(f"<{len(upper) // 2}h", upper))
    return _Recording(samples, rate, channels)


def _listened(recording: _Recording) -> list[str]:
    samples = recording.samples
    size = max(1, round(recording.rate * _WINDOW_S))
    windows = [samples[start : start + size] for start in range(0, len(samples), size)]
    powers = [sum(map(mul, window, window)) / len(window) for window in windows]
    if not any(powers):
        return ["Nothing but silence."]
    loud = [power >= _QUIET * max(powers) for power in powers]
    mean = sum(power * len(window) for power, window in zip(powers, windows, strict=True))
    level = 10 * math.log10(mean / len(samples) / 32768**2)
    crossings, length = 0, 0
    for start, is_loud in zip(range(0, len(samples), size), loud, strict=True):
        if is_loud:
            window = samples[start : start + size + 1]
            crossings += sum((one < 0) != (other < 0) for one, other in pairwise(window))
            length += len(window) - 1
    hertz = crossings / 2 * recording.rate / max(1, length)
    pauses = sum(1 for is_loud, _ in groupby(loud) if not is_loud)
    return [f"Loudness {level:.0f} dB, main frequency {hertz:.0f} Hz.", f"Pauses: {pauses}."]


def _made_from(data: bytes) -> str | None:
    """Return the text that a WAV of this simulator was made from."""
    head = data[: data.find(b"data")]
    found = _MADE_FROM.search(head)
    if SOFTWARE.encode() not in head or found is None:
        return None
    [size] = struct.unpack("<I", found[1])
    note = head[found.end() : found.end() + size].rstrip(b"\0").decode(errors="replace")
    return note.removeprefix("[simulated] ")
