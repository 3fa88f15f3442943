"""Delayed calls: their order, what they refuse, what they let go of, and what they cost.

Most of it runs in a world whose clock only moves when the test moves it; the state machine at the end compares a
reactor with the simplest model there is, a list that is sorted.
"""

from __future__ import annotations

import functools
import gc
import math
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from calandria import Reactor, error
from tests.core.tools import Clock, Watched, Watching
from tests.helpers import runUntil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calandria.interfaces import DelayedCall
    from tests.helpers import LogCapture


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def still(clock: Clock, logs: LogCapture) -> Iterator[Reactor]:
    """A reactor in whose world time stands still."""
    with Reactor(backend=clock) as reactor:
        yield reactor


def turn(reactor: Reactor, clock: Clock, seconds: float = 0.0) -> None:
    """One turn, `seconds` later."""
    clock.now += seconds
    reactor.iterate()


class TestOrder:
    def test_equalDeadlines_inTheOrderOfMaking(self, still: Reactor, clock: Clock) -> None:
        """T02."""
        called: list[int] = []
        for number in range(2000):
            still.callLater(number % 4, called.append, number)
        turn(still, clock, 4)
        assert called == sorted(range(2000), key=lambda number: number % 4)

    def test_manyDueAtOnce_mayBeChangedByOneOfThem(self, still: Reactor, clock: Clock, logs: LogCapture) -> None:
        """So many that they are sorted; the change comes when they have been."""
        called: list[object] = []
        calls: list[Any] = []
        told: list[Any] = []

        def change() -> None:
            for call in calls[500::2]:
                call.cancel()
            for call in calls[501:700:2]:
                call.reset(0)
            still.callLater(0, called.append, "new")
            told.extend(still.getDelayedCalls())
            raise ZeroDivisionError

        for number in range(1000):
            action: Any = (change,) if number == 300 else (called.append, number)
            calls.append(still.callLater(number / 1000, *action))
        turn(still, clock, 1)
        assert called == [*range(300), *range(301, 500), *range(701, 1000, 2)]
        assert [record.message.rpartition(": ")[2] for record in logs.takeErrors()] == ["ZeroDivisionError"]
        assert len(told) == 199 + 250 + 1, "those up to 500, the odd ones after it, and the new one"
        assert set(calls[701::2]) < set(told)
        del called[:]
        turn(still, clock)
        assert called == [*range(501, 700, 2), "new"]
        assert not still.getDelayedCalls()

    def test_equalDeadlines_onARealClock(self, reactor: Reactor) -> None:
        called: list[int] = []
        for number in range(1000):
            reactor.callLater(0, called.append, number)
        runUntil(reactor, lambda: len(called) == 1000)
        assert called == list(range(1000))

    @pytest.mark.parametrize("change", ["reset", "delay"])
    def test_aCallMadeAnew_comesAfterItsEquals(self, still: Reactor, clock: Clock, change: str) -> None:
        called: list[str] = []
        first = still.callLater(1, called.append, "first")
        still.callLater(1, called.append, "second")
        if change == "reset":
            first.reset(1)
        else:
            first.delay(0)
        still.callLater(1, called.append, "third")
        turn(still, clock, 1)
        assert called == ["second", "first", "third"]

    def test_manyDueAtOnce_inTheOrderOfTheirDeadlines(self, still: Reactor, clock: Clock) -> None:
        """T16: a jump of an hour."""
        called: list[float] = []
        for minutes in (30, 59, 1, 45, 60, 61):
            still.callLater(minutes * 60, called.append, minutes)
        turn(still, clock, 3600)
        assert called == [1, 30, 45, 59, 60]

    def test_aTurn_callsWhatIsDueAtItsBeginning(self, still: Reactor, clock: Clock) -> None:
        """Seconds that pass in a callback, and calls made in it, wait for the next turn."""
        called: list[tuple[str, float]] = []

        def note(what: str) -> None:
            called.append((what, still.seconds()))

        def slow() -> None:
            note("slow")
            clock.now += 10
            still.callLater(0, note, "made")

        still.callLater(1, slow)
        still.callLater(5, note, "became due")
        turn(still, clock, 1)
        assert called == [("slow", 1)]
        turn(still, clock)
        assert called[1:] == [("became due", 11), ("made", 11)]

    def test_twoReactors_haveClocksOfTheirOwn(self, logs: LogCapture) -> None:
        one, two = Clock(), Clock()
        called: list[tuple[str, float]] = []
        with Reactor(backend=one) as first, Reactor(backend=two) as second:
            first.callLater(10, lambda: called.append(("first", first.seconds())))
            second.callLater(10, lambda: called.append(("second", second.seconds())))
            turn(first, one, 10)
            turn(second, two, 9)
            assert called == [("first", 10)]
            turn(second, two, 1)
            assert called == [("first", 10), ("second", 10)]

    def test_theWallClock_doesNotMatter(self, reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
        """T01."""
        called: list[str] = []
        reactor.callLater(0.02, called.append, "later")
        for day in (-86400, 86400):
            monkeypatch.setattr(time, "time", lambda day=day: day)
            reactor.iterate()
            assert called == []
        runUntil(reactor, lambda: called)

    def test_neverEarly_andNotLateForNothing(self, backendName: str, logs: LogCapture) -> None:
        """B15: timers 0.3 ms apart; each wakes the reactor about once, none before its time."""
        backend = Watched(backendName)
        with Reactor(backend=backend) as reactor:
            early: list[float] = []
            calls: list[Any] = []
            due: list[float] = []

            def check(number: int) -> None:
                if reactor.seconds() < due[number]:
                    early.append(due[number])
                calls.append(number)

            for number in range(100):
                due.append(reactor.callLater(number * 0.0003, check, number).getTime())
            reactor.callLater(0.031, reactor.crash)
            reactor.run(installSignalHandlers=False)
            assert calls == list(range(100))
            assert not early
            assert len(backend.timeouts) <= 110


class TestTimeout:
    @pytest.mark.parametrize("count", [40, 300])
    def test_askedInsideACall_whileOthersAreDue_itIsNull(self, still: Reactor, clock: Clock, count: int) -> None:
        """Many that are due at once are kept elsewhere than a few; those that were cancelled there do not count."""
        answers: list[float | None] = []
        calls: list[DelayedCall] = []

        def ask() -> None:
            answers.append(still.timeout())
            for call in calls[1:-1]:
                if call.active():
                    call.cancel()
            answers.append(still.timeout())
            calls[-1].cancel()
            answers.append(still.timeout())
            still.callLater(7, print)
            answers.append(still.timeout())

        for number in range(count):
            calls.append(still.callLater(0, ask if number == count * 2 // 3 else int))
        turn(still, clock, 1)
        assert answers == [0, 0, None, 7]


class TestRefusals:
    @pytest.mark.parametrize("delay", [-1, -0.001, -math.inf, math.nan])
    def test_callLater_refusesDelays(self, still: Reactor, delay: float) -> None:
        with pytest.raises(ValueError, match="delay") as refusal:
            still.callLater(delay, print)
        assert repr(delay) in str(refusal.value)
        assert still.getDelayedCalls() == []

    @pytest.mark.parametrize("function", [None, 5, "print"])
    def test_callLater_refusesWhatIsNotCallable(self, still: Reactor, function: Any) -> None:
        with pytest.raises(TypeError) as refusal:
            still.callLater(1, function)
        assert repr(function) in str(refusal.value)
        assert still.getDelayedCalls() == []

    @pytest.mark.parametrize("delay", ["1", None])
    def test_callLater_refusesWhatIsNoNumber(self, still: Reactor, delay: Any) -> None:
        with pytest.raises(TypeError):
            still.callLater(delay, print)
        assert still.getDelayedCalls() == []

    @pytest.mark.parametrize("delay", [0, -0.0, 5e-324, 1e10, 1e300, 2**128 + 1, math.inf])
    def test_callLater_takesEverythingElse(self, still: Reactor, clock: Clock, delay: float) -> None:
        called: list[str] = []
        call = still.callLater(delay, called.append, "called")
        assert call.getTime() == float(delay)
        timeout = still.timeout()
        assert timeout is not None
        assert 0 <= timeout <= 86_400
        turn(still, clock, 86_400)
        assert called == (["called"] if delay < 1 else [])

    @pytest.mark.parametrize("delay", [-1, math.nan])
    def test_reset_refusesDelays(self, still: Reactor, delay: float) -> None:
        call = still.callLater(5, print)
        with pytest.raises(ValueError, match="delay"):
            call.reset(delay)
        assert (call.getTime(), call.active(), still.timeout()) == (5, True, 5)

    def test_delay_refusesNaN_only(self, still: Reactor, clock: Clock) -> None:
        called: list[str] = []
        call = still.callLater(5, called.append, "called")
        with pytest.raises(ValueError, match="nan"):
            call.delay(math.nan)
        assert call.getTime() == 5
        call.delay(-7.5)
        assert call.getTime() == -2.5
        turn(still, clock)
        assert called == ["called"]

    def test_aCallThatWasMade(self, still: Reactor, clock: Clock) -> None:
        call = still.callLater(0, len, "")
        turn(still, clock)
        assert not call.active()
        for change in (call.cancel, lambda: call.reset(1), lambda: call.delay(1)):
            with pytest.raises(error.AlreadyCalled):
                change()
        assert issubclass(error.AlreadyCalled, ValueError)

    def test_aCallThatWasCancelled(self, still: Reactor, clock: Clock) -> None:
        call = still.callLater(0, pytest.fail, "it was cancelled")
        call.cancel()
        turn(still, clock)
        assert not call.active()
        for change in (call.cancel, lambda: call.reset(1), lambda: call.delay(1)):
            with pytest.raises(error.AlreadyCancelled):
                change()
        assert issubclass(error.AlreadyCancelled, ValueError)

    def test_aCall_isCalledAlready_whileItIsBeingMade(self, still: Reactor, clock: Clock) -> None:
        """C23."""
        refused: list[type] = []

        def cancelMyself() -> None:
            assert not call.active()
            for change in (call.cancel, lambda: call.reset(0), lambda: call.delay(0)):
                try:
                    change()
                except error.AlreadyCalled as refusal:
                    refused.append(type(refusal))

        call = still.callLater(0, cancelMyself)
        turn(still, clock)
        turn(still, clock)
        assert len(refused) == 3


class TestChanges:
    def test_getTime_andActive(self, still: Reactor, clock: Clock) -> None:
        clock.now = 100
        call = still.callLater(5, print)
        assert (call.getTime(), call.time, call.active(), call.called, call.cancelled) == (105, 105, True, False, False)
        assert (call.func, call.args, call.kw) == (print, (), {})
        clock.now = 103
        call.reset(5)
        assert call.getTime() == 108
        call.delay(10)
        assert call.getTime() == 118
        call.delay(-20)
        assert call.getTime() == 98

    def test_sooner_andLater(self, still: Reactor, clock: Clock) -> None:
        called: list[str] = []
        sooner = still.callLater(60, called.append, "sooner")
        later = still.callLater(5, called.append, "later")
        sooner.reset(1)
        later.delay(5)
        turn(still, clock, 1)
        assert called == ["sooner"]
        turn(still, clock, 8.5)
        assert called == ["sooner"]
        turn(still, clock, 0.5)
        assert called == ["sooner", "later"]
        turn(still, clock, 100)
        assert called == ["sooner", "later"]

    def test_argumentsAndKeywords(self, still: Reactor, clock: Clock) -> None:
        called: list[Any] = []

        def function(*args: object, **kw: object) -> None:
            called.append((args, kw))

        still.callLater(0, function, 1, 2, three=3)
        turn(still, clock)
        assert called == [((1, 2), {"three": 3})]

    def test_oneCancelsAnother_inTheSameTurn(self, still: Reactor, clock: Clock) -> None:
        """T06."""
        called: list[str] = []

        def first() -> None:
            called.append("first")
            second.cancel()

        still.callLater(0, first)
        second = still.callLater(0, called.append, "second")
        third = still.callLater(0, called.append, "third")
        still.callLater(0, lambda: called.append(f"third is active: {third.active()}"))
        turn(still, clock)
        assert called == ["first", "third", "third is active: False"]

    def test_oneResetsAnother_inTheSameTurn(self, still: Reactor, clock: Clock) -> None:
        called: list[str] = []

        def first() -> None:
            second.reset(5)
            third.reset(0)

        still.callLater(0, first)
        second = still.callLater(0, called.append, "second")
        third = still.callLater(0, called.append, "third")
        turn(still, clock)
        assert called == []
        turn(still, clock)
        assert called == ["third"]
        turn(still, clock, 5)
        assert called == ["third", "second"]

    def test_anException_isLogged_andTheOthersAreCalled(self, still: Reactor, clock: Clock, logs: LogCapture) -> None:
        """T04."""

        class Unspeakable:
            def __repr__(self) -> str:
                raise ZeroDivisionError("no name")

        called: list[int] = []

        def every(number: int, thing: object) -> None:
            called.append(number)
            if number % 3 == 0:
                raise ValueError(f"call {number}")

        for number in range(100):
            still.callLater(0, every, number, Unspeakable())
        turn(still, clock)
        assert called == list(range(100))
        errors = logs.takeErrors()
        assert len(errors) == 34
        assert "every" in errors[0].message
        assert "call 99" in str(errors[-1].exc_text)

    def test_anUnspeakableCallable_isLoggedToo(self, still: Reactor, clock: Clock, logs: LogCapture) -> None:
        class Unspeakable:
            def __repr__(self) -> str:
                raise ZeroDivisionError("no name")

            def __getattr__(self, name: str) -> object:
                raise ZeroDivisionError("no attribute")

            def __call__(self) -> None:
                raise ValueError("on purpose")

        called: list[str] = []
        still.callLater(0, Unspeakable())
        still.callLater(0, called.append, "next")
        turn(still, clock)
        assert called == ["next"]
        (record,) = logs.takeErrors()
        assert "on purpose" in str(record.exc_text)

    def test_repr_neverRaises(self, still: Reactor, clock: Clock) -> None:
        call = still.callLater(5, print)
        assert "print" in repr(call)
        call.cancel()
        assert "cancelled" in repr(call)
        made = still.callLater(0, len, "")
        turn(still, clock)
        assert "called" in repr(made)


class TestPendingCalls:
    def test_aSnapshot(self, still: Reactor) -> None:
        first, second = still.callLater(5, print), still.callLater(0, print)
        calls = still.getDelayedCalls()
        assert sorted(calls, key=id) == sorted([first, second], key=id)
        calls.clear()
        first.cancel()
        second.reset(3)
        second.reset(2)
        assert still.getDelayedCalls() == [second]

    def test_insideCallbacks(self, still: Reactor, clock: Clock) -> None:
        """T17: neither the one being made nor those cancelled, each of the others once."""
        seen: list[list[Any]] = []

        def look() -> None:
            made = still.callLater(0, print, "made")
            later.reset(0)
            due.reset(0)
            cancelled.cancel()
            calls = still.getDelayedCalls()
            assert len(set(calls)) == len(calls)
            seen.append([set(calls) == {made, later, due}])
            made.cancel()
            later.cancel()

        still.callLater(0, look)
        due = still.callLater(0, lambda: None)
        cancelled = still.callLater(0, print)
        later = still.callLater(9, print)
        turn(still, clock)
        assert seen == [[True]]
        assert still.getDelayedCalls() == [due]

    def test_setAsideForTheNextTurn_theyStillCount(self, still: Reactor, clock: Clock) -> None:
        """A call that is due, but was made in this turn, is still pending, and changes to it are kept."""
        called: list[str] = []

        def make() -> None:
            made.extend(still.callLater(0, called.append, text) for text in ("cancelled", "reset", "kept"))

        def look() -> None:
            assert set(still.getDelayedCalls()) == set(made)
            made[0].cancel()
            made[1].reset(7)
            assert set(still.getDelayedCalls()) == set(made[1:])

        made: list[Any] = []
        still.callLater(0, make)
        clock.now = 1
        # Later than what `make` makes: those are looked at, and set aside, before this one.
        still.callLater(0.5, look)
        clock.now = 3
        still.iterate()
        assert not made[0].active()
        turn(still, clock)
        assert called == ["kept"]
        turn(still, clock, 7)
        assert called == ["kept", "reset"]


class Thing:
    """Something that can be seen to be gone."""

    def method(self, *args: object, **kw: object) -> None:
        pass

    def fails(self, *args: object) -> None:
        raise ValueError("on purpose")


class TestMemory:
    def test_cancelling_dropsEverythingAtOnce(self, still: Reactor) -> None:
        thing, argument = Thing(), Thing()
        gone = [weakref.ref(thing), weakref.ref(argument)]
        call = still.callLater(60, thing.method, argument, keyword=argument)
        del thing, argument
        call.cancel()
        assert [ref() for ref in gone] == [None, None]
        assert (call.func, call.args, call.kw) == (None, None, None)

    @pytest.mark.parametrize("kind", ["method", "partial", "raises"])
    def test_aCallThatWasMade_keepsNothing(self, still: Reactor, clock: Clock, kind: str, logs: LogCapture) -> None:
        """T18: also in the rest of its turn, and while the reactor sleeps."""
        logs.keepToItself()
        gc.collect()
        gc.disable()
        try:
            thing, argument = Thing(), Thing()
            gone = [weakref.ref(thing), weakref.ref(argument)]
            if kind == "partial":
                call = still.callLater(0, functools.partial(thing.method, argument))
            elif kind == "raises":
                call = still.callLater(0, thing.fails, argument)
            else:
                call = still.callLater(0, thing.method, argument, keyword=argument)
            del thing, argument
            left: list[object] = []
            still.callLater(0, lambda: left.extend(ref() for ref in gone))
            still.callFromThread(lambda: None)
            turn(still, clock)
            assert call.called
            assert left == [None, None]
            assert [ref() for ref in gone] == [None, None]
        finally:
            gc.enable()
        assert len(logs.takeErrors()) == (kind == "raises")

    def test_aReactorThatPolls_keepsNothing(self, backendName: str, logs: LogCapture) -> None:
        """What was called last does not live on in the frames of the loop: not a timer, a call, nor a reader's."""
        left: list[object] = []

        class Looking(Watched):
            def poll(self, timeout: float | None) -> Any:
                if len(self.timeouts) == 1:
                    left.extend(ref() for ref in gone)
                return super().poll(timeout)

        gone: list[weakref.ref[Any]] = []

        def leave(reactor: Reactor, reader: weakref.ref[Watching]) -> None:
            leaving = reader()
            assert leaving is not None
            leaving.close()
            reactor.removeReader(leaving)

        def thing() -> Thing:
            made = Thing()
            gone.append(weakref.ref(made))
            return made

        gc.collect()
        gc.disable()
        try:
            with Reactor(backend=Looking(backendName)) as reactor:
                reactor.callLater(0, thing().method, thing())
                reactor.callFromThread(thing().method, thing())
                reactor.callLater(0, reactor.callLater, 0, reactor.crash)
                reader = Watching()
                gone.append(weakref.ref(reader))
                reader.onRead = functools.partial(leave, reactor, gone[-1])
                reader.peer.send(b"x")
                reactor.addReader(reader)
                del reader
                reactor.run(installSignalHandlers=False)
        finally:
            gc.enable()
        assert left == [None] * 5

    def test_theHeap_staysSmall(self, still: Reactor) -> None:
        """A1: never more than 2 × live + 64 entries."""
        heap = still.timers.heap
        live = [still.callLater(60, print) for _ in range(10)]
        for _ in range(1000):
            still.callLater(30, print).cancel()
            assert len(heap) <= 2 * len(live) + 64
        for number in range(1000):
            live[number % 10].reset(60 + number % 7)
            assert len(heap) <= 2 * len(live) + 64
            live[number % 10].delay(-number % 5)
            assert len(heap) <= 2 * len(live) + 64
        more = [still.callLater(60, print) for _ in range(2000)]
        for number, call in enumerate(more):
            call.cancel()
            assert len(heap) <= 2 * (len(live) + len(more) - number - 1) + 64
        assert sorted(map(id, still.getDelayedCalls())) == sorted(map(id, live))

    def test_theHeap_staysSmall_whileTurnsGoBy(self, still: Reactor, clock: Clock) -> None:
        """Idle time-outs that each turn resets: the commonest load."""
        timeouts = [still.callLater(60, pytest.fail, "idle") for _ in range(100)]

        def busy() -> None:
            for timeout in timeouts:
                timeout.reset(60)
            still.callLater(1, busy)

        still.callLater(1, busy)
        for _ in range(200):
            turn(still, clock, 1)
            assert len(still.timers.heap) <= 2 * 101 + 64

    def test_aMillionIsNotNeeded_toSeeTheMemoryOfOne(self, still: Reactor) -> None:
        """Section 4 of the catalogue: at most 0.6 KiB each, function and arguments not counted."""
        import tracemalloc

        gc.collect()
        tracemalloc.start()
        try:
            calls = [still.callLater(60 + number * 0.001, print) for number in range(5000)]
            used = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert used / len(calls) <= 0.6 * 1024


class Counted(float):
    """A moment that counts how often it is compared."""

    compared = 0

    def __add__(self, other: float) -> Counted:
        return Counted(float(self) + other)

    def __lt__(self, other: float) -> bool:
        Counted.compared += 1
        return float(self) < float(other)

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return float(self) == other

    __hash__ = float.__hash__


class TestCost:
    @pytest.mark.parametrize("change", ["sooner", "later", "delay", "make and cancel"])
    def test_noChange_costsMoreThanTheLogarithm(self, logs: LogCapture, change: str) -> None:
        """A1: O(log n) in either direction, counted in comparisons, not in seconds."""

        class Counting(Clock):
            def seconds(self) -> float:
                return Counted(self.now)

        with Reactor(backend=Counting()) as reactor:
            calls = [reactor.callLater(1000 + number, print) for number in range(4096)]
            Counted.compared = 0
            for number in range(8192):
                call = calls[number * 7919 % 4096]
                if change == "sooner":
                    call.reset(5000 - number / 4)
                elif change == "later":
                    call.reset(5000 + number)
                elif change == "delay":
                    call.delay(3 if number % 2 else -3)
                else:
                    reactor.callLater(number, print).cancel()
            # log2(4096) is 12; looking through the calls would take some thousands.
            assert Counted.compared / 8192 < 60

    def test_volume(self, still: Reactor, clock: Clock) -> None:
        """T12, smaller: all are there, all come in order, and a turn with none due looks at none."""
        called: list[int] = []
        for number in range(20_000):
            still.callLater(1 + number * 7919 % 20_000, called.append, number * 7919 % 20_000)
        took: list[float] = []
        for _ in range(50):
            before = time.perf_counter()
            turn(still, clock)
            took.append(time.perf_counter() - before)
        assert min(took) < 0.001
        turn(still, clock, 20_000)
        assert called == list(range(20_000))


# The model: a list of calls, and the rules in the plainest words.


class Modelled:
    """One call of the model; `program` is what it does when it is made."""

    def __init__(self, number: int, time: float, order: int, program: list[tuple[str, int, float]]) -> None:
        self.number = number
        self.time = time
        self.order = order
        self.program = program


delays = st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.0, 2.0, 7.25, 100.0, math.inf])
steps = st.tuples(st.sampled_from(["callLater", "cancel", "reset", "delay"]), st.integers(0, 30), delays)
programs = st.lists(steps, max_size=3)


class TimersMachine(RuleBasedStateMachine):
    """A reactor beside a model that keeps a plain list; both are told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.reactor = Reactor(backend=self.clock)
        self.model: list[Modelled] = []
        self.order = 0
        self.calls: dict[int, Any] = {}
        self.ended: dict[int, type[Exception]] = {}
        # What was made, by the reactor and by the model, in order.
        self.made: list[int] = []
        self.expected: list[int] = []

    def teardown(self) -> None:
        self.reactor.close()

    # Each step twice: to the model, and to the reactor. Calls are chosen by index among all that ever were.

    def callLater(self, delay: float, program: list[tuple[str, int, float]]) -> None:
        number = len(self.calls)
        self.order += 1
        self.model.append(Modelled(number, self.clock.now + delay, self.order, program))
        self.calls[number] = self.reactor.callLater(delay, self.happens, number, program)

    def change(self, what: str, index: int, seconds: float) -> None:
        if not self.calls:
            return
        number = index % len(self.calls)
        call = self.calls[number]
        if number in self.ended:
            with pytest.raises(self.ended[number]):
                self.apply(call, what, seconds)
            return
        modelled = next(one for one in self.model if one.number == number)
        if what == "cancel":
            self.model.remove(modelled)
            self.ended[number] = error.AlreadyCancelled
        else:
            time = (modelled.time if what == "delay" else self.clock.now) + seconds
            if math.isnan(time):
                with pytest.raises(ValueError, match="number"):
                    self.apply(call, what, seconds)
                return
            self.order += 1
            modelled.time, modelled.order = time, self.order
        self.apply(call, what, seconds)

    def apply(self, call: Any, what: str, seconds: float) -> None:
        if what == "cancel":
            call.cancel()
        else:
            getattr(call, what)(seconds)

    def happens(self, number: int, program: list[tuple[str, int, float]]) -> None:
        """The reactor makes a call: so must the model, now."""
        self.made.append(number)
        due = [one for one in self.model if one.time <= self.turnsNow and one.order <= self.mark]
        due.sort(key=lambda one: (one.time, one.order))
        assert due, f"{number} was called, and nothing is due"
        self.expected.append(due[0].number)
        assert number == due[0].number
        self.model.remove(due[0])
        self.ended[number] = error.AlreadyCalled
        for what, index, seconds in program:
            if what == "callLater":
                self.callLater(seconds, [])
            else:
                self.change(what, index, -seconds if what == "delay" and index % 2 else seconds)

    # The rules.

    @rule(delay=delays, program=programs)
    def make(self, delay: float, program: list[tuple[str, int, float]]) -> None:
        self.callLater(delay, program)

    @precondition(lambda self: self.calls)
    @rule(step=steps)
    def alter(self, step: tuple[str, int, float]) -> None:
        what, index, seconds = step
        self.change("cancel" if what == "callLater" else what, index, seconds)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 200.0]))
    def turn(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turnsNow, self.mark = self.clock.now, self.order
        self.reactor.iterate()
        left = [one.number for one in self.model if one.time <= self.turnsNow and one.order <= self.mark]
        assert not left, "these were due, and were not called"

    @invariant()
    def sameCalls(self) -> None:
        pending = self.reactor.getDelayedCalls()
        assert len(pending) == len(self.model)
        assert set(pending) == {self.calls[one.number] for one in self.model}
        for one in self.model:
            assert self.calls[one.number].getTime() == one.time
        for number in self.ended:
            assert not self.calls[number].active()
            assert self.calls[number].func is None

    @invariant()
    def sameTimeout(self) -> None:
        expected = min((one.time for one in self.model), default=None)
        if expected is None:
            assert self.reactor.timeout() is None
        else:
            assert self.reactor.timeout() == min(max(expected - self.clock.now, 0), 86_400)

    @invariant()
    def smallHeap(self) -> None:
        assert len(self.reactor.timers.heap) <= 2 * len(self.model) + 64


TestModel: Callable[..., Any] = TimersMachine.TestCase
TimersMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
