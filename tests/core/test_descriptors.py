"""Foreign descriptors: addReader, addWriter and their kin, what their answers mean, and what becomes of those that are
closed, reused or unfit; and that a reactor with nothing to do does nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from calandria import Protocol, Reactor, error
from calandria.failure import Failure
from tests.core.tools import Number, Spin, Watched, Watching, idle, tracedStream
from tests.helpers import Background, connectTo, receiveExactly, runUntil
from tests.recorders import Echo, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.helpers import LogCapture

READABLE, WRITABLE = 1, 4


@pytest.fixture
def backend(backendName: str) -> Watched:
    return Watched(backendName)


@pytest.fixture
def watched(backend: Watched, logs: LogCapture) -> Iterator[Reactor]:
    """A reactor whose dealings with its backend can be looked at."""
    with Reactor(backend=backend) as reactor:
        yield reactor


@pytest.fixture
def watching() -> Iterator[Watching]:
    with Watching() as watching:
        yield watching


def turns(reactor: Reactor, count: int) -> None:
    for _ in range(count):
        reactor.iterate()


class TestAdding:
    def test_doRead_whenReadable(self, reactor: Reactor, watching: Watching) -> None:
        reactor.addReader(watching)
        turns(reactor, 2)
        assert watching.reads == 0
        watching.peer.send(b"x")
        turns(reactor, 2)
        # Level-triggered: as often as it is readable.
        assert watching.reads == 2
        watching.drain()
        turns(reactor, 2)
        assert (watching.reads, watching.writes) == (2, 0)
        reactor.removeReader(watching)

    def test_doWrite_whenWritable(self, reactor: Reactor, watching: Watching) -> None:
        reactor.addWriter(watching)
        turns(reactor, 2)
        assert (watching.reads, watching.writes) == (0, 2)
        try:
            while True:
                watching.socket.send(bytes(100_000))
        except BlockingIOError:
            pass
        turns(reactor, 2)
        assert watching.writes == 2
        reactor.removeWriter(watching)

    def test_twice_isOnce(self, watched: Reactor, backend: Watched, watching: Watching) -> None:
        del backend.watches[:]
        for _ in range(3):
            watched.addReader(watching)
            watched.addWriter(watching)
        fd = watching.fileno()
        assert backend.watches == [(fd, READABLE), (fd, READABLE | WRITABLE)]
        watching.peer.send(b"x")
        turns(watched, 1)
        assert (watching.reads, watching.writes) == (1, 1)
        watched.removeReader(watching)
        watched.removeWriter(watching)
        turns(watched, 1)
        assert fd not in backend.interests

    def test_oneAtATime(self, watched: Reactor, backend: Watched, watching: Watching) -> None:
        fd = watching.fileno()
        watched.addReader(watching)
        watched.addWriter(watching)
        watched.removeReader(watching)
        turns(watched, 1)
        assert backend.interests[fd] == WRITABLE
        watched.addReader(watching)
        watched.removeWriter(watching)
        turns(watched, 1)
        assert backend.interests[fd] == READABLE
        watched.removeAll()

    def test_addedInACallback_itCounts_fromTheNextPollOn(self, reactor: Reactor, watching: Watching) -> None:
        watching.peer.send(b"x")
        reactor.callLater(0, reactor.addReader, watching)
        turns(reactor, 1)
        assert watching.reads == 0
        turns(reactor, 1)
        assert watching.reads == 1
        reactor.removeReader(watching)

    def test_aStreamThatPausesAndResumes_inOneTurn_costsNoSystemCall(self, watched: Reactor, backend: Watched) -> None:
        """STYLE 12: what changes back before the kernel is asked again is not told to it."""
        stream, peer = tracedStream(watched, [])
        with peer:
            turns(watched, 1)
            del backend.watches[:]

            def pauseAndResume() -> None:
                for _ in range(3):
                    stream.pauseProducing()
                    stream.resumeProducing()

            watched.callLater(0, pauseAndResume)
            turns(watched, 2)
            assert backend.watches == []
            assert backend.interests[stream.fileno()] == READABLE

    def test_getReaders_andGetWriters(self, reactor: Reactor, watching: Watching) -> None:
        """B.4: the reactor's own are listed too."""
        own = reactor.getReaders()
        assert len(own) == 1
        with Watching() as other:
            reactor.addReader(watching)
            reactor.addWriter(watching)
            reactor.addWriter(other)
            assert set(reactor.getReaders()) == {*own, watching}
            assert set(reactor.getWriters()) == {watching, other}
            reactor.getReaders().clear()
            assert watching in reactor.getReaders()
            reactor.removeAll()

    def test_aReaderAndAnotherWriter_ofOneNumber(self, reactor: Reactor, watching: Watching) -> None:
        other = Number(watching.fileno())
        reactor.addReader(watching)
        reactor.addWriter(other)
        watching.peer.send(b"x")
        turns(reactor, 1)
        assert (watching.reads, watching.writes, other.reads, other.writes) == (1, 0, 0, 1)
        reactor.removeReader(watching)
        turns(reactor, 1)
        assert (watching.reads, other.writes) == (1, 2)
        reactor.removeAll()


