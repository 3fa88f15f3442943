"""A connector: one wish to be connected, from the first attempt to the loss, and again if the factory wants it.

The order of what the factory is told, the timeout and the states are the same for every transport; a transport adds
`open`, which gives a stream, now or later. For those that connect sockets, the race between several addresses is here
too.
"""

from __future__ import annotations

import errno
import socket
from collections import deque

from calandria import defer, error, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Literal

    from calandria._debug import Creation
    from calandria._reactor import Reactor
    from calandria._stream import Stream
    from calandria._timers import DelayedCall
    from calandria.protocol import ClientFactory, Protocol

# RFC 8305, section 5: how long (seconds) one attempt is given before the next address is tried beside it.
ATTEMPT_DELAY = 0.25


class Connector:
    """Owned by its reactor while it connects, by its stream while it is connected; used on the reactor's thread.

    `open` gives a Stream that nobody has started, or a Deferred of one; it is called in a later turn than the making of
    the connector, which begins to connect by itself. `destination` is what `getDestination` answers. `timeout`
    (seconds; None: for ever) covers all that `open` does. Failures go to `factory.clientConnectionFailed`, in a later
    turn.
    """

    def __init__(
        self,
        reactor: Reactor,
        factory: ClientFactory,
        open: Callable[[], Stream | defer.Deferred[Stream]],
        *,
        destination: object,
        timeout: float | None = 30.0,
    ) -> None:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"a timeout is a number of seconds, 0 or more, or None, not {timeout!r}")
        self.reactor = reactor
        self.factory = factory
        self.timeout = timeout
        self.state: Literal["disconnected", "connecting", "connected"] = "disconnected"
        self.transport: Stream | None = None
        self.timeoutID: DelayedCall | None = None
        self._open = open
        self._destination = destination
        self._factoryStarted = False
        self._beginning: DelayedCall | None = None
        self._opening: defer.Deferred[Stream] | None = None
        # Attempts that were given up, of which the factory is told in a later turn.
        self._untold: deque[failure.Failure] = deque()
        # Whether disconnect() was called while there was no transport to close yet.
        self._unwanted = False
        self.creator: Creation | None = None
        if reactor.debug:
            from calandria._debug import watched

            watched(self)
        self.connect()

    def connect(self) -> None:
        """Begin to connect (again). Raises RuntimeError unless disconnected, and what the factory raises."""
        reactor, factory = self.reactor, self.factory
        reactor.checkUsable()
        if self.state != "disconnected":
            raise RuntimeError(f"cannot connect {self!r}: it is {self.state}")
        if not self._factoryStarted:
            factory.doStart()
            self._factoryStarted = True
        self.state = "connecting"
        self._unwanted = False
        reactor.owned[self] = None
        self.transport = None
        if self.timeout is not None:
            self.timeoutID = reactor.callLater(self.timeout, self._timedOut)
        self._beginning = reactor.callLater(0, self._begin)
        try:
            factory.startedConnecting(self)
        except BaseException:
            self._giveUp()
            self._untold.clear()
            self._stopFactory()
            raise

    def disconnect(self) -> None:
        """End whatever there is: an attempt, a connection, or nothing."""
        if self.state == "connecting":
            self.stopConnecting()
        elif self.state == "connected":
            if self.transport is not None:
                self.transport.loseConnection()
            else:
                self._unwanted = True  # inside buildProtocol

    def stopConnecting(self) -> None:
        """Give up the attempt; `clientConnectionFailed(UserError)` follows in a later turn. Raises
        error.NotConnectingError.
        """
        if self.state != "connecting":
            raise error.NotConnectingError(f"{self!r} is not connecting: it is {self.state}")
        self._giveUp()
        self._untold.append(failure.Failure(error.UserError(string="the attempt was given up")))
        self.reactor.owned[self] = None
        self.reactor.callLater(0, self._tellUntold)

    def cancelTimeout(self) -> None:
        """The attempt may take as long as it takes."""
        if self.timeoutID is not None:
            if self.timeoutID.active():
                self.timeoutID.cancel()
            self.timeoutID = None

    def buildProtocol(self, addr: Any) -> Protocol[Any, Any] | None:
        """Connected: the factory's protocol for it."""
        self.state = "connected"
        self.cancelTimeout()
        return self.factory.buildProtocol(addr)

    def connectionFailed(self, reason: failure.Failure) -> None:
        """The attempt has failed."""
        self._giveUp()
        self._told("clientConnectionFailed", reason)

    def connectionLost(self, reason: failure.Failure) -> None:
        """The connection has ended, and its protocol knows."""
        self.state = "disconnected"
        self.transport = None
        self._told("clientConnectionLost", reason)

    def getDestination(self) -> Any:
        """Where to: the transport's address or endpoint."""
        return self._destination

    def abandon(self, reason: failure.Failure) -> None:
        """The reactor stops or is closed in the middle of an attempt."""
        while self._untold:
            self._tellUntold()
        if self.state == "connecting":
            self.connectionFailed(reason)

    def forked(self) -> None:
        """We are a copy in a child process: nothing is going on here any more."""
        self.state = "disconnected"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {type(self.factory).__name__} to {self._destination!r}, {self.state}>"

    def _begin(self) -> None:
        self._beginning = None
        try:
            opening = self._open()
        except Exception as exc:
            self.connectionFailed(failure.Failure(exc))
            return
        if isinstance(opening, defer.Deferred):
            self._opening = opening
            opening.addCallbacks(self._opened, self._openFailed)
        else:
            self._opened(opening)

    def _openFailed(self, reason: failure.Failure) -> None:
        self._opening = None
        if self.state == "connecting":
            self.connectionFailed(reason)

    def _opened(self, stream: Stream) -> None:
        self._opening = None
        if self.state != "connecting":
            stream.discard()
            return
        self.reactor.owned.pop(self, None)
        try:
            protocol = self.buildProtocol(stream.getPeer())
        except BaseException as exc:
            stream.discard()
            self.reactor.loop.callbackRaised(f"buildProtocol of {type(self.factory).__name__}", exc)
            # What is no Exception leaves run() with all its frames; the factory is told no more than that.
            told = exc if isinstance(exc, Exception) else error.ConnectionLost(f"{exc!r} came out of buildProtocol")
            self.connectionFailed(failure.Failure(told))
            return
        refused = protocol is None
        if protocol is None:
            # Made, in the factory's eyes, and lost again.
            from calandria.protocol import Protocol

            protocol = Protocol()
        self.transport = stream
        try:
            stream.start(protocol, factory=self.factory, connector=self)
        except error.UnsupportedDescriptor as exc:
            self.connectionFailed(failure.Failure(exc))
            return
        if refused or self._unwanted:
            stream.loseConnection()

    def _timedOut(self) -> None:
        self.timeoutID = None
        self.connectionFailed(failure.Failure(error.TimeoutError(string=f"not connected after {self.timeout:g} s")))

    def _giveUp(self) -> None:
        """Out of the attempt; nothing of it comes back."""
        self.state = "disconnected"
        self.transport = None
        self.cancelTimeout()
        self.reactor.owned.pop(self, None)
        if self._beginning is not None:
            self._beginning.cancel()
            self._beginning = None
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()

    def _tellUntold(self) -> None:
        if self._untold:
            if self.state == "disconnected":
                self.reactor.owned.pop(self, None)
            self._told("clientConnectionFailed", self._untold.popleft())

    def _told(self, method: str, reason: failure.Failure) -> None:
        factory = self.factory
        try:
            getattr(factory, method)(self, reason)
        except BaseException as exc:
            self.reactor.loop.callbackRaised(f"{method} of {type(factory).__name__}", exc)
        if self.state == "disconnected" and not self._untold:
            self._stopFactory()
        reason.cleanFailure()

    def _stopFactory(self) -> None:
        if self._factoryStarted:
            self._factoryStarted = False
            try:
                self.factory.doStop()
            except BaseException as exc:
                self.reactor.loop.callbackRaised(f"doStop of {type(self.factory).__name__}", exc)


