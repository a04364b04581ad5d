"""`/sdapi/v1/txt2img` and `/img2img`: pictures from words and from pictures, in A1111's shape."""

from collections.abc import Callable, Collection
from functools import partial

from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Receive, Scope

from ...models.jobs import Job
from ...models.requests import Img2ImgRequest, InpaintRequest
from ...models.results import Result
from ...sharing import Taken
from ...utils import images
from ...utils.base64_text import decoded
from ..callers import current_caller
from ..doors import Asked, Door, Manner, routes
from ..incoming import Incoming
from ..tools import Tools
from ..wishes import Wishes
from .answers import PICTURES, Sent
from .bodies import MASKED, UNMASKED, Drawn, Img2ImgBody, Txt2ImgBody
from .checkpoints import Checkpoints
from .drawings import Drawings

_REFERENCE = 500
"""Texts of so many characters may stand for a picture that was made here; longer ones are one."""


class _Pictures(Door):
    """Answers with pictures."""

    def __init__(
        self, tools: Tools, manner: Manner, checkpoints: Checkpoints, drawings: Drawings
    ) -> None:
        super().__init__(tools, manner)
        self.checkpoints = checkpoints
        self._drawings = drawings

    def answering(
        self, incoming: Incoming, body: Drawn, without: Collection[str] = ()
    ) -> Callable[[Job, Result], Response]:
        """Return what writes the pictures; `without` are fields that have no effect this time."""
        body.refuse_unknown(strict=incoming.wishes.strict)
        sent, blobs, send_s = Sent.of(body, without), self.tools.blobs, self.manner.send_s
        return lambda job, result: sent.answer(job, result, blobs, send_s)

    async def _taken(self, scope: Scope, receive: Receive) -> tuple[Taken, Asked, Wishes]:
        taken, asked, wishes = await super()._taken(scope, receive)
        self._drawings.add(taken.handle)
        return taken, asked, wishes


class Txt2Img(_Pictures):
    """Draws pictures from words."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read what to draw."""
        body = await incoming.json(Txt2ImgBody)
        return Asked(
            request=body.request(self.checkpoints.chosen(current_caller()), incoming.wishes.key),
            whole=self.answering(incoming, body),
            timeout_s=body.timeout,
        )


class Img2Img(_Pictures):
    """Changes a picture, or a part of it."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read what to change."""
        body = await incoming.json(Img2ImgBody)
        chosen = self.checkpoints.chosen(current_caller())
        uploads: dict[str, bytes] = {}
        image = body.init_images[0]
        if len(image) > _REFERENCE:
            uploads["init_images"] = await images.apart(
                partial(decoded, image, "init_images", allowed=images.ALLOWED)
            )
            image = "init_images"
        request: Img2ImgRequest | InpaintRequest
        if not body.mask:
            strength = self.checkpoints.reads_strength(body.checkpoint(chosen))
            request = body.request(image, chosen, incoming.wishes.key, strength=strength)
            without = UNMASKED if strength else UNMASKED | {"denoising_strength"}
        else:
            inverted = body.inpainting_mask_invert == 1
            uploads["mask"] = await images.apart(partial(_mask, body.mask, inverted=inverted))
            request, without = body.inpainting(image, "mask", chosen), MASKED
        whole = self.answering(incoming, body, without)
        return Asked(request=request, whole=whole, uploads=uploads, timeout_s=body.timeout)


def build(
    tools: Tools, manner: Manner, checkpoints: Checkpoints, drawings: Drawings
) -> list[APIRoute]:
    """Make the routes."""

    async def sdapi_txt2img(body: Txt2ImgBody) -> None:
        """Draw pictures from words; fields of A1111 that are not named here have no effect."""

    async def sdapi_img2img(body: Img2ImgBody) -> None:
        """Change a picture as the prompt says; with a mask, only that part of it."""

    return [
        *routes(
            ("/sdapi/v1/txt2img",),
            Txt2Img(tools, manner, checkpoints, drawings),
            sdapi_txt2img,
            tag="sdapi",
            summary="Draw pictures",
            answers=PICTURES,
        ),
        *routes(
            ("/sdapi/v1/img2img",),
            Img2Img(tools, manner, checkpoints, drawings),
            sdapi_img2img,
            tag="sdapi",
            summary="Change a picture",
            answers=PICTURES,
        ),
    ]


def _mask(text: str, *, inverted: bool) -> bytes:
    data = decoded(text, "mask", allowed=images.ALLOWED)
    return images.inverted(data, "mask") if inverted else data
