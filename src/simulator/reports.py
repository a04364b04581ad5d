"""What the control routes tell, in the shapes that travel; the server writes, the client reads."""

from pydantic import BaseModel

from .faults import FaultRule
from .world import Phase


class RequestRecord(BaseModel):
    """One entry of the journal. Times are simulated seconds since the start."""

    number: int
    correlation_id: str
    path: str
    model: str | None = None
    modality: str | None = None
    stream: bool = False
    digest: str = ""
    """The first 12 hex digits of the body's SHA-256."""
    arrived: float
    started: float | None = None
    """When it had its slot."""
    first_byte: float | None = None
    ended: float | None = None
    """When the exchange with the client was over."""
    settled: float | None = None
    """When the work was over and the slot free."""
    done: int = 0
    """Tokens or steps."""
    status: int | None = None
    ending: str | None = None
    """`completed`, `refused`, `client_left`, `stopped` or `fault:ID`."""
    worked_on: bool = False
    """Whether work went on after the client had left."""


class ModelState(BaseModel):
    """How one model stands."""

    state: Phase
    slots: int
    busy: int
    waiting: int
    loads: int
    cooldown_until: float | None


class State(BaseModel):
    """How everything stands."""

    clock: str
    """`real` or `manual`."""
    now: float
    """Simulated seconds since the start."""
    memory_gb: float
    memory_used_gb: float
    holding: bool
    held: list[int]
    """The requests that stand at the gate, in order."""
    models: dict[str, ModelState]


class Identity(BaseModel):
    """What answers here."""

    what: str
    version: str
    seed: int
    speed: float
    clock: str
    profile: str
    requests: int


class Summary(BaseModel):
    """What has happened so far, added up."""

    requests: int
    loads: dict[str, int]
    swaps: int
    """Loads that evicted something."""
    over_budget: int
    """Loads that did not fit, after the wait."""
    busy_seconds: dict[str, float]
    most_at_once: dict[str, int]
    started_in_order: list[str]
    """The model of each request that got a slot, in that order."""


class FaultReport(BaseModel):
    """A fault rule and what came of it."""

    rule: FaultRule
    matched: int
    acted: int
