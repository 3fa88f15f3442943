"""What a reading of streams, ports and connectors found: each test failed before its mending."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from calandria import Reactor, error
from calandria.abstract import FileDescriptor
from calandria.address import IPv4Address, IPv6Address
from calandria.plugin import FileChannel, Layer, LayerEndpoint, Stream, connectSocket
from calandria.protocol import Protocol
from calandria_tcp import ConnectTCP
from tests.helpers import Background, connectTo, receiveAll, runUntil
from tests.recorders import Recorder, RecordingClient, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers import LogCapture

LOCAL = "127.0.0.1"
RESET = struct.pack("ii", 1, 0)


def listen(reactor: Reactor, factory: Any) -> int:
    host: Any = reactor.listenTCP(0, factory, interface=LOCAL).getHost()
    return int(host.port)


def narrow(peer: socket.socket, port: int) -> socket.socket:
    """A client that takes little at a time."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8000)
    peer.connect((LOCAL, port))
    return peer


def handle(protocol: Recorder) -> socket.socket:
    transport: Any = protocol.transport
    found: socket.socket = transport.getHandle()
    return found


class UntilPaused:
    """A push producer that writes until it is paused, as A16 lets it."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.going = False
        self.stopped = False

    def resumeProducing(self) -> None:
        self.going = True
        while self.going:
            self.transport.write(b"x" * 65536)

    def pauseProducing(self) -> None:
        self.going = False

    def stopProducing(self) -> None:
        self.going = False
        self.stopped = True


class Produces(Recorder):
    """Registers a producer that writes until it is paused, with a small buffer in the kernel."""

    def __init__(self, kind: type[UntilPaused] = UntilPaused) -> None:
        super().__init__()
        self.kind = kind

    def connectionMade(self) -> None:
        super().connectionMade()
        handle(self).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10000)
        self.producer = self.kind(self.transport)
        self.transport.registerProducer(self.producer, streaming=True)
        self.producer.resumeProducing()


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses every attribute, those too that Python itself would set."""

    number: int = 1


