"""The image guard: what a picture must be before it goes to a backend, and after it came back.

Pillow reads hostile bytes here and nowhere else, and it does so in two threads of its own: that
bounds the memory that pictures take, and keeps the event loop free. Three decoders are allowed.
They are called by name rather than through `PIL.Image.open`, which would warn of large pictures
before their size can be judged, and take a phone's photo with a preview inside for an animation.
"""

import asyncio
import binascii
import io
import re
import struct
import warnings
import zlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import PIL.Image
from PIL.ExifTags import Base
from PIL.Image import DecompressionBombError, Resampling, Transpose
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..models.errors import BackendProtocolError, EmptyResult, InvalidInput
from ..models.requests import (
    MAX_PIXELS,
    MAX_SIDE,
    MIN_SIDE,
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
)
from ..models.results import Image

MAX_BYTES = 20 * 1024 * 1024
MAX_SENT_BYTES = 10_500_000  # all pictures of one request: LocalAI takes 15 MB with base64 around
MAX_RESULT_PIXELS = 64_000_000
SMALLEST_DRAWN, LARGEST_DRAWN = 64, 1024

Lookup = Callable[[str, int], Awaitable[Image]]
"""Finds the n-th picture (from 0) that a job made."""

_ALLOWED = "give base64 of a PNG, JPEG or WEBP picture, a data: URI of one, or job:<id>"
_DATA_URI = re.compile(r"data:([^,]{0,200}),", re.IGNORECASE)
_JOB = re.compile(r"job:([\w-]{1,128})(?:/(\d{1,3}))?", re.ASCII)
_ADDRESS = re.compile(r"(https?|ftp|file):", re.IGNORECASE)
_WHITESPACE = b" \t\r\n\v\f"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")

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
class _Canonical:
    uri: str
    width: int
    height: int


async def prepare(request: InferenceRequest, lookup: Lookup) -> InferenceRequest:
    """Replace each picture of a request by a checked, re-encoded ``data:`` URI.

    An img2img request that says nothing of its size is given the picture's, where possible.

    Raises:
        InvalidInput: a picture is none, or not one that is allowed; `param` names the field.

    """
    if isinstance(request, Img2ImgRequest):
        source = await _prepared(request.image, "image", MAX_SENT_BYTES, lookup)
        if request.width is not None or request.height is not None:
            return request.model_copy(update={"image": source.uri})
        width, height = drawable(source.width, source.height)
        return request.model_copy(update={"image": source.uri, "width": width, "height": height})
    if isinstance(request, Img2TxtRequest):
        share, alone = MAX_SENT_BYTES // len(request.images), len(request.images) == 1
        prepared = [
            await _prepared(image, "image" if alone else f"images.{number}", share, lookup)
            for number, image in enumerate(request.images)
        ]
        return request.model_copy(update={"images": tuple(image.uri for image in prepared)})
    return request


async def preview(image: Image, *, max_side: int = 1024, max_bytes: int = 450_000) -> Image:
    """Return a picture small enough to be shown inside a message; the picture itself if it is."""
    if max(image.width, image.height) <= max_side and len(image.data) <= max_bytes:
        return image
    return await asyncio.get_running_loop().run_in_executor(
        _workers, _preview, image, max_side, max_bytes
    )


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


async def _prepared(text: str, field: str, limit: int, lookup: Lookup) -> _Canonical:
    source: str | bytes = text
    if len(text) <= 200 and (match := _JOB.fullmatch(text.strip())):
        made = await lookup(match[1], int(match[2] or 0))
        source = made.data
    return await asyncio.get_running_loop().run_in_executor(
        _workers, _canonical, source, field, limit
    )


def _canonical(source: str | bytes, field: str, limit: int) -> _Canonical:
    data = source if isinstance(source, bytes) else _decoded(source, field)
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
            f"{field} is not a PNG, JPEG or WEBP picture", param=field, hint=_ALLOWED
        ) from None
    _check(picture, field)
    try:
        plain = _plain(_upright(picture))
        encoded, media_type = _encoded(plain, limit, as_jpeg=picture.format == "JPEG")
    except _BROKEN:
        raise InvalidInput(f"{field} is damaged or cut short", param=field) from None
    base64 = binascii.b2a_base64(encoded, newline=False).decode("ascii")
    return _Canonical(f"data:{media_type};base64,{base64}", *plain.size)


def _decoded(text: str, field: str) -> bytes:
    """Take the bytes out of base64 in any of its spellings, or out of a data URI."""
    if _ADDRESS.match(text.lstrip()[:8]):
        raise InvalidInput(f"{field} must not be an address", param=field, hint=_ALLOWED)
    wrong = InvalidInput(f"{field} is not valid base64", param=field, hint=_ALLOWED)
    if match := _DATA_URI.match(text.lstrip()):
        if not match[1].rstrip().lower().endswith(";base64"):
            raise InvalidInput(f"{field} must be a base64 data: URI", param=field, hint=_ALLOWED)
        text = text.lstrip()[match.end() :]
    try:
        raw = text.encode("ascii")
    except UnicodeEncodeError:
        raise wrong from None
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    raw = raw.translate(_URL_SAFE, _WHITESPACE).rstrip(b"=")
    try:
        return binascii.a2b_base64(raw + b"=" * (-len(raw) % 4), strict_mode=True)
    except ValueError:
        raise wrong from None


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
    plain = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    plain.info.clear()
    return plain


def _encoded(plain: PIL.Image.Image, limit: int, *, as_jpeg: bool) -> tuple[bytes, str]:
    """Encode within `limit` bytes: lossless or nearly so, else as JPEG, else ever smaller."""
    data, media_type = (_jpeg(plain, 95), "image/jpeg") if as_jpeg else (_png(plain), "image/png")
    if len(data) <= limit:
        return data, media_type
    while len(data := _jpeg(plain, 92)) > limit and min(plain.size) >= 2 * MIN_SIDE:
        plain = plain.reduce(2)
    return data, "image/jpeg"


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
