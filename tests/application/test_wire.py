"""The services of calandria.protocols.wire over real sockets: what their RFCs say, and what they hold in memory."""

from __future__ import annotations

import calendar
import itertools
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from calandria.error import BufferOverflow, ConnectionDone
from calandria.protocols import wire
from tests.helpers import (
    DEADLINE,
    Background,
    connectTo,
    exchange,
    receiveAll,
    receiveExactly,
    runUntil,
    runWith,
)
from tests.recorders import Recorder, RecordingServer
from tests.transports.pipes import memoryPair

if TYPE_CHECKING:
    from collections.abc import Callable

    from calandria import Protocol, Reactor

KIB = 1024

# A push producer is paused when more than this waits.
HIGH = 64 * KIB


class Server:
    """A service listening on a port of its own; `lost` has the reason of each connection that ended."""

    def __init__(self, reactor: Reactor, build: Callable[[], Protocol]) -> None:
        self.reactor = reactor
        self.lost: list[Any] = []
        self.factory = RecordingServer(lambda: self._watched(build()))
        host: Any = reactor.listenTCP(0, self.factory, interface="127.0.0.1").getHost()
        self.port: int = host.port

    def _watched(self, protocol: Protocol) -> Protocol:
        inner = protocol.connectionLost

        def connectionLost(reason: Any) -> None:
            inner(reason)
            self.lost.append(reason.value)

        protocol.connectionLost = connectionLost  # type: ignore[method-assign]  # this one instance tells us too
        return protocol

    def accepted(self) -> Any:
        """The transport of the only connection."""
        runUntil(self.reactor, lambda: self.factory.protocols)
        (protocol,) = self.factory.protocols
        return protocol.transport

    def ended(self) -> None:
        """Wait until the only connection has ended as it should."""
        runUntil(self.reactor, lambda: self.lost)
        assert [type(reason) for reason in self.lost] == [ConnectionDone]


def slowClient(port: int) -> socket.socket:
    """A client whose kernel takes little for it before it reads."""
    peer = socket.socket()
    try:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
        peer.settimeout(DEADLINE)
        peer.connect(("127.0.0.1", port))
    except BaseException:
        peer.close()
        raise
    return peer


def peakOf(reactor: Reactor, transport: Any, turns: int) -> int:
    """The most that the transport held for its peer in any of some turns of the loop."""
    peak = 0
    left = itertools.count(turns, -1)

    def look() -> bool:
        nonlocal peak
        peak = max(peak, transport.bufferedBytes)
        return next(left) <= 0

    runUntil(reactor, look)
    return peak


# Echo


def test_echoSendsBackWhatItGets(reactor: Reactor) -> None:
    server = Server(reactor, wire.Echo)
    assert runWith(reactor, exchange, server.port, b"one\r\ntwo\0\xff") == b"one\r\ntwo\0\xff"
    server.ended()


def test_echoReturnsEverythingBeforeTheEnd(reactor: Reactor) -> None:
    server = Server(reactor, wire.Echo)
    data = bytes(range(256)) * 16 * KIB

    def client() -> bytes:
        with connectTo(server.port) as peer:

            def send() -> None:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)

            sender = Background(send)
            received = receiveAll(peer)
            sender.result()
            return received

    assert runWith(reactor, client) == data
    server.ended()


def test_echoHoldsLittleForAClientThatDoesNotRead(reactor: Reactor) -> None:
    server = Server(reactor, wire.Echo)
    data = bytes(range(256)) * 64 * KIB
    with slowClient(server.port) as peer:
        sender = Background(peer.sendall, data)
        transport = server.accepted()
        runUntil(reactor, lambda: transport.bufferedBytes > HIGH)
        # The bytes of one event are already read when it is paused: 4 reads of 64 KiB.
        assert peakOf(reactor, transport, 200) <= HIGH + 4 * 64 * KIB
        assert not sender()
        # Nothing was dropped, and reading goes on as the client reads.
        assert runWith(reactor, receiveExactly, peer, len(data)) == data
        sender.result()
    server.ended()


def test_echoForgetsAClientThatNeverReadAndIsGone(reactor: Reactor) -> None:
    server = Server(reactor, wire.Echo)
    with slowClient(server.port) as peer:
        peer.setblocking(False)
        transport = server.accepted()

        def full() -> bool:
            try:
                peer.send(bytes(64 * KIB))
            except BlockingIOError:
                pass
            return bool(transport.bufferedBytes > HIGH)

        runUntil(reactor, full)
    runUntil(reactor, lambda: server.lost)
    assert len(server.lost) == 1


