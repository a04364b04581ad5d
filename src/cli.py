"""The command line. What each command does is in `commands`, imported when it is called for."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from .commands.terminal import ExitCode, Failure, program, warn
from .models.modality import Modality

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
queue_app = _group("Operate the queue of the running server.")
jobs_app = _group("See to your own jobs on the running server.")
app.add_typer(mcp_app, name="mcp")
app.add_typer(models_app, name="models")
app.add_typer(queue_app, name="queue", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs", no_args_is_help=True)

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
OfModality = Annotated[Modality | None, typer.Option("--modality", help="Those of this modality.")]
OfModel = Annotated[str | None, typer.Option("--model", help="Those of this model.")]
OfCaller = Annotated[str | None, typer.Option("--caller", help="Those of this caller.")]
InState = Annotated[
    list[str] | None, typer.Option("--state", help="Those in this state; may be repeated.")
]
WithCode = Annotated[str | None, typer.Option("--code", help="Those with this error code.")]
Since = Annotated[
    str | None, typer.Option("--since", help="Those submitted since: 2h ago, or a moment.")
]
Before = Annotated[
    str | None, typer.Option("--before", help="Those submitted before: 7d ago, or a moment.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="How many at most.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id of the job.")]


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
    """Check settings, model definitions, log, store, LocalAI and port; say what to do."""
    from .commands import doctor as command

    command.doctor(localai_url, as_json=as_json)


@queue_app.callback(
    epilog="Examples: `inference-manager queue pause --modality txt2img`, "
    "`inference-manager queue retry --since 2h`"
)
def queue() -> None:
    """Operate the queue of the running server."""


@queue_app.command("status", epilog="Example: `inference-manager queue status --json`")
def queue_status(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show what is paused, stopped and draining."""
    from .commands import queue as command

    command.status(url, key, as_json=as_json)


