"""LocalAI's dialect: the requests it reads, the envelopes it answers in, the errors it words."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

Modality = Literal["txt2txt", "img2txt", "txt2img", "img2img"]

SIMULATED = (b"x-simulated", b"inference-manager")


class Refusal(Exception):
    """The request ends with an HTTP error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "",  # noqa: A002
        headers: Mapping[str, str] | None = None,
        body: object = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.body = body if body is not None else envelope(status, message, type)


def envelope(code: int | str, message: str, type: str = "") -> object:  # noqa: A002
    """Return an error as LocalAI words it."""
    return {"error": {"code": code, "message": message, "type": type}}


def stream_error(message: str) -> object:
    """Return the event that tells of an error inside a stream."""
    return envelope("server_error", message, "server_error")


def encoded(value: object) -> bytes:
    """Return JSON as it goes over the wire."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: object) -> bytes:
    """Return a server-sent event."""
    return b"data: " + encoded(value) + b"\n\n"


DONE = b"data: [DONE]\n\n"


# Errors by their occasion


def no_such_route() -> Refusal:
    """Refuse a path that is not known, or anything else that is not found."""
    return Refusal(404, "Resource not found")


def key_required() -> Refusal:
    """Refuse a caller without the key."""
    return Refusal(
        401,
        "An authentication key is required",
        type="invalid_request_error",
        headers={"WWW-Authenticate": "Bearer"},
    )


def unknown_model(name: str, installed: Sequence[str]) -> Refusal:
    """Refuse a model: with 404, or 500 if the name has a slash or is part of an installed one."""
    if "/" in name or any(name in known for known in installed):
        return Refusal(
            500, "could not load model - all backends returned error: simulated: no such file"
        )
    return Refusal(
        404,
        f'model "{name}" not found. To see available models, call GET /v1/models',
        type="invalid_request_error",
    )


def wrong_kind(name: str) -> Refusal:
    """Refuse work that this model's engine does not implement."""
    return Refusal(500, f"rpc error: code = Unimplemented desc = {name} does not implement this")


def load_failed(reason: str = "simulated load failure") -> Refusal:
    """Tell that a model could not be loaded."""
    return Refusal(
        500,
        "failed to load model with internal loader: could not load model: "
        f"rpc error: code = Unknown desc = {reason}",
    )


def starting() -> Refusal:
    """Tell that the server is not ready; this one is no envelope at all."""
    reason = "startup preload in progress"
    return Refusal(503, reason, body={"status": "starting", "reason": reason})


def process_died() -> Refusal:
    """Tell that a model's process has died under a request."""
    return Refusal(500, "rpc error: code = Unavailable desc = error reading from server: EOF")


def process_gone() -> Refusal:
    """Tell that a model's process has died before."""
    return Refusal(
        500,
        "rpc error: code = Unavailable desc = connection error: desc = "
        '"transport: Error while dialing: dial tcp 127.0.0.1: connect: connection refused"',
    )


def cooldown(model: str, retry_after: float) -> Refusal:
    """Tell that a model's load failed a short while ago."""
    seconds = max(1, math.ceil(retry_after))
    return Refusal(
        503,
        f'model "{model}" load is in cooldown after a recent failure; retry after {seconds}s',
        headers={"Retry-After": str(seconds)},
    )


def rejected(model: str, retry_after: float = 1.0) -> Refusal:
    """Tell that a model's limit of concurrent requests is reached; this one carries no code."""
    message = f'model "{model}" has reached its limit of concurrent requests'
    return Refusal(
        503,
        message,
        headers={"Retry-After": str(max(1, math.ceil(retry_after)))},
        body={"error": {"type": "admission_rejected", "message": message}},
    )


def framework_error(status: int, text: str) -> Refusal:
    """Refuse in the words of the web framework."""
    return Refusal(status, f"code={status}, message={text}")


def unreadable_body(reason: str) -> Refusal:
    """Refuse a body that cannot be parsed."""
    return framework_error(400, f"failed parsing request body: {reason}")


OUT_OF_MEMORY = "CUDA out of memory (simulated)"


def out_of_memory() -> Refusal:
    """Tell that the work did not fit into the card's memory."""
    return Refusal(
        500, f"rpc error: code = Unknown desc = Exception calling application: {OUT_OF_MEMORY}"
    )


# Requests: wrong types are refused, unknown fields ignored, nulls are as good as absent


class _Lenient(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class ImageUrl(_Lenient):
    """Where a picture in a chat is to be found."""

    url: str = ""


class Part(_Lenient):
    """A piece of a message."""

    type: str = "text"
    text: str | None = None
    image_url: ImageUrl | str | None = None


class ChatMessage(_Lenient):
    """A message of a chat."""

    role: str = "user"
    content: str | list[Part] | None = None


class StreamOptions(_Lenient):
    """What a stream shall contain besides text."""

    include_usage: bool | None = None


class ChatRequest(_Lenient):
    """The body of a chat completion."""

    model: str | None = None
    messages: list[ChatMessage] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    reasoning_effort: str | None = None
    metadata: dict[str, str] | None = None


class ImageRequest(_Lenient):
    """The body of an image generation."""

    model: str | None = None
    prompt: str | list[str] | None = None
    size: str | None = None
    n: int | None = None
    step: int | None = None
    quality: str | None = None
    seed: int | None = None
    file: str | None = None
    files: list[str] | None = None
    ref_images: list[str] | None = None
    response_format: str | None = None


class ModelRequest(_Lenient):
    """The body of `/backend/load` and `/backend/shutdown`."""

    model: str | None = None


_Model = TypeVar("_Model", bound=BaseModel)


def parsed(model: type[_Model], body: bytes) -> _Model:
    """Read a body; an empty one is an empty object.

    Raises:
        Refusal: it is not JSON, or a type is wrong.

    """
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise unreadable_body(f"{where}: {first['msg']}" if where else first["msg"]) from None
