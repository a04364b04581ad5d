"""`/v1/batches`: files of requests that are answered while nobody waits."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ...batches import BatchRunner
from ...models.batches import Batch, BatchState, Problem, check_metadata
from ..callers import current_caller
from ..incoming import base_url
from .batch_desk import ENDPOINTS
from .v1_routes import Listed, Listing, v1_routes

_LONGEST = 256 * 1024

BatchId = Annotated[str, Path(max_length=100, description="The batch")]


def _known(endpoint: str) -> str:
    if endpoint not in ENDPOINTS:
        raise ValueError(f"must be one of {', '.join(ENDPOINTS)}")
    return endpoint


class OutputExpiry(BaseModel):
    """How long the files with the answers are kept."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class BatchBody(BaseModel):
    """A file whose lines are to be answered."""

    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)

    input_file_id: Annotated[str, Field(max_length=100)] = Field(description="The file")
    endpoint: Annotated[
        str,
        AfterValidator(_known),
        Field(description="Where each line leads", json_schema_extra={"enum": list(ENDPOINTS)}),
    ]
    completion_window: Annotated[str, Field(max_length=10)] = Field(
        description="How long it may take: such as `24h`, `30m`, and `7d` at most"
    )
    metadata: dict[str, str] | None = Field(default=None, description="What you want to remember")
    output_expires_after: OutputExpiry | None = Field(
        default=None, description="How long the answers are kept"
    )


class BatchProblem(BaseModel):
    """What is wrong with the file."""

    code: str
    line: int | None = Field(description="Where, counted from 1")
    message: str
    param: str | None


class BatchProblems(BaseModel):
    """All that was found; of many problems the first hundred."""

    object: Literal["list"] = "list"
    data: list[BatchProblem]


class RequestCounts(BaseModel):
    """How many lines there are, and how many were carried out, well or not."""

    total: int
    completed: int
    failed: int


class BatchObject(Listed):
    """A batch. Times are seconds since 1970."""

    object: Literal["batch"] = "batch"
    endpoint: str = Field(description="Where its lines lead")
    errors: BatchProblems | None = Field(
        description="What is wrong with the file, by `line`, if the batch has failed"
    )
    input_file_id: str = Field(description="The file with the lines")
    completion_window: str = Field(description="How long it may take")
    status: BatchState = Field(
        description="`validating`, `in_progress`, `finalizing`, `cancelling`; at last `completed`, "
        "`failed`, `expired` or `cancelled`"
    )
    output_file_id: str | None = Field(description="The answers, when the batch has ended")
    error_file_id: str | None = Field(description="What went wrong, likewise")
    created_at: int = Field(description="When it came")
    in_progress_at: int | None = Field(description="When its file was found to be good")
    expires_at: int = Field(description="When its window is over")
    finalizing_at: int | None = Field(description="When all lines were done")
    completed_at: int | None = Field(description="When it was completed")
    failed_at: int | None = Field(description="When it failed")
    expired_at: int | None = Field(description="When it expired")
    cancelling_at: int | None = Field(description="When somebody began to cancel it")
    cancelled_at: int | None = Field(description="When it was cancelled")
    request_counts: RequestCounts = Field(
        description="`total` lines, of which so many were carried out: `completed`, or `failed`"
    )
    metadata: dict[str, str] | None = Field(description="As it was given")


def build(runner: BatchRunner) -> list[APIRoute]:
    """Make the routes."""

    async def create_batch(request: Request, body: BatchBody) -> BatchObject:
        """Have the lines of a file answered, one by one, when nothing better waits."""
        check_metadata(body.metadata or {})
        expiry = body.output_expires_after
        return _shown(
            await runner.submit(
                caller=current_caller(),
                endpoint=body.endpoint,
                input_file=body.input_file_id,
                window=body.completion_window,
                base_url=base_url(request.scope),
                metadata=body.metadata,
                keep_s=None if expiry is None else float(expiry.seconds),
                key=request.headers.get("idempotency-key"),
            )
        )

    async def list_batches(
        limit: Annotated[int, Query(ge=1, le=100, description="So many at most")] = 20,
        after: Annotated[
            str | None, Query(max_length=100, description="The last one that is known")
        ] = None,
    ) -> Listing[BatchObject]:
        """List your batches, the latest first."""
        found = await runner.list(current_caller(), after=after, limit=limit + 1)
        return Listing[BatchObject].of([_shown(batch) for batch in found], limit)

    async def retrieve_batch(batch_id: BatchId) -> BatchObject:
        """Look at a batch."""
        return _shown(await runner.get(current_caller(), batch_id))

    async def cancel_batch(batch_id: BatchId) -> BatchObject:
        """Begin to cancel a batch; what was answered by then is kept."""
        return _shown(await runner.cancel(current_caller(), batch_id))

    return [
        *v1_routes(
            "/batches",
            "POST",
            create_batch,
            "Have a file answered",
            *(400, 404, 409, 413, 503),
            max_body_size=_LONGEST,
        ),
        *v1_routes("/batches", "GET", list_batches, "List batches", 400),
        *v1_routes("/batches/{batch_id}", "GET", retrieve_batch, "Look at a batch", 400, 404),
        *v1_routes(
            "/batches/{batch_id}/cancel", "POST", cancel_batch, "Cancel a batch", 400, 404, 409
        ),
    ]


def _shown(batch: Batch) -> BatchObject:
    ended = {batch.state: _second(batch.ended_at)}
    finished = batch.ended_at is not None and batch.state is not BatchState.FAILED
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        errors=_problems(batch.problems),
        input_file_id=batch.input_file,
        completion_window=batch.window,
        status=batch.state,
        output_file_id=batch.output_file if finished and batch.output_bytes else None,
        error_file_id=batch.error_file if finished and batch.error_bytes else None,
        created_at=int(batch.created_at),
        in_progress_at=_second(batch.in_progress_at),
        expires_at=int(batch.expires_at),
        finalizing_at=_second(batch.finalizing_at),
        completed_at=ended.get(BatchState.COMPLETED),
        failed_at=ended.get(BatchState.FAILED),
        expired_at=ended.get(BatchState.EXPIRED),
        cancelling_at=_second(batch.cancelling_at),
        cancelled_at=ended.get(BatchState.CANCELLED),
        request_counts=RequestCounts(
            total=batch.total, completed=batch.completed, failed=batch.failed
        ),
        metadata=None if batch.metadata is None else dict(batch.metadata),
    )


def _problems(problems: Iterable[Problem]) -> BatchProblems | None:
    found: list[Any] = [
        BatchProblem(code=p.code, line=p.line, message=p.message, param=p.param) for p in problems
    ]
    return BatchProblems(data=found) if found else None


def _second(time: float | None) -> int | None:
    return None if time is None else int(time)
