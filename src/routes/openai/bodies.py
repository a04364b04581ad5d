"""What OpenAI's requests have in common: strict types, and fields of which we know nothing."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from ...models.errors import InvalidInput
from ...models.fields import Name, Prompt

_MEANINGLESS = frozenset(
    {"user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "metadata_version"}
)
"""What OpenAI knows and nothing here could mean; it is taken and dropped."""

_LOCALAI = frozenset(
    {
        "backend",
        "clip_skip",
        "grammar",
        "grammar_json_functions",
        "ignore_eos",
        "language",
        "logit_bias",
        "metadata",
        "min_p",
        "params",
        "pooling",
        "pooling_half_life_tokens",
        "sample_rate",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "parallel_tool_calls",
        "reasoning_effort",
        "repeat_last_n",
        "repeat_penalty",
        "rope_freq_base",
        "rope_freq_scale",
        "tfz",
        "typical_p",
    }
)
"""What LocalAI understands besides."""

_LEFT_OUT = "leave it out, or send it without `strict`"


def said(text: str) -> str:
    """Return a text that says something."""
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Said = Annotated[Prompt, AfterValidator(said)]
"""A prompt that says something."""


class Body(BaseModel):
    """A body of JSON; what it holds besides is handed on."""

    model_config = ConfigDict(
        strict=True, extra="allow", allow_inf_nan=False, hide_input_in_errors=True
    )

    model: Name | None = Field(default=None, description="Left out: the default of the modality")
    timeout: Annotated[float, Field(gt=0, le=604_800)] | None = Field(
        default=None, description="Seconds from now after which nobody wants the result"
    )
    strict: bool | None = Field(
        default=None, description="Refuse fields that nobody understands, rather than ignore them"
    )

    def further(self, *, strict: bool, understood: Iterable[str] = ()) -> dict[str, JsonValue]:
        """Return the fields that are for the backend to understand.

        What is `understood` here is not among them.

        Raises:
            InvalidInput: the caller is strict, and nobody understands one of them.

        """
        extra = self.model_extra or {}
        if not extra:
            return {}
        if strict or self.strict:
            self._refuse_unknown(extra, {*understood})
        dropped = _MEANINGLESS.union(understood)
        return {name: value for name, value in extra.items() if name not in dropped}

    def _refuse_unknown(self, extra: Iterable[str], understood: set[str]) -> None:
        known = understood | _LOCALAI | _MEANINGLESS
        for name in extra:
            if name not in known:
                near = get_close_matches(name[:100], known | type(self).model_fields.keys(), n=1)
                shown = name if name.isidentifier() and len(name) <= 40 else "a field"
                raise InvalidInput(
                    f"{shown} is understood by nobody",
                    param=shown if shown == name else "body",
                    hint=f"did you mean {near[0]}?" if near else _LEFT_OUT,
                )


def given(body: BaseModel, *names: str) -> dict[str, Any]:
    """Return the fields of a body that were given, and are not null."""
    return {name: value for name in names if (value := getattr(body, name)) is not None}


def seed_in(value: int | None) -> int | None:
    """Return a seed as backends have it, 31 bits; None if it is to be chosen (-1)."""
    return None if value is None or value < 0 else value % 2**31
