"""The life of a reactor: running, stopping, crashing, running again, closing; its system events; and what becomes of
whatever is raised on the way.
"""

from __future__ import annotations

import gc
import io
import os
import socket
import threading
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import calandria
from calandria import Factory, Protocol, Reactor, defer, error
from tests.core.tools import Watched, Watching, tracedStream
from tests.helpers import Background, connectTo, openDescriptors, receiveAll, runUntil
from tests.recorders import Recorder, RecordingClient, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers import LogCapture

PHASES = ("before", "during", "after")


def run(reactor: Reactor) -> None:
    reactor.run(installSignalHandlers=False)


def runBriefly(reactor: Reactor) -> None:
    """A whole run, whose only wish is to stop."""
    reactor.callWhenRunning(reactor.stop)
    run(reactor)


def noteEvents(reactor: Reactor, events: list[str]) -> None:
    """Note each phase of both events, once."""
    for event in ("startup", "shutdown"):
        for phase in PHASES:
            reactor.addSystemEventTrigger(phase, event, events.append, f"{phase} {event}")


class TestRunning:
    def test_running_isTrueFromDuringStartupToDuringShutdown(self, reactor: Reactor) -> None:
        """B.1, C1, C4."""
        seen: list[tuple[str, bool]] = []

        def look(what: str) -> None:
            seen.append((what, reactor.running))

        for event in ("startup", "shutdown"):
            for phase in PHASES:
                reactor.addSystemEventTrigger(phase, event, look, f"{phase} {event}")

        def stop() -> None:
            reactor.stop()
            look("right after stop")

        reactor.callLater(0, stop)
        assert not reactor.running
        run(reactor)
        assert not reactor.running
        assert seen == [
            ("before startup", False),
            ("during startup", True),
            ("after startup", True),
            ("right after stop", True),
            ("before shutdown", True),
            ("during shutdown", False),
            ("after shutdown", False),
        ]

    def test_again_andAgain(self, reactor: Reactor) -> None:
        """A3: run() after stop() works, with the triggers added since; those of the first run are gone."""
        events: list[str] = []
        for _ in range(3):
            events.clear()
            noteEvents(reactor, events)
            runBriefly(reactor)
            assert events == [f"{phase} {event}" for event in ("startup", "shutdown") for phase in PHASES]
        events.clear()
        runBriefly(reactor)
        assert events == []

    def test_timersSurvive(self, reactor: Reactor) -> None:
        called: list[str] = []
        call = reactor.callLater(0.01, called.append, "timer")
        runBriefly(reactor)
        assert (called, call.active()) == ([], True)
        runUntil(reactor, lambda: called)

    def test_insideACallback_itIsRefused(self, reactor: Reactor) -> None:
        """L01: in every kind of callback that a run has."""
        refused: list[str] = []

        def again(what: str) -> None:
            for method in (reactor.run, reactor.startRunning, reactor.iterate):
                try:
                    method()
                except error.ReactorAlreadyRunning:
                    refused.append(what)

        kinds = [f"{phase} {event}" for event in ("startup", "shutdown") for phase in PHASES]
        for kind in kinds:
            reactor.addSystemEventTrigger(*kind.split(), again, kind)  # type: ignore[arg-type]  # two words each
        reactor.callWhenRunning(again, "when running")
        reactor.callFromThread(again, "call")
        reactor.callLater(0, again, "timer")

        def read() -> None:
            again("read")
            reactor.stop()

        with Watching(read) as watching:
            watching.peer.send(b"x")
            reactor.addReader(watching)
            run(reactor)
        assert sorted(refused) == sorted([*kinds, "when running", "call", "timer", "read"] * 3)

    def test_inTheLastDrain_itIsRefused(self, reactor: Reactor) -> None:
        """The last act of run() is still a part of it."""
        refused: list[type[Exception]] = []

        def again() -> None:
            for method in (reactor.run, reactor.startRunning, reactor.iterate):
                try:
                    method()
                except error.ReactorAlreadyRunning as refusal:
                    refused.append(type(refusal))

        reactor.addSystemEventTrigger("after", "shutdown", reactor.callFromThread, again)
        runBriefly(reactor)
        assert len(refused) == 3

    def test_fromAnotherThread_itIsRefused(self, reactor: Reactor) -> None:
        def again() -> None:
            for method in (reactor.run, reactor.startRunning):
                with pytest.raises(error.ReactorAlreadyRunning):
                    method()

        call: list[Background[None]] = []
        reactor.callWhenRunning(lambda: call.append(Background(again)))
        runUntil(reactor, lambda: call and call[0]())
        call[0].result()

    def test_neverReactorNotRestartable(self, reactor: Reactor) -> None:
        runBriefly(reactor)
        reactor.callWhenRunning(reactor.crash)
        run(reactor)
        reactor.iterate()
        runBriefly(reactor)

    @pytest.mark.parametrize("age", ["new", "stopped"])
    def test_mainLoop_withoutStartRunning(self, reactor: Reactor, age: str) -> None:
        """There is nothing to loop: whether it returns or says so, the reactor stays what it was."""
        if age == "stopped":
            runBriefly(reactor)
        try:
            reactor.mainLoop()
        except error.ReactorNotRunning:
            pass
        assert age in repr(reactor)
        runBriefly(reactor)

    def test_aPollThatRaisesOnce_isLogged(self, backendName: str, logs: LogCapture) -> None:
        """B16: it was a signal handler's exception, for all that we know; whoever is watched stays watched."""
        backend = Watched(backendName)
        with Reactor(backend=backend) as reactor, Watching() as watching:
            reactor.addReader(watching)
            reactor.callLater(0, backend.raising.append, OSError(5, "on purpose"))
            reactor.callLater(0, watching.peer.send, b"x")
            runUntil(reactor, lambda: watching.reads)
            reactor.removeAll()
        (record,) = logs.takeErrors()
        assert "on purpose" in str(record.exc_text)

    def test_aPollThatAlwaysRaises_endsTheRun(self, backendName: str, logs: LogCapture) -> None:
        """Also when the shutdown would wait for something that only a poll could bring."""
        backend = Watched(backendName)
        with Reactor(backend=backend) as reactor:
            events: list[str] = []
            never: defer.Deferred[None] = defer.Deferred()
            reactor.addSystemEventTrigger("before", "shutdown", lambda: never)
            noteEvents(reactor, events)
            backend.raising.extend(OSError(5, "on purpose") for _ in range(100))
            with pytest.raises(OSError, match="on purpose"):
                run(reactor)
            assert events[3:] == ["before shutdown", "during shutdown", "after shutdown"]
            assert len(backend.timeouts) < 10
            backend.raising.clear()
            runBriefly(reactor)
        logs.takeErrors()

    def test_aWarningThatIsAnError_leavesItUsable(self, reactor: Reactor) -> None:
        """Whatever keeps run() from starting, the reactor does not run afterwards."""
        with Reactor(backend=reactor.backend.name) as default:
            calandria.setDefault(default)
            try:
                default.callLater(60, print)
                with pytest.raises(RuntimeWarning, match="default"):
                    run(reactor)
            finally:
                calandria.setDefault(None)
            runBriefly(reactor)
            assert calandria.reactor is not reactor
            calandria.reactor.close()


