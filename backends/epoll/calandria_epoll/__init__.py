"""The backend for Linux: epoll(7), level-triggered.

Its bits are ours, so the kernel's list goes to the reactor as it is; if more is ready than a batch holds, the kernel
goes on with the others the next time. It forgets a descriptor whose file is closed, without a word to us: hence the
second attempts in `watch`.
"""

from __future__ import annotations

import select

from calandria import error
from calandria.plugin import Backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class EpollBackend(Backend):
    """Owns the epoll descriptor, in the reactor's thread."""

    name = "epoll"

    @classmethod
    def unavailable(cls) -> str | None:
        """Why there is no epoll here: another system, or a sandbox that forbids it."""
        make: Any = getattr(select, "epoll", None)  # a name that type checkers know on Linux only
        if make is None:
            return "the select module of this Python has no epoll: it exists on Linux"
        try:
            make().close()
        except OSError as exc:
            return f"the kernel gives no epoll descriptor: {exc.strerror}"
        return None

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        system: Any = select
        self._epoll: Any = system.epoll()
        self._wait: Callable[[float | None, int], list[tuple[int, int]]] = self._epoll.poll
        self._watched: set[int] = set()

    def watch(self, fd: int, interest: int) -> None:
        """Tell the kernel; one system call, two if a number was closed and reused without our knowledge."""
        if not interest:
            if fd in self._watched:
                self._watched.discard(fd)
                try:
                    self._epoll.unregister(fd)
                except OSError:
                    pass  # closed meanwhile: the kernel has forgotten it already
            return
        try:
            if fd in self._watched:
                try:
                    self._epoll.modify(fd, interest)
                except FileNotFoundError:  # ENOENT: the number is another file's by now
                    self._epoll.register(fd, interest)
            else:
                try:
                    self._epoll.register(fd, interest)
                except FileExistsError:  # EEXIST: closed when we forgot it, but a duplicate kept it in the set
                    self._epoll.modify(fd, interest)
        except (OSError, ValueError, OverflowError) as exc:
            self.watch(fd, 0)
            reason = error.describe(exc)
            if isinstance(exc, PermissionError):  # EPERM, which says little
                reason = "a regular file or a directory is always ready, there is nothing to wait for"
            raise error.UnsupportedDescriptor(f"epoll cannot watch descriptor {fd}: {reason}") from exc
        self._watched.add(fd)

    def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """The kernel's own list. Python rounds the time-out up to milliseconds, the unit of epoll_wait(2)."""
        return self._wait(timeout, 256)

    def fileno(self) -> int:
        """The epoll descriptor: readable when an event waits. -1 when closed."""
        return -1 if self._epoll.closed else self._epoll.fileno()

    def close(self) -> None:
        """Close the epoll descriptor, of this process only."""
        self._watched.clear()
        self._epoll.close()
