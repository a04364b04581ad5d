"""`/sdapi/v1/options`: which model draws where a call names none."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from ...models.errors import InferenceManagerError
from ..callers import current_caller
from ..doors import Door, Manner, routes
from ..errors import answer, error_responses
from ..incoming import Incoming
from ..openai.shapes import json_answer
from ..tools import Tools
from ..wishes import Wishes
from .checkpoints import Checkpoints

_DONE: Mapping[int | str, Mapping[str, Any]] = {
    200: {
        "description": "It is so now",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


class Options(BaseModel):
    """The options that A1111's clients ask for."""

    sd_model_checkpoint: str = Field(description="The model that draws; empty if there is none")
    sd_checkpoint_hash: str | None = None
    sd_vae: str = "Automatic"
    samples_format: str = "png"


class Change(BaseModel):
    """Options to be set; but for this one, they have no effect."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, hide_input_in_errors=True
    )

    sd_model_checkpoint: Annotated[str, Field(max_length=256)] | None = Field(
        default=None, description="The model that draws for this caller, where a call names none"
    )


class _Set(Door):
    """Takes a caller's choice."""

    def __init__(self, tools: Tools, manner: Manner, checkpoints: Checkpoints) -> None:
        super().__init__(tools, manner)
        self._checkpoints = checkpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            incoming = Incoming(scope, receive, Wishes(), self.manner.longest)
            change = await incoming.json(Change)
            if name := (change.sd_model_checkpoint or "").strip():
                self._checkpoints.choose(current_caller(), name)
        except InferenceManagerError as error:
            await answer(error, v1=True)(scope, receive, send)
        except ClientDisconnect:
            pass
        else:
            await json_answer({})(scope, receive, send)


def build(tools: Tools, manner: Manner, checkpoints: Checkpoints) -> list[APIRoute]:
    """Make the routes."""
    router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"], responses=error_responses(401))

    @router.get("/options", name="sdapi_options")
    async def get_options() -> Options:
        """Say which model draws for the caller."""
        return Options(sd_model_checkpoint=checkpoints.current(current_caller()))

    async def sdapi_set_options(body: Change) -> None:
        """Choose the model that draws for the caller where a call names none."""

    return [
        *(route for route in router.routes if isinstance(route, APIRoute)),
        *routes(
            ("/sdapi/v1/options",),
            _Set(tools, manner, checkpoints),
            sdapi_set_options,
            tag="sdapi",
            summary="Choose a model",
            answers=_DONE,
            errors=(400, 401, 404, 413, 415, 503),
        ),
    ]
