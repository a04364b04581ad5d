"""`demo`: the simulator, the server in front of it, and a tour of texts and pictures."""

import json
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..models.modality import Modality
from ..routes.views import JobView
from ..settings import Settings
from ..simulator.config import SimulatorConfig
from ..simulator.serve import Simulator
from .configuration import make_app, read_settings
from .hosting import LOOPBACK, PortTaken, interruptible, listen, served, url_of, wait_for_ever
from .remote import Remote
from .terminal import Failure, say, seconds

_SPEED = 8.0  # times as fast as a real machine, so that the first picture is there in seconds
_GRACE_S = 1.0
_PATIENCE = 60.0
_PROMPT = "a red fox in a snowy forest at sunset"


@dataclass(frozen=True, slots=True)
class _Stop:
    """One request of the tour; `picture` says which earlier answer it looks at."""

    modality: Modality
    body: dict[str, object]
    picture: Modality | None = None


_TOUR = (
    _Stop(Modality.TXT2TXT, {"prompt": "What does a queue do?", "max_tokens": 30}),
    _Stop(Modality.TXT2IMG, {"prompt": _PROMPT, "seed": 7}),
    _Stop(
        Modality.IMG2IMG, {"prompt": "the same at night, by the sea", "seed": 7}, Modality.TXT2IMG
    ),
    _Stop(Modality.IMG2TXT, {"question": "What is in this picture?"}, Modality.IMG2IMG),
)


def demo(*, once: bool, port: int | None, output: Path) -> None:
    """Show everything at work, then serve until interrupted, unless `once`."""
    with interruptible(), ExitStack() as stack:
        simulator = stack.enter_context(Simulator(SimulatorConfig(speed=_SPEED)))
        settings = _settings(simulator.url, port, output)
        app = make_app(settings)
        listener = stack.enter_context(_listen(settings.port))
        stack.enter_context(served(app, listener, grace_s=_GRACE_S))
        url = url_of(listener)
        say(*_banner(url, simulator.url, settings.log_file))
        remote = stack.enter_context(Remote(url, patience=_PATIENCE))
        _show(remote, output)
        if not once:
            say("", "Serving until Ctrl-C.")
            wait_for_ever()


def _settings(backend: str, port: int | None, output: Path) -> Settings:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"{output} cannot be made: {error.strerror}; choose --output") from error
    return read_settings(
        localai_url=backend,
        host=LOOPBACK,
        port=port,
        public_url="",
        api_keys="",
        api_keys_file="",
        store="sqlite::memory:",
        models_dir=output / "models",
        log_file=output / "app.log",
        log_console=False,
        grace_s=_GRACE_S,
    )


def _listen(port: int) -> socket.socket:
    try:
        return listen(LOOPBACK, port)
    except PortTaken:
        listener = listen(LOOPBACK, 0)
        say(f"Port {port} is taken by another program; using {listener.getsockname()[1]} instead.")
        return listener


def _show(remote: Remote, output: Path) -> None:
    """Run the tour and say what came back."""
    say("", "Texts and pictures, through that address (simulated):", "")
    made: dict[Modality, str] = {}
    for stop in _TOUR:
        body = stop.body if stop.picture is None else {**stop.body, "image": made[stop.picture]}
        job = remote.post(f"/mcp/{stop.modality}", body, JobView)
        if job.state != "completed":
            raise Failure(f"{stop.modality} did not complete, it is {job.state}")
        outcome = _quoted(job.text or "")
        if job.images:
            picture = job.images[0]
            made[stop.modality] = picture.reference
            file = output / f"{stop.modality}.png"
            file.write_bytes(remote.download(picture.url))
            outcome = f"{file}, {picture.width}x{picture.height}"
        times = f"waited {seconds(job.waited_s)}, ran {seconds(job.processing_s)}"
        say(f"  {stop.modality}  {times}  {outcome}")


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return json.dumps(line if len(line) <= 70 else f"{line[:67]}...", ensure_ascii=False)


def _banner(url: str, simulator: str, log: Path | None) -> list[str]:
    header = "-H 'Content-Type: application/json'"
    return [
        f"Inference Manager {__version__}, demonstration",
        "Everything here is simulated: no model answers, the pictures are drawings by a program.",
        "",
        f"  address    {url}",
        f"  docs       {url}/docs",
        f"  MCP        {url}/mcp",
        f"  simulator  {simulator}, in the place of LocalAI",
        f"  log        {log}",
        "",
        "Copy and paste into another terminal:",
        "",
        f"""  curl {url}/mcp/txt2txt {header} -d '{{"prompt": "Why is the sky blue?"}}'""",
        f"""  curl {url}/mcp/txt2img {header} -d '{{"prompt": "a lighthouse at night"}}'""",
        f"  claude mcp add --transport http inference-manager {url}/mcp",
    ]
