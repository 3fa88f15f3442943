"""The thread pool by itself, and the ways between threads and reactors.

Tests wait on events and queues that the jobs serve, never on time; a job that takes long ends when the test says so.
"""

from __future__ import annotations

import gc
import queue
import signal
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from calandria import Reactor, defer, error
from calandria.threads import (
    NoThreadsAvailable,
    ThreadPool,
    blockingCallFromThread,
    callMultipleInThread,
    deferToThread,
    deferToThreadPool,
)
from tests.helpers import DEADLINE, Background, runPython, runUntil, runWith

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.helpers import LogCapture


@pytest.fixture
def pools() -> Iterator[Callable[..., ThreadPool]]:
    """Makes pools, which are started unless `start=False`, and stopped in the end."""
    made: list[ThreadPool] = []

    def make(*args: Any, start: bool = True, **kw: Any) -> ThreadPool:
        pool = ThreadPool(*args, **kw)
        made.append(pool)
        if start:
            pool.start()
        return pool

    yield make
    for pool in made:
        assert pool.stop(DEADLINE) == []


class Gate:
    """A job that begins, and ends when it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.begun.set()
        assert self.open.wait(DEADLINE)
        return "through"

    def wait(self) -> None:
        assert self.begun.wait(DEADLINE)


def whenLeft(pool: ThreadPool, count: int) -> list[threading.Thread]:
    """The threads, once there are no more than `count`."""
    deadline = time.monotonic() + DEADLINE
    while pool.workers > count:
        assert time.monotonic() < deadline, pool
        for thread in pool.threads:
            thread.join(0.001)
    return pool.threads


Results = queue.SimpleQueue[tuple[bool, Any]]


def collector(results: Results) -> Callable[[bool, Any], None]:
    return lambda success, result: results.put((success, result))


def echo(value: object) -> object:
    return value


def fails() -> None:
    raise ZeroDivisionError("on purpose")


class TestJobs:
    def test_results_areReportedInTheThread(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(0, 1, "worker")
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def onResult(success: bool, result: object) -> None:
            results.put((success, result, threading.current_thread().name))

        def add(a: int, *, b: int) -> tuple[int, str]:
            return a + b, threading.current_thread().name

        pool.callInThreadWithCallback(onResult, add, 1, b=2)
        assert results.get(timeout=DEADLINE) == (True, (3, "worker"), "worker")

    @pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
    def test_anyException_isReported_andThePoolGoesOn(
        self, pools: Callable[..., ThreadPool], kind: type[BaseException]
    ) -> None:
        pool = pools(0, 1)
        results: Results = queue.SimpleQueue()

        def job() -> None:
            raise kind("on purpose")

        pool.callInThreadWithCallback(collector(results), job)
        success, result = results.get(timeout=DEADLINE)
        assert not success
        assert type(result.value) is kind
        assert "in job" in result.getTraceback()
        pool.callInThreadWithCallback(collector(results), len, "abc")
        assert results.get(timeout=DEADLINE) == (True, 3)

    @pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
    def test_anException_thatNobodyIsToldOf_isLogged(
        self, pools: Callable[..., ThreadPool], logs: LogCapture, kind: type[BaseException]
    ) -> None:
        pool = pools(0, 1)
        results: Results = queue.SimpleQueue()

        def job() -> None:
            raise kind("on purpose")

        pool.callInThread(job)
        pool.callInThreadWithCallback(collector(results), len, "abc")
        assert results.get(timeout=DEADLINE) == (True, 3)
        (record,) = logs.takeErrors()
        assert "job" in record.message
        assert "on purpose" in record.message

    def test_anException_ofTheListener_isLogged(self, pools: Callable[..., ThreadPool], logs: LogCapture) -> None:
        pool = pools(0, 1)
        results: Results = queue.SimpleQueue()

        def broken(success: bool, result: object) -> None:
            raise ZeroDivisionError("the listener")

        pool.callInThreadWithCallback(broken, len, "abc")
        pool.callInThreadWithCallback(broken, fails)
        pool.callInThreadWithCallback(collector(results), len, "abc")
        assert results.get(timeout=DEADLINE) == (True, 3)
        assert ["the listener" in record.message for record in logs.takeErrors()] == [True, True]

    def test_jobs_waitForTheStart(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(0, 3, start=False)
        results: Results = queue.SimpleQueue()
        for text in ("a", "bb", "ccc"):
            pool.callInThreadWithCallback(collector(results), len, text)
        assert (pool.workers, pool.q.qsize(), pool.started) == (0, 3, False)
        pool.start()
        assert sorted(results.get(timeout=DEADLINE)[1] for _ in range(3)) == [1, 2, 3]

    def test_aFullQueue_refuses(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(0, 1, limit=2)
        gate = Gate()
        results: Results = queue.SimpleQueue()
        pool.callInThread(gate)
        gate.wait()
        pool.callInThreadWithCallback(collector(results), len, "a")
        pool.callInThreadWithCallback(collector(results), len, "bb")
        with pytest.raises(error.QueueFull, match="2 jobs wait"):
            pool.callInThread(len, "ccc")
        gate.open.set()
        assert [results.get(timeout=DEADLINE)[1] for _ in range(2)] == [1, 2]
        pool.callInThreadWithCallback(collector(results), len, "dddd")
        assert results.get(timeout=DEADLINE) == (True, 4)

    def test_whatIsNotCallable_isRefusedAtTheCall(self, pools: Callable[..., ThreadPool]) -> None:
        pool: Any = pools(0, 1)
        with pytest.raises(TypeError, match="not 7"):
            pool.callInThread(7)

    def test_nothingOfTheLastJob_isKept(self, pools: Callable[..., ThreadPool]) -> None:
        class Thing:
            pass

        pool = pools(1, 1)
        results: Results = queue.SimpleQueue()
        gc.collect()
        gc.disable()
        try:
            thing = Thing()
            gone = threading.Event()
            weakref.finalize(thing, gone.set)
            pool.callInThreadWithCallback(collector(results), echo, thing)
            results.get(timeout=DEADLINE)
            del thing
            assert gone.wait(DEADLINE)
            assert pool.workers == 1
        finally:
            gc.enable()


class TestSize:
    def test_asManyThreadsAsJobs_upToTheLimit(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(0, 3)
        gates = [Gate() for _ in range(4)]
        for count, gate in enumerate(gates[:3], 1):
            pool.callInThread(gate)
            gate.wait()
            assert pool.workers == count
        pool.callInThread(gates[3])
        assert (pool.workers, len(pool.working), pool.waiters, pool.q.qsize()) == (3, 3, [], 1)
        assert not gates[3].begun.is_set()
        gates[0].open.set()
        gates[3].wait()
        assert pool.workers == 3
        for gate in gates:
            gate.open.set()

    def test_idleThreads_endDownToTheLeast(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(1, 4, idle=0.01)
        gates = [Gate() for _ in range(4)]
        for gate in gates:
            pool.callInThread(gate)
        for gate in gates:
            gate.wait()
        every = pool.threads
        assert len(every) == 4
        for gate in gates:
            gate.open.set()
        (left,) = whenLeft(pool, 1)
        assert left in every

    def test_idleThreads_neverMissAJob(self, pools: Callable[..., ThreadPool]) -> None:
        # Each job comes just when the only thread is about to leave: the moment in which one can be lost.
        pool = pools(0, 1, idle=0)
        results: Results = queue.SimpleQueue()
        for number in range(3000):
            pool.callInThreadWithCallback(collector(results), abs, number)
            assert results.get(timeout=DEADLINE) == (True, number)

    def test_aJobThatComesWhileAThreadLeaves_isNotMissed(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(0, 1, idle=0)
        results: Results = queue.SimpleQueue()

        class Crew(set[Any]):
            """Gives a job at the last moment in which the leaving thread still counts."""

            given = False

            def discard(self, worker: object) -> None:
                if not self.given:
                    self.given = True
                    assert returned.wait(DEADLINE)
                    pool.callInThreadWithCallback(collector(results), len, "second")
                super().discard(worker)

        returned = threading.Event()
        pool._crew = Crew()
        pool.callInThreadWithCallback(collector(results), len, "first")
        returned.set()
        assert [results.get(timeout=DEADLINE)[1] for _ in range(2)] == [5, 6]

    @pytest.mark.parametrize("most", [1, 2, 8])
    def test_manyThreadsAtOnce_loseNothing(self, pools: Callable[..., ThreadPool], most: int) -> None:
        pool = pools(0, most, idle=0, limit=100_000)
        results: Results = queue.SimpleQueue()

        def give(start: int) -> None:
            for number in range(start, start + 1000):
                pool.callInThreadWithCallback(collector(results), abs, number)

        peers = [Background(give, start) for start in (0, 1000, 2000, 3000)]
        received = [results.get(timeout=DEADLINE)[1] for _ in range(4000)]
        for peer in peers:
            peer.result()
        assert sorted(received) == list(range(4000))

    def test_adjustPoolsize_bothWays(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(0, 1)
        gates = [Gate() for _ in range(3)]
        for gate in gates:
            pool.callInThread(gate)
        gates[0].wait()
        assert pool.workers == 1
        pool.adjustPoolsize(maxthreads=3)
        for gate in gates:
            gate.wait()
        assert (pool.max, pool.workers) == (3, 3)
        pool.adjustPoolsize(maxthreads=1)
        for gate in gates:
            gate.open.set()
        whenLeft(pool, 1)
        pool.adjustPoolsize(minthreads=1)
        assert pool.min == 1

    @pytest.mark.parametrize(("least", "most"), [(-1, 5), (6, 5), (0, 0)])
    def test_sizesThatMakeNoSense_areRefused(self, least: int, most: int) -> None:
        with pytest.raises(ValueError, match=r"0 or more to 1 or more threads"):
            ThreadPool(least, most)
        pool = ThreadPool(0, 5)
        with pytest.raises(ValueError, match=r"0 or more to 1 or more threads"):
            pool.adjustPoolsize(least, most)
        untyped: Any = ThreadPool
        with pytest.raises(TypeError, match="'many'"):
            untyped(0, "many")
        with pytest.raises(ValueError, match="1 job or more"):
            ThreadPool(limit=0)

    def test_singleWorkers_comeAndGo(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(0, 2)
        pool.startAWorker()
        pool.startAWorker()
        pool.startAWorker()
        assert pool.workers == 2
        pool.stopAWorker()
        whenLeft(pool, 1)
        pool.stopAWorker()
        whenLeft(pool, 0)
        results: Results = queue.SimpleQueue()
        pool.callInThreadWithCallback(collector(results), len, "abc")
        assert results.get(timeout=DEADLINE) == (True, 3)

    def test_dumpStats_logsThem(self, pools: Callable[..., ThreadPool], logs: LogCapture) -> None:
        pool = pools(0, 1, "busy")
        gate = Gate()
        pool.callInThread(gate)
        gate.wait()
        pool.callInThread(len, "abc")
        pool.dumpStats()
        gate.open.set()
        assert "1 jobs wait, 1 threads work, 0 wait" in logs.records[-1].message
        assert "busy" in logs.records[-1].message


class TestStop:
    def test_stop_waitsForWhatRuns(self) -> None:
        pool = ThreadPool(2, 2)
        pool.start()
        gate = Gate()
        results: Results = queue.SimpleQueue()
        pool.callInThreadWithCallback(collector(results), gate)
        gate.wait()
        every = pool.threads
        stopping = Background(pool.stop)
        gate.open.set()
        assert stopping.result() == []
        assert results.get(timeout=DEADLINE) == (True, "through")
        for thread in every:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        assert (pool.joined, pool.started, pool.workers) == (True, False, 0)

    def test_stop_dropsWhatWaits(self, logs: LogCapture) -> None:
        pool = ThreadPool(0, 1)
        results: Results = queue.SimpleQueue()
        pool.callInThreadWithCallback(collector(results), len, "abc")
        pool.callInThread(len, "abc")
        pool.callInThread(len, "abc")
        assert pool.stop() == []
        success, result = results.get(timeout=0)
        assert not success
        assert type(result.value) is error.ReactorNotRunning
        assert [record.message.split(" dropped ")[1].split(":")[0] for record in logs.take(30)] == [
            "2 jobs that nobody waits for"
        ]

    def test_stop_abandonsWhatTakesTooLong(self, logs: LogCapture) -> None:
        pool = ThreadPool(0, 2)
        pool.start()
        gate = Gate()
        results: Results = queue.SimpleQueue()
        pool.callInThreadWithCallback(collector(results), gate)
        gate.wait()
        (thread,) = pool.threads
        assert pool.stop(0.01) == [gate]
        success, result = results.get(timeout=0)
        assert not success
        assert type(result.value) is error.ReactorNotRunning
        assert "no longer waits for" in logs.take(30)[0].message
        # Its own result comes too late: nobody is told twice.
        gate.open.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        assert results.empty()

    def test_whatAnAbandonedJobRaises_isNotReportedTwice(self, logs: LogCapture) -> None:
        pool = ThreadPool(0, 2)
        pool.start()
        gate = Gate()
        results: Results = queue.SimpleQueue()

        def job() -> None:
            gate()
            fails()

        pool.callInThreadWithCallback(collector(results), job)
        gate.wait()
        (thread,) = pool.threads
        assert pool.stop(0) == [job]
        gate.open.set()
        thread.join(DEADLINE)
        assert results.qsize() == 1
        assert logs.takeErrors() == []

    def test_stop_withoutWaiting_endsIdleThreadsToo(self) -> None:
        pool = ThreadPool(3, 3)
        pool.start()
        every = pool.threads
        pool.stop(0)
        for thread in every:
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def test_afterwards_jobsAreRefused(self) -> None:
        pool = ThreadPool(0, 1)
        pool.start()
        pool.stop()
        with pytest.raises(error.ReactorNotRunning, match="will not be called"):
            pool.callInThread(len, "abc")
        with pytest.raises(RuntimeError, match="cannot be started again"):
            pool.start()
        with pytest.raises(RuntimeError, match="was stopped"):
            pool.startAWorker()
        assert pool.stop() == []

    def test_aJob_mayStopItsOwnPool(self) -> None:
        pool = ThreadPool(0, 2)
        pool.start()
        results: Results = queue.SimpleQueue()
        pool.callInThreadWithCallback(collector(results), pool.stop)
        assert results.get(timeout=DEADLINE) == (True, [])

    def test_aJobThatComesTooLateToBeDropped_isRefused(self) -> None:
        pool = ThreadPool(0, 1)
        results: Results = queue.SimpleQueue()

        class Late(queue.SimpleQueue[Any]):
            """The pool is stopped between the look whether it is and the giving of the job."""

            def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
                if item is not None:
                    pool.stop()
                super().put(item)

        pool.q = Late()
        with pytest.raises(error.ReactorNotRunning, match="will not be called"):
            pool.callInThreadWithCallback(collector(results), len, "abc")
        assert results.empty()

    def test_jobsGivenWhileItStops_runOrRaise(self) -> None:
        for _ in range(50):
            pool = ThreadPool(0, 2, idle=0)
            pool.start()
            ran: queue.SimpleQueue[int] = queue.SimpleQueue()
            reported: Results = queue.SimpleQueue()
            begun = threading.Event()

            def give() -> int:
                count = 0
                while True:
                    try:
                        pool.callInThreadWithCallback(collector(reported), ran.put, count)  # noqa: B023
                    except error.ReactorNotRunning:
                        return count
                    except error.QueueFull:
                        continue
                    begun.set()  # noqa: B023
                    count += 1

            peers = [Background(give) for _ in range(2)]
            assert begun.wait(DEADLINE)
            assert pool.stop(DEADLINE) == []
            given = sum(peer.result() for peer in peers)
            # The last of them may still be being reported by the thread that did it.
            outcomes = [reported.get(timeout=DEADLINE) for _ in range(given)]
            assert reported.empty()
            assert sum(success for success, _ in outcomes) == ran.qsize()

    def test_aStuckJob_doesNotKeepTheProcessAlive(self) -> None:
        done = runPython(
            "import threading\n"
            "from calandria.threads import ThreadPool\n"
            "pool = ThreadPool(2, 2); pool.start(); begun = threading.Event()\n"
            "pool.callInThread(lambda: (begun.set(), threading.Event().wait()))\n"
            "begun.wait(); print('end')",
            timeout=DEADLINE,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


class TestReentry:
    def test_aSignalHandler_mayGiveJobs(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(0, 2, idle=0, limit=1_000_000)
        results: Results = queue.SimpleQueue()
        fromHandler = 0

        def handler(number: int, frame: object) -> None:
            nonlocal fromHandler
            fromHandler += 1
            pool.callInThreadWithCallback(collector(results), abs, -1)

        before = signal.signal(signal.SIGALRM, handler)
        given = armed = 0
        try:
            while fromHandler < 100:
                if fromHandler == armed:  # one at a time: handlers do not pile up on a slow machine
                    armed += 1
                    signal.setitimer(signal.ITIMER_REAL, 0.0005)
                pool.callInThreadWithCallback(collector(results), abs, -2)
                given += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        received = [results.get(timeout=DEADLINE)[1] for _ in range(given + fromHandler)]
        assert (received.count(1), received.count(2)) == (fromHandler, given)

    def test_aDestructor_mayGiveJobs(self, pools: Callable[..., ThreadPool]) -> None:
        pool = pools(0, 2, idle=0, limit=1_000_000)
        results: Results = queue.SimpleQueue()
        died = 0

        class Dying:
            def __init__(self) -> None:
                self.cycle = self

            def __del__(self) -> None:
                nonlocal died
                died += 1
                pool.callInThreadWithCallback(collector(results), abs, -1)

        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            for _ in range(300):
                Dying()
                pool.callInThreadWithCallback(collector(results), abs, -2)
        finally:
            gc.set_threshold(*before)
        gc.collect()
        received = [results.get(timeout=DEADLINE)[1] for _ in range(600)]
        assert (received.count(1), received.count(2)) == (300, 300)
        assert died == 300


class TestNoThreads:
    def test_withoutAnyThread_theCallerIsTold(self) -> None:
        def spawn(function: Callable[[], None]) -> None:
            raise RuntimeError("can't start new thread")

        pool = ThreadPool(0, 2, spawn=spawn)
        pool.start()
        with pytest.raises(NoThreadsAvailable, match="can't start new thread"):
            pool.callInThread(len, "abc")
        assert (pool.workers, pool.q.empty()) == (0, True)

    def test_whoeverCountedOnTheThread_isToldToo(self) -> None:
        results: Results = queue.SimpleQueue()

        def spawn(function: Callable[[], None]) -> None:
            if results.empty() and pool.q.qsize() == 1:
                pool.callInThreadWithCallback(collector(results), len, "abc")
            raise RuntimeError("can't start new thread")

        pool = ThreadPool(0, 1, spawn=spawn)
        pool.start()
        with pytest.raises(NoThreadsAvailable):
            pool.callInThread(len, "a")
        assert type(results.get(timeout=0)[1].value) is NoThreadsAvailable
        assert pool.q.empty()

    def test_withOneThread_jobsWaitForIt(self, pools: Callable[..., ThreadPool]) -> None:
        left = 1

        def spawn(function: Callable[[], None]) -> None:
            nonlocal left
            if not left:
                raise RuntimeError("can't start new thread")
            left -= 1
            threading.Thread(target=function, daemon=True).start()

        pool = pools(0, 5, spawn=spawn)
        gate = Gate()
        results: Results = queue.SimpleQueue()
        pool.callInThread(gate)
        gate.wait()
        pool.callInThreadWithCallback(collector(results), len, "abc")
        assert results.empty()
        gate.open.set()
        assert results.get(timeout=DEADLINE) == (True, 3)

    def test_jobsThatWaitedForTheStart_areTold(self, logs: LogCapture) -> None:
        def spawn(function: Callable[[], None]) -> None:
            raise RuntimeError("can't start new thread")

        pool = ThreadPool(0, 2, spawn=spawn)
        results: Results = queue.SimpleQueue()
        pool.callInThreadWithCallback(collector(results), len, "abc")
        pool.start()
        assert type(results.get(timeout=0)[1].value) is NoThreadsAvailable
        assert "can't start new thread" in logs.takeErrors()[0].message

    def test_theSystemsOwnRefusal(self) -> None:
        # A process that may have no more memory can start no thread with a large stack.
        done = runPython(
            "import resource, threading\n"
            "from calandria.threads import NoThreadsAvailable, ThreadPool\n"
            "pool = ThreadPool(0, 2); pool.start()\n"
            "import logging, traceback, linecache\n"
            "with open('/proc/self/statm') as file: used = int(file.read().split()[0]) * resource.getpagesize()\n"
            "resource.setrlimit(resource.RLIMIT_AS, (used + 64 * 2**20,) * 2)\n"
            "threading.stack_size(256 * 2**20)\n"
            "try: pool.callInThread(print, 'never')\n"
            "except NoThreadsAvailable as exc: print('refused')\n"
            "threading.stack_size(2**18)\n"
            "pool.callInThread(print, 'again')\n"
            "print(pool.stop())",
            timeout=DEADLINE,
        )
        assert done.stdout in ("refused\nagain\n[]\n", "refused\n[]\nagain\n")
        assert done.stderr == ""


class TestSpawn:
    def test_aWorldWithoutThreads_isServedAtOnce(self) -> None:
        pool = ThreadPool(0, 1, idle=0, spawn=lambda function: function())
        pool.start()
        results: Results = queue.SimpleQueue()
        name = threading.current_thread().name
        pool.callInThreadWithCallback(collector(results), len, "abc")
        assert results.get(timeout=0) == (True, 3)
        assert (pool.workers, threading.current_thread().name) == (0, name)


# From a reactor into a thread


class TestDeferToThread:
    def test_theResult_comesInTheReactorsThread(self, reactor: Reactor) -> None:
        results: list[Any] = []

        def job(*args: object, **kw: object) -> tuple[object, ...]:
            return threading.get_ident(), args, kw

        def done(result: tuple[object, ...]) -> None:
            results.append((threading.get_ident(), *result))

        deferToThreadPool(reactor, reactor.getThreadPool(), job, 1, two=2).addCallback(done)
        runUntil(reactor, lambda: results)
        ((there, here, args, kw),) = results
        assert (args, kw) == ((1,), {"two": 2})
        assert there == threading.get_ident()
        assert here != there

    def test_anException_isTheFailure(self, reactor: Reactor) -> None:
        results: list[Any] = []
        deferToThreadPool(reactor, reactor.getThreadPool(), fails).addErrback(results.append)
        runUntil(reactor, lambda: results)
        assert type(results[0].value) is ZeroDivisionError

    def test_theDefaultReactors_areUsedByDefault(self, reactor: Reactor) -> None:
        results: list[Any] = []

        def add(what: str) -> None:
            results.append(what)

        def begin() -> None:
            deferToThread(len, "abc").addCallback(results.append)
            callMultipleInThread([(add, ("a",), {}), (add, (), {"what": "b"})])

        reactor.callWhenRunning(begin)
        runUntil(reactor, lambda: len(results) == 3)
        assert sorted(results, key=str) == [3, "a", "b"]
        assert results.index("a") < results.index("b")

    def test_aFailure_leavesNoCycle(self, reactor: Reactor, logs: LogCapture) -> None:
        logs.keepToItself()
        texts: list[str] = []
        gc.collect()
        gc.disable()
        try:
            deferred = deferToThreadPool(reactor, reactor.getThreadPool(), fails)
            gone = threading.Event()
            weakref.finalize(deferred, gone.set)
            deferred.addErrback(lambda reason: texts.append(reason.getTraceback()))
            del deferred
            runUntil(reactor, lambda: texts)
            assert "in fails" in texts[0]
            assert gone.wait(DEADLINE)
        finally:
            gc.enable()

    def test_aFullQueue_isAFailure(self, reactor: Reactor) -> None:
        pool = ThreadPool(0, 1, limit=1)
        results: list[Any] = []
        deferToThreadPool(reactor, pool, len, "abc").addErrback(results.append)
        deferToThreadPool(reactor, pool, len, "abc").addErrback(results.append)
        assert [type(result.value) for result in results] == [error.QueueFull]
        pool.stop()
        runUntil(reactor, lambda: len(results) == 2)
        assert type(results[1].value) is error.ReactorNotRunning
        deferToThreadPool(reactor, pool, len, "abc").addErrback(results.append)
        assert type(results[2].value) is error.ReactorNotRunning

    def test_aJobThatIsAbandoned_fails_beforeRunReturns(self, reactor: Reactor, logs: LogCapture) -> None:
        gate = Gate()
        results: list[Any] = []
        reactor.threadTimeout = 0.01
        deferToThreadPool(reactor, reactor.getThreadPool(), gate).addBoth(results.append)

        def stopOnceBegun() -> None:
            gate.wait()
            reactor.callFromThread(reactor.stop)

        reactor.callWhenRunning(Background, stopOnceBegun)
        reactor.run(installSignalHandlers=False)
        assert [type(result.value) for result in results] == [error.ReactorNotRunning]
        assert any("no longer waits for" in record.message for record in logs.records)
        gate.open.set()

    def test_aLateResult_isDroppedInSilence(self, reactor: Reactor, logs: LogCapture) -> None:
        pool = ThreadPool(0, 1)
        pool.start()
        gate = Gate()
        results: list[Any] = []
        deferToThreadPool(reactor, pool, gate).addBoth(results.append)
        reactor.callWhenRunning(reactor.stop)
        reactor.run(installSignalHandlers=False)
        gate.open.set()
        pool.stop(DEADLINE)
        assert (results, logs.takeErrors()) == ([], [])


# From a thread into a reactor


class TestBlockingCall:
    def test_theResult_comesBack(self, reactor: Reactor) -> None:
        def f(*args: int) -> tuple[tuple[int, ...], int]:
            return args, threading.get_ident()

        here = threading.get_ident()
        assert runWith(reactor, blockingCallFromThread, reactor, f, 1, 2) == ((1, 2), here)

    def test_aDeferred_isWaitedFor(self, reactor: Reactor) -> None:
        def ask() -> defer.Deferred[str]:
            deferred: defer.Deferred[str] = defer.Deferred()
            reactor.callLater(0.001, deferred.callback, "later")
            return deferred

        def twice() -> list[str]:
            return [blockingCallFromThread(reactor, ask) for _ in range(2)]

        assert runWith(reactor, twice) == ["later", "later"]

    def test_aDeferred_thatWaitsForAnother_isWaitedForToo(self, reactor: Reactor) -> None:
        def ask() -> defer.Deferred[str]:
            inner: defer.Deferred[str] = defer.Deferred()
            reactor.callLater(0.001, inner.callback, "inner")
            outer: defer.Deferred[None] = defer.succeed(None)
            return outer.addCallback(lambda _: inner)

        assert runWith(reactor, blockingCallFromThread, reactor, ask) == "inner"

    def test_anException_isRaisedThere(self, reactor: Reactor) -> None:
        with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
            runWith(reactor, blockingCallFromThread, reactor, fails)
        assert caught.traceback[-1].name == "fails"

    def test_theFailure_ofADeferred_isRaisedThere(self, reactor: Reactor) -> None:
        with pytest.raises(ZeroDivisionError, match="deferred"):
            runWith(reactor, blockingCallFromThread, reactor, lambda: defer.fail(ZeroDivisionError("deferred")))

    def test_inTheReactorsOwnThread_itIsRefused(self, reactor: Reactor) -> None:
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                blockingCallFromThread(reactor, len, "abc")
            except RuntimeError as exc:
                errors.append(exc)

        reactor.callWhenRunning(ask)
        runUntil(reactor, lambda: errors)
        assert "own thread" in str(errors[0])
        with pytest.raises(error.ReactorNotRunning):
            blockingCallFromThread(reactor, len, "abc")

    def test_aReactorThatStops_failsIt(self, reactor: Reactor) -> None:
        asked: list[defer.Deferred[None]] = []

        def ask() -> defer.Deferred[None]:
            asked.append(defer.Deferred())
            reactor.callLater(0, reactor.stop)
            return asked[0]

        call = Background(blockingCallFromThread, reactor, ask)
        reactor.run(installSignalHandlers=False)
        with pytest.raises(error.ReactorNotRunning, match="stopped before"):
            call.result()

    def test_fromAThreadOfThePool_stoppingIsNotHeldUp(self, reactor: Reactor) -> None:
        outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()
        asked: list[defer.Deferred[None]] = []

        def ask() -> defer.Deferred[None]:
            asked.append(defer.Deferred())
            reactor.callLater(0, reactor.stop)
            return asked[0]

        def job() -> None:
            try:
                blockingCallFromThread(reactor, ask)
            except BaseException as exc:
                outcome.put(exc)

        reactor.threadTimeout = None
        reactor.callInThread(job)
        reactor.run(installSignalHandlers=False)
        assert type(outcome.get(timeout=DEADLINE)) is error.ReactorNotRunning

    def test_afterTheShutdown_itFails(self, reactor: Reactor) -> None:
        never: defer.Deferred[None] = defer.Deferred()
        calls: list[Background[None]] = []

        def afterEveryTrigger() -> None:
            calls.append(Background(blockingCallFromThread, reactor, lambda: never))
            while reactor.timeout() != 0.0:
                assert not calls[0]()

        reactor.addSystemEventTrigger("after", "shutdown", afterEveryTrigger)
        reactor.callWhenRunning(reactor.stop)
        reactor.run(installSignalHandlers=False)
        with pytest.raises(error.ReactorNotRunning):
            calls[0].result()

    def test_aReactorThatIsClosedUnrun_failsIt(self, backendName: str) -> None:
        reactor = Reactor(backend=backendName)
        never: defer.Deferred[None] = defer.Deferred()
        call = Background(blockingCallFromThread, reactor, lambda: never)
        while reactor.timeout() != 0.0:
            assert not call()
        reactor.close()
        with pytest.raises(error.ReactorNotRunning):
            call.result()

    def test_aReactorThatCrashesAndIsClosed_failsIt(self, backendName: str) -> None:
        reactor = Reactor(backend=backendName)
        kept: list[defer.Deferred[None]] = []

        def ask() -> defer.Deferred[None]:
            kept.append(defer.Deferred())
            return kept[0]

        call = Background(blockingCallFromThread, reactor, ask)
        runUntil(reactor, lambda: kept)
        assert not call()
        reactor.close()
        with pytest.raises(error.ReactorNotRunning):
            call.result()

    def test_aDeferredThatIsForgotten_failsIt(self, reactor: Reactor) -> None:
        with pytest.raises(error.ReactorNotRunning):
            runWith(reactor, blockingCallFromThread, reactor, defer.Deferred[None])

    def test_aStoppedReactor_refuses(self, reactor: Reactor) -> None:
        reactor.callWhenRunning(reactor.stop)
        reactor.run(installSignalHandlers=False)
        with pytest.raises(error.ReactorNotRunning):
            Background(blockingCallFromThread, reactor, len, "abc").result()


def test_theProcess_endsWithAThreadBlockedInACall() -> None:
    done = runPython(
        "import threading\n"
        "from calandria import Reactor, defer\n"
        "from calandria.threads import blockingCallFromThread\n"
        "kept = []\n"
        "def ask():\n"
        "    kept.append(defer.Deferred())\n"
        "    return kept[0]\n"
        "with Reactor() as reactor:\n"
        "    reactor.callInThread(blockingCallFromThread, reactor, ask)\n"
        "    reactor.callLater(0.05, reactor.stop)\n"
        "    reactor.run()\n"
        "print(threading.active_count())\n",
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert "ReactorNotRunning" in done.stderr
