"""The small answers: health, what is installed, what is in memory; load and unload by name."""

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import parse_qs

from . import wire
from .config import Kind
from .exchange import Exchange
from .simulation import LOOSE_FILE, Simulation, turned_away

ANY_KIND: tuple[Kind, ...] = ("chat", "vision", "image")

# kind -> capabilities, input modalities, output modalities, and what Ollama would call them
CAPABILITIES: dict[Kind, tuple[Sequence[str], Sequence[str], Sequence[str], Sequence[str]]] = {
    "chat": (["chat"], ["text"], ["text"], ["completion"]),
    "vision": (["chat", "vision"], ["text", "image"], ["text"], ["completion", "vision"]),
    "image": (["image"], ["text", "image"], ["image"], ["image"]),
}


def own_version() -> str:
    """Return the version of the package this simulator comes with."""
    try:
        return version("inference-manager")
    except PackageNotFoundError:
        return "unreleased"


async def health(exchange: Exchange, simulation: Simulation) -> None:
    """Be alive."""
    await simulation.befall(exchange, simulation.facts(exchange))
    await exchange.reply(200, headers={"Content-Type": "text/plain; charset=UTF-8"})


async def about(exchange: Exchange, simulation: Simulation) -> None:
    """Tell the version, and that it is a simulated one."""
    await _tell(
        exchange, simulation, {"version": f"simulated LocalAI (inference-manager {own_version()})"}
    )


async def models(exchange: Exchange, simulation: Simulation) -> None:
    """List the models by name."""
    await _tell(
        exchange,
        simulation,
        {
            "object": "list",
            "data": [{"id": name, "object": "model"} for name in _listed(exchange, simulation)],
        },
    )


async def capabilities(exchange: Exchange, simulation: Simulation) -> None:
    """List the models with what they can do; null for the one without configuration."""
    items: list[object] = []
    for name in _listed(exchange, simulation):
        able = None if name == LOOSE_FILE else CAPABILITIES[simulation.model(name).kind]
        items.append(
            {
                "id": name,
                "object": "model",
                "capabilities": able and able[0],
                "input_modalities": able and able[1],
                "output_modalities": able and able[2],
            }
        )
    await _tell(exchange, simulation, {"object": "list", "data": items})


async def tags(exchange: Exchange, simulation: Simulation) -> None:
    """List the models as Ollama does."""
    listed = [
        {
            "name": name,
            "model": name,
            "capabilities": CAPABILITIES[simulation.model(name).kind][3],
        }
        for name in simulation.config.models
    ]
    await _tell(exchange, simulation, {"models": listed})


async def system(exchange: Exchange, simulation: Simulation) -> None:
    """Tell what is in memory."""
    loaded = [{"id": name} for name in simulation.engine.world.resident()]
    await _tell(exchange, simulation, {"backends": ["simulator"], "loaded_models": loaded})


async def processes(exchange: Exchange, simulation: Simulation) -> None:
    """Tell what is in memory as Ollama does."""
    resident = simulation.engine.world.resident()
    await _tell(exchange, simulation, {"models": [{"name": it, "model": it} for it in resident]})


async def load(exchange: Exchange, simulation: Simulation) -> None:
    """Load a model and answer when that is done."""
    name = await _named(exchange, simulation)
    with turned_away(name):
        await simulation.engine.warm(exchange.record.number, simulation.config.target(name))
    await exchange.answer({"loaded": [name], "message": "model loaded"})


async def shutdown(exchange: Exchange, simulation: Simulation) -> None:
    """Unload a model as soon as it is idle."""
    name = await _named(exchange, simulation)
    target = simulation.config.target(name)
    if target not in simulation.engine.world.resident():
        raise wire.no_such_route()
    with turned_away(name):
        await simulation.engine.shut_down(exchange.record.number, target)
    await exchange.answer({"message": "model stopped"})


async def generated_image(exchange: Exchange, simulation: Simulation) -> None:
    """Hand out a picture that was drawn before."""
    picture = simulation.pictures.get(exchange.path.rpartition("/")[2])
    if picture is None:
        raise wire.no_such_route()
    await simulation.befall(exchange, simulation.facts(exchange))
    await exchange.reply(200, picture, headers={"Content-Type": "image/png"})


async def _tell(exchange: Exchange, simulation: Simulation, value: object) -> None:
    await simulation.befall(exchange, simulation.facts(exchange))
    await exchange.answer(value)


async def _named(exchange: Exchange, simulation: Simulation) -> str:
    name = wire.parsed(wire.ModelRequest, exchange.body).model
    if not name:
        raise wire.framework_error(400, "Bad Request")
    simulation.requested(exchange, name, ANY_KIND)
    await simulation.befall(exchange, simulation.facts(exchange))
    simulation.installed(name, ANY_KIND)
    return name


def _listed(exchange: Exchange, simulation: Simulation) -> list[str]:
    wanted = parse_qs(exchange.query.decode("latin-1")).get("filter", [""])[0]
    try:
        pattern = re.compile(wanted)
    except re.error as error:
        raise wire.Refusal(500, f"error parsing regexp: {error}") from error
    return [name for name in (*simulation.config.models, LOOSE_FILE) if pattern.search(name)]
