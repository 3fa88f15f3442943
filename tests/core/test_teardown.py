"""The ends of reactors and of programs: nothing is kept, nothing is left open, and nothing is said on the way out.

EXIT is the oracle of most of it: a program ends by itself, soon, with the status that it wanted, and its standard error
is empty under `-X dev -W error`.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from calandria import Factory, Protocol, Reactor
from tests.core.tools import Clock, Watched
from tests.helpers import connectTo, openDescriptors, runPython
from tests.recorders import RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers import LogCapture

PREAMBLE = """
import os, signal, sys, threading, time
import calandria
from calandria import Factory, Protocol, Reactor, defer
from calandria.threads import deferToThreadPool
reactor = Reactor()
"""


def exits(code: str, backendName: str, status: int = 0, *, longest: float = 10.0) -> str:
    """EXIT: what a program prints. (Its two seconds are for a machine of its own.)"""
    began = time.monotonic()
    done = runPython(
        PREAMBLE + code, env={"CALANDRIA_BACKEND": backendName, "PYTHONDEVMODE": "1"}, timeout=longest + 20
    )
    assert done.stderr == ""
    assert done.returncode == status
    assert time.monotonic() - began < longest
    return done.stdout


class TestExit:
    """L28: the interpreter's end, with reactors at every age."""

    @pytest.mark.parametrize(
        "code",
        [
            pytest.param("", id="never run"),
            pytest.param("reactor.callLater(60, print)\nreactor.callFromThread(print)", id="with work to do"),
            pytest.param("reactor.callLater(0, reactor.stop)\nreactor.run()", id="stopped"),
            pytest.param("reactor.callLater(0, reactor.crash)\nreactor.run()", id="crashed"),
            pytest.param("reactor.iterate()", id="iterated"),
            pytest.param("reactor.startRunning()\nreactor.iterate()", id="started and left"),
            pytest.param("reactor.close()", id="closed"),
            pytest.param("calandria.reactor.callLater(60, print)", id="a default"),
            pytest.param("sys.modules['keep'] = reactor\ndel reactor", id="kept elsewhere"),
            pytest.param("cycle = [reactor]\ncycle.append(cycle)\ndel reactor, cycle", id="in a cycle"),
        ],
    )
    def test_aReactor(self, backendName: str, code: str) -> None:
        assert exits(code, backendName) == ""

    def test_oneThatRuns_inADaemonThread(self, backendName: str) -> None:
        exits(
            """
running = threading.Event()
reactor.callWhenRunning(running.set)
reactor.callLater(0, lambda: None)
threading.Thread(target=reactor.run, daemon=True).start()
running.wait(20)
""",
            backendName,
        )

    def test_oneThatIsBusy_inADaemonThread(self, backendName: str) -> None:
        exits(
            """
running = threading.Event()
reactor.callWhenRunning(running.set)
def again():
    reactor.callLater(0, again)
    reactor.callFromThread(len, "")
reactor.callLater(0, again)
threading.Thread(target=reactor.run, daemon=True).start()
running.wait(20)
""",
            backendName,
        )

    @pytest.mark.parametrize("how", ["stopped", "running in a thread", "crashed"])
    def test_withPorts_andConnections(self, backendName: str, how: str) -> None:
        exits(
            f"""
how = {how!r}
class Client(Protocol):
    def connectionMade(self):
        self.transport.write(b"x" * 1000)
        connected.set()
class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)
connected = threading.Event()
port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
factory = calandria.ClientFactory()
factory.protocol = Client
reactor.connectTCP("127.0.0.1", port.getHost().port, factory)
del port, factory
if how == "running in a thread":
    threading.Thread(target=reactor.run, daemon=True).start()
    connected.wait(20)
else:
    reactor.callLater(0.02, reactor.stop if how == "stopped" else reactor.crash)
    reactor.run()
"""
            # After a crash the sockets still live, and that nobody closed them is said, by them and by nobody else.
            + ("import warnings; warnings.simplefilter('ignore')" if how == "crashed" else ""),
            backendName,
        )

    def test_sysExit_inACallback(self, backendName: str) -> None:
        """T05: the status is honoured."""
        assert (
            exits(
                "reactor.addSystemEventTrigger('after', 'shutdown', print, 'shutdown')\n"
                "reactor.callLater(0, sys.exit, 5)\nreactor.run()",
                backendName,
                status=5,
            )
            == "shutdown\n"
        )

    def test_aStuckJob_keepsNothingAlive(self, backendName: str) -> None:
        """A7a, L20: one job that never ends, when the reactor has stopped, and when it was only left."""
        exits(
            """
import logging
logging.getLogger("calandria").addHandler(logging.NullHandler())
def stuck():
    begun.set()
    threading.Event().wait()
begun = threading.Event()
reactor.threadTimeout = 0.05
reactor.callWhenRunning(reactor.callInThread, stuck)
reactor.callWhenRunning(begun.wait, 20)
reactor.callWhenRunning(reactor.stop)
reactor.run()
reactor.close()
left = Reactor()
begun.clear()
left.callWhenRunning(left.callInThread, stuck)
left.callWhenRunning(begun.wait, 20)
left.callWhenRunning(left.crash)
left.threadTimeout = 0
left.run()
""",
            backendName,
        )

    def test_jobsThatWereNeverDone(self, backendName: str) -> None:
        """L20: given before a run that never came."""
        exits(
            """
for number in range(100):
    reactor.callInThread(print, number)
deferToThreadPool(reactor, reactor.getThreadPool(), print, "never").addErrback(lambda reason: None)
""",
            backendName,
        )

    def test_noThread_isLeft(self, backendName: str) -> None:
        assert (
            exits(
                """
def job():
    names.append(threading.current_thread().name)
names = []
class Receiver:
    def resolutionBegan(self, resolution): pass
    def addressResolved(self, address): pass
    def resolutionComplete(self): reactor.stop()
reactor.callWhenRunning(reactor.callInThread, job)
reactor.callWhenRunning(lambda: reactor.nameResolver.resolveHostName(Receiver(), "localhost", 80))
reactor.run()
reactor.close()
deadline = time.monotonic() + 5
while threading.active_count() > 1 and time.monotonic() < deadline:
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(0.01)
print(len(names), threading.active_count())
""",
                backendName,
            )
            == "1 1\n"
        )

    def test_atexit_mayStillCloseIt(self, backendName: str) -> None:
        assert (
            exits("import atexit\natexit.register(print, 'closed')\natexit.register(reactor.close)", backendName)
            == "closed\n"
        )


