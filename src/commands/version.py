"""`version`: which program this is."""

import platform

from pydantic import BaseModel

from .. import __version__
from .terminal import say, say_json


class Version(BaseModel):
    """What `version --json` prints."""

    version: str
    python: str


def version(*, as_json: bool) -> None:
    """Say which version this is."""
    if as_json:
        say_json(Version(version=__version__, python=platform.python_version()))
    else:
        say(f"inference-manager {__version__}")
