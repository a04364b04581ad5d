"""Plain HTTP twins of the MCP tools, for curl and for programs: the same names, the same answers.

A POST that generates waits until the job has ended. With `wait_seconds` it answers 202 when that
time runs out, and the job goes on. A caller that hangs up before its answer takes its job with it.
"""

import base64
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.openapi.models import Example
from pydantic import BaseModel, ConfigDict, Field

from ..handles import result_of
from ..models.errors import InferenceManagerError
from ..models.jobs import Job, Level
from ..models.requests import (
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    Txt2ImgRequest,
    Txt2TxtRequest,
)
from .errors import ErrorBody, answer
from .figures import ErrorFigures, RequestFigures
from .leaving import attended
from .mcp_answers import file_name
from .overview import QueueStatus
from .tools import ModelList, Tools
from .views import ImageView, JobView

_KEEP_S = 86_400  # how long a browser may keep a picture; what an address shows never changes

_MEANINGS = {
    400: "The body is not JSON, or the backend refuses the request",
    404: "No such model, job or picture",
    409: "The job was cancelled, or has not come that far",
    413: "The body is too large",
    422: "A field is wrong; `param` names it",
    502: "The backend failed, after its retries",
    503: "Not now; `Retry-After` says when to try again",
    504: "The job's deadline passed, or the backend was silent for too long",
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {s: {"model": ErrorBody, "description": _MEANINGS[s]} for s in statuses}


_GENERATE_ERRORS = _errors(400, 404, 409, 413, 422, 502, 503, 504)


class _Options(BaseModel):
    """How a caller wants to be served; the rest of the body is the request itself."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    wait_seconds: Annotated[float, Field(ge=0, le=3600)] | None = Field(
        default=None,
        description="Answer 202 after so many seconds if the job has not ended; else wait for it",
    )
    priority: Literal["normal", "low"] = Field(
        default="normal", description="`low` lets all normal requests of its kind go first"
    )
    deadline_seconds: Annotated[float, Field(gt=0, le=604_800)] | None = Field(
        default=None, description="Seconds from now after which nobody wants the result"
    )


class _PictureOptions(_Options):
    response_format: Literal["url", "b64_json"] = Field(
        default="url", description="`b64_json` puts the pictures themselves into the answer too"
    )


def _or(field: str, short: str, schema: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Describe a short form of a field, which the request takes in before it is checked."""

    def extend(described: dict[str, Any]) -> None:
        described["properties"][short] = schema
        described["required"] = [name for name in described["required"] if name != field]
        described["oneOf"] = [{"required": [field]}, {"required": [short]}]

    return extend


def _also_size(described: dict[str, Any]) -> None:
    described["properties"]["size"] = {
        "type": "string",
        "pattern": r"^\d{1,5}x\d{1,5}$",
        "description": "WIDTHxHEIGHT, instead of width and height",
    }


class Txt2TxtCall(Txt2TxtRequest, _Options):
    """Text to text: `prompt`, or a conversation in `messages`."""

    model_config = ConfigDict(
        json_schema_extra=_or(
            "messages", "prompt", {"type": "string", "description": "Short for one user message"}
        )
    )


class Txt2ImgCall(Txt2ImgRequest, _PictureOptions):
    """Text to picture."""

    model_config = ConfigDict(json_schema_extra=_also_size)


class Img2ImgCall(Img2ImgRequest, _PictureOptions):
    """Picture to picture."""

    model_config = ConfigDict(json_schema_extra=_also_size)


class Img2TxtCall(Img2TxtRequest, _Options):
    """Picture to text: `image`, or several in `images`."""

    model_config = ConfigDict(
        json_schema_extra=_or(
            "images", "image", {"type": "string", "description": "Short for a single picture"}
        )
    )


class Picture(ImageView):
    """A picture; with `response_format: b64_json` the picture itself as well."""

    b64_json: str | None = None


class Answer(JobView):
    """One job, as the HTTP twins show it."""

    images: list[Picture] = Field(default=[])  # type: ignore[assignment]


class WhichJob(BaseModel):
    """Names a job."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    job_id: Annotated[str, Field(min_length=1, max_length=128)]


R = TypeVar("R", Txt2TxtRequest, Txt2ImgRequest, Img2ImgRequest, Img2TxtRequest)


def build(tools: Tools) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["tools"])
    _add_generators(router, tools)
    _add_jobs(router, tools)
    _add_figures(router, tools)
    return router


def _add_generators(router: APIRouter, tools: Tools) -> None:
    def generator(path: str, summary: str) -> Callable[[_Route], _Route]:
        return router.post(
            path,
            summary=summary,
            response_model=Answer,
            response_model_exclude_none=True,
            response_description="The job has ended well",
            responses={
                202: {"model": Answer, "description": "`wait_seconds` ran out; the job goes on"},
                **_GENERATE_ERRORS,
            },
        )

    @generator("/mcp/txt2txt", "Generate text")
    async def txt2txt(
        call: Annotated[
            Txt2TxtCall,
            _examples(
                prompt={"prompt": "Name three rivers.", "max_tokens": 60},
                conversation={
                    "messages": [
                        {"role": "system", "content": "Answer in one sentence."},
                        {"role": "user", "content": "Why is the sky blue?"},
                    ],
                    "temperature": 0.2,
                },
            ),
        ],
        request: Request,
    ) -> Response:
        """Ask a language model."""
        return await _serve(tools, request, _plain(call, Txt2TxtRequest), call)

    @generator("/mcp/txt2img", "Draw a picture")
    async def txt2img(
        call: Annotated[
            Txt2ImgCall,
            _examples(picture={"prompt": "a red fox under a gold moon", "size": "512x512"}),
        ],
        request: Request,
    ) -> Response:
        """Draw pictures from words."""
        return await _serve(tools, request, _plain(call, Txt2ImgRequest), call)

    @generator("/mcp/img2img", "Change a picture")
    async def img2img(
        call: Annotated[
            Img2ImgCall,
            _examples(
                reference={"image": "job:4kS3vGm0w1x2y3z4/0", "prompt": "the same fox in snow"}
            ),
        ],
        request: Request,
    ) -> Response:
        """Draw a picture anew, as a prompt says."""
        return await _serve(tools, request, _plain(call, Img2ImgRequest), call)

    @generator("/mcp/img2txt", "Look at a picture")
    async def img2txt(
        call: Annotated[
            Img2TxtCall,
            _examples(
                reference={"image": "job:4kS3vGm0w1x2y3z4/0", "question": "What animal is it?"}
            ),
        ],
        request: Request,
    ) -> Response:
        """Describe pictures, or answer a question about them."""
        return await _serve(tools, request, _plain(call, Img2TxtRequest), call)


def _add_jobs(router: APIRouter, tools: Tools) -> None:
    @router.get(
        "/mcp/get_job",
        summary="Look at a job, or wait for it",
        response_model=Answer,
        response_model_exclude_none=True,
        response_description="The job has ended, well or not: see `state`",
        responses={
            202: {"model": Answer, "description": "The job has not ended yet"},
            **_errors(404, 422),
        },
    )
    async def get_job(
        request: Request,
        job_id: Annotated[str, Query(min_length=1, max_length=128)],
        wait_seconds: Annotated[float, Query(ge=0, le=3600, allow_inf_nan=False)] = 0.0,
    ) -> Response:
        """Show a job, once it has ended or `wait_seconds` are over. Changes nothing."""
        handle = await tools.handle(job_id)
        await attended(request, tools.wait(handle, wait_seconds))
        return _shown(tools, request, handle.job)

    @router.post(
        "/mcp/cancel_job",
        summary="Cancel a job",
        response_model=Answer,
        response_model_exclude_none=True,
        responses=_errors(400, 404, 413, 422),
    )
    async def cancel_job(which: WhichJob, request: Request) -> Response:
        """Give up a job that waits or runs. A job that has ended stays as it is."""
        return _shown(tools, request, await tools.cancel(which.job_id), status=200)

    @router.get(
        "/images/{job_id}/{index}",
        summary="Fetch a picture",
        response_class=Response,
        responses={
            200: {"content": {"image/*": {}}, "description": "The picture, as it was made"},
            **_errors(404, 409, 422),
        },
    )
    async def image(job_id: str, index: int) -> Response:
        """Fetch a picture that a job made. `index` counts from 0."""
        picture = await tools.image(job_id, index)
        name = file_name(job_id, index, picture.media_type)
        return Response(
            picture.data,
            media_type=picture.media_type,
            headers={
                "Content-Disposition": f'inline; filename="{name}"',
                "X-Content-Type-Options": "nosniff",
                "Cache-Control": f"private, max-age={_KEEP_S}, immutable",
            },
        )


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


_Route = TypeVar("_Route", bound=Callable[..., Any])


def _examples(**bodies: dict[str, Any]) -> Any:
    return Body(openapi_examples={name: Example(value=body) for name, body in bodies.items()})


def _plain(call: R, kind: type[R]) -> R:
    """Take the request out of a call, without the options."""
    given = call.model_fields_set & kind.model_fields.keys()
    return kind.model_validate({name: getattr(call, name) for name in given})


async def _serve(
    tools: Tools, request: Request, inference: InferenceRequest, options: _Options
) -> Response:
    handle = await tools.submit(
        inference,
        level=Level.LOW if options.priority == "low" else Level.NORMAL,
        deadline_s=options.deadline_seconds,
    )
    try:
        present = await attended(request, tools.wait(handle, options.wait_seconds))
    except BaseException:
        await tools.abandon(handle)
        raise
    if not present:
        await tools.abandon(handle)
    if handle.job.state.terminal:
        try:
            result_of(handle.job)
        except InferenceManagerError as error:
            return answer(error, job_id=handle.id)
    with_pictures = isinstance(options, _PictureOptions) and options.response_format == "b64_json"
    return _shown(tools, request, handle.job, with_pictures=with_pictures)


def _shown(
    tools: Tools,
    request: Request,
    job: Job,
    *,
    status: int | None = None,
    with_pictures: bool = False,
) -> Response:
    shown = Answer.model_validate(tools.view(job, str(request.base_url)), from_attributes=True)
    if with_pictures and job.result is not None:
        for picture, image in zip(shown.images, job.result.images, strict=True):
            picture.b64_json = base64.b64encode(image.data).decode("ascii")
    body = shown.model_dump_json(exclude_none=True)
    if status is None:
        status = 200 if job.state.terminal else 202
    return Response(body, status, media_type="application/json")