class TestStopping:
    def test_whenNotRunning(self, reactor: Reactor) -> None:
        """L02."""
        with pytest.raises(error.ReactorNotRunning):
            reactor.stop()
        runBriefly(reactor)
        with pytest.raises(error.ReactorNotRunning):
            reactor.stop()
        runBriefly(reactor)

    def test_twice(self, reactor: Reactor) -> None:
        refused: list[str] = []

        def stopAgain(what: str) -> None:
            try:
                reactor.stop()
            except error.ReactorNotRunning as refusal:
                refused.append(f"{what}: {refusal}")

        def stop() -> None:
            reactor.stop()
            stopAgain("at once")
            reactor.callFromThread(stopAgain, "in the last drain")

        for phase in PHASES:
            reactor.addSystemEventTrigger(phase, "shutdown", stopAgain, phase)
        reactor.callWhenRunning(stop)
        run(reactor)
        assert [text.partition(":")[0] for text in refused] == ["at once", "in the last drain", *PHASES]

    def test_fromTwoThreads(self, reactor: Reactor, logs: LogCapture) -> None:
        def begin() -> None:
            for _ in range(2):
                Background(reactor.callFromThread, reactor.stop).result()

        events: list[str] = []
        noteEvents(reactor, events)
        reactor.callWhenRunning(begin)
        run(reactor)
        assert events[3:] == [f"{phase} shutdown" for phase in PHASES]
        (record,) = logs.takeErrors()
        assert "ReactorNotRunning" in str(record.exc_text)

    @pytest.mark.parametrize("phase", PHASES)
    def test_duringStartup(self, reactor: Reactor, phase: str) -> None:
        """L03: run() returns, and the shutdown happens once."""
        events: list[str] = []
        reactor.addSystemEventTrigger(phase, "startup", reactor.stop)
        for each in PHASES:
            reactor.addSystemEventTrigger(each, "shutdown", events.append, each)
        run(reactor)
        assert events == list(PHASES)
        assert not reactor.running
        runBriefly(reactor)
        assert events == list(PHASES)

    def test_whileStartupWaits(self, reactor: Reactor) -> None:
        """L03: a 'before startup' trigger's Deferred has not fired, and never does."""
        events: list[str] = []
        waiting: defer.Deferred[None] = defer.Deferred()
        reactor.addSystemEventTrigger("before", "startup", lambda: waiting)
        noteEvents(reactor, events)
        reactor.callLater(0, reactor.stop)
        run(reactor)
        assert events == ["before startup", "before shutdown", "during shutdown", "after shutdown"]
        # Fired too late, it starts nothing.
        waiting.callback(None)
        assert events[4:] == []
        assert not reactor.running

    def test_portsAndConnections_areClosed(self, reactor: Reactor) -> None:
        """A3, C5: with ConnectionLost, in order."""
        events: list[str] = []

        class Noting(Recorder):
            def connectionLost(self, reason: Any) -> None:
                super().connectionLost(reason)
                events.append(type(reason.value).__name__)

        class NotingServer(RecordingServer):
            def stopFactory(self) -> None:
                events.append("stopFactory")

        # An address of our own, so that nobody else listens on the number afterwards.
        address = f"127.{os.getpid() >> 8 & 255}.{os.getpid() & 255}.71"
        server, client = NotingServer(Noting), RecordingClient(Noting)
        port = reactor.listenTCP(0, server, interface=address)
        number = port.getHost().port
        reactor.connectTCP(address, number, client)
        runUntil(reactor, lambda: server.protocols and client.protocols)
        noteEvents(reactor, events)
        runBriefly(reactor)
        assert events[3] == "before shutdown"
        assert sorted(events[4:7]) == ["ConnectionLost", "ConnectionLost", "stopFactory"]
        assert events[7:] == ["during shutdown", "after shutdown"]
        assert [protocol.events for protocol in (*server.protocols, *client.protocols)] == [["made", "lost"]] * 2
        with pytest.raises(ConnectionRefusedError):
            connectTo(number, address)

    def test_theLastFlush(self, reactor: Reactor) -> None:
        """A3: what was written up to the 'before shutdown' triggers gets one last chance."""
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port) as peer:
            runUntil(reactor, lambda: server.protocols)
            transport = server.protocols[0].transport
            reactor.addSystemEventTrigger("before", "shutdown", transport.write, b" and in the trigger")
            reactor.callLater(0, transport.write, b"in the last turn")
            reactor.callLater(0, reactor.stop)
            run(reactor)
            assert receiveAll(peer) == b"in the last turn and in the trigger"

    def test_aRaisingConnectionLost_doesNotStopTheRest(self, reactor: Reactor, logs: LogCapture) -> None:
        class Raising(Recorder):
            def connectionLost(self, reason: Any) -> None:
                super().connectionLost(reason)
                raise ValueError("on purpose")

        server = RecordingServer(Raising)
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port), connectTo(port.getHost().port), Watching() as watching:
            runUntil(reactor, lambda: len(server.protocols) == 2)
            reactor.addReader(watching)
            runBriefly(reactor)
        assert [protocol.events for protocol in server.protocols] == [["made", "lost"]] * 2
        assert server.events == ["start", "stop"]
        assert [type(reason.value) for reason in watching.lost] == [error.ConnectionLost]
        assert len(logs.takeErrors()) == 2

    def test_connectionLost_thatConnectsAgain_isLostAsWell(self, reactor: Reactor) -> None:
        """What is made while everything is being lost is lost too: run() ends, and nothing is left."""

        class Reconnecting(RecordingClient):
            def clientConnectionLost(self, connector: Any, reason: Any) -> None:
                super().clientConnectionLost(connector, reason)
                if len(self.lost) < 3:
                    connector.connect()

        client = Reconnecting()
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        reactor.connectTCP("127.0.0.1", port.getHost().port, client)
        runUntil(reactor, lambda: client.protocols and server.protocols)
        runBriefly(reactor)
        assert client.events[:3] == ["start", "connecting", "lost"]
        assert len(client.lost) + len(client.failed) == client.events.count("connecting")
        assert not reactor.owned

    def test_writingIntoAnAlreadyLostConnection_inTriggers_isSilent(self, reactor: Reactor) -> None:
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port) as peer:
            runUntil(reactor, lambda: server.protocols)
            transport = server.protocols[0].transport
            reactor.addSystemEventTrigger("during", "shutdown", transport.write, b"too late")
            reactor.addSystemEventTrigger("after", "shutdown", transport.loseConnection)
            runBriefly(reactor)
            assert receiveAll(peer) == b""


