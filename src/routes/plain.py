"""The plain doors: `/completion`, and a chat that needs no more than a sentence."""

from typing import Annotated, Any, Literal

from fastapi.routing import APIRoute
from pydantic import AfterValidator, Field, ValidationError, model_validator
from starlette.responses import Response

from ..handles import JobHandle
from ..models.errors import InvalidInput
from ..models.fields import Text
from ..models.jobs import Job
from ..models.requests import Img2TxtRequest, Txt2TxtRequest
from ..models.results import Chunk, Result, TextDelta
from .doors import Asked, Door, Manner, routes
from .errors import ErrorDetail, from_validation
from .incoming import Incoming
from .openai.bodies import said
from .openai.chat_body import ChatBody, ChatMessage, Sampled, request_in
from .openai.completions import Completions, Continued
from .openai.shapes import PLAIN_CHAT, PLAIN_STREAM, TEXT_COMPLETION, json_answer, sse
from .openai.usage import usage
from .tools import Tools

_MOST_TOKENS = 4000
_FORMS = ("message", "prompt", "messages")


class PlainCompletionBody(Continued):
    """A text to be gone on with, by the values that most people begin with."""

    prompt: Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(said)]
    max_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = 150
    n_predict: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | Literal[-1] | None = Field(
        default=None, description="The same as `max_tokens`, and before it; -1: 4,000"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.7
    top_p: Annotated[float, Field(ge=0, le=1)] | None = 0.9
    top_k: Annotated[int, Field(ge=-1, le=1000)] | None = 40
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = 0.0

    def beginnings(self) -> tuple[str, ...]:
        """Return what is to be gone on with."""
        return (self.prompt,)

    def sampling(self) -> dict[str, Any]:
        """Return the fields of a request that say how its answer is sampled."""
        fields = super().sampling()
        if self.n_predict is not None:
            fields["max_tokens"] = _MOST_TOKENS if self.n_predict == -1 else self.n_predict
        return fields


Message = Annotated[Text, Field(min_length=1), AfterValidator(said)]


class PlainChatBody(Sampled):
    """Something to answer to: one of `message`, `prompt` and `messages`."""

    message: Message | None = None
    prompt: Message | None = Field(default=None, description="The same as `message`")
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2000)] | None = Field(
        default=None, description="A conversation so far"
    )
    system: Text | None = Field(default=None, description="How to answer")
    n: Annotated[int, Field(ge=1, le=1)] | None = Field(default=None, description="One answer")

    @model_validator(mode="after")
    def _one_of_them(self) -> "PlainChatBody":
        given = [name for name in _FORMS if getattr(self, name) is not None]
        if not given:
            raise ValueError("message must be given, or prompt, or messages")
        if len(given) > 1:
            raise ValueError(f"{given[0]} must not be given together with {given[1]}")
        return self

    def meant(self, *, strict: bool) -> Txt2TxtRequest | Img2TxtRequest:
        """Return the request.

        Raises:
            InvalidInput: there is nothing to answer to, or what only a longer answer could tell.

        """
        fields = {name: getattr(self, name) for name in self.model_fields_set - {*_FORMS, "system"}}
        try:
            chat = ChatBody.model_validate(fields | {"messages": self._conversation()})
        except ValidationError as error:
            raise from_validation(error.errors(include_input=False, include_url=False)) from None
        for name in ("tools", "functions"):
            if getattr(chat, name):
                raise InvalidInput(
                    f"{name} must be left out", param=name, hint="/v1/chat/completions takes them"
                )
        return request_in(chat, strict=strict)

    def _conversation(self) -> list[ChatMessage]:
        said = self.message if self.prompt is None else self.prompt
        turns = self.messages or [ChatMessage(role="user", content=said)]
        return turns if self.system is None else [_system(self.system), *turns]


def _system(text: str) -> ChatMessage:
    return ChatMessage(role="system", content=text)


class PlainChat(Door):
    """Answers in a conversation; with `streams`, always as a stream."""

    def __init__(self, tools: Tools, manner: Manner, *, streams: bool) -> None:
        super().__init__(tools, manner)
        self._streams = streams

    async def asked(self, incoming: Incoming) -> Asked:
        """Read what to answer to."""
        body = await incoming.json(PlainChatBody)
        return Asked(
            request=body.meant(strict=incoming.wishes.strict),
            whole=_answer,
            frames=PlainFrames if self._streams or body.stream else None,
            timeout_s=body.timeout,
            queue_events=body.queue_wanted,
        )


def build(tools: Tools, manner: Manner) -> list[APIRoute]:
    """Make the routes."""

    async def complete(body: PlainCompletionBody) -> None:
        """Go on with a text; with `stream`, as server-sent events while it is written."""

    async def chat(body: PlainChatBody) -> None:
        """Answer to a message or a conversation; with `stream`, as `/chat/stream` does."""

    async def stream_chat(body: PlainChatBody) -> None:
        """Answer with server-sent events: pieces as `delta`, the last with `done`."""

    return [
        *routes(
            ("/completion",),
            Completions(tools, manner, PlainCompletionBody),
            complete,
            tag="plain",
            summary="Go on with a text",
            answers=TEXT_COMPLETION,
        ),
        *routes(
            ("/chat",),
            PlainChat(tools, manner, streams=False),
            chat,
            tag="plain",
            summary="Answer",
            answers=PLAIN_CHAT,
        ),
        *routes(
            ("/chat/stream",),
            PlainChat(tools, manner, streams=True),
            stream_chat,
            tag="plain",
            summary="Answer piece by piece",
            answers=PLAIN_STREAM,
        ),
    ]


def _answer(job: Job, result: Result) -> Response:
    thought = {"reasoning": result.reasoning} if result.reasoning else {}
    return json_answer({"response": result.text, **thought, **_facts(job, result)})


def _facts(job: Job, result: Result) -> dict[str, Any]:
    return {
        "done": True,
        "model": job.model,
        "job_id": job.id,
        "finish_reason": result.finish.reason,
        "usage": usage(job, result),
    }


class PlainFrames:
    """Writes the pieces of an answer."""

    def __init__(self, _: JobHandle) -> None:
        pass

    def frame(self, chunk: Chunk) -> bytes:
        """Write a piece of text, or of the thinking before it."""
        if not isinstance(chunk, TextDelta):
            return b""
        thought = sse({"reasoning": chunk.reasoning}) if chunk.reasoning else b""
        return thought + (sse({"delta": chunk.text}) if chunk.text else b"")

    def closing(self, job: Job, result: Result) -> bytes:
        """Write that it is done, and what it was."""
        return sse(_facts(job, result))

    def failed(self, detail: ErrorDetail) -> bytes:
        """Write that there will be no more, and why."""
        return sse({"done": True, "error": detail.model_dump(exclude_none=True)})
