"""The turn: in which order things happen, what waits for the next turn, and how a host drives the loop from outside.

A turn is: flush, poll, events (with a second look at the tables), calls from threads, timers. Each test states a trace
of what happened, in one comparison.
"""

from __future__ import annotations

import io
import os
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import calandria.plugin
from calandria import Protocol, Reactor, error
from tests.core.tools import Clock, Number, Trace, Watched, Watching, tracedStream
from tests.helpers import Background, LogCapture, runUntil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 256


class World:
    """A reactor on a real backend that traces its polls into `trace`."""

    def __init__(self, backendName: str) -> None:
        self.trace: Trace = []
        self.backend = Watched(backendName, self.trace)
        self.reactor = Reactor(backend=self.backend)

    def note(self, what: str) -> Callable[[], None]:
        return lambda: self.trace.append(what)

    def turn(self, delay: float | None = 0.0) -> Trace:
        """What one turn does."""
        del self.trace[:]
        self.reactor.iterate(delay)
        return self.trace[:]


@pytest.fixture
def world(backendName: str, logs: LogCapture) -> Iterator[World]:
    world = World(backendName)
    with world.reactor:
        yield world


class TestTurn:
    def test_theOrder(self, world: World) -> None:
        reactor, note = world.reactor, world.note
        stream, peer = tracedStream(reactor, world.trace)
        with peer, Watching(note("read"), note("write")) as watching:
            watching.peer.send(b"x")
            reactor.callLater(0, note("timer"))
            reactor.callFromThread(note("call"))
            reactor.addWriter(watching)
            reactor.addReader(watching)
            stream.write(b"some")
            assert world.turn() == ["send", "poll", "read", "write", "call", "timer"]
            reactor.removeAll()

    def test_whatACallbackWrites_leavesBeforeTheNextPoll(self, world: World) -> None:
        reactor = world.reactor
        stream, peer = tracedStream(reactor, world.trace)
        with peer:
            reactor.callLater(0, stream.write, b"first")
            reactor.callLater(0, stream.write, b"second")
            reactor.callLater(0, reactor.callLater, 0, world.note("timer"))
            reactor.callWhenRunning(world.note("running"))
            reactor.callLater(0.02, reactor.crash)
            reactor.run(installSignalHandlers=False)
            # Two writes of one turn leave as one; the poll that follows them does not sleep, for a timer is due.
            assert world.trace[:5] == ["running", "poll", "send", "poll", "timer"]
            assert peer.recv(100) == b"firstsecond"

    def test_iterate_endsWithAFlush(self, world: World) -> None:
        stream, peer = tracedStream(world.reactor, world.trace)
        with peer:
            world.reactor.callLater(0, stream.write, b"some")
            assert world.turn() == ["poll", "send"]
            assert peer.recv(100) == b"some"

    def test_whatIsAddedWhileFlushing_waitsForTheNextTurn(self, world: World) -> None:
        first, second = tracedStream(world.reactor, world.trace), tracedStream(world.reactor, world.trace)

        class Producer:
            def resumeProducing(self) -> None:
                if len(written) < 2:
                    written.append(b"x")
                    world.trace.append("resume")
                    second[0].write(b"other")

            def stopProducing(self) -> None:
                pass

        written: list[bytes] = []
        with first[1], second[1]:
            first[0].registerProducer(Producer(), streaming=False)
            first[0].write(b"one")
            del world.trace[:]
            # The first resumption is synchronous (A16) and over. This one comes in the flush: what it writes to the
            # other stream is sent by the next flush, and the poll between them does not sleep.
            second[0].write(b"")
            assert world.turn(60.0)[:4] == ["send", "send", "resume", "poll"]
            assert world.backend.timeouts == [0.0]
            assert world.trace[4:] == ["send"]
            first[0].unregisterProducer()

    def test_aCallMadeByACall_waitsForTheNextTurn(self, world: World) -> None:
        reactor, note = world.reactor, world.note
        reactor.callFromThread(reactor.callFromThread, note("second"))
        reactor.callFromThread(note("first"))
        assert world.turn() == ["poll", "first"]
        assert reactor.timeout() == 0
        assert world.turn(60.0) == ["poll", "second"]

    def test_callLater0_inAnyCallback_waitsForALaterTurn(self, world: World) -> None:
        reactor, backend = world.reactor, world.backend
        backend.freeze()

        def again(what: str) -> Callable[[], None]:
            def act() -> None:
                world.trace.append(what)
                reactor.callLater(0, world.note(f"{what}, later"))

            return act

        with Watching(again("read"), again("write")) as watching:
            watching.peer.send(b"x")
            reactor.addReader(watching)
            reactor.addWriter(watching)
            reactor.callFromThread(again("call"))
            reactor.callLater(0, again("timer"))
            assert world.turn() == ["poll", "read", "write", "call", "timer"]
            reactor.removeAll()
            assert world.turn() == ["poll", "read, later", "write, later", "call, later", "timer, later"]

    def test_aResetInACallback_countsAsMadeThen(self, world: World) -> None:
        reactor, backend = world.reactor, world.backend
        backend.freeze()
        later = reactor.callLater(60, world.note("reset"))
        due = reactor.callLater(0, world.note("due"))
        delayed = reactor.callLater(60, world.note("delayed"))
        reactor.callFromThread(later.reset, 0)
        reactor.callFromThread(due.reset, 0)
        reactor.callFromThread(delayed.delay, -60)
        assert world.turn() == ["poll"]
        assert world.turn() == ["poll", "reset", "due", "delayed"]

    def test_now_isReadOnce(self, world: World) -> None:
        """A callback that takes long makes no more timers due in its turn."""
        reactor, backend = world.reactor, world.backend
        backend.freeze()

        def takesLong() -> None:
            world.trace.append("long")
            backend.shift += 10

        reactor.callLater(0, takesLong)
        reactor.callLater(5, world.note("due meanwhile"))
        reactor.callLater(0, world.note("due"))
        assert world.turn() == ["poll", "long", "due"]
        assert world.turn() == ["poll", "due meanwhile"]

    def test_now_isReadAfterThePoll(self, world: World) -> None:
        """What became due while asleep is called in this turn."""
        world.reactor.callLater(0.01, world.note("timer"))
        assert world.turn(None) == ["poll", "timer"]

    def test_input_isReadBeforeATimerJudgesItLate(self, world: World) -> None:
        """A2: a stall in one callback never makes an idle time-out drop a healthy client."""
        reactor, backend = world.reactor, world.backend
        backend.freeze()

        with Watching() as client:

            def stall() -> None:
                client.peer.send(b"in time")
                backend.shift += 60

            def read() -> None:
                world.trace.append(client.drain().decode())
                idleTimeout.reset(30)

            client.onRead = read
            reactor.addReader(client)
            idleTimeout = reactor.callLater(30, world.note("dropped"))
            reactor.callLater(0, stall)
            assert world.turn() == ["poll"]
            assert world.turn() == ["poll", "in time"]
            assert idleTimeout.active()
            idleTimeout.cancel()
            reactor.removeAll()

    def test_stop_takesEffectAtTheEndOfItsTurn(self, world: World) -> None:
        reactor, note = world.reactor, world.note
        for phase in ("before", "during", "after"):
            reactor.addSystemEventTrigger(phase, "shutdown", note(phase))
        reactor.callFromThread(reactor.stop)
        reactor.callFromThread(note("call"))
        reactor.callLater(0, note("timer"))
        reactor.run(installSignalHandlers=False)
        assert world.trace == ["poll", "call", "timer", "before", "during", "after"]


