"""Who may do what only operators may."""

from collections.abc import Collection

from ..models.errors import Forbidden
from .callers import current_caller


class Operators:
    """The callers who may; where nobody is asked for a key, everybody.

    Args:
        names: of the callers.
        keyed: whether callers are asked for keys.

    """

    def __init__(self, names: Collection[str], *, keyed: bool) -> None:
        self.names = names
        self._keyed = keyed

    def include(self, caller: str) -> bool:
        """Whether a caller is one."""
        return not self._keyed or caller in self.names

    async def check(self) -> None:
        """Refuse a request that is no operator's; raises `Forbidden`."""
        if not self.include(current_caller()):
            raise Forbidden(
                "only an operator may do this",
                hint="use the key of one; the setting `operators` names them",
            )