class TestCounting:
    """M08: a closed reactor is dead as soon as nobody refers to it; neither the collector nor a registry is needed."""

    @pytest.fixture(autouse=True)
    def withoutTheCollector(self) -> Iterator[None]:
        gc.collect()
        gc.disable()
        yield
        gc.enable()

    def refs(self, reactor: Reactor) -> dict[str, weakref.ref[Any]]:
        waker: Any = reactor.getReaders()[0]
        found: dict[str, Any] = {"reactor": reactor, "backend": reactor.backend, "loop": reactor.loop}
        try:
            found["waker"] = waker
            return {name: weakref.ref(what) for name, what in found.items()}
        except TypeError:
            # It has no room for weak references: its socket tells as much, and the descriptors are counted.
            del found["waker"]
            return {name: weakref.ref(what) for name, what in found.items()}

    @pytest.mark.parametrize(
        "life", ["new", "run", "crashed", "iterated", "exception", "served", "threads", "resolver", "pending"]
    )
    def test_afterAnyLife(self, backendName: str, logs: LogCapture, life: str) -> None:
        logs.keepToItself()
        others = threading.active_count()
        reactor = Reactor(backend=backendName)
        refs = self.refs(reactor)
        if life == "run":
            reactor.callLater(0, reactor.stop)
            reactor.run(installSignalHandlers=False)
        elif life == "crashed":
            reactor.callLater(0, reactor.crash)
            reactor.run()
        elif life == "iterated":
            reactor.callFromThread(len, "")
            reactor.iterate()
        elif life == "exception":
            reactor.callLater(0, sys.exit)
            try:
                reactor.run()
            except SystemExit:
                pass
        elif life == "served":
            received: list[bytes] = []

            class Noting(Protocol):
                def dataReceived(self, data: bytes) -> None:
                    received.append(data)

            port = reactor.listenTCP(0, Factory.forProtocol(Noting), interface="127.0.0.1")
            with connectTo(port.getHost().port) as peer:
                peer.sendall(b"x")
                while not received:
                    reactor.iterate(None)
            del port, peer
        elif life == "threads":
            done = threading.Event()
            reactor.callInThread(done.set)
            reactor.callWhenRunning(reactor.callWhenRunning, done.wait, 20)
            reactor.callWhenRunning(reactor.stop)
            reactor.run()
        elif life == "resolver":
            assert reactor.nameResolver is not None
        elif life == "pending":
            reactor.callLater(60, reactor.stop)
            reactor.callWhenRunning(reactor.stop)
            reactor.callFromThread(reactor.seconds)
        reactor.close()
        if life == "threads":
            # A thread of the pool may still be on its way out of its last job.
            deadline = time.monotonic() + 5
            while threading.active_count() > others and time.monotonic() < deadline:
                os.sched_yield()
        del reactor
        assert [name for name, ref in refs.items() if ref() is not None] == []

    def test_aWorldOfOnesOwn(self, logs: LogCapture) -> None:
        clock = Clock()
        reactor = Reactor(backend=clock)
        gone: list[weakref.ref[Any]] = [weakref.ref(reactor), weakref.ref(clock)]
        reactor.callLater(0, reactor.stop)
        reactor.run(installSignalHandlers=False)
        reactor.close()
        del reactor, clock
        assert [ref() for ref in gone] == [None, None]

    def test_whatItCalled_isGone(self, backendName: str, logs: LogCapture) -> None:
        """Triggers, timers and calls that were never made die with it."""

        class Thing:
            def method(self) -> None:
                pass

        reactor = Reactor(backend=backendName)
        things = [Thing() for _ in range(4)]
        gone = [weakref.ref(thing) for thing in things]
        reactor.addSystemEventTrigger("during", "shutdown", things[0].method)
        reactor.callWhenRunning(things[1].method)
        reactor.callLater(60, things[2].method)
        reactor.onPending = things[3].method
        del things
        reactor.close()
        assert [ref() for ref in gone] == [None] * 4


