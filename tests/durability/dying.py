"""The real server as a process that is killed over and over, and is soon back.

`python -m tests.durability.dying` imports everything once; each line it reads is a life: it forks,
the child serves, and dies by SIGKILL where it was told to, or when somebody kills it. The points of
death are at the edges of the store, put there from outside: the product knows nothing of them.
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypedDict, cast

from fastapi import FastAPI

from src import recovery
from src.app import create_app
from src.commands.hosting import LOOPBACK, Server, listen, serve_in_foreground
from src.handles import JobHandle
from src.models.jobs import Job, JobState
from src.routes.job_calls import order_in
from src.utils.blobs import FileBlobs
from src.utils.stores import database_file
from src.utils.stores.sqlite import SQLiteStore

Async = Callable[..., Awaitable[Any]]


class Life(TypedDict):
    """Where to listen, and at which point, reached for the how manieth time, to die."""

    port: int
    point: str
    nth: int


class _Fate:
    """Counts down."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def __call__(self) -> None:
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _around(where: Any, name: str, *, before: Any = None, after: Any = None) -> None:
    """Have something happen around an asynchronous method."""
    known: Async = getattr(where, name)

    async def method(*args: Any, **how: Any) -> Any:
        if before is not None:
            before(*args)
        result = await known(*args, **how)
        if after is not None:
            after(*args)
        return result

    setattr(where, name, method)


def _around_plain(where: Any, name: str, *, before: Any = None, after: Any = None) -> None:
    known: Callable[..., Any] = getattr(where, name)

    def method(*args: Any, **how: Any) -> Any:
        if before is not None:
            before(*args)
        result = known(*args, **how)
        if after is not None:
            after(*args)
        return result

    setattr(where, name, method)


def _anyway(fate: _Fate) -> Callable[..., None]:
    return lambda *_: fate()


def _when(fate: _Fate, state: JobState) -> Callable[..., None]:
    def look(*args: object) -> None:
        if any(isinstance(job, Job) and job.state is state for job in args):
            fate()

    return look


POINTS: Mapping[str, Callable[[_Fate], None]] = {
    "before a commit": lambda f: _around_plain(database_file, "transact", before=_anyway(f)),
    "after a commit": lambda f: _around_plain(database_file, "transact", after=_anyway(f)),
    "before a job is added": lambda f: _around(SQLiteStore, "add", before=_anyway(f)),
    "after a job was added": lambda f: _around(SQLiteStore, "add", after=_anyway(f)),
    "before a claim": lambda f: _around(SQLiteStore, "save", before=_when(f, JobState.PROCESSING)),
    "after a claim": lambda f: _around(SQLiteStore, "save", after=_when(f, JobState.PROCESSING)),
    "during a call": lambda f: _around_plain(JobHandle, "push", after=_anyway(f)),
    "before the end": lambda f: _around(SQLiteStore, "save", before=_when(f, JobState.COMPLETED)),
    "after the end": lambda f: _around(SQLiteStore, "save", after=_when(f, JobState.COMPLETED)),
    "during recovery": lambda f: _around(recovery, "_go_on", after=_anyway(f)),
    "after a blob was kept": lambda f: _around(FileBlobs, "keep", after=_anyway(f)),
}


def _live(life: Life, app: FastAPI) -> None:
    if life["point"]:
        POINTS[life["point"]](_Fate(life["nth"]))

    async def greet() -> None:
        print("ready", flush=True)

    server = Server(app, greet=greet)
    serve_in_foreground(server, listen(LOOPBACK, life["port"]))


def _warm_up(app: FastAPI) -> None:
    """Build what the first request of each life would have to build."""
    for modality in ("txt2txt", "txt2img"):
        job = {"modality": modality, "prompt": "p"}
        order_in(job)
        order_in({"jobs": [job]})
    for route in app.router.routes:
        route.matches({"type": "http", "method": "GET", "path": "/nowhere", "headers": []})


def main() -> None:
    """Live as often as told; say who lives, when it is ready, and how it ended."""
    app = create_app()
    _warm_up(app)
    gc.freeze()
    for line in sys.stdin:
        life = cast("Life", json.loads(line))
        child = os.fork()
        if child == 0:
            try:
                _live(life, app)
            except BaseException as error:  # noqa: BLE001 - the child must not go on as its parent
                print(f"failed {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(f"born {child}", flush=True)
        _, status = os.waitpid(child, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
