"""Serves our own application with the fixtures of the official conformance suite on top.

Run it with `python -m tests.conformance.fixture_server --port 8912`; `scripts/conformance` does.
"""

import argparse
import functools
import warnings

import uvicorn
from fastapi import FastAPI
from mcp.server import MCPServer
from mcp.shared.exceptions import MCPDeprecationWarning

from src.app import create_app
from src.settings import Settings

from . import fixtures, task_fixtures
from .event_store import RingEventStore
from .slow_backend import SlowBackend

RETRY_MS = 500


def fixture_app() -> FastAPI:
    """Make the application, before a backend that does what the scenarios ask for."""
    settings = Settings(log_file=None, log_level="error")
    return create_app(settings, backends=[SlowBackend()], extend_mcp=_extend)


def _extend(server: MCPServer) -> None:
    fixtures.register(server)
    task_fixtures.register(server)
    # One scenario needs a broken stream to be resumed, which the product leaves out on purpose.
    server.streamable_http_app = functools.partial(  # type: ignore[method-assign]
        server.streamable_http_app, event_store=RingEventStore(), retry_interval=RETRY_MS
    )


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8912)
    port: int = parser.parse_args().port
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    uvicorn.run(
        fixture_app(), host="127.0.0.1", port=port, http="h11", log_config=None, access_log=False
    )


if __name__ == "__main__":
    main()
