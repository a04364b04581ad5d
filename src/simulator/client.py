"""A small synchronous client of the control routes, for tests and demos."""

import json
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection
from urllib.parse import urlencode

from pydantic import TypeAdapter

from .faults import FaultRule
from .journal import RequestState
from .reports import FaultReport, Identity, RequestRecord, State, Summary

_RECORDS = TypeAdapter(list[RequestRecord])
_REPORTS = TypeAdapter(list[FaultReport])
_PATIENCE = 5.0
_LONG_PATIENCE = 60.0


class ControlError(Exception):
    """The simulator did not do what was asked; `status` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ControlClient:
    """The routes under `/sim`, one method each. Blocks: call it from a thread or a plain test."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def __repr__(self) -> str:
        return "<ControlClient {}:{}>".format(*self._address)

    def identity(self) -> Identity:
        """Ask what answers there."""
        return Identity.model_validate_json(self._call("GET", ""))

    def state(self) -> State:
        """Ask how everything stands."""
        return State.model_validate_json(self._call("GET", "/state"))

    def summary(self) -> Summary:
        """Ask what has happened, added up."""
        return Summary.model_validate_json(self._call("GET", "/summary"))

    def requests(
        self, *, since: int = 0, state: RequestState = "arrived", model: str | None = None
    ) -> list[RequestRecord]:
        """Read the journal after number `since`."""
        query = _query(since=since, state=state, model=model)
        return _RECORDS.validate_json(self._call("GET", f"/requests?{query}"))

    def forget_requests(self) -> None:
        """Empty the journal."""
        self._call("DELETE", "/requests")

    def wait(
        self,
        *,
        model: str | None = None,
        state: RequestState = "started",
        count: int = 1,
        since: int = 0,
        timeout: float = _PATIENCE,
    ) -> list[RequestRecord]:
        """Wait until so many requests are in a state, and return them.

        Raises:
            TimeoutError: it took too long.

        """
        query = _query(since=since, state=state, model=model, count=count, timeout=timeout)
        try:
            body = self._call("GET", f"/requests/wait?{query}", patience=timeout + _PATIENCE)
        except ControlError as error:
            if error.status == 408:
                raise TimeoutError(str(error)) from error
            raise
        return _RECORDS.validate_json(body)

    def add_fault(
        self,
        kind: str,
        /,
        *,
        match: Mapping[str, object] | None = None,
        when: Mapping[str, object] | None = None,
        **parameters: object,
    ) -> str:
        """Add a fault rule and return its id: `add_fault("reset", after_tokens=5)`."""
        rule = {"match": match or {}, "when": when or {}, "do": {"kind": kind, **parameters}}
        return FaultRule.model_validate_json(self._call("POST", "/faults", rule)).id

    def faults(self) -> list[FaultReport]:
        """Read the rules, and how often each matched and acted."""
        return _REPORTS.validate_json(self._call("GET", "/faults"))

    def replace_faults(self, rules: Sequence[Mapping[str, object]]) -> None:
        """Have these rules and no others."""
        self._call("PUT", "/faults", list(rules))

    def remove_fault(self, fault: str) -> None:
        """Remove one rule."""
        self._call("DELETE", f"/faults/{fault}")

    def adopt(self, profile: str) -> None:
        """Have the fault rules of a profile and no others, and its changes."""
        self._call("POST", "/faults/profile", {"name": profile})

    def clear_faults(self) -> None:
        """Remove all rules."""
        self._call("DELETE", "/faults")

    def hold(self) -> None:
        """Let no request pass the gate before its first token."""
        self._call("POST", "/hold")

    def release(self, count: int | None = None) -> None:
        """Let the next `count` requests pass, now or when they come; without a number, all."""
        self._call("POST", "/release", {} if count is None else {"count": count})

    def load(self, model: str) -> None:
        """Have a model in memory at once."""
        self._call("POST", f"/models/{model}/load")

    def unload(self, model: str) -> None:
        """Have a model out of memory at once."""
        self._call("POST", f"/models/{model}/unload")

    def crash(self, model: str) -> None:
        """Let a model's process die, and all requests there with it."""
        self._call("POST", f"/models/{model}/crash")

    def patch(self, **changes: object) -> None:
        """Change speed, jitter, memory_gb, max_active_backends, unload_idle_s or seed."""
        self._call("PATCH", "", changes)

    def patch_model(self, model: str, **changes: object) -> None:
        """Change speed, slots, weights or load time of a model."""
        self._call("PATCH", f"/models/{model}", changes)

    def advance(self, seconds: float) -> None:
        """Let simulated seconds pass at once, and everything happen that is due by then."""
        self._call("POST", "/clock/advance", {"seconds": seconds}, patience=_LONG_PATIENCE)

    def reset(self) -> None:
        """Be as new: models unloaded, journal and faults empty, the first configuration."""
        self._call("POST", "/reset")

    def _call(
        self, method: str, path: str, body: object = None, *, patience: float = _PATIENCE
    ) -> bytes:
        connection = HTTPConnection(*self._address, timeout=patience)
        try:
            content = None if body is None else json.dumps(body)
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, f"/sim{path}", content, headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ControlError(response.status, answer.decode(errors="replace"))
        return answer


def _query(**values: object) -> str:
    return urlencode({key: value for key, value in values.items() if value is not None})
