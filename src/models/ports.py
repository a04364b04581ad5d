"""What the core's users need from the world, as protocols."""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .blobs import Blob, Content
from .jobs import Job
from .modality import Modality
from .requests import InferenceRequest
from .results import Chunk

Clock = Callable[[], float]
"""Seconds since 1970. There is one clock, made in `app.py`; tests move theirs by hand."""


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model as its backend describes it.

    `modalities` is None when the backend has no words for them (an old LocalAI), and empty when
    it has, but says nothing of this model.
    """

    name: str
    modalities: frozenset[Modality] | None = None


class Backend(Protocol):
    """Whatever runs one attempt.

    Every method raises `BackendError`, or `UnknownModel` for a model that is not there.
    """

    name: str

    def run(self, request: InferenceRequest, model: str, job_id: str) -> AsyncGenerator[Chunk]:
        """Carry out one attempt; the last chunk is always a `Finish`.

        Closing the generator early closes the connection to the backend.
        """
        ...

    def stops_at_once(self, request: InferenceRequest) -> bool:
        """Whether the engine stops when its caller hangs up, rather than working on unseen."""
        ...

    @property
    def loads_on_demand(self) -> bool:
        """Whether `load` does anything, as far as is known; else the first request loads."""
        ...

    async def load(self, model: str) -> None:
        """Bring a model into memory; return when it is there. Must not be cancelled."""
        ...

    async def unload(self, model: str) -> None:
        """Take a model out of memory, whatever works on it."""
        ...

    async def models(self) -> Sequence[OfferedModel]:
        """All models that the backend has on disk."""
        ...

    async def resident(self) -> frozenset[str] | None:
        """Return the models that are in memory; None when the backend does not tell."""
        ...

    async def ping(self) -> str:
        """Return the backend's version if it is alive."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


class BlobWriter(Protocol):
    """Takes bytes as they come; whoever opened it finishes or discards it."""

    async def write(self, piece: bytes) -> None:
        """Add bytes."""
        ...

    async def finish(self) -> Content:
        """Return what was written; a little of it stays at hand."""
        ...

    async def discard(self) -> None:
        """Forget what was written; harmless after `finish`."""
        ...


class Blobs(Protocol):
    """Keeps what is too large for memory."""

    async def keep(self, data: bytes) -> Content:
        """Keep bytes; a few of them are simply handed back."""
        ...

    async def read(self, content: Content) -> bytes:
        """Return the bytes.

        Raises:
            UnknownJob: they are not kept any more.

        """
        ...

    def stream(self, content: Content) -> AsyncGenerator[bytes]:
        """Yield the bytes in pieces; raises as `read`."""
        ...

    async def digest(self, content: Content) -> str:
        """Return the SHA-256 of the bytes in hexadecimal; raises as `read`."""
        ...

    def open(self) -> BlobWriter:
        """Begin to keep bytes that come piece by piece."""
        ...

    async def drop(self, blobs: Iterable[Blob]) -> None:
        """Forget blobs; harmless for those that are not there."""
        ...


class JobStore(Protocol):
    """Keeps jobs; knows nothing of order. Every method either happened or did not."""

    async def add(self, job: Job) -> None:
        """Keep a new job."""
        ...

    async def save(self, job: Job) -> None:
        """Keep the next version of a job.

        Raises:
            UnknownJob: the job was never added or was forgotten.
            StaleJob: the version kept is not the one this step was made from.

        """
        ...

    async def get(self, job_id: str) -> Job:
        """Return the latest version of a job.

        Raises:
            UnknownJob: the job was never added or was forgotten.

        """
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...
