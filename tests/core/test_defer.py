"""Deferred: the order of callbacks, waiting for others, cancelling, and that no error is ever lost."""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calandria import defer
from calandria.defer import (
    AlreadyCalledError,
    CancelledError,
    Deferred,
    DeferredList,
    FailureGroup,
    FirstError,
    execute,
    fail,
    gatherResults,
    maybeDeferred,
    race,
    succeed,
)
from calandria.failure import Failure

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

    from tests.helpers import LogCapture

pytestmark = pytest.mark.usefixtures("logs")


class Broken(Exception):
    """What callbacks raise here."""


def breaking(result: object) -> Any:
    raise Broken(result)


def giving(result: Any) -> Callable[[object], Any]:
    """A callback that returns `result`."""
    return lambda _: result


def resultOf(deferred: Deferred[Any]) -> Any:
    """The result that there is by now; the exception if it is a failure, which counts as handled then."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, f"no result yet: {deferred!r}"
    return results[0].value if isinstance(results[0], Failure) else results[0]


@pytest.fixture
def withoutCollector(logs: LogCapture) -> Iterator[None]:
    """Only reference counts free anything."""
    logs.keepToItself()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture
def debugging() -> Iterator[None]:
    defer.setDebugging(True)
    try:
        yield
    finally:
        defer.setDebugging(False)


# Callbacks and errbacks.


def test_before_firing() -> None:
    deferred: Deferred[int] = Deferred()
    assert not deferred.called
    assert not hasattr(deferred, "result")
    seen: list[int] = []
    returned: Deferred[Any] = deferred.addCallback(seen.append)
    assert returned is deferred
    assert seen == []
    deferred.callback(1)
    assert deferred.called
    assert seen == [1]
    assert deferred.result is None


def test_after_firing() -> None:
    deferred = succeed(1)
    seen: list[int] = []
    deferred.addCallback(seen.append)
    assert seen == [1]


def test_each_gets_what_the_one_before_returned() -> None:
    deferred: Deferred[int] = Deferred()
    deferred.addCallback(lambda result: result + 1).addCallback(str).addCallback(lambda result: result * 2)
    deferred.callback(1)
    assert resultOf(deferred) == "22"


def test_arguments() -> None:
    seen: list[Any] = []

    def both(result: Any, *args: Any, **keywords: Any) -> Any:
        seen.append((result, args, keywords))
        return result

    deferred = succeed(1).addCallback(both, 2, key=3).addBoth(both, 4, key=5)
    deferred.addCallbacks(both, both, (6,), {"key": 7}, (8,), {"key": 9})
    assert seen == [(1, (2,), {"key": 3}), (1, (4,), {"key": 5}), (1, (6,), {"key": 7})]
    del seen[:]
    failed = fail(Broken())
    failed.addErrback(both, 2, key=3).addBoth(both, 4, key=5)
    failed.addCallbacks(both, both, (6,), {"key": 7}, (8,), {"key": 9})
    assert [entry[1:] for entry in seen] == [((2,), {"key": 3}), ((4,), {"key": 5}), ((8,), {"key": 9})]
    failed.addErrback(lambda _: None)


@pytest.mark.parametrize("method", ["addCallback", "addErrback", "addBoth", "addCallbacks"])
@pytest.mark.parametrize("wrong", [None, 1, "text", (len, (), {})])
def test_only_what_can_be_called(method: str, wrong: Any) -> None:
    deferred: Any = succeed(1)
    with pytest.raises(TypeError, match="a callback is something to call"):
        getattr(deferred, method)(wrong)


def test_errors_skip_callbacks_and_results_skip_errbacks() -> None:
    seen: list[str] = []

    def handle(reason: Failure) -> None:
        seen.append(f"handled {reason.trap(Broken).__name__}")

    deferred: Deferred[Any] = Deferred()
    deferred.addErrback(lambda _: seen.append("never"))
    deferred.addCallback(breaking)
    deferred.addCallback(lambda _: seen.append("never"))
    deferred.addErrback(handle)
    deferred.addCallback(lambda result: seen.append(f"then {result}"))
    deferred.callback("x")
    assert seen == ["handled Broken", "then None"]


def test_of_a_pair_only_one_is_called() -> None:
    seen: list[Any] = []
    deferred: Deferred[Any] = Deferred()
    deferred.addCallbacks(breaking, lambda _: seen.append("never"))
    deferred.addCallbacks(lambda _: seen.append("never"), lambda reason: seen.append(reason.type))
    deferred.callback(None)
    assert seen == [Broken]


def test_a_failure_that_is_returned_is_an_error() -> None:
    reason = Failure(Broken())
    assert resultOf(succeed(1).addCallback(lambda _: reason)) is reason.value


@pytest.mark.parametrize("kind", [Exception, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_everything_is_caught(kind: type[BaseException]) -> None:
    def raising(result: object) -> None:
        raise kind("x")

    assert type(resultOf(succeed(1).addCallback(raising))) is kind


def test_an_errback_that_raises_the_same_error_goes_on_with_the_same_failure() -> None:
    seen: list[Failure] = []

    def see(reason: Failure) -> Failure:
        seen.append(reason)
        return reason

    def trap(reason: Failure) -> None:
        reason.trap(KeyError)

    deferred = succeed(1).addCallback(breaking).addErrback(see).addErrback(trap).addErrback(see)
    assert isinstance(resultOf(deferred), Broken)
    assert seen[0] is seen[1]


def test_errback_makes_a_failure() -> None:
    exc = Broken()
    deferred: Deferred[int] = Deferred()
    deferred.errback(exc)
    assert resultOf(deferred) is exc
    current: Deferred[int] = Deferred()
    try:
        breaking(1)
    except Broken:
        current.errback()
    assert isinstance(resultOf(current), Broken)


def test_errback_takes_errors_only() -> None:
    deferred: Deferred[int] = Deferred()
    with pytest.raises(TypeError, match="fails with a Failure or an exception, not with 'text'"):
        deferred.errback("text")  # type: ignore[arg-type]  # the error that is tested
    assert not deferred.called


def test_firing_twice() -> None:
    deferred = succeed(1)
    with pytest.raises(AlreadyCalledError):
        deferred.callback(2)
    with pytest.raises(AlreadyCalledError):
        deferred.errback(Broken())
    assert resultOf(deferred) == 1


def test_a_deferred_is_no_result() -> None:
    deferred: Deferred[Any] = Deferred()
    with pytest.raises(TypeError, match="return it from a callback or use chainDeferred"):
        deferred.callback(succeed(1))
    assert not deferred.called


def test_callbacks_added_by_a_callback_come_after_those_that_wait() -> None:
    order: list[str] = []
    deferred: Deferred[None] = Deferred()

    def first(result: None) -> None:
        deferred.addCallback(lambda _: order.append("added"))
        order.append("first")

    deferred.addCallback(first)
    deferred.addCallback(lambda _: order.append("second"))
    deferred.callback(None)
    assert order == ["first", "second", "added"]


def test_generic_for_checkers_only() -> None:
    assert Deferred[int] is Deferred
    assert type(Deferred[int]()) is Deferred

    class Mine(Deferred[str]):
        pass

    assert Mine.__mro__[1] is Deferred


def test_repr() -> None:
    deferred: Deferred[Any] = Deferred()
    inner: Deferred[Any] = Deferred()
    assert "not fired" in repr(deferred)
    deferred.addCallback(lambda _: inner)
    deferred.pause()
    deferred.callback("text")
    assert "fired, result 'text', paused" in repr(deferred)
    deferred.unpause()
    assert f"waits for the Deferred at {id(inner):#x}" in repr(deferred)


# Waiting for another.


def test_waiting() -> None:
    inner: Deferred[int] = Deferred()
    seen: list[int] = []
    deferred = succeed(1).addCallback(lambda _: inner)
    deferred.addCallback(seen.append)
    assert deferred.result is inner
    assert seen == []
    inner.callback(2)
    assert seen == [2]


def test_a_result_that_is_there_already() -> None:
    inner = succeed(2)
    assert resultOf(succeed(1).addCallback(lambda _: inner)) == 2
    assert inner.result is None


def test_the_result_is_taken_away() -> None:
    inner: Deferred[Any] = Deferred()
    deferred = succeed(1).addCallback(lambda _: inner)
    inner.callback(2)
    assert resultOf(deferred) == 2
    assert resultOf(inner) is None
    seen: list[object] = []
    failing: Deferred[Any] = Deferred()
    deferred = succeed(1).addCallback(lambda _: failing)
    failing.addBoth(seen.append)
    failing.errback(Broken())
    assert isinstance(resultOf(deferred), Broken)
    assert seen == [None]


def test_callbacks_of_the_inner_one_come_first_if_they_were_there_first() -> None:
    order: list[str] = []

    def note(result: int, name: str) -> int:
        order.append(f"{name} {result}")
        return result + 1

    inner: Deferred[int] = Deferred()
    inner.addCallback(note, "inner before")
    outer = succeed(0).addCallback(lambda _: inner)
    outer.addCallback(note, "outer")
    outer.addCallback(note, "outer again")
    inner.addCallback(lambda result: order.append(f"inner after {result}"))
    inner.callback(1)
    assert order == ["inner before 1", "outer 2", "outer again 3", "inner after None"]


def test_a_failure_of_the_inner_one() -> None:
    inner: Deferred[int] = Deferred()
    deferred = succeed(1).addCallback(lambda _: inner)
    inner.errback(Broken())
    assert isinstance(resultOf(deferred), Broken)


def test_the_inner_one_is_running() -> None:
    inner: Deferred[Any] = Deferred()
    outer: Deferred[Any] = Deferred()
    outer.addCallback(lambda _: inner)
    inner.addCallback(outer.callback)
    inner.addCallback(lambda _: "final")
    inner.callback("first")
    assert resultOf(outer) == "final"


def test_the_inner_one_is_interrupted() -> None:
    order: list[str] = []
    inner: Deferred[Any] = Deferred()
    outer: Deferred[Any] = succeed(0).addCallback(lambda _: inner)
    # While `outer` goes on with the result, what `inner` has left to do waits; then `outer` wants the result of that.
    outer.addCallback(lambda result: order.append(f"outer {result}"))
    outer.addCallback(lambda _: inner)
    outer.addCallback(lambda result: order.append(f"outer {result}"))
    inner.addCallback(lambda result: order.append(f"inner {result}"))
    inner.addCallback(lambda _: "final")
    inner.callback("first")
    assert order == ["outer first", "inner None", "outer final"]


def test_the_inner_one_is_paused() -> None:
    inner = succeed(1)
    inner.pause()
    outer = succeed(0).addCallback(lambda _: inner)
    assert outer.result is inner
    inner.unpause()
    assert resultOf(outer) == 1


def test_two_wait_for_one() -> None:
    inner: Deferred[int] = Deferred()
    first = succeed(0).addCallback(lambda _: inner)
    second = succeed(0).addCallback(lambda _: inner)
    inner.callback(1)
    assert resultOf(first) == 1
    assert resultOf(second) is None


def test_the_outer_one_is_paused_meanwhile() -> None:
    inner: Deferred[int] = Deferred()
    outer = succeed(0).addCallback(lambda _: inner)
    outer.pause()
    seen: list[int] = []
    outer.addCallback(seen.append)
    inner.callback(1)
    assert seen == []
    outer.unpause()
    assert seen == [1]


def test_unpausing_does_not_end_the_waiting() -> None:
    inner: Deferred[int] = Deferred()
    outer = succeed(0).addCallback(lambda _: inner)
    seen: list[int] = []
    outer.pause()
    outer.addCallback(seen.append)
    outer.unpause()
    assert seen == []
    inner.callback(1)
    assert seen == [1]


def test_returning_itself_is_an_error_at_that_place() -> None:
    deferred: Deferred[Any] = Deferred()

    def itself(result: object) -> Deferred[Any]:
        return deferred

    seen: list[Failure] = []
    deferred.addCallback(itself)
    deferred.addErrback(seen.append)
    deferred.callback(1)
    assert seen[0].type is RuntimeError
    assert "itself returned a Deferred that waits for the one whose callback it is" in seen[0].getErrorMessage()
    assert resultOf(deferred) is None


@pytest.mark.parametrize("length", [2, 3, 50])
def test_waiting_in_a_circle_is_an_error(length: int) -> None:
    circle: list[Deferred[Any]] = [Deferred() for _ in range(length)]
    for index, deferred in enumerate(circle):
        deferred.addCallback(giving(circle[(index + 1) % length]))
    for deferred in circle:
        deferred.callback(None)
    # The last one to wait is told; the others then get its error one after the other.
    assert isinstance(resultOf(circle[0]), RuntimeError)


def test_chaining() -> None:
    first: Deferred[int] = Deferred()
    second: Deferred[int] = Deferred()
    order: list[str] = []
    second.addCallback(lambda result: order.append(f"second {result}"))
    chained = first.chainDeferred(second)
    chained.addCallback(lambda result: order.append(f"first {result}"))
    first.callback(1)
    assert order == ["second 1", "first None"]


def test_chaining_a_failure() -> None:
    first: Deferred[int] = Deferred()
    second: Deferred[int] = Deferred()
    first.chainDeferred(second)
    first.errback(Broken())
    assert isinstance(resultOf(second), Broken)
    assert resultOf(first) is None


def test_chaining_to_one_that_was_fired() -> None:
    assert isinstance(resultOf(succeed(1).chainDeferred(succeed(2))), AlreadyCalledError)


def test_chaining_to_one_that_was_cancelled() -> None:
    first: Deferred[int] = Deferred()
    second: Deferred[int] = Deferred()
    chained = first.chainDeferred(second)
    second.cancel()
    first.callback(1)
    assert resultOf(chained) is None
    assert isinstance(resultOf(second), CancelledError)


# Any length, no recursion.

LONG = 100_000


@pytest.fixture
def shallow() -> Iterator[None]:
    """A stack on which nothing of a chain's length would fit."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.usefixtures("shallow")
