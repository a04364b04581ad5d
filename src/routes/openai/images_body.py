"""The bodies and forms of `/v1/images/...`, and the requests that are meant by them."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, JsonValue

from ...models.errors import InvalidInput
from ...models.fields import MAX_PICTURES, MAX_SIDE, MIN_SIDE, Picture, Prompt
from ...models.requests import Img2ImgRequest, InpaintRequest, Txt2ImgRequest
from ..incoming import checked
from .bodies import Body, Said, given, seed_in
from .uploads import AS_TEXT

VARIATION = "a variation of this picture"
ONE_PICTURE = "the backend takes one picture: send one, or join them into one first"
_MOST_STEPS = 150
_SIZE = re.compile(r"([0-9]{1,5})[xX]([0-9]{1,5})")
_WITHOUT_EFFECT = frozenset(
    {
        "background",
        "input_fidelity",
        "moderation",
        "output_compression",
        "output_format",
        "style",
    }
)
"""What OpenAI's models know; no backend has it."""


def _whole(value: bool | None) -> bool | None:
    if value:
        raise ValueError("must be false: pictures are not streamed")
    return value


def _sized(value: str | None) -> str | None:
    if value is not None and value != "auto":
        _sides(value)
    return value


def _sides(size: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError("must be WIDTHxHEIGHT, for example 512x512, or auto")
    width, height = int(match[1]), int(match[2])
    if not MIN_SIDE <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise ValueError(f"each side must have {MIN_SIDE} to {MAX_SIDE:,} pixels")
    return width, height


class Drawn(Body):
    """How pictures are drawn and handed out."""

    n: Annotated[int, Field(ge=1, le=MAX_PICTURES)] | None = Field(
        default=None, description="How many pictures; 1 if left out"
    )
    size: Annotated[str | None, AfterValidator(_sized)] = Field(
        default=None,
        description="WIDTHxHEIGHT; left out or `auto`: 512x512, or about that of the picture",
        json_schema_extra={"pattern": "^([0-9]{1,5}[xX][0-9]{1,5}|auto)$"},
    )
    response_format: Literal["url", "b64_json"] | None = Field(
        default=None, description="Addresses, if left out, or the pictures themselves"
    )
    quality: str | int | None = Field(
        default=None, description="A number counts as `steps`; a word has no effect"
    )
    steps: Annotated[int, Field(ge=1, le=_MOST_STEPS)] | None = Field(
        default=None, description="Sampling steps", validation_alias=AliasChoices("steps", "step")
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(
        default=None, description="The same seed gives the same result again"
    )
    negative_prompt: Prompt | None = Field(
        default=None, description="What the picture should not show"
    )
    stream: Annotated[bool | None, AfterValidator(_whole)] = Field(
        default=None, description="Pictures come whole", json_schema_extra={"enum": [False, None]}
    )
    partial_images: Annotated[int, Field(ge=0, le=0)] | None = Field(
        default=None, description="Pictures come whole"
    )

    @property
    def as_base64(self) -> bool:
        """Whether the pictures themselves are wanted."""
        return self.response_format == "b64_json"

    def drawing(self) -> dict[str, Any]:
        """Return the fields of a request that say how it is drawn."""
        fields = given(self, "model", "n", "negative_prompt")
        if (steps := self.step_count()) is not None:
            fields["steps"] = steps
        if (seed := seed_in(self.seed)) is not None:
            fields["seed"] = seed
        if self.size is not None and self.size != "auto":
            fields["width"], fields["height"] = _sides(self.size)
        return fields

    def step_count(self) -> int | None:
        """Return how many steps are wanted; LocalAI takes them as a number in `quality` as well.

        Raises:
            InvalidInput: there are too many.

        """
        number = str(self.quality)
        if self.steps is not None or not re.fullmatch("[0-9]{1,9}", number):
            return self.steps
        if not 1 <= int(number) <= _MOST_STEPS:
            raise InvalidInput(f"quality must be 1 to {_MOST_STEPS} steps", param="quality")
        return int(number)

    def more(self, *, strict: bool) -> dict[str, JsonValue]:
        """Return what is for the backend to understand; raises as `further`."""
        return self.further(strict=strict, understood=_WITHOUT_EFFECT)


class GenerationBody(Drawn):
    """A picture to be drawn from words; with `file`, as LocalAI has it, from a picture."""

    prompt: Said = Field(
        description="What to draw; after a `|`, as LocalAI has it, what not to show"
    )
    file: Picture | None = Field(
        default=None, description="A picture to be changed: base64, a data: URI, or job:<id>"
    )
    files: Annotated[list[Picture], Field(max_length=1)] | None = Field(
        default=None, description="The same, in a list"
    )
    ref_images: Annotated[list[Picture], Field(max_length=0)] | None = Field(
        default=None, description="Is not handed on; use `file`"
    )

    def request(self, *, strict: bool) -> Txt2ImgRequest | Img2ImgRequest:
        """Return the request that is meant; raises `InvalidInput`."""
        fields = {**self.drawing(), "options": self.more(strict=strict)}
        prompt, _, avoid = self.prompt.partition("|")
        if avoid and self.negative_prompt is None and prompt.strip():
            fields |= {"prompt": prompt, "negative_prompt": avoid.replace("|", ",")}
        else:
            fields["prompt"] = self.prompt
        source = self.files[0] if self.files else self.file
        if source is None:
            return checked(Txt2ImgRequest, fields)
        return checked(Img2ImgRequest, {**fields, "image": source})


class Changed(Drawn):
    """A picture to be changed as the prompt says."""

    prompt: Said = Field(description="What to make of it")
    strength: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="How far from the original, where the backend has it"
    )

    def request(self, image: str, mask: str | None) -> Img2ImgRequest | InpaintRequest:
        """Return the request that is meant; raises `InvalidInput`."""
        if mask is None:
            more = given(self, "prompt", "strength")
            return checked(Img2ImgRequest, {**self.drawing(), **more, "image": image})
        if self.n is not None and self.n > 1:
            raise InvalidInput("n must be 1 if there is a mask", param="n")
        fields = {**given(self, "model", "prompt"), "image": image, "mask": mask}
        if (steps := self.step_count()) is not None:
            fields["steps"] = steps
        return checked(InpaintRequest, fields)


class EditForm(Changed):
    """A picture to be changed, or a part of it, as the prompt says."""

    model_config = AS_TEXT


class VariationForm(Drawn):
    """A picture of which others are to be made that are like it."""

    model_config = AS_TEXT

    def request(self, image: str) -> Img2ImgRequest:
        """Return the request that is meant; raises `InvalidInput`."""
        return checked(Img2ImgRequest, {**self.drawing(), "prompt": VARIATION, "image": image})


class Shown(BaseModel):
    """A picture in a body of JSON."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    image_url: Picture = Field(
        description="A data: URI, base64, or the address of a picture made here"
    )


class EditBody(Changed):
    """The same as JSON."""

    images: Annotated[list[Shown], Field(min_length=1)] = Field(
        description="The picture", json_schema_extra={"maxItems": 1}
    )
    mask: Shown | None = Field(
        default=None, description="As large as the picture: what is transparent is drawn anew"
    )

    @property
    def picture(self) -> str:
        """The one picture; raises `InvalidInput` if there are several."""
        if len(self.images) > 1:
            raise InvalidInput("images must hold one picture", param="images", hint=ONE_PICTURE)
        return self.images[0].image_url
