"""One connection to the file, used by one thread: statements, transactions, and what went wrong."""

import sqlite3
from collections.abc import Callable, Sequence

from ...models.errors import StorageFailed
from .statement import NothingChangedError, Row, Rows, Statement

_NAMES = [str(number) for number in range(1, 1001)]
_TAKEN_BACK_WHOLE = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""Errors that concern the file and not one operation."""


def connect(address: str, *, busy_s: float) -> sqlite3.Connection:
    """Open a connection that begins no transaction by itself; `address` is a URI."""
    connection = sqlite3.connect(
        address,
        uri=True,
        timeout=busy_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def run(connection: sqlite3.Connection, statement: Statement) -> Rows:
    """Execute a statement and return its rows."""
    return rows_of(connection, statement.sql, statement.params)


def transact(
    connection: sqlite3.Connection,
    operations: Sequence[Sequence[Statement]],
    before_commit: Callable[[], object] | None = None,
) -> list[list[Rows] | Exception]:
    """Carry out operations in one transaction; return what each brought, or why it did not happen.

    An operation that fails is taken back alone.

    Raises:
        sqlite3.Error: nothing happened at all.

    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcomes = [_operate(connection, operation) for operation in operations]
        if before_commit is not None:
            before_commit()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _operate(
    connection: sqlite3.Connection, operation: Sequence[Statement]
) -> list[Rows] | Exception:
    connection.execute("SAVEPOINT operation")
    brought: list[Rows] = []
    try:
        for index, statement in enumerate(operation):
            rows = run(connection, statement)
            if statement.guard and not rows:
                raise NothingChangedError(index)  # noqa: TRY301
            brought.append(rows)
    except Exception as error:
        if concerns_all(error) or not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")
        return error
    connection.execute("RELEASE operation")
    return brought


def concerns_all(error: BaseException) -> bool:
    """Whether an error is about the file as a whole."""
    return _code(error) in _TAKEN_BACK_WHOLE


def is_busy(error: BaseException) -> bool:
    """Whether another program holds the file."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: BaseException) -> bool:
    """Whether the disk has no room, as far as SQLite can tell."""
    return _code(error) == sqlite3.SQLITE_FULL


def failure(error: Exception) -> StorageFailed:
    """Say what an error of SQLite means, without a word of what should have been written."""
    if is_full(error):
        return StorageFailed(
            "the disk is full, so nothing new can be kept",
            hint="free some room; what is running goes on meanwhile",
            retry_after=30.0,
        )
    if is_busy(error):
        return StorageFailed(
            "another program holds the database, so nothing can be kept now",
            hint="end the program that has it open",
            retry_after=10.0,
        )
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    return StorageFailed(f"the database cannot be written or read: {name}")


def rows_of(connection: sqlite3.Connection, sql: str, params: Sequence[object]) -> list[Row]:
    """Read."""
    return connection.execute(sql, dict(zip(_NAMES, params, strict=False))).fetchall()


def _code(error: BaseException) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF  # without what SQLite adds to tell more