def test_many_callbacks() -> None:
    deferred: Deferred[int] = Deferred()
    for _ in range(LONG):
        deferred.addCallback(lambda result: result + 1)
    deferred.callback(0)
    assert resultOf(deferred) == LONG


@pytest.mark.usefixtures("shallow")
def test_many_callbacks_that_return_deferreds() -> None:
    deferred: Deferred[int] = Deferred()
    for _ in range(LONG):
        deferred.addCallback(lambda result: succeed(result + 1))
    deferred.callback(0)
    assert resultOf(deferred) == LONG


@pytest.mark.usefixtures("shallow")
def test_many_waits_one_after_the_other() -> None:
    waiting: list[Deferred[int]] = []

    def wait(result: int) -> Deferred[int]:
        waiting.append(Deferred())
        return waiting[-1]

    deferred: Deferred[int] = Deferred()
    for _ in range(LONG):
        deferred.addCallback(wait)
    deferred.callback(0)
    for number in range(LONG):
        waiting[-1].callback(number)
    assert resultOf(deferred) == LONG - 1


def chain(order: Callable[[list[Deferred[Any]]], Any]) -> list[Deferred[Any]]:
    """Each waits for the next one; the last is not fired."""
    links: list[Deferred[Any]] = [Deferred() for _ in range(LONG + 1)]
    for one, next_ in itertools.pairwise(links):
        one.addCallback(giving(next_))
    for one in order(links[:-1]):
        one.callback(None)
    return links


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("order", [iter, reversed])
def test_many_that_wait_for_each_other(order: Any) -> None:
    links = chain(order)
    links[-1].callback("result")
    assert resultOf(links[0]) == "result"
    assert all(link.result is None for link in links)


