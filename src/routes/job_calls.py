"""What is written to `POST /jobs`: a request that says its modality, or a list of such."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, cast

from pydantic import BaseModel, ConfigDict, Field, create_model

from ..models.errors import InvalidInput
from ..models.jobs import Level
from ..models.modality import Modality
from ..models.requests import REQUESTS, InferenceRequest
from .calls import TWINS, Schema, joined, request_in
from .incoming import checked

MOST = 1000
"""So many jobs may be handed over at once."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
_LEVELS = {"normal": Level.NORMAL, "low": Level.LOW}


class JobOptions(BaseModel):
    """What may be said of a job besides its request."""

    model_config = _STRICT

    webhook: Annotated[str, Field(max_length=2048)] | None = Field(
        default=None, description="Address that is told when the job has ended"
    )


class SubmitOptions(BaseModel):
    """How jobs are to be served."""

    model_config = _STRICT

    priority: Literal["normal", "low"] | None = Field(
        default=None, description="`low` lets all normal requests of its kind go first"
    )
    deadline_seconds: Annotated[float, Field(gt=0, le=604_800)] | None = Field(
        default=None, description="Seconds from now after which nobody wants the result"
    )


class OneJobOptions(JobOptions, SubmitOptions):
    """Both, for one job."""


def _of(modality: Modality, options: type[BaseModel], suffix: str) -> Any:
    """Make the class of a request that says its own modality."""
    literal: Any = Literal
    which: Any = (literal[str(modality)], Field(alias="modality"))
    name = f"{suffix}OptionsOf{modality.capitalize()}"
    return joined(modality, create_model(name, __base__=options, which=which), suffix)


_ONE = {modality: _of(modality, OneJobOptions, "Job") for modality in REQUESTS}
_OF_SEVERAL = {modality: _of(modality, JobOptions, "Item") for modality in REQUESTS}


class JobList(SubmitOptions):
    """Several jobs that are taken in together, all of them or none, in this order."""

    jobs: list[Any] = Field(min_length=1, max_length=MOST, description="The requests")


@cache
def described(*, several: bool) -> Any:
    """Make the type of everything that may be written, for the documentation."""
    a_union: Any = Union
    if not several:
        return a_union[*_ONE.values()]
    a_list: Any = list
    items: Any = (a_list[a_union[*_OF_SEVERAL.values()]], JobList.model_fields["jobs"])
    a_job_list: Any = create_model("JobList", __base__=JobList, jobs=items)
    return a_union[*_ONE.values(), a_job_list]


EXAMPLES: Mapping[str, Schema] = {
    "one": {"modality": "txt2txt", "prompt": "Name three rivers.", "max_tokens": 60},
    "several": {
        "jobs": [
            {"modality": str(modality), **next(iter(TWINS[modality].examples.values()))}
            for modality in (Modality.TXT2TXT, Modality.TXT2IMG, Modality.TXT2VEC)
        ],
        "priority": "low",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody hands over.

    Attributes:
        requests: each with the address of its webhook, or an empty text.
        together: whether they came as a list, be it of one.
        level: what was said of it; None if nothing was.
        deadline_s: seconds from now; None if nothing was said.

    """

    requests: Sequence[tuple[InferenceRequest, str]]
    together: bool
    level: Level | None
    deadline_s: float | None


def order_in(value: object, default: Modality | None = None) -> Order:
    """Read a body, parsed from JSON.

    With a `default`, the modality of a request that names none, there may be one request only.

    Raises:
        InvalidInput: a field is wrong; `param` names it.

    """
    if default is None and _is_several(value):
        several = checked(JobList, value)
        requests = [_item(number, one) for number, one in enumerate(several.jobs)]
        return _order(several, requests, together=True)
    modality, body = _modality(value, default)
    if "jobs" in body:
        raise InvalidInput(
            "jobs: only one can be handed over here", param="jobs", hint="POST /jobs takes several"
        )
    if "wait_seconds" in body:
        raise InvalidInput(
            "wait_seconds: a job is not waited for here",
            param="wait_seconds",
            hint="ask for /jobs/{id}?wait=30 afterwards",
        )
    call: Any = checked(_ONE[modality], body)
    return _order(call, [(request_in(call, modality), call.webhook or "")], together=False)


def _order(
    options: SubmitOptions, requests: Sequence[tuple[InferenceRequest, str]], *, together: bool
) -> Order:
    return Order(
        requests=requests,
        together=together,
        level=None if options.priority is None else _LEVELS[options.priority],
        deadline_s=options.deadline_seconds,
    )


@contextmanager
def of_number(number: int) -> Generator[None]:
    """Have an `InvalidInput` say which of several jobs it is about, counted from 0."""
    try:
        yield
    except InvalidInput as error:
        place = f"jobs.{number}"
        param = place if error.param == "body" else f"{place}.{error.param}"
        message = f"{place}: {error.message}"
        raise InvalidInput(message, param=param[:200], hint=error.hint) from None


def _item(number: int, value: object) -> tuple[InferenceRequest, str]:
    with of_number(number):
        modality, body = _modality(value, None)
        if beside := sorted(SubmitOptions.model_fields.keys() & body.keys()):
            raise InvalidInput(
                f"{beside[0]} is the same for all of them",
                param=beside[0],
                hint="write it beside `jobs`",
            )
        call: Any = checked(_OF_SEVERAL[modality], body)
    return request_in(call, modality), call.webhook or ""


def _is_several(value: object) -> bool:
    return isinstance(value, dict) and "jobs" in value


def _modality(value: object, default: Modality | None) -> tuple[Modality, dict[str, object]]:
    """Read which modality a request is of, and return its fields; raises `InvalidInput`."""
    if not isinstance(value, dict):
        raise InvalidInput(
            "a job is a JSON object",
            param="body",
            hint="send one, with the header Content-Type: application/json",
        )
    fields = cast("dict[str, object]", value)
    named = fields.get("modality", default)
    if not isinstance(named, str) or named not in REQUESTS:
        raise InvalidInput(
            "modality must say what kind of request this is",
            param="modality",
            hint=f"one of {', '.join(REQUESTS)}",
        )
    return Modality(named), {**fields, "modality": named}
