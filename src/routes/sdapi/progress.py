"""`/sdapi/v1/progress`, `/interrupt` and `/skip`: how far a caller's own pictures are."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ...handles import JobHandle
from ...models.errors import UnknownJob
from ...models.results import Image
from ...processor import Processor
from ..callers import current_caller
from ..errors import error_responses
from ..tools import Tools
from .answers import timestamp
from .drawings import Drawings

_BEGUN, _ALMOST = 0.01, 0.99  # 0 is nothing to do, 1 is done


class ProgressState(BaseModel):
    """What is being drawn."""

    skipped: bool = False
    interrupted: bool = False
    job: str = Field(default="", description="The id of the job")
    job_count: int = Field(default=0, description="How many pictures it draws; 0: there is none")
    job_timestamp: str = "0"
    job_no: int = Field(default=0, description="How many of them are done")
    sampling_step: int = Field(default=0, description="Estimated")
    sampling_steps: int = 0


class Progress(BaseModel):
    """How far the caller's oldest unfinished pictures are."""

    progress: float = Field(default=0.0, description="Between 0 and 1, estimated")
    eta_relative: float = Field(
        default=0.0, description="Seconds that are left, waiting included; 0 if nobody can tell"
    )
    state: ProgressState = ProgressState()
    current_image: str | None = Field(default=None, description="None: LocalAI shows no previews")
    textinfo: str | None = Field(
        default=None, description="What the job does or waits for, in words"
    )


class Nothing(BaseModel):
    """There is nothing to say."""


def build(tools: Tools, processor: Processor, drawings: Drawings) -> APIRouter:
    """Make the routes."""
    router = APIRouter(prefix="/sdapi/v1", tags=["sdapi"], responses=error_responses(401))

    @router.get("/progress", name="sdapi_progress")
    async def progress(
        skip_current_image: Annotated[  # noqa: ARG001
            bool, Query(description="Without the picture, of which there is never one")
        ] = False,
    ) -> Progress:
        """Say how far the caller's oldest pictures are, in the line or on the backend."""
        unfinished = drawings.unfinished(current_caller())
        return progress_of(unfinished[0], tools, processor) if unfinished else Progress()

    @router.post("/interrupt", name="sdapi_interrupt")
    async def interrupt() -> Nothing:
        """Cancel all pictures that the caller asked for here; those calls are answered 409."""
        await cancelled(drawings.unfinished(current_caller()))
        return Nothing()

    @router.post("/skip", name="sdapi_skip")
    async def skip() -> Nothing:
        """Cancel the caller's oldest unfinished call here."""
        await cancelled(drawings.unfinished(current_caller())[:1])
        return Nothing()

    async def cancelled(handles: Sequence[JobHandle]) -> None:
        for handle in handles:
            with suppress(UnknownJob):  # it has ended meanwhile, and is forgotten
                await tools.cancel(handle.id)

    return router


def progress_of(handle: JobHandle, tools: Tools, processor: Processor) -> Progress:
    """Say how far a job is, from how long such jobs usually take."""
    job, request = handle.job, handle.job.request
    share, left_s = _estimate(handle, tools.now(), processor)
    count: int = getattr(request, "n", 1)
    steps: int = getattr(request, "steps", None) or 0
    done = sum(isinstance(piece, Image) for piece in handle.pieces)
    share = min(max(share, done / count, _BEGUN), _ALMOST)
    return Progress(
        progress=share,
        eta_relative=left_s,
        state=ProgressState(
            job=job.id,
            job_count=count,
            job_timestamp=timestamp(job.submitted_at),
            job_no=done,
            sampling_step=int(share * steps),
            sampling_steps=steps,
        ),
        textinfo=tools.situation(job),
    )


def _estimate(handle: JobHandle, now: float, processor: Processor) -> tuple[float, float]:
    """Return which share of its attempt is over, and how many seconds are left in all."""
    scheduler = processor.scheduler
    entry = scheduler.waiting_entry(handle.id)
    if entry is not None:
        usual, until = scheduler.usual_attempt_s(entry), processor.starts_in(handle.id)
        return 0.0, 0.0 if usual is None or until is None else until + usual
    for running in scheduler.running:
        if running.entry.id == handle.id and (end := scheduler.ends_at(running)) is not None:
            passed, left = max(now - running.since, 0.0), max(end - now, 0.0)
            return passed / max(passed + left, 0.001), left
    return 0.0, 0.0
