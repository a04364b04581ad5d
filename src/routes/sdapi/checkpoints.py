"""Which model each caller has chosen, as A1111's clients do once rather than in every call."""

from collections.abc import Sequence

from ...models.errors import BackendUnseen
from ...models.modality import Modality
from ...models.requests import Txt2ImgRequest
from ...processor import Processor

_MOST = 1000
_RETRY_S = 5.0


class Checkpoints:
    """Remembers the choices of the last thousand callers, in memory alone."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._chosen: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Checkpoints [{len(self._chosen)}]>"

    def chosen(self, caller: str) -> str | None:
        """Return the model that a caller has chosen; None if it has not."""
        return self._chosen.get(caller)

    def current(self, caller: str) -> str:
        """Return the model that draws for a caller who names none; empty if there is none."""
        return self.chosen(caller) or next(iter(self._drawing()), "")

    def offered(self) -> list[str]:
        """Return the models that draw, the default one first.

        Raises:
            BackendUnseen: no backend was reached yet.

        """
        self._check_seen()
        return [*self._drawing()]

    def choose(self, caller: str, name: str) -> None:
        """Have a model draw for a caller from now on.

        Raises:
            UnknownModel: no backend offers it, or it does not draw.
            BackendUnseen: a backend that was not reached yet may offer it.

        """
        self._check_seen()
        self._processor.catalog.resolve(Txt2ImgRequest(prompt="?", model=name))
        self._chosen.pop(caller, None)
        self._chosen[caller] = name
        if len(self._chosen) > _MOST:
            del self._chosen[next(iter(self._chosen))]

    def reads_strength(self, name: str | None) -> bool:
        """Say whether a model that changes pictures, or else the default one, reads `strength`."""
        catalog = self._processor.catalog
        name = name or next(iter(catalog.models(Modality.IMG2IMG)), "")
        definition = catalog.definitions.get(name)
        return definition is not None and definition.strength

    def _drawing(self) -> Sequence[str]:
        return self._processor.catalog.models(Modality.TXT2IMG)

    def _check_seen(self) -> None:
        if not self._processor.catalog.known:
            raise BackendUnseen(
                "no backend was reached yet, so nobody knows its models",
                hint="see /queue-status for what is wrong with it",
                retry_after=_RETRY_S,
            )
