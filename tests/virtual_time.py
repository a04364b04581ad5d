"""An event loop whose time jumps: hours pass in seconds, over real sockets.

Whenever nothing is ready and no thread works for the loop, its time moves to the next timer. Both
sides of a connection must live in the same loop. Bytes on the loopback interface arrive at once,
so nothing is on its way when the loop finds nothing to read.
"""

import asyncio
import selectors
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, cast

import pytest

T = TypeVar("T")

_A_MOMENT = 0.001  # for the kernel to hand over what was sent just now, before a long jump
_LONG_JUMP = 0.5
_LONGEST = 5.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Made by `run`."""

    def __init__(self) -> None:
        self._jumped = 0.0
        self.threads = 0
        self.names: dict[str, str] = {}
        """Hosts that resolve, besides those of the system; an empty address fails."""
        self.asked: list[tuple[float, str]] = []
        """Which hosts were asked for, and when."""
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._jumped

    def jump(self, seconds: float) -> None:
        self._jumped += seconds

    def thread_done(self, _: Future[Any]) -> None:
        self.call_soon_threadsafe(self._one_thread_less)

    def _one_thread_less(self) -> None:
        self.threads -= 1

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append((self.time(), str(name)))
        if name not in self.names:
            return await super().getaddrinfo(host, port, **hints)
        if not self.names[name]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await super().getaddrinfo(self.names[name], port, **hints)


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if self._loop.threads or timeout is None:
            return super().select(_LONGEST if timeout is None else min(timeout, _LONGEST))
        events = super().select(_A_MOMENT if timeout > _LONG_JUMP else 0)
        if not events:
            self._loop.jump(timeout)
        return events


def here() -> VirtualLoop:
    """Return the running loop."""
    return cast("VirtualLoop", asyncio.get_running_loop())


async def until(when: Callable[[], bool], step_s: float = 0.5) -> None:
    """Let time pass, step by step, until something is so."""
    while not when():  # noqa: ASYNC110 - nobody waits in virtual time
        await asyncio.sleep(step_s)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run until complete, in virtual time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadPoolExecutor, "submit", _counted(ThreadPoolExecutor.submit))
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(main)


def _counted(submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    """Count what threads do for a loop, from its order until the loop has been told of its end."""

    def counting(*args: Any, **named: Any) -> Future[Any]:
        future = submit(*args, **named)
        if isinstance(loop := asyncio._get_running_loop(), VirtualLoop):
            loop.threads += 1
            # Later than those who wait for the future register, so that they are told first.
            loop.call_soon(future.add_done_callback, loop.thread_done)
        return future

    return counting
