"""The arguments of the MCP tools: their ranges, and what a model is told about them.

Texts are never optional but empty by default: the SDK parses a text that looks like JSON wherever
an argument may be something else than text, and a prompt may well look like JSON.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..models.fields import MAX_PICTURES, Seed, Side, Text
from ..models.jobs import JobState
from ..models.modality import Modality
from .mcp_answers import Output

Priority = Literal["normal", "low"]
Model = Annotated[
    str, Field(max_length=256, description="Name from list_models; empty for the default model")
]
Wait = Annotated[
    float,
    Field(
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds to wait here for the result; after that you get a job_id for get_job",
    ),
]
Place = Annotated[
    Priority, Field(description="`low` lets all normal requests of its kind go first")
]
Show = Annotated[
    Output,
    Field(description="Show pictures small (preview), in full size if they fit, or only links"),
]
Temperature = Annotated[float | None, Field(ge=0, le=2, description="0 is the most predictable")]
TopP = Annotated[float | None, Field(ge=0, le=1, description="Nucleus sampling; rarely needed")]
MaxTokens = Annotated[
    int | None, Field(ge=1, le=1_000_000, description="The longest answer, in tokens")
]
Stop = Annotated[
    list[str] | None, Field(max_length=8, description="Texts before which the answer ends")
]
AnySeed = Annotated[Seed | None, Field(description="The same seed gives the same result again")]
Negative = Annotated[
    str, Field(max_length=100_000, description="What the picture should not show; without '|'")
]
Width = Annotated[Side | None, Field(description="Pixels; give width and height, or size")]
Height = Annotated[Side | None, Field(description="Pixels; give width and height, or size")]
Size = Annotated[
    str, Field(max_length=11, description="WIDTHxHEIGHT in pixels, such as 512x512 or 768x512")
]
Steps = Annotated[
    int | None, Field(ge=1, le=150, description="Sampling steps: more is slower and finer")
]
Count = Annotated[int, Field(ge=1, le=MAX_PICTURES, description="How many pictures")]
Picture = Annotated[
    str,
    Field(
        description="The `reference` of an earlier result (job:<id>/<n>) or its `uri`, "
        "base64 of a PNG, JPEG or WEBP picture, or a data: URI of one"
    ),
]
Strength = Annotated[
    float | None,
    Field(
        gt=0,
        le=1,
        description="How far from `image`; most models have a fixed one and refuse this",
    ),
]
Key = Annotated[
    str,
    Field(
        pattern=r"^[ -~]{0,255}$",
        description="Your own text: a call repeated with it gets the same job",
    ),
]
JobId = Annotated[str, Field(max_length=128, description="The job_id from an earlier result")]
States = Annotated[list[JobState] | None, Field(description="Only jobs in one of these states")]
OneModality = Annotated[Modality | None, Field(description="Only jobs of this kind")]
Limit = Annotated[int, Field(ge=1, le=200, description="How many at most")]
Cursor = Annotated[str, Field(max_length=64, description="The `next` of the page before")]


class Turn(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    role: Literal["system", "developer", "user", "assistant", "tool"] = "user"
    content: Text


Conversation = Annotated[
    list[Turn] | None,
    Field(max_length=2000, description="A whole conversation, instead of prompt"),
]
Pictures = Annotated[
    list[str] | None, Field(max_length=8, description="Several pictures, each as `image` would be")
]
Recording = Annotated[
    str,
    Field(
        description="The `reference` of an earlier result (job:<id>/<n>) or its `uri`, "
        "base64 of a recording, or a data: URI of one"
    ),
]
Language = Annotated[
    str, Field(max_length=64, description="Such as `en`; empty where the model finds out")
]
Speed = Annotated[float | None, Field(ge=0.25, le=4, description="1 is the usual speed")]
Texts = Annotated[
    list[str], Field(min_length=1, max_length=2048, description="Each becomes a vector")
]
