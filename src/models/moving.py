"""A caller's waiting jobs in another order among themselves, so that nobody else is overtaken.

The jobs that are moved keep the same set of places: only who has which of them changes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .errors import InvalidInput
from .jobs import Level
from .queues import Entry

LARGEST_MOVE = 1000
"""How many jobs change their places at once."""


class Place(NamedTuple):
    """Where a job stands inside its modality."""

    level: Level
    sequence: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where a job shall go: before or after another one, or to an end of its caller's own jobs."""

    where: Literal["before", "after", "front", "back"]
    other: str = ""


def places(
    job: Entry, own: Iterable[Entry], *, level: Level | None = None, target: Target | None = None
) -> Mapping[str, Place]:
    """Return the new places of the jobs that have to move, by id; none if nothing changes.

    A job that changes its level keeps its submission number, and so stands where it would have
    stood had it been submitted so. Only then it goes to its target.

    Args:
        job: the one that is moved.
        own: its caller's waiting jobs of its modality.
        level: its new level, if it shall have one.
        target: where it shall go among the jobs of that level, if anywhere.

    Raises:
        InvalidInput: the target is none of them, or too far away; `param` names the field.

    """
    moved = job if level is None else job._replace(level=level)
    lane = {entry.id: entry for entry in own if entry.level == moved.level} | {moved.id: moved}
    order = sorted(lane.values(), key=lambda entry: entry.sequence)
    sequences = [entry.sequence for entry in order]
    if target is not None:
        order.remove(moved)
        order.insert(_index(target, [entry.id for entry in order]), moved)
    changed = {
        entry.id: Place(entry.level, sequence)
        for entry, sequence in zip(order, sequences, strict=True)
        if sequence != entry.sequence or (entry is moved and moved.level != job.level)
    }
    if len(changed) > LARGEST_MOVE:
        raise InvalidInput(
            f"a job can pass at most {LARGEST_MOVE - 1:,} others of its caller at once",
            param="to" if target is None or not target.other else target.where,
            hint="move it in several steps",
        )
    return changed


def _index(target: Target, others: list[str]) -> int:
    match target.where:
        case "front":
            return 0
        case "back":
            return len(others)
        case _:
            pass
    if target.other not in others:
        raise InvalidInput(
            f"{target.where}: none of your jobs that wait beside this one has this id",
            param=target.where,
            hint="name a waiting job of the same modality and level, and not this one",
        )
    return others.index(target.other) + (target.where == "after")
