"""How transcripts are written: as bare text, as JSON, as SubRip and WebVTT, as a stream."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from starlette.responses import Response

from ...models.jobs import Job
from ...models.results import Chunk, Heard, Result, Segment, TextDelta
from ..errors import ErrorDetail
from .shapes import DONE, json_answer, sse

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """How one caller wants its transcript.

    Attributes:
        form: which of the formats.
        task: `transcribe` or `translate`.
        language: what the caller said it is, told where the backend does not.
        temperature: as it was asked for.

    """

    form: Format
    task: str
    language: str
    temperature: float

    def written(self, _: Job, result: Result) -> Response:
        """Answer with a transcript."""
        heard = result.heard or Heard()
        match self.form:
            case "json":
                return json_answer({"text": result.text, **_usage(heard)})
            case "verbose_json":
                return json_answer(self._verbose(result.text, heard))
            case "text":
                return Response(f"{result.text}\n", media_type="text/plain")
            case "srt":
                return Response(_srt(_cues(result.text, heard)), media_type="text/plain")
            case "vtt":
                return Response(_vtt(_cues(result.text, heard)), media_type="text/vtt")

    def _verbose(self, text: str, heard: Heard) -> Mapping[str, Any]:
        return {
            "task": self.task,
            "language": heard.language or self.language,
            "duration": _length(heard),
            "text": text,
            "segments": [
                self._segment(number, segment) for number, segment in enumerate(heard.segments)
            ],
            **_usage(heard),
        }

    def _segment(self, number: int, segment: Segment) -> Mapping[str, Any]:
        """Write a segment; what the backend does not tell has a value that warns of nothing."""
        told: dict[str, Any] = {
            "id": number,
            "seek": 0,
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "tokens": [],
            "temperature": self.temperature,
            "avg_logprob": 0.0,
            "compression_ratio": 1.0,
            "no_speech_prob": 0.0,
        }
        return {**told, "speaker": segment.speaker} if segment.speaker else told


class TranscriptFrames:
    """Writes a transcript as the events of OpenAI's streams."""

    def __init__(self) -> None:
        self._begun = False

    def frame(self, chunk: Chunk) -> bytes:
        """Write a piece; nothing if it is no text."""
        return self._delta(chunk.text) if isinstance(chunk, TextDelta) else b""

    def closing(self, job: Job, result: Result) -> bytes:  # noqa: ARG002 - as `Frames` has it
        """Write all of it at the end; before that as a piece, if no piece came."""
        missing = b"" if self._begun or not result.text else self._delta(result.text)
        return missing + sse({"type": "transcript.text.done", "text": result.text}) + DONE

    def failed(self, detail: ErrorDetail) -> bytes:
        """Write that there will be no more, and why."""
        return sse({"error": detail.model_dump(exclude_none=True)}) + DONE

    def _delta(self, text: str) -> bytes:
        self._begun = True
        return sse({"type": "transcript.text.delta", "delta": text})


def _usage(heard: Heard) -> Mapping[str, Any]:
    if heard.seconds is None:
        return {}
    return {"usage": {"type": "duration", "seconds": ceil(heard.seconds)}}  # as it is billed


def _length(heard: Heard) -> float:
    if heard.seconds is not None:
        return heard.seconds
    return max((segment.end for segment in heard.segments), default=0.0)


def _cues(text: str, heard: Heard) -> list[Segment]:
    """Return the parts that are shown, each on one line; a text without parts is one."""
    parts = heard.segments or (Segment(0.0, _length(heard), text),)
    shown = [Segment(part.start, part.end, _line(part.text)) for part in parts]
    return [part for part in shown if part.text]


def _line(text: str) -> str:
    """Put a text on one line that cannot be taken for the times of another."""
    return " ".join(text.split()).replace("-->", "->")


def _srt(cues: Iterable[Segment]) -> str:
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues, 1)
    )


def _vtt(cues: Iterable[Segment]) -> str:
    written = (
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{cue.text}\n\n" for cue in cues
    )
    return "".join(["WEBVTT\n\n", *written])


def _clock(seconds: float, mark: str) -> str:
    whole, thousandths = divmod(round(max(seconds, 0.0) * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{thousandths:03}"
