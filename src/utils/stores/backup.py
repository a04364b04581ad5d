"""Backups: a copy of the database and of all that its jobs refer to, made while the server runs."""

import os
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from ...models.errors import StorageFailed, StoreUnusable
from .opening import folder_of, look_through, take_hold

DATABASE = "jobs.db"
FOLDERS = ("blobs", "files")
"""What a backup holds besides: contents of jobs, and files of callers."""


def backup(path: Path, target: Path) -> int:
    """Copy a database, and the files beside it, into a new directory; return how many bytes.

    The server may run meanwhile: files are copied after the database, so that none is missing
    that it names, but for what was forgotten in between.

    Raises:
        StorageFailed: there is nothing to copy, or the directory cannot be made or holds anything.

    """
    if not path.is_file():
        raise StorageFailed(f"there is no database at {path}", hint="see the setting store")
    with _told(target):
        if target.exists() and any(target.iterdir()):
            raise StorageFailed(f"{target} is not empty", hint="name a new directory")
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy = target / DATABASE
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        address = f"{path.resolve().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(address, uri=True, timeout=10)) as source,
            closing(sqlite3.connect(copy)) as made,
        ):
            source.backup(made)  # all at once: writers go on, and are not seen
            made.execute("PRAGMA journal_mode = DELETE")
        look_through(copy)
        for name in FOLDERS:
            _copy_folder(folder_of(path, name), target / name)
        _secure(target)
        return sum(file.stat().st_size for file in target.rglob("*") if file.is_file())


def restore(source: Path, path: Path) -> Path | None:
    """Put a backup in the place of a database, while no server runs.

    What was there is moved into a directory beside it, which is returned.

    Raises:
        StoreUnusable: it is no backup, or damaged; or a server runs. Nothing was changed.
        StorageFailed: it cannot be copied; what was there is where the message says.

    """
    copy = source / DATABASE
    if not copy.is_file():
        raise StoreUnusable(f"{source} is not a backup", hint=f"a backup holds a file {DATABASE}")
    look_through(copy)
    lock = take_hold(path)
    try:
        aside = _set_aside(path)
        with _told(path):
            for name in FOLDERS:
                _copy_folder(source / name, folder_of(path, name))
            fresh = path.with_name(f"{path.name}.new")
            shutil.copyfile(copy, fresh)
            fresh.chmod(0o600)
            log = source / f"{DATABASE}-wal"
            if log.exists():  # what was set aside after a crash has one
                shutil.copyfile(log, path.with_name(f"{path.name}-wal"))
                path.with_name(f"{path.name}-wal").chmod(0o600)
            _secure(path.parent)
            fresh.replace(path)
            _secure_file(path.parent)
    finally:
        lock.release()
    return aside


def _set_aside(path: Path) -> Path | None:
    """Move a database, and what lies beside it, out of the way, as a backup would hold it."""
    ends = ("", "-wal", "-shm")
    there = {path.with_name(f"{path.name}{end}"): f"{DATABASE}{end}" for end in ends}
    there |= {folder_of(path, name): name for name in FOLDERS}
    found = [one for one in there if one.exists()]
    if not found:
        return None
    with _told(path):
        number = 1
        while (aside := path.with_name(f"{path.stem}.before-restore-{number}")).exists():
            number += 1
        aside.mkdir(mode=0o700)
        for one in found:
            one.rename(aside / there[one])
    return aside


def _copy_folder(source: Path, target: Path) -> None:
    """Copy the files of a directory; one that goes away meanwhile is not missed."""
    if not source.is_dir():
        return
    target.mkdir(mode=0o700, exist_ok=True)
    for entry in os.scandir(source):
        if entry.is_file(follow_symlinks=False):
            try:
                shutil.copyfile(entry.path, target / entry.name)
            except FileNotFoundError:
                continue
            (target / entry.name).chmod(0o600)


def _secure(directory: Path) -> None:
    """Wait until all files of a directory, and of those in it, are on the disk."""
    for one in (directory, *directory.rglob("*")):
        _secure_file(one)


def _secure_file(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _told(path: Path) -> Generator[None]:
    """Say what went wrong in words."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written: {error.strerror}") from error
    except sqlite3.Error as error:
        raise StorageFailed(f"the database cannot be copied: {error.sqlite_errorname}") from error
