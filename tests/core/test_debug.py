"""Debug mode: calls from a wrong thread raise, slow callbacks and leaks are reported with their places, and calls and
Deferreds remember where they were made. Without it, none of that.
"""

from __future__ import annotations

import functools
import gc
import inspect
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from calandria import Protocol, Reactor
from tests.core.tools import Watched, Watching, tracedStream
from tests.helpers import Background, connectTo, receiveExactly, runPython, runUntil
from tests.recorders import Echo, RecordingClient, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers import LogCapture

WARNING = 30


@pytest.fixture
def reactor(backendName: str, logs: LogCapture) -> Iterator[Reactor]:
    """A reactor in debug mode, whose reports of leaks are taken at the end."""
    with Reactor(backend=backendName, debug=True) as reactor:
        yield reactor
    logs.take(WARNING)


@pytest.fixture
def backend(backendName: str) -> Watched:
    return Watched(backendName)


@pytest.fixture
def slow(backend: Watched, logs: LogCapture) -> Iterator[Reactor]:
    """A reactor in debug mode whose clock callbacks move, instead of taking long."""
    backend.freeze()
    with Reactor(backend=backend, debug=True) as reactor:
        yield reactor
    logs.take(WARNING)


def lineOf(function: Callable[..., object]) -> str:
    """Where a function is written: file:line."""
    return f"{__file__}:{inspect.unwrap(function).__code__.co_firstlineno}"


class TestSwitch:
    @pytest.mark.parametrize(("value", "on"), [("1", True), ("yes", True), ("0", False), ("", False), (None, False)])
    def test_theEnvironment(
        self, backendName: str, logs: LogCapture, monkeypatch: pytest.MonkeyPatch, value: str | None, on: bool
    ) -> None:
        if value is None:
            monkeypatch.delenv("CALANDRIA_DEBUG", raising=False)
        else:
            monkeypatch.setenv("CALANDRIA_DEBUG", value)
        with Reactor(backend=backendName) as reactor:
            assert reactor.debug is on
        with Reactor(backend=backendName, debug=True) as reactor:
            assert reactor.debug is True

    def test_itServesLikeAnyOther(self, reactor: Reactor) -> None:
        server = RecordingServer(Echo)
        port = reactor.listenTCP(0, server, interface="127.0.0.1")

        def client() -> bytes:
            with connectTo(port.getHost().port) as peer:
                peer.sendall(bytes(300_000))
                return receiveExactly(peer, 300_000)

        call = Background(client)
        runUntil(reactor, call)
        assert call.result() == bytes(300_000)
        reactor.callWhenRunning(reactor.stop)
        reactor.run(installSignalHandlers=False)


