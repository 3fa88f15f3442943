"""After a fork, the parent's reactor is of no use in the child, says so at every use, and disturbs nobody.

Children are real ones (`inChild`), and each test looks at both sides: what the child was told, and that the parent's
reactor, its epoll set, sockets and connections go on as if nothing had happened.
"""

from __future__ import annotations

import gc
import os
import socket
import warnings
from typing import TYPE_CHECKING

import pytest

import calandria
from calandria import Reactor, error
from calandria._waker import Waker
from tests.core.tools import Watching, inChild
from tests.helpers import connectTo, openDescriptors, receiveExactly, runPython, runUntil, runWith
from tests.recorders import Echo, RecordingClient, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calandria.plugin import Port, Stream
    from tests.helpers import LogCapture

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


class Service:
    """A reactor with an echo port and a connection whose peer we are; `check` shows that all of it still works."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.factory = RecordingServer(Echo)
        self.port: Port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.number: int = self.port.getHost().port
        self.peer = connectTo(self.number)
        runUntil(reactor, lambda: self.factory.protocols)
        self.transport: Stream = self.factory.protocols[0].transport

    def ask(self) -> bytes:
        """One echo on the old connection, and one on a new one."""
        self.peer.sendall(b"old")
        old = receiveExactly(self.peer, 3)
        with connectTo(self.number) as peer:
            peer.sendall(b"new")
            return old + receiveExactly(peer, 3)

    def check(self) -> None:
        called: list[str] = []
        self.reactor.callLater(0, self.reactor.callFromThread, called.append, "call")
        self.reactor.callLater(0, called.append, "timer")
        assert runWith(self.reactor, self.ask) == b"oldnew"
        assert called == ["timer", "call"]
        assert self.factory.protocols[0].events[-1] == "data"


@pytest.fixture
def service(reactor: Reactor) -> Iterator[Service]:
    service = Service(reactor)
    with service.peer:
        yield service


def refusals(uses: dict[str, Callable[[], object]]) -> str:
    """Which of these uses were not refused as they must be."""
    wrong: list[str] = []
    for name, use in uses.items():
        try:
            result = use()
        except error.ForkedReactor:
            continue
        except BaseException as other:
            wrong.append(f"{name} raised {other!r}")
        else:
            wrong.append(f"{name} gave {result!r}")
    return "; ".join(wrong)


class TestEveryUse:
    """A8: any use of the parent's reactor in the child raises error.ForkedReactor."""

    def test_theReactor(self, service: Service) -> None:
        reactor = service.reactor
        trigger = reactor.addSystemEventTrigger("during", "anything", print)
        with Watching() as watching, Watching() as watched:
            reactor.addReader(watched)
            uses: dict[str, Callable[[], object]] = {
                "run": lambda: reactor.run(installSignalHandlers=False),
                "startRunning": reactor.startRunning,
                "mainLoop": reactor.mainLoop,
                "iterate": reactor.iterate,
                "doIteration": lambda: reactor.doIteration(0),
                "stop": reactor.stop,
                "crash": reactor.crash,
                "wakeUp": reactor.wakeUp,
                "callLater": lambda: reactor.callLater(0, print),
                "getDelayedCalls": reactor.getDelayedCalls,
                "callFromThread": lambda: reactor.callFromThread(print),
                "callInThread": lambda: reactor.callInThread(print),
                "getThreadPool": reactor.getThreadPool,
                "suggestThreadPoolSize": lambda: reactor.suggestThreadPoolSize(5),
                "callWhenRunning": lambda: reactor.callWhenRunning(print),
                "addSystemEventTrigger": lambda: reactor.addSystemEventTrigger("during", "anything", print),
                "removeSystemEventTrigger": lambda: reactor.removeSystemEventTrigger(trigger),
                "fireSystemEvent": lambda: reactor.fireSystemEvent("anything"),
                "addReader": lambda: reactor.addReader(watching),
                "addWriter": lambda: reactor.addWriter(watching),
                "removeReader": lambda: reactor.removeReader(watched),
                "removeWriter": lambda: reactor.removeWriter(watched),
                "removeAll": reactor.removeAll,
                "getReaders": reactor.getReaders,
                "getWriters": reactor.getWriters,
                "disconnectAll": reactor.disconnectAll,
                "listenTCP": lambda: reactor.listenTCP(0, RecordingServer()),
                "connectTCP": lambda: reactor.connectTCP("127.0.0.1", 1, RecordingClient()),
                "listen": lambda: reactor.listen("tcp:0", RecordingServer()),
                "connect": lambda: reactor.connect("tcp:127.0.0.1:1", RecordingClient()),
                "timeout": reactor.timeout,
                "fileno": reactor.fileno,
                "nameResolver": lambda: reactor.nameResolver,
                "with": reactor.__enter__,
            }
            assert inChild(lambda: refusals(uses)) == ""
            reactor.removeAll()
        service.check()

    def test_itsDelayedCalls(self, service: Service) -> None:
        call = service.reactor.callLater(60, print)
        uses: dict[str, Callable[[], object]] = {"reset": lambda: call.reset(1), "delay": lambda: call.delay(1)}
        assert inChild(lambda: refusals(uses)) == ""
        call.cancel()
        service.check()

    def test_itsTransports(self, service: Service) -> None:
        transport = service.transport

        class Producer:
            def resumeProducing(self) -> None:
                pass

            def pauseProducing(self) -> None:
                pass

            def stopProducing(self) -> None:
                pass

        uses: dict[str, Callable[[], object]] = {
            "write": lambda: transport.write(b"from the child"),
            "write nothing": lambda: transport.write(b""),
            "writeSequence": lambda: transport.writeSequence([b"from", b"the child"]),
            "loseConnection": transport.loseConnection,
            "abortConnection": transport.abortConnection,
            "loseWriteConnection": transport.loseWriteConnection,
            "pauseProducing": transport.pauseProducing,
            "resumeProducing": transport.resumeProducing,
            "registerProducer": lambda: transport.registerProducer(Producer(), streaming=True),
        }
        assert inChild(lambda: refusals(uses)) == ""
        service.check()

    @pytest.mark.parametrize("method", ["write", "loseConnection", "abortConnection", "loseWriteConnection"])
    def test_aTransportWithUnsentBytes(self, service: Service, method: str) -> None:
        """Whatever state the connection was in when the process forked, the bytes are sent once, by the parent."""
        transport = service.transport
        transport.write(b"unsent ")

        def use() -> None:
            getattr(transport, method)(*([b"x"] if method == "write" else []))

        assert inChild(lambda: refusals({method: use})) == ""
        assert runWith(service.reactor, receiveExactly, service.peer, 7) == b"unsent "
        service.check()

    def test_itsPortsAndConnectors(self, service: Service) -> None:
        client = RecordingClient()
        connector = service.reactor.connectTCP("127.0.0.1", service.number, client)
        runUntil(service.reactor, lambda: client.protocols)
        port = service.port
        uses: dict[str, Callable[[], object]] = {
            "startListening": port.startListening,
            "stopListening": port.stopListening,
            "connect": connector.connect,
            "disconnect": connector.disconnect,
        }
        assert inChild(lambda: refusals(uses)) == ""
        assert client.events == ["start", "connecting"]
        assert client.protocols[0].events == ["made"]
        service.check()
        connector.disconnect()
        runUntil(service.reactor, lambda: client.lost)

    def test_everywhere_inDebugModeToo(self, backendName: str, logs: LogCapture) -> None:
        with Reactor(backend=backendName, debug=True) as reactor:
            service = Service(reactor)
            with service.peer:
                uses: dict[str, Callable[[], object]] = {
                    "callLater": lambda: reactor.callLater(0, print),
                    "write": lambda: service.transport.write(b"from the child"),
                    "stop": reactor.stop,
                }
                assert inChild(lambda: refusals(uses)) == ""
                service.check()
                reactor.callWhenRunning(reactor.stop)
                reactor.run(installSignalHandlers=False)

    @pytest.mark.parametrize("age", ["stopped", "closed"])
    def test_atOtherAges(self, backendName: str, logs: LogCapture, age: str) -> None:
        reactor = Reactor(backend=backendName)
        reactor.callWhenRunning(reactor.stop)
        reactor.run(installSignalHandlers=False)
        if age == "closed":
            reactor.close()

        def use() -> str:
            try:
                reactor.callLater(0, print)
            except (error.ReactorClosed, error.ForkedReactor) as refusal:
                return type(refusal).__name__
            return "accepted"

        assert inChild(use) == {"stopped": "ForkedReactor", "closed": "ReactorClosed"}[age]
        reactor.close()

    def test_onlyLooking_isHarmless(self, service: Service) -> None:
        """What a program's last words may be made of."""

        def look() -> str:
            reactor = service.reactor
            return f"{reactor!r} {reactor.running} {service.transport!r} {service.transport.getPeer()!r}"

        assert "forked" in inChild(look)
        service.check()


