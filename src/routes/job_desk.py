"""What can be done with jobs, whichever form it is asked in; each caller has only its own."""

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from ..groups import Groups
from ..handles import JobHandle
from ..models.errors import InvalidTransition
from ..models.jobs import Job, JobQuery, Level, Promise
from ..models.moving import Target
from ..models.ports import Page
from ..models.requests import InferenceRequest
from ..moving import Moving
from ..processor import Processor
from ..retrying import run_again
from ..sharing import How, Taken
from ..utils.stores.deliveries import Deliveries
from .callers import current_caller
from .incoming import aside
from .job_calls import Order, of_number
from .job_views import JobReport, WebhookView, report, webhook_view
from .tools import Tools
from .wishes import Wishes


class Accepted(NamedTuple):
    """The jobs that an order has become, and how they were come by."""

    handles: Sequence[JobHandle]
    how: How


class JobDesk:
    """Takes orders, and does what callers want done with their jobs.

    Args:
        tools: what every door has.
        processor: what runs the jobs.
        groups: takes several in at once.
        moving: moves them in line.
        check_webhook: raises `InvalidInput` for an address that may not be told.
        deliveries: what became of telling others.

    """

    def __init__(
        self,
        tools: Tools,
        processor: Processor,
        groups: Groups,
        moving: Moving,
        *,
        check_webhook: Callable[[str], object],
        deliveries: Deliveries,
    ) -> None:
        self.tools = tools
        self.processor = processor
        self._groups = groups
        self._moving = moving
        self._check_webhook = check_webhook
        self._deliveries = deliveries

    async def submit(self, order: Order, wishes: Wishes, size: int) -> Accepted:
        """Take an order in: what it asks for is kept when this returns.

        Args:
            order: what is asked for.
            wishes: what the headers say; the order itself counts more.
            size: how many bytes the order had.

        Raises:
            InferenceManagerError: as `Tools.take`; none of it was then taken in.

        """
        for _, webhook in order.requests:
            if webhook:
                self._check_webhook(webhook)
        level = wishes.level if order.level is None else order.level
        given = [s for s in (order.deadline_s, wishes.deadline_s) if s is not None]
        deadline_s = min(given, default=None)
        if order.together:
            return await self._together(order, level, deadline_s, wishes.key, size)
        request, webhook = order.requests[0]
        taken = await self.tools.take(
            request,
            level=level,
            deadline_s=deadline_s,
            key=wishes.key,
            promise=Promise(webhook=webhook),
        )
        await self.tools.promise(taken.handle)  # it may be another one that was under way
        return Accepted([taken.handle], taken.how)

    async def _together(
        self, order: Order, level: Level, deadline_s: float | None, key: str | None, size: int
    ) -> Accepted:
        fingerprint = "" if key is None else await aside(size, lambda: _fingerprint(order))
        prepared = await self._prepared(order)
        try:
            handles, found = await self._groups.submit(
                prepared,
                caller=current_caller(),
                level=level,
                deadline_s=deadline_s,
                key=key,
                fingerprint=fingerprint,
            )
        except Exception:  # a caller that only leaves does not keep them from being taken in
            await self._drop(prepared)
            raise
        if found:
            await self._drop(prepared)
        return Accepted(handles, "repeated" if found else "new")

    async def _prepared(self, order: Order) -> list[tuple[InferenceRequest, str]]:
        """Check what the requests bring along; an error says which one it is about."""
        prepared: list[tuple[InferenceRequest, str]] = []
        try:
            for number, (request, webhook) in enumerate(order.requests):
                with of_number(number):
                    prepared.append((await self.tools.prepared(request), webhook))
        except BaseException:
            await self._drop(prepared)
            raise
        return prepared

    async def _drop(self, prepared: Sequence[tuple[InferenceRequest, str]]) -> None:
        await self.tools.blobs.drop([b for request, _ in prepared for b in request.blobs])

    # One job

    def report(self, job: Job, base_url: str, *, estimate: bool = True) -> JobReport:
        """Tell all of a job."""
        return report(self.tools, self.processor, job, base_url, estimate=estimate)

    async def webhook(self, job: Job) -> WebhookView | None:
        """Tell what became of telling that a job has ended; None if nobody is to be told."""
        if job.promise is None or not (job.promise.webhook and job.state.terminal):
            return None
        told = await self._deliveries.of(job.id)
        return None if told is None else webhook_view(told)

    async def forget(self, job_id: str) -> None:
        """Forget a job that has ended, with all that it made.

        Raises:
            UnknownJob: the present caller has no such job.
            InvalidTransition: it has not ended.

        """
        job = (await self.tools.handle(job_id)).job
        if not job.state.terminal or not await self.processor.store.delete(job_id):
            raise InvalidTransition(
                f"a job that is {job.state} cannot be forgotten",
                hint="cancel it first; one whose batch is being worked on is still needed",
            )

    async def run_again(self, job_id: str, key: str | None) -> Taken:
        """Submit what an ended job asked for once more, with a key only once.

        Raises:
            InvalidInput: the key is none.
            IdempotencyConflict: the key was used for something else.
            InferenceManagerError: as `retrying.run_again`.

        """
        job = (await self.tools.handle(job_id)).job
        again = partial(run_again, self.processor, self.tools.blobs, job)
        if key is None:
            return Taken(await again(), "new")
        return await self.tools.once(again, key=key, fingerprint=f"retry {job_id}")

    async def move(self, job_id: str, level: Level | None, target: Target | None) -> Job:
        """Move a waiting job of the present caller; raises as `Moving.move`."""
        await self.tools.handle(job_id)
        return await self._moving.move(job_id, level=level, target=target)

    # Several

    async def page(self, query: JobQuery) -> Page:
        """Return some jobs, the newest first."""
        return await self.processor.store.list(query)


def _fingerprint(order: Order) -> str:
    """Return what is the same for the same requests and webhooks in the same order."""
    digest = sha256()
    for request, webhook in order.requests:
        digest.update(f"{request.modality} {webhook} {request.model_dump_json()}\n".encode())
    return digest.hexdigest()
