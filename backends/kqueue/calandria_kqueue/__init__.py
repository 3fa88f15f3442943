"""The backend for macOS and the BSDs: kqueue(2), level-triggered.

Reading and writing are two filters of one descriptor, apart in what goes in and in what comes out. Written from the
manual page and run on Linux only, against a stand-in for the kernel: nothing here has been run on macOS or a BSD.
"""

from __future__ import annotations

import select

from calandria import error
from calandria.plugin import READABLE, WRITABLE, Backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class KqueueBackend(Backend):
    """Owns the kqueue descriptor (which a child process does not inherit), in the reactor's thread."""

    name = "kqueue"

    @classmethod
    def unavailable(cls) -> str | None:
        """Why there is no kqueue here: another system, or no descriptor for it."""
        make: Any = getattr(select, "kqueue", None)  # asked at each call: a stand-in may have come since the import
        if make is None:
            return "the select module of this Python has no kqueue: it exists on macOS and the BSDs"
        try:
            make().close()
        except OSError as exc:
            return f"the kernel gives no kqueue descriptor: {exc.strerror}"
        return None

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        system: Any = select  # type checkers know the names below on macOS and the BSDs only
        self._kqueue: Any = system.kqueue()
        self._kevent: Any = system.kevent
        self._add: int = system.KQ_EV_ADD | system.KQ_EV_ENABLE
        self._delete: int = system.KQ_EV_DELETE
        self._filters: tuple[tuple[int, int], ...] = (
            (READABLE, system.KQ_FILTER_READ),
            (WRITABLE, system.KQ_FILTER_WRITE),
        )
        self._bits: dict[int, int] = {number: bit for bit, number in self._filters}
        self._watched: dict[int, int] = {}
        # Pipes whose other end was gone when they were added, which some of these kernels refuse with EPIPE. They are
        # as good as ready: trying tells.
        self._broken: dict[int, int] = {}

    def watch(self, fd: int, interest: int) -> None:
        """Add what is wanted, delete what is not any more; one system call for each.

        What is wanted is added each time: the kernel deletes the filters of a descriptor that is closed without a word
        to us, and the number may be another file's by now. Adding a filter that is there changes nothing.
        """
        before = self._watched.get(fd, 0)
        self._broken.pop(fd, None)
        for bit, number in self._filters:
            if interest & bit:
                try:
                    self._kqueue.control([self._kevent(fd, number, self._add)], 0)
                except BrokenPipeError:
                    self._broken[fd] = self._broken.get(fd, 0) | bit
                except (OSError, ValueError, OverflowError) as exc:
                    self._watched[fd] = before | interest  # whatever of it stands is deleted
                    self.watch(fd, 0)
                    text = f"kqueue cannot watch descriptor {fd}: {error.describe(exc)}"
                    raise error.UnsupportedDescriptor(text) from exc
            elif before & bit:
                try:
                    self._kqueue.control([self._kevent(fd, number, self._delete)], 0)
                except (OSError, ValueError, OverflowError):
                    pass  # closed meanwhile, so the kernel has forgotten it already; or refused just now
        if interest:
            self._watched[fd] = interest
        else:
            self._watched.pop(fd, None)

    def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """The filters that are ready. End of stream and errors are flags of one of them: trying tells which it is."""
        bits = self._bits
        if not self._broken:
            return [(event.ident, bits[event.filter]) for event in self._kqueue.control(None, 256, timeout)]
        broken = list(self._broken.items())[:128]  # half of a batch at most: the others are not to wait for these
        return broken + [(event.ident, bits[event.filter]) for event in self._kqueue.control(None, 128, 0)]

    def fileno(self) -> int:
        """The kqueue descriptor: readable when an event waits. -1 when closed."""
        return -1 if self._kqueue.closed else self._kqueue.fileno()

    def close(self) -> None:
        """Close the kqueue descriptor."""
        self._watched.clear()
        self._broken.clear()
        self._kqueue.close()
