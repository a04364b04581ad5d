"""What requests bring along: checked, kept, and let go of when something goes wrong."""

import asyncio
import base64
import io
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pytest
from PIL import Image as Pillow

from src.models.blobs import Blob, Content
from src.models.errors import InvalidInput, StorageFailed, UnknownJob
from src.models.requests import (
    Audio2TxtRequest,
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    InpaintRequest,
    Txt2VideoRequest,
)
from src.models.results import Audio, Image
from src.utils.attachments import prepare
from src.utils.blobs import FileBlobs
from src.utils.localai_memory import InMemory
from tests.kept import DictBlobs
from tests.models.making import SMALLEST
from tests.utils.test_sound import RECORDINGS, wav


async def no_jobs(job_id: str, number: int) -> NoReturn:
    raise UnknownJob(f"no job {job_id} made {number}")


def encoded(picture: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int = 64, height: int = 48, color: object = "red", mode: str = "RGB") -> bytes:
    return encoded(Pillow.new(mode, (width, height), color))  # type: ignore[arg-type]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def opened(data: bytes) -> Pillow.Image:
    picture = Pillow.open(io.BytesIO(data))
    picture.load()
    return picture


PICTURE, RECORDING = b64(png()), b64(wav())

BRING: Mapping[type[InferenceRequest], dict[str, Any]] = {
    Img2ImgRequest: {"image": PICTURE, "prompt": "p"},
    Img2TxtRequest: {"images": [PICTURE, b64(png(16, 16))]},
    InpaintRequest: {"image": PICTURE, "mask": b64(png(color="white")), "prompt": "p"},
    Txt2VideoRequest: {"image": PICTURE, "prompt": "p"},
    Audio2TxtRequest: {"audio": RECORDING},
}
"""Every kind of request that brings something along."""

kinds = pytest.mark.parametrize("kind", BRING)


def made(kind: type[InferenceRequest], **fields: object) -> InferenceRequest:
    return kind.model_validate({**BRING[kind], **fields})


# Where things are kept


@kinds
async def test_what_a_request_brings_is_kept_and_only_referred_to(
    kind: type[InferenceRequest],
) -> None:
    blobs = DictBlobs()

    prepared = await prepare(made(kind), no_jobs, blobs)

    found = [*prepared.blobs]
    assert len(found) == len(blobs.kept) == (2 if kind in (Img2TxtRequest, InpaintRequest) else 1)
    assert {blob.key: blob.size for blob in found} == {k: len(v) for k, v in blobs.kept.items()}
    assert PICTURE not in prepared.model_dump_json()
    assert RECORDING not in prepared.model_dump_json()


@kinds
async def test_a_little_stays_in_the_request_as_a_data_uri(kind: type[InferenceRequest]) -> None:
    prepared = await prepare(made(kind), no_jobs, FileBlobs())

    assert [*prepared.blobs] == []
    texts = [prepared.model_dump()[name] for name in BRING[kind] if name != "prompt"]
    media = {"audio/wav"} if kind is Audio2TxtRequest else {"image/png"}
    for text in texts[0] if kind is Img2TxtRequest else texts:
        head, _, data = str(text).partition(";base64,")
        assert head.removeprefix("data:") in media
        assert base64.b64decode(data, validate=True)


@kinds
async def test_a_reference_that_a_caller_writes_is_refused_like_any_other_nonsense(
    kind: type[InferenceRequest],
) -> None:
    blobs = DictBlobs()
    secret = await blobs.keep(png())
    assert isinstance(secret, Blob)

    for field, value in BRING[kind].items():
        if field != "prompt":
            forged = secret.reference if isinstance(value, str) else [secret.reference]
            with pytest.raises(InvalidInput, match="base64"):
                await prepare(made(kind, **{field: forged}), no_jobs, blobs)

    assert await blobs.read(secret) == png()


def test_words_that_look_like_a_reference_are_only_words() -> None:
    for kind, fields in SMALLEST.items():
        texts = {name: "blob:1:k1" for name in ("prompt", "query") if name in fields}
        assert [*kind.model_validate({**fields, **texts}).blobs] == []


@pytest.mark.parametrize("kind", [kind for kind in SMALLEST if kind not in BRING])
async def test_a_request_that_brings_nothing_stays_as_it_is(kind: type[InferenceRequest]) -> None:
    request = kind.model_validate(SMALLEST[kind])

    assert await prepare(request, no_jobs, DictBlobs()) is request


async def test_a_film_needs_no_first_picture() -> None:
    request = Txt2VideoRequest(prompt="p")

    assert await prepare(request, no_jobs, DictBlobs()) is request


