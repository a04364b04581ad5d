"""`/jobs`: hand jobs over, list them, look at them, follow, cancel, move, repeat, forget them."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ..models.errors import InvalidInput
from ..models.following import Bookmark
from ..models.jobs import Job, JobQuery, JobState
from ..models.modality import Modality
from ..moving import target_of
from ..sharing import How
from .callers import current_caller
from .errors import error_responses
from .facts import facts, of_a_job_that_goes_on
from .incoming import aside
from .job_calls import Order
from .job_desk import Accepted, JobDesk
from .job_events import Following
from .job_views import LEVELS, JobPage, JobReport, JobReports, LevelName, line
from .leaving import left, stayed
from .pieces import SEND_S
from .streaming import BEAT_S
from .submitting import Submitting, route

JobId = Annotated[str, Path(min_length=1, max_length=128)]
_NOT_ENDED: dict[int | str, dict[str, Any]] = {
    202: {"model": JobReport, "description": "The job has not ended yet"}
}


class Listed(BaseModel):
    """Which jobs are asked for; what is left out does not matter."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    state: list[JobState] | None = Field(default=None, description="In one of these states")
    modality: Modality | None = None
    model: Annotated[str, Field(max_length=256)] | None = None
    level: LevelName | None = None
    batch: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Handed over together, or lines of one batch"
    )
    code: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="Failed with this error code"
    )
    submitted_after: AwareDatetime | None = Field(default=None, description="Or at that time")
    submitted_before: AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = Field(default=50, description="How many at most")
    cursor: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="The `next` of the page before"
    )


class Move(BaseModel):
    """Where a waiting job shall go."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    level: Literal["normal", "low"] | None = Field(
        default=None, description="`low` lets all normal requests of its kind go first"
    )
    before: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Directly before this other job of yours"
    )
    after: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Directly after this other job of yours"
    )
    to: Literal["front", "back"] | None = Field(
        default=None, description="Before or after all of yours that wait beside it"
    )


def build(desk: JobDesk, *, beat_s: float = BEAT_S, send_s: float = SEND_S) -> APIRouter:
    """Make the routes, but for that of `submit`.

    Args:
        desk: what they lead to.
        beat_s: the longest silence of a stream of events, in seconds.
        send_s: how long a caller may leave a piece of an answer untaken, in seconds.

    """
    router = APIRouter(tags=["jobs"])
    _add_list(router, desk)
    _add_look(router, desk)
    _add_events(router, desk, beat_s, send_s)
    _add_changes(router, desk)
    return router


def submit(desk: JobDesk, *, longest: int) -> APIRoute:
    """Make the route that takes jobs in, whose bodies may have so many bytes."""

    def write(accepted: Accepted, order: Order, base_url: str) -> Response:
        repeated = accepted.how == "repeated" or None
        if order.together:
            handles = accepted.handles
            told = [desk.report(handle.job, base_url, estimate=False) for handle in handles]
            batch = told[0].batch or ""
            body: BaseModel = JobReports(jobs=told, batch=batch, deduplicated=repeated)
            return _json(body, 200 if repeated else 202)
        return _handed_over(desk, accepted.handles[0].job, accepted.how, base_url)

    known = "The same key was sent again, or the same was answered a while ago"
    return route(
        "/jobs",
        Submitting(desk, longest, write),
        tag="jobs",
        summary="Hand over a job, or several",
        about=_submit_doc,
        status_code=202,
        response_model=JobReport | JobReports,
        response_model_exclude_none=True,
        response_description="Kept: it will be carried out, whatever happens to this server",
        responses={200: {"model": JobReport | JobReports, "description": known}},
    )


_submit_doc = """Take in one request, or a list of up to 1,000, and answer at once.

Several are taken in together: all of them or none. With an `Idempotency-Key` the same body may be
sent again safely."""


def _add_list(router: APIRouter, desk: JobDesk) -> None:
    @router.get(
        "/jobs",
        summary="List jobs",
        response_model_exclude_none=True,
        responses=error_responses(401, 422, 507),
    )
    async def list_jobs(asked: Annotated[Listed, Query()]) -> JobPage:
        """List your own jobs, the newest first."""
        return await listed(desk, asked)


async def listed(desk: JobDesk, asked: Listed) -> JobPage:
    """List jobs of the present caller; raises `InvalidInput` for a cursor that is none."""
    page = await desk.page(
        JobQuery(
            caller=current_caller(),
            states=None if asked.state is None else frozenset(asked.state),
            modality=asked.modality,
            model=asked.model,
            level=None if asked.level is None else LEVELS[asked.level],
            batch=asked.batch,
            code=asked.code,
            submitted_after=_seconds(asked.submitted_after),
            submitted_before=_seconds(asked.submitted_before),
            before=None if asked.cursor is None else _number(asked.cursor),
            limit=asked.limit,
        )
    )
    return JobPage(
        jobs=[line(job, desk.processor.position(job.id)) for job in page.jobs],
        next=None if page.before is None else _cursor(page.before),
    )


def _add_look(router: APIRouter, desk: JobDesk) -> None:
    @router.get(
        "/jobs/{job_id}",
        summary="Look at a job, or wait for it",
        response_model=JobReport,
        response_model_exclude_none=True,
        response_description="The job has ended, well or not: see `state`",
        responses={**_NOT_ENDED, **error_responses(401, 404, 422, 507)},
    )
    async def read_job(
        request: Request,
        job_id: JobId,
        wait: Annotated[float, Query(ge=0, le=3600, allow_inf_nan=False)] = 0.0,
    ) -> Response:
        """Show a job, once it has ended or `wait` seconds are over. Changes nothing."""
        handle = await desk.tools.handle(job_id)
        if not await stayed(handle, request.receive, wait):
            left(handle.id)
        return await shown(desk, request, handle.job)


def _add_events(router: APIRouter, desk: JobDesk, beat_s: float, send_s: float) -> None:
    @router.get(
        "/jobs/{job_id}/events",
        summary="Follow a job",
        response_class=Response,
        response_description="Its steps and its text, as server-sent events",
        responses={
            200: {"content": {"text/event-stream": {}}},
            204: {"description": "By `Last-Event-ID` everything was told already"},
            **error_responses(401, 404, 422, 507),
        },
    )
    async def follow_job(
        request: Request,
        job_id: JobId,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Tell what a job has gone through, what it does, and its text as it comes, to its end.

        With `Last-Event-ID` only what came after that event.
        """
        bookmark = Bookmark() if last_event_id is None else Bookmark.read(last_event_id)
        handle = await desk.tools.handle(job_id)
        if handle.job.state.terminal and bookmark.steps == handle.job.version + 1:
            return Response(status_code=204)
        told = partial(desk.report, base_url=str(request.base_url))
        history = desk.processor.store.history
        return Following(
            handle,
            bookmark,
            history=history,
            report=told,
            doing=desk.tools.situation,
            beat_s=beat_s,
            send_s=send_s,
        )