@pytest.mark.usefixtures("shallow")
def test_many_that_fail_together() -> None:
    links = chain(iter)
    links[-1].errback(Broken())
    assert isinstance(resultOf(links[0]), Broken)


@pytest.mark.usefixtures("shallow")
def test_cancelling_the_first_of_many() -> None:
    links = chain(reversed)
    links[0].cancel()
    assert links[-1].called
    assert isinstance(resultOf(links[0]), CancelledError)


@pytest.mark.usefixtures("shallow")
def test_many_that_are_chained() -> None:
    links: list[Deferred[str]] = [Deferred() for _ in range(LONG)]
    for one, next_ in itertools.pairwise(links):
        one.chainDeferred(next_)
    links[0].callback("result")
    assert resultOf(links[-1]) == "result"


# Pausing.


def test_pausing() -> None:
    deferred: Deferred[int] = Deferred()
    seen: list[int] = []
    deferred.addCallback(seen.append)
    deferred.pause()
    deferred.pause()
    deferred.callback(1)
    deferred.unpause()
    assert (deferred.paused, seen) == (1, [])
    deferred.unpause()
    assert (deferred.paused, seen) == (0, [1])


def test_a_callback_pauses() -> None:
    deferred: Deferred[None] = Deferred()
    order: list[str] = []
    deferred.addCallback(lambda _: deferred.pause())
    deferred.addCallback(lambda _: order.append("after"))
    deferred.callback(None)
    order.append("paused")
    deferred.unpause()
    assert order == ["paused", "after"]


