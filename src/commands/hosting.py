"""Serves the application with uvicorn: in the foreground, or in a thread beside something else."""

import errno
import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress

import uvicorn
from fastapi import FastAPI

from ..models.errors import StoreUnusable
from ..utils.allocator import look_for_garbage_less_often
from .terminal import ExitCode, Failure

LOOPBACK = "127.0.0.1"
_PATIENCE = 30.0
_LAST_WORDS_S = 2  # for the last answers to reach their callers
_UNREAD_MS = 60_000
_BACKLOG = 2048


class PortTaken(Failure):
    """Another program listens there."""


class Server(uvicorn.Server):
    """One process, one port. Says when it is ready, and may greet then."""

    def __init__(self, app: FastAPI, *, greet: Callable[[], Awaitable[None]] | None = None) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="websockets-sansio",
            ws_max_size=65_536,
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_LAST_WORDS_S,
        )
        super().__init__(config)
        self._wind_down: Callable[[], Awaitable[None]] = app.state.stopping.wind_down
        self._state = app.state
        self._greet = greet
        self.ready = threading.Event()

    def failure(self) -> Failure:
        """Say why it did not start."""
        unusable: StoreUnusable | None = self._state.unusable
        if unusable is None:
            return Failure("the server could not start; the log says why")
        return Failure(f"{unusable.message}; {unusable.hint}")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell those who wait for it."""
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()
        if self._greet is not None:
            await self._greet()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: first the work, then the connections."""
        await self._wind_down()
        await super().shutdown(sockets)


def serve_in_foreground(server: Server, listener: socket.socket) -> None:
    """Serve until the server is told to stop.

    Raises:
        Failure: it did not start.

    """
    look_for_garbage_less_often()
    with interruptible():
        try:
            server.run(sockets=[listener])
        except SystemExit as error:
            raise server.failure() from error


@contextmanager
def served(app: FastAPI, listener: socket.socket, *, grace_s: float) -> Generator[Server]:
    """Serve in a thread of its own for as long as the block lasts.

    Raises:
        Failure: it did not start.

    """
    server = Server(app)

    def run() -> None:
        with suppress(SystemExit):
            server.run(sockets=[listener])

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    try:
        server.ready.wait(_PATIENCE)
        if not server.started:
            raise server.failure()
        yield server
    finally:
        server.should_exit = True
        thread.join(grace_s + _PATIENCE)


@contextmanager
def interruptible() -> Generator[None]:
    """End the block quietly at Ctrl-C and at SIGTERM: a stop that was asked for is no failure.

    Also where a shell started the program in the background, which has it ignore Ctrl-C.
    """
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(stop, signal.default_int_handler) for stop in stops]
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)


def listen(host: str, port: int) -> socket.socket:
    """Take a port, so that nobody else gets it; 0 takes a free one.

    Raises:
        PortTaken: another program has it.
        Failure: the address is not ours to listen on.

    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: only then asyncio switches Nagle's algorithm off, which would hold
    # the end of every answer back for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # whoever never reads is let go by the kernel
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise cannot_listen(error, host, port) from error
    return listener


def cannot_listen(error: OSError, host: str, port: int) -> Failure:
    """Say why a port could not be had, and what would help."""
    match error.errno:
        case errno.EADDRINUSE:
            return PortTaken(
                f"port {port} on {host} is taken by another program; "
                f"choose another one with --port, or 0 for any free one"
            )
        case errno.EACCES:
            return Failure(
                f"port {port} is not for ordinary users; choose one from 1024 on with --port",
                ExitCode.REFUSED,
            )
        case _:
            return Failure(
                f"this machine does not have the address {host}; "
                f"choose one with --host, for example {LOOPBACK}"
            )


def wait_for_ever() -> None:
    """Wait until interrupted."""
    threading.Event().wait()


def url_of(listener: socket.socket) -> str:
    """Return the address under which a listener is reached from this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - read, not bound
        host = LOOPBACK if host != "::" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
