"""Every setting, read once: command line over environment over `config.yaml` over defaults."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from .models.modality import Modality
from .models.queues import priority_order

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
PerModality = dict[Modality, Seconds]
NameList = Annotated[list[str], NoDecode]


_LIMITS: dict[str, PerModality] = {
    "deadline_s": {m: 3600.0 if "2img" in m else 1800.0 for m in Modality},
    "attempt_s": {m: 1800.0 if "2img" in m else 900.0 for m in Modality},
}


class Settings(BaseSettings):
    """The settings. Each is also an environment variable: `IM_` and its name in capitals.

    `LOCALAI_URL` and `LOCALAI_API_KEY` are read without the prefix as well.
    """

    model_config = SettingsConfigDict(
        env_prefix="IM_",
        env_nested_delimiter="__",
        yaml_file="config.yaml",
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    localai_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")] = Field(
        default="http://localhost:8080",
        description="Where LocalAI answers",
        validation_alias=AliasChoices("localai_url", "im_localai_url"),
    )
    localai_api_key: SecretStr | None = Field(
        default=None,
        description="The key that LocalAI asks for",
        validation_alias=AliasChoices("localai_api_key", "im_localai_api_key"),
    )
    localai_api_key_file: Path | None = Field(
        default=None, description="A file that holds that key, instead of the key itself"
    )
    host: str = Field(default="127.0.0.1", description="Address that `serve` listens on")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=8000, description="Port that `serve` listens on; 0 picks a free one"
    )
    allowed_hosts: NameList = Field(
        default=[],
        description="Names, besides localhost and IP addresses, under which the server is called",
    )
    allowed_origins: NameList = Field(
        default=[], description="Web origins, besides our own, whose pages may call the server"
    )
    public_url: str = Field(
        default="", description="Address that links to results begin with; else the one called"
    )
    models_dir: Path = Field(default=Path("models"), description="Where model definitions are")
    order: Annotated[list[Modality], NoDecode] = Field(
        default=list(priority_order), description="Which modality goes first"
    )
    resident: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="How many models fit into LocalAI's memory at once"
    )
    memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Memory for models in GB; used instead of `resident` when set"
    )
    max_waiting: Annotated[int, Field(ge=1)] = Field(
        default=10_000, description="How many jobs may wait"
    )
    max_waiting_mb: Annotated[int, Field(ge=1)] = Field(
        default=512, description="How much their requests may hold, in MiB"
    )
    keep_results_mb: Annotated[int, Field(ge=1)] = Field(
        default=256, description="How much finished jobs may hold in memory, in MiB"
    )
    body_limit_mb: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=32, description="The longest request body, in MiB"
    )
    wait_seconds: Annotated[float, Field(ge=0, le=600)] = Field(
        default=45.0, description="How long an MCP tool waits before it hands out a job id"
    )
    max_attempts: Annotated[int, Field(ge=1, le=20)] = Field(
        default=3, description="How often a job is tried when its failures are transient"
    )
    deadline_s: PerModality = Field(
        default=_LIMITS["deadline_s"],
        description="From submission to the end, by modality",
    )
    attempt_s: PerModality = Field(
        default=_LIMITS["attempt_s"], description="The longest attempt, by modality"
    )
    ghost_s: Seconds = Field(
        default=300.0,
        description="For LocalAI to finish a cancelled picture before its slot is given on",
    )
    load_s: Seconds = Field(default=900.0, description="The longest load of a model")
    connect_s: Seconds = Field(default=3.0, description="To connect to LocalAI")
    first_byte_s: Seconds = Field(
        default=600.0,
        description="From a text request to the first token of LocalAI's answer",
    )
    idle_s: Seconds = Field(default=60.0, description="Between two pieces of LocalAI's answer")
    grace_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=10.0, description="For running jobs when the server is told to stop"
    )
    look_s: Seconds = Field(default=30.0, description="Between two looks at LocalAI's models")
    log_file: Path | None = Field(
        default=Path("app.log"), description="Where the log goes; empty: to the console only"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged"
    )
    log_console: bool = Field(
        default=True, description="Whether the log also goes to standard error, for people"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say which source wins."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)

    @field_validator("allowed_hosts", "allowed_origins", "order", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("log_file", "localai_api_key_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("deadline_s", "attempt_s")
    @classmethod
    def _fill_in(cls, value: PerModality, info: ValidationInfo) -> PerModality:
        return _LIMITS[info.field_name or ""] | value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sorted(self.order) != sorted(Modality):
            raise ValueError(f"order must name each of {', '.join(Modality)} once")
        if self.localai_api_key is not None and self.localai_api_key_file is not None:
            raise ValueError("give either localai_api_key or localai_api_key_file")
        for modality in Modality:
            if not self.connect_s < self.attempt_s[modality] <= self.deadline_s[modality]:
                raise ValueError(f"{modality}: connect_s < attempt_s <= deadline_s must hold")
        return self

    @property
    def localai_key(self) -> str | None:
        """The key for LocalAI, wherever it was given."""
        if self.localai_api_key_file is not None:
            return self.localai_api_key_file.read_text(encoding="utf-8").strip()
        return self.localai_api_key.get_secret_value() if self.localai_api_key else None
