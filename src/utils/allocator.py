"""Large blocks of memory go back to the system as soon as nobody needs them.

glibc keeps ever larger blocks for later once it has seen some come and go. Pictures come and go all
the time, and in several threads; a server would hold twice the memory that it needs.
"""

import ctypes
import gc

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE = 128 * 1024  # what glibc begins with


def give_back_large_blocks() -> bool:
    """Map every block from 128 KiB on by itself; False where the allocator is another."""
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE))
    except (AttributeError, OSError, TypeError):
        return False


def look_for_garbage_less_often() -> None:
    """Tell the collector that what is there now stays; what a request makes goes with it."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
