"""What each modality says to LocalAI, and what it makes of a good answer."""

import asyncio
from array import array
from collections.abc import AsyncGenerator
from itertools import chain
from pathlib import Path
from typing import cast

import pytest

from src.models.blobs import Blob, Content
from src.models.errors import BackendProtocolError, EmptyResult, UnknownJob
from src.models.ports import BlobWriter
from src.models.requests import (
    Audio2TxtRequest,
    Img2TxtRequest,
    InferenceRequest,
    InpaintRequest,
    RerankRequest,
    Txt2AudioRequest,
    Txt2SoundRequest,
    Txt2VecRequest,
    Txt2VideoRequest,
)
from src.models.results import (
    Audio,
    Chunk,
    Finish,
    Heard,
    Image,
    Rank,
    Segment,
    TextDelta,
    Vector,
    Video,
)
from src.utils.blobs import FileBlobs
from src.utils.localai_media import Film, Recording
from src.utils.localai_memory import InMemory
from tests.utils.localai_asking import (
    DATA_URI,
    FILM,
    FOX,
    HAT,
    HELLO,
    LISTEN,
    MOVIE,
    ONE_PICTURE,
    ORDER,
    PNG,
    RAIN,
    SAY,
    SNOW,
    TEXTS,
    answer,
    base64_of,
    box,
    client_of,
    drawn,
    failure,
    failure_of,
    media,
    png,
    stream,
    wav,
)
from tests.utils.raw_server import DONE, Act, Script, delta, reply


def vector(*numbers: float) -> Vector:
    return Vector(array("d", numbers))


def embedded(*vectors: object, **more: object) -> bytes:
    data = [
        {"embedding": numbers, "index": index, "object": "embedding"}
        for index, numbers in enumerate(vectors)
    ]
    return reply(200, {"object": "list", "model": "m", "data": data, **more}, keep=True)


def ranked(*results: tuple[int, float], **more: object) -> bytes:
    told = [
        {"index": index, "document": {"text": "?"}, "relevance_score": score}
        for index, score in results
    ]
    return reply(200, {"model": "m", "results": told, **more}, keep=True)


# Vectors


async def test_each_text_becomes_a_vector_in_its_order() -> None:
    data = [
        {"embedding": [3, 4], "index": 1, "object": "embedding"},
        {"embedding": [0.1, -2e-3], "index": 0, "object": "embedding"},
    ]
    told = reply(200, {"object": "list", "data": data, "usage": {"prompt_tokens": 9}})
    async with client_of((told,)) as (client, server):
        chunks = await answer(client, TEXTS)

    assert chunks == [vector(0.1, -0.002), vector(3.0, 4.0), Finish("stop", 9)]
    assert server.heard[0].line == "POST /v1/embeddings HTTP/1.1"
    assert server.heard[0].json == {"model": "m", "input": list(TEXTS.input)}