BaseConnector = Connector


class _Attempt:
    """One socket that connects; owned by its race, used on the reactor's thread."""

    def __init__(self, race: _Race, family: int, address: Any, bindAddress: Any) -> None:
        self.race = race
        self.address = address
        self.socket: socket.socket | None = None
        self._fd = -1
        try:
            self.socket = sock = race.reactor.backend.socket(family, socket.SOCK_STREAM)
            self._fd = sock.fileno()
            sock.setblocking(False)
            if bindAddress is not None:
                sock.bind(bindAddress)
        except OSError as exc:
            self.close()
            exc.__traceback__ = None
            raise error.ConnectBindError(exc, f"cannot use {bindAddress or 'a new socket'}: {exc.strerror}") from None
        except (TypeError, ValueError, OverflowError) as exc:
            self.close()
            raise error.ConnectBindError(None, f"cannot use {bindAddress!r}: {exc}") from None

    def begin(self) -> None:
        """connect(2), which seldom ends at once."""
        sock = self.socket
        if sock is None:
            return
        code = sock.connect_ex(self.address)
        if code in (0, errno.EISCONN):
            self._connected(sock)
        elif code in (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR):
            try:
                # Whoever had the number before has gone without a word.
                self.race.reactor.descriptors.evict(self._fd)
                self.race.reactor.descriptors.addWriter(self._fd, self)
            except error.UnsupportedDescriptor as exc:
                self.close()
                self.race.failed(self, exc)
        else:
            self._failed(code)

    def doWrite(self) -> None:
        """connect(2): once the socket is writable, SO_ERROR tells how it went."""
        sock = self.socket
        if sock is None:
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(code)
            return
        try:
            sock.getpeername()
        except OSError as exc:
            if exc.errno != errno.ENOTCONN:
                self._failed(exc.errno or 0)
            return  # a hint that came too early
        self._connected(sock)

    def _connected(self, sock: socket.socket) -> None:
        self.race.reactor.descriptors.forget(self._fd, self)
        self.socket = None
        self.race.won(self, sock)

    def _failed(self, code: int) -> None:
        self.close()
        self.race.failed(self, error.getConnectError(OSError(code, _strerror(code))))

    def connectionLost(self, reason: failure.Failure) -> None:
        """Somebody else closed the descriptor."""
        if self.socket is not None:
            self.race.reactor.descriptors.forget(self._fd, self)
            self.socket.detach()
            self.socket = None
            self.race.failed(self, reason.value)

    def abandon(self, reason: failure.Failure) -> None:
        """The reactor stops: the connector, which owns the race, is told."""

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """Give the socket back."""
        if self.socket is not None:
            self.race.reactor.descriptors.forget(self._fd, self)
            self.socket.close()
            self.socket = None


