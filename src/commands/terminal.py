"""How a command speaks: facts on standard output, failures in one line with an exit code."""

import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

Colour = Literal["green", "yellow", "red"]
_CODES: dict[Colour, int] = {"green": 32, "yellow": 33, "red": 31}


class ExitCode(IntEnum):
    """What a command ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4


class Failure(Exception):
    """A command cannot go on; the message says in one line why, and what would help."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def program() -> str:
    """Return how this program was called, so that what we suggest can be typed as it stands."""
    path = Path(sys.argv[0])
    match path.name:
        case "main.py":
            return "python main.py"
        case "__main__.py":
            return f"python -m {path.parent.name}"
        case _:
            return "inference-manager"


def say(*lines: str) -> None:
    """Print lines for people, at once even when standard output is a file."""
    for line in lines:
        print(line)
    sys.stdout.flush()


def warn(line: str) -> None:
    """Print a line that is no result."""
    print(line, file=sys.stderr, flush=True)


def say_json(value: BaseModel) -> None:
    """Print facts for programs."""
    say(value.model_dump_json(indent=2))


def coloured(text: str, colour: Colour) -> str:
    """Colour a text where standard output shows colours and nobody minds them."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out in columns as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def seconds(value: float | None) -> str:
    """Write a duration: 0.42 s, 12.3 s, 4 min, 3 h."""
    match value:
        case None:
            return "-"
        case _ if value < 10:
            return f"{value:.2f} s"
        case _ if value < 120:
            return f"{value:.1f} s"
        case _ if value < 7200:
            return f"{value / 60:.0f} min"
        case _:
            return f"{value / 3600:.0f} h"
