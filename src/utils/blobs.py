"""Bytes in files: what waiting jobs brought along, and what finished ones made.

Files are touched in one thread, one after the other. So the event loop never waits for a disk, and
what is to be forgotten is forgotten after it was written, even if whoever wrote it was cancelled.
"""

import asyncio
import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
import tempfile
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..models.blobs import Blob, Content
from ..models.errors import StorageFailed, UnknownJob

logger = logging.getLogger("inference_manager.blobs")

PIECE = 256 * 1024
_BUFFER = 64 * 1024
_KEY = re.compile(r"[\w-]{1,128}", re.ASCII)

T = TypeVar("T")


class FileBlobs:
    """Keeps blobs as files that only this user can read.

    Args:
        directory: where; by default a temporary one, made on first use and removed by `close`.
        inline: how many bytes make a blob; fewer are handed back as they are.

    """

    def __init__(self, directory: Path | None = None, *, inline: int = 65_536) -> None:
        self._folder = _Folder(directory)
        self._disk = _Disk()
        self._inline = inline

    def __repr__(self) -> str:
        return f"<FileBlobs [{self._folder}]>"

    async def keep(self, data: bytes) -> Content:
        """Keep bytes; a few of them are simply handed back.

        Raises:
            StorageFailed: the disk is full or broken.

        """
        writer = self.open()
        try:
            await writer.write(data)
            return await writer.finish()
        except BaseException:
            await writer.discard()
            raise

    async def read(self, content: Content) -> bytes:
        """Return the bytes.

        Raises:
            UnknownJob: they are not kept any more.
            StorageFailed: the disk is broken.

        """
        if isinstance(content, bytes):
            return content
        data = await self._disk.do(partial(self._folder.read, content.key))
        if len(data) != content.size:
            raise StorageFailed("what was kept is damaged")
        return data

    async def stream(self, content: Content, piece: int = PIECE) -> AsyncGenerator[bytes]:
        """Yield the bytes in pieces; raises as `read`, before the first of them if it can."""
        if isinstance(content, bytes):
            for at in range(0, len(content), piece):
                yield content[at : at + piece]
            return
        file = await self._disk.do(partial(self._folder.open, content.key))
        left = content.size
        try:
            while left:
                read = await self._disk.do(partial(file.read, min(left, piece)))
                if not read:
                    raise StorageFailed("what was kept is damaged")
                left -= len(read)
                yield read
        finally:
            self._disk.submit(file.close)

    async def digest(self, content: Content) -> str:
        """Return the SHA-256 of the bytes in hexadecimal; raises as `read`."""
        if isinstance(content, bytes):
            return await digest_of(content)
        size, digest = await self._disk.do(partial(self._folder.digest, content.key))
        if size != content.size:
            raise StorageFailed("what was kept is damaged")
        return digest

    def open(self) -> "FileWriter":
        """Begin to keep bytes that come piece by piece."""
        return FileWriter(self._folder, self._disk, self._inline)

    async def copy(self, blob: Blob) -> Blob:
        """Keep the same bytes once more, to be dropped by themselves; raises as `read`."""
        return Blob(await self._disk.do(partial(self._folder.copy, blob.key)), blob.size)

    async def secure(self, blobs: Iterable[Blob]) -> None:
        """Wait until blobs are on the disk, so that they outlive a power cut.

        Raises:
            UnknownJob: one is not kept any more.
            StorageFailed: the disk is full or broken.

        """
        if keys := [blob.key for blob in blobs]:
            await self._disk.do(partial(self._folder.secure, keys))

    async def listed(self) -> Sequence[str]:
        """Return the keys of all that a directory which was given holds; raises `StorageFailed`."""
        return await self._disk.do(self._folder.listed)

    async def drop(self, blobs: Iterable[Blob]) -> None:
        """Forget blobs; harmless for those that are not there, and certain even if cancelled."""
        if keys := [blob.key for blob in blobs]:
            await self._disk.do_for_certain(partial(self._folder.forget, keys))

    async def close(self) -> None:
        """Forget everything; a directory that was given stays, with what is in it."""
        await self._disk.do_for_certain(self._folder.remove)


