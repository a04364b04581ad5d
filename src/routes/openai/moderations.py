"""`/v1/moderations`: whether texts are harmful, where a backend can tell."""

from typing import Annotated, Literal

from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import Response

from ...models.fields import Text
from ...models.jobs import Job
from ...models.messages import type_of_part
from ...models.requests import ModerationRequest
from ...models.results import Result
from ..doors import Asked, Door, Manner, routes
from ..incoming import Incoming
from ..tools import Tools
from .bodies import Body
from .shapes import MODERATION, json_answer


def _no_picture(part: object) -> object:
    if type_of_part(part) == "<image_url>":
        raise ValueError("parts of type image_url are not judged here; send text")
    return part


class JudgedPart(BaseModel):
    """Words."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    type: Literal["text"]
    text: Text


class ModerationBody(Body):
    """Texts to be judged."""

    input: (
        Text
        | Annotated[
            list[Text | Annotated[JudgedPart, BeforeValidator(_no_picture)]],
            Field(min_length=1, max_length=64),
        ]
    ) = Field(description="A text, or several; parts are judged together, as one text")

    def texts(self) -> tuple[str, ...]:
        """Return the texts to be judged one by one: parts belong together, as OpenAI has it."""
        if isinstance(self.input, str):
            return (self.input,)
        parts = [item.text for item in self.input if isinstance(item, JudgedPart)]
        texts = [item for item in self.input if isinstance(item, str)]
        return tuple([*texts, "\n".join(parts)] if parts else texts)

    def meant(self) -> ModerationRequest:
        """Return the request."""
        texts = self.texts()
        return ModerationRequest.model_construct(model=self.model, input=texts)


class Moderations(Door):
    """Answers with verdicts."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read the texts."""
        body = await incoming.json(ModerationBody)
        body.further(strict=incoming.wishes.strict)
        return Asked(request=body.meant(), whole=_moderation, timeout_s=body.timeout)


def build(tools: Tools, manner: Manner) -> list[APIRoute]:
    """Make the routes."""

    async def create_moderation(body: ModerationBody) -> None:
        """Judge texts. A backend that cannot is told of with `not_offered`."""

    return routes(
        ("/v1/moderations", "/moderations"),
        Moderations(tools, manner),
        create_moderation,
        tag="openai",
        summary="Judge texts",
        answers=MODERATION,
    )


def _moderation(job: Job, result: Result) -> Response:
    results = () if result.verdict is None else result.verdict.results
    return json_answer({"id": f"modr-{job.id}", "model": job.model, "results": results})
