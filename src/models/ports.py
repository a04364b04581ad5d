"""What the core's users need from the world, as protocols."""

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .blobs import Blob, Content
from .errors import StorageFailed
from .jobs import Job, JobQuery, Step, Summary
from .modality import Modality
from .queues import Entry
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

    async def copy(self, blob: Blob) -> Blob:
        """Keep the same bytes once more, to be dropped by themselves; raises as `read`."""
        ...

    async def drop(self, blobs: Iterable[Blob]) -> None:
        """Forget blobs; harmless for those that are not there."""
        ...


class Page(NamedTuple):
    """Some jobs of a list, and where the next page begins; None if this is the last one."""

    jobs: Sequence[Summary]
    before: int | None


class Waiting(NamedTuple):
    """A job that waited when the process before this one ended, and until when it must."""

    entry: Entry
    not_before: float | None


class JobStore(Protocol):
    """Keeps jobs; knows nothing of order. Every method either happened or did not.

    What concerns a job that was promised is on the disk when the method returns. Of any other job
    the store takes note at once, and writes it within moments: nobody waits for a disk.
    """

    @property
    def trouble(self) -> StorageFailed | None:
        """Why no promise can be made now; None while all is well, as far as is known."""
        ...

    async def open(self) -> None:
        """Take hold of what is kept; raises `StoreUnusable`, which says what to do."""
        ...

    async def add(self, *jobs: Job) -> None:
        """Keep new jobs, all of them or none.

        If a job's promise has a key, the caller's key stands for this job from now on.

        Raises:
            StorageFailed: they cannot be kept.

        """
        ...

    async def save(self, *jobs: Job) -> None:
        """Keep the next versions of jobs, all of them or none.

        The end of a job is kept in memory, and written later, if it cannot be written now.

        Raises:
            UnknownJob: a job was never added or was forgotten.
            StaleJob: the version kept is not the one this step was made from.
            StorageFailed: they cannot be kept, or the end of a job not yet.

        """
        ...

    async def get(self, job_id: str) -> Job:
        """Return the latest version of a job.

        Raises:
            UnknownJob: the job was never added or was forgotten.
            StorageFailed: it cannot be read.

        """
        ...

    async def bind(self, caller: str, key: str, fingerprint: str, job_id: str) -> None:
        """Let a caller's key stand for a job that is kept already, until it is forgotten.

        Raises:
            StorageFailed: that cannot be kept.

        """
        ...

    async def find(self, caller: str, key: str) -> tuple[str, str] | None:
        """Return the fingerprint and the job of a caller's key; None if it stands for none."""
        ...

    async def list(self, query: JobQuery) -> Page:
        """Return jobs, the newest first."""
        ...

    async def history(self, job_id: str, after: int = -1) -> Sequence[Step]:
        """Return the steps of a job after a version, in order; none for an unknown job.

        The submission itself makes version 0.
        """
        ...

    async def repeated(self, *job_ids: str) -> Collection[str]:
        """Return those of the jobs that another job repeats: it names them as `retry_of`."""
        ...

    async def delete(self, *job_ids: str) -> int:
        """Forget jobs that have ended, with what they made; return how many."""
        ...

    async def purge(self, now: float, *, limit: int) -> int:
        """Forget at most so many ended jobs whose time or room is over; return how many."""
        ...

    async def waiting(self) -> Sequence[Waiting]:
        """Return the promised jobs that wait, for a new process to begin with."""
        ...

    async def unfinished(self, *, promised: bool, until: int, limit: int) -> Sequence[Job]:
        """Return jobs that the process before this one left behind.

        Promised ones that were being worked on, or any others that have not ended; only those
        whose sequence is `until` at most, so that those of this process are left out.
        """
        ...

    async def last_sequence(self) -> int:
        """Return the largest sequence of all jobs; 0 without any."""
        ...

    async def flushed(self) -> None:
        """Wait until everything that was noted so far is on the disk; raises `StorageFailed`."""
        ...

    async def close(self) -> None:
        """Write what was noted, and let go of everything."""
        ...
