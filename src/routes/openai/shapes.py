"""How OpenAI's answers are written, and how they are described."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

DONE = b"data: [DONE]\n\n"
"""The end of every stream."""

_Answers = Mapping[int | str, Mapping[str, Any]]
_TEXT, _COUNT, _OBJECTS = {"type": "string"}, {"type": "integer"}, {"type": "array"}
_EVENT = {"type": "object", "properties": {"data": _TEXT}, "required": ["data"]}


def json_answer(body: object) -> Response:
    """Answer with JSON."""
    return Response(to_json(body), media_type="application/json")


def sse(event: object) -> bytes:
    """Write an event whose data is JSON."""
    return b"data: " + to_json(event) + b"\n\n"


def _of(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": dict(properties), "required": names}


def answers(
    description: str,
    shape: Mapping[str, Any] | None,
    *,
    streamed: bool = False,
    also: Iterable[str] = (),
) -> _Answers:
    """Describe an answer in JSON or of other types, and that it may come as a stream."""
    content: dict[str, Any] = {media_type: {} for media_type in also}
    if shape is not None:
        content["application/json"] = {"schema": dict(shape)}
    if streamed:
        content["text/event-stream"] = {"itemSchema": _EVENT}
    later = "`Prefer: respond-async` or `wait=` was given: the job, to be fetched at `Location`"
    return {
        200: {"description": description, "content": content},
        202: {
            "description": later,
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
    }


USAGE = _of(
    {
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
        "total_tokens": _COUNT,
    }
)
"""What an answer has cost."""

CHAT_COMPLETION = answers(
    "The answer, whole or as a stream of `chat.completion.chunk`",
    _of(
        {
            "id": _TEXT,
            "object": {"const": "chat.completion"},
            "created": _COUNT,
            "model": _TEXT,
            "choices": {"type": "array", "items": {"type": "object"}},
            "usage": USAGE,
        }
    ),
    streamed=True,
)
"""The answer to a conversation."""

IMAGES = answers(
    "The pictures",
    _of(
        {
            "created": _COUNT,
            "data": {
                "type": "array",
                "items": _of({"url": _TEXT, "b64_json": _TEXT}, []),
            },
        }
    ),
)
"""Pictures, each as an address or as itself."""

SPEECH = answers("The recording", None, also=["audio/*"])
"""What was said."""

TRANSCRIPT = answers(
    "What was heard, as `response_format` says",
    _of({"text": _TEXT}),
    also=["text/plain", "text/vtt"],
)
"""What was heard, whole."""

STREAMED_TRANSCRIPT = answers(
    "What was heard, as `response_format` says, or as a stream of `transcript.text.delta`",
    _of({"text": _TEXT}),
    also=["text/plain", "text/vtt"],
    streamed=True,
)
"""The same, whole or as it comes."""

TEXT_COMPLETION = answers(
    "The texts, whole or as a stream of `text_completion`",
    _of(
        {
            "id": _TEXT,
            "object": {"const": "text_completion"},
            "created": _COUNT,
            "model": _TEXT,
            "choices": _OBJECTS,
            "usage": USAGE,
        }
    ),
    streamed=True,
)
"""How texts go on."""

EMBEDDINGS = answers(
    "The vectors",
    _of({"object": {"const": "list"}, "data": _OBJECTS, "model": _TEXT, "usage": _of({})}),
)
"""Vectors, written out or packed."""

RANKING = answers(
    "The documents, the best first",
    _of({"id": _TEXT, "model": _TEXT, "usage": _of({}), "results": _OBJECTS}),
)
"""Documents in order."""

MODERATION = answers(
    "A verdict on each text", _of({"id": _TEXT, "model": _TEXT, "results": _OBJECTS})
)
"""What was found out about texts."""

PLAIN_CHAT = answers(
    "The answer, whole or as a stream",
    _of({"response": _TEXT, "model": _TEXT, "job_id": _TEXT, "usage": USAGE}),
    streamed=True,
)
"""The answer to a message."""

PLAIN_STREAM = answers("The answer, piece by piece", None, streamed=True)
"""The same as it comes."""
