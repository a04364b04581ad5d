"""What a simulated voice says: one soft tone a syllable, in a WAV that says that it is simulated.

Sound is 16-bit, mono. The notes come from the words, the pitch from the voice.
"""

import math
import re
import struct
from collections.abc import Iterator
from functools import lru_cache

from .seeds import rng_for

SOFTWARE = "inference-manager simulator"
RATE = 16_000
SECONDS_A_CHARACTER = 0.06
LONGEST = 600.0
"""Seconds; more sound than that is not made."""

_NOTES = (0, 2, 4, 7, 9, 12)
_LOUDEST = 8_000
_SYLLABLE = re.compile(r"[^aeiouyäöü]*[aeiouyäöü]+(?:[^aeiouyäöü]+$)?", re.IGNORECASE)
_WORD = re.compile(r"\w+")


def seconds_of(text: str, speed: float = 1.0) -> float:
    """Tell how long it takes to say a text."""
    return len(text) * SECONDS_A_CHARACTER / speed


def spoken(text: str, *, voice: str = "", speed: float = 1.0, rate: int = RATE) -> Iterator[bytes]:
    """Yield the samples of a text, word by word and pause by pause."""
    base = 160.0 * 2 ** rng_for("voice", voice).random()
    said = 0
    for word in _WORD.finditer(text):
        yield _silence(round((word.start() - said) * SECONDS_A_CHARACTER / speed * rate))
        syllables: list[str] = _SYLLABLE.findall(word[0]) or [word[0]]
        length = round(len(word[0]) * SECONDS_A_CHARACTER / speed * rate)
        for number, syllable in enumerate(syllables, 1):
            begin, end = (length * n // len(syllables) for n in (number - 1, number))
            note = rng_for("note", syllable.lower()).choice(_NOTES)
            yield _tone(base * 2 ** (note / 12), end - begin, rate)
        said = word.end()
    yield _silence(round((len(text) - said) * SECONDS_A_CHARACTER / speed * rate))


def sounding(text: str, seconds: float, rate: int = RATE) -> Iterator[bytes]:
    """Yield the samples of a tune that goes on for so many seconds."""
    rng = rng_for("tune", text)
    left = round(seconds * rate)
    while left > 0:
        length = min(left, rng.choice((1, 2, 4)) * rate // 8)
        yield _tone(220.0 * 2 ** (rng.choice(_NOTES) / 12), length, rate)
        left -= length


def wav_head(samples: int | None, *, note: str, rate: int = RATE) -> bytes:
    """Return all of a WAV but its samples; an unknown number of them counts as the highest."""
    info = b"INFO" + _chunk(b"ISFT", _text(SOFTWARE)) + _chunk(b"ICMT", _text(note))
    form = _chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16))
    head = b"WAVE" + form + _chunk(b"LIST", info)
    size = 0xFFFFFFFF if samples is None else 2 * samples
    whole = min(len(head) + 8 + size, 0xFFFFFFFF)
    return b"RIFF" + struct.pack("<I", whole) + head + b"data" + struct.pack("<I", size)


def wav(samples: bytes, *, note: str, rate: int = RATE) -> bytes:
    """Return a whole WAV."""
    return wav_head(len(samples) // 2, note=note, rate=rate) + samples


@lru_cache(maxsize=64)
def _tone(hertz: float, length: int, rate: int) -> bytes:
    """Return a sine that swells and fades."""
    turn, swell = math.tau * hertz / rate, math.pi / max(1, length)
    loudness = (math.sin(swell * n) * math.sin(turn * n) for n in range(length))
    return struct.pack(f"<{length}h", *(round(_LOUDEST * value) for value in loudness))


def _silence(length: int) -> bytes:
    return bytes(2 * length)


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
