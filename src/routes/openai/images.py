"""`/v1/images/...`: pictures from words and from pictures, as addresses or in the answer."""

from collections.abc import Callable

from fastapi.routing import APIRoute
from starlette.responses import Response

from ...models.jobs import Job
from ...models.results import Result
from ...utils import images
from ...utils.base64_text import decoded
from ..contents import interwoven
from ..doors import Asked, Door, Manner, routes
from ..incoming import Incoming
from ..tools import Tools
from .images_body import (
    ONE_PICTURE,
    Changed,
    Drawn,
    EditBody,
    EditForm,
    GenerationBody,
    VariationForm,
)
from .shapes import IMAGES, json_answer
from .uploads import described, read_form

_PICTURE = "The picture: PNG, JPEG or WEBP"
_MASK = "As large as the picture: what is transparent is drawn anew, or white if nothing is"


class _Pictures(Door):
    """Answers with pictures."""

    def answering(self, incoming: Incoming, body: Drawn) -> Callable[[Job, Result], Response]:
        """Return what writes the pictures as the caller wants them."""
        body.more(strict=incoming.wishes.strict)
        if body.as_base64:
            return self._contents
        base_url = incoming.base_url

        def addresses(job: Job, result: Result) -> Response:
            urls = [
                {"url": self.tools.signed_url("images", job.id, index, base_url)}
                for index in range(len(result.images))
            ]
            return json_answer({"created": _created(job), "data": urls})

        return addresses

    def _contents(self, job: Job, result: Result) -> Response:
        between = [b'"},{"b64_json":"'] * (len(result.images) - 1)
        return interwoven(
            [b'{"created":%d,"data":[{"b64_json":"' % _created(job), *between, b'"}]}'],
            [image.data for image in result.images],
            self.tools.blobs,
            send_s=self.manner.send_s,
        )


class Generations(_Pictures):
    """Draws pictures from words."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read what to draw."""
        body = await incoming.json(GenerationBody)
        return Asked(
            request=body.request(strict=incoming.wishes.strict),
            whole=self.answering(incoming, body),
            timeout_s=body.timeout,
        )


class Edits(_Pictures):
    """Changes a picture, or a part of it."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read what to change, from a form or from JSON."""
        if not incoming.has_form:
            return await self._json(incoming)
        form, files = await read_form(
            incoming, EditForm, required="image", optional=["mask"], single=ONE_PICTURE
        )
        uploads = dict(files)
        if "mask" in files:
            uploads["mask"] = await images.apart(lambda: images.redrawn(files["mask"], "mask"))
        return self._asked(incoming, form, "image", uploads)

    async def _json(self, incoming: Incoming) -> Asked:
        body = await incoming.json(EditBody)
        image = body.picture
        uploads: dict[str, bytes] = {}
        if (mask := body.mask) is not None:
            uploads["mask"] = await images.apart(
                lambda: images.redrawn(
                    decoded(mask.image_url, "mask", allowed=images.ALLOWED), "mask"
                )
            )
        return self._asked(incoming, body, image, uploads)

    def _asked(
        self, incoming: Incoming, body: Changed, image: str, uploads: dict[str, bytes]
    ) -> Asked:
        return Asked(
            request=body.request(image, "mask" if "mask" in uploads else None),
            whole=self.answering(incoming, body),
            uploads=uploads,
            timeout_s=body.timeout,
        )


class Variations(_Pictures):
    """Makes pictures that are like another."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read the picture."""
        form, files = await read_form(incoming, VariationForm, required="image")
        return Asked(
            request=form.request("image"),
            whole=self.answering(incoming, form),
            uploads=files,
            timeout_s=form.timeout,
        )


def build(tools: Tools, manner: Manner) -> list[APIRoute]:
    """Make the routes."""

    async def create_image(body: GenerationBody) -> None:
        """Draw pictures from words, or from `file` and words."""

    async def edit_image(body: EditBody) -> None:
        """Change a picture as the prompt says; with a mask, only that part of it."""

    async def vary_image() -> None:
        """Make pictures that are like another."""

    return [
        *routes(
            ("/v1/images/generations", "/images/generations"),
            Generations(tools, manner),
            create_image,
            tag="openai",
            summary="Draw pictures",
            answers=IMAGES,
        ),
        *routes(
            ("/v1/images/edits", "/images/edits"),
            Edits(tools, manner),
            edit_image,
            tag="openai",
            summary="Change a picture",
            answers=IMAGES,
            body=described(EditForm, required="image", optional={"mask": _MASK}, about=_PICTURE),
        ),
        *routes(
            ("/v1/images/variations", "/images/variations"),
            Variations(tools, manner),
            vary_image,
            tag="openai",
            summary="Vary a picture",
            answers=IMAGES,
            body=described(VariationForm, required="image", about=_PICTURE),
        ),
    ]


def _created(job: Job) -> int:
    return int(job.ended_at or job.submitted_at)
