"""The reactor: its life (new, running, stopped, closed), and everything that it offers.

What it is made of lives next door: the loop, timers, triggers, the waker, signals, the tables of descriptors. Long
because it is the list of all that a reactor offers, each in a few lines.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import warnings
import weakref
from functools import partial
from heapq import heappush
from types import FunctionType, MethodType

from calandria import _debug, _default, _registry, error, failure
from calandria._debug import CheckedCall, Creation, reportLeaks
from calandria._descriptors import Descriptors
from calandria._loop import Loop
from calandria._signals import SignalHandlers
from calandria._threads import ThreadCalls
from calandria._timers import DelayedCall, Timers, checkDelay, later
from calandria._triggers import SystemEvent, taken
from calandria._waker import Waker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, Protocol, Self, TypeVar, overload

    from calandria import interfaces
    from calandria._backend import Backend
    from calandria._connector import Connector
    from calandria._hooks import Observers
    from calandria._loop import Flushing
    from calandria.protocol import AbstractDatagramProtocol, ClientFactory, Factory
    from calandria.threads import ThreadPool
    from calandria_tcp import TCPPort

    FactoryT = TypeVar("FactoryT")
    FactoryT_contra = TypeVar("FactoryT_contra", contravariant=True)
    ListeningT = TypeVar("ListeningT")
    ListeningT_co = TypeVar("ListeningT_co", covariant=True)

    class Listens(Protocol[FactoryT_contra, ListeningT_co]):
        """An endpoint that listens, for inference: what it takes, and what it gives."""

        def listen(self, reactor: Reactor, factory: FactoryT_contra, /) -> ListeningT_co: ...

    class Connects(Protocol[FactoryT_contra, ListeningT_co]):
        """An endpoint that connects, likewise."""

        def connect(self, reactor: Reactor, factory: FactoryT_contra, /) -> ListeningT_co: ...

    class Owned(Protocol):
        """What a reactor keeps alive and ends: a transport, a port, a connector."""

        def abandon(self, reason: failure.Failure) -> None: ...
        def forked(self) -> None: ...


logger = logging.getLogger("calandria")

# Calls that the last drain of a run makes at the most, so that calls that make calls cannot keep it for ever.
LAST_DRAIN = 10_000
# How often it looks again at what callbacks have opened while everything was being ended, for the same reason.
LAST_ROUNDS = 16
# One block of this size (bytes), given back at once. glibc returns the top of its heap to the kernel as soon as 128 KiB
# of it are free, and maps it anew, page by page, for the next read; once a larger block was freed it waits for twice
# that block (mallopt(3), M_MMAP_THRESHOLD). An echo of 10 KiB costs a quarter less, one of 100 KiB a third.
HEAP_KEPT = 2 << 20
# For the at-fork hook, which is set up with the first reactor: it cannot be undone, and importing must do nothing.
_alive: weakref.WeakSet[Reactor] = weakref.WeakSet()
_forkHook: list[Callable[[], None]] = []


class Reactor:
    """Owns a backend, and every open transport, port and connector; used on the thread that runs it.

    `backend` is the name of a backend, a Backend class or an instance; None takes the environment variable
    CALANDRIA_BACKEND and then the best one available. Other options go to the backend. `debug` (or CALANDRIA_DEBUG=1)
    reports slow callbacks, calls from wrong threads and what is left open at `close()`; `plugins` calls the hooks of
    installed plugins.

    Raises error.BackendUnavailable, and TypeError for options that the backend does not take.
    """

    shutdownTimeout: float | None = 30.0
    """How long (seconds) stopping waits for the Deferreds of 'before shutdown' triggers; None: for ever."""
    threadTimeout: float | None = 10.0
    """How long (seconds) stopping waits for jobs that run in the thread pool; None: for ever."""

    def __init__(
        self,
        backend: str | type[Backend] | Backend | None = None,
        *,
        debug: bool = False,
        plugins: bool = False,
        **backendOptions: Any,
    ) -> None:
        self._state: Literal["new", "running", "stopped", "closed", "forked"] = "closed"
        self._dead = False
        self._callClass: type[DelayedCall] = DelayedCall
        self.creator: Creation | None = None
        # In debug mode: where each foreign descriptor was added.
        self.creations: dict[int, Creation] = {}
        self.debug = debug or os.environ.get("CALANDRIA_DEBUG", "") not in ("", "0")
        self.plugins = plugins
        self.backend: Backend = _registry.makeBackend(backend, backendOptions)
        bytes(HEAP_KEPT)
        self.running = False
        self.seconds: Callable[[], float] = self.backend.seconds
        self.timers = Timers(self.seconds)
        self.descriptors = Descriptors(self.backend, _weakly(self._evicted))
        self.unsent: list[Flushing] = []
        self.owned: dict[Owned, bool | None] = {}
        self.lingering = 0
        self.reserve: int | None = None
        self.announce: Callable[[], None] | None = None
        self.observers: Observers | None = None
        self._onPending: Callable[[], None] | None = None
        self._calls = ThreadCalls()
        self.loop = Loop(
            self.backend, self.timers, self.descriptors, self.unsent, self._calls, _weakly(self._beginStop)
        )
        self.loop.debug = self.debug
        self._signals: SignalHandlers | None = None
        self._events: dict[str, SystemEvent] = {}
        self._thread: int | None = None
        self._stopping = False
        self._waitLimit: DelayedCall | None = None
        self._pool: ThreadPool | None = None
        self._poolSize: int | None = None
        self._resolver: Any = None
        self._waker: Waker | None = None
        self.exitSignal: int | None = None
        try:
            pair = self.backend.socketpair()
            if pair is not None:
                self._waker = Waker(pair)
                self.descriptors.addReader(self._waker.fileno(), self._waker)
        except BaseException:
            self._release()
            raise
        self._state = "new"
        if not _forkHook and hasattr(os, "register_at_fork"):
            _forkHook.append(_afterForkInChild)
            os.register_at_fork(after_in_child=_afterForkInChild)
        _alive.add(self)
        if self.debug:
            self.creator = Creation()
            self._callClass = CheckedCall
            _debug.begin(self)
        _registry.reactorCreated(self)

    # Running and stopping.

    def run(self, installSignalHandlers: bool | Literal["force"] = True) -> None:
        """Run until `stop()`, SIGINT or SIGTERM; may be called again afterwards.

        In the main thread, signals whose handlers are still the default ones are taken and put back at the end; "force"
        takes them from the host too. A KeyboardInterrupt, SystemExit or the like that came out of a callback leaves
        from here, after an orderly shutdown. Raises error.ReactorAlreadyRunning, error.ReactorClosed,
        error.ForkedReactor.
        """
        self.startRunning(installSignalHandlers)
        self.mainLoop()

    def startRunning(self, installSignalHandlers: bool | Literal["force"] = True) -> None:
        """The first half of `run`, for a host that then calls `mainLoop` or, again and again, `iterate`."""
        self.checkUsable()
        loop = self.loop
        if loop.going or loop.calling:
            raise error.ReactorAlreadyRunning("this reactor runs already")
        # What may raise comes before anything is changed.
        observers = _registry.observer(self)
        before = _default.entered(self)
        loop.going = loop.calling = True
        loop.stopWanted = self._stopping = False
        loop.escaping = None
        self._state = "running"
        self._before = before
        self._thread = threading.get_ident()
        self._calls.sealed = False
        self.observers = loop.observers = observers
        self.exitSignal = None
        if installSignalHandlers:
            self._signals = SignalHandlers(self._signalled, self._hurry)
        self._force = installSignalHandlers == "force"
        try:
            _registry.reactorStarting(self)
            self._event("startup").fire()
        except BaseException:
            self._stopNow()
            self._finish()
            raise
        finally:
            loop.calling = False
        self._tell(self._onPending)

    def mainLoop(self) -> None:
        """The second half of `run`: turns until the reactor has stopped, then the end of the run."""
        self.checkUsable()
        loop = self.loop
        if loop.calling:
            raise error.ReactorAlreadyRunning("mainLoop() was called inside one of this reactor's own callbacks")
        if self._state != "running":
            raise error.ReactorNotRunning("mainLoop() comes after startRunning()")
        troubled = False
        try:
            while loop.going:
                # What is caught here came not out of a callback (those are caught where they are called) but out of the
                # loop itself: a signal handler that raised while nothing was being called, or the backend's poll.
                try:
                    loop.turns(None, once=troubled)
                    troubled = False
                except BaseException as exc:
                    if isinstance(exc, Exception) and not troubled:
                        failure.log(
                            "something raised in the middle of the loop; it goes on unless that happens again", exc
                        )
                        troubled = True
                        continue
                    again = loop.escaping is not None
                    loop.escape(exc)
                    if again and loop.going:
                        self._stopNow()
        finally:
            self._finish()

    def iterate(self, delay: float | None = 0.0) -> None:
        """One turn, which sleeps for `delay` seconds at the most (None: until something happens) and ends with a flush.

        For hosts that drive the reactor: it need not have been started. Raises error.ReactorAlreadyRunning inside a
        callback.
        """
        self.checkUsable()
        loop = self.loop
        if loop.calling:
            raise error.ReactorAlreadyRunning("iterate() was called inside one of this reactor's own callbacks")
        if delay is not None:
            checkDelay(delay)
        started = loop.going
        self._thread = threading.get_ident()
        self._calls.sealed = False
        self._tell(None)
        before = _default.entered(self) if not started else None
        try:
            loop.turns(delay, once=True)
        except BaseException as exc:
            loop.escape(exc)
        finally:
            if not started:
                _default.left(before)
            self._tell(self._onPending)
        if self._dead:
            self.checkUsable()
        if started and not loop.going:
            self._finish()
        elif not loop.going:
            self.loop.leave()

    doIteration = iterate

    def stop(self) -> None:
        """Begin to stop: at the end of this turn the 'shutdown' event is fired, and in its course connections are lost.

        Raises error.ReactorNotRunning if the reactor does not run or is stopping already.
        """
        self.checkUsable()
        going = self.loop.going
        if not going or self._stopping:
            raise error.ReactorNotRunning("this reactor is stopping already" if going else "this reactor does not run")
        self._stopping = self.loop.stopWanted = True
        if self.announce is not None:
            self.pending()

    def crash(self) -> None:
        """Leave the loop after this turn without any shutdown: connections, ports and timers stay for the next run."""
        self.checkUsable()
        going = self.loop.going
        self.loop.going = self.loop.stopWanted = self.running = False
        for event in self._events.values():
            event.forget()
        if going and not self.loop.calling:
            self._finish()  # a host drives us, and this turn has ended

    def wakeUp(self) -> None:
        """Make a sleeping reactor go through a turn; from any thread or signal handler."""
        self.checkUsable()
        waker = self._waker  # another thread may be closing us
        if waker is not None:
            waker.wake()

    def close(self) -> None:
        """Lose what still lives (error.ConnectionLost, once each) and release every descriptor; idempotent.

        Afterwards every use raises error.ReactorClosed. Raises error.ReactorAlreadyRunning while the reactor runs.
        """
        if self._state in ("closed", "forked"):
            return
        if self.loop.going or self.loop.calling:
            raise error.ReactorAlreadyRunning("a running reactor cannot be closed: stop() it first")
        if self.debug:
            reportLeaks(self)
        loop = self.loop
        loop.calling = True
        self._thread = threading.get_ident()
        try:
            self.disconnectAll()
            # What jobs that end now have to tell, the last drain below tells.
            self._calls.sealed = False
            self._endThreads()
            if self._resolver is not None and hasattr(self._resolver, "close"):
                self._resolver.close()
            self._state = "closed"
            self._calls.sealed = True
            self._drain()
        finally:
            loop.calling = False
            self._release()
            _alive.discard(self)
        loop.leave()

    def __enter__(self) -> Self:
        self.checkUsable()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.loop.going:
            # An exception has left a run that a host drives by iterate().
            self._stopNow()
            self._finish()
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_state", "closed") in ("closed", "forked"):
            return
        try:
            ending = sys.is_finalizing()
        except AttributeError:
            return  # so late that there is not even a `sys` any more
        # A program that ends takes everything with it anyway.
        if not ending:
            made = f", made at {self.creator}" if self.creator else ""
            warnings.warn(f"unclosed reactor {self!r}{made}", ResourceWarning, source=self, stacklevel=2)
            self._release()

    def __repr__(self) -> str:
        backend = getattr(self, "backend", None)
        name = getattr(backend, "name", "?")
        return f"<Reactor on {name}, {getattr(self, '_state', 'closed')}, at {id(self):#x}>"

    @property
    def usable(self) -> bool:
        """Whether the reactor is neither closed nor inherited over a fork."""
        return self._state not in ("closed", "forked")

    @property
    def inherited(self) -> bool:
        """Whether the reactor is the parent process's."""
        return self._state == "forked"

    @property
    def busy(self) -> bool:
        """Whether the reactor holds a port, a connection, a foreign descriptor or a timer."""
        foreign = len(self.descriptors) - (self._waker is not None)
        return bool(self.owned or self.timers.live or foreign > 0)

    @property
    def inAnotherThread(self) -> bool:
        """Whether the reactor runs, and in another thread than the caller's."""
        return (self.loop.going or self.loop.calling) and self._thread != threading.get_ident()

    def isInIOThread(self) -> bool:
        """Whether the calling thread is the one that runs, or last ran, this reactor."""
        return self._thread == threading.get_ident()

    # System events.

    def addSystemEventTrigger(
        self, phase: str, eventType: str, callable: Callable[..., object], *args: Any, **kw: Any
    ) -> tuple[str, Any]:
        """Call `callable` 'before', 'during' or 'after' the event 'startup', 'shutdown' or any other; once.

        'during' waits for the Deferreds that 'before' triggers return. Gives an identifier for
        removeSystemEventTrigger. Raises BadPhase (a KeyError and a ValueError) and TypeError.
        """
        self.checkUsable()
        return eventType, self._event(eventType).add(phase, callable, args, kw)

    def removeSystemEventTrigger(self, triggerID: tuple[str, Any]) -> None:
        """Take back a trigger. Raises TypeError for anything else, KeyError or ValueError if it is gone."""
        self.checkUsable()
        eventType, trigger = taken(triggerID)
        self._events[eventType].remove(trigger)

    def fireSystemEvent(self, eventType: str) -> None:
        """Call the triggers of an event."""
        self.checkUsable()
        self._event(eventType).fire()
        if not (self.loop.going or self.loop.calling):
            self.loop.leave()

    def callWhenRunning(self, callable: Callable[..., object], *args: Any, **kw: Any) -> tuple[str, Any] | None:
        """Call now if the reactor runs (None is returned), else as soon as it does."""
        self.checkUsable()
        if self.running:
            callable(*args, **kw)
            return None
        return self.addSystemEventTrigger("after", "startup", callable, *args, **kw)

    def _event(self, eventType: str) -> SystemEvent:
        event = self._events.get(eventType)
        if event is None:
            inner = {"startup": self._startUp, "shutdown": self._shutDown}.get(eventType)
            event = self._events[eventType] = SystemEvent(None if inner is None else _weakly(inner), self.loop)
        return event

    def _startUp(self) -> None:
        """The reactor's own part 'during startup'."""
        if not self.loop.going or self._stopping:
            return
        self.running = True
        if self._signals is not None:
            fd = self._waker.signalFileno() if self._waker is not None else None
            self._signals.install(fd, force=self._force)
        if self._pool is not None:
            self._pool.start()

    def _shutDown(self) -> None:
        """The reactor's own part 'during shutdown': what was written gets one last chance, then everything is lost."""
        if self._waitLimit is not None:
            if self._waitLimit.active():
                self._waitLimit.cancel()
            self._waitLimit = None
        self.loop.going = self.running = False
        try:
            self.loop.flush()
        finally:  # also when a signal handler raises in there
            self.disconnectAll()

    def _beginStop(self) -> None:
        """End of the turn in which `stop()` was called."""
        self._stopping, self.loop.stopWanted = True, False
        startup = self._events.get("startup")
        if startup is not None:
            startup.forget()
        event = self._event("shutdown")
        if event.waiting:
            if self.loop.escaping is not None:
                event.proceed()  # interrupted while waiting: no more of it
            return
        event.fire()
        if event.waiting and self.shutdownTimeout is not None:
            self._waitLimit = self.callLater(self.shutdownTimeout, self._waitedLongEnough)

    def _stopNow(self) -> None:
        """The whole of 'shutdown' without another turn."""
        self._stopping = True
        event = self._event("shutdown")
        event.fire()
        event.proceed()

    def _waitedLongEnough(self) -> None:
        logger.error(
            "stopping without the Deferreds of 'before shutdown' triggers: not fired in %s s", self.shutdownTimeout
        )
        self._event("shutdown").proceed()

    def _finish(self) -> None:
        """The end of a run: signals, the pool, and the promise that a call from a thread has run or raised."""
        if self._state == "forked":
            self.loop.leave()  # the child's own wish to end
            raise error.ForkedReactor("this reactor is the parent process's: its run ends here, in the child")
        loop = self.loop
        loop.going = False
        loop.calling = True
        try:
            self._endThreads()
        finally:
            self._state = "stopped"
            self._calls.sealed = True
            try:
                self._drain()
            finally:
                loop.calling = False
                if self._signals is not None:
                    self._signals.restore()
                    self._signals = None
                _default.left(self._before)
                self._before = None
                self._tell(self._onPending)
        _registry.reactorStopped(self)
        self.loop.leave()

    def disconnectAll(self) -> None:
        """Lose every port, connection and foreign descriptor: error.ConnectionLost, once each."""
        for _ in range(LAST_ROUNDS):
            foreign = self.removeAll()
            owned = list(self.owned)
            if not owned and not foreign:
                return
            for one in owned:
                if one in self.owned:
                    reason = failure.Failure(error.ConnectionLost("the reactor was stopped"))
                    # What begins anew meanwhile enters itself again, and is there for the next round.
                    self.owned[one] = False
                    try:
                        one.abandon(reason)
                    except BaseException as exc:
                        self.loop.callbackRaised(f"ending {one!r}", exc)
                    if self.owned.get(one) is False:
                        del self.owned[one]
            for descriptor in foreign:
                self.loop.lose(descriptor, failure.Failure(error.ConnectionLost("the reactor was stopped")))
        if self.owned:
            logger.error("%d ports or connections stay: each end of one made another", len(self.owned))

    # Signals.

    def sigTerm(self, number: int, frame: object = None) -> None:
        """What our own handler does with a signal: stop, in a later turn. For hosts with handlers of their own."""
        self._signalled(number)

    sigInt = sigBreak = sigTerm

    def _signalled(self, number: int) -> None:
        self.exitSignal = number
        self._fromHandler(self._stopUnlessStopping)

    def _stopUnlessStopping(self) -> None:
        if self.loop.going and not self._stopping:
            self.stop()

    def _hurry(self) -> None:
        # A storm of signals is one wish.
        if not self.loop.stopWanted and self._stopping and len(self._calls.calls) < 16:
            self._fromHandler(self._proceed)

    def _fromHandler(self, function: Callable[[], None]) -> None:
        try:
            self.callFromThread(function)
        except (error.ReactorNotRunning, error.ForkedReactor):
            pass

    def _proceed(self) -> None:
        event = self._event("shutdown")
        if event.waiting:
            event.proceed()

    # Time.

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any) -> DelayedCall:
        """Call `callable(*args, **kw)` in `delay` seconds (0 or more, `inf` too), in a later turn.

        Raises ValueError for a negative delay or NaN, TypeError for what is not callable.
        """
        timers = self.timers
        try:
            if not delay >= 0:
                checkDelay(delay)
            time = timers.seconds() + delay
        except (OverflowError, TypeError):
            checkDelay(delay)
            time = later(timers.seconds(), delay)
        if not _callable(callable):
            raise TypeError(f"callLater takes a callable, not {callable!r}")
        if self._dead:
            self.checkUsable()
        timers.made = number = timers.made + 1
        timers.live += 1
        call = self._callClass(timers, time, callable, args, kw, number)
        heappush(timers.heap, (time, number, call))
        if timers.announce is not None:
            timers.announce()
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """The calls that are still to be made, in no order."""
        self._notInherited()
        return self.timers.pending()

    # Threads.

    def callFromThread(self, callable: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Call `callable(*args, **kw)` in the reactor's thread, in a later turn; each thread's calls in their order.

        From any thread, signal handler or `__del__`. A call that does not raise has been made before `run()` returns
        (one made before the first run: before that run returns). Raises error.ReactorNotRunning, error.ReactorClosed,
        error.ForkedReactor, TypeError.
        """
        call: Callable[[], object]
        kind = type(callable)
        if args or kw or (kind is not FunctionType and kind is not MethodType):
            try:
                call = partial(callable, *args, **kw)
            except TypeError:
                raise TypeError(f"callFromThread takes a callable, not {callable!r}") from None
        else:
            # As it is: 3,700 instructions and no garbage where a partial makes it 5,500, and twice the time. What is
            # taken back is found by `==`, which for these asks nobody, and makes no difference between equal ones.
            call = callable
        calls = self._calls
        if calls.sealed:
            queued = calls.addSealed(call)
        else:
            calls.append(call)
            queued = not calls.sealed or calls.wasTaken(call)
        if not queued:
            self.checkUsable()
            raise error.ReactorNotRunning("this reactor has stopped: the call will not be made")
        waker = self._waker
        if waker is not None and not waker.awake:
            waker.wake()
        if self.announce is not None:
            self.pending()

    def callInThread(self, callable: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Call in a thread of the pool; an exception is logged, the result dropped. Raises error.QueueFull."""
        self.getThreadPool().callInThread(callable, *args, **kw)

    def getThreadPool(self) -> ThreadPool:
        """The reactor's pool of threads: made when first asked for, running while the reactor does."""
        self.checkUsable()
        if self._pool is None:
            from calandria.threads import ThreadPool

            self._pool = ThreadPool(0, self._poolSize or 10, name="calandria", spawn=self.backend.callInThread)
            if self.running:
                self._pool.start()
        return self._pool

    def suggestThreadPoolSize(self, size: int) -> None:
        """Let the pool have `size` threads at the most."""
        self.checkUsable()
        if not isinstance(size, int):  # pyright: ignore[reportUnnecessaryIsInstance]  # whatever it was given
            raise TypeError(f"a pool has a number of threads, an int, not {size!r}")
        if size < 1:
            raise ValueError(f"a pool has 1 thread or more, not {size!r}")
        self._poolSize = size
        if self._pool is not None:
            self._pool.adjustPoolsize(0, size)

    def _endThreads(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop(self.threadTimeout)

    def _drain(self) -> None:
        """Make the calls that wait in the sealed queue."""
        dropped = self.loop.drain(LAST_DRAIN)
        if dropped:
            logger.error("%d calls from threads were dropped: the last drain makes %d", dropped, LAST_DRAIN)

    # Names.

    @property
    def nameResolver(self) -> interfaces.HostnameResolver:
        """What turns host names into addresses, in threads of its own unless another one was installed."""
        if self._resolver is None:
            self.checkUsable()
            self._resolver = _registry.resolver(self)
            if self._resolver is None:
                from calandria._resolver import ThreadedResolver

                self._resolver = ThreadedResolver(self)
        return self._resolver  # type: ignore[no-any-return]  # a plugin's resolver is what it says it is

    def installNameResolver(self, resolver: interfaces.HostnameResolver) -> interfaces.HostnameResolver:
        """Use another resolver; gives the one used so far. Raises TypeError."""
        if not hasattr(resolver, "resolveHostName"):
            raise TypeError(f"a name resolver has a method resolveHostName; {resolver!r} has none")
        before = self.nameResolver
        self._resolver = resolver
        return before

    # Foreign descriptors.

    def addReader(self, reader: interfaces.ReadDescriptor) -> None:
        """Call `reader.doRead()` whenever its descriptor may be read, from the next poll on.

        Raises error.UnsupportedDescriptor for a regular file, a directory, or what the backend cannot watch.
        """
        self.checkUsable()
        fd = self._foreign(reader, self.descriptors.readers)
        self.descriptors.addReader(fd, reader)

    def addWriter(self, writer: interfaces.WriteDescriptor) -> None:
        """Call `writer.doWrite()` whenever its descriptor may be written; the rest is as with `addReader`."""
        self.checkUsable()
        fd = self._foreign(writer, self.descriptors.writers)
        self.descriptors.addWriter(fd, writer)

    def removeReader(self, reader: interfaces.ReadDescriptor) -> None:
        """No longer read; nothing if it was not being read. Works when the descriptor is closed already."""
        self._notInherited()
        self.descriptors.removeForeign(reader, self.descriptors.readers)

    def removeWriter(self, writer: interfaces.WriteDescriptor) -> None:
        """No longer write; nothing if it was not being written. Works when the descriptor is closed already."""
        self._notInherited()
        self.descriptors.removeForeign(writer, self.descriptors.writers)

    def removeAll(self) -> list[interfaces.ReadDescriptor | interfaces.WriteDescriptor]:
        """Take out all foreign readers and writers and give them; the reactor's own stay."""
        found = self.foreignDescriptors()
        for descriptor in found:
            self.descriptors.removeOwner(descriptor)
        return found

    def foreignDescriptors(self) -> list[interfaces.ReadDescriptor | interfaces.WriteDescriptor]:
        """All that was given to `addReader` and `addWriter`."""
        watched: list[Any] = [*self.getReaders(), *self.getWriters()]
        return [one for one in {id(one): one for one in watched}.values() if not hasattr(one, "abandon")]

    def getReaders(self) -> list[interfaces.ReadDescriptor]:
        """All that is being read, the reactor's own waker too."""
        self._notInherited()
        return list(self.descriptors.readers.values())

    def getWriters(self) -> list[interfaces.WriteDescriptor]:
        """All that is being written."""
        self._notInherited()
        return list(self.descriptors.writers.values())

    def _foreign(self, descriptor: Any, table: dict[int, Any]) -> int:
        fd = descriptor.fileno()
        if not isinstance(fd, int) or fd < 0:
            raise error.UnsupportedDescriptor(f"{descriptor!r} has no open descriptor: its fileno() is {fd!r}")
        other = table.get(fd)
        if other is None or other is not descriptor:
            try:
                found = os.fstat(fd)
            except OSError as exc:
                raise error.UnsupportedDescriptor(f"descriptor {fd} of {descriptor!r}: {exc.strerror}") from None
            kind = _alwaysReady(found)
            if kind:
                raise error.UnsupportedDescriptor(
                    f"descriptor {fd} of {descriptor!r} is a {kind}: it is always ready, so no backend can wait for it"
                )
            if other is not None:
                self.descriptors.evict(fd)
        if self.debug:
            self.creations[fd] = Creation()
        return fd

    def _evicted(self, owner: Any) -> None:
        """Its number is another's by now, so it lets go of it at once, and is told in a later turn."""
        disown = getattr(owner, "disown", None)
        if disown is not None:
            disown()
        reason = error.ConnectionFdescWentAway("its descriptor was closed by somebody else")
        self.callLater(0, self.loop.lose, owner, failure.Failure(reason))

    # Transports.

    if TYPE_CHECKING:

        @overload
        def listen(self, where: str, factory: Factory | AbstractDatagramProtocol) -> Any: ...
        @overload
        def listen(self, where: Listens[FactoryT, ListeningT], factory: FactoryT) -> ListeningT: ...
        def listen(self, where: Any, factory: Any) -> Any:
            """Listen at an endpoint: an object such as ListenTCP(8007), or its text, such as "tcp:8007"."""

        @overload
        def connect(self, where: str, factory: ClientFactory | AbstractDatagramProtocol) -> Any: ...
        @overload
        def connect(self, where: Connects[FactoryT, ListeningT], factory: FactoryT) -> ListeningT: ...
        def connect(self, where: Any, factory: Any) -> Any:
            """Connect to an endpoint: an object such as ConnectTCP("localhost", 8007), or its text."""

    else:

        def listen(self, where, factory):
            """Listen at an endpoint: an object such as ListenTCP(8007), or its text, such as "tcp:8007".

            Gives what the endpoint gives: a listening port. Raises what the transport raises (error.CannotListenError),
            error.TransportUnavailable, and ValueError for a text that is none.
            """
            self.checkUsable()
            return _registry.endpoint(where, "listen").listen(self, factory)

        def connect(self, where, factory):
            """Connect to an endpoint: an object such as ConnectTCP("localhost", 8007), or its text.

            Gives what the endpoint gives: a connector. Raises error.TransportUnavailable, ValueError for a bad text;
            what else goes wrong goes to `factory.clientConnectionFailed`.
            """
            self.checkUsable()
            return _registry.endpoint(where, "connect").connect(self, factory)

    def listenTCP(
        self,
        port: int,
        factory: Factory,
        backlog: int = 50,
        interface: str = "",
        *,
        reuseAddress: bool = True,
        reusePort: bool = False,
    ) -> TCPPort:
        """Accept TCP connections at `port` (0: a free one) of `interface`, an address literal ("": all of IPv4).

        Raises ValueError for a bad port, error.CannotListenError.
        """
        self.checkUsable()
        listen: Any = _registry.transport("tcp").listen
        port_: TCPPort = listen(port, backlog, interface, reuseAddress, reusePort).listen(self, factory)
        return port_

    def connectTCP(
        self,
        host: str,
        port: int | str,
        factory: ClientFactory,
        timeout: float | None = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> Connector:
        """Connect to `port` (a number or a service's name) of `host` (a name or an address literal).

        `timeout` (seconds; None: for ever) covers name resolution and connecting. Failures go to
        `factory.clientConnectionFailed`, in a later turn.
        """
        self.checkUsable()
        connect: Any = _registry.transport("tcp").connect
        connector: Connector = connect(host, port, timeout, bindAddress).connect(self, factory)
        return connector

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """listenX and connectX of transports that others ship."""
            if name[:6] == "listen":
                scheme = name[6:]
            elif name[:7] == "connect":
                scheme = name[7:]
            else:
                scheme = ""
            if not scheme[:1].isupper():
                # Without `obj`: the suggestions of a traceback would ask dir(), which loads every transport.
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name)
            function = _registry.method(name)

            def method(*args: Any, **kw: Any) -> Any:
                self.checkUsable()
                return function(self, *args, **kw)

            for attribute in ("__name__", "__qualname__", "__doc__"):
                setattr(method, attribute, getattr(function, attribute))
            method.__wrapped__ = function.__get__(self)
            return method

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_registry.methodNames()})

    # For hosts that drive the reactor.

    def fileno(self) -> int:
        """A descriptor that is readable when the reactor has something to do. Raises io.UnsupportedOperation if there
        is none.
        """
        self.checkUsable()
        fd = self.backend.fileno()
        if fd < 0:
            import io

            raise io.UnsupportedOperation(
                f"the backend {self.backend.name!r} has no descriptor that a host could watch"
            )
        return fd

    def timeout(self) -> float | None:
        """How long (seconds) a host may sleep before it calls `iterate()`: 0 if something waits; None: for ever."""
        self.checkUsable()
        return self.loop.timeout()

    @property
    def onPending(self) -> Callable[[], None] | None:
        """Called when the first stream, timer or call appears outside a turn: the host should call `iterate()` soon."""
        return self._onPending

    @onPending.setter
    def onPending(self, function: Callable[[], None] | None) -> None:
        if function is not None and not callable(function):
            raise TypeError(f"onPending is a callable or None, not {function!r}")
        self._onPending = function
        if not self.loop.calling:
            self._tell(function)

    def pending(self) -> None:
        """Something appeared: tell the host, once until it has driven us."""
        announce = self.announce
        self._tell(None)
        if announce is not None and not self.loop.calling:
            announce()

    def _tell(self, announce: Callable[[], None] | None) -> None:
        self.announce = announce
        self.timers.announce = None if announce is None else self.pending

    # What never runs on the hot path.

    def _notInherited(self) -> None:
        """What is still harmless on a closed reactor is none of a child process's business."""
        if self._state == "forked":
            self.checkUsable()

    def checkUsable(self) -> None:
        """Raise error.ReactorClosed or error.ForkedReactor if that is what we are."""
        if self._state == "closed":
            raise error.ReactorClosed("this reactor was closed")
        if self._state == "forked":
            raise error.ForkedReactor("this reactor is the parent process's: make a new one after a fork")

    def _release(self) -> None:
        """Give back every descriptor and let go of everything."""
        self._state = "closed"
        self._dead = True
        if self._waker is not None:
            self.descriptors.forget(self._waker.fileno(), self._waker)
            self._waker.close()
            self._waker = None
        if self.reserve is not None:
            os.close(self.reserve)
            self.reserve = None
        self.descriptors.clear()
        self.backend.close()
        for call in self.timers.pending():
            call.cancel()
        self._events.clear()
        for owned in list(self.owned):
            owned.forked()  # what even the last round of `disconnectAll` left: nobody is told
        self.owned.clear()
        self.unsent.clear()
        self._resolver = self._pool = self._signals = self.observers = None
        self._onPending = self.announce = self.timers.announce = None
        # Bound to us; without them nothing is left of us but plain references.
        nothing: Any = _Nothing()
        self.descriptors = Descriptors(nothing, _ignore)
        self.loop = Loop(self.backend, self.timers, self.descriptors, self.unsent, self._calls, _ignore)
        self.creations.clear()
        _debug.end(self)

    def forked(self) -> None:
        """We are a copy in a child process: leave all that is the parent's alone, and be of no use."""
        self._state = "forked"
        self._dead = True
        self.loop.going = self.loop.stopWanted = self.running = False
        self.loop.inherited = True
        self._calls.sealed = True
        self._calls.calls.clear()
        self.unsent.clear()
        self.descriptors.abandon()
        self.timers.abandon()
        for event in self._events.values():
            event.clear()
        for owned in list(self.owned):
            owned.forked()
        self.owned.clear()
        # Copies of descriptors: closing them here closes nothing there.
        if self._waker is not None:
            self._waker.close()
        if self.reserve is not None:
            os.close(self.reserve)
            self.reserve = None
        self.announce = self._onPending = self.timers.announce = None
        if self._signals is not None:
            self._signals.restore()
            self._signals = None
        if _default.running() is self:
            _default.left(None)


# `callable` is the name that users know for the argument of callLater.
_callable = callable


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """A method of ours for our own parts to call: without it they would keep us alive, and we them."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> None:
        found = reference()
        if found is not None:
            found(*args)

    return call


class _Nothing:
    """The backend of a closed reactor."""

    def watch(self, fd: int, interest: int) -> None:
        if interest:
            raise error.ReactorClosed("this reactor was closed")


def _ignore(*args: object) -> None:
    """Nothing happens in a closed reactor."""


def _alwaysReady(found: os.stat_result) -> str:
    """What kind of file that no backend can wait for a descriptor is; "" if it is fit."""
    if stat.S_ISREG(found.st_mode):
        return "regular file"
    if stat.S_ISDIR(found.st_mode):
        return "directory"
    if stat.S_ISCHR(found.st_mode) and sys.platform == "linux" and os.major(found.st_rdev) == 1:
        return "memory device such as /dev/null"  # the kernel's admin-guide/devices: major number 1
    return ""


def _afterForkInChild() -> None:
    for reactor in list(_alive):
        reactor.forked()
    _alive.clear()
