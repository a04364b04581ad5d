"""`/sdapi/v1/sd-models`, `/samplers` and what else A1111's clients have listed."""

from collections.abc import Mapping

from fastapi import APIRouter
from pydantic import BaseModel, JsonValue
from starlette.responses import Response

from ..errors import error_responses
from ..openai.shapes import json_answer
from .checkpoints import Checkpoints
from .names import SAMPLER

EMPTY: Mapping[str, JsonValue] = {
    "cmd-flags": {},
    "embeddings": {"loaded": {}, "skipped": {}},
    "face-restorers": [],
    "hypernetworks": [],
    "latent-upscale-modes": [],
    "loras": [],
    "prompt-styles": [],
    "realesrgan-models": [],
    "schedulers": [],
    "script-info": [],
    "scripts": {"txt2img": [], "img2img": []},
    "sd-modules": [],
    "sd-vae": [],
    "upscalers": [],
}
"""What there is none of here; clients ask all the same, some before anything else."""


class SdModel(BaseModel):
    """A model that draws."""

    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str
    config: str | None = None


class Sampler(BaseModel):
    """A sampler that may be named."""

    name: str
    aliases: list[str] = []
    options: dict[str, str] = {}


def build(checkpoints: Checkpoints) -> APIRouter:
    """Make the routes."""
    router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"], responses=error_responses(401))

    @router.get("/sd-models", name="sdapi_models", responses=error_responses(503))
    async def models() -> list[SdModel]:
        """List the models that draw, the default one first."""
        names = checkpoints.offered()
        return [SdModel(title=name, model_name=name, filename=name) for name in names]

    @router.get("/samplers", name="sdapi_samplers")
    async def samplers() -> list[Sampler]:
        """Name one sampler: which one LocalAI takes, the model's own configuration says."""
        return [Sampler(name=SAMPLER)]

    @router.post("/refresh-checkpoints", include_in_schema=False)
    async def refresh() -> Response:
        """Do nothing: the models are looked at all the time."""
        return json_answer({})

    for name, nothing in EMPTY.items():
        _list_nothing(router, name, nothing)
    return router


def _list_nothing(router: APIRouter, name: str, nothing: JsonValue) -> None:
    @router.get(f"/{name}", include_in_schema=False)
    async def none() -> Response:
        return json_answer(nothing)
