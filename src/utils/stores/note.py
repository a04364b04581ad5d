"""A note: what memory knows of a job, and what of it the disk does not know yet."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...models.errors import StaleJob
from ...models.jobs import Job, Step
from .rows import Keeping
from .statement import Statement
from .statements import added, saved

if TYPE_CHECKING:
    from .database_file import Outcome


class Note:
    """The latest version of a job, and the steps to it that are not written.

    It is an operation: whatever has become of the job is written when its turn comes, at once.

    Args:
        job: the job.
        step: the step that made it so.
        written: the version on the disk; None without one.
        keeping: for how long the job is kept after its end.
        outbox: what else is to be written when a job that was promised ends.
        settled: told when it was written, or was not.

    Attributes:
        size: about how many bytes are to be written.
        taken: the version whose turn came last.
        queued: whether its turn is awaited, or being taken.
        held: done when the step that is being committed apart is over; None without one.

    """

    def __init__(
        self,
        job: Job,
        step: Step,
        *,
        written: int | None,
        keeping: Keeping,
        outbox: Callable[[Job], Sequence[Statement]],
        settled: "Callable[[Note, Outcome], None]",
    ) -> None:
        self.job = job
        self.written = written
        self.steps = [step]
        self.size = 0
        self.queued = False
        self.held: asyncio.Future[None] | None = None
        self.taken = job
        self._settled = settled
        self._keeping = keeping
        self._outbox = outbox
        self._request = None if written is None else job.request

    @property
    def even_if_full(self) -> bool:
        """Whether it is the end of a job that was promised."""
        return self.job.promise is not None

    @property
    def unwritten(self) -> bool:
        """Whether the disk lacks something."""
        return self.written != self.job.version

    def check(self, job: Job) -> None:
        """Raise `StaleJob` unless a step leads from the latest version to this one."""
        if job.version != self.job.version + 1:
            raise StaleJob("the job has changed in the meantime")

    def take(self, job: Job, step: Step) -> None:
        """Note the next version."""
        self.job = job
        self.steps.append(step)

    def statements(self) -> Sequence[Statement]:
        """Say what the disk lacks."""
        self.taken = self.job
        statements = self.statements_for(self.job, self.steps)
        if self.job.promise is not None:
            statements += self._outbox(self.job)
        return statements

    def statements_for(self, job: Job, steps: Sequence[Step]) -> list[Statement]:
        """Say what the disk lacks of a version of the job."""
        if self.written is None:
            return added(job, steps, self._keeping)
        renamed = job.request is not self._request
        return saved(job, self.written, steps, self._keeping, renamed=renamed)

    def settled(self, outcome: "Outcome") -> None:
        """Tell whoever keeps the note."""
        self.queued = False
        self._settled(self, outcome)

    def is_written(self, job: Job | None = None) -> None:
        """Note that a version is on the disk: the one whose turn it was, or another."""
        job = job or self.taken
        self.written = job.version
        self.steps = [step for step in self.steps if step.version > job.version]
        self._request = job.request
