"""The building block under every datagram transport, carried here by sockets of 127.0.0.1 that a stranger binds."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from calandria import error
from calandria.plugin import DatagramPort
from calandria.protocol import AbstractDatagramProtocol
from tests.helpers import openDescriptors, runUntil, unusedPort

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calandria import Reactor
    from tests.helpers import LogCapture

LOCAL = "127.0.0.1"


class Local(DatagramPort):
    """What a transport adds: how the socket is made."""

    def createSocket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((LOCAL, 0))
        self.host = sock.getsockname()
        return sock


class Watching(AbstractDatagramProtocol[Any]):
    """Remembers what it was told; raises in the callbacks that `bad` names."""

    noisy = False

    def __init__(self, *bad: str) -> None:
        self.bad = bad
        self.events: list[object] = []
        self.received: list[bytes] = []

    def note(self, event: str) -> None:
        self.events.append(event)
        if event in self.bad:
            raise ZeroDivisionError(event)

    def startProtocol(self) -> None:
        self.note("start")

    def stopProtocol(self) -> None:
        self.note("stop")

    def connectionRefused(self) -> None:
        self.note("refused")

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.received.append(datagram)
        self.note("datagram")


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOCAL, 0))
        sock.settimeout(10)
        yield sock


def listen(reactor: Reactor, protocol: Watching, **options: Any) -> Local:
    port = Local(reactor, protocol, **options)
    port.startListening()
    return port


def stop(reactor: Reactor, port: Local) -> None:
    fired: list[object] = []
    port.stopListening().addCallback(fired.append)
    assert not fired
    runUntil(reactor, lambda: fired)


def test_datagrams_goBothWays(reactor: Reactor, peer: socket.socket) -> None:
    protocol = Watching()
    port = listen(reactor, protocol)
    for datagram in (b"one", b"", b"three"):
        peer.sendto(datagram, port.getHost())
    runUntil(reactor, lambda: len(protocol.received) == 3)
    assert protocol.received == [b"one", b"", b"three"]
    port.write(b"answer", peer.getsockname())
    port.writeSequence([b"in ", b"pieces"], peer.getsockname())
    assert (peer.recv(100), peer.recv(100)) == (b"answer", b"in pieces")
    stop(reactor, port)
    assert protocol.events == ["start", "datagram", "datagram", "datagram", "stop"]
    assert (protocol.transport, port.fileno()) == (None, -1)


def test_tooLong_isDroppedAndCounted(reactor: Reactor, peer: socket.socket, logs: LogCapture) -> None:
    protocol = Watching()
    port = listen(reactor, protocol, maxPacketSize=10)
    for size in (10, 11, 5000, 1):
        peer.sendto(bytes(size), port.getHost())
    runUntil(reactor, lambda: len(protocol.received) == 2)
    assert ([len(datagram) for datagram in protocol.received], port.oversized) == ([10, 1], 2)
    assert sum("more than 10 bytes" in record.message for record in logs.records) == 1


def test_aCallbackThatRaises_losesNothingElse(reactor: Reactor, peer: socket.socket, logs: LogCapture) -> None:
    protocol = Watching("datagram", "stop")
    port = listen(reactor, protocol)
    peer.sendto(b"one", port.getHost())
    peer.sendto(b"two", port.getHost())
    runUntil(reactor, lambda: len(protocol.received) == 2)
    stop(reactor, port)
    assert [record.message for record in logs.takeErrors()] == [
        "datagramReceived of Watching raised: ZeroDivisionError: datagram",
        "datagramReceived of Watching raised: ZeroDivisionError: datagram",
        "doStop of Watching raised: ZeroDivisionError: stop",
    ]


def test_refusal_isTold_andThePortGoesOn(reactor: Reactor, peer: socket.socket) -> None:
    protocol = Watching()
    port = listen(reactor, protocol)
    port.connect((LOCAL, unusedPort()))
    port.write(b"anybody?")
    runUntil(reactor, lambda: "refused" in protocol.events)
    assert port.connected
    with pytest.raises(RuntimeError, match="is connected already"):
        port.connect(peer.getsockname())
    with pytest.raises(error.InvalidAddressError, match="is connected to"):
        port.write(b"x", peer.getsockname())


def test_startProtocolThatRaises_leavesNoPort(reactor: Reactor, peer: socket.socket) -> None:
    protocol = Watching("start")
    before = openDescriptors()
    with pytest.raises(ZeroDivisionError):
        listen(reactor, protocol)
    assert openDescriptors() == before
    assert (protocol.transport, protocol.numPorts, protocol.events) == (None, 0, ["start"])
    assert not reactor.owned
    protocol.bad = ()
    port = listen(reactor, protocol)
    peer.sendto(b"hello", port.getHost())
    runUntil(reactor, lambda: protocol.received)


def test_oneProtocolOnTwoPorts_isRefused(reactor: Reactor, peer: socket.socket) -> None:
    protocol = Watching()
    port = listen(reactor, protocol)
    before = openDescriptors()
    with pytest.raises(RuntimeError, match="needs a protocol of its own"):
        listen(reactor, protocol)
    assert openDescriptors() == before
    peer.sendto(b"hello", port.getHost())
    runUntil(reactor, lambda: protocol.received)
    assert protocol.transport is port


def test_socketTakenAway_endsThePort(reactor: Reactor) -> None:
    protocol = Watching()
    port = listen(reactor, protocol)
    assert port.socket is not None
    port.socket.close()
    port.doRead()
    assert (protocol.events, port.connected) == (["start", "stop"], False)


def test_tooLongToSend_saysSo(reactor: Reactor, peer: socket.socket) -> None:
    port = listen(reactor, Watching())
    with pytest.raises(error.MessageLengthError, match="70000 bytes"):
        port.write(bytes(70000), peer.getsockname())


def test_closingTheReactor_endsThePort(reactor: Reactor, peer: socket.socket) -> None:
    protocol = Watching()
    port = listen(reactor, protocol)
    reactor.close()
    assert protocol.events == ["start", "stop"]
    port.write(b"nothing", peer.getsockname())
    assert repr(port).startswith("<Local of Watching not receiving at")
