"""Plain HTTP twins of the MCP tools, for curl and for programs: the same names, the same answers.

A POST that generates waits until the job has ended. With `wait_seconds` it answers 202 when that
time runs out, and the job goes on. A caller that hangs up before its answer takes its job with it.
"""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.openapi.models import Example

from ..handles import JobHandle
from ..models.errors import InferenceManagerError
from ..models.jobs import Level, Promise
from ..models.modality import Modality
from ..models.requests import REQUESTS
from ..sharing import Taken
from . import job_twins, media
from .calls import TWINS, MediaOptions, Options, call_of, request_in
from .contents import with_contents
from .errors import answer, error_responses
from .facts import facts, of_a_job_that_goes_on
from .figures import ErrorFigures, RequestFigures
from .job_twins import shown
from .later import ForgetfulRoute, Later
from .leaving import left, stayed
from .overview import QueueStatus
from .pieces import SEND_S
from .tools import ModelList, Tools
from .views import JobView
from .wishes import wishes_in

_GENERATE_ERRORS = error_responses(400, 401, 404, 409, 413, 422, 429, 502, 503, 504, 507)


def build(tools: Tools, *, send_s: float = SEND_S) -> APIRouter:
    """Make the routes; a caller that takes nothing of an answer for `send_s` is cut off."""
    router = APIRouter(tags=["tools"], route_class=ForgetfulRoute)
    for modality in REQUESTS:
        _add_generator(router, tools, modality, send_s)
    job_twins.add(router, tools)
    media.add(router, tools, send_s=send_s)
    _add_figures(router, tools)
    return router


def _add_generator(router: APIRouter, tools: Tools, modality: Modality, send_s: float) -> None:
    async def generate(call: Options, asking: Request) -> Response:
        wishes = wishes_in(dict(asking.scope["headers"]), tools.now())
        given = [s for s in (call.deadline_seconds, wishes.deadline_s) if s is not None]
        wait_s = wishes.wait_s if call.wait_seconds is None else call.wait_seconds
        taken = await tools.take(
            request_in(call, modality),
            level=Level.LOW if call.priority == "low" else wishes.level,
            deadline_s=min(given, default=None),
            key=wishes.key,
            promise=Promise() if wait_s == 0 else None,
        )
        whole = isinstance(call, MediaOptions) and call.response_format == "b64_json"
        found = partial(_finish, tools, taken, wait_s, send_s if whole else None)
        return Later(partial(found, wishes.preference))

    generate.__annotations__["call"] = Annotated[call_of(modality), _examples(modality)]
    router.post(
        f"/mcp/{modality}",
        name=str(modality),
        summary=TWINS[modality].summary,
        description=REQUESTS[modality].__doc__,
        response_model=JobView,
        response_model_exclude_none=True,
        response_description="The job has ended well",
        responses={
            202: {"model": JobView, "description": "`wait_seconds` ran out; the job goes on"},
            **_GENERATE_ERRORS,
        },
    )(generate)


def _examples(modality: Modality) -> Any:
    examples = TWINS[modality].examples
    return Body(openapi_examples={name: Example(value=body) for name, body in examples.items()})


async def _finish(
    tools: Tools,
    taken: Taken,
    wait_seconds: float | None,
    contents_s: float | None,
    preference: str,
    request: Request,
) -> Response:
    """Wait for the end of a job that belongs to its caller, and answer with it.

    With `contents_s` the answer has the content of what was made, sent under that limit.
    """
    response = await _ended(tools, taken.handle, wait_seconds, contents_s, request)
    job = taken.handle.job
    if response.status_code == 202:
        response.headers.update(of_a_job_that_goes_on(job, preference))
    response.raw_headers.extend(facts(job, taken.how))
    return response


async def _ended(
    tools: Tools,
    handle: JobHandle,
    wait_seconds: float | None,
    contents_s: float | None,
    request: Request,
) -> Response:
    try:
        present = await stayed(handle, request.receive, wait_seconds)
    except BaseException:
        await tools.abandon(handle)
        raise
    if not present:
        left(handle.id)
        await tools.abandon(handle)
    try:
        if handle.over:
            handle.outcome()
        else:
            await tools.promise(handle)
    except InferenceManagerError as error:
        return answer(error, job_id=handle.id)
    job = handle.job
    if contents_s is not None and job.result is not None:
        view = tools.view(job, str(request.base_url))
        return with_contents(view, job.result, tools.blobs, status=200, send_s=contents_s)
    return shown(tools, request, job)


def _add_figures(router: APIRouter, tools: Tools) -> None:
    @router.get("/mcp/get_request_metrics", summary="Request metrics")
    async def get_request_metrics() -> RequestFigures:
        """Show waiting times, processing times, throughput and success rate of recent jobs."""
        return RequestFigures.model_validate(tools.request_metrics())

    @router.get("/mcp/get_error_metrics", summary="Error metrics")
    async def get_error_metrics() -> ErrorFigures:
        """Show how often requests failed, by kind and model, and the latest failures."""
        return ErrorFigures.model_validate(tools.error_metrics())

    @router.get("/mcp/get_queue_status", summary="Queues, running jobs and backends")
    async def get_queue_status() -> QueueStatus:
        """Show what waits and runs, which models are in memory, and whether the backend answers."""
        return tools.queue_status()

    @router.get("/mcp/list_models", summary="List models")
    async def list_models() -> ModelList:
        """List the models that may be asked for, and for which kinds of requests each is."""
        return tools.models()
