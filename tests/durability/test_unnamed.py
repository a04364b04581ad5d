"""A job that is being stored while the models become known is not forgotten in between."""

import asyncio
import threading

from src.models.events import BackendChanged
from src.models.jobs import JobState, Promise
from src.models.ports import OfferedModel
from src.simulator.serve import Simulator
from src.utils.localai_client import LocalAIClient
from src.utils.stores.database import Database
from src.utils.stores.sqlite import SQLiteStore
from tests.managing import FAST, Recorder, chat, processor_for


class Seen(LocalAIClient):
    """A backend whose models are told when somebody says so."""

    def __init__(self, url: str) -> None:
        super().__init__(name="localai", url=url)
        self.may_be_seen = asyncio.Event()

    async def models(self) -> list[OfferedModel]:
        await self.may_be_seen.wait()
        return await super().models()


async def test_a_job_stored_while_the_models_become_known_is_worked_on() -> None:
    may_commit = threading.Event()
    may_commit.set()
    store = SQLiteStore(Database(":memory:", before_commit=lambda: may_commit.wait(10)))
    events = Recorder()
    with Simulator(FAST) as simulator:
        backend = Seen(simulator.url)
        processor = processor_for([backend], store=store, listeners=[events])
        async with asyncio.timeout(20), processor.running():
            may_commit.clear()
            submitting = asyncio.create_task(processor.submit(chat(), promise=Promise()))
            backend.may_be_seen.set()
            await events.until(BackendChanged)
            assert processor.catalog.known
            may_commit.set()

            job = await (await submitting).settled()

    assert job.state is JobState.COMPLETED
