"""At most one log record a second for each cause, with the count of those that were held back."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

INTERVAL = 1.0

# Causes come from errno values and code locations, not from peers; should that ever be wrong, memory stays bounded.
CAUSES = 256


class LogLimit:
    """Remembers when each cause was last logged; owned by a reactor, used on its thread."""

    __slots__ = ("_causes", "_seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._causes: dict[Hashable, tuple[float, int]] = {}

    def allow(self, cause: Hashable) -> str | None:
        """None: hold this record back. Otherwise what to append to it: "" or the count of those held back before."""
        now = self._seconds()
        last, held = self._causes.get(cause, (None, 0))
        if last is not None and now - last < INTERVAL:
            self._causes[cause] = (last, held + 1)
            return None
        if len(self._causes) >= CAUSES:
            self._causes.clear()
        self._causes[cause] = (now, 0)
        return f" ({held} more like it since the last such record)" if held else ""
