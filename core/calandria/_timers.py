"""Delayed calls: a heap of (deadline, number, call).

The number grows with every call made, reset or delayed: it settles equal deadlines in the order of making, tells a live
entry from a stale one, and lets the loop tell the calls made before a poll from those made after it.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from calandria import error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from calandria._debug import Creation

# Entries that may lie about stale before the heap is rebuilt; small enough to be nothing, large enough to make it rare.
SLACK = 64


class DelayedCall:
    """One call that is to be made; owned by the `Timers` that made it, used on their thread only."""

    __slots__ = ("__weakref__", "_timers", "args", "called", "cancelled", "creator", "func", "kw", "number", "time")

    debug = False

    def __init__(
        self,
        timers: Timers,
        time: float,
        func: Callable[..., object],
        args: tuple[Any, ...],
        kw: dict[str, Any],
    ) -> None:
        self._timers: Timers = timers
        self.time = time
        self.func: Callable[..., object] | None = func
        self.args: tuple[Any, ...] | None = args
        self.kw: dict[str, Any] | None = kw
        self.called = False
        self.cancelled = False
        self.number = 0
        self.creator: Creation | None = None

    def getTime(self) -> float:
        """The moment at which the call is due, in seconds on the scale of `reactor.seconds()`."""
        return self.time

    def active(self) -> bool:
        """Whether the call is still to be made."""
        return not (self.called or self.cancelled)

    def cancel(self) -> None:
        """Never make this call; function and arguments are let go at once.

        Raises error.AlreadyCancelled or error.AlreadyCalled.
        """
        self._check()
        self.cancelled = True
        self.func = self.args = self.kw = None
        self.number = 0
        self._timers.dropped()

    def reset(self, secondsFromNow: float) -> None:
        """Make the call `secondsFromNow` seconds (0 or more) from now instead; this counts as making it anew.

        Raises ValueError, error.AlreadyCancelled or error.AlreadyCalled.
        """
        self._check()
        checkDelay(secondsFromNow)
        timers = self._timers
        self.time = timers.seconds() + secondsFromNow
        timers.push(self)

    def delay(self, secondsLater: float) -> None:
        """Make the call `secondsLater` seconds (which may be negative) later than it was due; this counts as making it
        anew.

        Raises ValueError for NaN, error.AlreadyCancelled or error.AlreadyCalled.
        """
        self._check()
        time = self.time + secondsLater
        if time != time:
            raise ValueError(f"delay() takes a number of seconds, not {secondsLater!r}")
        self.time = time
        self._timers.push(self)

    def inherited(self) -> None:
        """We are a copy in a child process, where there is no reactor to make the call."""
        self._timers = _Inherited(self._timers.seconds)

    def _check(self) -> None:
        if self.cancelled:
            raise error.AlreadyCancelled("this delayed call was cancelled already")
        if self.called:
            raise error.AlreadyCalled("this delayed call was made already")

    def __repr__(self) -> str:
        if self.func is None:
            state = "called" if self.called else "cancelled"
            return f"<DelayedCall {state}>"
        due = self.time - self._timers.seconds()
        where = f", made at {self.creator}" if self.creator else ""
        return f"<DelayedCall of {describe(self.func)} due in {due:.6g} s{where}>"


class Timers:
    """The delayed calls of one reactor or clock; used on its thread only."""

    __slots__ = ("announce", "aside", "check", "heap", "live", "made", "seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        # Called once a call was entered; None as long as nobody has to know.
        self.announce: Callable[[], None] | None = None
        # What debug mode asks before a call is changed.
        self.check: Callable[[str], None] = _unchecked
        self.heap: list[tuple[float, int, DelayedCall]] = []
        # Calls that are due but must wait for the next turn, while the loop goes through this one's.
        self.aside: list[tuple[float, int, DelayedCall]] = []
        self.made = 0
        self.live = 0

    def push(self, call: DelayedCall) -> None:
        """Enter `call` under its present time; an entry that it had before goes stale."""
        self.made = number = self.made + 1
        if not call.number:
            self.live += 1
        call.number = number
        heappush(self.heap, (call.time, number, call))
        if len(self.heap) > 2 * self.live + SLACK:
            self._rebuild()
        if self.announce is not None:
            self.announce()

    def dropped(self) -> None:
        """A live call has become stale."""
        self.live -= 1
        if len(self.heap) > 2 * self.live + SLACK:
            self._rebuild()

    def _rebuild(self) -> None:
        # In place: the loop holds on to the list.
        self.heap[:] = [entry for entry in self.heap if entry[2].number == entry[1]]
        heapify(self.heap)

    def next(self) -> float | None:
        """When the first live call is due; None if there is none. Stale entries at the top go."""
        heap = self.heap
        while heap:
            time, number, call = heap[0]
            if call.number == number:
                return time
            heappop(heap)
        return None

    def take(self, now: float, mark: int) -> DelayedCall | None:
        """Take out the next call that is due at `now` and whose number is not above `mark`; it is marked as called."""
        heap = self.heap
        while heap and heap[0][0] <= now:
            entry = heappop(heap)
            call = entry[2]
            if call.number == entry[1]:
                if entry[1] > mark:
                    self.aside.append(entry)
                else:
                    call.number = 0
                    call.called = True
                    self.live -= 1
                    return call
        return None

    def putBack(self) -> None:
        """End of the turn: what was set aside waits in the heap again."""
        while self.aside:
            heappush(self.heap, self.aside.pop())

    def pending(self) -> list[DelayedCall]:
        """Every live call, in no order."""
        return [entry[2] for entry in (*self.heap, *self.aside) if entry[2].number == entry[1]]


class _Inherited(Timers):
    """Those of a parent process: nothing can be entered."""

    __slots__ = ()

    def push(self, call: DelayedCall) -> None:
        raise error.ForkedReactor("this delayed call is the parent process's")


def _unchecked(what: str) -> None:
    """Nobody checks threads here."""


def checkDelay(delay: float) -> None:
    """Refuse a negative delay and NaN, naming what was given."""
    if not delay >= 0:
        raise ValueError(f"a delay is a number of seconds, 0 or more, not {delay!r}")


def describe(function: Any) -> str:
    """The name of a callable, for messages; never raises."""
    try:
        while hasattr(function, "func"):
            function = function.func
        name = getattr(function, "__qualname__", None) or type(function).__qualname__
        module = getattr(function, "__module__", None)
        return f"{module}.{name}" if module else str(name)
    except Exception:
        return object.__repr__(function)
