"""What a transport, a port, a producer, a resolver … offers, as contracts that any class meets by having the methods.

They are `typing.Protocol`s: a class declares nothing and inherits nothing, the type checkers compare the two. Nobody
needs this module at run time but those who ask `isinstance` of the few contracts that are optional for a protocol.
Twisted's names (ITransport, IPushProducer …) stand at the end, each for the contract that is the same thing. Long
because it is a list, of which each entry can be read alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from calandria.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Sequence

    from calandria import Reactor
    from calandria.defer import Deferred
    from calandria.failure import Failure
    from calandria.threads import ThreadPool

Data: TypeAlias = bytes | bytearray | memoryview
"""What can be written. A mutable one is copied."""

InternetAddress: TypeAlias = IPv4Address | IPv6Address
"""Where something is on an IP network: `host` and `port`."""

Address: TypeAlias = IPv4Address | IPv6Address | UNIXAddress | HostnameAddress
"""The addresses that first-party transports know. Others may have kinds of their own."""


# Producers and consumers


@runtime_checkable
class PushProducer(Protocol):
    """Makes data by itself until it is told to pause. It starts un-paused."""

    def pauseProducing(self) -> None:
        """Make no more until `resumeProducing`."""

    def resumeProducing(self) -> None:
        """Go on."""

    def stopProducing(self) -> None:
        """Make no more at all: nobody takes it."""


@runtime_checkable
class PullProducer(Protocol):
    """Makes data when asked to."""

    def resumeProducing(self) -> None:
        """Write once to the consumer, before returning."""

    def stopProducing(self) -> None:
        """Make no more at all: nobody takes it."""


class Consumer(Protocol):
    """Takes data, and tells who makes it when to pause."""

    def registerProducer(self, producer: PushProducer | PullProducer, streaming: bool) -> None:
        """From now on `producer` writes here: a PushProducer if `streaming`, else a PullProducer.

        Raises RuntimeError if there is one already.
        """

    def unregisterProducer(self) -> None:
        """The producer has finished."""

    def write(self, data: Data, /) -> None:
        """Take data."""


# Transports


class StreamTransport(Protocol):
    """One end of a connection that carries bytes in order. It belongs to its reactor, and is used on its thread.

    Nothing here calls the protocol back before it returns; bytes leave at the end of the reactor's turn.
    """

    protocol: Any
    """Who is told what arrives. May be replaced at any time, inside `dataReceived` too."""

    closeTimeout: float | None
    """Seconds without progress after which a connection that is closing is cut; None: never."""

    maxBufferedBytes: int | None
    """The connection is aborted (error.BufferOverflow) when more bytes than this wait to be sent; None: no limit."""

    @property
    def reactor(self) -> Reactor:
        """The reactor that the transport belongs to."""
        raise NotImplementedError

    @property
    def connected(self) -> bool:
        """Whether the connection is there: from `connectionMade` to `connectionLost`."""
        raise NotImplementedError

    @property
    def disconnecting(self) -> bool:
        """Whether `loseConnection` was called and the end has not come yet."""
        raise NotImplementedError

    @property
    def disconnected(self) -> bool:
        """Whether the connection has ended."""
        raise NotImplementedError

    @property
    def canHalfClose(self) -> bool:
        """Whether one direction can end without the other."""
        raise NotImplementedError

    @property
    def bufferedBytes(self) -> int:
        """How many bytes wait to be sent."""
        raise NotImplementedError

    def write(self, data: Data, /) -> None:
        """Send bytes, after those written before. Does nothing when the connection has ended. TypeError for others."""

    def writeSequence(self, data: Iterable[Data], /) -> None:
        """Send several pieces of bytes, as if they were one."""

    def loseConnection(self) -> None:
        """Read no more; close when what was written is sent and no producer is registered."""

    def abortConnection(self) -> None:
        """Close now: what waits to be sent is dropped, the peer sees a reset."""

    def loseWriteConnection(self) -> None:
        """Say that no more will be written, when what was written is sent; reading goes on.

        Raises error.HalfCloseUnsupported where `canHalfClose` is False.
        """

    def getPeer(self) -> Any:
        """The other end's address: one of `Address`, or of the transport's own kind."""

    def getHost(self) -> Any:
        """This end's address, of the same kind."""

    def registerProducer(self, producer: PushProducer | PullProducer, streaming: bool) -> None:
        """From now on `producer` writes here: a PushProducer if `streaming`, else a PullProducer.

        Raises RuntimeError if there is one already. On a lost connection the producer is stopped at once.
        """

    def unregisterProducer(self) -> None:
        """The producer has finished."""

    def pauseProducing(self) -> None:
        """Read no more until `resumeProducing`: nothing is received after this returns."""

    def resumeProducing(self) -> None:
        """Read again."""

    def stopProducing(self) -> None:
        """The same as `loseConnection`."""

    def stopConsuming(self) -> None:
        """Let go of the producer, and `loseConnection`."""


