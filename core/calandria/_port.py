"""A port: where connections come in, and what becomes of them by the factory's word.

The accept loop, the trouble it can meet and the order of a port's life are the same for every listening socket; a
transport adds how its socket is made and what its streams are. A port without a socket is for pipes that come in some
other way.
"""

from __future__ import annotations

import errno
import logging
import os
import socket

from calandria import defer, error, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from calandria._debug import Creation
    from calandria._reactor import Reactor
    from calandria._stream import Stream
    from calandria._timers import DelayedCall
    from calandria.protocol import Factory

logger = logging.getLogger("calandria")

# Connections taken in one turn: the clients that are being served wait meanwhile.
ACCEPTS = 16
# Clients refused in one turn when there is no descriptor for them: more than the backlog of most ports.
REFUSALS = 128
# How long (seconds) accepting pauses then.
PAUSE = 0.1

# accept(2): the connection is gone or may not be taken, the port is well.
_SKIP = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "EPERM",
        "EPROTO",
        "EINTR",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
        "ENETUNREACH",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
)
# No descriptor or no memory for it.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The listening socket itself is no more: closed by somebody else, or shut down (EINVAL).
_GONE = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EINVAL})


class Port:
    """A listening port; owned by its reactor while it listens, used on its thread.

    A transport's port overrides `createSocket` (a bound, listening socket; it sets `host`, what `getHost` answers) and
    `makeStream` (a Stream for an accepted one). Without them it is a port for streams that come in some other way:
    `accepted` takes them.
    """

    numberAccepts = ACCEPTS

    def __init__(self, reactor: Reactor, factory: Factory, *, host: Any = None) -> None:
        self.reactor = reactor
        self.factory = factory
        self.connected = False
        self.disconnected = False
        self.sessionno = 0
        self.socket: socket.socket | None = None
        self._accept: Callable[[], tuple[socket.socket, Any]] | None = None
        self._fd = -1
        self._name: Any = None
        self.host = host
        self._waiting: list[defer.Deferred[None]] = []
        self._resuming: DelayedCall | None = None
        self._closing: DelayedCall | None = None
        self.creator: Creation | None = None

    # What a transport overrides.

    def createSocket(self) -> socket.socket | None:
        """A bound and listening socket; None: this port has none. Raises error.CannotListenError."""
        return None

    def makeStream(self, connection: socket.socket, address: Any) -> Stream:
        """The stream of an accepted connection, whose peer accept(2) gave as `address`."""
        raise TypeError(f"{type(self).__name__} has no makeStream, so it cannot accept connections from a socket")

    def closed(self) -> None:
        """The socket has just been closed."""

    # Its life.

    def startListening(self) -> None:
        """Listen; may be called again after `stopListening`. Raises error.CannotListenError."""
        if self._closing is not None:
            self._closing.cancel()
            self._stop()  # it was to stop, and begins anew
        if self.connected:
            return
        reactor = self.reactor
        reactor.checkUsable()
        self.socket = sock = self.createSocket()
        try:
            if sock is not None:
                self._watch(sock)
            self.factory.doStart()
        except BaseException:
            self._close()
            raise
        self.connected, self.disconnected = True, False
        reactor.owned[self] = None
        if reactor.debug:
            from calandria._debug import watched

            watched(self)
        if getattr(self.factory, "noisy", False):
            logger.info("%s starting on %s", type(self.factory).__name__, getattr(self.host, "port", self.host))

    def _watch(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._fd = sock.fileno()
        self._accept = acceptor(self.reactor, sock)
        self._name = sock.getsockname()
        try:
            self._haveReserve()
            self.reactor.descriptors.enter(self._fd, self)
        except (OSError, error.UnsupportedDescriptor) as exc:
            cause = exc if isinstance(exc, OSError) else str(exc)
            raise error.CannotListenError("", str(self.host), cause) from None

    def _haveReserve(self) -> None:
        """The reactor's reserve descriptor, which `_refuse` gives up for a moment. Raises OSError."""
        if self.reactor.reserve is None:
            self.reactor.reserve = os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def stopListening(self) -> defer.Deferred[None]:
        """Take no more connections; those that were taken live on.

        The Deferred fires when the socket is closed, in a later turn; at once if the port does not listen.
        """
        deferred: defer.Deferred[None] = defer.Deferred()
        if not self.connected:
            if self.reactor.inherited:
                self.reactor.checkUsable()
            deferred.callback(None)
            return deferred
        self._waiting.append(deferred)
        if self._closing is None:
            self._pause()
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
        self.connected, self.disconnected = False, True
        if isinstance(reason.value, error.ConnectionFdescWentAway):
            self.disown()
        self._close()
        self.reactor.owned.pop(self, None)
        for timer in (self._resuming, self._closing):
            if timer is not None and timer.active():
                timer.cancel()
        self._resuming = self._closing = None
        if getattr(self.factory, "noisy", False):
            kind, number = getattr(self.host, "type", type(self).__name__), getattr(self.host, "port", self.host)
            logger.info("(%s Port %s Closed)", kind, number)
        try:
            self.factory.doStop()
        except BaseException as exc:
            self.reactor.loop.callbackRaised(f"doStop of {type(self.factory).__name__}", exc)
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
        sock, self.socket, self._accept = self.socket, None, None
        if sock is not None:
            self.reactor.descriptors.forget(self._fd, self)
            try:
                sock.close()
            except OSError as exc:
                logger.debug("closing the socket of port %s: %s", self.host, exc)
            self.closed()
        self._fd = -1

    def disown(self) -> None:
        """Somebody else closed our descriptor, and the number may be another's by now: it is not ours to close."""
        if self.socket is not None:
            self.reactor.descriptors.forget(self._fd, self)
            self.socket.detach()

    def fileno(self) -> int:
        """The listening descriptor; -1 if there is none."""
        return self.socket.fileno() if self.socket is not None else -1

    def getHost(self) -> Any:
        """The address that is being listened at, with the real port; after the end the last one known."""
        if self.host is None:
            raise error.NotListeningError(f"{type(self).__name__} does not listen yet")
        return self.host

    def logPrefix(self) -> str:
        """What log records call this port."""
        return type(self.factory).__name__

    def __repr__(self) -> str:
        state = "listening at" if self.connected else "not listening at"
        return f"<{type(self).__name__} of {type(self.factory).__name__} {state} {self.host!r}>"

    # Connections.

    def doRead(self) -> None:
        """Connections wait: take some. The loop calls this."""
        accept = self._accept
        for _ in range(self.numberAccepts):
            try:
                connection, address = accept()  # type: ignore[misc]  # a port that is watched has it
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in _SKIP:
                    continue
                self._cannotAccept(exc)
                return
            self.sessionno += 1
            try:
                connection.setblocking(False)
                stream = self.makeStream(connection, address)
            except OSError as exc:
                # The peer has gone already: there is nobody to tell.
                logger.debug("an accepted connection failed at once: %s", exc)
                connection.close()
                continue
            except BaseException as exc:
                connection.close()
                self.reactor.loop.callbackRaised(f"the transport class of {self!r}", exc)
                continue
            self.accepted(stream)
            if not self.connected or self._closing is not None:
                return

    def accepted(self, stream: Stream) -> None:
        """A new connection: the factory's protocol for it, or its end.

        If `buildProtocol` gives None or raises (which is logged), or the backend cannot watch the descriptor, the
        channel is closed at once.
        """
        accept(self.reactor, self.factory, stream)

    def _cannotAccept(self, exc: OSError) -> None:
        if exc.errno in _GONE:
            logger.error("port %s is lost: %s", self.host, exc.strerror)
            ours = exc.errno == errno.EINVAL and self._isOurs()
            kind = error.ConnectionLost if ours else error.ConnectionFdescWentAway
            reason = kind("somebody else closed the listening socket", osError=exc)
            self.connectionLost(failure.Failure(reason))
            return
        refused = self._refuse() if exc.errno in _EXHAUSTED else 0
        more = self.reactor.loop.logLimit.allow(("accept", exc.errno))
        if more is not None:
            logger.error(
                "port %s cannot accept: %s; %d clients refused, trying again in %g s%s",
                self.host,
                exc.strerror,
                refused,
                PAUSE,
                more,
            )
        self._pause()
        self._resuming = self.reactor.callLater(PAUSE, self._resume)

    def _isOurs(self) -> bool:
        """Whether our descriptor's number still stands for the socket that we bound."""
        try:
            return self.socket is not None and self.socket.getsockname() == self._name
        except OSError:
            return False

    def _refuse(self) -> int:
        """Without a free descriptor a client would hang in the backlog: use the reserve to let each know."""
        reactor = self.reactor
        if reactor.reserve is None or self.socket is None:
            return 0
        os.close(reactor.reserve)
        reactor.reserve = None
        refused = 0
        try:
            while refused < REFUSALS:
                self.socket.accept()[0].close()
                refused += 1
        except OSError:
            pass
        try:
            self._haveReserve()
        except OSError:
            pass  # another took it; the next port that starts, or the next resumption, asks again
        return refused

    def _pause(self) -> None:
        if self._fd >= 0:
            self.reactor.descriptors.removeReader(self._fd)

    def _resume(self) -> None:
        self._resuming = None
        try:
            self._haveReserve()
        except OSError:
            pass
        if self.connected and self._closing is None and self._fd >= 0:
            self.reactor.descriptors.addReader(self._fd, self)


def acceptor(reactor: Reactor, sock: socket.socket) -> Callable[[], tuple[socket.socket, Any]]:
    """What takes one connection off a listening socket.

    `socket.accept` looks up two enumerations for every connection that it makes a socket of, which costs a tenth of all
    that accepting and serving it costs; what it calls itself gives the descriptor.
    """
    take: Callable[[], tuple[int, Any]] | None = getattr(sock, "_accept", None)
    if take is None or type(sock) is not socket.socket:
        return sock.accept
    make, family, kind, proto = reactor.backend.socket, int(sock.family), int(sock.type), sock.proto

    def accept() -> tuple[socket.socket, Any]:
        fd, address = take()
        try:
            return make(family, kind, proto, fd), address
        except BaseException:
            os.close(fd)
            raise

    return accept


def accept(reactor: Reactor, factory: Factory, stream: Stream) -> None:
    """What becomes of a new connection of a server, by the factory's word (see Port.accepted)."""
    try:
        protocol = factory.buildProtocol(stream.getPeer())
    except BaseException as exc:
        stream.discard()
        reactor.loop.callbackRaised(f"buildProtocol of {type(factory).__name__}", exc)
        return
    if protocol is None:
        stream.discard()
        return
    try:
        stream.start(protocol, factory=factory)
    except error.UnsupportedDescriptor as exc:
        more = reactor.loop.logLimit.allow(("accepted", type(exc)))
        if more is not None:
            logger.error("a connection from %s was refused: %s%s", stream.getPeer(), exc, more)
