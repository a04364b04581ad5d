"""What is to be told of the ends of jobs, and what became of that: the outbox of webhooks."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from ...models.jobs import Job
from ...models.webhooks import delivery_id, host_of, told_of
from .database import Database
from .statement import Statement

_ADD = """
INSERT INTO deliveries(id, job_id, host, url, body, state, tries, said, created_at, next_at)
VALUES($1, $2, $3, $4, $5, 'waiting', 0, '', $6, $6)
ON CONFLICT(id) DO NOTHING"""
_FIRST = """
SELECT id, job_id, host, url, body, tries, said, created_at, next_at FROM deliveries
WHERE next_at IS NOT NULL AND host NOT IN ({busy}) ORDER BY next_at, id LIMIT 1"""
_CLAIM = "UPDATE deliveries SET tries = $2, tried_at = $3, next_at = $4 WHERE id = $1"
_SETTLE = """
UPDATE deliveries SET state = $2, said = $3, tried_at = $4, next_at = $5 WHERE id = $1"""
_POSTPONE = "UPDATE deliveries SET next_at = $2 WHERE host = $1 AND next_at < $2"
_FORGET = "DELETE FROM deliveries WHERE next_at IS NULL AND tried_at < $1"
_OF = """
SELECT state, tries, said, tried_at, next_at FROM deliveries
WHERE job_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1"""


class DeliveryState(StrEnum):
    """What became of a delivery."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One thing that is to be told. Times are seconds since 1970.

    Attributes:
        host: whom it is told, as the address names it.
        tries: how many there have been, and `said` what came of the last one.
        next_at: when it is tried again.

    """

    id: str
    job_id: str
    host: str
    url: str
    body: bytes
    tries: int
    said: str
    created_at: float
    next_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the latest delivery of a job; `said` is a status, or why there was none."""

    state: DeliveryState
    tries: int
    said: str
    tried_at: float | None
    next_at: float | None


def outbox(base_url: str = "") -> Callable[[Job], Sequence[Statement]]:
    """Make the function that says what a store writes along with the end of a job.

    `base_url` is what links begin with; see `told_of`.
    """
    base_url = base_url.rstrip("/")

    def statements(job: Job) -> Sequence[Statement]:
        url = "" if job.promise is None else job.promise.webhook
        if not url:
            return ()
        at = job.submitted_at if job.ended_at is None else job.ended_at
        ended = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
        body = told_of(job, ended, base_url).decode()
        return (Statement(_ADD, delivery_id(job), job.id, host_of(url), url, body, at),)

    return statements


class Deliveries:
    """The table `deliveries`. Every method raises `StorageFailed` when it cannot do its work."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def first(self, busy: Collection[str] = ()) -> Delivery | None:
        """Return what is due first, or will be; nothing for hosts that are being told already."""
        places = ", ".join(f"${number}" for number in range(1, len(busy) + 1)) or "''"
        rows = await self._database.read(_FIRST.format(busy=places), *busy)
        if not rows:
            return None
        ((delivery, job, host, url, body, tries, said, created_at, next_at),) = rows
        return Delivery(
            id=delivery,
            job_id=job,
            host=host,
            url=url,
            body=body.encode(),
            tries=tries,
            said=said,
            created_at=created_at,
            next_at=next_at,
        )

    async def claim(self, delivery: Delivery, now: float, *, until: float) -> Delivery:
        """Count a try before it is made; if nobody settles it, there is another after `until`."""
        tries = delivery.tries + 1
        await self._database.write(Statement(_CLAIM, delivery.id, tries, now, until))
        return replace(delivery, tries=tries, next_at=until)

    async def settle(
        self,
        delivery: Delivery,
        state: DeliveryState,
        said: str,
        now: float,
        *,
        next_at: float | None = None,
    ) -> None:
        """Note what came of a try, and when there will be another."""
        await self._database.write(Statement(_SETTLE, delivery.id, state, said, now, next_at))

    async def postpone(self, host: str, until: float) -> None:
        """Leave a host alone for a while; no try is counted."""
        await self._database.write(Statement(_POSTPONE, host, until))

    async def forget(self, before: float) -> None:
        """Forget what was over before a time."""
        await self._database.write(Statement(_FORGET, before))

    async def of(self, job_id: str) -> Report | None:
        """Say what became of the latest delivery of a job; None if there is none."""
        rows = await self._database.read(_OF, job_id)
        if not rows:
            return None
        ((state, tries, said, tried_at, next_at),) = rows
        return Report(
            state=DeliveryState(state), tries=tries, said=said, tried_at=tried_at, next_at=next_at
        )
