"""Streams, ports, connectors and layers over pipes that are not TCP: what the author of a transport builds on."""

from __future__ import annotations

import os
import tty
from dataclasses import dataclass
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, Any

import pytest

from calandria import address, error
from calandria.defer import Deferred
from calandria.plugin import (
    ClientEndpoint,
    Connector,
    FileChannel,
    LayerEndpoint,
    Port,
    ServerEndpoint,
    Stream,
)
from tests.helpers import DEADLINE, Background, connectTo, receiveAll, receiveExactly, runUntil
from tests.recorders import Echo, HalfCloseRecorder, Recorder, RecordingClient, RecordingServer
from tests.transports.pipes import Greeted, MemoryChannel, Turned, connectMemory, listenMemory, memoryPair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calandria import ClientFactory, Factory, Reactor
    from calandria.failure import Failure
    from tests.helpers import LogCapture

BIG = bytes(range(256)) * 1024  # 256 KiB


class Source:
    """A push producer of so many bytes, which remembers how often it was told what."""

    def __init__(self, transport: Any, count: int, size: int = 4096) -> None:
        self.transport = transport
        self.left = count
        self.size = size
        self.paused = False
        self.told: list[str] = []
        self.most = 0
        transport.registerProducer(self, True)
        self.produce()

    def produce(self) -> None:
        while self.left and not self.paused:
            size = min(self.size, self.left)
            self.left -= size
            self.transport.write(b"p" * size)
            self.most = max(self.most, self.transport.bufferedBytes)
        if not self.left:
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.told.append("pause")
        self.paused = True

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self.paused = False
        self.produce()

    def stopProducing(self) -> None:
        self.told.append("stop")


# A pipe in memory, without any descriptor.


def test_memoryCarriesAConversation(reactor: Reactor) -> None:
    server, client = RecordingServer(Echo), RecordingClient()
    port = listenMemory(reactor, server)
    connectMemory(reactor, port, client)
    runUntil(reactor, lambda: client.protocols)
    protocol = client.protocols[0]
    protocol.transport.write(BIG)
    runUntil(reactor, lambda: len(protocol.received) >= len(BIG))
    assert bytes(protocol.received) == BIG
    protocol.transport.loseConnection()
    runUntil(reactor, lambda: protocol.lost and server.protocols[0].lost)
    assert protocol.lost.type is error.ConnectionDone
    assert server.protocols[0].lost.type is error.ConnectionDone
    assert protocol.events[0] == "made"
    assert protocol.events[-1] == "lost"
    assert reactor.getDelayedCalls() == []


def test_memoryNeverHoldsMoreThanThereIsRoomFor(reactor: Reactor) -> None:
    a, b = memoryPair(reactor, room=100)
    sender, receiver = Recorder(), Recorder()
    a.start(sender)
    b.start(receiver)
    a.write(BIG)
    runUntil(reactor, lambda: len(receiver.received) == len(BIG))
    channel: Any = a.channel
    assert channel.largest == 100
    assert bytes(receiver.received) == BIG


def test_memoryBackPressure(reactor: Reactor) -> None:
    a, b = memoryPair(reactor)
    receiver = Recorder()
    a.start(Recorder())
    b.start(receiver)
    b.pauseProducing()
    source = Source(a, 1 << 20)
    assert source.told == ["pause"]
    assert 65536 < source.most <= 65536 + 4096
    b.resumeProducing()
    runUntil(reactor, lambda: len(receiver.received) == 1 << 20)
    assert source.told[:3] == ["pause", "resume", "pause"]
    assert source.most <= 65536 + 4096


def test_nothingIsDeliveredWhilePausedEvenIfTheChannelGoesOn(reactor: Reactor) -> None:
    a, b = memoryPair(reactor)
    receiver = Recorder()
    a.start(Recorder())
    b.start(receiver)
    b.pauseProducing()
    b.received(b"one")
    b.received(b"two")
    b.ended()
    reactor.iterate()
    assert receiver.events == ["made"]
    b.resumeProducing()
    assert receiver.events == ["made"], "the user is never called from inside its own call"
    runUntil(reactor, lambda: receiver.lost)
    assert receiver.events == ["made", "data", "data", "lost"]
    assert bytes(receiver.received) == b"onetwo"


