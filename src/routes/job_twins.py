"""Plain HTTP twins of the MCP tools that look at jobs, and give them up."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ..models.jobs import Job
from .errors import error_responses
from .facts import facts
from .leaving import left, stayed
from .tools import Tools
from .views import JobView


class WhichJob(BaseModel):
    """Names a job."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    job_id: Annotated[str, Field(min_length=1, max_length=128)]


def add(router: APIRouter, tools: Tools) -> None:
    """Add the routes."""

    @router.get(
        "/mcp/get_job",
        summary="Look at a job, or wait for it",
        response_model=JobView,
        response_model_exclude_none=True,
        response_description="The job has ended, well or not: see `state`",
        responses={
            202: {"model": JobView, "description": "The job has not ended yet"},
            **error_responses(401, 404, 422, 507),
        },
    )
    async def get_job(
        request: Request,
        job_id: Annotated[str, Query(min_length=1, max_length=128)],
        wait_seconds: Annotated[float, Query(ge=0, le=3600, allow_inf_nan=False)] = 0.0,
    ) -> Response:
        """Show a job, once it has ended or `wait_seconds` are over. Changes nothing."""
        handle = await tools.handle(job_id)
        if not await stayed(handle, request.receive, wait_seconds):
            left(handle.id)
        response = shown(tools, request, handle.job)
        response.raw_headers.extend(facts(handle.job))
        return response

    @router.post(
        "/mcp/cancel_job",
        summary="Cancel a job",
        response_model=JobView,
        response_model_exclude_none=True,
        responses=error_responses(400, 401, 404, 413, 422, 507),
    )
    async def cancel_job(which: WhichJob, request: Request) -> Response:
        """Give up a job that waits or runs. A job that has ended stays as it is."""
        view = tools.view(await tools.cancel(which.job_id), str(request.base_url))
        return _json(view, 200)


def shown(tools: Tools, request: Request, job: Job) -> Response:
    """Answer with a job; 202 as long as it has not ended."""
    view = tools.view(job, str(request.base_url))
    if job.result is not None and job.result.vectors:
        view.vectors = [vector.values.tolist() for vector in job.result.vectors]
    return _json(view, 200 if job.state.terminal else 202)


def _json(view: JobView, status: int) -> Response:
    body = view.model_dump_json(exclude_none=True)
    return Response(body, status, media_type="application/json")
