"""Threads for what blocks: a pool of them, and the ways from one to a reactor and back.

The pool takes no lock. Jobs wait in a SimpleQueue, and the books are sets and lists of which only single operations are
used, each of them atomic; so a job may be added from a signal handler or a `__del__` that interrupts the adding of
another. Whoever changes one book looks at the others after it, never before: of two threads that pass each other, one
notices. Longer than most files, because the pool and its two doors are one subject, and one module to import.
"""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from functools import partial

from calandria import defer, error, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeGuard, TypeVar, overload

    from typing_extensions import ParamSpec

    from calandria import Reactor

    T = TypeVar("T")
    P = ParamSpec("P")

logger = logging.getLogger("calandria")

# Jobs that may wait for a thread: any burst that a few threads can work off in seconds, and a few megabytes.
LIMIT = 10_000
# How long (seconds) a thread that is not needed waits for a job before it ends.
IDLE = 10.0


class NoThreadsAvailable(RuntimeError):
    """The system gives this process no more threads, and the pool has none that could take the job."""


# The pool


class ThreadPool:
    """Owns `min` to `max` threads and the jobs that wait for them; may be used from any thread.

    Jobs given before `start` wait for it, up to `limit` of them. Threads are daemons, so that a stuck one does not keep
    the process alive; one that is not needed ends after `idle` seconds. `spawn(function)` starts a thread that runs
    `function`.
    """

    def __init__(
        self,
        minthreads: int = 5,
        maxthreads: int = 20,
        name: str | None = None,
        *,
        limit: int = LIMIT,
        idle: float = IDLE,
        spawn: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        if limit < 1:
            raise ValueError(f"a thread pool's queue holds 1 job or more, not {limit!r}")
        self.min, self.max = _checkSize(minthreads, maxthreads)
        self.name = name
        self.limit = limit
        self.idle = idle
        self.started = False
        self.joined = False
        # What the workers wait at. None tells one of them to leave, and all of them once we are stopped.
        self.q: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._spawn = spawn if spawn is not None else _startThread
        # The jobs that have not ended, and the workers that take jobs.
        self._jobs: set[_Job] = set()
        self._crew: set[_Worker] = set()
        # Where `stop` waits for the last worker.
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin to do jobs. Raises RuntimeError after `stop`: make a new pool then."""
        if self.joined:
            raise RuntimeError(f"{self!r} was stopped and cannot be started again")
        self.started = True
        try:
            self._grow()
        except (RuntimeError, OSError) as exc:
            logger.error("%r has fewer threads than it should have: %s", self, exc)
            self._unmanned(exc)

    def callInThread(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call in a thread; an exception is logged, the result dropped. Raises what callInThreadWithCallback raises."""
        self.callInThreadWithCallback(None, function, *args, **kwargs)

    def callInThreadWithCallback(
        self,
        onResult: Callable[[bool, Any], object] | None,
        function: Callable[P, object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Call in a thread, then `onResult(True, result)` or `onResult(False, failure)` in the same thread.

        A job that `stop` drops or abandons is reported from there, with error.ReactorNotRunning. Raises
        error.QueueFull, error.ReactorNotRunning after `stop`, NoThreadsAvailable, and TypeError for what is not
        callable.
        """
        if not callable(function):
            raise TypeError(f"a thread pool calls a callable, not {function!r}")
        if self.joined:
            raise error.ReactorNotRunning(f"{self!r} was stopped: {function!r} will not be called")
        if self.q.qsize() >= self.limit:
            raise error.QueueFull(f"{self.limit} jobs wait for a thread of {self!r} already")
        job = _Job(onResult, function, args, kwargs)
        self._jobs.add(job)
        self.q.put(job)
        try:
            self._grow()
        except (RuntimeError, OSError) as exc:
            withdrawn = not self._crew and self._withdraw(job)
            self._unmanned(exc)
            if withdrawn:
                raise NoThreadsAvailable(f"{function!r} cannot be called: {exc}") from exc
        if self.joined and self._withdraw(job):
            raise error.ReactorNotRunning(f"{self!r} was stopped: {function!r} will not be called")

    def stop(self, timeout: float | None = None, *, quiet: bool = False) -> list[Callable[..., object]]:
        """Take no more jobs, drop those that wait, and wait `timeout` seconds (None: for ever) for those that run.

        Gives what is still being called then: it is abandoned, and logged unless `quiet`.
        """
        self.joined = True
        self.started = False
        self._drop(error.ReactorNotRunning, f"{self!r} was stopped before this job's turn")
        # A job that stops its own pool is not waited for.
        me = threading.current_thread()
        self._crew.difference_update([worker for worker in tuple(self._crew) if worker.thread is me])
        abandoned: list[Callable[..., object]] = []
        if not self._crew:
            return abandoned
        try:
            self._ended.get(timeout=timeout if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        except queue.Empty:
            self._crew.clear()
            for job in tuple(self._jobs):
                running = not _take(job.mayStart)
                if _take(job.mayReport):
                    if running:
                        abandoned.append(job.function)
                        if not quiet:
                            logger.warning("%r no longer waits for %r, after %s s", self, job.function, timeout)
                    job.report(error.ReactorNotRunning(f"{self!r} was stopped before this job had ended"))
        return abandoned

    def adjustPoolsize(self, minthreads: int | None = None, maxthreads: int | None = None) -> None:
        """Have this many threads from now on (None: as before). Raises ValueError, TypeError."""
        self.min, self.max = _checkSize(
            self.min if minthreads is None else minthreads, self.max if maxthreads is None else maxthreads
        )
        for _ in range(len(self._crew) - self.max):
            self.q.put(None)
        try:
            self._grow()
        except (RuntimeError, OSError) as exc:
            logger.error("%r has fewer threads than it should have: %s", self, exc)
            self._unmanned(exc)

    def startAWorker(self) -> None:
        """Have one thread more, if `max` allows it. Raises RuntimeError if the system does not, or after `stop`."""
        if self.joined:
            raise RuntimeError(f"{self!r} was stopped")
        self._hire()

    def stopAWorker(self) -> None:
        """Have one thread fewer, when one has time."""
        self.q.put(None)

    def dumpStats(self) -> None:
        """Log how many jobs wait and what the threads do."""
        working, waiters = len(self.working), len(self.waiters)
        logger.info("%r: %d jobs wait, %d threads work, %d wait", self, self.q.qsize(), working, waiters)

    @property
    def workers(self) -> int:
        """How many threads there are."""
        return len(self._crew)

    @property
    def threads(self) -> list[threading.Thread]:
        """The threads."""
        return [worker.thread for worker in tuple(self._crew) if worker.thread is not None]

    @property
    def working(self) -> list[threading.Thread]:
        """The threads that do a job."""
        return [worker.thread for worker in tuple(self._crew) if worker.thread is not None and worker.busy]

    @property
    def waiters(self) -> list[threading.Thread]:
        """The threads that wait for a job."""
        return [worker.thread for worker in tuple(self._crew) if worker.thread is not None and not worker.busy]

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"<{type(self).__name__}{name}, {len(self._crew)} of {self.min} to {self.max} threads, at {id(self):#x}>"

    def _grow(self) -> None:
        """Hire as many as there are jobs for: every job that has not ended counts, so none waits for a busy worker."""
        # So often at the most: a job of somebody whom we interrupt (in a signal handler) may count and not wait yet,
        # and threads that find nothing leave again.
        for _ in range(self.max):
            if not self.started or len(self._crew) >= min(self.max, max(self.min, len(self._jobs))):
                return
            self._hire()

    def _hire(self) -> None:
        worker = _Worker()
        # First the book: whoever looks meanwhile counts on this worker. Two that hire at once may both find one too
        # many and both withdraw, but the later one of them then looks again, in `_grow`.
        self._crew.add(worker)
        if len(self._crew) > self.max:
            self._crew.discard(worker)
            return
        try:
            self._spawn(partial(self._serve, worker))
        except Exception:
            self._crew.discard(worker)
            raise

    def _serve(self, worker: _Worker) -> None:
        """What a thread does."""
        worker.thread = threading.current_thread()
        # (A simulation may run us in its main thread, whose name is not ours to change.)
        if self.name is not None and worker.thread.daemon:
            worker.thread.name = self.name
        # Each job in a function of its own, so that nothing of it is kept while waiting for the next one.
        while self._doOne(worker):
            pass
        if self.joined and not self._crew:
            self._ended.put(None)

    def _doOne(self, worker: _Worker) -> bool:
        """Wait for a job and do it; whether to go on."""
        try:
            job = self.q.get(timeout=None if len(self._crew) <= self.min else self.idle)
        except queue.Empty:
            return not self._mayLeave(worker, self.min)
        if job is None:
            if self.joined:
                self.q.put(None)
            return not self._mayLeave(worker, 0)
        worker.busy = True
        if _take(job.mayStart):
            job.run()
        self._jobs.discard(job)
        worker.busy = False
        return True

    def _mayLeave(self, worker: _Worker, least: int) -> bool:
        """Whether `worker` is not needed: `least` are left and nothing waits. It is out of the crew then."""
        self._crew.discard(worker)
        if not self.joined and (len(self._crew) < least or (not self.q.empty() and len(self._crew) < self.max)):
            self._crew.add(worker)
            return False
        return True

    def _unmanned(self, exc: Exception) -> None:
        """No thread could be started: if there is none at all, nobody will do what waits and counted on us."""
        if not self._crew:
            self._drop(NoThreadsAvailable, f"there is no thread to do it: {exc}")

    def _drop(self, kind: type[Exception], why: str) -> None:
        """Take out the jobs that wait, and report each as a failure."""
        silent = 0
        while True:
            try:
                job = self.q.get_nowait()
            except queue.Empty:
                break
            if job is not None and self._withdraw(job):
                if job.onResult is None:
                    silent += 1
                job.report(kind(why))
        if silent:
            logger.warning("%r dropped %d jobs that nobody waits for: %s", self, silent, why)
        if self.joined:
            self.q.put(None)

    def _withdraw(self, job: _Job) -> bool:
        """Whether the job has not begun; it will not then."""
        if not _take(job.mayStart):
            return False
        self._jobs.discard(job)
        return True


class _Job:
    """One call that is to be made in a thread. Whoever takes the entry of `mayStart` or `mayReport` may do that."""

    __slots__ = ("args", "function", "kwargs", "mayReport", "mayStart", "onResult")

    def __init__(
        self,
        onResult: Callable[[bool, Any], object] | None,
        function: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.onResult = onResult
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.mayStart = [None]
        self.mayReport = [None]

    def run(self) -> None:
        """Make the call and report its end, unless it was reported meanwhile. Never raises."""
        try:
            result: object = self.function(*self.args, **self.kwargs)
        except BaseException as exc:
            if _take(self.mayReport):
                if self.onResult is None:
                    failure.log(f"{self.function!r} raised in a thread", exc)
                else:
                    self.report(exc)
        else:
            if self.onResult is not None and _take(self.mayReport):
                self._tell(True, result)

    def report(self, exc: BaseException) -> None:
        """Tell that the call has failed, or was not made."""
        if self.onResult is not None:
            self._tell(False, failure.Failure(exc))

    def _tell(self, success: bool, result: object) -> None:
        assert self.onResult is not None
        try:
            self.onResult(success, result)
        except BaseException as exc:
            failure.log(f"{self.onResult!r}, told of the result of {self.function!r}, raised", exc)


class _Worker:
    """One thread of a pool. Its attributes are set by that thread only."""

    __slots__ = ("busy", "thread")

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.busy = False


def _take(entry: list[None]) -> bool:
    """Whether the entry was still there: of several that try at once, one gets it."""
    try:
        entry.pop()
    except IndexError:
        return False
    return True


def _startThread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, daemon=True).start()


def _checkSize(least: object, most: object) -> tuple[int, int]:
    if not isinstance(least, int) or not isinstance(most, int):
        raise TypeError(f"a thread pool has a number of threads, an int, not {least!r} to {most!r}")
    if not 0 <= least <= most or most < 1:
        raise ValueError(f"a thread pool has 0 or more to 1 or more threads, not {least} to {most}")
    return least, most


# From a reactor into a thread


def deferToThreadPool(
    reactor: Reactor, threadpool: ThreadPool, f: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> defer.Deferred[T]:
    """Call `f` in a thread of the pool; the Deferred fires in the reactor's thread with what it returns or raises.

    It fails with error.QueueFull or NoThreadsAvailable, and with error.ReactorNotRunning when the pool is stopped
    first.
    """
    deferred: defer.Deferred[T] = defer.Deferred()

    def deliver(success: bool, result: Any) -> None:
        try:
            reactor.callFromThread(deferred.callback if success else deferred.errback, result)
        except (error.ReactorNotRunning, error.ForkedReactor):
            pass  # nobody is there any more who could want it

    try:
        threadpool.callInThreadWithCallback(deliver, f, *args, **kwargs)
    except (error.QueueFull, error.ReactorNotRunning, NoThreadsAvailable) as exc:
        return defer.fail(exc)
    return deferred


def deferToThread(f: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> defer.Deferred[T]:
    """The same with the calling thread's default reactor, and its pool."""
    import calandria

    reactor = calandria.reactor
    return deferToThreadPool(reactor, reactor.getThreadPool(), f, *args, **kwargs)


def callMultipleInThread(tupleList: Iterable[tuple[Callable[..., object], tuple[Any, ...], Mapping[str, Any]]]) -> None:
    """Make several calls (function, arguments, keywords), one after the other, in one thread of deferToThread's.

    One that raises is logged, and ends it.
    """
    import calandria

    calandria.reactor.callInThread(_callAll, tuple(tupleList))


def _callAll(calls: Iterable[tuple[Callable[..., object], tuple[Any, ...], Mapping[str, Any]]]) -> None:
    for function, args, kwargs in calls:
        function(*args, **kwargs)


# From a thread into a reactor


if TYPE_CHECKING:

    @overload
    def blockingCallFromThread(
        reactor: Reactor, f: Callable[P, defer.Deferred[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    def blockingCallFromThread(reactor: Reactor, f: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


def blockingCallFromThread(reactor: Reactor, f: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
    """Call `f` in the reactor's thread, wait until the Deferred that it may return has fired, and give the result.

    On a reactor that never ran it waits for the first run. Raises what `f` raises or its Deferred fails with;
    error.ReactorNotRunning when the reactor has stopped, or stops before; RuntimeError in the reactor's own thread,
    which would wait for itself.
    """
    if reactor.isInIOThread():
        if reactor.running:
            raise RuntimeError(
                "blockingCallFromThread() was called in the reactor's own thread: it would wait for itself"
            )
        raise error.ReactorNotRunning("the reactor of this thread does not run, so nobody can answer")
    results: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    # Nothing here refers to the answer, so that it ends when the reactor lets go of it.
    reactor.callFromThread(_ask, reactor, _Answer(results), f, args, kwargs)
    result = results.get()
    if not result:
        raise error.ReactorNotRunning(f"the reactor stopped before {f!r} had a result")
    value, trace = result
    if isinstance(value, failure.Failure):
        try:
            raise value.value.with_traceback(trace)
        finally:
            # The exception refers to this frame.
            del value, result
    return value


class _Answer:
    """What a blocked thread waits for: given once; an answer that nobody can give any more is an empty one."""

    __slots__ = ("__weakref__", "_results", "given")

    def __init__(self, results: queue.SimpleQueue[tuple[Any, ...]]) -> None:
        self._results = results
        self.given = False

    def give(self, result: object) -> None:
        if not self.given:
            self.given = True
            # The Deferred takes a failure's frames away as soon as it has told us, and the way through them is worth
            # telling.
            trace = result.value.__traceback__ if isinstance(result, failure.Failure) else None
            self._results.put((result, trace))

    def giveUp(self) -> None:
        if not self.given:
            self.given = True
            self._results.put(())

    def __del__(self) -> None:
        self.giveUp()


class _Unanswered:
    """The answers that a reactor owes; only its shutdown trigger holds on to it. Called or dropped, it gives up."""

    __slots__ = ("__weakref__", "answers")

    def __init__(self) -> None:
        self.answers: weakref.WeakSet[_Answer] = weakref.WeakSet()

    def __call__(self) -> None:
        for answer in list(self.answers):
            answer.giveUp()

    __del__ = __call__


# One for each reactor that owes answers, or has owed some since it was last stopped.
_unanswered: weakref.WeakKeyDictionary[Reactor, weakref.ref[_Unanswered]] = weakref.WeakKeyDictionary()


def _ask(
    reactor: Reactor,
    answer: _Answer,
    f: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    """In the reactor's thread: find the answer, or see to it that the end of the reactor is one."""
    try:
        result = f(*args, **kwargs)
    except BaseException as exc:
        answer.give(failure.Failure(exc))
        return
    if not _isDeferred(result):
        answer.give(result)
        return
    result.addBoth(answer.give)
    if answer.given:
        return
    if not reactor.running:
        # The shutdown is over, in the last turns of a run for instance, and there may be no other.
        answer.giveUp()
        return
    known = _unanswered.get(reactor)
    unanswered = known() if known is not None else None
    if unanswered is None:
        unanswered = _Unanswered()
        reactor.addSystemEventTrigger("during", "shutdown", unanswered)
        _unanswered[reactor] = weakref.ref(unanswered)
    unanswered.answers.add(answer)


def _isDeferred(value: object) -> TypeGuard[defer.Deferred[Any]]:
    return isinstance(value, defer.Deferred)
