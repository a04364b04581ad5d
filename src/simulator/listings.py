"""The small answers: health, what is installed, what is in memory; load and unload by name."""

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import get_args
from urllib.parse import parse_qs

from . import wire
from .config import Kind
from .exchange import Exchange
from .simulation import LOOSE_FILE, Simulation, turned_away

ANY_KIND: tuple[Kind, ...] = get_args(Kind)

# kind -> capabilities, input modalities, output modalities, and what Ollama would call them
CAPABILITIES: dict[Kind, tuple[Sequence[str], Sequence[str], Sequence[str], Sequence[str]]] = {
    "chat": (
        ["chat", "completion", "tools", "thinking"],
        ["text"],
        ["text"],
        ["completion", "tools", "thinking"],
    ),
    "vision": (
        ["chat", "vision", "tools"],
        ["text", "image"],
        ["text"],
        ["completion", "vision", "tools"],
    ),
    "image": (["image"], ["text", "image"], ["image"], ["image"]),
    "embed": (["embeddings", "rerank"], ["text"], ["text"], ["embedding"]),
    "voice": (["transcript", "tts", "sound_generation"], ["text", "audio"], ["text", "audio"], []),
    "video": (["video"], ["text", "image"], ["video"], []),
}

GENERATED = {
    "/generated-images/": (".png", "image/png"),
    "/generated-videos/": (".mp4", "video/mp4"),
}
"""Where files that were made are handed out: how their names end, and what they are."""

PROBED = {"vision", "tools", "thinking"}
"""What is known of some models only once they have been loaded."""


def own_version() -> str:
    """Return the version of the package this simulator comes with."""
    try:
        return version("inference-manager")
    except PackageNotFoundError:
        return "unreleased"


async def health(exchange: Exchange, simulation: Simulation) -> None:
    """Be alive; and ready, unless the server is starting."""
    await simulation.befall(exchange, simulation.facts(exchange))
    if exchange.path == "/readyz" and simulation.clock.now() < simulation.starting_until:
        raise wire.starting()
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
        able, takes, gives = (
            (None, None, None) if name == LOOSE_FILE else _able(simulation, name)[:3]
        )
        items.append(
            {
                "id": name,
                "object": "model",
                "capabilities": able,
                "input_modalities": takes,
                "output_modalities": gives,
            }
        )
    await _tell(exchange, simulation, {"object": "list", "data": items})


async def tags(exchange: Exchange, simulation: Simulation) -> None:
    """List the models as Ollama does."""
    listed = [
        {**_tagged(name), "capabilities": _able(simulation, name)[3]}
        for name in simulation.config.models
    ]
    await _tell(exchange, simulation, {"models": listed})


async def system(exchange: Exchange, simulation: Simulation) -> None:
    """Tell what is in memory."""
    loaded = [{"id": name} for name in simulation.engine.world.resident(simulation.clock.now())]
    await _tell(exchange, simulation, {"backends": ["simulator"], "loaded_models": loaded})


async def processes(exchange: Exchange, simulation: Simulation) -> None:
    """Tell what is in memory as Ollama does."""
    resident = simulation.engine.world.resident(simulation.clock.now())
    await _tell(exchange, simulation, {"models": [_tagged(name) for name in resident]})


async def load(exchange: Exchange, simulation: Simulation) -> None:
    """Load a model and answer when that is done."""
    name = await _named(exchange, simulation)
    with turned_away(name):
        target = simulation.config.target(name)
        await simulation.engine.warm(exchange.record.number, target, exchange.pace)
    await exchange.answer({"loaded": [name], "message": "model loaded"})


async def shutdown(exchange: Exchange, simulation: Simulation) -> None:
    """Unload a model as soon as it is idle."""
    name = await _named(exchange, simulation)
    target = simulation.config.target(name)
    if target not in simulation.engine.world.resident(simulation.clock.now()):
        raise wire.no_such_route()
    with turned_away(name):
        await simulation.engine.shut_down(exchange.record.number, target)
    await exchange.answer({"message": "model stopped"})


async def generated(exchange: Exchange, simulation: Simulation) -> None:
    """Hand out a picture or a video that was made before."""
    folder, _, name = exchange.path.rpartition("/")
    ending, content_type = GENERATED[f"{folder}/"]
    made = simulation.pictures.get(name) if name.endswith(ending) else None
    if made is None:
        raise wire.no_such_route()
    await simulation.befall(exchange, simulation.facts(exchange))
    await exchange.reply(200, made, headers={"Content-Type": content_type})


def _tagged(name: str) -> dict[str, object]:
    """Name a model as Ollama does: with a tag, whether it has one or not."""
    tagged = name if ":" in name else f"{name}:latest"
    return {"name": tagged, "model": tagged}


def _able(simulation: Simulation, name: str) -> tuple[Sequence[str], ...]:
    """Tell what a model can do, as far as that is known by now."""
    model = simulation.model(name)
    able = CAPABILITIES[model.kind]
    if not model.probed_late or _was_loaded(simulation, name):
        return able
    known = tuple([word for word in words if word not in PROBED] for words in able)
    takes = [word for word in able[1] if word != "image"] if "vision" in able[0] else able[1]
    return known[0], takes, *known[2:]


def _was_loaded(simulation: Simulation, name: str) -> bool:
    view = simulation.engine.world.view(simulation.config.target(name), simulation.clock.now())
    return view.loads > 0 and view.phase not in ("loading", "cooling")


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
