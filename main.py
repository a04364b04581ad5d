"""ASGI entry point: ``uvicorn main:app``; ``python main.py`` is the command line."""

if __name__ == "__main__":
    from src.cli import main

    raise SystemExit(main())

import gc

from src.app import create_app

app = create_app()  # opens nothing: sockets, files and tasks begin with the lifespan
# What is there now stays, what a request makes goes with it: neither need be looked at often.
gc.freeze()
gc.set_threshold(10_000, 20, 20)