@pytest.mark.backend
class TestExceptions:
    def test_oneThatIsFrozen_isLogged_andTheOthersGoOn(self, reactor: Reactor, logs: LogCapture) -> None:
        class Raises(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise Frozen

        server = RecordingServer(Raises)
        port = listen(reactor, server)
        with connectTo(port) as first, connectTo(port) as second:
            first.sendall(b"x")
            runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)
            assert type(server.protocols[0].lost.value) is Frozen
            second.sendall(b"x")
            runUntil(reactor, lambda: server.protocols[1].lost)
        reactor.callLater(0, self.bang)
        reactor.callLater(0.01, reactor.stop)
        reactor.run()
        assert len(logs.takeErrors()) == 3

    def bang(self) -> None:
        raise Frozen

    def test_aHandlerOfTheLogThatRaises_hurtsNobody(
        self, reactor: Reactor, logs: LogCapture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        import logging

        class Broken(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise ValueError("no disk")

        handler = Broken(logging.ERROR)
        logging.getLogger("calandria").addHandler(handler)
        try:
            reactor.callLater(0, self.bang)
            reactor.callLater(0.01, reactor.stop)
            reactor.run()
        finally:
            logging.getLogger("calandria").removeHandler(handler)
        logs.takeErrors()
        assert "raised, and logging that raised ValueError" in capfd.readouterr().err

    def test_systemExit_outOfAClientsBuildProtocol(self, reactor: Reactor, logs: LogCapture) -> None:
        class Client(RecordingClient):
            def buildProtocol(self, addr: Any) -> Any:
                raise SystemExit(7)

        client = Client()
        connector = reactor.connectTCP(LOCAL, listen(reactor, RecordingServer()), client)
        with pytest.raises(SystemExit):
            reactor.run()
        assert connector.state == "disconnected"
        assert type(client.failed[0].value) is error.ConnectionLost
        assert client.numPorts == 0


@pytest.mark.backend
class TestProducers:
    def test_peerEnds_whileBytesWait_theProducerIsStopped(self, reactor: Reactor) -> None:
        server = RecordingServer(Produces)
        with socket.socket() as peer:
            narrow(peer, listen(reactor, server))
            runUntil(reactor, lambda: server.protocols)
            protocol = server.protocols[0]
            peer.shutdown(socket.SHUT_WR)
            runUntil(reactor, lambda: protocol.producer.stopped)
            assert not protocol.lost, "what was written is still sent"
            taken = Background(receiveAll, peer)
            runUntil(reactor, lambda: protocol.lost)
            assert type(protocol.lost.value) is error.ConnectionDone
            assert len(taken.result()) == 131072

    def test_aProducerThatAborts_whenItIsStopped(self, reactor: Reactor) -> None:
        class Aborts(UntilPaused):
            def stopProducing(self) -> None:
                super().stopProducing()
                self.transport.abortConnection()

        server = RecordingServer(lambda: Produces(Aborts))
        with socket.socket() as peer:
            narrow(peer, listen(reactor, server))
            runUntil(reactor, lambda: server.protocols)
            peer.shutdown(socket.SHUT_WR)
            runUntil(reactor, lambda: server.protocols[0].lost)
        assert type(server.protocols[0].lost.value) is error.ConnectionAborted
        assert server.protocols[0].events.count("lost") == 1

    def test_aSendHasFailed_aNewProducerIsStopped(self, reactor: Reactor) -> None:
        class Answers(Recorder):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.transport.pauseProducing()

            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.producer = UntilPaused(self.transport)
                self.transport.registerProducer(self.producer, streaming=True)
                self.stoppedAtOnce = self.producer.stopped

        server = RecordingServer(Answers)
        peer = connectTo(listen(reactor, server))
        runUntil(reactor, lambda: server.protocols)
        protocol = server.protocols[0]
        peer.sendall(b"request")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.close()
        protocol.transport.write(b"x")
        runUntil(reactor, lambda: "write-failed" in repr(protocol.transport))
        protocol.transport.resumeProducing()
        runUntil(reactor, lambda: protocol.lost)
        # Some kernels keep what had come before the reset, some do not.
        assert protocol.received in (b"request", b"")
        assert "data" not in protocol.events or protocol.stoppedAtOnce

    def test_tooMuchWaits_theProducerIsPaused_andTheConnectionAborted(self, reactor: Reactor) -> None:
        server = RecordingServer(Produces)
        server.maxBufferedBytes = 100_000
        with connectTo(listen(reactor, server)):
            runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)
        assert type(server.protocols[0].lost.value) is error.BufferOverflow

    @pytest.mark.parametrize(("limit", "size", "kept"), [(1000, 1000, True), (1000, 1001, False), (0, 1, False)])
    def test_aLimitBelowTheHighWaterMark(self, reactor: Reactor, limit: int, size: int, kept: bool) -> None:
        server = RecordingServer()
        with connectTo(listen(reactor, server)):
            runUntil(reactor, lambda: server.protocols)
            protocol = server.protocols[0]
            protocol.transport.maxBufferedBytes = limit
            assert protocol.transport.maxBufferedBytes == limit
            protocol.transport.write(b"x" * size)
            protocol.transport.loseConnection()
            runUntil(reactor, lambda: protocol.lost)
        assert type(protocol.lost.value) is (error.ConnectionDone if kept else error.BufferOverflow)


@pytest.mark.backend
class TestForeignClose:
    @pytest.mark.parametrize("andLose", [False, True])
    def test_theNumberIsANewcomers(self, reactor: Reactor, andLose: bool) -> None:
        """Whoever closes a stream's descriptor behind its back harms nobody who has the number by then."""

        class Closes(Recorder):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                if data == b"close":
                    number = handle(self).fileno()
                    handle(self).close()
                    mine, self.other = socket.socketpair()
                    if mine.fileno() != number:
                        os.dup2(mine.fileno(), number)
                        mine.close()
                        mine = socket.socket(fileno=number)
                    mine.setblocking(False)
                    self.newcomer = Recorder()
                    Stream(self.transport.reactor, mine, host=None, peer=None).start(self.newcomer)
                    if andLose:
                        self.transport.loseConnection()

        server = RecordingServer(Closes)
        with connectTo(listen(reactor, server)) as peer:
            peer.sendall(b"close")
            runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)
            protocol = server.protocols[0]
            protocol.other.sendall(b"hello")
            runUntil(reactor, lambda: protocol.newcomer.received)
            protocol.other.sendall(b"again")
            runUntil(reactor, lambda: protocol.newcomer.received == b"helloagain")
            protocol.other.close()
            runUntil(reactor, lambda: protocol.newcomer.lost)

    @pytest.mark.parametrize("how", ["write to the reading end", "read from the writing end"])
    def test_aDescriptorThatWasNotOpenedForIt_isClosed(self, reactor: Reactor, how: str) -> None:
        """EBADF is no sign of a foreign close where the descriptor is open."""
        reading, writing = os.pipe()
        closed: list[int] = []
        writes = how.startswith("write")
        mine, other = (reading, writing) if writes else (writing, reading)

        def close() -> None:
            os.close(mine)
            closed.append(mine)

        recorder = Recorder()
        stream = Stream(reactor, FileChannel(mine, close), host=None, peer=None)
        stream.start(recorder)
        if writes:
            stream.write(b"x")
        os.close(other)
        runUntil(reactor, lambda: recorder.lost)
        assert recorder.lost is not None
        assert type(recorder.lost.value) is error.ConnectionLost
        assert closed == [mine]


