"""Every setting, read once: command line over environment over `config.yaml` over defaults."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
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

from .models.keys import check_keys, read_keys
from .models.modality import SLOW, Modality
from .models.queues import priority_order
from .models.webhooks import read_secret

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
Keep = Annotated[float, Field(ge=1, le=3650 * 86_400)]
PerModality = dict[Modality, Seconds]
NameList = Annotated[list[str], NoDecode]


def _address(value: str) -> str:
    """Check where a LocalAI is said to be; its key has a setting of its own."""
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", value):
        raise ValueError("must look like http://localhost:8080")
    if urlsplit(value).port == 0:
        raise ValueError("port 0 is no port to connect to")
    return value


def _name(value: str) -> str:
    """Check what a backend is called: the name stands in logs, tables and metrics."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise ValueError("must be letters, digits, dots, dashes and underscores, 64 at most")
    return value


def _store(value: str) -> str:
    """Check where jobs are kept."""
    if value != _IN_MEMORY and not re.fullmatch(rf"{_FILE}[^?#]*[^/?#]", value):
        raise ValueError(f"must look like {_FILE}data/jobs.db, or be {_IN_MEMORY}")
    return value


_FILE, _IN_MEMORY = "sqlite:///", "sqlite::memory:"

Address = Annotated[str, AfterValidator(_address)]
Name = Annotated[str, AfterValidator(_name)]
Resident = Annotated[int, Field(ge=1, le=1000)]
Gigabytes = Annotated[float, Field(gt=0)]

_OF_ONE = {
    "localai_url": "LOCALAI_URL",
    "localai_api_key": "LOCALAI_API_KEY",
    "localai_api_key_file": "IM_LOCALAI_API_KEY_FILE",
}
"""What is only for one LocalAI, with its variable."""

_LIMITS: dict[str, PerModality] = {
    "deadline_s": {m: 3600.0 if m in SLOW else 1800.0 for m in Modality},
    "attempt_s": {m: 1800.0 if m in SLOW else 900.0 for m in Modality},
}


