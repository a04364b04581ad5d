"""Conversations: turns of which each has words, and perhaps pictures between them."""

from typing import Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from .fields import Further, Text


class TextPart(BaseModel):
    """A part of a message: words."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: Literal["text"] = "text"
    text: Text


class ImagePart(BaseModel):
    """A part of a message: one of the pictures of the request."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: Literal["image"] = "image"
    image: Annotated[int, Field(ge=0, le=63, description="Which of `images`, counted from 0")]


def text_or_parts(value: object) -> str:
    """Tell the form of a content, so that an error is about what was meant."""
    return "<parts>" if isinstance(value, tuple | list) else "<text>"


def type_of_part(value: object) -> str:
    """Tell the type of a part, be it a value or not checked yet."""
    told: object = getattr(value, "type", "")
    if isinstance(value, dict):
        told = cast("dict[str, object]", value).get("type", "")
    return f"<{told}>" if isinstance(told, str) else "<>"


Part = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImagePart, Tag("<image>")],
    Discriminator(
        type_of_part,
        custom_error_type="part_type",
        custom_error_message="a part must have a type, text or image",
    ),
]
Parts = Annotated[tuple[Part, ...], Field(max_length=1000)]
Content = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[Parts, Tag("<parts>")], Discriminator(text_or_parts)
]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = "user"
    content: Content
    more: Further = Field(
        default={},
        description="Further fields, handed on as they are: `name`, `tool_calls`, `tool_call_id`",
    )

    @property
    def words(self) -> str:
        """What is said, without pictures."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[int, ...]:
        """The numbers of the pictures that are shown."""
        if isinstance(self.content, str):
            return ()
        return tuple(part.image for part in self.content if isinstance(part, ImagePart))

    @property
    def silent(self) -> bool:
        """Whether nothing is said, shown or called."""
        return not (self.words.strip() or self.images or self.more.get("tool_calls"))