class TestWrongThread:
    """T14: each method that belongs to the reactor's thread raises in another one, and nothing has happened then."""

    def uses(self, reactor: Reactor, port: Any, transport: Any) -> dict[str, Callable[[], object]]:
        call = reactor.callLater(60, print)
        watching = Watching()
        self.watching = watching
        trigger = reactor.addSystemEventTrigger("during", "anything", print)
        return {
            "callLater": lambda: reactor.callLater(0, print),
            "getDelayedCalls": reactor.getDelayedCalls,
            "stop": reactor.stop,
            "crash": reactor.crash,
            "addReader": lambda: reactor.addReader(watching),
            "addWriter": lambda: reactor.addWriter(watching),
            "removeReader": lambda: reactor.removeReader(watching),
            "removeWriter": lambda: reactor.removeWriter(watching),
            "removeAll": reactor.removeAll,
            "listenTCP": lambda: reactor.listenTCP(0, RecordingServer()),
            "connectTCP": lambda: reactor.connectTCP("127.0.0.1", 1, RecordingClient()),
            "listen": lambda: reactor.listen("tcp:0", RecordingServer()),
            "connect": lambda: reactor.connect("tcp:127.0.0.1:1", RecordingClient()),
            "addSystemEventTrigger": lambda: reactor.addSystemEventTrigger("during", "anything", print),
            "removeSystemEventTrigger": lambda: reactor.removeSystemEventTrigger(trigger),
            "fireSystemEvent": lambda: reactor.fireSystemEvent("anything"),
            "callWhenRunning": lambda: reactor.callWhenRunning(print),
            "DelayedCall.cancel": call.cancel,
            "DelayedCall.reset": lambda: call.reset(5),
            "DelayedCall.delay": lambda: call.delay(5),
            "transport.write": lambda: transport.write(b"wrong"),
            "transport.writeSequence": lambda: transport.writeSequence([b"wrong"]),
            "transport.loseConnection": transport.loseConnection,
            "transport.abortConnection": transport.abortConnection,
            "transport.loseWriteConnection": transport.loseWriteConnection,
            "transport.pauseProducing": transport.pauseProducing,
            "port.stopListening": port.stopListening,
        }

    def test_eachUse(self, reactor: Reactor, logs: LogCapture) -> None:
        server = RecordingServer(Echo)
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port) as peer:
            runUntil(reactor, lambda: server.protocols)
            uses = self.uses(reactor, port, server.protocols[0].transport)
            accepted: list[str] = []

            def useThem() -> None:
                for name, use in uses.items():
                    try:
                        use()
                    except Exception as refusal:
                        if not isinstance(refusal, RuntimeError) or "thread" not in str(refusal):
                            accepted.append(f"{name}: {refusal!r}")
                    else:
                        accepted.append(name)

            timers = len(reactor.getDelayedCalls())
            # Asked while the reactor sleeps: only then is another thread surely a wrong one.
            call: list[Background[None]] = []
            reactor.callWhenRunning(lambda: call.append(Background(useThem)))
            runUntil(reactor, lambda: call and call[0]())
            call[0].result()
            self.watching.close()
            assert accepted == []
            assert len(reactor.getDelayedCalls()) == timers
            # Nothing has happened: nothing of it was sent, and the connection is as it was.
            peer.sendall(b"right")
            answer = Background(receiveExactly, peer, 5)
            runUntil(reactor, answer)
            assert answer.result() == b"right"

    def test_theMethodsForOtherThreads(self, reactor: Reactor) -> None:
        called: list[str] = []

        def uses() -> None:
            reactor.callFromThread(called.append, "callFromThread")
            reactor.callInThread(called.append, "callInThread")
            reactor.wakeUp()
            assert not reactor.isInIOThread()
            reactor.seconds()

        call: list[Background[None]] = []
        reactor.callWhenRunning(lambda: call.append(Background(uses)))
        runUntil(reactor, lambda: len(called) == 2)
        call[0].result()

    def test_whileItDoesNotRun_anyThreadMaySetItUp(self, reactor: Reactor) -> None:
        called: list[str] = []

        def setUp() -> None:
            reactor.callLater(0, called.append, "timer")
            reactor.callWhenRunning(called.append, "running")
            reactor.listenTCP(0, RecordingServer(), interface="127.0.0.1")

        Background(setUp).result()
        runUntil(reactor, lambda: len(called) == 2)

    def test_withoutDebugMode_nothingIsChecked(self, backendName: str, logs: LogCapture) -> None:
        with Reactor(backend=backendName) as reactor:
            call: list[Background[Any]] = []
            reactor.callWhenRunning(lambda: call.append(Background(reactor.getDelayedCalls)))
            runUntil(reactor, lambda: call and call[0]())
            call[0].result()


