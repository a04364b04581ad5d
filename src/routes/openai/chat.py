"""`/v1/chat/completions`: a conversation, with or without pictures, whole or as it comes."""

import re
from functools import partial
from typing import Any

from fastapi.routing import APIRoute
from pydantic import JsonValue
from pydantic_core import to_json
from starlette.responses import Response

from ...handles import JobHandle
from ...models.jobs import Job
from ...models.results import (
    Call,
    Choice,
    ChoiceEnd,
    Chunk,
    Finish,
    Logprobs,
    Result,
    TextDelta,
    chat_id,
)
from ..doors import Asked, Door, Manner, routes
from ..incoming import Incoming
from ..tools import Tools
from .chat_body import ChatBody, request_in
from .frames import TextFrames
from .shapes import CHAT_COMPLETION, json_answer
from .usage import usage


class Chat(Door):
    """Answers conversations."""

    async def asked(self, incoming: Incoming) -> Asked:
        """Read a conversation."""
        body = await incoming.json(ChatBody)
        counted, functions = body.usage_wanted, body.calls_functions

        def frames(handle: JobHandle) -> ChatFrames:
            return ChatFrames(handle, counted=counted, functions=functions)

        return Asked(
            request=request_in(body, strict=incoming.wishes.strict),
            whole=partial(_completion, functions=functions),
            frames=frames if body.stream else None,
            timeout_s=body.timeout,
            queue_events=body.queue_wanted,
        )


def build(tools: Tools, manner: Manner) -> list[APIRoute]:
    """Make the routes."""

    async def create_chat_completion(body: ChatBody) -> None:
        """Continue a conversation; with `stream`, as server-sent events while it is written."""

    return routes(
        ("/v1/chat/completions", "/chat/completions"),
        Chat(tools, manner),
        create_chat_completion,
        tag="openai",
        summary="Continue a conversation",
        answers=CHAT_COMPLETION,
    )


def _completion(job: Job, result: Result, *, functions: bool) -> Response:
    choices = [
        _choice(place, choice, functions=functions) for place, choice in enumerate(result.choices)
    ]
    return json_answer(
        {
            "id": chat_id(job.id),
            "object": "chat.completion",
            "created": int(job.submitted_at),
            "model": job.model,
            "choices": choices,
            "usage": usage(job, result),
            "system_fingerprint": None,
        }
    )


def _choice(place: int, choice: Choice, *, functions: bool) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": choice.text or (None if choice.calls else ""),
        "refusal": None,
    }
    if choice.reasoning:
        message |= _thought(choice.reasoning)
    if choice.calls and functions:
        message["function_call"] = _function(choice.calls[0])
    elif choice.calls:
        message["tool_calls"] = [_call(call, whole=True) for call in choice.calls]
    return {
        "index": place,
        "message": message,
        "logprobs": _likely(choice.logprobs) if choice.logprobs else None,
        "finish_reason": _reason(choice.reason, functions=functions),
    }


def _reason(reason: str, *, functions: bool) -> str:
    return "function_call" if functions and reason == "tool_calls" else reason


def _thought(reasoning: str) -> dict[str, str]:
    """Write the thinking under both names that clients look for."""
    return {"reasoning": reasoning, "reasoning_content": reasoning}


def _likely(logprobs: tuple[JsonValue, ...]) -> dict[str, Any]:
    return {"content": list(logprobs), "refusal": None}


def _call(call: Call, *, whole: bool) -> dict[str, Any]:
    if whole:
        return {"id": call.id, "type": "function", "function": _function(call)}
    piece: dict[str, Any] = {"index": call.index}
    if call.id:
        piece |= {"id": call.id, "type": "function"}
    return {**piece, "function": _function(call)}


def _function(call: Call) -> dict[str, str]:
    """Write what is called; of the pieces of a call only the first, with its id, has the name."""
    if call.id:
        return {"name": call.name, "arguments": call.arguments}
    return {"arguments": call.arguments}


_CREATED = re.compile(r'"created": ?(\d{1,12})[,}]', re.ASCII)


def _created(event: str) -> int | None:
    """Return the time in an event of the backend: all events of a stream have the same."""
    found = _CREATED.search(event)
    return None if found is None else int(found[1])


class ChatFrames(TextFrames):
    """Writes the pieces of a conversation as OpenAI's chunks.

    What the backend has written just so goes out as it came. With `functions` the first call of
    each answer is written as before there were tools; there was no way to write others.
    """

    def __init__(self, handle: JobHandle, *, counted: bool, functions: bool = False) -> None:
        super().__init__(handle, counted=counted)
        self._functions = functions
        self._called: dict[int, int] = {}
        self._created = int(handle.job.submitted_at)
        self._ended = False
        self._as_it_came: bool | None = None

    def frame(self, chunk: Chunk) -> bytes:
        """Write a piece; nothing if it has no event of its own."""
        match chunk:
            case TextDelta():
                passes = self._passes(chunk.event)
                opening = b"" if chunk.choice in self._begun else self._opening(chunk.choice)
                if passes:
                    return b"%bdata: %b\n\n" % (opening, chunk.event.encode())
                return opening + self._delta(chunk)
            case Logprobs():
                likely = to_json(_likely(chunk.content))
                return self._chunk(chunk.choice, b"{}", None, likely)
            case ChoiceEnd():
                opening = b"" if chunk.choice in self._begun else self._opening(chunk.choice)
                self._ended = True
                reason = _reason(chunk.reason, functions=self._functions)
                return opening + self._chunk(chunk.choice, b"{}", reason)
            case Finish():
                return b"" if self._ended else self.frame(ChoiceEnd(chunk.reason))
            case _:
                return b""

    def _passes(self, event: str) -> bool:
        """Whether an event may go out as it came: all events of a stream tell one time."""
        if event and self._as_it_came is None:
            created = _created(event)
            if created is not None and not self._head:
                self._created = created
            self._as_it_came = created == self._created
        return bool(event and self._as_it_came)

    def _opening(self, choice: int) -> bytes:
        self._begun.add(choice)
        return self._chunk(choice, b'{"role":"assistant","content":""}', None)

    def _delta(self, delta: TextDelta) -> bytes:
        if delta.text and not delta.reasoning and not delta.calls:
            return self._chunk(delta.choice, b'{"content":' + to_json(delta.text) + b"}", None)
        said: dict[str, Any] = {"content": delta.text} if delta.text else {}
        if delta.reasoning:
            said |= _thought(delta.reasoning)
        if delta.calls and self._functions:
            return self._function_pieces(delta, said)
        if delta.calls:
            said["tool_calls"] = [_call(call, whole=False) for call in delta.calls]
        return self._chunk(delta.choice, to_json(said), None)

    def _function_pieces(self, delta: TextDelta, said: dict[str, Any]) -> bytes:
        first = self._called.setdefault(delta.choice, delta.calls[0].index)
        pieces = [{"function_call": _function(c)} for c in delta.calls if c.index == first]
        written = [piece for piece in (said, *pieces) if piece]
        return b"".join(self._chunk(delta.choice, to_json(piece), None) for piece in written)

    def _chunk(
        self, choice: int, delta: bytes, reason: str | None, likely: bytes = b"null"
    ) -> bytes:
        return b'%b"choices":[{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}]}\n\n' % (
            self._top(),
            choice,
            delta,
            likely,
            to_json(reason),
        )

    def _about(self) -> dict[str, Any]:
        job = self._handle.job
        return {
            "id": chat_id(job.id),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": job.model,
        }