class BackendSettings(BaseModel):
    """One LocalAI of several."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Name = Field(
        default="", description="What it is called everywhere; else its host and port"
    )
    url: Address = Field(description="Where it answers")
    key: SecretStr | None = Field(default=None, description="The key that it asks for")
    key_file: Path | None = Field(
        default=None, description="A file that holds that key, instead of the key itself"
    )
    verify: bool = Field(
        default=True,
        description="Whether its TLS certificate must be trusted and made for its host",
    )
    ca_bundle: Path | None = Field(
        default=None, description="A file in PEM: whom to trust, and nobody else"
    )
    client_cert: Path | None = Field(
        default=None, description="A file in PEM: our certificate, where it asks for one"
    )
    client_key: Path | None = Field(
        default=None, description="A file in PEM: the key of `client_cert`, if it is not in there"
    )
    use_proxy_env: bool = Field(
        default=False,
        description="Whether it is reached through the proxy that the environment names",
    )
    resident: Resident | None = Field(
        default=None, description="Like the setting `resident`, for this one"
    )
    memory_gb: Gigabytes | None = Field(
        default=None, description="Like the setting `memory_gb`, for this one"
    )

    @model_validator(mode="before")
    @classmethod
    def _name_it(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        given = cast("dict[str, object]", value)
        url = given.get("url")
        if "name" in given or not isinstance(url, str):
            return given
        host = urlsplit(url).netloc.rpartition("@")[2]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", host).strip("-.")[:64]
        return {**given, "name": name} if name else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.key is not None and self.key_file is not None:
            raise ValueError("give either key or key_file")
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("client_key is the key of a client_cert, which is missing")
        if self.ca_bundle is not None and not self.verify:
            raise ValueError("ca_bundle says whom to trust, verify: false that nobody is checked")
        if self.url.startswith("http:") and (self.ca_bundle or self.client_cert):
            raise ValueError("certificates need a url that begins with https://")
        return self


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

    localai_url: Address = Field(
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
    backends: list[BackendSettings] = Field(
        default=[], description="Several LocalAIs, instead of the one of `localai_url`"
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
    api_keys: Annotated[dict[str, SecretStr], NoDecode] = Field(
        default={}, description="Who may call, by name, each with a key; else everybody may"
    )
    api_keys_file: Path | None = Field(
        default=None, description="A file that holds these keys, instead of the keys themselves"
    )
    operators: NameList = Field(
        default=[], description="Callers who may pause, stop and purge, where there are keys"
    )
    link_s: Seconds = Field(
        default=3600.0, description="How long addresses of results work that need no key"
    )
    public_url: str = Field(
        default="", description="Address that links to results begin with; else the one called"
    )
    webhook_secrets: Annotated[list[SecretStr], NoDecode] = Field(
        default=[],
        description="What webhooks are signed with, `whsec_...`; without it none is sent",
    )
    webhook_allow_http: bool = Field(
        default=False, description="Whether webhooks may go to addresses that begin with `http://`"
    )
    webhook_allow_private: bool = Field(
        default=False, description="Whether webhooks may go to this machine and its networks"
    )
    models_dir: Path = Field(default=Path("models"), description="Where model definitions are")
    order: Annotated[list[Modality], NoDecode] = Field(
        default=list(priority_order), description="Which modality goes first"
    )
    resident: Resident = Field(
        default=1, description="How many models fit into LocalAI's memory at once"
    )
    memory_gb: Gigabytes | None = Field(
        default=None, description="Memory for models in GB; used instead of `resident` when set"
    )
    warm: NameList = Field(
        default=[], description="Models that are loaded at start, as far as they fit"
    )
    affinity_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=20.0,
        description="How long jobs for the model in memory may go before better ones for others",
    )
    reload_when_cheaper: bool = Field(
        default=False,
        description="Whether a model that works on a cancelled job is shut down when loading it "
        "anew is quicker; needs admin rights on LocalAI",
    )
    crash_s: Seconds = Field(
        default=30.0, description="How long a model whose process died is left alone"
    )
    max_waiting: Annotated[int, Field(ge=1)] = Field(
        default=10_000, description="How many jobs may wait"
    )
    max_waiting_per_caller: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="How many jobs of one caller may wait"
    )
    max_waiting_mb: Annotated[int, Field(ge=1)] = Field(
        default=512, description="How much their requests may hold in memory, in MiB"
    )
    max_waiting_disk_mb: Annotated[int, Field(ge=1)] = Field(
        default=4096, description="How much their pictures and recordings may take on disk, in MiB"
    )
    store: Annotated[str, AfterValidator(_store)] = Field(
        default=f"{_FILE}data/jobs.db",
        description="Where jobs are kept: a file, or `sqlite::memory:`, gone when the server stops",
    )
    keep_results_mb: Annotated[int, Field(ge=1)] = Field(
        default=1024, description="How much jobs that have ended may take on disk, in MiB"
    )
    keep_s: Keep = Field(default=86_400.0, description="How long results are kept")
    keep_failed_s: Keep = Field(
        default=604_800.0, description="How long failed and expired jobs are kept"
    )
    merge: bool = Field(
        default=False,
        description="Whether a request is answered by the same one that is under way",
    )
    cache_mb: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How much finished jobs may hold that answer the same request again, in MiB; "
        "0: none does",
    )
    body_limit_mb: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=32, description="The longest request body, in MiB"
    )
    max_file_mb: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=100, description="The largest file for a batch, in MiB"
    )
    files_mb: Annotated[int, Field(ge=1)] = Field(
        default=2048, description="How much files of batches may take on disk, in MiB"
    )
    keep_files_s: Annotated[int, Field(ge=3600)] = Field(
        default=2_592_000, description="How long files of batches, and batches, are kept"
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
    job_deadline_s: Seconds = Field(
        default=86_400.0,
        description="From submission to the end of a job that nobody waits for, if it names none",
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

    @field_validator(
        "allowed_hosts",
        "allowed_origins",
        "operators",
        "order",
        "warm",
        "webhook_secrets",
        mode="before",
    )
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("api_keys", mode="before")
    @classmethod
    def _read_keys(cls, value: object) -> object:
        return read_keys(value.split(",")) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        check_keys({name: key.get_secret_value() for name, key in value.items()})
        return value

    @field_validator("webhook_secrets")
    @classmethod
    def _check_secrets(cls, value: list[SecretStr]) -> list[SecretStr]:
        for secret in value:
            read_secret(secret.get_secret_value())
        return value

    @field_validator("log_file", "localai_api_key_file", "api_keys_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("order")
    @classmethod
    def _all_in_order(cls, value: list[Modality]) -> list[Modality]:
        for modality in value:
            if value.count(modality) > 1:
                raise ValueError(f"{modality} is named more than once")
        return [*value, *(modality for modality in priority_order if modality not in value)]

    @field_validator("backends")
    @classmethod
    def _told_apart(cls, value: list[BackendSettings]) -> list[BackendSettings]:
        names = [backend.name for backend in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two are called {name}; give each a name of its own")
        return value

    @field_validator("deadline_s", "attempt_s")
    @classmethod
    def _fill_in(cls, value: PerModality, info: ValidationInfo) -> PerModality:
        return _LIMITS[info.field_name or ""] | value

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, variable in _OF_ONE.items():
            if self.backends and name in self.model_fields_set and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} ({variable}) and backends are both given; "
                    f"take {name} away, or say it inside backends"
                )
        if self.localai_api_key is not None and self.localai_api_key_file is not None:
            raise ValueError("give either localai_api_key or localai_api_key_file")
        if self.api_keys and self.api_keys_file is not None:
            raise ValueError("give either api_keys or api_keys_file")
        for modality in Modality:
            if not self.connect_s < self.attempt_s[modality] <= self.deadline_s[modality]:
                raise ValueError(f"{modality}: connect_s < attempt_s <= deadline_s must hold")
        return self

    @property
    def store_path(self) -> Path | None:
        """The file in which jobs are kept; None if it is none."""
        return None if self.store == _IN_MEMORY else Path(self.store.removeprefix(_FILE))

    @property
    def pool(self) -> list[BackendSettings]:
        """The backends, whether several were given or one."""
        return self.backends or [
            BackendSettings(
                name="localai",
                url=self.localai_url,
                key=self.localai_api_key,
                key_file=self.localai_api_key_file,
            )
        ]
