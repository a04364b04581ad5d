"""The jobs API in the forms of two older services, for their clients; `/jobs` can do more."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, JsonValue

from ..models.controls import EVERYTHING
from ..models.jobs import Job, JobState
from ..models.modality import Modality
from ..models.tally import Tally
from .errors import ErrorDetail, error_responses
from .facts import of_a_job_that_goes_on
from .job_calls import Order
from .job_desk import Accepted, JobDesk
from .job_views import JobReport
from .submitting import Submitting, route

JobId = Annotated[str, Path(min_length=1, max_length=128)]
_RESULT = {
    "text",
    "reasoning",
    "calls",
    "finish_reason",
    "choices",
    "logprobs",
    "images",
    "audio",
    "videos",
    "vectors_url",
    "ranking",
    "transcript",
    "usage",
    "simulated",
}


class QueuedRequest(BaseModel):
    """A request that was taken in."""

    request_id: str
    status: JobState
    estimated_wait: float | None = Field(
        description="About how many seconds until it starts; null if nobody can tell"
    )


class RequestStatus(QueuedRequest):
    """How a request fares."""

    position: int | None = Field(default=None, description="Jobs that go first; 0 is next")
    result: dict[str, JsonValue] | None = Field(
        default=None, description="What came of it, with the fields of a job"
    )
    error: ErrorDetail | None = None


class QueuedJob(BaseModel):
    """A job, in short."""

    job_id: str
    status: JobState
    position: int | None = Field(default=None, description="Jobs that go first; 0 is next")
    result: dict[str, JsonValue] | None = Field(
        default=None, description="What came of it, with the fields of a job"
    )
    error: ErrorDetail | None = None


class Worker(BaseModel):
    """A backend, in short."""

    id: str
    type: str = "localai"
    status: str = Field(description="`busy`, `idle` or `down`")
    current_job: str | None = None


class QueueState(BaseModel):
    """How the queue fares, in short; `/queue-status` knows more."""

    running: bool = Field(description="Whether waiting jobs are started at all")
    paused: bool = Field(description="Whether an operator has paused everything")
    queue_size: int = Field(description="Jobs that wait")
    queue_depth: int = Field(description="The same")
    pending_jobs: int = Field(description="The same")
    current_job_id: str | None = Field(description="The job that has been running for the longest")
    active_workers: int = Field(description="Attempts that run")
    completed_jobs_24h: int = Field(
        description="Jobs completed in the last 24 hours, to the hour, since this server started"
    )
    workers: list[Worker]


def submit(desk: JobDesk, *, longest: int) -> list[APIRoute]:
    """Make the routes that take jobs in."""

    def request(accepted: Accepted, _: Order, base_url: str) -> Response:
        job = accepted.handles[0].job
        told = desk.report(job, base_url)
        body = QueuedRequest(request_id=job.id, status=job.state, estimated_wait=told.starts_in_s)
        headers = {**of_a_job_that_goes_on(job, ""), "Location": f"/api/v1/request-status/{job.id}"}
        return _json(body.model_dump_json(), headers)

    def queued(accepted: Accepted, _: Order, base_url: str) -> Response:
        job = accepted.handles[0].job
        headers = {**of_a_job_that_goes_on(job, ""), "Location": f"/queue/jobs/{job.id}"}
        told = _in_short(desk.report(job, base_url))
        return _json(told.model_dump_json(exclude_none=True), headers)

    about = "Take in one request, as `POST /jobs` does; `modality` is `txt2txt` if it is left out."
    chat = Modality.TXT2TXT
    return [
        route(
            path,
            Submitting(desk, longest, write, default=chat),
            tag="older forms",
            summary="Hand over a job",
            about=about,
            several=False,
            status_code=202,
            response_model=model,
            response_description="Kept: it will be carried out, whatever happens to this server",
        )
        for path, write, model in (
            ("/api/v1/submit-request", request, QueuedRequest),
            ("/queue/jobs", queued, QueuedJob),
        )
    ]


def build(desk: JobDesk, tally: Tally) -> APIRouter:
    """Make the other routes."""
    router = APIRouter(tags=["older forms"])
    errors = error_responses(401, 404, 422, 507)

    @router.get("/api/v1/request-status/{request_id}", responses=errors)
    async def request_status(request: Request, request_id: JobId) -> RequestStatus:
        """Show how a request fares, and what came of it."""
        job = (await desk.tools.handle(request_id)).job
        told = desk.report(job, str(request.base_url))
        return RequestStatus(
            request_id=job.id,
            status=job.state,
            estimated_wait=told.starts_in_s,
            position=told.position,
            result=_result(job, told),
            error=told.error,
        )

    @router.get("/queue/jobs/{job_id}", responses=errors, response_model_exclude_none=True)
    async def queued_job(request: Request, job_id: JobId) -> QueuedJob:
        """Show how a job fares, and what came of it."""
        job = (await desk.tools.handle(job_id)).job
        told = desk.report(job, str(request.base_url))
        return _in_short(told, _result(job, told))

    @router.delete("/queue/jobs/{job_id}", responses=errors, response_model_exclude_none=True)
    async def cancel_queued_job(request: Request, job_id: JobId) -> QueuedJob:
        """Give up a job that waits or runs. A job that has ended stays as it is."""
        job = await desk.tools.cancel(job_id)
        told = desk.report(job, str(request.base_url))
        return _in_short(told, _result(job, told))

    @router.get("/queue/status", responses=error_responses(401))
    async def queue_state() -> QueueState:
        """Show in short how the queue fares."""
        return _state(desk, tally)

    return router


def _state(desk: JobDesk, tally: Tally) -> QueueState:
    processor, scheduler = desk.processor, desk.processor.scheduler
    controls = scheduler.controls
    runs = sorted((run for run in scheduler.running if not run.ghost), key=lambda run: run.since)
    current = {run.backend: run.entry.id for run in reversed(runs)}
    workers = [
        Worker(
            id=name,
            status="busy" if name in current else "idle" if state.up else "down",
            current_job=current.get(name),
        )
        for name, state in processor.backends.items()
    ]
    return QueueState(
        running=processor.alive and controls.stopped is None,
        paused=EVERYTHING in controls.paused,
        queue_size=scheduler.waiting,
        queue_depth=scheduler.waiting,
        pending_jobs=scheduler.waiting,
        current_job_id=runs[0].entry.id if runs else None,
        active_workers=len(runs),
        completed_jobs_24h=tally.completed(desk.tools.now()),
        workers=workers,
    )


def _result(job: Job, told: JobReport) -> dict[str, JsonValue] | None:
    if job.result is None:
        return None
    return told.model_dump(mode="json", exclude_none=True, include=_RESULT)


def _in_short(told: JobReport, result: dict[str, JsonValue] | None = None) -> QueuedJob:
    return QueuedJob(
        job_id=told.job_id,
        status=JobState(told.state),
        position=told.position,
        result=result,
        error=told.error,
    )


def _json(told: str, headers: dict[str, str]) -> Response:
    return Response(told, 202, headers, media_type="application/json")