# Discard


def test_discardReadsAndAnswersNothing(reactor: Reactor) -> None:
    server = Server(reactor, wire.Discard)
    # More than the kernel takes for a peer that does not read: it was read.
    assert runWith(reactor, exchange, server.port, bytes(16 * KIB * KIB)) == b""
    server.ended()


# Chargen


def chargenLine(number: int) -> bytes:
    """RFC 864: 72 of the 95 printing characters, in a ring, each line beginning one further along."""
    return "".join(chr(32 + (number + column) % 95) for column in range(72)).encode() + b"\r\n"


# 105 times the 95 lines after which it begins anew.
PATTERN = b"".join(map(chargenLine, range(95 * 105)))


def test_chargenSendsTheRotatingPattern(reactor: Reactor) -> None:
    server = Server(reactor, wire.Chargen)

    def client() -> bytes:
        with connectTo(server.port) as peer:
            return receiveExactly(peer, len(PATTERN))

    received = runWith(reactor, client)
    first, second = received.split(b"\r\n")[:2]
    assert first == b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg"
    assert second == b"!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh"
    assert received == PATTERN
    runUntil(reactor, lambda: server.lost)
    assert len(server.lost) == 1


def test_chargenHoldsLittleForAClientThatDoesNotRead(reactor: Reactor) -> None:
    server = Server(reactor, wire.Chargen)
    with slowClient(server.port) as peer:
        transport = server.accepted()
        runUntil(reactor, lambda: transport.bufferedBytes > HIGH)
        assert peakOf(reactor, transport, 200) <= HIGH + len(wire.Chargen.cycle)
        # What it goes on with is what comes next in the pattern.
        assert runWith(reactor, receiveExactly, peer, len(PATTERN)) == PATTERN
    runUntil(reactor, lambda: server.lost)
    assert len(server.lost) == 1


def test_chargenStopsWhenTheTransportTakesNoMore(reactor: Reactor) -> None:
    # The write that is over the limit aborts the connection instead of pausing the producer.
    server = Server(reactor, wire.Chargen)
    server.factory.maxBufferedBytes = HIGH
    with connectTo(server.port):
        runUntil(reactor, lambda: server.lost)
    assert [type(reason) for reason in server.lost] == [BufferOverflow]


def test_chargenThrowsAwayWhatItGets(reactor: Reactor) -> None:
    server = Server(reactor, wire.Chargen)

    def client() -> bytes:
        with connectTo(server.port) as peer:
            sender = Background(peer.sendall, b"thrown away\r\n" * 100_000)
            received = receiveExactly(peer, 100_000)
            while not sender():
                received += receiveExactly(peer, 7400)
            sender.result()
            return received

    received = runWith(reactor, client)
    assert received[:100_000] == PATTERN[:100_000]
    assert b"thrown" not in received


