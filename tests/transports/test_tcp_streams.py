"""The life of a TCP connection: bytes in order, pausing, half-close, limits, and each of its ends, on every backend."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import socket
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from calandria import Factory, Protocol, Reactor, error
from tests.helpers import Background, connectTo, receiveAll, receiveExactly, runUntil
from tests.recorders import Echo, HalfCloseRecorder, Recorder, RecordingClient, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from calandria.failure import Failure
    from tests.helpers import LogCapture

MEBI = 1 << 20


class Pair:
    """A connection: the server's protocol, and the test's own socket at the other end."""

    def __init__(self, reactor: Reactor, protocolClass: Callable[[], Protocol] = Recorder, **limits: Any) -> None:
        self.reactor = reactor
        self.factory = RecordingServer(protocolClass)
        for name, value in limits.items():
            setattr(self.factory, name, value)
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        host: Any = self.port.getHost()
        self.peer = connectTo(host.port)
        runUntil(reactor, lambda: self.factory.protocols)
        self.protocol: Any = self.factory.protocols[0]
        self.transport: Any = self.protocol.transport

    def until(self, predicate: Callable[[], object]) -> None:
        runUntil(self.reactor, predicate)

    def reset(self) -> None:
        """The peer is gone at once."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def untilLost(self) -> Failure:
        self.until(lambda: self.protocol.lost)
        reason: Failure = self.protocol.lost
        return reason


# Bytes.


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_writeTakesEveryKindOfBytes(reactor: Reactor, kind: type) -> None:
    pair = Pair(reactor)
    data = bytearray(b"abc")
    pair.transport.write(kind(data))
    data[0] = 120
    pair.transport.loseConnection()
    call = Background(receiveAll, pair.peer)
    pair.until(call)
    assert call.result() == b"abc", "a mutable buffer is copied"
    pair.peer.close()


@pytest.mark.parametrize("bad", ["text", 5, None, ["a"], [1]])
def test_writeRefusesEverythingElseAtTheCall(reactor: Reactor, bad: Any) -> None:
    pair = Pair(reactor)
    with pytest.raises(TypeError, match=f"bytes, bytearray or memoryview, not {type(bad).__name__}"):
        pair.transport.write(bad)
    if isinstance(bad, str):
        with pytest.raises(TypeError, match="writeSequence takes"):
            pair.transport.writeSequence(bad)
    assert pair.transport.bufferedBytes == 0
    pair.peer.close()