@queue_app.command("pause", epilog="Example: `inference-manager queue pause --modality txt2img`")
def queue_pause(
    modality: OfModality = None,
    model: OfModel = None,
    caller: OfCaller = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Hold jobs back: those of a modality, a model or a caller, else all. What runs goes on."""
    from .commands import queue as command

    scope = _given(modality=modality, model=model, caller=caller)
    command.switch("pause", scope, url, key, as_json=as_json)


@queue_app.command("resume", epilog="Example: `inference-manager queue resume`")
def queue_resume(
    modality: OfModality = None,
    model: OfModel = None,
    caller: OfCaller = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Lift the pause of a modality, a model or a caller, else every pause."""
    from .commands import queue as command

    scope = _given(modality=modality, model=model, caller=caller)
    command.switch("resume", scope, url, key, as_json=as_json)


@queue_app.command("stop", epilog="Example: `inference-manager queue stop`")
def queue_stop(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Start and load nothing any more. What runs goes on."""
    from .commands import queue as command

    command.switch("stop", {}, url, key, as_json=as_json)


@queue_app.command("start", epilog="Example: `inference-manager queue start`")
def queue_start(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Start and load again."""
    from .commands import queue as command

    command.switch("start", {}, url, key, as_json=as_json)


@queue_app.command("drain", epilog="Example: `inference-manager queue drain`")
def queue_drain(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Take no new work in, and carry out the rest."""
    from .commands import queue as command

    command.switch("drain", {}, url, key, as_json=as_json)


@queue_app.command("undrain", epilog="Example: `inference-manager queue undrain`")
def queue_undrain(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Take work in again."""
    from .commands import queue as command

    command.switch("undrain", {}, url, key, as_json=as_json)


@queue_app.command(
    "purge", epilog="Example: `inference-manager queue purge --state failed --before 7d`"
)
def queue_purge(
    state: InState = None,
    modality: OfModality = None,
    model: OfModel = None,
    caller: OfCaller = None,
    code: WithCode = None,
    since: Since = None,
    before: Before = None,
    limit: Limit = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Needed where nothing else is said.")
    ] = False,
    dry_run: DryRun = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Forget ended jobs, with what they made."""
    from .commands import queue as command

    which = _jobs_of(state, modality, model, caller, code, since, before, limit)
    command.purge({**which, "all": everything, "dry_run": dry_run}, url, key, as_json=as_json)


@queue_app.command("retry", epilog="Example: `inference-manager queue retry --since 2h --dry-run`")
def queue_retry(
    state: InState = None,
    modality: OfModality = None,
    model: OfModel = None,
    caller: OfCaller = None,
    code: WithCode = None,
    since: Since = None,
    before: Before = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Carry failed jobs out once more, each only once."""
    from .commands import queue as command

    which = _jobs_of(state, modality, model, caller, code, since, before, limit)
    command.retry({**which, "dry_run": dry_run}, url, key, as_json=as_json)


@queue_app.command("reload", epilog="Example: `inference-manager queue reload`")
def queue_reload(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Have the server read its settings again."""
    from .commands import queue as command

    command.reload(url, key, as_json=as_json)


@queue_app.command("audit", epilog="Example: `inference-manager queue audit --limit 20`")
def queue_audit(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what operators did, the latest first."""
    from .commands import queue as command

    command.audit(limit, url, key, as_json=as_json)


@jobs_app.callback(
    epilog="Examples: `inference-manager jobs list --state failed`, "
    "`inference-manager jobs wait JOB`"
)
def jobs() -> None:
    """See to your own jobs on the running server."""


@jobs_app.command("list", epilog="Example: `inference-manager jobs list --state queued`")
def jobs_list(
    state: InState = None,
    modality: OfModality = None,
    model: OfModel = None,
    code: WithCode = None,
    since: Since = None,
    before: Before = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="Where the page before ended, as it said.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List your own jobs, the newest first."""
    from .commands import jobs as command

    which = _jobs_of(state, modality, model, None, code, since, before, limit)
    command.listing({**which, **_given(cursor=cursor)}, url, key, as_json=as_json)


@jobs_app.command("show", epilog="Example: `inference-manager jobs show JOB --json`")
def jobs_show(job: JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show all that is known of a job."""
    from .commands import jobs as command

    command.show(job, url, key, as_json=as_json)


@jobs_app.command("wait", epilog="Example: `inference-manager jobs wait JOB --timeout 60`")
def jobs_wait(
    job: JobId,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which it waits no longer.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Wait for the end of a job; fail if it does not end well."""
    from .commands import jobs as command

    command.wait(job, timeout, url, key, as_json=as_json)


@jobs_app.command("cancel", epilog="Example: `inference-manager jobs cancel JOB`")
def jobs_cancel(job: JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Give up a job that waits or runs."""
    from .commands import jobs as command

    command.cancel(job, url, key, as_json=as_json)


@jobs_app.command("retry", epilog="Example: `inference-manager jobs retry JOB`")
def jobs_retry(job: JobId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Run a job again that has ended, as a new one."""
    from .commands import jobs as command

    command.retry(job, url, key, as_json=as_json)


@jobs_app.command("move", epilog="Example: `inference-manager jobs move JOB --to front`")
def jobs_move(
    job: JobId,
    level: Annotated[
        Literal["normal", "low"] | None, typer.Option(help="The level it shall have.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="The job of yours directly before which it shall be.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(help="The job of yours directly after which it shall be.")
    ] = None,
    to: Annotated[
        Literal["front", "back"] | None, typer.Option(help="An end of your own jobs.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Change the place of a job that waits among your own, or its level."""
    from .commands import jobs as command

    where = _given(level=level, before=before, after=after, to=to)
    command.move(job, where, url, key, as_json=as_json)


@app.command(epilog="Example: `inference-manager backup /var/backups/monday`")
def backup(
    directory: Annotated[Path, typer.Argument(help="A new directory for the copy.")],
    as_json: AsJson = False,
) -> None:
    """Copy all jobs and what belongs to them, while the server runs or not."""
    from .commands import backup as command

    command.backup(directory, as_json=as_json)


@app.command(epilog="Example: `inference-manager restore /var/backups/monday`")
def restore(
    directory: Annotated[Path, typer.Argument(help="What `backup` has made.")],
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of all jobs, while no server runs."""
    from .commands import backup as command

    command.restore(directory, as_json=as_json)


@app.command(epilog="Example: `inference-manager version --json`")
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    from .commands import version as command

    command.version(as_json=as_json)


def _given(**options: Any) -> dict[str, Any]:
    """Leave out what was not given."""
    return {name: value for name, value in options.items() if value is not None}


def _jobs_of(
    state: list[str] | None,
    modality: Modality | None,
    model: str | None,
    caller: str | None,
    code: str | None,
    since: str | None,
    before: str | None,
    limit: int | None,
) -> dict[str, Any]:
    """Say which jobs are meant, as the server wants it."""
    from .commands.moments import moment

    return _given(
        state=state or None,
        modality=modality,
        model=model,
        caller=caller,
        code=code,
        submitted_after=None if since is None else moment(since, "--since"),
        submitted_before=None if before is None else moment(before, "--before"),
        limit=limit,
    )


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        app(prog_name=program())
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(ExitCode.FAILED)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
