"""What operators do to the queue, by HTTP."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator
from pydantic.json_schema import SkipJsonSchema

from ..models.controls import EVERYTHING, Scope, Switched
from ..models.errors import InvalidInput
from ..models.jobs import JobQuery, JobState
from ..models.modality import Modality
from ..models.scheduler import Scheduler
from ..operating import Operating
from ..utils.stores.audit import Record
from .callers import current_caller
from .errors import ErrorDetail, describe, error_responses
from .job_views import moment
from .operators import Operators
from .overview import ScopeView, scope_view

Name = Annotated[str, Field(min_length=1, max_length=256)]
Ended = Literal["completed", "failed", "cancelled", "expired"]


_Unsaid = SkipJsonSchema[None]
"""What a field is that was left out, which is not the same as null."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """Refuse null: a name that was forgotten must not mean everything."""
        if value is None:
            raise ValueError("must not be null; leave it out to mean all")
        return value


class ScopeBody(_Body):
    """Which jobs are meant: at most one field; without any, all of them."""

    modality: Modality | _Unsaid = Field(default=None, description="Those of this modality")
    model: Name | _Unsaid = Field(default=None, description="Those of this model")
    caller: Name | _Unsaid = Field(default=None, description="Those of this caller")

    def scope(self) -> Scope:
        """Return what is meant; raises `InvalidInput` if more than one thing is named."""
        match [(name, value) for name, value in self if value is not None]:
            case []:
                return EVERYTHING
            case [(name, value)]:
                return Scope(name, str(value))  # type: ignore[arg-type]
            case [_, (name, _), *_]:
                raise InvalidInput(
                    "name a modality, a model or a caller, and not two of them", param=name
                )
            case _ as several:
                raise AssertionError(several)


class _Filter(_Body):
    modality: Modality | _Unsaid = Field(default=None, description="Only jobs of this modality")
    model: Name | _Unsaid = Field(default=None, description="Only those of this model")
    caller: Name | _Unsaid = Field(default=None, description="Only those of this caller")
    code: Name | _Unsaid = Field(default=None, description="Only those with this error code")
    submitted_after: AwareDatetime | _Unsaid = Field(
        default=None, description="Only those submitted then or later"
    )
    submitted_before: AwareDatetime | _Unsaid = Field(
        default=None, description="Only those submitted before this time"
    )
    dry_run: bool = Field(default=False, description="Only say what would be done")

    def query(self, states: Sequence[Ended] | None, limit: int) -> JobQuery:
        """Return which jobs are meant."""
        return JobQuery(
            states=None if states is None else frozenset(map(JobState, states)),
            modality=self.modality,
            model=self.model,
            caller=self.caller,
            code=self.code,
            submitted_after=_seconds(self.submitted_after),
            submitted_before=_seconds(self.submitted_before),
            limit=limit,
        )


class PurgeBody(_Filter):
    """Which ended jobs are forgotten, with what they made."""

    state: list[Ended] | None = Field(
        default=None, min_length=1, max_length=4, description="Only those that ended so"
    )
    all: bool = Field(default=False, description="Must be `true` where nothing else is said")
    limit: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1_000_000, description="How many at most, the oldest first"
    )


class RetryBody(_Filter):
    """Which ended jobs are carried out once more, as new jobs of their callers."""

    state: list[Ended] = Field(
        default=["failed"], min_length=1, max_length=4, description="How they ended"
    )
    limit: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=100, description="How many at most, the oldest first"
    )


class SwitchedView(BaseModel):
    """Who switched something on, and when."""

    since: datetime
    by: str


class PausedView(ScopeView, SwitchedView):
    """What is paused."""


class ControlsView(BaseModel):
    """What is switched."""

    paused: list[PausedView] = Field(description="Whose jobs are held back")
    stopped: SwitchedView | None = Field(description="Nothing is started or loaded")
    draining: SwitchedView | None = Field(description="No new work is taken in")
    waiting: int = Field(description="Jobs that wait")
    held: int = Field(description="How many of those in line the pauses hold back")
    running: int = Field(description="Attempts that hold a slot")


class PurgeView(BaseModel):
    """What was forgotten."""

    jobs: int = Field(description="How many jobs; with `dry_run`, how many would be")
    dry_run: bool


class RepeatedView(BaseModel):
    """A job that is carried out once more."""

    job_id: str
    new_job_id: str | None = Field(description="None with `dry_run`")


class RefusedView(BaseModel):
    """A job that cannot be carried out once more."""

    job_id: str
    error: ErrorDetail


class RetryView(BaseModel):
    """What is carried out once more."""

    found: int = Field(description="How many jobs were meant")
    retried: list[RepeatedView] = Field(description="Those that are, or would be")
    already_retried: int = Field(description="How many were left out, as they had been before")
    refused: list[RefusedView] = Field(description="Those that cannot be, and why")
    error: ErrorDetail | None = Field(description="Why it ended early, if it did")
    dry_run: bool


class ReloadView(BaseModel):
    """What the settings changed."""

    before: dict[str, Any] = Field(description="What was changed, as it was")
    after: dict[str, Any] = Field(description="The same as it is now")
    restart: list[str] = Field(description="What differs too, but needs a start of the server")


class RecordView(BaseModel):
    """One thing that was done."""

    number: int
    at: datetime
    who: str = Field(description="The caller, or what else it was done by")
    action: str
    about: dict[str, Any] = Field(description="What was asked for")
    before: dict[str, Any] = Field(description="What was changed, as it was")
    after: dict[str, Any] = Field(description="What it became, or what came of the action")


class AuditView(BaseModel):
    """What was done, the latest first."""

    records: list[RecordView]
    before: int | None = Field(description="Give this as `before` for those before them")


def build(operating: Operating, scheduler: Scheduler, operators: Operators) -> APIRouter:
    """Make the routes."""
    router = APIRouter(
        prefix="/queue",
        tags=["operators"],
        responses=error_responses(400, 401, 403, 413, 422, 507),
        dependencies=[Depends(operators.check)],
    )
    _add_pauses(router, operating, scheduler)
    _add_switches(router, operating, scheduler)
    _add_jobs(router, operating)
    _add_looks(router, operating)
    return router


def _add_pauses(router: APIRouter, operating: Operating, scheduler: Scheduler) -> None:
    @router.post("/pause", summary="Hold jobs back")
    async def pause(body: ScopeBody | None = None) -> ControlsView:
        """Start no job of a modality, a model or a caller, or none at all. What runs goes on."""
        await operating.pause((body or ScopeBody()).scope(), current_caller())
        return _controls(scheduler)

    @router.post("/resume", summary="Hold jobs back no longer")
    async def resume(body: ScopeBody | None = None) -> ControlsView:
        """Lift a pause; without any field, every pause."""
        await operating.resume((body or ScopeBody()).scope(), current_caller())
        return _controls(scheduler)

    @router.get("/controls", summary="Look at what is switched")
    async def show_controls() -> ControlsView:
        """Show the switches, and who switched them when."""
        return _controls(scheduler)


def _add_switches(router: APIRouter, operating: Operating, scheduler: Scheduler) -> None:
    @router.post("/stop", summary="Stop all work")
    async def stop() -> ControlsView:
        """Start and load nothing any more, whoever it is for. What runs goes on."""
        await operating.stop(current_caller())
        return _controls(scheduler)

    @router.post("/start", summary="Start to work again")
    async def start() -> ControlsView:
        """Start and load again. Pauses stay."""
        await operating.start(current_caller())
        return _controls(scheduler)

    @router.post("/drain", summary="Take no new work in")
    async def drain() -> ControlsView:
        """Refuse new work with 503, and carry out what was taken in."""
        await operating.drain(current_caller())
        return _controls(scheduler)

    @router.post("/undrain", summary="Take work in again")
    async def undrain() -> ControlsView:
        """Refuse new work no longer."""
        await operating.undrain(current_caller())
        return _controls(scheduler)


def _add_jobs(router: APIRouter, operating: Operating) -> None:
    @router.post("/purge", summary="Forget ended jobs")
    async def purge(body: PurgeBody) -> PurgeView:
        """Forget ended jobs and what they made; never any that waits or runs, or is a batch's."""
        which = body.query(body.state, body.limit)
        if not body.all and which == JobQuery(limit=body.limit):
            raise InvalidInput(
                "say which jobs are to be forgotten", param="all", hint="or all of them: all: true"
            )
        forgotten = await operating.purge(which, current_caller(), dry_run=body.dry_run)
        return PurgeView(jobs=forgotten, dry_run=body.dry_run)

    @router.post("/retry", summary="Carry failed jobs out once more")
    async def retry(body: RetryBody | None = None) -> RetryView:
        """Make a new job of each failed one that was not repeated before, nor is a batch's."""
        body = body or RetryBody()
        which = body.query(body.state, body.limit)
        again = await operating.retry(which, current_caller(), dry_run=body.dry_run)
        new = again.new.items()
        refused = again.refused.items()
        return RetryView(
            found=again.found,
            retried=[RepeatedView(job_id=old, new_job_id=own or None) for old, own in new],
            already_retried=again.before,
            refused=[RefusedView(job_id=old, error=describe(error)) for old, error in refused],
            error=None if again.ended_by is None else describe(again.ended_by),
            dry_run=body.dry_run,
        )


