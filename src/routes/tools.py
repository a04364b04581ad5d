"""What the tools do, whichever door they are called through."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar, cast

import anyio
from pydantic import BaseModel, Field

from ..handles import JobHandle
from ..models.errors import InvalidTransition, UnknownJob
from ..models.jobs import Job, Level, Promise
from ..models.metrics import ErrorLog, ErrorReport, RequestMetrics, RequestReport
from ..models.modality import Modality
from ..models.ports import Blobs, Clock
from ..models.requests import MEDIA, InferenceRequest
from ..models.results import Audio, Image, Media, Result
from ..processor import Processor
from ..sharing import Sharing, Taken
from ..utils.attachments import prepare
from .callers import current_caller, may_see
from .overview import QueueStatus, queue_status
from .signing import sign
from .situation import parked, situation
from .views import JobView, view

BEAT_S = 5.0
TICK_S = 1.0
_ABANDON_S = 5.0

M = TypeVar("M", bound=Media)

Kind = Literal["images", "audio", "videos"]
KINDS: dict[Kind, str] = {"images": "picture", "audio": "recording", "videos": "film"}
"""The media that a result may hold, and what one of each is called."""

_OUR_ADDRESS = re.compile(
    r"(?:inference://|https?://[^/\s]{1,253}/)(?:images|audio)/([\w-]{1,128})/(\d{1,3})(?:\?\S*)?",
    re.ASCII,
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
    notes: list[str] = Field(description="Where definitions, backends and jobs do not fit together")


class Tools:
    """The modalities, the jobs they become, and the figures about them."""

    def __init__(
        self,
        processor: Processor,
        sharing: Sharing,
        metrics: RequestMetrics,
        error_log: ErrorLog,
        *,
        clock: Clock,
        blobs: Blobs,
        public_url: str = "",
        link_s: float = 3600.0,
        sign_links: bool = False,
    ) -> None:
        self.blobs = blobs
        self._processor = processor
        self._sharing = sharing
        self._metrics = metrics
        self._error_log = error_log
        self._clock = clock
        self._public_url = public_url.rstrip("/")
        self._link_s = link_s
        self._sign_links = sign_links

    async def submit(
        self,
        request: InferenceRequest,
        *,
        level: Level = Level.NORMAL,
        deadline_s: float | None = None,
    ) -> JobHandle:
        """Take a request in and return its job, be it shared; raises as `take`."""
        return (await self.take(request, level=level, deadline_s=deadline_s)).handle

    async def take(
        self,
        request: InferenceRequest,
        *,
        level: Level = Level.NORMAL,
        deadline_s: float | None = None,
        key: str | None = None,
        promise: Promise | None = None,
        uploads: Mapping[str, bytes] | None = None,
    ) -> Taken:
        """Check the request's pictures and recordings and take it in.

        `uploads` has those that are not in the request itself, by the texts that stand for them.
        Raises as `Sharing.submit`.
        """
        prepared = await self.prepared(request, uploads)
        try:
            return await self._sharing.submit(
                prepared,
                caller=current_caller(),
                level=level,
                deadline_s=deadline_s,
                key=key,
                promise=promise,
            )
        except asyncio.CancelledError:
            if key is None and promise is None:
                await self.blobs.drop(prepared.blobs)
            raise  # a promised job may be kept all the same, and needs what came with it
        except BaseException:
            await self.blobs.drop(prepared.blobs)
            raise

    async def prepared(
        self, request: InferenceRequest, uploads: Mapping[str, bytes] | None = None
    ) -> InferenceRequest:
        """Check the request's pictures and recordings, and keep them; raises as `prepare`."""
        return await prepare(_by_reference(request), self.made, self.blobs, uploads)

    async def once(
        self, make: Callable[[Promise], Awaitable[JobHandle]], *, key: str, fingerprint: str
    ) -> Taken:
        """Make a job, or find that of the present caller's key; raises as `Sharing.once`."""
        caller = current_caller()
        return await self._sharing.once(make, caller=caller, key=key, fingerprint=fingerprint)

    async def promise(self, handle: JobHandle) -> None:
        """Promise a job to a caller who is about to be told its id; raises `StorageFailed`."""
        if not handle.job.state.terminal:
            await self._processor.promise(handle)

    def now(self) -> float:
        """Return the time, in seconds since 1970."""
        return self._clock()

    async def wait(
        self, handle: JobHandle, seconds: float | None, beat: Beat | None = None
    ) -> bool:
        """Wait until the job has ended, at most so long; say whether it has.

        `beat` is called at once, whenever the job's situation changes, and every 5 s.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        told, told_at = "", began - BEAT_S
        while not handle.over:
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
        return situation(self._processor, job, self._clock())

    def place(self, job: Job) -> Mapping[str, object]:
        """Say where a job is in line, and about when it starts."""
        starts_in = self._processor.starts_in(job.id)
        return {
            "job_id": job.id,
            "state": str(job.state),
            "position": self._processor.position(job.id),
            "starts_in_s": None if starts_in is None else round(starts_in, 1),
            "doing": self.situation(job),
        }

    def view(self, job: Job, base_url: str) -> JobView:
        """Show a job; `base_url` is where the caller reached this server."""
        doing = self.situation(job)
        return view(
            job,
            position=self._processor.position(job.id),
            now=self._clock(),
            base_url=self._public_url or base_url.rstrip("/"),
            signed_until=self._until() if self._sign_links else None,
            doing=None if doing == job.state else doing,
            simulated=self._processor.simulated,
        )

    async def handle(self, job_id: str) -> JobHandle:
        """Return the handle of a job of the present caller; raises `UnknownJob`."""
        handle = await self._processor.handle(job_id)
        if not may_see(handle.job.caller):
            raise UnknownJob.of_that_id()
        return handle

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job of the present caller; raises `UnknownJob`."""
        await self.handle(job_id)
        return await self._processor.cancel(job_id)

    async def abandon(self, handle: JobHandle) -> None:
        """Leave a job, even while its caller is being cancelled; who leaves last cancels it."""
        with anyio.move_on_after(_ABANDON_S, shield=True):
            await self._sharing.leave(handle)

    async def medium(self, kind: Kind, job_id: str, index: int) -> Media:
        """Return a picture, a recording or a film that a job made.

        Raises:
            UnknownJob: there is no such job, or it has none of this number.
            InvalidTransition: the job has not ended yet.

        """
        result = await self._result(job_id)
        return _nth(cast("tuple[Media, ...]", getattr(result, kind)), index, KINDS[kind])

    def signed_url(self, kind: Kind, job_id: str, index: int, base_url: str) -> str:
        """Return the address of what a job made, for whoever has it, as long as links work."""
        path = f"/{kind}/{job_id}/{index}"
        return f"{self._public_url or base_url.rstrip('/')}{path}?{sign(path, self._until())}"

    def _until(self) -> int:
        return int(self._clock() + self._link_s)

    async def made(self, job_id: str, index: int) -> Image | Audio:
        """Return what a job made and a request can take as input; raises as `medium`."""
        result = await self._result(job_id)
        made: tuple[Image | Audio, ...] = (*result.images, *result.audio)
        return _nth(made, index, "picture or recording")

    async def _result(self, job_id: str) -> Result:
        job = (await self.handle(job_id)).job
        if not job.state.terminal:
            raise InvalidTransition("the job has not ended yet", hint="wait for it with get_job")
        return job.result or Result()

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
            notes=[*catalog.mismatches(), *_notes(catalog.unsaid, parked(self._processor))],
        )


