"""`/v1/embeddings`: texts as directions, in numbers or packed."""

import sys
from array import array
from base64 import b64encode
from functools import partial
from typing import Annotated, Literal, cast

from fastapi.routing import APIRoute
from pydantic import AfterValidator, Field
from starlette.responses import Response

from ...models.errors import InvalidInput
from ...models.fields import Text
from ...models.jobs import Job
from ...models.requests import Txt2VecRequest
from ...models.results import Result, Vector
from ..doors import Asked, Door, Manner, routes
from ..incoming import Incoming, aside
from ..tools import Tools
from .bodies import Body
from .shapes import EMBEDDINGS, json_answer
from .usage import read_only

Token = Annotated[int, Field(ge=0, le=10_000_000)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=100_000)]


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


Said = Annotated[Text, AfterValidator(_not_empty)]


class EmbeddingBody(Body):
    """Texts that become vectors."""

    input: (
        Annotated[Said, Field(min_length=1)]
        | Annotated[list[Said], Field(min_length=1, max_length=2048)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=2048)]
    ) = Field(description="A text or several, each as text or as the model's tokens")
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="`base64`: little-endian numbers of 4 bytes; else written out"
    )
    dimensions: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Refused if the model's vectors have another length"
    )

    def meant(self, *, strict: bool) -> Txt2VecRequest:
        """Return the request; raises `InvalidInput`."""
        one = isinstance(self.input, str) or isinstance(self.input[0], int)
        many = cast("list[str | list[int]]", [self.input] if one else self.input)
        texts = tuple(text if isinstance(text, str) else tuple(text) for text in many)
        options = self.further(strict=strict)
        return Txt2VecRequest.model_construct(model=self.model, input=texts, options=options)


class Embeddings(Door):
    """Answers with vectors."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read the texts."""
        body = await incoming.json(EmbeddingBody)
        packed, length = body.encoding_format == "base64", body.dimensions

        async def whole(job: Job, result: Result) -> Response:
            _check_length(result, length)
            write = partial(_embeddings, job, result, packed=packed)
            return await aside(result.size_bytes, write)

        return Asked(
            request=body.meant(strict=incoming.wishes.strict), whole=whole, timeout_s=body.timeout
        )


def build(tools: Tools, manner: Manner) -> list[APIRoute]:
    """Make the routes."""

    async def create_embedding(body: EmbeddingBody) -> None:
        """Turn each text into a vector; texts that mean the same have vectors that are close."""

    return routes(
        ("/v1/embeddings", "/embeddings"),
        Embeddings(tools, manner),
        create_embedding,
        tag="openai",
        summary="Embed texts",
        answers=EMBEDDINGS,
    )


def _check_length(result: Result, wanted: int | None) -> None:
    """Refuse a length that is not the model's: vectors of two lengths spoil a whole store."""
    length = len(result.vectors[0].values)
    if wanted not in (None, length):
        raise InvalidInput(
            f"dimensions: the vectors of this model have {length}, and are not cut",
            param="dimensions",
            hint=f"leave dimensions out, or ask for {length}",
        )


def _embeddings(job: Job, result: Result, *, packed: bool) -> Response:
    """Write the vectors. Slow if there are many."""
    return json_answer(
        {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _packed(vector) if packed else vector.values.tolist(),
                }
                for index, vector in enumerate(result.vectors)
            ],
            "model": job.model,
            "usage": read_only(job, result),
        }
    )


def _packed(vector: Vector) -> str:
    numbers = array("f", vector.values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers).decode("ascii")