def _add_changes(router: APIRouter, desk: JobDesk) -> None:
    @router.delete(
        "/jobs/{job_id}",
        summary="Cancel a job, or forget it",
        response_model=JobReport,
        response_model_exclude_none=True,
        responses={
            204: {"description": "With `forget`: it is forgotten"},
            **error_responses(401, 404, 409, 422, 507),
        },
    )
    async def delete_job(
        request: Request,
        job_id: JobId,
        forget: Annotated[
            bool, Query(description="Forget a job that has ended, with all that it made")
        ] = False,
    ) -> Response:
        """Give up a job that waits or runs. A job that has ended stays as it is."""
        if forget:
            await desk.forget(job_id)
            return Response(status_code=204)
        job = await desk.tools.cancel(job_id)
        return _json(desk.report(job, str(request.base_url)), 200)

    @router.patch(
        "/jobs/{job_id}",
        summary="Move a waiting job",
        response_model=JobReport,
        response_model_exclude_none=True,
        responses=error_responses(400, 401, 404, 409, 413, 422, 507),
    )
    async def move_job(request: Request, job_id: JobId, move: Move) -> Response:
        """Change the level of a job that waits, or its place among your own beside it.

        Nobody else's job is overtaken by a change of places.
        """
        target = target_of(before=move.before, after=move.after, to=move.to)
        level = None if move.level is None else LEVELS[move.level]
        if target is None and level is None:
            raise InvalidInput(
                "nothing says where the job shall go",
                param="body",
                hint="give level, before, after or to",
            )
        job = await desk.move(job_id, level, target)
        return _json(desk.report(job, str(request.base_url)), 200)

    @router.post(
        "/jobs/{job_id}/retry",
        summary="Run a job again",
        status_code=202,
        response_model=JobReport,
        response_model_exclude_none=True,
        response_description="The new job",
        responses={
            200: {"model": JobReport, "description": "The same key was sent again"},
            **error_responses(401, 404, 409, 422, 429, 503, 507),
        },
    )
    async def retry_job(
        request: Request, job_id: JobId, idempotency_key: Annotated[str | None, Header()] = None
    ) -> Response:
        """Submit what an ended job asked for once more, as a new job.

        With an `Idempotency-Key` it may be sent again safely.
        """
        taken = await desk.run_again(job_id, idempotency_key)
        return _handed_over(desk, taken.handle.job, taken.how, str(request.base_url))


async def shown(desk: JobDesk, request: Request, job: Job) -> Response:
    """Answer with all of a job; 202 as long as it has not ended."""
    report = desk.report(job, str(request.base_url))
    report.webhook = await desk.webhook(job)
    size = 0 if job.result is None else job.result.size_bytes
    if job.result is not None and job.result.vectors:
        report.vectors = [vector.values.tolist() for vector in job.result.vectors]
    response = await aside(size, partial(_json, report, 200 if job.state.terminal else 202))
    response.raw_headers.extend(facts(job))
    return response


def _handed_over(desk: JobDesk, job: Job, how: How, base_url: str) -> Response:
    """Answer with a job that was taken in, or found."""
    report = desk.report(job, base_url)
    report.deduplicated = how == "repeated" or None
    response = _json(report, 200 if report.deduplicated or job.state.terminal else 202)
    response.headers.update(of_a_job_that_goes_on(job, ""))
    return response


def _json(told: BaseModel, status: int) -> Response:
    body = told.model_dump_json(exclude_none=True)
    return Response(body, status, media_type="application/json")


def _seconds(at: AwareDatetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _cursor(number: int) -> str:
    return urlsafe_b64encode(b"before %d" % number).decode()


def _number(cursor: str) -> int:
    try:
        word, _, number = urlsafe_b64decode(cursor).partition(b" ")
        if word == b"before" and number.isdigit() and len(number) < 16:
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise InvalidInput(
        "cursor is not one of this list",
        param="cursor",
        hint="send the `next` of the page before, or leave it out to begin at the newest",
    )
