"""A1111's answer: the pictures as base64, what was sent, and, as JSON in a text, what was done."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue
from pydantic_core import to_json
from starlette.responses import Response

from ...models.jobs import Job
from ...models.ports import Blobs
from ...models.requests import Img2ImgRequest
from ...models.results import Image, Result
from ..contents import interwoven
from ..openai.shapes import answers, json_answer
from .bodies import Drawn
from .names import SAMPLER

PICTURES = answers(
    "The pictures",
    {
        "type": "object",
        "properties": {
            "images": {"type": "array", "items": {"type": "string"}, "description": "base64"},
            "parameters": {"type": "object", "description": "What was sent"},
            "info": {"type": "string", "description": "What was done, as JSON"},
        },
        "required": ["images", "parameters", "info"],
    },
)
"""The answer, in OpenAPI's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What is kept of a body until its pictures are there: no picture, and little else.

    Attributes:
        parameters: what is sent back.
        ignored: the names of what had no effect.
        batch_size: how many pictures A1111 would have drawn at once.
        images: whether the answer has the pictures.

    """

    parameters: Mapping[str, JsonValue]
    ignored: Sequence[str]
    batch_size: int
    images: bool

    @classmethod
    def of(cls, body: Drawn, without: Collection[str] = ()) -> "Sent":
        """Keep what matters of a body, of which `without` has no effect."""
        return cls(
            parameters=body.parameters,
            ignored=body.ignored(without),
            batch_size=body.batch_size or 1,
            images=body.send_images is not False,
        )

    def answer(self, job: Job, result: Result, blobs: Blobs, send_s: float) -> Response:
        """Write the pictures of a job that has ended well, piece by piece."""
        info = to_json(self.info(job, result)).decode()
        rest = {"parameters": self.parameters, "info": info}
        if not self.images:
            return json_answer({"images": [], **rest})
        between = [b'","'] * (len(result.images) - 1)
        return interwoven(
            [b'{"images":["', *between, b'"],' + to_json(rest)[1:]],
            [image.data for image in result.images],
            blobs,
            send_s=send_s,
        )

    def info(self, job: Job, result: Result) -> dict[str, Any]:
        """Say what was done, in A1111's words; `ignored` is ours."""
        request, images = job.request, result.images
        prompt, negative = _words(job)
        seeds = [-1 if image.seed is None else image.seed for image in images]
        first = images[0]
        return {
            "prompt": prompt,
            "all_prompts": [prompt] * len(images),
            "negative_prompt": negative,
            "all_negative_prompts": [negative] * len(images),
            "seed": seeds[0],
            "all_seeds": seeds,
            "subseed": -1,
            "all_subseeds": [-1] * len(images),
            "subseed_strength": 0,
            "width": first.width,
            "height": first.height,
            "sampler_name": SAMPLER,
            "cfg_scale": self.parameters.get("cfg_scale"),
            "steps": getattr(request, "steps", None),
            "batch_size": self.batch_size,
            "restore_faces": False,
            "face_restoration_model": None,
            "sd_model_name": job.model,
            "sd_model_hash": None,
            "sd_vae_name": None,
            "sd_vae_hash": None,
            "seed_resize_from_w": -1,
            "seed_resize_from_h": -1,
            "denoising_strength": request.strength if isinstance(request, Img2ImgRequest) else None,
            "extra_generation_params": {},
            "index_of_first_image": 0,
            "infotexts": [_infotext(job, image) for image in images],
            "styles": [],
            "job_timestamp": timestamp(job.submitted_at),
            "clip_skip": 1,
            "is_using_inpainting_conditioning": False,
            "version": "",
            "ignored": self.ignored,
        }


def timestamp(seconds: float) -> str:
    """Write a moment, in seconds since 1970, as A1111 does, in UTC."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(seconds))


def _words(job: Job) -> tuple[str, str]:
    """Return what to draw and what not."""
    return getattr(job.request, "prompt", ""), getattr(job.request, "negative_prompt", "")


def _infotext(job: Job, image: Image) -> str:
    """Write how a picture was drawn, as people of A1111 paste it."""
    prompt, negative = _words(job)
    steps: int | None = getattr(job.request, "steps", None)
    facts = {
        "Steps": steps,
        "Seed": image.seed,
        "Size": f"{image.width}x{image.height}",
        "Model": job.model,
    }
    told = ", ".join(f"{name}: {fact}" for name, fact in facts.items() if fact is not None)
    return "\n".join([prompt, *([f"Negative prompt: {negative}"] if negative else []), told])
