import base64
import io
import os
import struct
import zlib
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from src.models.blobs import Blob
from src.models.errors import BackendProtocolError, EmptyResult, InvalidInput, UnknownJob
from src.models.requests import Img2ImgRequest, Img2TxtRequest, InferenceRequest, Txt2TxtRequest
from src.models.results import Image
from src.utils.attachments import prepare
from src.utils.images import MAX_SENT_BYTES, drawable, inspect_result, preview, redrawn
from src.utils.localai_memory import InMemory

CANARY = "canary-7d1f"


async def no_jobs(job_id: str, number: int) -> Image:
    raise UnknownJob(f"no job {job_id} with picture {number}")


def encoded(picture: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int = 64, height: int = 48, mode: str = "RGB", color: object = "red") -> bytes:
    return encoded(Pillow.new(mode, (width, height), cast("str", color)))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def noise(width: int, height: int, mode: str = "RGB") -> Pillow.Image:
    return Pillow.frombytes(mode, (width, height), os.urandom(width * height * len(mode)))


def empty_png(width: int, height: int) -> bytes:
    """Write the smallest PNG of a size: a bomb, if the size is large enough."""

    def part(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    pixels = b"".join([*(rows.compress(line) for _ in range(height)), rows.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")


async def img2img(image: str, **fields: object) -> Img2ImgRequest:
    request = Img2ImgRequest.model_validate({"image": image, "prompt": "p", **fields})
    prepared = await prepare(request, no_jobs, InMemory())
    assert isinstance(prepared, Img2ImgRequest)
    return prepared


async def canonical(image: str) -> tuple[str, bytes, Pillow.Image]:
    """Return what the guard makes of a picture: its kind, its bytes, its pixels."""
    head, _, data = (await img2img(image)).image.partition(",")
    raw = base64.b64decode(data, validate=True)
    picture = Pillow.open(io.BytesIO(raw))
    picture.load()
    return head, raw, picture


async def refusal(image: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        await img2img(image)
    assert refused.value.param == "image"
    return refused.value


# What may come in


def url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


SPELLINGS: dict[str, Callable[[bytes], str]] = {
    "plain": b64,
    "url_safe": url_safe,
    "without_padding": lambda data: b64(data).rstrip("="),
    "wrapped": lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "indented": lambda data: f"\n  {b64(data)}\t ",
    "data_uri": lambda data: f"data:image/png;base64,{b64(data)}",
    "shouted_data_uri": lambda data: f"DATA:IMAGE/PNG;BASE64,{b64(data)}",
    "data_uri_with_parameter": lambda data: f"data:image/png;charset=utf-8;base64,{b64(data)}",
    "data_uri_without_type": lambda data: f"data:;base64,{b64(data)}",
    "data_uri_with_wrong_type": lambda data: f"data:image/jpeg;base64,{b64(data)}",
    "data_uri_percent_encoded": lambda data: (
        "data:image/png;base64,"
        + b64(data).replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    ),
    "data_uri_wrapped": lambda data: "data:image/png;base64,\n" + base64.encodebytes(data).decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_base64_is_understood_in_every_spelling(spelling: str) -> None:
    picture = noise(21, 17)

    head, _, seen = await canonical(SPELLINGS[spelling](encoded(picture)))

    assert head == "data:image/png;base64"
    assert seen.tobytes() == picture.tobytes()


@pytest.mark.parametrize(
    "image",
    [
        f"https://example.org/{CANARY}.png",
        f"HTTP://example.org/{CANARY}.png",
        f"file:///home/{CANARY}.png",
        f"/home/{CANARY}.png",
        f"C:\\{CANARY}.png",
        f"{CANARY}!",
        f"{CANARY}🦊",
        f"data:image/png,{CANARY}",
        f"data:image/png;base64;{CANARY},{CANARY}",
        f"data:{CANARY * 2000};base64,AAAA",
        f"data:image/png;base64,{CANARY}=x",
        f"job:{CANARY}/x",
        "job:",
        "data:image/png;base64,",
        "====",
        "A",
        "AAAA=AAA",
    ],
)
async def test_what_is_no_picture_at_all_is_refused_without_repeating_it(image: str) -> None:
    error = await refusal(image)

    assert "image" in error.message
    assert "job:<id>" in error.hint
    assert CANARY not in error.message + error.hint


FOREIGN = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "gif": encoded(Pillow.new("P", (20, 20)), "GIF"),
    "bmp": encoded(Pillow.new("RGB", (20, 20)), "BMP"),
    "tiff": encoded(Pillow.new("RGB", (20, 20)), "TIFF"),
    "pdf": b"%PDF-1.7 nothing",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0 nothing",
    "html": b"<html></html>",
    "zeros": bytes(100),
    "only_a_signature": b"\x89PNG\r\n\x1a\n",
    "only_a_start": b"\xff\xd8\xff",
    "only_a_riff": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
}


@pytest.mark.parametrize("kind", FOREIGN)
async def test_only_png_jpeg_and_webp_are_pictures(kind: str) -> None:
    error = await refusal(b64(FOREIGN[kind]))

    assert error.message == "image is not a PNG, JPEG or WEBP picture"


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (15, 100), (100, 15), (4097, 16), (16, 4097), (13000, 13000)]
)
async def test_a_side_too_short_or_too_long_is_refused_by_its_numbers(
    width: int, height: int
) -> None:
    error = await refusal(b64(empty_png(width, height)))

    assert f"{width}x{height}" in error.message
    assert "16 to 4096" in error.message


def _decoded(picture: Pillow.Image) -> None:
    pytest.fail(f"{picture} was decoded")


async def test_a_bomb_is_refused_before_its_pixels_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = b64(empty_png(13000, 13000))
    assert len(bomb) < 100_000
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", _decoded)

    await refusal(bomb)


async def test_too_many_pixels_are_refused_although_the_sides_are_not_too_long() -> None:
    error = await refusal(b64(empty_png(4096, 4000)))

    assert "16,000,000" in error.message


def huge_webp() -> bytes:
    """Write the header of a WEBP of 16383 x 16383 pixels, which Pillow refuses by itself."""
    side = (16382).to_bytes(3, "little")
    return b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + side + side


async def test_more_pixels_than_pillow_dares_to_open_are_refused_as_too_many() -> None:
    error = await refusal(b64(huge_webp()))

    assert "too many pixels" in error.message


async def test_a_photo_of_a_phone_is_taken() -> None:
    prepared = await img2img(b64(empty_png(4080, 3072)))

    assert (prepared.width, prepared.height) == (1024, 768)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
async def test_an_animation_is_refused(kind: str) -> None:
    frames = [noise(32, 32), noise(32, 32)]

    error = await refusal(b64(encoded(frames[0], kind, save_all=True, append_images=frames[1:])))

    assert "animation" in error.message


async def test_a_photo_with_a_preview_inside_is_no_animation() -> None:
    photo = encoded(noise(64, 48), "MPO", save_all=True, append_images=[noise(32, 24)])

    head, _, seen = await canonical(b64(photo))

    assert (head, seen.size) == ("data:image/jpeg;base64", (64, 48))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_a_picture_that_was_cut_short_is_refused(kind: str) -> None:
    whole = encoded(noise(64, 64), kind)

    for kept in (0.2, 0.5, 0.9):
        error = await refusal(b64(whole[: int(len(whole) * kept)]))
        assert CANARY not in error.message


async def test_more_than_20_mib_are_refused() -> None:
    large = png() + bytes(20 * 1024 * 1024)

    error = await refusal(b64(large))

    assert error.message == "image must be at most 20 MiB"


async def test_the_field_is_named_by_its_number_where_there_are_several() -> None:
    request = Img2TxtRequest(images=(b64(png()), "https://example.org"))

    with pytest.raises(InvalidInput) as refused:
        await prepare(request, no_jobs, InMemory())

    assert refused.value.param == "images.1"
    assert refused.value.message.startswith("images.1 ")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP"]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    kept=st.integers(0, 4000),
)
async def test_damaged_bytes_end_in_a_refusal_or_a_sound_picture(
    kind: str, changes: list[tuple[int, int]], kept: int
) -> None:
    data = bytearray(DAMAGEABLE[kind][:kept])
    for at, value in changes:
        if at < len(data):
            data[at] = value

    try:
        _, _, seen = await canonical(b64(bytes(data)) or "====")
    except InvalidInput:
        return
    assert min(seen.size) >= 16


def exif(orientation: int = 1) -> Pillow.Exif:
    told = Pillow.Exif()
    told[0x0112] = orientation
    told[0x010F] = CANARY  # the maker of the camera
    told.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 0.0), 3: "E", 4: (11.0, 34.0, 0.0)})
    return told