class TestShutdownTimeout:
    def test_aDeferred_isWaitedFor(self, reactor: Reactor) -> None:
        events: list[str] = []

        def before() -> defer.Deferred[None]:
            deferred: defer.Deferred[None] = defer.Deferred()
            reactor.callLater(0.01, deferred.callback, None)
            reactor.callLater(0.01, events.append, "ready")
            return deferred

        reactor.addSystemEventTrigger("before", "shutdown", before)
        noteEvents(reactor, events)
        runBriefly(reactor)
        assert events[3:] == ["before shutdown", "ready", "during shutdown", "after shutdown"] or events[3:] == [
            "before shutdown",
            "during shutdown",
            "after shutdown",
            "ready",
        ]
        assert reactor.getDelayedCalls() == [] or events[-1] == "after shutdown"

    def test_one_thatNeverFires(self, reactor: Reactor, logs: LogCapture) -> None:
        """A3: 30 seconds by default; here less."""
        assert reactor.shutdownTimeout == 30
        reactor.shutdownTimeout = 0.02
        never: defer.Deferred[None] = defer.Deferred()
        events: list[str] = []
        reactor.addSystemEventTrigger("before", "shutdown", lambda: never)
        noteEvents(reactor, events)
        runBriefly(reactor)
        assert events[3:] == ["before shutdown", "during shutdown", "after shutdown"]
        (record,) = logs.takeErrors()
        assert "0.02" in record.message
        # Too late: it changes nothing.
        never.callback(None)
        assert len(events) == 6
        assert reactor.getDelayedCalls() == []
        runBriefly(reactor)

    def test_none_isForEver(self, reactor: Reactor) -> None:
        reactor.shutdownTimeout = None
        waiting: defer.Deferred[None] = defer.Deferred()
        reactor.addSystemEventTrigger("before", "shutdown", lambda: waiting)
        events: list[str] = []

        def look() -> None:
            # The loop goes on meanwhile, and nothing will end the waiting.
            assert reactor.getDelayedCalls() == []
            events.append("waited")
            waiting.callback(None)

        reactor.callLater(0, reactor.stop)
        reactor.callLater(0, reactor.callLater, 0, look)
        run(reactor)
        assert events == ["waited"]

    def test_aSecondStop_whileItWaits_isRefused(self, reactor: Reactor) -> None:
        waiting: defer.Deferred[None] = defer.Deferred()
        refused: list[str] = []

        def stopAgain() -> None:
            try:
                reactor.stop()
            except error.ReactorNotRunning as refusal:
                refused.append(str(refusal))
            waiting.callback(None)

        reactor.addSystemEventTrigger("before", "shutdown", lambda: waiting)
        reactor.callLater(0, reactor.stop)
        reactor.callLater(0, reactor.callLater, 0, stopAgain)
        run(reactor)
        assert len(refused) == 1

    def test_crash_endsTheWaiting(self, reactor: Reactor) -> None:
        """And the Deferred of that run does nothing to the next."""
        waiting: defer.Deferred[None] = defer.Deferred()
        events: list[str] = []
        reactor.addSystemEventTrigger("before", "shutdown", lambda: waiting)
        reactor.addSystemEventTrigger("during", "shutdown", events.append, "during")
        reactor.callLater(0, reactor.stop)
        reactor.callLater(0, reactor.callLater, 0, reactor.crash)
        run(reactor)
        assert events == []

        def meanwhile() -> None:
            waiting.callback(None)
            reactor.callLater(0, events.append, "still running")
            reactor.callLater(0.01, reactor.stop)

        reactor.callLater(0, meanwhile)
        run(reactor)
        assert events == ["still running", "during"]


class TestCrashing:
    def test_noShutdown_andNothingIsLost(self, reactor: Reactor) -> None:
        """B.1, C3."""
        events: list[str] = []
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port) as peer:
            runUntil(reactor, lambda: server.protocols)
            noteEvents(reactor, events)
            reactor.callWhenRunning(reactor.crash)
            run(reactor)
            assert not reactor.running
            assert events == [f"{phase} startup" for phase in PHASES]
            assert server.protocols[0].events == ["made"]
            peer.send(b"still there")
            runUntil(reactor, lambda: server.protocols[0].received == b"still there")
        runBriefly(reactor)
        assert events[3:] == [f"{phase} shutdown" for phase in PHASES]

    def test_leavesAfterItsTurn(self, reactor: Reactor) -> None:
        called: list[str] = []
        reactor.callLater(0, reactor.crash)
        reactor.callLater(0, called.append, "same turn")
        reactor.callLater(0, reactor.callLater, 0, called.append, "next turn")
        run(reactor)
        assert called == ["same turn"]

    def test_afterStop_inTheSameTurn(self, reactor: Reactor) -> None:
        events: list[str] = []

        def both() -> None:
            reactor.stop()
            reactor.crash()

        noteEvents(reactor, events)
        reactor.callLater(0, both)
        run(reactor)
        assert events == [f"{phase} startup" for phase in PHASES]
        runBriefly(reactor)
        assert events[3:] == [f"{phase} shutdown" for phase in PHASES]

    def test_whenNotRunning_changesNothing(self, reactor: Reactor) -> None:
        reactor.crash()
        runBriefly(reactor)

    def test_whileStartupWaits(self, reactor: Reactor) -> None:
        waiting: defer.Deferred[None] = defer.Deferred()
        events: list[str] = []
        reactor.addSystemEventTrigger("before", "startup", lambda: waiting)
        reactor.addSystemEventTrigger("during", "startup", events.append, "during")
        reactor.callLater(0, reactor.crash)
        run(reactor)
        assert events == []
        waiting.callback(None)
        assert (events, reactor.running) == ([], False)
        runBriefly(reactor)
        assert events == ["during"]


