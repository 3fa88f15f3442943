"""Producers, back-pressure and fairness of TCP connections: nobody is starved and nobody fills the memory."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from calandria import error
from tests.helpers import Background, connectTo, receiveAll, receiveExactly, runUntil, runWith
from tests.recorders import Echo, Recorder, RecordingServer
from tests.transports.test_tcp_ports import listen, number, reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from calandria import Protocol, Reactor
    from calandria.failure import Failure
    from tests.helpers import LogCapture

KIBI = 1024
HIGH = 64 * KIBI
LOW = 32 * KIBI


class Push:
    """A push producer that notes its calls and what waited at each."""

    def __init__(self, transport: Any, events: list[str] | None = None) -> None:
        self.transport = transport
        self.events: list[str] = [] if events is None else events
        self.waited: list[int] = []
        self.paused = False

    def pauseProducing(self) -> None:
        self.note("pause")
        self.paused = True

    def resumeProducing(self) -> None:
        self.note("resume")
        self.paused = False

    def stopProducing(self) -> None:
        self.note("stopProducing")

    def note(self, event: str) -> None:
        self.events.append(event)
        self.waited.append(self.transport.bufferedBytes)


class Pull(Push):
    """A pull producer with `pieces` to give, each `size` bytes long; it unregisters itself after the last."""

    def __init__(self, transport: Any, pieces: int, size: int = 10, events: list[str] | None = None) -> None:
        super().__init__(transport, events)
        self.pieces = pieces
        self.size = size

    def resumeProducing(self) -> None:
        self.note("resume")
        if self.pieces:
            self.pieces -= 1
            self.transport.write(bytes(self.size))
        else:
            self.transport.unregisterProducer()


class Pair:
    """A connection: the server's transport, and the test's own socket. `fill` is what makes its buffers full."""

    def __init__(self, reactor: Reactor, protocolClass: Callable[[], Protocol] = Recorder, **limits: Any) -> None:
        self.reactor = reactor
        self.factory = RecordingServer(protocolClass)
        for name, value in limits.items():
            setattr(self.factory, name, value)
        self.peer = connectTo(number(listen(reactor, self.factory)))
        runUntil(reactor, lambda: self.factory.protocols)
        self.protocol: Any = self.factory.protocols[0]
        self.transport: Any = self.protocol.transport

    def until(self, predicate: Callable[[], object]) -> None:
        runUntil(self.reactor, predicate)

    def fill(self) -> None:
        """Until the kernel takes no more and a buffer of ours waits for the peer."""
        self.transport.write(bytes(8 * KIBI * KIBI))
        before = -1
        while self.transport.bufferedBytes != before:
            before = self.transport.bufferedBytes
            self.reactor.iterate(0.01)
        assert before > 0

    def drain(self, count: int) -> None:
        """Take so many bytes while the reactor runs."""
        assert len(runWith(self.reactor, receiveExactly, self.peer, count)) == count

    def untilLost(self) -> Failure:
        self.until(lambda: self.protocol.lost)
        reason: Failure = self.protocol.lost
        return reason


# Push.


def test_aPushProducerIsPausedOnceAndResumedOnce(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.fill()
    producer = Push(pair.transport)
    pair.transport.registerProducer(producer, True)
    assert producer.events == [], "it starts unpaused; only a write finds out that too much waits"
    for _ in range(5):
        pair.transport.write(b"more")
    assert producer.events == ["pause"]
    call = Background(receiveAll, pair.peer)
    pair.until(lambda: pair.transport.bufferedBytes == 0)
    assert producer.events == ["pause", "resume"]
    assert producer.waited[1] <= LOW
    pair.transport.unregisterProducer()
    pair.transport.loseConnection()
    pair.untilLost()
    pair.until(call)
    pair.peer.close()


def test_theHighMarkIsSixtyFourKibibytes(reactor: Reactor) -> None:
    pair = Pair(reactor)
    producer = Push(pair.transport)
    pair.transport.registerProducer(producer, True)
    pair.transport.write(bytes(HIGH))
    assert producer.events == []
    pair.transport.write(b"x")
    assert producer.events == ["pause"], "from inside write"
    assert producer.waited == [HIGH + 1]
    call = Background(receiveExactly, pair.peer, HIGH + 1)
    pair.until(lambda: "resume" in producer.events)
    pair.until(call)
    assert producer.events == ["pause", "resume"]
    pair.peer.close()
    pair.untilLost()
    assert producer.events == ["pause", "resume", "stopProducing"]


def test_resumedBelowTheLowMarkAndNotBefore(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.fill()
    producer = Push(pair.transport)
    pair.transport.registerProducer(producer, True)
    pair.transport.write(b"x")
    while pair.transport.bufferedBytes > LOW:
        assert producer.events == ["pause"]
        pair.drain(min(64 * KIBI, pair.transport.bufferedBytes))
        for _ in range(3):
            reactor.iterate(0)
    pair.until(lambda: "resume" in producer.events)
    assert producer.events == ["pause", "resume"]
    assert producer.waited[-1] <= LOW
    pair.transport.unregisterProducer()
    pair.transport.abortConnection()
    pair.untilLost()
    pair.peer.close()


def test_theWatermarkMayBeCrossedAgainAndAgain(reactor: Reactor) -> None:
    pair = Pair(reactor)
    producer = Push(pair.transport)
    pair.transport.registerProducer(producer, True)
    total = 0
    for _ in range(5):
        while not producer.paused:
            pair.transport.write(bytes(10 * KIBI))
            total += 10 * KIBI
            assert pair.transport.bufferedBytes <= HIGH + 10 * KIBI
        call = Background(receiveExactly, pair.peer, total)
        total = 0
        pair.until(call)
        pair.until(lambda: not producer.paused)
    assert producer.events == ["pause", "resume"] * 5
    pair.transport.unregisterProducer()
    pair.peer.close()
    pair.untilLost()


def test_writeSequencePausesToo(reactor: Reactor) -> None:
    pair = Pair(reactor)
    producer = Push(pair.transport)
    pair.transport.registerProducer(producer, True)
    pair.transport.writeSequence([bytes(HIGH // 2), bytes(HIGH)])
    assert producer.events == ["pause"]
    pair.transport.unregisterProducer()
    pair.peer.close()
    pair.untilLost()


def test_aProducerThatWritesWhenResumed(reactor: Reactor) -> None:
    """Everything arrives, in order, and never more than the high mark and one write waits."""

    class Source(Push):
        highest = 0
        sent = 0

        def resumeProducing(self) -> None:
            super().resumeProducing()
            self.produce()

        def produce(self) -> None:
            while not self.paused and self.sent < 16 * KIBI * KIBI:
                self.sent += 10_000
                self.transport.write(bytes(10_000))
                self.highest = max(self.highest, self.transport.bufferedBytes)
            if self.sent >= 16 * KIBI * KIBI:
                self.transport.unregisterProducer()
                self.transport.loseConnection()

    pair = Pair(reactor)
    source = Source(pair.transport)
    pair.transport.registerProducer(source, True)
    source.produce()
    data = runWith(reactor, receiveAll, pair.peer)
    assert len(data) == source.sent
    assert source.highest <= HIGH + 10_000
    assert pair.untilLost().type is error.ConnectionDone
    assert "stopProducing" not in source.events, "it had unregistered"
    pair.peer.close()


def test_aProducerThatUnregistersWhenItIsPaused(reactor: Reactor) -> None:
    class Shy(Push):
        def pauseProducing(self) -> None:
            super().pauseProducing()
            self.transport.unregisterProducer()

    pair = Pair(reactor)
    producer = Shy(pair.transport)
    pair.transport.registerProducer(producer, True)
    pair.transport.write(bytes(HIGH + 1))
    assert len(runWith(reactor, receiveExactly, pair.peer, HIGH + 1)) == HIGH + 1
    pair.until(lambda: pair.transport.bufferedBytes == 0)
    assert producer.events == ["pause"]
    second = Push(pair.transport)
    pair.transport.registerProducer(second, True)
    reactor.iterate(0)
    assert second.events == [], "the pause was the other one's"
    pair.peer.close()
    pair.untilLost()
    assert second.events == ["stopProducing"]


# Pull.


def test_aPullProducerIsAskedWheneverNothingWaits(reactor: Reactor) -> None:
    pair = Pair(reactor)
    producer = Pull(pair.transport, 5)
    pair.transport.registerProducer(producer, False)
    assert producer.events == ["resume"], "the first time from inside registerProducer"
    assert pair.transport.bufferedBytes == 10
    pair.drain(50)
    pair.until(lambda: len(producer.events) == 6)
    assert producer.waited == [0] * 6
    for _ in range(3):
        reactor.iterate(0)
    assert producer.events == ["resume"] * 6
    pair.peer.close()
    pair.untilLost()


def test_aPullProducerIsNeverPaused(reactor: Reactor) -> None:
    pair = Pair(reactor)
    size = 16 * KIBI * KIBI
    producer = Pull(pair.transport, 2, size=size)
    pair.transport.registerProducer(producer, False)
    for _ in range(5):
        reactor.iterate(0.01)
    assert producer.events == ["resume"], "not before everything has been sent"
    pair.drain(2 * size)
    pair.until(lambda: len(producer.events) == 3)
    assert producer.events == ["resume"] * 3
    pair.peer.close()
    pair.untilLost()


def test_aPullProducerLetsOthersRun(reactor: Reactor) -> None:
    """One piece per turn at the most, however fast the kernel takes them."""
    pair = Pair(reactor)
    producer = Pull(pair.transport, 1000, size=1)
    pair.transport.registerProducer(producer, False)
    for _ in range(10):
        before = len(producer.events)
        reactor.iterate(0)
        assert len(producer.events) - before <= 2
    pair.transport.unregisterProducer()
    pair.peer.close()
    pair.untilLost()


def test_aPullProducerThatWritesNothingDoesNotSpin(reactor: Reactor) -> None:
    """Exactly one write per resume is its duty (B.13); one that breaks it stops no bystander."""

    class Idle(Push):
        pass

    pair = Pair(reactor)
    producer = Idle(pair.transport)
    pair.transport.registerProducer(producer, False)
    for _ in range(20):
        reactor.iterate(0.005)
    assert len(producer.events) <= 25
    pair.transport.unregisterProducer()
    pair.peer.close()
    pair.untilLost()


# Registering.


@pytest.mark.parametrize("streaming", [True, False])
def test_onlyOneProducer(reactor: Reactor, streaming: bool) -> None:
    pair = Pair(reactor)
    first, second = Push(pair.transport), Push(pair.transport)
    pair.transport.registerProducer(first, True)
    with pytest.raises(RuntimeError, match="producer"):
        pair.transport.registerProducer(second, streaming)
    assert second.events == []
    pair.transport.unregisterProducer()
    pair.transport.unregisterProducer()  # nothing
    pair.transport.registerProducer(second, True)
    pair.peer.close()
    pair.untilLost()
    assert first.events == []
    assert second.events == ["stopProducing"]


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("end", ["lost", "aborting"])
def test_registeringOnALostConnection(reactor: Reactor, end: str, streaming: bool) -> None:
    pair = Pair(reactor)
    if end == "lost":
        pair.peer.close()
        pair.untilLost()
    else:
        pair.transport.abortConnection()
    producer = Push(pair.transport)
    pair.transport.registerProducer(producer, streaming)
    assert producer.events == ["stopProducing"], "from inside the call"
    pair.untilLost()
    reactor.iterate(0)
    assert producer.events == ["stopProducing"]
    pair.peer.close()


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("end", ["peer", "reset", "abort", "reactor"])
def test_stoppedOnceAndBeforeTheLoss(reactor: Reactor, end: str, streaming: bool) -> None:
    pair = Pair(reactor)
    pair.fill()
    producer = (
        Push(pair.transport, pair.protocol.events)
        if streaming
        else Pull(pair.transport, 0, events=pair.protocol.events)
    )
    pair.protocol.events.clear()
    if streaming:
        pair.transport.registerProducer(producer, True)
    else:
        # Asked for the first time now, and never again before it ends.
        producer.resumeProducing = lambda: producer.note("resume")  # type: ignore[method-assign]  # of this one
        pair.transport.registerProducer(producer, False)
        pair.protocol.events.clear()
    if end == "peer":
        pair.peer.close()
    elif end == "reset":
        reset(pair.peer)
    elif end == "abort":
        pair.transport.abortConnection()
        assert pair.protocol.events == [], "never from inside abortConnection"
    else:
        reactor.callLater(0, reactor.stop)
        reactor.run(installSignalHandlers=False)
    pair.untilLost()
    reactor.iterate(0)
    assert pair.protocol.events == ["stopProducing", "lost"]
    assert pair.transport.producer is None
    pair.peer.close()


@pytest.mark.parametrize("method", ["pauseProducing", "resumeProducing", "stopProducing"])
def test_aProducerThatRaises(reactor: Reactor, logs: LogCapture, method: str) -> None:
    """Nothing but that connection is lost, and the log says it once."""

    class Raising(Push):
        pass

    def fail(self: Raising) -> None:
        raise ValueError(method)

    setattr(Raising, method, fail)
    bystander = Pair(reactor, Echo)
    pair = Pair(reactor)
    producer = Raising(pair.transport)
    pair.transport.registerProducer(producer, True)
    if method == "pauseProducing":
        with pytest.raises(ValueError, match=method):
            pair.transport.write(bytes(2 * HIGH))  # synchronous, so it is the writer's
        pair.transport.abortConnection()
    elif method == "resumeProducing":
        pair.transport.write(bytes(2 * HIGH))
        call = Background(drainQuietly, pair.peer)
        pair.until(call)
    else:
        pair.peer.close()
    pair.untilLost()
    assert pair.protocol.events == ["made", "lost"]
    assert len(logs.takeErrors()) == (0 if method == "pauseProducing" else 1)
    bystander.peer.sendall(b"well")
    assert runWith(reactor, receiveExactly, bystander.peer, 4) == b"well"
    for each in (pair, bystander):
        each.peer.close()
    bystander.untilLost()


def drainQuietly(peer: socket.socket) -> None:
    """Read to whatever end it has."""
    try:
        receiveAll(peer)
    except ConnectionResetError:
        pass


# Closing.


def test_aClosingConnectionWaitsForItsProducer(reactor: Reactor) -> None:
    """A14: what the producer still writes is sent."""
    pair = Pair(reactor)
    producer = Push(pair.transport)
    pair.transport.registerProducer(producer, True)
    pair.transport.write(b"1")
    pair.transport.loseConnection()
    for _ in range(5):
        reactor.iterate(0.005)
    assert pair.protocol.lost is None
    pair.transport.write(b"2")
    for _ in range(5):
        reactor.iterate(0.005)
    assert pair.protocol.lost is None
    pair.transport.write(b"3")
    pair.transport.unregisterProducer()
    assert pair.protocol.lost is None, "in a later turn"
    assert runWith(reactor, receiveAll, pair.peer) == b"123"
    assert pair.untilLost().type is error.ConnectionDone
    assert producer.events == []
    pair.peer.close()


def test_aClosingConnectionWaitsForAPullProducer(reactor: Reactor) -> None:
    pair = Pair(reactor)
    producer = Pull(pair.transport, 20, size=10 * KIBI)
    pair.transport.registerProducer(producer, False)
    pair.transport.loseConnection()
    data = runWith(reactor, receiveAll, pair.peer)
    assert len(data) == 200 * KIBI
    assert pair.untilLost().type is error.ConnectionDone
    assert "stopProducing" not in producer.events
    pair.peer.close()


def test_unregisteringWhileClosingLetsItClose(reactor: Reactor) -> None:
    """C90, with nothing left to send."""
    pair = Pair(reactor)
    pair.transport.registerProducer(Push(pair.transport), True)
    pair.transport.loseConnection()
    for _ in range(3):
        reactor.iterate(0)
    assert pair.protocol.lost is None
    reactor.callLater(0, pair.transport.unregisterProducer)
    assert pair.untilLost().type is error.ConnectionDone
    pair.peer.close()


def test_stopConsuming(reactor: Reactor) -> None:
    pair = Pair(reactor)
    producer = Push(pair.transport)
    pair.transport.registerProducer(producer, True)
    pair.transport.write(b"all")
    pair.transport.stopConsuming()
    assert runWith(reactor, receiveAll, pair.peer) == b"all"
    assert pair.untilLost().type is error.ConnectionDone
    assert producer.events == []
    pair.peer.close()


def test_halfClosingWaitsForTheProducerToo(reactor: Reactor) -> None:
    pair = Pair(reactor)
    pair.transport.registerProducer(Pull(pair.transport, 3), False)
    pair.transport.loseWriteConnection()
    assert runWith(reactor, receiveAll, pair.peer) == bytes(30)
    assert pair.protocol.lost is None
    pair.peer.close()
    pair.untilLost()


def test_theWriterThatGoesOnWhileNotPausedEnds(reactor: Reactor) -> None:
    """A16: also on a connection that is lost, or about to be."""
    pair = Pair(reactor)
    producer = Push(pair.transport)
    pair.transport.registerProducer(producer, True)
    writes = 0
    while not producer.paused:
        pair.transport.write(bytes(KIBI))
        writes += 1
        assert writes <= 65
    assert writes == 65
    assert producer.events == ["pause"]
    pair.peer.close()
    pair.untilLost()
    assert producer.events.count("pause") == 1
    assert producer.events[-1] == "stopProducing"


def test_bufferedBytes(reactor: Reactor) -> None:
    pair = Pair(reactor)
    assert pair.transport.bufferedBytes == 0
    pair.transport.write(bytes(100))
    pair.transport.writeSequence([bytes(10), b"", bytes(1)])
    assert pair.transport.bufferedBytes == 111
    reactor.iterate(0)
    assert pair.transport.bufferedBytes == 0
    pair.fill()
    pair.transport.abortConnection()
    assert pair.transport.bufferedBytes == 0
    pair.untilLost()
    pair.peer.close()


def test_maxBufferedBytesWithAProducer(reactor: Reactor) -> None:
    pair = Pair(reactor, maxBufferedBytes=100 * KIBI)
    producer = Push(pair.transport, pair.protocol.events)
    pair.transport.registerProducer(producer, True)
    pair.transport.write(bytes(101 * KIBI))
    assert pair.transport.bufferedBytes == 0
    assert pair.untilLost().type is error.BufferOverflow
    assert pair.protocol.events[-2:] == ["stopProducing", "lost"]
    pair.peer.close()


# The transport as a producer: joined to another one.


def test_twoConnectionsJoinedByBackPressure(reactor: Reactor) -> None:
    """A proxy holds back the sender while the receiver does not read, and all arrives."""
    source, sink = Pair(reactor), Pair(reactor)
    sink.transport.registerProducer(source.transport, True)
    highest = 0

    def forward(data: bytes) -> None:
        nonlocal highest
        sink.transport.write(data)
        highest = max(highest, sink.transport.bufferedBytes)

    source.protocol.dataReceived = forward
    data = os.urandom(8 * KIBI * KIBI)
    sender = Background(source.peer.sendall, data)
    runUntil(reactor, lambda: not source.transport.reading)
    assert not sender(), "nobody reads, so it is held back"
    assert runWith(reactor, receiveExactly, sink.peer, len(data)) == data
    sender.result()
    assert highest <= 2 * HIGH
    source.peer.close()
    source.untilLost()
    sink.transport.unregisterProducer()
    sink.peer.close()
    sink.untilLost()


# Slow readers and fast senders beside others.


def test_slowReadersHarmNobody(reactor: Reactor) -> None:
    """S16: a hundred connections that nobody reads, each with an endless producer, and one that is read."""

    class Endless(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.registerProducer(self, True)
            self.paused = False
            self.resumeProducing()

        def resumeProducing(self) -> None:
            self.paused = False
            while not self.paused:
                self.transport.write(bytes(4 * KIBI))
                self.highest = max(self.highest, self.transport.bufferedBytes)

        def pauseProducing(self) -> None:
            self.paused = True

        def stopProducing(self) -> None:
            self.events.append("stopProducing")

        paused = True
        highest = 0

    factory = RecordingServer(Endless)
    port = listen(reactor, factory, backlog=200)
    slow = [connectTo(number(port)) for _ in range(100)]
    runUntil(reactor, lambda: len(factory.protocols) == 100)
    bystander = Pair(reactor, Echo)
    for _ in range(20):
        for peer in slow:
            peer.recv(KIBI)
        bystander.peer.sendall(b"quick")
        assert runWith(reactor, receiveExactly, bystander.peer, 5) == b"quick"
    for protocol in factory.protocols:
        assert protocol.highest <= HIGH + 4 * KIBI
        assert protocol.lost is None
    # They may be as slow as they like: nothing happens meanwhile.
    for _ in range(10):
        reactor.iterate(0)
    turns, end = 0, time.monotonic() + 0.2
    while (left := end - time.monotonic()) > 0:
        reactor.iterate(left)
        turns += 1
    assert turns <= 20
    for peer in slow:
        reset(peer)
    runUntil(reactor, lambda: all(protocol.lost for protocol in factory.protocols))
    assert all(protocol.events == ["made", "stopProducing", "lost"] for protocol in factory.protocols)
    bystander.peer.close()
    bystander.untilLost()


def test_aFirehoseAndManyOthers(reactor: Reactor) -> None:
    """S35: in each turn everybody who is ready is read, at most 4 times 64 KiB: no one's turn is taken."""
    counts: dict[int, int] = {}

    class Counting(Recorder):
        largest: ClassVar[int] = 0

        def dataReceived(self, data: bytes) -> None:
            counts[id(self)] = counts.get(id(self), 0) + 1
            Counting.largest = max(Counting.largest, len(data))
            if len(data) < KIBI:
                self.transport.write(data)

    Counting.largest = 0
    factory = RecordingServer(Counting)
    port = listen(reactor, factory, backlog=200)
    firehose = connectTo(number(port))
    runUntil(reactor, lambda: factory.protocols)
    others = [connectTo(number(port)) for _ in range(100)]
    runUntil(reactor, lambda: len(factory.protocols) == 101)
    ending = threading.Event()

    def spray() -> None:
        piece = bytes(256 * KIBI)
        while not ending.is_set():
            firehose.sendall(piece)

    fast = id(factory.protocols[0])
    call = Background(spray)
    most = 0
    try:
        for _ in range(50):
            for peer in others:
                peer.sendall(b"ping")
            counts.clear()
            reactor.iterate(0)
            assert counts.get(fast, 0) <= 4
            most = max(most, counts.get(fast, 0))
            slow = {who: times for who, times in counts.items() if who != fast}
            assert set(slow.values()) <= {1}
            if len(slow) < 100:
                reactor.iterate(0)  # what came between the look and the turn
                assert len([who for who in counts if who != fast]) == 100
            for peer in others:
                assert receiveExactly(peer, 4) == b"ping", "answered in the turn it was read in"
    finally:
        ending.set()
    runUntil(reactor, call)
    assert Counting.largest == 64 * KIBI
    assert most > 1, "a fast sender is not read in small sips either"
    for peer in (firehose, *others):
        peer.close()
    runUntil(reactor, lambda: all(protocol.lost for protocol in factory.protocols))
