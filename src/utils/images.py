"""The image guard: what a picture must be before it goes to a backend, and after it came back.

Pillow reads hostile bytes here and nowhere else, and it does so in two threads of its own: that
bounds the memory that pictures take, and keeps the event loop free. Three decoders are allowed.
They are called by name rather than through `PIL.Image.open`, which would warn of large pictures
before their size can be judged, and take a phone's photo with a preview inside for an animation.
"""

import asyncio
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import PIL.Image
from PIL.ExifTags import Base
from PIL.Image import DecompressionBombError, Dither, Resampling, Transpose
from PIL.ImageChops import invert, multiply
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..models.blobs import Blob, size_of
from ..models.errors import BackendProtocolError, EmptyResult, InvalidInput
from ..models.fields import MAX_PIXELS, MAX_SIDE, MIN_SIDE
from ..models.results import Image

MAX_BYTES = 20 * 1024 * 1024
MAX_SENT_BYTES = 10_500_000  # all pictures of one request: LocalAI takes 15 MB with base64 around
MAX_RESULT_PIXELS = 64_000_000
SMALLEST_DRAWN, LARGEST_DRAWN = 64, 1024
ALLOWED = "give base64 of a PNG, JPEG or WEBP picture, a data: URI of one, or job:<id>"

T = TypeVar("T")

_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

_workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="images")

# Pillow warns of odd metadata, which is dropped anyway, from inside its own modules.
warnings.filterwarnings("ignore", module=r"PIL\.")

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    DecompressionBombError,
    Warning,
)
"""What Pillow's decoders raise on bytes that are no picture."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """A picture as it is sent: upright, without metadata, as RGB or RGBA in a PNG or JPEG.

    Attributes:
        size: its width and height as they are seen.
        sent: the same after it was made small enough to be sent.

    """

    data: bytes
    media_type: str
    size: tuple[int, int]
    sent: tuple[int, int]


async def apart(work: Callable[[], T]) -> T:
    """Do something in one of the two threads, so that no more than two pictures are open."""
    return await asyncio.get_running_loop().run_in_executor(_workers, work)


def canonical(data: bytes, field: str, limit: int = MAX_SENT_BYTES) -> Canonical:
    """Check a caller's picture and encode it anew in at most `limit` bytes. Slow.

    Raises:
        InvalidInput: it is none, or not one that is allowed; `param` names the field.

    """
    picture = _opened(data, field)
    del data
    try:
        plain = _plain(_upright(picture))
        encoded, media_type, sent = _encoded(plain, limit, as_jpeg=picture.format == "JPEG")
    except _BROKEN:
        raise _damaged(field) from None
    return Canonical(encoded, media_type, plain.size, sent)


def mask(data: bytes, field: str, of: Canonical) -> Canonical:
    """Check the mask of a picture and encode it in black and white, as large as it is sent. Slow.

    What is transparent counts as black.

    Raises:
        InvalidInput: it is no picture, has another shape, or nothing white; `param` names it.

    """
    picture = _opened(data, field)
    try:
        plain = _plain(_upright(picture))
    except _BROKEN:
        raise _damaged(field) from None
    if plain.size != of.size:
        (width, height), (wide, high) = plain.size, of.size
        raise InvalidInput(
            f"{field} has {width}x{height} pixels, but the picture {wide}x{high}",
            param=field,
            hint="give a mask of the same size as the picture",
        )
    grey = _on_black(plain)
    while grey.size != of.sent:
        grey = grey.reduce(2)  # as the picture was
    drawn = grey.convert("1", dither=Dither.NONE).convert("L")
    if drawn.getextrema() == (0, 0):
        raise InvalidInput(
            f"{field} has nothing white", param=field, hint="white is what will be drawn anew"
        )
    return Canonical(_png(drawn), "image/png", of.size, of.sent)


def redrawn(data: bytes, field: str) -> bytes:
    """Turn a mask in which what is transparent is drawn anew into one where that is white. Slow.

    One without anything transparent stays as it is.

    Raises:
        InvalidInput: it is no picture that is allowed; `param` names the field.

    """
    picture = _opened(data, field)
    try:
        plain = _plain(_upright(picture))
        if plain.mode != "RGBA" or plain.getchannel("A").getextrema() == (255, 255):
            return data
        return _png(invert(plain.getchannel("A")))
    except _BROKEN:
        raise _damaged(field) from None


def inverted(data: bytes, field: str) -> bytes:
    """Turn a mask in which black is drawn anew into one where that is white. Slow.

    What is transparent counts as black.

    Raises:
        InvalidInput: it is no picture that is allowed; `param` names the field.

    """
    picture = _opened(data, field)
    try:
        return _png(invert(_on_black(_plain(_upright(picture)))))
    except _BROKEN:
        raise _damaged(field) from None


async def preview(image: Image, *, max_side: int = 1024, max_bytes: int = 450_000) -> Image:
    """Return a picture small enough to be shown inside a message; the picture itself if it is.

    Its data must be at hand, not a blob.
    """
    if max(image.width, image.height) <= max_side and size_of(image.data) <= max_bytes:
        return image
    return await apart(lambda: _preview(image, max_side, max_bytes))


def inspect_result(data: bytes, *, backend: str = "", seed: int | None = None) -> Image:
    """Check a picture that a backend made. Slow: call it in a thread.

    Raises:
        EmptyResult: there is nothing, or nothing that can be seen.
        BackendProtocolError: it is absurdly large.

    """
    whose = f"backend {backend} made" if backend else "the backend made"
    if not data:
        raise EmptyResult(f"{whose} an empty picture")
    try:
        picture = _open(data)
        width, height = picture.size
        if width * height > MAX_RESULT_PIXELS:
            raise BackendProtocolError(f"{whose} a picture of {width}x{height} pixels")
        if min(width, height) < MIN_SIDE:
            raise EmptyResult(f"{whose} a picture of {width}x{height} pixels")
        picture.load()
    except DecompressionBombError:
        raise BackendProtocolError(f"{whose} a picture with too many pixels") from None
    except _BROKEN:
        raise EmptyResult(f"{whose} a picture that cannot be decoded") from None
    return Image(data, PIL.Image.MIME[picture.format or ""], width, height, seed)


def drawable(width: int, height: int) -> tuple[int, int]:
    """Return a size of about these proportions that image models like: multiples of 8."""
    scale = min(1.0, LARGEST_DRAWN / max(width, height))
    scale = max(scale, min(SMALLEST_DRAWN / min(width, height), LARGEST_DRAWN / max(width, height)))
    return _drawable(width * scale), _drawable(height * scale)


def _drawable(side: float) -> int:
    return min(max(round(side / 8) * 8, SMALLEST_DRAWN), LARGEST_DRAWN)


def _opened(data: bytes, field: str) -> ImageFile:
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{field} must be at most 20 MiB", param=field)
    try:
        picture = _open(data)
    except DecompressionBombError:
        raise InvalidInput(
            f"{field} has too many pixels; at most {MAX_PIXELS:,} are allowed", param=field
        ) from None
    except _BROKEN:
        raise InvalidInput(
            f"{field} is not a PNG, JPEG or WEBP picture", param=field, hint=ALLOWED
        ) from None
    _check(picture, field)
    return picture


def _damaged(field: str) -> InvalidInput:
    return InvalidInput(f"{field} is damaged or cut short", param=field)


def _open(data: bytes) -> ImageFile:
    """Read the header of a picture of an allowed kind; its pixels wait until they are loaded."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(io.BytesIO(data))
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(io.BytesIO(data))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile(io.BytesIO(data))
    raise ValueError("no picture of an allowed kind")


