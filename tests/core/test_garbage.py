"""What ended leaves nothing behind without the garbage collector: connections, however they ended, factories, reactors.

Factory and protocol refer to each other, a reason refers to an exception, an exception to its frames, and those to the
protocol again; a class with `__del__` shows best when its instances go.
"""

from __future__ import annotations

import gc
import socket
import struct
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from calandria import ClientFactory, Factory, Protocol, Reactor, error
from tests.helpers import Background, connectTo, runUntil, unusedPort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calandria._timers import DelayedCall
    from calandria.failure import Failure
    from tests.helpers import LogCapture

finalized: list[str] = []


class Kept(Protocol):
    """Keeps all that it can, and says when it goes."""

    reason: Failure

    def __init__(self, how: str = "") -> None:
        self.how = how
        self.itself = self.__class__

    def connectionMade(self) -> None:
        living.add(self)
        living.add(self.transport)
        self.mine = self.transport
        self.factory.last = weakref.ref(self)
        if self.how == "raises when made":
            raise ValueError("made")
        if self.how == "aborts":
            self.transport.write(b"never sent")
            self.transport.abortConnection()
        if self.how == "closes":
            self.transport.write(b"bye")
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        local = [self, data]  # what a frame holds on to
        if self.how == "raises":
            raise ValueError(len(local))
        if self.how == "raises from":
            try:
                raise KeyError("key")
            except KeyError as exc:
                raise ValueError("from") from exc
        self.transport.write(data)

    def connectionLost(self, reason: Failure) -> None:
        self.reason = reason
        self.factory.ended += 1
        if self.how == "raises when lost":
            raise ValueError("lost")

    def __del__(self) -> None:
        finalized.append(self.how)


class KeptFactory(Factory):
    """Counts the ends; each protocol refers to it."""

    noisy = False

    def __init__(self, how: str) -> None:
        self.how = how
        self.ended = 0
        self.last: Any = None

    def buildProtocol(self, addr: Any) -> Kept:
        protocol = Kept(self.how)
        protocol.factory = self
        return protocol


class KeptClientFactory(KeptFactory, ClientFactory):
    """The same for clients; keeps the reasons too."""

    ended: int

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.reasons: list[Failure] = []

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.reasons.append(reason)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.ended += 1
        self.reasons.append(reason)
        living.add(connector)


living: weakref.WeakSet[Any] = weakref.WeakSet()


@pytest.fixture(autouse=True)
def noCollector(logs: LogCapture) -> Iterator[None]:
    """Whatever goes, goes by reference counts; and nobody keeps log records."""
    logs.keepToItself()
    gc.collect()
    gc.disable()
    living.clear()
    finalized.clear()
    try:
        yield
    finally:
        gc.enable()
        logs.takeErrors()


def talk(port: int, how: str) -> None:
    """One client of a server: sends, and ends as it is told."""
    try:
        with connectTo(port) as peer:
            peer.sendall(b"hello")
            while peer.recv(100):
                if how == "peer resets":
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if how in ("peer resets", "peer closes", "raises when lost"):
                    return
    except (ConnectionResetError, BrokenPipeError):
        pass  # it is the server that ends some, at once


HOWS = [
    "peer closes",
    "peer resets",
    "closes",
    "aborts",
    "raises",
    "raises from",
    "raises when made",
    "raises when lost",
]


@pytest.mark.parametrize("how", HOWS)
def test_endedServerConnectionLeavesNothing(reactor: Reactor, how: str) -> None:
    factory = KeptFactory(how)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    host: Any = port.getHost()
    for count in range(1, 4):
        peer = Background(talk, host.port, how)
        runUntil(reactor, lambda count=count: factory.ended == count)  # type: ignore[misc]  # the default is the value
        runUntil(reactor, peer)
        peer.result()
        del peer
    runUntil(reactor, lambda: not reactor.lingering)
    assert list(living) == []
    assert finalized == [how] * 3
    assert factory.last() is None


@pytest.mark.parametrize("how", HOWS[2:])
def test_endedClientConnectionLeavesNothing(reactor: Reactor, how: str) -> None:
    server = KeptFactory("peer closes")
    port = reactor.listenTCP(0, server, interface="127.0.0.1")

    class Greeting(Kept):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.write(b"hello")
            if how == "raises when lost":
                self.transport.loseConnection()

    server.buildProtocol = lambda addr: attached(Greeting("server"), server)  # type: ignore[method-assign]  # for this test
    host: Any = port.getHost()
    client = KeptClientFactory(how)
    for count in range(1, 4):
        living.add(reactor.connectTCP("127.0.0.1", host.port, client))
        runUntil(reactor, lambda count=count: client.ended == count == server.ended)  # type: ignore[misc]  # as above
    runUntil(reactor, lambda: not reactor.lingering)
    assert len(client.reasons) == 3
    assert list(living) == []
    assert finalized.count(how) == 3