class TestSlow:
    """Callbacks that take more than 100 ms are logged, with what was called and where it is written."""

    def slowTexts(self, logs: LogCapture) -> list[str]:
        return [record.message for record in logs.take(WARNING)]

    def test_aTimer(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        def takesLong(seconds: float) -> None:
            backend.shift += seconds

        slow.callLater(0, takesLong, 0.15)
        slow.iterate()
        (text,) = self.slowTexts(logs)
        assert "takesLong" in text
        assert lineOf(takesLong) in text
        assert "0.15" in text

    def test_aPartial(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        def takesLong(seconds: float) -> None:
            backend.shift += seconds

        slow.callLater(0, functools.partial(functools.partial(takesLong), 0.15))
        slow.iterate()
        (text,) = self.slowTexts(logs)
        assert lineOf(takesLong) in text

    def test_aCall(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        def takesLong() -> None:
            backend.shift += 0.15

        slow.callFromThread(takesLong)
        slow.iterate()
        (text,) = self.slowTexts(logs)
        assert lineOf(takesLong) in text

    @pytest.mark.parametrize("interest", ["read", "write"])
    def test_aForeignDescriptor(self, slow: Reactor, backend: Watched, logs: LogCapture, interest: str) -> None:
        def takesLong() -> None:
            backend.shift += 0.15

        with Watching(takesLong, takesLong) as watching:
            watching.peer.send(b"x")
            if interest == "read":
                slow.addReader(watching)
            else:
                slow.addWriter(watching)
            slow.iterate()
            slow.removeAll()
        (text,) = self.slowTexts(logs)
        assert "Watching" in text
        assert lineOf(Watching.doRead if interest == "read" else Watching.doWrite).rpartition(":")[2] in text

    def test_dataReceived(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        class Slow(Protocol):
            def dataReceived(self, data: bytes) -> None:
                backend.shift += 0.15

        _, peer = tracedStream(slow, [], Slow())
        with peer:
            peer.send(b"x")
            slow.iterate()
        (text,) = self.slowTexts(logs)
        assert "dataReceived" in text
        assert lineOf(Slow.dataReceived) in text

    def test_connectionLost(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        """Whichever callback it was that a descriptor's event led to, it is reported."""

        class Slow(Protocol):
            def connectionLost(self, reason: object) -> None:
                backend.shift += 0.15

        _, peer = tracedStream(slow, [], Slow())
        peer.close()
        slow.iterate()
        (text,) = self.slowTexts(logs)
        assert "0.15" in text

    def test_inTheFlush(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        """Producers are resumed there."""

        class Producer:
            resumed = 0

            def resumeProducing(self) -> None:
                self.resumed += 1
                stream.write(b"x")
                if self.resumed == 2:
                    backend.shift += 0.15

            def stopProducing(self) -> None:
                pass

        stream, peer = tracedStream(slow, [])
        with peer:
            stream.registerProducer(Producer(), streaming=False)
            slow.iterate()
            stream.unregisterProducer()
            (text,) = self.slowTexts(logs)
        assert "0.15" in text

    def test_trigger_andCallWhenRunning(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        def takesLong() -> None:
            backend.shift += 0.15

        def takesLongToo() -> None:
            backend.shift += 0.15

        slow.addSystemEventTrigger("before", "shutdown", takesLong)
        slow.callWhenRunning(takesLongToo)
        slow.callWhenRunning(slow.stop)
        slow.run(installSignalHandlers=False)
        texts = self.slowTexts(logs)
        assert len(texts) == 2
        assert lineOf(takesLongToo) in texts[0]
        assert lineOf(takesLong) in texts[1]

    def test_theLimit(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        def takes(seconds: float) -> None:
            backend.shift += seconds

        slow.callLater(0, takes, 0.09)
        slow.iterate()
        assert self.slowTexts(logs) == []

    def test_onceASecond(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        """A32, L29: a callback that is always slow is told of once a second, with the count of the others."""

        def takesLong() -> None:
            backend.shift += 0.15

        for _ in range(20):
            slow.callLater(0, takesLong)
        slow.iterate()
        texts = self.slowTexts(logs)
        # Three seconds went by.
        assert 3 <= len(texts) <= 4
        assert "6 more" in texts[1] or "5 more" in texts[1] or "7 more" in texts[1]

    def test_whatHasNoSource(self, slow: Reactor, backend: Watched, logs: LogCapture) -> None:
        class Slow:
            def __call__(self) -> None:
                backend.shift += 0.15

        slow.callLater(0, setattr, backend, "shift", 0.15)
        slow.callLater(0, Slow())
        slow.iterate()
        texts = self.slowTexts(logs)
        assert "setattr" in texts[0]
        assert "Slow" in texts[1]

    def test_withoutDebugMode_nothingIsSaid(self, backend: Watched, logs: LogCapture) -> None:
        def takesLong() -> None:
            backend.shift += 0.15

        backend.freeze()
        with Reactor(backend=backend) as reactor:
            reactor.callLater(0, takesLong)
            reactor.iterate()
        assert self.slowTexts(logs) == []


class TestLeaks:
    """What still lives at close() is reported, with the place where it was made."""

    def report(self, reactor: Reactor, logs: LogCapture) -> list[str]:
        reactor.close()
        return [record.message for record in logs.take(WARNING)]

    def place(self) -> str:
        """The line above the caller's."""
        frame = inspect.currentframe()
        assert frame is not None
        assert frame.f_back is not None
        return f"{__file__}:{frame.f_back.f_lineno - 1}"

    def test_aPort(self, reactor: Reactor, logs: LogCapture) -> None:
        reactor.listenTCP(0, RecordingServer(), interface="127.0.0.1")
        place = self.place()
        (text,) = self.report(reactor, logs)
        assert "Port" in text
        assert place in text

    def test_aConnector(self, reactor: Reactor, logs: LogCapture) -> None:
        reactor.connectTCP("192.0.2.1", 9, RecordingClient())
        place = self.place()
        texts = self.report(reactor, logs)
        assert "Connector" in texts[0]
        assert place in texts[0]

    def test_aTransport(self, reactor: Reactor, logs: LogCapture) -> None:
        _, peer = tracedStream(reactor, [])
        with peer:
            (text,) = self.report(reactor, logs)
        assert "Stream" in text
        assert "tools.py:" in text

    def test_anAcceptedTransport(self, reactor: Reactor, logs: LogCapture) -> None:
        """Made by the loop, for nobody: it is named, whatever its place."""
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port):
            runUntil(reactor, lambda: server.protocols)
            texts = self.report(reactor, logs)
        assert len(texts) == 2
        assert any("Recorder" in text for text in texts)

    def test_aTimer(self, reactor: Reactor, logs: LogCapture) -> None:
        reactor.callLater(60, print)
        place = self.place()
        (text,) = self.report(reactor, logs)
        assert "print" in text
        assert place in text

    def test_aForeignDescriptor(self, reactor: Reactor, logs: LogCapture) -> None:
        with Watching() as watching:
            reactor.addReader(watching)
            place = self.place()
            (text,) = self.report(reactor, logs)
        assert "Watching" in text
        assert place in text

    def test_whatHasEnded_isNoLeak(self, reactor: Reactor, logs: LogCapture) -> None:
        server = RecordingServer()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        with connectTo(port.getHost().port), Watching() as watching:
            runUntil(reactor, lambda: server.protocols)
            server.protocols[0].transport.loseConnection()
            port.stopListening()
            reactor.callLater(60, print).cancel()
            reactor.addReader(watching)
            reactor.removeReader(watching)
            runUntil(reactor, lambda: server.protocols[0].lost and server.events == ["start", "stop"])
        # The peer has closed meanwhile, so nothing lingers either.
        runUntil(reactor, lambda: not reactor.lingering)
        assert self.report(reactor, logs) == []

    def test_withoutDebugMode_nothingIsSaid(self, backendName: str, logs: LogCapture) -> None:
        with Reactor(backend=backendName) as reactor:
            reactor.listenTCP(0, RecordingServer(), interface="127.0.0.1")
            reactor.callLater(60, print)
            assert self.report(reactor, logs) == []


def raises() -> None:
    raise ZeroDivisionError("on purpose")


class TestPlaces:
    """Calls and Deferreds remember where they were made: the whole stack, for the place alone is often a helper's."""

    def made(self, reactor: Reactor) -> Any:
        return reactor.callLater(0, raises)

    def test_aCallThatRaises(self, reactor: Reactor, logs: LogCapture) -> None:
        """T04."""
        self.made(reactor)
        reactor.iterate()
        (record,) = logs.takeErrors()
        text = f"{record.message}\n{record.exc_text}"
        assert lineNumber(TestPlaces.made, 1) in text
        # And who called that.
        assert "test_aCallThatRaises" in text

    def test_withoutDebugMode_itDoesNot(self, backendName: str, logs: LogCapture) -> None:
        with Reactor(backend=backendName) as reactor:
            call = self.made(reactor)
            assert call.creator is None
            reactor.iterate()
        (record,) = logs.takeErrors()
        assert "made" not in record.message

    @pytest.mark.parametrize("how", ["argument", "environment", "not at all"])
    def test_aDeferredThatNobodyHandles(self, backendName: str, how: str) -> None:
        """In a process of its own, for whether Deferreds remember is the process's."""
        done = runPython(
            """
import logging, sys
logging.basicConfig(stream=sys.stdout)
from calandria import Reactor, defer
def outermost():
    return helper()
def helper():
    return defer.Deferred()
with Reactor(debug=sys.argv[1] == "argument") as reactor:
    def begin():
        outermost().errback(ZeroDivisionError("on purpose"))
        reactor.stop()
    reactor.callWhenRunning(begin)
    reactor.run()
""",
            how,
            env={"CALANDRIA_BACKEND": backendName, "CALANDRIA_DEBUG": "1" if how == "environment" else None},
        )
        assert "on purpose" in done.stdout
        assert ("in helper" in done.stdout) == (how != "not at all")
        assert ("in outermost" in done.stdout) == (how != "not at all")


def lineNumber(function: Callable[..., object], offset: int) -> str:
    return f"{function.__code__.co_firstlineno + offset}"


class TestEnd:
    def test_aDebuggedReactor_isGoneByCounting(self, backendName: str, logs: LogCapture) -> None:
        """M08 holds here too: the checks leave no cycle behind."""
        gc.collect()
        gc.disable()
        try:
            reactor = Reactor(backend=backendName, debug=True)
            reactor.callLater(0, reactor.stop)
            reactor.run(installSignalHandlers=False)
            reactor.close()
            gone = weakref.ref(reactor)
            del reactor
            assert gone() is None
        finally:
            gc.enable()
