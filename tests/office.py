"""A small world around the runner of batches: jobs end when the test wants, and processes die.

What is kept outlives a process: the database, the files and the jobs. A process dies at a chosen
moment by doing nothing any more.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from src.batch_questions import Answer, Question
from src.batches import BatchRunner
from src.models.batches import Batch, StoredFile
from src.models.errors import InferenceManagerError, InvalidInput, UnknownJob
from src.models.events import Ended, Listener
from src.models.jobs import Job, JobQuery, JobState, Level, Promise
from src.models.results import Result
from src.processor import Processor
from src.utils.stores.batches import Batches
from src.utils.stores.database import Database
from src.utils.stores.files import Files
from src.utils.stores.shelf import Shelf
from src.utils.stores.statement import Rows, Statement
from tests.managing import chat

ENDPOINT = "/v1/chat/completions"
PATIENCE_S = 5.0
EPOCH = 1_790_000_000.0


class Death:
    """The moment at which a process dies; 0: it lives."""

    def __init__(self) -> None:
        self.at = 0
        self.moments = 0
        self.came = asyncio.Event()

    async def moment(self) -> None:
        """Live on, unless it is time to die."""
        self.moments += 1
        if self.at and self.moments >= self.at:
            self.came.set()
            await asyncio.get_running_loop().create_future()


class MortalDatabase(Database):
    """A database whose process may die before and after each commit."""

    death: Death

    async def write(self, *statements: Statement, even_if_full: bool = False) -> list[Rows]:
        await self.death.moment()
        rows = await super().write(*statements, even_if_full=even_if_full)
        await self.death.moment()
        return rows


class MortalShelf(Shelf):
    """A shelf whose process may die before, in the middle of and after what it writes."""

    death: Death
    trouble: InferenceManagerError | None = None

    async def append(self, name: str, at: int, data: bytes) -> int:
        await self.death.moment()
        await super().append(name, at, data[: len(data) // 2])
        if self.trouble is not None:
            raise self.trouble
        await self.death.moment()
        size = await super().append(name, at, data)
        await self.death.moment()
        return size


class Jobs:
    """What a runner needs of the job store."""

    def __init__(self) -> None:
        self.kept: dict[str, Job] = {}

    async def get(self, job_id: str) -> Job:
        if job_id not in self.kept:
            raise UnknownJob.of_that_id()
        return self.kept[job_id]

    async def list(self, query: JobQuery) -> Any:
        states = query.states or frozenset(JobState)
        found = [j for j in self.kept.values() if j.state in states and j.promise is not None]
        return SimpleNamespace(
            jobs=[j for j in found if j.promise is not None and j.promise.batch == query.batch]
        )

    async def delete(self, *job_ids: str) -> int:
        for job_id in job_ids:
            del self.kept[job_id]
        return len(job_ids)


class Office:
    """The desk, the processor and the clock of a runner; a line's body says what comes of it.

    `{"n": 1}` is answered with 1; with `"refused"` there is no job, with `"failed"` it fails.

    Attributes:
        at_once: whether jobs end by themselves.
        trouble: raised at every question.

    """

    def __init__(self, directory: Path, *, at_once: bool = True, window: int = 4) -> None:
        self.now = EPOCH
        self.store = Jobs()
        self.at_once = at_once
        self.trouble: InferenceManagerError | None = None
        self.begun: Counter[int] = Counter()
        self.asked = 0
        self.most_waiting = 0
        self.death = Death()
        self.database = MortalDatabase(":memory:")
        self.database.death = self.death
        self.shelf = MortalShelf(directory)
        self.shelf.death = self.death
        self._window = window
        self._listener: Listener | None = None
        self._numbers = 0
        self._bodies: dict[str, Any] = {}

    @asynccontextmanager
    async def open(self) -> AsyncGenerator["Office"]:
        """Let what is kept be there."""
        await self.database.open()
        try:
            yield self
        finally:
            await self.database.close()

    @asynccontextmanager
    async def runner(self, *, budget_bytes: int = 2**20) -> AsyncGenerator[BatchRunner]:
        """Run a process."""
        self.death.moments, self.death.came = 0, asyncio.Event()
        self.files = Files(
            self.database,
            self.shelf,
            clock=lambda: self.now,
            new_id=self._new_id,
            budget_bytes=budget_bytes,
            keep_s=86_400.0,
        )
        runner = BatchRunner(
            Batches(self.database),
            self.files,
            cast("Processor", self),
            self,
            clock=lambda: self.now,
            new_id=self._new_id,
            window=self._window,
            longest=10_000,
            keep_s=86_400.0,
            breath_s=0.0,
        )
        async with runner.running():
            self.living = runner
            yield runner
        self._listener = None

    async def submit(self, *bodies: Any, window: str = "24h") -> Batch:
        """Have lines answered; one that is bytes stands in the file as it is."""
        file = await self.upload(*bodies)
        return await self.living.submit(
            caller="ann",
            endpoint=ENDPOINT,
            input_file=file.id,
            window=window,
            base_url="http://localhost",
        )

    async def upload(self, *bodies: Any) -> StoredFile:
        """Send a file."""
        lines = [
            body
            if isinstance(body, bytes)
            else json.dumps(
                {"custom_id": f"line-{n}", "method": "POST", "url": ENDPOINT, "body": body}
            ).encode()
            for n, body in enumerate(bodies)
        ]
        return await self.files.keep("ann", "in.jsonl", BytesIO(b"\n".join(lines)))

    async def until_ended(self, batch: Batch) -> Batch:
        """Wait for the end of a batch."""
        async with asyncio.timeout(PATIENCE_S):
            while not (batch := await self.living.get("ann", batch.id)).state.terminal:
                pass
        return batch

    async def until(self, when: Any) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not when():  # noqa: ASYNC110 - there is nothing to wait for but the next turn
                await asyncio.sleep(0)

    async def lines_of(self, file_id: str) -> list[dict[str, Any]]:
        """Read a file; none if there is none."""
        found = [f for f in await self.all_files() if f.id == file_id]
        if not found:
            return []
        text = b"".join([p async for p in self.shelf.pieces(file_id, found[0].size)])
        assert text.endswith(b"\n")
        return [json.loads(line) for line in text.splitlines()]

    async def all_files(self) -> list[StoredFile]:
        """Return all files, the oldest first."""
        return list(await self.files.list("ann", purpose=None, after=None, limit=1000, rising=True))

    @property
    def waiting(self) -> list[Job]:
        """The jobs that have not ended."""
        return [job for job in self.store.kept.values() if not job.state.terminal]

    def end(self, job: Job) -> None:
        """Have a job end as its request says."""
        body = self._bodies[job.id]
        running = job.started("localai", self.now)
        if "failed" in body:
            ended = running.failed(InvalidInput("it failed", param="body"), self.now)
        else:
            ended = running.completed(Result(text=str(body["n"])), self.now)
        self._keep(ended)

    def _keep(self, job: Job) -> None:
        self.store.kept[job.id] = job
        if self._listener is not None:
            self._listener(Ended(job))

    # The processor

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    async def cancel(self, job_id: str) -> Job:
        job = await self.store.get(job_id)
        if not job.state.terminal:
            self._keep(job.cancelled(self.now))
        return self.store.kept[job_id]

    # The desk

    async def take(
        self, question: Question, *, key: str, promise: Promise, deadline_s: float
    ) -> Job:
        await self.death.moment()
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble
        body = json.loads(question.body)
        if "refused" in body:
            raise InvalidInput("nobody can do that", param="body")
        for job in self.store.kept.values():
            same = job.promise is not None and job.promise.key == key
            if same and (not job.state.terminal or job.result is not None):
                return job
        job = Job(
            id=self._new_id(),
            request=chat(),
            model="m",
            caller=question.caller,
            level=Level.LOW,
            sequence=self._numbers,
            submitted_at=self.now,
            deadline=self.now + deadline_s,
            promise=replace(promise, key=key),
        )
        self.store.kept[job.id] = job
        self._bodies[job.id] = body
        self.begun[promise.line] += 1
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        if self.at_once:
            asyncio.get_running_loop().call_soon(self._end_at_once, job)
        await self.death.moment()
        return job

    def _end_at_once(self, job: Job) -> None:
        if not self.store.kept[job.id].state.terminal:
            self.end(job)

    async def answer(self, question: Question, job: Job) -> Answer:  # noqa: ARG002 - as `Desk`
        if job.result is None:
            code = "none" if job.error is None else job.error.code
            return Answer(500, json.dumps({"error": code}).encode())
        return Answer(200, json.dumps({"said": job.result.text}).encode())

    def refusal(self, error: InferenceManagerError) -> Answer:
        return Answer(400, json.dumps({"error": error.code}).encode())

    def _new_id(self) -> str:
        self._numbers += 1
        return f"{self._numbers:06}"
