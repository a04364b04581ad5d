"""A statement of SQL and the values that go with it."""

from collections.abc import Callable, Sequence
from typing import Any

Value = str | int | float | bytes | None
Row = tuple[Any, ...]
Rows = list[Row]


class Statement:
    """SQL with `$1` to `$n`, and the values for them.

    Args:
        sql: one statement, the same for SQLite and PostgreSQL.
        params: the values.
        make: returns the values, where they are expensive to make: in the writing thread.
        guard: whether the whole operation is taken back if this statement returns no row.

    """

    __slots__ = ("_make", "_params", "guard", "sql")

    def __init__(
        self,
        sql: str,
        *params: Value,
        make: Callable[[], Sequence[Value]] | None = None,
        guard: bool = False,
    ) -> None:
        self.sql = sql
        self.guard = guard
        self._params = params
        self._make = make

    def __repr__(self) -> str:
        return f"<Statement {' '.join(self.sql.split())!r}>"

    @property
    def params(self) -> Sequence[Value]:
        """The values."""
        return self._params if self._make is None else self._make()


class NothingChangedError(Exception):
    """A guarded statement returned no row, so its operation was taken back.

    Attributes:
        index: which statement of the operation that was.

    """

    def __init__(self, index: int) -> None:
        super().__init__(f"statement {index} changed nothing")
        self.index = index
