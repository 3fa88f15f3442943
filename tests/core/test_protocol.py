"""Protocols and factories: what they count, what they build, and when they try again.

Delays are measured by a false clock; attempts are real ones, to ports where nobody listens or somebody does.
"""

from __future__ import annotations

import gc
import io
import math
import socket
import statistics
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from calandria import defer, error, failure
from calandria.protocol import (
    AbstractDatagramProtocol,
    BaseProtocol,
    ClientCreator,
    ClientFactory,
    ConnectedDatagramProtocol,
    DatagramProtocol,
    Factory,
    FileWrapper,
    Protocol,
    ReconnectingClientFactory,
    ServerFactory,
    connectionDone,
)
from tests.helpers import runPython, runUntil, unusedPort
from tests.recorders import Recorder, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from calandria import Reactor, interfaces
    from tests.helpers import LogCapture


def portNumber(port: Any) -> int:
    """Where a port listens."""
    number: int = port.getHost().port
    return number


# Protocol


class TestProtocol:
    def test_makeConnection_givesTheTransportBeforeItTells(self) -> None:
        seen: list[Any] = []

        class Watching(Protocol):
            def connectionMade(self) -> None:
                seen.append((self.transport, self.connected))

        protocol = Watching()
        assert not protocol.connected
        transport = FileWrapper(io.BytesIO())
        protocol.makeConnection(transport)
        assert seen == [(transport, 1)]

    def test_everyCallback_mayBeLeftOut(self) -> None:
        protocol = Protocol()
        protocol.makeConnection(FileWrapper(io.BytesIO()))
        protocol.dataReceived(b"x")
        protocol.connectionLost(connectionDone)
        assert protocol.connected == 1

    def test_connectionLost_needsNoReason(self) -> None:
        reasons: list[failure.Failure] = []

        class Keeping(Protocol):
            def connectionLost(self, reason: failure.Failure = connectionDone) -> None:
                reasons.append(reason)

        untyped: Any = Keeping()
        untyped.connectionLost()
        assert isinstance(reasons[0].value, error.ConnectionDone)
        plain: Any = Protocol()
        assert plain.connectionLost() is None

    def test_subscripting_givesTheClassItself(self) -> None:
        generic: Any = Protocol
        assert generic[int, str] is Protocol
        assert generic[int] is Protocol

        class Chat(Protocol[Any, "Factory"]):
            pass

        assert Chat.__bases__ == (Protocol,)
        datagrams: Any = DatagramProtocol
        assert datagrams[int] is DatagramProtocol

    def test_instances_areSmallAndCanBeReferredToWeakly(self) -> None:
        protocol = Protocol()
        assert protocol.__dict__ == {}
        assert weakref.ref(protocol)() is protocol

    def test_logPrefix_isTheClass(self) -> None:
        assert Recorder().logPrefix() == "Recorder"
        assert ServerFactory().logPrefix() == "ServerFactory"
        assert DatagramProtocol().logPrefix() == "DatagramProtocol"

    def test_importing_isCheap(self) -> None:
        done = runPython(
            "import sys; before = set(sys.modules); import calandria.protocol, calandria.threads\n"
            "print(*sorted({'typing', 'dataclasses', 'inspect', 'ssl', 'asyncio', 'concurrent.futures', 'random',"
            " 'typing_extensions', 'calandria.interfaces'} & (set(sys.modules) - before)))"
        )
        assert (done.stdout.strip(), done.stderr) == ("", "")


# Factory


class Counting(Factory):
    def __init__(self, *args: object, **kw: object) -> None:
        self.made = args, kw
        self.events: list[str] = []

    def startFactory(self) -> None:
        self.events.append("start")

    def stopFactory(self) -> None:
        self.events.append("stop")


