"""What a reactor in debug mode reports: slow callbacks, calls from wrong threads, and what was left open at its end.

Nothing here is on any path of a reactor that is not in debug mode, but for the names that log records give things.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from functools import partial

from calandria import defer
from calandria._timers import DelayedCall, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from calandria._hooks import Observers
    from calandria._loglimit import LogLimit
    from calandria._reactor import Reactor
    from calandria._timers import Timers

logger = logging.getLogger("calandria")

# The reactor's methods that belong to its own thread.
CHECKED = (
    "callLater",
    "stop",
    "crash",
    "addReader",
    "addWriter",
    "removeReader",
    "removeWriter",
    "removeAll",
    "getReaders",
    "getWriters",
    "disconnectAll",
    "listen",
    "connect",
    "listenTCP",
    "connectTCP",
    "addSystemEventTrigger",
    "removeSystemEventTrigger",
    "fireSystemEvent",
    "callWhenRunning",
    "getDelayedCalls",
    "installNameResolver",
    "suggestThreadPoolSize",
)
# The same of transports, ports and connectors; whoever has one of these names, has it checked.
CHECKED_OF_OWNED = (
    "write",
    "writeSequence",
    "loseConnection",
    "loseWriteConnection",
    "abortConnection",
    "pauseProducing",
    "resumeProducing",
    "stopProducing",
    "registerProducer",
    "unregisterProducer",
    "stopConsuming",
    "setTcpNoDelay",
    "setTcpKeepAlive",
    "startListening",
    "stopListening",
    "connect",
    "disconnect",
    "stopConnecting",
    "cancelTimeout",
)
_checkedClasses: dict[type, type] = {}


class CheckedCall(DelayedCall):
    """A delayed call that knows where it was made, and says so when it is used in a wrong thread."""

    __slots__ = ("creator",)

    def __init__(
        self,
        timers: Timers,
        time: float,
        func: Callable[..., object],
        args: tuple[Any, ...],
        kw: dict[str, Any],
        number: int,
    ) -> None:
        super().__init__(timers, time, func, args, kw, number)
        self.creator: Creation | None = Creation()

    def cancel(self) -> None:
        self._timers.check("a delayed call's cancel")
        super().cancel()

    def reset(self, secondsFromNow: float) -> None:
        self._timers.check("a delayed call's reset")
        super().reset(secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        self._timers.check("a delayed call's delay")
        super().delay(secondsLater)


class Creation:
    """Where something was made: the place as text, and the whole stack."""

    __slots__ = ("place", "stack")

    def __init__(self) -> None:
        frames = traceback.extract_stack(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]  # inspect is slow
        ours = len(frames)
        while ours > 1 and _isOurs(frames[ours - 1].filename):
            ours -= 1
        self.place = f"{frames[ours - 1].filename}:{frames[ours - 1].lineno}"
        self.stack = "".join(traceback.format_list(frames[:ours]))

    def __str__(self) -> str:
        return self.place


def _isOurs(filename: str) -> bool:
    """Whether a file belongs to the library or to one of its transports, of whomever."""
    folder = os.path.basename(os.path.dirname(filename))
    return filename.startswith(os.path.dirname(__file__)) or folder.startswith("calandria_")


def begin(reactor: Reactor) -> None:
    """Put a new reactor into debug mode. Deferreds belong to no reactor: theirs lasts while any reactor is in it."""
    if not _debugged:
        _debugged[None] = defer.getDebugging()
        defer.setDebugging(True)
    _debugged[id(reactor)] = True
    reactor.timers.check = partial(checkThread, reactor)
    for name in CHECKED:
        setattr(reactor, name, checked(reactor, name))


def end(reactor: Reactor) -> None:
    """A reactor in debug mode is closed: nothing of it refers to it any more."""
    if _debugged.pop(id(reactor), False) and len(_debugged) == 1:
        defer.setDebugging(_debugged.pop(None))
    reactor.timers.check = _unchecked
    for name in CHECKED:
        reactor.__dict__.pop(name, None)


def _unchecked(what: str) -> None:
    """Threads are not checked any more."""


# The ids of the reactors in debug mode and, under None, whether Deferreds were debugged before the first of them.
_debugged: dict[int | None, bool] = {}


def watched(owned: Any) -> None:
    """Remember where a transport, port or connector was made, and check in which threads it is used."""
    owned.creator = Creation()
    plain: Any = owned.__class__
    found = _checkedClasses.get(plain)
    if found is None:
        methods = {name: _checkedMethod(plain, name) for name in CHECKED_OF_OWNED if hasattr(plain, name)}
        found = type(plain.__name__, (plain,), {"__slots__": (), "__module__": plain.__module__, **methods})
        _checkedClasses[plain] = _checkedClasses[found] = found
    if found is not plain:
        owned.__class__ = found


def _checkedMethod(plain: type, name: str) -> Callable[..., Any]:
    method = getattr(plain, name)

    def checkedMethod(self: Any, *args: Any, **kw: Any) -> Any:
        checkThread(self.reactor, f"{plain.__name__}.{name}")
        return method(self, *args, **kw)

    return checkedMethod


def checkThread(reactor: Reactor, what: str) -> None:
    """Raise RuntimeError if the reactor runs in another thread than the caller's."""
    if reactor.inAnotherThread:
        raise RuntimeError(
            f"{what} was called in thread {threading.current_thread().name!r}, but the reactor runs in another one: "
            "use reactor.callFromThread"
        )