class TestTriggers:
    def test_thePhases(self, reactor: Reactor) -> None:
        """L04, C6: each once, the phases in order, in each phase the order of adding."""
        events: list[str] = []
        for phase in reversed(PHASES):
            for number in range(3):
                reactor.addSystemEventTrigger(phase, "anything", events.append, f"{phase} {number}")
        reactor.fireSystemEvent("anything")
        assert events == [f"{phase} {number}" for phase in PHASES for number in range(3)]
        reactor.fireSystemEvent("anything")
        assert len(events) == 9

    def test_argumentsAndKeywords(self, reactor: Reactor) -> None:
        called: list[Any] = []

        def function(*args: object, **kw: object) -> None:
            called.append((args, kw))

        reactor.addSystemEventTrigger("during", "anything", function, 1, 2, three=3)
        reactor.fireSystemEvent("anything")
        assert called == [((1, 2), {"three": 3})]

    def test_exceptions_areIsolated(self, reactor: Reactor, logs: LogCapture) -> None:
        events: list[str] = []

        def raises(what: str) -> None:
            raise ValueError(what)

        for phase in PHASES:
            reactor.addSystemEventTrigger(phase, "anything", raises, phase)
            reactor.addSystemEventTrigger(phase, "anything", events.append, phase)
        reactor.fireSystemEvent("anything")
        assert events == list(PHASES)
        errors = logs.takeErrors()
        assert len(errors) == 3
        assert all("raises" in record.message for record in errors)

    def test_during_waitsForAllDeferreds(self, reactor: Reactor, logs: LogCapture) -> None:
        """C6: success or failure."""
        deferreds: list[defer.Deferred[None]] = [defer.Deferred() for _ in range(3)]
        events: list[str] = []
        for deferred in deferreds:
            reactor.addSystemEventTrigger("before", "anything", next, iter([deferred]))
        reactor.addSystemEventTrigger("before", "anything", defer.succeed, None)
        reactor.addSystemEventTrigger("during", "anything", events.append, "during")
        reactor.fireSystemEvent("anything")
        deferreds[1].callback(None)
        deferreds[0].errback(ValueError("on purpose"))
        assert events == []
        deferreds[2].callback(None)
        assert events == ["during"]
        (record,) = logs.takeErrors()
        assert "on purpose" in str(record.exc_text)

    def test_onlyBeforeTriggers_mayMakeOthersWait(self, reactor: Reactor) -> None:
        events: list[str] = []
        never: defer.Deferred[None] = defer.Deferred()
        reactor.addSystemEventTrigger("during", "anything", lambda: never)
        reactor.addSystemEventTrigger("after", "anything", events.append, "after")
        reactor.fireSystemEvent("anything")
        assert events == ["after"]

    @pytest.mark.parametrize("phase", PHASES)
    def test_oneAddedWhileFiring_isCalledInThisFiring(self, reactor: Reactor, phase: str) -> None:
        """C7."""
        events: list[str] = []

        def add() -> None:
            for each in PHASES[PHASES.index(phase) :]:
                reactor.addSystemEventTrigger(each, "anything", events.append, each)

        reactor.addSystemEventTrigger(phase, "anything", add)
        reactor.fireSystemEvent("anything")
        assert events == list(PHASES[PHASES.index(phase) :])

    def test_oneAddedToAPhaseThatIsOver_waitsForTheNextFiring(self, reactor: Reactor) -> None:
        events: list[str] = []
        reactor.addSystemEventTrigger(
            "after", "anything", reactor.addSystemEventTrigger, "before", "anything", events.append, "before"
        )
        reactor.fireSystemEvent("anything")
        assert events == []
        reactor.fireSystemEvent("anything")
        assert events == ["before"]

    def test_removing_isByIdentity(self, reactor: Reactor) -> None:
        """L04: of two equal triggers, the one that was meant."""
        events: list[str] = []
        reactor.addSystemEventTrigger("during", "anything", events.append, "equal")
        reactor.addSystemEventTrigger("during", "anything", events.append, "between")
        second = reactor.addSystemEventTrigger("during", "anything", events.append, "equal")
        reactor.removeSystemEventTrigger(second)
        reactor.fireSystemEvent("anything")
        assert events == ["equal", "between"]

    @pytest.mark.parametrize("phase", PHASES)
    def test_removingAnotherWhileFiring(self, reactor: Reactor, phase: str) -> None:
        events: list[str] = []
        reactor.addSystemEventTrigger(phase, "anything", lambda: reactor.removeSystemEventTrigger(other))
        other = reactor.addSystemEventTrigger(phase, "anything", events.append, "removed")
        reactor.addSystemEventTrigger(phase, "anything", events.append, "next")
        reactor.fireSystemEvent("anything")
        assert events == ["next"]

    def test_removingTwice(self, reactor: Reactor) -> None:
        trigger = reactor.addSystemEventTrigger("during", "anything", print)
        reactor.removeSystemEventTrigger(trigger)
        with pytest.raises((KeyError, ValueError)):
            reactor.removeSystemEventTrigger(trigger)

    def test_removingOneThatWasCalled(self, reactor: Reactor) -> None:
        trigger = reactor.addSystemEventTrigger("during", "anything", lambda: None)
        reactor.fireSystemEvent("anything")
        with pytest.raises((KeyError, ValueError)):
            reactor.removeSystemEventTrigger(trigger)

    def test_removingABeforeTrigger_thatWasCalledInThisFiring_onlyWarns(self, reactor: Reactor) -> None:
        """C8: a DeprecationWarning, no error."""
        first = reactor.addSystemEventTrigger("before", "anything", lambda: None)
        caught: list[type] = []

        def remove() -> None:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                reactor.removeSystemEventTrigger(first)
            caught.extend(one.category for one in found)

        reactor.addSystemEventTrigger("before", "anything", remove)
        reactor.fireSystemEvent("anything")
        assert caught == [DeprecationWarning]

    @pytest.mark.parametrize("wrong", [None, 5, "during", (), ("anything", 5), ("during", "anything", print)])
    def test_removingWhatIsNoTrigger(self, reactor: Reactor, wrong: Any) -> None:
        with pytest.raises(TypeError):
            reactor.removeSystemEventTrigger(wrong)

    def test_removingOneOfAnotherReactor(self, reactor: Reactor) -> None:
        with Reactor(backend=reactor.backend.name) as other:
            for eventType in ("anything", "startup"):
                other.addSystemEventTrigger("during", "startup", print)
                trigger = reactor.addSystemEventTrigger("during", eventType, print)
                with pytest.raises((KeyError, ValueError)):
                    other.removeSystemEventTrigger(trigger)

    @pytest.mark.parametrize("phase", ["", "Before", "afterwards", None])
    def test_aPhaseThatDoesNotExist(self, reactor: Reactor, phase: Any) -> None:
        with pytest.raises(ValueError, match="'before', 'during' or 'after'") as refusal:
            reactor.addSystemEventTrigger(phase, "anything", print)
        assert isinstance(refusal.value, KeyError)
        assert repr(phase) in str(refusal.value)

    def test_whatIsNotCallable(self, reactor: Reactor) -> None:
        notCallable: Any = 5
        with pytest.raises(TypeError, match="callable"):
            reactor.addSystemEventTrigger("during", "anything", notCallable)

    def test_firingInsideAFiring_startsNoSecond(self, reactor: Reactor) -> None:
        events: list[str] = []
        reactor.addSystemEventTrigger("before", "anything", reactor.fireSystemEvent, "anything")
        for phase in PHASES:
            reactor.addSystemEventTrigger(phase, "anything", events.append, phase)
        reactor.fireSystemEvent("anything")
        assert events == list(PHASES)

    def test_aWaitingStartup_runsTheLoopMeanwhile(self, reactor: Reactor) -> None:
        waiting: defer.Deferred[None] = defer.Deferred()
        events: list[str] = []

        def timer() -> None:
            events.append(f"timer, running: {reactor.running}")
            waiting.callback(None)

        reactor.addSystemEventTrigger("before", "startup", lambda: waiting)
        noteEvents(reactor, events)
        reactor.callLater(0.001, timer)
        reactor.callWhenRunning(reactor.stop)
        run(reactor)
        assert events[:4] == ["before startup", "timer, running: False", "during startup", "after startup"]
        assert len(events) == 7


