"""Each thread's default reactor: the one that runs in it, else the one it was given, else one made when first asked
for.

For programs that expect a global, and for services that were given no reactor; the library itself never asks.
"""

from __future__ import annotations

import threading
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from calandria._reactor import Reactor


class _ThreadDefaults(threading.local):
    """Owned by the thread that looks at it."""

    running: Reactor | None = None
    default: Reactor | None = None


_here = _ThreadDefaults()


def current() -> Reactor:
    """This thread's default reactor; one that was closed (or inherited over a fork) is replaced."""
    if _here.running is not None and _here.running.usable:
        return _here.running
    if _here.default is None or not _here.default.usable:
        from calandria._reactor import Reactor

        _here.default = Reactor()
    return _here.default


def setDefault(reactor: Reactor | None) -> None:
    """Make `reactor` this thread's default; None: one is made when next asked for."""
    if reactor is not None and not hasattr(type(reactor), "callFromThread"):
        raise TypeError(f"setDefault takes a Reactor or None, not {reactor!r}")
    _here.default = reactor


def running() -> Reactor | None:
    """The reactor that runs in this thread, if one does."""
    return _here.running


def entered(reactor: Reactor) -> Reactor | None:
    """`reactor` is about to run in this thread; gives the one that ran here before (around it), for `left`."""
    other = _here.default
    if other is not None and other is not reactor and other.usable and other.busy:
        warnings.warn(
            f"{reactor!r} runs now, but this thread's default is {other!r}, which holds ports, connections or "
            "timers that will wait: give calandria.setDefault() the reactor that is to run, or pass it explicitly",
            RuntimeWarning,
            stacklevel=4,
        )
    before, _here.running = _here.running, reactor
    return before


def left(before: Reactor | None) -> None:
    """The reactor given to `entered` has returned."""
    _here.running = before