class TestEndings:
    """How a child may let go of what it inherited: the parent never notices, and nobody complains."""

    def test_closing(self, service: Service) -> None:
        """close() and `with` undo nothing: there is nothing of ours."""

        def close() -> None:
            service.reactor.close()
            service.reactor.close()

        assert inChild(close) == "None"
        service.check()

    def test_leavingAWith(self, backendName: str, logs: LogCapture) -> None:
        with Reactor(backend=backendName) as reactor:
            service = Service(reactor)
            with service.peer:

                def leave() -> str:
                    reactor.__exit__(None, None, None)
                    return "left"

                assert inChild(leave) == "left"
                service.check()

    def test_theReactorBeingCollected(self, backendName: str, logs: LogCapture) -> None:
        """Its epoll set, its waker and its sockets are the parent's; a collected copy touches none of them."""
        services = [Service(Reactor(backend=backendName))]
        before = openDescriptors()

        def forget() -> str:
            services.clear()
            gc.collect()
            return f"{len(before) - len(openDescriptors())} closed"

        # Its copies of the descriptors are closed in the child; that the kernel's objects live on, the parent shows.
        said = inChild(forget)
        assert said.endswith("closed")
        assert "unclosed reactor" not in said
        services[0].check()
        services[0].peer.close()
        services[0].reactor.close()

    def test_everythingBeingCollected_whileAConnectionIsClosing(self, service: Service) -> None:
        service.transport.write(bytes(5_000_000))
        service.transport.loseConnection()
        service.reactor.iterate()
        assert inChild(gc.collect).isdigit()
        received = runWith(service.reactor, receiveExactly, service.peer, 5_000_000)
        assert len(received) == 5_000_000
        runUntil(service.reactor, lambda: service.factory.protocols[0].events[-1] == "lost")

    @pytest.mark.parametrize("callback", ["timer", "call", "reader", "dataReceived", "trigger"])
    def test_unwindingThroughTheRunningLoop(self, service: Service, callback: str) -> None:
        """The child returns from the callback in which it was made: no other callback is called, and its run ends."""
        reactor = service.reactor
        said: list[str] = []
        outOf, into = os.pipe()
        children: list[int] = []
        parent = os.getpid()

        def fork(*args: object) -> None:
            if children:
                return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                children.append(os.fork())

        def other() -> None:
            if os.getpid() != parent:
                os.write(into, b"another callback was called in the child; ")

        watching = Watching(fork)
        with watching:
            if callback == "timer":
                reactor.callLater(0, fork)
            elif callback == "call":
                reactor.callWhenRunning(reactor.callFromThread, fork)
            elif callback == "reader":
                watching.peer.send(b"x")
                reactor.addReader(watching)
            elif callback == "dataReceived":
                service.factory.protocols[0].dataReceived = fork
                service.peer.send(b"x")
            else:
                reactor.addSystemEventTrigger("after", "startup", fork)
            reactor.callWhenRunning(reactor.callFromThread, other)
            reactor.callLater(0, other)
            reactor.callLater(0.01, other)
            reactor.callWhenRunning(other)
            try:
                runUntil(reactor, lambda: children)
            except BaseException as exc:
                if os.getpid() == parent:
                    raise
                os.write(into, type(exc).__name__.encode())
                os._exit(0)
            if os.getpid() != parent:
                os.write(into, b"run() returned")
                os._exit(0)
            reactor.removeAll()
        os.waitpid(children[0], 0)
        os.close(into)
        with os.fdopen(outOf) as pipe:
            said.append(pipe.read())
        assert said == ["ForkedReactor"]
        if callback == "dataReceived":
            del service.factory.protocols[0].dataReceived
        runUntil(reactor, lambda: not reactor.getDelayedCalls())
        service.check()

    def test_SystemExit_throughTheRunningLoop(self, backendName: str) -> None:
        """A child that ends itself inside a callback ends with the status that it wants (A6), and disturbs nobody."""
        done = runPython(
            """
import os, sys
from calandria import Reactor
reactor = Reactor()
def fork():
    child = os.fork()
    if child == 0:
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    reactor.callLater(0, reactor.stop)
reactor.callLater(0, fork)
reactor.addSystemEventTrigger("before", "shutdown", print, "shutdown")
reactor.run()
reactor.close()
""",
            env={"CALANDRIA_BACKEND": backendName, "PYTHONDEVMODE": "1"},
        )
        assert (done.stdout, done.stderr, done.returncode) == ("7\nshutdown\n", "", 0)

    def test_aWholeProgram_thatForgetsTheReactor(self, backendName: str) -> None:
        """EXIT in the child: it ends as programs end, with nothing on standard error."""
        done = runPython(
            """
import os, sys
from calandria import Factory, Protocol, Reactor
reactor = Reactor()
reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
reactor.callLater(60, print)
if os.fork() == 0:
    sys.exit()
os.wait()
reactor.callLater(0, reactor.stop)
reactor.run()
reactor.close()
print("parent")
""",
            env={"CALANDRIA_BACKEND": backendName, "PYTHONDEVMODE": "1"},
        )
        assert (done.stdout, done.stderr, done.returncode) == ("parent\n", "", 0)

    def test_signals_areTheChildsOwn(self, backendName: str) -> None:
        """A child of a running reactor is ended by a signal, and the parent's waker hears nothing of it."""
        done = runPython(
            """
import os, signal, time
from calandria import Reactor
reactor = Reactor()
def fork():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"x")
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.set_wakeup_fd(-1), flush=True)
        os.write(write, b"y")
        signal.pause()
        os._exit(9)
    while os.read(read, 1) != b"y":
        pass
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM, flush=True)
    reactor.callLater(0.01, reactor.stop)
reactor.callLater(0, fork)
reactor.run()
reactor.close()
""",
            env={"CALANDRIA_BACKEND": backendName, "PYTHONDEVMODE": "1"},
        )
        assert (done.stdout, done.returncode) == ("True -1\nTrue\n", 0)


