"""An event loop whose time jumps: hours pass in seconds, over real sockets.

Whenever nothing is ready and no thread works for the loop, its time moves to the next timer. Both
sides of a connection must live in the same loop. Bytes on the loopback interface arrive at once,
so nothing is on its way when the loop finds nothing to read.
"""

import asyncio
import selectors
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

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
        self.asked: list[float] = []
        """When one of them was asked for."""
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._jumped

    def jump(self, seconds: float) -> None:
        self._jumped += seconds

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self.threads -= 1

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.names:
            return await super().getaddrinfo(host, port, **hints)
        self.asked.append(self.time())
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


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run until complete, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
