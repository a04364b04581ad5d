"""The bodies of A1111's `txt2img` and `img2img`, and the requests that are meant by them.

A1111's clients always send every field they know. Those that mean nothing here are taken, named in
the answer, and refused only if the caller is strict.
"""

import random
from collections.abc import Collection
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PrivateAttr, StringConstraints
from pydantic_core import to_json

from ...models.errors import InvalidInput
from ...models.fields import MAX_IMAGE_TEXT, MAX_PICTURES, Picture, Prompt, Side
from ...models.requests import Img2ImgRequest, InpaintRequest, Txt2ImgRequest
from ..incoming import checked
from ..openai.bodies import Body, given, seed_in
from ..openai.images_body import VARIATION
from .names import SAMPLER, WITHOUT_EFFECT

_SEEDS = 2**31
_ECHOED = 16 * 1024  # bytes of what is sent that are kept to be sent back, besides the prompts
_LEAST_STRENGTH = 0.01  # stands for 0, which no backend takes
_PROMPTS = frozenset({"prompt", "negative_prompt"})
_PICTURES = frozenset({"init_images", "mask"})
UNMASKED = frozenset({"inpainting_mask_invert"})
"""Has no effect without a mask."""
MASKED = frozenset({"negative_prompt", "width", "height", "seed", "denoising_strength"})
"""Have none with a mask."""


