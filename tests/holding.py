"""How much memory is held by what has been made since `tracemalloc` was started."""

import asyncio
import gc
import tracemalloc

_LOOKS = 300


async def held_by_each(count: int, *, at_most: float) -> float:
    """Return how many bytes each of so many calls holds.

    Work that is about to end may hold more for a moment, and a thread lets go of its latest work
    a little later. So there are some looks, until it is not more than expected.
    """
    for _ in range(_LOOKS):
        if (held := _held() / count) < at_most:
            return held
        await asyncio.sleep(0.01)
    return _held() / count


def _held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
