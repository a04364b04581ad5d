"""What the core's users need from the world, as protocols."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

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

    def stops_at_once(self, modality: Modality) -> bool:
        """Whether the engine stops when its caller hangs up, rather than working on unseen."""
        ...

    async def load(self, model: str) -> None:
        """Bring a model into memory; return when it is there. Must not be cancelled."""
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
