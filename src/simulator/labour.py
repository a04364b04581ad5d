"""Work in a slot: things made step by step, and things given out one by one, each when it is due.

What is made is made to the end, as most backends do: a client that leaves changes nothing but
who hears of it. What is given out one by one stops with the client.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from .engine import Engine
from .exchange import Exchange
from .simulation import Simulation, turned_away

_Made = TypeVar("_Made")
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Piece(Generic[_Made]):
    """One thing to make, and how long a model would take for it."""

    make: Callable[[], _Made]
    """Called in a thread; may raise a `Refusal`."""
    steps: int
    step_s: float


async def carry_through(
    exchange: Exchange,
    simulation: Simulation,
    pieces: Sequence[Piece[_Made]],
    *,
    load_too: bool = False,
) -> list[_Made]:
    """Make the pieces in a slot of the model, to the end even if the client leaves.

    With `load_too` not even the load ends with the client.

    Raises:
        Refusal: the model could not be loaded, or a piece not be made.

    """

    async def everything() -> list[_Made]:
        await simulation.take_slot(exchange)
        entry = exchange.record
        entry.worked_on = entry.ended is not None
        return await _made(exchange, simulation, simulation.engine, pieces)

    if load_too:
        work = everything()
    else:
        await simulation.take_slot(exchange)
        work = _made(exchange, simulation, simulation.engine, pieces)
    return await asyncio.shield(simulation.keep_running(work))


async def paced(
    exchange: Exchange, simulation: Simulation, items: Iterable[_Item], *, first: float, each: float
) -> AsyncGenerator[_Item]:
    """Yield each item when it is due, from a slot of the model.

    Raises:
        Refusal: the model could not be loaded, or its process has died.

    """
    entry, engine, clock = exchange.record, simulation.engine, simulation.clock
    async with simulation.slot(exchange):
        with engine.alive(entry.number):
            await simulation.gate.go_through(entry.number)
        due = clock.now() + first * exchange.pace
        for item in items:
            due += each * exchange.pace
            with engine.alive(entry.number):
                await simulation.suffer(exchange, entry.done)
                await clock.sleep_until(due)
            entry.done += 1
            yield item


async def _made(
    exchange: Exchange, simulation: Simulation, engine: Engine, pieces: Sequence[Piece[_Made]]
) -> list[_Made]:
    entry, clock = exchange.record, engine.clock
    made: list[_Made] = []
    try:
        with turned_away(entry.model or ""), engine.alive(entry.number):
            await simulation.gate.go_through(entry.number)
            for piece in pieces:
                begun = clock.now()
                with clock.held():
                    made.append(await asyncio.to_thread(piece.make))
                for number in range(1, piece.steps + 1):
                    await exchange.wear(entry.done)
                    await clock.sleep_until(begun + number * piece.step_s * exchange.pace)
                    entry.done += 1
    finally:
        simulation.give_back(engine, entry)
    return made