def test_unpausing_before_firing() -> None:
    deferred: Deferred[int] = Deferred()
    deferred.pause()
    deferred.unpause()
    deferred.callback(1)
    assert resultOf(deferred) == 1


def test_unpausing_too_often() -> None:
    with pytest.raises(RuntimeError, match="without a pause"):
        succeed(1).unpause()


# Cancelling.


def test_cancelling_without_a_canceller() -> None:
    deferred: Deferred[int] = Deferred()
    deferred.cancel()
    assert deferred.called
    deferred.callback(1)
    with pytest.raises(AlreadyCalledError):
        deferred.callback(2)
    assert isinstance(resultOf(deferred), CancelledError)


def test_one_late_error_is_swallowed_too() -> None:
    deferred: Deferred[int] = Deferred()
    deferred.cancel()
    deferred.errback(Broken())
    assert isinstance(resultOf(deferred), CancelledError)


@pytest.mark.parametrize("ends", ["callback", "errback", "not at all"])
def test_cancelling_with_a_canceller(ends: str) -> None:
    called: list[Deferred[str]] = []

    def canceller(deferred: Deferred[str]) -> None:
        called.append(deferred)
        if ends == "callback":
            deferred.callback("partial")
        elif ends == "errback":
            deferred.errback(Broken())

    deferred = Deferred(canceller)
    deferred.cancel()
    deferred.cancel()
    assert called == [deferred]
    # Who has a canceller knows that it was called: nothing is swallowed.
    with pytest.raises(AlreadyCalledError):
        deferred.callback("late")
    result = resultOf(deferred)
    if ends == "callback":
        assert result == "partial"
    else:
        assert type(result) is (Broken if ends == "errback" else CancelledError)


def test_a_canceller_that_raises(logs: LogCapture) -> None:
    def canceller(deferred: Deferred[str]) -> None:
        raise Broken("in the canceller")

    deferred = Deferred(canceller)
    deferred.cancel()
    assert isinstance(resultOf(deferred), CancelledError)
    (record,) = logs.takeErrors()
    assert "canceller raised" in record.getMessage()
    assert "in the canceller" in record.getMessage()


def test_cancelling_one_that_was_fired_does_nothing() -> None:
    deferred: Deferred[int] = Deferred(lambda _: pytest.fail("called"))
    deferred.callback(1)
    deferred.cancel()
    assert resultOf(deferred) == 1


def test_cancelling_goes_to_the_one_being_waited_for() -> None:
    cancelled: list[str] = []
    innermost: Deferred[int] = Deferred(lambda _: cancelled.append("innermost"))
    inner: Deferred[int] = Deferred(lambda _: cancelled.append("never"))
    outer: Deferred[int] = Deferred(lambda _: cancelled.append("never"))
    inner.addCallback(lambda _: innermost)
    outer.addCallback(lambda _: inner)
    outer.callback(1)
    inner.callback(2)
    outer.cancel()
    assert cancelled == ["innermost"]
    assert isinstance(resultOf(outer), CancelledError)


def test_an_inner_one_may_refuse() -> None:
    inner: Deferred[str] = Deferred(lambda deferred: deferred.callback("all the same"))
    outer = succeed(1).addCallback(lambda _: inner)
    outer.cancel()
    assert resultOf(outer) == "all the same"


def test_cancelling_inside_its_own_callback() -> None:
    deferred: Deferred[Any] = Deferred(lambda _: pytest.fail("called"))

    def cancel(result: int) -> int:
        deferred.cancel()
        return result + 1

    deferred.addCallback(cancel)
    deferred.callback(1)
    assert resultOf(deferred) == 2


