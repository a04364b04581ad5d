"""The control routes under `/sim`: look at the world, break it, hold it, change it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from .config import SimulatorConfig
from .faults import FaultRule
from .journal import RequestState
from .listings import own_version
from .profiles import ProfileName
from .reports import FaultReport, Identity, ModelState, RequestRecord, State, Summary
from .simulation import Simulation

_RULES: TypeAdapter[Sequence[FaultRule]] = TypeAdapter(list[FaultRule])
_CHANGES: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])
_Read = TypeVar("_Read")
_Endpoint = Callable[[Request], Awaitable[Response]]


class Query(BaseModel):
    """Which entries of the journal are meant."""

    model_config = ConfigDict(extra="forbid")

    since: int = 0
    state: RequestState = "arrived"
    model: str | None = None


class Wait(Query):
    """Which entries to wait for, and for how many real seconds."""

    count: int = Field(default=1, ge=0)
    timeout: float = Field(default=5.0, ge=0)


class Release(BaseModel):
    """How many requests to let through; all if no number is given."""

    model_config = ConfigDict(extra="forbid")

    count: int | None = Field(default=None, ge=1)


class _Unfit(Exception):
    """The control request itself is wrong."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Advance(BaseModel):
    """How many simulated seconds shall pass at once."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(gt=0)


class Weather(BaseModel):
    """Which profile to have."""

    model_config = ConfigDict(extra="forbid")

    name: ProfileName


CHANGEABLE = {"seed", "speed", "jitter", "memory_gb", "max_active_backends", "unload_idle_s"}
"""What of the configuration can be changed while it runs."""
FIXED = {"kind", "alias_of"}
"""What of a model cannot."""


def build(simulation: Simulation, *, drop_everyone: Callable[[], None]) -> Router:
    """Return the routes that control one simulation."""
    routes = _Control(simulation, drop_everyone)

    def route(path: str, method: str, endpoint: _Endpoint) -> Route:
        return Route(f"/sim{path}", _answering(endpoint), methods=[method])

    return Router(
        [
            route("", "GET", routes.identity),
            route("", "PATCH", routes.patch),
            route("/state", "GET", routes.state),
            route("/summary", "GET", routes.summary),
            route("/requests", "GET", routes.requests),
            route("/requests", "DELETE", routes.forget_requests),
            route("/requests/wait", "GET", routes.wait),
            route("/faults", "GET", routes.faults),
            route("/faults", "POST", routes.add_fault),
            route("/faults", "PUT", routes.replace_faults),
            route("/faults", "DELETE", routes.clear_faults),
            route("/faults/profile", "POST", routes.adopt),
            route("/faults/{fault}", "GET", routes.fault),
            route("/faults/{fault}", "PUT", routes.put_fault),
            route("/faults/{fault}", "DELETE", routes.remove_fault),
            route("/models/{model}", "PATCH", routes.patch_model),
            route("/models/{model}/load", "POST", routes.load),
            route("/models/{model}/unload", "POST", routes.unload),
            route("/models/{model}/crash", "POST", routes.crash),
            route("/hold", "POST", routes.hold),
            route("/release", "POST", routes.release),
            route("/clock/advance", "POST", routes.advance),
            route("/reset", "POST", routes.reset),
        ]
    )


class _Control:
    def __init__(self, simulation: Simulation, drop_everyone: Callable[[], None]) -> None:
        self._simulation = simulation
        self._drop_everyone = drop_everyone

    async def identity(self, _: Request) -> Response:
        config = self._simulation.config
        return _json(
            Identity(
                what="a simulated LocalAI server",
                version=own_version(),
                seed=config.seed,
                speed=config.speed,
                clock=config.clock,
                profile=config.profile,
                requests=self._simulation.journal.numbers,
            )
        )

    async def patch(self, request: Request) -> Response:
        changes = _read(_CHANGES, await request.body())
        if unknown := sorted(set(changes) - CHANGEABLE):
            raise _Unfit(400, f"cannot change while running: {', '.join(unknown)}")
        self._reconfigure(lambda config: config.patched(changes))
        return await self.identity(request)

    async def patch_model(self, request: Request) -> Response:
        name = self._model_in(request)
        changes = _read(_CHANGES, await request.body())
        if unknown := sorted(set(changes) & FIXED):
            raise _Unfit(400, f"cannot change while running: {', '.join(unknown)}")
        self._reconfigure(lambda config: config.patched_model(name, changes))
        return _json(self._state())

    async def state(self, _: Request) -> Response:
        return _json(self._state())

    async def summary(self, _: Request) -> Response:
        simulation, world = self._simulation, self._simulation.engine.world
        summary: Summary = simulation.journal.summary(
            loads={name: model.loads for name, model in self._state().models.items()},
            swaps=world.swaps,
            over_budget=world.over_budget,
        )
        return _json(summary)

    async def requests(self, request: Request) -> Response:
        query = _checked(Query, dict(request.query_params))
        entries = self._simulation.journal.entries(
            since=query.since, state=query.state, model=query.model
        )
        return _json_list(entries)

    async def forget_requests(self, _: Request) -> Response:
        self._simulation.journal.clear()
        return JSONResponse({})

    async def wait(self, request: Request) -> Response:
        query = _checked(Wait, dict(request.query_params))
        entries = await self._simulation.journal.wait(
            since=query.since,
            state=query.state,
            model=query.model,
            count=query.count,
            patience=query.timeout,
        )
        if entries is None:
            raise _Unfit(408, f"waited {query.timeout:g} s for {query.count} x {query.state}")
        return _json_list(entries)

    async def faults(self, _: Request) -> Response:
        return JSONResponse([report.model_dump(mode="json") for report in self._faults()])

    async def fault(self, request: Request) -> Response:
        wanted = request.path_params["fault"]
        for report in self._faults():
            if report.rule.id == wanted:
                return _json(report)
        raise _Unfit(404, f"no fault {wanted}")

    async def add_fault(self, request: Request) -> Response:
        rule = _checked_json(FaultRule, await request.body())
        return _json(self._simulation.faults.add(rule))

    async def put_fault(self, request: Request) -> Response:
        rule = _checked_json(FaultRule, await request.body())
        named = rule.model_copy(update={"id": request.path_params["fault"]})
        return _json(self._simulation.faults.add(named))

    async def replace_faults(self, request: Request) -> Response:
        self._simulation.faults.replace(_read(_RULES, await request.body()))
        return await self.faults(request)

    async def clear_faults(self, _: Request) -> Response:
        self._simulation.faults.replace([])
        return JSONResponse([])

    async def remove_fault(self, request: Request) -> Response:
        wanted = request.path_params["fault"]
        if not self._simulation.faults.remove(wanted):
            raise _Unfit(404, f"no fault {wanted}")
        return JSONResponse({})

    async def adopt(self, request: Request) -> Response:
        profile = _checked_json(Weather, await request.body()).name
        try:
            self._simulation.adopt(profile)
        except ValidationError as error:
            raise _Unfit(400, _first(error)) from error
        return await self.faults(request)

    async def load(self, request: Request) -> Response:
        engine = self._simulation.engine
        return self._move(
            request, lambda model: engine.tell(engine.world.put_in(model, engine.clock.now()))
        )

    async def unload(self, request: Request) -> Response:
        engine = self._simulation.engine
        return self._move(
            request, lambda model: engine.tell(engine.world.take_out(model, engine.clock.now()))
        )

    async def crash(self, request: Request) -> Response:
        return self._move(request, self._simulation.engine.crash)

    def _move(self, request: Request, move: Callable[[str], None]) -> Response:
        try:
            move(self._simulation.config.target(self._model_in(request)))
        except ValueError as error:
            raise _Unfit(409, str(error)) from error
        return _json(self._state())

    async def hold(self, _: Request) -> Response:
        self._simulation.gate.hold()
        return _json(self._state())

    async def release(self, request: Request) -> Response:
        body = await request.body()
        self._simulation.gate.release(_checked_json(Release, body or b"{}").count)
        return _json(self._state())

    async def advance(self, request: Request) -> Response:
        seconds = _checked_json(Advance, await request.body()).seconds
        await self._simulation.clock.advance(seconds)
        return _json(self._state())

    async def reset(self, request: Request) -> Response:
        self._drop_everyone()
        self._simulation.reset()
        return await self.identity(request)

    def _reconfigure(self, change: Callable[[SimulatorConfig], SimulatorConfig]) -> None:
        try:
            config = change(self._simulation.config)
        except ValidationError as error:
            raise _Unfit(400, _first(error)) from error
        self._simulation.reconfigure(config)

    def _model_in(self, request: Request) -> str:
        name: str = request.path_params["model"]
        if name not in self._simulation.config.models:
            raise _Unfit(404, f"no model {name}")
        return name

    def _faults(self) -> list[FaultReport]:
        return [
            FaultReport(rule=counted.rule, matched=counted.matched, acted=counted.acted)
            for counted in self._simulation.faults.rules
        ]

    def _state(self) -> State:
        simulation = self._simulation
        world, now = simulation.engine.world, simulation.clock.now()
        models: dict[str, ModelState] = {}
        for name, model in simulation.config.models.items():
            if model.alias_of is None:
                view = world.view(name, now)
                models[name] = ModelState(
                    state=view.phase,
                    slots=model.slots,
                    busy=view.busy,
                    waiting=view.waiting,
                    loads=view.loads,
                    cooldown_until=view.cooldown_until,
                )
        return State(
            clock=simulation.config.clock,
            now=now,
            memory_gb=simulation.config.memory_gb,
            memory_used_gb=world.memory_used(),
            holding=simulation.gate.holding,
            held=simulation.gate.standing(),
            models=models,
        )


def _answering(endpoint: _Endpoint) -> _Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except _Unfit as unfit:
            return JSONResponse({"error": str(unfit)}, unfit.status)

    return answer


def _json(value: BaseModel) -> Response:
    return JSONResponse(value.model_dump(mode="json"))


def _json_list(entries: list[RequestRecord]) -> Response:
    return JSONResponse([entry.model_dump(mode="json") for entry in entries])


_Model = TypeVar("_Model", bound=BaseModel)


def _checked(model: type[_Model], values: dict[str, str]) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _Unfit(400, _first(error)) from error


def _checked_json(model: type[_Model], body: bytes) -> _Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _Unfit(400, _first(error)) from error


def _read(adapter: TypeAdapter[_Read], body: bytes) -> _Read:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise _Unfit(400, _first(error)) from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
