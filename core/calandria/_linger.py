"""Closing a channel so that the peer gets what was sent.

close(2) on a socket whose input was not read to its end makes the kernel reset the connection and drop what it had not
sent (RFC 1122, 4.2.2.13). So a connection that was closed in order looks at its input once more, and where bytes may
still be on their way in either direction the socket lingers: our direction ends, input is thrown away, until the peer
has ended too.
"""

from __future__ import annotations

import socket
import struct

from calandria import error

# Where there are no such modules (Windows), how much is under way is not known.
fcntl: Any
termios: Any
try:
    import fcntl
    import termios
except ImportError:
    fcntl = termios = None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from calandria._channel import Channel
    from calandria._reactor import Reactor
    from calandria._timers import DelayedCall
    from calandria.failure import Failure

# Input that is thrown away for each event (bytes).
WASTE_SIZE = 65536

_RESET = struct.pack("ii", 1, 0)


def finish(reactor: Reactor, channel: Channel, timeout: float | None, *, linger: bool, abort: bool) -> None:
    """Close `channel`: with a reset if `abort`, else in peace if `linger`."""
    if abort:
        reset = getattr(channel, "abort", None)
        if reset is not None:
            try:
                reset()
            finally:
                channel.close()
            return
        if isinstance(channel, socket.socket):
            try:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # no TCP, or gone already
    elif linger and isinstance(channel, socket.socket) and _lingers(reactor, channel, timeout):
        return
    channel.close()


def _lingers(reactor: Reactor, sock: socket.socket, timeout: float | None) -> bool:
    """End our direction and, unless nothing is on its way any more, leave the rest to a Lingering."""
    try:
        if not sock.recv(WASTE_SIZE):
            return False  # the peer has ended before us
        settled = False
    except (BlockingIOError, InterruptedError):
        settled = unacknowledged(sock) == 0
    except OSError:
        return False
    try:
        # Also where all has arrived: what the peer sends at this moment would make close(2) reset, and lose it our end.
        sock.shutdown(socket.SHUT_WR)
        if not settled:
            Lingering(reactor, sock, timeout)
    except (OSError, error.UnsupportedDescriptor):
        return False
    return not settled


def unacknowledged(sock: socket.socket) -> int | None:
    """How many bytes (and the end) the peer has not acknowledged: SIOCOUTQ of tcp(7), which is TIOCOUTQ; None: not
    known.
    """
    if fcntl is None or termios is None:
        return None
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return None
    count: int = struct.unpack("i", answer)[0]
    return count


class Lingering:
    """A socket whose connection is over for its protocol; owned by the reactor until the peer has ended, used on its
    thread.
    """

    __slots__ = ("__weakref__", "_left", "_reactor", "_socket", "_timeout", "_timer")

    def __init__(self, reactor: Reactor, sock: socket.socket, timeout: float | None) -> None:
        self._reactor = reactor
        self._socket = sock
        self._timeout = timeout
        self._timer: DelayedCall | None = None
        self._left = unacknowledged(sock)
        reactor.descriptors.enter(sock.fileno(), self)
        reactor.owned[self] = None
        reactor.lingering += 1
        if timeout is not None:
            self._timer = reactor.callLater(timeout, self._timedOut)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "a lingering socket"

    def doRead(self) -> None:
        """Throw away what the peer sends; its end, or an error, is ours too."""
        try:
            if self._socket.recv(WASTE_SIZE):
                if self._timer is not None and self._timeout is not None:
                    self._timer.reset(self._timeout)
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._close()

    def _timedOut(self) -> None:
        """Nothing came for so long; but a peer that takes what was sent gets on too."""
        self._timer = None
        before, self._left = self._left, unacknowledged(self._socket)
        if before is not None and self._left is not None and self._left < before and self._timeout is not None:
            self._timer = self._reactor.callLater(self._timeout, self._timedOut)
        else:
            self._close()

    def connectionLost(self, reason: Failure) -> None:
        """The descriptor was closed by somebody else."""
        self._close()

    def abandon(self, reason: Failure) -> None:
        """The reactor stops."""
        self._close()

    def forked(self) -> None:
        """We are a copy in a child process; the timer has gone with its reactor."""
        self._timer = None
        self._socket.close()

    def _close(self) -> None:
        reactor = self._reactor
        if reactor.owned.pop(self, self) is self:
            return
        reactor.lingering -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        reactor.descriptors.forget(self._socket.fileno(), self)
        self._socket.close()
