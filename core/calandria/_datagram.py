"""A datagram port: the life of a socket that has no connections, shared by all transports that move datagrams.

A transport adds how its socket is made and what its addresses are; the bounds, the errors and the order of what the
protocol is told are the same for all.
"""

from __future__ import annotations

import errno
import logging
import socket

from calandria import defer, error, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from calandria._debug import Creation
    from calandria._reactor import Reactor
    from calandria._timers import DelayedCall
    from calandria.protocol import AbstractDatagramProtocol

logger = logging.getLogger("calandria")

# Datagrams received per event, empty ones too: other descriptors get their turn then.
DATAGRAMS = 32

# recv(2) and send(2) on a connected socket: an earlier datagram was refused (ICMP).
_REFUSED = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})


class DatagramPort:
    """Moves datagrams between a socket and a protocol; owned by its reactor while it listens, used on its thread.

    A transport's port overrides `createSocket` (a bound socket; it sets `host`), `toSocket` and `fromSocket` (an
    address as the protocol sees it, and as the socket does). A longer datagram than `maxPacketSize` bytes is dropped,
    counted in `oversized` and logged, never delivered cut short.
    """

    def __init__(
        self,
        reactor: Reactor,
        protocol: AbstractDatagramProtocol,
        *,
        maxPacketSize: int = 65535,
        host: Any = None,
    ) -> None:
        if maxPacketSize < 1:
            raise ValueError(f"maxPacketSize is a number of bytes, 1 or more, not {maxPacketSize!r}")
        self.reactor = reactor
        self.protocol = protocol
        self.maxPacketSize = maxPacketSize
        self.host = host
        self.connected = False
        self.oversized = 0
        self.socket: socket.socket | None = None
        self._fd = -1
        self._peer: Any = None
        self._waiting: list[defer.Deferred[None]] = []
        self._closing: DelayedCall | None = None
        self.creator: Creation | None = None

    # What a transport overrides.

    def createSocket(self) -> socket.socket:
        """A bound socket. Raises error.CannotListenError."""
        raise TypeError(f"{type(self).__name__} has no createSocket")

    def toSocket(self, addr: Any) -> Any:
        """`addr` as sendto(2) takes it. Raises error.InvalidAddressError."""
        return addr

    def fromSocket(self, addr: Any) -> Any:
        """What recvfrom(2) gave as the protocol is to see it."""
        return addr

    # Its life.

    def startListening(self) -> None:
        """Bind, tell the protocol (`startProtocol`), and receive. Raises error.CannotListenError."""
        if self.connected:
            return
        reactor = self.reactor
        reactor.checkUsable()
        self.socket = sock = self.createSocket()
        sock.setblocking(False)
        self._fd = sock.fileno()
        try:
            reactor.descriptors.enter(self._fd, self)
        except error.UnsupportedDescriptor as exc:
            self._close()
            raise error.CannotListenError("", str(self.host), OSError(errno.EMFILE, str(exc))) from None
        self.connected = True
        reactor.owned[self] = None
        if reactor.debug:
            from calandria._debug import watched

            watched(self)
        try:
            self.protocol.makeConnection(self)
        except BaseException:
            # The protocol did not start, so it is not told of an end either.
            self._end(lambda: None)
            raise

    def stopListening(self) -> defer.Deferred[None]:
        """Receive no more; the Deferred fires when the socket is closed and the protocol was told, in a later turn."""
        deferred: defer.Deferred[None] = defer.Deferred()
        if not self.connected:
            if self.reactor.inherited:
                self.reactor.checkUsable()
            deferred.callback(None)
            return deferred
        self._waiting.append(deferred)
        if self._closing is None:
            self.reactor.descriptors.removeReader(self._fd)
            self._closing = self.reactor.callLater(0, self._stop)
        return deferred

    loseConnection = stopListening

    def _stop(self) -> None:
        self._closing = None
        self.connectionLost(failure.Failure(error.ConnectionDone()))

    def connectionLost(self, reason: failure.Failure) -> None:
        """The port has ended, at our wish or not."""
        if not self.connected:
            return
        if isinstance(reason.value, error.ConnectionFdescWentAway) and self.socket is not None:
            self.reactor.descriptors.forget(self._fd, self)
            self.socket.detach()
        self._end(self.protocol.doStop)

    def _end(self, tell: Callable[[], object]) -> None:
        self.connected = False
        self._close()
        self.reactor.owned.pop(self, None)
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        try:
            tell()
        except BaseException as exc:
            self.reactor.loop.callbackRaised(f"doStop of {type(self.protocol).__name__}", exc)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(None)

    def abandon(self, reason: failure.Failure) -> None:
        """The reactor stops or is closed."""
        self.connectionLost(reason)

    def forked(self) -> None:
        """We are a copy in a child process: take nothing, and close our copy of the descriptor."""
        self.connected = False
        if self.socket is not None:
            self.socket.close()

    def _close(self) -> None:
        sock, self.socket = self.socket, None
        if sock is not None:
            self.reactor.descriptors.forget(self._fd, self)
            sock.close()
        self._fd = -1

    def fileno(self) -> int:
        """The descriptor; -1 if there is none."""
        return self.socket.fileno() if self.socket is not None else -1

    def getHandle(self) -> socket.socket | None:
        """The socket itself."""
        return self.socket

    def getHost(self) -> Any:
        """The address that is being received at; after the end the last one known."""
        if self.host is None:
            raise error.NotListeningError(f"{type(self).__name__} does not listen yet")
        return self.host

    def logPrefix(self) -> str:
        """What log records call this port."""
        return type(self.protocol).__name__

    def __repr__(self) -> str:
        state = "receiving at" if self.connected else "not receiving at"
        return f"<{type(self).__name__} of {type(self.protocol).__name__} {state} {self.host!r}>"

    # Datagrams.

    def doRead(self) -> None:
        """Datagrams wait: take some. The loop calls this."""
        sock = self.socket
        if sock is None:
            return
        # One byte more than is allowed tells a datagram that is too long.
        limit = self.maxPacketSize + 1
        for _ in range(DATAGRAMS):
            try:
                datagram, addr = sock.recvfrom(limit)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno == errno.EBADF:
                    self.connectionLost(failure.Failure(error.ConnectionFdescWentAway()))
                elif exc.errno in _REFUSED and self._peer is not None:
                    self._guarded("connectionRefused")
                return
            if len(datagram) == limit:
                self._tooLong(addr)
            elif self._peer is not None:
                self._guarded("datagramReceived", datagram, self._peer)
            else:
                self._guarded("datagramReceived", datagram, self.fromSocket(addr))
            if not self.connected or self._closing is not None:
                return

    def _guarded(self, method: str, *args: Any) -> None:
        try:
            getattr(self.protocol, method)(*args)
        except BaseException as exc:
            self.reactor.loop.callbackRaised(f"{method} of {type(self.protocol).__name__}", exc)

    def _tooLong(self, addr: Any) -> None:
        self.oversized += 1
        more = self.reactor.loop.logLimit.allow(("oversized", self._fd))
        if more is not None:
            logger.warning("a datagram of more than %d bytes from %r was dropped%s", self.maxPacketSize, addr, more)

    def connect(self, addr: Any) -> None:
        """Exchange datagrams with `addr` only, and learn of its refusals. Raises RuntimeError the second time."""
        if self._peer is not None:
            raise RuntimeError(f"{self!r} is connected already, to {self._peer!r}")
        if self.socket is None:
            raise error.NotListeningError(f"{self!r} has no socket to connect")
        self.socket.connect(self.toSocket(addr))
        self._peer = addr

    def write(self, datagram: bytes, addr: Any = None) -> None:
        """Send one datagram now; to `addr`, unless connected.

        Raises error.DatagramBufferFull, error.MessageLengthError, error.InvalidAddressError, and OSError for what the
        system says otherwise. Nothing when the port does not listen.
        """
        sock = self.socket
        if sock is None or not self.connected:
            if self.reactor.inherited:
                self.reactor.checkUsable()
            return
        try:
            if self._peer is not None:
                if addr is not None and addr != self._peer:
                    raise error.InvalidAddressError(addr, f"this port is connected to {self._peer!r}")
                sock.send(datagram)
            else:
                sock.sendto(datagram, self.toSocket(addr))
        except BlockingIOError:
            raise error.DatagramBufferFull(f"no room for {len(datagram)} bytes: the socket's buffer is full") from None
        except OSError as exc:
            if exc.errno == errno.EMSGSIZE:
                raise error.MessageLengthError(f"a datagram of {len(datagram)} bytes is too long to be sent") from None
            if exc.errno in _REFUSED:
                # About an earlier datagram; only a connected port's protocol can know which peer it was.
                if self._peer is not None:
                    self.reactor.callLater(0, self._guarded, "connectionRefused")
                return
            raise

    def writeSequence(self, seq: Iterable[bytes], addr: Any = None) -> None:
        """Send the pieces as one datagram."""
        self.write(b"".join(seq), addr)
