"""The backend that every system has: select(2).

It asks about all descriptors at each poll, and on most systems holds none with a number of 1024 or more, so it is the
last choice; on Windows it is the only one. What it cannot hold is refused by `watch`, never by a poll for the others.
"""

from __future__ import annotations

import errno
import os
import select
import time

from calandria import error
from calandria.plugin import READABLE, WRITABLE, Backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Windows reports a failed connect in the exceptional set only (elsewhere that one means urgent data, not wanted here),
# and its sets hold 512 sockets (the FD_SETSIZE that Python is built with), whatever their numbers are.
windows = os.name == "nt"

# What select answers for the whole set if one descriptor is closed (WSAENOTSOCK, on Windows).
CLOSED = (errno.EBADF, getattr(errno, "WSAENOTSOCK", errno.EBADF))


class SelectBackend(Backend):
    """Owns nothing but two sets of numbers, in the reactor's thread."""

    name = "select"

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self._readers: set[int] = set()
        self._writers: set[int] = set()
        self._last = -1  # the number that the last batch ended with, if there were more

    def watch(self, fd: int, interest: int) -> None:
        """Ask select about this one alone first: a number out of range or closed is refused here."""
        if interest:
            try:
                tryAlone(fd)
                if windows and len((self._readers | self._writers) - {fd}) >= 512:
                    raise ValueError("it holds no more than 512 sockets")
            except (OSError, ValueError, OverflowError) as exc:
                self.watch(fd, 0)
                text = f"select cannot watch descriptor {fd}: {error.describe(exc)}"
                raise error.UnsupportedDescriptor(text) from exc
        for watched, bit in ((self._readers, READABLE), (self._writers, WRITABLE)):
            if interest & bit:
                watched.add(fd)
            else:
                watched.discard(fd)

    def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """Python rounds the time-out up to microseconds, the unit of select(2)."""
        readers, writers = self._readers, self._writers
        try:
            ready = ask(readers, writers, timeout)
        except OSError as exc:
            if exc.errno not in CLOSED:
                raise
            closed = {fd for fd in readers | writers if isClosed(fd)}
            ready = ask(readers - closed, writers - closed, 0)
            for fd in closed:  # whoever tries learns that it is closed
                ready[fd] = (READABLE if fd in readers else 0) | (WRITABLE if fd in writers else 0)
        events = list(ready.items())
        if len(events) > 256:
            # By number, beginning after the one that came last: each is reached, whichever others come and go.
            events.sort()
            after = [event for event in events if event[0] > self._last]
            events = (after + events[: len(events) - len(after)])[:256]
            self._last = events[-1][0]
        return events

    def close(self) -> None:
        """Forget everything: the kernel lent nothing."""
        self._readers.clear()
        self._writers.clear()


def ask(readers: set[int], writers: set[int], timeout: float | None) -> dict[int, int]:
    """One system call: what is ready, and its bits."""
    if not readers and not writers:  # which Windows refuses
        time.sleep(86_400 if timeout is None else timeout)
        return {}
    readable, writable, failed = select.select(readers, writers, writers if windows else (), timeout)
    ready = dict.fromkeys(readable, READABLE)
    for fd in writable + failed:
        ready[fd] = ready.get(fd, 0) | WRITABLE
    return ready


def tryAlone(fd: int) -> None:
    """Raise what select has against this descriptor: OSError (closed), ValueError or OverflowError (out of range)."""
    select.select((fd,), (), (), 0)
    if not windows:
        os.fstat(fd)  # Linux overlooks a closed number that lies beyond its table of files


def isClosed(fd: int) -> bool:
    """Whether select fails for any set with this descriptor in it."""
    try:
        tryAlone(fd)
    except OSError:
        return True
    return False