class TestRemoving:
    def test_whoIsNotThere(self, reactor: Reactor, watching: Watching) -> None:
        reactor.removeReader(watching)
        reactor.removeWriter(watching)
        reactor.addReader(watching)
        reactor.removeWriter(watching)
        watching.peer.send(b"x")
        turns(reactor, 1)
        assert watching.reads == 1
        reactor.removeReader(watching)
        reactor.removeReader(watching)

    def test_anotherOneOfTheSameNumber_isNotMeant(self, reactor: Reactor, watching: Watching) -> None:
        reactor.addReader(watching)
        reactor.removeReader(Number(watching.fileno()))
        watching.peer.send(b"x")
        turns(reactor, 1)
        assert watching.reads == 1
        reactor.removeReader(watching)

    @pytest.mark.parametrize("how", ["closed", "raises"])
    def test_whenItsNumberIsNotKnownAnyMore(
        self, watched: Reactor, backend: Watched, how: str, logs: LogCapture
    ) -> None:
        """B.4: found by identity."""

        isGone: list[bool] = []

        class Gone(Watching):
            def fileno(self) -> int:
                if isGone and how == "raises":
                    raise OSError(errno.EBADF, "on purpose")
                return -1 if isGone else super().fileno()

        with Gone() as gone, Watching() as bystander:
            fd = gone.fileno()
            for one in (gone, bystander):
                watched.addReader(one)
                watched.addWriter(one)
            isGone.append(True)
            watched.removeReader(gone)
            watched.removeWriter(gone)
            turns(watched, 1)
            assert fd not in backend.interests
            assert backend.interests[bystander.fileno()] == READABLE | WRITABLE
            assert (gone.writes, bystander.writes) == (0, 1)
            watched.removeAll()

    def test_removedClosedAndReplaced_inOneTurn(self, reactor: Reactor) -> None:
        """The number is another file's by now, which the kernel must be told of, whatever it knew of the first."""
        old = Watching()
        reactor.addReader(old)
        turns(reactor, 1)
        fd = old.fileno()
        reactor.removeReader(old)
        old.close()
        with Watching() as new:
            if new.fileno() != fd:
                os.dup2(new.fileno(), fd)
                new.socket.close()
                new.socket = socket.socket(fileno=fd)
            reactor.addReader(new)
            turns(reactor, 1)
            new.peer.send(b"x")
            turns(reactor, 1)
            assert (old.reads, new.reads) == (0, 1)
            reactor.removeReader(new)

    def test_removedAndClosed_whileADuplicateLives(self, watched: Reactor, backend: Watched) -> None:
        """In a child process, for instance. Nothing of it is reported any more, and nothing spins."""
        watching = Watching()
        duplicate = os.dup(watching.fileno())
        try:
            watched.addReader(watching)
            turns(watched, 1)
            watched.removeReader(watching)
            watching.socket.close()
            watching.peer.send(b"x")
            turns(watched, 1)
            with Spin(backend) as spin:
                idle(watched, 0.1)
            assert spin.polls <= 6
            assert watching.reads == 0
        finally:
            os.close(duplicate)
            watching.close()

    def test_removeAll(self, reactor: Reactor, watching: Watching) -> None:
        """All but the reactor's own, each once."""
        with Watching() as other:
            reactor.addReader(watching)
            reactor.addWriter(watching)
            reactor.addWriter(other)
            assert sorted(reactor.removeAll(), key=id) == sorted([watching, other], key=id)
            assert reactor.removeAll() == []
            assert len(reactor.getReaders()) == 1
            turns(reactor, 1)
            assert other.writes == 0
            assert watching.lost == []
        # The waker still works.
        call = Background(reactor.callFromThread, reactor.callLater, 0, len, "")
        while not reactor.getDelayedCalls():
            reactor.iterate(None)
        call.result()

    def test_removeAll_leavesConnectionsAlone(self, reactor: Reactor) -> None:
        server = RecordingServer(Echo)
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port) as peer:
            runUntil(reactor, lambda: server.protocols)
            assert reactor.removeAll() == []
            peer.sendall(b"still there")
            runUntil(reactor, lambda: server.protocols[0].received == b"still there")


