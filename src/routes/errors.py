"""What a caller is told when something went wrong: one table for every door."""

import logging
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from ..models import errors
from ..models.errors import InferenceManagerError, InvalidInput
from ..models.requests import REQUESTS
from .request_ids import HEADER, current_request_id

logger = logging.getLogger("inference_manager.http")

STATUS: Mapping[type[InferenceManagerError], int] = {
    errors.InferenceManagerError: 500,
    errors.InvalidInput: 422,
    errors.UnknownModel: 404,
    errors.UnknownJob: 404,
    errors.UnknownFile: 404,
    errors.UnknownBatch: 404,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.WrongSignature: 403,
    errors.AddressExpired: 410,
    errors.InvalidTransition: 409,
    errors.StaleJob: 409,
    errors.IdempotencyConflict: 409,
    errors.Refused: 503,
    errors.QueueFull: 503,
    errors.TooManyWaiting: 429,
    errors.BackendUnseen: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
    errors.JobCancelled: 409,
    errors.Interrupted: 503,
    errors.WorkerLost: 502,
    errors.Quarantined: 502,
    errors.StorageFailed: 507,
    errors.StoreUnusable: 507,
    errors.BackendError: 502,
    errors.BackendUnavailable: 502,
    errors.BackendTimeout: 504,
    errors.BackendBusy: 503,
    errors.ModelLoadFailed: 502,
    errors.ModelCrashed: 502,
    errors.BackendFailed: 502,
    errors.BackendRejected: 400,
    errors.NotOffered: 404,
    errors.BackendUnauthorised: 502,
    errors.BackendProtocolError: 502,
    errors.StreamCut: 502,
    errors.EmptyResult: 502,
}
"""The HTTP status of every error; a test compares it with the tree."""

_PARTS = frozenset({"body", "query", "path"})
_NO_PLACES = frozenset({"str", "int", "float", "bool"})
_FORM = re.compile(r"[^A-Za-z0-9_]")
_NAMED = re.compile(r"([a-z_]+) must ")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_UNREADABLE = (400, "There was an error parsing the body")  # what FastAPI says
_NOT_AN_OBJECT = ("missing", "model_attributes_type", "model_type", "dict_type")

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

CODES: Mapping[int, str] = {
    400: "bad_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
    415: "unsupported_media_type",
    421: "misdirected_request",
    422: "invalid_request",
    431: "headers_too_large",
}
"""What is called how that never became a request, by status; anything else is `OTHER`."""

OTHER = "http_error"

_MEANINGS = {
    400: "The body is not JSON, or the backend refuses the request",
    401: "This server asks for a key that it knows",
    403: "The signature of the address is wrong, or only an operator may do this",
    404: "No such model, job, picture, recording, film, file or batch",
    405: "There is something at this path, but not for this method",
    409: "The job was cancelled, or has not come that far",
    410: "The time of the signed address is over",
    413: "The body is too large",
    415: "The content type is not one that is read",
    422: "A field is wrong; `param` names it",
    429: "As many jobs of this caller wait as may wait; `Retry-After` says when to try again",
    502: "The backend failed, after its retries",
    503: "Not now; `Retry-After` says when to try again",
    504: "The job's deadline passed, or the backend was silent for too long",
    507: "What was sent or made cannot be kept: the disk is full or broken",
}


class ErrorDetail(BaseModel):
    """Why a call failed and what would help."""

    model_config = ConfigDict(extra="forbid")

    type: str
    code: str
    message: str
    param: str | None = None
    request_id: str | None = None
    retry_after: float | None = None
    hint: str | None = None
    docs: str | None = None
    job_id: str | None = None


class ErrorBody(BaseModel):
    """The body of every error answer, in the shape that OpenAI's clients read."""

    error: ErrorDetail


_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the error answers of a route, for OpenAPI; `described.py` adds their shape once."""
    return {s: {"content": _CONTENT, "description": _MEANINGS[s]} for s in statuses}


def describe(error: InferenceManagerError, *, job_id: str | None = None) -> ErrorDetail:
    """Say what happened, without a word of the caller's content."""
    return ErrorDetail(
        type=_type(STATUS[type(error)]),
        code=error.code,
        message=error.message,
        param=_param(error),
        hint=error.hint or None,
        retry_after=error.retry_after,
        job_id=job_id,
    )


def detail_of(error: InferenceManagerError, *, job_id: str | None = None) -> ErrorDetail:
    """Say it to a client of OpenAI's, who shows its user the message and nothing else."""
    return _placed(_in_one(describe(error, job_id=job_id)))