class Trickle:
    """A pull producer of small pieces."""

    def __init__(self, transport: Any, pieces: int) -> None:
        self.transport = transport
        self.left = pieces

    def resumeProducing(self) -> None:
        self.left -= 1
        self.transport.write(b"x" * 1000)
        if not self.left:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        pass


@pytest.mark.backend
class TestSlowPeers:
    """A peer that takes what is sent, slowly but all the time, gets all of it: closeTimeout is about no progress."""

    SIZE: ClassVar = 400_000

    def takeSlowly(self, peer: socket.socket, until: float, more: bytes = b"") -> int:
        """Take all of it in as many pieces as last for so long (seconds)."""
        count = 0
        end = time.monotonic() + until
        pace = threading.Event()
        while data := peer.recv(4000):
            count += len(data)
            left = max(1, (self.SIZE - count) // 4000)
            pace.wait(max(0.0, end - time.monotonic()) / left)
            if more and time.monotonic() > end - until / 3:
                peer.sendall(more)
                more = b""
        return count

    def test_closing_withAPullProducer(self, reactor: Reactor) -> None:
        test = self

        class Server(Recorder):
            def connectionMade(self) -> None:
                super().connectionMade()
                handle(self).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000)
                self.transport.registerProducer(Trickle(self.transport, test.SIZE // 1000), streaming=False)
                self.transport.loseConnection()

        server = RecordingServer(Server)
        server.closeTimeout = 0.3
        with socket.socket() as peer:
            narrow(peer, listen(reactor, server))
            taken = Background(self.takeSlowly, peer, 1.0)
            runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)
            assert type(server.protocols[0].lost.value) is error.ConnectionDone
            runUntil(reactor, taken)
            assert taken.result() == self.SIZE

    def test_lingering(self, reactor: Reactor) -> None:
        """What the kernel still has to send must not be lost because the peer says something now."""
        test = self

        class Server(Recorder):
            def connectionMade(self) -> None:
                super().connectionMade()
                handle(self).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * test.SIZE)
                self.transport.write(b"x" * test.SIZE)
                self.transport.loseConnection()

        server = RecordingServer(Server)
        server.closeTimeout = 0.3
        with socket.socket() as peer:
            narrow(peer, listen(reactor, server))
            taken = Background(self.takeSlowly, peer, 1.2, b"late")
            runUntil(reactor, taken)
            assert taken.result() == self.SIZE