class TestForgetting:
    """M11, L23: a reactor that nobody closed says so, with a ResourceWarning, and gives everything back."""

    def collect(self, make: Callable[[], object]) -> list[str]:
        gc.collect()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make()
            gc.collect()
        return [f"{one.category.__name__}: {one.message}" for one in caught]

    def test_createAndClose_manyTimes(self, backendName: str, logs: LogCapture) -> None:
        before = openDescriptors()
        for _ in range(300):
            Reactor(backend=backendName).close()
        assert openDescriptors() == before

    def test_createAndDrop_manyTimes(self, backendName: str, logs: LogCapture) -> None:
        before = openDescriptors()

        def make() -> None:
            for _ in range(100):
                Reactor(backend=backendName)

        texts = self.collect(make)
        assert [t for t in texts if "unclosed reactor" not in t] == []
        assert len(texts) == 100
        assert all(text.startswith("ResourceWarning: ") and f"Reactor on {backendName}" in text for text in texts)
        assert openDescriptors() == before

    @pytest.mark.parametrize("life", ["run", "timers", "port", "calls"])
    def test_droppedAfterALife(self, backendName: str, logs: LogCapture, life: str) -> None:
        before = openDescriptors()

        def make() -> None:
            reactor = Reactor(backend=backendName)
            if life == "run":
                reactor.callLater(0, reactor.stop)
                reactor.run(installSignalHandlers=False)
            elif life == "timers":
                reactor.callLater(60, reactor.stop)
            elif life == "port":
                reactor.listenTCP(0, RecordingServer(), interface="127.0.0.1")
            else:
                reactor.callFromThread(reactor.stop)

        texts = self.collect(make)
        assert any("Reactor" in text for text in texts)
        assert {text.partition(":")[0] for text in texts} == {"ResourceWarning"}
        assert openDescriptors() == before

    def test_itNames_whereItWasMade_inDebugMode(self, backendName: str, logs: LogCapture) -> None:
        """M11."""
        (text,) = self.collect(lambda: Reactor(backend=backendName, debug=True))
        assert "test_teardown.py:" in text

    def test_oneThatWasClosed_saysNothing(self, backendName: str, logs: LogCapture) -> None:
        def make() -> None:
            Reactor(backend=backendName).close()
            with Reactor(backend=backendName):
                pass

        assert self.collect(make) == []

    def test_oneThatCouldNotBeMade_saysNothing(self, backendName: str, logs: LogCapture) -> None:
        def make() -> None:
            with pytest.raises(TypeError):
                Reactor(backend=backendName, noSuchOption=5)

        assert self.collect(make) == []

    def test_inAnotherThread(self, backendName: str, logs: LogCapture) -> None:
        """The collector runs in whichever thread it likes: the descriptors are given back there."""
        before = openDescriptors()
        reactors = [Reactor(backend=backendName)]

        def drop() -> None:
            thread = threading.Thread(target=reactors.clear)
            thread.start()
            thread.join()

        (text,) = self.collect(drop)
        assert "unclosed" in text
        assert openDescriptors() == before

    def test_aBackendWhoseCloseRaises(self, backendName: str, logs: LogCapture) -> None:
        """Never a crash in `__del__`: what can be given back is."""

        class Broken(Watched):
            def close(self) -> None:
                super().close()
                raise OSError(5, "on purpose")

        before = openDescriptors()
        reactor = Reactor(backend=Broken(backendName))
        with pytest.raises(OSError, match="on purpose"):
            reactor.close()
        reactor.close()
        assert openDescriptors() == before


def test_importing_leavesNothing() -> None:
    """Importing does nothing, so there is nothing to tidy up, and `-X dev` has nothing to say."""
    done = runPython(
        "import threading, os\n"
        "before = set(os.listdir('/proc/self/fd'))\n"
        "import calandria\n"
        "print(set(os.listdir('/proc/self/fd')) == before, threading.active_count())",
        env={"PYTHONDEVMODE": "1"},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True 1\n", "", 0)
