"""The pictures that are being drawn for A1111's clients, of whom each sees its own."""

from collections.abc import Sequence
from weakref import WeakSet

from ...handles import JobHandle


class Drawings:
    """Knows the jobs that came through this door, for as long as they live."""

    def __init__(self) -> None:
        self._handles: WeakSet[JobHandle] = WeakSet()

    def __repr__(self) -> str:
        return f"<Drawings [{len(self._handles)}]>"

    def add(self, handle: JobHandle) -> None:
        """Note a job."""
        self._handles.add(handle)

    def unfinished(self, caller: str) -> Sequence[JobHandle]:
        """Return the jobs of a caller that have not ended, the oldest first."""
        own = (handle for handle in self._handles if handle.job.caller == caller)
        return sorted(
            (handle for handle in own if not handle.job.state.terminal),
            key=lambda handle: handle.job.sequence,
        )