DAMAGEABLE = {
    kind: encoded(Pillow.effect_noise((24, 24), 90).convert("RGB"), kind, exif=exif(6))
    for kind in ("PNG", "JPEG", "WEBP")
}


# What goes out


def corners() -> Pillow.Image:
    """Draw four colours: red and green above, blue and white below."""
    picture = Pillow.new("RGB", (40, 20), "red")
    picture.paste("green", (20, 0, 40, 10))
    picture.paste("blue", (0, 10, 20, 20))
    picture.paste("white", (20, 10, 40, 20))
    return picture


TURNED = {
    1: None,
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_90,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", TURNED)
async def test_a_picture_is_turned_as_its_camera_was_held(orientation: int, kind: str) -> None:
    turn = TURNED[orientation]
    stored = corners() if turn is None else corners().transpose(turn)

    _, _, seen = await canonical(b64(encoded(stored, kind, exif=exif(orientation))))

    assert seen.size == (40, 20)
    for at in ((5, 5), (35, 5), (5, 15), (35, 15)):
        channels = zip(
            cast("tuple[int, ...]", seen.getpixel(at)),
            cast("tuple[int, ...]", corners().getpixel(at)),
            strict=True,
        )
        assert all(abs(one - other) < 40 for one, other in channels)
    assert seen.getexif() == {}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_nothing_of_the_metadata_is_passed_on(kind: str) -> None:
    told = PngInfo()
    told.add_text("parameters", CANARY)
    told.add_text("Comment", CANARY, zip=True)
    told.add_itxt("XML:com.adobe.xmp", CANARY)
    special: dict[str, dict[str, object]] = {"PNG": {"pnginfo": told}, "JPEG": {"comment": CANARY}}
    options: dict[str, object] = {"exif": exif(), "xmp": CANARY.encode(), **special.get(kind, {})}
    options["icc_profile"] = CANARY.encode() * 20
    original = encoded(noise(32, 32), kind, **options) + CANARY.encode()
    assert CANARY.encode() in original

    _, raw, seen = await canonical(b64(original))

    assert CANARY.encode() not in raw
    assert b"GPS" not in raw
    assert not {"exif", "xmp", "icc_profile", "parameters", "comment", "dpi"} & set(seen.info)


@pytest.mark.parametrize(
    ("mode", "color", "kind", "expected"),
    [
        ("1", 1, "PNG", (255, 255, 255)),
        ("L", 100, "PNG", (100, 100, 100)),
        ("LA", (100, 50), "PNG", (100, 100, 100, 50)),
        ("P", 0, "PNG", (0, 0, 0)),
        ("RGBA", (1, 2, 3, 4), "PNG", (1, 2, 3, 4)),
        ("I;16", 40000, "PNG", (156, 156, 156)),
        ("L", 100, "JPEG", (100, 100, 100)),
        ("CMYK", (0, 255, 255, 0), "JPEG", (254, 0, 0)),
        ("RGBA", (200, 100, 0, 0), "WEBP", None),
    ],
)
async def test_every_mode_becomes_plain_colour(
    mode: str, color: object, kind: str, expected: tuple[int, ...] | None
) -> None:
    _, _, seen = await canonical(b64(encoded(Pillow.new(mode, (20, 20), cast("int", color)), kind)))

    assert seen.mode in ("RGB", "RGBA")
    if expected is not None:
        assert seen.getpixel((10, 10)) == expected


async def test_a_palette_with_a_transparent_colour_keeps_it() -> None:
    picture = Pillow.new("P", (20, 20), 0)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((3, 3), 1)

    _, _, seen = await canonical(b64(encoded(picture, transparency=0)))

    assert seen.getpixel((0, 0)) == (10, 20, 30, 0)
    assert seen.getpixel((3, 3)) == (40, 50, 60, 255)


@pytest.mark.parametrize(("kind", "sent"), [("PNG", "png"), ("WEBP", "png"), ("JPEG", "jpeg")])
async def test_a_photo_stays_a_jpeg_and_everything_else_becomes_png(kind: str, sent: str) -> None:
    head, raw, seen = await canonical(b64(encoded(noise(32, 32), kind)))

    assert head == f"data:image/{sent};base64"
    assert seen.format == sent.upper()
    assert raw != b""


async def test_what_is_too_large_to_send_becomes_a_jpeg_on_white() -> None:
    picture = noise(2200, 1800)
    picture.putalpha(0)
    large = encoded(picture, compress_level=0)
    assert len(large) > MAX_SENT_BYTES

    head, raw, seen = await canonical(b64(large))

    assert head == "data:image/jpeg;base64"
    assert len(raw) <= MAX_SENT_BYTES
    assert (seen.size, seen.getpixel((9, 9))) == ((2200, 1800), (255, 255, 255))


async def test_what_is_still_too_large_is_halved_but_drawn_at_its_own_size() -> None:
    share = b64(encoded(noise(1600, 1200), "JPEG", quality=92))
    request = Img2TxtRequest(images=(share,) * 8)

    prepared = await prepare(request, no_jobs, InMemory())

    assert isinstance(prepared, Img2TxtRequest)
    assert sum(map(len, prepared.images)) < 15_000_000
    first = Pillow.open(io.BytesIO(base64.b64decode(prepared.images[0].partition(",")[2])))
    assert first.size == (800, 600)


async def test_a_picture_that_a_job_made_is_looked_up() -> None:
    asked: list[tuple[str, int]] = []

    async def lookup(job_id: str, number: int) -> Image:
        asked.append((job_id, number))
        return Image(png(40, 30), "image/png", 40, 30)

    request = Img2TxtRequest(images=("job:j-1", "job:j-1/2", b64(png(16, 16))))
    prepared = await prepare(request, lookup, InMemory())

    assert asked == [("j-1", 0), ("j-1", 2)]
    assert isinstance(prepared, Img2TxtRequest)
    assert all(image.startswith("data:image/png;base64,") for image in prepared.images)


async def test_a_job_that_is_not_known_is_said_to_be_so() -> None:
    with pytest.raises(UnknownJob):
        await img2img("job:nothing")


async def test_a_request_without_pictures_stays_as_it_is() -> None:
    request: InferenceRequest = Txt2TxtRequest.model_validate({"prompt": "hello"})

    assert await prepare(request, no_jobs, InMemory()) is request


async def test_a_prepared_request_can_be_prepared_again() -> None:
    once = await img2img(b64(png()))

    assert await prepare(once, no_jobs, InMemory()) == once


@pytest.mark.parametrize(
    ("given_", "size"),
    [
        ({}, (64, 64)),
        ({"width": 512, "height": 256}, (512, 256)),
        ({"width": 512}, (512, None)),
        ({"size": "64x128"}, (64, 128)),
    ],
)
async def test_the_size_is_the_pictures_unless_the_caller_says_otherwise(
    given_: dict[str, object], size: tuple[int, int | None]
) -> None:
    prepared = await img2img(b64(png(60, 62)), **given_)

    assert (prepared.width, prepared.height) == size


async def test_the_size_is_that_of_the_picture_as_it_is_seen() -> None:
    prepared = await img2img(b64(encoded(Pillow.new("RGB", (400, 200)), "JPEG", exif=exif(6))))

    assert (prepared.width, prepared.height) == (200, 400)


@given(width=st.integers(16, 4096), height=st.integers(16, 4096))
def test_a_size_to_draw_is_a_multiple_of_8_between_64_and_1024_in_proportion(
    width: int, height: int
) -> None:
    drawn = drawable(width, height)

    assert all(64 <= side <= 1024 and side % 8 == 0 for side in drawn)
    if max(width, height) <= 16 * min(width, height):
        scale = drawn[0] / width if width > height else drawn[1] / height
        assert abs(width * scale - drawn[0]) <= 8
        assert abs(height * scale - drawn[1]) <= 8


@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_metadata_that_cannot_be_read_says_nothing() -> None:
    damaged = exif(6).tobytes()[:14] + b"\xff" * 40

    _, _, seen = await canonical(b64(encoded(corners(), "PNG", exif=damaged)))

    assert seen.tobytes() == corners().tobytes()


# What comes back


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_result_is_kept_as_it_came(kind: str) -> None:
    data = encoded(noise(40, 30), kind)

    image = inspect_result(data, backend="b", seed=7)

    assert image == Image(data, f"image/{kind.lower()}", 40, 30, 7)


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", png()[:-40], png(1, 1), FOREIGN["gif"], FOREIGN["svg"]],
    ids=["nothing", "html", "cut", "1x1", "gif", "svg"],
)
def test_a_result_that_cannot_be_seen_counts_as_none(data: bytes) -> None:
    with pytest.raises(EmptyResult):
        inspect_result(data, backend="b")