async def test_when_something_is_wrong_nothing_stays_kept() -> None:
    blobs = DictBlobs()

    with pytest.raises(InvalidInput):
        await prepare(made(Img2TxtRequest, images=[PICTURE, "AAAA"]), no_jobs, blobs)

    assert blobs.kept == {}
    assert blobs.dropped.is_set()


class _FullAfterOne(DictBlobs):
    async def keep(self, data: bytes) -> Content:
        if self.kept:
            raise StorageFailed("the disk is full")
        return await super().keep(data)


@pytest.mark.parametrize("kind", [Img2TxtRequest, InpaintRequest])
async def test_when_the_disk_is_full_nothing_stays_kept(kind: type[InferenceRequest]) -> None:
    blobs = _FullAfterOne()

    with pytest.raises(StorageFailed):
        await prepare(made(kind), no_jobs, blobs)

    assert blobs.kept == {}


async def test_when_the_caller_leaves_nothing_stays_kept() -> None:
    blobs, asked = DictBlobs(), asyncio.Event()

    async def never(job_id: str, number: int) -> NoReturn:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError(f"{job_id}/{number} was found")

    request = made(Img2TxtRequest, images=[PICTURE, "job:a"])
    preparing = asyncio.create_task(prepare(request, never, blobs))
    async with asyncio.timeout(5):
        await asked.wait()
    assert blobs.kept
    preparing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preparing

    assert blobs.kept == {}


# What an earlier job made


@kinds
async def test_what_an_earlier_job_made_is_read_from_where_it_is_kept(
    kind: type[InferenceRequest],
) -> None:
    blobs = DictBlobs()
    asked: list[tuple[str, int]] = []

    async def lookup(job_id: str, number: int) -> Image | Audio:
        asked.append((job_id, number))
        if kind is Audio2TxtRequest:
            return Audio(await blobs.keep(wav()), "audio/wav")
        return Image(await blobs.keep(png(color="white")), "image/png", 64, 48)

    texts = {
        field: "job:j-1/2" if isinstance(value, str) else [" job:j-1 "]
        for field, value in BRING[kind].items()
        if field != "prompt"
    }
    prepared = await prepare(made(kind, **texts), lookup, blobs)

    assert set(asked) == ({("j-1", 0)} if kind is Img2TxtRequest else {("j-1", 2)})
    assert all(blob.key in blobs.kept for blob in prepared.blobs)


@pytest.mark.parametrize(
    ("kind", "field", "thing"),
    [
        (Img2ImgRequest, "image", Audio(b"x", "audio/wav")),
        (InpaintRequest, "mask", Audio(b"x", "audio/wav")),
        (Audio2TxtRequest, "audio", Image(b"x", "image/png", 64, 64)),
    ],
)
async def test_a_picture_is_no_recording_and_the_other_way_round(
    kind: type[InferenceRequest], field: str, thing: Image | Audio
) -> None:
    async def lookup(job_id: str, number: int) -> Image | Audio:
        assert (job_id, number) == ("j-1", 0)
        return thing

    with pytest.raises(InvalidInput, match="something else") as refused:
        await prepare(made(kind, **{field: "job:j-1"}), lookup, DictBlobs())

    assert refused.value.param == field


@kinds
async def test_a_job_that_is_not_known_is_said_to_be_so(kind: type[InferenceRequest]) -> None:
    field, value = next(iter(BRING[kind].items()))
    text = "job:gone"

    with pytest.raises(UnknownJob):
        await prepare(
            made(kind, **{field: text if isinstance(value, str) else [text]}), no_jobs, DictBlobs()
        )


# Masks


async def inpaint(image: bytes, mask: bytes) -> tuple[Pillow.Image, Pillow.Image]:
    """Return what is sent of a picture and its mask."""
    blobs = DictBlobs()
    request = InpaintRequest(image=b64(image), mask=b64(mask), prompt="p")
    sent = [await blobs.read(blob) for blob in (await prepare(request, no_jobs, blobs)).blobs]
    assert sum(map(len, sent)) < 15_000_000
    return opened(sent[0]), opened(sent[1])


def values(picture: Pillow.Image) -> list[int]:
    return sorted(set(picture.tobytes()))


async def test_a_mask_becomes_black_and_white() -> None:
    mask = Pillow.linear_gradient("L").convert("RGB")

    _, sent = await inpaint(png(*mask.size), encoded(mask, "JPEG"))

    assert (sent.format, sent.mode, sent.size) == ("PNG", "L", mask.size)
    assert values(sent) == [0, 255]
    assert (sent.getpixel((5, 100)), sent.getpixel((5, 150))) == (0, 255)