class TestAnswers:
    """What doRead and doWrite return: something true, or an exception, means that it is over."""

    @pytest.mark.parametrize("interest", ["reader", "writer"])
    @pytest.mark.parametrize("answer", [None, 0, False, b""])
    def test_nothing(self, reactor: Reactor, answer: object, interest: str) -> None:
        with Watching(lambda: answer, lambda: answer) as watching:
            watching.peer.send(b"x")
            (reactor.addReader if interest == "reader" else reactor.addWriter)(watching)
            turns(reactor, 2)
            assert watching.reads + watching.writes == 2
            assert watching.lost == []
            reactor.removeAll()

    @pytest.mark.parametrize("interest", ["reader", "writer"])
    @pytest.mark.parametrize("kind", ["exception", "failure", "true", "raises"])
    def test_theEnd(self, reactor: Reactor, kind: str, interest: str, logs: LogCapture) -> None:
        reason = error.ConnectionAborted("on purpose")

        def end() -> object:
            if kind == "raises":
                raise reason
            return {"exception": reason, "failure": Failure(reason), "true": 5}[kind]

        with Watching(end, end) as watching:
            watching.peer.send(b"x")
            # Both ways at once: it ends both.
            reactor.addReader(watching)
            reactor.addWriter(watching)
            if interest == "writer":
                reactor.removeReader(watching)
            turns(reactor, 3)
            assert watching.reads + watching.writes == 1
            assert len(watching.lost) == 1
            if kind == "true":
                assert isinstance(watching.lost[0].value, error.ConnectionLost)
            else:
                assert watching.lost[0].value is reason
            assert watching not in reactor.getReaders()
            assert watching not in reactor.getWriters()
        errors = logs.takeErrors()
        assert len(errors) == (kind == "raises")

    def test_aRaisingConnectionLost(self, reactor: Reactor, logs: LogCapture) -> None:
        class Raising(Watching):
            def connectionLost(self, reason: Failure) -> None:
                super().connectionLost(reason)
                raise ValueError("on purpose")

        with Raising(lambda: error.ConnectionDone()) as watching, Watching() as bystander:
            watching.peer.send(b"x")
            bystander.peer.send(b"x")
            reactor.addReader(watching)
            reactor.addReader(bystander)
            turns(reactor, 2)
            assert len(watching.lost) == 1
            assert bystander.reads == 2
            reactor.removeAll()
        (record,) = logs.takeErrors()
        assert "connectionLost" in record.message

    def test_halfClose(self, reactor: Reactor) -> None:
        """B.4: doRead's ConnectionDone ends the reading alone, for one that knows of such things."""

        events: list[str] = []

        class HalfCloseable(Watching):
            def readConnectionLost(self, reason: Failure) -> None:
                assert isinstance(reason.value, error.ConnectionDone)
                events.append("read lost")

            def writeConnectionLost(self, reason: Failure) -> None:
                events.append("write lost")

        with HalfCloseable(lambda: error.ConnectionDone()) as watching:
            watching.peer.close()
            reactor.addReader(watching)
            reactor.addWriter(watching)
            turns(reactor, 3)
            assert events == ["read lost"]
            assert (watching.reads, watching.writes, watching.lost) == (1, 3, [])
            # Any other reason ends both.
            watching.onRead = lambda: error.ConnectionLost()
            reactor.addReader(watching)
            turns(reactor, 3)
            assert events == ["read lost"]
            assert len(watching.lost) == 1
            assert watching.writes == 3

    def test_removedByItself_itIsNotLost(self, reactor: Reactor) -> None:
        with Watching() as watching:

            def leave() -> None:
                reactor.removeReader(watching)
                watching.close()

            watching.onRead = leave
            watching.peer.send(b"x")
            reactor.addReader(watching)
            turns(reactor, 2)
            assert (watching.reads, watching.lost) == (1, [])