# Time-outs.


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def callLater(self, delay: float, function: Callable[..., Any], *args: Any, **keywords: Any) -> Call:
        self.calls.append(Call(delay, function))
        return self.calls[-1]


class Call:
    def __init__(self, delay: float, function: Callable[[], Any]) -> None:
        self.delay = delay
        self.function: Callable[[], Any] | None = function

    def active(self) -> bool:
        return self.function is not None

    def cancel(self) -> None:
        assert self.active()
        self.function = None

    def make(self) -> None:
        function, self.function = self.function, None
        assert function is not None
        function()


def timed(deferred: Deferred[Any], clock: Clock, onTimeoutCancel: Any = None) -> Call:
    added: Any = deferred.addTimeout
    assert added(2.5, clock, onTimeoutCancel) is deferred
    (call,) = clock.calls
    assert call.delay == 2.5
    return call


def test_a_timeout() -> None:
    deferred: Deferred[int] = Deferred()
    call = timed(deferred, Clock())
    assert call.active()
    call.make()
    exc = resultOf(deferred)
    assert type(exc) is defer.TimeoutError
    assert str(exc) == "no result after 2.5 s"


def test_in_time() -> None:
    deferred: Deferred[int] = Deferred()
    call = timed(deferred, Clock())
    deferred.callback(1)
    assert not call.active()
    assert resultOf(deferred) == 1


def test_an_error_in_time() -> None:
    deferred: Deferred[int] = Deferred()
    call = timed(deferred, Clock())
    deferred.errback(Broken())
    assert not call.active()
    assert isinstance(resultOf(deferred), Broken)


def test_cancelled_in_time() -> None:
    deferred: Deferred[int] = Deferred()
    call = timed(deferred, Clock())
    deferred.cancel()
    assert not call.active()
    assert isinstance(resultOf(deferred), CancelledError)


def test_what_a_timeout_means_may_be_said() -> None:
    deferred: Deferred[int] = Deferred()
    seen: list[Any] = []

    def onTimeoutCancel(result: Any, timeout: float) -> str:
        seen.append((type(result.value), timeout))
        return "instead"

    timed(deferred, Clock(), onTimeoutCancel).make()
    assert seen == [(CancelledError, 2.5)]
    assert resultOf(deferred) == "instead"


def test_a_canceller_answers_the_timeout() -> None:
    deferred: Deferred[str] = Deferred(lambda deferred: deferred.callback("partial"))
    timed(deferred, Clock()).make()
    assert resultOf(deferred) == "partial"


def test_a_timeout_while_waiting_for_another() -> None:
    inner: Deferred[int] = Deferred()
    outer = succeed(0).addCallback(lambda _: inner)
    timed(outer, Clock()).make()
    assert inner.called
    assert type(resultOf(outer)) is defer.TimeoutError


def test_later_callbacks_have_all_the_time() -> None:
    deferred: Deferred[int] = Deferred()
    call = timed(deferred, Clock())
    inner: Deferred[int] = Deferred()
    deferred.addCallback(lambda _: inner)
    deferred.callback(1)
    assert not call.active()


# Errors are handled or logged.


def tracebacks(logs: LogCapture) -> list[str]:
    """The texts below the messages, as they come."""
    texts: list[str] = []

    def see(record: logging.LogRecord) -> bool:
        texts.append(record.exc_text or "")
        return True

    logs.addFilter(see)
    return texts


def test_an_unhandled_error_is_logged_when_it_is_forgotten(logs: LogCapture) -> None:
    deferred: Deferred[int] = Deferred()
    deferred.addCallback(breaking)
    deferred.callback(1)
    assert logs.takeErrors() == []
    del deferred
    (record,) = logs.takeErrors()
    assert record.getMessage() == f"a Deferred failed, and no errback handled it: {__name__}.Broken: 1"


def test_the_place_is_in_the_log(logs: LogCapture) -> None:
    texts = tracebacks(logs)
    succeed(1).addCallback(breaking)
    assert "in breaking" in texts[0]
    assert "calandria/defer.py" not in texts[0]
    logs.takeErrors()


def test_a_late_errback_handles_it(logs: LogCapture) -> None:
    deferred = fail(Broken())
    deferred.addCallback(lambda _: None)
    deferred.addErrback(lambda _: None)
    del deferred
    assert logs.takeErrors() == []


def test_an_errback_that_fails_is_logged_once(logs: LogCapture) -> None:
    fail(Broken("first")).addErrback(breaking)
    assert len(logs.takeErrors()) == 1


def test_who_waits_is_responsible(logs: LogCapture) -> None:
    inner: Deferred[int] = Deferred()
    outer = succeed(0).addCallback(giving(inner))
    inner.errback(Broken())
    del inner
    assert logs.takeErrors() == []
    del outer
    assert len(logs.takeErrors()) == 1


def test_one_that_failed_already_and_is_waited_for(logs: LogCapture) -> None:
    inner = fail(Broken())
    outer = succeed(0).addCallback(giving(inner))
    del inner
    assert logs.takeErrors() == []
    outer.addErrback(lambda _: None)
    del outer
    assert logs.takeErrors() == []


