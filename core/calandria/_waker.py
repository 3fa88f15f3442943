"""The waker: how another thread, or a signal, gets a sleeping reactor out of its poll.

A pair of connected sockets from the backend; the reading end is watched like any other descriptor. However often it is
asked for, at most one byte of ours is under way.
"""

from __future__ import annotations

import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from calandria.failure import Failure


# What one look at the pair takes away (bytes).
DRAIN = 4096


class _End(socket.socket):
    """One end of the pair, which leaves it to a reactor that was never closed to complain."""

    def __del__(self) -> None:
        self.close()


class Waker:
    """Owns both ends; `wake` may be called on any thread, in a signal handler and in `__del__`, all else on the
    reactor's.
    """

    __slots__ = ("_reading", "_writing", "awake")

    def __init__(self, pair: tuple[socket.socket, socket.socket]) -> None:
        # Sockets and not bare numbers: a `wake` that meets `close` must not write to whoever has the number by then.
        self._reading, self._writing = (_End(fileno=end.detach()) for end in pair)
        for end in (self._reading, self._writing):
            end.setblocking(False)
        self.awake = False

    def wake(self) -> None:
        """See to it that the poll under way, or the next one, returns at once."""
        if not self.awake:
            try:
                self.awake = True
                self._writing.send(b"\0")
            except OSError:
                pass  # full: it will wake all the same; closed: nobody sleeps any more
            except BaseException:
                self.awake = False  # a signal handler raised in between: the next one who asks is not to rely on us
                raise

    def fileno(self) -> int:
        return self._reading.fileno()

    def signalFileno(self) -> int:
        """The descriptor for signal.set_wakeup_fd."""
        return self._writing.fileno()

    def doRead(self) -> None:
        # First the bytes, then the flag, and the queue (the loop's next step) last. Whoever finds the flag set sends no
        # byte, so it may not stay set when the last byte has gone; and it has put its call into the queue before we
        # look there. A signal storm may leave more than we read: next turn.
        try:
            self._reading.recv(DRAIN)
        except OSError:
            pass
        finally:
            self.awake = False

    def abandon(self, reason: Failure) -> None:
        """Nothing can be lost here but the reactor itself: an exception that hits `doRead` is a signal handler's."""

    connectionLost = abandon

    def logPrefix(self) -> str:
        return "the waker"

    def close(self) -> None:
        """Give both ends back; waking does nothing any more."""
        self._reading.close()
        self._writing.close()
