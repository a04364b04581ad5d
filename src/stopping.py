"""How the server stops, whichever command runs it: what a signal begins.

At the first SIGTERM or SIGINT nothing new is taken in or started, and the server says that it is
not ready. What runs may finish, within one grace for all. Then whoever still waits is answered,
promised jobs stay in the store, and the process ends with exit code 0. The second signal ends the
grace; the third ends the process.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

import uvicorn

from .processor import Processor

_log = logging.getLogger("inference_manager.stopping")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_WORDS_S = 2  # for the last answers to reach their callers
_LAST_WORD_S = 1  # the same after a second signal


class Stopping:
    """Winds the server down.

    Args:
        processor: what has to end before connections are closed.
        grace_s: for jobs that run.

    """

    def __init__(self, processor: Processor, *, grace_s: float) -> None:
        self.grace_s = grace_s
        self._processor = processor
        self._grace: asyncio.Timeout | None = None
        self._winding_down: asyncio.Task[None] | None = None

    async def wind_down(self) -> None:
        """Let what runs finish, then answer everybody; harmless if that was done before."""
        if self._winding_down is None:
            self._winding_down = asyncio.create_task(self._wind_down(), name="wind down")
        await asyncio.shield(self._winding_down)

    @contextmanager
    def on_signals(self) -> Generator[None]:
        """Answer signals in the place of uvicorn, if it answers them now.

        It would close the door at once, and end the process by the signal once more.
        """
        server = _answering()
        if server is not None:
            loop = asyncio.get_running_loop()

            def stop(number: int, _: object) -> None:
                loop.call_soon_threadsafe(self._signalled, number, server)

            for number in SIGNALS:  # uvicorn itself puts back what was there before
                signal.signal(number, stop)
        yield

    async def _wind_down(self) -> None:
        self._processor.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.grace_s) as self._grace:
                await self._processor.idle()
        self._grace = None
        await self._processor.part()

    def _signalled(self, number: int, server: uvicorn.Server) -> None:
        name = signal.Signals(number).name
        if self._winding_down is None:
            _log.info("%s: stopping; what runs has %g s to finish", name, self.grace_s)
            server.config.timeout_graceful_shutdown = _LAST_WORDS_S
            self._winding_down = asyncio.create_task(self._wind_down(), name="wind down")
            self._winding_down.add_done_callback(lambda task: _end(server, task))
            return
        _log.info("%s again: stopping at once", name)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        server.config.timeout_graceful_shutdown = _LAST_WORD_S
        self.grace_s = 0
        if self._grace is not None:
            self._grace.reschedule(0)


def _answering() -> uvicorn.Server | None:
    """Return the server that answers signals now; there is none in a thread, or in a test."""
    if threading.current_thread() is not threading.main_thread():
        return None
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def _end(server: uvicorn.Server, wound_down: asyncio.Task[None]) -> None:
    if not wound_down.cancelled() and (error := wound_down.exception()) is not None:
        _log.error("not everything could be brought to an end", exc_info=error)
    server.should_exit = True
