"""The command line. What each command does is in `commands`, imported when it is called for."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from .commands.terminal import ExitCode, Failure, program, warn

_EXIT_CODES = "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 nobody answers, 4 refused."


class Commands(TyperGroup):
    """Commands whose failures are one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except Failure as failure:
            warn(f"error: {failure}")
            raise typer.Exit(failure.code) from failure


def _group(purpose: str) -> typer.Typer:
    return typer.Typer(help=purpose, rich_markup_mode=None, invoke_without_command=True)


app = typer.Typer(
    cls=Commands,
    help="Type-ordered queues in front of a LocalAI server, for MCP and HTTP clients.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
mcp_app = _group("Speak MCP on standard input and output.")
models_app = _group("List the models that the running server may be asked for.")
app.add_typer(mcp_app, name="mcp")
app.add_typer(models_app, name="models")

Port = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
LocalAI = Annotated[str | None, typer.Option("--localai-url", help="Where LocalAI answers.")]
Url = Annotated[
    str | None,
    typer.Option(
        envvar="IM_URL", help="Where the server answers; by default this machine and IM_PORT."
    ),
]
Key = Annotated[
    str | None, typer.Option("--key", envvar="IM_API_KEY", help="The key that the server asks for.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(
    epilog="Examples: `inference-manager serve --localai-url http://gpu:8080`, "
    "`inference-manager serve --backend simulator --port 0`"
)
def serve(
    host: Host = None,
    port: Port = None,
    localai_url: LocalAI = None,
    backend: Annotated[
        Literal["localai", "simulator"], typer.Option(help="What does the work.")
    ] = "localai",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="The least that is logged."),
    ] = None,
) -> None:
    """Serve until Ctrl-C."""
    from .commands import serve as command

    command.serve(
        simulated=backend == "simulator",
        host=host,
        port=port,
        localai_url=localai_url,
        log_level=log_level,
    )


@app.command(
    epilog="Examples: `inference-manager demo`, `inference-manager demo --once --output pictures`"
)
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the tour.")] = False,
    port: Port = None,
    output: Annotated[Path, typer.Option(help="Folder for the pictures and the log.")] = Path(
        "demo-output"
    ),
) -> None:
    """Try everything out with the built-in simulator: no model, no key, no network."""
    from .commands import demo as command

    command.demo(once=once, port=port, output=output)


@app.command(epilog="Example: `inference-manager simulate --port 8080 --speed 10`")
def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file with the simulator's configuration.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(min=0, help="Times as fast as a real machine; 0 never waits.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes a whole run repeat.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="What goes wrong of its own accord, `busy` for example.")
    ] = None,
) -> None:
    """Run the simulator of LocalAI alone."""
    from .commands import serve as command

    command.simulate(host=host, port=port, config=config, speed=speed, seed=seed, profile=profile)


@mcp_app.callback(
    epilog="Examples: `inference-manager mcp`, `inference-manager mcp config --client vscode`"
)
def mcp(ctx: typer.Context, url: Url = None, key: Key = None) -> None:
    """Speak MCP on standard input and output.

    Passes everything on to the running server. When none runs on this machine, it becomes that
    server, so that others find it. MCP clients start this command; `mcp config` prints what to
    write into their settings.
    """
    if ctx.invoked_subcommand is not None:
        return
    from .commands import connect as command

    command.bridge(url, key)


@mcp_app.command("config", epilog="Example: `inference-manager mcp config --client cursor`")
def mcp_config(
    client: Annotated[
        Literal["claude-desktop", "claude-code", "vscode", "cursor"],
        typer.Option(help="The program that shall use this server."),
    ],
    url: Url = None,
    key: Key = None,
) -> None:
    """Print what an MCP client needs to be told, with absolute paths."""
    from .commands import connect as command

    command.print_config(command.Client(client), url, key)


@app.command(epilog="Example: `inference-manager status --url http://gpu:8000 --json`")
def status(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show the queues and backends of the running server."""
    from .commands import show as command

    command.status(url, key, as_json=as_json)


@models_app.callback(
    epilog="Examples: `inference-manager models --json`, `inference-manager models check`"
)
def models(ctx: typer.Context, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List the models that the running server may be asked for."""
    if ctx.invoked_subcommand is not None:
        return
    from .commands import show as command

    command.models(url, key, as_json=as_json)


@models_app.command("check", epilog="Example: `inference-manager models check`")
def models_check(localai_url: LocalAI = None, as_json: AsJson = False) -> None:
    """Compare models/*.yaml with what LocalAI has; fail where they differ."""
    from .commands import show as command

    command.check_models(localai_url, as_json=as_json)


@app.command(epilog="Example: `inference-manager doctor --localai-url http://gpu:8080`")
def doctor(localai_url: LocalAI = None, as_json: AsJson = False) -> None:
    """Check settings, model definitions, log, LocalAI and port; say what to do."""
    from .commands import doctor as command

    command.doctor(localai_url, as_json=as_json)


@app.command(epilog="Example: `inference-manager version --json`")
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    from .commands import version as command

    command.version(as_json=as_json)


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        app(prog_name=program())
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.FAILED)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
