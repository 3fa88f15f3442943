"""What users write: a Protocol for what happens on one connection, a Factory that makes one per connection.

A Protocol is a plain class with defaults on the class, so that an instance costs one small dictionary. For type
checkers it is generic in its transport and its factory; at run time subscripting it gives the class itself, so that
importing it needs no `typing`. Long because it is all of the kinds of both, each short.
"""

from __future__ import annotations

import logging
import math
from functools import partial

from calandria import defer, error, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, BinaryIO, Generic, Self

    from typing_extensions import ParamSpec, TypeVar

    from calandria import Reactor, interfaces

    # Covariant, because a protocol written for any StreamTransport is one for a TLSTransport; the defaults (PEP 696)
    # let `class Echo(Protocol)` stand as it is.
    TransportT_co = TypeVar("TransportT_co", covariant=True, default=interfaces.StreamTransport)
    FactoryT_co = TypeVar("FactoryT_co", covariant=True, default=Any)
    DatagramTransportT_co = TypeVar("DatagramTransportT_co", covariant=True, default=interfaces.DatagramTransport)
    ProtocolT = TypeVar("ProtocolT")
    P = ParamSpec("P")
else:

    class Generic:
        """Stands for typing.Generic, whose parameters mean nothing at run time."""

        def __class_getitem__(cls, parameters):
            return cls

    TransportT_co = FactoryT_co = DatagramTransportT_co = ProtocolT = None

logger = logging.getLogger("calandria")

connectionDone = failure.Failure(error.ConnectionDone())
"""The reason of a connection that ended as it should, for whoever calls `connectionLost` without one."""


class BaseProtocol:
    """Has a transport, and may be told that it got one. Used on the thread of the transport's reactor."""

    connected: int = 0
    """1 from the moment the connection was made, and for ever: `connectionLost` tells of its end."""

    transport: Any = None
    """The connection. Set before `connectionMade` is called."""

    def makeConnection(self, transport: Any) -> None:
        """Take `transport` as the connection, and call `connectionMade`. Called by who made the connection."""
        self.connected = 1
        self.transport = transport
        self.connectionMade()

    def connectionMade(self) -> None:
        """The connection is there: the first of all calls. It may write and may close."""


class Protocol(BaseProtocol, Generic[TransportT_co, FactoryT_co]):
    """What happens on one stream connection: override what you want to know of.

    Type checkers take `Protocol[itsTransport, itsFactory]`; both have defaults (StreamTransport, Any).
    """

    if TYPE_CHECKING:
        # Not Optional: whoever has no transport yet has not been called yet either.
        transport: TransportT_co
        factory: FactoryT_co
    else:
        factory = None

    def dataReceived(self, data: bytes) -> None:
        """Bytes have arrived: at least one, cut wherever the network cut them."""

    def connectionLost(self, reason: failure.Failure) -> None:
        """The connection has ended: the last of all calls, once for each `connectionMade`.

        `reason.value` is an error.ConnectionDone after an orderly end, an error.ConnectionLost (ConnectionAborted is
        one) after any other, and the exception itself if a callback of this protocol raised one.
        """

    if not TYPE_CHECKING:
        # A caller may leave the reason out. The checkers are not told, so that an override may leave the default out.
        connectionLost.__defaults__ = (connectionDone,)

    def logPrefix(self) -> str:
        """How the log names this protocol."""
        return type(self).__name__


class Factory:
    """Makes a protocol for each connection of the ports and connectors that use it, and holds what they share.

    The limits are copied to each new transport, where `connectionMade` may change them.
    """

    protocol: Callable[[], Protocol[Any, Any]] | None = None
    """Called without arguments for a new protocol, unless `buildProtocol` is overridden: a Protocol class, usually."""

    noisy: bool = True
    """Whether starting and stopping are logged."""

    numPorts: int = 0
    """How many ports and connectors use this factory."""

    closeTimeout: float | None = 60.0
    """Seconds without progress after which a connection that is closing is cut; None: never."""

    maxBufferedBytes: int | None = None
    """A connection is aborted (error.BufferOverflow) when more bytes than this wait to be sent; None: no limit."""

    handshakeTimeout: float | None = 30.0
    """Seconds that a TLS handshake may take; None: for ever."""

    shutdownTimeout: float | None = 30.0
    """Seconds that the peer's answer to our TLS close_notify may take; None: for ever."""

    @classmethod
    def forProtocol(cls, protocol: Callable[[], Protocol[Any, Any]], *args: Any, **kwargs: Any) -> Self:
        """A factory of this class, made from the other arguments, that makes `protocol`s."""
        factory = cls(*args, **kwargs)
        factory.protocol = protocol
        return factory

    def buildProtocol(self, addr: Any) -> Protocol[Any, Any] | None:
        """A protocol for the connection with `addr`, its `factory` attribute set; None refuses the connection."""
        if self.protocol is None:
            raise TypeError(
                f"{type(self).__name__} makes no protocols: set its attribute 'protocol' to a Protocol class, use "
                "Factory.forProtocol(), or override buildProtocol()"
            )
        protocol = self.protocol()
        protocol.factory = self
        return protocol

    def doStart(self) -> None:
        """One more port or connector uses this factory; the first one starts it."""
        if self.numPorts == 0:
            if self.noisy:
                logger.info("Starting factory %r", self)
            self.startFactory()
        self.numPorts += 1

    def doStop(self) -> None:
        """One port or connector fewer uses this factory; the last one stops it. Does nothing if there is none."""
        if self.numPorts == 0:
            return
        self.numPorts -= 1
        if self.numPorts == 0:
            if self.noisy:
                logger.info("Stopping factory %r", self)
            self.stopFactory()

    def startFactory(self) -> None:
        """The first port or connector is about to use this factory."""

    def stopFactory(self) -> None:
        """The last port or connector that used this factory has ended."""

    def logPrefix(self) -> str:
        """How the log names this factory."""
        return type(self).__name__