class TestUnfit:
    """A22, B11: what no backend can wait for is refused at the call, in the same way on each."""

    def refused(self, reactor: Reactor, fd: int) -> str:
        number = Number(fd)
        texts: list[str] = []
        for method in (reactor.addReader, reactor.addWriter):
            with pytest.raises(error.UnsupportedDescriptor) as refusal:
                method(number)
            texts.append(str(refusal.value))
        assert number not in reactor.getReaders()
        assert number not in reactor.getWriters()
        turns(reactor, 1)
        assert number.reads + number.writes == 0
        assert all(str(fd) in text for text in texts)
        return texts[0]

    def test_aRegularFile(self, reactor: Reactor, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("text")
        fd = os.open(tmp_path / "file", os.O_RDWR)
        try:
            assert "file" in self.refused(reactor, fd)
        finally:
            os.close(fd)

    def test_aDirectory(self, reactor: Reactor, tmp_path: Path) -> None:
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            assert "directory" in self.refused(reactor, fd)
        finally:
            os.close(fd)

    def test_devNull(self, reactor: Reactor) -> None:
        """Where a daemon's standard streams lead: select and poll call it ready, epoll refuses it. One answer."""
        fd = os.open(os.devnull, os.O_RDWR)
        try:
            self.refused(reactor, fd)
        finally:
            os.close(fd)

    def test_aPipe_andATerminal_areFit(self, reactor: Reactor) -> None:
        """The rule must not take in too much: character devices are not all alike."""
        terminal, other = os.openpty(), os.openpty()
        pipe = os.pipe()
        try:
            for reading, writing in (pipe, terminal, tuple(reversed(other))):
                number = Number(reading)
                reactor.addReader(number)
                turns(reactor, 1)
                assert number.reads == 0
                os.write(writing, b"x\n")
                runUntil(reactor, partial(getattr, number, "reads"))
                reactor.removeReader(number)
        finally:
            for fd in (*pipe, *terminal, *other):
                os.close(fd)

    def test_aClosedNumber(self, reactor: Reactor) -> None:
        fd = os.dup(0)
        os.close(fd)
        self.refused(reactor, fd)

    @pytest.mark.parametrize("fd", [-1, None, "5"])
    def test_whatIsNoNumber(self, reactor: Reactor, fd: Any) -> None:
        for method in (reactor.addReader, reactor.addWriter):
            with pytest.raises((error.UnsupportedDescriptor, TypeError)):
                method(Number(fd))
        assert len(reactor.getReaders()) == 1

    def test_aHighNumber(self, reactor: Reactor, watching: Watching) -> None:
        """B10: beyond what select can hold; the others go on."""
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1200:
            pytest.skip("there are no numbers that high here")
        fd = fcntl.fcntl(watching.socket, fcntl.F_DUPFD, 1100)
        try:
            reactor.addReader(watching)
            if reactor.backend.name == "select":
                assert "1100" in self.refused(reactor, fd) or "range" in self.refused(reactor, fd)
            else:
                number = Number(fd)
                reactor.addReader(number)
                watching.peer.send(b"x")
                turns(reactor, 1)
                assert number.reads == 1
                reactor.removeReader(number)
            watching.peer.send(b"x")
            turns(reactor, 1)
            assert watching.reads >= 1
            reactor.removeAll()
        finally:
            os.close(fd)


class TestClosedBehindOurBack:
    """B09: only that one is lost, with an error that says so; the others notice nothing, and nothing spins."""

    def test_aForeignOne(self, watched: Reactor, backend: Watched, logs: LogCapture) -> None:
        """Its number is not even known any more; select and poll report it, and it is asked to try."""
        with Watching() as watching, Watching() as bystander:

            def read() -> None:
                watching.socket.recv(1)

            watching.onRead = read
            watched.addReader(watching)
            watched.addReader(bystander)
            turns(watched, 1)
            os.close(watching.socket.detach())
            bystander.peer.send(b"x")
            turns(watched, 3)
            assert bystander.reads == 3
            bystander.drain()
            with Spin(backend) as spin:
                idle(watched, 0.1)
            assert spin.polls <= 6
            told = backend.inner.name in ("select", "poll")
            assert (watching.reads, len(watching.lost)) == (told, told)
            assert len(logs.takeErrors()) == told
            watched.removeReader(watching)
            assert watching not in watched.getReaders()
            watched.removeAll()

    def test_aForeignOne_thatTries(self, watched: Reactor, backend: Watched, logs: LogCapture) -> None:
        """select and poll report it, its read fails, and it is lost. epoll forgets it without a word, as kernels do."""
        readEnd, writeEnd = os.pipe()

        class Pipe(Number):
            def doRead(self) -> object:
                try:
                    os.read(self.fd, 1)
                except OSError as exc:
                    return exc
                return None

        pipe = Pipe(readEnd)
        try:
            watched.addReader(pipe)
            turns(watched, 1)
            os.close(readEnd)
            turns(watched, 2)
            if backend.inner.name in ("select", "poll"):
                (reason,) = pipe.lost
                assert isinstance(reason.value, OSError)
                assert reason.value.errno == errno.EBADF
                assert pipe not in watched.getReaders()
            with Spin(backend) as spin:
                idle(watched, 0.1)
            assert spin.polls <= 6
            watched.removeAll()
        finally:
            os.close(writeEnd)

    def test_aTransport(self, watched: Reactor, backend: Watched) -> None:
        server = RecordingServer(Echo)
        port = watched.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port), connectTo(port.getHost().port) as bystander:
            runUntil(watched, lambda: len(server.protocols) == 2)
            victim = server.protocols[0]
            fd = victim.transport.fileno()
            os.close(fd)
            bystander.sendall(b"x")
            runUntil(watched, lambda: server.protocols[1].received == b"x")
            if backend.inner.name == "epoll":
                # The kernel says nothing; whoever uses the connection next finds out.
                victim.transport.write(b"x")
            runUntil(watched, lambda: victim.lost)
            assert isinstance(victim.lost.value, error.ConnectionFdescWentAway)
            with Spin(backend) as spin:
                idle(watched, 0.1)
            assert spin.polls <= 6
            assert server.protocols[1].lost is None
            watched.callWhenRunning(watched.stop)
            watched.run(installSignalHandlers=False)

    def test_theNumberReused_byAnotherOfOurs(self, reactor: Reactor) -> None:
        """The one who stood under the number is lost; the one who has it now gets its events, and only he."""
        with Watching() as old, Watching() as new:
            reactor.addReader(old)
            turns(reactor, 1)
            fd = old.socket.detach()
            os.dup2(new.fileno(), fd)
            heir = Number(fd)
            try:
                reactor.addReader(heir)
                new.peer.send(b"x")
                turns(reactor, 2)
                assert (old.reads, heir.reads) == (0, 2)
                (reason,) = old.lost
                assert isinstance(reason.value, error.ConnectionFdescWentAway)
                reactor.removeReader(heir)
            finally:
                os.close(fd)

    def test_closedAndReused_inTheSameBatch(self, reactor: Reactor) -> None:
        """B04: the first handler closes the second's descriptor and opens another of the same number."""
        for order in (0, 1):
            pair = [Watching(), Watching()]
            heirs: list[Watching] = []

            def replace(pair: list[Watching] = pair, heirs: list[Watching] = heirs, order: int = order) -> object:
                if heirs:
                    return None
                victim = pair[1 - order]
                reactor.removeReader(victim)
                fd = victim.fileno()
                victim.close()
                heir = Watching()
                if heir.fileno() != fd:
                    os.dup2(heir.fileno(), fd)
                    heir.socket.close()
                    heir.socket = socket.socket(fileno=fd)
                    heir.socket.setblocking(False)
                heirs.append(heir)
                reactor.addReader(heir)
                return None

            pair[order].onRead = replace
            for one in pair:
                one.peer.send(b"x")
                reactor.addReader(one)
            turns(reactor, 1)
            # Whoever was removed is not called again; the heir may be asked to try, once, which is harmless.
            before = pair[1 - order].reads
            assert len(heirs) == 1
            turns(reactor, 3)
            assert pair[1 - order].reads == before <= 1
            assert heirs[0].reads <= 1
            tried = heirs[0].reads
            heirs[0].peer.send(b"y")
            turns(reactor, 1)
            assert heirs[0].reads == tried + 1
            assert heirs[0].drain() == b"y"
            reactor.removeAll()
            for one in (*pair, *heirs):
                one.close()


