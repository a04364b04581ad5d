"""A lock that the operating system holds for as long as this process lives."""

import fcntl
import os
from pathlib import Path


class HeldElsewhereError(Exception):
    """Another process holds the lock.

    Attributes:
        pid: which one, as it wrote; empty if it wrote nothing yet.

    """

    def __init__(self, pid: str) -> None:
        super().__init__(pid)
        self.pid = pid


class Lock:
    """Held from `take` to `release`; the file stays, with the number of the last holder in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock, or fail at once.

        Raises:
            HeldElsewhereError: another process has it, or another part of this one.
            OSError: the file cannot be made, or its disk knows no locks.

        """
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            pid = os.pread(file, 20, 0).decode(errors="replace")
            os.close(file)
            raise HeldElsewhereError(pid if pid.isdecimal() else "") from None
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def release(self) -> None:
        """Let go; harmless without the lock."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
