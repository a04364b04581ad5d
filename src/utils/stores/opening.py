"""Opening the file: whatever is wrong with it is found before anything is changed."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from ...models.errors import StoreUnusable
from .connection import connect
from .lock import HeldElsewhereError, Lock
from .migrations import MIGRATIONS, SQLITE_NUMBER

_OLDEST_SQLITE = (3, 35)
_MAGIC = b"SQLite format 3\x00"
_SMALL = 16 * 2**20  # bytes that are looked at with all indexes, which takes three times as long
_ELSEWHERE = "or name another place in the setting store (IM_STORE)"
_ANEW = (
    "nothing in it was changed; `inference-manager restore DIR` puts a backup in its place, "
    "or move the file away to begin anew"
)


def lock_of(path: Path) -> Lock:
    """Return the lock of a database."""
    return Lock(path.with_name(f"{path.name}.lock"))


def folder_of(path: Path, name: str) -> Path:
    """Return where what belongs to a database lies: no other one in its directory has that."""
    return path.with_name(f"{path.name}.{name}")


def take_hold(path: Path) -> Lock:
    """Make the directory, and take the lock of the file in it.

    Raises:
        StoreUnusable: that cannot be done, or another process has the lock.

    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = lock_of(path)
        lock.take()
    except HeldElsewhereError as held:
        who = f"process {held.pid}" if held.pid else "another process"
        raise StoreUnusable(
            f"{who} has {path} open, and only one may",
            hint=f"stop that one, {_ELSEWHERE}",
        ) from None
    except OSError as error:
        raise _unusable(path, error) from error
    return lock


def open_checked(path: Path, *, busy_s: float) -> sqlite3.Connection:
    """Open the file, after looking at all of it, and bring its tables up to date.

    Whoever calls holds its lock. A copy of the file is made beside it before tables are changed.

    Raises:
        StoreUnusable: it is no database, or damaged, or newer than this program, or cannot be
            read or written.

    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreUnusable(
            f"SQLite {sqlite3.sqlite_version} is too old; 3.35 is needed",
            hint="use a Python that brings a newer one",
        )
    try:
        new = _is_new(path)
        found = 0 if new else _look_through(path, len(MIGRATIONS))
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = connect(_address(path, "rw"), busy_s=busy_s)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error
    try:
        _prepare(connection, path, new=new)
        if 0 < found < len(MIGRATIONS):
            _copy(connection, path.with_name(f"{path.name}.version-{found}"))
        _migrate(connection, found)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError | sqlite3.Error):
            raise _unusable(path, error) from error
        raise
    return connection


def open_in_memory(*, busy_s: float) -> sqlite3.Connection:
    """Open a database that is gone when it is closed."""
    connection = connect(":memory:", busy_s=busy_s)
    _migrate(connection, 0)
    return connection


def open_for_reading(path: Path, *, busy_s: float) -> sqlite3.Connection:
    """Open the file a second time, to read."""
    try:
        connection = connect(_address(path, "rw"), busy_s=busy_s)
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    return connection


def look_through(path: Path) -> None:
    """Read all of a database that is not open anywhere; changes nothing.

    Raises:
        StoreUnusable: it is not one of ours, or damaged.

    """
    try:
        if _is_new(path):
            raise StoreUnusable(f"{path} is empty")
        _look_through(path, len(MIGRATIONS))
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error


def _is_new(path: Path) -> bool:
    """Tell whether there is nothing yet; raises `StoreUnusable` for what is no database."""
    if not path.exists() or path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        begins = file.read(len(_MAGIC))
    if begins != _MAGIC:
        raise StoreUnusable(
            f"{path} is not a database",
            hint=f"nothing in it was changed; move it away, {_ELSEWHERE}",
        )
    return False


def _look_through(path: Path, newest: int) -> int:
    """Return the version of the tables, having read the whole file without changing it."""
    with closing(connect(_address(path, "ro"), busy_s=1.0)) as connection:
        how = "integrity_check" if path.stat().st_size < _SMALL else "quick_check"
        found = connection.execute(f"PRAGMA {how}(1)").fetchone()[0]
        if found != "ok":
            raise StoreUnusable(f"{path} is damaged", hint=_ANEW)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if tables and "meta" not in tables:
            raise StoreUnusable(
                f"{path} is the database of another program",
                hint=f"nothing in it was changed; move it away, {_ELSEWHERE}",
            )
        row = None
        if tables:
            row = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if row is not None and not str(row[0]).isdecimal():
            raise StoreUnusable(f"{path} is damaged", hint=_ANEW)
        version = 0 if row is None else int(row[0])
    if version > newest:
        raise StoreUnusable(
            f"{path} was written by a newer version of this program "
            f"(its tables have version {version}, this one knows {newest})",
            hint=f"nothing in it was changed; install that version again, {_ELSEWHERE}",
        )
    return version


def _prepare(connection: sqlite3.Connection, path: Path, *, new: bool) -> None:
    if new:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreUnusable(
            f"the disk of {path} is not a local one, as SQLite needs",
            hint="name a place on a local disk in the setting store",
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = FAST")  # else what is forgotten is written anew
    connection.execute(f"PRAGMA journal_size_limit = {16 * 2**20}")


def _migrate(connection: sqlite3.Connection, found: int) -> None:
    """Take the steps after the one that was found, each in a transaction of its own."""
    for version, statements in enumerate(MIGRATIONS[found:], found + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS meta(name TEXT NOT NULL PRIMARY KEY, value TEXT)"
            )
            for statement in statements:
                connection.execute(statement.replace("{number}", SQLITE_NUMBER))
            connection.execute(
                "INSERT INTO meta(name, value) VALUES('schema', $1) "
                "ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                {"1": str(version)},
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    """Copy the database as it is, before its tables are changed."""
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(target)) as copy:
        connection.backup(copy)


def _address(path: Path, mode: str) -> str:
    return f"{path.resolve().as_uri()}?mode={mode}"


def _unusable(path: Path, error: Exception) -> StoreUnusable:
    """Say what an error of the system or of SQLite means for whoever starts the server."""
    if isinstance(error, IsADirectoryError) or path.is_dir():
        return StoreUnusable(
            f"{path} is a directory", hint="name a file in it in the setting store"
        )
    if isinstance(error, sqlite3.Error) and error.sqlite_errorname.startswith(
        ("SQLITE_CORRUPT", "SQLITE_NOTADB")
    ):
        return StoreUnusable(f"{path} is damaged", hint=_ANEW)
    why = error.strerror if isinstance(error, OSError) else getattr(error, "sqlite_errorname", "")
    return StoreUnusable(
        f"{path.absolute()} cannot be opened: {why or type(error).__name__}",
        hint=f"its directory must be on a local disk with room, and writable, {_ELSEWHERE}",
    )