class TestSecondLook:
    """A descriptor is looked up again before each call: an earlier callback of the batch may have changed anything."""

    def test_readRemovesTheWriter(self, world: World) -> None:
        with Watching() as watching:

            def read() -> None:
                world.trace.append("read")
                world.reactor.removeWriter(watching)

            watching.onRead, watching.onWrite = read, world.note("write")
            watching.peer.send(b"x")
            world.reactor.addReader(watching)
            world.reactor.addWriter(watching)
            assert world.turn() == ["poll", "read"]
            world.reactor.removeAll()

    def test_aRaisingRead_takesTheWriterAlong(self, world: World, logs: LogCapture) -> None:
        def read() -> None:
            world.trace.append("read")
            raise ValueError("on purpose")

        with Watching(read, world.note("write")) as watching:
            watching.peer.send(b"x")
            world.reactor.addReader(watching)
            world.reactor.addWriter(watching)
            assert world.turn() == ["poll", "read"]
            assert [type(reason.value) for reason in watching.lost] == [ValueError]
            assert world.turn() == ["poll"]
        (record,) = logs.takeErrors()
        assert "watching" in record.message

    def test_theWriterReplacedByAnother_getsTheCall(self, world: World) -> None:
        """The number counts, not who had it when the kernel looked: the new owner tries, and that is harmless."""
        with Watching() as watching:
            other = Number(watching.fileno())

            def read() -> None:
                world.reactor.removeWriter(watching)
                world.reactor.addWriter(other)

            watching.onRead, watching.onWrite = read, world.note("write")
            watching.peer.send(b"x")
            world.reactor.addReader(watching)
            world.reactor.addWriter(watching)
            assert world.turn() == ["poll"]
            assert watching.writes == 0
            world.reactor.removeAll()

    def test_aNeighbourStoppedInTheSameBatch_isNotCalled(self, world: World) -> None:
        """B07: each handler stops another one; whoever was stopped is not called any more."""
        with Watching() as ready:
            ready.peer.send(b"x")
            numbers = [os.dup(ready.fileno()) for _ in range(200)]
            readers: dict[int, Number] = {}
            stopped: set[int] = set()

            def reading(fd: int) -> Callable[[], None]:
                def read() -> None:
                    assert fd not in stopped, "called after it was stopped"
                    victim = next((other for other in reversed(numbers) if other not in stopped and other != fd), None)
                    if victim is not None:
                        stopped.add(victim)
                        world.reactor.removeReader(readers[victim])

                return read

            try:
                for fd in numbers:
                    readers[fd] = Number(fd, reading(fd))
                    world.reactor.addReader(readers[fd])
                world.turn()
                assert sum(reader.reads for reader in readers.values()) == 100
                assert len(stopped) == 100
                world.reactor.removeAll()
            finally:
                for fd in numbers:
                    os.close(fd)