def _notes(unsaid: Sequence[str], parked_jobs: Mapping[str, int]) -> Iterator[str]:
    """Say which models have to be named, and which are waited for in vain."""
    for name in unsaid:
        yield f"nobody says what {name} is for; name it in `model`, or write a definition"
    for name, count in parked_jobs.items():
        who = "1 job waits" if count == 1 else f"{count} jobs wait"
        yield f"{who} for {name}, which no backend offers at present"


def _nth(media: Sequence[M], index: int, word: str) -> M:
    if not 0 <= index < len(media):
        hint = f"it has {len(media)}, counted from 0"
        raise UnknownJob(f"the job has no such {word}", hint=hint)
    return media[index]


def _by_reference(request: InferenceRequest) -> InferenceRequest:
    """Write the addresses under which we show media as references to them; nothing is fetched."""
    given = {name: getattr(request, name) for name in request.model_fields_set & MEDIA}
    return request.model_copy(update={name: _reference(value) for name, value in given.items()})


def _reference(value: object) -> object:
    match value:
        case str() if len(value) <= 500 and (found := _OUR_ADDRESS.fullmatch(value.strip())):
            return f"job:{found[1]}/{found[2]}"
        case tuple():
            return tuple(map(_reference, cast("tuple[object, ...]", value)))
        case _:
            return value
