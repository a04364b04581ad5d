"""The body of `/v1/chat/completions`, and the request that is meant by it."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    model_validator,
)

from ...models.errors import InvalidInput
from ...models.fields import MAX_IMAGE_TEXT, Text
from ...models.messages import text_or_parts, type_of_part
from ...models.requests import Img2TxtRequest, Txt2TxtRequest
from ..incoming import checked
from .bodies import Body, given, seed_in

_MOST_IMAGES = 8
_NOT_TAKEN = frozenset(
    {"input_audio", "audio_url", "video_url", "file", "input_text", "input_image", "input_file"}
)
"""Parts that other servers take: only these are named where they are refused."""
_OPTIONS = ("tool_choice", "response_format", "top_logprobs")
_ANY = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, hide_input_in_errors=True)
Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_IMAGE_TEXT)]
Object = dict[str, JsonValue]


class SaidPart(BaseModel):
    """Words."""

    model_config = _ANY

    type: Literal["text"]
    text: Text


class ImageAddress(BaseModel):
    """Where a picture is: in the address itself, as a `data:` URI, or at one of our own."""

    model_config = _ANY

    url: Url


def _address_or_url(value: object) -> str:
    return "<url>" if isinstance(value, str) else "<address>"


class ShownPart(BaseModel):
    """A picture."""

    model_config = _ANY

    type: Literal["image_url"]
    image_url: Annotated[
        Annotated[ImageAddress, Tag("<address>")] | Annotated[Url, Tag("<url>")],
        Discriminator(_address_or_url),
    ]


class RefusedPart(BaseModel):
    """A refusal that the model gave earlier."""

    model_config = _ANY

    type: Literal["refusal"]
    refusal: Text


def _taken(part: object) -> object:
    kind = type_of_part(part).strip("<>")
    if kind in _NOT_TAKEN:
        raise ValueError(f"parts of type {kind} are not taken here; send text or image_url")
    return part


AnyPart = Annotated[
    Annotated[SaidPart, Tag("<text>")]
    | Annotated[ShownPart, Tag("<image_url>")]
    | Annotated[RefusedPart, Tag("<refusal>")],
    Discriminator(
        type_of_part,
        custom_error_type="part_type",
        custom_error_message="a part must have a type, text or image_url",
    ),
    BeforeValidator(_taken),
]
AnyContent = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[list[AnyPart], Field(max_length=1000), Tag("<parts>")],
    Discriminator(text_or_parts),
]


class ChatMessage(BaseModel):
    """One turn of a conversation, with whatever else it has: `name`, `tool_calls`, ..."""

    model_config = _ANY

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: AnyContent | None = None


class StreamOptions(BaseModel):
    """What a stream tells besides the answer."""

    model_config = _ANY

    include_usage: bool | None = None
    queue_events: bool | None = Field(
        default=None, description="Tell of the place in line while the request waits"
    )


Stop = Annotated[str, StringConstraints(max_length=256)]


class Sampled(Body):
    """How text is sampled, as OpenAI writes it."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1000)] | None = None
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=8)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None

    def sampling(self) -> dict[str, Any]:
        """Return the fields of a request that say how its answer is sampled."""
        fields = given(
            self,
            "model",
            "temperature",
            "top_p",
            "top_k",
            "n",
            "max_tokens",
            "presence_penalty",
            "frequency_penalty",
        )
        if (seed := seed_in(self.seed)) is not None:
            fields["seed"] = seed
        if self.top_k == -1:
            del fields["top_k"]
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if said := [stop for stop in stops if stop]:
            fields["stop"] = said
        return fields

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with what was counted."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def queue_wanted(self) -> bool:
        """Whether a stream tells of the place in line."""
        return self.stream_options is not None and bool(self.stream_options.queue_events)


class FunctionName(BaseModel):
    """The function that has to be called."""

    model_config = _ANY

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]


def _word_or_name(value: object) -> str:
    return "<word>" if isinstance(value, str) else "<name>"


FunctionChoice = Annotated[
    Annotated[Literal["auto", "none"], Tag("<word>")] | Annotated[FunctionName, Tag("<name>")],
    Discriminator(_word_or_name),
]


class ChatBody(Sampled):
    """A conversation to be continued."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2000)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Object], Field(max_length=256)] | None = None
    tool_choice: str | Object | None = None
    functions: Annotated[list[Object], Field(max_length=256)] | None = None
    function_call: FunctionChoice | None = None
    response_format: Object | None = None

    @model_validator(mode="after")
    def _one_way_to_call(self) -> "ChatBody":
        if self.functions and self.tools:
            raise ValueError("functions must not be given together with tools")
        if self.function_call and not self.functions:
            raise ValueError("function_call must not be given without functions")
        return self

    @property
    def calls_functions(self) -> bool:
        """Whether calls are written as they were before there were tools."""
        return bool(self.functions)


def request_in(body: ChatBody, *, strict: bool) -> Txt2TxtRequest | Img2TxtRequest:
    """Return the request that a checked body means.

    Raises:
        InvalidInput: nothing is said in it, or it shows too many pictures.

    """
    images: list[str] = []
    fields = body.sampling()
    fields["messages"] = [_message(message, images) for message in body.messages]
    options = body.further(strict=strict) | given(body, *_OPTIONS) | _function_choice(body)
    if options:
        fields["options"] = options
    if body.max_completion_tokens is not None:
        fields["max_tokens"] = body.max_completion_tokens
    if body.logprobs:
        fields["logprobs"] = True
    if tools := body.tools or [_tool(function) for function in body.functions or ()]:
        fields["tools"] = tools
    if not images:
        return checked(Txt2TxtRequest, fields)
    if len(images) > _MOST_IMAGES:
        raise InvalidInput(f"messages must show at most {_MOST_IMAGES} pictures", param="messages")
    return checked(Img2TxtRequest, {**fields, "images": images})


def _tool(function: Object) -> Object:
    return {"type": "function", "function": function}


def _function_choice(body: ChatBody) -> Object:
    match body.function_call:
        case None:
            return {}
        case FunctionName(name=name):
            return {"tool_choice": _tool({"name": name})}
        case choice:
            return {"tool_choice": choice}


def _message(message: ChatMessage, images: list[str]) -> dict[str, object]:
    content = message.content or ""
    said = content if isinstance(content, str) else [_part(part, images) for part in content]
    more = {k: v for k, v in (message.model_extra or {}).items() if v is not None}
    told: dict[str, object] = {"role": message.role, "content": said}
    return {**told, "more": more} if more else told


def _part(part: SaidPart | ShownPart | RefusedPart, images: list[str]) -> dict[str, object]:
    match part:
        case SaidPart():
            return {"type": "text", "text": part.text}
        case RefusedPart():
            return {"type": "text", "text": part.refusal}
        case ShownPart():
            shown = part.image_url
            images.append(shown if isinstance(shown, str) else shown.url)
            return {"type": "image", "image": len(images) - 1}
