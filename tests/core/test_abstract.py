"""Twisted's names of `internet.abstract`: a descriptor that writes, and the test for address literals."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

import calandria
from calandria import abstract, error
from tests.helpers import runUntil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calandria import Reactor
    from calandria.failure import Failure
    from tests.helpers import LogCapture


class End(abstract.FileDescriptor):
    """One end of a socket pair, as a user of Twisted would write it."""

    def __init__(self, reactor: Reactor, end: socket.socket) -> None:
        super().__init__(reactor)
        end.setblocking(False)
        self.end = end
        self.got: list[bytes] = []
        self.reasons: list[Failure] = []
        self.failing: BaseException | None = None

    def fileno(self) -> int:
        return self.end.fileno()

    def doRead(self) -> object:
        data = self.end.recv(self.bufferSize)
        self.got.append(data)
        return None if data else error.ConnectionDone()

    def writeSomeData(self, data: bytes | memoryview) -> int | BaseException:
        if self.failing is not None:
            return self.failing
        try:
            return self.end.send(data)
        except BlockingIOError:
            return 0

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self.reasons.append(reason)
        self.end.close()


@pytest.fixture
def pair(reactor: Reactor) -> Iterator[tuple[End, socket.socket]]:
    here, there = socket.socketpair()
    with there:
        end = End(reactor, here)
        yield end, there
        end.end.close()


class TestFileDescriptor:
    def test_readsAndWrites(self, reactor: Reactor, pair: tuple[End, socket.socket]) -> None:
        end, peer = pair
        end.startReading()
        peer.send(b"in")
        end.write(b"o")
        end.writeSequence([b"u", b"t"])
        assert end.dataBuffer == b"out"
        runUntil(reactor, lambda: end.got)
        assert (end.got, peer.recv(10), end.dataBuffer) == ([b"in"], b"out", b"")
        end.stopReading()
        peer.send(b"more")
        reactor.iterate()
        assert end.got == [b"in"]
        end.startReading()
        runUntil(reactor, lambda: end.got[1:])
        assert end.got == [b"in", b"more"]

    def test_theEnd_ofAnswers(self, reactor: Reactor, pair: tuple[End, socket.socket]) -> None:
        end, peer = pair
        end.startReading()
        peer.close()
        runUntil(reactor, lambda: end.reasons)
        assert [reason.type for reason in end.reasons] == [error.ConnectionDone]
        assert (end.connected, end.disconnected, reactor.foreignDescriptors()) == (False, True, [])

    def test_loseConnection_sendsFirst(self, reactor: Reactor, pair: tuple[End, socket.socket]) -> None:
        """More than the kernel takes at once; the subclass's connectionLost closes, once."""
        end, peer = pair
        peer.setblocking(False)
        sent = b"x" * 3_000_000
        got = bytearray()

        def more() -> bool:
            try:
                while data := peer.recv(100_000):
                    got.extend(data)
            except BlockingIOError:
                return False
            return True

        end.write(sent)
        end.loseConnection()
        assert end.disconnecting
        runUntil(reactor, more)
        assert (bytes(got) == sent, [reason.type for reason in end.reasons]) == (True, [error.ConnectionDone])

    @pytest.mark.parametrize("failing", [OSError(5, "on purpose"), error.ConnectionLost("on purpose")])
    def test_writeSomeDataFails(
        self, reactor: Reactor, pair: tuple[End, socket.socket], failing: BaseException
    ) -> None:
        end, peer = pair
        end.startReading()
        end.failing = failing
        end.write(b"x")
        runUntil(reactor, lambda: end.disconnected or not end.dataBuffer)
        peer.close()
        runUntil(reactor, lambda: end.reasons)
        assert len(end.reasons) == 1

    def test_aPushProducer(self, reactor: Reactor, pair: tuple[End, socket.socket]) -> None:
        end, _ = pair
        told: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                told.append("pause")

            def resumeProducing(self) -> None:
                told.append("resume")

            def stopProducing(self) -> None:
                told.append("stop")

        end.registerProducer(Producer(), streaming=True)
        assert (end.streamingProducer, end.producerPaused) == (True, False)
        end.write(b"x" * 3_000_000)
        assert (told, end.producerPaused) == (["pause"], True)
        end.abortConnection()
        runUntil(reactor, lambda: end.reasons)
        assert (told, [reason.type for reason in end.reasons]) == (["pause", "stop"], [error.ConnectionAborted])

    def test_startWriting_callsDoWrite(self, reactor: Reactor, pair: tuple[End, socket.socket]) -> None:
        end, _ = pair
        end.startWriting()
        assert end in reactor.getWriters()
        reactor.iterate()
        assert reactor.getWriters() == []
        end.startWriting()
        end.stopWriting()
        assert reactor.getWriters() == []

    def test_closingTheReactor(self, reactor: Reactor, pair: tuple[End, socket.socket]) -> None:
        end, _ = pair
        end.startReading()
        reactor.disconnectAll()
        assert [reason.type for reason in end.reasons] == [error.ConnectionLost]

    def test_aRaisingDoRead(self, reactor: Reactor, pair: tuple[End, socket.socket], logs: LogCapture) -> None:
        end, peer = pair
        end.startReading()
        peer.send(b"x")
        os.set_blocking(end.fileno(), True)
        end.bufferSize = -1
        runUntil(reactor, lambda: end.reasons)
        assert [reason.type for reason in end.reasons] == [ValueError]
        assert len(logs.takeErrors()) == 1

    def test_withoutAReactor_theThreadsDefault(self) -> None:
        default = calandria.reactor
        try:
            assert abstract.FileDescriptor().reactor is default
        finally:
            calandria.setDefault(None)
            default.close()

    @pytest.mark.parametrize("method", ["doRead", "writeSomeData"])
    def test_whatASubclassMustGive(self, reactor: Reactor, method: str) -> None:
        bare = abstract.FileDescriptor(reactor)
        assert bare.fileno() == -1
        with pytest.raises(NotImplementedError, match=method):
            getattr(bare, method)(*([b""] if method == "writeSomeData" else []))


@pytest.mark.parametrize(
    ("literal", "four", "six"),
    [
        ("127.0.0.1", True, False),
        ("0.0.0.0", True, False),
        ("255.255.255.256", False, False),
        ("1.2.3", False, False),
        ("1", False, False),
        ("1.2.3.4.5", False, False),
        ("01.2.3.4 ", False, False),
        ("::1", False, True),
        ("::", False, True),
        ("fe80::1%eth0", False, True),
        ("fe80::1%", False, False),
        ("%eth0", False, False),
        ("::ffff:1.2.3.4", False, True),
        ("1:2", False, False),
        ("example.org", False, False),
        ("", False, False),
        ("1.2.3.4\0", False, False),
        ("٢.2.3.4", False, False),
    ],
)
def test_literals(literal: str, four: bool, six: bool) -> None:
    assert (abstract.isIPAddress(literal), abstract.isIPv6Address(literal)) == (four, six)
    assert abstract.isIPAddress(literal, socket.AF_INET6) == six


def test_anotherFamily() -> None:
    with pytest.raises(ValueError, match="AF_INET6"):
        abstract.isIPAddress("x", socket.AF_UNIX)
