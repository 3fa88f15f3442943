"""Delayed calls: a heap of (deadline, number, call).

The number grows with every call made, reset or delayed: it settles equal deadlines in the order of making, tells a live
entry from a stale one, and lets the loop tell the calls made before a poll from those made after it.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush

from calandria import error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from calandria._debug import Creation

# Entries that may lie about stale before the heap is rebuilt; small enough to be nothing, large enough to make it rare.
SLACK = 64
# What a DelayedCall has for a number when it has no entry any more.
CALLED = 0
CANCELLED = -1


class DelayedCall:
    """One call that is to be made; owned by the `Timers` that made it, used on their thread only."""

    __slots__ = ("__weakref__", "_timers", "args", "func", "keywords", "number", "time")

    debug = False
    # Where it was made; debug mode's own class has it.
    creator: Creation | None = None

    def __init__(
        self,
        timers: Timers,
        time: float,
        func: Callable[..., object],
        args: tuple[Any, ...],
        kw: dict[str, Any],
        number: int,
    ) -> None:
        self._timers: Timers = timers
        self.time = time
        self.func: Callable[..., object] | None = func
        self.args: tuple[Any, ...] | None = args
        # None if there are none: an empty dict for each call would take as much memory as all the rest.
        self.keywords: dict[str, Any] | None = kw or None
        # Which entry of the heap is ours; else CALLED or CANCELLED.
        self.number = number

    @property
    def kw(self) -> dict[str, Any] | None:
        """The keyword arguments; None when the call was made or cancelled."""
        return None if self.func is None else self.keywords or {}

    @property
    def called(self) -> bool:
        """Whether the call was made."""
        return self.number == CALLED

    @property
    def cancelled(self) -> bool:
        """Whether the call was cancelled."""
        return self.number == CANCELLED

    def getTime(self) -> float:
        """The moment at which the call is due, in seconds on the scale of `reactor.seconds()`."""
        return self.time

    def active(self) -> bool:
        """Whether the call is still to be made."""
        return self.number > CALLED

    def cancel(self) -> None:
        """Never make this call; function and arguments are let go at once.

        Raises error.AlreadyCancelled or error.AlreadyCalled.
        """
        if self.number <= CALLED:
            self._check()
        self.number = CANCELLED
        self.func = self.args = self.keywords = None
        timers = self._timers
        timers.live = live = timers.live - 1
        if len(timers.heap) > 2 * live + SLACK:
            timers.rebuild()

    def reset(self, secondsFromNow: float) -> None:
        """Make the call `secondsFromNow` seconds (0 or more) from now instead; this counts as making it anew.

        Raises ValueError, error.AlreadyCancelled or error.AlreadyCalled.
        """
        self._check()
        checkDelay(secondsFromNow)
        timers = self._timers
        self.time = later(timers.seconds(), secondsFromNow)
        timers.push(self)

    def delay(self, secondsLater: float) -> None:
        """Make the call `secondsLater` seconds (which may be negative) later than it was due; this counts as making it
        anew.

        Raises ValueError for NaN, error.AlreadyCancelled or error.AlreadyCalled.
        """
        self._check()
        time = later(self.time, secondsLater)
        if time != time:
            raise ValueError(f"delay() takes a number of seconds, not {secondsLater!r}")
        self.time = time
        self._timers.push(self)

    def inherited(self) -> None:
        """We are a copy in a child process, where there is no reactor to make the call."""
        self._timers = _Inherited(self._timers.seconds)

    def _check(self) -> None:
        if self.number == CANCELLED:
            raise error.AlreadyCancelled("this delayed call was cancelled already")
        if self.number == CALLED:
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

    __slots__ = ("announce", "aside", "check", "due", "heap", "live", "made", "seconds")

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        # Called once a call was entered; None as long as nobody has to know.
        self.announce: Callable[[], None] | None = None
        # What debug mode asks before a call is changed.
        self.check: Callable[[str], None] = _unchecked
        self.heap: list[tuple[float, int, DelayedCall]] = []
        # Calls that are due in this turn, the last one first, where they are too many for the heap.
        self.due: list[tuple[float, int, DelayedCall]] = []
        # Calls that are due but must wait for the next turn, while the loop goes through this one's.
        self.aside: list[tuple[float, int, DelayedCall]] = []
        self.made = 0
        self.live = 0

    def make(
        self,
        kind: type[DelayedCall],
        time: float,
        function: Callable[..., object],
        args: tuple[Any, ...],
        kw: dict[str, Any],
    ) -> DelayedCall:
        """A new call, entered under `time`."""
        self.made = number = self.made + 1
        self.live += 1
        call = kind(self, time, function, args, kw, number)
        heappush(self.heap, (time, number, call))
        if self.announce is not None:
            self.announce()
        return call

    def push(self, call: DelayedCall) -> None:
        """Enter a live `call` anew under its present time; the entry that it had before goes stale."""
        self.made = call.number = number = self.made + 1
        heappush(self.heap, (call.time, number, call))
        if len(self.heap) > 2 * self.live + SLACK:
            self.rebuild()
        if self.announce is not None:
            self.announce()

    def rebuild(self) -> None:
        """Throw the stale entries away."""
        # In place: the loop holds on to the list.
        self.heap[:] = [entry for entry in self.heap if entry[2].number == entry[1]]
        heapify(self.heap)

    def next(self) -> float | None:
        """When the first live call is due; None if there is none. Stale entries at the top go."""
        if self.due or self.aside:
            # Asked from inside one of the calls of a turn: whatever is in these is due by now.
            for entries in (self.due, self.aside):
                while entries:
                    time, number, call = entries[-1]
                    if call.number == number:
                        return time
                    entries.pop()
        heap = self.heap
        while heap:
            time, number, call = heap[0]
            if call.number == number:
                return time
            heappop(heap)
        return None

    def sortDue(self, now: float) -> None:
        """Move all that is due at `now` from the heap to `due`."""
        heap = self.heap
        rest = [entry for entry in heap if entry[0] > now]
        heapify(rest)
        # Whatever a signal handler that raises leaves undone, each is in one of the two, and in both it counts once.
        self.due += sorted([entry for entry in heap if entry[0] <= now], reverse=True)
        heap[:] = rest

    def putBack(self) -> None:
        """End of the turn: what was set aside, and what was not come to, waits in the heap again."""
        for entries in (self.aside, self.due):
            while entries:
                heappush(self.heap, entries.pop())
        if len(self.heap) > 2 * self.live + SLACK:
            self.rebuild()

    def abandon(self) -> None:
        """Forget every call: they are another process's."""
        for call in self.pending():
            call.inherited()
        for entries in (self.heap, self.due, self.aside):
            entries.clear()

    def pending(self) -> list[DelayedCall]:
        """Every live call, in no order."""
        return [entry[2] for entry in (*self.heap, *self.due, *self.aside) if entry[2].number == entry[1]]


class _Inherited(Timers):
    """Those of a parent process: nothing can be entered."""

    __slots__ = ()

    def push(self, call: DelayedCall) -> None:
        raise error.ForkedReactor("this delayed call is the parent process's")


def _unchecked(what: str) -> None:
    """Nobody checks threads here."""


def checkDelay(delay: Any) -> None:
    """Refuse a negative delay, NaN and what is no number, naming what was given."""
    try:
        if delay >= 0:
            return
    except TypeError:
        raise TypeError(f"a delay is a number of seconds, 0 or more, not {delay!r}") from None
    raise ValueError(f"a delay is a number of seconds, 0 or more, not {delay!r}")


def later(now: float, delay: Any) -> float:
    """The moment `delay` seconds after `now`; an integer that no float can hold is for ever. Raises TypeError."""
    try:
        return float(now + delay)
    except OverflowError:
        return math.inf if delay > 0 else -math.inf
    except TypeError:
        raise TypeError(f"a delay is a number of seconds, not {delay!r}") from None


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
