"""The loop: what happens in one turn, in which order, and what becomes of a callback that raises.

Send what was written; sleep until something is ready; read and write; calls from other threads; timers. The order and
the bounds are the contract (docs/embedding.md). `run`, `mainLoop` and `iterate` of the reactor all enter `turns`.
"""

from __future__ import annotations

from heapq import heappop
from threading import get_ident

from calandria import error, failure
from calandria._backend import READABLE, WRITABLE
from calandria._debug import nameOf, reportSlow, userOf
from calandria._loglimit import LogLimit
from calandria._timers import CALLED, Timers, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from calandria._backend import Backend
    from calandria._descriptors import Descriptors
    from calandria._hooks import Observers
    from calandria._threads import ThreadCalls
    from calandria.interfaces import ReadDescriptor, WriteDescriptor

    class Flushing(Protocol):
        """What waits in `unsent`."""

        def flush(self) -> None: ...


# What a backend may be asked to sleep at the most (seconds); longer waits are taken in several turns.
LONGEST_SLEEP = 86400.0
# After so many timers in one turn, and an eighth of all, the others that are due are sorted instead of being taken off
# the heap one by one: a third less for 200,000 at once, and never more than looking at eight for each one taken.
MANY_DUE = 64
# A batch of this size may have been cut short by the backend: there may be more.
FULL_BATCH = 256
# A callback that keeps the loop for longer (seconds) is reported, in debug mode and to observers.
SLOW = 0.1


