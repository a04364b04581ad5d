"""Sharing: a request may be answered by a job that exists already.

There are three reasons: its caller gave it a key and sends it again; the same is under way; the
same was answered, and its job is still kept. All three end in the handle of that job.
"""

import asyncio
from binascii import a2b_base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakValueDictionary

from .handles import JobHandle
from .models.blobs import Blob
from .models.errors import IdempotencyConflict, InferenceManagerError, UnknownJob
from .models.events import Ended, Event
from .models.fingerprints import fingerprint, media_texts, repeatable
from .models.jobs import JobState, Level, Promise
from .models.ports import Blobs
from .models.requests import InferenceRequest
from .models.sharing import AnswerIndex, UnderWay, check_key
from .processor import Processor

_AT_ONCE = 65_536
"""So many bytes are hashed at once; more of them in a thread."""


How = Literal["new", "repeated", "merged", "cached"]


@dataclass(frozen=True, slots=True)
class Taken:
    """The job that answers a request, and why it does.

    Attributes:
        how: `new`: it was made for this request; `repeated`: it has the same key; `merged`: it
            was under way; `cached`: it had ended.

    """

    handle: JobHandle
    how: How


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request and how it was asked."""

    request: InferenceRequest
    caller: str
    level: Level
    deadline_s: float | None
    promise: Promise | None


class Sharing:
    """Takes requests in, and knows which jobs answer them and who is interested in those.

    It must hear the processor's events.

    Args:
        processor: what runs new jobs.
        blobs: where the pictures and recordings of requests are.
        merge: whether a request may be answered by the same one that is under way. It joins jobs
            of its own level, if neither has a deadline of its own.
        cache_bytes: how much the results may hold that answer later requests.

    """

    def __init__(
        self, processor: Processor, blobs: Blobs, *, merge: bool, cache_bytes: int
    ) -> None:
        self._processor = processor
        self._blobs = blobs
        self._merge = merge
        self._on = merge or cache_bytes > 0
        self._answers = AnswerIndex(cache_bytes)
        self._under_way = UnderWay()
        self._fingerprints: dict[str, str] = {}
        """Of live jobs whose answers are worth remembering."""
        self._others: dict[str, int] = {}
        """How many are interested in a live job, besides one."""
        self._left: set[str] = set()
        """The live jobs in which nobody is."""
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Sharing [{len(self._under_way)} under way]>"

    def __call__(self, event: Event) -> None:
        """Listen."""
        if not isinstance(event, Ended):
            return
        job = event.job
        self._others.pop(job.id, None)
        self._left.discard(job.id)
        self._under_way.ended(job.id)
        name = self._fingerprints.pop(job.id, None)
        if name is not None and job.result is not None:
            self._answers.remember(name, job.id, job.result.size_bytes)

    async def submit(
        self,
        request: InferenceRequest,
        *,
        caller: str = "anonymous",
        level: Level = Level.NORMAL,
        deadline_s: float | None = None,
        key: str | None = None,
        promise: Promise | None = None,
    ) -> Taken:
        """Take a request in, or find the job that answers it; its blobs are then dropped.

        A key that stands for a job that failed or expired is as good as new.

        Args:
            request: what to do, its pictures checked by `attachments.prepare`.
            caller: who asks.
            level: the job's place inside its modality.
            deadline_s: seconds from now after which nobody wants the result.
            key: the same for the same request of the caller, if it is sent again; with one, the
                job is promised.
            promise: what else is promised.

        Raises:
            InvalidInput: the key is none.
            IdempotencyConflict: the key was used for another request.
            InferenceManagerError: as `Processor.submit`.

        """
        asked = _Asked(
            request=request, caller=caller, level=level, deadline_s=deadline_s, promise=promise
        )
        told = promise is not None and promise.webhook  # of the end of this very job
        resolved = None if told else self._resolved(request)
        if key is None and resolved is None:
            return await self._new(asked)
        digests = await self._digests(request)
        name = None if resolved is None else await _fingerprint(*resolved, caller, digests)
        if key is None:
            taken = await self._found_or_new(asked, name)
        else:
            taken = await self._repeated_or_new(asked, key, name, digests)
        if taken.how != "new":
            try:
                await self._blobs.drop(request.blobs)
            except BaseException:
                await self.leave(taken.handle)
                raise
        return taken

    async def once(
        self,
        make: Callable[[Promise], Awaitable[JobHandle]],
        *,
        caller: str,
        key: str,
        fingerprint: str,
    ) -> Taken:
        """Make a job with a key, or find the one that it stands for; raises as `submit`.

        Args:
            make: makes the job, with what is promised of it.
            caller: who asks.
            key: the same if the same is asked again.
            fingerprint: what is asked.

        """
        async with self._turn(f"key {caller} {key}"):
            if (handle := await self._bound(caller, key, fingerprint)) is not None:
                return Taken(handle, "repeated")
            return Taken(await make(Promise(key=key, fingerprint=fingerprint)), "new")

    async def leave(self, handle: JobHandle) -> None:
        """Withdraw the interest of one caller, once; a plain job that nobody wants is cancelled."""
        if handle.job.state.terminal or handle.job.promise is not None:
            return
        others = self._others.get(handle.id, 0)
        if others:
            self._others[handle.id] = others - 1
            return
        self._left.add(handle.id)
        await self._processor.cancel(handle.id)

    def _resolved(self, request: InferenceRequest) -> tuple[InferenceRequest, str] | None:
        """Return the request as it will be run, and its model, if its answer may be shared."""
        catalog = self._processor.catalog
        if not self._on or not catalog.known:
            return None
        try:
            model = catalog.resolve(request)
            request = catalog.with_defaults(request, model or "")
        except InferenceManagerError:
            return None  # which the processor will say
        return (request, model or "") if repeatable(request) else None

    async def _repeated_or_new(
        self, asked: _Asked, key: str, name: str | None, digests: Mapping[str, str]
    ) -> Taken:
        """Find the job of a key; the model is left as it was named: the default may change."""
        request, caller = asked.request, asked.caller
        sent = await _fingerprint(request, request.model or "", caller, digests)
        if asked.promise is not None and asked.promise.webhook:  # whoever asks is to be told
            sent = f"{sent} {asked.promise.webhook}"
        async with self._turn(f"key {caller} {key}"):
            if (handle := await self._bound(caller, key, sent)) is not None:
                return Taken(handle, "repeated")
            promise = replace(asked.promise or Promise(), key=key, fingerprint=sent)
            taken = await self._found_or_new(replace(asked, promise=promise), name)
            if taken.how != "new":
                await self._processor.promise(taken.handle)
                await self._processor.store.bind(caller, key, sent, taken.handle.id)
            return taken

    async def _bound(self, caller: str, key: str, sent: str) -> JobHandle | None:
        """Return the job for which a key stands; None for none, or one that failed or expired.

        Whoever cancelled a job does not want it again, but whoever saw it fail may.
        """
        check_key(key)
        bound = await self._processor.store.find(caller, key)
        if bound is None:
            return None
        fingerprint, job_id = bound
        if fingerprint != sent:
            raise IdempotencyConflict(
                "this Idempotency-Key was used for another request",
                hint="send a new key with a new request",
            )
        return await self._joined(job_id, even=JobState.CANCELLED)

    async def _found_or_new(self, asked: _Asked, name: str | None) -> Taken:
        """Find the job of the same request, if it has a name."""
        if name is None:
            return await self._new(asked)
        async with self._turn(name):
            answered = self._answers.find(name)
            if answered is not None and (handle := await self._joined(answered)) is not None:
                return Taken(handle, "cached")
            lane = f"{asked.level} {name}"
            merges = self._merge and asked.deadline_s is None
            running = self._under_way.running(lane) if merges else None
            if running is not None and (handle := await self._joined(running)) is not None:
                return Taken(handle, "merged")
            taken = await self._new(asked)
            self._fingerprints[taken.handle.id] = name
            if merges:
                self._under_way.began(lane, taken.handle.id)
            return taken

    async def _new(self, asked: _Asked) -> Taken:
        handle = await self._processor.submit(
            asked.request,
            caller=asked.caller,
            level=asked.level,
            deadline_s=asked.deadline_s,
            promise=asked.promise,
        )
        return Taken(handle, "new")

    async def _joined(self, job_id: str, *, even: JobState | None = None) -> JobHandle | None:
        """Take an interest in a job; None if it has ended without a result, `even` apart."""
        try:
            handle = await self._processor.handle(job_id)
        except UnknownJob:
            return None
        if handle.job.state.terminal:
            answers = handle.job.result is not None or handle.job.state is even
            return handle if answers else None
        if job_id in self._left:
            return None
        self._join(handle)
        return handle

    def _join(self, handle: JobHandle) -> None:
        self._others[handle.id] = self._others.get(handle.id, 0) + 1

    def _turn(self, name: str) -> asyncio.Lock:
        """Return what to hold from looking for a job until it can be found: one makes it."""
        turn = self._turns.get(name)
        if turn is None:
            turn = self._turns[name] = asyncio.Lock()
        return turn

    async def _digests(self, request: InferenceRequest) -> Mapping[str, str]:
        return {text: await self._digest(text) for text in media_texts(request)}

    async def _digest(self, text: str) -> str:
        blob = Blob.referred_to(text)
        content = a2b_base64(text.rpartition(",")[2]) if blob is None else blob
        return await self._blobs.digest(content)


async def _fingerprint(
    request: InferenceRequest, model: str, caller: str, digests: Mapping[str, str]
) -> str:
    if request.size_bytes <= _AT_ONCE:
        return fingerprint(request, caller=caller, model=model, digests=digests)
    return await asyncio.to_thread(
        fingerprint, request, caller=caller, model=model, digests=digests
    )