def test_an_absurdly_large_result_is_no_result() -> None:
    with pytest.raises(BackendProtocolError, match="13000x13000"):
        inspect_result(empty_png(13000, 13000), backend="b")
    with pytest.raises(BackendProtocolError, match="too many pixels"):
        inspect_result(huge_webp(), backend="b")


def test_a_mask_that_is_transparent_where_it_counts_becomes_white_there() -> None:
    picture = Pillow.new("RGBA", (64, 48), (9, 9, 9, 255))
    picture.paste((255, 255, 255, 0), (0, 0, 32, 48))

    mask = Pillow.open(io.BytesIO(redrawn(encoded(picture), "mask")))

    assert mask.mode == "L"
    assert mask.crop((0, 0, 32, 48)).getextrema() == (255, 255)
    assert mask.crop((32, 0, 64, 48)).getextrema() == (0, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1"])
def test_a_mask_with_nothing_transparent_stays_as_it_is(mode: str) -> None:
    data = encoded(Pillow.new(mode, (64, 48), "white"))

    assert redrawn(data, "mask") == data


@pytest.mark.parametrize("data", [b"", b"x", png(mode="RGBA")[:-40], png(8, 8)])
def test_a_mask_that_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        redrawn(data, "mask")

    assert refused.value.param == "mask"


async def test_a_small_picture_is_its_own_preview() -> None:
    image = Image(png(), "image/png", 64, 48)

    assert await preview(image) is image


async def test_a_large_picture_has_a_small_preview() -> None:
    image = Image(encoded(noise(1500, 1000)), "image/png", 1500, 1000, 7)

    small = await preview(image)

    assert (small.media_type, small.width, small.height, small.seed) == ("image/webp", 1024, 683, 7)
    assert isinstance(small.data, bytes)
    assert len(small.data) <= 450_000
    assert Pillow.open(io.BytesIO(small.data)).size == (1024, 683)


async def test_what_cannot_be_decoded_has_no_preview() -> None:
    with pytest.raises(EmptyResult):
        await preview(Image(bytes(500_000), "image/png", 64, 48))


async def test_a_blob_must_be_read_before_it_is_made_smaller() -> None:
    with pytest.raises(TypeError, match="read"):
        await preview(Image(Blob("k1", 10), "image/png", 2000, 2000))


async def test_a_preview_shrinks_until_it_fits() -> None:
    image = Image(encoded(noise(600, 600)), "image/png", 600, 600)

    small = await preview(image, max_side=512, max_bytes=4_000)

    assert isinstance(small.data, bytes)
    assert len(small.data) <= 4_000
    assert inspect_result(small.data).width == small.width < 512