@pytest.mark.backend
class TestStopping:
    def test_whatBeginsAnewMeanwhile_isEndedToo(self, reactor: Reactor) -> None:
        class Again(RecordingClient):
            left = 1

            def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
                super().clientConnectionFailed(connector, reason)
                if self.left:
                    self.left -= 1
                    connector.connect()

        class ListensAgain(RecordingServer):
            left = 1

            def stopFactory(self) -> None:
                if self.left:
                    self.left -= 1
                    port.startListening()

        server, client = ListensAgain(), Again()
        port = reactor.listenTCP(0, server, interface=LOCAL)
        reactor.callWhenRunning(reactor.connectTCP, LOCAL, 1, client, bindAddress=(LOCAL, 0))
        reactor.callWhenRunning(reactor.callLater, 0, reactor.stop)
        reactor.run()
        assert not port.connected
        assert (server.numPorts, client.numPorts) == (0, 0)
        assert len(client.failed) == 2

    def test_aPortThatWasToStop_andBeginsAnew(self, reactor: Reactor) -> None:
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface=LOCAL)
        stopped = port.stopListening()
        port.startListening()
        done: list[None] = []
        stopped.addCallback(done.append)
        runUntil(reactor, lambda: done)
        assert port.connected
        assert server.numPorts == 1
        host: Any = port.getHost()
        with connectTo(host.port):
            runUntil(reactor, lambda: server.protocols)

    def test_aTransportClassThatRaises_costsOneConnection(self, reactor: Reactor, logs: LogCapture) -> None:
        server = RecordingServer()
        port: Any = reactor.listenTCP(0, server, interface=LOCAL)
        whole = port.transport

        def broken(*args: Any, **kw: Any) -> Any:
            raise ValueError("no transport today")

        port.transport = broken
        with connectTo(port.getHost().port) as peer:
            refused = Background(receiveAll, peer)
            runUntil(reactor, refused)
        assert len(logs.takeErrors()) == 1
        port.transport = whole
        with connectTo(port.getHost().port):
            runUntil(reactor, lambda: server.protocols)

    def test_startedConnecting_thatStopsAndRaises(self, reactor: Reactor) -> None:
        class Client(RecordingClient):
            def startedConnecting(self, connector: Any) -> None:
                connector.stopConnecting()
                raise ValueError("not today")

        client = Client()
        with pytest.raises(ValueError, match="not today"):
            reactor.connectTCP(LOCAL, 1, client)
        reactor.iterate()
        reactor.iterate()
        assert (client.failed, client.numPorts) == ([], 0)

    def test_aChannelWhoseAbortRaises_isClosed(self, reactor: Reactor, logs: LogCapture) -> None:
        class Broken(FileChannel):
            __slots__ = ()

            def abort(self) -> None:
                raise ValueError("no")

        reading, writing = os.pipe()
        recorder = Recorder()
        stream = Stream(reactor, Broken(reading), host=None, peer=None)
        stream.start(recorder)
        stream.abortConnection()
        runUntil(reactor, lambda: recorder.lost)
        os.close(writing)
        assert len(logs.takeErrors()) == 1
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(reading)


@dataclass(frozen=True)
class Plain(LayerEndpoint):
    def layer(self, reactor: Reactor, *, client: bool, below: Any) -> Layer:
        return Layer(reactor)