class _Race:
    """Attempts at several addresses, each a little later than the one before (RFC 8305); owned by the Deferred of its
    end.
    """

    def __init__(self, reactor: Reactor, candidates: Sequence[tuple[int, Any]], bindAddress: Any) -> None:
        self.reactor = reactor
        self._waiting = deque(candidates)
        self._bindAddress = bindAddress
        self._running: list[_Attempt] = []
        # The last few are enough to tell of: whoever answers for a name chooses how many addresses it has.
        self._errors: deque[tuple[Any, BaseException]] = deque(maxlen=10)
        self._beginning = False
        self._timer: DelayedCall | None = None
        self.done: defer.Deferred[socket.socket] | None = defer.Deferred(lambda _: self._end())

    def next(self) -> None:
        """The next address, and those after it for as long as they fail at once."""
        self._cancelTimer()
        while self._waiting and self.done is not None:
            family, address = self._waiting.popleft()
            self._beginning = True
            try:
                attempt = _Attempt(self, family, address, self._bindAddress)
                self._running.append(attempt)
                attempt.begin()
                if attempt in self._running:
                    break
            except error.ConnectError as exc:
                self._errors.append((address, exc))
            except (OSError, TypeError, ValueError, OverflowError) as exc:
                # Whoever answers for a name may answer what connect(2) cannot take.
                self._errors.append((address, error.ConnectError(string=f"{address!r} is no address: {exc}")))
                while self._running and self._running[-1].address is address:
                    self._running.pop().close()
            finally:
                self._beginning = False
        if self.done is None:
            return
        if self._waiting:
            self._timer = self.reactor.callLater(ATTEMPT_DELAY, self.next)
        elif not self._running:
            self._allFailed()

    def won(self, attempt: _Attempt, sock: socket.socket) -> None:
        """The first one that is connected ends the race."""
        self._running.remove(attempt)
        done = self._end()
        if done is not None:
            done.callback(sock)
        else:
            sock.close()

    def failed(self, attempt: _Attempt, exc: BaseException) -> None:
        """An attempt has failed: the next one begins now."""
        if attempt in self._running:
            self._running.remove(attempt)
        self._errors.append((attempt.address, exc))
        if self._beginning:
            return
        if self._waiting:
            self.next()
        elif not self._running:
            self._allFailed()

    def _allFailed(self) -> None:
        """The error of the last one is the race's."""
        exc = self._errors.pop()[1]
        for address, other in self._errors:
            exc.add_note(f"before that, {address}: {other}")
        done = self._end()
        if done is not None:
            done.errback(failure.Failure(exc))

    def _cancelTimer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _end(self) -> defer.Deferred[socket.socket] | None:
        self._cancelTimer()
        self._waiting.clear()
        self._errors.clear()
        while self._running:
            self._running.pop().close()
        done, self.done = self.done, None
        return done


def connectSocket(
    reactor: Reactor, candidates: Sequence[tuple[int, Any]], bindAddress: Any = None
) -> defer.Deferred[socket.socket]:
    """Connect a non-blocking stream socket to the first of several addresses that answers.

    `candidates` are pairs of an address family and an address as connect(2) of that family takes it; they are tried in
    this order, each 0.25 s after the one before or as soon as that has failed (RFC 8305, section 5), and all but the
    first to be connected are closed. `bindAddress` is a local address of the same family. The Deferred fails with the
    error.ConnectError of the last one, in which notes tell of the others; cancelling it ends every attempt.
    """
    if not candidates:
        raise ValueError("connectSocket takes at least one address")
    race = _Race(reactor, candidates, bindAddress)
    done = race.done
    race.next()
    assert done is not None
    return done


def interleaved(candidates: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """The families in turn, the first one's first (RFC 8305, section 4)."""
    families: dict[int, deque[tuple[int, Any]]] = {}
    for candidate in candidates:
        families.setdefault(candidate[0], deque()).append(candidate)
    order: list[tuple[int, Any]] = []
    while families:
        for family in list(families):
            order.append(families[family].popleft())
            if not families[family]:
                del families[family]
    return order


def _strerror(code: int) -> str:
    import os

    return os.strerror(code)
