"""What an operator has switched, so that it stays so when the server starts again."""

from ...models.controls import Controls, Scope, Switched
from .database import Database
from .statement import Statement

_READ = "SELECT kind, name, at, who FROM controls ORDER BY at, kind, name"
_FORGET = "DELETE FROM controls"
_KEEP = "INSERT INTO controls(kind, name, at, who) VALUES($1, $2, $3, $4)"


class KeptControls:
    """The table `controls`: a row for each pause, and one each for `stopped` and `draining`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> Controls:
        """Return the switches as they are kept; raises `StorageFailed`."""
        paused: dict[Scope, Switched] = {}
        single: dict[str, Switched] = {}
        for kind, name, at, who in await self._database.read(_READ):
            if kind in ("stopped", "draining"):
                single[kind] = Switched(at, who)
            else:
                paused[Scope(kind, name)] = Switched(at, who)
        return Controls(
            paused=paused, stopped=single.get("stopped"), draining=single.get("draining")
        )

    async def write(self, controls: Controls, *also: Statement) -> None:
        """Keep the switches, and carry out what goes with it; raises `StorageFailed`."""
        rows: list[tuple[str, str, Switched]] = [
            (scope.kind, scope.name, switched) for scope, switched in controls.paused.items()
        ]
        for kind, switched in (("stopped", controls.stopped), ("draining", controls.draining)):
            if switched is not None:
                rows.append((kind, "", switched))
        kept = [Statement(_KEEP, kind, name, *switched) for kind, name, switched in rows]
        await self._database.write(Statement(_FORGET), *kept, *also, even_if_full=True)
