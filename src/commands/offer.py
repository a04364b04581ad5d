"""A quick look at LocalAI, without a server of ours in between."""

import asyncio
from dataclasses import dataclass

from ..models.catalog import Catalog
from ..models.errors import InferenceManagerError
from ..models.modality import Modality
from ..settings import Settings
from ..utils.localai_client import LocalAIClient
from .configuration import localai_key, read_models
from .terminal import Failure


@dataclass(frozen=True, slots=True)
class Offer:
    """What LocalAI said, or why it said nothing."""

    url: str
    catalog: Catalog
    version: str = ""
    trouble: str = ""

    @property
    def reachable(self) -> bool:
        """Whether it answered."""
        return not self.trouble

    @property
    def by_modality(self) -> str:
        """How many models there are for what."""
        return ", ".join(f"{m} {len(self.catalog.models(m))}" for m in Modality)


async def look(settings: Settings, *, patience: float) -> Offer:
    """Ask LocalAI what it is and what it has, and wait no longer than so many seconds.

    Raises:
        Failure: the settings do not allow even to ask.

    """
    definitions = read_models(settings)
    try:
        client = LocalAIClient(
            name="LocalAI",
            url=settings.localai_url,
            api_key=localai_key(settings),
            connect_s=min(settings.connect_s, patience),
            ping_s=patience,
        )
    except ValueError as error:
        raise Failure(f"{error}; change LOCALAI_URL or LOCALAI_API_KEY") from error
    try:
        async with asyncio.timeout(patience):
            version = await client.ping()
            offered = await client.models()
    except InferenceManagerError as error:
        return Offer(
            settings.localai_url,
            Catalog(None, definitions),
            trouble=_trouble(error, settings.localai_url),
        )
    except TimeoutError:
        trouble = f"no answer within {patience:g} s"
        return Offer(settings.localai_url, Catalog(None, definitions), trouble=trouble)
    finally:
        await client.close()
    return Offer(settings.localai_url, Catalog(offered, definitions), version=version)


def _trouble(error: InferenceManagerError, url: str) -> str:
    return error.message.removeprefix("backend LocalAI ").removeprefix(f"at {url.rstrip('/')} ")