class ServerFactory(Factory):
    """A factory for ports."""


class ClientFactory(Factory):
    """A factory for connectors, which tell it of each attempt."""

    def startedConnecting(self, connector: Any) -> None:
        """An attempt begins; `connector.stopConnecting()` ends it."""

    def clientConnectionFailed(self, connector: Any, reason: failure.Failure) -> None:
        """An attempt has failed; `connector.connect()` tries again."""

    def clientConnectionLost(self, connector: Any, reason: failure.Failure) -> None:
        """A connection has ended, after its protocol's `connectionLost`; `connector.connect()` makes another."""


class ReconnectingClientFactory(ClientFactory):
    """Connects again when an attempt fails or a connection ends, after a delay that grows with each failure.

    The delay is multiplied by `factor` for each try, up to `maxDelay`, and then spread around that by `jitter`, so that
    a thousand clients of one server do not all come back at once. Whoever considers a connection good calls
    `resetDelay`, in `buildProtocol` or later.
    """

    maxDelay: float = 3600.0
    """The longest delay in seconds, before it is spread."""

    initialDelay: float = 1.0
    """What the first delay is multiplied up from, in seconds."""

    factor: float = math.e
    """How much longer each delay is than the one before."""

    jitter: float | None = 0.11962656472
    """The standard deviation of the delays, as a part of them; None or 0: no spread."""

    maxRetries: int | None = None
    """How often to try again before giving up; None: for ever."""

    clock: interfaces.ReactorTime | None = None
    """What measures the delay, if not the connector's reactor."""

    retries: int = 0
    """How often it was tried again since the last `resetDelay`."""

    continueTrying: bool | int = 1
    """Whether to try again at all; `stopTrying` clears it, and only its owner sets it again."""

    connector: Any = None
    """What connects."""

    _callID: interfaces.DelayedCall | None = None
    _delay: float | None = None

    @property
    def delay(self) -> float:
        """The last delay in seconds, which the next one is multiplied up from."""
        return self.initialDelay if self._delay is None else self._delay

    @delay.setter
    def delay(self, delay: float) -> None:
        self._delay = delay

    def startedConnecting(self, connector: Any) -> None:
        """An attempt begins. An override calls this one, so that `stopTrying` can end the very first attempt too."""
        self.connector = connector

    def clientConnectionFailed(self, connector: Any, reason: failure.Failure) -> None:
        """An attempt has failed: try again later."""
        self._ended(connector)

    def clientConnectionLost(self, connector: Any, reason: failure.Failure) -> None:
        """A connection has ended: try again later."""
        self._ended(connector)

    def _ended(self, connector: Any) -> None:
        if self.continueTrying:
            self.retry(connector)
        else:
            # Nothing is left of us but a plain reference to us, from the connector.
            self.connector = None

    def retry(self, connector: Any = None) -> None:
        """Connect again after the next delay, unless trying was stopped or has been given up.

        Without a connector it is the one last used. Raises ValueError if there was none.
        """
        if connector is None:
            connector = self.connector
            if connector is None:
                raise ValueError("there is nothing to retry: this factory has no connector")
        self._cancelRetry()
        if not self.continueTrying:
            self.connector = None
            return
        self.retries += 1
        if self.maxRetries is not None and self.retries > self.maxRetries:
            self.connector = None
            if self.noisy:
                logger.info("%r is given up after %d retries", connector, self.maxRetries)
            return
        self.connector = connector
        self.delay = self._spread(min(self.delay * self.factor, self.maxDelay), connector)
        if self.noisy:
            logger.info("%r will be tried again in %.1f seconds", connector, self.delay)
        self._callID = self._clockFor(connector).callLater(self.delay, self._reconnect)

    def stopTrying(self) -> None:
        """Connect no more: an attempt under way ends, one that is planned is not made; a connection lives on."""
        self.continueTrying = 0
        self._cancelRetry()
        if self.connector is not None:
            try:
                self.connector.stopConnecting()
            except error.NotConnectingError:
                pass

    def resetDelay(self) -> None:
        """All is well: the next delay is a short one again, and all retries are there again.

        It does not undo `stopTrying`.
        """
        self._delay = None
        self.retries = 0

    def _cancelRetry(self) -> None:
        call, self._callID = self._callID, None
        if call is not None and call.active():
            call.cancel()

    def _reconnect(self) -> None:
        self._callID = None
        if self.continueTrying:
            self.connector.connect()

    def _spread(self, delay: float, connector: Any) -> float:
        if not self.jitter:
            return delay
        random = _randomOf(connector)
        # Two uniform numbers make a normal one (Box and Muller, 1958). 1 - u, because the logarithm must not see 0.
        normal = math.sqrt(-2.0 * math.log(1.0 - random())) * math.cos(2.0 * math.pi * random())
        # A large jitter would give negative delays, and one that is zero could never grow again.
        return max(delay * (1.0 + self.jitter * normal), delay / 10.0)

    def _clockFor(self, connector: Any) -> interfaces.ReactorTime:
        if self.clock is not None:
            return self.clock
        return _reactorOf(connector)


