"""Calls from other threads: a queue that can be sealed.

Any thread may add, also from inside a signal handler or a `__del__` that interrupts an `add` half-way, so there is no
lock: `deque.append`, `popleft` and `remove` are each atomic. Sealing decides, for each call, between 'it has run' and
'it raised'.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from threading import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class ThreadCalls:
    """Calls that wait for the reactor's thread, in order; owned by the reactor, added to from anywhere."""

    __slots__ = ("append", "calls", "drainer", "popleft", "sealed")

    def __init__(self) -> None:
        # A partial is equal to nothing but itself, which is what take-back needs.
        self.calls: deque[partial[Any]] = deque()
        self.append = self.calls.append
        self.popleft = self.calls.popleft
        self.sealed = False
        # The thread that drains the sealed queue: what it adds itself meanwhile is still taken.
        self.drainer: int | None = None

    def add(self, function: Callable[..., object], args: tuple[Any, ...], kw: dict[str, Any]) -> bool:
        """Queue a call; False if the queue is sealed, and then the call will never be made."""
        sealed = self.sealed
        if sealed and self.drainer != get_ident():
            return False
        call = partial(function, *args, **kw)
        self.append(call)
        if self.sealed and not sealed:
            # Sealed between our two looks: either the last drain still found the call, or it is ours to take back.
            try:
                self.calls.remove(call)
            except ValueError:
                return True
            return False
        return True
