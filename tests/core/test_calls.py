"""Calls from other threads, from signal handlers and from `__del__`: their order, and the promise that each call which
did not raise has been made when `run()` returns. And the reactor's pool, as far as the reactor's life is concerned.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from calandria import Reactor, defer, error
from calandria.threads import deferToThreadPool
from tests.core.tools import Watched, Watching
from tests.helpers import DEADLINE, Background, runUntil, runWith

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from tests.helpers import LogCapture


def run(reactor: Reactor) -> None:
    reactor.run(installSignalHandlers=False)


def runBriefly(reactor: Reactor) -> None:
    reactor.callWhenRunning(reactor.stop)
    run(reactor)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class TestCallFromThread:
    def test_itIsMade_inTheReactorsThread_inALaterTurn(self, reactor: Reactor) -> None:
        made: list[Any] = []

        def call(*args: object, **kw: object) -> None:
            made.append((args, kw, threading.get_ident(), reactor.isInIOThread()))

        Background(reactor.callFromThread, call, 1).result()
        reactor.callFromThread(call, 2, three=3)
        assert made == []
        runUntil(reactor, lambda: len(made) == 2)
        here = threading.get_ident()
        assert made == [((1,), {}, here, True), ((2,), {"three": 3}, here, True)]

    def test_aSleepingReactor_isWoken(self, reactor: Reactor) -> None:
        """Within milliseconds, though nothing else would wake it."""
        late: list[float] = []
        for _ in range(20):
            asleep = threading.Event()

            def woken(began: float) -> None:
                late.append(time.monotonic() - began)
                reactor.crash()

            def wake(asleep: threading.Event) -> None:
                assert asleep.wait(DEADLINE)
                reactor.callFromThread(woken, time.monotonic())

            call = Background(wake, asleep)
            reactor.callWhenRunning(asleep.set)
            run(reactor)
            call.result()
        assert sorted(late)[10] < 0.1

    def test_eachThreadsCalls_inTheirOrder_eachOnce(self, reactor: Reactor, hasty: None) -> None:
        """L14, smaller."""
        threads, count = 8, 2500
        made: list[list[int]] = [[] for _ in range(threads)]

        def call(thread: int) -> None:
            for number in range(count):
                reactor.callFromThread(made[thread].append, number)

        calls = [Background(call, thread) for thread in range(threads)]
        runUntil(reactor, lambda: all(call() for call in calls) and sum(map(len, made)) == threads * count)
        for mine in made:
            assert mine == list(range(count))

    def test_oneThatRaises_leavesTheOthersAlone(self, reactor: Reactor, logs: LogCapture) -> None:
        made: list[int] = []

        def call(number: int) -> None:
            made.append(number)
            if number % 3 == 0:
                raise ValueError(f"call {number}")

        for number in range(9):
            reactor.callFromThread(call, number)
        reactor.iterate()
        assert made == list(range(9))
        errors = logs.takeErrors()
        assert len(errors) == 3
        assert "call" in errors[0].message

    @pytest.mark.parametrize("function", [None, 5, "print"])
    def test_whatIsNotCallable_isRefusedAtTheCall(self, reactor: Reactor, function: Any) -> None:
        with pytest.raises(TypeError, match="callable"):
            reactor.callFromThread(function)
        assert reactor.timeout() is None

    def test_argumentsAreLetGo(self, reactor: Reactor) -> None:
        class Thing:
            pass

        thing = Thing()
        gone = weakref.ref(thing)
        seen: list[object] = []
        reactor.callFromThread(id, thing)
        reactor.callFromThread(lambda: seen.append(gone()))
        del thing
        reactor.iterate()
        assert seen == [None]
        assert gone() is None

    def test_manyWakes_areOne(self, backendName: str, logs: LogCapture) -> None:
        """B27: more wakes than any pipe holds; none is lost, none blocks, and one turn takes them all."""
        backend = Watched(backendName)
        with Reactor(backend=backend) as reactor:
            made: deque[int] = deque()
            for number in range(70_000):
                reactor.callFromThread(made.append, number)
                if number % 7 == 0:
                    reactor.wakeUp()
            reactor.iterate()
            assert list(made) == list(range(70_000))
            for _ in range(70_000):
                reactor.wakeUp()
            del backend.timeouts[:]
            reactor.callLater(0.02, reactor.crash)
            run(reactor)
            # It has calmed down: the turns were a handful, not one per wake.
            assert len(backend.timeouts) < 10

    def test_wakeUp_endsTheSleep(self, reactor: Reactor) -> None:
        begun = threading.Event()

        def wake() -> None:
            assert begun.wait(DEADLINE)
            reactor.wakeUp()

        call = Background(wake)
        reactor.callFromThread(begun.set)
        reactor.iterate()
        before = time.monotonic()
        reactor.iterate(DEADLINE)
        assert time.monotonic() - before < DEADLINE / 2
        call.result()


class TestWhen:
    """A7: when calls are accepted, and when they are made."""

    def test_onANewReactor_theyAreKept(self, reactor: Reactor) -> None:
        made: list[str] = []
        reactor.callFromThread(made.append, "before the first run")
        runUntil(reactor, lambda: made)

    def test_fromStartRunningOn(self, reactor: Reactor) -> None:
        made: list[str] = []
        reactor.addSystemEventTrigger("before", "startup", reactor.callFromThread, made.append, "before startup")
        reactor.startRunning(installSignalHandlers=False)
        reactor.callFromThread(made.append, "after startRunning")
        assert made == []
        reactor.callFromThread(reactor.stop)
        reactor.mainLoop()
        assert made == ["before startup", "after startRunning"]

    def test_onAStoppedReactor_theyAreRefused(self, reactor: Reactor) -> None:
        runBriefly(reactor)
        with pytest.raises(error.ReactorNotRunning):
            reactor.callFromThread(pytest.fail, "it was refused")
        with pytest.raises(error.ReactorNotRunning):
            Background(reactor.callFromThread, pytest.fail, "it was refused").result()
        # The next run takes calls again, and makes none of those refused.
        made: list[str] = []
        reactor.callWhenRunning(reactor.callFromThread, made.append, "second run")
        runUntil(reactor, lambda: made)

    def test_iterate_onAStoppedReactor_takesThemAgain(self, reactor: Reactor) -> None:
        runBriefly(reactor)
        made: list[str] = []
        reactor.callLater(0, reactor.callFromThread, made.append, "in iterate")
        reactor.iterate()
        reactor.callFromThread(made.append, "after iterate")
        reactor.iterate()
        assert made == ["in iterate", "after iterate"]

    def test_onACrashedReactor_allHaveRun(self, reactor: Reactor) -> None:
        """Whichever way run() returns."""
        made: list[str] = []

        def crash() -> None:
            reactor.crash()
            reactor.callFromThread(made.append, "made after crash")

        reactor.callLater(0, crash)
        run(reactor)
        assert made == ["made after crash"]
        with pytest.raises(error.ReactorNotRunning):
            reactor.callFromThread(print)

    def test_onAClosedReactor(self, backendName: str, logs: LogCapture) -> None:
        reactor = Reactor(backend=backendName)
        reactor.close()
        with pytest.raises(error.ReactorClosed):
            Background(reactor.callFromThread, print).result()

    def test_upToTheLastMoment_theyAreMade(self, reactor: Reactor) -> None:
        """In every phase of the shutdown, and when the pool has ended."""
        made: list[str] = []
        for phase in ("before", "during", "after"):
            reactor.addSystemEventTrigger(phase, "shutdown", reactor.callFromThread, made.append, phase)

        def job() -> None:
            assert stopping.wait(DEADLINE)
            reactor.callFromThread(made.append, "a job that ended during the shutdown")

        stopping = threading.Event()
        reactor.addSystemEventTrigger("after", "shutdown", stopping.set)
        reactor.callWhenRunning(reactor.callInThread, job)
        runBriefly(reactor)
        assert made == ["before", "during", "after", "a job that ended during the shutdown"]

    def test_whatTheLastCallsAdd_isMadeToo(self, reactor: Reactor) -> None:
        """A7: the queue is drained 'with what the drained calls add'."""
        made: list[int] = []

        def again(number: int) -> None:
            made.append(number)
            if number < 20:
                reactor.callFromThread(again, number + 1)

        reactor.addSystemEventTrigger("after", "shutdown", reactor.callFromThread, again, 0)
        runBriefly(reactor)
        assert made == list(range(21))

    def test_callsThatNeverEnd_areCutOff_andThatIsLogged(self, reactor: Reactor, logs: LogCapture) -> None:
        made: list[int] = []

        def again() -> None:
            made.append(0)
            reactor.callFromThread(again)

        reactor.addSystemEventTrigger("after", "shutdown", reactor.callFromThread, again)
        runBriefly(reactor)
        # One was there; those that it, and they, added are 10,000.
        assert len(made) in (10_000, 10_001)
        count = len(made)
        (record,) = logs.takeErrors()
        assert "10000" in record.message.replace(",", "").replace("_", "")
        # Nothing of it comes back in the next life.
        runBriefly(reactor)
        assert len(made) == count

    def test_fromOtherThreads_theLastDrainIsSealed(self, reactor: Reactor) -> None:
        """Or one that never stops calling would keep it for ever."""
        refused: list[type] = []

        def drained() -> None:
            try:
                Background(reactor.callFromThread, print).result()
            except error.ReactorNotRunning as refusal:
                refused.append(type(refusal))

        reactor.addSystemEventTrigger("after", "shutdown", reactor.callFromThread, drained)
        runBriefly(reactor)
        assert refused == [error.ReactorNotRunning]

    def test_anException_inTheLastDrain_leavesTheRestAlone(self, reactor: Reactor, logs: LogCapture) -> None:
        made: list[str] = []

        def raises() -> None:
            raise ValueError("on purpose")

        reactor.addSystemEventTrigger("after", "shutdown", reactor.callFromThread, raises)
        reactor.addSystemEventTrigger("after", "shutdown", reactor.callFromThread, made.append, "next")
        runBriefly(reactor)
        assert made == ["next"]
        assert len(logs.takeErrors()) == 1


class TestRaces:
    def test_callsAgainstStop(self, backendName: str, logs: LogCapture, hasty: None) -> None:
        """L15: a call that did not raise has been made before run() returned; the others raised one kind of error."""
        made: set[tuple[int, int]] = set()

        def call(reactor: Reactor, go: threading.Event, thread: int) -> tuple[int, bool]:
            """Call until refused; how many were accepted."""
            assert go.wait(DEADLINE)
            for accepted in range(5000):
                try:
                    reactor.callFromThread(made.add, (thread, accepted))
                except error.ReactorNotRunning:
                    return accepted, True
                if accepted % 20 == 19:
                    os.sched_yield()
            return 5000, False

        races = 0
        with Reactor(backend=backendName) as reactor:
            for life in range(100):
                go = threading.Event()
                calls = [Background(call, reactor, go, thread) for thread in range(4)]
                reactor.callWhenRunning(go.set)
                # Now and then at once, now and then when the threads are well under way.
                reactor.callLater(life % 10 * 0.0002, reactor.stop)
                run(reactor)
                present = made.copy()
                expected: set[tuple[int, int]] = set()
                for thread, background in enumerate(calls):
                    accepted, refused = background.result()
                    races += refused
                    expected.update((thread, number) for number in range(accepted))
                assert present == expected
                assert made == present, "calls were made after run() had returned"
                made.clear()
        # Most of the threads were still calling when their reactor stopped.
        assert races > 200

    def test_callsAgainstClose(self, backendName: str, logs: LogCapture, hasty: None) -> None:
        """Whoever calls meanwhile is served or refused, and never hurt."""
        for _ in range(50):
            made: list[int] = []
            go = threading.Event()

            def call(reactor: Reactor, go: threading.Event, made: list[int]) -> int:
                assert go.wait(DEADLINE)
                for number in range(100_000):
                    try:
                        reactor.callFromThread(made.append, number)
                    except error.ReactorClosed:
                        return number
                raise AssertionError("a closed reactor goes on to accept calls")

            reactor = Reactor(backend=backendName)
            calls = [Background(call, reactor, go, made) for _ in range(2)]
            go.set()
            reactor.close()
            assert sum(call.result() for call in calls) == len(made)

    def test_wakesAgainstClose(self, backendName: str, logs: LogCapture, hasty: None) -> None:
        for _ in range(20):
            reactor = Reactor(backend=backendName)
            go = threading.Event()

            def wake(reactor: Reactor, go: threading.Event) -> None:
                assert go.wait(DEADLINE)
                for _ in range(100_000):
                    try:
                        reactor.wakeUp()
                    except error.ReactorClosed:
                        return

            call = Background(wake, reactor, go)
            go.set()
            reactor.iterate()
            reactor.close()
            call.result()


def whatCame(end: socket.socket) -> bytes | None:
    """What has come so far; the socket is closed."""
    end.setblocking(False)
    try:
        return end.recv(100) or None
    except BlockingIOError:
        return None
    finally:
        end.close()


class Interleaved:
    """A call in another thread that stops after so many opcodes of the library, and goes on when told to."""

    def __init__(self, function: Callable[[], object], step: int) -> None:
        self._function = function
        self._left = step
        self._reached = threading.Event()
        self._go = threading.Event()
        self.call = Background(self._traced)
        while not self._reached.wait(0.001) and not self.call():
            pass
        # Whether it came so far at all.
        self.reached = self._reached.is_set()

    def _traced(self) -> object:
        # Python 3.12 traces opcodes only if some frame had asked for it when tracing began.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            return self._function()
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if f"{os.sep}calandria{os.sep}" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left == 0:
                self._reached.set()
                assert self._go.wait(DEADLINE)
        return self._trace

    def finish(self) -> bool:
        """Let it go on; whether it was accepted. Any other refusal than the right ones is raised."""
        self._go.set()
        try:
            self.call.result()
        except (error.ReactorNotRunning, error.ReactorClosed):
            return False
        return True


class TestInterleavings:
    """Each switch of threads that there can be, one after the other, instead of luck."""

    def steps(self, begin: Callable[[int], Interleaved]) -> Iterator[Interleaved]:
        """A call that stops at its first opcode, one that stops at its second, up to its end."""
        for step in range(1, 1000):
            call = begin(step)
            if not call.reached:
                call.finish()
                assert step > 10, "nothing was traced"
                return
            yield call

    @pytest.mark.parametrize("arguments", [("x",), ()])
    def test_callFromThread_againstTheEndOfARun(self, logs: LogCapture, arguments: tuple[str, ...]) -> None:
        """A7: refused, or made before run() returned. Without arguments it is queued as it is."""
        made: list[str] = []

        def make(what: str = "x") -> None:
            made.append(what)

        with Reactor(backend="poll") as reactor:
            accepted = 0
            for call in self.steps(lambda step: Interleaved(lambda: reactor.callFromThread(make, *arguments), step)):
                runBriefly(reactor)
                present = made[:]
                if call.finish():
                    accepted += 1
                    assert present == ["x"]
                assert made == present
                made.clear()
                # For the next one, it is as on a new reactor.
                reactor.iterate()
            assert accepted

    def test_theSameCall_fromTwoThreads_againstTheEndOfARun(self, logs: LogCapture) -> None:
        """It is made as often as it was accepted, whichever of the two comes too late."""
        made: list[str] = []

        class Caller:
            def make(self) -> None:
                made.append("x")

        caller = Caller()
        refused = 0
        with Reactor(backend="poll") as reactor:
            for call in self.steps(lambda step: Interleaved(lambda: reactor.callFromThread(caller.make), step)):
                reactor.callWhenRunning(reactor.callFromThread, caller.make)
                runBriefly(reactor)
                accepted = 1 + call.finish()
                refused += accepted == 1
                assert made == ["x"] * accepted
                made.clear()
                reactor.iterate()
        assert refused

    @pytest.mark.parametrize("call", ["wakeUp", "callFromThread"])
    def test_againstClose(self, logs: LogCapture, call: str) -> None:
        """Refused, or made; and no byte for the waker goes to whoever has its number by now."""
        reactors: list[Reactor] = []
        made: list[str] = []

        def begin(step: int) -> Interleaved:
            reactor = Reactor(backend="poll")
            reactors.append(reactor)
            if call == "wakeUp":
                return Interleaved(reactor.wakeUp, step)
            return Interleaved(lambda: reactor.callFromThread(made.append, "x"), step)

        for calling in self.steps(begin):
            reactors.pop().close()
            present = made[:]
            pairs = [socket.socketpair() for _ in range(3)]
            accepted = calling.finish()
            if call == "callFromThread" and accepted:
                assert present == ["x"]
            assert made == present
            made.clear()
            astray = [received for pair in pairs for end in pair if (received := whatCame(end)) is not None]
            assert astray == []
        reactors.pop().close()

    @pytest.mark.parametrize("arguments", [("x",), ()])
    @pytest.mark.parametrize("wokenBefore", [False, True])
    def test_callFromThread_againstThePoll(
        self, logs: LogCapture, wokenBefore: bool, arguments: tuple[str, ...]
    ) -> None:
        """The loop has decided to sleep for ever; whatever the other thread has done by then, the poll must end."""

        class Meeting(Watched):
            call: Interleaved | None = None

            def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
                if self.call is not None:
                    call, self.call = self.call, None
                    assert call.finish()
                    if timeout is None:
                        timeout = 0.0
                        events = super().poll(timeout)
                        assert events, "it would have slept for ever, and a call waits"
                        return events
                return super().poll(timeout)

        made: list[str] = []

        def make(what: str = "x") -> None:
            made.append(what)

        backend = Meeting("poll")
        with Reactor(backend=backend) as reactor:
            for call in self.steps(lambda step: Interleaved(lambda: reactor.callFromThread(make, *arguments), step)):
                if wokenBefore:
                    reactor.wakeUp()
                backend.call = call
                reactor.iterate(None)
                reactor.iterate(0)
                assert made == ["x"]
                made.clear()


class TestFromAnywhere:
    def test_fromSignalHandlers_thatInterruptACall(self, reactor: Reactor) -> None:
        """A7: no lock, so a handler that interrupts callFromThread in callFromThread finds nothing locked."""
        made: list[str] = []
        sent: list[int] = []
        before = signal.getsignal(signal.SIGUSR1)

        def handler(number: int, frame: object) -> None:
            sent.append(number)
            reactor.callFromThread(made.append, "handler")

        signal.signal(signal.SIGUSR1, handler)
        done = threading.Event()

        def storm() -> None:
            main = threading.main_thread().ident
            assert main is not None
            while not done.is_set():
                signal.pthread_kill(main, signal.SIGUSR1)
                done.wait(0.0001)

        try:
            call = Background(storm)
            for _ in range(300):
                for _ in range(50):
                    reactor.callFromThread(made.append, "thread")
                reactor.iterate()
            done.set()
            call.result()
        finally:
            done.set()
            signal.signal(signal.SIGUSR1, before)
        reactor.iterate()
        assert made.count("thread") == 300 * 50
        assert made.count("handler") == len(sent)
        assert sent

    def test_aHandler_wakesTheSleepingReactor(self, reactor: Reactor) -> None:
        """The handler runs as soon as the poll is interrupted, and its call must not wait for the poll to end."""
        before = signal.getsignal(signal.SIGUSR1)
        asleep = threading.Event()

        def kill() -> None:
            assert asleep.wait(DEADLINE)
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(reactor.crash))
        try:
            call = Background(kill)
            reactor.callWhenRunning(asleep.set)
            safety = reactor.callLater(DEADLINE, reactor.crash)
            # With the wakeup descriptor, which run() sets along with its handlers: a signal that comes just before the
            # system call sleeps through it otherwise, whoever calls.
            reactor.run()
            call.result()
            assert safety.active()
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_aHandlerThatRaises_isACallbackThatRaises(self, reactor: Reactor, logs: LogCapture) -> None:
        """B16, A6: an Exception out of a host's handler, while the reactor sleeps, is logged; the loop goes on."""
        before = signal.getsignal(signal.SIGUSR1)
        ended = threading.Event()

        def handler(number: int, frame: object) -> None:
            raise ValueError("on purpose")

        def kill() -> int:
            main = threading.main_thread().ident
            assert main is not None
            for number in range(3):
                # Between two of them the reactor goes through a turn: it must still be there.
                answered: queue.SimpleQueue[int] = queue.SimpleQueue()
                reactor.callFromThread(answered.put, number)
                assert answered.get(timeout=DEADLINE) == number
                signal.pthread_kill(main, signal.SIGUSR1)
            reactor.callFromThread(ended.set)
            return 3

        signal.signal(signal.SIGUSR1, handler)
        calls: list[Background[int]] = []
        try:
            reactor.callWhenRunning(lambda: calls.append(Background(kill)))
            runUntil(reactor, ended.is_set)
        finally:
            try:
                assert calls[0].result() == 3
            finally:
                signal.signal(signal.SIGUSR1, before)
        errors = logs.takeErrors()
        assert len(errors) == 3
        assert all("on purpose" in str(record.exc_text) for record in errors)

    def test_aStormOfHandlers_losesNoReadiness(self, reactor: Reactor) -> None:
        """B16: a timer signal at 1 kHz, whose handler does nothing, beside an echo."""
        before = signal.getsignal(signal.SIGVTALRM)
        done = threading.Event()
        signals: list[int] = []

        def storm() -> None:
            main = threading.main_thread().ident
            assert main is not None
            while not done.wait(0.001):
                signal.pthread_kill(main, signal.SIGVTALRM)

        signal.signal(signal.SIGVTALRM, lambda number, frame: signals.append(number))
        try:
            with Watching() as watching:

                def echo() -> None:
                    watching.socket.send(watching.drain())

                watching.onRead = echo
                reactor.addReader(watching)
                watching.peer.settimeout(DEADLINE)
                killing = Background(storm)

                def client() -> int:
                    answers = 0
                    while answers < 300 or len(signals) < 30:
                        watching.peer.send(b"x")
                        assert watching.peer.recv(1) == b"x"
                        answers += 1
                    return answers

                assert runWith(reactor, client) >= 300
                done.set()
                killing.result()
                reactor.removeAll()
        finally:
            done.set()
            signal.signal(signal.SIGVTALRM, before)

    def test_fromDel_inTheMiddleOfACall(self, reactor: Reactor) -> None:
        """A7: the collector may run inside any allocation, those of callFromThread included."""
        import gc

        made: list[str] = []
        born = 0

        class Calls:
            def __init__(self) -> None:
                self.cycle = self

            def __del__(self) -> None:
                reactor.callFromThread(made.append, "del")

        before = gc.get_threshold()
        gc.collect()
        gc.set_threshold(1)
        try:
            for _ in range(2000):
                Calls()
                born += 1
                reactor.callFromThread(made.append, "call")
        finally:
            gc.set_threshold(*before)
        gc.collect()
        reactor.iterate()
        reactor.iterate()
        assert made.count("call") == 2000
        assert made.count("del") == born

    def test_fromDel_onAStoppedReactor_isAnErrorThere(self, reactor: Reactor) -> None:
        """It raises in the `__del__`, whose author can catch it, and nothing else happens."""
        refused: list[type] = []

        class Calls:
            def __del__(self) -> None:
                try:
                    reactor.callFromThread(print)
                except error.ReactorNotRunning as refusal:
                    refused.append(type(refusal))

        runBriefly(reactor)
        thing = Calls()
        del thing
        assert refused == [error.ReactorNotRunning]


