"""A result that is not there yet, and what shall be done with it once it is: Deferred.

Callbacks are called as soon as there is a result, in the caller's stack; a callback that returns a Deferred makes the
rest wait for it. Chains of any length are walked in a loop, so their length costs no stack. One file for the class and
the functions that make and join Deferreds, because they share one rule: an error is handled, or it is logged.
"""

from __future__ import annotations

import traceback

from calandria import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeAlias, TypeGuard, TypeVar, overload

    from calandria.failure import Failure
    from calandria.interfaces import ReactorTime

    T = TypeVar("T")
    R = TypeVar("R")
    R2 = TypeVar("R2")
    P = ParamSpec("P")
    P2 = ParamSpec("P2")

    Arguments: TypeAlias = Iterable[Any]
    Keywords: TypeAlias = Mapping[str, Any] | None
else:

    class Generic:
        """Stands for typing.Generic, whose parameters mean nothing at run time."""

        def __class_getitem__(cls, parameters):
            return cls

    T = None


class AlreadyCalledError(Exception):
    """A Deferred was given a second result."""


class CancelledError(Exception):
    """The result of a Deferred that was cancelled."""

    def __str__(self) -> str:
        return super().__str__() or "the Deferred was cancelled"


class TimeoutError(Exception):
    """The result of a Deferred whose time-out has passed."""

    def __str__(self) -> str:
        return super().__str__() or "the Deferred had no result in time"


class FirstError(Exception):
    """The first failure among several Deferreds: `subFailure`, of the one at `index`."""

    def __init__(self, subFailure: Failure, index: int) -> None:
        super().__init__(subFailure, index)
        self.subFailure = subFailure
        self.index = index

    def __str__(self) -> str:
        return f"the Deferred at index {self.index} failed: {self.subFailure!r}"


