"""The documentation is true: its commands run, its tables are what the code says.

Every fenced block of every page is run or read. A block that cannot be run says why in a comment
above it, and then at least every command in it has to exist. `...` in shown output stands for
anything: on a line of its own for any lines.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
import yaml
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.server import MCPServer
from pydantic import BaseModel

from src.app import create_app
from src.cli import app as command_line
from src.commands.terminal import ExitCode
from src.models import errors as tree
from src.models.catalog import ModelDefinition
from src.models.jobs import TRANSITIONS
from src.models.modality import Modality
from src.models.queues import priority_order
from src.routes import (
    aliases,
    errors,
    figures,
    job_views,
    overview,
    queue_admin,
    status,
    tools,
    views,
)
from src.routes.error_pages import MEANINGS, ErrorPage
from src.routes.openai import batches as openai_batches
from src.routes.openai import files as openai_files
from src.settings import BackendSettings, Settings
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from tests import reference
from tests.reference import Row, code, tables

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
PATIENCE_S = 30.0
ANY_PORT = "http://127.0.0.1:0"

NOT_RUN = ("it installs packages", "it needs Claude Code", "it needs the tools of the development")
"""Reasons that are good enough."""
OUR_OWN = {"IM_URL", "IM_API_KEY"}
"""Variables that say where the server is and show who asks; they are no settings of it."""
OTHER_PROGRAMS = {"claude"}
SERVES = "runs until stopped"
LANGUAGES = {"bash", "console", "json", "yaml", "python", "mermaid", ""}
COMMANDS = {"make", "curl", "pip", "uvicorn", "python", "inference-manager", *OTHER_PROGRAMS}


@dataclass(frozen=True)
class Block:
    """One fenced block, and the comment above it."""

    page: Path
    line: int
    language: str
    note: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Take a page apart."""
    above, start, language, inside = "", 0, "", list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if start:
            if line == "```":
                note = re.fullmatch(r"<!-- (.+) -->", above)
                text = "\n".join(inside) + "\n"
                yield Block(page, start, language, note[1] if note else "", text)
                start, inside = 0, []
            else:
                inside.append(line)
        elif line.startswith("```"):
            start, language = number, line[3:]
        else:
            assert not line.lstrip().startswith(("```", "~~~")), f"{page}:{number}: indented fence"
            above = line if line.strip() else above
    assert not start, f"{page}:{start}: the fence is never closed"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
EXPORTS = [b for b in BLOCKS if re.fullmatch(r"(export .+\n)+", b.text)]
RUN = [
    b
    for b in BLOCKS
    if b.language in ("bash", "console", "python") and not b.note and b not in EXPORTS
]
SERVED = list({b.text: b for b in BLOCKS if b.note == SERVES}.values())
LEFT_OUT = [b for b in BLOCKS if b.note.startswith("not run: ")]


# Running


