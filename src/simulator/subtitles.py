"""The shapes of a transcript: plain text, SubRip, WebVTT, LRC."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence and when it was said, in seconds."""

    start: float
    end: float
    text: str


def spread(sentences: Sequence[str], seconds: float) -> list[Segment]:
    """Give each sentence its time, in proportion to its length."""
    total = sum(map(len, sentences)) or 1
    segments: list[Segment] = []
    said = 0
    for sentence in sentences:
        start, said = said, said + len(sentence)
        segments.append(
            Segment(round(seconds * start / total, 3), round(seconds * said / total, 3), sentence)
        )
    return segments


def txt(segments: Sequence[Segment]) -> str:
    """One sentence a line."""
    return "".join(f"{segment.text}\n" for segment in segments)


def srt(segments: Sequence[Segment]) -> str:
    """SubRip."""
    return "".join(
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n{segment.text}\n\n"
        for number, segment in enumerate(segments, 1)
    )


def vtt(segments: Sequence[Segment]) -> str:
    """WebVTT."""
    cues = (
        f"{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{segment.text}\n\n"
        for segment in segments
    )
    return "".join(["WEBVTT\n\n", *cues])


def lrc(segments: Sequence[Segment]) -> str:
    """Lyrics: minutes, seconds and hundredths before each line."""
    return "".join(
        f"[{int(segment.start // 60):02}:{segment.start % 60:05.2f}] {segment.text}\n"
        for segment in segments
    )


FORMATS: Mapping[str, tuple[str, Callable[[Sequence[Segment]], str]]] = {
    "txt": ("text/plain; charset=utf-8", txt),
    "srt": ("application/x-subrip", srt),
    "vtt": ("text/vtt; charset=utf-8", vtt),
    "lrc": ("text/plain; charset=utf-8", lrc),
}
"""By name: the content type, and how it is written."""


def _clock(seconds: float, mark: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{thousandths:03}"
