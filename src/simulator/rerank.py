"""`/v1/rerank`: documents in the order of their likeness to a query."""

from collections.abc import Sequence
from functools import partial

from . import text, wire
from .config import Kind
from .exchange import AT_THE_END, Exchange
from .labour import Piece, carry_through
from .simulation import Simulation
from .vectors import likeness, vector

KINDS: tuple[Kind, ...] = ("embed",)


class RerankRequest(wire.ModelRequest):
    """The body of a request to rank documents."""

    query: str | None = None
    documents: list[str] | None = None
    top_n: int | None = None


async def rerank(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with the documents, the likeliest first."""
    request = wire.parsed(RerankRequest, exchange.body)
    name = simulation.requested(exchange, request.model, KINDS)
    query, documents = request.query or "", request.documents or []
    await simulation.befall(exchange, simulation.facts(exchange, modality="rerank", prompt=query))
    model = simulation.installed(name, KINDS)
    if request.top_n is not None and request.top_n < 1:
        told = "top_n - should be greater than or equal to 1"
        raise wire.Refusal(422, told, body=told)
    piece = Piece(partial(_scores, query, documents), len(documents), model.s_per_input)
    [scores] = await carry_through(exchange, simulation, [piece])
    await simulation.suffer(exchange, AT_THE_END)
    ranked = sorted(range(len(documents)), key=lambda index: -scores[index])
    tokens = sum(len(text.tokens_of(each)) for each in (query, *documents))
    await exchange.answer(
        {
            "model": name,
            "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
            "results": [
                {
                    "index": index,
                    "document": {"text": documents[index]},
                    "relevance_score": scores[index],
                }
                for index in ranked[: request.top_n]
            ],
        }
    )


def _scores(query: str, documents: Sequence[str]) -> list[float]:
    wanted = vector(query)
    return [round(likeness(wanted, vector(document)), 6) for document in documents]