def attached(protocol: Kept, factory: Any) -> Kept:
    protocol.factory = factory
    return protocol


def test_failedAttemptsLeaveNothing(reactor: Reactor) -> None:
    client: KeptClientFactory = KeptClientFactory("refused")
    client.protocol = Kept
    reactor.connectTCP("127.0.0.1", unusedPort(), client)
    runUntil(reactor, lambda: client.ended == 1)
    reactor.connectTCP("127.0.0.1", 70000, client)
    runUntil(reactor, lambda: client.ended == 2)
    given = reactor.connectTCP("127.0.0.1", unusedPort(), client)
    given.stopConnecting()
    del given
    runUntil(reactor, lambda: client.ended == 3)
    assert [reason.type for reason in client.reasons] == [error.ConnectionRefusedError, ValueError, error.UserError]
    assert list(living) == []


def countIs(factory: Callable[[], KeptFactory | None], count: int) -> bool:
    """Whether so many connections of a factory have ended; a predicate that keeps nothing alive."""
    found = factory()
    return found is not None and found.ended == count


def test_aFactoryDiesWithItsPort(reactor: Reactor) -> None:
    def serveOne() -> list[Callable[[], object]]:
        factory = KeptFactory("peer closes")
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        peer = Background(talk, port.getHost().port, "peer closes")
        runUntil(reactor, partial(countIs, weakref.ref(factory), 1))
        stopped: list[None] = []
        port.stopListening().addCallback(stopped.append)
        runUntil(reactor, lambda: stopped)
        peer.result()
        return [weakref.ref(factory), weakref.ref(port)]

    assert [ref() for ref in serveOne()] == [None, None]


def test_aFactoryIsNotKeptByItsEndedConnections(reactor: Reactor) -> None:
    class Remembering(KeptFactory):
        def buildProtocol(self, addr: Any) -> Kept:
            protocol = super().buildProtocol(addr)
            protocols.append(protocol)
            return protocol

    protocols: list[Kept] = []

    def serveOne() -> tuple[Any, Callable[[], object]]:
        factory = Remembering("closes")
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        peer = Background(talk, port.getHost().port, "closes")
        runUntil(reactor, partial(countIs, weakref.ref(factory), 1))
        stopped: list[None] = []
        port.stopListening().addCallback(stopped.append)
        runUntil(reactor, lambda: stopped and not reactor.lingering)
        peer.result()
        return protocols.pop().mine, weakref.ref(factory)

    transport, factory = serveOne()
    assert transport.protocol is None
    assert factory() is None


def test_aConnectionThatNobodyRefersToLivesOn(reactor: Reactor) -> None:
    class Quiet(Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.pauseProducing()
            reactor.callLater(0.01, self.answer)

        def answer(self) -> None:
            self.transport.write(b"still here")
            self.transport.loseConnection()

    port = reactor.listenTCP(0, Factory.forProtocol(Quiet), interface="127.0.0.1")
    host: Any = port.getHost()

    def ask() -> bytes:
        with connectTo(host.port) as peer:
            peer.sendall(b"?")
            return peer.recv(100)

    peer = Background(ask)
    runUntil(reactor, peer)
    assert peer.result() == b"still here"


@pytest.mark.parametrize("use", ["nothing", "ran", "served", "debug"])
def test_aClosedReactorDiesByItsReferenceCount(backendName: str, use: str) -> None:
    reactor = Reactor(backend=backendName, debug=use == "debug")
    reactor.callLater(1000, reactor.stop)
    if use != "nothing":
        reactor.callLater(0, reactor.stop)
        reactor.run(installSignalHandlers=False)
    if use == "served":
        port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        host: Any = port.getHost()
        reactor.connectTCP("127.0.0.1", host.port, ClientFactory())
        reactor.callLater(0.01, reactor.stop)
        reactor.run(installSignalHandlers=False)
        del port
    backend = weakref.ref(reactor.backend)
    gone = weakref.ref(reactor)
    reactor.close()
    del reactor
    assert gone() is None
    assert backend() is None


def test_aFiredTimerKeepsNothing(reactor: Reactor) -> None:
    class Big:
        def method(self, other: object) -> None:
            pass

    held: list[DelayedCall] = []
    refs: list[Callable[[], object]] = []
    for _ in range(2):
        big, argument = Big(), Big()
        refs += [weakref.ref(big), weakref.ref(argument)]
        held.append(reactor.callLater(0, big.method, argument))
        del big, argument
    held[1].cancel()
    assert refs[2]() is refs[3]() is None
    reactor.iterate()
    assert [ref() for ref in refs] == [None] * 4