class TCPTransport(StreamTransport, Protocol):
    """A TCP connection."""

    def getPeer(self) -> InternetAddress:
        """The other end's address; also after the connection has ended."""
        raise NotImplementedError

    def getHost(self) -> InternetAddress:
        """This end's address; also after the connection has ended."""
        raise NotImplementedError

    def getTcpNoDelay(self) -> bool:
        """Whether small writes leave at once (they do unless told otherwise)."""
        raise NotImplementedError

    def setTcpNoDelay(self, enabled: bool, /) -> None:
        """Whether small writes leave at once, or wait for each other (Nagle's algorithm, RFC 9293, 3.7.4)."""

    def getTcpKeepAlive(self) -> bool:
        """Whether the kernel probes a silent peer."""
        raise NotImplementedError

    def setTcpKeepAlive(self, enabled: bool, /) -> None:
        """Whether the kernel probes a silent peer (RFC 9293, 3.8.4)."""

    def getHandle(self) -> socket.socket:
        """The socket. Reading, writing or closing it behind the transport's back is undefined."""
        raise NotImplementedError


class TLSTransport(StreamTransport, Protocol):
    """A connection that is, or can be, secured by TLS."""

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """What ALPN agreed on (RFC 7301); None: nothing, or not yet."""
        raise NotImplementedError

    def startTLS(self, contextFactory: Any, normal: bool = True, received: bytes = b"") -> None:
        """Secure the connection from here on. `normal=False` swaps the roles of client and server.

        `contextFactory` is an `ssl.SSLContext`, or has a `getContext()` that returns one; `received` are TLS bytes that
        the protocol has been given already.
        """

    def getPeerCertificate(self) -> Any:
        """The certificate that the peer showed; None: none."""


class DatagramTransport(Protocol):
    """A socket that carries datagrams, each by itself. It belongs to its reactor, and is used on its thread."""

    def write(self, datagram: Data, addr: Any = None, /) -> None:
        """Send one datagram at once, to `addr` unless the socket is connected.

        Raises error.InvalidAddressError for what is no literal address, error.MessageLengthError, and
        error.DatagramBufferFull.
        """

    def writeSequence(self, data: Iterable[Data], addr: Any = None, /) -> None:
        """Send several pieces as one datagram."""

    def connect(self, host: str, port: int) -> None:
        """From now on send to, and receive from, that literal address only."""

    def stopListening(self) -> Deferred[None]:
        """Receive no more; the Deferred fires when the socket is closed."""
        raise NotImplementedError

    def getHost(self) -> Any:
        """This end's address."""

    def setBroadcastAllowed(self, enabled: bool, /) -> None:
        """Whether datagrams may be sent to broadcast addresses."""

    def getBroadcastAllowed(self) -> bool:
        """Whether datagrams may be sent to broadcast addresses."""
        raise NotImplementedError


# Ports and connectors


class ListeningPort(Protocol):
    """Takes connections in, and gives each a protocol of its factory's."""

    def startListening(self) -> None:
        """Listen; again, after `stopListening`. Raises error.CannotListenError."""

    def stopListening(self) -> Deferred[None]:
        """Take no more connections; the Deferred fires when the port is closed. Those that there are live on."""
        raise NotImplementedError

    def getHost(self) -> Any:
        """Where it listens."""


class Connector(Protocol):
    """Makes one connection at a time to one place, as often as it is told to."""

    @property
    def reactor(self) -> Reactor:
        """The reactor that it belongs to."""
        raise NotImplementedError

    @property
    def state(self) -> str:
        """'disconnected', 'connecting' or 'connected'."""
        raise NotImplementedError

    def connect(self) -> None:
        """Connect (again). Raises RuntimeError unless disconnected."""

    def stopConnecting(self) -> None:
        """Give up the attempt: `clientConnectionFailed` with error.UserError. Raises error.NotConnectingError."""

    def disconnect(self) -> None:
        """Whatever the state, end in 'disconnected'."""

    def getDestination(self) -> Any:
        """Where it connects to."""


