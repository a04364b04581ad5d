"""Run a simulator: alone in the foreground, or in a thread beside a test or a demo."""

import asyncio
import ipaddress
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import uvicorn

from .app import Application, reset_connection
from .client import ControlClient
from .config import SimulatorConfig
from .simulation import Simulation

LOOPBACK = "127.0.0.1"
KEEP_ALIVE = 120
_PATIENCE = 10.0


class Simulator:
    """A simulator in its own thread, with its own event loop.

    `stop()` makes it vanish (connections cut, then refused), `start()` brings it back on the same
    port with nothing in memory; journal, faults, gate and configuration stay.
    """

    def __init__(
        self, config: SimulatorConfig | None = None, *, host: str = LOOPBACK, port: int = 0
    ) -> None:
        self._config = config or SimulatorConfig()
        _refuse_strangers(self._config, host)
        self._host = host
        self._port = port
        self._simulation = Simulation(self._config)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Simulator {self.url} {'running' if self._thread else 'stopped'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port; known once it was started."""
        return self._port

    @property
    def url(self) -> str:
        """The address, without a slash at the end."""
        return f"http://{self._host}:{self._port}"

    @property
    def control(self) -> ControlClient:
        """A client of the control routes."""
        return ControlClient(self._host, self._port)

    def start(self) -> None:
        """Listen and serve; on the port of the last time, if there was one.

        Raises:
            OSError: the port is taken.

        """
        if self._thread is not None:
            return
        listener = listen(self._host, self._port)
        self._port = int(listener.getsockname()[1])
        self._simulation.restart()
        self._server = server = server_for(self._simulation, self._host, self._port)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])),
            name=f"simulator:{self._port}",
            daemon=True,
        )
        self._thread.start()
        if not server.ready.wait(_PATIENCE):
            raise RuntimeError("the simulator did not start")

    def stop(self) -> None:
        """Cut every connection and refuse new ones."""
        if self._thread is None or self._server is None:
            return
        self._server.stop()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise RuntimeError("the simulator did not stop")
        self._thread = self._server = None


def run(config: SimulatorConfig, host: str = LOOPBACK, port: int = 8080) -> None:
    """Serve in the foreground until interrupted.

    Raises:
        ValueError: other machines could reach it, and no key is set.

    """
    _refuse_strangers(config, host)
    listener = listen(host, port)
    taken = int(listener.getsockname()[1])
    server_for(Simulation(config), host, taken).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Open the door; raises OSError if the port is taken."""
    listener = socket.create_server((host, port), backlog=2048)
    # asyncio does this only for sockets that it made itself; without it, answers wait for acks
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class PromptServer(uvicorn.Server):
    """Says when it is ready, and stops without the pauses that uvicorn makes on its way out."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Begin to stop; may be called in any thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Serve until told to stop."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._told.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close every connection as soon as its answer is out, or after a second."""
        for door in [*self.servers, *(sockets or ())]:
            door.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if tasks := list(self.server_state.tasks):
            _, left = await asyncio.wait(tasks, timeout=1)
            for task in left:
                task.cancel()
        await self.lifespan.shutdown()


class _Server(PromptServer):
    """Serves a simulation, and does not wait for those who hang."""

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application
        application.close_door = self._close_door
        self._closed: asyncio.Task[None] | None = None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._closed is not None:
            self._closed.cancel()
        self._application.close()
        await super().shutdown(sockets)

    def _close_door(self, seconds: float) -> None:
        """Refuse everybody for so many real seconds."""
        if self._closed is not None and not self._closed.done():
            return
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            reset_connection(connection.transport)
        self._closed = asyncio.create_task(self._reopen(seconds))

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await super().startup([listen(self.config.host, self.config.port)])


def server_for(simulation: Simulation, host: str, port: int) -> _Server:
    """Return the server of a simulation; it serves on listeners that are given to it."""
    application = Application(simulation)
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=simulation.config.clock == "real",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=1,
    )
    return _Server(config, application)


def _refuse_strangers(config: SimulatorConfig, host: str) -> None:
    local = host == "localhost"
    if not local:
        try:
            local = ipaddress.ip_address(host).is_loopback
        except ValueError:
            local = False
    if not local and config.api_key is None:
        raise ValueError(f"{host} can be reached by other machines: set api_key, or use {LOOPBACK}")
