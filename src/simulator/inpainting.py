"""`/v1/images/inpainting`: a new picture where the mask is white, the old one elsewhere.

The address in the answer leads nowhere: LocalAI writes the file outside the folder that it
serves. `inpainting_files_served` in the configuration makes it lead to the picture.
"""

from functools import partial

from . import wire
from .config import Kind
from .exchange import AT_THE_END, Exchange
from .forms import read_form
from .images import DEFAULT_SIZE, understood
from .labour import Piece, carry_through
from .pictures import Wish, inpainted
from .simulation import Simulation

KINDS: tuple[Kind, ...] = ("image",)
DEFAULT_STEPS = 25


async def inpainting(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with the address of a picture of 512x512."""
    form = await read_form(exchange)
    given, prompt = form.first("model"), form.first("prompt")
    if given is not None:
        simulation.requested(exchange, given, KINDS)
    await simulation.befall(
        exchange, simulation.facts(exchange, modality="inpaint", prompt=prompt or "")
    )
    image, mask = form.files.get("image"), form.files.get("mask")
    if not (given and prompt and image and mask):
        parts = {"model": given, "prompt": prompt, "image": image, "mask": mask}
        missing = next(name for name, part in parts.items() if not part)
        raise wire.framework_error(400, f"missing {missing}")
    model = simulation.installed(given, KINDS)
    steps = form.number("steps") or DEFAULT_STEPS
    wish = Wish(prompt=prompt, width=DEFAULT_SIZE, height=DEFAULT_SIZE, steps=steps)
    piece = Piece(partial(_drawn, wish, image, mask), steps, model.s_per_step)
    [picture] = await carry_through(exchange, simulation, [piece])
    await simulation.suffer(exchange, AT_THE_END)
    if simulation.config.inpainting_files_served:
        name = simulation.keep_picture(picture)
    else:
        name = f"inpaint{exchange.record.number}.png"
    url = f"{exchange.base_url}/generated-images/{name}"
    await exchange.answer(
        {
            "created": simulation.unix_time(),
            "id": exchange.correlation_id,
            "data": [{"embedding": None, "index": 0, "url": url}],
        }
    )


def _drawn(wish: Wish, image: bytes, mask: bytes) -> bytes:
    with understood():
        return inpainted(wish, image, mask)
