"""`/v1/rerank`: documents in the order of what they say to a query, as Jina and Cohere write it."""

from typing import Annotated, cast

from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from ...models.fields import Text
from ...models.jobs import Job
from ...models.requests import RerankRequest
from ...models.results import Rank, Result
from ..doors import Asked, Door, Manner, routes
from ..incoming import Incoming
from ..tools import Tools
from .bodies import Body, Said
from .shapes import RANKING, json_answer
from .usage import read_only


class Document(BaseModel):
    """A document, with whatever else it has."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    text: Text


class RerankBody(Body):
    """Documents to be ordered."""

    query: Annotated[Said, Field(min_length=1)] = Field(description="What is looked for")
    documents: Annotated[list[Text | Document], Field(min_length=1, max_length=1000)] = Field(
        description="Each a text, or an object with one"
    )
    top_n: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="How many of the best to return; all if left out"
    )
    return_documents: bool | None = Field(
        default=None, description="`false` leaves the texts out of the answer"
    )

    def meant(self, *, strict: bool) -> RerankRequest:
        """Return the request; raises `InvalidInput`."""
        documents = (d if isinstance(d, str) else d.text for d in self.documents)
        return RerankRequest.model_construct(
            model=self.model,
            query=self.query,
            documents=tuple(documents),
            top_n=self.top_n,
            options=self.further(strict=strict, understood=_UNDERSTOOD),
        )


_UNDERSTOOD = ("max_chunks_per_doc", "max_tokens_per_doc", "rank_fields")
"""What such services know besides, and no backend has."""


class Reranking(Door):
    """Answers with an order."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read the documents."""
        body = await incoming.json(RerankBody)
        with_documents = body.return_documents is not False

        def whole(job: Job, result: Result) -> Response:
            return _ranking(job, result, with_documents=with_documents)

        return Asked(
            request=body.meant(strict=incoming.wishes.strict), whole=whole, timeout_s=body.timeout
        )


def build(tools: Tools, manner: Manner) -> list[APIRoute]:
    """Make the routes."""

    async def create_rerank(body: RerankBody) -> None:
        """Order documents by how well each answers a query, the best first."""

    return routes(
        ("/v1/rerank", "/rerank", "/v2/rerank"),
        Reranking(tools, manner),
        create_rerank,
        tag="openai",
        summary="Order documents",
        answers=RANKING,
    )


def _ranking(job: Job, result: Result, *, with_documents: bool) -> Response:
    documents = cast("RerankRequest", job.request).documents

    def shown(rank: Rank) -> dict[str, object]:
        place: dict[str, object] = {"index": rank.index}
        if with_documents:
            place["document"] = {"text": documents[rank.index]}
        return {**place, "relevance_score": rank.score}

    return json_answer(
        {
            "id": f"rerank-{job.id}",
            "model": job.model,
            "usage": read_only(job, result),
            "results": [shown(rank) for rank in result.ranking],
        }
    )
