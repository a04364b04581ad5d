"""`/v1/moderations`: which texts a model finds harmful. It goes by a few words."""

from collections.abc import Mapping, Sequence
from functools import partial

from . import text, wire
from .chat import check_context
from .config import Kind
from .exchange import AT_THE_END, Exchange
from .labour import Piece, carry_through
from .simulation import Simulation

KINDS: tuple[Kind, ...] = ("chat",)

WORDS: Mapping[str, frozenset[str]] = {
    "harassment": frozenset({"idiot", "loser"}),
    "hate": frozenset({"hate", "despise"}),
    "self-harm": frozenset({"suicide"}),
    "sexual": frozenset({"nude", "porn"}),
    "violence": frozenset({"kill", "murder", "stab"}),
}
"""The categories, and what a text of each has in it."""

_SURE, _UNSURE = 0.98, 0.01


class ModerationRequest(wire.ModelRequest):
    """The body of a request to judge texts."""

    input: str | list[str] | None = None

    @property
    def texts(self) -> list[str]:
        """The inputs, however many."""
        return [self.input] if isinstance(self.input, str) else self.input or []


async def moderations(exchange: Exchange, simulation: Simulation) -> None:
    """Answer with a verdict on each text."""
    request = wire.parsed(ModerationRequest, exchange.body)
    name = simulation.requested(exchange, request.model, KINDS)
    texts = request.texts
    facts = simulation.facts(exchange, modality="txt2txt", prompt="\n".join(texts))
    await simulation.befall(exchange, facts)
    model = simulation.installed(name, KINDS)
    crowd = simulation.engine.world.crowd(simulation.config.target(name))
    if model.max_concurrent is not None and crowd >= model.max_concurrent:
        raise wire.rejected(name)
    for given in texts:
        check_context(len(text.tokens_of(given)), model)
    piece = Piece(partial(_verdicts, texts), len(texts), 1 / model.tokens_per_s)
    [verdicts] = await carry_through(exchange, simulation, [piece])
    await simulation.suffer(exchange, AT_THE_END)
    await exchange.answer({"id": exchange.correlation_id, "model": name, "results": verdicts})


def _verdicts(texts: Sequence[str]) -> list[object]:
    return [_verdict(given) for given in texts]


def _verdict(given: str) -> object:
    said = {token.strip().lower() for token in text.tokens_of(given)}
    found = {category: not said.isdisjoint(words) for category, words in WORDS.items()}
    return {
        "flagged": any(found.values()),
        "categories": found,
        "category_scores": {name: _SURE if it else _UNSURE for name, it in found.items()},
    }
