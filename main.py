"""ASGI entry point: ``uvicorn main:app``; ``python main.py`` is the command line."""

if __name__ == "__main__":
    from src.cli import main

    raise SystemExit(main())

import gc

from src.app import create_app

app = create_app()  # opens nothing: sockets, files and tasks begin with the lifespan
gc.freeze()  # what is there now stays: it need not be looked at again and again
