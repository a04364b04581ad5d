"""ASGI entry point: ``uvicorn main:app``; ``python main.py`` is the command line."""

if __name__ == "__main__":
    from src.cli import main

    raise SystemExit(main())

import gc

gc.disable()  # nothing is garbage yet, and to look for some would take a sixth of the start

from src.app import create_app  # noqa: E402
from src.utils.allocator import look_for_garbage_less_often  # noqa: E402

app = create_app()  # opens nothing: sockets, files and tasks begin with the lifespan
look_for_garbage_less_often()
gc.enable()