def _reactorOf(connector: Any) -> Reactor:
    reactor: Reactor | None = getattr(connector, "reactor", None)
    if reactor is None:
        import calandria

        reactor = calandria.reactor
    return reactor


def _randomOf(connector: Any) -> Callable[[], float]:
    """The backend's random numbers, so that a simulation has its own; without a reactor, the real ones."""
    backend = getattr(getattr(connector, "reactor", None), "backend", None)
    if backend is not None:
        found: Callable[[], float] = backend.random
        return found
    from calandria._backend import Backend

    return Backend().random


class AbstractDatagramProtocol(Generic[DatagramTransportT_co]):
    """Has a port for datagrams, and is told when that starts and stops. Used on the thread of the port's reactor."""

    if TYPE_CHECKING:
        transport: DatagramTransportT_co
    else:
        transport = None

    numPorts: int = 0
    """1 while it has a port."""

    noisy: bool = True
    """Whether starting and stopping are logged."""

    def makeConnection(self, transport: Any) -> None:
        """Take `transport` as the port, and start. Called by the port. Raises RuntimeError if there is one already."""
        if self.transport is not None:
            raise RuntimeError(
                f"{self!r} has a port already, {self.transport!r}: each port needs a protocol of its own"
            )
        self.transport = transport
        try:
            self.doStart()
        except BaseException:
            self.transport = None  # type: ignore[assignment]  # as in doStop
            raise

    def doStart(self) -> None:
        """The port is there."""
        if self.numPorts == 0:
            if self.noisy:
                logger.info("Starting protocol %r", self)
            self.startProtocol()
        self.numPorts += 1

    def doStop(self) -> None:
        """The port has ended; the protocol may be given another one. Does nothing if there is none."""
        if self.numPorts == 0:
            return
        self.numPorts -= 1
        # For checkers the transport is always there, because whoever is called has one.
        self.transport = None  # type: ignore[assignment]
        if self.numPorts == 0:
            if self.noisy:
                logger.info("Stopping protocol %r", self)
            self.stopProtocol()

    def startProtocol(self) -> None:
        """The port is there: the first of all calls."""

    def stopProtocol(self) -> None:
        """The port has ended: the last of all calls."""

    def connectionRefused(self) -> None:
        """In connected mode: nobody listens there (an ICMP message said so). The port goes on."""

    def logPrefix(self) -> str:
        """How the log names this protocol."""
        return type(self).__name__