# What protocols and factories offer


class StreamProtocol(Protocol):
    """Told what happens on a stream connection."""

    def makeConnection(self, transport: Any, /) -> None:
        """This is your transport."""

    def connectionMade(self) -> None:
        """The connection is there. First of all calls."""

    def dataReceived(self, data: bytes, /) -> None:
        """Bytes have arrived, cut anywhere."""

    def connectionLost(self, reason: Failure, /) -> None:
        """The connection has ended. Last of all calls, once."""


class ProtocolFactory(Protocol):
    """Makes a protocol for each connection."""

    def buildProtocol(self, addr: Any, /) -> Any:
        """A protocol for the connection with `addr`, or None to refuse it."""

    def doStart(self) -> None:
        """One more port or connector uses this factory."""

    def doStop(self) -> None:
        """One fewer."""


@runtime_checkable
class HalfCloseableProtocol(Protocol):
    """A protocol that takes part in half-close: each direction ends by itself."""

    def readConnectionLost(self) -> None:
        """The peer will send no more; writing still works."""

    def writeConnectionLost(self) -> None:
        """What `loseWriteConnection` promised has been done: everything is sent, nothing more can be written."""


@runtime_checkable
class HandshakeListener(Protocol):
    """A protocol that wants to know when TLS is up."""

    def handshakeCompleted(self) -> None:
        """The peer is who it says; negotiated values can be read."""


@runtime_checkable
class FileDescriptorReceiver(Protocol):
    """A protocol that accepts descriptors over a UNIX socket."""

    def fileDescriptorReceived(self, fd: int, /) -> None:
        """A descriptor has come, ahead of the bytes that came with it. It is the protocol's to close."""


# The reactor's facets


class DelayedCall(Protocol):
    """A call that is to be made later."""

    def getTime(self) -> float:
        """When, on the scale of `reactor.seconds()`."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Never make it. Raises error.AlreadyCancelled, error.AlreadyCalled."""

    def reset(self, secondsFromNow: float, /) -> None:
        """Make it that many seconds from now. Raises the same."""

    def delay(self, secondsLater: float, /) -> None:
        """Make it that many seconds later (earlier, if negative). Raises the same."""

    def active(self) -> bool:
        """Whether it is still to be made."""
        raise NotImplementedError


class ReactorTime(Protocol):
    """A clock, and calls that are made when it says so."""

    def seconds(self) -> float:
        """Now, in seconds; it never goes back."""
        raise NotImplementedError

    def callLater(self, delay: float, callable: Callable[..., object], /, *args: Any, **kw: Any) -> DelayedCall:
        """Call in `delay` seconds. Raises ValueError, TypeError."""
        raise NotImplementedError

    def getDelayedCalls(self) -> Sequence[DelayedCall]:
        """The calls that are still to be made, in no order."""
        raise NotImplementedError


class ReactorThreads(Protocol):
    """What leads to the reactor's thread and away from it."""

    def callFromThread(self, callable: Callable[..., object], /, *args: Any, **kw: Any) -> None:
        """Call in the reactor's thread; from any thread or signal handler. Raises error.ReactorNotRunning."""

    def callInThread(self, callable: Callable[..., object], /, *args: Any, **kw: Any) -> None:
        """Call in another thread. Raises error.QueueFull."""

    def getThreadPool(self) -> ThreadPool:
        """Where those threads come from."""
        raise NotImplementedError

    def suggestThreadPoolSize(self, size: int) -> None:
        """How many threads there may be."""

    def isInIOThread(self) -> bool:
        """Whether this is the reactor's thread."""
        raise NotImplementedError


class ReadDescriptor(Protocol):
    """Something with a descriptor that the reactor waits for to become readable.

    It may have a `logPrefix()`, which names it in the log.
    """

    def fileno(self) -> int:
        """The descriptor; -1 when it is closed."""
        raise NotImplementedError

    def doRead(self) -> object:
        """It may be readable. An exception raised, or returned (as itself or a Failure), loses it."""

    def connectionLost(self, reason: Failure, /) -> None:
        """It was lost, and is watched no more."""


