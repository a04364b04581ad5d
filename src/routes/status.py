"""`/health`, `/ready` and `/queue-status`: how the manager is, without waiting for anybody."""

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from .. import __version__
from ..models.controls import EVERYTHING
from ..models.ports import Clock
from ..processor import Processor
from .overview import BackendView, QueueStatus, backend_view, queue_status


class Health(BaseModel):
    """The manager lives; what it last knew of its backends."""

    status: str = Field(description="`healthy`, or `degraded` when something is amiss")
    service: str = "inference-manager"
    version: str
    simulated: bool = Field(description="A simulator stands behind it, not a LocalAI")
    backends: dict[str, BackendView]


class Readiness(BaseModel):
    """Whether work that is submitted now would begin, and if not, why."""

    ready: bool
    reasons: list[str]


def build(processor: Processor, *, clock: Clock) -> APIRouter:
    """Make the routes."""
    router = APIRouter(tags=["status"])

    @router.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        """Lead a person who opens the address to something to read."""
        return RedirectResponse("/docs")

    @router.get("/health")
    async def health() -> Health:
        """Say that the server is alive. Never waits for a backend."""
        now = clock()
        backends = {name: backend_view(processor, name, now) for name in processor.backends}
        well = processor.alive and any(backend.up for backend in backends.values())
        well = well and processor.store.trouble is None
        return Health(
            status="healthy" if well else "degraded",
            version=__version__,
            simulated=processor.simulated,
            backends=backends,
        )

    @router.get("/ready", responses={503: {"model": Readiness}})
    async def ready(response: Response) -> Readiness:
        """Say whether work that is submitted now would begin."""
        reasons = _reasons_not_ready(processor)
        if reasons:
            response.status_code = 503
        return Readiness(ready=not reasons, reasons=reasons)

    @router.get("/queue-status")
    async def show_queue_status() -> QueueStatus:
        """Show every queue, what runs, what is in memory, and how busy this machine is."""
        return queue_status(processor, clock())

    return router


def _reasons_not_ready(processor: Processor) -> list[str]:
    reasons: list[str] = []
    if not processor.alive:
        reasons.append("the dispatcher does not run")
    scheduler = processor.scheduler
    if scheduler.draining:
        reasons.append("the server is shutting down")
    if scheduler.controls.draining is not None:
        reasons.append("an operator lets the server drain: it takes no new work")
    if scheduler.controls.stopped is not None:
        reasons.append("an operator has stopped all work")
    if EVERYTHING in scheduler.controls.paused:
        reasons.append("an operator has paused everything")
    if (trouble := processor.store.trouble) is not None:
        reasons.append(trouble.message)
    if not any(state.up for state in processor.backends.values()):
        reasons += [f"{name}: {state.detail}" for name, state in processor.backends.items()]
    return reasons