class TestANewOne:
    def test_aReactorOfTheChildsOwn(self, service: Service) -> None:
        """The same numbers, the same names, another reactor: it serves, and the parent's goes on serving."""
        backend = service.reactor.backend.name

        def serve() -> object:
            with Reactor(backend=backend) as reactor:
                own = Service(reactor)
                with own.peer:
                    own.check()
                    return "served"

        assert inChild(serve) == "served"
        service.check()

    def test_insideACallback(self, service: Service) -> None:
        """Of a reactor that runs: the child's own may run there, and is its default then."""
        backend = service.reactor.backend.name
        answers: list[str] = []

        def serve() -> str:
            with Reactor(backend=backend) as reactor:
                seen: list[bool] = []
                reactor.callLater(0, lambda: seen.append(calandria.reactor is reactor))
                reactor.callLater(0, reactor.stop)
                reactor.run()
                return f"{seen}"

        service.reactor.callLater(0, lambda: answers.append(inChild(serve)))
        runUntil(service.reactor, lambda: answers)
        assert answers == ["[True]"]
        service.check()

    def test_theDefault_isReplaced(self, service: Service) -> None:
        """DESIGN 7: looked up at each use, never stored."""
        calandria.setDefault(service.reactor)
        try:

            def look() -> str:
                with calandria.reactor as reactor:
                    reactor.callLater(0, reactor.stop)
                    reactor.run()
                    return f"{reactor is service.reactor}"

            assert inChild(look) == "False"
            assert calandria.reactor is service.reactor
        finally:
            calandria.setDefault(None)
        service.check()

    def test_aChildOfAChild(self, service: Service) -> None:
        backend = service.reactor.backend.name

        def child() -> str:
            with Reactor(backend=backend) as reactor:

                def grandchild() -> str:
                    return refusals(
                        {
                            "the parent's": lambda: reactor.callLater(0, print),
                            "the grandparent's": lambda: service.reactor.callLater(0, print),
                        }
                    )

                said = inChild(grandchild)
                reactor.callLater(0, reactor.stop)
                reactor.run()
                return f"grandchild: {said}"

        assert inChild(child) == "grandchild: "
        service.check()