class TestPool:
    def test_callInThread(self, reactor: Reactor) -> None:
        threads: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def job(*args: object, **kw: object) -> None:
            threads.put((threading.get_ident(), args, kw))

        reactor.callWhenRunning(reactor.callInThread, job, 1, two=2)
        runUntil(reactor, lambda: not threads.empty())
        thread, args, kw = threads.get()
        assert thread != threading.get_ident()
        assert (args, kw) == ((1,), {"two": 2})

    def test_beforeTheRun_jobsWait(self, reactor: Reactor) -> None:
        """C33."""
        done: queue.SimpleQueue[int] = queue.SimpleQueue()
        reactor.callInThread(done.put, 1)
        assert reactor.getThreadPool().workers == 0
        runUntil(reactor, lambda: not done.empty())

    def test_aJobThatRaises_isLogged(self, reactor: Reactor, logs: LogCapture) -> None:
        def job() -> None:
            raise ValueError("on purpose")

        reactor.callWhenRunning(reactor.callInThread, job)
        runUntil(reactor, lambda: logs.records and any(record.exc_text for record in logs.records))
        (record,) = logs.takeErrors()
        assert "job" in record.message
        assert "on purpose" in str(record.exc_text)

    def test_suggestThreadPoolSize(self, reactor: Reactor) -> None:
        """C34: before the run it starts nothing."""
        assert reactor.getThreadPool().max == 10
        reactor.suggestThreadPoolSize(3)
        pool = reactor.getThreadPool()
        assert (pool.max, pool.workers, pool.started) == (3, 0, False)
        for wrong in (0, -1, 1.5, "3"):
            with pytest.raises((ValueError, TypeError)):
                reactor.suggestThreadPoolSize(wrong)  # type: ignore[arg-type]  # that is the point
        assert pool.max == 3
        # And the next run's pool remembers.
        runBriefly(reactor)
        assert reactor.getThreadPool().max == 3

    def test_stopping_waitsForWhatRuns(self, reactor: Reactor) -> None:
        done: list[str] = []
        begun, go = threading.Event(), threading.Event()

        def job() -> None:
            begun.set()
            assert go.wait(DEADLINE)
            done.append("job")

        def stop() -> None:
            assert begun.wait(DEADLINE)
            reactor.stop()

        reactor.addSystemEventTrigger("after", "shutdown", go.set)
        reactor.callWhenRunning(reactor.callInThread, job)
        reactor.callWhenRunning(stop)
        run(reactor)
        assert done == ["job"]

    def test_stopping_abandonsWhatTakesTooLong(self, reactor: Reactor, logs: LogCapture) -> None:
        """A7a: logged, and its Deferred fails, before run() returns."""
        assert reactor.threadTimeout == 10
        reactor.threadTimeout = 0.01
        results: list[Any] = []
        begun, go = threading.Event(), threading.Event()

        def stuckJob() -> None:
            begun.set()
            assert go.wait(DEADLINE)

        def begin() -> None:
            deferToThreadPool(reactor, reactor.getThreadPool(), stuckJob).addBoth(results.append)
            assert begun.wait(DEADLINE)
            reactor.stop()

        reactor.callWhenRunning(begin)
        run(reactor)
        go.set()
        assert [type(result.value) for result in results] == [error.ReactorNotRunning]
        assert any("stuckJob" in record.message for record in logs.take(30))

    def test_eachRun_hasAPoolOfItsOwn(self, reactor: Reactor) -> None:
        done: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(3):
            reactor.callWhenRunning(reactor.callInThread, done.put, number)
            runUntil(reactor, lambda: not done.empty())
            assert done.get() == number

    def test_theReactorForgetsTheOldPool(self, reactor: Reactor) -> None:
        """C33."""
        reactor.callWhenRunning(reactor.getThreadPool)
        gone: list[weakref.ref[Any]] = []
        reactor.callWhenRunning(lambda: gone.append(weakref.ref(reactor.getThreadPool())))
        runBriefly(reactor)
        assert gone[0]() is None

    def test_aPoolThatNeverRan_endsWithClose(self, backendName: str, logs: LogCapture) -> None:
        """L20: work given and never done: its Deferred learns of it, once."""
        reactor = Reactor(backend=backendName)
        results: list[Any] = []
        deferToThreadPool(reactor, reactor.getThreadPool(), pytest.fail, "never run").addBoth(results.append)
        reactor.close()
        assert [type(result.value) for result in results] == [error.ReactorNotRunning]

    def test_manyQueuedJobs_onceEach(self, reactor: Reactor) -> None:
        """L20, smaller: results or errors, exactly once, whichever side of the stop they fall on."""
        outcomes: dict[int, list[object]] = {number: [] for number in range(2000)}

        def begin() -> None:
            pool = reactor.getThreadPool()
            for number, outcome in outcomes.items():
                deferred: defer.Deferred[int] = deferToThreadPool(reactor, pool, abs, number)
                deferred.addBoth(outcome.append)
            reactor.callLater(0.005, reactor.stop)

        reactor.callWhenRunning(begin)
        run(reactor)
        assert all(len(outcome) == 1 for outcome in outcomes.values())
        results = [outcome[0] for outcome in outcomes.values()]
        refused = [result for result in results if not isinstance(result, int)]
        assert all(type(result.value) is error.ReactorNotRunning for result in refused)  # type: ignore[attr-defined]

    @pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_aJobThatRaisesAnything_endsNeitherThreadNorReactor(
        self, reactor: Reactor, logs: LogCapture, exception: type[BaseException]
    ) -> None:
        """It is an outcome like others: a Deferred gets it."""
        results: list[Any] = []

        def job() -> None:
            raise exception

        deferToThreadPool(reactor, reactor.getThreadPool(), job).addBoth(results.append)
        runUntil(reactor, lambda: results)
        assert type(results[0].value) is exception
        deferToThreadPool(reactor, reactor.getThreadPool(), os.getpid).addBoth(results.append)
        runUntil(reactor, lambda: len(results) == 2)
        assert results[1] == os.getpid()


class TestIsInIOThread:
    def test_itIsAskedOfAReactor(self, reactor: Reactor) -> None:
        """A4."""
        answers: list[bool] = []
        with Reactor(backend=reactor.backend.name) as other:

            def look() -> None:
                answers.append(reactor.isInIOThread())
                answers.append(other.isInIOThread())
                answers.append(Background(reactor.isInIOThread).result())

            reactor.callLater(0, look)
            runUntil(reactor, lambda: answers)
        assert answers == [True, False, False]