def test_pauseBetweenTwoHeldPieces(reactor: Reactor) -> None:
    class Pausing(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.pauseProducing()

    a, b = memoryPair(reactor)
    receiver = Pausing()
    a.start(Recorder())
    b.start(receiver)
    for piece in (b"1", b"2", b"3"):
        b.received(piece)
    for count in (1, 2, 3):
        reactor.iterate()
        assert len(receiver.received) == count
        b.resumeProducing()
    assert bytes(receiver.received) == b"123"


def test_channelIsToldToPauseAndResume(reactor: Reactor) -> None:
    a, b = memoryPair(reactor)
    a.start(Recorder())
    b.start(Recorder())
    b.pauseProducing()
    b.pauseProducing()
    b.resumeProducing()
    b.resumeProducing()
    channel: Any = b.channel
    assert channel.calls == ["pause", "resume"]


def test_halfCloseInMemory(reactor: Reactor) -> None:
    a, b = memoryPair(reactor)
    first, second = HalfCloseRecorder(), HalfCloseRecorder()
    a.start(first)
    b.start(second)
    assert a.canHalfClose
    a.write(b"question")
    a.loseWriteConnection()
    runUntil(reactor, lambda: "readLost" in second.events)
    assert first.events == ["made", "writeLost"]
    b.write(b"answer")
    b.loseWriteConnection()
    runUntil(reactor, lambda: first.lost and second.lost)
    assert first.events == ["made", "writeLost", "data", "readLost", "lost"]
    assert second.events == ["made", "data", "readLost", "writeLost", "lost"]
    assert first.lost is not None
    assert first.lost.type is error.ConnectionDone


def test_channelWithoutShutdownCannotHalfClose(reactor: Reactor) -> None:
    class Whole(MemoryChannel):
        shutdown: Any = property()

    channel = Whole(reactor)
    channel.other = MemoryChannel(reactor)
    channel.other.closed = True
    stream = Stream(reactor, channel, host=address.UNIXAddress(None), peer=address.UNIXAddress(None))
    stream.start(Recorder())
    assert not stream.canHalfClose
    with pytest.raises(error.HalfCloseUnsupported, match="loseConnection"):
        stream.loseWriteConnection()


def test_abortInMemory(reactor: Reactor) -> None:
    a, b = memoryPair(reactor)
    first, second = Recorder(), Recorder()
    a.start(first)
    b.start(second)
    a.write(BIG)
    a.abortConnection()
    assert first.lost is None, "connectionLost comes from the loop"
    runUntil(reactor, lambda: first.lost and second.lost)
    assert first.lost is not None
    assert first.lost.type is error.ConnectionAborted
    assert second.lost is not None
    assert second.lost.type is error.ConnectionLost


def test_errorOfAChannelIsTheReason(reactor: Reactor) -> None:
    class Unplugged(Exception):
        pass

    a, b = memoryPair(reactor)
    protocol = Recorder()
    a.start(protocol)
    b.start(Recorder())
    a.ended(Unplugged("the line is dead"))
    assert protocol.lost is not None
    assert protocol.lost.type is Unplugged


def test_dataReceivedRaisingEndsOnlyThatConnection(reactor: Reactor, logs: LogCapture) -> None:
    class Raising(Recorder):
        def dataReceived(self, data: bytes) -> None:
            raise ValueError("no")

    a, b = memoryPair(reactor)
    first, second = Recorder(), Raising()
    a.start(first)
    b.start(second)
    a.write(b"x")
    runUntil(reactor, lambda: first.lost and second.lost)
    assert second.lost is not None
    assert second.lost.type is ValueError
    assert len(logs.takeErrors()) == 1


def test_connectorOverMemoryReconnects(reactor: Reactor) -> None:
    server = RecordingServer(Echo)
    port = listenMemory(reactor, server)

    class Again(RecordingClient):
        def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
            super().clientConnectionLost(connector, reason)
            if len(self.protocols) < 3:
                connector.connect()

        def hasMade(self, count: int) -> bool:
            return len(self.protocols) == count

    client = Again()
    connector = connectMemory(reactor, port, client)
    for count in (1, 2, 3):
        runUntil(reactor, partial(client.hasMade, count))
        assert connector.state == "connected"
        client.protocols[-1].transport.loseConnection()
    runUntil(reactor, lambda: connector.state == "disconnected")
    assert client.events.count("start") == client.events.count("stop") == 1


# A terminal.


@pytest.fixture
def terminal() -> Iterator[tuple[FileIO, int]]:
    """The two sides of a pseudo-terminal in raw mode: the test's, and the descriptor of the one that a stream takes."""
    mine, theirs = os.openpty()
    tty.setraw(theirs)
    with FileIO(mine, "r+") as side:
        yield side, theirs


def terminalStream(reactor: Reactor, fd: int, protocol: Recorder) -> Stream:
    name = address.UNIXAddress(os.fsencode(os.ttyname(fd)))
    stream = Stream(reactor, FileChannel(fd), host=name, peer=name)
    stream.start(protocol)
    return stream


def test_terminalCarriesAnEcho(reactor: Reactor, terminal: tuple[FileIO, int]) -> None:
    mine, theirs = terminal
    protocol = Echo()
    terminalStream(reactor, theirs, protocol)
    data = os.urandom(20_000)

    def talk() -> bytes:
        received = b""
        for start in range(0, len(data), 1000):
            mine.write(data[start : start + 1000])
            while len(received) < start + 1000:
                received += mine.read(4096) or b""
        return received

    peer = Background(talk)
    runUntil(reactor, peer)
    assert peer.result() == data


def test_hangUpOfATerminalIsTheEndOfTheStream(reactor: Reactor, terminal: tuple[FileIO, int]) -> None:
    mine, theirs = terminal
    protocol = Recorder()
    terminalStream(reactor, theirs, protocol)
    mine.write(b"last words")
    runUntil(reactor, lambda: protocol.received)
    mine.close()
    runUntil(reactor, lambda: protocol.lost)
    assert bytes(protocol.received) == b"last words"
    assert protocol.lost is not None
    assert protocol.lost.type is error.ConnectionDone


def test_fullTerminalGivesBackPressure(reactor: Reactor, terminal: tuple[FileIO, int]) -> None:
    mine, theirs = terminal
    protocol = Recorder()
    stream = terminalStream(reactor, theirs, protocol)
    source = Source(stream, 300_000)
    runUntil(reactor, lambda: stream.bufferedBytes < 65536 + 4096)
    assert source.told[0] == "pause"

    def drain() -> int:
        count = 0
        while count < 300_000:
            count += len(mine.read(65536) or b"")
        return count

    peer = Background(drain)
    runUntil(reactor, peer)
    assert peer.result() == 300_000
    assert source.told.count("pause") >= 2
    assert source.told.count("pause") - source.told.count("resume") in (0, 1), "it may end above the mark"


def test_theOwnerOfADescriptorClosesIt(reactor: Reactor) -> None:
    reading, writing = os.pipe()
    closed: list[int] = []
    protocol = Recorder()
    channel = FileChannel(reading, lambda: closed.append(reading))
    stream = Stream(reactor, channel, host=address.UNIXAddress(None), peer=address.UNIXAddress(None))
    stream.start(protocol)
    os.write(writing, b"bytes")
    os.close(writing)
    runUntil(reactor, lambda: protocol.lost)
    assert bytes(protocol.received) == b"bytes"
    assert closed == [reading]
    os.close(reading)


def test_regularFileIsReadPieceByPiece(reactor: Reactor, tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(BIG)
    protocol = Recorder()
    channel = FileChannel(os.open(path, os.O_RDONLY))
    stream = Stream(reactor, channel, host=address.UNIXAddress(None), peer=address.UNIXAddress(None))
    stream.start(protocol)
    stream.pauseProducing()
    reactor.iterate()
    assert not protocol.received
    stream.resumeProducing()
    turns = 0
    while not protocol.lost:
        reactor.iterate(DEADLINE)
        turns += 1
    assert bytes(protocol.received) == BIG
    assert turns >= len(BIG) // 65536, "64 KiB a turn"


# Layers.


@dataclass(frozen=True)
class Turning(LayerEndpoint):
    """Every byte turned upside down."""

    def layer(self, reactor: Reactor, *, client: bool, below: Any) -> Turned:
        return Turned(reactor)


@dataclass(frozen=True)
class Greeting(LayerEndpoint):
    """A greeting first."""

    def layer(self, reactor: Reactor, *, client: bool, below: Any) -> Greeted:
        return Greeted(reactor)


@dataclass(frozen=True)
class ListenMemory(ServerEndpoint):
    """A pipe in memory."""

    def listen(self, reactor: Reactor, factory: Factory) -> Port:
        ports.append(listenMemory(reactor, factory))
        return ports[-1]


@dataclass(frozen=True)
class ConnectMemory(ClientEndpoint):
    """A pipe in memory, to the port opened last."""

    def connect(self, reactor: Reactor, factory: ClientFactory) -> Connector:
        return connectMemory(reactor, ports[-1], factory)


ports: list[Port] = []
layers = pytest.mark.parametrize("layer", [Turning(), Greeting()], ids=["turning", "greeting"])


@layers
def test_layerOverTCPChangesWhatIsOnTheWire(reactor: Reactor, layer: LayerEndpoint) -> None:
    from calandria import ListenTCP

    server = RecordingServer(Echo)
    port = reactor.listen(ListenTCP(0, interface="127.0.0.1").over(layer), server)

    def talk() -> tuple[bytes, bytes]:
        with connectTo(port.getHost().port) as peer:
            if isinstance(layer, Greeting):
                peer.sendall(b"hello\nabc")
            else:
                peer.sendall(b"abc")
            first = receiveExactly(peer, 9 if isinstance(layer, Greeting) else 3)
            peer.shutdown(1)
            return first, receiveAll(peer)

    peer = Background(talk)
    runUntil(reactor, peer)
    assert peer.result() == (b"hello\nabc" if isinstance(layer, Greeting) else b"abc", b"")
    seen = bytes(server.protocols[0].received)
    assert seen == (b"abc" if isinstance(layer, Greeting) else b"abc".translate(Turned.TABLE))
    runUntil(reactor, lambda: server.protocols[0].lost)
    assert server.protocols[0].lost.type is error.ConnectionDone


@layers
@pytest.mark.parametrize("below", ["memory", "tcp"])
def test_layerCarriesMuchWithBackPressure(reactor: Reactor, layer: LayerEndpoint, below: str) -> None:
    from calandria import ConnectTCP, ListenTCP

    server, client = RecordingServer(), RecordingClient()
    if below == "memory":
        reactor.listen(ListenMemory().over(layer), server)
        connector = reactor.connect(ConnectMemory().over(layer), client)
    else:
        port = reactor.listen(ListenTCP(0, interface="127.0.0.1").over(layer), server)
        connector = reactor.connect(ConnectTCP("127.0.0.1", port.getHost().port).over(layer), client)
    runUntil(reactor, lambda: client.protocols and server.protocols)
    receiver = server.protocols[0]
    receiver.transport.pauseProducing()
    sender: Any = client.protocols[0].transport
    connected: Any = connector.transport
    assert connected is sender
    assert connector.state == "connected"
    # More than the kernel's buffers of both sides and ours together.
    count = 1 << 24 if below == "tcp" else 1 << 20
    source = Source(sender, count, size=65536)
    # Until all the buffers on the way are full: nothing more happens then.
    turnsWithout = 0
    while turnsWithout < 10:
        before = source.left, sender.bufferedBytes
        reactor.iterate(0.01)
        turnsWithout = turnsWithout + 1 if before == (source.left, sender.bufferedBytes) else 0
    assert source.paused
    assert source.left > 0, "a receiver that does not read holds the sender up"
    assert not receiver.received
    assert source.most <= 2 * 65536
    receiver.transport.resumeProducing()
    runUntil(reactor, lambda: len(receiver.received) == count)
    assert source.told.count("pause") <= source.told.count("resume") + 1
    sender.loseConnection()
    runUntil(reactor, lambda: receiver.lost and client.protocols[0].lost)
    assert receiver.lost.type is error.ConnectionDone
    assert client.lost[0].type is error.ConnectionDone


@layers
def test_closingALayerFlushesIt(reactor: Reactor, layer: LayerEndpoint) -> None:
    server, client = RecordingServer(), RecordingClient()
    reactor.listen(ListenMemory().over(layer), server)
    reactor.connect(ConnectMemory().over(layer), client)
    runUntil(reactor, lambda: client.protocols and server.protocols)
    client.protocols[0].transport.write(BIG)
    client.protocols[0].transport.loseConnection()
    runUntil(reactor, lambda: server.protocols[0].lost and client.lost)
    assert bytes(server.protocols[0].received) == BIG
    assert server.protocols[0].lost.type is error.ConnectionDone


@layers
def test_abortGoesThroughALayer(reactor: Reactor, layer: LayerEndpoint) -> None:
    server, client = RecordingServer(), RecordingClient()
    reactor.listen(ListenMemory().over(layer), server)
    reactor.connect(ConnectMemory().over(layer), client)
    runUntil(reactor, lambda: client.protocols and server.protocols)
    client.protocols[0].transport.abortConnection()
    runUntil(reactor, lambda: server.protocols[0].lost and client.lost)
    assert client.lost[0].type is error.ConnectionAborted
    assert server.protocols[0].lost.check(error.ConnectionLost)
    assert not reactor.owned or list(reactor.owned) == [ports[-1]]


def test_wrongGreetingEndsThatConnectionOnly(reactor: Reactor, logs: LogCapture) -> None:
    from calandria import ListenTCP

    server = RecordingServer(Echo)
    port = reactor.listen(ListenTCP(0, interface="127.0.0.1").over(Greeting()), server)

    def talk(words: bytes, count: int) -> bytes:
        with connectTo(port.getHost().port) as peer:
            peer.sendall(words)
            return receiveExactly(peer, count)

    bad = Background(talk, b"rubbish\n", 100)
    runUntil(reactor, bad)
    with pytest.raises(ConnectionResetError):
        bad.result()
    assert server.protocols == []
    assert len(logs.takeErrors()) == 1
    good = Background(talk, b"hello\nfine", 10)
    runUntil(reactor, good)
    assert good.result() == b"hello\nfine"


def test_clientWhoseServerNeverGreetsTimesOut(reactor: Reactor) -> None:
    from calandria import ConnectTCP

    server, client = RecordingServer(), RecordingClient()
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    host: Any = port.getHost()
    endpoint = ConnectTCP("127.0.0.1", host.port, timeout=0.05).over(Greeting())
    connector = reactor.connect(endpoint, client)
    runUntil(reactor, lambda: client.failed)
    assert client.failed[0].check(error.TimeoutError)
    assert client.protocols == []
    assert connector.state == "disconnected"
    runUntil(reactor, lambda: server.protocols[0].lost)


def test_connectorTakesADeferredStream(reactor: Reactor) -> None:
    a, b = memoryPair(reactor)
    b.start(Recorder())
    opening: Deferred[Stream] = Deferred()
    client = RecordingClient()
    connector = Connector(reactor, client, lambda: opening, destination="somewhere")
    reactor.iterate()
    assert connector.transport is None
    opening.callback(a)
    assert connector.state == "connected"
    assert connector.transport is a
    assert connector.getDestination() == "somewhere"
    assert client.protocols[0].events == ["made"]


def test_streamThatComesTooLateIsClosed(reactor: Reactor) -> None:
    a, _ = memoryPair(reactor)
    opening: Deferred[Stream] = Deferred(lambda _: None)
    client = RecordingClient()
    connector = Connector(reactor, client, lambda: opening, destination="somewhere")
    reactor.iterate()
    connector.stopConnecting()
    runUntil(reactor, lambda: client.failed)
    assert client.failed[0].check(error.UserError)
    channel: Any = a.channel
    if not opening.called:
        opening.callback(a)
        assert channel.calls == ["close"]
