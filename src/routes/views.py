"""How a job looks from outside: the same fields in MCP results and HTTP answers.

Never holds picture data: pictures are addresses.
"""

from pydantic import BaseModel, ConfigDict, Field

from ..handles import result_of
from ..models.errors import InferenceManagerError
from ..models.jobs import Job, JobState
from ..models.modality import Modality
from .errors import ErrorDetail, describe


class ImageView(BaseModel):
    """Where a finished picture can be fetched, and what it is."""

    url: str = Field(description="HTTP address of the picture")
    uri: str = Field(description="MCP resource with the same picture")
    reference: str = Field(description="Write this as `image` to use the picture as input")
    media_type: str
    width: int
    height: int
    size_bytes: int
    seed: int | None = None


class UsageView(BaseModel):
    """Tokens, as the backend counted them; zero where it did not."""

    prompt_tokens: int
    completion_tokens: int


class JobView(BaseModel):
    """One job. `next` says in words what to do while it is not finished."""

    model_config = ConfigDict(use_enum_values=True)

    job_id: str
    modality: Modality
    state: JobState
    model: str | None = None
    position: int | None = Field(default=None, description="Jobs that go first; 0 is next")
    attempts: int = 0
    waited_s: float = Field(description="Seconds from submission to the start, or until now")
    processing_s: float | None = Field(default=None, description="Seconds of the latest attempt")
    text: str | None = None
    reasoning: str | None = None
    finish_reason: str | None = None
    images: list[ImageView] = []
    usage: UsageView | None = None
    error: ErrorDetail | None = None
    simulated: bool = Field(default=False, description="Made by the simulator, not by a model")
    next: str | None = None


def view(
    job: Job, *, position: int | None, now: float, base_url: str, simulated: bool = False
) -> JobView:
    """Show a job.

    Args:
        job: what is shown.
        position: how many jobs go first, if it waits in line.
        now: seconds since 1970.
        base_url: where this server is reached, without a slash at its end.
        simulated: whether a simulator stands behind the server; a result says it of itself.

    """
    end = job.ended_at if job.ended_at is not None else now
    began = job.started_at if job.started_at is not None else end
    shown = JobView(
        job_id=job.id,
        modality=job.modality,
        state=job.state,
        model=job.model,
        position=position,
        attempts=job.attempts,
        waited_s=round(max(began - job.submitted_at, 0.0), 3),
        processing_s=None if job.started_at is None else round(max(end - began, 0.0), 3),
        simulated=simulated,
        next=None if job.state.terminal else "call get_job with this job_id until it has ended",
    )
    if job.result is not None:
        result, finish = job.result, job.result.finish
        if job.modality in (Modality.TXT2TXT, Modality.IMG2TXT):
            shown.text = result.text
            shown.reasoning = result.reasoning or None
            shown.finish_reason = finish.reason
            shown.usage = UsageView(
                prompt_tokens=finish.prompt_tokens, completion_tokens=finish.completion_tokens
            )
        shown.images = [
            ImageView(
                url=f"{base_url}/images/{job.id}/{index}",
                uri=f"inference://images/{job.id}/{index}",
                reference=f"job:{job.id}/{index}",
                media_type=image.media_type,
                width=image.width,
                height=image.height,
                size_bytes=len(image.data),
                seed=image.seed,
            )
            for index, image in enumerate(result.images)
        ]
        shown.simulated = finish.simulated
    error = _why_not(job)
    shown.error = None if error is None else describe(error)
    return shown


def _why_not(job: Job) -> InferenceManagerError | None:
    """Say why a job has no result; before its end, why its latest attempt failed."""
    if not job.state.terminal:
        return job.error
    try:
        result_of(job)
    except InferenceManagerError as error:
        return error
    return None
