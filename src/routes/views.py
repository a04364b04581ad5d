"""How a job looks from outside: the same fields in MCP results and HTTP answers.

What is large stays away unless a door puts it in: media are addresses, vectors are numbers to be
fetched.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..handles import result_of
from ..models.blobs import size_of
from ..models.errors import InferenceManagerError
from ..models.jobs import Job, JobState
from ..models.modality import Modality
from ..models.results import Call, Heard, Media, Result
from .errors import ErrorDetail, describe
from .signing import sign

EXTENSIONS: Mapping[str, str] = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mp4": "m4a",
    "audio/webm": "weba",
    "audio/aac": "aac",
    "audio/pcm": "pcm",
    "video/mp4": "mp4",
    "video/webm": "webm",
}
"""The media types that a browser may show; anything else is to be saved."""


class _MediumView(BaseModel):
    url: str = Field(description="HTTP address of it")
    uri: str = Field(description="MCP resource with the same content")
    media_type: str
    size_bytes: int


class _InputView(_MediumView):
    reference: str = Field(description="Write this in a request to use it as input")
    b64_json: str | None = Field(
        default=None, description="The content itself, with `response_format: b64_json`"
    )


class ImageView(_InputView):
    """Where a finished picture can be fetched, and what it is."""

    width: int
    height: int
    seed: int | None = None


class AudioView(_InputView):
    """Where a finished recording can be fetched, and what it is."""

    seconds: float | None = None


class VideoView(_MediumView):
    """Where a finished film can be fetched, and what it is."""


class RankView(BaseModel):
    """How relevant a document is."""

    index: int = Field(description="Which document of the request, counted from 0")
    score: float


class SegmentView(BaseModel):
    """A part of a transcript."""

    start: float = Field(description="Seconds")
    end: float
    text: str
    speaker: str | None = None


class TranscriptView(BaseModel):
    """What was found out about a recording besides its text."""

    language: str | None = None
    seconds: float | None = Field(default=None, description="Length of the recording")
    segments: list[SegmentView]


class CallView(BaseModel):
    """A function that the model calls."""

    id: str
    name: str
    arguments: str = Field(description="JSON, as the model wrote it")


class ChoiceView(BaseModel):
    """One of several answers."""

    text: str
    reasoning: str | None = None
    calls: list[CallView] | None = None
    finish_reason: str


class UsageView(BaseModel):
    """Tokens, as the backend counted them; left out where it did not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class JobView(BaseModel):
    """One job. `next` says in words what to do while it is not finished."""

    model_config = ConfigDict(use_enum_values=True)

    job_id: str
    modality: Modality
    state: JobState
    model: str | None = None
    position: int | None = Field(default=None, description="Jobs that go first; 0 is next")
    doing: str | None = Field(
        default=None,
        description="What it does or waits for, in words; after a cancel, how long its engine "
        "goes on",
    )
    attempts: int = 0
    waited_s: float = Field(description="Seconds from submission to the start, or until now")
    processing_s: float | None = Field(default=None, description="Seconds of the latest attempt")
    text: str | None = None
    reasoning: str | None = None
    calls: list[CallView] | None = Field(
        default=None, description="Functions that the model calls, instead of a text or besides"
    )
    finish_reason: str | None = None
    choices: list[ChoiceView] | None = Field(
        default=None, description="All answers, where there are several; `text` is the first"
    )
    logprobs: list[JsonValue] | None = Field(
        default=None, description="How likely each token was, if that was asked for"
    )
    images: list[ImageView] | None = None
    audio: list[AudioView] | None = None
    videos: list[VideoView] | None = None
    vectors: list[list[float]] | None = Field(
        default=None, description="One embedding for each input, in order"
    )
    vectors_url: str | None = Field(default=None, description="HTTP address of the vectors")
    ranking: list[RankView] | None = Field(default=None, description="Best first")
    transcript: TranscriptView | None = None
    usage: UsageView | None = None
    error: ErrorDetail | None = None
    simulated: bool = Field(default=False, description="Made by the simulator, not by a model")
    next: str | None = None


