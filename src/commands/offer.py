"""A quick look at every LocalAI of the settings, without a server of ours in between."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..models.catalog import Catalog, ModelDefinition
from ..models.errors import BackendUnavailable, InferenceManagerError
from ..models.modality import Modality
from ..models.ports import OfferedModel
from ..pool import clients
from ..settings import Settings
from ..utils.localai_client import LocalAIClient
from .configuration import backends_named, read_models


@dataclass(frozen=True, slots=True)
class Offer:
    """What one LocalAI said, or why it said nothing."""

    name: str
    url: str
    models: Sequence[OfferedModel] = ()
    version: str = ""
    trouble: str = ""
    advised: bool = False
    """Whether the trouble says already what to do about it."""

    @property
    def reachable(self) -> bool:
        """Whether it answered."""
        return not self.trouble


@dataclass(frozen=True, slots=True)
class Offers:
    """What all of them said, in the order of the settings."""

    each: Sequence[Offer]
    definitions: Sequence[ModelDefinition]

    @property
    def silent(self) -> Sequence[Offer]:
        """Those that did not answer."""
        return [offer for offer in self.each if not offer.reachable]

    @property
    def catalog(self) -> Catalog:
        """The models of those that answered, taken together."""
        if len(self.silent) == len(self.each):
            return Catalog(None, self.definitions)
        return Catalog([model for o in self.each for model in o.models], self.definitions)

    def by_modality(self, offer: Offer) -> str:
        """How many models one of them has for what."""
        catalog = Catalog(offer.models, self.definitions)
        return ", ".join(f"{m} {len(catalog.models(m))}" for m in Modality)


async def look(settings: Settings, *, patience: float) -> Offers:
    """Ask every LocalAI what it is and what it has, and wait no longer than so many seconds.

    Raises:
        Failure: the settings do not allow even to ask.

    """
    definitions = read_models(settings)
    with backends_named():
        asked = list(clients(settings, clock=time.time, patience=patience))
    each = await asyncio.gather(
        *(
            _ask(client, backend.url, patience)
            for client, backend in zip(asked, settings.pool, strict=True)
        )
    )
    return Offers(each, definitions)


async def _ask(client: LocalAIClient, url: str, patience: float) -> Offer:
    try:
        async with asyncio.timeout(patience):
            version = await client.ping()
            offered = await client.models()
    except InferenceManagerError as error:
        trouble = error.message.removeprefix(f"backend {client.name} ")
        trouble = trouble.removeprefix(f"at {url.rstrip('/')} ")
        if error.hint:
            trouble = f"{trouble}: {error.hint}"
        found_nobody = isinstance(error, BackendUnavailable) and not error.reached
        return Offer(client.name, url, trouble=trouble, advised=not found_nobody)
    except TimeoutError:
        return Offer(client.name, url, trouble=f"no answer within {patience:g} s")
    finally:
        await client.close()
    return Offer(client.name, url, tuple(offered), version)
