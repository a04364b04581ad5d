"""What every error code means and what helps: `/errors/{code}`, to which each error answer leads.

`docs/reference/errors.md` shows the same table; a test compares them.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from fastapi import APIRouter, HTTPException, Path
from pydantic import BaseModel, Field

from ..models.errors import Refused
from .errors import CODES, STATUS, error_responses


class Meaning(NamedTuple):
    """What happened, and what the caller can do about it."""

    what: str
    helps: str


_LATER = "try again after `retry_after` seconds"
_AGAIN = "try again; if it stays, look at the log of LocalAI"

MEANINGS: Mapping[str, Meaning] = {
    "internal_error": Meaning(
        "a mistake of this server; its log says more", "report it, with the `request_id`"
    ),
    "invalid_request": Meaning(
        "a field is wrong, or the body; `param` names it. The doors for other clients answer 400, "
        "the twins (`/mcp/...`) 422",
        "change that field",
    ),
    "model_not_found": Meaning(
        "LocalAI has no such model, or it is not for this modality; `hint` has the nearest names",
        "take a name from `/mcp/list_models`, or leave `model` out",
    ),
    "job_not_found": Meaning(
        "no job has this id, or it was forgotten, or it is another caller's; or it has no such "
        "picture, recording or film",
        "check the id and the key; ask for the work again if it was forgotten",
    ),
    "file_not_found": Meaning(
        "no file has this id, or it was deleted or its time was over, or it is another caller's",
        "check the id and the key; send the file again",
    ),
    "batch_not_found": Meaning(
        "no batch has this id, or it was forgotten, or it is another caller's",
        "check the id and the key",
    ),
    "invalid_api_key": Meaning(
        "the server asks for a key, and there is none or a wrong one",
        "send `Authorization: Bearer KEY` or `x-api-key: KEY`; see `api_keys`",
    ),
    "not_permitted": Meaning(
        "the key is known, but this is for operators only", "use the key of one (`operators`)"
    ),
    "wrong_signature": Meaning(
        "the address of the medium was not signed by the server that runs now, or was changed",
        "ask for the job again to get a new one",
    ),
    "address_expired": Meaning(
        "the time of the signed address is over (`link_s`)",
        "ask for the job again to get a new one",
    ),
    "invalid_transition": Meaning(
        "the job has not come that far, or has ended", "wait for it with `/mcp/get_job`"
    ),
    "stale_job": Meaning("somebody else changed the job first", "look at the job again"),
    "idempotency_conflict": Meaning(
        "the `Idempotency-Key` was used for another request", "send another one"
    ),
    "queue_full": Meaning(
        "as many jobs wait as may wait (`max_waiting`, `max_waiting_mb`, `max_waiting_disk_mb`)",
        _LATER,
    ),
    "rate_limit_exceeded": Meaning(
        "as many jobs of this caller wait as may wait (`max_waiting_per_caller`)",
        "wait for some of them, or cancel some; then try again",
    ),
    "backend_unseen": Meaning(
        "no backend that was reached offers the model, but one that was not reached yet may",
        _LATER,
    ),
    "shutting_down": Meaning(
        "the server was told to stop, or an operator lets it drain", "try again when it is back"
    ),
    "deadline_exceeded": Meaning(
        "the job's time ran out", "submit it with a later deadline, or when less waits"
    ),
    "cancelled": Meaning("the job was cancelled", "submit it again if it is still wanted"),
    "interrupted": Meaning(
        "the server stopped before the job had ended, and nobody waited for it any more",
        "send it again; what is asked for as a job outlives the server",
    ),
    "worker_lost": Meaning(
        "the server stopped each time while it worked on the job, which may be the cause",
        "send it again by hand if you think that it was not",
    ),
    "quarantined": Meaning(
        "the job has killed a model's process twice; it is not tried again by itself",
        "make it smaller, or take another model",
    ),
    "storage_failed": Meaning(
        "what was sent or made cannot be kept, or read again: the disk is full or broken",
        "make room on the disk of the server",
    ),
    "store_unusable": Meaning(
        "the store of jobs cannot be opened; nothing in it was changed", "do what the hint says"
    ),
    "backend_error": Meaning("an attempt failed in a way that has no name of its own", _AGAIN),
    "backend_unavailable": Meaning(
        "LocalAI hung up, or answered 502 or 504, before there was an answer", _AGAIN
    ),
    "backend_timeout": Meaning(
        "LocalAI was silent for too long, or the attempt took too long",
        "ask for less, or raise `attempt_s`, `first_byte_s` or `idle_s`",
    ),
    "backend_busy": Meaning("LocalAI said: later (429, or 503 for want of room)", _LATER),
    "model_load_failed": Meaning(
        "the model could not be loaded; while LocalAI lets it cool down, the job `waits`",
        "look at the log of LocalAI: often the memory is too small",
    ),
    "model_crashed": Meaning(
        "the model's process died; `quarantined` if it dies twice of the same job", _AGAIN
    ),
    "backend_failed": Meaning("LocalAI said: internal error (500)", _AGAIN),
    "backend_rejected": Meaning(
        "LocalAI refuses this request for good",
        "change what the message or the hint names; if they name nothing, the log of LocalAI does",
    ),
    "not_offered": Meaning(
        "LocalAI has no such service: not every version of it has", "use a newer LocalAI"
    ),
    "backend_unauthorised": Meaning(
        "LocalAI refuses the key; see `localai_api_key`", "give this server the key of LocalAI"
    ),
    "backend_protocol_error": Meaning(
        "what came back is not what LocalAI promises", "look at the log of LocalAI, and its version"
    ),
    "stream_cut": Meaning("a text ended before its end", _AGAIN),
    "empty_result": Meaning(
        "an answer without a text, or with a picture that cannot be decoded", _AGAIN
    ),
    "bad_request": Meaning(
        "the HTTP request contradicts itself, or its body is not JSON", "mend what is named"
    ),
    "forbidden": Meaning(
        "a web page from another origin called; see `allowed_origins`", "add it there"
    ),
    "not_found": Meaning("there is nothing at this path", "look at `/docs` for what there is"),
    "method_not_allowed": Meaning(
        "there is something, but not for this method", "use one of those that `Allow` names"
    ),
    "body_too_slow": Meaning("less than 64 KiB of the body came in 30 s", "send it faster"),
    "body_too_large": Meaning(
        "the body is longer than `body_limit_mb`", "send less, or raise that setting"
    ),
    "unsupported_media_type": Meaning(
        "the content type is not one that is read", "send `Content-Type: application/json`"
    ),
    "misdirected_request": Meaning(
        "the server was called by a name that it does not know; see `allowed_hosts`",
        "add the name there, or call it by its IP address",
    ),
    "headers_too_large": Meaning("there are too many headers, or too long ones", "send fewer"),
    "http_error": Meaning("whatever else the HTTP layer refuses", "read the message"),
}
"""By code. Every code has one; a test compares."""

_STATUSES: Mapping[str, int] = {code: status for status, code in CODES.items()} | {
    kind.code: status for kind, status in STATUS.items() if kind is not Refused
}


class ErrorPage(BaseModel):
    """What an error code means."""

    code: str
    status: int | None = Field(description="The HTTP status that it usually comes with")
    meaning: str = Field(description="What happened")
    what_to_do: str = Field(description="What helps")


def build() -> APIRouter:
    """Make the route."""
    router = APIRouter(tags=["status"])

    @router.get(
        "/errors/{code}", responses=error_responses(404, 422), summary="Explain an error code"
    )
    async def explain(code: Annotated[str, Path(max_length=64)]) -> ErrorPage:
        """Say what an error code means, and what helps."""
        if code not in MEANINGS:
            raise HTTPException(404, "there is no such error code")
        what, helps = MEANINGS[code]
        return ErrorPage(code=code, status=_STATUSES.get(code), meaning=what, what_to_do=helps)

    return router
