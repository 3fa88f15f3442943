"""Calls from other threads: a queue that can be sealed.

Any thread may add, also from inside a signal handler or a `__del__` that interrupts another half-way, so there is no
lock: `deque.append`, `popleft` and `remove` are each atomic. Sealing decides, for each call, between 'it has run' and
'it raised'.
"""

from __future__ import annotations

from collections import deque
from threading import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class ThreadCalls:
    """Calls that wait for the reactor's thread, in order; owned by the reactor, added to from anywhere."""

    __slots__ = ("append", "calls", "drainer", "popleft", "sealed")

    def __init__(self) -> None:
        self.calls: deque[Callable[[], object]] = deque()
        self.append = self.calls.append
        self.popleft = self.calls.popleft
        self.sealed = False
        # The thread that drains the sealed queue: what it adds itself meanwhile is still taken.
        self.drainer: int | None = None

    def addSealed(self, call: Callable[[], object]) -> bool:
        """Queue a call if the queue is being drained in this thread; otherwise False: it will never be made."""
        if self.drainer != get_ident():
            return False
        self.append(call)
        return True

    def wasTaken(self, call: Callable[[], object]) -> bool:
        """Whether the last drain found a call that was added just when the queue was sealed; if not, the call is taken
        back.
        """
        try:
            self.calls.remove(call)
        except ValueError:
            return True
        return False
