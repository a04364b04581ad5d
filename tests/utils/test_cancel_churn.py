"""Callers who leave at any moment cost nothing: no connection, no task, no blob.

`IM_SOAK=1` lets them come and go for half a minute rather than for a few hundred calls.
"""

import asyncio
import logging
import os
import random
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from src.models.errors import InferenceManagerError
from src.models.ports import Blobs
from src.models.requests import InferenceRequest
from src.models.results import Chunk, Finish, blobs_in
from src.utils.blobs import FileBlobs
from src.utils.localai_client import LocalAIClient
from tests.utils.localai_asking import (
    FILM,
    FOX,
    HELLO,
    LISTEN,
    MOVIE,
    ONE_PICTURE,
    SAY,
    SNOW,
    TEXTS,
    TLS,
    drawn,
    media,
    stream,
    wav,
)
from tests.utils.raw_server import DONE, Act, Script, chunk, delta, raw_server, reply

SEED = 7
CALLERS = 40
CALLS = 15  # of each caller, when it does not soak
KEPT = 32  # connections that the client keeps for later
SOAK_S = 30.0 if os.environ.get("IM_SOAK") else 0.0
_log = logging.getLogger("tests.churn")

REQUESTS: list[InferenceRequest] = [HELLO, FOX, SNOW, SAY, LISTEN, MOVIE, TEXTS]


def in_pieces(data: bytes, number: int = 12) -> list[bytes]:
    size = len(data) // number + 1
    return [data[at : at + size] for at in range(0, len(data), size)]


SLOWLY = [chunk(bytes([byte])) for byte in b"data: {}\n\n" * 3]
VECTORS = [{"index": index, "embedding": [1.0, 2.0]} for index in range(2)]
ROUTES: dict[str, Script] = {
    "/v1/chat/completions": stream(delta("x"), *SLOWLY, delta("y", "stop"), DONE),
    "/v1/images/generations": (*in_pieces(ONE_PICTURE[0]), Act.KEEP),
    "/v1/audio/speech": (*in_pieces(media(wav(5))), Act.KEEP),
    "/v1/audio/transcriptions": (*in_pieces(reply(200, {"text": "x"}, keep=True)), Act.KEEP),
    "/v1/embeddings": (*in_pieces(reply(200, {"data": VECTORS}, keep=True)), Act.KEEP),
    "/video": (drawn({"url": "/generated-videos/a.mp4"}), Act.KEEP),
    "/generated-videos/a.mp4": (*in_pieces(media(FILM, "video/mp4")), Act.KEEP),
}


@dataclass
class Tally:
    cancelled: int = 0
    left: int = 0
    answered: int = 0
    failed: list[InferenceManagerError] = field(default_factory=list[InferenceManagerError])

    @property
    def calls(self) -> int:
        return self.cancelled + self.left + self.answered + len(self.failed)


def sockets() -> int:
    return len(psutil.Process().net_connections("inet"))


def files(directory: Path) -> int:
    return sum(1 for path in directory.rglob("*") if path.is_file())


class Churn:
    """Callers of one client, who leave when chance has it."""

    def __init__(self, client: LocalAIClient, blobs: Blobs) -> None:
        self.tally = Tally()
        self._client = client
        self._blobs = blobs
        self._chance = random.Random(SEED)

    async def ask(self, request: InferenceRequest, *, at_most: int = 99) -> list[Chunk]:
        """Take some chunks, and forget what was kept for them, as whoever runs jobs does."""
        chunks: list[Chunk] = []
        try:
            async with aclosing(self._client.run(request, "m", "job-1")) as coming:
                async for each in coming:
                    chunks.append(each)
                    if len(chunks) == at_most:
                        break
        finally:
            await self._blobs.drop(blobs_in(chunks))
        return chunks

    async def come_and_go(self, times: Iterable[object]) -> None:
        for _ in times:
            request, early = self._chance.choice(REQUESTS), self._chance.random() < 0.2
            task = asyncio.create_task(self.ask(request, at_most=1 if early else 99))
            for _ in range(self._chance.randrange(60)):
                await asyncio.sleep(0)
            if not early:
                task.cancel()
            await asyncio.wait([task])
            self._count(task)

    def _count(self, task: asyncio.Task[list[Chunk]]) -> None:
        if task.cancelled():
            self.tally.cancelled += 1
        elif isinstance(error := task.exception(), InferenceManagerError):
            self.tally.failed.append(error)
        elif isinstance(task.result()[-1], Finish):
            self.tally.answered += 1
        else:
            self.tally.left += 1


def until(deadline: float) -> Iterable[None]:
    loop = asyncio.get_running_loop()
    while loop.time() < deadline:
        yield


async def test_callers_who_leave_at_random_moments_cost_nothing(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path, inline=50)
    before = sockets(), len(asyncio.all_tasks())

    async with raw_server(routes=ROUTES) as server:
        client = LocalAIClient(
            name="gpu", url=server.url, verify=TLS, first_byte_s=20.0, idle_s=20.0, blobs=blobs
        )
        churn = Churn(client, blobs)
        end = asyncio.get_running_loop().time() + SOAK_S
        async with asyncio.timeout(50):
            await asyncio.gather(
                *(churn.come_and_go(until(end) if SOAK_S else range(CALLS)) for _ in range(CALLERS))
            )
        tally = churn.tally
        _log.info("%s", tally)

        async with asyncio.timeout(20):
            answers = await asyncio.gather(
                *(churn.ask(REQUESTS[number % len(REQUESTS)]) for number in range(100))
            )
            for _ in range(200):  # turns of the loop in which both ends may close
                await asyncio.sleep(0)
            kept = sockets() - before[0] - 1
        await client.close()
    await blobs.drop([])

    assert tally.failed == []
    assert tally.calls >= CALLERS * CALLS
    assert min(tally.cancelled, tally.left, tally.answered) > 0
    assert sum(chunks[-1] == Finish() for chunks in answers) == 100
    assert kept <= 2 * KEPT  # both ends are ours
    assert (sockets(), len(asyncio.all_tasks())) == before
    assert files(tmp_path) == 0
    await blobs.close()