class TestCallWhenRunning:
    def test_beforeAndWhileRunning(self, reactor: Reactor) -> None:
        """C9: in the order of adding, after startup; at once, with None for an answer, while running."""
        events: list[str] = []
        answers: list[object] = []

        def started() -> None:
            answers.append(reactor.callWhenRunning(events.append, "at once"))
            events.append("after it")
            reactor.stop()

        noteEvents(reactor, events)
        answers.append(reactor.callWhenRunning(events.append, "first"))
        reactor.callWhenRunning(events.append, "second")
        reactor.callWhenRunning(started)
        run(reactor)
        expected = ["before startup", "during startup", "after startup", "first", "second", "at once", "after it"]
        assert events[:7] == expected
        assert answers[0] is not None
        assert answers[1] is None

    def test_itMayBeTakenBack(self, reactor: Reactor) -> None:
        trigger = reactor.callWhenRunning(pytest.fail, "it was taken back")
        assert trigger is not None
        reactor.removeSystemEventTrigger(trigger)
        runBriefly(reactor)

    def test_onceOnly(self, reactor: Reactor) -> None:
        events: list[str] = []
        reactor.callWhenRunning(events.append, "called")
        runBriefly(reactor)
        runBriefly(reactor)
        assert events == ["called"]


class TestClosing:
    def test_twice(self, backendName: str, logs: LogCapture) -> None:
        before = openDescriptors()
        reactor = Reactor(backend=backendName)
        reactor.close()
        reactor.close()
        assert openDescriptors() == before

    @pytest.mark.parametrize("age", ["new", "run", "crashed", "iterated"])
    def test_atAnyAge_everyDescriptorIsReleased(self, backendName: str, logs: LogCapture, age: str) -> None:
        before = openDescriptors()
        reactor = Reactor(backend=backendName)
        reactor.listenTCP(0, RecordingServer(), interface="127.0.0.1")
        if age == "run":
            runBriefly(reactor)
        elif age == "crashed":
            reactor.callWhenRunning(reactor.crash)
            run(reactor)
        elif age == "iterated":
            reactor.iterate()
        reactor.close()
        assert openDescriptors() == before

    def test_whileRunning_itIsRefused(self, reactor: Reactor) -> None:
        refused: list[type] = []

        def close() -> None:
            try:
                reactor.close()
            except error.ReactorAlreadyRunning as refusal:
                refused.append(type(refusal))

        for event in ("startup", "shutdown"):
            for phase in PHASES:
                reactor.addSystemEventTrigger(phase, event, close)
        reactor.callLater(0, close)
        reactor.callFromThread(close)
        reactor.callLater(0, reactor.stop)
        run(reactor)
        assert len(refused) == 8
        reactor.callLater(0, close)
        reactor.iterate()
        assert len(refused) == 9

    def test_inTheLastDrain_itIsRefused(self, reactor: Reactor) -> None:
        refused: list[type] = []

        def close() -> None:
            try:
                reactor.close()
            except error.ReactorAlreadyRunning as refusal:
                refused.append(type(refusal))

        reactor.addSystemEventTrigger("after", "shutdown", reactor.callFromThread, close)
        runBriefly(reactor)
        assert len(refused) == 1

    def test_whatStillLives_isLostOnce(self, backendName: str, logs: LogCapture) -> None:
        """A3: after a crash, ports, connections, connectors and foreign descriptors live on; close() ends them."""
        before = openDescriptors()
        reactor = Reactor(backend=backendName)
        server, client = RecordingServer(), RecordingClient()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        reactor.connectTCP("127.0.0.1", port.getHost().port, client)
        runUntil(reactor, lambda: server.protocols and client.protocols)
        with Watching() as watching:
            reactor.addReader(watching)
            reactor.addWriter(watching)
            reactor.close()
            assert [type(reason.value) for reason in watching.lost] == [error.ConnectionLost]
        for protocol in (*server.protocols, *client.protocols):
            assert protocol.events == ["made", "lost"]
            assert type(protocol.lost.value) is error.ConnectionLost
        assert client.events == ["start", "connecting", "lost", "stop"]
        assert server.events == ["start", "stop"]
        assert openDescriptors() == before

    def test_timers_areCancelled(self, backendName: str, logs: LogCapture) -> None:
        reactor = Reactor(backend=backendName)
        call = reactor.callLater(60, print)
        reactor.close()
        assert not call.active()
        assert call.func is None

    def test_callsThatWait_haveRun(self, backendName: str, logs: LogCapture) -> None:
        """On a new reactor calls are kept: closing is the last chance of each that did not raise."""
        reactor = Reactor(backend=backendName)
        called: list[str] = []
        reactor.callFromThread(called.append, "called")
        reactor.close()
        assert called == ["called"]

    def test_everyUse_raisesReactorClosed(self, backendName: str, logs: LogCapture) -> None:
        reactor = Reactor(backend=backendName)
        reactor.callWhenRunning(reactor.stop)
        trigger = reactor.addSystemEventTrigger("during", "anything", print)
        run(reactor)
        reactor.close()
        with Watching() as watching:
            uses: list[Callable[[], object]] = [
                reactor.run,
                reactor.startRunning,
                reactor.mainLoop,
                reactor.iterate,
                lambda: reactor.doIteration(0),
                reactor.stop,
                reactor.crash,
                reactor.wakeUp,
                lambda: reactor.callLater(0, print),
                lambda: reactor.callFromThread(print),
                lambda: reactor.callInThread(print),
                reactor.getThreadPool,
                lambda: reactor.suggestThreadPoolSize(5),
                lambda: reactor.callWhenRunning(print),
                lambda: reactor.addSystemEventTrigger("during", "anything", print),
                lambda: reactor.removeSystemEventTrigger(trigger),
                lambda: reactor.fireSystemEvent("anything"),
                lambda: reactor.addReader(watching),
                lambda: reactor.addWriter(watching),
                lambda: reactor.listenTCP(0, RecordingServer()),
                lambda: reactor.connectTCP("127.0.0.1", 1, RecordingClient()),
                lambda: reactor.listen("tcp:0", RecordingServer()),
                lambda: reactor.connect("tcp:127.0.0.1:1", RecordingClient()),
                reactor.timeout,
                reactor.fileno,
                lambda: reactor.nameResolver,
                reactor.__enter__,
            ]
            accepted: list[int] = []
            for number, use in enumerate(uses):
                try:
                    use()
                except error.ReactorClosed:
                    continue
                except Exception as other:
                    pytest.fail(f"use {number} raised {other!r}")
                accepted.append(number)
            assert accepted == []

    def test_whatOnlyLooks_orLetsGo_stillAnswers(self, backendName: str, logs: LogCapture) -> None:
        """Code that tidies up must not fail because the reactor was faster."""
        reactor = Reactor(backend=backendName)
        reactor.close()
        with Watching() as watching:
            reactor.removeReader(watching)
            reactor.removeWriter(watching)
        assert reactor.removeAll() == []
        assert (reactor.running, reactor.getReaders(), reactor.getWriters()) == (False, [], [])
        assert reactor.getDelayedCalls() == []
        assert reactor.seconds() > 0
        assert "closed" in repr(reactor)
        assert reactor.backend.name == backendName

    def test_transportsAndPorts_ofAClosedReactor(self, backendName: str, logs: LogCapture) -> None:
        reactor = Reactor(backend=backendName)
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port):
            runUntil(reactor, lambda: server.protocols)
            transport = server.protocols[0].transport
            reactor.close()
            # After the loss, nothing, silently (A14); addresses are still known (A19).
            transport.write(b"x")
            transport.loseConnection()
            transport.abortConnection()
            assert transport.getPeer().host == "127.0.0.1"
        results: list[object] = []
        stopped: Any = port.stopListening()
        stopped.addBoth(results.append)
        assert results == [None]
        with pytest.raises(error.ReactorClosed):
            port.startListening()

    def test_closingInsideItsOwnCallbacks_endsWell(self, backendName: str, logs: LogCapture) -> None:
        before = openDescriptors()
        reactor = Reactor(backend=backendName)

        class Closing(Recorder):
            def connectionLost(self, reason: Any) -> None:
                super().connectionLost(reason)
                refused: tuple[type[Exception], ...] = (error.ReactorAlreadyRunning, error.ReactorClosed)
                for method in (reactor.close, reactor.run, reactor.iterate):
                    try:
                        method()
                    except refused as refusal:
                        self.events.append(type(refusal).__name__)
                    else:
                        self.events.append(method.__name__)

        server = RecordingServer(Closing)
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port), connectTo(port.getHost().port):
            runUntil(reactor, lambda: len(server.protocols) == 2)
            reactor.close()
        for protocol in server.protocols:
            assert protocol.events[:2] == ["made", "lost"]
            # However close() takes being called again, nothing starts to run.
            assert protocol.events[2] in ("close", "ReactorAlreadyRunning", "ReactorClosed")
            assert protocol.events[3:] in (["ReactorAlreadyRunning"] * 2, ["ReactorClosed"] * 2)
        assert openDescriptors() == before

    def test_with(self, backendName: str, logs: LogCapture) -> None:
        before = openDescriptors()
        with Reactor(backend=backendName) as reactor:
            runBriefly(reactor)
        with pytest.raises(error.ReactorClosed):
            reactor.run()
        assert openDescriptors() == before

    def test_with_anException_passes(self, backendName: str, logs: LogCapture) -> None:
        before = openDescriptors()
        made: list[Reactor] = []

        def fail() -> None:
            with Reactor(backend=backendName) as reactor:
                made.append(reactor)
                reactor.callLater(0, print)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with pytest.raises(error.ReactorClosed):
            made[0].run()
        assert openDescriptors() == before

    def test_with_anExceptionInAHostsLoop_stopsInOrder(self, backendName: str, logs: LogCapture) -> None:
        """A host that drives the reactor by iterate() fails: the reactor is stopped and closed all the same."""
        events: list[str] = []

        def fail() -> None:
            with Reactor(backend=backendName) as reactor:
                noteEvents(reactor, events)
                reactor.startRunning(installSignalHandlers=False)
                reactor.iterate()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert events == [f"{phase} {event}" for event in ("startup", "shutdown") for phase in PHASES]

    def test_repr_tellsTheState(self, backendName: str, logs: LogCapture) -> None:
        reactor = Reactor(backend=backendName)
        texts = [repr(reactor)]
        reactor.callWhenRunning(lambda: texts.append(repr(reactor)))
        runBriefly(reactor)
        texts.append(repr(reactor))
        reactor.close()
        texts.append(repr(reactor))
        for text, state in zip(texts, ("new", "running", "stopped", "closed"), strict=True):
            assert state in text
            assert backendName in text

    def test_aReactorThatCouldNotBeMade_leavesNothing(self, backendName: str, logs: LogCapture) -> None:
        class NoPairs(Watched):
            closed = 0

            def socketpair(self) -> tuple[socket.socket, socket.socket]:
                raise OSError(24, "on purpose: too many open files")

            def close(self) -> None:
                type(self).closed += 1
                super().close()

        before = openDescriptors()
        with pytest.raises(OSError, match="on purpose"):
            Reactor(backend=NoPairs(backendName))
        gc.collect()
        assert NoPairs.closed == 1
        assert openDescriptors() == before


