"""`/video`: a few frames in an MP4. Nothing of it is tied to the client, not even the load."""

import base64
import binascii
from io import BytesIO

from PIL import Image

from . import wire
from .config import Kind
from .exchange import AT_THE_END, Exchange
from .film import mp4
from .labour import Piece, carry_through
from .pictures import LARGEST, NOT_A_PICTURE, SMALLEST, SOFTWARE, STRENGTH, Wish, frames
from .seeds import rng_for
from .simulation import Simulation

KINDS: tuple[Kind, ...] = ("video",)
DEFAULT_SIZE = 512
DEFAULT_FRAMES, MOST_FRAMES = 8, 240
DEFAULT_FPS = 8


class VideoRequest(wire.ModelRequest):
    """The body of a request for a video."""

    prompt: str | None = None
    negative_prompt: str | None = None
    start_image: str | None = None
    end_image: str | None = None
    audio: str | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: int | None = None
    seed: int | None = None
    response_format: str | None = None


async def video(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with a video, as base64 or as an address on this server."""
    request = wire.parsed(VideoRequest, exchange.body)
    name = simulation.requested(exchange, request.model, KINDS)
    facts = simulation.facts(exchange, modality="txt2video", prompt=request.prompt or "")
    await simulation.befall(exchange, facts)
    model = simulation.installed(name, KINDS)
    source, _, _ = map(_media, (request.start_image, request.end_image, request.audio))
    count, fps = request.num_frames or DEFAULT_FRAMES, request.fps or DEFAULT_FPS
    seed = request.seed
    if seed is None or seed < 0:
        seed = rng_for("video", simulation.config.seed, exchange.record.number).randrange(2**31)
    wish = Wish(
        prompt=request.prompt or "",
        negative=request.negative_prompt or "",
        width=request.width or DEFAULT_SIZE,
        height=request.height or DEFAULT_SIZE,
        steps=count,
        seed=seed,
        strength=None if source is None else STRENGTH,
    )
    frame_s = model.s_per_frame * wish.width * wish.height / DEFAULT_SIZE**2
    piece = Piece(lambda: _filmed(wish, count, fps, source, model.max_pixels), count, frame_s)
    [film] = await carry_through(exchange, simulation, [piece], load_too=True)
    await simulation.suffer(exchange, AT_THE_END)
    item: dict[str, object] = {"embedding": None, "index": 0}
    if request.response_format == "b64_json":
        item["b64_json"] = base64.b64encode(film).decode()
    else:
        item["url"] = f"{exchange.base_url}/generated-videos/{_kept(simulation, film)}"
    await exchange.answer(
        {"created": simulation.unix_time(), "id": exchange.correlation_id, "data": [item]}
    )


def _filmed(wish: Wish, count: int, fps: int, source: bytes | None, max_pixels: int) -> bytes:
    """Film what is wished.

    Raises:
        Refusal: a number is out of range, or the source is no picture.

    """
    if not all(SMALLEST <= side <= LARGEST for side in (wish.width, wish.height)):
        raise _failed(f"sizes go from {SMALLEST} to {LARGEST} pixels")
    if not (1 <= count <= MOST_FRAMES and 1 <= fps <= MOST_FRAMES):
        raise _failed(f"1 to {MOST_FRAMES} frames, and as many a second, can be made")
    if wish.width * wish.height > max_pixels:
        raise wire.out_of_memory()
    try:
        pictures = [_jpeg(frame) for frame in frames(wish, count, source)]
    except NOT_A_PICTURE as error:
        raise _bad_media("cannot identify image file") from error
    note = f"{SOFTWARE}: [simulated] {wish.prompt}"
    return mp4(pictures, width=wish.width, height=wish.height, fps=fps, note=note)


def _jpeg(frame: Image.Image) -> bytes:
    file = BytesIO()
    frame.save(file, "JPEG")
    return file.getvalue()


def _media(given: str | None) -> bytes | None:
    """Read a data URI or plain base64.

    Raises:
        Refusal: it is neither.

    """
    if not given:
        return None
    head, comma, rest = given.partition(",")
    try:
        return base64.b64decode(
            rest if comma and head.startswith("data:") else given, validate=True
        )
    except (binascii.Error, ValueError) as error:
        raise _bad_media("neither a data URI nor base64") from error


def _kept(simulation: Simulation, film: bytes) -> str:
    """Keep a video where it can be fetched, and return its name."""
    as_picture = simulation.keep_picture(film)
    name = as_picture.replace(".png", ".mp4")
    simulation.pictures[name] = simulation.pictures.pop(as_picture)
    return name


def _bad_media(reason: str) -> wire.Refusal:
    return wire.framework_error(400, f"invalid image input: {reason}")


def _failed(reason: str) -> wire.Refusal:
    return wire.Refusal(500, f"rpc error: code = Unknown desc = {reason}")
