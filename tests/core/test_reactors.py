"""Several reactors in one process, each in its own thread; and which of them is a thread's default.

Defaults belong to threads, so those tests run in threads of their own (`fresh`), which nothing was done in before.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import calandria
from calandria import Reactor
from tests.conftest import backendNames
from tests.core.tools import Watching
from tests.helpers import DEADLINE, Background, connectTo, openDescriptors, receiveExactly, runUntil
from tests.recorders import Echo, Recorder, RecordingClient, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers import LogCapture


class Life:
    """A reactor that runs in a thread of its own until `stop`; it serves echo at `port`."""

    def __init__(self, backendName: str) -> None:
        self.ready = threading.Event()
        self.call = Background(self._live, backendName)
        assert self.ready.wait(DEADLINE)

    def _live(self, backendName: str) -> list[int]:
        with Reactor(backend=backendName) as self.reactor:
            self.server = RecordingServer(Echo)
            self.port: int = self.reactor.listenTCP(0, self.server, interface="127.0.0.1").getHost().port
            threads: list[int] = []
            self.reactor.callWhenRunning(lambda: threads.append(threading.get_ident()))
            self.reactor.callWhenRunning(self.ready.set)
            self.reactor.run()
            return threads

    def stop(self) -> None:
        self.reactor.callFromThread(self.reactor.stop)
        self.call.result()


@pytest.fixture
def lives(backendName: str, logs: LogCapture) -> Iterator[list[Life]]:
    """Three reactors, of this backend and of the others."""
    names = [backendName, *(name for name in backendNames if name != backendName)]
    before = openDescriptors()
    lives = [Life(name) for name in (names * 3)[:3]]
    yield lives
    for life in lives:
        if not life.call():
            life.stop()
    lives.clear()
    assert openDescriptors() == before


class TestSideBySide:
    def test_eachServes(self, lives: list[Life]) -> None:
        for _ in range(3):
            for life in lives:
                with connectTo(life.port) as peer:
                    peer.sendall(b"question")
                    assert receiveExactly(peer, 8) == b"question"
        assert [len(life.server.protocols) for life in lives] == [3, 3, 3]

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    def test_theyStop_inAnyOrder(self, lives: list[Life], order: tuple[int, ...]) -> None:
        left = list(lives)
        for number in order:
            lives[number].stop()
            left.remove(lives[number])
            for life in left:
                with connectTo(life.port) as peer:
                    peer.sendall(b"x")
                    assert receiveExactly(peer, 1) == b"x"

    def test_oneTalksToAnother(self, lives: list[Life], reactor: Reactor) -> None:
        """A connection between two reactors of one process is a connection like any other."""
        clients = [RecordingClient(Recorder) for _ in lives]
        for life, client in zip(lives, clients, strict=True):
            reactor.connectTCP("127.0.0.1", life.port, client)
        runUntil(reactor, lambda: all(client.protocols for client in clients))
        for client in clients:
            client.protocols[0].transport.write(b"question")
        runUntil(reactor, lambda: all(client.protocols[0].received == b"question" for client in clients))
        for client in clients:
            client.protocols[0].transport.loseConnection()
        runUntil(reactor, lambda: all(client.lost for client in clients))

    def test_callsGoToAndFro(self, lives: list[Life]) -> None:
        """A thousand calls from reactor to reactor, each in its own thread."""
        done = threading.Event()
        wrong: list[int] = []

        def call(number: int) -> None:
            here = lives[number % 3].reactor
            if not here.isInIOThread() or any(
                life.reactor.isInIOThread() for life in lives if life.reactor is not here
            ):
                wrong.append(number)
            if number == 999:
                done.set()
            else:
                lives[(number + 1) % 3].reactor.callFromThread(call, number + 1)

        lives[0].reactor.callFromThread(call, 0)
        assert done.wait(DEADLINE)
        assert wrong == []

    def test_nothingIsShared(self, lives: list[Life]) -> None:
        pools = {id(life.reactor.getThreadPool()) for life in lives}
        resolvers = {id(life.reactor.nameResolver) for life in lives}
        assert len(pools) == len(resolvers) == 3
        # An exception that leaves one of them leaves only that one.
        lives[0].reactor.callFromThread(exec, "raise SystemExit(3)")
        with pytest.raises(SystemExit):
            lives[0].call.result()
        for life in lives[1:]:
            assert life.reactor.running
            life.stop()

    def test_oneInsideAnother(self, reactor: Reactor) -> None:
        """A callback may run another reactor: the outer one waits for as long."""
        events: list[object] = []
        with Reactor(backend=reactor.backend.name) as inner:

            def nested() -> None:
                inner.callLater(0, lambda: events.append(calandria.reactor is inner))
                inner.callLater(0.001, inner.stop)
                inner.run(installSignalHandlers=False)
                events.append(calandria.reactor is reactor)

            reactor.callLater(0, nested)
            runUntil(reactor, lambda: len(events) == 2)
        assert events == [True, True]


@pytest.fixture
def fresh(logs: LogCapture) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Calls a function in a new thread, which has no default yet, and gives its result; nothing may stay open."""
    before = openDescriptors()

    def call(function: Callable[[], Any]) -> Any:
        return Background(function).result()

    yield call
    assert openDescriptors() == before


