"""The audit log: what operators did, when, and what changed by it. No prompt and no key."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .database import Database
from .statement import Statement

KEPT = 10_000
"""So many records are kept; older ones go."""

_ADD = """
INSERT INTO audit(at, who, action, about, before, after) VALUES($1, $2, $3, $4, $5, $6)
RETURNING number"""
_FORGET = "DELETE FROM audit WHERE number <= (SELECT MAX(number) FROM audit) - $1"
_FINISH = "UPDATE audit SET after = $2 WHERE number = $1"
_READ = """
SELECT number, at, who, action, about, before, after FROM audit
WHERE number < $1 ORDER BY number DESC LIMIT $2"""
_END = 2**62

Facts = Mapping[str, object]
"""What JSON can write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that was done.

    Attributes:
        number: rises with every record; 0 until it is kept.
        at: seconds since 1970.
        who: the name of a caller, or what else it was done by.
        about: what was asked for.
        before: what was changed, as it was; `after`, as it is now, or what came of it. Empty for
            an action that has not come to its end.

    """

    number: int = 0
    at: float
    who: str
    action: str
    about: Facts = field(default_factory=dict[str, object])
    before: Facts = field(default_factory=dict[str, object])
    after: Facts = field(default_factory=dict[str, object])


class Audit:
    """The table `audit`. Every method that awaits raises `StorageFailed`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def statements(self, record: Record) -> Sequence[Statement]:
        """Say what to write, so that it is kept together with what it tells of."""
        facts = (json.dumps(dict(one)) for one in (record.about, record.before, record.after))
        add = Statement(_ADD, record.at, record.who, record.action, *facts)
        return add, Statement(_FORGET, KEPT)

    async def note(self, record: Record) -> int:
        """Keep a record and return its number."""
        added, _ = await self._database.write(*self.statements(record), even_if_full=True)
        number: int = added[0][0]
        return number

    async def finish(self, number: int, after: Facts) -> None:
        """Note what came of an action."""
        await self._database.write(
            Statement(_FINISH, number, json.dumps(dict(after))), even_if_full=True
        )

    async def read(self, *, limit: int, before: int | None = None) -> list[Record]:
        """Return records, the latest first; those before a number, if one is given."""
        rows = await self._database.read(_READ, _END if before is None else before, limit)
        return [
            Record(
                number=number,
                at=at,
                who=who,
                action=action,
                about=json.loads(about),
                before=json.loads(was),
                after=json.loads(became),
            )
            for number, at, who, action, about, was, became in rows
        ]
