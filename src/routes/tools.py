"""What the tools do, whichever door they are called through."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import anyio
from pydantic import BaseModel, Field

from ..handles import JobHandle
from ..models.errors import InvalidTransition, UnknownJob
from ..models.jobs import Job, JobState, Level
from ..models.metrics import ErrorLog, ErrorReport, RequestMetrics, RequestReport
from ..models.modality import Modality
from ..models.ports import Clock
from ..models.requests import Img2ImgRequest, Img2TxtRequest, InferenceRequest
from ..models.results import Image
from ..processor import Processor
from ..utils.images import prepare
from .overview import QueueStatus, queue_status
from .views import JobView, view

BEAT_S = 5.0
TICK_S = 1.0
_ABANDON_S = 5.0

_OUR_ADDRESS = re.compile(
    r"(?:inference://|https?://[^/\s]{1,253}/)images/([\w-]{1,128})/(\d{1,3})", re.ASCII
)

Beat = Callable[[float, str], Awaitable[None]]
"""Called while a caller waits, with the seconds since it began and what the job is doing."""


class ModelView(BaseModel):
    """A model that may be asked for."""

    name: str
    modalities: list[Modality]
    default_for: list[Modality] = Field(description="Used where a request names no model")
    parallel: int
    resident: bool = Field(description="In memory now, so that it starts without a load")


class ModelList(BaseModel):
    """What `list_models` answers; `known` is false until a backend has been reached."""

    known: bool
    models: list[ModelView]
    notes: list[str] = Field(description="Where definitions and backends do not fit together")


class Tools:
    """The four modalities, the jobs they become, and the figures about them."""

    def __init__(
        self,
        processor: Processor,
        metrics: RequestMetrics,
        error_log: ErrorLog,
        *,
        clock: Clock,
        public_url: str = "",
    ) -> None:
        self._processor = processor
        self._metrics = metrics
        self._error_log = error_log
        self._clock = clock
        self._public_url = public_url.rstrip("/")

    async def submit(
        self,
        request: InferenceRequest,
        *,
        level: Level = Level.NORMAL,
        deadline_s: float | None = None,
    ) -> JobHandle:
        """Check the request's pictures and take it in; raises as `Processor.submit`."""
        prepared = await prepare(_by_reference(request), self.image)
        return await self._processor.submit(prepared, level=level, deadline_s=deadline_s)

    async def wait(
        self, handle: JobHandle, seconds: float | None, beat: Beat | None = None
    ) -> bool:
        """Wait until the job has ended, at most so long; say whether it has.

        `beat` is called at once, whenever the job's situation changes, and every 5 s.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        told, told_at = "", began - BEAT_S
        while not handle.job.state.terminal:
            passed = loop.time() - began
            left = TICK_S if seconds is None else min(seconds - passed, TICK_S)
            if left <= 0:
                return False
            if beat is not None:
                doing = self.situation(handle.job)
                if doing != told or loop.time() - told_at >= BEAT_S:
                    told, told_at = doing, loop.time()
                    await beat(passed, doing)
                    continue  # the job may have taken a step in the meantime
            try:
                async with asyncio.timeout(left):
                    await handle.changed()
            except TimeoutError:
                pass
        return True

    def situation(self, job: Job) -> str:
        """Say in a few words what a job is doing."""
        match job.state:
            case JobState.QUEUED | JobState.RETRYING:
                return self._waiting(job)
            case JobState.PROCESSING:
                return f"running on {job.model}, attempt {job.attempts}"
            case _:
                return str(job.state)

    def _waiting(self, job: Job) -> str:
        position = self._processor.position(job.id)
        if position is None:
            again = job.state is JobState.RETRYING
            return "waiting for another attempt" if again else "about to start"
        if position > 0:
            return f"queued, {position} ahead"
        if self._processor.is_loading(job.model):
            return f"next in line, {job.model} is being loaded"
        if (trouble := self._processor.trouble(job.model)) is not None:
            return f"next in line, to be tried again: {trouble.message}"
        if any(run.ghost for run in self._processor.scheduler.running):
            return "next in line, the backend still works on a cancelled job"
        return "queued, next in line"

    def view(self, job: Job, base_url: str) -> JobView:
        """Show a job; `base_url` is where the caller reached this server."""
        return view(
            job,
            position=self._processor.position(job.id),
            now=self._clock(),
            base_url=self._public_url or base_url.rstrip("/"),
            simulated=self._processor.simulated,
        )

    async def handle(self, job_id: str) -> JobHandle:
        """Return the handle of a job; raises `UnknownJob`."""
        return await self._processor.handle(job_id)

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job; raises `UnknownJob`."""
        return await self._processor.cancel(job_id)

    async def abandon(self, handle: JobHandle) -> None:
        """Cancel a job that nobody else knows, even while its caller is being cancelled."""
        with anyio.move_on_after(_ABANDON_S, shield=True):
            await self._processor.cancel(handle.id)

    async def image(self, job_id: str, index: int) -> Image:
        """Return a picture that a job made.

        Raises:
            UnknownJob: there is no such job, or it has no such picture.
            InvalidTransition: the job has not ended yet.

        """
        job = (await self._processor.handle(job_id)).job
        if not job.state.terminal:
            raise InvalidTransition("the job has not ended yet", hint="wait for it with get_job")
        images = job.result.images if job.result is not None else ()
        if not 0 <= index < len(images):
            raise UnknownJob(
                "the job has no such picture", hint=f"it has {len(images)}, counted from 0"
            )
        return images[index]

    def request_metrics(self) -> RequestReport:
        """Sum up the last jobs."""
        return self._metrics.report(self._clock())

    def error_metrics(self) -> ErrorReport:
        """Sum up the errors."""
        return self._error_log.report()

    def queue_status(self) -> QueueStatus:
        """Look at the queues."""
        return queue_status(self._processor, self._clock())

    def models(self) -> ModelList:
        """List the models that may be asked for."""
        catalog, capacity = self._processor.catalog, self._processor.scheduler.capacity
        resident = {m for name in self._processor.backends for m in capacity.resident(name)}
        first = {m: next(iter(catalog.models(m)), None) for m in Modality}
        return ModelList(
            known=catalog.known,
            models=[
                ModelView(
                    name=name,
                    modalities=sorted(catalog.modalities(name) or ()),
                    default_for=[m for m, default in first.items() if default == name],
                    parallel=capacity.parallel(name),
                    resident=name in resident,
                )
                for name in catalog.names
            ],
            notes=list(catalog.mismatches()),
        )


def _by_reference(request: InferenceRequest) -> InferenceRequest:
    """Write the addresses under which we show a picture as references to it; nothing is fetched."""
    match request:
        case Img2ImgRequest():
            return request.model_copy(update={"image": _reference(request.image)})
        case Img2TxtRequest():
            return request.model_copy(update={"images": tuple(map(_reference, request.images))})
        case _:
            return request


def _reference(text: str) -> str:
    match = _OUR_ADDRESS.fullmatch(text.strip()) if len(text) <= 500 else None
    return text if match is None else f"job:{match[1]}/{match[2]}"
