"""What can be set: one frozen model, every key optional, unknown keys refused by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .profiles import PROFILES, ProfileName

Kind = Literal["chat", "vision", "image", "embed", "voice", "video"]
"""A family of work: `image` inpaints too, `embed` ranks too, `voice` speaks, sounds and listens."""

DEFAULT_MODELS: Mapping[str, Mapping[str, object]] = {
    "sim-chat": {"kind": "chat", "slots": 2, "weights_gb": 2.0, "load_s": 1.0},
    "sim-vision": {
        "kind": "vision",
        "weights_gb": 3.0,
        "load_s": 1.5,
        "tokens_per_s": 30.0,
        "s_per_picture": 0.4,
    },
    "sim-image": {"kind": "image", "weights_gb": 5.0, "load_s": 2.0, "s_per_step": 0.1},
    "sim-embed": {"kind": "embed", "slots": 4, "weights_gb": 0.5, "load_s": 0.3},
    "sim-voice": {"kind": "voice", "weights_gb": 1.0, "load_s": 0.5},
    "sim-video": {"kind": "video", "weights_gb": 4.0, "load_s": 2.0},
}


class ModelConfig(BaseModel):
    """One offered model: what it can do and how fast it pretends to be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = "chat"
    alias_of: str | None = None
    slots: int = Field(default=1, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)
    """Chat requests beyond this many are turned away (`admission_rejected`) instead of waiting."""
    weights_gb: float = Field(default=1.0, ge=0)
    load_s: float = Field(default=1.0, ge=0)
    tokens_per_s: float = Field(default=40.0, gt=0)
    prefill_per_s: float = Field(default=800.0, gt=0)
    context: int = Field(default=4096, ge=1)
    s_per_picture: float = Field(default=0.4, ge=0)
    s_per_step: float = Field(default=0.1, ge=0)
    """Seconds for one step at 512x512; other sizes cost in proportion to their pixels."""
    max_pixels: int = Field(default=2_097_152, ge=1)
    s_per_input: float = Field(default=0.002, ge=0)
    """Seconds for one text to embed or to rank."""
    times_real_time: float = Field(default=20.0, gt=0)
    """How many seconds of sound are spoken, made or heard in one second."""
    s_per_frame: float = Field(default=0.05, ge=0)
    """Seconds for one frame at 512x512; other sizes cost in proportion to their pixels."""
    probed_late: bool = False
    """Whether the lists tell of vision, tools and thinking only after the first load."""


def _over_the_defaults(value: object) -> object:
    """Lay the given models over the default ones; `None` takes a model away."""
    if not isinstance(value, Mapping):
        return value
    models: dict[str, object] = {name: dict(default) for name, default in DEFAULT_MODELS.items()}
    for name, given in cast("Mapping[str, object]", value).items():
        changes = given.model_dump(exclude_unset=True) if isinstance(given, ModelConfig) else given
        if changes is None:
            models.pop(name, None)
        elif isinstance(changes, Mapping):
            models[name] = {**DEFAULT_MODELS.get(name, {}), **cast("Mapping[str, object]", changes)}
        else:
            models[name] = changes
    return models


Models = Annotated[dict[str, ModelConfig], BeforeValidator(_over_the_defaults)]


class SimulatorConfig(BaseModel):
    """Everything about one simulator: `speed=20` is twenty times faster, `speed=0` never waits."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    seed: int = 0
    speed: float = Field(default=1.0, ge=0)
    clock: Literal["real", "manual"] = "real"
    """`manual`: time moves only by `POST /sim/clock/advance`, whatever the speed."""
    jitter: float = Field(default=0.0, ge=0, lt=1)
    """How far the pace of a request may be off: 0.2 lets it take up to a fifth more or less."""
    memory_gb: float = Field(default=8.0, gt=0)
    max_active_backends: int = Field(default=0, ge=0)
    """Most models in memory at once; 0 leaves it to the memory alone."""
    oom_over_budget: bool = False
    """Whether a load over the budget fails for want of memory, as on a card that is really full."""
    unload_idle_s: float | None = Field(default=None, gt=0)
    """After how many seconds an idle model leaves the memory; None: never."""
    api_key: str | None = None
    body_limit_mb: float = Field(default=15.0, gt=0)
    control: bool = True
    """Whether the routes under `/sim` answer."""
    profile: ProfileName = "calm"
    """The fault rules at the start, and what else the profile changes."""
    inpainting_files_served: bool = False
    """Whether the address of an inpainted picture leads anywhere; LocalAI's does not."""
    models: Models = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        memory_gb = PROFILES[self.profile].changes.get("memory_gb", self.memory_gb)
        for name, model in self.models.items():
            if model.alias_of is None and model.weights_gb > memory_gb:
                raise ValueError(
                    f"{name} needs {model.weights_gb:g} GB, memory_gb is {memory_gb:g}"
                )
            target = None if model.alias_of is None else self.models.get(model.alias_of)
            if model.alias_of is not None and (target is None or target.alias_of is not None):
                raise ValueError(f"{name} is an alias of {model.alias_of}, which is no model")
        return self

    def target(self, name: str) -> str:
        """Name the model that does the work for `name`: itself, unless it is an alias."""
        return self.models[name].alias_of or name

    def patched(self, changes: Mapping[str, object]) -> "SimulatorConfig":
        """Return the configuration with some of its own values changed."""
        return SimulatorConfig.model_validate({**self._as_given(), **changes})

    def patched_model(self, name: str, changes: Mapping[str, object]) -> "SimulatorConfig":
        """Return the configuration with some values of one model changed."""
        given = self._as_given()
        models: dict[str, object] = {
            known: model.model_dump() for known, model in self.models.items()
        }
        models[name] = {**self.models[name].model_dump(), **changes}
        return SimulatorConfig.model_validate({**given, "models": self._without_absent(models)})

    def _as_given(self) -> dict[str, object]:
        values: dict[str, object] = self.model_dump()
        values["models"] = self._without_absent(
            {known: model.model_dump() for known, model in self.models.items()}
        )
        return values

    @staticmethod
    def _without_absent(models: dict[str, object]) -> dict[str, object]:
        """Say of default models that are not there that they shall stay away."""
        return {**dict.fromkeys(DEFAULT_MODELS), **models}


def load_config(path: Path) -> SimulatorConfig:
    """Read a YAML file; an empty one means all defaults.

    Raises:
        ValueError: a key is unknown or a value does not fit; the message names it.

    """
    content: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    return SimulatorConfig.model_validate({} if content is None else content)
