"""What is worth telling: the processor tells each event once, to whoever listens."""

from collections.abc import Callable
from dataclasses import dataclass

from .errors import InferenceManagerError
from .jobs import Job


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job was taken in, with so many better jobs ahead of it."""

    job: Job
    position: int


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt began."""

    job: Job


@dataclass(frozen=True, slots=True)
class Retried:
    """An attempt failed and the job waits for another; `counted` if it uses up an attempt."""

    job: Job
    error: InferenceManagerError
    counted: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A job reached its final state."""

    job: Job


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """A load is over; `error` says why it failed. `job` is the one it was for, if it is left."""

    job: Job | None
    backend: str
    model: str
    seconds: float
    error: InferenceManagerError | None = None


@dataclass(frozen=True, slots=True)
class BackendChanged:
    """A backend became reachable, or ceased to be."""

    backend: str
    up: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ModelPaused:
    """A model is left alone on a backend for so many seconds, because attempts keep failing."""

    backend: str
    model: str
    seconds: float
    why: str


Event = Submitted | Started | Retried | Ended | ModelLoaded | ModelPaused | BackendChanged
Listener = Callable[[Event], None]
