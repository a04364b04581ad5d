"""`/v1/embeddings`: texts to directions, 64 numbers each."""

import base64
import struct
from collections.abc import Sequence
from functools import partial

from . import wire
from .config import Kind
from .exchange import AT_THE_END, Exchange
from .labour import Piece, carry_through
from .simulation import Simulation
from .vectors import Vector, vector

KINDS: tuple[Kind, ...] = ("embed",)


class EmbeddingsRequest(wire.ModelRequest):
    """The body of a request for embeddings."""

    input: str | list[str | int | list[int]] | None = None
    messages: list[wire.ChatMessage] | None = None
    encoding_format: str | None = None

    @property
    def texts(self) -> list[str]:
        """The inputs; a list of tokens reads as its numbers, a lone token as nothing."""
        if self.messages is not None and self.input is None:
            said = (_words(message) for message in self.messages)
            return ["\n".join(text for text in said if text)]
        given = [self.input] if isinstance(self.input, str) else self.input or []
        return [
            item if isinstance(item, str) else " ".join(map(str, item))
            for item in given
            if not isinstance(item, int)
        ]


async def embeddings(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with one list of numbers for each input, and without usage."""
    request = wire.parsed(EmbeddingsRequest, exchange.body)
    name = simulation.requested(exchange, request.model, KINDS)
    texts = request.texts
    facts = simulation.facts(exchange, modality="txt2vec", prompt="\n".join(texts))
    await simulation.befall(exchange, facts)
    model = simulation.installed(name, KINDS)
    piece = Piece(partial(_vectors, texts), len(texts), model.s_per_input)
    [vectors] = await carry_through(exchange, simulation, [piece])
    await simulation.suffer(exchange, AT_THE_END)
    body: dict[str, object] = {
        "created": simulation.unix_time(),
        "object": "list",
        "id": exchange.correlation_id,
        "model": name,
    }
    if vectors:
        as_base64 = request.encoding_format == "base64"
        body["data"] = [
            {
                "embedding": _packed(made) if as_base64 else made,
                "index": index,
                "object": "embedding",
            }
            for index, made in enumerate(vectors)
        ]
    await exchange.answer(body)


def _vectors(texts: Sequence[str]) -> list[Vector]:
    return [vector(text) for text in texts]


def _packed(made: Vector) -> str:
    return base64.b64encode(struct.pack(f"<{len(made)}f", *made)).decode()


def _words(message: wire.ChatMessage) -> str:
    if isinstance(message.content, str) or message.content is None:
        return message.content or ""
    return "\n".join(part.text for part in message.content if part.text)