async def test_many_texts_are_sent_in_several_calls() -> None:
    request = Txt2VecRequest(input=tuple(f"text {number}" for number in range(300)))
    usage = {"prompt_tokens": 2}
    scripts = [(embedded(*[[float(number)]] * 128, usage=usage), Act.KEEP) for number in (1, 2)]
    async with client_of(*scripts, (embedded(*[[3.0]] * 44, usage=usage),)) as (client, server):
        chunks = await answer(client, request)

    assert chunks[:-1] == [vector(1.0)] * 128 + [vector(2.0)] * 128 + [vector(3.0)] * 44
    assert chunks[-1] == Finish("stop", 6)
    sent = [cast("list[str]", heard.json["input"]) for heard in server.heard]
    assert tuple(chain.from_iterable(sent)) == request.input
    assert server.connections == 1


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (embedded([1.0]), BackendProtocolError),
        (embedded([1.0], [2.0], [3.0]), BackendProtocolError),
        (embedded([1.0], [2.0, 3.0]), BackendProtocolError),
        (embedded([1.0], ["2"]), BackendProtocolError),
        (embedded([1.0], [True]), BackendProtocolError),
        (embedded([1.0], [None]), BackendProtocolError),
        (embedded([1.0], [10**400]), BackendProtocolError),
        (embedded([1.0], "AACAPw=="), BackendProtocolError),
        (embedded([1.0], None), BackendProtocolError),
        (
            reply(200, '{"data": [{"index": 0, "embedding": [1]}, '
                       '{"index": 1, "embedding": [1e999]}]}'),
            BackendProtocolError,
        ),
        (
            reply(200, {"data": [{"index": 0, "embedding": [1.0]}] * 2}),
            BackendProtocolError,
        ),
        (
            reply(200, {"data": [{"index": at, "embedding": [1.0]} for at in (1, 2)]}),
            BackendProtocolError,
        ),
        (reply(200, {"data": [{"embedding": [1.0]}] * 2}), BackendProtocolError),
        (embedded([], []), EmptyResult),
        (embedded([1.0], []), EmptyResult),
        (embedded(), EmptyResult),
        (reply(200, {"object": "list", "data": None}), EmptyResult),
        (reply(200, {"object": "list"}), EmptyResult),
    ],
)  # fmt: skip
async def test_other_vectors_than_one_finite_one_for_each_text_are_no_answer(
    told: bytes, expected: type[BackendProtocolError]
) -> None:
    assert type(await failure_of(told, request=TEXTS)) is expected


async def test_vectors_of_a_later_call_have_the_length_of_the_first() -> None:
    request = Txt2VecRequest(input=("text",) * 129)
    async with client_of((embedded(*[[1.0]] * 128), Act.KEEP), (embedded([1.0, 2.0]),)) as (
        client,
        _,
    ):
        assert type(await failure(client, request)) is BackendProtocolError


# Rankings


async def test_documents_come_back_best_first() -> None:
    told = ranked((0, 0.1), (2, 0.9), (1, 0.1), usage={"total_tokens": 7, "prompt_tokens": 7})
    async with client_of((told,)) as (client, server):
        chunks = await answer(client, ORDER)

    assert chunks == [Rank(2, 0.9), Rank(0, 0.1), Rank(1, 0.1), Finish("stop", 7)]
    assert server.heard[0].line == "POST /v1/rerank HTTP/1.1"
    assert server.heard[0].json == {
        "model": "m",
        "query": ORDER.query,
        "documents": list(ORDER.documents),
    }


@pytest.mark.parametrize("told", [ranked((2, 0.9), (0, 0.5)), ranked((2, 0.9), (1, 0.1), (0, 0.5))])
async def test_only_as_many_documents_as_asked_for_come_back(told: bytes) -> None:
    request = RerankRequest(query="q", documents=("a", "b", "c"), top_n=2)
    async with client_of((told,)) as (client, server):
        chunks = await answer(client, request)

    assert chunks[:-1] == [Rank(2, 0.9), Rank(0, 0.5)]
    assert server.heard[0].json["top_n"] == 2


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (ranked((0, 0.1), (1, 0.2)), BackendProtocolError),
        (ranked((0, 0.1), (1, 0.2), (1, 0.3)), BackendProtocolError),
        (ranked((0, 0.1), (1, 0.2), (3, 0.3)), BackendProtocolError),
        (ranked((0, 0.1), (1, 0.2), (-1, 0.3)), BackendProtocolError),
        (reply(200, {"results": [{"index": 0}]}), BackendProtocolError),
        (reply(200, {"results": [{"index": "0", "relevance_score": 1}]}), BackendProtocolError),
        (reply(200, {"results": [{"index": 0, "relevance_score": "1"}]}), BackendProtocolError),
        (reply(200, '{"results": [{"index": 0, "relevance_score": 1e999}]}'), BackendProtocolError),
        (reply(200, {"results": []}), EmptyResult),
        (reply(200, {"results": None}), EmptyResult),
    ],
)
async def test_a_ranking_of_other_documents_is_no_answer(
    told: bytes, expected: type[BackendProtocolError]
) -> None:
    assert type(await failure_of(told, request=ORDER)) is expected