def _add_looks(router: APIRouter, operating: Operating) -> None:
    @router.post("/reload", summary="Read the settings again")
    async def reload() -> ReloadView:
        """Put changed limits into force; settings that are wrong change nothing."""
        changes = await operating.reload(current_caller())
        return ReloadView(
            before=dict(changes.before), after=dict(changes.after), restart=list(changes.restart)
        )

    @router.get("/audit", summary="Look at what operators did")
    async def audit(
        limit: Annotated[int, Query(ge=1, le=1000, description="How many at most")] = 50,
        before: Annotated[
            int | None, Query(ge=1, le=2**53, description="Only those with smaller numbers")
        ] = None,
    ) -> AuditView:
        """Show who did what, and what changed by it."""
        records = await operating.records(limit=limit, before=before)
        return AuditView(
            records=[_shown(record) for record in records],
            before=records[-1].number if len(records) == limit else None,
        )


def _controls(scheduler: Scheduler) -> ControlsView:
    now = scheduler.controls
    return ControlsView(
        paused=[
            PausedView(**scope_view(scope).model_dump(), since=moment(switched.at), by=switched.by)
            for scope, switched in now.paused.items()
        ],
        stopped=_switched(now.stopped),
        draining=_switched(now.draining),
        waiting=scheduler.waiting,
        held=len(scheduler.held),
        running=len(scheduler.running),
    )


def _switched(switched: Switched | None) -> SwitchedView | None:
    return None if switched is None else SwitchedView(since=moment(switched.at), by=switched.by)


def _shown(record: Record) -> RecordView:
    return RecordView(
        number=record.number,
        at=moment(record.at),
        who=record.who,
        action=record.action,
        about=dict(record.about),
        before=dict(record.before),
        after=dict(record.after),
    )


def _seconds(when: datetime | None) -> float | None:
    return None if when is None else when.timestamp()
