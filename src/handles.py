"""What a caller holds of a job: its latest state, its end, and its pieces as they come."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from .models.errors import DeadlineExceeded, InferenceManagerError, JobCancelled
from .models.jobs import Job, JobState
from .models.results import Chunk, Result


class JobHandle:
    """The future and the live stream of one job.

    Any number of callers may wait on a handle; a caller that stops waiting changes nothing.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pieces: list[Chunk] = []
        self._changed = asyncio.Event()
        self.delivered = False
        """Whether a caller has seen a piece of the present attempt; it then cannot be repeated."""

    def __repr__(self) -> str:
        return f"<JobHandle {self._job.id} [{self._job.state}, {len(self._pieces)} pieces]>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self._job.id

    @property
    def job(self) -> Job:
        """The job as it is now."""
        return self._job

    @property
    def pieces(self) -> Sequence[Chunk]:
        """The pieces of the present attempt so far."""
        return self._pieces

    async def changed(self) -> None:
        """Wait until the job takes its next step or yields its next piece."""
        await self._changed.wait()

    async def settled(self) -> Job:
        """Wait for the end of the job and return its final state."""
        while not self._job.state.terminal:
            await self._changed.wait()
        return self._job

    async def result(self) -> Result:
        """Wait for the end of the job and return its result.

        Raises:
            InferenceManagerError: why there is none; see `result_of`.

        """
        return result_of(await self.settled())

    async def stream(self) -> AsyncGenerator[Chunk]:
        """Yield the pieces as they come.

        Once the first has been taken the attempt is not repeated: a failure is then final.

        Raises:
            InferenceManagerError: the job ended without success; see `result_of`.

        """
        at = 0
        while True:
            while at < len(self._pieces):
                self.delivered = True
                yield self._pieces[at]
                at += 1
            if self._job.state.terminal:
                result_of(self._job)
                return
            await self._changed.wait()

    # For the processor

    def update(self, job: Job) -> None:
        """Take the job's next step."""
        self._job = job
        self._announce()

    def begin(self) -> None:
        """Forget the pieces of an attempt that failed before anybody saw them."""
        self._pieces.clear()

    def push(self, chunk: Chunk) -> None:
        """Add a piece."""
        self._pieces.append(chunk)
        self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def result_of(job: Job) -> Result:
    """Return the result of a job that has ended.

    Raises:
        JobCancelled: it was cancelled.
        DeadlineExceeded: its time ran out.
        InferenceManagerError: the error that ended it.

    """
    match job.state:
        case JobState.COMPLETED if job.result is not None:
            return job.result
        case JobState.CANCELLED:
            raise JobCancelled("the job was cancelled")
        case JobState.EXPIRED:
            doing = "was being worked on" if job.backend else "waited for its turn"
            last = f"; before that: {job.error.message}" if job.error else ""
            raise DeadlineExceeded(
                f"the job's deadline passed while it {doing}{last}",
                hint="submit it again with a later deadline, or when the queue is shorter",
            )
        case _:
            raise job.error or InferenceManagerError(f"the job is {job.state}")