class Wanted(BaseException):
    """No Exception, and nobody's."""


class Sources:
    """Every place where the reactor calls users: each method here has `raises` called in one of them."""

    def __init__(self, reactor: Reactor, raises: Callable[..., object]) -> None:
        self.reactor = reactor
        self.raises = raises
        self.kept: list[Any] = []
        # Whether the run ends by itself, or must be stopped because the place is reached while it runs.
        self.stopsItself = False

    def close(self) -> None:
        for one in self.kept:
            one.close()
        self.kept.clear()

    def stopSoon(self) -> None:
        self.stopsItself = True
        self.reactor.callWhenRunning(self.reactor.stop)

    def timer(self) -> None:
        self.reactor.callLater(0, self.raises)

    def call(self) -> None:
        self.reactor.callFromThread(self.raises)

    def reader(self) -> None:
        watching = Watching(self.raises)
        self.kept.append(watching)
        watching.peer.send(b"x")
        self.reactor.addReader(watching)

    def writer(self) -> None:
        watching = Watching(None, self.raises)
        self.kept.append(watching)
        self.reactor.addWriter(watching)

    def beforeStartup(self) -> None:
        self.reactor.addSystemEventTrigger("before", "startup", self.raises)

    def duringStartup(self) -> None:
        self.reactor.addSystemEventTrigger("during", "startup", self.raises)

    def whenRunning(self) -> None:
        self.reactor.callWhenRunning(self.raises)

    def beforeShutdown(self) -> None:
        self.reactor.addSystemEventTrigger("before", "shutdown", self.raises)
        self.stopSoon()

    def duringShutdown(self) -> None:
        self.reactor.addSystemEventTrigger("during", "shutdown", self.raises)
        self.stopSoon()

    def afterShutdown(self) -> None:
        self.reactor.addSystemEventTrigger("after", "shutdown", self.raises)
        self.stopSoon()

    def lastDrain(self) -> None:
        self.reactor.addSystemEventTrigger("after", "shutdown", self.reactor.callFromThread, self.raises)
        self.stopSoon()

    def readerLost(self) -> None:
        watching = Watching()
        watching.connectionLost = self.raises  # type: ignore[method-assign,assignment]  # what a user's class would define
        self.kept.append(watching)
        self.reactor.addReader(watching)
        self.stopSoon()

    def _serve(self, protocol: Callable[[], Protocol] | None = None, factory: Factory | None = None) -> None:
        if factory is None:
            factory = RecordingServer(protocol or Recorder)
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        peer = connectTo(port.getHost().port)
        peer.send(b"x")
        self.kept.append(peer)

    def _protocol(self, method: str) -> Callable[[], Protocol]:
        def make() -> Protocol:
            protocol = Recorder()
            setattr(protocol, method, self.raises)
            return protocol

        return make

    def connectionMade(self) -> None:
        self._serve(self._protocol("connectionMade"))

    def dataReceived(self) -> None:
        self._serve(self._protocol("dataReceived"))

    def connectionLost(self) -> None:
        """Of a connection that its peer has ended."""
        self._serve(self._protocol("connectionLost"))
        self.close()

    def buildProtocol(self) -> None:
        factory = RecordingServer()
        factory.buildProtocol = self.raises  # type: ignore[assignment]  # what a user's class would define
        self._serve(factory=factory)

    def producer(self) -> None:
        """Resumed in the flush."""
        raises = self.raises

        class Producer:
            resumed = 0

            def resumeProducing(self) -> None:
                self.resumed += 1
                stream.write(b"x")
                if self.resumed == 2:
                    raises()

            def stopProducing(self) -> None:
                pass

        stream, peer = tracedStream(self.reactor, [])
        self.kept.append(peer)
        stream.registerProducer(Producer(), streaming=False)

    def clientConnectionFailed(self) -> None:
        factory = RecordingClient()
        factory.clientConnectionFailed = self.raises  # type: ignore[method-assign,assignment]  # what a user's class would define
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.reactor.connectTCP("127.0.0.1", unused.getsockname()[1], factory)


