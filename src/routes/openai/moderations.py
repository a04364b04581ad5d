"""`/v1/moderations`: whether texts are harmful, where a backend can tell."""

from typing import Annotated

from fastapi.routing import APIRoute
from pydantic import Field
from starlette.responses import Response

from ...models.jobs import Job
from ...models.requests import ModerationRequest, Text
from ...models.results import Result
from ..doors import Asked, Door, Manner, routes
from ..incoming import Incoming
from ..tools import Tools
from .bodies import Body
from .shapes import MODERATION, json_answer


class ModerationBody(Body):
    """Texts to be judged."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=64)] = Field(
        description="A text, or several"
    )

    def meant(self) -> ModerationRequest:
        """Return the request."""
        texts = (self.input,) if isinstance(self.input, str) else tuple(self.input)
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
