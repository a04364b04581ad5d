"""What a caller holds of a job: its latest state, its end, and its pieces as they come."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from math import inf
from typing import Self

from .models.errors import DeadlineExceeded, InferenceManagerError, JobCancelled
from .models.jobs import Job, JobState
from .models.results import Chunk, Result, TextDelta, pieces_of


class JobHandle:
    """The future and the live stream of one job.

    Any number of callers may wait on a handle; a caller that stops waiting changes nothing.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pieces: list[Chunk] = []
        self._watching: list[asyncio.Future[None]] = []
        self._awaiting_end: list[asyncio.Future[None]] = []
        self._tails: list[Tail] = []
        self._parted: InferenceManagerError | None = None
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
        """The pieces of the present attempt so far; those of a result that was kept, if it was."""
        if not self._pieces and self._job.result is not None:
            return tuple(pieces_of(self._job.result))
        return self._pieces

    @property
    def over(self) -> bool:
        """Whether the job has ended, or goes on where nothing is heard of it here."""
        return self._job.state.terminal or self._parted is not None

    async def changed(self) -> None:
        """Wait until the job takes its next step or yields its next piece."""
        await self._next(self._watching)

    async def settled(self) -> Job:
        """Wait until the job is over here, and return its latest state."""
        while not self.over:
            await self._next(self._awaiting_end)
        return self._job

    def tell_end(self, future: asyncio.Future[None]) -> None:
        """Have a future done when the job is over; `forget` it when it does not matter any more."""
        self._awaiting_end.append(future)

    def forget(self, future: asyncio.Future[None]) -> None:
        """Forget a future; harmless if it is not known."""
        if future in self._awaiting_end:
            self._awaiting_end.remove(future)

    async def result(self) -> Result:
        """Wait for the end of the job and return its result.

        Raises:
            InferenceManagerError: why there is none; see `outcome`.

        """
        await self.settled()
        return self.outcome()

    def outcome(self) -> Result:
        """Return the result of a job that is over.

        Raises:
            InferenceManagerError: it has none, see `result_of`; or its result will be had later,
                from whoever goes on with it.

        """
        if self._parted is not None and not self._job.state.terminal:
            raise self._parted
        return result_of(self._job)

    def tail(
        self,
        *,
        limit: float = inf,
        overrun: Callable[[], None] | None = None,
        onlooker: bool = False,
    ) -> "Tail":
        """Follow the pieces, from the first one of the present attempt on.

        Once a piece has been taken the attempt is not repeated: a failure is then final.

        Args:
            limit: bytes that may come and not be taken.
            overrun: called once when more have come, and again if that was taken.
            onlooker: the attempt may be repeated all the same: whoever follows can be told.

        """
        tail = Tail(self, limit, overrun, onlooker=onlooker)
        if not self.over:
            self._tails.append(tail)
        return tail

    async def stream(self) -> AsyncGenerator[Chunk]:
        """Yield the pieces as they come, to their end.

        Raises:
            InferenceManagerError: there is no result; see `outcome`.

        """
        with self.tail() as tail:
            while True:
                for chunk in tail.take():
                    yield chunk
                if not tail.waiting:
                    self.outcome()
                    return
                await tail.more()

    # For the processor

    def update(self, job: Job) -> None:
        """Take the job's next step."""
        self._job = job
        if job.state.terminal:
            _wake(self._awaiting_end)
        self._announce()

    def part(self, why: InferenceManagerError) -> None:
        """Tell those who wait that the job goes on without this process."""
        self._parted = why
        _wake(self._awaiting_end)
        self._announce()

    def begin(self) -> None:
        """Forget the pieces of an attempt that failed before anybody saw them."""
        self._pieces.clear()
        for tail in self._tails:
            tail.forget()

    def push(self, chunk: Chunk) -> None:
        """Add a piece."""
        for tail in tuple(self._tails):
            tail.put(chunk)
        if isinstance(chunk, TextDelta) and chunk.event:
            chunk = TextDelta(chunk.text, chunk.reasoning, chunk.choice, chunk.calls)
        self._pieces.append(chunk)
        self._announce()

    def unfollow(self, tail: "Tail") -> None:
        """Let go of one who follows; harmless if it is not there."""
        if tail in self._tails:
            self._tails.remove(tail)

    def _announce(self) -> None:
        if self._watching:
            _wake(self._watching)
        for tail in self._tails:
            tail.poke()

    async def _next(self, waiting: list[asyncio.Future[None]]) -> None:
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        try:
            await future
        finally:
            if future in waiting:
                waiting.remove(future)


class Tail:
    """What one caller has not taken yet of a job's pieces."""

    def __init__(
        self,
        handle: JobHandle,
        limit: float,
        overrun: Callable[[], None] | None,
        *,
        onlooker: bool = False,
    ) -> None:
        self._handle = handle
        self._limit = limit
        self._overrun = overrun
        self._onlooker = onlooker
        self._pieces: deque[Chunk] = deque(handle.pieces)
        self._size = 0
        self._told = False
        self._waking: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Tail of {self._handle.id} [{len(self._pieces)} pieces, {self._size} bytes]>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.unfollow(self)

    @property
    def waiting(self) -> bool:
        """Whether anything is left to be taken, now or later."""
        return bool(self._pieces) or not self._handle.over

    def take(self) -> Sequence[Chunk]:
        """Take all pieces that are there."""
        taken = tuple(self._pieces)
        if taken:
            self._handle.delivered = self._handle.delivered or not self._onlooker
            self.forget()
        return taken

    async def more(self) -> None:
        """Wait for the next piece, for the job's next step, or to be poked."""
        if not self._pieces:
            self._waking = asyncio.get_running_loop().create_future()
            await self._waking

    def poke(self) -> None:
        """Wake whoever waits."""
        if self._waking is not None and not self._waking.done():
            self._waking.set_result(None)

    def put(self, chunk: Chunk) -> None:
        """Add a piece."""
        self._pieces.append(chunk)
        self._size += chunk.size if isinstance(chunk, TextDelta) else 0
        if self._size > self._limit and not self._told and self._overrun is not None:
            self._told = True
            self._overrun()

    def forget(self) -> None:
        """Forget what is there."""
        self._pieces.clear()
        self._size = 0
        self._told = False


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()


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