def checked(reactor: Reactor, name: str) -> Callable[..., Any]:
    """The method `name` of the reactor, which says so when it is called in a wrong thread."""
    method = getattr(reactor, name)

    def checkedMethod(*args: Any, **kw: Any) -> Any:
        checkThread(reactor, f"reactor.{name}")
        return method(*args, **kw)

    return checkedMethod


def reportLeaks(reactor: Reactor) -> None:
    """Log what still lives when the reactor is closed, and where it was made."""
    for owned in reactor.owned:
        creator = getattr(owned, "creator", None)
        where = f", made at {creator}" if creator else ""
        logger.warning("still open when the reactor was closed: %r%s", owned, where)
    for call in reactor.getDelayedCalls():
        logger.warning("still pending when the reactor was closed: %r", call)
    for descriptor in reactor.foreignDescriptors():
        tables = reactor.descriptors.readers, reactor.descriptors.writers
        numbers = [fd for table in tables for fd in reactor.descriptors.numbers(descriptor, table)]
        creation = next((reactor.creations[fd] for fd in numbers if fd in reactor.creations), None)
        where = f", added at {creation}" if creation else ""
        logger.warning("still watched when the reactor was closed: %r%s", descriptor, where)


def reportSlow(what: object, took: float, observers: Observers | None, logLimit: LogLimit | None) -> None:
    """A callback kept the loop for `took` seconds: tell the observers and, if there is a `logLimit`, the log."""
    name, place = _place(what)
    if observers is not None and observers.slowCallback is not None:
        observers.slowCallback(name, took)
    if logLimit is not None:
        more = logLimit.allow(("slow", name))
        if more is not None:
            logger.warning("%s kept the reactor for %.3f s (%s)%s", name, took, place, more)


def nameOf(owner: Any) -> str:
    """What log records call a transport, port or foreign descriptor; never raises."""
    try:
        prefix = owner.logPrefix() if hasattr(owner, "logPrefix") else None
        return f"{prefix} ({type(owner).__name__})" if prefix else type(owner).__name__
    except Exception:
        return type(owner).__name__


def _place(what: Any) -> tuple[str, str]:
    """The name of a slow callback, and where it stands: file:line."""
    name = describe(what)
    while hasattr(what, "func"):
        what = what.func
    code = getattr(getattr(what, "__func__", what), "__code__", None)
    return name, f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "no Python source"


def userOf(owner: Any, method: str) -> Any:
    """Whose code took the time when `method` of `owner` was slow: the protocol's, the producer's or its own."""
    if method == "doRead":
        receiver = getattr(getattr(owner, "protocol", None), "dataReceived", None)
    else:
        receiver = getattr(getattr(owner, "producer", None), "resumeProducing", None)
    return receiver if receiver is not None else getattr(owner, method)
