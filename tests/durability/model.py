"""What a durable queue must do, in plain dictionaries: written from its rules, not from its code.

It shares nothing with the product but words. A job is a row; a step changes the row and adds a
line to its history. Whoever compares the two plays the same steps in both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

RANKS = ("txt2txt", "txt2img", "txt2sound")
WAITING = ("queued", "retrying")
ENDS = ("completed", "failed", "cancelled", "expired")


@dataclass
class Row:
    """A job: what it is, where it stands, and the steps (version, state, attempts) it took."""

    id: str
    number: int
    modality: str
    level: int
    caller: str
    sequence: int
    submitted: float
    deadline: float
    promised: bool
    state: str = "queued"
    version: int = 0
    attempts: int = 0
    fence: int = 0
    code: str = ""
    ended: float = 0.0
    in_line: bool = True
    """Whether it may be taken: a job that waits for another attempt may not until then."""
    retry_at: float = 0.0
    steps: list[tuple[int, str, int]] = field(default_factory=lambda: [(0, "queued", 0)])
    places: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """The level and the sequence that it had at each version."""

    def __post_init__(self) -> None:
        self.places.append((self.level, self.sequence))

    @property
    def place(self) -> tuple[int, int, int]:
        return RANKS.index(self.modality), self.level, self.sequence

    def step(self, state: str) -> None:
        self.state, self.version = state, self.version + 1
        self.in_line = state == "queued"
        self.steps.append((self.version, state, self.attempts))
        self.places.append((self.level, self.sequence))


class Model:
    """All jobs, and the keys that stand for some of them."""

    def __init__(self, *, slots: int, attempts: int) -> None:
        self.slots = slots
        self.attempts = attempts
        self.rows: dict[str, Row] = {}
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._number = self._sequence = 0

    # What is known

    def of(self, *states: str) -> list[Row]:
        return [row for row in self.rows.values() if row.state in states]

    def line(self) -> list[Row]:
        return sorted((row for row in self.of(*WAITING) if row.in_line), key=lambda row: row.place)

    def position(self, job_id: str) -> int | None:
        line = [row.id for row in self.line()]
        return line.index(job_id) if job_id in line else None

    def sequence(self) -> int:
        return max((row.sequence for row in self.rows.values()), default=0)

    def listed(self, **asked: object) -> list[str]:
        """The newest first; each question names a column."""
        rows = sorted(self.rows.values(), key=lambda row: -row.number)
        return [row.id for row in rows if all(getattr(row, k) == v for k, v in asked.items())]

    def due(self, now: float, keep: Mapping[str, float]) -> list[str]:
        """Who has ended so long ago that nobody need remember."""
        return [row.id for row in self.of(*ENDS) if row.ended + keep[row.state] <= now]

    # What happens

    def submit(
        self,
        job_id: str,
        now: float,
        *,
        modality: str,
        level: int,
        caller: str,
        deadline: float,
        promised: bool,
    ) -> None:
        self._number += 1
        self._sequence += 1
        self.rows[job_id] = Row(
            id=job_id,
            number=self._number,
            modality=modality,
            level=level,
            caller=caller,
            sequence=self._sequence,
            submitted=now,
            deadline=deadline,
            promised=promised,
        )

    def bind(self, caller: str, key: str, fingerprint: str, job_id: str) -> None:
        self.keys[caller, key] = fingerprint, job_id

    def found(self, caller: str, key: str) -> tuple[str, str] | None:
        kept = self.keys.get((caller, key))
        return kept if kept is not None and kept[1] in self.rows else None

    def dispatch(self, now: float) -> tuple[list[str], list[str]]:
        """End what is overdue, then hand out the best that wait; return both."""
        overdue = [row for row in self.of(*WAITING, "processing") if row.deadline <= now]
        for row in overdue:
            self._end(row, "expired", now, row.code)
        for row in self.of("retrying"):
            row.in_line |= row.retry_at <= now
        free = self.slots - len(self.of("processing"))
        taken = self.line()[:free]
        for row in taken:
            row.attempts += 1
            row.fence += 1
            row.step("processing")
        return [row.id for row in overdue], [row.id for row in taken]

    def complete(self, job_id: str, now: float) -> None:
        self._end(self.rows[job_id], "completed", now, "")

    def fail(self, job_id: str, now: float, code: str, retry_at: float | None) -> None:
        """`retry_at` is None where no other attempt would help."""
        row = self.rows[job_id]
        if retry_at is None or row.attempts >= self.attempts:
            self._end(row, "failed", now, code)
        else:
            row.code, row.retry_at = code, retry_at
            row.step("retrying")

    def release(self, job_id: str) -> None:
        """Its attempt never was."""
        row = self.rows[job_id]
        row.attempts -= 1
        row.step("queued")

    def cancel(self, job_id: str, now: float) -> None:
        row = self.rows[job_id]
        if row.state not in ENDS:
            self._end(row, "cancelled", now, row.code)

    def promise(self, job_id: str) -> None:
        row = self.rows[job_id]
        row.promised = True
        self._renamed(row)

    def swap(self, one: str, other: str) -> None:
        a, b = self.rows[one], self.rows[other]
        a.sequence, b.sequence = b.sequence, a.sequence
        for row in (a, b):
            self._renamed(row)

    def relevel(self, job_id: str, level: int) -> None:
        row = self.rows[job_id]
        row.level = level
        self._renamed(row)

    def forget(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            if self.rows[job_id].state in ENDS:
                del self.rows[job_id]

    # The end of a process

    def stop(self, now: float) -> None:
        """It says good-bye: what it worked on goes back, what nobody was promised ends."""
        for row in self.of(*WAITING, "processing"):
            if not row.promised:
                self._end(row, "failed", now, "shutting_down")
            elif row.state == "processing":
                self.release(row.id)
        self._start_anew()

    def crash(self, now: float, kept: Mapping[str, Sequence[tuple[int, str, int]]]) -> list[str]:
        """It is gone. Promised jobs wait again; `kept` has the steps of the others that remain.

        Return what should not be so: a job's past must be a beginning of what happened.
        """
        wrong: list[str] = []
        for row in list(self.rows.values()):
            if row.promised:
                self._recover(row, now)
                continue
            steps = list(kept.get(row.id, ()))
            if not steps:
                del self.rows[row.id]
                continue
            known = steps if steps[-1][1] in ENDS and steps == row.steps else steps[:-1]
            if known != row.steps[: len(known)] or (known != steps and steps[-1][1] != "failed"):
                wrong.append(f"{row.id} took {row.steps} and {steps} is left")
            if known != steps:
                row.code, row.ended = "interrupted", now
            row.places = [*row.places[: len(known)], row.places[len(known) - 1]]
            row.level, row.sequence = row.places[len(known) - 1]
            row.fence = sum(state == "processing" for _, state, _ in steps)
            row.steps, (row.version, row.state, row.attempts) = steps, steps[-1]
            row.in_line = False
        self._start_anew()
        return wrong

    def _recover(self, row: Row, now: float) -> None:
        if row.state != "processing":
            return
        if row.deadline <= now:
            self._end(row, "expired", now, row.code)
        elif row.attempts >= self.attempts:
            self._end(row, "failed", now, "worker_lost")
        else:
            row.step("queued")

    def _start_anew(self) -> None:
        self._sequence = self.sequence()
        for row in self.of("retrying"):
            row.in_line = False

    def _end(self, row: Row, state: str, now: float, code: str) -> None:
        row.code, row.ended = code, now
        row.step(state)

    def _renamed(self, row: Row) -> None:
        waits = row.in_line
        row.step(row.state)
        row.in_line = waits
