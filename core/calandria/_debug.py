"""What a reactor in debug mode reports: slow callbacks, calls from wrong threads, and what was left open at its end.

Nothing here is on any path of a reactor that is not in debug mode, but for the names that log records give things.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref

from calandria._timers import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from calandria._hooks import Observers
    from calandria._loglimit import LogLimit
    from calandria._loop import Flushing
    from calandria._reactor import Reactor

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
    "listen",
    "connect",
    "listenTCP",
    "connectTCP",
    "addSystemEventTrigger",
    "callWhenRunning",
    "getDelayedCalls",
)


class CheckedList(list["Flushing"]):
    """The list of streams that have something to send: a write in a wrong thread raises at the write."""

    def __init__(self, reactor: Reactor) -> None:
        super().__init__()
        self._reactor = weakref.ref(reactor)

    def append(self, stream: Flushing) -> None:
        reactor = self._reactor()
        if reactor is not None:
            checkThread(reactor, "a transport's method")
        super().append(stream)


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
        logger.warning("still watched when the reactor was closed: %r", descriptor)


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


def callerPlace() -> str:
    """file:line of the nearest frame outside the library."""
    here = os.path.dirname(__file__)
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # inspect, which wraps it, is slow to import
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _place(what: Any) -> tuple[str, str]:
    """The name of a slow callback, and where it stands: file:line."""
    protocol = getattr(what, "protocol", None)
    if protocol is not None and hasattr(protocol, "dataReceived"):
        what = protocol.dataReceived
    elif hasattr(what, "doRead"):
        what = what.doRead
    name = describe(what)
    while hasattr(what, "func"):
        what = what.func
    code = getattr(getattr(what, "__func__", what), "__code__", None)
    return name, f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "no Python source"