class TestFactory:
    def test_buildProtocol_callsTheProtocolAndSetsTheFactory(self) -> None:
        factory = Factory()
        factory.protocol = Recorder
        protocol = factory.buildProtocol(None)
        assert type(protocol) is Recorder
        assert protocol.factory is factory
        assert factory.buildProtocol(None) is not protocol

    def test_buildProtocol_withoutAProtocol_saysWhatToDo(self) -> None:
        with pytest.raises(TypeError, match=r"Counting makes no protocols: set its attribute 'protocol'"):
            Counting().buildProtocol(None)

    def test_forProtocol_passesTheOtherArgumentsOn(self) -> None:
        factory = Counting.forProtocol(Recorder, 1, two=2)
        assert type(factory) is Counting
        assert factory.made == ((1,), {"two": 2})
        assert type(factory.buildProtocol(None)) is Recorder

    def test_starting_isCounted(self) -> None:
        factory = Counting()
        factory.doStart()
        factory.doStart()
        assert (factory.numPorts, factory.events) == (2, ["start"])
        factory.doStop()
        assert factory.events == ["start"]
        factory.doStop()
        factory.doStop()
        assert (factory.numPorts, factory.events) == (0, ["start", "stop"])
        factory.doStart()
        assert factory.events == ["start", "stop", "start"]

    def test_whatRaisesWhileStarting_hasNotStarted(self) -> None:
        class Broken(Factory):
            def startFactory(self) -> None:
                raise RuntimeError("not today")

        factory = Broken()
        with pytest.raises(RuntimeError, match="not today"):
            factory.doStart()
        assert factory.numPorts == 0

    def test_starting_isLoggedUnlessQuiet(self, logs: LogCapture) -> None:
        factory = Counting()
        factory.doStart()
        factory.doStop()
        assert [(record.levelname, record.message.split(" <")[0]) for record in logs.records] == [
            ("INFO", "Starting factory"),
            ("INFO", "Stopping factory"),
        ]
        logs.records.clear()
        factory.noisy = False
        factory.doStart()
        factory.doStop()
        assert logs.records == []

    def test_limits_haveDefaultsOnTheClass(self) -> None:
        assert Factory.closeTimeout == 60.0
        assert Factory.maxBufferedBytes is None
        assert Factory.handshakeTimeout == Factory.shutdownTimeout == 30.0

    def test_clientCallbacks_mayBeLeftOut(self) -> None:
        factory = ClientFactory()
        factory.startedConnecting(None)
        factory.clientConnectionFailed(None, connectionDone)
        factory.clientConnectionLost(None, connectionDone)


# ReconnectingClientFactory


