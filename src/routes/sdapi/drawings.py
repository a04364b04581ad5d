"""The pictures that are being drawn for A1111's clients, of whom each sees its own."""

from collections.abc import Sequence

from ...handles import JobHandle


class Drawings:
    """Knows the jobs that came through this door and have not ended."""

    def __init__(self) -> None:
        self._handles: dict[str, JobHandle] = {}

    def __repr__(self) -> str:
        return f"<Drawings [{len(self._handles)}]>"

    def add(self, handle: JobHandle) -> None:
        """Note a job, and forget those that have ended."""
        left = {job_id: one for job_id, one in self._handles.items() if not one.over}
        self._handles = left | {handle.id: handle}

    def unfinished(self, caller: str) -> Sequence[JobHandle]:
        """Return the jobs of a caller that have not ended, the oldest first."""
        own = (handle for handle in self._handles.values() if handle.job.caller == caller)
        return sorted((one for one in own if not one.over), key=lambda one: one.job.sequence)