class OverrideSettings(BaseModel):
    """Options for one call; but for the model, they have no effect."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, hide_input_in_errors=True
    )

    sd_model_checkpoint: Annotated[str, Field(max_length=256)] | None = None


class Drawn(Body):
    """How pictures are drawn; numbers may be written as A1111 takes them: `64`, `64.0`, `"64"`."""

    model_config = ConfigDict(strict=False)
    wordless: ClassVar[str] = "a picture"

    prompt: Prompt | None = Field(
        default=None, description="What to draw; left out or empty: anything"
    )
    negative_prompt: Prompt | None = Field(
        default=None, description="What the picture should not show"
    )
    width: Side | None = Field(
        default=None, description="Pixels; 512, or about that of the picture"
    )
    height: Side | None = Field(
        default=None, description="Pixels; 512, or about that of the picture"
    )
    steps: Annotated[int, Field(ge=1, le=150)] | None = Field(
        default=None, description="Sampling steps"
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(
        default=None, description="The same seed gives the same result again; -1: any"
    )
    batch_size: Annotated[int, Field(ge=1, le=MAX_PICTURES)] | None = Field(
        default=None, description="How many pictures; with `n_iter`, 10 at most"
    )
    n_iter: Annotated[int, Field(ge=1, le=MAX_PICTURES)] | None = Field(
        default=None, description="How many times so many"
    )
    override_settings: OverrideSettings | None = Field(
        default=None, description="`sd_model_checkpoint` names the model"
    )
    send_images: bool | None = Field(default=None, description="`false`: the answer has none")

    _echo: dict[str, JsonValue] = PrivateAttr(default_factory=dict[str, JsonValue])

    def model_post_init(self, _: object) -> None:
        """Note what is sent back, here where a long body is read off the loop."""
        self._echo = _light(self)

    @property
    def count(self) -> int:
        """How many pictures are wanted; raises `InvalidInput` if they are too many."""
        count = (self.batch_size or 1) * (self.n_iter or 1)
        if count > MAX_PICTURES:
            raise InvalidInput(
                f"batch_size times n_iter must be at most {MAX_PICTURES}",
                param="batch_size",
                hint="ask for the others in another call",
            )
        return count

    @property
    def words(self) -> str:
        """What to draw; something, if nothing is said: A1111 draws then too."""
        return self.prompt if self.prompt and self.prompt.strip() else self.wordless

    @property
    def parameters(self) -> dict[str, JsonValue]:
        """What was sent, without the pictures and what is very long."""
        return self._echo

    def ignored(self, without: Collection[str] = ()) -> list[str]:
        """Name what was sent, says something, and has no effect; so have `without` this time."""
        heeded = {*type(self).model_fields, "override_settings_restore_afterwards"}
        if (self._echo.get("sampler_name") or self._echo.get("sampler_index")) == SAMPLER:
            heeded |= {"sampler_name", "sampler_index"}
        heeded.difference_update(without)
        return sorted(name for name, value in self._echo.items() if value and name not in heeded)

    def refuse_unknown(self, *, strict: bool) -> None:
        """Refuse what A1111 does not know either, if the caller is strict; `InvalidInput`."""
        self.further(strict=strict, understood=WITHOUT_EFFECT)

    def drawing(self, chosen: str | None, key: str | None) -> dict[str, Any]:
        """Return the fields of a request.

        Args:
            chosen: the model, if the body names none.
            key: the `Idempotency-Key`: the same has the same seed, where none is given.

        """
        fields = {**given(self, "width", "height", "steps"), "prompt": self.words}
        if (model := self.checkpoint(chosen)) is not None:
            fields["model"] = model
        if self.negative_prompt:
            fields["negative_prompt"] = self.negative_prompt.replace("|", ",")
        seed = seed_in(self.seed)
        fields["seed"] = random.Random(key).randrange(_SEEDS) if seed is None else seed  # noqa: S311
        return {**fields, "n": self.count}

    def checkpoint(self, chosen: str | None) -> str | None:
        """Return the model that is named, or else the one that the caller chose earlier."""
        named = self.override_settings.sd_model_checkpoint if self.override_settings else None
        return self.model or (named or "").strip() or chosen


class Txt2ImgBody(Drawn):
    """A picture to be drawn from words."""

    def request(self, chosen: str | None, key: str | None) -> Txt2ImgRequest:
        """Return the request that is meant; raises `InvalidInput`."""
        return checked(Txt2ImgRequest, self.drawing(chosen, key))


class Img2ImgBody(Drawn):
    """A picture to be changed, or a part of it to be drawn anew."""

    wordless = VARIATION

    init_images: Annotated[list[Picture], Field(min_length=1, max_length=1)] = Field(
        description="The picture: base64, a data: URI, or job:<id> for one made earlier"
    )
    denoising_strength: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="How far from the original, where the model's backend has it"
    )
    mask: Annotated[str, StringConstraints(max_length=MAX_IMAGE_TEXT)] | None = Field(
        default=None,
        description="As large as the picture: what is white is drawn anew; empty: none",
    )
    inpainting_mask_invert: Annotated[int, Field(ge=0, le=1)] | None = Field(
        default=None, description="1: what is black is drawn anew"
    )

    def request(
        self, image: str, chosen: str | None, key: str | None, *, strength: bool
    ) -> Img2ImgRequest:
        """Return the request that is meant; raises `InvalidInput`.

        Args:
            image: what stands for the picture.
            chosen: as for `drawing`.
            key: as for `drawing`.
            strength: whether the model's backend reads it.

        """
        fields = {**self.drawing(chosen, key), "image": image}
        if strength and self.denoising_strength is not None:
            fields["strength"] = self.denoising_strength or _LEAST_STRENGTH
        return checked(Img2ImgRequest, fields)

    def inpainting(self, image: str, mask: str, chosen: str | None) -> InpaintRequest:
        """Return the request that is meant where there is a mask; raises `InvalidInput`."""
        if self.count > 1:
            raise InvalidInput(
                "batch_size and n_iter must be 1 if there is a mask", param="batch_size"
            )
        fields = {**given(self, "steps"), "prompt": self.words, "image": image, "mask": mask}
        if (model := self.checkpoint(chosen)) is not None:
            fields["model"] = model
        return checked(InpaintRequest, fields)


def _light(body: Drawn) -> dict[str, JsonValue]:
    """Return what was sent, but no pictures, and of what is long only as much as has room."""
    kept: dict[str, JsonValue] = {}
    room = _ECHOED
    for name, value in body:
        if name not in body.model_fields_set or name in _PICTURES:
            continue
        plain = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        size = 0 if name in _PROMPTS else len(name) + len(to_json(plain))
        if size <= room:
            room -= size
            kept[name] = plain
    return kept