class Loop:
    """The turns of one reactor; owned by it, used on its thread.

    `stopping` is called at the end of the turn in which `stopWanted` was set.
    """

    def __init__(
        self,
        backend: Backend,
        timers: Timers,
        descriptors: Descriptors,
        unsent: list[Flushing],
        calls: ThreadCalls,
        stopping: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._timers = timers
        self._descriptors = descriptors
        self._unsent = unsent
        self._calls = calls
        self._stopping = stopping
        self.seconds = backend.seconds
        self.logLimit = LogLimit(backend.seconds)
        self.debug = False
        self.observers: Observers | None = None
        # Whether the turns go on; whether users are being called; whether the end was asked for.
        self.going = False
        self.calling = False
        self.stopWanted = False
        # Whether we are a copy in a child process, where no turn is to go on.
        self.inherited = False
        # What came out of a callback and is no Exception: it ends the turns in order, and leaves `run()` then.
        self.escaping: BaseException | None = None

    @property
    def timed(self) -> bool:
        """Whether somebody wants to know of slow callbacks."""
        return self.debug or (self.observers is not None and self.observers.slowCallback is not None)

    def timeout(self) -> float | None:
        """How long (seconds) may be slept: 0 if something waits, else until the next timer; None: for ever."""
        if self._unsent or self._calls.calls or self.stopWanted:
            return 0.0
        due = self._timers.next()
        if due is None:
            return None
        return min(max(due - self.seconds(), 0.0), LONGEST_SLEEP)

    def turns(self, delay: float | None, *, once: bool) -> None:
        """Turns for as long as we are `going` or, with `once`, just one that sleeps for `delay` seconds at the most."""
        descriptors, timers, unsent = self._descriptors, self._timers, self._unsent
        readers, writers, lowered, heap = descriptors.readers, descriptors.writers, descriptors.lowered, timers.heap
        calls, seconds, poll = self._calls.calls, self.seconds, self._backend.poll
        observers = self.observers
        turn = observers.turn if observers is not None else None
        timed = self.timed
        reader: ReadDescriptor | None
        writer: WriteDescriptor | None
        self.calling = True
        try:
            while True:
                if unsent:
                    self.flush(timed)
                    if self.inherited or not (self.going or once):
                        break  # it was a child that came out of a callback, or crash() was called in one
                if lowered:
                    descriptors.settle()
                timeout = self.timeout() if heap or unsent or calls or self.stopWanted else None
                if once and delay is not None and (timeout is None or timeout > delay):
                    timeout = min(delay, LONGEST_SLEEP)
                asleep = seconds() if turn is not None else 0.0
                events = poll(timeout)
                now = awake = seconds()
                mark = timers.made
                count = len(events)
                batches = len(descriptors) // FULL_BATCH + 1 if count >= FULL_BATCH else 0
                while True:
                    if timed:
                        self._dispatchTimed(events)
                    else:
                        for fd, bits in events:
                            # An earlier callback of the batch may have closed or stopped anybody: look again. The
                            # numbers are WRITABLE and READABLE: any bit but the other one means "try".
                            if bits != 4 and fd in readers:
                                reader = readers[fd]
                                try:
                                    why = reader.doRead()
                                except BaseException as exc:
                                    self.raised(reader, exc)
                                else:
                                    if why:
                                        self._answered(reader, why, reading=True)
                            if bits != 1 and fd in writers:
                                writer = writers[fd]
                                try:
                                    why = writer.doWrite()
                                except BaseException as exc:
                                    self.raised(writer, exc)
                                else:
                                    if why:
                                        self._answered(writer, why, reading=False)
                    if not batches or len(events) < FULL_BATCH:
                        break
                    # More may be ready, and whatever had arrived by now comes before a timer that would judge it late.
                    batches -= 1
                    if unsent:
                        self.flush(timed)
                    if lowered:
                        descriptors.settle()
                    events = poll(0.0)
                    now = seconds()
                    count += len(events)
                # What ended in this turn is not to live on in this frame.
                reader = writer = None
                if calls:
                    self._runCalls(timed)
                made = 0
                if heap and heap[0][0] <= now:
                    made = self._runTimers(now, mark, timed)
                if self.stopWanted:
                    self._stopping()
                if turn is not None:
                    turn(awake - asleep, seconds() - awake, count, made)
                if once:
                    if unsent:
                        self.flush(timed)
                    if lowered:
                        descriptors.settle()
                    break
                if not self.going:
                    break
        finally:
            self.calling = False

    def flush(self, timed: bool = False) -> None:
        """Let the streams that wait now send; those added meanwhile wait for the next turn."""
        unsent = self._unsent
        batch = iter(unsent[:])
        stream = None
        began = 0.0
        try:
            del unsent[:]
            for stream in batch:
                if timed:
                    began = self.seconds()
                try:
                    stream.flush()
                except BaseException as exc:
                    self.raised(stream, exc)
                if timed:
                    self.measured(userOf(stream, "flush"), began)
        except BaseException:  # a signal handler raised between two of them
            unsent[:0] = batch if stream is None else [stream, *batch]
            raise

    def drain(self, most: int) -> int:
        """Make the calls that wait, and at most `most` of those that they add; how many were dropped then."""
        popleft = self._calls.popleft
        self._calls.drainer = get_ident()
        try:
            for _ in range(len(self._calls.calls) + most):
                try:
                    call = popleft()
                except IndexError:
                    return 0
                try:
                    call()
                except BaseException as exc:
                    self.callbackRaised(f"the call {describe(call)} from a thread", exc)
        finally:
            self._calls.drainer = None
        left = len(self._calls.calls)
        self._calls.calls.clear()
        return left

    def _runCalls(self, timed: bool) -> None:
        """Calls from threads: those present now, no more."""
        popleft = self._calls.popleft
        began = 0.0
        for _ in range(len(self._calls.calls)):
            try:
                call = popleft()
            except IndexError:
                return  # its own thread took it back
            if timed:
                began = self.seconds()
            try:
                call()
            except BaseException as exc:
                self.callbackRaised(f"the call {describe(call)} from a thread", exc)
            if timed:
                self.measured(call, began)

    def _runTimers(self, now: float, mark: int, timed: bool) -> int:
        """The calls due at `now` that were made before the mark; how many they were."""
        timers = self._timers
        heap, due, aside = timers.heap, timers.due, timers.aside
        count = taken = 0
        began = 0.0
        try:
            while due or (heap and heap[0][0] <= now):
                if due:
                    entry = due.pop()
                elif taken > MANY_DUE and taken > len(heap) >> 3:
                    timers.sortDue(now)
                    taken = 0
                    continue
                else:
                    entry = heappop(heap)
                    taken += 1
                _, number, call = entry
                if call.number != number:
                    continue  # stale
                if number > mark:
                    aside.append(entry)
                    continue
                call.number = CALLED
                timers.live -= 1
                count += 1
                function, args, keywords = call.func, call.args, call.keywords
                call.func = call.args = call.keywords = None
                if timed:
                    began = self.seconds()
                try:
                    if keywords is None:
                        function(*args)  # type: ignore[misc]  # a live call has both
                    else:
                        function(*args, **keywords)  # type: ignore[misc]
                except BaseException as exc:
                    made = f"it was made here:\n{call.creator.stack}" if call.creator else ""
                    self.callbackRaised(f"the delayed call {describe(function)}", exc, made)
                if timed:
                    self.measured(function, began)
                # Nothing of a call that was made outlives it, in this frame either.
                entry = call = function = args = keywords = None  # type: ignore[assignment]
        finally:
            timers.putBack()
        return count

    def _dispatchTimed(self, events: Sequence[tuple[int, int]]) -> None:
        """What `turns` does with a batch, with a look at the clock around each callback."""
        tables: tuple[tuple[int, dict[int, Any], str], ...] = (
            (WRITABLE, self._descriptors.readers, "doRead"),
            (READABLE, self._descriptors.writers, "doWrite"),
        )
        for fd, bits in events:
            for other, table, method in tables:
                owner = table.get(fd) if bits != other else None
                if owner is not None:
                    began = self.seconds()
                    try:
                        why = getattr(owner, method)()
                    except BaseException as exc:
                        self.raised(owner, exc)
                    else:
                        if why:
                            self._answered(owner, why, reading=method == "doRead")
                    self.measured(userOf(owner, method), began)

    def measured(self, what: object, began: float) -> None:
        took = self.seconds() - began
        if took > SLOW:
            reportSlow(what, took, self.observers, self.logLimit if self.debug else None)

    # When callbacks raise.

    def raised(self, owner: Any, exc: BaseException) -> None:
        """A callback about `owner`, which can be lost, raised: that one is lost, nothing else."""
        if isinstance(exc, Exception):
            reason = failure.Failure(exc)
            failure.log(f"{nameOf(owner)} raised", reason)
            self.lose(owner, reason)
        else:
            self.escape(exc)
            # It is not to be called again. The exception itself keeps its traceback for whoever gets it from run().
            self.lose(owner, failure.Failure(error.ConnectionLost(f"{exc!r} came out of a callback")))

    def callbackRaised(self, what: str, exc: BaseException, details: str = "") -> None:
        """A callback with nothing to lose raised: it is logged."""
        if isinstance(exc, Exception):
            failure.log(f"{what} raised", exc, details)
        else:
            self.escape(exc)

    def escape(self, exc: BaseException) -> None:
        """Shut down in order, and let `exc` leave `run()` then; the first one wins."""
        if self.escaping is None:
            self.escaping = exc
        self.stopWanted = self.going

    def leave(self) -> None:
        """Where there is no run to leave, or none any more: what came out of a callback and is no Exception goes on."""
        escaping, self.escaping = self.escaping, None
        if escaping is not None:
            try:
                raise escaping
            finally:
                del escaping  # its traceback holds this frame

    def lose(self, owner: Any, reason: failure.Failure) -> None:
        """Out of the tables, and `connectionLost`."""
        if not hasattr(owner, "abandon"):  # what the reactor owns gets out by itself
            self._descriptors.removeOwner(owner)
        try:
            owner.connectionLost(reason)
        except BaseException as exc:
            self.callbackRaised(f"connectionLost of {nameOf(owner)}", exc)

    def _answered(self, owner: Any, why: object, *, reading: bool) -> None:
        """A foreign descriptor answered that it has ended: an exception, a Failure, or any other true value."""
        if isinstance(why, failure.Failure):
            reason = why
        elif isinstance(why, BaseException):
            reason = failure.Failure(why)
        else:
            reason = failure.Failure(error.ConnectionLost(f"{nameOf(owner)} ended with {why!r}"))
        if reading and type(reason.value) is error.ConnectionDone and hasattr(owner, "readConnectionLost"):
            self._descriptors.removeForeign(owner, self._descriptors.readers)
            try:
                owner.readConnectionLost(reason)
            except BaseException as exc:
                self.raised(owner, exc)
        else:
            self.lose(owner, reason)
