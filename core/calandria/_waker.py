"""The waker: how another thread, or a signal, gets a sleeping reactor out of its poll.

A pair of connected sockets from the backend; the reading end is watched like any other descriptor. However often it is
asked for, at most one byte of ours is under way.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from calandria.failure import Failure


# What one look at the pair takes away (bytes).
DRAIN = 4096


class Waker:
    """Owns both ends; `wake` may be called on any thread, in a signal handler and in `__del__`, all else on the
    reactor's.
    """

    __slots__ = ("_reading", "_sockets", "_writing", "awake")

    def __init__(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for end in pair:
            end.setblocking(False)
        self._reading, self._writing = (end.fileno() for end in pair)
        self._sockets: tuple[socket.socket, socket.socket] | None = pair
        if os.name == "posix":
            # Bare numbers: a reactor that the collector finds unclosed speaks for itself, and sockets would join in.
            self._sockets = None
            for end in pair:
                end.detach()
        self.awake = False

    def wake(self) -> None:
        """See to it that the poll under way, or the next one, returns at once."""
        if not self.awake:
            self.awake = True
            try:
                if self._sockets is None:
                    os.write(self._writing, b"\0")
                else:
                    self._sockets[1].send(b"\0")
            except OSError:
                pass  # full: it will wake all the same; closed: nobody sleeps any more

    def fileno(self) -> int:
        return self._reading

    def signalFileno(self) -> int:
        """The descriptor for signal.set_wakeup_fd."""
        return self._writing

    def doRead(self) -> None:
        # First the flag, then the bytes, and the queue (the loop's next step) last: whoever finds the flag still set
        # has put its call into the queue before we look there. A signal storm may leave more than we read: next turn.
        self.awake = False
        try:
            if self._sockets is None:
                os.read(self._reading, DRAIN)
            else:
                self._sockets[0].recv(DRAIN)
        except OSError:
            pass

    def connectionLost(self, reason: Failure) -> None:
        """Nothing can be lost here but the reactor itself."""

    def logPrefix(self) -> str:
        return "the waker"

    def close(self) -> None:
        """Give both ends back; waking does nothing any more."""
        fds, self._reading, self._writing = (self._reading, self._writing), -1, -1
        if self._sockets is None:
            for fd in fds:
                os.close(fd)
        else:
            for end in self._sockets:
                end.close()
