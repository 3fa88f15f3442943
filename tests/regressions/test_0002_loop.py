"""What a reading of the loop found: each test failed before its mending."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from calandria import ClientFactory, Factory, Protocol, Reactor, error, threads
from tests.helpers import connectTo, runUntil
from tests.recorders import Recorder, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calandria.failure import Failure
    from tests.helpers import LogCapture

LOCAL = "127.0.0.1"


class Foreign:
    """A descriptor that closes itself when it is read and says so, as the contract of `doRead` allows."""

    def __init__(self, number: Callable[[int], Any] = int) -> None:
        mine, self.peer = socket.socketpair()
        self.fd = mine.detach()
        self.number = number
        self.open = True
        self.reads = 0
        self.lost: list[Failure] = []

    def fileno(self) -> Any:
        return self.fd if self.open else self.number(self.fd)

    def doRead(self) -> object:
        self.reads += 1
        self.close()
        return OSError(errno.EIO, "gone")

    def doWrite(self) -> None:
        pass

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)

    def logPrefix(self) -> str:
        return "foreign"

    def close(self) -> None:
        if self.open:
            self.open = False
            os.close(self.fd)


@pytest.fixture
def foreign() -> Iterator[Callable[..., Foreign]]:
    made: list[Foreign] = []

    def make(*args: Any) -> Foreign:
        made.append(Foreign(*args))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.peer.close()


def another(fd: int) -> Any:
    """What `fileno` of a closed descriptor may give: here the number of standard input."""
    return 0


def none(fd: int) -> Any:
    return None


@pytest.mark.parametrize("number", [int, another, none])
def test_foreignDescriptorsThatCloseThemselves_areLostAndNothingElse(
    reactor: Reactor, logs: LogCapture, foreign: Callable[..., Foreign], number: Callable[[int], Any]
) -> None:
    """Also if `fileno` gives no number, or another one, by then."""
    both = [foreign(number) for _ in range(2)]
    for one in both:
        reactor.addReader(one)
        reactor.addWriter(one)
        one.peer.send(b"x")
    later: list[int] = []
    for moment in range(3):
        reactor.callLater(0.01 * moment, later.append, moment)
    runUntil(reactor, lambda: len(later) == 3)
    assert [(one.reads, len(one.lost)) for one in both] == [(1, 1), (1, 1)]
    assert [type(one.lost[0].value) for one in both] == [OSError, OSError]
    assert not reactor.getWriters()
    logs.takeErrors()


def test_removeReader_ofWhatIsClosedAlready(reactor: Reactor, foreign: Callable[..., Foreign]) -> None:
    one = foreign()
    reactor.addReader(one)
    reactor.addWriter(one)
    one.close()
    reactor.removeReader(one)
    reactor.removeWriter(one)
    reactor.iterate()
    assert one not in (*reactor.getReaders(), *reactor.getWriters())


def closeNumber(transport: Any) -> None:
    os.close(transport.fileno())


def closeSocket(transport: Any) -> None:
    transport.getHandle().close()


@pytest.mark.parametrize("close", [closeNumber, closeSocket])
def test_pausedConnectionsWhoseDescriptorsAreClosed_areLost_andTheRunGoesOn(
    reactor: Reactor, logs: LogCapture, close: Callable[[Any], None]
) -> None:
    server = RecordingServer()
    port: Any = reactor.listenTCP(0, server, interface=LOCAL)
    peers = [connectTo(port.getHost().port) for _ in range(2)]
    runUntil(reactor, lambda: len(server.protocols) == 2)
    for protocol in server.protocols:
        protocol.transport.write(bytes(8_000_000))
    runUntil(
        reactor, lambda: all(protocol.transport.fd in reactor.descriptors.writers for protocol in server.protocols)
    )
    for protocol in server.protocols:
        protocol.transport.pauseProducing()
        close(protocol.transport)
    runUntil(reactor, lambda: all(protocol.lost for protocol in server.protocols))
    assert {type(protocol.lost.value) for protocol in server.protocols} == {error.ConnectionFdescWentAway}
    for peer in peers:
        peer.close()


def test_stopping_isBounded_whenEachEndMakesAnother(reactor: Reactor, logs: LogCapture) -> None:
    ends: list[int] = []

    class Again(ClientFactory):
        noisy = False

        def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
            ends.append(1)
            reactor.connectTCP(LOCAL, 1, Again())

    reactor.connectTCP(LOCAL, 1, Again())
    reactor.callWhenRunning(reactor.stop)
    reactor.run()
    assert 1 < len(ends) < 100
    reactor.close()
    assert len(ends) < 200
    assert all("each end of one made another" in record.message for record in logs.takeErrors())


def test_whatIsWatchedWhileStopping_isLostToo(reactor: Reactor, foreign: Callable[..., Foreign]) -> None:
    first, second = foreign(), foreign()
    first.connectionLost = lambda reason: reactor.addReader(second)  # type: ignore[method-assign]
    reactor.addReader(first)
    reactor.callWhenRunning(reactor.stop)
    reactor.run()
    assert len(second.lost) == 1


@pytest.mark.parametrize("equal", [True, False])
def test_foreignDescriptorsOfAnyClass_areAllLostAtTheEnd(reactor: Reactor, equal: bool) -> None:
    """Those that cannot be hashed, and those that are equal to each other."""

    class Odd(Foreign):
        def __eq__(self, other: object) -> bool:
            return equal

        __hash__ = None  # type: ignore[assignment]

    server = RecordingServer()
    reactor.listenTCP(0, server, interface=LOCAL)
    odd = [Odd(), Odd()]
    for one in odd:
        reactor.addReader(one)
    reactor.callWhenRunning(reactor.stop)
    reactor.run()
    assert [len(one.lost) for one in odd] == [1, 1]
    assert not reactor.owned
    for one in odd:
        one.close()
        one.peer.close()


def test_childOfACallbackInTheFlush_endsAtOnce(reactor: Reactor) -> None:
    """It would sleep on the parent's epoll set."""
    children: list[int] = []

    class Forking(Protocol):
        def connectionMade(self) -> None:
            self.transport.loseConnection()

        def connectionLost(self, reason: Failure) -> None:
            children.append(os.fork())
            if children[-1]:
                reactor.stop()

    port: Any = reactor.listenTCP(0, Factory.forProtocol(Forking), interface=LOCAL)
    peer = connectTo(port.getHost().port)
    peer.shutdown(socket.SHUT_WR)
    try:
        reactor.run()
    except error.ForkedReactor:
        if children == [0]:
            os._exit(0)
        raise
    finally:
        if children == [0]:
            os._exit(1)
    peer.close()
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


