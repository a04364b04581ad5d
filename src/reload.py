"""Reads the settings again while the server runs, and takes over what can be changed then."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes(Generic[S]):
    """How the settings differ from those in force.

    Attributes:
        settings: all of them, as they were read.
        before: those that can be changed, as they are in force; `after`, as they were read.
        restart: the names of those that need a start of the server.

    """

    settings: S
    before: Mapping[str, object]
    after: Mapping[str, object]
    restart: Sequence[str]


class Reload(Generic[S]):
    """Knows which settings are in force.

    Args:
        settings: those with which the server was made.
        read: reads them anew, outside the event loop; what it raises changes nothing.
        puts: puts a setting into force, by its name; given the settings as a whole.

    """

    def __init__(
        self, settings: S, read: Callable[[], S], puts: Mapping[str, Callable[[S], object]]
    ) -> None:
        self._in_force: dict[str, Any] = dict(settings)
        self._read = read
        self._puts = puts

    def __repr__(self) -> str:
        return f"<Reload [{', '.join(self._puts)}]>"

    async def look(self) -> Changes[S]:
        """Read the settings and compare; raises as `read`."""
        settings = await asyncio.to_thread(self._read)
        new = {name: value for name, value in settings if value != self._in_force[name]}
        after = {name: value for name, value in new.items() if name in self._puts}
        return Changes(
            settings=settings,
            before={name: self._in_force[name] for name in after},
            after=after,
            restart=[name for name in new if name not in self._puts],
        )

    def apply(self, changes: Changes[S]) -> None:
        """Put what can be changed into force."""
        for name, value in changes.after.items():
            self._puts[name](changes.settings)
            self._in_force[name] = value
