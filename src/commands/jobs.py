"""`jobs`: one's own jobs on a running server."""

from collections.abc import Mapping
from urllib.parse import quote

from ..models.jobs import JobState
from ..routes.job_views import JobPage, JobReport
from .moments import since
from .remote import Remote
from .show import server_url
from .terminal import Failure, say, say_json, seconds, table

_WAIT_S = 30.0
_PATIENCE = 60.0


def listing(
    which: Mapping[str, str | int | list[str]], url: str | None, key: str | None, *, as_json: bool
) -> None:
    """List jobs, the newest first."""
    params: list[tuple[str, str | int]] = []
    for name, value in which.items():
        params += [(name, one) for one in (value if isinstance(value, list) else [value])]
    with Remote(server_url(url), key=key) as remote:
        page = remote.get("/jobs", JobPage, params)
    if as_json:
        say_json(page)
        return
    head = ["job", "modality", "state", "model", "level", "position", "attempts", "submitted"]
    rows = [
        [
            job.job_id,
            str(job.modality),
            str(job.state),
            job.model or "-",
            job.level,
            "-" if job.position is None else str(job.position),
            str(job.attempts),
            f"{since(job.submitted_at)} ago",
        ]
        for job in page.jobs
    ]
    say(*table([head, *rows]))
    if page.next is not None:
        say(f"there are more: --cursor {page.next}")


def show(job_id: str, url: str | None, key: str | None, *, as_json: bool) -> None:
    """Show all that is known of a job."""
    with Remote(server_url(url), key=key) as remote:
        _say(remote.get(_at(job_id), JobReport), as_json=as_json)


def wait(
    job_id: str, most_s: float | None, url: str | None, key: str | None, *, as_json: bool
) -> None:
    """Wait for the end of a job and show it.

    Raises:
        Failure: it did not end well, or not in this time.

    """
    left = most_s
    with Remote(server_url(url), key=key, patience=_WAIT_S + _PATIENCE) as remote:
        while True:
            once = _WAIT_S if left is None else min(left, _WAIT_S)
            job = remote.get(_at(job_id), JobReport, [("wait", once)])
            left = None if left is None else left - once
            if JobState(job.state).terminal or (left is not None and left <= 0):
                break
    _say(job, as_json=as_json)
    if job.state != JobState.COMPLETED:
        why = "" if job.error is None else f": {job.error.message}"
        raise Failure(f"the job is {job.state}{why}")


def cancel(job_id: str, url: str | None, key: str | None, *, as_json: bool) -> None:
    """Give up a job that waits or runs."""
    with Remote(server_url(url), key=key) as remote:
        _say(remote.ask("DELETE", _at(job_id), JobReport), as_json=as_json)


def retry(job_id: str, url: str | None, key: str | None, *, as_json: bool) -> None:
    """Run a job again that has ended, as a new one."""
    with Remote(server_url(url), key=key) as remote:
        _say(remote.ask("POST", f"{_at(job_id)}/retry", JobReport), as_json=as_json)


def move(
    job_id: str, where: dict[str, object], url: str | None, key: str | None, *, as_json: bool
) -> None:
    """Change the place of a job that waits."""
    with Remote(server_url(url), key=key) as remote:
        _say(remote.ask("PATCH", _at(job_id), JobReport, where), as_json=as_json)


def _at(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


def _say(job: JobReport, *, as_json: bool) -> None:
    if as_json:
        say_json(job)
        return
    media = (*(job.images or ()), *(job.audio or ()), *(job.videos or ()))
    facts = {
        "job": job.job_id,
        "kind": f"{job.modality} on {job.model or 'a model not known yet'}, level {job.level}",
        "state": f"{job.state}{f' ({job.doing})' if job.doing else ''}",
        "position": job.position,
        "starts in": None if job.starts_in_s is None else f"about {seconds(job.starts_in_s)}",
        "submitted": f"{since(job.submitted_at)} ago",
        "attempts": job.attempts,
        "retry of": job.retry_of,
        "text": job.text,
        "media": ", ".join(medium.url for medium in media) or None,
        "error": None if job.error is None else f"{job.error.code}: {job.error.message}",
    }
    say(*table([[name, str(value)] for name, value in facts.items() if value is not None]))
