"""`queue`: what an operator does to the queue of a running server."""

from typing import Literal

from ..routes.queue_admin import (
    AuditView,
    ControlsView,
    PausedView,
    PurgeView,
    ReloadView,
    RetryView,
    SwitchedView,
)
from .moments import since
from .remote import Remote
from .show import server_url
from .terminal import ExitCode, Failure, say, say_json, table

_PATIENCE = 60.0

Switch = Literal["pause", "resume", "start", "stop", "drain", "undrain"]


def switch(
    action: Switch, scope: dict[str, str], url: str | None, key: str | None, *, as_json: bool
) -> None:
    """Switch something and show what is switched then."""
    with Remote(server_url(url), key=key) as remote:
        _show(remote.url, remote.post(f"/queue/{action}", scope, ControlsView), as_json=as_json)


def status(url: str | None, key: str | None, *, as_json: bool) -> None:
    """Show what is switched."""
    with Remote(server_url(url), key=key) as remote:
        _show(remote.url, remote.get("/queue/controls", ControlsView), as_json=as_json)


def purge(which: dict[str, object], url: str | None, key: str | None, *, as_json: bool) -> None:
    """Forget ended jobs.

    Raises:
        Failure: nothing says which.

    """
    if not which["all"] and not which.keys() - {"all", "dry_run", "limit"}:
        raise Failure("say which jobs are to be forgotten, or --all", ExitCode.USAGE)
    with Remote(server_url(url), key=key, patience=_PATIENCE) as remote:
        done = remote.post("/queue/purge", which, PurgeView)
    if as_json:
        say_json(done)
    else:
        say(f"{_jobs(done.jobs)} {'would be ' if done.dry_run else ''}forgotten")


def retry(which: dict[str, object], url: str | None, key: str | None, *, as_json: bool) -> None:
    """Carry failed jobs out once more.

    Raises:
        Failure: it ended early.

    """
    with Remote(server_url(url), key=key, patience=_PATIENCE) as remote:
        done = remote.post("/queue/retry", which, RetryView)
    if as_json:
        say_json(done)
    else:
        would = "would be " if done.dry_run else ""
        for one in done.retried:
            say(one.job_id if one.new_job_id is None else f"{one.job_id} -> {one.new_job_id}")
        for other in done.refused:
            say(f"{other.job_id} cannot be: {other.error.message}")
        say(
            f"{_jobs(len(done.retried))} {would}carried out once more, of {done.found} found; "
            f"{done.already_retried} had been before"
        )
    if done.error is not None:
        raise Failure(f"it ended early: {done.error.message}")


def reload(url: str | None, key: str | None, *, as_json: bool) -> None:
    """Have the settings read again."""
    with Remote(server_url(url), key=key) as remote:
        done = remote.post("/queue/reload", {}, ReloadView)
    if as_json:
        say_json(done)
        return
    for name, value in done.after.items():
        say(f"{name}: {done.before[name]} -> {value}")
    if done.restart:
        say(f"to be changed by a start of the server: {', '.join(done.restart)}")
    if not done.after and not done.restart:
        say("nothing is different")


def audit(limit: int, url: str | None, key: str | None, *, as_json: bool) -> None:
    """Show what operators did."""
    with Remote(server_url(url), key=key) as remote:
        log = remote.get("/queue/audit", AuditView, [("limit", limit)])
    if as_json:
        say_json(log)
        return
    rows = [["when", "who", "what", "about", "before", "after"]]
    for one in log.records:
        facts = (_words(said) for said in (one.about, one.before, one.after))
        rows.append([f"{one.at:%Y-%m-%d %H:%M:%S}Z", one.who, one.action, *facts])
    say(*table(rows))


def _show(url: str, controls: ControlsView, *, as_json: bool) -> None:
    if as_json:
        say_json(controls)
        return
    say(
        f"{url}  {_jobs(controls.waiting)} waiting, {controls.held} of them held back, "
        f"{controls.running} running"
    )
    for pause in controls.paused:
        say(f"paused: {_scope(pause)}{_by(pause)}")
    if controls.stopped is not None:
        say(f"stopped: nothing is started or loaded{_by(controls.stopped)}")
    if controls.draining is not None:
        say(f"draining: no new work is taken in{_by(controls.draining)}")


def _scope(pause: PausedView) -> str:
    named = (("modality", pause.modality), ("model", pause.model), ("caller", pause.caller))
    return next((f"{kind} {name}" for kind, name in named if name), "everything")


def _by(switched: SwitchedView) -> str:
    return f", by {switched.by} {since(switched.since)} ago"


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def _words(facts: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items()) or "-"
