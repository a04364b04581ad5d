"""`/v1/images/generations`: pictures from words, or from a picture and words.

Work on a picture goes on though the client has left, and keeps its slot until it is done.
"""

import base64
import binascii
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from . import faults, wire
from .config import Kind, ModelConfig
from .exchange import AT_THE_END, Exchange
from .labour import Piece, carry_through
from .pictures import LARGEST, NOT_A_PICTURE, SMALLEST, STRENGTH, Wish, png
from .seeds import rng_for
from .simulation import Simulation

KINDS: tuple[Kind, ...] = ("image",)
DEFAULT_SIZE = 512
DEFAULT_STEPS = 15


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for, understood as LocalAI understands it."""

    prompts: list[str]
    size: tuple[int, int]
    steps: int
    count: int
    seed: int | None
    source: bytes | None

    def wishes(self, seed: int) -> list[Wish]:
        """List the pictures to draw."""
        width, height = self.size
        wishes: list[Wish] = []
        for prompt in self.prompts:
            positive, _, rest = prompt.partition("|")
            for _ in range(self.count):
                own = self.seed
                if own is None:
                    own = rng_for("picture", seed, len(wishes)).randrange(2**31)
                wishes.append(
                    Wish(
                        prompt=positive.strip(),
                        negative=rest.partition("|")[0].strip(),
                        width=width,
                        height=height,
                        steps=self.steps,
                        seed=own,
                        strength=None if self.source is None else STRENGTH,
                    )
                )
        return wishes


async def images(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with pictures, as base64 or as addresses on this server."""
    request = wire.parsed(wire.ImageRequest, exchange.body)
    name = simulation.requested(exchange, request.model, KINDS)
    source = _source(request)
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt or []
    facts = simulation.facts(
        exchange, modality="txt2img" if source is None else "img2img", prompt="\n".join(prompts)
    )
    await simulation.befall(exchange, facts)
    model = simulation.installed(name, KINDS)
    order = _Order(
        prompts=[prompt for prompt in prompts if prompt],
        size=_size(request.size),
        steps=_steps(request),
        count=max(1, request.n or 1),
        seed=request.seed if request.seed is not None and request.seed >= 0 else None,
        source=source,
    )
    pictures = (
        await carry_through(exchange, simulation, _pieces(exchange, simulation, model, order))
        if order.prompts
        else []
    )
    await simulation.suffer(exchange, AT_THE_END)
    as_base64 = request.response_format == "b64_json"
    body: dict[str, object] = {"created": simulation.unix_time(), "id": exchange.correlation_id}
    if pictures:
        body["data"] = [_item(exchange, simulation, data, as_base64) for data in pictures]
    body["usage"] = {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
    }
    await exchange.answer(body)


def _pieces(
    exchange: Exchange, simulation: Simulation, model: ModelConfig, order: _Order
) -> list[Piece[bytes]]:
    """Say what is to be drawn, and how long a model would take for it."""
    width, height = order.size
    step_s = model.s_per_step * width * height / DEFAULT_SIZE**2
    run_seed = simulation.config.seed * 1_000_003 + exchange.record.number

    def drawn(wish: Wish) -> bytes:
        if width * height > model.max_pixels:
            raise wire.out_of_memory()
        with understood():
            return png(wish, order.source)

    return [Piece(partial(drawn, wish), order.steps, step_s) for wish in order.wishes(run_seed)]


@contextmanager
def understood() -> Generator[None]:
    """Say as a backend in Python does that bytes are no picture."""
    try:
        yield
    except NOT_A_PICTURE as error:
        raise wire.Refusal(
            500,
            "rpc error: code = Unknown desc = Exception calling application: "
            "cannot identify image file",
        ) from error


def _item(exchange: Exchange, simulation: Simulation, data: bytes, as_base64: bool) -> object:
    action = None if exchange.fault is None else exchange.fault.action
    if isinstance(action, faults.EmptyImage):
        data = b""
    elif isinstance(action, faults.CorruptImage):
        data = data[: len(data) // 2]
    item: dict[str, object] = {"embedding": None, "index": 0}
    if not as_base64:
        item["url"] = f"{exchange.base_url}/generated-images/{simulation.keep_picture(data)}"
    elif data:
        item["b64_json"] = base64.b64encode(data).decode()
    return item


def _source(request: wire.ImageRequest) -> bytes | None:
    """Return the source picture; anything but plain base64 is dropped without a word."""
    file = next(iter(request.files or ()), None) or request.file
    given = next(iter(request.ref_images or ()), None) or file
    try:
        return base64.b64decode(given, validate=True) if given else None
    except (binascii.Error, ValueError):
        return None


def _size(given: str | None) -> tuple[int, int]:
    """Read `WxH`; without an x in it the size is the default one.

    Raises:
        Refusal: it has an x and is no size.

    """
    if not given or "x" not in given:
        return DEFAULT_SIZE, DEFAULT_SIZE
    sides = given.split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise wire.Refusal(500, "invalid value for 'size'")
    width, height = map(int, sides)
    if not all(SMALLEST <= side <= LARGEST for side in (width, height)):
        raise wire.Refusal(
            500,
            "rpc error: code = Unknown desc = Exception calling application: "
            f"sizes go from {SMALLEST} to {LARGEST} pixels",
        )
    return width, height


def _steps(request: wire.ImageRequest) -> int:
    if request.step is not None and request.step > 0:
        return request.step
    quality = request.quality or ""
    return (
        int(quality) if quality.isascii() and quality.isdigit() and int(quality) else DEFAULT_STEPS
    )
