"""A job as a task of MCP's tasks extension, for clients that know how to follow one.

A task is the job itself. Its id is the job's, and ends in `.full` or `.link` if that is how its
pictures were to be shown: so all that is known of a task outlives the process, as its job does.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from mcp.server import ServerRequestContext
from mcp.types import CallToolResult
from pydantic import Field

from ..models.errors import (
    InferenceManagerError,
    Interrupted,
    StorageFailed,
    UnknownJob,
    WorkerLost,
)
from ..models.jobs import Job, JobState
from .mcp_answers import Output

TASKS = "io.modelcontextprotocol/tasks"
ERA = "2026-07-28"
AFTER_S = 0.5  # for which a call is waited for that may become a task: most short texts are done

_POLL_MS = 1_000
_OUTPUTS: Mapping[str, Output] = {"": "preview", "full": "full", "link": "link"}
_OWN_FAULT = (Interrupted, WorkerLost, StorageFailed)

Status = Literal["working", "completed", "failed", "cancelled"]


class AsTask(CallToolResult):
    """What is told of a job that goes on, and the task that its caller is given instead."""

    task: dict[str, Any] = Field(exclude=True)


def takes_tasks(ctx: ServerRequestContext[Any, Any]) -> bool:
    """Whether the client of this call has declared that it can follow tasks."""
    declared = ctx.session.client_capabilities
    known = None if declared is None else declared.extensions
    return ctx.protocol_version == ERA and known is not None and TASKS in known


def job_of(task_id: str) -> tuple[str, Output]:
    """Return the id of a task's job, and how its pictures are to be shown; raises `UnknownJob`."""
    job_id, _, output = task_id.partition(".")
    if output not in _OUTPUTS:
        raise UnknownJob.of_that_id()
    return job_id, _OUTPUTS[output]


def status(job: Job) -> Status:
    """Say how a task is.

    It has failed if that was the server's own fault; a tool that says what went wrong has answered.
    """
    match job.state:
        case JobState.CANCELLED:
            return "cancelled"
        case JobState.FAILED if _is_own_fault(job.error):
            return "failed"
        case JobState.COMPLETED | JobState.FAILED | JobState.EXPIRED:
            return "completed"
        case _:
            return "working"


def task(job: Job, output: Output, *, doing: str, keep_s: float) -> dict[str, Any]:
    """Describe a task, without its result.

    Args:
        job: what it is.
        output: how its pictures are to be shown.
        doing: what it does or waits for, in words.
        keep_s: for how many seconds a job is kept at least.

    """
    return {
        "taskId": job.id if output == "preview" else f"{job.id}.{output}",
        "status": status(job),
        "statusMessage": doing,
        "createdAt": _iso(job.submitted_at),
        "lastUpdatedAt": _iso(job.ended_at or job.started_at or job.submitted_at),
        "ttlMs": int(keep_s * 1000),
        "pollIntervalMs": _POLL_MS,
    }


def _is_own_fault(error: InferenceManagerError | None) -> bool:
    return isinstance(error, _OWN_FAULT) or type(error) is InferenceManagerError


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