class FailureGroup(Exception):
    """All of several Deferreds have failed: `failures`, in the order of the Deferreds."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        return f"all Deferreds failed: {', '.join([repr(one) for one in self.failures])}"


class _Unhandled:
    """Logs the failure that it still holds when it is collected.

    Apart from the Deferred, so that only those that failed pay for a finalizer.
    """

    __slots__ = ("details", "reason")

    def __init__(self, reason: Failure, details: str) -> None:
        self.reason: Failure | None = reason
        self.details = details

    def __del__(self) -> None:
        reason = self.reason
        if reason is not None:
            failure.log("a Deferred failed, and no errback handled it", reason, self.details)


class Deferred(Generic[T]):
    """One result, now or later, and the callbacks that it goes through; each gets what the one before it returned.

    A callback's exception, or a Failure that it returns, goes to the next errback. If a callback returns a Deferred,
    those after it wait for its result, which they take away from it (it is None from then on). A failure that is left
    when nobody can add an errback any more is logged. Not safe for several threads.

    `canceller` is called with the Deferred by `cancel` while there is no result: it stops what was under way.
    """

    debug = False
    """Whether Deferreds remember where they were made and fired; see setDebugging."""

    called = False
    """Whether it was fired: by `callback`, by `errback` or by being cancelled."""

    paused = 0
    """How often `pause` was called more than `unpause`."""

    if TYPE_CHECKING:
        result: Any
        """What the last callback returned; the Deferred being waited for; absent until there is any result."""

    _canceller: Callable[[Deferred[T]], object] | None = None
    _unhandled: _Unhandled | None = None
    _running = False
    # After a cancellation, whoever works for the result may not know, and give it once.
    _swallow = False
    # Whether any Deferred waits, or has waited, for this one.
    _awaited = False
    # Which of _callbacks is the next one: taking them off the front would make long chains quadratic.
    _next = 0
    _made = _fired = ""

    def __init__(self, canceller: Callable[[Deferred[T]], object] | None = None) -> None:
        # Each is either a pair (for a result, for a failure), where a part is None, a function or (function, arguments,
        # keywords); or a Deferred that takes the result over.
        self._callbacks: list[Any] = []
        if canceller is not None:
            self._canceller = canceller
        if self.debug:
            self._made = "".join(traceback.format_stack()[:-1])

    def __repr__(self) -> str:
        if not self.called:
            state = "not fired"
        elif _isDeferred(self.result):
            state = f"waits for the {type(self.result).__name__} at {id(self.result):#x}"
        else:
            state = f"fired, result {self.result!r}"
        return f"<{type(self).__name__} at {id(self):#x}, {state}{', paused' if self.paused else ''}>"

    # Adding callbacks.

    if TYPE_CHECKING:

        @overload
        def addCallbacks(
            self,
            callback: Callable[Concatenate[T, P], Failure | Deferred[R]],
            errback: None = None,
            callbackArgs: Arguments = (),
            callbackKeywords: Keywords = None,
            errbackArgs: Arguments = (),
            errbackKeywords: Keywords = None,
        ) -> Deferred[R]: ...

        @overload
        def addCallbacks(
            self,
            callback: Callable[Concatenate[T, P], Failure | R],
            errback: None = None,
            callbackArgs: Arguments = (),
            callbackKeywords: Keywords = None,
            errbackArgs: Arguments = (),
            errbackKeywords: Keywords = None,
        ) -> Deferred[R]: ...

        @overload
        def addCallbacks(
            self,
            callback: Callable[Concatenate[T, P], Failure | Deferred[R]],
            errback: Callable[Concatenate[Failure, P2], Failure | Deferred[R2]],
            callbackArgs: Arguments = (),
            callbackKeywords: Keywords = None,
            errbackArgs: Arguments = (),
            errbackKeywords: Keywords = None,
        ) -> Deferred[R | R2]: ...

        @overload
        def addCallbacks(
            self,
            callback: Callable[Concatenate[T, P], Failure | Deferred[R]],
            errback: Callable[Concatenate[Failure, P2], Failure | R2],
            callbackArgs: Arguments = (),
            callbackKeywords: Keywords = None,
            errbackArgs: Arguments = (),
            errbackKeywords: Keywords = None,
        ) -> Deferred[R | R2]: ...

        @overload
        def addCallbacks(
            self,
            callback: Callable[Concatenate[T, P], Failure | R],
            errback: Callable[Concatenate[Failure, P2], Failure | Deferred[R2]],
            callbackArgs: Arguments = (),
            callbackKeywords: Keywords = None,
            errbackArgs: Arguments = (),
            errbackKeywords: Keywords = None,
        ) -> Deferred[R | R2]: ...

        @overload
        def addCallbacks(
            self,
            callback: Callable[Concatenate[T, P], Failure | R],
            errback: Callable[Concatenate[Failure, P2], Failure | R2],
            callbackArgs: Arguments = (),
            callbackKeywords: Keywords = None,
            errbackArgs: Arguments = (),
            errbackKeywords: Keywords = None,
        ) -> Deferred[R | R2]: ...

    def addCallbacks(
        self,
        callback: Callable[..., Any],
        errback: Callable[..., Any] | None = None,
        callbackArgs: Arguments = (),
        callbackKeywords: Keywords = None,
        errbackArgs: Arguments = (),
        errbackKeywords: Keywords = None,
    ) -> Deferred[Any]:
        """Call `callback` with the result, or `errback` with the Failure: one of the two."""
        self._callbacks.append(
            (
                _step(callback, tuple(callbackArgs), dict(callbackKeywords or {})),
                errback and _step(errback, tuple(errbackArgs), dict(errbackKeywords or {})),
            )
        )
        if self.called:
            self._run()
        return self

    if TYPE_CHECKING:

        @overload
        def addCallback(
            self, callback: Callable[Concatenate[T, P], Failure | Deferred[R]], *args: P.args, **keywords: P.kwargs
        ) -> Deferred[R]: ...

        @overload
        def addCallback(
            self, callback: Callable[Concatenate[T, P], Failure | R], *args: P.args, **keywords: P.kwargs
        ) -> Deferred[R]: ...

    def addCallback(self, callback: Callable[..., Any], *args: Any, **keywords: Any) -> Deferred[Any]:
        """Call `callback(result, *args, **keywords)`; skipped while the result is a Failure."""
        self._callbacks.append((_step(callback, args, keywords), None))
        if self.called:
            self._run()
        return self

    if TYPE_CHECKING:

        @overload
        def addErrback(
            self, errback: Callable[Concatenate[Failure, P], Failure], *args: P.args, **keywords: P.kwargs
        ) -> Deferred[T]: ...

        @overload
        def addErrback(
            self,
            errback: Callable[Concatenate[Failure, P], Failure | Deferred[R]],
            *args: P.args,
            **keywords: P.kwargs,
        ) -> Deferred[T | R]: ...

        @overload
        def addErrback(
            self, errback: Callable[Concatenate[Failure, P], Failure | R], *args: P.args, **keywords: P.kwargs
        ) -> Deferred[T | R]: ...

    def addErrback(self, errback: Callable[..., Any], *args: Any, **keywords: Any) -> Deferred[Any]:
        """Call `errback(reason, *args, **keywords)` with a Failure; skipped while there is none.

        What it returns is the result from then on: the error counts as handled, unless it returns or raises one.
        """
        self._callbacks.append((None, _step(errback, args, keywords)))
        if self.called:
            self._run()
        return self

    if TYPE_CHECKING:

        @overload
        def addBoth(
            self,
            callback: Callable[Concatenate[T | Failure, P], Failure | Deferred[R]],
            *args: P.args,
            **keywords: P.kwargs,
        ) -> Deferred[R]: ...

        @overload
        def addBoth(
            self, callback: Callable[Concatenate[T | Failure, P], Failure | R], *args: P.args, **keywords: P.kwargs
        ) -> Deferred[R]: ...

    def addBoth(self, callback: Callable[..., Any], *args: Any, **keywords: Any) -> Deferred[Any]:
        """Call `callback(resultOrFailure, *args, **keywords)` whichever it is."""
        step = _step(callback, args, keywords)
        self._callbacks.append((step, step))
        if self.called:
            self._run()
        return self

    def chainDeferred(self, deferred: Deferred[T]) -> Deferred[None]:
        """Fire `deferred` with the result or the Failure; it is taken away here."""
        self._callbacks.append(deferred)
        if self.called:
            self._run()
        return self  # type: ignore[return-value]  # the same object, whose result has another type from here on

    def addTimeout(
        self,
        timeout: float,
        clock: ReactorTime,
        onTimeoutCancel: Callable[[Any, float], Any] | None = None,
    ) -> Self:
        """Cancel it unless there is a result within `timeout` seconds of `clock` (a reactor).

        The CancelledError then becomes a TimeoutError; or else `onTimeoutCancel(resultOrFailure, timeout)` says what.
        Callbacks added before this one count as part of what has to be done in time.
        """
        timedOut = False

        def timeOut() -> None:
            nonlocal timedOut
            timedOut = True
            self.cancel()

        call = clock.callLater(timeout, timeOut)

        def ended(result: Any) -> Any:
            if call.active():
                call.cancel()
            if not timedOut:
                return result
            if onTimeoutCancel is not None:
                return onTimeoutCancel(result, timeout)
            if isinstance(result, failure.Failure) and isinstance(result.value, CancelledError):
                return failure.Failure(TimeoutError(f"no result after {timeout:g} s"))
            return result

        self.addBoth(ended)
        return self

    # Firing.

    def callback(self, result: T) -> None:
        """There is a result; a Failure is one of an error. Raises AlreadyCalledError the second time."""
        if isinstance(result, Deferred):
            raise TypeError(
                f"callback() takes a result, not a Deferred: {result!r}; "
                "to wait for one, return it from a callback or use chainDeferred()"
            )
        if self._begin(result):
            self._run()

    def errback(self, fail: Failure | BaseException | None = None) -> None:
        """There will be no result, because of `fail` (None: the exception being handled).

        Raises AlreadyCalledError the second time.
        """
        if self._begin(_failureOf(fail)):
            self._run()

    def cancel(self) -> None:
        """Nobody needs the result any more.

        Before it is fired: the canceller is called, and if that does not fire it, the result is a CancelledError; with
        no canceller one later `callback` or `errback` is ignored. While it waits for another Deferred, that one is
        cancelled. Otherwise nothing.
        """
        target: Deferred[Any] = self
        while target.called:
            if not _isDeferred(target.result):
                return
            target = target.result
        canceller, target._canceller = target._canceller, None
        if canceller is None:
            target._swallow = True
        else:
            try:
                canceller(target)
            except BaseException as exc:
                failure.log(f"the canceller {_name(canceller)} raised", exc)
        if not target.called:
            target.errback(CancelledError())

    def pause(self) -> None:
        """Call no callbacks until `unpause` was called as often."""
        self.paused += 1

    def unpause(self) -> None:
        """Undo one `pause`. Raises RuntimeError if there was none."""
        if not self.paused:
            raise RuntimeError("unpause() without a pause()")
        self.paused -= 1
        if self.called and not self.paused:
            self._run()

    # How results move.

    def _begin(self, result: Any) -> bool:
        """Take the first result; False if it is to be ignored."""
        if self.called:
            if self._swallow:
                self._swallow = False
                return False
            raise AlreadyCalledError("this Deferred has a result already" + self._history())
        self.called = True
        # A canceller refers to what works for the result, which refers to us.
        self._canceller = None
        self.result = result
        if self.debug:
            self._fired = "".join(traceback.format_stack()[:-2])
        return True

    def _run(self) -> None:
        """Call what can be called, here and in those that wait for us."""
        if self._running or isinstance(self.result, Deferred):
            return
        current: Deferred[Any] = self
        interrupted: list[Deferred[Any]] = []
        while True:
            follower = current._advance()
            if follower is not None:
                if current._callbacks:
                    interrupted.append(current)
                current = follower
            elif interrupted:
                current = interrupted.pop()
            else:
                return

    def _advance(self) -> Deferred[Any] | None:
        """Call callbacks while there are any and none must be waited for.

        Stops at a Deferred that takes the result over, and returns it: it goes first.
        """
        if self._unhandled is not None:
            self._handled()
        callbacks = self._callbacks
        at = self._next
        result = self.result
        follower: Deferred[Any] | None = None
        self._running = True
        try:
            while at < len(callbacks) and not self.paused:
                entry = callbacks[at]
                callbacks[at] = None
                at += 1
                if entry.__class__ is not tuple:
                    follower, result = self._handOver(entry, result)
                    self.result = result
                    if follower is not None:
                        break
                    continue
                failed = isinstance(result, failure.Failure)
                step = entry[failed]
                if step is None:
                    continue
                try:
                    if step.__class__ is tuple:
                        function, args, keywords = step
                        new = function(result, *args, **keywords)
                    else:
                        new = step(result)
                except BaseException as exc:
                    new = _raised(exc, result)
                if failed and new is not result:
                    # Whoever keeps it, the frames have told what they had to tell.
                    result.cleanFailure()
                self.result = result = new
                if isinstance(new, Deferred):
                    self.result = result = self._waitFor(step)
                    if isinstance(result, Deferred):
                        break
        finally:
            self._running = False
            if at >= len(callbacks):
                callbacks.clear()
                at = 0
            elif at > 64 and at * 2 > len(callbacks):
                del callbacks[:at]
                at = 0
            self._next = at
        if isinstance(result, failure.Failure):
            result.cleanFailure()
            self._unhandled = _Unhandled(result, self._history())
        return follower

    def _waitFor(self, step: Any) -> Any:
        """A callback returned a Deferred: its result if that is there already, else itself, to hand it over later."""
        inner = self.result
        # While it runs, or stands aside for one that took its result over, some of its callbacks are left.
        if inner.called and not (inner.paused or inner._callbacks):
            result = inner.result
            if not isinstance(result, Deferred):
                inner.result = None
                inner._handled()
                return result
        # Only one that somebody waits for can be waited for by itself.
        if inner is self or (self._awaited and inner._waitsFor(self)):
            function = step[0] if step.__class__ is tuple else step
            return failure.Failure(
                RuntimeError(f"{_name(function)} returned a Deferred that waits for the one whose callback it is")
            )
        inner._awaited = True
        inner._callbacks.append(self)
        return inner

    def _handOver(self, other: Deferred[Any], result: Any) -> tuple[Deferred[Any] | None, Any]:
        """Give the result to one that waits for us or was chained; what is left here is the second part."""
        if other.called and other.result is self:
            other.result = result
            return other, None
        try:
            return (other if other._begin(result) else None), None
        except AlreadyCalledError as exc:
            return None, failure.Failure(exc)

    def _waitsFor(self, other: Deferred[Any]) -> bool:
        inner: object = self
        while _isDeferred(inner):
            if inner is other:
                return True
            inner = getattr(inner, "result", None)
        return False

    def _handled(self) -> None:
        unhandled = self._unhandled
        if unhandled is not None:
            unhandled.reason = None
            self._unhandled = None

    def _history(self) -> str:
        """Where it was made and fired, if that was remembered."""
        made = f"\nthis Deferred was made here:\n{self._made}" if self._made else ""
        fired = f"\nthis Deferred was fired here:\n{self._fired}" if self._fired else ""
        return f"{made}{fired}"


def _isDeferred(value: object) -> TypeGuard[Deferred[Any]]:
    return isinstance(value, Deferred)


def _step(function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    if not callable(function):
        raise TypeError(f"a callback is something to call, not {function!r}")
    return (function, args, keywords) if args or keywords else function


def _failureOf(fail: object) -> Failure:
    if isinstance(fail, failure.Failure):
        return fail
    if fail is None or isinstance(fail, BaseException):
        return failure.Failure(fail)
    raise TypeError(f"a Deferred fails with a Failure or an exception, not with {fail!r}")


def _raised(exc: BaseException, result: Any) -> Failure:
    """What a callback raised; the same Failure if an errback raised the very exception that it was told of."""
    trace = exc.__traceback__
    # The first place is our own call; it is left only where a callback written in C would leave nothing.
    if trace is not None and trace.tb_next is not None:
        exc.__traceback__ = trace.tb_next
    if isinstance(result, failure.Failure) and result.value is exc:
        return result
    return failure.Failure(exc)


def _name(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def setDebugging(on: bool) -> None:
    """Whether Deferreds made from now on remember where they were made and fired, for error messages. Slow."""
    Deferred.debug = bool(on)


def getDebugging() -> bool:
    """What setDebugging has set."""
    return Deferred.debug


# Making Deferreds.


def succeed(result: T) -> Deferred[T]:
    """A Deferred that has `result` already."""
    deferred: Deferred[T] = Deferred()
    deferred.callback(result)
    return deferred


def fail(result: Failure | BaseException | None = None) -> Deferred[Any]:
    """A Deferred that has failed already; None: with the exception being handled."""
    deferred: Deferred[Any] = Deferred()
    deferred.errback(result)
    return deferred


def execute(function: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> Deferred[T]:
    """Call `function`: a Deferred with what it returned, or with the exception that it raised."""
    try:
        result = function(*args, **keywords)
    except BaseException as exc:
        return fail(_raised(exc, None))
    return succeed(result)


if TYPE_CHECKING:

    @overload
    def maybeDeferred(
        function: Callable[P, Failure | Deferred[T]], *args: P.args, **keywords: P.kwargs
    ) -> Deferred[T]: ...

    @overload
    def maybeDeferred(function: Callable[P, Failure | T], *args: P.args, **keywords: P.kwargs) -> Deferred[T]: ...


def maybeDeferred(function: Callable[..., Any], *args: Any, **keywords: Any) -> Deferred[Any]:
    """Call `function`, which may return a Deferred (that one is returned), a Failure or a result, or raise."""
    try:
        result = function(*args, **keywords)
    except BaseException as exc:
        return fail(_raised(exc, None))
    if _isDeferred(result):
        return result
    return succeed(result)


# Joining Deferreds.


class DeferredList(Deferred["list[tuple[bool, Any]]"]):
    """Waits for all of `deferreds`; the result is a list of (success, result or Failure), in their order.

    `fireOnOneCallback`: the first result ends the waiting, as (result, index). `fireOnOneErrback`: the first failure
    does, as a FirstError. Each Deferred keeps its own result; `consumeErrors` takes their failures away, so that they
    count as handled. Cancelling it cancels all that are left.
    """

    def __init__(
        self,
        deferreds: Iterable[Deferred[Any]],
        fireOnOneCallback: bool = False,
        fireOnOneErrback: bool = False,
        consumeErrors: bool = False,
    ) -> None:
        super().__init__(_cancelMembers)
        self.fireOnOneCallback = fireOnOneCallback
        self.fireOnOneErrback = fireOnOneErrback
        self.consumeErrors = consumeErrors
        self._members = list(deferreds)
        self._results: list[Any] = [None] * len(self._members)
        self._left = len(self._members)
        if not self._members and not fireOnOneCallback:
            self.callback([])
        for index, deferred in enumerate(list(self._members)):
            deferred.addCallbacks(
                self._memberFired, self._memberFired, callbackArgs=(index, True), errbackArgs=(index, False)
            )

    def _memberFired(self, result: Any, index: int, success: bool) -> Any:
        self._results[index] = (success, result)
        self._left -= 1
        if not self.called:
            if success and self.fireOnOneCallback:
                self._end((result, index))
            elif not success and self.fireOnOneErrback:
                self._end(failure.Failure(FirstError(result, index)))
            elif not self._left:
                self._end(self._results)
        return None if self.consumeErrors and not success else result

    def _end(self, result: Any) -> None:
        self._members = []
        if isinstance(result, failure.Failure):
            self.errback(result)
        else:
            self.callback(result)


def _cancelMembers(joined: Any) -> None:
    # Not a bound method: a list that never fires must be freed when the last one forgets it.
    for deferred in list(joined._members):
        deferred.cancel()


def gatherResults(deferreds: Iterable[Deferred[T]], consumeErrors: bool = False) -> Deferred[list[T]]:
    """The list of all results, in order; the first failure ends the waiting, as a FirstError."""
    joined = DeferredList(deferreds, fireOnOneErrback=True, consumeErrors=consumeErrors)
    return joined.addCallback(lambda results: [result for _, result in results])


def race(deferreds: Iterable[Deferred[T]]) -> Deferred[tuple[int, T]]:
    """The first result, as (index, result); the others are cancelled, and what becomes of them is dropped.

    If all fail, a FailureGroup. Cancelling it cancels all. Raises ValueError if there is none.
    """
    runners = list(deferreds)
    if not runners:
        raise ValueError("a race without anybody in it would never end")
    failures: dict[int, Failure] = {}
    over = False

    def end(winner: Deferred[T] | None) -> None:
        nonlocal over
        over = True
        for runner in runners:
            if runner is not winner:
                runner.cancel()

    raced: Deferred[tuple[int, T]] = Deferred(lambda _: end(None))

    def succeeded(result: T, index: int) -> None:
        if not over:
            end(runners[index])
            raced.callback((index, result))

    def failed(reason: Failure, index: int) -> None:
        if not over:
            failures[index] = reason
            if len(failures) == len(runners):
                raced.errback(FailureGroup([failures[at] for at in range(len(runners))]))

    for index, runner in enumerate(runners):
        runner.addCallbacks(succeeded, failed, callbackArgs=(index,), errbackArgs=(index,))
    return raced
