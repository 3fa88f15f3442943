"""System event triggers: what is to be called before, during and after 'startup', 'shutdown' or any other event.

'during' waits for every Deferred that a 'before' trigger returned; each trigger is called once and then forgotten; an
exception in one is logged and does not keep the others from being called.
"""

from __future__ import annotations

from calandria import defer, failure
from calandria._timers import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from calandria._loop import Loop

PHASES = ("before", "during", "after")


class BadPhase(KeyError, ValueError):
    """A phase other than 'before', 'during' and 'after'."""

    def __str__(self) -> str:
        return str(self.args[0])


class Trigger:
    """One call tied to a phase; compared by identity, so that equal triggers can be told apart."""

    __slots__ = ("args", "function", "kw", "phase")

    def __init__(self, phase: str, function: Callable[..., object], args: tuple[Any, ...], kw: dict[str, Any]) -> None:
        self.phase = phase
        self.function = function
        self.args = args
        self.kw = kw


class SystemEvent:
    """The triggers of one event; owned by its reactor, used on its thread.

    `inner` is the reactor's own part in the event; it comes first in 'during', every time. `escape` takes a
    BaseException that is not an Exception.
    """

    def __init__(self, inner: Callable[[], None] | None, loop: Loop) -> None:
        self._inner = inner
        self._loop = loop
        self._phases: dict[str, list[Trigger]] = {phase: [] for phase in PHASES}
        self._fired: list[Trigger] = []
        self._waiting: list[defer.Deferred[Any]] | None = None

    def add(self, phase: str, function: Callable[..., object], args: tuple[Any, ...], kw: dict[str, Any]) -> Trigger:
        """Add a trigger to a phase. Raises BadPhase (a KeyError and a ValueError) and TypeError."""
        if phase not in self._phases:
            raise BadPhase(f"a trigger's phase is 'before', 'during' or 'after', not {phase!r}")
        if not callable(function):
            raise TypeError(f"a trigger takes a callable, not {function!r}")
        trigger = Trigger(phase, function, args, kw)
        self._phases[phase].append(trigger)
        return trigger

    def remove(self, trigger: Trigger) -> None:
        """Take a trigger out. Raises ValueError if it is not there (any more)."""
        triggers = self._phases[trigger.phase]
        for index, other in enumerate(triggers):
            if other is trigger:
                del triggers[index]
                return
        if any(other is trigger for other in self._fired):
            import warnings

            warnings.warn(
                "removing a 'before' trigger that was called already does nothing", DeprecationWarning, stacklevel=4
            )
            return
        raise ValueError("this trigger was removed or called already")

    def fire(self) -> None:
        """Go through the three phases."""
        if self._waiting is not None:
            return
        waiting: list[Any] = []
        self._waiting = waiting
        for trigger in self._taken("before"):
            self._fired.append(trigger)
            result: Any = self._call(trigger)
            if self._waiting is not waiting:
                return  # a trigger has made us forget this firing, or go on without the others
            if isinstance(result, defer.Deferred):
                waiting.append(result)
        left = len(waiting)
        if not left:
            self.proceed()
            return

        def one(result: object) -> None:
            nonlocal left
            if isinstance(result, failure.Failure):
                failure.log("a Deferred returned by a 'before' trigger failed", result)
            left -= 1
            if not left:
                self.proceed()

        for deferred in waiting:
            deferred.addBoth(one)

    def proceed(self) -> None:
        """Go on to 'during' and 'after', whether or not all Deferreds of 'before' have fired; once for each firing."""
        if self._waiting is None:
            return
        self._waiting = None
        self._fired.clear()
        if self._inner is not None:
            self._inner()
        for phase in ("during", "after"):
            for trigger in self._taken(phase):
                self._call(trigger)

    @property
    def waiting(self) -> bool:
        """Whether 'during' has yet to come."""
        return self._waiting is not None

    def forget(self) -> None:
        """Give up a firing whose 'during' has not come."""
        self._waiting = None
        self._fired.clear()

    def clear(self) -> None:
        """Forget every trigger, too."""
        self.forget()
        for triggers in self._phases.values():
            triggers.clear()

    def _taken(self, phase: str) -> Iterator[Trigger]:
        # What a trigger adds to the phase that is being gone through is still called in this firing.
        triggers = self._phases[phase]
        while triggers:
            yield triggers.pop(0)

    def _call(self, trigger: Trigger) -> object:
        loop = self._loop
        timed = loop.timed
        began = loop.seconds() if timed else 0.0
        try:
            return trigger.function(*trigger.args, **trigger.kw)
        except BaseException as exc:
            loop.callbackRaised(f"the '{trigger.phase}' trigger {describe(trigger.function)}", exc)
        finally:
            if timed:
                loop.measured(trigger.function, began)
        return None


def taken(triggerID: Any) -> tuple[str, Trigger]:
    """The two parts of what addSystemEventTrigger returned; TypeError for anything else."""
    try:
        eventType, trigger = triggerID
    except (TypeError, ValueError):
        pass
    else:
        if isinstance(eventType, str) and isinstance(trigger, Trigger):
            return eventType, trigger
    raise TypeError(f"removeSystemEventTrigger takes what addSystemEventTrigger returned, not {triggerID!r}")