async def test_what_is_transparent_in_a_mask_is_not_drawn_anew() -> None:
    mask = Pillow.new("RGBA", (64, 48), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (0, 0, 10, 10))

    _, sent = await inpaint(png(), encoded(mask))

    assert (sent.getpixel((5, 5)), sent.getpixel((30, 30))) == (255, 0)


async def test_a_mask_is_made_smaller_as_its_picture_is() -> None:
    side = 4000
    noise = Pillow.frombytes("RGB", (side, side), os.urandom(3 * side * side))
    mask = Pillow.new("L", (side, side), 0)
    mask.paste(255, (0, 0, side // 2, side))

    picture, sent = await inpaint(encoded(noise, "JPEG", quality=92), encoded(mask))

    assert picture.size == sent.size == (2000, 2000)
    assert (sent.getpixel((900, 900)), sent.getpixel((1100, 900))) == (255, 0)
    assert values(sent) == [0, 255]


MASKS: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "of another shape": (lambda: png(48, 64, "white"), "48x64 pixels, but the picture 64x48"),
    "of half the size": (lambda: png(32, 24, "white"), "32x24 pixels, but the picture 64x48"),
    "without white": (lambda: png(color="black"), "nothing white"),
    "cut short": (lambda: png(color="white")[:-30], "damaged or cut short"),
    "no picture": (lambda: b"AAAAAAAAAA", "not a PNG, JPEG or WEBP"),
}


@pytest.mark.parametrize("mask", MASKS)
async def test_a_mask_that_does_not_fit_is_refused_with_what_is_wrong(mask: str) -> None:
    draw, words = MASKS[mask]

    with pytest.raises(InvalidInput, match=words) as refused:
        await inpaint(png(), draw())

    assert refused.value.param == "mask"
    assert refused.value.message.startswith("mask ")


# Files that came along


async def test_an_uploaded_file_is_known_by_its_name_and_kept_like_any_other() -> None:
    blobs = DictBlobs()
    uploads = {"photo": png(), "mask": png(color="white"), "file": wav()}

    request = InpaintRequest(image="photo", mask="mask", prompt="p")
    heard = await prepare(Audio2TxtRequest(audio="file"), no_jobs, blobs, uploads)
    drawn = await prepare(request, no_jobs, blobs, uploads)

    assert [len(heard.blobs), len(drawn.blobs)] == [1, 2]
    assert await blobs.read(heard.blobs[0]) == wav()


@pytest.mark.parametrize("text", [PICTURE, "", "photo "])
async def test_other_texts_are_what_they_were_beside_an_uploaded_file(text: str) -> None:
    request = Img2ImgRequest.model_construct(image=text, prompt="p")

    if text == PICTURE:
        assert (await prepare(request, no_jobs, DictBlobs(), {"photo": wav()})).blobs
    else:
        with pytest.raises(InvalidInput, match="image is not"):
            await prepare(request, no_jobs, DictBlobs(), {"photo": png()})


async def test_an_uploaded_file_that_is_refused_is_called_by_its_name() -> None:
    with pytest.raises(InvalidInput, match="photo is not a PNG") as picture:
        await prepare(
            Img2ImgRequest(image="photo", prompt="p"), no_jobs, InMemory(), {"photo": b"x"}
        )
    with pytest.raises(InvalidInput, match="file is not a WAV") as recording:
        await prepare(Audio2TxtRequest(audio="file"), no_jobs, InMemory(), {"file": png()})

    assert (picture.value.param, recording.value.param) == ("photo", "file")


# Recordings


@pytest.mark.parametrize("kind", RECORDINGS)
async def test_a_recording_is_kept_byte_for_byte(kind: str) -> None:
    blobs = DictBlobs()
    uri = f"data:{kind};base64,{b64(RECORDINGS[kind])}"

    prepared = await prepare(Audio2TxtRequest(audio=uri), no_jobs, blobs)

    (blob,) = prepared.blobs
    assert await blobs.read(blob) == RECORDINGS[kind]


@pytest.mark.parametrize(
    "audio", ["https://example.org/a.wav", "/home/a.wav", "data:audio/wav,abc", PICTURE, "===="]
)
async def test_what_is_no_recording_is_refused_with_what_would_be(audio: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await prepare(Audio2TxtRequest(audio=audio), no_jobs, InMemory())

    assert refused.value.param == "audio"
    assert "WAV" in refused.value.hint or refused.value.message == "audio is empty"
