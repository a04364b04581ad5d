"""The command line, through the highest door that can see it: often a process of its own."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Mount
from typer.testing import CliRunner

from src import __version__
from src.app import create_app
from src.cli import app
from src.commands.terminal import coloured
from src.settings import Settings
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from tests.serving import RunningServer

ROOT = Path(__file__).parents[1]
PATIENCE_S = 40.0
COMMANDS = (
    *("serve", "demo", "simulate", "mcp", "status", "models", "queue", "jobs"),
    *("backup", "restore", "doctor", "version"),
)


def environment(**variables: str) -> dict[str, str]:
    """The environment without settings of ours, but those given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("IM_", "LOCALAI_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def command(*words: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "src", *words]


def run(folder: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*words),
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@contextmanager
def started(folder: Path, *words: str, **variables: str) -> Generator["subprocess.Popen[str]"]:
    """Run a command beside the test; it is gone at the end."""
    process = subprocess.Popen(
        command(*words),
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(stream: IO[str] | None, words: str) -> str:
    """Read lines up to one that holds the words; the test's own timeout bounds the wait."""
    assert stream is not None
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError(f"{words!r} never came: {''.join(lines)}")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start in an empty folder, with no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("IM_", "LOCALAI_"))]:
        monkeypatch.delenv(name)
    return tmp_path


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def invoke(*words: str, **variables: str) -> Outcome:
    """Run a command in this process, where nothing has to be listened to."""
    result = CliRunner().invoke(app, list(words), env=variables)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def nobody() -> Generator[str]:
    """An address where nobody listens, and nobody else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(scope="module")
def banner(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """What a demonstration prints that goes on."""
    with started(tmp_path_factory.mktemp("demo"), "demo", "--port", "0") as process:
        yield read_until(process.stdout, "Serving until Ctrl-C")


@pytest.fixture
def demonstration(banner: str) -> str:
    """Its address."""
    return address_in(banner)


def address_in(text: str) -> str:
    found = re.search(r"address +(http://\S+)", text)
    assert found is not None
    return found[1]


def troubles(errors: str) -> list[str]:
    """The lines of standard error that tell of something that went wrong in the program."""
    return [line for line in errors.splitlines() if re.search("Traceback|Error|Warning", line)]


# Help and usage


def test_help_names_every_command_and_the_exit_codes() -> None:
    shown = invoke("--help")

    assert shown.code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown.out, re.MULTILINE)
    assert "3 nobody answers" in shown.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_shows_an_example(name: str) -> None:
    shown = invoke(name, "--help")

    assert shown.code == 0
    assert f"`inference-manager {name}" in shown.out


def test_version_is_printed_for_people_and_for_programs() -> None:
    assert invoke("version").out == f"inference-manager {__version__}\n"
    assert json.loads(invoke("version", "--json").out)["version"] == __version__


@pytest.mark.parametrize(
    "words",
    [("nope",), ("serve", "--port", "70000"), ("serve", "--backend", "gpt"), ("mcp", "config")],
)
def test_wrong_usage_ends_with_2_and_shows_how_to_get_help(words: Sequence[str]) -> None:
    shown = invoke(*words)

    assert shown.code == 2
    assert shown.out == ""
    assert "--help" in shown.err


def test_both_ways_to_start_from_the_checkout_are_the_command_line(folder: Path) -> None:
    assert run(folder, "version").stdout == f"inference-manager {__version__}\n"
    as_script = subprocess.run(
        [sys.executable, ROOT / "main.py", "version"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert as_script.stdout == f"inference-manager {__version__}\n"


# Settings that are wrong


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("IM_PORT", "many", "setting port: "),
        ("IM_RESIDENT", "0", "setting resident: "),
        ("LOCALAI_URL", "localhost:8080", "setting localai_url: must look like http://"),
        ("IM_DEADLINE_S", "soon", "setting deadline_s: "),
        ("IM_DEADLINE_S__TXT2TXT", "soon", "setting deadline_s.txt2txt: "),
        ("IM_ORDER", "txt2txt,video", "setting order: "),
        ("IM_LOCALAI_API_KEY_FILE", "/nowhere/key", "setting localai_api_key_file: "),
        ("LOCALAI_API_KEY", "two words", "setting localai_api_key: "),
        ("IM_BACKENDS", "gpu", "setting backends: cannot be read as JSON"),
        ("IM_BACKENDS", '[{"url": "gpu"}]', "setting backends[0].url: must look like http://"),
        (
            "IM_BACKENDS",
            '[{"url": "http://gpu", "key": "a", "key_file": "b"}]',
            "setting backends[0]: give either key or key_file",
        ),
        (
            "IM_BACKENDS",
            '[{"url": "http://gpu", "key_file": "/nowhere/key"}]',
            "setting backends.gpu.key_file: /nowhere/key cannot be read",
        ),
        (
            "IM_BACKENDS",
            '[{"url": "https://gpu", "ca_bundle": "/nowhere/ca"}]',
            "setting backends.gpu.ca_bundle: /nowhere/ca cannot be read",
        ),
    ],
)
def test_a_wrong_setting_is_named_in_one_line_with_its_variable(
    variable: str, value: str, expected: str
) -> None:
    shown = invoke("serve", **{variable: value})

    assert shown.code == 1
    assert shown.out == ""
    assert shown.err.startswith(f"error: {expected}")
    assert variable in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("config.yaml", "prot: 8000", "unknown setting prot, did you mean port?"),
        (
            "config.yaml",
            "backends: [{url: http://gpu, vrify: true}]",
            "unknown setting backends[0].vrify, did you mean verify?",
        ),
        ("config.yaml", "port: [", "config.yaml cannot be read as YAML"),
        ("models/bad.yaml", "nam: x", "model definition models/bad.yaml: name: "),
        ("models/bad.yaml", "name: [", "model definition models/bad.yaml: not readable as YAML"),
    ],
)
def test_a_wrong_file_is_named_in_one_line(
    folder: Path, file: str, content: str, expected: str
) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(content, encoding="utf-8")

    shown = invoke("serve", "--port", "0")

    assert shown.code == 1
    assert shown.err.startswith(f"error: {expected}")
    assert shown.err.count("\n") == 1


def test_settings_that_do_not_fit_together_are_refused() -> None:
    shown = invoke("serve", IM_CONNECT_S="5000")

    assert shown.code == 1
    assert "connect_s < attempt_s <= deadline_s" in shown.err


# Ports and addresses


def test_a_port_that_is_taken_is_named_and_how_to_choose_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        for words in (("serve",), ("simulate",)):
            shown = invoke(*words, "--port", str(port))

            assert shown.code == 1
            assert f"port {port} " in shown.err
            assert "--port" in shown.err


def test_a_second_server_says_that_one_is_there_already(demonstration: str) -> None:
    port = demonstration.rpartition(":")[2]

    shown = invoke("serve", "--port", port)

    assert shown.code == 1
    assert f"Inference Manager {__version__} runs there already" in shown.err


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    shown = invoke("serve", "--host", "192.0.2.1", "--port", "0")

    assert shown.code == 1
    assert "does not have the address 192.0.2.1" in shown.err


def test_the_simulator_refuses_to_serve_others_without_a_key() -> None:
    shown = invoke("simulate", "--host", "0.0.0.0", "--port", "0")

    assert shown.code == 4
    assert "api_key" in shown.err


# Looking at a running server


@pytest.mark.parametrize("words", [("status",), ("models",), ("status", "--json")])
def test_nobody_there_ends_with_3(words: Sequence[str], nobody: str) -> None:
    shown = invoke(*words, "--url", nobody)

    assert shown.code == 3
    assert shown.out == ""
    assert nobody in shown.err
    assert "IM_URL" in shown.err


def test_an_address_that_is_none_is_wrong_usage() -> None:
    shown = invoke("status", IM_URL="localhost")

    assert shown.code == 2
    assert "IM_URL" in shown.err


def test_status_shows_queues_and_backends(demonstration: str) -> None:
    shown = invoke("status", IM_URL=demonstration)

    assert shown.code == 0
    for modality in ("txt2txt", "txt2img", "img2img", "img2txt"):
        assert re.search(rf"^{modality} +0 +0 ", shown.out, re.MULTILINE)
    assert "healthy, simulated" in shown.out


def test_status_as_json_holds_what_the_routes_answer(demonstration: str) -> None:
    shown = json.loads(invoke("status", "--url", f"{demonstration}/", "--json").out)

    assert shown["url"] == demonstration
    assert shown["health"]["simulated"] is True
    assert shown["queues"]["waiting"] == 0


@pytest.fixture(scope="module")
def locked() -> Generator[str]:
    """The address of a server that asks for keys."""
    with Simulator(SimulatorConfig(speed=0)) as simulator:
        settings = Settings(localai_url=simulator.url, api_keys="ann=sesame", log_file=None)  # type: ignore[arg-type]
        with RunningServer(create_app(settings)) as server:
            yield server.url


@pytest.mark.parametrize("command_name", ["status", "models"])
def test_a_server_that_asks_for_a_key_gets_it(command_name: str, locked: str) -> None:
    assert invoke(command_name, "--url", locked, "--key", "sesame").code == 0
    assert invoke(command_name, IM_URL=locked, IM_API_KEY="sesame").code == 0


@pytest.mark.parametrize("words", [("status",), ("models",), ("models", "--key", "canary-key")])
def test_without_the_right_key_a_command_ends_with_4(words: Sequence[str], locked: str) -> None:
    shown = invoke(*words, "--url", locked)

    assert shown.code == 4
    assert "give it with --key or IM_API_KEY" in shown.err
    assert "canary" not in shown.err


def test_a_key_that_no_header_can_hold_is_wrong_usage(locked: str) -> None:
    shown = invoke("status", "--url", locked, "--key", "canary key")

    assert shown.code == 2
    assert "canary" not in shown.err


def test_models_lists_what_each_model_is_for(demonstration: str) -> None:
    shown = invoke("models", IM_URL=demonstration)
    listed = json.loads(invoke("models", "--json", IM_URL=demonstration).out)

    assert re.search(r"^sim-image +img2img, txt2img", shown.out, re.MULTILINE)
    assert "sim-chat" in [model["name"] for model in listed["models"]]


# Looking at LocalAI


@pytest.fixture
def localai() -> Generator[str]:
    with Simulator(SimulatorConfig(speed=0)) as simulator:
        yield simulator.url


def define(folder: Path, name: str) -> None:
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / f"{name}.yaml").write_text(f"name: {name}\n", encoding="utf-8")


def test_models_check_is_content_when_every_definition_is_offered(
    folder: Path, localai: str
) -> None:
    define(folder, "sim-chat")

    shown = json.loads(invoke("models", "check", "--json", LOCALAI_URL=localai).out)

    assert "sim-chat" in shown["models"]
    assert not any("sim-chat" in line for line in shown["mismatches"])


def test_models_check_fails_when_a_defined_model_is_not_there(folder: Path, localai: str) -> None:
    define(folder, "lost-model")

    shown = invoke("models", "check", "--localai-url", localai)

    assert shown.code == 1
    assert "lost-model is defined but not offered" in shown.out
    assert "do not fit together" in shown.err


def test_models_check_without_localai_ends_with_3(nobody: str) -> None:
    shown = invoke("models", "check", "--localai-url", nobody)

    assert shown.code == 3
    assert "LOCALAI_URL" in shown.err


def test_doctor_finds_nothing_to_change_where_everything_fits(folder: Path, localai: str) -> None:
    shown = invoke("doctor", LOCALAI_URL=localai, IM_PORT="0")
    again = json.loads(invoke("doctor", "--json", LOCALAI_URL=localai, IM_PORT="0").out)

    assert shown.code == 0
    assert "fail" not in shown.out
    assert "\x1b" not in shown.out
    assert again["ok"] is True
    assert not (folder / "app.log").exists()


def test_doctor_says_what_to_do_where_localai_is_absent_and_the_port_taken(nobody: str) -> None:
    port = nobody.rpartition(":")[2]

    shown = invoke("doctor", LOCALAI_URL=nobody, IM_PORT=port)

    assert shown.code == 1
    assert re.search(r"^fail +localai +.*LOCALAI_URL", shown.out, re.MULTILINE)
    assert re.search(r"^fail +port +.*IM_PORT", shown.out, re.MULTILINE)
    assert shown.err == "error: to be changed: localai, port\n"


@pytest.fixture
def several(localai: str, nobody: str) -> str:
    """Two backends, as they stand in the environment: one that answers, one that does not."""
    return json.dumps([{"name": "here", "url": localai}, {"name": "away", "url": nobody}])


def test_doctor_looks_at_each_backend(several: str) -> None:
    shown = invoke("doctor", IM_BACKENDS=several, IM_PORT="0")

    assert shown.code == 1
    assert re.search(r"^ok +here +http", shown.out, re.MULTILINE)
    assert re.search(
        r"^fail +away +http.* cannot be reached: .*runs.*; .*backends", shown.out, re.MULTILINE
    )
    assert re.search(r"^ok +txt2txt +sim-chat", shown.out, re.MULTILINE)
    assert shown.err == "error: to be changed: away\n"


def test_doctor_warns_where_a_certificate_is_not_verified(localai: str) -> None:
    backends = json.dumps([{"name": "careless", "url": localai, "verify": False}])

    shown = invoke("doctor", IM_BACKENDS=backends, IM_PORT="0")

    assert shown.code == 0
    assert re.search(r"^warn +careless +.*not verified", shown.out, re.MULTILINE)


def test_an_address_on_the_command_line_stands_alone(several: str, localai: str) -> None:
    shown = invoke("doctor", "--localai-url", localai, IM_BACKENDS=several, IM_PORT="0")

    assert shown.code == 0
    assert "away" not in shown.out


def test_models_check_asks_every_backend(folder: Path, several: str, localai: str) -> None:
    define(folder, "sim-chat")
    both = json.dumps([{"name": "a", "url": localai}, {"name": "b", "url": localai}])

    shown = json.loads(invoke("models", "check", "--json", IM_BACKENDS=both).out)
    failed = invoke("models", "check", IM_BACKENDS=several)

    assert [backend["name"] for backend in shown["backends"]] == ["a", "b"]
    assert "sim-chat" in shown["models"]
    assert failed.code == 3


def test_serve_names_every_backend_and_status_shows_them(tmp_path: Path, several: str) -> None:
    with started(tmp_path, "serve", "--port", "0", IM_BACKENDS=several) as process:
        shown = read_until(process.stdout, "next ")
        url = address_in(shown)
        while not httpx2.get(f"{url}/ready", trust_env=False).is_success:
            pass
        status = invoke("status", "--url", url)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)

    assert re.search(r"^  here +http\S+, .*models: txt2txt", shown, re.MULTILINE)
    assert re.search(r"^  away +http\S+ cannot be reached", shown, re.MULTILINE)
    assert re.search(r"^here +up for", status.out, re.MULTILINE)
    assert re.search(r"^away +down: ", status.out, re.MULTILINE)


def test_mcp_config_names_every_backend_but_prints_no_key(folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "backends:\n"
        "  - {name: a, url: http://a:8080, key: canary-key}\n"
        "  - {name: b, url: https://b, key_file: b.key, resident: 2}\n"
    )

    shown = invoke("mcp", "config", "--client", "cursor")

    environment = json.loads(shown.out)["mcpServers"]["inference-manager"]["env"]
    assert "LOCALAI_URL" not in environment
    assert json.loads(environment["IM_BACKENDS"]) == [
        {"name": "a", "url": "http://a:8080"},
        {"name": "b", "url": "https://b", "key_file": str(folder / "b.key"), "resident": 2},
    ]
    assert "The key of a is not printed" in shown.err
    assert "canary-key" not in shown.out + shown.err


def test_doctor_goes_on_when_the_log_cannot_be_written(folder: Path, localai: str) -> None:
    (folder / "file").touch()

    shown = invoke("doctor", LOCALAI_URL=localai, IM_PORT="0", IM_LOG_FILE="file/app.log")

    assert shown.code == 0
    assert re.search(r"^warn +log +.*IM_LOG_FILE", shown.out, re.MULTILINE)


def test_doctor_looks_whether_jobs_can_be_kept(folder: Path, localai: str) -> None:
    (folder / "file").touch()

    well = invoke("doctor", LOCALAI_URL=localai, IM_PORT="0")
    memory = invoke("doctor", LOCALAI_URL=localai, IM_PORT="0", IM_STORE="sqlite::memory:")
    ill = invoke("doctor", LOCALAI_URL=localai, IM_PORT="0", IM_STORE="sqlite:///file/jobs.db")

    assert f"{folder / 'data' / 'jobs.db'} can be written" in well.out
    assert not (folder / "data").exists()
    assert "gone when the server stops" in memory.out
    assert ill.code == 1
    assert re.search(r"^fail +store +.*IM_STORE", ill.out, re.MULTILINE)


def test_colours_are_for_terminals_of_people_who_want_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    assert coloured("ok", "green") == "ok"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert coloured("ok", "green") == "\x1b[32mok\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("ok", "green") == "ok"


# The demonstration


def test_demo_once_shows_texts_and_pictures_and_saves_the_pictures(tmp_path: Path) -> None:
    shown = run(tmp_path, "demo", "--once", "--port", "0", "--output", "pictures")

    assert troubles(shown.stderr) == []
    assert shown.returncode == 0
    for modality in ("txt2txt", "txt2img", "img2img", "img2txt"):
        assert re.search(rf"^  {modality}  waited .* s, ran .* s  ", shown.stdout, re.MULTILINE)
    assert "simulated" in shown.stdout
    for name in ("txt2img", "img2img"):
        with Image.open(tmp_path / "pictures" / f"{name}.png") as picture:
            assert (picture.format, picture.size) == ("PNG", (512, 512))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]


def test_demo_takes_another_port_when_its_own_is_taken_and_ctrl_c_ends_it_well(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with started(tmp_path, "demo", "--port", port) as process:
            shown = read_until(process.stdout, "Serving until Ctrl-C")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE_S)

    assert f"Port {port} is taken" in shown
    assert not address_in(shown).endswith(f":{port}")
    assert process.returncode == 0
    assert troubles(errors) == []


def test_the_commands_to_copy_work_as_they_are_printed(banner: str) -> None:
    commands = [shlex.split(line) for line in banner.splitlines() if line.startswith("  curl ")]

    assert len(commands) == 2
    for _, url, _, header, _, body in commands:
        name, _, value = header.partition(": ")
        answer = httpx2.post(url, headers={name: value}, content=body, trust_env=False)
        assert answer.status_code == 200
        assert answer.json()["simulated"] is True


def test_demo_says_so_when_its_folder_cannot_be_made(folder: Path) -> None:
    (folder / "file").touch()

    shown = invoke("demo", "--once", "--output", "file/pictures")

    assert shown.code == 1
    assert "--output" in shown.err


# Serving


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_serve_starts_without_localai_says_so_and_ends_well_when_told(
    tmp_path: Path, nobody: str, ending: signal.Signals
) -> None:
    with started(tmp_path, "serve", "--port", "0", "--localai-url", nobody) as process:
        shown = read_until(process.stdout, "next ")
        health = httpx2.get(f"{address_in(shown)}/health", trust_env=False)
        process.send_signal(ending)
        _, errors = process.communicate(timeout=PATIENCE_S)

    assert re.search(
        rf"LocalAI +{nobody} cannot be reached: .*runs.*; .* demo$", shown, re.MULTILINE
    )
    assert health.status_code == 200
    assert "server" not in health.headers
    assert process.returncode == 0
    assert troubles(errors) == []
    assert (tmp_path / "app.log").is_file()


def test_serve_can_have_the_simulator_behind_it_and_warns_of_both(tmp_path: Path) -> None:
    words = ("serve", "--backend", "simulator", "--host", "0.0.0.0", "--port", "0")
    with started(tmp_path, *words) as process:
        shown = read_until(process.stdout, "next ")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_S)

    assert "simulated LocalAI" in shown
    assert "no model is involved" in errors
    assert "no key is asked for" in errors
    assert process.returncode == 0


def test_simulate_is_a_localai_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "sim.yaml").write_text("memory_gb: 16\n", encoding="utf-8")
    words = ("simulate", "--port", "0", "--speed", "0", "--config", "sim.yaml")

    with started(tmp_path, *words) as process:
        shown = read_until(process.stdout, "next ")
        listed = httpx2.get(f"{address_in(shown)}/v1/models", trust_env=False).json()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)

    assert "sim-chat" in [model["id"] for model in listed["data"]]
    assert (process.returncode, errors) == (0, "")


def test_simulate_begins_with_the_profile_that_is_asked_for(tmp_path: Path) -> None:
    with started(tmp_path, "simulate", "--port", "0", "--profile", "busy") as process:
        shown = read_until(process.stdout, "next ")
        faults = httpx2.get(f"{address_in(shown)}/sim/faults", trust_env=False).json()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)

    assert "profile  busy: 10 % of the work is rejected" in shown
    assert [fault["rule"]["do"]["kind"] for fault in faults] == ["rejected", "status"]


def test_an_unknown_profile_is_answered_with_those_that_exist() -> None:
    shown = invoke("simulate", "--port", "0", "--profile", "stormy")

    assert shown.code == 1
    assert "profile: " in shown.err
    assert "'tight-memory'" in shown.err


@pytest.fixture
def _in_the_background() -> Generator[None]:
    """As a shell starts a program with `&` in a script: told to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_in_the_background")
