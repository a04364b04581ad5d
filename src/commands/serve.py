"""`serve` and `simulate`: a server in the foreground, until it is told to stop."""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from .. import __version__
from ..reading import settings_from
from ..settings import Settings
from ..simulator import serve as simulator
from ..simulator.config import SimulatorConfig, load_config
from ..simulator.profiles import PROFILES
from .configuration import make_app, read_settings
from .hosting import (
    PortTaken,
    Server,
    cannot_listen,
    interruptible,
    is_loopback,
    listen,
    serve_in_foreground,
    url_of,
    wait_for_ever,
)
from .offer import look
from .remote import find
from .terminal import ExitCode, Failure, program, say, warn

_LOOK_S = 1.5
_SIMULATED = "answers come from the built-in simulator; no model is involved"


def serve(*, simulated: bool, **overrides: Any) -> None:
    """Serve in front of LocalAI, or of the simulator."""
    with ExitStack() as stack:
        if simulated:
            beside = stack.enter_context(simulator.Simulator())
            overrides["localai_url"] = beside.url
            warn(f"warning: {_SIMULATED}")
        settings = read_settings(**overrides)
        app = make_app(settings, again=lambda: settings_from(**overrides))
        listener = stack.enter_context(_listen(settings))
        if not (is_loopback(settings.host) or settings.api_keys or settings.api_keys_file):
            warn(
                f"warning: every machine that reaches {settings.host} may use this server; "
                f"no key is asked for (api_keys)"
            )
        url = url_of(listener)

        async def greet() -> None:
            say(*await _banner(settings, url, simulated=simulated))

        serve_in_foreground(Server(app, greet=greet), listener)


def _listen(settings: Settings) -> socket.socket:
    try:
        return listen(settings.host, settings.port)
    except PortTaken:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        if (health := find(f"http://{host}:{settings.port}").health) is None:
            raise
        raise Failure(
            f"port {settings.port} on {settings.host} is taken: Inference Manager "
            f"{health.version} runs there already; choose another one with --port"
        ) from None


def simulate(
    *,
    host: str,
    port: int,
    config: Path | None,
    speed: float | None,
    seed: int | None,
    profile: str | None,
) -> None:
    """Serve the simulator alone."""
    simulation = _simulation(config, speed=speed, seed=seed, profile=profile)
    try:
        beside = simulator.Simulator(simulation, host=host, port=port)
    except ValueError as error:
        raise Failure(str(error), ExitCode.REFUSED) from error
    with interruptible(), ExitStack() as stack:
        try:
            stack.enter_context(beside)
        except OSError as error:
            raise cannot_listen(error, host, port) from error
        say(
            f"A simulated LocalAI ({_SIMULATED})",
            f"  address  {beside.url}",
            f"  models   {', '.join(simulation.models)}",
            f"  control  {beside.url}/sim",
            f"  profile  {simulation.profile}: {PROFILES[simulation.profile].about}",
            f"  next     LOCALAI_URL={beside.url} {program()} serve",
        )
        wait_for_ever()


def _simulation(path: Path | None, **overrides: object) -> SimulatorConfig:
    try:
        config = SimulatorConfig() if path is None else load_config(path)
        return config.patched({k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the file"
        raise Failure(f"{path or 'simulator'}: {name}: {first['msg']}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: not readable as YAML") from error
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from error


async def _banner(settings: Settings, url: str, *, simulated: bool) -> list[str]:
    offers = await look(settings, patience=_LOOK_S)
    backends: list[str] = []
    for offer in offers.each:
        name = offer.name if settings.backends else "simulator" if simulated else "LocalAI"
        if offer.reachable:
            said = f"{offer.url}, {offer.version}, models: {offers.by_modality(offer)}"
        else:
            said = f"{offer.url} {offer.trouble}; " + (
                "it gets work when it answers"
                if settings.backends
                else f"jobs wait until it answers. To see it without a LocalAI: {program()} demo"
            )
        backends.append(f"  {name:<9}  {said}")
    following = f"{program()} {'doctor' if offers.silent else 'status'}"
    log = settings.log_file.resolve() if settings.log_file else "this console only"
    return [
        f"Inference Manager {__version__}",
        f"  address    {url}",
        f"  docs       {url}/docs",
        f"  MCP        {url}/mcp",
        *backends,
        f"  log        {log}",
        f"  next       {following}",
    ]
