"""Tells those who asked for it that their jobs have ended: takes what is due from the outbox.

What is to be told was written along with the job's end, so nothing is forgotten: not by a crash,
and not by a receiver that is away. It may be told twice. A host is told one thing at a time, and a
few hosts at once; nothing else waits for any of this.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from .models.breaker import Breaker, BreakerRules, Trouble
from .models.errors import StorageFailed
from .models.events import Ended, Event
from .models.ports import Clock
from .models.webhooks import WebhookRules, next_try, signed
from .utils.stores.deliveries import Deliveries, Delivery, DeliveryState
from .utils.webhook_client import Heard, WebhookClient

logger = logging.getLogger("inference_manager.webhooks")

_HOSTS_AT_ONCE = 4
_PATIENCE = BreakerRules(unreached=3, refused=5, base_s=60, cap_s=900, forgive_s=3600)
_HOSTS_KNOWN = 1000  # of those that fail
_LONGEST_S = 86_400.0  # after which a delivery is given up, however few tries it had
_KEPT_S = 7 * 86_400.0
_FORGET_S = 3600.0
_CLAIM_S = 60.0  # after which what was begun is tried again, if nobody noted how it went
_LOOK_S = 300.0
_STORE_S = 5.0
_LAST_WORDS_S = 1.0
_GONE = 410


@dataclass(slots=True)
class _Host:
    """A host that fails: until when it is left alone, if it is."""

    breaker: Breaker = field(default_factory=lambda: Breaker(_PATIENCE))
    until: float = 0.0


class Webhooks:
    """Delivers what is in the outbox.

    Args:
        deliveries: the outbox.
        client: sends.
        rules: what is signed with which keys.
        clock: the application's.
        chance: random numbers from 0 to 1.

    """

    def __init__(
        self,
        deliveries: Deliveries,
        client: WebhookClient,
        *,
        rules: WebhookRules,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._deliveries = deliveries
        self._client = client
        self._rules = rules
        self._clock = clock
        self._chance = chance
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._failing: OrderedDict[str, _Host] = OrderedDict()
        self._forgot_at = 0.0
        self._wake = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Webhooks [telling {len(self._busy)} hosts, {len(self._failing)} fail]>"

    def __call__(self, event: Event) -> None:
        """Look at once when a job has ended of which somebody wants to be told."""
        if isinstance(event, Ended) and event.job.promise and event.job.promise.webhook:
            self.wake()

    def wake(self) -> None:
        """Look again now."""
        self._wake.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Deliver for as long as the block lasts; what was not told then is told the next time.

        Without a key nothing is delivered; what is in the outbox stays there.
        """
        if not self._rules.keys:
            yield
            return
        await asyncio.to_thread(self._client.prepare)
        loop = asyncio.create_task(self._run(), name="webhooks")
        try:
            yield
        finally:
            loop.cancel()
            await asyncio.wait([loop])
            if self._busy:
                await asyncio.wait(self._busy.values(), timeout=_LAST_WORDS_S)
            if telling := list(self._busy.values()):
                for task in telling:
                    task.cancel()
                await asyncio.wait(telling)
            await self._client.close()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                seconds = await self._begin()
            except Exception as error:
                if not isinstance(error, StorageFailed):
                    logger.exception("webhooks stumbled and go on")
                seconds = _STORE_S
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    async def _begin(self) -> float:
        """Begin to tell what is due; return for how many seconds nothing else is to be done."""
        await self._forget()
        while len(self._busy) < _HOSTS_AT_ONCE:
            first = await self._deliveries.first(self._busy)
            now = self._clock()
            if first is None:
                break
            host = self._failing.get(first.host)
            if first.next_at > now:
                return min(first.next_at - now, _LOOK_S)
            if now - first.created_at > _LONGEST_S:
                await self._give_up(first, first.said, now)
            elif host is not None and host.until > now:
                await self._deliveries.postpone(first.host, host.until)
            else:
                claimed = await self._deliveries.claim(first, now, until=now + _CLAIM_S)
                self._busy[first.host] = asyncio.create_task(self._tell(claimed))
        return _LOOK_S

    async def _tell(self, delivery: Delivery) -> None:
        """Tell something once, and note what came of it."""
        try:
            now = self._clock()
            headers = signed(self._rules.keys, delivery.id, int(now), delivery.body)
            heard = await self._client.post(delivery.url, delivery.body, headers)
            await self._note(delivery, heard, began=now)
        except Exception:
            logger.exception("a webhook could not be dealt with", extra={"job_id": delivery.job_id})
        finally:
            del self._busy[delivery.host]
            self.wake()

    async def _note(self, delivery: Delivery, heard: Heard, *, began: float) -> None:
        now, status = self._clock(), heard.status
        if status is not None and 200 <= status < 300:
            self._failing.pop(delivery.host, None)
            await self._deliveries.settle(delivery, DeliveryState.DELIVERED, heard.said, now)
            return
        wait = next_try(delivery.tries, chance=self._chance(), asked=heard.retry_after)
        if wait is None or status == _GONE:
            await self._give_up(delivery, heard.said, now)
        else:
            await self._deliveries.settle(
                delivery, DeliveryState.WAITING, heard.said, now, next_at=now + wait
            )
        if status is None or status >= 500:
            self._failed(delivery.host, status, now, began)

    async def _give_up(self, delivery: Delivery, said: str, now: float) -> None:
        await self._deliveries.settle(delivery, DeliveryState.GIVEN_UP, said, now)
        job_id = delivery.job_id
        logger.warning(
            "gave up telling %s of a job's end: %s", delivery.host, said, extra={"job_id": job_id}
        )

    def _failed(self, name: str, status: int | None, now: float, began: float) -> None:
        """Note that a host failed; one that keeps failing is left alone for a while."""
        host = self._failing.setdefault(name, _Host())
        self._failing.move_to_end(name)
        trouble = Trouble.UNREACHED if status is None else Trouble.REFUSED
        until = host.breaker.failed(trouble, now, began=began)
        if until is not None:
            host.until = until
        while len(self._failing) > _HOSTS_KNOWN:
            self._failing.popitem(last=False)

    async def _forget(self) -> None:
        """Forget what was over long ago, once in a while."""
        now = self._clock()
        if now - self._forgot_at >= _FORGET_S:
            self._forgot_at = now
            await self._deliveries.forget(now - _KEPT_S)