def test_chargenEndsWithItsClientsInput(reactor: Reactor) -> None:
    server = Server(reactor, wire.Chargen)

    def client() -> bytes:
        with connectTo(server.port) as peer:
            received = receiveExactly(peer, 7400)
            peer.shutdown(socket.SHUT_WR)
            return received + receiveAll(peer)

    received = runWith(reactor, client)
    assert received.startswith(PATTERN[:7400])
    # Nothing was cut out of the pattern, wherever it ended.
    assert (PATTERN * (len(received) // len(PATTERN) + 1)).startswith(received)
    server.ended()


# The three that say one thing


@pytest.mark.parametrize("service", [wire.QOTD, wire.Daytime, wire.Time])
def test_oneMessageThenTheEndWhateverTheClientSends(
    reactor: Reactor, service: Callable[[Callable[[], float]], Protocol]
) -> None:
    server = Server(reactor, lambda: service(lambda: 0.0))

    def client(data: bytes) -> bytes:
        with connectTo(server.port) as peer:
            peer.sendall(data)
            return receiveAll(peer)

    silent = runWith(reactor, client, b"")
    assert silent
    assert runWith(reactor, client, b"thrown away\r\n") == silent
    runUntil(reactor, lambda: len(server.lost) == 2)
    assert [type(reason) for reason in server.lost] == [ConnectionDone] * 2


def test_everyQuoteIsOneThatTheDocumentAllows() -> None:
    assert wire.QOTD.quotes
    for quote in wire.QOTD.quotes:
        assert 0 < len(quote) < 512
        assert quote.endswith(b"\r\n")
        assert all(32 <= byte < 127 or byte in b"\r\n" for byte in quote)


def test_theQuoteIsTheSameAllDayAndAnotherTheNext(reactor: Reactor) -> None:
    now = calendar.timegm((2024, 2, 29, 0, 0, 0))
    server = Server(reactor, lambda: wire.QOTD(lambda: now))
    morning = runWith(reactor, exchange, server.port, b"")
    assert morning in wire.QOTD.quotes
    now += 86_399
    assert runWith(reactor, exchange, server.port, b"") == morning
    now += 1
    assert runWith(reactor, exchange, server.port, b"") in set(wire.QOTD.quotes) - {morning}


def test_quotesOfASubclass(reactor: Reactor) -> None:
    class Mine(wire.QOTD):
        quotes = (b"mine\r\n",)

    assert runWith(reactor, exchange, Server(reactor, Mine).port, b"") == b"mine\r\n"


@pytest.mark.parametrize(
    ("when", "line"),
    [
        ((1970, 1, 1, 0, 0, 0), b"Thu Jan  1 00:00:00 1970 UTC\r\n"),
        ((1982, 2, 22, 17, 37, 43), b"Mon Feb 22 17:37:43 1982 UTC\r\n"),
        ((2038, 1, 19, 3, 14, 8), b"Tue Jan 19 03:14:08 2038 UTC\r\n"),
    ],
)
def test_daytimeIsALineInUTC(reactor: Reactor, when: tuple[int, ...], line: bytes) -> None:
    server = Server(reactor, lambda: wire.Daytime(lambda: calendar.timegm(when) + 0.9))
    assert runWith(reactor, exchange, server.port, b"") == line


def test_daytimeTellsTheTimeOfNow(reactor: Reactor) -> None:
    server = Server(reactor, wire.Daytime)
    before = int(time.time())
    line = runWith(reactor, exchange, server.port, b"").decode()
    told = calendar.timegm(time.strptime(line, "%a %b %d %H:%M:%S %Y UTC\r\n"))
    assert before <= told <= time.time()


@pytest.mark.parametrize(
    ("when", "seconds"),
    [
        # The examples of RFC 868, the last of which is before its clock begins.
        ((1970, 1, 1, 0, 0, 0), 2_208_988_800),
        ((1976, 1, 1, 0, 0, 0), 2_398_291_200),
        ((1980, 1, 1, 0, 0, 0), 2_524_521_600),
        ((1983, 5, 1, 0, 0, 0), 2_629_584_000),
        ((1858, 11, 17, 0, 0, 0), -1_297_728_000 % 2**32),
        # Where 32 bits begin anew.
        ((2036, 2, 7, 6, 28, 15), 2**32 - 1),
        ((2036, 2, 7, 6, 28, 16), 0),
    ],
)
def test_timeIs32BitsSince1900(reactor: Reactor, when: tuple[int, ...], seconds: int) -> None:
    server = Server(reactor, lambda: wire.Time(lambda: calendar.timegm(when)))
    assert runWith(reactor, exchange, server.port, b"") == seconds.to_bytes(4, "big")


def test_timeTellsTheTimeOfNow(reactor: Reactor) -> None:
    server = Server(reactor, wire.Time)
    before = int(time.time())
    told = int.from_bytes(runWith(reactor, exchange, server.port, b""), "big") - 2_208_988_800
    assert before <= told % 2**32 <= time.time()


# Over anything that is a stream


@pytest.mark.parametrize(
    ("service", "answer"),
    [
        (wire.Echo, b"hello"),
        (wire.Discard, b""),
        (wire.Chargen, PATTERN),
        (wire.QOTD, None),
        (wire.Daytime, None),
        (wire.Time, None),
    ],
)
def test_overAPipeInMemory(reactor: Reactor, service: type[Protocol], answer: bytes | None) -> None:
    there, here = memoryPair(reactor)
    client = Recorder()
    here.start(client)
    there.start(service())
    here.write(b"hello")
    if answer is None:  # one message, and the end by itself
        runUntil(reactor, lambda: client.lost)
        assert client.received
    else:
        runUntil(reactor, lambda: len(client.received) >= len(answer))
        assert bytes(client.received).startswith(answer)
        here.loseConnection()
        runUntil(reactor, lambda: client.lost)
    runUntil(reactor, lambda: there.disconnected)
