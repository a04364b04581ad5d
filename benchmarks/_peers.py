"""Other proxies, to compare with: installed on first use, in a folder outside the repository."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from _upstream import CHAT, PAINTER

LITELLM = "1.106.2"
PORTKEY = "1.15.2"
HONO_SERVER = "1.14.1"  # with a later one Portkey fails to stream: its issue 1389

CACHE = Path(os.environ.get("IM_BENCH_CACHE", "~/.cache/inference-manager-bench")).expanduser()

_INSTALL_S = 900.0
_QUIETLY = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")


class Missing(Exception):
    """A peer is not there."""


@dataclass(frozen=True, slots=True)
class Peer:
    """How a proxy is started, and what each request to it must say."""

    name: str
    command: list[str]
    ready: str
    environment: dict[str, str]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def litellm(cache: Path, upstream: str, port: int, scratch: Path, *, install: bool) -> Peer:
    """Return LiteLLM's proxy, with both models, one worker, and no key to check.

    Raises:
        Missing: it is not installed, or cannot be.

    """
    folder = cache / f"litellm-{LITELLM}"
    uv = [sys.executable, "-m", "uv"]
    _installed(
        folder,
        [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [*uv, "pip", "install", "--quiet", "--python", str(folder), f"litellm[proxy]=={LITELLM}"],
        install=install,
    )
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{name}",
                "api_base": f"{upstream}/v1",
                "api_key": "none",
                "drop_params": True,  # it knows no `response_format` of a model that it has not met
            },
            "model_info": {"mode": mode},
        }
        for name, mode in ((CHAT, "chat"), (PAINTER, "image_generation"))
    ]
    config = scratch / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": models}), encoding="utf-8")
    command = [str(folder / "bin" / "litellm"), "--config", str(config)]
    return Peer(
        f"LiteLLM {LITELLM}",
        [*command, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
        "/health/liveliness",
        {
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
    )


def portkey(cache: Path, upstream: str, port: int, *, install: bool) -> Peer:
    """Return Portkey's gateway, told by headers where to go, as is its custom.

    Raises:
        Missing: it is not installed, or cannot be.

    """
    folder = cache / f"portkey-{PORTKEY}-{HONO_SERVER}"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("there is no node and npm")
    _installed(
        folder,
        [npm, "install", *_QUIETLY, "--prefix", str(folder)],
        install=install,
        files={
            "package.json": {
                "dependencies": {"@portkey-ai/gateway": PORTKEY},
                "overrides": {"@hono/node-server": HONO_SERVER},
            }
        },
    )
    program = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    return Peer(
        f"Portkey {PORTKEY}",
        [node, str(program), f"--port={port}", "--headless"],
        "/",
        {"NODE_ENV": "production"},
        {
            "Authorization": "Bearer none",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{upstream}/v1",
        },
    )


def _installed(
    folder: Path,
    *commands: list[str],
    install: bool,
    files: Mapping[str, object] | None = None,
) -> None:
    """See that something is installed; a stamp tells a whole installation from a broken one."""
    stamp = folder / ".installed"
    if stamp.exists():
        return
    if not install:
        raise Missing("it is not installed; a run without --quick does that")
    print(f"installing {folder.name} into {folder.parent}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (files or {}).items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    for command in commands:
        try:
            subprocess.run(
                command, check=True, timeout=_INSTALL_S, stderr=subprocess.PIPE, text=True
            )
        except subprocess.CalledProcessError as error:
            raise Missing(f"it could not be installed: {error.stderr[-500:].strip()}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Missing(f"it could not be installed: {error}") from error
    stamp.touch()
