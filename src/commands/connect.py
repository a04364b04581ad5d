"""`mcp`: the stdio door, a bridge to the running server; and what to write into MCP clients."""

import json
import os
import shlex
import shutil
import sys
import time
from contextlib import ExitStack, suppress
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import anyio
from mcp import MCPError

from ..reading import settings_from
from ..routes.stdio import NoServer, serve_stdio
from ..settings import Settings
from .configuration import make_app, read_settings
from .hosting import LOOPBACK, PortTaken, interruptible, is_loopback, listen, served, url_of
from .remote import Remote, base, find, presenting, unreachable
from .terminal import ExitCode, Failure, say, warn

_RACE_S = 15.0
_NAME = "inference-manager"


class Client(StrEnum):
    """Programs that speak MCP and start servers themselves."""

    CLAUDE_DESKTOP = "claude-desktop"
    CLAUDE_CODE = "claude-code"
    VSCODE = "vscode"
    CURSOR = "cursor"


def bridge(url: str | None, key: str | None) -> None:
    """Connect standard input and output with the running server, or become that server."""
    settings = read_settings()
    url = base(url or f"http://{LOOPBACK}:{settings.port}")
    headers = presenting(key)
    with interruptible(), ExitStack() as stack:

        def seek() -> str:
            """Find the server, or take its place: the one that was there may have gone."""
            try:
                return f"{_server_at(url, stack)}/mcp"
            except Failure as failure:
                raise NoServer(str(failure)) from failure

        try:
            anyio.run(serve_stdio, f"{_server_at(url, stack)}/mcp", seek, headers)
        except MCPError as error:
            with Remote(url, key=key) as remote:
                remote.download("/mcp/list_models")  # which says in words what it refuses
            raise Failure(str(error), ExitCode.UNREACHABLE) from error


def _server_at(url: str, stack: ExitStack) -> str:
    return _become_server(url, stack) if find(url).health is None else url


def _become_server(url: str, stack: ExitStack) -> str:
    """Serve at the address ourselves, so that those who come later find us there."""
    address = urlsplit(url)
    if address.scheme != "http" or not is_loopback(address.hostname or "") or address.path:
        raise unreachable(url)
    where = {"host": LOOPBACK, "port": 80 if address.port is None else address.port}
    settings = read_settings(**where)
    app = make_app(settings, again=lambda: settings_from(**where))
    try:
        listener = stack.enter_context(listen(settings.host, settings.port))
    except PortTaken:
        # Somebody was faster: a server of ours that is about to start, or another program.
        deadline = time.monotonic() + _RACE_S
        while (seen := find(url)).health is None:
            if seen.anybody or time.monotonic() > deadline:
                raise Failure(
                    f"port {settings.port} is taken by a program that is not {_NAME}; "
                    f"choose another one with IM_PORT, or say where the server is with IM_URL",
                    ExitCode.UNREACHABLE,
                ) from None
            time.sleep(0.1)
        return url
    stack.enter_context(served(app, listener, grace_s=settings.grace_s))
    return url_of(listener)


def print_config(client: Client, url: str | None, key: str | None) -> None:
    """Print what a client wants to have written where, with absolute paths."""
    settings = read_settings()
    environment = {
        **_backends(settings),
        "IM_MODELS_DIR": str(settings.models_dir.resolve()),
    }
    if settings.log_file is not None:
        environment["IM_LOG_FILE"] = str(settings.log_file.resolve())
    if settings.store_path is not None:
        environment["IM_STORE"] = f"sqlite:///{settings.store_path.resolve()}"
    if url is not None:
        environment["IM_URL"] = base(url)
    elif settings.port != type(settings).model_fields["port"].default:
        environment["IM_PORT"] = str(settings.port)
    if key is not None:
        environment["IM_API_KEY"] = "KEY"
        warn("The key is not printed; write it where KEY stands.")
    command, *arguments = _own_command()
    entry = {"command": command, "args": [*arguments, "mcp"], "env": environment}
    match client:
        case Client.CLAUDE_CODE:
            pairs = [
                part for key, value in environment.items() for part in ("-e", f"{key}={value}")
            ]
            words = ["claude", "mcp", "add", _NAME, *pairs, "--", command, *arguments, "mcp"]
            say(shlex.join(words))
            warn("Type this command; then `claude mcp list` shows it.")
        case Client.VSCODE:
            say(json.dumps({"servers": {_NAME: {"type": "stdio", **entry}}}, indent=2))
            warn("Write this into .vscode/mcp.json.")
        case Client.CURSOR:
            say(json.dumps({"mcpServers": {_NAME: entry}}, indent=2))
            warn("Write this into ~/.cursor/mcp.json, or .cursor/mcp.json of a project.")
        case Client.CLAUDE_DESKTOP:
            say(json.dumps({"mcpServers": {_NAME: entry}}, indent=2))
            warn(f"Write this into {_claude_desktop_file()}; then quit Claude Desktop and open it.")


def _backends(settings: Settings) -> dict[str, str]:
    """Say where LocalAI is, or each of several; a key is printed nowhere."""
    if not settings.backends:
        return {"LOCALAI_URL": settings.localai_url}
    told: list[dict[str, object]] = []
    for backend in settings.backends:
        if backend.key is not None:
            warn(f"The key of {backend.name} is not printed; write it into IM_BACKENDS as its key.")
        given = backend.model_dump(exclude={"key"}, exclude_defaults=True)
        told.append({k: str(v.resolve()) if isinstance(v, Path) else v for k, v in given.items()})
    return {"IM_BACKENDS": json.dumps(told)}


def _own_command() -> list[str]:
    """Return the command that starts this program from anywhere."""
    script = Path(sys.argv[0])
    if script.name == "main.py":
        return [sys.executable, str(script.resolve())]
    beside = Path(sys.executable).with_name(_NAME)
    if beside.is_file() and os.access(beside, os.X_OK):
        return [str(beside)]
    found = shutil.which(_NAME)
    with suppress(OSError):
        if found is not None:
            return [str(Path(found).absolute())]
    main = Path(__file__).resolve().parents[2] / "main.py"
    if main.is_file():
        return [sys.executable, str(main)]
    return [sys.executable, "-m", __name__.partition(".")[0]]


def _claude_desktop_file() -> str:
    match sys.platform:
        case "darwin":
            return "~/Library/Application Support/Claude/claude_desktop_config.json"
        case "win32":
            return r"%APPDATA%\Claude\claude_desktop_config.json"
        case _:
            return "~/.config/Claude/claude_desktop_config.json"
