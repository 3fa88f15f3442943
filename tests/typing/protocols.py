"""What type checkers make of protocols: nothing here runs, mypy and pyright read it.

Each comment that ignores an error is an expected one: both checkers report those that they do not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from calandria.defer import Deferred
from calandria.protocol import (
    ClientCreator,
    ConnectedDatagramProtocol,
    DatagramProtocol,
    Factory,
    Protocol,
    ReconnectingClientFactory,
    connectionDone,
)

if TYPE_CHECKING:
    from calandria import Reactor
    from calandria.failure import Failure
    from calandria.interfaces import (
        Consumer,
        DatagramTransport,
        IProtocol,
        IPushProducer,
        ITransport,
        ReactorFDSet,
        ReactorThreads,
        ReactorTime,
        StreamTransport,
        TCPTransport,
        TLSTransport,
    )


class Echo(Protocol):
    """The plain one: any transport, any factory, and the transport is never None."""

    def connectionMade(self) -> None:
        assert_type(self.transport, StreamTransport)
        assert_type(self.transport.bufferedBytes, int)
        self.transport.write(b"hello")
        self.transport.write(bytearray(b"hello"))
        self.transport.writeSequence([b"a", memoryview(b"b")])
        self.transport.write("text")  # type: ignore[arg-type]
        self.transport.setTcpNoDelay(True)  # type: ignore[attr-defined]
        self.transport.bufferedBytes = 1  # type: ignore[misc]
        self.transport.closeTimeout = None

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def connectionLost(self, reason: Failure) -> None:
        """Without the default, as most people write it."""


class WithDefault(Protocol):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """With the default, as Twisted's own protocols have it."""


class WrongArgument(Protocol):
    def dataReceived(self, data: str) -> None:  # type: ignore[override]
        pass


class Terminal(Protocol["TCPTransport"]):
    """Its transport named, its factory any."""

    def connectionMade(self) -> None:
        assert_type(self.transport, TCPTransport)
        self.transport.setTcpNoDelay(False)
        assert_type(self.transport.getPeer().port, int)


class Chat(Protocol["TLSTransport", "ChatFactory"]):
    """Both named."""

    def connectionMade(self) -> None:
        assert_type(self.transport, TLSTransport)
        assert_type(self.transport.negotiatedProtocol, bytes | None)
        assert_type(self.factory, ChatFactory)
        self.factory.members.append(self)
        self.factory.guests  # type: ignore[attr-defined]  # noqa: B018


class Annotated(Protocol):
    """The factory named by an annotation, as in untyped code that was annotated later."""

    factory: ChatFactory

    def connectionMade(self) -> None:
        assert_type(self.factory.members, list[Chat])


class ChatFactory(Factory):
    protocol = Chat

    def __init__(self, room: str = "") -> None:
        self.members: list[Chat] = []
        self.room = room


class EchoFactory(Factory):
    def buildProtocol(self, addr: Any) -> Echo:
        return Echo()


class WrongFactory(Factory):
    protocol = int  # type: ignore[assignment]


class Reconnecting(ReconnectingClientFactory):
    initialDelay = 0.1
    maxRetries = 5
    jitter = None


def factories() -> None:
    assert_type(Factory.forProtocol(Echo), Factory)
    assert_type(ChatFactory.forProtocol(Chat, "lobby"), ChatFactory)
    assert_type(Factory().buildProtocol(None), Protocol[Any, Any] | None)
    Factory.forProtocol(int)  # type: ignore[arg-type]
    Factory.forProtocol(lambda: Echo())
    factory = Factory()
    factory.protocol = Echo
    factory.maxBufferedBytes = 1000
    factory.maxBufferedBytes = "1000"  # type: ignore[assignment]


def variance(chat: Chat, echo: Echo) -> None:
    general: Protocol = chat
    generic: Protocol[StreamTransport, Factory] = chat
    special: Protocol[TLSTransport, ChatFactory] = echo  # type: ignore[assignment]
    told: IProtocol = echo
    print(general, generic, special, told)


def contracts(transport: TCPTransport, reactor: Reactor) -> None:
    plain: ITransport = transport
    producer: IPushProducer = transport
    consumer: Consumer = transport
    clock: ReactorTime = reactor
    threads: ReactorThreads = reactor
    descriptors: ReactorFDSet = reactor
    secure: TLSTransport = transport  # type: ignore[assignment]
    print(plain, producer, consumer, clock, threads, descriptors, secure)


class Pings(DatagramProtocol):
    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        assert_type(self.transport, DatagramTransport)
        self.transport.write(datagram, addr)


class Pongs(ConnectedDatagramProtocol):
    def datagramReceived(self, datagram: bytes) -> None:
        self.transport.write(datagram)


class Named(Protocol):
    def __init__(self, name: str) -> None:
        self.name = name


def creators(reactor: Reactor) -> None:
    assert_type(ClientCreator(reactor, Named, "Ada").connectTCP("localhost", 80), Deferred[Named])
    ClientCreator(reactor, Named)  # type: ignore[call-arg]
    ClientCreator(reactor, Named, 7)  # type: ignore[arg-type]