KINDS = [name for name in vars(Sources) if name[0] != "_" and name not in ("close", "stopSoon")]


@pytest.fixture
def sources(reactor: Reactor) -> Iterator[Callable[[Callable[..., object]], Sources]]:
    made: list[Sources] = []

    def make(raises: Callable[..., object]) -> Sources:
        made.append(Sources(reactor, raises))
        return made[-1]

    yield make
    for one in made:
        one.close()


class TestRaising:
    """A6."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_anException_isLoggedOnce_andNothingStops(
        self, reactor: Reactor, sources: Callable[..., Sources], kind: str, logs: LogCapture
    ) -> None:
        calls: list[object] = []

        def raisesOnPurpose(*args: object) -> None:
            calls.append(args)
            raise ValueError("on purpose")

        source = sources(raisesOnPurpose)
        getattr(source, kind)()
        if source.stopsItself:
            run(reactor)
        else:
            runUntil(reactor, lambda: calls)
            # It goes on as if nothing had happened.
            after: list[str] = []
            reactor.callLater(0, after.append, "after")
            runUntil(reactor, lambda: after)
        assert len(calls) == 1
        (record,) = logs.takeErrors()
        assert "on purpose" in str(record.exc_text)
        assert "raisesOnPurpose" in str(record.exc_text)
        assert "raise" in record.message
        runBriefly(reactor)
        assert logs.takeErrors() == []

    @pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, GeneratorExit, Wanted])
    @pytest.mark.parametrize("kind", KINDS)
    def test_anyOther_shutsDownInOrder_andLeavesRun(
        self,
        reactor: Reactor,
        sources: Callable[..., Sources],
        kind: str,
        exception: type[BaseException],
        logs: LogCapture,
    ) -> None:
        events: list[str] = []
        raised = exception("on purpose")
        calls: list[object] = []

        def raises(*args: object) -> None:
            calls.append(args)
            raise raised

        def stopping() -> defer.Deferred[None]:
            # The loop goes on until this has fired: in order means that.
            deferred: defer.Deferred[None] = defer.Deferred()
            reactor.callLater(0, deferred.callback, None)
            events.append("stopping")
            return deferred

        server = RecordingServer()
        with Watching() as watching:
            reactor.listenTCP(0, server, interface="127.0.0.1")
            reactor.addReader(watching)
            reactor.addSystemEventTrigger("before", "shutdown", stopping)
            noteEvents(reactor, events)
            source = sources(raises)
            getattr(source, kind)()
            safety = reactor.callLater(10, reactor.crash)
            with pytest.raises(exception) as caught:
                run(reactor)
            assert caught.value is raised
            assert len(calls) == 1
            assert safety.active()
            safety.cancel()
            # The shutdown was gone through, once, and everything was lost, once.
            shutdown = [event for event in events if "startup" not in event]
            assert shutdown == ["stopping", "before shutdown", "during shutdown", "after shutdown"]
            assert server.events == ["start", "stop"]
            assert [type(reason.value) for reason in watching.lost] == [error.ConnectionLost]
        assert logs.takeErrors() == []
        assert not reactor.running
        # And the exception has left for good.
        runBriefly(reactor)

    def test_aSecondOne_doesNotReplaceTheFirst(self, reactor: Reactor, logs: LogCapture) -> None:
        def raises(exception: BaseException) -> None:
            raise exception

        reactor.callLater(0, raises, SystemExit(3))
        reactor.callLater(0, raises, KeyboardInterrupt())
        reactor.addSystemEventTrigger("after", "shutdown", raises, Wanted())
        with pytest.raises(SystemExit) as caught:
            run(reactor)
        assert caught.value.code == 3

    def test_inIterate_itLeavesIterate(self, reactor: Reactor) -> None:
        """A reactor that was not started has nothing to shut down; the host gets it after the turn."""
        called: list[str] = []

        def raises() -> None:
            raise Wanted

        reactor.callFromThread(raises)
        reactor.callLater(0, called.append, "timer")
        with pytest.raises(Wanted):
            reactor.iterate()
        assert called == ["timer"]
        reactor.iterate()
        runBriefly(reactor)

    def test_inIterate_onAStartedReactor_itShutsDownFirst(self, reactor: Reactor) -> None:
        events: list[str] = []
        noteEvents(reactor, events)

        def raises() -> None:
            raise Wanted

        reactor.startRunning(installSignalHandlers=False)
        reactor.callLater(0, raises)
        with pytest.raises(Wanted):
            reactor.iterate()
        assert events[3:] == [f"{phase} shutdown" for phase in PHASES]
        assert not reactor.running
        runBriefly(reactor)

    def test_inClose_itLeavesClose_afterEverythingIsReleased(self, backendName: str, logs: LogCapture) -> None:
        before = openDescriptors()
        reactor = Reactor(backend=backendName)
        with Watching() as first, Watching() as second:

            def raises(reason: object) -> None:
                raise Wanted

            first.connectionLost = raises  # type: ignore[method-assign]  # what a user's class would define
            reactor.addReader(first)
            reactor.addReader(second)
            with pytest.raises(Wanted):
                reactor.close()
            assert len(second.lost) == 1
        with pytest.raises(error.ReactorClosed):
            reactor.run()
        assert openDescriptors() == before

    def test_inFireSystemEvent_ofAReactorThatDoesNotRun_itIsNotForgotten(self, reactor: Reactor) -> None:
        """It leaves the call that fired the event, and is not kept for the next run."""

        def raises() -> None:
            raise Wanted

        called: list[str] = []
        reactor.addSystemEventTrigger("before", "anything", raises)
        reactor.addSystemEventTrigger("after", "anything", called.append, "after")
        with pytest.raises(Wanted):
            reactor.fireSystemEvent("anything")
        assert called == ["after"]
        runBriefly(reactor)

    def test_throughADeferred_itIsCaught(self, reactor: Reactor, logs: LogCapture) -> None:
        """A6: Deferreds catch everything."""

        def raises(result: object) -> None:
            raise Wanted

        deferred: defer.Deferred[None] = defer.Deferred()
        failures: list[Any] = []
        deferred.addCallback(raises)
        deferred.addErrback(failures.append)
        reactor.callLater(0, deferred.callback, None)
        runUntil(reactor, lambda: failures)
        assert type(failures[0].value) is Wanted

    def test_fromALoggingHandler_theLoopGoesOn(self, reactor: Reactor, logs: LogCapture) -> None:
        """What is logged about a callback may be a liar's: his repr and his str raise too."""

        class Liar(Exception):
            def __str__(self) -> str:
                raise ZeroDivisionError("no text")

            __repr__ = __str__

        def raises() -> None:
            raise Liar

        called: list[str] = []
        stderr = io.StringIO()
        reactor.callLater(0, raises)
        reactor.callLater(0, called.append, "next")
        runUntil(reactor, lambda: called)
        assert stderr.getvalue() == ""
        assert len(logs.takeErrors()) == 1