def test_childOfATimer_runsNoneOfTheOthers(reactor: Reactor) -> None:
    made: list[int] = []
    children: list[int] = []

    def fork() -> None:
        children.append(os.fork())

    for number in range(1000):
        reactor.callLater(0, fork if number == 500 else made.append, *(() if number == 500 else (number,)))
    reactor.callLater(0.001, reactor.stop)
    try:
        reactor.run()
    except error.ForkedReactor:
        os._exit(0 if len(made) == 500 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert len(made) == 999


def test_crashOutsideATurn_endsTheRun(reactor: Reactor) -> None:
    reactor.startRunning(installSignalHandlers=False)
    reactor.iterate()
    reactor.crash()
    with pytest.raises(error.ReactorNotRunning):
        reactor.callFromThread(print)
    reactor.callWhenRunning(reactor.stop)
    reactor.run()


def test_crashInTheFlush_leavesAtOnce(reactor: Reactor) -> None:
    class Crashing(Recorder):
        def connectionMade(self) -> None:
            self.transport.loseConnection()

        def connectionLost(self, reason: Failure) -> None:
            super().connectionLost(reason)
            reactor.crash()

    server = RecordingServer(Crashing)
    port: Any = reactor.listenTCP(0, server, interface=LOCAL)
    late = reactor.callLater(20, reactor.stop)
    with connectTo(port.getHost().port) as peer:
        peer.shutdown(socket.SHUT_WR)
        reactor.run()
    assert server.protocols[0].lost
    assert late.active()


def test_onPending_isArmedAfterStartRunning(reactor: Reactor) -> None:
    told: list[int] = []
    reactor.onPending = lambda: told.append(1)
    reactor.callWhenRunning(reactor.callLater, 100, print)
    reactor.startRunning(installSignalHandlers=False)
    del told[:]
    reactor.callLater(0.1, print)
    assert told == [1]
    reactor.iterate()
    del told[:]
    reactor.stop()
    assert told == [1]
    reactor.iterate()


def test_theHeapIsBounded_afterResets(reactor: Reactor) -> None:
    calls = [reactor.callLater(1000, int) for _ in range(1000)]
    for call in calls:
        call.reset(0)
    runUntil(reactor, lambda: not any(call.active() for call in calls))
    live = len(reactor.getDelayedCalls())
    assert len(reactor.timers.heap) <= 2 * live + 64


def test_jobsThatTheCloseOfAStoppedReactorEnds_areTold(reactor: Reactor) -> None:
    reactor.callWhenRunning(reactor.stop)
    reactor.run()
    failed: list[Any] = []
    threads.deferToThreadPool(reactor, reactor.getThreadPool(), int).addErrback(failed.append)
    reactor.close()
    assert [type(one.value) for one in failed] == [error.ReactorNotRunning]


def test_anyFiniteDelay(reactor: Reactor) -> None:
    call = reactor.callLater(10**400, int)
    assert call.getTime() == float("inf")
    call.reset(10**400)
    call.delay(10**400)
    assert call.active()


@pytest.mark.parametrize("bad", ["1", None, b"1", [1]])
def test_aDelayThatIsNoNumber_isNamed(reactor: Reactor, bad: Any) -> None:
    call = reactor.callLater(1, int)
    for use in (lambda: reactor.callLater(bad, int), lambda: call.reset(bad), lambda: call.delay(bad)):
        with pytest.raises(TypeError, match="a delay is a number of seconds"):
            use()


@pytest.mark.parametrize("bad", [-1, True, "50", None])
def test_backlog_isACount(reactor: Reactor, bad: Any) -> None:
    with pytest.raises(ValueError, match="backlog is how many connections may wait"):
        reactor.listenTCP(0, Factory(), backlog=bad, interface=LOCAL)
