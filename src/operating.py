"""What operators do to the queue: each change is kept, and written to the audit log."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from .models.controls import EVERYTHING, Controls, Scope, Switched
from .models.errors import InferenceManagerError, InvalidInput, Refused, StorageFailed
from .models.jobs import JobQuery, JobState
from .models.ports import Blobs, Clock
from .processor import Processor
from .reading import BadSettings
from .reload import Changes, Reload
from .retrying import run_again
from .utils.stores.audit import Audit, Facts, Record
from .utils.stores.controls import KeptControls

logger = logging.getLogger("inference_manager.operating")

ENDED = frozenset(state for state in JobState if state.terminal)
FAILED = frozenset({JobState.FAILED})
NOTHING: Facts = MappingProxyType({})

_PAGE = 200
_BATCH = "batch_"
"""What the names of batches begin with; their lines are answered in files of theirs."""


@dataclass(slots=True, kw_only=True)
class Again:
    """What became of an attempt to carry failed jobs out once more.

    Attributes:
        found: how many jobs were meant, those left out included.
        new: the new jobs by the old ones; the new one is empty if it was only asked what would be.
        before: how many were left out since they had been carried out once more before.
        refused: those that cannot be carried out once more, and why.
        ended_by: why the rest was left, if it was.

    """

    found: int = 0
    new: dict[str, str] = field(default_factory=dict[str, str])
    before: int = 0
    refused: dict[str, InferenceManagerError] = field(
        default_factory=dict[str, InferenceManagerError]
    )
    ended_by: InferenceManagerError | None = None


class Operating:
    """Carries out what an operator asks for, one thing after the other.

    Every action but a look raises `StorageFailed` if it cannot be kept; then it did not happen.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        blobs: Blobs,
        kept: KeptControls,
        audit: Audit,
        reload: Reload[Any],
        clock: Clock,
    ) -> None:
        self._processor = processor
        self._blobs = blobs
        self._kept = kept
        self._audit = audit
        self._reload = reload
        self._clock = clock
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Operating [{self.controls}]>"

    @property
    def controls(self) -> Controls:
        """What is switched now."""
        return self._processor.scheduler.controls

    async def open(self) -> None:
        """Switch everything as it was, before anything is started."""
        self._processor.scheduler.control(await self._kept.read())

    # Switches

    async def pause(self, scope: Scope, by: str) -> Controls:
        """Hold jobs back; raises `InvalidInput` if as much is paused as may be."""
        return await self._switch(
            "pause", by, lambda controls: controls.pause(scope, self._by(by)), scope
        )

    async def resume(self, scope: Scope, by: str) -> Controls:
        """Hold jobs back no longer; everything: lift every pause."""
        return await self._switch("resume", by, lambda controls: controls.resume(scope), scope)

    async def stop(self, by: str) -> Controls:
        """Start and load nothing any more; what runs goes on."""
        return await self._switch(
            "stop", by, lambda now: replace(now, stopped=now.stopped or self._by(by))
        )

    async def start(self, by: str) -> Controls:
        """Start and load again."""
        return await self._switch("start", by, lambda now: replace(now, stopped=None))

    async def drain(self, by: str) -> Controls:
        """Take no new work in; what waits and runs goes on."""
        return await self._switch(
            "drain", by, lambda now: replace(now, draining=now.draining or self._by(by))
        )

    async def undrain(self, by: str) -> Controls:
        """Take work in again."""
        return await self._switch("undrain", by, lambda now: replace(now, draining=None))

    async def _switch(
        self,
        action: str,
        by: str,
        change: Callable[[Controls], Controls],
        scope: Scope = EVERYTHING,
    ) -> Controls:
        async with self._turn:
            before = self.controls
            after = change(before)
            if after == before:
                return after
            record = self._record(
                action,
                by,
                {} if scope == EVERYTHING else {scope.kind: scope.name},
                before=_differing(before, after),
                after=_differing(after, before),
            )
            await self._kept.write(after, *self._audit.statements(record))
            self._processor.scheduler.control(after)
            self._processor.wake()
            return after

    def _by(self, by: str) -> Switched:
        return Switched(self._clock(), by)

    # Jobs that have ended

    async def purge(self, which: JobQuery, by: str, *, dry_run: bool = False) -> int:
        """Forget ended jobs, the oldest first, but no lines of batches; return how many.

        `which.limit` is how many at most; none that waits or runs is among them.
        """
        which = _of_ended(which, ENDED)
        async with self._turn:
            chosen = [job_id async for page in self._pages(which) for job_id in page]
            chosen = chosen[-which.limit :]
            if dry_run:
                return len(chosen)
            number = await self._begun("purge", by, which)
            forgotten = 0
            try:
                for at in range(0, len(chosen), _PAGE):
                    forgotten += await self._processor.store.delete(*chosen[at : at + _PAGE])
            finally:
                await self._done(number, {"jobs": forgotten})
            return forgotten

    async def retry(self, which: JobQuery, by: str, *, dry_run: bool = False) -> Again:
        """Carry ended jobs out once more, the oldest first, but no lines of batches.

        `which.limit` is how many at most. A job is repeated once: its repetition may be repeated
        again. Stops early, and says why, where no more jobs are taken in.
        """
        which = _of_ended(which, FAILED)
        again = Again()
        async with self._turn:
            chosen: list[str] = []
            async for page in self._pages(which):
                done = await self._processor.store.repeated(*page)
                again.found += len(page)
                again.before += len(done)
                chosen += [job_id for job_id in page if job_id not in done]
            chosen = chosen[: -which.limit - 1 : -1]
            if dry_run:
                again.new = dict.fromkeys(chosen, "")
                return again
            number = await self._begun("retry", by, which)
            try:
                for job_id in chosen:
                    await self._again(job_id, again)
                    if again.ended_by is not None:
                        break
            finally:
                came = {"jobs": len(again.new), "refused": len(again.refused)}
                await self._done(number, came)
            return again

    async def _again(self, job_id: str, again: Again) -> None:
        try:
            job = await self._processor.store.get(job_id)
            handle = await run_again(self._processor, self._blobs, job)
        except (Refused, StorageFailed) as error:
            again.ended_by = error
        except InferenceManagerError as error:
            again.refused[job_id] = error
        else:
            again.new[job_id] = handle.id

    async def _pages(self, which: JobQuery) -> AsyncGenerator[list[str]]:
        """Yield the ids of jobs, the newest first, but no lines of batches."""
        before: int | None = None
        while True:
            query = replace(which, before=before, limit=_PAGE)
            page = await self._processor.store.list(query)
            yield [job.id for job in page.jobs if not job.batch.startswith(_BATCH)]
            if (before := page.before) is None:
                return

    # Settings

    async def reload(self, by: str) -> Changes[Any]:
        """Read the settings again, put into force what can be, and say what was changed.

        Raises:
            InvalidInput: they are wrong; then everything stays as it was.

        """
        async with self._turn:
            try:
                changes = await self._reload.look()
            except BadSettings as error:
                raise InvalidInput(str(error), param="settings") from error
            if changes.after or changes.restart:
                about = {"restart": list(changes.restart)}
                record = self._record(
                    "reload", by, about, before=changes.before, after=changes.after
                )
                await self._audit.note(record)
                self._reload.apply(changes)
                self._processor.wake()
            return changes

    # The audit log

    async def records(self, *, limit: int, before: int | None = None) -> Sequence[Record]:
        """Return what was done, the latest first; raises `StorageFailed`."""
        return await self._audit.read(limit=limit, before=before)

    def _record(
        self,
        action: str,
        by: str,
        about: Facts,
        *,
        before: Facts = NOTHING,
        after: Facts = NOTHING,
    ) -> Record:
        logger.info(
            "an operator acted", extra={"action": action, "caller": by, "about": dict(about)}
        )
        return Record(
            at=self._clock(), who=by, action=action, about=about, before=before, after=after
        )

    async def _begun(self, action: str, by: str, which: JobQuery) -> int:
        return await self._audit.note(self._record(action, by, _in_words(which)))

    async def _done(self, number: int, came: Facts) -> None:
        """Note what came of an action; it was done, whether that can be written or not."""
        try:
            await self._audit.finish(number, came)
        except StorageFailed:
            logger.exception("the audit log cannot be written")


def _of_ended(which: JobQuery, otherwise: frozenset[JobState]) -> JobQuery:
    """Ask for jobs that have ended, if not for fewer."""
    return replace(which, states=otherwise if which.states is None else which.states & ENDED)


def _differing(one: Controls, other: Controls) -> Facts:
    """Say what is switched otherwise than there."""
    facts: dict[str, object] = {}
    if one.paused != other.paused:
        facts["paused"] = [str(scope) for scope in one.paused if scope not in other.paused]
    if one.stopped != other.stopped:
        facts["stopped"] = one.stopped is not None
    if one.draining != other.draining:
        facts["draining"] = one.draining is not None
    return facts


def _in_words(which: JobQuery) -> Facts:
    """Say which jobs are meant."""
    facts: dict[str, object] = {"states": sorted(which.states or ()), "limit": which.limit}
    for name in ("modality", "model", "caller", "code", "submitted_after", "submitted_before"):
        if (value := getattr(which, name)) is not None:
            facts[name] = value
    return facts
