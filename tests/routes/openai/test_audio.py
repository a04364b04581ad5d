"""OpenAI's sound: what is said, what is heard, and in which of its many shapes."""

import io
import json
import time
import tracemalloc
import wave
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from openai.types.audio import Transcription, TranscriptionVerbose, TranslationVerbose

from src.models.metrics import ErrorLog, RequestMetrics
from src.models.results import Audio, Chunk, Heard, Segment, TextDelta
from src.routes import errors
from src.routes.doors import Manner
from src.routes.openai import audio
from src.routes.tools import Tools
from src.sharing import Sharing
from src.utils.blobs import FileBlobs
from tests.managing import processor_for
from tests.routes.house import CANARY, House, png
from tests.routes.test_contents import Caller, Ready
from tests.routes.test_modalities import speech

MIB = 2**20
SPEECH = "/v1/audio/speech"
TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
FILE = {"file": ("hello.wav", speech(), "audio/wav")}

Fields = Mapping[str, Any]


async def say(house: House, body: Fields, path: str = SPEECH) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(path, json=body)


async def hear(
    house: House,
    path: str = TRANSCRIPTIONS,
    files: Any = None,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(path, data=fields, files=files or FILE, headers=headers)


@asynccontextmanager
async def ready(
    chunks: Sequence[Chunk], blobs: FileBlobs, *, send_s: float = 60.0
) -> AsyncGenerator[FastAPI]:
    """Serve the doors in front of a backend that has its answer."""
    processor = processor_for([Ready(chunks)], blobs=blobs)
    sharing = Sharing(processor, blobs, merge=False, cache_bytes=0)
    tools = Tools(processor, sharing, RequestMetrics(), ErrorLog(), clock=time.time, blobs=blobs)
    app = FastAPI()
    errors.install(app)
    app.router.routes.extend(audio.build(tools, Manner(send_s=send_s)))
    async with processor.running():
        yield app


@pytest.fixture
async def blobs() -> AsyncGenerator[FileBlobs]:
    kept = FileBlobs()
    yield kept
    await kept.close()


# Speaking


@pytest.mark.parametrize("path", [SPEECH, "/audio/speech"])
async def test_speech_is_the_recording_itself(shared_house: House, path: str) -> None:
    response = await say(shared_house, {"input": "A red fox sleeps.", "voice": "alloy"}, path)

    job_id = response.headers["x-job-id"]
    assert response.status_code == 200
    assert response.headers["content-type"] == "audio/wav"
    assert response.headers["content-length"] == str(len(response.content))
    assert response.headers["content-disposition"] == f'attachment; filename="{job_id}-0.wav"'
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-model"] == "sim-voice"
    with wave.open(io.BytesIO(response.content)) as file:
        assert file.getnframes() > 0


async def test_bare_samples_are_said_to_be_that(shared_house: House) -> None:
    response = await say(shared_house, {"input": "hello", "response_format": "pcm"})

    assert response.headers["content-type"] == "audio/pcm"
    assert not response.content.startswith(b"RIFF")


async def test_the_voice_and_the_speed_are_handed_on(shared_house: House) -> None:
    said = [
        (await say(shared_house, {"input": "A red fox sleeps.", **more})).content
        for more in ({"voice": "one"}, {"voice": {"id": "one"}}, {"voice": "two"}, {"speed": 4})
    ]

    assert said[0] == said[1] != said[2]
    assert len(said[3]) < len(said[0]) / 3


async def test_all_that_openai_s_clients_send_is_accepted(shared_house: House) -> None:
    body = {
        "model": "sim-voice",
        "input": "hello",
        "voice": "alloy",
        "instructions": "cheerful",
        "response_format": "wav",
        "speed": 1,
        "stream_format": "audio",
        "language": "en",
    }

    assert (await say(shared_house, body)).status_code == 200


async def test_a_format_that_the_backend_cannot_make_is_an_error(own_house: House) -> None:
    response = await say(own_house, {"input": "hello", "response_format": "mp3"})

    assert response.status_code == 400
    assert "ffmpeg" in response.json()["error"]["hint"]


BAD_SPEECH: list[tuple[Fields, str, str]] = [
    ({}, "input", "required"),
    ({"input": ""}, "input", "must not be empty"),
    ({"input": "x" * 100_001}, "input", "100000"),
    ({"input": CANARY, "speed": 5}, "speed", "0.25 to 4"),
    ({"input": CANARY, "response_format": "ogg"}, "response_format", "'wav'"),
    ({"input": CANARY, "stream_format": "sse"}, "stream_format", "'audio'"),
    ({"input": CANARY, "voice": {}}, "voice.id", "required"),
    ({"input": CANARY, "colour": 1, "strict": True}, "colour", "by nobody"),
]


@pytest.mark.parametrize(("body", "param", "words"), BAD_SPEECH)
async def test_bad_input_is_refused_by_name(
    shared_house: House, body: Fields, param: str, words: str
) -> None:
    response = await say(shared_house, body)

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert words in error["message"]
    assert CANARY not in response.text


async def test_no_more_than_a_piece_of_a_recording_is_ever_held(blobs: FileBlobs) -> None:
    kept = Audio(await blobs.keep(bytes(20 * MIB)), "audio/wav")

    async with ready([kept], blobs) as app:
        caller = Caller({"input": "x"}, keeps=False)
        tracemalloc.start()
        try:
            await caller(app, SPEECH)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert caller.complete
    assert int(caller.headers[b"content-length"]) == 20 * MIB
    assert peak < 4 * MIB


async def test_a_caller_that_stops_taking_a_recording_is_cut_off(blobs: FileBlobs) -> None:
    kept = Audio(await blobs.keep(bytes(5 * MIB)), "audio/wav")

    async with ready([kept], blobs, send_s=0.05) as app:
        caller = Caller({"input": "x"}, takes=3)
        await caller(app, SPEECH)

    assert (caller.messages, caller.complete) == (3, False)


# Writing down


async def test_what_was_heard_is_text(shared_house: House) -> None:
    response = await hear(shared_house)

    heard = Transcription.model_validate(response.json(), strict=True)
    assert "0.50 seconds of sound" in heard.text
    assert response.json().keys() == {"text", "usage"}
    assert response.json()["usage"] == {"type": "duration", "seconds": 1}
    assert response.headers["x-model"] == "sim-voice"


async def test_what_was_heard_is_bare_text(shared_house: House) -> None:
    as_json = await hear(shared_house, response_format="json")
    as_text = await hear(shared_house, response_format="text", path="/audio/transcriptions")

    assert as_text.headers["content-type"] == "text/plain; charset=utf-8"
    assert as_text.text == as_json.json()["text"] + "\n"


@pytest.mark.parametrize("granularities", [["segment"], ["word", "segment"]])
async def test_all_that_was_heard_is_told_with_its_times(
    shared_house: House, granularities: list[str]
) -> None:
    fields: Fields = {
        "response_format": "verbose_json",
        "language": "en",
        "temperature": "0.5",
        "timestamp_granularities[]": granularities,
    }
    response = await hear(shared_house, **fields)

    heard = TranscriptionVerbose.model_validate(response.json(), strict=True)
    assert (heard.language, heard.duration) == ("en", 0.5)
    assert heard.segments
    assert " ".join(segment.text for segment in heard.segments) == heard.text
    assert heard.segments[0].start == 0
    assert [segment.id for segment in heard.segments] == list(range(len(heard.segments)))
    assert heard.segments[0].temperature == 0.5
    assert response.json()["task"] == "transcribe"


async def test_a_translation_says_that_it_is_one(own_house: House) -> None:
    for path in (TRANSLATIONS, "/audio/translations"):
        translated = await hear(own_house, path, response_format="verbose_json")
        assert TranslationVerbose.model_validate(translated.json(), strict=True)
        assert translated.json()["task"] == "translate"
    by_localai = await hear(own_house, response_format="verbose_json", translate="true")
    assert by_localai.json()["task"] == "translate"
    assert (await hear(own_house, TRANSLATIONS)).json()["text"]


HEARD: list[Chunk] = [
    TextDelta(" One -->\n\n two. Three."),
    Heard(
        "english",
        None,
        (
            Segment(-0.5, 1.25, " One -->\n\n two.", "A"),
            Segment(1.25, 2.0, " "),
            Segment(3599.9996, 36_061.5, " Three.", ""),
        ),
    ),
]
BARE: list[Chunk] = [TextDelta("One."), Heard()]

WRITTEN: list[tuple[Sequence[Chunk], str, str]] = [
    (HEARD, "text", " One -->\n\n two. Three.\n"),
    (
        HEARD,
        "srt",
        (
            "1\n00:00:00,000 --> 00:00:01,250\nOne -> two.\n\n"
            "2\n01:00:00,000 --> 10:01:01,500\nThree.\n\n"
        ),
    ),
    (
        HEARD,
        "vtt",
        (
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nOne -> two.\n\n"
            "01:00:00.000 --> 10:01:01.500\nThree.\n\n"
        ),
    ),
    (HEARD, "json", '{"text":" One -->\\n\\n two. Three."}'),
    (BARE, "srt", "1\n00:00:00,000 --> 00:00:00,000\nOne.\n\n"),
    ([Heard()], "srt", ""),
    ([Heard()], "vtt", "WEBVTT\n\n"),
    ([Heard()], "json", '{"text":""}'),
    (
        [Heard(seconds=1.5)],
        "verbose_json",
        (
            '{"task":"transcribe","language":"","duration":1.5,"text":"","segments":[],'
            '"usage":{"type":"duration","seconds":2}}'
        ),
    ),
]


@pytest.mark.parametrize(("chunks", "kind", "written"), WRITTEN)
async def test_each_format_is_written_byte_for_byte(
    blobs: FileBlobs, chunks: Sequence[Chunk], kind: str, written: str
) -> None:
    async with ready(chunks, blobs) as app, _calling(app) as http:
        response = await http.post(TRANSCRIPTIONS, data={"response_format": kind}, files=FILE)

    assert response.text == written


async def test_what_the_backend_does_not_tell_has_a_value_that_warns_of_nothing(
    blobs: FileBlobs,
) -> None:
    async with ready(HEARD, blobs) as app, _calling(app) as http:
        data = {"response_format": "verbose_json", "language": "en"}
        told = (await http.post(TRANSCRIPTIONS, data=data, files=FILE)).json()

    assert (told["language"], told["duration"]) == ("english", 36_061.5)
    assert told["segments"][0] == {
        "id": 0,
        "seek": 0,
        "start": -0.5,
        "end": 1.25,
        "text": " One -->\n\n two.",
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
        "speaker": "A",
    }


@pytest.mark.parametrize(
    ("chunks", "events"),
    [
        (
            [TextDelta("One "), TextDelta("two."), Heard()],
            [
                {"type": "transcript.text.delta", "delta": "One "},
                {"type": "transcript.text.delta", "delta": "two."},
                {"type": "transcript.text.done", "text": "One two."},
            ],
        ),
        ([Heard()], [{"type": "transcript.text.done", "text": ""}]),
    ],
)
async def test_a_stream_is_written_byte_for_byte(
    blobs: FileBlobs, chunks: Sequence[Chunk], events: list[dict[str, str]]
) -> None:
    async with ready(chunks, blobs) as app, _calling(app) as http:
        response = await http.post(TRANSCRIPTIONS, data={"stream": "true"}, files=FILE)

    written = [json.dumps(event, separators=(",", ":")) for event in events]
    assert response.text == "".join(f"data: {event}\n\n" for event in [*written, "[DONE]"])
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "x-job-id" in response.headers


async def test_the_same_stream_again_has_the_same_events(own_house: House) -> None:
    headers = {"Idempotency-Key": "one"}

    first, second = [
        await hear(own_house, stream="true", headers=headers, language="en") for _ in range(2)
    ]

    assert second.headers["x-job-id"] == first.headers["x-job-id"]
    assert second.text == first.text
    assert "transcript.text.delta" in second.text


async def test_a_failure_before_a_stream_begins_is_an_error(own_house: House) -> None:
    own_house.sim.add_fault("status", status=400, message=f"bad {CANARY}")

    response = await hear(own_house, stream="true")

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "backend_rejected"


async def test_a_failure_after_a_stream_has_begun_is_an_event(own_house: House) -> None:
    own_house.sim.hold()
    headers = {"X-Queue-Events": "1"}
    async with (
        own_house.http() as http,
        http.stream(
            "POST", TRANSCRIPTIONS, data={"stream": "true"}, files=FILE, headers=headers
        ) as stream,
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == "event: queue"
        await http.post("/mcp/cancel_job", json={"job_id": stream.headers["x-job-id"]})
        told = [line async for line in lines if line.startswith("data: ")]

    assert stream.status_code == 200
    assert json.loads(told[-2].removeprefix("data: "))["error"]["code"] == "cancelled"
    assert told[-1] == "data: [DONE]"


BAD_FORMS: list[tuple[dict[str, Any], Any, str, str]] = [
    ({}, {"other": ("x.wav", speech(), "audio/wav")}, "file", "as a file"),
    ({}, {"file": ("x.wav", CANARY.encode(), "audio/wav")}, "file", "not a WAV"),
    ({}, {"file": ("x.wav", b"", "audio/wav")}, "file", "empty"),
    ({}, {"file": ("x.wav", png(), "audio/wav")}, "file", "not a WAV"),
    ({}, {"file": ("x.wav", speech()[:100], "audio/wav")}, "file", "cut short"),
    ({}, {"file": ("x.wav", bytes(14_000_001), "audio/wav")}, "file", "14,000,000"),
    ({}, [("file", ("x", speech()))] * 2, "file", "a single file"),
    ({"temperature": "3"}, FILE, "temperature", "0 to 2"),
    ({"temperature": "nan"}, FILE, "temperature", "finite"),
    ({"response_format": "lrc"}, FILE, "response_format", "'json'"),
    ({"stream": "true", "response_format": "srt"}, FILE, "stream", "must be false for srt"),
    ({"stream": CANARY}, FILE, "stream", "boolean"),
    (
        {"timestamp_granularities[]": ["word"]},
        FILE,
        "timestamp_granularities[]",
        "when each word was said is not known",
    ),
    (
        {"timestamp_granularities[]": ["segment", "line"]},
        FILE,
        "timestamp_granularities[].1",
        "'segment'",
    ),
    ({"colour": CANARY, "strict": "true"}, FILE, "colour", "by nobody"),
]


@pytest.mark.parametrize(("fields", "files", "param", "words"), BAD_FORMS)
async def test_a_bad_form_is_refused_by_name(
    shared_house: House, fields: dict[str, Any], files: Any, param: str, words: str
) -> None:
    response = await hear(shared_house, files=files, **fields)

    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert words in error["message"]
    assert CANARY not in response.text


async def test_what_only_openai_s_models_know_is_accepted(shared_house: House) -> None:
    fields: Fields = {
        "include[]": ["logprobs"],
        "chunking_strategy": "auto",
        "model": "",  # as forms are sent whose fields are left empty
        "prompt": "fox",
        "strict": "true",
    }

    assert (await hear(shared_house, **fields)).status_code == 200


def _calling(app: FastAPI) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")
