"""`/v1/models`: what may be asked for, in OpenAI's words; `/models` also by text and pictures."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from ...models.errors import BackendUnseen, UnknownModel
from ...models.modality import Modality
from ..errors import error_responses
from ..tools import ModelView, Tools

_RETRY_S = 5.0
_TEXT = frozenset({Modality.TXT2TXT, Modality.IMG2TXT})
_IMAGES = frozenset({Modality.TXT2IMG, Modality.IMG2IMG, Modality.INPAINT})
_NAME = re.compile(r"[\w./:@+-]{1,100}", re.ASCII)


class OpenAIModel(BaseModel):
    """A model, as OpenAI's clients know it."""

    id: str
    object: str = "model"
    created: int = Field(description="When this server was started, in seconds since 1970")
    owned_by: str = "localai"
    modalities: list[Modality] = Field(description="What it is for, where somebody says")


class OpenAIModels(BaseModel):
    """All models."""

    object: str = "list"
    data: list[OpenAIModel]


class LoadedModel(BaseModel):
    """A model, and whether it would start at once."""

    name: str
    type: str = Field(description="`text` or `image`")
    loaded: bool = Field(description="In memory now")


class AllModels(OpenAIModels):
    """All models, and those for texts and for pictures once more."""

    text_models: list[LoadedModel]
    image_models: list[LoadedModel]


def build(tools: Tools) -> list[APIRoute]:
    """Make the routes."""
    created = int(tools.now())

    def known() -> list[ModelView]:
        found = tools.models()
        if not found.known:
            raise BackendUnseen(
                "no backend was reached yet, so nobody knows its models",
                hint="see /queue-status for what is wrong with it",
                retry_after=_RETRY_S,
            )
        return found.models

    def shown(view: ModelView) -> OpenAIModel:
        return OpenAIModel(id=view.name, created=created, modalities=view.modalities)

    async def list_models() -> OpenAIModels:
        """List the models that may be asked for."""
        return OpenAIModels(data=[shown(view) for view in known()])

    async def retrieve_model(model: str) -> OpenAIModel:
        """Look at a model; its name may have slashes in it."""
        views = known()
        for view in views:
            if view.name == model:
                return shown(view)
        raise _unknown(model, [view.name for view in views])

    async def list_all_models() -> AllModels:
        """List the models that may be asked for, those for texts and for pictures apart too."""
        views = known()
        return AllModels(
            data=[shown(view) for view in views],
            text_models=_loaded(views, "text", _TEXT),
            image_models=_loaded(views, "image", _IMAGES),
        )

    return [
        _route("/v1/models", list_models, "List models"),
        _route("/v1/models/{model:path}", retrieve_model, "Look at a model", 404, 422),
        _route("/models/{model:path}", retrieve_model, "Look at a model", shown=False),
        _route("/models", list_all_models, "List models for texts and for pictures"),
    ]


def _route(
    path: str, answer: Callable[..., Any], summary: str, *errors: int, shown: bool = True
) -> APIRoute:
    return APIRoute(
        path,
        answer,
        summary=summary,
        tags=["openai"],
        responses=error_responses(401, 503, *errors),
        include_in_schema=shown,
    )


def _loaded(views: list[ModelView], kind: str, uses: frozenset[Modality]) -> list[LoadedModel]:
    return [
        LoadedModel(name=view.name, type=kind, loaded=view.resident)
        for view in views
        if not uses.isdisjoint(view.modalities)
    ]


def _unknown(name: str, names: list[str]) -> UnknownModel:
    nearest = get_close_matches(name[:256], names, n=5, cutoff=0.5) or names[:5]
    shown = f" {name}" if _NAME.fullmatch(name) else ""
    return UnknownModel(
        f"there is no model{shown}",
        nearest=nearest,
        hint=f"nearest names: {', '.join(nearest)}" if nearest else "no model is offered",
    )