def test_a_paused_error_is_logged_too(logs: LogCapture) -> None:
    deferred: Deferred[int] = Deferred()
    deferred.addErrback(lambda _: None)
    deferred.pause()
    deferred.errback(Broken())
    del deferred
    assert len(logs.takeErrors()) == 1


def test_a_cancelled_one_that_nobody_asks_is_logged(logs: LogCapture) -> None:
    Deferred[int]().cancel()
    (record,) = logs.takeErrors()
    assert "CancelledError" in record.getMessage()


class Holder:
    """Keeps its Deferred, and is known to its callbacks."""

    def __init__(self) -> None:
        self.deferred: Deferred[Any] = Deferred(self.canceller)
        self.reason: Failure | None = None

    def canceller(self, deferred: Deferred[Any]) -> None:
        """Refers to the holder, and so to the Deferred: a cycle while there is no result."""

    def callback(self, result: object) -> None:
        raise Broken(result)

    def errback(self, reason: Failure) -> None:
        self.reason = reason


def freed(use: Callable[[Holder], None]) -> bool:
    holder = Holder()
    use(holder)
    holders, deferreds = weakref.ref(holder), weakref.ref(holder.deferred)
    del holder
    return holders() is None and deferreds() is None


@pytest.mark.usefixtures("withoutCollector")
def test_a_fired_one_leaves_no_cycle() -> None:
    assert freed(lambda holder: holder.deferred.callback(1))
    assert not freed(lambda holder: None)


@pytest.mark.usefixtures("withoutCollector")
def test_a_cancelled_one_leaves_no_cycle(logs: LogCapture) -> None:
    assert freed(lambda holder: holder.deferred.cancel())
    logs.takeErrors()


@pytest.mark.usefixtures("withoutCollector")
def test_a_failed_one_leaves_no_cycle(logs: LogCapture) -> None:
    def use(holder: Holder) -> None:
        holder.deferred.addCallback(holder.callback)
        holder.deferred.callback(1)

    assert freed(use)
    assert len(logs.takeErrors()) == 1


@pytest.mark.usefixtures("withoutCollector")
def test_who_handled_an_error_and_keeps_it_leaves_no_cycle() -> None:
    def use(holder: Holder) -> None:
        holder.deferred.addCallback(holder.callback)
        holder.deferred.addErrback(holder.errback)
        holder.deferred.callback(1)
        assert holder.reason is not None
        assert "in callback" in holder.reason.getTraceback()

    assert freed(use)


@pytest.mark.usefixtures("withoutCollector")
def test_waiting_leaves_no_cycle() -> None:
    def use(holder: Holder) -> None:
        inner: Deferred[int] = Deferred(holder.canceller)
        holder.deferred.addCallback(lambda _: inner).addTimeout(1, Clock())  # type: ignore[arg-type]  # as much as is used
        holder.deferred.callback(1)
        inner.callback(2)

    assert freed(use)


@pytest.mark.usefixtures("withoutCollector")
def test_joining_leaves_no_cycle() -> None:
    def use(holder: Holder) -> None:
        other: Deferred[Any] = Deferred()
        joined: list[Deferred[Any]] = [DeferredList([holder.deferred, other]), gatherResults([holder.deferred, other])]
        holder.deferred.callback(1)
        other.callback(2)
        raced = race([Deferred[Any](holder.canceller), succeed(holder)])
        ended: list[Deferred[Any]] = [*joined, raced]
        assert all(one.called for one in ended)

    assert freed(use)


@pytest.mark.usefixtures("withoutCollector")
def test_callbacks_are_forgotten_once_called() -> None:
    class Held:
        def callback(self, result: object) -> None:
            """Nothing."""

    held = Held()
    reference = weakref.ref(held)
    waiting: Deferred[int] = Deferred()
    deferred: Deferred[Any] = Deferred()
    deferred.addCallback(held.callback).addCallback(lambda _: waiting).addCallback(str)
    del held
    assert reference() is not None
    deferred.callback(1)
    assert reference() is None


def test_one_that_always_waits_does_not_grow() -> None:
    deferred = succeed(0)
    waiting: list[Deferred[int]] = []

    def wait(result: int) -> Deferred[int]:
        waiting.append(Deferred())
        return waiting[-1]

    deferred.addCallback(wait).addCallback(wait)
    for number in range(1000):
        deferred.addCallback(wait)
        waiting.pop().callback(number)
        assert len(deferred._callbacks) < 200


# Debugging.


def madeHere() -> Deferred[Any]:
    return Deferred()


def firedHere(deferred: Deferred[Any]) -> None:
    deferred.callback(1)


@pytest.mark.usefixtures("debugging")
def test_debugging_tells_where_a_deferred_was_made_and_fired(logs: LogCapture) -> None:
    assert defer.getDebugging()
    deferred = madeHere()
    firedHere(deferred)
    with pytest.raises(AlreadyCalledError) as caught:
        deferred.callback(2)
    assert "in madeHere" in str(caught.value)
    assert "in firedHere" in str(caught.value)
    del caught
    texts = tracebacks(logs)
    deferred.addCallback(breaking)
    del deferred
    assert "in madeHere" in texts[0]
    assert "in firedHere" in texts[0]
    logs.takeErrors()


