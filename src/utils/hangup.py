"""Does something whenever the process is sent SIGHUP, as operators of Unix servers expect."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from ..models.errors import InferenceManagerError

logger = logging.getLogger("inference_manager.hangup")


@asynccontextmanager
async def at_hangup(act: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
    """Act at each SIGHUP for as long as the block lasts; what goes wrong is logged.

    Does nothing outside the main thread, and where there is no such signal.
    """
    if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    listening = asyncio.create_task(_listen(asked, act), name="hangup")
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        listening.cancel()
        await asyncio.wait([listening])


async def _listen(asked: asyncio.Event, act: Callable[[], Awaitable[object]]) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            await act()
        except InferenceManagerError as error:
            logger.warning("what SIGHUP asks for is refused", extra={"detail": error.message})
        except Exception:
            logger.exception("what SIGHUP asks for failed")
