"""Signals: SIGINT, SIGTERM and SIGBREAK stop the reactor that runs in the main thread.

Everything that stood there before is put back when the reactor has run. A host's own handlers are left alone unless
they are asked for ("force"). Signals that only interrupt the poll of another thread reach us through the wakeup
descriptor.
"""

from __future__ import annotations

import signal
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any


class SignalHandlers:
    """The handlers of one run; made and undone in the main thread.

    `stop()` is called (in the signal handler) for the first signal, `hurry()` for each later one; a second SIGINT
    raises KeyboardInterrupt where the main thread just is.
    """

    def __init__(self, stop: Callable[[int], None], hurry: Callable[[], None]) -> None:
        self._stop = stop
        self._hurry = hurry
        self._before: dict[int, Any] = {}
        self._wakeupBefore: int | None = None
        self._caught = self._handling = False
        self._interrupts = 0

    def install(self, wakeupFileno: int | None, *, force: bool) -> None:
        """Take the signals that are ours to take; nothing in any thread but the main one."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name, default in (
            ("SIGINT", signal.default_int_handler),
            ("SIGTERM", signal.SIG_DFL),
            ("SIGBREAK", signal.SIG_DFL),
        ):
            number = getattr(signal, name, None)
            if number is not None and (force or signal.getsignal(number) == default):
                self._before[number] = signal.signal(number, self._caughtOne)
        if wakeupFileno is not None:
            self._wakeupBefore = signal.set_wakeup_fd(wakeupFileno, warn_on_full_buffer=False)

    def restore(self) -> None:
        """Put back what stood there before."""
        if self._before and sys.platform != "win32":
            # What CPython has noted, and not handled before the handler changes, it drops with a complaint.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            try:
                try:
                    signal.pthread_sigmask(signal.SIG_BLOCK, self._before)  # and handles what was noted
                finally:
                    self._putBack()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        else:
            self._putBack()
        if self._wakeupBefore is not None:
            wakeupFileno, self._wakeupBefore = self._wakeupBefore, None
            signal.set_wakeup_fd(wakeupFileno)

    def _putBack(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None: a handler that was not set by Python, and that Python cannot set again.
            if handler is not None and signal.getsignal(number) == self._caughtOne:
                signal.signal(number, handler)

    def _caughtOne(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
        if self._handling:
            return  # a storm is one wish, and must not pile up frames
        self._handling = True
        try:
            if self._caught:
                self._hurry()
            else:
                self._caught = True
                self._stop(number)
        finally:
            self._handling = False
