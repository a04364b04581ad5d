"""Room on the disk that is held back, so that jobs can still end when there is no other."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 16 * 2**20


class Reserve:
    """A file without a meaning; it is given up on a full disk, and made anew when there is room.

    Args:
        path: the file.
        size: how large; on a small disk an eighth of it.

    """

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size

    @property
    def size(self) -> int:
        """How many bytes are held back, when there is room."""
        return min(self._size, shutil.disk_usage(self._path.parent).total // 8)

    def make(self) -> bool:
        """Make the file, if there is twice the room that it takes; return whether it is there."""
        try:
            size = self.size
            have = self._path.stat().st_size if self._path.exists() else 0
            if have < size:
                if shutil.disk_usage(self._path.parent).free < 2 * size:
                    return False
                self._fill(size)
        except OSError:
            self.give_up()
            return False
        return True

    def give_up(self) -> None:
        """Let others have the room; harmless if there is no file."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _fill(self, size: int) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        finally:
            os.close(file)