def _in_one(detail: ErrorDetail) -> ErrorDetail:
    """Say the hint in the message as well."""
    if detail.hint is None:
        return detail
    return detail.model_copy(update={"message": f"{detail.message} ({detail.hint})"})


def _placed(detail: ErrorDetail) -> ErrorDetail:
    more = {"request_id": current_request_id(), "docs": f"/errors/{detail.code}"}
    return detail.model_copy(update=more)


def _type(status: int) -> str:
    """Name the kind of an error as OpenAI does."""
    return _TYPES.get(status, "invalid_request_error" if status < 499 else "server_error")


def _param(error: InferenceManagerError) -> str | None:
    match error:
        case InvalidInput():
            return error.param
        case errors.UnknownModel():
            return "model"
        case _:
            return None


def answer(
    error: InferenceManagerError, *, job_id: str | None = None, v1: bool = False
) -> JSONResponse:
    """Make the HTTP answer for an error; `v1`: with 400 for invalid input, as OpenAI has it."""
    status = 400 if v1 and isinstance(error, InvalidInput) else STATUS[type(error)]
    detail = describe(error, job_id=job_id)
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    elif type(error) is not InferenceManagerError:  # or OpenAI's client would send it again
        headers["X-Should-Retry"] = "false"
    return _respond(status, _in_one(detail) if v1 else detail, headers)


def plain(status: int, message: str, *, hint: str | None = None) -> JSONResponse:
    """Make the HTTP answer for something that never became a request."""
    code = CODES.get(status, OTHER)
    detail = ErrorDetail(type=_type(status), code=code, message=message, hint=hint)
    return _respond(status, detail, {})


def in_words(error: InferenceManagerError, *, job_id: str | None = None) -> str:
    """Say in a sentence or two what happened and what would help, for a model to read."""
    about = f" (job {job_id})" if job_id is not None else ""
    words = [f"{error.code}: {error.message}{about}."]
    if error.hint:
        words.append(f"{error.hint[0].upper()}{error.hint[1:]}.")
    if error.retry_after is not None:
        words.append(f"Try again in {error.retry_after:g} s.")
    return " ".join(words)


def from_validation(problems: Sequence[Any], *, whole: str = "body") -> InvalidInput:
    """Turn what pydantic found into an error that names the field but never shows its value.

    `whole` is the name of what was checked, for problems that no single field has.
    """
    problem, more = _meant(_real(problems))
    where = _place(problem)
    message = str(problem["msg"]).removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            return _no_such_field(str(problem["loc"][-1]), whole)
        case "too_short":
            message = "must not be empty"
        case "too_long":
            message = f"must have at most {problem['ctx']['max_length']} items"
        case _:
            pass
    if problem["type"] == "json_invalid":
        return InvalidInput("the body is not valid JSON", param="body")
    if _is_whole(problem, whole) and problem["type"] in _NOT_AN_OBJECT:
        return InvalidInput(
            "the body is not a JSON object",
            param="body",
            hint="send one, with the header Content-Type: application/json",
        )
    allowed = _ranges().get(where[-1] if where else "", "")
    if allowed and _fits(allowed, problem):
        message += f"; allowed is {allowed}"
    if more:
        message += f" (and {more} more)"
    if not where and (named := _NAMED.match(message)) is not None:
        return InvalidInput(message, param=named[1])  # a rule over several fields begins with one
    name = ".".join(where)[:100] or whole
    return InvalidInput(f"{name}: {message}", param=name)


def _is_whole(problem: Mapping[str, Any], whole: str) -> bool:
    """Whether a problem is that of a body as a whole."""
    return whole == "body" and tuple(problem["loc"]) in ((), ("body",))


def _fits(allowed: str, problem: Mapping[str, Any]) -> bool:
    """Whether a range has the limit that was broken, at its right end."""
    low, _, high = allowed.rpartition(" to ")
    end = high if str(problem["type"]).startswith("less") else low
    return all(limit in end.split() for limit in _limits(problem))


def _meant(problems: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], int]:
    """Return the first problem, and how many others there are.

    Of a value that may have several forms, each form has something to say: what counts is the one
    that was probably meant, which fits the furthest.
    """
    first = _place(problems[0])
    forms = [problem for problem in problems if _on_one_way(_place(problem), first)]
    if not first or len(forms) == 1 or not any(map(_is_other_form, forms)):
        return problems[0], len(problems) - 1
    closer = [problem for problem in forms if not _is_other_form(problem)]
    meant = max(closer or forms, key=lambda problem: len(_place(problem)))
    return meant, len(problems) - len(forms)


