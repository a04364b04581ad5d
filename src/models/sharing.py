"""Which job answers a request that was made before: indexes that lead to jobs, not to results."""

import re
from collections import OrderedDict

from .errors import InvalidInput

ENTRY_BYTES = 500
"""About how much room an entry of the index itself takes."""

_KEY = re.compile(r"[ -~]{1,255}")


class AnswerIndex:
    """Leads from fingerprints to the jobs that answered them; the least recently used goes first.

    Args:
        limit_bytes: how much the results may hold that the index leads to, with 500 bytes for
            each entry; 0 remembers nothing.

    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._jobs: OrderedDict[str, tuple[str, int]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<AnswerIndex [{len(self._jobs)} answers, {self._bytes} bytes]>"

    def __len__(self) -> int:
        return len(self._jobs)

    def find(self, fingerprint: str) -> str | None:
        """Return the job that answered; None if none is remembered."""
        if fingerprint not in self._jobs:
            return None
        self._jobs.move_to_end(fingerprint)
        return self._jobs[fingerprint][0]

    def remember(self, fingerprint: str, job_id: str, size_bytes: int) -> None:
        """Lead to a job from now on, if its result has room."""
        _, old = self._jobs.pop(fingerprint, ("", 0))
        self._bytes -= old
        size = size_bytes + ENTRY_BYTES
        if size > self._limit:
            return
        self._jobs[fingerprint] = job_id, size
        self._bytes += size
        while self._bytes > self._limit:
            _, (_, gone) = self._jobs.popitem(last=False)
            self._bytes -= gone


class UnderWay:
    """Leads from fingerprints to the jobs that are about to answer them."""

    def __init__(self) -> None:
        self._jobs: dict[str, str] = {}
        self._fingerprints: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._fingerprints)

    def running(self, fingerprint: str) -> str | None:
        """Return the job that is under way; None if there is none."""
        return self._jobs.get(fingerprint)

    def began(self, fingerprint: str, job_id: str) -> None:
        """Lead to a job until it ends, or until another begins."""
        self._jobs[fingerprint] = job_id
        self._fingerprints[job_id] = fingerprint

    def ended(self, job_id: str) -> None:
        """Lead to this job no more; harmless for one that never began."""
        fingerprint = self._fingerprints.pop(job_id, "")
        if self._jobs.get(fingerprint) == job_id:
            del self._jobs[fingerprint]


def check_key(key: str) -> None:
    """Check what a caller gave as an `Idempotency-Key`.

    Raises:
        InvalidInput: it is none.

    """
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            "Idempotency-Key must be 1 to 255 printable ASCII characters",
            param="Idempotency-Key",
            hint="send a UUID, a new one for each new request",
        )