class TestDefault:
    """DESIGN 7: the one that runs in the thread, else the one given to setDefault, else one made now."""

    def test_oneIsMade_andStays(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        def look() -> bool:
            with calandria.reactor as first:
                return first is calandria.reactor and type(first) is Reactor

        assert fresh(look)

    def test_eachThread_hasItsOwn(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        def look() -> bool:
            with calandria.reactor as mine:

                def there() -> bool:
                    with calandria.reactor as other:
                        return other is not mine

                return bool(Background(there).result()) and mine is calandria.reactor

        assert fresh(look)

    def test_setDefault(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        def look() -> list[bool]:
            with Reactor() as first, Reactor() as second:
                seen: list[bool] = []
                for reactor in (first, second, first):
                    calandria.setDefault(reactor)
                    seen.append(calandria.reactor is reactor)
                calandria.setDefault(None)
                with calandria.reactor as made:
                    seen.append(made not in (first, second))
                return seen

        assert fresh(look) == [True] * 4

    @pytest.mark.parametrize("wrong", [5, "epoll", Reactor])
    def test_setDefault_refusesWhatIsNoReactor(self, fresh: Callable[[Callable[[], Any]], Any], wrong: Any) -> None:
        with pytest.raises(TypeError, match="setDefault"):
            fresh(lambda: calandria.setDefault(wrong))

    def test_theRunningOne_comesFirst(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        def look() -> list[bool]:
            seen: list[bool] = []
            with Reactor() as default, Reactor() as running:
                calandria.setDefault(default)

                def note() -> None:
                    seen.append(calandria.reactor is running)

                for phase in ("before", "during", "after"):
                    for event in ("startup", "shutdown"):
                        running.addSystemEventTrigger(phase, event, note)
                running.addSystemEventTrigger("after", "shutdown", running.callFromThread, note)
                running.callLater(0, note)
                running.callLater(0, running.stop)
                running.run()
                seen.append(calandria.reactor is default)
                running.callLater(0, note)
                running.iterate()
                seen.append(calandria.reactor is default)
            return seen

        assert fresh(look) == [True] * 11

    @pytest.mark.parametrize("end", ["crash", "exit"])
    def test_howeverItEnds_theFormerIsBack(self, fresh: Callable[[Callable[[], Any]], Any], end: str) -> None:
        def leave() -> None:
            raise SystemExit

        def look() -> bool:
            with Reactor() as default, Reactor() as running:
                calandria.setDefault(default)
                running.callLater(0, running.crash if end == "crash" else leave)
                try:
                    running.run()
                except SystemExit:
                    pass
                return calandria.reactor is default

        assert fresh(look)

    def test_closed_itIsReplaced(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        def look() -> list[bool]:
            with calandria.reactor as first:
                pass
            with calandria.reactor as second:
                seen = [second is not first]
            with Reactor() as given:
                calandria.setDefault(given)
            with calandria.reactor as third:
                seen.append(third is not given)
                third.callLater(0, third.stop)
                third.run()
            return seen

        assert fresh(look) == [True, True]

    def test_itIsLookedUpAtEachUse(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        """No name of the module holds one: `calandria.reactor` answers anew each time."""

        def look() -> bool:
            with calandria.reactor:
                return "reactor" not in vars(calandria)

        assert fresh(look)

    def test_ofAnEndedThread_nothingIsLeft(self, logs: LogCapture) -> None:
        """A default that its thread has closed goes with the thread."""
        import gc
        import weakref

        gone: list[weakref.ref[Reactor]] = []

        def live() -> None:
            with calandria.reactor as reactor:
                gone.append(weakref.ref(reactor))
                reactor.callLater(0, reactor.stop)
                reactor.run()

        gc.disable()
        try:
            thread = threading.Thread(target=live)
            thread.start()
            thread.join()
            assert gone[0]() is None
        finally:
            gc.enable()


class TestWarning:
    """run() warns if this thread's default is another reactor that holds ports, connections or timers."""

    def warned(self, default: Reactor, running: Reactor) -> list[str]:
        calandria.setDefault(default)
        running.callLater(0, running.stop)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            running.run()
        calandria.setDefault(None)
        return [f"{one.category.__name__}: {one.message}" for one in caught]

    @pytest.mark.parametrize("holds", ["timer", "port", "connector", "descriptor", "connection"])
    def test_aDefaultThatHoldsSomething(self, fresh: Callable[[Callable[[], Any]], Any], holds: str) -> None:
        def look() -> list[str]:
            server = RecordingServer()
            with Reactor() as default, Reactor() as running, Watching() as watching:
                if holds == "timer":
                    default.callLater(60, print)
                elif holds == "port":
                    default.listenTCP(0, server, interface="127.0.0.1")
                elif holds == "connector":
                    default.connectTCP("127.0.0.1", 1, RecordingClient())
                elif holds == "descriptor":
                    default.addReader(watching)
                else:
                    port = default.listenTCP(0, server, interface="127.0.0.1")
                    with connectTo(port.getHost().port):
                        runUntil(default, lambda: server.protocols)
                        port.stopListening()
                        runUntil(default, lambda: server.events == ["start", "stop"])
                        return self.warned(default, running)
                return self.warned(default, running)

        (text,) = fresh(look)
        assert "setDefault" in text

    def test_itNamesTheCaller(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        """The place in the warning is the call of run()."""

        def look() -> str:
            with Reactor() as default, Reactor() as running:
                default.callLater(60, print)
                calandria.setDefault(default)
                running.callLater(0, running.stop)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    running.run()
                return caught[0].filename

        assert fresh(look) == __file__

    def test_aDefaultThatHoldsNothing(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        def look() -> list[str]:
            with Reactor() as default, Reactor() as running:
                default.callLater(60, print).cancel()
                return self.warned(default, running)

        assert fresh(look) == []

    def test_theDefaultItself(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        def look() -> list[str]:
            with Reactor() as running:
                running.callLater(60, print)
                return self.warned(running, running)

        assert fresh(look) == []

    def test_aClosedDefault(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        def look() -> list[str]:
            with Reactor() as default:
                default.callLater(60, print)
            with Reactor() as running:
                return self.warned(default, running)

        assert fresh(look) == []

    def test_anotherThreadsDefault(self, fresh: Callable[[Callable[[], Any]], Any]) -> None:
        def look() -> list[str]:
            with calandria.reactor as default:
                default.callLater(60, print)

                def there() -> list[str]:
                    with Reactor() as running:
                        running.callLater(0, running.stop)
                        with warnings.catch_warnings(record=True) as caught:
                            warnings.simplefilter("always")
                            running.run()
                        return [str(one.message) for one in caught]

                return Background(there).result()

        assert fresh(look) == []


def test_aClosedOne_disturbsNoOther(lives: list[Life], backendName: str) -> None:
    """Reactors come and go beside those that run."""
    for _ in range(20):
        with Reactor(backend=backendName) as reactor:
            reactor.callLater(0, reactor.stop)
            reactor.run(installSignalHandlers=False)
    for life in lives:
        with connectTo(life.port) as peer:
            peer.sendall(b"x")
            assert receiveExactly(peer, 1) == b"x"
