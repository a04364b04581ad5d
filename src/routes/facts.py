"""What every answer says of its job, in headers."""

from ..models.jobs import Job
from ..sharing import How

_ODD = str.maketrans(dict.fromkeys([*range(32), 127], "?"))


def facts(job: Job, how: How = "new") -> list[tuple[bytes, bytes]]:
    """Return the headers: the job's id, seconds in the queue, attempts, model and backend.

    What is not known when the answer begins is left out. `X-Cache` says how an answer that needed
    no job of its own was come by.
    """
    told = [(b"x-job-id", job.id.encode("ascii", "replace"))]
    began = job.started_at if job.started_at is not None else job.ended_at
    if began is not None:
        waited = max(began - job.submitted_at, 0.0)
        told.append((b"x-queue-wait", b"%.3f" % waited))
    if job.fence:
        told.append((b"x-attempts", b"%d" % job.attempts))
    if job.model:
        told.append((b"x-model", _printable(job.model)))
    if job.backend:
        told.append((b"x-backend", _printable(job.backend)))
    if how != "new":
        told.append((b"x-cache", b"hit" if how == "cached" else how.encode("ascii")))
    return told


def _printable(text: str) -> bytes:
    return text.translate(_ODD).encode("utf-8")


def of_a_job_that_goes_on(job: Job, preference: str) -> dict[str, str]:
    """Return the headers of an answer that comes before its job has ended; all is at `Location`."""
    applied = {"Preference-Applied": preference} if preference else {}
    return {"Location": f"/jobs/{job.id}", **applied, "Retry-After": "1"}
