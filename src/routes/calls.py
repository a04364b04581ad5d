"""What is written to the HTTP twins: a request of any modality, and how it is to be served.

The body of each is made of the modality's own request and its row in `TWINS`, which only says what
the request cannot say of itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import new_class
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from ..models.modality import Modality
from ..models.requests import REQUESTS, InferenceRequest

Schema = dict[str, Any]


class Options(BaseModel):
    """How a caller wants to be served; the rest of the body is the request itself."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    wait_seconds: Annotated[float, Field(ge=0, le=3600)] | None = Field(
        default=None,
        description="Answer 202 after so many seconds if the job has not ended; else wait for it",
    )
    priority: Literal["normal", "low"] = Field(
        default="normal", description="`low` lets all normal requests of its kind go first"
    )
    deadline_seconds: Annotated[float, Field(gt=0, le=604_800)] | None = Field(
        default=None, description="Seconds from now after which nobody wants the result"
    )


class MediaOptions(Options):
    """The same for what makes pictures or recordings."""

    response_format: Literal["url", "b64_json"] = Field(
        default="url", description="`b64_json` puts the content itself into the answer too"
    )


def _as_it_is(_: Schema) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Twin:
    """What is told of a modality's route, besides what its request tells of itself.

    Attributes:
        summary: what it does, in a few words.
        examples: bodies, by name.
        options: what its callers may choose besides.
        short_forms: describes what the request takes in before its fields are checked.

    """

    summary: str
    examples: Mapping[str, Schema]
    options: type[Options] = Options
    short_forms: Callable[[Schema], None] = _as_it_is


def _or(field: str, short: str, description: str) -> Callable[[Schema], None]:
    """Describe a short form that stands for a field."""

    def extend(described: Schema) -> None:
        described["properties"][short] = {"type": "string", "description": description}
        described["required"] = [name for name in described["required"] if name != field]
        described["oneOf"] = [{"required": [field]}, {"required": [short]}]

    return extend


def _also_size(described: Schema) -> None:
    described["properties"]["size"] = {
        "type": "string",
        "pattern": r"^\d{1,5}x\d{1,5}$",
        "description": "WIDTHxHEIGHT, instead of width and height",
    }


def _one_or_many(described: Schema) -> None:
    many = described["properties"]["input"]
    one = many["items"].get("anyOf", [many["items"]])
    described["properties"]["input"] = {
        "anyOf": [{k: v for k, v in many.items() if k != "description"}, *one],
        "description": many["description"],
    }


_JOB = "job:4kS3vGm0w1x2y3z4/0"

TWINS: Mapping[Modality, Twin] = {
    Modality.TXT2TXT: Twin(
        "Generate text",
        {
            "prompt": {"prompt": "Name three rivers.", "max_tokens": 60},
            "conversation": {
                "messages": [
                    {"role": "system", "content": "Answer in one sentence."},
                    {"role": "user", "content": "Why is the sky blue?"},
                ],
                "temperature": 0.2,
            },
        },
        short_forms=_or("messages", "prompt", "Short for one user message"),
    ),
    Modality.TXT2IMG: Twin(
        "Draw a picture",
        {"picture": {"prompt": "a red fox under a gold moon", "size": "512x512"}},
        MediaOptions,
        _also_size,
    ),
    Modality.IMG2IMG: Twin(
        "Change a picture",
        {"reference": {"image": _JOB, "prompt": "the same fox in snow"}},
        MediaOptions,
        _also_size,
    ),
    Modality.IMG2TXT: Twin(
        "Look at a picture",
        {"reference": {"image": _JOB, "question": "What animal is it?"}},
        short_forms=_or("images", "image", "Short for a single picture"),
    ),
    Modality.TXT2VEC: Twin(
        "Embed texts",
        {"texts": {"input": ["a red fox", "a gold moon"]}},
        short_forms=_one_or_many,
    ),
    Modality.RERANK: Twin(
        "Order documents by relevance",
        {"documents": {"query": "red animal", "documents": ["a gold moon", "a red fox"]}},
    ),
    Modality.AUDIO2TXT: Twin(
        "Write down a recording", {"reference": {"audio": _JOB, "language": "en"}}
    ),
    Modality.TXT2AUDIO: Twin(
        "Speak a text", {"speech": {"input": "A red fox sleeps."}}, MediaOptions
    ),
    Modality.TXT2SOUND: Twin(
        "Make a sound or music",
        {"sound": {"prompt": "rain on a tin roof", "seconds": 5}},
        MediaOptions,
    ),
    Modality.INPAINT: Twin(
        "Draw a part of a picture anew",
        {"reference": {"image": _JOB, "mask": "job:0a1b2c3d4e5f6g7h/0", "prompt": "a silver moon"}},
        MediaOptions,
    ),
    Modality.TXT2VIDEO: Twin(
        "Make a film", {"film": {"prompt": "a red fox runs through snow", "num_frames": 24}}
    ),
}


Chosen = TypeVar("Chosen", bound=BaseModel)


def call_of(modality: Modality) -> type[Options]:
    """Make the class of the bodies of a modality: its request and its options in one."""
    return joined(modality, TWINS[modality].options, "Call")


def joined(modality: Modality, options: type[Chosen], suffix: str) -> type[Chosen]:
    """Make one class of the request of a modality and of options."""
    kind, twin = REQUESTS[modality], TWINS[modality]
    name = kind.__name__.replace("Request", suffix)
    attributes = {
        "__doc__": kind.__doc__,
        "__module__": __name__,
        "model_config": ConfigDict(json_schema_extra=twin.short_forms),
    }
    made = new_class(name, (kind, options), exec_body=lambda space: space.update(attributes))
    return cast("type[Chosen]", made)


def request_in(call: BaseModel, modality: Modality) -> InferenceRequest:
    """Take the request out of a call, without the options."""
    kind = REQUESTS[modality]
    given = call.model_fields_set & kind.model_fields.keys()
    return kind.model_validate({name: getattr(call, name) for name in given})