def test_writeSequenceTakesAGenerator(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.write(b"0")
    pair.transport.writeSequence(piece for piece in (b"1", bytearray(b"2"), memoryview(b"3")))
    pair.transport.write(b"4")
    pair.transport.loseConnection()
    call = Background(receiveAll, pair.peer)
    pair.until(call)
    assert call.result() == b"01234"
    pair.peer.close()


def test_writesOfOneCallbackLeaveTogether(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.peer.settimeout(0)
    pair.transport.write(b"one")
    pair.transport.write(b"two")
    assert pair.transport.bufferedBytes == 6
    with pytest.raises(BlockingIOError):
        pair.peer.recv(10)
    reactor.iterate()
    assert pair.peer.recv(10) == b"onetwo"
    assert pair.transport.bufferedBytes == 0
    pair.peer.close()


def test_sumOverPartialWrites(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    generator = random.Random(7)
    sent = hashlib.sha256()
    total = 0
    while total < 4 * MEBI:
        data = generator.randbytes(generator.choice([1, 10, 1000, 70_000, 300_000]))
        if generator.random() < 0.5:
            pair.transport.write(data)
        else:
            middle = len(data) // 2
            pair.transport.writeSequence([data[:middle], data[middle:]])
        sent.update(data)
        total += len(data)
    assert pair.transport.bufferedBytes == total
    pair.transport.loseConnection()

    def read() -> str:
        received = hashlib.sha256()
        while data := pair.peer.recv(generator.choice([1, 1000, 65536])):
            received.update(data)
        return received.hexdigest()

    call = Background(read)
    pair.until(call)
    assert call.result() == sent.hexdigest()
    assert pair.untilLost().type is error.ConnectionDone
    pair.peer.close()


@pytest.mark.parametrize("sizes", [[65536, 36864], [300, 65536], [20_000] * 100, [70_000] * 300, [9000] * 63 + [1] * 3])
def test_longPieces_arriveInOrder(reactor: Reactor, sizes: list[int]) -> None:
    """They are sent as they are, not copied together; also where the peer takes a part of them at a time."""
    pair = Pair(reactor)
    pieces = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    for piece in pieces:
        pair.transport.write(piece)
    call = Background(receiveExactly, pair.peer, sum(sizes))
    pair.until(call)
    assert call.result() == b"".join(pieces)
    assert pair.transport.bufferedBytes == 0
    pair.peer.close()


def test_aWriterThatNeverYieldsCostsWhatItWrites(reactor: Reactor) -> None:
    pair = Pair(reactor)
    piece = bytes(65536)
    count = 1024
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(count):
            pair.transport.write(bytearray(piece))
        assert pair.transport.bufferedBytes == count * len(piece)
        call = Background(receiveExactlyCounted, pair.peer, count * len(piece))
        pair.until(call)
        assert call.result() == count * len(piece)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1.1 * count * len(piece)
    assert after - before < MEBI
    pair.peer.close()


def receiveExactlyCounted(peer: socket.socket, count: int) -> int:
    received = 0
    while received < count and (data := peer.recv(65536)):
        received += len(data)
    return received


def test_manySmallWritesAreNotQuadratic(reactor: Reactor) -> None:
    pair = Pair(reactor)
    count = 200_000
    for _ in range(count):
        pair.transport.write(b"0123456789")
    call = Background(receiveExactlyCounted, pair.peer, 10 * count)
    pair.until(call)
    assert call.result() == 10 * count
    pair.peer.close()


def test_inBandBytesSurviveUrgentOnes(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.peer.send(b"ab")
    pair.peer.send(b"!", socket.MSG_OOB)
    pair.peer.send(b"cd")
    pair.peer.shutdown(socket.SHUT_WR)
    assert pair.untilLost().type is error.ConnectionDone
    assert bytes(pair.protocol.received) == b"abcd"
    pair.peer.close()


# Ends.


def test_endOfThePeerIsClean(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.peer.sendall(b"last")
    pair.peer.close()
    assert pair.untilLost().type is error.ConnectionDone
    assert pair.protocol.events == ["made", "data", "lost"]
    assert pair.transport.disconnected
    assert not pair.transport.connected


def test_whatWasWrittenIsDeliveredToAPeerThatHasEndedItsDirection(reactor: Reactor) -> None:
    class Answer(Recorder):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(bytes(8 * MEBI))

    pair = Pair(reactor, Answer)
    pair.peer.sendall(b"?")
    pair.peer.shutdown(socket.SHUT_WR)
    call = Background(receiveAll, pair.peer)
    pair.until(call)
    assert len(call.result()) == 8 * MEBI
    assert pair.untilLost().type is error.ConnectionDone
    pair.peer.close()


def test_bytesBeforeAResetAreDelivered(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.peer.sendall(b"x" * 100)
    pair.reset()
    reason = pair.untilLost()
    assert len(pair.protocol.received) == 100
    assert reason.type is error.ConnectionLost
    lost: Any = reason.value
    assert lost.osError.errno == errno.ECONNRESET


def test_aFailedSendEndsOnlyTheWriting(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.pauseProducing()
    pair.peer.sendall(b"before the reset")
    pair.reset()
    # The first send meets the reset (and takes the kernel's only report of it), those after it a broken pipe.
    for _ in range(3):
        pair.transport.write(b"into the void")
        reactor.iterate(0.01)
    assert pair.protocol.events == ["made"]
    pair.transport.resumeProducing()
    reason = pair.untilLost()
    assert bytes(pair.protocol.received) == b"before the reset"
    assert reason.check(error.ConnectionLost)
    lost: Any = reason.value
    assert lost.osError is not None


def test_aPausedConnectionThatIsResetNeitherSpinsNorForgets(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.pauseProducing()
    pair.peer.sendall(b"100")
    pair.reset()
    for _ in range(3):
        reactor.iterate(0.01)
    polls = countPolls(reactor, 0.2)
    assert polls <= 20
    pair.transport.resumeProducing()
    assert pair.untilLost().check(error.ConnectionLost)
    assert bytes(pair.protocol.received) == b"100"


def countPolls(reactor: Reactor, seconds: float) -> int:
    """How often the reactor wakes in so many seconds."""
    turns = 0
    end = reactor.seconds() + seconds
    while (left := end - reactor.seconds()) > 0:
        reactor.iterate(left)
        turns += 1
    return turns


def test_bothDirectionsEndedWhilePausedDoesNotSpin(reactor: Reactor) -> None:
    pair = Pair(reactor, HalfCloseRecorder)
    pair.transport.pauseProducing()
    pair.transport.loseWriteConnection()
    pair.until(lambda: "writeLost" in pair.protocol.events)
    pair.peer.close()
    assert countPolls(reactor, 0.2) <= 20
    pair.transport.resumeProducing()
    assert pair.untilLost().type is error.ConnectionDone
    assert pair.protocol.events == ["made", "writeLost", "readLost", "lost"]


def test_pausedInConnectionMade(reactor: Reactor) -> None:
    class Paused(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.pauseProducing()

    pair = Pair(reactor, Paused)
    pair.peer.sendall(b"early")
    assert countPolls(reactor, 0.1) <= 20
    assert pair.protocol.events == ["made"]
    pair.transport.resumeProducing()
    pair.until(lambda: pair.protocol.received == b"early")
    pair.peer.close()


def test_pauseAndResumeManyTimesLosesNothing(reactor: Reactor) -> None:
    class Flickering(Recorder):
        def dataReceived(self, data: bytes) -> None:
            assert not self.paused
            super().dataReceived(data)
            self.transport.pauseProducing()
            self.paused = True
            reactor.callLater(0, self.resume)

        def resume(self) -> None:
            self.paused = False
            self.transport.resumeProducing()

        paused = False

    pair = Pair(reactor, Flickering)
    data = os.urandom(4 * MEBI)
    call = Background(pair.peer.sendall, data)
    pair.until(lambda: len(pair.protocol.received) == len(data))
    call.result()
    assert bytes(pair.protocol.received) == data
    pair.peer.close()


# Half-close.


def test_halfCloseBothWays(reactor: Reactor) -> None:
    class Answering(HalfCloseRecorder):
        def readConnectionLost(self) -> None:
            super().readConnectionLost()
            self.transport.write(bytes(10 * MEBI))
            self.transport.loseWriteConnection()

    pair = Pair(reactor, Answering)
    pair.peer.sendall(b"request")
    pair.peer.shutdown(socket.SHUT_WR)
    call = Background(receiveAll, pair.peer)
    pair.until(call)
    assert len(call.result()) == 10 * MEBI
    assert pair.untilLost().type is error.ConnectionDone
    assert pair.protocol.events == ["made", "data", "readLost", "writeLost", "lost"]
    pair.peer.close()


def test_weEndOurDirectionFirst(reactor: Reactor) -> None:
    pair = Pair(reactor, HalfCloseRecorder)
    pair.transport.write(b"all of it")
    pair.transport.loseWriteConnection()
    pair.transport.loseWriteConnection()
    pair.transport.write(b" - and while it is being flushed")
    call = Background(receiveAll, pair.peer)
    pair.until(call)
    assert call.result() == b"all of it - and while it is being flushed"
    pair.transport.write(b"too late")
    pair.peer.sendall(b"answer")
    pair.peer.close()
    assert pair.untilLost().type is error.ConnectionDone
    assert pair.protocol.events == ["made", "writeLost", "data", "readLost", "lost"]


def test_loseConnectionAfterTheHalfClose(reactor: Reactor) -> None:
    pair = Pair(reactor, HalfCloseRecorder)
    pair.transport.loseWriteConnection()
    pair.until(lambda: "writeLost" in pair.protocol.events)
    pair.transport.loseConnection()
    assert "lost" not in pair.protocol.events
    assert pair.untilLost().type is error.ConnectionDone
    pair.peer.close()


# loseConnection and abortConnection.


def test_loseConnectionFlushes(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.write(b"12" * MEBI)
    pair.transport.loseConnection()
    pair.transport.write(b"345")
    assert pair.transport.disconnecting
    call = Background(receiveAll, pair.peer)
    pair.until(call)
    assert call.result() == b"12" * MEBI + b"345"
    assert pair.untilLost().type is error.ConnectionDone
    pair.transport.write(b"nobody")
    pair.transport.loseConnection()
    pair.transport.abortConnection()
    assert pair.protocol.events == ["made", "lost"]
    pair.peer.close()


def test_nothingIsReceivedAfterLoseConnection(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.write(bytes(8 * MEBI))
    pair.transport.loseConnection()
    pair.peer.sendall(b"unwanted")
    reactor.iterate(0.01)
    assert pair.protocol.events == ["made"]
    call = Background(receiveAll, pair.peer)
    pair.until(call)
    assert len(call.result()) == 8 * MEBI
    pair.peer.close()
    pair.untilLost()


def test_anAnswerReachesAPeerThatKeepsSending(reactor: Reactor) -> None:
    class Answer(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.write(bytes(MEBI))
            self.transport.loseConnection()

    pair = Pair(reactor, Answer)

    def talk() -> int:
        pair.peer.sendall(b"x" * 1000)
        received = 0
        # One byte more, for each piece that came: there is always input that nobody reads.
        while data := pair.peer.recv(10_000):
            received += len(data)
            pair.peer.sendall(b"more")
        return received

    call = Background(talk)
    pair.until(call)
    assert call.result() == MEBI, "every byte, and then an end of stream instead of a reset"
    assert pair.untilLost().type is error.ConnectionDone
    pair.peer.close()
    pair.until(lambda: reactor.lingering == 0)


def test_lingeringIsCountedAndDoesNotDelayTheLoss(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.peer.sendall(b"unread")
    pair.transport.pauseProducing()
    pair.transport.loseConnection()
    assert pair.untilLost().type is error.ConnectionDone
    assert reactor.lingering == 1
    assert receiveAll(pair.peer) == b"", "an end of stream at once"
    assert countPolls(reactor, 0.1) <= 20
    pair.peer.close()
    pair.until(lambda: reactor.lingering == 0)


def test_lingeringEndsWithoutProgress(reactor: Reactor) -> None:
    pair = Pair(reactor, closeTimeout=0.05)
    pair.peer.sendall(b"unread")
    pair.transport.pauseProducing()
    pair.transport.loseConnection()
    pair.untilLost()
    assert reactor.lingering == 1
    pair.until(lambda: reactor.lingering == 0)
    assert receiveAll(pair.peer) == b""
    pair.peer.close()


def test_lingeringEndsWithTheReactor(reactor: Reactor) -> None:
    pair = Pair(reactor, closeTimeout=None)
    pair.peer.sendall(b"unread")
    pair.transport.pauseProducing()
    pair.transport.loseConnection()
    pair.untilLost()
    assert reactor.lingering == 1
    reactor.callLater(0, reactor.stop)
    reactor.run(installSignalHandlers=False)
    assert reactor.lingering == 0
    pair.peer.close()


def test_aPeerThatTakesNothingIsAbortedInTheEnd(reactor: Reactor) -> None:
    pair = Pair(reactor, closeTimeout=0.1)
    pair.transport.write(bytes(64 * MEBI))
    pair.transport.loseConnection()
    reason = pair.untilLost()
    assert reason.type is error.ConnectionAborted
    with pytest.raises(ConnectionResetError):
        receiveAll(pair.peer)
    pair.peer.close()


def test_aPeerThatTakesALittleIsNotAborted(reactor: Reactor) -> None:
    pair = Pair(reactor, closeTimeout=0.3)
    size = 24 * MEBI
    pair.transport.write(bytes(size))
    pair.transport.loseConnection()
    began = reactor.seconds()
    received = 0

    def read() -> None:
        nonlocal received
        received += len(pair.peer.recv(MEBI // 8, socket.MSG_DONTWAIT))
        if reactor.seconds() - began < 0.6:
            reactor.callLater(0.02, read)

    reactor.callLater(0, read)
    pair.until(lambda: reactor.seconds() - began > 0.7)
    assert pair.protocol.lost is None
    call = Background(receiveAll, pair.peer)
    pair.until(call)
    assert received + len(call.result()) == size
    pair.peer.close()
    pair.untilLost()


def test_abortResetsAndDrops(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.write(bytes(MEBI))
    pair.transport.abortConnection()
    assert pair.protocol.events == ["made"]
    assert pair.transport.bufferedBytes == 0
    reactor.iterate()
    assert pair.protocol.lost.type is error.ConnectionAborted
    with pytest.raises(ConnectionResetError):
        receiveAll(pair.peer)
    pair.peer.close()


def test_abortAfterLoseConnection(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.write(bytes(64 * MEBI))
    pair.transport.loseConnection()
    reactor.iterate()
    pair.transport.abortConnection()
    assert pair.untilLost().type is error.ConnectionAborted
    assert pair.protocol.events == ["made", "lost"]
    pair.peer.close()


# Limits.


def test_limitsAreTheFactorysAndMayBeChanged(reactor: Reactor) -> None:
    pair = Pair(reactor, closeTimeout=5.0, maxBufferedBytes=1234)
    assert (pair.transport.closeTimeout, pair.transport.maxBufferedBytes) == (5.0, 1234)
    assert (Factory.closeTimeout, Factory.maxBufferedBytes) == (60.0, None)
    pair.peer.close()


def test_tooManyBufferedBytesAbort(reactor: Reactor) -> None:
    pair = Pair(reactor, maxBufferedBytes=100_000)
    pair.transport.write(bytes(100_000))
    assert not pair.transport.disconnecting
    pair.transport.write(b"x")
    assert pair.transport.disconnecting
    assert pair.untilLost().type is error.BufferOverflow
    pair.peer.close()


# Exceptions.


@pytest.mark.parametrize("method", ["connectionMade", "dataReceived", "readConnectionLost", "writeConnectionLost"])
def test_anExceptionEndsThatConnectionWithItself(reactor: Reactor, logs: LogCapture, method: str) -> None:
    class Raising(HalfCloseRecorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            if method == "writeConnectionLost":
                self.transport.loseWriteConnection()

    def fail(self: Raising, *args: object) -> None:
        if method == "connectionMade":
            Raising.__base__.connectionMade(self)  # type: ignore[union-attr]  # it has a base
        raise ValueError(method)

    setattr(Raising, method, fail)
    bystander = Pair(reactor, Echo)
    factory = RecordingServer(Raising)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    host: Any = port.getHost()
    with connectTo(host.port) as peer:
        if method == "dataReceived":
            peer.sendall(b"x")
        elif method == "readConnectionLost":
            peer.shutdown(socket.SHUT_WR)
        runUntil(reactor, lambda: factory.protocols and factory.protocols[0].lost)
        reason = factory.protocols[0].lost
        assert reason.type is ValueError
        assert method in reason.getTraceback()
        assert factory.protocols[0].events.count("lost") == 1
        if method == "writeConnectionLost":
            assert receiveAll(peer) == b"", "our direction had ended before"
        else:
            with pytest.raises(ConnectionResetError):
                receiveAll(peer)
    errors = logs.takeErrors()
    assert len(errors) == 1
    assert method in errors[0].getMessage() or "Raising" in errors[0].getMessage()
    bystander.peer.sendall(b"still")
    call = Background(receiveExactly, bystander.peer, 5)
    runUntil(reactor, call)
    assert call.result() == b"still"
    bystander.peer.close()


def test_anExceptionInConnectionLostIsLoggedAndNothingElse(reactor: Reactor, logs: LogCapture) -> None:
    class Raising(Recorder):
        def connectionLost(self, reason: Failure) -> None:
            super().connectionLost(reason)
            raise ValueError("in connectionLost")

    server = RecordingServer()
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    host: Any = port.getHost()
    client = RecordingClient(Raising)
    connector = reactor.connectTCP("127.0.0.1", host.port, client)
    runUntil(reactor, lambda: server.protocols)
    server.protocols[0].transport.loseConnection()
    runUntil(reactor, lambda: client.lost)
    assert connector.state == "disconnected"
    assert client.events[-1] == "stop"
    assert len(logs.takeErrors()) == 1


ACTIONS: dict[str, Callable[[Any], object]] = {
    "loseConnection": lambda self: self.transport.loseConnection(),
    "abortConnection": lambda self: self.transport.abortConnection(),
    "loseWriteConnection": lambda self: self.transport.loseWriteConnection(),
    "stopListening": lambda self: self.factory.port.stopListening(),
    "stop": lambda self: self.transport.reactor.stop() if self.transport.reactor.running else None,
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "where",
    ["connectionMade", "dataReceived", "readConnectionLost", "resumeProducing", "pauseProducing", "connectionLost"],
)
def test_closingFromInsideEveryCallback(reactor: Reactor, action: str, where: str) -> None:
    """Made once, lost once and last, nothing nested, wherever the end is asked for."""

    class Closing(HalfCloseRecorder):
        depth = 0
        acted = False
        depths: ClassVar[set[int]] = set()

        def enter(self, name: str) -> None:
            self.depth += 1
            self.depths.add(self.depth)
            if name == where and not self.acted:
                self.acted = True
                ACTIONS[action](self)
                # A producer that never ends would keep a closing connection open.
                reactor.callLater(0, self.transport.unregisterProducer)

        def connectionMade(self) -> None:
            super().connectionMade()
            self.enter("connectionMade")
            if where in ("resumeProducing", "pauseProducing"):
                self.transport.registerProducer(self, True)
                self.depth -= 1
                self.transport.write(bytes(100_000))
                self.depth += 1
            self.depth -= 1

        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.enter("dataReceived")
            self.depth -= 1

        def readConnectionLost(self) -> None:
            super().readConnectionLost()
            self.enter("readConnectionLost")
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self.depth -= 1

        def pauseProducing(self) -> None:
            self.enter("pauseProducing")
            self.depth -= 1

        def resumeProducing(self) -> None:
            self.enter("resumeProducing")
            self.depth -= 1

        def stopProducing(self) -> None:
            pass

        def connectionLost(self, reason: Failure) -> None:
            super().connectionLost(reason)
            self.enter("connectionLost")
            self.depth -= 1

    Closing.depths = set()
    factory: Any = RecordingServer(Closing)
    factory.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    port = factory.port.getHost().port

    def talk() -> None:
        try:
            with connectTo(port) as peer:
                peer.sendall(b"data")
                receiveExactlyCounted(peer, 1 if where == "resumeProducing" else 0)
                peer.shutdown(socket.SHUT_WR)
                receiveAll(peer)
        except OSError:
            pass

    call = Background(talk)

    def ended() -> bool:
        return bool(factory.protocols and factory.protocols[0].lost)

    def look() -> None:
        if ended() and reactor.running:
            with contextlib.suppress(error.ReactorNotRunning):
                reactor.stop()
        elif reactor.running:
            reactor.callLater(0.001, look)

    reactor.callLater(0, look)
    reactor.run(installSignalHandlers=False)
    if not ended():
        runUntil(reactor, ended)
    call.result()
    (protocol,) = factory.protocols
    assert protocol.events[0] == "made"
    assert protocol.events[-1] == "lost"
    assert protocol.events.count("made") == protocol.events.count("lost") == 1
    assert Closing.depths == {1}, "no callback inside another one"


# Protocols.


def test_anotherProtocolMayTakeOver(reactor: Reactor) -> None:
    second = Recorder()

    class First(Recorder):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.protocol = second
            second.makeConnection(self.transport)

    pair = Pair(reactor, First)
    pair.peer.sendall(b"1")
    pair.until(lambda: second.events)
    pair.peer.sendall(b"2")
    pair.peer.close()
    pair.until(lambda: second.lost)
    assert second.events == ["made", "data", "lost"]
    assert bytes(second.received) == b"2"
    assert pair.protocol.events == ["made", "data"]


def test_dataReceivedMayBeReplacedOnAnInstance(reactor: Reactor) -> None:
    pair = Pair(reactor)
    got: list[bytes] = []
    pair.protocol.dataReceived = got.append
    pair.peer.sendall(b"here")
    pair.until(lambda: got)
    assert got == [b"here"]
    assert pair.protocol.events == ["made"]
    pair.peer.close()


# Options and addresses.


def test_optionsAndAddressesAnswerAfterTheLossToo(reactor: Reactor) -> None:
    pair = Pair(reactor)
    transport = pair.transport
    assert transport.getTcpNoDelay() is True
    assert transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    transport.setTcpNoDelay(False)
    assert not transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert transport.getTcpKeepAlive() is False
    transport.setTcpKeepAlive(True)
    assert transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    host, peer = transport.getHost(), transport.getPeer()
    assert (host.host, host.port) == ("127.0.0.1", pair.port.getHost().port)
    assert (peer.host, peer.port) == pair.peer.getsockname()
    pair.peer.close()
    pair.untilLost()
    assert (transport.getHost(), transport.getPeer()) == (host, peer)
    assert (transport.getTcpNoDelay(), transport.getTcpKeepAlive()) == (False, True)
    transport.setTcpNoDelay(True)
    transport.setTcpKeepAlive(False)


def test_foreignCloseLosesOnlyThatConnection(reactor: Reactor) -> None:
    victim, bystander = Pair(reactor), Pair(reactor, Echo)
    os.close(victim.transport.fileno())
    victim.transport.write(b"notice")
    assert victim.untilLost().type is error.ConnectionFdescWentAway
    bystander.peer.sendall(b"alive")
    call = Background(receiveExactly, bystander.peer, 5)
    runUntil(reactor, call)
    assert call.result() == b"alive"
    victim.peer.close()
    bystander.peer.close()


def test_readInterestComesAndGoesWithoutSystemCallsWithinATurn(reactor: Reactor) -> None:
    pair = Pair(reactor)
    told: list[tuple[int, int]] = []
    watch = reactor.backend.watch
    fd = pair.transport.fileno()

    def remember(number: int, interest: int) -> None:
        told.append((number, interest))
        watch(number, interest)

    descriptors: Any = reactor.descriptors
    descriptors._watch = remember  # what the kernel is told, seen from outside
    pair.transport.pauseProducing()
    pair.transport.resumeProducing()
    reactor.iterate()
    assert told == []
    pair.transport.pauseProducing()
    reactor.iterate()
    assert told == [(fd, 0)]
    pair.peer.close()


def test_writeInterestGoesWithTheLastByte(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.write(bytes(32 * MEBI))
    reactor.iterate()
    assert reactor.getWriters() == [pair.transport]
    call = Background(receiveExactlyCounted, pair.peer, 32 * MEBI)
    pair.until(lambda: pair.transport.bufferedBytes == 0)
    assert reactor.getWriters() == []
    pair.until(call)
    assert countPolls(reactor, 0.1) <= 20
    pair.peer.close()


def test_roundTripsOfManyConnectionsAtOnce(reactor: Reactor) -> None:
    factory = RecordingServer(Echo)
    port = reactor.listenTCP(0, factory, backlog=500, interface="127.0.0.1")
    host: Any = port.getHost()

    def talk() -> list[bytes]:
        peers = [connectTo(host.port) for _ in range(300)]
        for number, peer in enumerate(peers):
            peer.sendall(b"%d" % number)
        answers = [receiveExactly(peer, len(str(number))) for number, peer in enumerate(peers)]
        for peer in peers:
            peer.close()
        return answers

    call = Background(talk)
    runUntil(reactor, call)
    assert call.result() == [b"%d" % number for number in range(300)]
    runUntil(reactor, lambda: all(protocol.lost for protocol in factory.protocols))
