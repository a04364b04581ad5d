"""The pool: the backends of the settings as clients; keys and certificates are read here."""

from collections.abc import Iterator, Mapping

import httpx2

from .models.capacity import BackendLimits
from .models.modality import STREAMED
from .models.ports import Blobs, Clock
from .settings import BackendSettings, Settings
from .utils.localai_client import LocalAIClient
from .utils.tls import UnusableFile, client_context

_PING_S = 3.0
_OF_LOCALAI = {
    "url": "localai_url",
    "key": "localai_api_key",
    "key_file": "localai_api_key_file",
}


class BadBackend(ValueError):
    """A backend cannot be made as its settings say; `setting` is the one to change."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(f"setting {setting}: {message}")
        self.setting = setting


def clients(
    settings: Settings,
    *,
    clock: Clock,
    patience: float | None = None,
    blobs: Blobs | None = None,
) -> Iterator[LocalAIClient]:
    """Make a client for each backend.

    Args:
        settings: where they are, and how long things may take.
        clock: what dates in answers are compared with.
        patience: the longest time to connect and for a sign of life, in seconds.
        blobs: where requests have their pictures and recordings, and results are to have theirs.

    Raises:
        BadBackend: one cannot be made: a key or certificate is missing or unusable.

    """
    for backend in settings.pool:
        yield _client(settings, backend, clock, patience, blobs)


def limits(settings: Settings) -> Mapping[str, BackendLimits]:
    """Say what fits into the memory of each backend: its own words, or what is said for all."""
    return {
        backend.name: BackendLimits(resident=settings.resident, memory_gb=settings.memory_gb)
        if backend.resident is None and backend.memory_gb is None
        else BackendLimits(
            resident=backend.resident or settings.resident, memory_gb=backend.memory_gb
        )
        for backend in settings.pool
    }


def _client(
    settings: Settings,
    backend: BackendSettings,
    clock: Clock,
    patience: float | None,
    blobs: Blobs | None,
) -> LocalAIClient:
    try:
        return LocalAIClient(
            name=backend.name,
            url=backend.url,
            api_key=_key(backend),
            verify=client_context(
                verify=backend.verify,
                ca_bundle=backend.ca_bundle,
                client_cert=backend.client_cert,
                client_key=backend.client_key,
            ),
            trust_env=backend.use_proxy_env,
            connect_s=min(settings.connect_s, patience or settings.connect_s),
            first_byte_s={
                modality: settings.first_byte_s if modality in STREAMED else limit
                for modality, limit in settings.attempt_s.items()
            },
            idle_s=settings.idle_s,
            load_s=settings.load_s,
            ping_s=_PING_S if patience is None else patience,
            clock=clock,
            blobs=blobs,
        )
    except UnusableFile as error:
        raise BadBackend(_setting(settings, backend, error.setting), str(error)) from error
    except httpx2.InvalidURL as error:
        raise BadBackend(_setting(settings, backend, "url"), str(error)) from error
    except (ValueError, ImportError) as error:  # the key, or what the environment says of proxies
        raise BadBackend(_setting(settings, backend), str(error)) from error


def _key(backend: BackendSettings) -> str | None:
    file = backend.key_file
    if file is None:
        return None if backend.key is None else backend.key.get_secret_value()
    try:
        key = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UnusableFile("key_file", f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnusableFile("key_file", f"{file} cannot be read: it holds no text") from error
    if not key:
        raise UnusableFile("key_file", f"{file} is empty")
    return key


def _setting(settings: Settings, backend: BackendSettings, key: str = "") -> str:
    if settings.backends:
        return f"backends.{backend.name}.{key}".rstrip(".")
    return _OF_LOCALAI[key or ("key" if backend.key_file is None else "key_file")]