def _on_one_way(one: list[str], other: list[str]) -> bool:
    """Whether one place is inside of another, or the same."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _is_other_form(problem: Mapping[str, Any]) -> bool:
    return str(problem["type"]).endswith("_type")


def _place(problem: Mapping[str, Any]) -> list[str]:
    """Return the names and numbers that lead to a value, as its sender wrote them."""
    loc = tuple(problem["loc"])
    if loc[:1] == ("body",) or (_PARTS.issuperset(loc[:1]) and _is_name(loc[1:2])):
        loc = loc[1:]
    return [str(part) for part in loc if _is_place(part)]


def _limits(problem: Mapping[str, Any]) -> list[str]:
    """Return the limit that a number has overstepped, as ranges write it."""
    told: Mapping[str, object] = problem.get("ctx") or {}
    numbers = [value for value in told.values() if isinstance(value, int | float)]
    return [f"{int(value):,}" if value == int(value) else f"{value:g}" for value in numbers]


def _is_name(loc: tuple[object, ...]) -> bool:
    return any(isinstance(part, str) and _is_place(part) for part in loc)


def _is_place(part: object) -> bool:
    """Whether a part of a place was written by the caller: pydantic names forms of types too."""
    if isinstance(part, int):
        return True
    name = str(part).removesuffix("[]")  # so forms name lists
    return name not in _NO_PLACES and (not name[:1].isupper()) and not _FORM.search(name)


def _real(problems: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    """Leave out that a list is too short when that is only because an item of it is wrong."""
    found = [cast("Mapping[str, Any]", problem) for problem in problems]
    places = [tuple(problem["loc"]) for problem in found]
    real = [
        problem
        for problem, place in zip(found, places, strict=True)
        if problem["type"] != "too_short"
        or not any(len(p) > len(place) and p[: len(place)] == place for p in places)
    ]
    return real or found


def _no_such_field(name: str, whole: str) -> InvalidInput:
    """Name a field only if it looks like a name, and the one that was probably meant."""
    known = {field for request in REQUESTS.values() for field in request.model_fields}
    near = get_close_matches(name[:100], known | OPTIONS.keys(), n=1)
    shown = name if _NAME.fullmatch(name) else whole
    about = f"{shown}: there is no such field" if shown == name else "there is an unknown field"
    return InvalidInput(about, param=shown, hint=f"did you mean {near[0]}?" if near else "")


OPTIONS: Mapping[str, str] = {
    "wait_seconds": "0 to 3,600",
    "deadline_seconds": "more than 0 to 604,800",
}
"""What is allowed for the options of a call, which are no fields of a request."""


@cache
def _ranges() -> Mapping[str, str]:
    """Say of every number in a request what is allowed; a name means the same in each."""
    ranges = dict(OPTIONS)
    for request in REQUESTS.values():
        for name, field in request.model_json_schema(by_alias=False)["properties"].items():
            for form in field.get("anyOf", [field]):
                if "maximum" not in form:
                    continue
                above = form.get("exclusiveMinimum")
                low = f"more than {above:g}" if above is not None else f"{form['minimum']:,}"
                ranges[name] = f"{low} to {form['maximum']:,}"
    return ranges


def install(app: FastAPI) -> None:
    """Teach an application to answer errors this way."""

    async def known(_: Request, error: Exception) -> JSONResponse:
        return answer(cast("InferenceManagerError", error))

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        return answer(from_validation(cast("RequestValidationError", error).errors()))

    async def http(_: Request, error: Exception) -> JSONResponse:
        http_error = cast("HTTPException", error)
        if (http_error.status_code, http_error.detail) == _UNREADABLE:
            hint = "send a JSON object in UTF-8, without numbers of thousands of digits"
            return plain(400, "the body is not valid JSON", hint=hint)
        response = plain(http_error.status_code, str(http_error.detail).lower())
        response.headers.update(http_error.headers or {})
        return response

    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        logger.error("a request failed unexpectedly", exc_info=error)
        response = answer(InferenceManagerError("internal error"))
        if (name := current_request_id()) is not None:  # sent outside of what would add it
            response.headers[HEADER] = name
        return response

    app.add_exception_handler(InferenceManagerError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _respond(status: int, detail: ErrorDetail, headers: Mapping[str, str]) -> JSONResponse:
    body = ErrorBody(error=_placed(detail)).model_dump(exclude_none=True)
    return JSONResponse(body, status_code=status, headers=dict(headers))
