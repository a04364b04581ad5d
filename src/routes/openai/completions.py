"""`/v1/completions`: texts that are gone on with as they stand, whole or as it comes."""

from typing import Annotated, Any, cast

from fastapi.routing import APIRoute
from pydantic import AfterValidator, Field, field_validator
from pydantic_core import to_json
from starlette.responses import Response

from ...handles import JobHandle
from ...models.fields import Text
from ...models.jobs import Job
from ...models.requests import CompletionRequest
from ...models.results import ChoiceEnd, Chunk, Result, TextDelta
from ..doors import Asked, Door, Manner, routes
from ..incoming import Incoming
from ..tools import Tools
from .bodies import given, said
from .chat_body import Sampled
from .frames import TextFrames
from .shapes import TEXT_COMPLETION, json_answer
from .usage import usage

Beginning = Annotated[Text, Field(min_length=1), AfterValidator(said)]


class Continued(Sampled):
    """What is said of texts besides the texts themselves."""

    echo: bool | None = Field(default=None, description="Begin each answer with its prompt")

    def beginnings(self) -> tuple[str, ...]:
        """Return what is to be gone on with."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Return the declared fields that are handed on as they are."""
        return {}

    def meant(self, *, strict: bool) -> CompletionRequest:
        """Return the request.

        Raises:
            InvalidInput: the caller is strict, and nobody understands one of its fields.

        """
        fields: dict[str, Any] = {"prompts": self.beginnings(), **self.sampling()}
        if options := self.further(strict=strict) | self.options():
            fields["options"] = options
        return CompletionRequest.model_construct(**fields)


class CompletionBody(Continued):
    """Texts to be gone on with."""

    prompt: Beginning | Annotated[list[Beginning], Field(min_length=1, max_length=64)] = Field(
        description="The beginning, or several"
    )
    best_of: Annotated[int, Field(ge=1, le=20)] | None = Field(
        default=None, description="No effect: `n` answers are made, and all are told"
    )
    suffix: Text | None = Field(default=None, description="What follows, where the model heeds it")
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = Field(
        default=None, description="Handed on; the answer has none"
    )

    @field_validator("prompt", mode="before")
    @classmethod
    def _no_tokens(cls, prompt: object) -> object:
        if _has_tokens(prompt):
            raise ValueError("must be text; tokens mean nothing here, send what they stand for")
        return prompt

    def beginnings(self) -> tuple[str, ...]:
        """Return what is to be gone on with."""
        return (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)

    def options(self) -> dict[str, Any]:
        """Return the declared fields that are handed on as they are."""
        return given(self, "suffix", "logprobs")


def _has_tokens(prompt: object) -> bool:
    items = cast("list[object]", prompt) if isinstance(prompt, list) else []
    return bool(items) and isinstance(items[0], int | list)


class Completions(Door):
    """Goes on with texts; `kind` is how its callers write."""

    def __init__(self, tools: Tools, manner: Manner, kind: type[Continued]) -> None:
        super().__init__(tools, manner)
        self._kind = kind

    async def asked(self, incoming: Incoming) -> Asked:
        """Read what is to be gone on with."""
        body = await incoming.json(self._kind)
        echo, counted = bool(body.echo), body.usage_wanted

        def whole(job: Job, result: Result) -> Response:
            return _completion(job, result, echo=echo)

        def frames(handle: JobHandle) -> CompletionFrames:
            return CompletionFrames(handle, echo=echo, counted=counted)

        return Asked(
            request=body.meant(strict=incoming.wishes.strict),
            whole=whole,
            frames=frames if body.stream else None,
            timeout_s=body.timeout,
            queue_events=body.queue_wanted,
        )


def build(tools: Tools, manner: Manner) -> list[APIRoute]:
    """Make the routes."""

    async def create_completion(body: CompletionBody) -> None:
        """Go on with texts; with `stream`, as server-sent events while they are written."""

    return routes(
        ("/v1/completions", "/completions"),
        Completions(tools, manner, CompletionBody),
        create_completion,
        tag="openai",
        summary="Go on with a text",
        answers=TEXT_COMPLETION,
    )


def _completion(job: Job, result: Result, *, echo: bool) -> Response:
    choices = [
        {
            "index": place,
            "text": _prompt(job, place) + choice.text if echo else choice.text,
            "logprobs": None,
            "finish_reason": choice.reason,
        }
        for place, choice in enumerate(result.choices)
    ]
    return json_answer(_about(job) | {"choices": choices, "usage": usage(job, result)})


def _about(job: Job) -> dict[str, Any]:
    return {
        "id": f"cmpl-{job.id}",
        "object": "text_completion",
        "created": int(job.submitted_at),
        "model": job.model,
    }


def _prompt(job: Job, choice: int) -> str:
    """Return what an answer goes on with: those to one prompt follow each other."""
    request = cast("CompletionRequest", job.request)
    return request.prompts[choice // request.n]


class CompletionFrames(TextFrames):
    """Writes the pieces of texts as OpenAI's events."""

    def __init__(self, handle: JobHandle, *, echo: bool, counted: bool) -> None:
        super().__init__(handle, counted=counted)
        self._echo = echo

    def frame(self, chunk: Chunk) -> bytes:
        """Write a piece; nothing if it has no event of its own."""
        match chunk:
            case TextDelta():
                return self._opening(chunk.choice) + self._event(chunk.choice, chunk.text)
            case ChoiceEnd():
                end = self._event(chunk.choice, "", chunk.reason)
                return self._opening(chunk.choice) + end
            case _:
                return b""

    def _opening(self, choice: int) -> bytes:
        if not self._echo or choice in self._begun:
            return b""
        self._begun.add(choice)
        return self._event(choice, _prompt(self._handle.job, choice))

    def _event(self, choice: int, text: str, reason: str | None = None) -> bytes:
        return b'%b"choices":[{"index":%d,"text":%b,"logprobs":null,"finish_reason":%b}]}\n\n' % (
            self._top(),
            choice,
            to_json(text),
            to_json(reason),
        )

    def _about(self) -> dict[str, Any]:
        return _about(self._handle.job)
