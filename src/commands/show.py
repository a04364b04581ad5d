"""`status` and `models`: facts, as a table or as JSON."""

import asyncio

from pydantic import BaseModel

from ..routes.overview import QueueStatus
from ..routes.status import Health
from ..routes.tools import ModelList
from .configuration import read_settings
from .hosting import LOOPBACK
from .offer import look
from .remote import Remote
from .terminal import ExitCode, Failure, say, say_json, seconds, table

_PATIENCE = 10.0


class Status(BaseModel):
    """What `status --json` prints."""

    url: str
    health: Health
    queues: QueueStatus


class BackendCheck(BaseModel):
    """One LocalAI that was asked."""

    name: str
    url: str
    version: str


class ModelCheck(BaseModel):
    """What `models check --json` prints."""

    backends: list[BackendCheck]
    models: list[str]
    mismatches: list[str]


def server_url(url: str | None) -> str:
    """Return where the running server should be."""
    return url or f"http://{LOOPBACK}:{read_settings().port}"


def status(url: str | None, key: str | None, *, as_json: bool) -> None:
    """Show how a running server is."""
    with Remote(server_url(url), key=key) as remote:
        shown = Status(
            url=remote.url,
            health=remote.get("/health", Health),
            queues=remote.get("/queue-status", QueueStatus),
        )
    if as_json:
        say_json(shown)
        return
    health, now = shown.health, shown.queues
    states = {
        health.status: True,
        "simulated": health.simulated,
        "draining": now.draining,
        "stopped": now.stopped,
        "partly paused": bool(now.paused),
    }
    state = ", ".join(word for word, holds in states.items() if holds)
    say(f"{shown.url}  {state}, version {health.version}", "")
    backends = [["backend", "state", "version", "in memory", "loading"]]
    for name, backend in now.backends.items():
        resident = [f"{m} ({r.running}/{r.parallel})" for m, r in backend.resident.items()]
        state = f"up for {seconds(backend.since_s)}" if backend.up else f"down: {backend.detail}"
        backends.append(
            [
                name,
                state,
                backend.version or "-",
                ", ".join(resident) or "-",
                backend.loading or "-",
            ]
        )
    queues = [["queue", "waiting", "retrying", "oldest", "running"]]
    for modality, queue in now.queues.items():
        running = [f"{run.model} for {seconds(run.elapsed_s)}" for run in queue.running]
        queues.append(
            [
                str(modality),
                str(queue.waiting),
                str(queue.retrying),
                seconds(queue.oldest_age_s),
                ", ".join(running) or "-",
            ]
        )
    say(*table(backends), "", *table(queues))


def models(url: str | None, key: str | None, *, as_json: bool) -> None:
    """List the models that a running server may be asked for."""
    with Remote(server_url(url), key=key) as remote:
        listed = remote.get("/mcp/list_models", ModelList)
    if as_json:
        say_json(listed)
        return
    if not listed.known:
        say("The server has not reached LocalAI yet, so no model is known.")
        return
    rows = [
        [
            model.name,
            ", ".join(model.modalities) or "-",
            ", ".join(model.default_for) or "-",
            str(model.parallel),
            "yes" if model.resident else "no",
        ]
        for model in listed.models
    ]
    say(*table([["model", "for", "default for", "parallel", "in memory"], *rows]))
    if listed.notes:
        say("", *(f"note: {note}" for note in listed.notes))


def check_models(localai_url: str | None, *, as_json: bool) -> None:
    """Compare the model definitions with what LocalAI has.

    Raises:
        Failure: they do not fit together, or a LocalAI cannot be reached.

    """
    settings = read_settings(localai_url=localai_url)
    offers = asyncio.run(look(settings, patience=_PATIENCE))
    for silent in offers.silent:
        where = "backends" if settings.backends else "--localai-url or LOCALAI_URL"
        raise Failure(
            f"LocalAI does not answer at {silent.url} ({silent.trouble}); "
            f"say where it is with {where}",
            ExitCode.UNREACHABLE,
        )
    found = ModelCheck(
        backends=[BackendCheck(name=o.name, url=o.url, version=o.version) for o in offers.each],
        models=list(offers.catalog.names),
        mismatches=list(offers.catalog.mismatches()),
    )
    if as_json:
        say_json(found)
    else:
        for offer in offers.each:
            count, uses = len(offer.models), offers.by_modality(offer)
            say(f"{offer.url} ({offer.version}) offers {count} models: {uses}")
        say(*(f"mismatch: {line}" for line in found.mismatches))
    if found.mismatches:
        raise Failure(
            f"{settings.models_dir}/ and LocalAI do not fit together; "
            "change the files or install the models"
        )