# Speech and sound


async def test_a_text_is_spoken() -> None:
    request = Txt2AudioRequest(
        input="Hello", voice="amy", language="en", instructions="softly", speed=1.5, format="mp3"
    )
    told = media(wav(0.5), content_disposition='attachment; filename="a.wav"')
    async with client_of((told, Act.KEEP)) as (client, server):
        plain, full = await answer(client, SAY), await answer(client, request)

    assert plain == full == [Audio(wav(0.5), "audio/wav", 0.5), Finish()]
    assert server.heard[0].line == "POST /v1/audio/speech HTTP/1.1"
    assert server.heard[0].json == {"model": "m", "input": SAY.input, "response_format": "wav"}
    assert server.heard[1].json == {
        "model": "m",
        "input": "Hello",
        "voice": "amy",
        "language": "en",
        "instructions": "softly",
        "speed": 1.5,
        "response_format": "mp3",
    }
    assert server.connections == 1


async def test_a_sound_is_made() -> None:
    request = Txt2SoundRequest(prompt="jazz", seconds=2.5, lyrics="la", bpm=90, instrumental=False)
    async with client_of((media(wav(2.5)), Act.KEEP)) as (client, server):
        await answer(client, RAIN)
        chunks = await answer(client, request)

    assert chunks == [Audio(wav(2.5), "audio/wav", 2.5), Finish()]
    assert server.heard[0].line == "POST /v1/sound-generation HTTP/1.1"
    assert server.heard[0].json == {"model_id": "m", "text": RAIN.prompt}
    assert server.heard[1].json == {
        "model_id": "m",
        "text": "jazz",
        "duration_seconds": 2.5,
        "lyrics": "la",
        "bpm": 90,
        "instrumental": False,
    }


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"ID3\x04" + bytes(99), "audio/mpeg"),
        (b"\xff\xfb\x90\x00" + bytes(99), "audio/mpeg"),
        (b"\xff\xf1\x50\x80" + bytes(99), "audio/aac"),
        (b"fLaC" + bytes(99), "audio/flac"),
        (b"OggS" + bytes(99), "audio/ogg"),
        (box(b"ftyp", b"M4A "), "audio/mp4"),
        (b"\x1a\x45\xdf\xa3" + bytes(99), "audio/webm"),
    ],
)
async def test_a_recording_is_known_by_its_first_bytes(data: bytes, kind: str) -> None:
    async with client_of((media(data, "application/octet-stream"),)) as (client, _):
        assert (await answer(client, SAY))[0] == Audio(data, kind, None)


async def test_bare_samples_are_taken_as_they_are_when_they_were_asked_for() -> None:
    data = bytes(range(256))
    async with client_of((media(data, "audio/pcm"), Act.KEEP)) as (client, _):
        chunks = await answer(client, Txt2AudioRequest(input="x", format="pcm"))
        error = await failure(client, SAY)

    assert chunks[0] == Audio(data, "audio/pcm", None)
    assert type(error) is BackendProtocolError


@pytest.mark.parametrize("told", [0x7FFFF000, 0xFFFFFFFF])
async def test_a_streamed_wav_does_not_know_its_length_and_lasts_as_long_as_it_is(
    told: int,
) -> None:
    async with client_of((media(wav(0.25, told=told)),)) as (client, _):
        [audio, _] = await answer(client, SAY)

    assert isinstance(audio, Audio)
    assert audio.seconds == 0.25


def test_a_wav_is_read_past_chunks_that_are_not_sound() -> None:
    plain = wav(1.0)
    padded = plain[:36] + b"LIST\x03\x00\x00\x00abc\x00" + plain[36:]
    recording = Recording("gpu")

    for at in range(len(padded)):
        recording.feed(padded[at : at + 1])
    recording.complete()

    assert (recording.media_type, recording.seconds) == ("audio/wav", 1.0)


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF\x00\x00\x00\x00WAVEdata\x08\x00\x00\x00" + bytes(8),
        b"RIFF\x00\x00\x00\x00WAVEfmt \x04\x00\x00\x00" + bytes(99),
        b"RIFF\x00\x00\x00\x00WAVE",
        wav(1.0)[:28] + bytes(4) + wav(1.0)[32:],
    ],
    ids=["no format", "half a format", "only a header", "no rate"],
)
def test_a_wav_without_a_readable_header_is_refused(data: bytes) -> None:
    recording = Recording("gpu")
    recording.feed(data)

    with pytest.raises(BackendProtocolError, match="WAV"):
        recording.complete()


