"""A real server on a loopback socket, for tests of the doors: `with serving(app) as url:`."""

import asyncio
import logging
import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import structlog
import uvicorn

from src.simulator.serve import PromptServer

PATIENCE_S = 10.0


class RunningServer:
    """An ASGI application under uvicorn, in a thread of its own, on a port that was free."""

    def __init__(self, app: Any, *, port: int = 0) -> None:
        self._app = app
        self._port = port
        self._server: PromptServer | None = None
        self._thread: threading.Thread | None = None
        self._logging = ExitStack()

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._logging.enter_context(logging_kept())
        # With its protocol named: only then asyncio switches Nagle's algorithm off, which would
        # hold the end of every answer back for 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        self._port = int(listener.getsockname()[1])
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="websockets-sansio",
            ws_max_size=65_536,
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = server = PromptServer(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])),
            name=f"server:{self._port}",
            daemon=True,
        )
        self._thread.start()
        if not server.ready.wait(PATIENCE_S):
            raise RuntimeError("the server did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.stop()
        self._thread.join(PATIENCE_S)
        self._logging.close()
        assert not self._thread.is_alive(), "the server did not stop"


@contextmanager
def logging_kept() -> Generator[None]:
    """Undo what an application does to the logging of the whole process when it starts."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in root.manager.loggerDict}
    level = root.level
    try:
        yield
    finally:
        root.setLevel(level)
        for name in root.manager.loggerDict:
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
        for handler in list(root.handlers):
            if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
                root.removeHandler(handler)
                handler.close()
        logging.captureWarnings(capture=False)


@contextmanager
def serving(app: Any) -> Generator[str]:
    """Serve an application and tell its address, without a slash at the end."""
    with RunningServer(app) as server:
        yield server.url
