"""`/v1/audio/...`: texts that are spoken, and recordings that are written down."""

from typing import Annotated, Literal

from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from ...models.blobs import size_of
from ...models.errors import InvalidInput
from ...models.fields import Prompt
from ...models.jobs import Job
from ...models.requests import Audio2TxtRequest, AudioFormat, Txt2AudioRequest
from ...models.results import Result
from ..doors import Asked, Door, Manner, routes
from ..incoming import Incoming, checked
from ..pieces import Pieces
from ..tools import Tools
from ..views import file_name
from .bodies import Body, Said, given
from .shapes import SPEECH, STREAMED_TRANSCRIPT, TRANSCRIPT
from .transcripts import Format, Transcript, TranscriptFrames
from .uploads import AS_TEXT, described, read_form

_RECORDING = "The recording: WAV, MP3, FLAC, OGG, OPUS, M4A or WEBM"

Short = Annotated[str, StringConstraints(max_length=256)]
Language = Annotated[str, StringConstraints(max_length=64)]


class Voice(BaseModel):
    """A voice by its name."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    id: Short


class SpeechBody(Body):
    """A text to be spoken."""

    input: Said = Field(description="What to say")
    voice: Short | Voice | None = Field(
        default=None, description="A voice of the model; left out: its own default"
    )
    response_format: AudioFormat | None = Field(
        default=None,
        description="How the recording is encoded; left out: `wav`, which every backend makes",
    )
    speed: Annotated[float, Field(ge=0.25, le=4)] | None = Field(
        default=None, description="1 is the usual speed"
    )
    instructions: Prompt | None = Field(
        default=None, description="How to say it, where the model heeds it"
    )
    language: Language | None = Field(
        default=None, description="Such as `en`, for models of several languages"
    )
    stream_format: Literal["audio"] | None = Field(
        default=None, description="The recording comes as it is, not as events"
    )

    def request(self, *, strict: bool) -> Txt2AudioRequest:
        """Return the request that is meant; raises `InvalidInput`."""
        fields = given(self, "model", "input", "speed", "instructions", "language")
        fields["options"] = self.further(strict=strict)
        if self.voice is not None:
            fields["voice"] = self.voice.id if isinstance(self.voice, Voice) else self.voice
        if self.response_format is not None:
            fields["format"] = self.response_format
        return checked(Txt2AudioRequest, fields)


class TranslationForm(Body):
    """A recording to be written down in English."""

    model_config = AS_TEXT

    language: Language | None = Field(default=None, description="Such as `en`; else found out")
    prompt: Prompt | None = Field(default=None, description="Words that are likely to occur")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=None, description="0 is the most predictable"
    )
    response_format: Format | None = Field(
        default=None, description="How it is written; `json` if left out"
    )

    def request(self, *, strict: bool, translate: bool) -> Audio2TxtRequest:
        """Return the request that is meant, for the upload `file`; raises `InvalidInput`."""
        self.further(strict=strict, understood=_WITHOUT_EFFECT)
        fields = given(self, "model", "language", "prompt", "temperature")
        return checked(Audio2TxtRequest, {**fields, "audio": "file", "translate": translate})

    def transcript(self, *, translate: bool) -> Transcript:
        """Return how it is to be written."""
        return Transcript(
            form=self.response_format or "json",
            task="translate" if translate else "transcribe",
            language=self.language or "",
            temperature=self.temperature or 0.0,
        )


_WITHOUT_EFFECT = frozenset({"chunking_strategy", "diarize", "include[]", "keywords[]"})
"""What OpenAI's models or LocalAI know, and what is not asked of any."""


def _by_segment(value: list[str] | None) -> list[str] | None:
    if value and "segment" not in value:
        raise ValueError("must hold segment: when each word was said is not known")
    return value


class TranscriptionForm(TranslationForm):
    """A recording to be written down."""

    stream: bool | None = Field(
        default=None, description="As server-sent events; only with `json` or `text`"
    )
    translate: bool | None = Field(default=None, description="Write it down in English")
    timestamp_granularities: Annotated[
        list[Literal["word", "segment"]] | None, AfterValidator(_by_segment)
    ] = Field(
        default=None,
        alias="timestamp_granularities[]",
        description="`verbose_json` tells when each segment was said; of words it is not known, "
        "so `word` has no effect beside `segment`, and is refused without",
    )


class Speech(Door):
    """Speaks texts."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read what to say."""
        body = await incoming.json(SpeechBody)
        return Asked(
            request=body.request(strict=incoming.wishes.strict),
            whole=self._recording,
            timeout_s=body.timeout,
        )

    def _recording(self, job: Job, result: Result) -> Response:
        [audio] = result.audio
        name = file_name(job.id, 0, audio.media_type)
        return Pieces(
            self.tools.blobs.stream(audio.data),
            length=size_of(audio.data),
            media_type=audio.media_type,
            headers={
                "Content-Disposition": f'attachment; filename="{name}"',
                "X-Content-Type-Options": "nosniff",
            },
            send_s=self.manner.send_s,
        )


class Transcriptions(Door):
    """Writes recordings down."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read a form with a recording."""
        form, files = await read_form(incoming, TranscriptionForm, required="file")
        translate = bool(form.translate)
        transcript = form.transcript(translate=translate)
        if form.stream and transcript.form not in ("json", "text"):
            raise InvalidInput(
                f"stream must be false for {transcript.form}",
                param="stream",
                hint="leave response_format out, or stream",
            )
        return Asked(
            request=form.request(strict=incoming.wishes.strict, translate=translate),
            whole=transcript.written,
            uploads=files,
            frames=(lambda _: TranscriptFrames()) if form.stream else None,
            timeout_s=form.timeout,
        )


class Translations(Door):
    """Writes recordings down in English."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read a form with a recording."""
        form, files = await read_form(incoming, TranslationForm, required="file")
        return Asked(
            request=form.request(strict=incoming.wishes.strict, translate=True),
            whole=form.transcript(translate=True).written,
            uploads=files,
            timeout_s=form.timeout,
        )


def build(tools: Tools, manner: Manner) -> list[APIRoute]:
    """Make the routes."""

    async def create_speech(body: SpeechBody) -> None:
        """Speak a text."""

    async def create_transcription() -> None:
        """Write a recording down; with `stream`, as server-sent events."""

    async def create_translation() -> None:
        """Write a recording down in English."""

    return [
        *routes(
            ("/v1/audio/speech", "/audio/speech"),
            Speech(tools, manner),
            create_speech,
            tag="openai",
            summary="Speak a text",
            answers=SPEECH,
        ),
        *routes(
            ("/v1/audio/transcriptions", "/audio/transcriptions"),
            Transcriptions(tools, manner),
            create_transcription,
            tag="openai",
            summary="Write a recording down",
            answers=STREAMED_TRANSCRIPT,
            body=described(TranscriptionForm, required="file", about=_RECORDING),
        ),
        *routes(
            ("/v1/audio/translations", "/audio/translations"),
            Translations(tools, manner),
            create_translation,
            tag="openai",
            summary="Write a recording down in English",
            answers=TRANSCRIPT,
            body=described(TranslationForm, required="file", about=_RECORDING),
        ),
    ]
