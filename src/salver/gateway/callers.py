"""How many connections each caller holds open to one gateway."""

from __future__ import annotations

from collections import Counter

from salver.access.principal import ANYONE, Principal
from salver.errors import SalverError
from salver.limits import over


class Callers:
    """Connections by who asked on them last; `most` is how many one caller may hold.

    Who calls is known only when a request of theirs is: a connection belongs to nobody until then.
    """

    __slots__ = ("_most", "_open", "_who")

    def __init__(self, most: int) -> None:
        self._most = most
        self._who: dict[object, str] = {}
        self._open: Counter[str] = Counter()

    def __getitem__(self, name: str) -> int:
        return self._open[name]

    def __contains__(self, connection: object) -> bool:
        """Whether a connection is somebody's."""
        return connection in self._who

    def hold(self, connection: object, who: Principal) -> SalverError | None:
        """Count a connection for a caller; the refusal of one that would be too many, which is to be closed."""
        name = who.name
        if self._who.get(connection) == name or who is ANYONE:
            return None
        if self._open[name] >= self._most:
            message = f"{name} has {self._most} connections open to this gateway"
            return over("key-connections", "too-many-connections", message, "use them again, or close some")
        self.free(connection)
        self._who[connection] = name
        self._open[name] += 1
        return None

    def free(self, connection: object) -> None:
        """A connection is gone, or somebody else's."""
        name = self._who.pop(connection, "")
        if name:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]
