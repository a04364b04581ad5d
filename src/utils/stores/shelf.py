"""The shelf: files by name in one directory, written and read piece by piece, in threads."""

import asyncio
import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from ...models.batches import RawLine
from ...models.errors import StorageFailed, UnknownFile

PIECE = 256 * 1024
SLICE = 2**20
_UNFINISHED = ".part"

T = TypeVar("T")


class Shelf:
    """Keeps files that only this user can read.

    Every method raises `StorageFailed`, or `UnknownFile` for one that should be there and is not.

    Args:
        directory: where; None for a temporary one that is removed by `close`.

    """

    def __init__(self, directory: Path | None = None) -> None:
        self._given = directory
        self._path: Path | None = None
        self._remove: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<Shelf [{self._path or self._given or 'not made yet'}]>"

    async def open(self) -> None:
        """Make the directory, if it is not there."""
        await _apart(self._make)

    async def keep(self, name: str, source: BinaryIO) -> int:
        """Copy a file; it is on the disk, whole, when this returns. Return its size."""
        return await _apart(partial(self._keep, name, source))

    async def append(self, name: str, at: int, data: bytes) -> int:
        """Write behind the first `at` bytes of a file and forget what else was there.

        Returns how many bytes the file then has, all of them on the disk.
        """
        return await _apart(partial(self._append, name, at, data))

    async def read(self, name: str, at: int, size: int) -> bytes:
        """Return bytes of a file."""
        return await _apart(partial(self._read, name, at, size))

    async def lines(
        self, name: str, at: int, number: int, *, most: int, longest: int
    ) -> Sequence[RawLine]:
        """Return lines, some of them if there are more; none at the end of the file.

        Args:
            name: of the file.
            at: the byte at which the first one begins.
            number: of the first one.
            most: how many are wanted.
            longest: how many bytes a line may have; one byte more is returned of a longer one,
                and nothing after it.

        """
        return await _apart(partial(self._lines, name, at, number, most, longest))

    async def pieces(self, name: str, size: int) -> AsyncGenerator[bytes]:
        """Yield the first `size` bytes of a file."""
        file = await _apart(partial(self._open, name))
        left = size
        try:
            while left:
                piece = await _apart(partial(file.read, min(left, PIECE)))
                if not piece:
                    raise UnknownFile("the file is damaged")
                left -= len(piece)
                yield piece
        finally:
            file.close()

    async def remove(self, names: Iterable[str]) -> None:
        """Remove files; harmless for those that are not there."""
        await _apart(partial(self._remove_all, list(names)))

    async def names(self) -> set[str]:
        """Return the names of all files."""
        return await _apart(lambda: {path.name for path in self._at("").iterdir()})

    async def close(self) -> None:
        """Let go of the directory."""
        remove, self._remove, self._path = self._remove, None, None
        if remove is not None:
            await asyncio.to_thread(remove)

    def _keep(self, name: str, source: BinaryIO) -> int:
        unfinished = self._at(name + _UNFINISHED)
        try:
            with open(unfinished, "wb", opener=_private) as file:
                shutil.copyfileobj(source, file, SLICE)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            unfinished.replace(self._at(name))
            self._sync()
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        return size

    def _append(self, name: str, at: int, data: bytes) -> int:
        path = self._at(name)
        new = not path.exists()
        if new and at:
            raise UnknownFile("the file is not kept any more")
        with open(path, "ab", opener=_private) as file:
            if file.tell() < at:
                raise UnknownFile("the file is damaged")
            file.truncate(at)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            self._sync()
        return at + len(data)

    def _read(self, name: str, at: int, size: int) -> bytes:
        with self._open(name) as file:
            file.seek(at)
            return file.read(size)

    def _lines(self, name: str, at: int, number: int, most: int, longest: int) -> list[RawLine]:
        found: list[RawLine] = []
        began = at
        with self._open(name) as file:
            file.seek(at)
            while len(found) < most and at - began < SLICE:
                raw = file.readline(longest + 1)
                if not raw:
                    break
                found.append(RawLine(number + len(found), at, raw))
                at += len(raw)
                if len(raw) > longest:
                    break
        return found

    def _open(self, name: str) -> BinaryIO:
        return self._at(name).open("rb")

    def _remove_all(self, names: Sequence[str]) -> None:
        for name in names:
            self._at(name).unlink(missing_ok=True)

    def _at(self, name: str) -> Path:
        if self._path is None:
            raise StorageFailed("files are not kept yet, or not any more")
        return self._path / name

    def _make(self) -> None:
        if self._given is not None:
            self._given.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path = self._given
        else:
            self._path = Path(tempfile.mkdtemp(prefix="inference-manager-files-"))
            self._remove = weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True)

    def _sync(self) -> None:
        """Have the names in the directory on the disk too."""
        descriptor = os.open(self._at(""), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def _apart(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise _failure(error) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _failure(error: OSError) -> StorageFailed | UnknownFile:
    if isinstance(error, FileNotFoundError):
        return UnknownFile("the file is not kept any more")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFailed(
            "the disk has no room for the file", hint="free some, or delete files of batches"
        )
    why = errno.errorcode.get(error.errno or 0, "unknown error")
    return StorageFailed(f"files of batches cannot be kept or read: {why}")