def test_closeTimeout_reachesTheStreamBelowALayer(reactor: Reactor) -> None:
    class Client(RecordingClient):
        closeTimeout = 0.05

    class Sends(Protocol):
        def connectionMade(self) -> None:
            layer: Any = self.transport
            below.append(layer.channel.transport)
            below[0].getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4000)
            self.transport.write(b"x" * 200_000)
            self.transport.loseConnection()

    below: list[Any] = []
    with socket.create_server((LOCAL, 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4000)
        reactor.connect(ConnectTCP(LOCAL, server.getsockname()[1]).over(Plain()), Client(Sends))
        runUntil(reactor, lambda: below and below[0].disconnected)
    assert below[0].closeTimeout == 0.05


@pytest.mark.parametrize(
    "bad",
    [
        IPv4Address("TCP", "127.0.0.1\0x", 1),
        IPv4Address("TCP", "localhost", 1),
        IPv4Address("TCP", "::1", 1),
        IPv4Address("TCP", LOCAL, 70000),
        IPv6Address("TCP", LOCAL, 1),
        IPv6Address("TCP", "::1", 1, 0, "lo"),
    ],
)
def test_aResolverThatAnswersWhatConnectCannotTake(reactor: Reactor, bad: Any) -> None:
    """A name least of all: connect(2) would look it up, in the reactor's thread."""

    class Resolver:
        def resolveHostName(self, receiver: Any, *rest: Any) -> Any:
            receiver.resolutionBegan(self)
            receiver.addressResolved(bad)
            receiver.resolutionComplete()
            return self

        def cancel(self) -> None:
            pass

    resolver: Any = Resolver()
    reactor.installNameResolver(resolver)
    client = RecordingClient()
    reactor.connectTCP("some.name", 7, client)
    runUntil(reactor, lambda: client.failed)
    assert "which is no address" in str(client.failed[0].value)


@pytest.mark.parametrize("bad", [("127.0.0.1\0x", 7), ("::1", 7), (LOCAL, 70000), (LOCAL,)])
def test_anAddressThatConnectCannotTake_endsNoRace(reactor: Reactor, bad: Any) -> None:
    with socket.create_server((LOCAL, 0)) as server:
        for candidates in ([bad, server.getsockname()], [(LOCAL, 1), bad, server.getsockname()]):
            connected: list[socket.socket] = []
            racing = connectSocket(reactor, [(socket.AF_INET, address) for address in candidates])
            racing.addCallback(connected.append)
            runUntil(reactor, lambda: connected)  # noqa: B023  # it is called in this round only
            connected[0].close()


@pytest.mark.parametrize("bad", [(LOCAL, 70000), (LOCAL,)])
def test_aBindAddressThatBindCannotTake_isNamed(reactor: Reactor, bad: Any) -> None:
    failures: list[Any] = []
    with socket.create_server((LOCAL, 0)) as server:
        racing = connectSocket(reactor, [(socket.AF_INET, server.getsockname())], bad)
        racing.addErrback(failures.append)
        runUntil(reactor, lambda: failures)
    assert type(failures[0].value) is error.ConnectBindError
    assert repr(bad) in str(failures[0].value)


def test_twoOwnersOfOneNumber_oneIsForgotten(reactor: Reactor) -> None:
    """Whoever waits to write is out of the table although somebody else reads, and the other way round."""
    first, second = (Stream(reactor, end, host=None, peer=None) for end in socket.socketpair())
    tables = reactor.descriptors
    fd = first.fd
    for mine, other, add, table in (
        (tables.addWriter, tables.addReader, tables.writers, tables.readers),
        (tables.addReader, tables.addWriter, tables.readers, tables.writers),
    ):
        mine(fd, first)
        other(fd, second)
        tables.forget(fd, first)
        tables.settle()
        assert fd not in add
        assert table[fd] is second
        tables.forget(fd, second)
        assert fd not in table
    first.discard()
    second.discard()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return str(caught.value)


def test_aHostThatIsNoText(reactor: Reactor) -> None:
    nothing: Any = None
    said = refused(lambda: reactor.connectTCP(nothing, 7, RecordingClient()))
    assert said == "host is a name or an address literal, a str, not None"


def test_aBindAddressThatIsNoPair(reactor: Reactor) -> None:
    client = RecordingClient()
    wrong: Any = LOCAL
    reactor.connectTCP(LOCAL, 7, client, bindAddress=wrong)
    runUntil(reactor, lambda: client.failed)
    assert str(client.failed[0].value) == "bindAddress is an address literal and a port, not '127.0.0.1'"


class Answering(FileDescriptor):
    """Writes to nothing but an answer; nothing is read."""

    def __init__(self, reactor: Reactor, end: socket.socket, answer: BaseException) -> None:
        super().__init__(reactor)
        self.end = end
        self.answer = answer
        self.reasons: list[BaseException] = []

    def fileno(self) -> int:
        return self.end.fileno()

    def writeSomeData(self, data: Any) -> int | BaseException:
        return self.answer

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        self.reasons.append(reason.value)


@pytest.mark.parametrize("answer", [error.ConnectionDone(), error.ConnectionLost("enough"), ValueError("odd")])
def test_whatWriteSomeDataAnswers_isTheReason(reactor: Reactor, answer: BaseException) -> None:
    mine, other = socket.socketpair()
    with mine, other:
        descriptor = Answering(reactor, mine, answer)
        descriptor.write(b"x")
        runUntil(reactor, lambda: descriptor.reasons)
        assert descriptor.reasons == [answer]
        assert not reactor.owned


def test_backlogThatNoSystemTakes(reactor: Reactor) -> None:
    said = refused(lambda: reactor.listenTCP(0, RecordingServer(), backlog=1 << 40))
    assert said == "backlog is how many connections may wait, 0 to 2147483647, not 1099511627776"
