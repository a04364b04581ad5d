"""Groups of jobs that are taken in together: all of them or none, and only once."""

import asyncio
from collections.abc import Callable, Sequence

from .handles import JobHandle
from .models.errors import IdempotencyConflict, UnknownJob
from .models.jobs import JobQuery, Level, Promise
from .models.requests import InferenceRequest
from .models.sharing import check_key
from .processor import Processor


class Groups:
    """Takes groups in, and finds those that were taken in before with the same key.

    Args:
        processor: what runs the jobs.
        new_id: makes the name of a group.

    """

    def __init__(self, processor: Processor, new_id: Callable[[], str]) -> None:
        self._processor = processor
        self._new_id = new_id
        self._turn = asyncio.Lock()

    async def submit(
        self,
        asked: Sequence[tuple[InferenceRequest, str]],
        *,
        caller: str,
        level: Level = Level.NORMAL,
        deadline_s: float | None = None,
        key: str | None = None,
        fingerprint: str = "",
    ) -> tuple[list[JobHandle], bool]:
        """Take requests in, or find those of the same key; say whether they were found.

        Args:
            asked: the requests, each with the address of its webhook or an empty text.
            caller: who asks.
            level: their place inside their modalities.
            deadline_s: seconds from now after which nobody wants the results.
            key: the same for the same requests of the caller, if they are sent again.
            fingerprint: the same for the same requests, with a key.

        Raises:
            InvalidInput: the key is none.
            IdempotencyConflict: it was used for something else.
            InferenceManagerError: as `Processor.submit_all`.

        """
        if key is None:
            return await self._new(asked, caller, level, deadline_s, Promise()), False
        check_key(key)
        async with self._turn:
            found = await self._found(caller, key, fingerprint)
            if found:
                return found, True
            first = Promise(key=key, fingerprint=fingerprint)
            return await self._new(asked, caller, level, deadline_s, first), False

    async def _new(
        self,
        asked: Sequence[tuple[InferenceRequest, str]],
        caller: str,
        level: Level,
        deadline_s: float | None,
        first: Promise,
    ) -> list[JobHandle]:
        name = f"group-{self._new_id()}"
        promises = [
            Promise(
                key="" if number else first.key,
                fingerprint="" if number else first.fingerprint,
                batch=name,
                line=number,
                webhook=webhook,
            )
            for number, (_, webhook) in enumerate(asked)
        ]
        return await self._processor.submit_all(
            [(request, promise) for (request, _), promise in zip(asked, promises, strict=True)],
            caller=caller,
            level=level,
            deadline_s=deadline_s,
        )

    async def _found(self, caller: str, key: str, fingerprint: str) -> list[JobHandle]:
        """Return the jobs of a key, in their order, but for those that were forgotten."""
        store = self._processor.store
        bound = await store.find(caller, key)
        if bound is None:
            return []
        sent, job_id = bound
        if sent != fingerprint:
            raise IdempotencyConflict(
                "this Idempotency-Key was used for another request",
                hint="send a new key with a new request",
            )
        first = await self._handle(job_id)
        if first is None or first.job.promise is None:
            return []
        query = JobQuery(caller=caller, batch=first.job.promise.batch, limit=10_000)
        page = await store.list(query)
        handles = [await self._handle(summary.id) for summary in reversed(page.jobs)]
        return [handle for handle in handles if handle is not None]

    async def _handle(self, job_id: str) -> JobHandle | None:
        """Return the handle of a job; None if it was forgotten."""
        try:
            return await self._processor.handle(job_id)
        except UnknownJob:
            return None