def view(
    job: Job,
    *,
    position: int | None,
    now: float,
    base_url: str,
    doing: str | None = None,
    simulated: bool = False,
    signed_until: int | None = None,
) -> JobView:
    """Show a job.

    Args:
        job: what is shown.
        position: how many jobs go first, if it waits in line.
        now: seconds since 1970.
        base_url: where this server is reached, without a slash at its end.
        doing: what it does or waits for, in words, if it has not ended.
        simulated: whether a simulator stands behind the server; a result says it of itself.
        signed_until: until when addresses of media need no key, in seconds since 1970; None: they
            are not signed.

    """
    end = job.ended_at if job.ended_at is not None else now
    began = job.started_at if job.started_at is not None else end
    shown = JobView(
        job_id=job.id,
        modality=job.modality,
        state=job.state,
        model=job.model,
        position=position,
        doing=doing,
        attempts=job.attempts,
        waited_s=round(max(began - job.submitted_at, 0.0), 3),
        processing_s=None if job.started_at is None else round(max(end - began, 0.0), 3),
        simulated=simulated,
        next=None if job.state.terminal else "call get_job with this job_id until it has ended",
    )
    if job.result is not None:
        _show_result(shown, job, job.result, base_url, signed_until)
    error = _why_not(job)
    shown.error = None if error is None else describe(error)
    return shown


def file_name(job_id: str, index: int, media_type: str) -> str:
    """Name a picture, a recording or a film as a file."""
    return f"{job_id}-{index}.{EXTENSIONS.get(media_type, 'bin')}"


def _show_result(
    shown: JobView, job: Job, result: Result, base_url: str, until: int | None
) -> None:
    finish, heard = result.finish, result.heard
    shown.simulated = finish.simulated
    shown.images = [
        ImageView(
            **_place(job, "images", index, image, base_url, until),
            reference=f"job:{job.id}/{index}",
            width=image.width,
            height=image.height,
            seed=image.seed,
        )
        for index, image in enumerate(result.images)
    ] or None
    shown.audio = [
        AudioView(
            **_place(job, "audio", index, audio, base_url, until),
            reference=f"job:{job.id}/{index}",
            seconds=audio.seconds,
        )
        for index, audio in enumerate(result.audio)
    ] or None
    shown.videos = [
        VideoView(**_place(job, "videos", index, video, base_url, until))
        for index, video in enumerate(result.videos)
    ] or None
    if result.vectors:
        shown.vectors_url = f"{base_url}/mcp/get_job?job_id={job.id}"
    shown.ranking = [RankView(index=r.index, score=r.score) for r in result.ranking] or None
    shown.transcript = None if heard is None else _transcript(heard)
    is_text = not (shown.images or shown.audio or shown.videos or result.vectors or shown.ranking)
    if is_text:
        _show_text(shown, result)
    if finish.prompt_tokens or finish.completion_tokens:
        shown.usage = UsageView(
            prompt_tokens=finish.prompt_tokens or None,
            completion_tokens=finish.completion_tokens or None,
        )


def _show_text(shown: JobView, result: Result) -> None:
    choices = [
        ChoiceView(
            text=choice.text,
            reasoning=choice.reasoning or None,
            calls=_calls(choice.calls),
            finish_reason=choice.reason,
        )
        for choice in result.choices
    ]
    first = choices[0]
    shown.text, shown.reasoning, shown.calls = first.text, first.reasoning, first.calls
    shown.finish_reason = first.finish_reason
    shown.choices = choices if len(choices) > 1 else None
    shown.logprobs = list(result.logprobs) or None


def _calls(calls: Sequence[Call]) -> list[CallView] | None:
    return [CallView(id=c.id, name=c.name, arguments=c.arguments) for c in calls] or None


def _place(
    job: Job, kind: str, index: int, medium: Media, base_url: str, until: int | None
) -> dict[str, Any]:
    path = f"{kind}/{job.id}/{index}"
    query = "" if until is None else f"?{sign(f'/{path}', until)}"
    return {
        "url": f"{base_url}/{path}{query}",
        "uri": f"inference://{path}",
        "media_type": medium.media_type,
        "size_bytes": size_of(medium.data),
    }


def _transcript(heard: Heard) -> TranscriptView:
    return TranscriptView(
        language=heard.language or None,
        seconds=heard.seconds,
        segments=[
            SegmentView(start=s.start, end=s.end, text=s.text, speaker=s.speaker or None)
            for s in heard.segments
        ],
    )


def _why_not(job: Job) -> InferenceManagerError | None:
    """Say why a job has no result; before its end, why its latest attempt failed."""
    if not job.state.terminal:
        return job.error
    try:
        result_of(job)
    except InferenceManagerError as error:
        return error
    return None