def test_no_stack_is_kept_otherwise() -> None:
    assert not defer.getDebugging()
    deferred = madeHere()
    firedHere(deferred)
    with pytest.raises(AlreadyCalledError) as caught:
        deferred.callback(2)
    assert "made here" not in str(caught.value)


# Making them.


def test_succeed_and_fail() -> None:
    assert resultOf(succeed(1)) == 1
    reason = Failure(Broken())
    assert resultOf(fail(reason)) is reason.value
    try:
        breaking(1)
    except Broken:
        assert isinstance(resultOf(fail()), Broken)


def test_execute() -> None:
    assert resultOf(execute(divmod, 7, 2)) == (3, 1)
    assert isinstance(resultOf(execute(breaking, 1)), Broken)


def test_maybe() -> None:
    deferred: Deferred[int] = Deferred()
    assert maybeDeferred(lambda: deferred) is deferred
    assert resultOf(maybeDeferred(divmod, 7, 2)) == (3, 1)
    assert resultOf(maybeDeferred(int, "ff", base=16)) == 255
    assert isinstance(resultOf(maybeDeferred(breaking, 1)), Broken)
    assert isinstance(resultOf(maybeDeferred(lambda: Failure(Broken()))), Broken)


# Joining them.


def several(count: int = 3) -> list[Deferred[Any]]:
    return [Deferred() for _ in range(count)]


def test_a_list_of_all_results() -> None:
    one, two, three = members = several()
    joined = DeferredList(members)
    three.callback("c")
    two.errback(Broken())
    assert not joined.called
    one.callback("a")
    results = resultOf(joined)
    assert results[0] == (True, "a")
    assert results[2] == (True, "c")
    success, reason = results[1]
    assert (success, reason.type) == (False, Broken)
    assert resultOf(one) == "a"
    assert isinstance(resultOf(two), Broken)


def test_an_empty_list() -> None:
    assert resultOf(DeferredList([])) == []
    assert not DeferredList([], fireOnOneCallback=True).called
    assert resultOf(gatherResults([])) == []


def test_the_first_result_of_a_list() -> None:
    members = several()
    joined = DeferredList(members, fireOnOneCallback=True, consumeErrors=True)
    members[2].errback(Broken())
    members[1].callback("b")
    assert resultOf(joined) == ("b", 1)
    members[0].callback("a")


def test_the_first_failure_of_a_list() -> None:
    members = several()
    joined = DeferredList(members, fireOnOneErrback=True, consumeErrors=True)
    members[2].callback("c")
    members[1].errback(Broken())
    members[0].errback(Broken())
    exc = resultOf(joined)
    assert type(exc) is FirstError
    assert (exc.index, exc.subFailure.type) == (1, Broken)
    assert "index 1" in str(exc)
    assert "Broken" in str(exc)


@pytest.mark.parametrize("consume", [False, True])
def test_errors_of_members_are_consumed_or_theirs(consume: bool, logs: LogCapture) -> None:
    members = several(2)
    joined = DeferredList(members, consumeErrors=consume)
    while members:
        members.pop().errback(Broken())
    assert joined.called
    assert len(logs.takeErrors()) == (0 if consume else 2)


def test_cancelling_a_list() -> None:
    members = several()
    joined = DeferredList(members, consumeErrors=True)
    members[1].callback("b")
    joined.cancel()
    (first, reason), second, (third, _) = resultOf(joined)
    assert (first, second, third) == (False, (True, "b"), False)
    assert reason.type is CancelledError


def test_cancelling_a_list_that_has_ended_leaves_its_members_alone() -> None:
    members = several()
    joined = DeferredList(members, fireOnOneCallback=True)
    members[0].callback("a")
    joined.cancel()
    assert not members[1].called
    assert resultOf(joined) == ("a", 0)


def test_gathering() -> None:
    members = several()
    joined = gatherResults(members)
    for index, member in enumerate(members):
        member.callback(index)
    assert resultOf(joined) == [0, 1, 2]


def test_gathering_with_a_failure() -> None:
    members = several()
    joined = gatherResults(members, consumeErrors=True)
    members[2].errback(Broken())
    exc = resultOf(joined)
    assert (type(exc), exc.index) == (FirstError, 2)


def test_cancelling_a_gathering() -> None:
    members = several()
    joined = gatherResults(members, consumeErrors=True)
    joined.cancel()
    assert all(member.called for member in members)
    exc = resultOf(joined)
    assert (type(exc), exc.subFailure.type) == (FirstError, CancelledError)


def test_a_race() -> None:
    cancelled: list[Deferred[str]] = []
    members: list[Deferred[str]] = [Deferred(cancelled.append) for _ in range(3)]
    raced = race(members)
    members[2].errback(Broken())
    assert not raced.called
    members[1].callback("b")
    assert resultOf(raced) == (1, "b")
    assert cancelled == [members[0]]


def test_a_race_that_is_over_at_once() -> None:
    cancelled: list[str] = []
    loser: Deferred[int] = Deferred(lambda _: cancelled.append("loser"))
    assert resultOf(race([succeed(1), loser])) == (0, 1)
    assert cancelled == ["loser"]