def _check(picture: ImageFile, field: str) -> None:
    width, height = picture.size
    if not MIN_SIDE <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise InvalidInput(
            f"{field} has {width}x{height} pixels; "
            f"each side must have {MIN_SIDE} to {MAX_SIDE} pixels",
            param=field,
        )
    if width * height > MAX_PIXELS:
        raise InvalidInput(
            f"{field} has {width}x{height} pixels; at most {MAX_PIXELS:,} in all are allowed",
            param=field,
        )
    if getattr(picture, "n_frames", 1) != 1:
        raise InvalidInput(f"{field} is an animation; send a single picture", param=field)


def _upright(picture: ImageFile) -> PIL.Image.Image:
    """Turn a picture as its metadata says; metadata that cannot be read says nothing."""
    picture.load()
    try:
        turn = _TURNS.get(picture.getexif().get(Base.Orientation, 1))
    except _BROKEN:
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _plain(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Return the pixels alone, as RGB or RGBA with 8 bits a channel."""
    if picture.mode == "I;16":  # a mere conversion would clip grey to 255; keep its high bytes
        picture = PIL.Image.frombytes("L", picture.size, picture.tobytes()[1::2])
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    plain = picture if picture.mode == mode else picture.convert(mode)
    plain.info.clear()
    return plain


def _on_black(plain: PIL.Image.Image) -> PIL.Image.Image:
    grey = plain.convert("L")
    return multiply(grey, plain.getchannel("A")) if plain.mode == "RGBA" else grey


def _encoded(
    plain: PIL.Image.Image, limit: int, *, as_jpeg: bool
) -> tuple[bytes, str, tuple[int, int]]:
    """Encode within `limit` bytes: lossless or nearly so, else as JPEG, else ever smaller."""
    data, media_type = (_jpeg(plain, 95), "image/jpeg") if as_jpeg else (_png(plain), "image/png")
    if len(data) <= limit:
        return data, media_type, plain.size
    while len(data := _jpeg(plain, 92)) > limit and min(plain.size) >= 2 * MIN_SIDE:
        plain = plain.reduce(2)
    return data, "image/jpeg", plain.size


def _png(plain: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", compress_level=1)  # level 6 takes four times as long for a sixth less
    return buffer.getvalue()


def _jpeg(plain: PIL.Image.Image, quality: int) -> bytes:
    if plain.mode == "RGBA":
        white = PIL.Image.new("RGB", plain.size, "white")
        white.paste(plain, mask=plain.getchannel("A"))
        plain = white
    buffer = io.BytesIO()
    plain.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _preview(image: Image, max_side: int, max_bytes: int) -> Image:
    if isinstance(image.data, Blob):
        raise TypeError("the blob of a picture must be read before it can be made smaller")
    try:
        plain = _plain(_open(image.data))
        plain.thumbnail((max_side, max_side), Resampling.LANCZOS)
        for quality in (80, 60, 40):
            data = _webp(plain, quality)
            if len(data) <= max_bytes:
                break
        while len(data) > max_bytes and min(plain.size) > 1:
            plain = plain.reduce(2)
            data = _webp(plain, 40)
    except _BROKEN:
        raise EmptyResult("the picture cannot be decoded") from None
    return Image(data, "image/webp", *plain.size, image.seed)


def _webp(plain: PIL.Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    plain.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()
