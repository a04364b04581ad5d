"""Deliveries: from the outbox to a receiver, hours of them in virtual time, over real sockets."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from standardwebhooks import Webhook

from src.models.errors import StorageFailed
from src.models.events import Ended
from src.models.jobs import Job, Promise
from src.models.results import Result
from src.models.webhooks import WebhookRules
from src.utils.stores.database import Database
from src.utils.stores.deliveries import Deliveries, DeliveryState, Report, outbox
from src.utils.webhook_client import WebhookClient
from src.webhooks import Webhooks

from . import virtual_time
from .models.making import job
from .utils.raw_server import Act, RawServer, Script, raw_server, reply

start = 0.0
"""When the present test began."""

OLD, NEW = bytes(24), bytes(range(32))
RULES = WebhookRules(keys=[NEW, OLD], allow_http=True, allow_private=True)
FINE = (reply(204),)
BROKEN = (reply(500),)


@pytest.fixture(autouse=True)
def _begin() -> None:
    global start
    start = time.time()


def now() -> float:
    return start + virtual_time.here().time()


async def at_home(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


class Scene:
    """An outbox, a receiver, and what delivers from the one to the other."""

    def __init__(self, database: Database, server: RawServer) -> None:
        self.database = database
        self.server = server
        self.deliveries = Deliveries(database)
        self.port = server.url.rpartition(":")[2]

    @asynccontextmanager
    async def delivering(self) -> AsyncGenerator[Webhooks]:
        client = WebhookClient(RULES, clock=now, resolve=at_home)
        webhooks = Webhooks(self.deliveries, client, rules=RULES, clock=now, chance=lambda: 0.5)
        async with webhooks.running():
            yield webhooks

    async def end(self, name: str = "job-1", *, host: str = "hooks.example", path: str = "") -> Job:
        """Let a job end whose caller wants to be told."""
        promise = Promise(webhook=f"http://{host}:{self.port}/{path}")
        begun = job(id=name, promise=promise, submitted_at=now()).started("gpu", now())
        ended = begun.completed(Result(text="secret"), now())
        await self.database.write(*outbox("https://queue.example")(ended))
        return ended

    async def report(self, name: str = "job-1") -> Report:
        report = await self.deliveries.of(name)
        assert report is not None
        return report

    async def until(self, state: DeliveryState, name: str = "job-1") -> Report:
        async with asyncio.timeout(30 * 86_400):
            while (report := await self.report(name)).state is not state:  # noqa: ASYNC110
                await asyncio.sleep(1 if len(self.server.heard) < 2 else 60)
        return report


@asynccontextmanager
async def scene(*scripts: Script, routes: dict[str, Script] | None = None) -> AsyncGenerator[Scene]:
    database = Database(":memory:")
    await database.open()
    try:
        async with raw_server(*scripts, routes=routes) as server:
            yield Scene(database, server)
    finally:
        await database.close()


def played(main: Coroutine[Any, Any, None]) -> None:
    virtual_time.run(main)


def test_the_end_of_a_job_is_told_at_once_and_signed_with_every_secret() -> None:
    async def main() -> None:
        async with scene(FINE) as it, it.delivering() as webhooks:
            await asyncio.sleep(100)
            ended = await it.end()
            webhooks(Ended(ended))
            report = await it.until(DeliveryState.DELIVERED)

        (request,) = it.server.heard
        headers = {
            name: request.header(name) or ""
            for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
        }
        told = json.loads(request.body)
        assert headers["webhook-id"] == f"job-1:{ended.version}"
        assert int(headers["webhook-timestamp"]) == int(start + 100)
        assert datetime.fromisoformat(told["timestamp"]).timestamp() == pytest.approx(
            start + 100, abs=1
        )
        assert told["data"]["links"] == {"job": "https://queue.example/jobs/job-1"}
        assert b"secret" not in request.body
        for key in (OLD, NEW):
            verified = Webhook(base64.b64encode(key).decode()).verify(request.body, headers)
            assert verified == told
        assert (report.tries, report.said, report.next_at) == (1, "answered 204", None)

    played(main())


def test_a_receiver_that_fails_is_told_again_under_the_same_name_five_times_in_hours() -> None:
    async def main() -> None:
        async with scene(BROKEN) as it, it.delivering():
            await it.end()
            report = await it.until(DeliveryState.GIVEN_UP)

        ids = {request.header("webhook-id") for request in it.server.heard}
        times = [int(request.header("webhook-timestamp") or 0) for request in it.server.heard]
        waits = [later - earlier for earlier, later in pairwise(times)]
        assert len(ids) == 1
        assert waits == pytest.approx([5, 300, 1800, 7200], abs=3)
        assert (report.tries, report.said, report.next_at) == (5, "answered 500", None)

    played(main())


def test_a_receiver_that_is_well_again_is_told() -> None:
    async def main() -> None:
        async with scene((Act.RESET,), BROKEN, FINE) as it, it.delivering():
            await it.end()
            report = await it.until(DeliveryState.DELIVERED)

        assert report.tries == 3

    played(main())


def test_a_receiver_that_is_gone_is_not_told_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with scene((reply(410),)) as it, it.delivering():
            await it.end(path="?token=canary")
            report = await it.until(DeliveryState.GIVEN_UP)

        assert (report.tries, report.said) == (1, "answered 410")

    with caplog.at_level(logging.WARNING):
        played(main())

    assert "gave up telling hooks.example of a job's end: answered 410" in caplog.text
    assert "canary" not in caplog.text


def test_a_receiver_may_ask_for_a_longer_wait() -> None:
    async def main() -> None:
        async with scene((reply(503, retry_after="200"),), FINE) as it, it.delivering():
            await it.end()
            await it.until(DeliveryState.DELIVERED)

        first, second = (int(r.header("webhook-timestamp") or 0) for r in it.server.heard)
        assert second - first == pytest.approx(200, abs=3)

    played(main())


def test_what_was_not_told_is_told_after_a_restart() -> None:
    async def main() -> None:
        never = asyncio.Event()
        async with scene((never,), FINE) as it:
            await it.end()
            async with it.delivering():
                await it.server.asked.wait()
            assert (await it.report()).state is DeliveryState.WAITING
            async with it.delivering():
                report = await it.until(DeliveryState.DELIVERED)

        assert report.tries == 2
        assert len({request.header("webhook-id") for request in it.server.heard}) == 1

    played(main())


def test_a_host_that_does_not_answer_holds_up_no_other() -> None:
    async def main() -> None:
        slow: Script = (Act.HANG,)
        async with scene(FINE, routes={"/slow": slow}) as it, it.delivering():
            for number in range(20):
                await it.end(f"slow-{number}", host="slow.example", path="slow")
            await asyncio.sleep(1)
            begin = now()
            await it.end("quick", host="quick.example")
            await it.until(DeliveryState.DELIVERED, "quick")
            assert now() - begin < 40

            assert [r.path for r in it.server.heard].count("/slow") <= 4

    played(main())


def test_a_host_that_keeps_failing_is_left_alone_and_no_try_counts_meanwhile() -> None:
    async def main() -> None:
        async with scene(*[BROKEN] * 5, FINE) as it, it.delivering():
            for number in range(50):
                await it.end(f"job-{number}")
            await asyncio.sleep(30)
            tried = len(it.server.heard)
            for number in range(50):
                await it.until(DeliveryState.DELIVERED, f"job-{number}")
            tries = [(await it.report(f"job-{number}")).tries for number in range(50)]

        assert tried == 5
        assert sum(tries) == len(it.server.heard) == 55
        assert max(tries) <= 2

    played(main())


def test_what_could_not_be_told_for_a_day_is_given_up() -> None:
    async def main() -> None:
        async with scene(FINE) as it:
            await it.end()
            await asyncio.sleep(86_401)
            async with it.delivering():
                report = await it.until(DeliveryState.GIVEN_UP)

        assert not it.server.heard
        assert report.next_at is None

    played(main())


def test_what_was_over_a_week_ago_is_forgotten() -> None:
    async def main() -> None:
        async with scene(FINE) as it, it.delivering():
            await it.end()
            await it.until(DeliveryState.DELIVERED)
            await asyncio.sleep(6 * 86_400)
            assert await it.deliveries.of("job-1") is not None
            await asyncio.sleep(86_400 + 3600 + 60)

            assert await it.deliveries.of("job-1") is None

    played(main())


def test_a_store_that_fails_stops_deliveries_until_it_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with scene(FINE) as it:
            await it.end()
            write = it.database.write
            broken = True

            async def fail(*statements: Any, **named: Any) -> Any:
                if broken:
                    raise StorageFailed("the disk is full")
                return await write(*statements, **named)

            monkeypatch.setattr(it.database, "write", fail)
            async with it.delivering():
                await asyncio.sleep(600)
                assert not it.server.heard
                broken = False
                await it.until(DeliveryState.DELIVERED)

        assert len(it.server.heard) == 1

    played(main())


def test_the_end_of_a_job_of_which_nobody_is_told_writes_nothing() -> None:
    ended = job(promise=Promise()).cancelled(start)

    assert outbox()(ended) == ()
    assert outbox()(job().cancelled(start)) == ()