# Transcripts


async def test_a_recording_is_written_down_with_its_parts() -> None:
    told = {
        "text": "Hello there",
        "language": "en",
        "duration": 2.5,
        "segments": [
            {"id": 0, "start": 0, "end": 1.25, "text": "Hello", "tokens": [1], "speaker": "A"},
            {"id": 1, "start": 1.25, "end": 2.5, "text": " there", "tokens": None},
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    request = Audio2TxtRequest(
        audio=f"data:audio/wav;base64,{base64_of(wav())}",
        language="en",
        prompt="names",
        temperature=0.0,
        translate=True,
    )
    async with client_of((reply(200, told),)) as (client, server):
        chunks = await answer(client, request)

    segments = (Segment(0.0, 1.25, "Hello", "A"), Segment(1.25, 2.5, " there"))
    assert chunks == [
        TextDelta("Hello there"), Heard("en", 2.5, segments), Finish("stop", 3, 4)
    ]  # fmt: skip
    assert server.heard[0].line == "POST /v1/audio/transcriptions HTTP/1.1"
    form = server.heard[0].form
    assert {name: part.content for name, part in form.items()} == {
        "model": b"m",
        "response_format": b"verbose_json",
        "language": b"en",
        "prompt": b"names",
        "temperature": b"0.0",
        "translate": b"true",
        "file": wav(),
    }
    assert 'filename="recording.wav"' in form["file"].head
    assert "audio/wav" in form["file"].head


async def test_what_is_not_said_about_a_recording_is_not_sent() -> None:
    request = Audio2TxtRequest(audio=base64_of(b"OggS" + bytes(40)))
    async with client_of((reply(200, {"text": "x"}),)) as (client, server):
        assert await answer(client, request) == [TextDelta("x"), Heard(), Finish()]

    form = server.heard[0].form
    assert form.keys() == {"model", "response_format", "file"}
    assert 'filename="recording.ogg"' in form["file"].head


async def test_a_recording_in_which_nothing_is_said_has_an_empty_transcript() -> None:
    told = {"text": "", "segments": None, "language": None, "duration": 3}
    async with client_of((reply(200, told),)) as (client, _):
        assert await answer(client, LISTEN) == [Heard("", 3.0), Finish()]


async def test_older_servers_count_nanoseconds() -> None:
    segment = {"start": 500_000_000, "end": 1_500_000_000, "text": "x"}
    async with client_of((reply(200, {"text": "x", "segments": [segment]}),)) as (client, _):
        chunks = await answer(client, LISTEN)

    assert chunks[1] == Heard("", None, (Segment(0.5, 1.5, "x"),))


@pytest.mark.parametrize(
    "told",
    [
        {"language": "en"},
        {"text": None},
        {"text": "x", "segments": "y"},
        {"text": "x", "segments": [{"start": 0, "end": 1}]},
        {"text": "x", "segments": [{"start": "0", "end": 1, "text": "x"}]},
        {"text": "x", "duration": "long"},
    ],
)
async def test_a_transcript_of_the_wrong_shape_is_none(told: object) -> None:
    assert type(await failure_of(reply(200, told), request=LISTEN)) is BackendProtocolError


# Inpainting


async def test_a_part_of_a_picture_is_drawn_anew() -> None:
    mask = png(32, "white")
    request = InpaintRequest(
        image=DATA_URI, mask=f"data:image/png;base64,{base64_of(mask)}", prompt="a hat", steps=9
    )
    address = drawn({"embedding": None, "index": 0, "url": "http://h/generated-images/b1.png"})
    async with client_of((address, Act.KEEP), (media(png(64), "image/png"),)) as (client, server):
        chunks = await answer(client, request)

    assert chunks == [Image(png(64), "image/png", 64, 64), Finish()]
    posted, fetched = server.heard
    assert posted.line == "POST /v1/images/inpainting HTTP/1.1"
    assert {name: part.content for name, part in posted.form.items()} == {
        "model": b"m",
        "prompt": b"a hat",
        "steps": b"9",
        "image": png(),
        "mask": mask,
    }
    assert fetched.line == "GET /generated-images/b1.png HTTP/1.1"
    assert fetched.header("X-Correlation-ID") == "job-1"


async def test_steps_of_inpainting_are_left_to_the_server() -> None:
    async with client_of(ONE_PICTURE) as (client, server):
        await answer(client, HAT)

    assert server.heard[0].form.keys() == {"model", "prompt", "image", "mask"}


# Films


async def test_a_film_is_asked_for_by_address_and_fetched() -> None:
    request = Txt2VideoRequest(
        prompt="waves", negative_prompt="people", image=DATA_URI, width=512, height=256,
        num_frames=24, fps=8, steps=4, cfg_scale=2.5, seed=7,
    )  # fmt: skip
    address = (drawn({"url": "http://h:8080/generated-videos/a.mp4"}), Act.KEEP)
    film = (media(FILM, "video/mp4"), Act.KEEP)
    async with client_of(address, film, address, film) as (client, server):
        chunks = await answer(client, MOVIE)
        await answer(client, request)

    assert chunks == [Video(FILM, "video/mp4"), Finish()]
    assert server.heard[0].line == "POST /video HTTP/1.1"
    assert server.heard[0].json == {"model": "m", "prompt": MOVIE.prompt, "response_format": "url"}
    assert server.heard[1].line == "GET /generated-videos/a.mp4 HTTP/1.1"
    assert server.heard[2].json == {
        "model": "m",
        "prompt": "waves",
        "response_format": "url",
        "negative_prompt": "people",
        "start_image": PNG,
        "width": 512,
        "height": 256,
        "num_frames": 24,
        "fps": 8,
        "step": 4,
        "cfg_scale": 2.5,
        "seed": 7,
    }


WEBM = b"\x1a\x45\xdf\xa3" + bytes(500)


@pytest.mark.parametrize(("data", "kind"), [(FILM, "video/mp4"), (WEBM, "video/webm")])
async def test_a_film_may_come_inside_the_answer(data: bytes, kind: str) -> None:
    async with client_of((drawn({"b64_json": base64_of(data)}),)) as (client, _):
        assert (await answer(client, MOVIE))[0] == Video(data, kind)


async def test_a_film_inside_the_answer_is_checked() -> None:
    for data in (b"no film at all", FILM[:-1]):
        error = await failure_of(drawn({"b64_json": base64_of(data)}), request=MOVIE)
        assert type(error) is BackendProtocolError


def judged(data: bytes, size: int) -> str:
    film = Film("gpu")
    try:
        for at in range(0, len(data), size):
            film.feed(data[at : at + size])
        film.complete()
    except BackendProtocolError as error:
        return error.message
    return film.media_type


LARGE = (1).to_bytes(4, "big") + b"mdat" + (16 + 40).to_bytes(8, "big") + bytes(40)
OPEN = bytes(4) + b"mdat" + bytes(40)
MOOV = box(b"moov", bytes(9))


@pytest.mark.parametrize(
    ("data", "fine"),
    [
        (FILM, True),
        (box(b"ftyp") + MOOV + LARGE, True),
        (box(b"ftyp") + MOOV + OPEN, True),
        (box(b"ftyp") + LARGE + MOOV, True),
        (WEBM, True),
        (MOOV + LARGE, False),
        (box(b"ftyp") + MOOV, False),
        (box(b"ftyp") + LARGE, False),
        (box(b"ftyp") + MOOV + LARGE[:-1], False),
        (box(b"ftyp") + MOOV + LARGE[:12], False),
        (box(b"ftyp") + (7).to_bytes(4, "big") + b"moov", False),
        (box(b"ftyp") + box(b"free") * 10_001 + FILM, False),
        (FILM[:7], False),
    ],
)
def test_the_boxes_of_a_film_follow_one_another_to_its_end(data: bytes, fine: bool) -> None:
    verdicts = {judged(data, size) for size in (1, 7, 1_000_000)}

    assert len(verdicts) == 1
    assert verdicts.pop().startswith("video/") is fine


# Blobs


class Telling:
    """A writer that tells when something was written."""

    def __init__(self, writer: BlobWriter, written: asyncio.Event) -> None:
        self._writer = writer
        self._written = written
        self.finish = writer.finish
        self.discard = writer.discard

    async def write(self, piece: bytes) -> None:
        await self._writer.write(piece)
        self._written.set()


class Watched:
    """Blobs in files of a directory that is looked into."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = FileBlobs(directory, inline=50)
        self.written = asyncio.Event()
        self.keep = self._files.keep
        self.read = self._files.read
        self.drop = self._files.drop

    def open(self) -> BlobWriter:
        return Telling(self._files.open(), self.written)

    async def left(self) -> int:
        """Return how many there are; files are touched one after the other, so this waits."""
        await self._files.read(await self._files.keep(bytes(99)))
        return sum(1 for path in self._directory.rglob("*") if path.is_file()) - 1

    async def close(self) -> None:
        await self._files.close()


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncGenerator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    await watched.close()


ADDRESS: Script = (drawn({"url": "/generated-videos/a.mp4"}), Act.KEEP)
GOOD: list[tuple[InferenceRequest, tuple[Script, ...], bytes]] = [
    (FOX, (ONE_PICTURE,), png()),
    (HAT, (ONE_PICTURE,), png()),
    (SAY, ((media(wav(3)),),), wav(3)),
    (RAIN, ((media(wav(3)),),), wav(3)),
    (MOVIE, (ADDRESS, (media(FILM, "video/mp4"),)), FILM),
    (MOVIE, ((drawn({"b64_json": base64_of(FILM)}),),), FILM),
]


def content_of(chunk: Chunk) -> Content:
    assert isinstance(chunk, Image | Audio | Video)
    return chunk.data


@pytest.mark.parametrize(
    ("request_", "scripts", "data"),
    GOOD,
    ids=["picture", "inpainting", "speech", "sound", "film", "film inside"],
)
async def test_what_is_made_is_kept_as_a_blob(
    blobs: Watched,
    request_: InferenceRequest,
    scripts: tuple[Script, ...],
    data: bytes,
) -> None:
    async with client_of(*scripts, blobs=blobs) as (client, _):
        content = content_of((await answer(client, request_))[0])

    assert isinstance(content, Blob)
    assert await blobs.read(content) == data
    assert await blobs.left() == 1


BAD_SOUND = media(wav(3), content_length="99999")
BAD: list[tuple[InferenceRequest, tuple[Script, ...]]] = [
    (SAY, ((BAD_SOUND,),)),
    (SAY, ((BAD_SOUND, Act.RESET),)),
    (SAY, ((BAD_SOUND, Act.HANG),)),
    (SAY, ((media(wav(3)[:-9]),),)),
    (SAY, ((media(bytes(999)),),)),
    (SAY, ((media(wav(100)),),)),
    (MOVIE, (ADDRESS, (media(FILM[:-1], "video/mp4"),))),
    (MOVIE, ((drawn({"b64_json": base64_of(FILM[:-1])}),),)),
    (FOX, ((drawn({"b64_json": base64_of(png(500))}),),)),
]


@pytest.mark.parametrize(
    ("request_", "scripts"),
    BAD,
    ids=[
        "cut", "reset", "silent", "shorter than it says", "no sound", "too long", "half a film",
        "half a film inside", "another size",
    ],
)  # fmt: skip
async def test_nothing_is_left_of_what_turned_out_to_be_no_good(
    blobs: Watched, request_: InferenceRequest, scripts: tuple[Script, ...]
) -> None:
    async with client_of(*scripts, blobs=blobs, idle_s=0.2, media_bytes=1_000_000) as (client, _):
        await failure(client, request_)

    assert await blobs.left() == 0


async def test_nothing_is_left_when_the_caller_leaves_in_the_middle(blobs: Watched) -> None:
    async with client_of((BAD_SOUND, Act.HANG), blobs=blobs) as (client, server):
        task = asyncio.create_task(answer(client, SAY))
        async with asyncio.timeout(5):
            await blobs.written.wait()
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(5):
            await server.left.wait()

    assert await blobs.left() == 0


async def test_pictures_and_recordings_are_read_just_before_they_are_sent(blobs: Watched) -> None:
    picture, recording = await blobs.keep(png(256)), await blobs.keep(wav())
    assert isinstance(picture, Blob)
    assert isinstance(recording, Blob)
    see, hear = picture.reference, recording.reference
    text, transcript = stream(delta("x", "stop"), DONE), (reply(200, {"text": "x"}), Act.KEEP)
    drawing: Script = (drawn({"b64_json": base64_of(png(256))}), Act.KEEP)
    film = (drawn({"b64_json": base64_of(FILM)}), Act.KEEP)

    async with client_of(text, drawing, drawing, transcript, film, blobs=blobs) as (
        client,
        server,
    ):
        await answer(client, Img2TxtRequest(images=(see,)))
        await answer(client, SNOW.model_copy(update={"image": see}))
        await answer(client, InpaintRequest(image=see, mask=see, prompt="p"))
        await answer(client, Audio2TxtRequest(audio=hear))
        await answer(client, Txt2VideoRequest(prompt="p", image=see))

    base64 = base64_of(png(256))
    chat, changed, inpainted, heard, filmed = server.heard
    assert f"data:image/png;base64,{base64}" in chat.body.decode()
    assert changed.json["file"] == base64
    assert inpainted.form["image"].content == inpainted.form["mask"].content == png(256)
    assert heard.form["file"].content == wav()
    assert filmed.json["start_image"] == base64


@pytest.mark.parametrize(
    ("data", "kind"), [(b"\xff\xd8\xff" + bytes(9), "jpeg"), (b"RIFF0000WEBP", "webp")]
)
async def test_a_picture_is_named_by_its_first_bytes(data: bytes, kind: str) -> None:
    request = InpaintRequest(image=base64_of(data), mask=DATA_URI, prompt="p")
    look = Img2TxtRequest(images=(base64_of(data),))
    async with client_of(ONE_PICTURE, stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client, request)
        await answer(client, look)

    assert f"image/{kind}" in server.heard[0].form["image"].head
    assert f"data:image/{kind};base64," in server.heard[1].body.decode()


async def test_a_text_that_looks_like_a_reference_is_sent_as_it_is() -> None:
    odd = "blob:17:abc"
    async with client_of(stream(delta("x", "stop"), DONE)) as (client, server):
        await answer(client, HELLO.model_validate({"prompt": odd}))

    assert odd in server.heard[0].body.decode()


async def test_without_blobs_all_stays_in_memory() -> None:
    blobs = InMemory()

    assert await blobs.read(await blobs.keep(wav())) == wav()


async def test_a_blob_without_blobs_cannot_be_sent() -> None:
    request = Img2TxtRequest(images=(Blob("key", 99).reference,))
    async with client_of(stream(DONE)) as (client, server):
        assert type(await failure(client, request)) is UnknownJob

    assert server.heard == []


@pytest.mark.parametrize(
    ("request_", "scripts"),
    [(SAY, ((media(wav(), X_Simulated="1"),),)), (TEXTS, ((embedded([1.0], [2.0]),),))],
)
async def test_only_what_was_simulated_says_so(
    request_: InferenceRequest, scripts: tuple[Script, ...]
) -> None:
    async with client_of(*scripts) as (client, _):
        chunks = await answer(client, request_)

    assert chunks[-1] == Finish(simulated=request_ is SAY)
