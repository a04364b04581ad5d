"""ASGI entry point: ``uvicorn main:app``; ``python main.py`` is the command line."""

from src.cli import main

from src.app import create_app

app = create_app()  # opens nothing: sockets, files and tasks begin with the lifespan

if __name__ == "__main__":
    raise SystemExit(main())