def test_a_race_that_all_lose() -> None:
    members = several()
    raced = race(members)
    for index in (2, 0, 1):
        members[index].errback(Broken(index))
    exc = resultOf(raced)
    assert type(exc) is FailureGroup
    assert [reason.value.args for reason in exc.failures] == [(0,), (1,), (2,)]
    assert "Broken" in str(exc)


def test_cancelling_a_race() -> None:
    members = several()
    raced = race(members)
    raced.cancel()
    assert all(member.called for member in members)
    assert isinstance(resultOf(raced), CancelledError)


def test_a_loser_may_go_on(logs: LogCapture) -> None:
    loser: Deferred[Any] = Deferred(lambda deferred: deferred.callback("all the same"))
    raced = race([loser, succeed("first")])
    assert resultOf(raced) == (1, "first")


def test_a_race_of_nobody() -> None:
    with pytest.raises(ValueError, match="never end"):
        race([])


# Any program of callbacks does what a plain loop over it does.

step = st.sampled_from(
    ["add", "raise", "fired", "failed", "later", "later failing", "handle", "both", "pause", "chained"]
)


@given(st.lists(step, max_size=30), st.integers(0, 30), st.booleans())
def test_any_program(steps: list[str], early: int, reverse: bool) -> None:
    """`early` steps are added before it is fired; what is waited for fires at once or in the end."""
    trace: list[str] = []
    waiting: list[Callable[[], None]] = []
    deferred: Deferred[Any] = Deferred()

    def callback(result: int, name: str, index: int) -> Any:
        trace.append(f"{index} {name} {result}")
        inner: Deferred[Any] = Deferred()
        if name == "raise":
            raise Broken(index)
        if name == "pause":
            deferred.pause()
            waiting.append(deferred.unpause)
        elif name == "fired":
            return succeed(result + 1)
        elif name == "failed":
            return fail(Broken(index))
        elif name == "later":
            waiting.append(lambda: inner.callback(result + 1))
            return inner
        elif name == "later failing":
            waiting.append(lambda: inner.errback(Broken(index)))
            return inner
        elif name == "chained":
            outer = succeed(None).addCallback(lambda _: inner)
            waiting.append(lambda: inner.callback(result + 1))
            return outer
        return result + 1

    def errback(reason: Failure, name: str, index: int) -> int:
        trace.append(f"{index} {name} {reason.value}")
        return index

    def add(name: str, index: int) -> None:
        if name == "handle":
            deferred.addErrback(errback, name, index)
        elif name == "both":
            deferred.addCallbacks(callback, errback, (name, index), {}, (name, index))
        else:
            deferred.addCallback(callback, name, index)

    for index, name in enumerate(steps):
        if index == early:
            deferred.callback(0)
        add(name, index)
    if not deferred.called:
        deferred.callback(0)
    while waiting:
        waiting.pop()()
    result = resultOf(deferred)

    expected: list[str] = []
    value: Any = 0
    for index, name in enumerate(steps):
        if isinstance(value, Broken):
            if name in ("handle", "both"):
                expected.append(f"{index} {name} {value}")
                value = index
        elif name != "handle":
            expected.append(f"{index} {name} {value}")
            value = Broken(index) if name in ("raise", "failed", "later failing") else value + 1
    assert trace == expected
    assert str(result) == str(value)


def test_types() -> None:
    """What the checkers make of it; the asserts do nothing at run time."""
    if TYPE_CHECKING:

        def plain(result: int) -> str: ...
        def later(result: int) -> Deferred[str]: ...
        def perhaps(result: int) -> Deferred[str] | Failure: ...
        def more(result: int, other: str) -> bytes: ...
        def handled(reason: Failure) -> None: ...
        def handledLater(reason: Failure) -> Deferred[bytes]: ...
        def passed(reason: Failure) -> Failure: ...
        def either(result: int | Failure) -> str: ...

        deferred: Deferred[int] = Deferred()
        assert_type(deferred.addCallback(plain), Deferred[str])
        assert_type(deferred.addCallback(later), Deferred[str])
        assert_type(deferred.addCallback(perhaps), Deferred[str])
        assert_type(deferred.addCallback(more, "x"), Deferred[bytes])
        assert_type(deferred.addErrback(handled), Deferred[int | None])
        assert_type(deferred.addErrback(handledLater), Deferred[int | bytes])
        assert_type(deferred.addErrback(passed), Deferred[int])
        assert_type(deferred.addBoth(either), Deferred[str])
        assert_type(deferred.addCallbacks(plain), Deferred[str])
        assert_type(deferred.addCallbacks(later, handled), Deferred[str | None])
        assert_type(deferred.addCallbacks(plain, handledLater), Deferred[str | bytes])
        assert_type(deferred.chainDeferred(deferred), Deferred[None])
        assert_type(succeed(1), Deferred[int])
        assert_type(execute(plain, 1), Deferred[str])
        assert_type(maybeDeferred(later, 1), Deferred[str])
        assert_type(maybeDeferred(plain, 1), Deferred[str])
        assert_type(gatherResults([deferred]), Deferred[list[int]])
        assert_type(race([deferred]), Deferred[tuple[int, int]])
        deferred.addCallback(more)  # type: ignore[call-overload]  # an argument is missing
        deferred.callback("x")  # type: ignore[arg-type]  # another type
