"""``python -m src`` in the checkout, ``python -m inference_manager`` when installed."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
