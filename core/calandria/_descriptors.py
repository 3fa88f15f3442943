"""Who waits for which descriptor: two tables that the loop reads, and what the backend has been told.

First the kernel, then our books. New interest goes to the backend at once, so that a refusal is raised where it was
asked for; interest that has gone waits for the next poll, so that a pause and a resume in one turn cost no system call.
"""

from __future__ import annotations

from calandria import error
from calandria._backend import READABLE, WRITABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from calandria._backend import Backend
    from calandria.interfaces import ReadDescriptor, WriteDescriptor


class Descriptors:
    """Owned by one reactor, used on its thread. `evicted` is told of owners whose number is somebody else's now."""

    __slots__ = ("_evicted", "_interest", "_watch", "lowered", "readers", "writers")

    def __init__(self, backend: Backend, evicted: Callable[[ReadDescriptor | WriteDescriptor], None]) -> None:
        self._watch = backend.watch
        self._evicted = evicted
        self._interest: dict[int, int] = {}
        self.readers: dict[int, ReadDescriptor] = {}
        self.writers: dict[int, WriteDescriptor] = {}
        self.lowered: set[int] = set()

    def __len__(self) -> int:
        return len(self._interest)

    def enter(self, fd: int, owner: ReadDescriptor) -> None:
        """Read for a new owner of the number: whoever still stands under it was closed behind our back.

        Raises error.UnsupportedDescriptor.
        """
        if fd in self._interest:
            self.evict(fd, owner)
        self._watch(fd, READABLE)
        self._interest[fd] = READABLE
        self.readers[fd] = owner

    def addReader(self, fd: int, owner: ReadDescriptor) -> None:
        """Call `owner.doRead` when `fd` may be read. Raises error.UnsupportedDescriptor."""
        interest = self._interest.get(fd, 0)
        if not interest & READABLE:
            self._watch(fd, interest | READABLE)
            self._interest[fd] = interest | READABLE
        self.readers[fd] = owner

    def addWriter(self, fd: int, owner: WriteDescriptor) -> None:
        """Call `owner.doWrite` when `fd` may be written. Raises error.UnsupportedDescriptor."""
        interest = self._interest.get(fd, 0)
        if not interest & WRITABLE:
            self._watch(fd, interest | WRITABLE)
            self._interest[fd] = interest | WRITABLE
        self.writers[fd] = owner

    def removeReader(self, fd: int) -> None:
        """No longer read `fd`; nothing if nobody did."""
        if self.readers.pop(fd, None) is not None:
            self.lowered.add(fd)

    def removeWriter(self, fd: int) -> None:
        """No longer write `fd`; nothing if nobody did."""
        if self.writers.pop(fd, None) is not None:
            self.lowered.add(fd)

    def forget(self, fd: int, owner: object) -> None:
        """The first two of the three steps of closing: out of the backend, out of the tables. Never raises.

        Of the number, only what is `owner`'s: it may be another's by now.
        """
        shared = False
        tables: tuple[dict[int, Any], ...] = (self.readers, self.writers)
        for table in tables:
            if fd in table:
                if table[fd] is owner:
                    del table[fd]
                else:
                    shared = True
        if shared:
            self.lowered.add(fd)
            return
        if self._interest.pop(fd, None) is not None:
            self._watch(fd, 0)
        self.lowered.discard(fd)

    def removeOwner(self, owner: object) -> None:
        """Neither read nor write for a foreign `owner`, whatever number it stands under."""
        tables: tuple[dict[int, Any], ...] = (self.readers, self.writers)
        found = {fd for table in tables for fd in self.numbers(owner, table)}
        if not found:  # its fileno() may give another number by now
            found = {fd for table in tables for fd, other in table.items() if other is owner}
        for fd in found:
            for table in tables:
                if table.get(fd) is owner:
                    del table[fd]
            self.settleOne(fd)

    def removeForeign(self, owner: object, table: dict[int, Any]) -> None:
        """Out of one table, and out of the backend at once: the next thing that happens may be its close()."""
        for fd in self.numbers(owner, table):
            del table[fd]
            self.settleOne(fd)

    @staticmethod
    def numbers(owner: Any, table: dict[int, Any]) -> list[int]:
        """Under which numbers `owner` stands in a table: all of them if its fileno() gives none any more."""
        try:
            fd = owner.fileno()
        except Exception:
            fd = -1
        if isinstance(fd, int) and fd >= 0:
            return [fd] if table.get(fd) is owner else []
        return [number for number, other in table.items() if other is owner]

    def settle(self) -> None:
        """Tell the backend of the interest that has gone since the last poll."""
        while self.lowered:
            self.settleOne(self.lowered.pop())

    def settleOne(self, fd: int) -> None:
        """Tell it now, for a descriptor that its owner may close without telling us. Never raises."""
        self.lowered.discard(fd)
        before = self._interest.get(fd, 0)
        interest = (READABLE if fd in self.readers else 0) | (WRITABLE if fd in self.writers else 0)
        if interest == before:
            return
        if not interest:
            del self._interest[fd]
            self._watch(fd, 0)
            return
        try:
            self._watch(fd, interest)
        except error.UnsupportedDescriptor:
            self.evict(fd)  # it was closed behind our back
        else:
            self._interest[fd] = interest

    def evict(self, fd: int, newcomer: object = None) -> None:
        """The number is not theirs any more who stand under it, if anybody does: forget them, and have them told."""
        stale = [self.readers.pop(fd, None), self.writers.pop(fd, None)]
        self.forget(fd, None)
        for other in {id(one): one for one in stale}.values():
            if other is not None and other is not newcomer:
                self._evicted(other)

    def clear(self) -> None:
        """Forget everybody; the tables stay the same objects."""
        for fd in list(self._interest):
            self.readers.pop(fd, None)
            self.writers.pop(fd, None)
            self.forget(fd, None)

    def abandon(self) -> None:
        """Forget everybody without a word to the backend, which is another process's."""
        self.readers.clear()
        self.writers.clear()
        self.lowered.clear()
        self._interest.clear()