@dataclass
class Place:
    """A folder that looks like a checkout, and the server that the pages talk of."""

    folder: Path
    url: str
    simulator: str
    job_id: str = "JOB_ID"

    def adapted(self, text: str) -> str:
        """Put the real addresses into a text of the documentation."""
        text = re.sub(r"http://(127\.0\.0\.1|localhost):8000", self.url, text)
        text = text.replace("http://localhost:8080", self.simulator)
        return text.replace("JOB_ID", self.job_id)

    def run(self, script: str, *, language: str = "bash") -> "subprocess.CompletedProcess[str]":
        """Run a script and remember the job it was about."""
        program = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else ["python", "-c"]
        done = subprocess.run(
            [*program, self.adapted(script)],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if found := re.findall(r'"job_id":"([\w-]+)"', done.stdout):
            self.job_id = found[-1]
        return done

    def environment(self) -> dict[str, str]:
        """Nothing of ours that was set outside, no proxies, and our commands first."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not re.match(r"(?i)IM_|LOCALAI_|.*_proxy$", name)
        }
        path = f"{self.folder / 'bin'}{os.pathsep}{kept['PATH']}"
        port = self.url.rpartition(":")[2]
        return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "IM_PORT": port}


def furnish(folder: Path) -> None:
    """Make a folder look like a checkout in which everything is installed."""
    for name in ("main.py", "src", "models", "Makefile", "requirements.txt"):
        (folder / name).symlink_to(ROOT / name)
    python = f'exec "{sys.executable}"'
    main = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from src.cli import main"
    start = f'{main}; sys.argv[0] = "inference-manager"; sys.exit(main())'
    scripts = {
        "bin/python": f'{python} "$@"',
        "bin/uvicorn": f'{python} -m uvicorn "$@"',
        "bin/inference-manager": f'{python} -c {shlex.quote(start)} "$@"',
        ".venv/bin/python": f'{python} "$@"',
    }
    for name, script in scripts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        file.chmod(0o755)


@contextmanager
def started(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> Generator[str]:
    """Run a server and tell where it listens; it and what it started are gone at the end."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        rest = threading.Thread(target=process.stdout.read)
        try:
            said: list[str] = []
            for line in process.stdout:
                said.append(line)
                if found := re.search(r"(?:address +|Uvicorn running on )(http://[\d.:]+)", line):
                    rest.start()
                    yield found[1]
                    break
            else:
                raise AssertionError("".join(said))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(PATIENCE_S)
            if rest.ident is not None:
                rest.join(PATIENCE_S)


def answers(url: str) -> bool:
    return httpx2.get(url, timeout=PATIENCE_S, trust_env=False).is_success


@pytest.fixture(scope="module")
def simulator() -> Generator[str]:
    """A LocalAI that hurries."""
    with Simulator(SimulatorConfig(speed=40)) as running:
        yield running.url


@pytest.fixture(scope="module")
def server(simulator: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    """The server that the pages talk of, as `inference-manager serve` starts it."""
    folder = tmp_path_factory.mktemp("server")
    furnish(folder)
    command = [str(folder / "bin/inference-manager"), "serve", "--localai-url", simulator]
    with started(command, folder, Place(folder, ANY_PORT, simulator).environment()) as url:
        while not answers(f"{url}/ready"):
            pass
        yield Place(folder, url, simulator)


@pytest.fixture
def place(server: Place, tmp_path: Path) -> Place:
    """A folder of one's own, with the log of the server."""
    furnish(tmp_path)
    (tmp_path / "app.log").symlink_to(server.folder / "app.log")
    return Place(tmp_path, server.url, server.simulator)


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the output that is shown."""
    command, shown = "", list[str]()
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:], []
        else:
            assert command, "a console block begins with $"
            shown.append(line)
    yield command, shown


def matches(shown: Iterable[str], output: str) -> bool:
    """Whether the output is what is shown, but for what `...` stands for."""
    pattern = ""
    for line in shown:
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part.rstrip()) for part in line.split("...")) + r" *\n"
    lines = "".join(f"{line.rstrip()}\n" for line in output.splitlines())
    return re.fullmatch(pattern, lines) is not None


@pytest.mark.skipif(
    shutil.which("curl") is None and "CI" not in os.environ, reason="curl is not installed"
)
@pytest.mark.parametrize(
    "page", sorted({b.page for b in RUN}), ids=lambda page: str(page.relative_to(ROOT))
)
def test_what_a_page_says_to_type_works(page: Path, place: Place) -> None:
    for block in (b for b in RUN if b.page == page):
        if block.language == "console":
            for command, shown in commands_of(block.text):
                done = place.run(command)
                fails = any(line.startswith("error: ") for line in shown)
                expected = [place.adapted(line) for line in shown]
                assert (done.returncode != 0) == fails, f"{block}: {command}\n{done.stdout}"
                assert matches(expected, done.stdout), f"{block}: {command}\n{done.stdout}"
        else:
            done = place.run(block.text, language=block.language)
            assert done.returncode == 0, f"{block}\n{done.stdout}"
            assert '"error":' not in done.stdout, f"{block}\n{done.stdout}"


@pytest.mark.parametrize("block", SERVED, ids=str)
def test_what_runs_until_stopped_answers(block: Block, simulator: str, tmp_path: Path) -> None:
    furnish(tmp_path)
    place = Place(tmp_path, ANY_PORT, simulator)
    script = place.adapted(block.text).strip()
    script = re.sub(r"--port \d+", "--port 0", script).replace("0.0.0.0", "127.0.0.1")

    with started(["bash", "-euc", script], tmp_path, place.environment()) as url:
        assert answers(f"{url}/{'healthz' if ' simulate ' in script else 'health'}")


# Reading


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES
    notes = {block.note for block in BLOCKS} - {"", SERVES}
    assert [note for note in notes if not note.removeprefix("not run: ").startswith(NOT_RUN)] == []


def test_no_command_hides_in_a_block_without_a_language() -> None:
    plain = [block for block in BLOCKS if block.language in ("", "mermaid")]

    hidden = [
        f"{block}: {line}"
        for block in plain
        for line in block.text.splitlines()
        if line.startswith("$ ") or line.partition(" ")[0] in COMMANDS
    ]
    assert hidden == []


@pytest.mark.parametrize("block", LEFT_OUT, ids=str)
def test_what_is_not_run_exists(block: Block) -> None:
    for line in block.text.strip().splitlines():
        check(shlex.split(line))


def check(words: Sequence[str]) -> None:
    """See that a command could be run: its target, its file, its options."""
    match words:
        case ["make", *targets]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            known = re.findall(r"^([a-z]+):", makefile, re.MULTILINE)
            assert set(targets) <= set(known)
        case ["pip", "install", "-r", file]:
            assert (ROOT / file).is_file()
        case [".venv/bin/python", "-m", "pytest", path, *_]:
            assert (ROOT / path).exists()
        case ["claude", "mcp", "add", *_, url] if url.startswith("http"):
            assert url == "http://127.0.0.1:8000/mcp"
            assert words[3:6] == ["--transport", "http", "inference-manager"]
        case ["claude", "mcp", "add", *_]:
            assert "--" in words  # what follows is started below
        case _:
            raise AssertionError(f"nobody knows how to check: {shlex.join(words)}")


def test_the_makefile_targets_that_are_listed_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"`make ([a-z]+)`", page.read_text(encoding="utf-8")):
            check(["make", target])


def test_commands_in_running_text_exist() -> None:
    known = set(commands())
    for page in PAGES:
        text = re.sub(
            r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )
        for words in re.findall(
            r"`(?:inference-manager|(?:\.venv/bin/)?python main\.py) ([a-z ]+)", text
        ):
            assert words.strip() in known or words.split()[0] in known, f"{page}: {words}"


def test_files_that_are_named_exist() -> None:
    made = {"app.log", "config.yaml", "claude_desktop_config.json", "mcp.json", ".mcp.json"}
    name = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|yaml|txt|toml|json|log))`")
    for page in PAGES:
        for file in name.findall(page.read_text(encoding="utf-8")):
            known = Path(file).name in made or "name" in file
            assert known or (ROOT / file).exists() or list((ROOT / "src").rglob(file)), (
                f"{page}: {file}"
            )


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=str)
def test_yaml_is_a_model_definition_or_a_configuration(block: Block) -> None:
    content = yaml.safe_load(block.text)

    model: type[BaseModel] = ModelDefinition if "name" in content else Settings
    if block.page.name == "simulator.md":
        model = SimulatorConfig
    model.model_validate(content)


@pytest.mark.parametrize("block", EXPORTS, ids=str)
def test_what_is_exported_is_a_configuration(
    block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {row[1].strip("`") for row in reference.settings()}
    before = Settings()
    for line in block.text.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        assert name.partition("__")[0] in known
        monkeypatch.setenv(name, value)

    assert Settings() != before


# What is written into clients


@dataclass(frozen=True)
class Connection:
    """How a client is told to reach the server."""

    where: str
    entry: Mapping[str, Any]


def connections() -> Iterator[Connection]:
    for block in BLOCKS:
        if block.language == "json":
            content = json.loads(block.text)
            (key,) = content
            assert key in ("mcpServers", "servers"), str(block)
            ((name, entry),) = content[key].items()
            assert name == "inference-manager"
            typed = key == "servers" or "command" not in entry
            assert not typed or "type" in entry or "url" in entry, f"{block}: VS Code wants a type"
            yield Connection(str(block), entry)
        elif "claude mcp add" in block.text and " -- " in block.text:
            options, _, command = block.text.strip().partition(" -- ")
            first, *arguments = shlex.split(command)
            variables = dict(pair.split("=", 1) for pair in re.findall(r"-e (\S+)", options))
            yield Connection(str(block), {"command": first, "args": arguments, "env": variables})


CONNECTIONS = list(connections())
SHOWN = {"Authorization": "Bearer KEY"}
"""The headers that may stand in a client's settings."""


@pytest.mark.parametrize("connection", CONNECTIONS, ids=lambda one: one.where)
def test_a_client_is_told_what_clients_understand(connection: Connection) -> None:
    match dict(connection.entry):
        case {"command": str(), "args": [*_, "mcp"], **others}:
            assert others.keys() <= {"type", "env"}
            assert others.get("type", "stdio") == "stdio"
            for variable in others.get("env", {}):
                assert variable in {row[1].strip("`") for row in reference.settings()} | OUR_OWN
        case {"url": "http://127.0.0.1:8000/mcp", **others}:
            assert others.pop("headers", SHOWN) == SHOWN
            assert others in ({}, {"type": "http"})
        case _:
            raise AssertionError(f"{connection.where}: neither stdio nor HTTP")


async def test_the_command_in_a_client_s_settings_offers_the_tools(server: Place) -> None:
    told = [one.entry for one in CONNECTIONS if "command" in one.entry]
    commands = {(entry["command"], *entry["args"]) for entry in told}
    assert len(commands) == 1

    ((command, *arguments),) = commands
    at = "/path/to/inference-manager"
    assert command == f"{at}/.venv/bin/python"
    parameters = StdioServerParameters(
        command=sys.executable,
        args=[argument.replace(at, str(ROOT)) for argument in arguments],
        env=server.environment(),
        cwd=server.folder,
    )
    with (server.folder / "stdio.txt").open("w", encoding="utf-8") as errlog:
        async with Client(stdio_client(parameters, errlog=errlog)) as client:
            listed = await client.list_tools()

    assert [tool.name for tool in listed.tools] == [tool.name for tool in await offered()]


# The reference


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def assert_same(documented: Iterable[Row], real: Iterable[Row], where: str) -> None:
    """Compare two tables by name; where the code says nothing, the page has to."""
    by_name = {row[0]: row[1:] for row in documented}
    expected = {row[0]: row[1:] for row in real}
    assert by_name.keys() == expected.keys(), where
    for name, (*facts, meaning) in expected.items():
        *said, explained = by_name[name]
        assert said == facts, f"{where}: {name}"
        assert explained == meaning or (explained and not meaning), f"{where}: {name}"


def test_the_settings_are_those_of_the_code() -> None:
    assert_same(tables(page("settings.md"))["Settings"], reference.settings(), "settings.md")


def test_the_keys_of_a_backend_are_those_of_the_code() -> None:
    documented = tables(page("settings.md"))["Backends"]

    assert_same(documented, reference.definition(BackendSettings), "settings.md")


def test_the_keys_of_a_model_definition_are_those_of_the_code() -> None:
    documented = tables(page("model-definitions.md"))["Model definitions"]

    assert_same(documented, reference.definition(ModelDefinition), "model-definitions.md")


def test_the_errors_are_those_of_the_code() -> None:
    documented = tables(page("errors.md"))["Codes"]

    real = [
        (code(kind.code), str(number), reference.attempts(kind), *MEANINGS[kind.code])
        for kind, number in errors.STATUS.items()
        if kind is not tree.Refused  # never raised itself
    ]
    assert sorted(documented) == sorted(real)


def test_what_never_becomes_a_job_is_answered_as_the_page_says() -> None:
    documented = tables(page("errors.md"))["Requests that never became a job"]

    assert [row[2:] for row in documented] == [MEANINGS[row[0].strip("`")] for row in documented]
    for name, number, *_ in documented[:-1]:
        body = json.loads(bytes(errors.plain(int(number), "").body))
        assert code(body["error"]["code"]) == name
    assert code(json.loads(bytes(errors.plain(418, "").body))["error"]["code"]) == documented[-1][0]


def test_the_exit_codes_are_those_of_the_code() -> None:
    documented = tables(page("errors.md"))["Exit codes of the command line"]

    assert [row[:2] for row in documented] == [(str(int(c)), c.name.lower()) for c in ExitCode]


def api() -> Mapping[str, Any]:
    return create_app(Settings(log_file=None)).openapi()


def test_the_routes_are_those_of_the_code() -> None:
    documented = re.findall(r"^### ((?:GET|POST|PATCH|DELETE) \S+)$", page("http.md"), re.MULTILINE)

    real = [f"{method.upper()} {path}" for path, ops in api()["paths"].items() for method in ops]
    assert sorted(documented) == sorted(real)


def test_bodies_and_queries_are_those_of_the_code() -> None:
    described, known = api(), tables(page("http.md"))
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            route = f"{method.upper()} {path}"
            schemas = described["components"]["schemas"]
            if "requestBody" in operation:
                taken = operation["requestBody"]["content"]
                schema = taken.get("application/json", taken.get("multipart/form-data"))["schema"]
                schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
            else:
                queries = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
                schema = {
                    "properties": {one["name"]: one["schema"] for one in queries},
                    "required": [one["name"] for one in queries if one["required"]],
                }
            if rows := list(reference.properties(schema, schemas)):
                assert_same(known[route], rows, route)


def test_the_statuses_are_those_of_the_code() -> None:
    known = tables(page("http.md"))
    documented = {row[0] for row in known["Statuses"]}
    others = {row[0] for name in OTHER_STATUSES for row in known[name]}

    for path, operations in api()["paths"].items():
        for operation in operations.values():
            possible = set(operation["responses"])
            generates = path.removeprefix("/mcp/") in {*Modality}
            assert possible == documented if generates else possible <= documented | others, path


OTHER_STATUSES = ("Signed addresses", "Statuses of the doors")
ANSWERS: Mapping[str, type[BaseModel]] = {
    "A job": views.JobView,
    "A picture": views.ImageView,
    "A recording": views.AudioView,
    "A film": views.VideoView,
    "A rank": views.RankView,
    "A transcript": views.TranscriptView,
    "A segment": views.SegmentView,
    "Usage": views.UsageView,
    "GET /health": status.Health,
    "GET /ready": status.Readiness,
    "GET /queue-status": overview.QueueStatus,
    "A queue": overview.QueueView,
    "A running attempt": overview.RunningView,
    "A backend": overview.BackendView,
    "A resident model": overview.ResidentView,
    "A paused model": overview.PauseView,
    "A quarantined job": overview.QuarantinedView,
    "The machine": overview.SystemView,
    "More of a job": job_views.JobFacts,
    "A webhook": job_views.WebhookView,
    "A job in a list": job_views.JobLine,
    "A queued request": aliases.QueuedRequest,
    "GET /api/v1/request-status/{request_id}": aliases.RequestStatus,
    "A job in short": aliases.QueuedJob,
    "GET /queue/status": aliases.QueueState,
    "A worker": aliases.Worker,
    "GET /queue/controls": queue_admin.ControlsView,
    "A pause": queue_admin.PausedView,
    "A switch": queue_admin.SwitchedView,
    "A record": queue_admin.RecordView,
    "GET /errors/{code}": ErrorPage,
    "GET /mcp/list_models": tools.ModelList,
    "A model": tools.ModelView,
    "GET /mcp/get_request_metrics": figures.RequestFigures,
    "Figures": figures.FiguresView,
    "A request": figures.RequestView,
    "GET /mcp/get_error_metrics": figures.ErrorFigures,
    "An error": figures.ErrorView,
    "A file": openai_files.FileObject,
    "A batch": openai_batches.BatchObject,
}


def test_answers_are_those_of_the_code() -> None:
    known = {**tables(page("http.md"))}
    for heading, model in ANSWERS.items():
        assert_same(known[heading], reference.fields(model), heading)
    shape = tables(page("errors.md"))["One shape"]
    assert_same(shape, reference.fields(errors.ErrorDetail), "errors.md")


async def offered() -> Sequence[Any]:
    servers: list[MCPServer] = []
    create_app(Settings(log_file=None), extend_mcp=servers.append)
    return await servers[0].list_tools()


async def test_the_tools_are_those_of_the_code() -> None:
    text, known = page("mcp.md"), tables(page("mcp.md"))
    listed = await offered()

    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == [tool.name for tool in listed]
    for tool in listed:
        assert tool.description in text
        schema = tool.input_schema
        rows = list(reference.properties(schema, schema.get("$defs", {})))
        assert_same(known.get(tool.name, []), rows, tool.name)


def commands(group: Any = None, before: str = "") -> Mapping[str, Any]:
    group = group or typer.main.get_command(command_line)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found[f"{before}{name}"] = command
        if hasattr(command, "commands"):
            found.update(commands(command, f"{before}{name} "))
    return found


def test_the_commands_and_options_are_those_of_the_code() -> None:
    text, known = page("cli.md"), tables(page("cli.md"))
    real = commands()

    assert sorted(re.findall(r"^## (.+)$", text, re.MULTILINE)) == sorted(real)
    for name, command in real.items():
        assert command.help.splitlines()[0] in text, name
        assert_same(known.get(name, []), reference.options(command), name)


# The explanations


def test_the_life_of_a_job_is_that_of_the_code() -> None:
    text = (DOCS / "explanation/architecture.md").read_text(encoding="utf-8")
    documented = {
        state: set(steps.split(", ")) - {"nothing"}
        for states, steps in tables(text)["The life of a job"]
        for state in states.split(", ")
    }

    assert documented == {str(state): set(map(str, steps)) for state, steps in TRANSITIONS.items()}


def test_the_retries_are_those_of_the_code() -> None:
    text = (DOCS / "explanation/architecture.md").read_text(encoding="utf-8")
    documented = {row[0]: row[1] for row in tables(text)["Retries"]}
    real = {  # the first and the last row are the processor's, and tested there
        "reset": (
            tree.BackendUnavailable,
            tree.BackendTimeout,
            tree.ModelLoadFailed,
            tree.ModelCrashed,
            tree.StreamCut,
        ),
        "500": (tree.BackendFailed, tree.EmptyResult),
        "429": (tree.BackendBusy,),
        "any other 4xx": (tree.BackendRejected, tree.BackendProtocolError),
    }

    assert len(documented) == len(real) + 2
    for start, kinds in real.items():
        (how,) = [how for what, how in documented.items() if what.startswith(start)]
        words = {"no": "1", "waits": "not counted"}
        for kind in kinds:
            attempts = reference.attempts(kind)
            assert how.startswith(words.get(attempts, attempts)), kind


def test_the_order_is_that_of_the_code() -> None:
    text = (DOCS / "explanation/ordering.md").read_text(encoding="utf-8")

    assert f"`priority_order` says: {', '.join(priority_order)}" in " ".join(text.split())