class FalseClock:
    """Time passes when `advance` says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[FalseCall] = []

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, callable: Callable[..., object], /, *args: Any, **kw: Any) -> FalseCall:
        call = FalseCall(self, self.now + delay, lambda: callable(*args, **kw))
        self.calls.append(call)
        return call

    def getDelayedCalls(self) -> list[FalseCall]:
        return [call for call in self.calls if call.active()]

    def advance(self) -> float:
        """Let the next call come; gives how long that took."""
        call = min(self.getDelayedCalls(), key=FalseCall.getTime)
        passed, self.now = call.time - self.now, call.time
        call.called = True
        call.function()
        return passed


class FalseCall:
    def __init__(self, clock: FalseClock, time: float, function: Callable[[], object]) -> None:
        self.clock = clock
        self.time = time
        self.function = function
        self.called = self.cancelled = False

    def getTime(self) -> float:
        return self.time

    def active(self) -> bool:
        return not (self.called or self.cancelled)

    def cancel(self) -> None:
        assert self.active()
        self.cancelled = True

    def reset(self, secondsFromNow: float, /) -> None:
        self.time = self.clock.now + secondsFromNow

    def delay(self, secondsLater: float, /) -> None:
        self.time += secondsLater


class Stubborn(ReconnectingClientFactory):
    """Counts what it is told; its delays are all the same unless a test says otherwise."""

    jitter = None

    def __init__(self) -> None:
        self.events: list[str] = []
        self.reasons: list[failure.Failure] = []
        self.protocols: list[Recorder] = []

    def buildProtocol(self, addr: Any) -> Recorder:
        protocol = Recorder()
        self.protocols.append(protocol)
        return protocol

    def startedConnecting(self, connector: Any) -> None:
        self.events.append("connecting")
        super().startedConnecting(connector)

    def clientConnectionFailed(self, connector: Any, reason: failure.Failure) -> None:
        self.events.append("failed")
        self.reasons.append(reason)
        super().clientConnectionFailed(connector, reason)

    def clientConnectionLost(self, connector: Any, reason: failure.Failure) -> None:
        self.events.append("lost")
        super().clientConnectionLost(connector, reason)


def failOnce(reactor: Reactor, factory: Stubborn) -> Any:
    """A connector whose first attempt has failed."""
    connector = reactor.connectTCP("127.0.0.1", unusedPort(), factory)
    events = factory.events
    runUntil(reactor, lambda: "failed" in events)
    return connector


class TestReconnectingClientFactory:
    def test_delays_growByTheFactorUpToTheLimit(self, reactor: Reactor) -> None:
        factory = Stubborn()
        factory.clock = clock = FalseClock()
        factory.maxDelay = 15.0
        failOnce(reactor, factory)
        delays: list[float] = []
        while len(delays) < 5:
            delays.append(clock.advance())
            count = len(delays) + 1
            runUntil(reactor, lambda: factory.events.count("failed") == count)  # noqa: B023  (it is run at once)
        assert delays == pytest.approx([math.e, math.e**2, 15.0, 15.0, 15.0])
        assert factory.retries == 6

    def test_initialDelay_ofASubclass_counts(self, reactor: Reactor) -> None:
        class Fast(Stubborn):
            initialDelay = 0.5
            factor = 2.0

        factory = Fast()
        factory.clock = clock = FalseClock()
        failOnce(reactor, factory)
        assert clock.advance() == 1.0

    def test_jitter_spreadsTheDelays(self, reactor: Reactor) -> None:
        connector = reactor.connectTCP("127.0.0.1", unusedPort(), ClientFactory())
        delays: list[float] = []
        jitter = ReconnectingClientFactory.jitter
        assert jitter is not None
        for _ in range(1000):
            factory = ReconnectingClientFactory()
            factory.noisy = False
            factory.clock = clock = FalseClock()
            factory.retry(connector)
            delays.append(clock.calls[0].getTime())
        assert statistics.mean(delays) == pytest.approx(math.e, rel=0.05)
        assert statistics.stdev(delays) == pytest.approx(math.e * jitter, rel=0.2)
        assert max(delays) - min(delays) >= 0.6 * math.e

    def test_aWildJitter_givesNoNegativeDelay(self, reactor: Reactor) -> None:
        connector = reactor.connectTCP("127.0.0.1", unusedPort(), ClientFactory())
        factory = ReconnectingClientFactory()
        factory.noisy = False
        factory.jitter = 5.0
        factory.factor = 1.0
        for _ in range(200):
            factory.clock = FalseClock()
            factory.resetDelay()
            factory.retry(connector)
            assert factory.delay >= 0.1

    def test_itConnectsAgain_byTheReactorsOwnClock(self, reactor: Reactor) -> None:
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        factory = Stubborn()
        factory.initialDelay = 0.001
        reactor.connectTCP("127.0.0.1", portNumber(port), factory)
        for count in (1, 2, 3):
            runUntil(reactor, lambda: len(server.protocols) == count)  # noqa: B023  (it is run at once)
            server.protocols[-1].transport.loseConnection()
        assert factory.events[:5] == ["connecting", "lost", "connecting", "lost", "connecting"]

    def test_resetDelay_startsAnew(self, reactor: Reactor) -> None:
        factory = Stubborn()
        factory.clock = clock = FalseClock()
        failOnce(reactor, factory)
        assert clock.advance() == pytest.approx(math.e)
        factory.resetDelay()
        assert (factory.delay, factory.retries) == (1.0, 0)
        runUntil(reactor, lambda: factory.events.count("failed") == 2)
        assert clock.advance() == pytest.approx(math.e)

    def test_maxRetries_isTheEnd(self, reactor: Reactor) -> None:
        factory = Stubborn()
        factory.clock = clock = FalseClock()
        factory.maxRetries = 2
        failOnce(reactor, factory)
        for count in (2, 3):
            clock.advance()
            runUntil(reactor, lambda: factory.events.count("failed") == count)  # noqa: B023  (it is run at once)
        assert clock.getDelayedCalls() == []
        assert factory.numPorts == 0

    def test_retryTwice_isOneAttempt(self, reactor: Reactor) -> None:
        factory = Stubborn()
        factory.clock = clock = FalseClock()
        connector = failOnce(reactor, factory)
        factory.retry()
        factory.retry(connector)
        assert len(clock.getDelayedCalls()) == 1

    def test_retry_needsAConnector(self) -> None:
        with pytest.raises(ValueError, match="nothing to retry"):
            ReconnectingClientFactory().retry()

    def test_stopTrying_duringTheDelay(self, reactor: Reactor) -> None:
        factory = Stubborn()
        factory.clock = clock = FalseClock()
        failOnce(reactor, factory)
        factory.stopTrying()
        assert clock.getDelayedCalls() == []
        assert factory.events == ["connecting", "failed"]

    def test_stopTrying_duringTheAttempt(self, reactor: Reactor) -> None:
        factory = Stubborn()
        factory.clock = clock = FalseClock()
        connector = reactor.connectTCP("127.0.0.1", unusedPort(), factory)
        factory.stopTrying()
        assert connector.state == "disconnected"
        runUntil(reactor, lambda: "failed" in factory.events)
        assert type(factory.reasons[0].value) is error.UserError
        assert clock.calls == []
        assert factory.numPorts == 0

    @pytest.mark.parametrize("first", [True, False])
    def test_stopTrying_insideClientConnectionFailed(self, reactor: Reactor, first: bool) -> None:
        class Resigning(Stubborn):
            def clientConnectionFailed(self, connector: Any, reason: failure.Failure) -> None:
                if first:
                    self.stopTrying()
                super().clientConnectionFailed(connector, reason)
                self.stopTrying()

        factory = Resigning()
        factory.clock = clock = FalseClock()
        failOnce(reactor, factory)
        assert clock.getDelayedCalls() == []
        assert factory.connector is None or first is False

    def test_stopTrying_whileConnected_keepsTheConnection(self, reactor: Reactor) -> None:
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        factory = Stubborn()
        factory.clock = clock = FalseClock()
        reactor.connectTCP("127.0.0.1", portNumber(port), factory)
        runUntil(reactor, lambda: server.protocols and factory.protocols)
        factory.stopTrying()
        factory.resetDelay()
        factory.protocols[0].transport.write(b"still here")
        runUntil(reactor, lambda: server.protocols[0].received == b"still here")
        server.protocols[0].transport.loseConnection()
        runUntil(reactor, lambda: "lost" in factory.events)
        assert clock.calls == []

    def test_anOverrideThatForgetsTheBase_isStoppedAllTheSame(self, reactor: Reactor) -> None:
        class Forgetful(Stubborn):
            def startedConnecting(self, connector: Any) -> None:
                pass

        factory = Forgetful()
        factory.clock = clock = FalseClock()
        reactor.connectTCP("127.0.0.1", unusedPort(), factory)
        factory.stopTrying()
        runUntil(reactor, lambda: "failed" in factory.events)
        assert clock.calls == []

    def test_theEnd_leavesNoCycle(self, reactor: Reactor, logs: LogCapture) -> None:
        logs.keepToItself()
        gc.collect()
        gc.disable()
        try:
            factory = Stubborn()
            factory.clock = FalseClock()
            factory.maxRetries = 0
            failOnce(reactor, factory)
            gone = weakref.ref(factory)
            del factory
            assert gone() is None
        finally:
            gc.enable()


# Datagram protocols


class TestDatagramProtocol:
    def test_lifeOnAPort(self) -> None:
        events: list[str] = []

        class Watching(DatagramProtocol):
            noisy = False

            def startProtocol(self) -> None:
                events.append(f"start {self.transport}")

            def stopProtocol(self) -> None:
                events.append(f"stop {self.transport}")

        protocol = Watching()
        protocol.makeConnection("port")
        with pytest.raises(RuntimeError, match="has a port already, 'port'"):
            protocol.makeConnection("other")
        assert protocol.numPorts == 1
        protocol.doStop()
        protocol.doStop()
        assert (events, protocol.numPorts) == (["start port", "stop None"], 0)
        protocol.makeConnection("other")
        assert events[-1] == "start other"

    @pytest.mark.parametrize("kind", [DatagramProtocol, ConnectedDatagramProtocol])
    def test_everyCallback_mayBeLeftOut(self, kind: type[AbstractDatagramProtocol]) -> None:
        protocol: Any = kind()
        protocol.startProtocol()
        protocol.connectionRefused()
        protocol.datagramReceived(b"x", *([("127.0.0.1", 1)] if kind is DatagramProtocol else []))
        if kind is ConnectedDatagramProtocol:
            protocol.connectionFailed(connectionDone)
        protocol.stopProtocol()

    def test_starting_isLoggedUnlessQuiet(self, logs: LogCapture) -> None:
        protocol = DatagramProtocol()
        protocol.makeConnection("port")
        protocol.doStop()
        assert [record.message.split(" <")[0] for record in logs.records] == ["Starting protocol", "Stopping protocol"]
        logs.records.clear()
        protocol.noisy = False
        protocol.makeConnection("port")
        protocol.doStop()
        assert logs.records == []


# ClientCreator


class Named(Recorder):
    def __init__(self, name: str, *, number: int = 0) -> None:
        super().__init__()
        self.name = name
        self.number = number


class TestClientCreator:
    def test_theProtocol_comesConnected(self, reactor: Reactor) -> None:
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        results: list[Any] = []
        creator = ClientCreator(reactor, Named, "Ada", number=7)

        def connected(protocol: Named) -> None:
            results.append((protocol, list(protocol.events)))

        creator.connectTCP("127.0.0.1", portNumber(port)).addCallback(connected)
        runUntil(reactor, lambda: results)
        protocol, events = results[0]
        assert (protocol.name, protocol.number, events) == ("Ada", 7, ["made"])
        protocol.transport.write(b"hello")
        runUntil(reactor, lambda: server.protocols[0].received == b"hello")

    def test_failure_isTheDeferreds(self, reactor: Reactor) -> None:
        results: list[Any] = []
        ClientCreator(reactor, Recorder).connectTCP("127.0.0.1", unusedPort()).addBoth(results.append)
        runUntil(reactor, lambda: results)
        assert type(results[0].value) is error.ConnectionRefusedError

    def test_aProtocolThatCannotBeMade_isAFailureToo(self, reactor: Reactor, logs: LogCapture) -> None:
        port = reactor.listenTCP(0, RecordingServer(), interface="127.0.0.1")
        results: list[Any] = []

        def make() -> Recorder:
            raise ZeroDivisionError("none left")

        ClientCreator(reactor, make).connectTCP("127.0.0.1", portNumber(port)).addBoth(results.append)
        runUntil(reactor, lambda: results)
        assert type(results[0].value) is ZeroDivisionError
        assert len(logs.takeErrors()) == 1

    def test_cancelling_endsTheAttempt(self, reactor: Reactor) -> None:
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        results: list[Any] = []
        deferred = ClientCreator(reactor, Recorder).connectTCP("127.0.0.1", portNumber(port))
        deferred.addBoth(results.append)
        deferred.cancel()
        assert type(results[0].value) is defer.CancelledError
        runUntil(reactor, lambda: not [owned for owned in reactor.owned if owned is not port])
        assert server.protocols == []

    def test_cancellingBetweenConnectingAndTelling_closes(self, reactor: Reactor) -> None:
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        results: list[Any] = []

        class Cancelling(Recorder):
            def connectionMade(self) -> None:
                super().connectionMade()
                before = len(reactor.getDelayedCalls())
                deferred.cancel()
                assert len(reactor.getDelayedCalls()) == before - 1

        deferred = ClientCreator(reactor, Cancelling).connectTCP("127.0.0.1", portNumber(port))
        deferred.addBoth(results.append)
        runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)
        assert [type(result.value) for result in results] == [defer.CancelledError]
        assert type(server.protocols[0].lost.value) is error.ConnectionDone

    def test_afterwards_noCycleIsLeft(self, reactor: Reactor, logs: LogCapture) -> None:
        logs.keepToItself()
        results: list[Any] = []
        gc.collect()
        gc.disable()
        try:
            deferred = ClientCreator(reactor, Recorder).connectTCP("127.0.0.1", unusedPort())
            gone = weakref.ref(deferred)
            deferred.addErrback(lambda reason: results.append(reason.type))
            del deferred
            runUntil(reactor, lambda: results)
            assert results == [error.ConnectionRefusedError]
            assert gone() is None
        finally:
            gc.enable()

    def test_badArguments_areRefusedAtTheCall(self, reactor: Reactor) -> None:
        with pytest.raises(ValueError, match="timeout"):
            ClientCreator(reactor, Recorder).connectTCP("127.0.0.1", 1, timeout=-1)


# FileWrapper


class TestFileWrapper:
    def test_writes_goToTheFile(self) -> None:
        file = io.BytesIO()
        protocol = Recorder()
        protocol.makeConnection(FileWrapper(file))
        protocol.transport.write(b"a")
        pieces: list[interfaces.Data] = [b"b", bytearray(b"c"), memoryview(b"d")]
        protocol.transport.writeSequence(iter(pieces))
        assert file.getvalue() == b"abcd"

    def test_loseConnection_closesOnce(self) -> None:
        file = io.BytesIO()
        transport = FileWrapper(file)
        transport.loseConnection()
        transport.loseConnection()
        assert file.closed
        assert (transport.connected, transport.disconnected) == (False, True)
        transport.write(b"nobody")

    def test_aPullProducer_isAskedUntilItHasFinished(self) -> None:
        file = io.BytesIO()
        transport = FileWrapper(file)

        class Three:
            left = 3

            def resumeProducing(self) -> None:
                self.left -= 1
                transport.write(b"x")
                if not self.left:
                    transport.unregisterProducer()

            def stopProducing(self) -> None:
                raise AssertionError("nobody stopped it")

        transport.registerProducer(Three(), streaming=False)
        assert file.getvalue() == b"xxx"

    def test_aProducer_comesAlone_andIsStoppedWhenClosed(self) -> None:
        stopped: list[bool] = []

        class Push:
            def pauseProducing(self) -> None:
                pass

            resumeProducing = pauseProducing

            def stopProducing(self) -> None:
                stopped.append(True)

        transport = FileWrapper(io.BytesIO())
        transport.registerProducer(Push(), streaming=True)
        with pytest.raises(RuntimeError, match="registered already"):
            transport.registerProducer(Push(), streaming=True)
        transport.stopConsuming()
        assert transport.file.closed
        transport.registerProducer(Push(), streaming=True)
        assert stopped == [True]

    def test_addresses_areTheFilesName(self, tmp_path: Any) -> None:
        with open(tmp_path / "log", "wb") as file:
            assert FileWrapper(file).getPeer() == FileWrapper(file).getHost() == str(tmp_path / "log")


def test_baseProtocol_isOfAnyTransport() -> None:
    left, right = socket.socketpair()
    with left, right:
        protocol = BaseProtocol()
        protocol.makeConnection(left)
        assert protocol.transport is left