class TestSpin:
    """The SPIN oracle: with nothing to do, next to no polls and no CPU time."""

    SECONDS = 0.2

    def quiet(self, reactor: Reactor, backend: Watched) -> None:
        with Spin(backend) as spin:
            idle(reactor, self.SECONDS)
        assert spin.polls <= 8
        assert spin.seconds <= 0.025

    def test_nothing(self, watched: Reactor, backend: Watched) -> None:
        self.quiet(watched, backend)

    def test_idleDescriptors(self, watched: Reactor, backend: Watched) -> None:
        many = [Watching() for _ in range(50)]
        try:
            for one in many:
                watched.addReader(one)
            self.quiet(watched, backend)
            watched.removeAll()
        finally:
            for one in many:
                one.close()

    def test_aReaderThatWasRemoved_withInputWaiting(self, watched: Reactor, backend: Watched) -> None:
        with Watching() as watching:
            watching.peer.send(b"x")
            watched.addReader(watching)
            turns(watched, 1)
            watched.removeReader(watching)
            self.quiet(watched, backend)
            assert watching.reads == 1

    @pytest.mark.parametrize("what", ["ended", "reset"])
    def test_aReaderThatWasRemoved_whosePeerHasGone(self, watched: Reactor, backend: Watched, what: str) -> None:
        """B01, B02: hang-ups and errors are reported by kernels whatever was asked for."""
        server = RecordingServer()
        port = watched.listenTCP(0, server, interface="127.0.0.1")
        peer = connectTo(port.getHost().port)
        runUntil(watched, lambda: server.protocols)
        transport = server.protocols[0].transport
        transport.pauseProducing()
        if what == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        else:
            transport.loseWriteConnection()
        peer.close()
        self.quiet(watched, backend)
        assert server.protocols[0].lost is None
        transport.resumeProducing()
        runUntil(watched, lambda: server.protocols[0].lost)

    def test_aWriterThatWasRemoved(self, watched: Reactor, backend: Watched) -> None:
        """B20."""
        with Watching() as watching:
            watched.addWriter(watching)
            turns(watched, 1)
            watched.removeWriter(watching)
            self.quiet(watched, backend)
            assert watching.writes == 1

    def test_afterAFlush(self, watched: Reactor, backend: Watched) -> None:
        """B20: write interest is there only while bytes wait."""
        stream, peer = tracedStream(watched, [])
        with peer:
            fd = stream.fileno()
            stream.write(b"x")
            turns(watched, 2)
            assert backend.interests[fd] == READABLE
            stream.write(bytes(5_000_000))
            turns(watched, 1)
            assert backend.interests[fd] == READABLE | WRITABLE
            received = Background(receiveExactly, peer, 5_000_001)
            runUntil(watched, received)
            turns(watched, 1)
            assert backend.interests[fd] == READABLE
            self.quiet(watched, backend)

    def test_outOfBandData(self, watched: Reactor, backend: Watched) -> None:
        """B21: bytes in the stream are as they were; an urgent byte alone makes nothing happen."""
        server = RecordingServer()
        port = watched.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port) as peer:
            runUntil(watched, lambda: server.protocols)
            protocol = server.protocols[0]
            peer.send(b"?", socket.MSG_OOB)
            self.quiet(watched, backend)
            peer.send(b"ab")
            peer.send(b"!", socket.MSG_OOB)
            peer.send(b"cd")
            runUntil(watched, lambda: len(protocol.received) >= 4)
            assert protocol.received == b"abcd"
            self.quiet(watched, backend)
            assert protocol.lost is None