class DatagramProtocol(AbstractDatagramProtocol[DatagramTransportT_co]):
    """What happens on a port for datagrams: override what you want to know of."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """A datagram has come from `addr`: (host, port), or the path of a UNIX socket."""


class ConnectedDatagramProtocol(AbstractDatagramProtocol[DatagramTransportT_co]):
    """The same for a port that talks to one address only: datagrams come without one."""

    def datagramReceived(self, datagram: bytes) -> None:
        """A datagram has come."""

    def connectionFailed(self, failure: failure.Failure) -> None:
        """The port could not be connected."""


class ClientCreator(Generic[ProtocolT]):
    """Makes single connections, each with a new protocol: `protocolClass(*args, **kwargs)`.

    Each method takes what the reactor's method of that name takes, but for the factory, and returns a Deferred. It
    fires with the protocol when that is connected, or fails with the reason why not; cancelling it ends the attempt.
    """

    def __init__(
        self, reactor: Reactor, protocolClass: Callable[P, ProtocolT], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        # Any, because not every reactor has every transport.
        self.reactor: Any = reactor
        self._build = partial(protocolClass, *args, **kwargs)

    def connectTCP(
        self, host: str, port: int | str, timeout: float | None = 30.0, bindAddress: tuple[str, int] | None = None
    ) -> defer.Deferred[ProtocolT]:
        """Connect to a TCP port."""
        result, factory = self._begin()
        self.reactor.connectTCP(host, port, factory, timeout=timeout, bindAddress=bindAddress)
        return result

    def connectUNIX(
        self, address: str | bytes, timeout: float | None = 30.0, checkPID: bool = False
    ) -> defer.Deferred[ProtocolT]:
        """Connect to a UNIX socket."""
        result, factory = self._begin()
        self.reactor.connectUNIX(address, factory, timeout=timeout, checkPID=checkPID)
        return result

    def connectSSL(
        self,
        host: str,
        port: int | str,
        contextFactory: Any = None,
        timeout: float | None = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> defer.Deferred[ProtocolT]:
        """Connect to a TCP port and secure the connection."""
        result, factory = self._begin()
        self.reactor.connectSSL(host, port, factory, contextFactory, timeout=timeout, bindAddress=bindAddress)
        return result

    def _begin(self) -> tuple[defer.Deferred[ProtocolT], _OneConnection[ProtocolT]]:
        factory = _OneConnection(self.reactor, self._build)
        factory.waiting = result = defer.Deferred(factory.cancel)
        return result, factory


class _OneConnection(ClientFactory, Generic[ProtocolT]):
    """Owns a Deferred until the first connection is made or has failed."""

    noisy = False

    def __init__(self, reactor: Reactor, build: Callable[[], ProtocolT]) -> None:
        self._reactor = reactor
        self._build = build
        self._connector: Any = None
        self._connected: interfaces.DelayedCall | None = None
        self.waiting: defer.Deferred[ProtocolT] | None = None

    def startedConnecting(self, connector: Any) -> None:
        self._connector = connector

    def buildProtocol(self, addr: Any) -> Any:
        protocol = self._build()
        # In a later turn, because the protocol's own connectionMade comes first.
        self._connected = self._reactor.callLater(0, self._succeed, protocol)
        return protocol

    def clientConnectionFailed(self, connector: Any, reason: failure.Failure) -> None:
        waiting = self._release()
        if waiting is not None:
            waiting.errback(reason)

    def _succeed(self, protocol: ProtocolT) -> None:
        waiting = self._release()
        if waiting is not None:
            waiting.callback(protocol)

    def cancel(self, deferred: defer.Deferred[ProtocolT]) -> None:
        """The canceller."""
        connector, connected = self._connector, self._connected
        self._release()
        if connected is not None:
            connected.cancel()
        if connector is not None:
            connector.disconnect()

    def _release(self) -> defer.Deferred[ProtocolT] | None:
        """Let go of everything that refers to us, so that no cycle is left; gives the Deferred if it still waits."""
        waiting, self.waiting = self.waiting, None
        self._connector = self._connected = None
        return waiting


class FileWrapper:
    """Makes a transport of a file, for looking at what a protocol writes. A file is always ready."""

    connected = True
    disconnecting = False
    disconnected = False

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.producer: Any = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write to the file; nothing once it is closed."""
        if self.connected:
            self.file.write(data)

    def writeSequence(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write several pieces."""
        for piece in data:
            self.write(piece)

    def loseConnection(self) -> None:
        """Close the file."""
        if self.connected:
            self.connected, self.disconnected = False, True
            self.file.close()

    def getPeer(self) -> Any:
        """The file's name."""
        return getattr(self.file, "name", None)

    getHost = getPeer

    def registerProducer(self, producer: interfaces.PushProducer | interfaces.PullProducer, streaming: bool) -> None:
        """Let `producer` write; one that wants to be asked is asked until it has finished."""
        if self.producer is not None:
            raise RuntimeError(f"{self.producer!r} is registered already")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer = producer
        while not streaming and self.producer is producer and self.connected:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """The producer has finished."""
        self.producer = None

    def stopConsuming(self) -> None:
        """Let go of the producer, and close the file."""
        self.unregisterProducer()
        self.loseConnection()

    stopProducing = loseConnection

    def pauseProducing(self) -> None:
        """Nothing is read from the file, so there is nothing to pause."""

    resumeProducing = pauseProducing
