"""The ways to the upstream: what is started for each of them, and on which core."""

import math
import statistics
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from _peers import Missing, Peer, litellm, portkey
from _servers import free_port, manager, process, wait_for
from _upstream import CHAT, PAINTER

STREAMS = 32
PAINTERS = 4
MANAGER = "manager"

_START_S = 120.0


@dataclass(slots=True)
class Target:
    """One way to the upstream, and what was measured of it, round by round."""

    name: str
    url: str
    process: psutil.Process
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    figures: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    failed: int = 0
    complaint: str = ""

    def cpu(self) -> float:
        """Return the CPU seconds that the process and its children have used, while it lives."""
        try:
            each = [self.process, *self.process.children(recursive=True)]
            return sum(sum(one.cpu_times()[:2]) for one in each)
        except psutil.NoSuchProcess:
            return math.nan

    def note(self, name: str, value: float) -> None:
        """Keep one figure of one round."""
        self.figures.setdefault(name, []).append(value)

    def figure(self, name: str) -> float:
        """Return the median of the rounds; not a number when there was nothing to measure."""
        known = [value for value in self.figures.get(name, []) if not math.isnan(value)]
        return statistics.median(known) if known else math.nan


@contextmanager
def upstream() -> Generator[tuple[str, psutil.Process]]:
    """Start the upstream."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = str(Path(__file__).with_name("_upstream.py"))
    with process([sys.executable, program, str(port)], {}) as running:
        wait_for(f"{url}/readyz")
        yield url, psutil.Process(running.pid)


def managed(stack: ExitStack, url: str, scratch: Path, profile: Path | None = None) -> Target:
    """Start the manager, told how much the upstream does at once."""
    definitions = scratch / "models"
    definitions.mkdir(exist_ok=True)
    for name, parallel in ((CHAT, STREAMS), (PAINTER, PAINTERS)):
        (definitions / f"{name}.yaml").write_text(f"name: {name}\nparallel: {parallel}\n")
    settings = {"IM_MODELS_DIR": str(definitions), "IM_RESIDENT": "2"}
    started = stack.enter_context(manager(url, settings, profile=profile))
    return Target(MANAGER, started.url, started.process)


def peers(
    stack: ExitStack, url: str, scratch: Path, cache: Path, *, install: bool
) -> Iterator[Target]:
    """Start the peers that there are; say which ones there are not, and why."""
    makers: dict[str, Callable[[int], Peer]] = {
        "LiteLLM": lambda port: litellm(cache, url, port, scratch, install=install),
        "Portkey": lambda port: portkey(cache, url, port, install=install),
    }
    for name, make in makers.items():
        port = free_port()
        log = scratch / f"{name}.log"
        try:
            peer = make(port)
            started = stack.enter_context(process(peer.command, peer.environment, log=log))
            here = f"http://127.0.0.1:{port}"
            wait_for(f"{here}{peer.ready}", _START_S, started)
        except Missing as error:
            print(f"without {name}: {error}")
        except (OSError, TimeoutError) as error:
            said = log.read_text(errors="replace").strip()[-500:] if log.exists() else ""
            print(f"without {name}: it does not start ({error}): {said}")
        else:
            yield Target(peer.name, here, psutil.Process(started.pid), peer.headers)


def cores() -> tuple[int, int] | None:
    """Return one core for the callers and the upstream, and one for the proxies."""
    if not hasattr(psutil.Process, "cpu_affinity"):
        return None
    ours, *others = psutil.Process().cpu_affinity() or [0]
    return (ours, others[0]) if others else None


def stay_on(core: int | None) -> None:
    """Stay on one core, as will all that is started from now on."""
    if core is not None:
        psutil.Process().cpu_affinity([core])