class Spurious(Watched):
    """Says of everything, at every fifth poll, that it is ready for all that was asked for; stale events too."""

    def __init__(self, backendName: str) -> None:
        super().__init__(backendName)
        self.chance = random.Random(17)
        self.stale: set[int] = set()

    def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        events = list(super().poll(0.001 if timeout is None or timeout > 0.001 else timeout))
        if len(self.timeouts) % 5 == 0:
            self.stale.update(self.interests)
            events += [(fd, self.chance.choice((READABLE, WRITABLE, READABLE | WRITABLE, 8, 16))) for fd in self.stale]
            self.chance.shuffle(events)
        return events[:256]


class TestSpuriousReadiness:
    def test_nothingIsLost_andNobodyIsHurt(self, backendName: str, logs: LogCapture) -> None:
        """B17: readiness is a hint. Real connections, and a backend that lies every fifth time."""
        with Reactor(backend=Spurious(backendName)) as reactor:
            server = RecordingServer(Echo)
            port = reactor.listenTCP(0, server, interface="127.0.0.1")
            data = random.Random(1).randbytes(400_000)

            def client() -> bytes:
                with connectTo(port.getHost().port) as peer:
                    sending = Background(peer.sendall, data)
                    received = receiveExactly(peer, len(data))
                    sending.result()
                    return received

            calls = [Background(client) for _ in range(4)]
            runUntil(reactor, lambda: all(call() for call in calls))
            for call in calls:
                assert call.result() == data
            runUntil(reactor, lambda: all(protocol.lost for protocol in server.protocols))
            assert {type(protocol.lost.value) for protocol in server.protocols} == {error.ConnectionDone}

    def test_unknownBits_meanTry(self, watched: Reactor, backend: Watched, watching: Watching) -> None:
        """DESIGN 3: any bit other than the two means 'try what was asked for'."""
        fd = watching.fileno()
        real: Callable[[float | None], Sequence[tuple[int, int]]] = backend.poll

        said: list[int] = []

        def poll(timeout: float | None) -> Sequence[tuple[int, int]]:
            real(0)
            return [(fd, said[-1])]

        for bits, expected in ((8, (1, 1)), (16, (1, 1)), (1, (1, 0)), (4, (0, 1)), (5, (1, 1)), (9, (1, 1))):
            said.append(bits)
            watching.reads = watching.writes = 0
            watched.addReader(watching)
            watched.addWriter(watching)
            backend.poll = poll  # type: ignore[method-assign]  # what a kernel may say
            watched.iterate()
            assert (watching.reads, watching.writes) == expected
        watched.removeReader(watching)
        watching.reads = watching.writes = 0
        said.append(8)
        watched.iterate()
        assert (watching.reads, watching.writes) == (0, 1)
        watched.removeAll()


class TestCallbacksOfManyKinds:
    def test_protocolsAndDescriptors_shareATurn(self, reactor: Reactor) -> None:
        """Foreign descriptors and transports are served side by side, whoever came first."""
        received: list[str] = []

        class Noting(Protocol):
            def dataReceived(self, data: bytes) -> None:
                received.append("protocol")

        stream, peer = tracedStream(reactor, [], Noting())
        with peer, Watching() as watching:

            def read() -> None:
                received.append("descriptor")

            watching.onRead = read
            reactor.addReader(watching)
            peer.send(b"x")
            watching.peer.send(b"x")
            turns(reactor, 1)
            assert sorted(received) == ["descriptor", "protocol"]
            assert stream.connected
            reactor.removeAll()
