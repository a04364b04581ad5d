"""Talks to a running server over HTTP, never to its data behind its back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from ..routes.errors import ErrorBody
from ..routes.status import Health
from .terminal import ExitCode, Failure, program

SERVICE = "inference-manager"
KEY_WANTED = "it asks for a key that it knows; give it with --key or IM_API_KEY"
_REFUSALS = frozenset({401, 403, 421, 429, 503})
_Model = TypeVar("_Model", bound=BaseModel)
Params = Sequence[tuple[str, str | int | float]]


class Remote:
    """A running server, reached at its address."""

    def __init__(self, url: str, *, key: str | None = None, patience: float = 5.0) -> None:
        self.url = base(url)
        self._http = httpx2.Client(
            base_url=self.url, headers=presenting(key), timeout=patience, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, kind: type[_Model], params: Params = ()) -> _Model:
        """Read something; raises as `ask`."""
        return self.ask("GET", path, kind, params=params)

    def post(self, path: str, body: Mapping[str, object], kind: type[_Model]) -> _Model:
        """Ask for something to be done; raises as `ask`."""
        return self.ask("POST", path, kind, body)

    def ask(
        self,
        method: str,
        path: str,
        kind: type[_Model],
        body: Mapping[str, object] | None = None,
        *,
        params: Params = (),
    ) -> _Model:
        """Send a request and read the answer.

        Raises:
            Failure: it was refused, or did not work.

        """
        try:
            return kind.model_validate_json(self._body(method, path, body, params))
        except ValidationError as error:
            raise Failure(
                f"{self.url}{path} answers in a way this version does not know"
            ) from error

    def download(self, url: str) -> bytes:
        """Fetch a file."""
        return self._body("GET", url)

    def _body(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        params: Params = (),
    ) -> bytes:
        try:
            answer = self._http.request(method, path, json=body, params=list(params) or None)
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise unreachable(self.url) from error
        if answer.is_success:
            return answer.content
        code = ExitCode.REFUSED if answer.status_code in _REFUSALS else ExitCode.FAILED
        raise Failure(f"{self.url}: {_said(answer)}", code)


def base(url: str) -> str:
    """Return an address without what people put at its end.

    Raises:
        Failure: it is none.

    """
    address = url.strip().rstrip("/").removesuffix("/mcp").rstrip("/")
    if not address.startswith(("http://", "https://")):
        raise Failure(
            f"{address} is no address; write --url or IM_URL as http://host:port", ExitCode.USAGE
        )
    return address


def presenting(key: str | None) -> dict[str, str]:
    """Return the headers that present a key.

    Raises:
        Failure: no header can hold it.

    """
    if key is None:
        return {}
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Failure("--key or IM_API_KEY must be visible ASCII characters", ExitCode.USAGE)
    return {"Authorization": f"Bearer {key}"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found at an address: a server of ours, or at least somebody who answers."""

    health: Health | None
    anybody: bool


def find(url: str, *, patience: float = 2.0) -> Seen:
    """Look for a server of ours."""
    try:
        with httpx2.Client(timeout=patience, trust_env=False) as http:
            answer = http.get(f"{base(url)}/health")
        health = Health.model_validate_json(answer.content)
    except (httpx2.TransportError, httpx2.InvalidURL):
        return Seen(None, anybody=False)
    except ValidationError:
        return Seen(None, anybody=True)
    ours = health.service == SERVICE and "service" in health.model_fields_set
    return Seen(health if ours else None, anybody=True)


def unreachable(url: str) -> Failure:
    """Say that nobody answers."""
    return Failure(
        f"no server answers at {url}; start one with `{program()} serve`, "
        f"or say where it is with --url or IM_URL",
        ExitCode.UNREACHABLE,
    )


def _said(answer: httpx2.Response) -> str:
    """Take the message and the hint out of an error answer."""
    if answer.status_code == 401:
        return KEY_WANTED
    try:
        error = ErrorBody.model_validate_json(answer.content).error
    except ValidationError:
        return f"it answered with HTTP status {answer.status_code}"
    return "; ".join(filter(None, (error.message, error.hint)))