def test_simulate_ends_when_it_is_told_to_even_in_the_background(tmp_path: Path) -> None:
    with started(tmp_path, "simulate", "--port", "0") as process:
        read_until(process.stdout, "next ")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [("spede: 3", "spede"), ("speed: [", "YAML"), ("speed: -1", "speed")],
)
def test_simulate_names_what_is_wrong_in_its_file(
    folder: Path, content: str, expected: str
) -> None:
    (folder / "sim.yaml").write_text(content, encoding="utf-8")

    shown = invoke("simulate", "--port", "0", "--config", "sim.yaml")

    assert shown.code == 1
    assert shown.err.startswith("error: sim.yaml: ")
    assert expected in shown.err
    assert shown.err.count("\n") == 1


# The stdio door

INITIALIZE: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def tell(process: "subprocess.Popen[str]", **message: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    process.stdin.flush()


def hear(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    message: dict[str, Any] = json.loads(process.stdout.readline())
    assert message["jsonrpc"] == "2.0"
    return message


def shake_hands(process: "subprocess.Popen[str]") -> None:
    tell(process, id=1, method="initialize", params=INITIALIZE)
    assert hear(process)["id"] == 1
    tell(process, method="notifications/initialized")


def tools_of(process: "subprocess.Popen[str]") -> list[str]:
    tell(process, id=2, method="tools/list")
    return [tool["name"] for tool in hear(process)["result"]["tools"]]


def test_mcp_becomes_the_server_when_none_runs_and_says_nothing_but_the_protocol(
    tmp_path: Path, nobody: str
) -> None:
    variables = {"IM_PORT": "0", "LOCALAI_URL": nobody}
    with started(tmp_path, "mcp", **variables) as process:
        shake_hands(process)
        names = tools_of(process)
        rest, errors = process.communicate(timeout=PATIENCE_S)

    assert {"txt2txt", "txt2img", "img2img", "img2txt"} <= set(names)
    assert rest == ""
    assert process.returncode == 0
    assert troubles(errors) == []


def test_mcp_shows_the_key_to_a_server_that_asks_for_one(tmp_path: Path, locked: str) -> None:
    with started(tmp_path, "mcp", IM_URL=locked, IM_API_KEY="sesame") as process:
        shake_hands(process)
        assert "txt2txt" in tools_of(process)

    stranger = run(tmp_path, "mcp", IM_URL=locked)
    assert stranger.returncode == 4
    assert "give it with --key or IM_API_KEY" in stranger.stderr


def test_mcp_bridges_to_the_running_server(tmp_path: Path, demonstration: str) -> None:
    with started(tmp_path, "mcp", IM_URL=demonstration) as process:
        shake_hands(process)
        arguments = {"name": "txt2txt", "arguments": {"prompt": "repeat: over the bridge"}}
        tell(process, id=3, method="tools/call", params=arguments)
        answer = hear(process)
        while "result" not in answer:
            answer = hear(process)
        rest, errors = process.communicate(timeout=PATIENCE_S)

    assert "over the bridge" in json.dumps(answer["result"])
    assert (rest, errors, process.returncode) == ("", "", 0)


def test_of_two_that_start_at_once_one_serves_and_both_answer(tmp_path: Path, nobody: str) -> None:
    variables = {"IM_PORT": free_port(), "LOCALAI_URL": nobody}

    with (
        started(tmp_path, "mcp", **variables) as one,
        started(tmp_path, "mcp", **variables) as other,
    ):
        for process in (one, other):
            shake_hands(process)
        names = [tools_of(process) for process in (one, other)]

    assert names[0] == names[1] != []


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@contextmanager
def ready(folder: Path, *words: str, **variables: str) -> Generator["subprocess.Popen[str]"]:
    """Run a stdio door that has found or become the server."""
    with started(folder, *words, **variables) as process:
        shake_hands(process)
        yield process


def call(process: "subprocess.Popen[str]", tool: str) -> dict[str, Any]:
    tell(process, id=3, method="tools/call", params={"name": tool, "arguments": {}})
    answer: dict[str, Any] = hear(process)["result"]
    return answer


@pytest.mark.parametrize("ending", ["quits", "is killed"])
def test_when_the_host_that_serves_is_gone_another_one_takes_its_place(
    tmp_path: Path, nobody: str, ending: str
) -> None:
    variables = {"IM_PORT": free_port(), "LOCALAI_URL": nobody}
    with ExitStack() as ends:
        serving, one, other = (
            ends.enter_context(ready(tmp_path, "mcp", **variables)) for _ in range(3)
        )
        if ending == "is killed":
            serving.kill()
        serving.communicate(timeout=PATIENCE_S)
        answers = [call(process, "get_queue_status") for process in (one, other)]
        _, errors = one.communicate(timeout=PATIENCE_S)
        answers.append(call(other, "get_queue_status"))

    assert [answer["isError"] for answer in answers] == [False] * 3
    assert (one.returncode, troubles(errors)) == (0, [])


def test_nobody_takes_the_place_of_a_server_that_is_gone_from_elsewhere(tmp_path: Path) -> None:
    inner = create_app(Settings(log_file=None, log_level="error"), backends=[])

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    outer = Starlette(routes=[Mount("/behind", inner)], lifespan=lifespan)
    with ExitStack() as ends:
        with RunningServer(outer) as server:
            url = f"{server.url}/behind"
            process = ends.enter_context(ready(tmp_path, "mcp", "--url", url))
        answer = call(process, "get_queue_status")

    assert answer["isError"]
    assert answer["content"][0]["text"].startswith(
        f"server_unreachable: no server answers at {url}"
    )
    assert "`python -m src serve`" in answer["content"][0]["text"]


def test_a_host_that_is_killed_leaves_no_traceback(tmp_path: Path, demonstration: str) -> None:
    with started(tmp_path, "mcp", IM_URL=demonstration) as process:
        shake_hands(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        for number in range(20):
            tell(process, id=number, method="tools/list")
        process.stdin.close()
        errors = process.stderr.read()
        process.wait(PATIENCE_S)

    assert (errors, process.returncode) == ("", 0)


def test_mcp_does_not_serve_in_the_place_of_another_machine(nobody: str) -> None:
    elsewhere = nobody.replace("http://", "https://")

    shown = invoke("mcp", "--url", elsewhere)

    assert shown.code == 3
    assert shown.out == ""
    assert "IM_URL" in shown.err


def test_mcp_says_so_when_another_program_has_the_port(localai: str) -> None:
    shown = invoke("mcp", "--url", localai)

    assert shown.code == 3
    assert shown.out == ""
    assert "is not inference-manager" in shown.err


@pytest.mark.parametrize(
    ("client", "key"),
    [("claude-desktop", "mcpServers"), ("cursor", "mcpServers"), ("vscode", "servers")],
)
def test_mcp_config_prints_json_with_absolute_paths(client: str, key: str) -> None:
    shown = invoke("mcp", "config", "--client", client, LOCALAI_URL="http://gpu:8080")

    entry = json.loads(shown.out)[key]["inference-manager"]
    assert Path(entry["command"]).is_absolute()
    assert entry["args"][-1] == "mcp"
    assert all(Path(word).is_absolute() for word in entry["args"][:-1])
    assert entry["env"]["LOCALAI_URL"] == "http://gpu:8080"
    assert Path(entry["env"]["IM_MODELS_DIR"]).is_absolute()
    assert Path(entry["env"]["IM_LOG_FILE"]).is_absolute()


def test_mcp_config_shows_where_the_key_goes_and_not_the_key() -> None:
    shown = invoke("mcp", "config", "--client", "cursor", IM_API_KEY="canary-key")

    entry = json.loads(shown.out)["mcpServers"]["inference-manager"]
    assert entry["env"]["IM_API_KEY"] == "KEY"
    assert "canary" not in shown.out + shown.err


def test_mcp_config_for_claude_code_is_a_command() -> None:
    shown = invoke("mcp", "config", "--client", "claude-code", "--url", "http://gpu:8000/mcp")

    assert shown.out.startswith("claude mcp add inference-manager ")
    assert "IM_URL=http://gpu:8000" in shown.out
    assert shown.out.endswith(" mcp\n")


def test_what_mcp_config_prints_starts_the_door_from_anywhere(demonstration: str) -> None:
    words = ("mcp", "config", "--client", "cursor", "--url", demonstration)
    entry = json.loads(invoke(*words).out)["mcpServers"]["inference-manager"]
    plain = {k: v for k, v in environment(**entry["env"]).items() if k != "PYTHONPATH"}

    with subprocess.Popen(
        [entry["command"], *entry["args"]],
        cwd="/",
        env=plain,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        shake_hands(process)
        names = tools_of(process)

    assert "txt2img" in names
