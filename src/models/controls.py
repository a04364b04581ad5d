"""What an operator has switched: which jobs are held back, and what is not done at present."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from .errors import InvalidInput
from .queues import Entry

MOST_PAUSES = 1000
"""So many scopes may be paused at once."""


class Scope(NamedTuple):
    """Which jobs are meant: those of a modality, a model or a caller, or all."""

    kind: Literal["everything", "modality", "model", "caller"] = "everything"
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


EVERYTHING = Scope()


class Switched(NamedTuple):
    """When something was switched on, in seconds since 1970, and by whom."""

    at: float
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The switches.

    Attributes:
        paused: whose jobs are held back; those that run go on.
        stopped: nothing is started or loaded; what runs goes on.
        draining: no new work is taken in; what waits and runs goes on.

    """

    paused: Mapping[Scope, Switched] = field(default_factory=dict[Scope, Switched])
    stopped: Switched | None = None
    draining: Switched | None = None

    def holds(self, entry: Entry) -> bool:
        """Whether a job is held back."""
        paused = self.paused
        return bool(paused) and (
            ("modality", entry.modality) in paused
            or ("model", entry.model) in paused
            or ("caller", entry.caller) in paused
            or EVERYTHING in paused
        )

    def pause(self, scope: Scope, switched: Switched) -> "Controls":
        """Hold jobs back; harmless if they are already.

        Raises:
            InvalidInput: as much is paused as may be.

        """
        if scope in self.paused:
            return self
        if len(self.paused) >= MOST_PAUSES:
            raise InvalidInput(
                f"{MOST_PAUSES} modalities, models and callers are paused, as many as may be",
                param=scope.kind,
                hint="resume those that need no pause any more, or pause everything",
            )
        return replace(self, paused={**self.paused, scope: switched})

    def resume(self, scope: Scope) -> "Controls":
        """Hold jobs back no longer, if nothing else does; everything: lift every pause."""
        left = {s: p for s, p in self.paused.items() if scope not in (s, EVERYTHING)}
        return replace(self, paused=left)