class TestFullBatch:
    """More than 256 ready: the rest is read in the same turn, before any timer."""

    COUNT = 300

    @pytest.fixture
    def numbers(self) -> Iterator[list[int]]:
        """Descriptors that are always readable."""
        here, there = socket.socketpair()
        there.send(b"x")
        numbers = [os.dup(here.fileno()) for _ in range(self.COUNT)]
        yield numbers
        for fd in numbers:
            os.close(fd)
        here.close()
        there.close()

    def test_allAreRead_beforeATimer(self, world: World, numbers: list[int]) -> None:
        reactor = world.reactor
        readers = [Number(fd, world.note("read")) for fd in numbers]
        for reader in readers:
            reactor.addReader(reader)
        reactor.callLater(0, world.note("timer"))
        reactor.callFromThread(world.note("call"))
        trace = world.turn(60.0)
        assert all(reader.reads for reader in readers)
        assert trace[-2:] == ["call", "timer"]
        assert trace.index("call") == len(trace) - 2
        # watched / 256 + 1 repetitions at the most, none of which sleeps.
        assert 2 <= trace.count("poll") <= 1 + (self.COUNT + 1) // BATCH + 1
        assert world.backend.timeouts[1:] == [0.0] * (len(world.backend.timeouts) - 1)
        reactor.removeAll()

    def test_whatTheFirstBatchWrote_isSentBeforeTheSecond(self, world: World, numbers: list[int]) -> None:
        reactor = world.reactor
        stream, peer = tracedStream(reactor, world.trace)
        written: list[bytes] = []

        def read() -> None:
            if not written:
                written.append(b"answer")
                stream.write(b"answer")

        with peer:
            for fd in numbers:
                reactor.addReader(Number(fd, read))
            assert world.turn()[:3] == ["poll", "send", "poll"]
            reactor.removeAll()

    def test_aTimerMadeInTheFirstBatch_waitsForALaterTurn(self, world: World, numbers: list[int]) -> None:
        reactor = world.reactor
        world.backend.freeze()
        made: list[Any] = []

        def read() -> None:
            if not made:
                made.append(reactor.callLater(0, world.note("timer")))

        for fd in numbers:
            reactor.addReader(Number(fd, read))
        assert "timer" not in world.turn()
        reactor.removeAll()
        assert world.turn() == ["poll", "timer"]

    def test_noneStarves(self, world: World, numbers: list[int]) -> None:
        """B26: with more ready than a turn serves, each is served within few turns."""
        more = [os.dup(numbers[0]) for _ in range(300)]
        try:
            readers = [Number(fd) for fd in (*numbers, *more)]
            for reader in readers:
                world.reactor.addReader(reader)
            for _ in range(3):
                world.turn()
            assert min(reader.reads for reader in readers) >= 1
            assert len(world.backend.timeouts) <= 3 * (1 + 601 // BATCH + 1)
            world.reactor.removeAll()
        finally:
            for fd in more:
                os.close(fd)


class TestTimeout:
    def test_nothingToDo(self, world: World) -> None:
        assert world.reactor.timeout() is None

    def test_untilTheNextTimer(self, world: World) -> None:
        world.backend.freeze()
        world.reactor.callLater(20, print)
        sooner = world.reactor.callLater(10, print)
        assert world.reactor.timeout() == pytest.approx(10)
        sooner.cancel()
        assert world.reactor.timeout() == pytest.approx(20)
        world.backend.shift = 100
        assert world.reactor.timeout() == 0

    def test_whatWaits(self, world: World) -> None:
        reactor = world.reactor
        reactor.callFromThread(world.note("call"))
        assert reactor.timeout() == 0
        assert world.turn(60.0) == ["poll", "call"]
        # The waker's byte has been read in that turn, or is in this one, which does not sleep for ever either.
        assert reactor.timeout() is None
        stream, peer = tracedStream(reactor, world.trace)
        with peer:
            stream.write(b"x")
            assert reactor.timeout() == 0
            world.turn()
            assert reactor.timeout() is None

    def test_stop_isNotSleptOver(self, world: World) -> None:
        reactor = world.reactor
        reactor.startRunning(installSignalHandlers=False)
        assert reactor.timeout() is None
        reactor.stop()
        assert reactor.timeout() == 0
        reactor.iterate()
        assert not reactor.running

    @pytest.mark.parametrize("delay", [86_401, 2_147_484, 1e10, 1e300, 2**128 + 1, float("inf")])
    def test_farAway_theBackendIsAskedForADayAtMost(self, backendName: str, delay: float) -> None:
        """B14."""
        backend = Watched(backendName)
        with Reactor(backend=backend) as reactor:
            reactor.callLater(delay, print)

            def wake() -> None:
                while not backend.timeouts:
                    os.sched_yield()
                reactor.callFromThread(reactor.crash)

            waker = Background(wake)
            reactor.run(installSignalHandlers=False)
            waker.result()
            assert backend.timeouts[0] == pytest.approx(86_400)
            assert (reactor.timeout() or 0) <= 86_400

    def test_clock_withNothingWatched(self) -> None:
        """A reactor in a world without descriptors sleeps until its timer."""
        clock = Clock()
        clock.sleeps = True
        with Reactor(backend=clock) as reactor:
            reactor.callLater(3600, reactor.stop)
            reactor.run(installSignalHandlers=False)
            assert reactor.seconds() == 3600
            assert clock.timeouts == [3600.0]


class TestIterate:
    def test_sleepsForTheDelayAtMost(self, world: World) -> None:
        world.backend.freeze()
        world.turn(0.001)
        world.reactor.callLater(60, print)
        world.turn(0.002)
        early = world.reactor.callLater(0.003, print)
        world.turn(0.5)
        early.cancel()
        assert world.backend.timeouts == [0.001, 0.002, pytest.approx(0.003)]

    def test_withoutADelay_sleepsForTheNextTimer(self, world: World) -> None:
        world.reactor.callLater(0.001, world.note("timer"))
        assert world.turn(None) == ["poll", "timer"]
        assert world.backend.timeouts == [pytest.approx(0.001, abs=0.001)]

    def test_isWokenByAnotherThread(self, world: World) -> None:
        call = Background(world.reactor.callFromThread, world.note("call"))
        while "call" not in world.turn(None):
            pass
        call.result()

    def test_needsNoRun_andFiresNoStartup(self, world: World) -> None:
        world.reactor.addSystemEventTrigger("during", "startup", world.note("startup"))
        world.reactor.callLater(0, world.note("timer"))
        assert world.turn() == ["poll", "timer"]
        assert not world.reactor.running

    def test_insideACallback(self, world: World) -> None:
        refused: list[type[Exception]] = []

        def again() -> None:
            for method in (world.reactor.iterate, world.reactor.doIteration, world.reactor.run):
                try:
                    method()
                except error.ReactorAlreadyRunning as refusal:
                    refused.append(type(refusal))

        with Watching(again, again) as watching:
            watching.peer.send(b"x")
            world.reactor.addReader(watching)
            world.reactor.addWriter(watching)
            world.reactor.callLater(0, again)
            world.reactor.callFromThread(again)
            assert world.turn() == ["poll"]
            assert len(refused) == 12
            world.reactor.removeAll()

    def test_doIteration_isOneTurn(self, world: World) -> None:
        world.reactor.callLater(0, world.note("timer"))
        world.reactor.doIteration(0)
        assert world.trace == ["poll", "timer"]

    @pytest.mark.parametrize("delay", [-1, float("nan")])
    def test_refusesWhatIsNoDelay(self, world: World, delay: float) -> None:
        with pytest.raises(ValueError, match="delay"):
            world.reactor.iterate(delay)

    def test_startRunning_thenIterate(self, world: World) -> None:
        """A host drives a whole run."""
        reactor, note = world.reactor, world.note
        reactor.addSystemEventTrigger("after", "startup", note("startup"))
        reactor.addSystemEventTrigger("before", "shutdown", note("shutdown"))
        reactor.startRunning(installSignalHandlers=False)
        reactor.callFromThread(reactor.stop)
        assert world.trace == ["startup"]
        assert reactor.running
        assert world.turn() == ["poll", "shutdown"]
        assert not reactor.running
        with pytest.raises(error.ReactorNotRunning):
            reactor.callFromThread(print)
        # On a stopped reactor, iterate() takes calls again.
        world.turn()
        reactor.callFromThread(note("call"))
        assert world.turn() == ["poll", "call"]

    def test_startRunning_thenMainLoop(self, world: World) -> None:
        world.reactor.startRunning(installSignalHandlers=False)
        world.reactor.callLater(0, world.reactor.stop)
        world.reactor.mainLoop()
        assert not world.reactor.running


class TestPending:
    def watch(self, world: World) -> list[str]:
        told: list[str] = []
        world.reactor.onPending = lambda: told.append("pending")
        return told

    def test_aTimer_once(self, world: World) -> None:
        told = self.watch(world)
        world.reactor.callLater(60, print)
        world.reactor.callLater(30, print)
        assert told == ["pending"]
        world.turn()
        assert told == ["pending"]
        world.reactor.callLater(30, print)
        assert told == ["pending", "pending"]

    def test_aCallFromAnotherThread(self, world: World) -> None:
        told = self.watch(world)
        Background(world.reactor.callFromThread, world.note("call")).result()
        assert told == ["pending"]
        assert world.turn() == ["poll", "call"]

    def test_aStream(self, world: World) -> None:
        stream, peer = tracedStream(world.reactor, world.trace)
        with peer:
            told = self.watch(world)
            stream.write(b"x")
            assert told == ["pending"]
            stream.write(b"y")
            assert told == ["pending"]
            assert world.turn() == ["send", "poll"]

    def test_theEndOfAStream(self, world: World) -> None:
        stream, peer = tracedStream(world.reactor, world.trace)
        with peer:
            told = self.watch(world)
            stream.loseConnection()
            assert told == ["pending"]

    @pytest.mark.parametrize("change", ["reset", "delay"])
    def test_aTimerThatIsMadeAnew(self, world: World, change: str) -> None:
        """A1: reset and delay count as making the call anew; a host that sleeps until the old time would be late."""
        call = world.reactor.callLater(60, print)
        told = self.watch(world)
        if change == "reset":
            call.reset(1)
        else:
            call.delay(-59)
        assert told == ["pending"]

    def test_insideATurn_nothing(self, world: World) -> None:
        told = self.watch(world)
        reactor = world.reactor
        stream, peer = tracedStream(reactor, world.trace)
        with peer:
            world.turn()
            del told[:]
            reactor.callFromThread(reactor.callLater, 60, print)
            assert told == ["pending"]
            reactor.callFromThread(reactor.callFromThread, print)
            reactor.callFromThread(stream.write, b"x")
            world.turn()
            assert told == ["pending"]

    def test_mayBeTakenAway(self, world: World) -> None:
        told = self.watch(world)
        world.reactor.onPending = None
        assert world.reactor.onPending is None
        world.reactor.callLater(60, print)
        assert told == []

    def test_setInACallback_itIsToldAfterTheTurn(self, world: World) -> None:
        told: list[str] = []

        def install() -> None:
            world.reactor.onPending = lambda: told.append("pending")
            world.reactor.callLater(60, print)

        world.reactor.callLater(0, install)
        world.turn()
        assert told == []
        world.reactor.callLater(60, print)
        assert told == ["pending"]

    def test_refusesWhatIsNotCallable(self, world: World) -> None:
        with pytest.raises(TypeError, match="onPending"):
            world.reactor.onPending = 5  # type: ignore[assignment]  # that is the point

    def test_aHostThatWaitsForItAlone(self, world: World) -> None:
        """Driven by nothing but onPending and timeout(), everything is done."""
        wanted = threading.Event()
        world.reactor.onPending = wanted.set
        world.turn()
        Background(world.reactor.callFromThread, world.note("call"))
        assert wanted.wait(20)
        assert world.turn() == ["poll", "call"]


class TestFileno:
    def test_aForeignLoopMayWatchIt(self, world: World) -> None:
        if world.backend.inner.name in ("select", "poll"):
            with pytest.raises(io.UnsupportedOperation, match="no descriptor"):
                world.reactor.fileno()
            return
        fd = world.reactor.fileno()
        with Watching(world.note("read")) as watching:
            world.reactor.addReader(watching)
            assert select.select([fd], [], [], 0)[0] == []
            watching.peer.send(b"x")
            assert select.select([fd], [], [], 20)[0] == [fd]
            assert world.turn() == ["poll", "read"]
            watching.drain()
            world.turn()
            assert select.select([fd], [], [], 0)[0] == []
            Background(world.reactor.callFromThread, world.note("call")).result()
            assert select.select([fd], [], [], 20)[0] == [fd]
            assert world.turn() == ["poll", "call"]
            world.reactor.removeAll()


class TestObservers:
    @pytest.fixture
    def register(self) -> Iterator[Callable[[object], None]]:
        """Have an object observe every reactor that starts."""
        registered: list[object] = []

        def register(observer: object) -> None:
            class Plugin:
                @calandria.plugin.hookimpl
                def calandria_observer(self, reactor: Reactor) -> object:
                    return observer

            plugin = Plugin()
            registered.append(plugin)
            calandria.plugin.register(plugin)

        yield register
        for plugin in registered:
            calandria.plugin.unregister(plugin)

    def test_turn_isToldWhatItCost(self, world: World, register: Callable[[object], None]) -> None:
        told: list[tuple[float, float, int, int]] = []

        class Observer:
            def turn(self, waited: float, worked: float, events: int, timers: int) -> None:
                told.append((waited, worked, events, timers))

        register(Observer())
        backend, reactor = world.backend, world.reactor
        backend.freeze()

        def work() -> None:
            backend.shift += 3

        with Watching(work) as watching:
            watching.peer.send(b"x")
            reactor.addReader(watching)
            reactor.callLater(0, work)
            reactor.callLater(0, reactor.crash)
            reactor.run(installSignalHandlers=False)
            reactor.removeAll()
        assert told == [(0, 6, 1, 2)]

    def test_slowCallback_isTold(self, world: World, register: Callable[[object], None]) -> None:
        told: list[tuple[str, float]] = []

        class Observer:
            def slowCallback(self, what: str, seconds: float) -> None:
                told.append((what, seconds))

        register(Observer())
        backend, reactor = world.backend, world.reactor
        backend.freeze()

        def slow(seconds: float) -> None:
            backend.shift += seconds

        reactor.callLater(0, slow, 0.09)
        reactor.callLater(0, slow, 0.5)
        reactor.callFromThread(slow, 0.25)

        def read() -> None:
            slow(2)
            reactor.crash()

        with Watching(read) as watching:
            watching.peer.send(b"x")
            reactor.addReader(watching)
            reactor.run(installSignalHandlers=False)
            reactor.removeAll()
        assert [seconds for _, seconds in told] == [pytest.approx(2), pytest.approx(0.25), pytest.approx(0.5)]
        assert "slow" in told[1][0]

    def test_oneThatRaises_isDropped(self, world: World, register: Callable[[object], None], logs: LogCapture) -> None:
        calls: list[str] = []

        class Bad:
            def turn(self, *args: object) -> None:
                calls.append("bad")
                raise ValueError("on purpose")

        class Good:
            def turn(self, *args: object) -> None:
                calls.append("good")

        register(Bad())
        register(Good())
        world.reactor.callLater(0, world.reactor.callLater, 0, world.reactor.crash)
        world.reactor.run(installSignalHandlers=False)
        assert sorted(calls) == ["bad", "good", "good"]
        assert len(logs.takeErrors()) == 1

    def test_withoutTurn_theClockIsNotAsked(self, backendName: str) -> None:
        """Absent observers cost nothing: one look at the clock after the poll, and the one that timeout() needs."""
        looks: list[float] = []

        class Counting(Watched):
            def seconds(self) -> float:
                looks.append(0)
                return super().seconds()

        with Reactor(backend=Counting(backendName)) as reactor:
            reactor.callLater(60, print)
            del looks[:]
            reactor.iterate()
            assert len(looks) == 2


class TestChain:
    def test_aChainOfCallLater0_starvesNobody(self, world: World) -> None:
        """T03: one generation per turn, and input is read meanwhile."""
        generations: list[int] = []
        echoed: list[bytes] = []

        def generation() -> None:
            generations.append(len(world.backend.timeouts))
            world.reactor.callLater(0, generation)

        with Watching() as watching:

            def read() -> None:
                echoed.append(watching.drain())
                watching.socket.send(b"answer")

            watching.onRead = read
            world.reactor.addReader(watching)
            world.reactor.callLater(0, generation)

            def client() -> None:
                for _ in range(50):
                    watching.peer.send(b"question")
                    assert watching.peer.recv(100) == b"answer"

            watching.peer.settimeout(20)
            runUntil(world.reactor, Background(client))
            world.reactor.removeAll()
        assert echoed == [b"question"] * 50
        # Each generation had a poll of its own, and none of those slept.
        assert generations == list(range(generations[0], generations[0] + len(generations)))
        assert len(generations) > 50
        assert set(world.backend.timeouts[1 : len(generations)]) == {0.0}

    def test_aChainOfCalls_starvesNobody(self, world: World) -> None:
        turns: list[int] = []

        def again() -> None:
            turns.append(len(world.backend.timeouts))
            if len(turns) < 100:
                world.reactor.callFromThread(again)

        world.reactor.callFromThread(again)
        with Watching() as watching:
            watching.peer.send(b"x")
            world.reactor.addReader(watching)
            runUntil(world.reactor, lambda: len(turns) == 100)
            world.reactor.removeAll()
        assert turns == list(range(turns[0], turns[0] + 100))
        assert watching.reads >= 100


class TestFirstBytes:
    def test_oneLibraryFrame_betweenTheLoopAndTheUser(self, world: World) -> None:
        """DESIGN 4: Backend.poll → loop → Stream.doRead → Protocol.dataReceived."""
        import sys

        frames: list[str] = []

        class Looking(Protocol):
            def dataReceived(self, data: bytes) -> None:
                frame = sys._getframe(1)
                while frame is not None:
                    frames.append(frame.f_code.co_name)
                    frame = frame.f_back  # type: ignore[assignment]  # None at the outermost one

        stream, peer = tracedStream(world.reactor, world.trace, Looking())
        with peer:
            peer.send(b"x")
            world.turn()
            assert stream.connected
        assert frames[0] == "doRead"
        assert frames[1] == "turns"