class FileWriter:
    """Takes bytes as they come; they become a file as soon as they are too many to be held."""

    def __init__(self, folder: "_Folder", disk: "_Disk", inline: int) -> None:
        self._folder = folder
        self._disk = disk
        self._inline = inline
        self._held: list[bytes] = []
        self._holds = 0
        self._size = 0
        self._kept: tuple[str, BinaryIO] | None = None
        self._finished = False

    async def write(self, piece: bytes) -> None:
        """Add bytes; raises `StorageFailed`."""
        self._held.append(piece)
        self._holds += len(piece)
        self._size += len(piece)
        if self._holds >= max(self._inline, _BUFFER):
            await self._disk.do(self._append)

    async def finish(self) -> Content:
        """Return what was written; raises `StorageFailed`."""
        if self._kept is None and self._size < self._inline:
            content: Content = b"".join(self._held)
        else:
            content = Blob(await self._disk.do(self._close), self._size)
        self._finished = True
        return content

    async def discard(self) -> None:
        """Forget what was written; harmless after `finish`, and certain even if cancelled."""
        if not self._finished:
            self._finished = True
            await self._disk.do_for_certain(self._remove)

    def _append(self) -> tuple[str, BinaryIO]:
        held, self._held, self._holds = self._held, [], 0
        if self._kept is None:
            self._kept = self._folder.create()
        self._kept[1].writelines(held)
        return self._kept

    def _close(self) -> str:
        key, file = self._append()
        file.close()
        return key

    def _remove(self) -> None:
        self._held.clear()
        if self._kept is not None:
            key, file = self._kept
            with suppress(OSError):  # what could not be written cannot be written now either
                file.close()
            self._folder.forget([key])


class _Folder:
    """The directory; used in the thread of the disk only."""

    def __init__(self, given: Path | None) -> None:
        self._given = given
        self._path: Path | None = None
        self._remove: Callable[[], object] | None = None

    def __str__(self) -> str:
        return str(self._path or self._given or "not made yet")

    def create(self) -> tuple[str, BinaryIO]:
        if self._path is None:
            self._path = self._make()
        key = secrets.token_urlsafe(16)
        return key, open(self._path / key, "xb", opener=_private)

    def read(self, key: str) -> bytes:
        with self.open(key) as file:
            return file.read()

    def digest(self, key: str) -> tuple[int, str]:
        """Return the size of a file, and its digest."""
        digest = hashlib.sha256()
        with self.open(key) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
            return file.tell(), digest.hexdigest()

    def copy(self, key: str) -> str:
        """Give a file a second name, or copy it where files have only one."""
        self.open(key).close()
        if self._path is None:
            self._path = self._make()
        copied = secrets.token_urlsafe(16)
        try:
            (self._path / copied).hardlink_to(self._path / key)
        except OSError:
            shutil.copyfile(self._path / key, self._path / copied)
        return copied

    def secure(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self.open(key) as file:
                os.fsync(file.fileno())
        if (path := self._path or self._given) is not None:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def listed(self) -> Sequence[str]:
        if self._given is None or not self._given.is_dir():
            return []
        return [one.name for one in os.scandir(self._given) if _KEY.fullmatch(one.name)]

    def open(self, key: str) -> BinaryIO:
        path = self._path or self._given
        try:
            if path is not None and _KEY.fullmatch(key):
                return (path / key).open("rb")
        except FileNotFoundError:
            pass
        raise UnknownJob("what the job made or was given is not kept any more")

    def forget(self, keys: Iterable[str]) -> None:
        path = self._path or self._given
        for key in keys:
            try:
                if path is not None and _KEY.fullmatch(key):
                    (path / key).unlink(missing_ok=True)
            except OSError:
                logger.warning("a file that nobody needs cannot be removed", exc_info=True)

    def remove(self) -> None:
        remove, self._remove, self._path = self._remove, None, None
        if remove is not None:
            remove()

    def _make(self) -> Path:
        if self._given is not None:
            self._given.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._given
        path = Path(tempfile.mkdtemp(prefix="inference-manager-"))
        self._remove = weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        return path


class _Disk:
    """The thread in which files are touched, in the order of the calls."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="blobs")

    def submit(self, work: Callable[[], T]) -> Future[T]:
        return self._thread.submit(work)

    async def do(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as error:
            raise _failure(error) from error

    async def do_for_certain(self, work: Callable[[], None]) -> None:
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))


async def digest_of(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal; many are hashed in a thread."""
    if len(data) > _BUFFER:
        return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
    return hashlib.sha256(data).hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _failure(error: OSError) -> StorageFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFailed(
            "the disk has no room for pictures and recordings",
            hint="free some; the settings store and TMPDIR say which disk it is",
        )
    why = errno.errorcode.get(error.errno or 0, "unknown error")
    return StorageFailed(f"pictures and recordings cannot be kept or read: {why}")
