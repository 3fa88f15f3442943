"""B16, L27: a host's signal handler raises, at each moment of the loop at which CPython may call it, one by one.

An exception is thrown into the loop's and the waker's own functions from a trace function, which is as near as one
comes to a signal without leaving the moment to luck.
"""

from __future__ import annotations

import dis
import select
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from calandria import Reactor, error
from calandria._waker import Waker
from tests.core.tools import tracedStream
from tests.helpers import Background
from tests.recorders import Recorder

if TYPE_CHECKING:
    from types import FrameType

    from tests.helpers import LogCapture

# Where the interpreter looks for signals: when it enters a function, jumps back, and after a call.
LOOKS = ("CALL", "PRECALL", "RESUME", "JUMP_BACKWARD")
# A reactor that nobody wakes sleeps for so long (seconds).
OVERSLEPT = 2.0


class Injected:
    """Raises `exception` at the n-th of the moments; `where` says which one that was, "" if there were fewer."""

    def __init__(self, exception: BaseException, moment: int) -> None:
        self._exception = exception
        self._left = moment
        self._before: dict[FrameType, str] = {}
        self.where = ""

    def __enter__(self) -> Injected:
        # Python 3.12 traces opcodes only if some frame had asked for it when tracing began.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        return self

    def __exit__(self, *unused: object) -> None:
        sys.settrace(None)
        self._before.clear()

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if not code.co_filename.endswith(("_loop.py", "_waker.py")) or code.co_name == "__del__":
            return None  # what a finalizer raises is printed and goes no further, whichever garbage the collector met
        frame.f_trace_opcodes = True
        if event == "opcode":
            before = self._before.get(frame, "")
            self._before[frame] = dis.opname[code.co_code[frame.f_lasti]]
            if before.startswith(LOOKS) and not self.where:
                self._left -= 1
                if not self._left:
                    self.where = f"{code.co_qualname}, line {frame.f_lineno}, after {before}"
                    raise self._exception
        elif event == "return":
            self._before.pop(frame, None)
        return self._trace


class Life:
    """Three streams that get bytes; three timers and three calls from threads that send some."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.made: list[str] = []
        self.recorders = [Recorder() for _ in range(3)]
        self.pairs = [tracedStream(reactor, [], recorder) for recorder in self.recorders]
        self.lostEarly: list[Recorder] = []
        reactor.addSystemEventTrigger("before", "shutdown", self.look)

    def run(self, *, busy: bool) -> bool:
        """A run that another thread ends when the reactor sleeps; whether it overslept."""
        asleep = threading.Event()
        overslept: list[bool] = []

        def end() -> None:
            asleep.wait(0.1)
            try:
                for _ in range(2):  # one call may be gone
                    self.reactor.callFromThread(self.stop)
            except error.ReactorNotRunning:
                pass  # it has stopped

        def tooLate() -> None:
            overslept.append(True)
            self.reactor.crash()

        for number, (_, peer) in enumerate(self.pairs if busy else []):
            self.reactor.callLater(0, self.send, "timer", number)
            peer.send(b"in")
        self.reactor.callLater(0.005, asleep.set)
        last = self.reactor.callLater(OVERSLEPT, tooLate)
        thread = Background(end)
        try:
            self.reactor.run(installSignalHandlers=False)
        finally:
            asleep.set()
            thread.result()
            if last.active():
                last.cancel()
        return bool(overslept)

    def look(self) -> None:
        self.lostEarly = [recorder for recorder in self.recorders if recorder.lost]

    def stop(self) -> None:
        if self.reactor.running:
            self.reactor.stop()

    def send(self, what: str, number: int) -> None:
        if what == "timer":
            self.reactor.callFromThread(self.send, "call", number)
        self.made.append(f"{what} {number}")
        self.pairs[number][0].write(what.encode())

    def wrong(self) -> str:
        """What is amiss; one timer (with its call) or one call may be gone: what was just being handed over."""
        if len(self.made) < 4 or len(set(self.made)) < len(self.made):
            return f"made: {self.made}"
        # The stream that was being called when the exception came is taken for the one that raised.
        if len(self.lostEarly) > 1:
            return f"{len(self.lostEarly)} streams were lost"
        for number, (recorder, (_, peer)) in enumerate(zip(self.recorders, self.pairs, strict=True)):
            if recorder not in self.lostEarly:
                expected = sorted("".join(one.split()[0] for one in self.made if one.endswith(str(number))))
                peer.setblocking(False)
                if (bytes(recorder.received), sorted(peer.recv(100).decode())) != (b"in", expected):
                    return f"stream {number} has not sent {expected}, or not received"
        return ""


def live(exception: BaseException, moment: int) -> tuple[str, str]:
    """Two lives, with the exception in the first one: where it came, and what was wrong."""
    raised: BaseException | None = None
    overslept = False
    with Reactor(backend="poll") as reactor:
        life = Life(reactor)
        with Injected(exception, moment) as injected:
            try:
                overslept = life.run(busy=True)
            except BaseException as exc:
                raised = exc
        gentle = isinstance(exception, Exception)
        wrong = ""
        if overslept:
            wrong = "it slept on"
        elif raised is not None if gentle and "drain" not in injected.where else raised not in (None, exception):
            wrong = f"run() raised {raised!r}"
        elif gentle:
            wrong = life.wrong()
        ends = [recorder.events.count("lost") for recorder in life.recorders]
        if not wrong and ends != [1, 1, 1]:
            wrong = f"connectionLost was called so often: {ends}"
        if not wrong and life.run(busy=False):
            wrong = "the next life slept on"
        for _, peer in life.pairs:
            peer.close()
    return injected.where, wrong


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_anExceptionAtEachMoment(kind: type[BaseException], logs: LogCapture) -> None:
    wrong: list[str] = []
    moment = 0
    while True:
        moment += 1
        where, what = live(kind("out of a signal handler"), moment)
        if what:
            wrong.append(f"{where or 'undisturbed'}: {what}")
        if not where:
            break
    logs.takeErrors()
    assert wrong == []
    assert moment > 50, "nothing was traced"


class Meanwhile:
    """Another thread asks to be noticed at the n-th moment of `Waker.doRead` at which threads may be switched."""

    def __init__(self, waker: Waker, moment: int) -> None:
        self._waker = waker
        self._left = moment
        self.met = False

    def __enter__(self) -> Meanwhile:
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        return self

    def __exit__(self, *unused: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code is not Waker.doRead.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if not self._left:
                self.met = True
                self._waker.wake()
        return self._trace


def test_aWakeAtEachMomentOfDoRead_isNotLost() -> None:
    """Whoever finds the flag set sends no byte: so as long as it is set, there must be one."""
    lost: list[int] = []
    moment = 0
    while True:
        moment += 1
        waker = Waker(socket.socketpair())
        try:
            waker.wake()
            with Meanwhile(waker, moment) as meanwhile:
                waker.doRead()
            readable, _, _ = select.select([waker.fileno()], [], [], 0)
            if waker.awake and not readable:
                lost.append(moment)
        finally:
            waker.close()
        if not meanwhile.met:
            break
    assert lost == []
    assert moment > 5, "nothing was traced"