class WriteDescriptor(Protocol):
    """Something with a descriptor that the reactor waits for to become writable; else as ReadDescriptor."""

    def fileno(self) -> int:
        """The descriptor; -1 when it is closed."""
        raise NotImplementedError

    def doWrite(self) -> object:
        """It may be writable. An exception raised, or returned (as itself or a Failure), loses it."""

    def connectionLost(self, reason: Failure, /) -> None:
        """It was lost, and is watched no more."""


class ReactorFDSet(Protocol):
    """Readiness of descriptors that are not the reactor's own."""

    def addReader(self, reader: ReadDescriptor, /) -> None:
        """Call `doRead` when it is readable. Raises error.UnsupportedDescriptor."""

    def addWriter(self, writer: WriteDescriptor, /) -> None:
        """Call `doWrite` when it is writable. Raises error.UnsupportedDescriptor."""

    def removeReader(self, reader: ReadDescriptor, /) -> None:
        """No longer; nothing if it was not there."""

    def removeWriter(self, writer: WriteDescriptor, /) -> None:
        """No longer; nothing if it was not there."""

    def removeAll(self) -> Sequence[ReadDescriptor | WriteDescriptor]:
        """Take out all but the reactor's own, and give them."""
        raise NotImplementedError

    def getReaders(self) -> Sequence[ReadDescriptor]:
        """All that is waited for to be readable."""
        raise NotImplementedError

    def getWriters(self) -> Sequence[WriteDescriptor]:
        """All that is waited for to be writable."""
        raise NotImplementedError


# Name resolution


class HostResolution(Protocol):
    """A name that is being resolved."""

    @property
    def name(self) -> str:
        """The name."""
        raise NotImplementedError

    def cancel(self) -> None:
        """The answer is not wanted any more: the receiver hears nothing from now on."""


class ResolutionReceiver(Protocol):
    """Told the addresses of a name, in the reactor's thread. No address at all means that there is none."""

    def resolutionBegan(self, resolution: HostResolution, /) -> None:
        """First of all calls."""

    def addressResolved(self, address: Any, /) -> None:
        """One address, an IPv4Address or IPv6Address with the port that was asked for; the best comes first."""

    def resolutionComplete(self) -> None:
        """Last of all calls, once."""


class HostnameResolver(Protocol):
    """Turns host names into addresses without blocking."""

    def resolveHostName(
        self,
        receiver: ResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IPv4Address] | type[IPv6Address]] | None = None,
        transportSemantics: str = "TCP",
    ) -> HostResolution:
        """Resolve `hostName` (IDNA: ASCII) and tell `receiver`.

        `addressTypes`: those wanted, None for both; `transportSemantics`: "TCP" or "UDP", what the addresses are for.
        """
        raise NotImplementedError


IAddress: TypeAlias = Address
IConnector: TypeAlias = Connector
IConsumer: TypeAlias = Consumer
IDelayedCall: TypeAlias = DelayedCall
IFileDescriptorReceiver: TypeAlias = FileDescriptorReceiver
IHalfCloseableProtocol: TypeAlias = HalfCloseableProtocol
IHandshakeListener: TypeAlias = HandshakeListener
IHostnameResolver: TypeAlias = HostnameResolver
IHostResolution: TypeAlias = HostResolution
IListeningPort: TypeAlias = ListeningPort
IProtocol: TypeAlias = StreamProtocol
IProtocolFactory: TypeAlias = ProtocolFactory
IPullProducer: TypeAlias = PullProducer
IPushProducer: TypeAlias = PushProducer
IReactorFDSet: TypeAlias = ReactorFDSet
IReactorThreads: TypeAlias = ReactorThreads
IReactorTime: TypeAlias = ReactorTime
IReadDescriptor: TypeAlias = ReadDescriptor
IResolutionReceiver: TypeAlias = ResolutionReceiver
ISSLTransport: TypeAlias = TLSTransport
ITCPTransport: TypeAlias = TCPTransport
ITLSTransport: TypeAlias = TLSTransport
ITransport: TypeAlias = StreamTransport
IUDPTransport: TypeAlias = DatagramTransport
IWriteDescriptor: TypeAlias = WriteDescriptor
