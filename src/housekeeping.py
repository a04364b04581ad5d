"""Housekeeping: forgets what is over, a little at a time, and keeps the files small."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from .models.errors import StorageFailed
from .models.ports import Clock, JobStore

logger = logging.getLogger("inference_manager.housekeeping")

SLICE = 200


class Housekeeping:
    """Looks every few seconds; at once again while there is more to be done.

    Args:
        store: whose jobs are forgotten when their time or their room is over.
        tidy: keeps the files small.
        clock: says what time is over.
        every_s: between two looks.

    """

    def __init__(
        self,
        store: JobStore,
        *,
        tidy: Callable[[], Awaitable[None]],
        clock: Clock,
        every_s: float = 5.0,
    ) -> None:
        self._store = store
        self._tidy = tidy
        self._clock = clock
        self._every_s = every_s

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep house for as long as the block lasts."""
        task = asyncio.create_task(self._run(), name="housekeeping")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def look(self) -> bool:
        """Forget a slice of what is over; return whether there may be more."""
        forgotten = await self._store.purge(self._clock(), limit=SLICE)
        if forgotten:
            logger.info("forgot jobs that were over", extra={"jobs": forgotten})
        return forgotten == SLICE

    async def _run(self) -> None:
        while True:
            more = False
            try:
                more = await self.look()
                await self._tidy()
            except StorageFailed:
                logger.warning("what is over cannot be forgotten now", exc_info=True)
            except Exception:
                logger.exception("housekeeping failed, and goes on")
            await asyncio.sleep(0.05 if more else self._every_s)