class TestOtherThreads:
    def test_aWholeLife_outsideTheMainThread(self, backendName: str, logs: LogCapture) -> None:
        """A4; signals are test_signals' business."""
        events: list[str] = []

        def life() -> None:
            with Reactor(backend=backendName) as reactor:
                for _ in range(2):
                    noteEvents(reactor, events)
                    reactor.callLater(0, reactor.stop)
                    reactor.run()

        Background(life).result()
        assert len(events) == 12

    def test_runIsNotTiedToTheThreadThatMadeIt(self, reactor: Reactor) -> None:
        threads: list[int] = []
        for _ in range(2):
            reactor.callWhenRunning(lambda: threads.append(threading.get_ident()))
            reactor.callWhenRunning(lambda: threads.append(reactor.isInIOThread()))
            Background(runBriefly, reactor).result()
        runBriefly(reactor)
        assert threads[1::2] == [True, True]
        assert threads[0] != threading.get_ident()


def test_numbersAreNotMixedUp_overManyLives(reactor: Reactor) -> None:
    """Descriptors that come and go over several runs do not leave interest behind."""
    for _ in range(3):
        with Watching() as watching:
            reactor.addReader(watching)
            watching.peer.send(b"x")
            runUntil(reactor, partial(getattr, watching, "reads"))
            reactor.removeReader(watching)
        runBriefly(reactor)
        assert len(reactor.getReaders()) == 1