class TestFromAThread:
    def test_aForkInAnotherThread(self, service: Service) -> None:
        """While the reactor runs; the child's only thread is not the reactor's."""

        def fork() -> str:
            return inChild(
                lambda: refusals(
                    {
                        "callFromThread": lambda: service.reactor.callFromThread(print),
                        "callLater": lambda: service.reactor.callLater(0, print),
                        "stop": service.reactor.stop,
                    }
                )
            )

        assert runWith(service.reactor, fork) == ""
        service.check()

    def test_theChildsThreads_doNotWakeTheParent(self, service: Service) -> None:
        """wakeUp in the child writes nothing into a socket that it shares with the parent."""
        waker = next(one for one in service.reactor.getReaders() if isinstance(one, Waker))
        service.reactor.iterate()

        def wake() -> str:
            for use in (service.reactor.wakeUp, lambda: service.reactor.callFromThread(print)):
                try:
                    use()
                except error.ForkedReactor:
                    pass
            return "tried"

        assert inChild(wake) == "tried"
        with socket.socket(fileno=os.dup(waker.fileno())) as reading, pytest.raises(BlockingIOError):
            reading.recv(1)
        service.check()


def test_atNoCostInTheParent() -> None:
    """An at-fork hook, and not a question for the process's number at each call: counted in system calls' stead."""
    done = runPython(
        """
import os
from calandria import Reactor
with Reactor() as reactor:
    asked = []
    getpid = os.getpid
    os.getpid = lambda: asked.append(0) or getpid()
    for _ in range(100):
        reactor.callLater(0, print, end="")
        reactor.callFromThread(print, end="")
        reactor.iterate()
    print(len(asked))
"""
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_theHook_isSetUpByTheFirstReactor_notByImporting() -> None:
    """Importing does nothing; and one hook serves all reactors."""
    done = runPython(
        """
import os
hooks = []
register = os.register_at_fork
def note(**kw):
    if any(hook.__module__.startswith("calandria") for hook in kw.values()):
        hooks.append(kw)
    register(**kw)
os.register_at_fork = note
import calandria
print(len(hooks))
for _ in range(3):
    calandria.Reactor().close()
print(len(hooks))
"""
    )
    assert (done.stdout, done.stderr) == ("0\n1\n", "")
