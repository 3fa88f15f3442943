"""The backend for any Unix without something better: poll(2).

Its bits are ours, so the kernel's list goes to the reactor as it is. A closed descriptor is reported there as invalid
(POLLNVAL), which like every other bit means "try it".
"""

from __future__ import annotations

import select

from calandria import error
from calandria.plugin import READABLE, WRITABLE, Backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class PollBackend(Backend):
    """Owns a poll object, which is a table in this process, in the reactor's thread."""

    name = "poll"

    @classmethod
    def unavailable(cls) -> str | None:
        """Why there is no poll here: it is Windows, or a system with bits of its own."""
        system: Any = select  # type checkers do not know the names below on Windows
        if not hasattr(select, "poll"):
            return "the select module of this Python has no poll: it exists on Unix"
        if (system.POLLIN, system.POLLOUT) != (READABLE, WRITABLE):
            return f"the poll of this system has other bits than {READABLE} and {WRITABLE}"
        return None

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        system: Any = select
        self._new: Callable[[], Any] = system.poll
        self._invalid: int = system.POLLNVAL
        self._poll: Any = self._new()
        self._wait: Callable[[float | None], list[tuple[int, int]]] = self._poll.poll
        self._watched: set[int] = set()
        self._last = -1  # the number that the last batch ended with, if there were more

    def watch(self, fd: int, interest: int) -> None:
        """Ask poll about this one alone first: what the kernel calls invalid is refused here."""
        if not interest:
            if fd in self._watched:
                self._watched.discard(fd)
                self._poll.unregister(fd)
            return
        try:
            alone = self._new()
            alone.register(fd, interest)
            if any(bits & self._invalid for _, bits in alone.poll(0)):
                raise ValueError("it is closed, or of a kind that poll(2) does not know here")
        except (OSError, ValueError, OverflowError) as exc:
            self.watch(fd, 0)
            raise error.UnsupportedDescriptor(f"poll cannot watch descriptor {fd}: {error.describe(exc)}") from exc
        self._poll.register(fd, interest)
        self._watched.add(fd)

    def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """The kernel's own list. Python rounds the time-out up to milliseconds, the unit of poll(2)."""
        events = self._wait(None if timeout is None else timeout * 1000)
        if len(events) > 256:
            # By number, beginning after the one that came last: each is reached, whichever others come and go.
            events.sort()
            after = [event for event in events if event[0] > self._last]
            events = (after + events[: len(events) - len(after)])[:256]
            self._last = events[-1][0]
        return events

    def close(self) -> None:
        """Forget everything: the kernel lent nothing."""
        for fd in list(self._watched):
            self.watch(fd, 0)
