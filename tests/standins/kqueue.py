"""A stand-in for `select.kqueue` and `select.kevent` on Linux, so that code for kqueue meets real descriptors there.

Each filter has an epoll set of its own, so that READ and WRITE are reported apart and epoll itself forgets what was
closed; both lie in an outer set, whose descriptor is the kqueue's. What epoll reports is only a hint: before an event
is returned the filter looks at the descriptor, as the kernel's filters are run again when an event is retrieved.

Sources: kqueue(2) of FreeBSD, the documentation of Python's `select` and the errors that its module raises, and
Python's own test.test_kqueue, which passes on it. NOTHING here, nor what is tested with it, was ever compared with a
real BSD or macOS. The facts taken: (ident, filter) is the key; changes come before events; an error takes a place in
the event list as EV_ERROR, or is raised when there is none, and either way no events are waited for; EV_RECEIPT answers
every change so; no room for events means no waiting; EOF may come with data pending, and the socket's error with it in
`fflags`; closing removes the events; a fork does not inherit the queue. Where the page is silent it is FreeBSD: the
numbers, EV_ERROR as the only flag of an answer, and that adding again changes `udata` and enables, but leaves EV_CLEAR,
EV_ONESHOT and EV_DISPATCH.

Limits. Filters other than READ and WRITE, and `fflags` for these, raise NotImplementedError. A socket's error cannot
be seen in Linux without taking it from the program, so it is inferred: ECONNREFUSED for a TCP connection that never
was, else ECONNRESET. TCP's WRITE has EOF after a reset or our own shutdown, not for a peer's FIN, as in FreeBSD; a UNIX
socket's only once its peer has closed. `data` for WRITE is an estimate, 0 where unknown; the backlog of a UNIX socket
is 1. The WRITE filter of a file is ready, as in the kernels, though FreeBSD's page says "not supported"; files do not
make the queue's own descriptor readable and are looked at 100 times a second; devices that cannot be polled give
ENODEV. EV_CLEAR may report once too often, for WRITE also less often than BSD; what a short list left of it does not
show on the queue's descriptor, and nothing does when one file is watched under more than 500 numbers. A number that is
closed while a copy of it is open, and is then given to that copy, keeps its events, unless a change was tried between.
`fromfd` knows the numbers of living kqueues, not copies of them. Two threads must not use one kqueue at a time.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import math
import operator
import os
import select
import socket
import stat
import struct
import sys
import termios
import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex

if TYPE_CHECKING:
    import pytest

# Type checkers know epoll only on Linux, but check this file for every platform.
linux: Any = select
POLLRDHUP = 0x2000
F_GETPIPE_SZ = 1032
TCP_INFO = 11

READ, WRITE = -1, -2
others = range(-7, -2)
EV_ADD, EV_DELETE, EV_ENABLE, EV_DISABLE = 0x1, 0x2, 0x4, 0x8
EV_ONESHOT, EV_CLEAR, EV_RECEIPT, EV_DISPATCH = 0x10, 0x20, 0x40, 0x80
EV_FLAG1, EV_ERROR, EV_EOF, EV_SYSFLAGS = 0x2000, 0x4000, 0x8000, 0xF000

# What `select` offers on FreeBSD, and no more: it has no name for EV_RECEIPT, EV_DISPATCH or EVFILT_USER.
constants = {
    "KQ_FILTER_READ": READ,
    "KQ_FILTER_WRITE": WRITE,
    "KQ_FILTER_AIO": -3,
    "KQ_FILTER_VNODE": -4,
    "KQ_FILTER_PROC": -5,
    "KQ_FILTER_SIGNAL": -6,
    "KQ_FILTER_TIMER": -7,
    "KQ_EV_ADD": EV_ADD,
    "KQ_EV_DELETE": EV_DELETE,
    "KQ_EV_ENABLE": EV_ENABLE,
    "KQ_EV_DISABLE": EV_DISABLE,
    "KQ_EV_ONESHOT": EV_ONESHOT,
    "KQ_EV_CLEAR": EV_CLEAR,
    "KQ_EV_SYSFLAGS": EV_SYSFLAGS,
    "KQ_EV_FLAG1": EV_FLAG1,
    "KQ_EV_EOF": EV_EOF,
    "KQ_EV_ERROR": EV_ERROR,
    "KQ_NOTE_LOWAT": 0x1,
    "KQ_NOTE_DELETE": 0x1,
    "KQ_NOTE_WRITE": 0x2,
    "KQ_NOTE_EXTEND": 0x4,
    "KQ_NOTE_ATTRIB": 0x8,
    "KQ_NOTE_LINK": 0x10,
    "KQ_NOTE_RENAME": 0x20,
    "KQ_NOTE_REVOKE": 0x40,
    "KQ_NOTE_EXIT": 0x80000000,
    "KQ_NOTE_FORK": 0x40000000,
    "KQ_NOTE_EXEC": 0x20000000,
    "KQ_NOTE_PCTRLMASK": 0xF0000000,
    "KQ_NOTE_PDATAMASK": 0x000FFFFF,
    "KQ_NOTE_TRACK": 0x1,
    "KQ_NOTE_TRACKERR": 0x2,
    "KQ_NOTE_CHILD": 0x4,
}


def available() -> bool:
    """Whether this system has what the stand-in is made of."""
    return sys.platform == "linux"


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put kqueue, kevent and the constants into `select` until `monkeypatch` is undone."""
    for name, value in {"kqueue": kqueue, "kevent": kevent, **constants}.items():
        monkeypatch.setattr(select, name, value, raising=False)


class HasFileno(Protocol):
    """What Python takes for a descriptor besides a number."""

    def fileno(self) -> int: ...


def failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@functools.total_ordering
class kevent:
    """One change or event: six numbers, ordered and compared as such."""

    __slots__ = ("data", "fflags", "filter", "flags", "ident", "udata")

    def __init__(
        self,
        ident: int | HasFileno,
        filter: SupportsIndex = READ,
        flags: SupportsIndex = EV_ADD,
        fflags: SupportsIndex = 0,
        data: SupportsIndex = 0,
        udata: SupportsIndex = 0,
    ) -> None:
        self.ident = ident if isinstance(ident, int) else numberOf(ident)
        self.filter = operator.index(filter)
        self.flags = operator.index(flags) & 0xFFFF
        self.fflags = operator.index(fflags) & 0xFFFFFFFF
        self.data = operator.index(data)
        self.udata = operator.index(udata) & 0xFFFFFFFFFFFFFFFF
        if not (0 <= self.ident < 1 << 64 and -1 << 15 <= self.filter < 1 << 15 and -1 << 63 <= self.data < 1 << 63):
            raise OverflowError("a number does not fit into struct kevent")

    def numbers(self) -> tuple[int, ...]:
        return self.ident, self.filter, self.flags, self.fflags, self.data, self.udata

    def __repr__(self) -> str:
        return (
            f"<select.kevent ident={self.ident} filter={self.filter} flags={self.flags:#x} fflags={self.fflags:#x} "
            f"data={self.data & 0xFFFFFFFFFFFFFFFF:#x} udata={self.udata:#x}>"
        )

    def __eq__(self, other: object) -> bool:
        return self.numbers() == other.numbers() if isinstance(other, kevent) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self.numbers() < other.numbers() if isinstance(other, kevent) else NotImplemented


def numberOf(holder: HasFileno) -> int:
    """The descriptor's number, with the errors of Python's own conversion."""
    fileno: Any = getattr(holder, "fileno", None)
    if fileno is None:
        raise TypeError("argument must be an int, or have a fileno() method.")
    number: object = fileno()
    if not isinstance(number, int):
        raise TypeError("fileno() returned a non-integer")
    if number < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({number})")
    return number


def count(fd: int, request: int) -> int:
    """What an ioctl counts for this descriptor; 0 where it has no such count."""
    try:
        number: int = struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))[0]
    except OSError:
        return 0
    return number


def look(fd: int, filter: int) -> tuple[int, bool, int] | None:
    """What the filter reports of this descriptor now: data, end of file, socket error; None means nothing."""
    status = os.fstat(fd)
    if isFile(status):
        left = status.st_size - os.lseek(fd, 0, os.SEEK_CUR) if filter == READ else 0
        return (left, False, 0) if left or filter == WRITE else None
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT | POLLRDHUP)
    bits = sum(bits for _, bits in poll.poll(0))
    if stat.S_ISSOCK(status.st_mode):
        sock = socket.socket(fileno=fd)
        try:
            return lookAtSocket(sock, filter, bits)
        finally:
            sock.detach()
    eof = bool(bits & (select.POLLHUP | select.POLLERR))
    if not eof and not bits & (select.POLLIN if filter == READ else select.POLLOUT):
        return None
    data = count(fd, termios.FIONREAD)
    if filter == WRITE:
        data = fcntl.fcntl(fd, F_GETPIPE_SZ) - data if stat.S_ISFIFO(status.st_mode) else 0
    return data, eof, 0


def lookAtSocket(sock: socket.socket, filter: int, bits: int) -> tuple[int, bool, int] | None:
    """The same for a socket, of which poll(2) said `bits`."""
    state = rtt = backlog = None
    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
        # struct tcp_info: eight bytes, the state first, then 32 bits each; a listening socket counts in `unacked`.
        info = sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 104)
        state, (backlog,), (rtt,) = info[0], struct.unpack_from("I", info, 24), struct.unpack_from("I", info, 68)
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return (backlog or 1, False, 0) if filter == READ and bits & select.POLLIN else None
    bothEnded = bits & select.POLLHUP and bits & POLLRDHUP
    if filter == READ:
        ready = bits & (select.POLLIN | select.POLLERR)
        eof = bool(bits & POLLRDHUP)
        data = count(sock.fileno(), termios.FIONREAD)
    else:
        # Linux says that a socket which was never connected is writable and hung up.
        ready = bits & select.POLLERR or (bits & select.POLLOUT and (bothEnded or not bits & select.POLLHUP))
        # FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING: we have shut down.
        eof = bool(bothEnded or state in (4, 5, 6, 9, 11))
        data = max(0, sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - count(sock.fileno(), termios.TIOCOUTQ))
    if not ready and not eof:
        return None
    error = 0
    if eof and bits & select.POLLERR:
        error = errno.ECONNREFUSED if rtt == 0 else errno.ECONNRESET
    return data, eof, error


def isFile(status: os.stat_result) -> bool:
    """Whether it is of the kind that epoll refuses and BSD calls a vnode."""
    return stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)


class Knote:
    """One registration, by the kernel's name. `file` identifies what epoll cannot watch.

    A `quiet` one is watched for changes only: epoll called it ready when its filter said no, and would go on so.
    """

    __slots__ = ("enabled", "file", "flags", "quiet", "udata")

    def __init__(self, flags: int, file: tuple[int, int] | None) -> None:
        self.flags = flags & (EV_ONESHOT | EV_CLEAR | EV_RECEIPT | EV_DISPATCH)
        self.file = file
        self.enabled = True
        self.quiet = False
        self.udata = 0


class Queue:
    """What the kernel would hold for one kqueue: owns three epoll sets; `active` are those to look at, in order."""

    def __init__(self) -> None:
        self.outer = linux.epoll()
        self.inner = {READ: linux.epoll(), WRITE: linux.epoll()}
        self.knotes: dict[tuple[int, int], Knote] = {}
        self.active: dict[tuple[int, int], None] = {}
        for epoll in self.inner.values():
            self.nest(epoll)

    def nest(self, epoll: Any) -> None:
        """Let a set make our own descriptor readable, unless Linux refuses: it limits how often a file is in a nest."""
        try:
            self.outer.register(epoll, linux.EPOLLIN)
        except OSError:
            pass

    def free(self, epoll: Any) -> None:
        try:
            self.outer.unregister(epoll)
        except FileNotFoundError:
            pass

    def close(self) -> None:
        for epoll in (*self.inner.values(), self.outer):
            epoll.close()

    def wait(self, timeout: float | None) -> None:
        """Wait until something may be ready, at most for so long. EBADF, if our number was closed."""
        if any(knote.file and knote.enabled for knote in self.knotes.values()):
            timeout = 0.01 if timeout is None else min(timeout, 0.01)
        try:
            self.outer.poll(0)
        except OSError:
            # EINVAL: the number belongs to another file now.
            raise failed(errno.EBADF) from None
        poll = select.poll()
        for epoll in self.inner.values():
            poll.register(epoll, select.POLLIN)
        poll.poll(None if timeout is None else timeout * 1000)

    def change(self, change: kevent) -> None:
        """Apply one change. OSError: EBADF, EINVAL, ENODEV, ENOENT."""
        key = fd, filter = change.ident, change.filter
        if filter not in self.inner and filter not in others:
            raise failed(errno.EINVAL)
        if filter in others or change.fflags:
            raise NotImplementedError(f"the stand-in for kqueue cannot do {change!r}")
        try:
            status = os.fstat(fd)
        except (OSError, OverflowError):
            for each in self.inner:
                self.knotes.pop((fd, each), None)
            raise failed(errno.EBADF) from None
        knote = self.knotes.get(key)
        if knote is None or not self.holds(key, knote):
            self.knotes.pop(key, None)
            if not change.flags & EV_ADD:
                raise failed(errno.ENOENT)
            file = (status.st_dev, status.st_ino) if isFile(status) else None
            knote = Knote(change.flags, file)
            if file is None:
                self.attach(fd, filter)
            self.knotes[key] = knote
        if change.flags & EV_DELETE:
            self.drop(key, knote)
            return
        knote.udata = change.udata
        if change.flags & EV_ENABLE or change.flags & (EV_ADD | EV_DISABLE) == EV_ADD:
            knote.enabled = True
        elif change.flags & EV_DISABLE:
            knote.enabled = False
        knote.quiet = False
        self.arm(key, knote)

    def attach(self, fd: int, filter: int) -> None:
        try:
            self.inner[filter].register(fd, linux.EPOLLET)
        except FileExistsError:
            pass
        except PermissionError:
            raise failed(errno.ENODEV) from None
        except OSError as exception:
            if exception.errno != errno.EINVAL:
                raise
            self.free(self.inner[filter])
            self.inner[filter].register(fd, linux.EPOLLET)

    def holds(self, key: tuple[int, int], knote: Knote) -> bool:
        """Whether the number still means the file that was registered. epoll knows best: it refuses that one twice."""
        fd, filter = key
        try:
            if knote.file:
                status = os.fstat(fd)
                return knote.file == (status.st_dev, status.st_ino)
            self.inner[filter].register(fd, linux.EPOLLET)
        except FileExistsError:
            return True
        except OSError:
            return False
        self.inner[filter].unregister(fd)
        return False

    def mask(self, key: tuple[int, int], knote: Knote) -> int:
        """What epoll is asked for. It reports errors in any case, but with EPOLLET only once."""
        if not knote.enabled:
            return int(linux.EPOLLET)
        mask: int = linux.EPOLLIN | linux.EPOLLRDHUP if key[1] == READ else linux.EPOLLOUT
        return mask | linux.EPOLLET if knote.quiet or knote.flags & EV_CLEAR else mask

    def arm(self, key: tuple[int, int], knote: Knote) -> None:
        if not knote.file:
            self.inner[key[1]].modify(key[0], self.mask(key, knote))

    def drop(self, key: tuple[int, int], knote: Knote) -> None:
        del self.knotes[key]
        self.active.pop(key, None)
        if not knote.file:
            self.inner[key[1]].unregister(key[0])

    def collect(self, room: int) -> list[kevent]:
        """At most `room` events. As in the kernel, what is still ready goes to the end of one line for both filters."""
        for filter, epoll in self.inner.items():
            for fd, _ in epoll.poll(0, len(self.knotes) + 1):
                self.active.setdefault((fd, filter))
        for key, knote in self.knotes.items():
            if knote.file:
                self.active.setdefault(key)
        found: list[kevent] = []
        for key in list(self.active):
            if len(found) == room:
                break
            del self.active[key]
            event = self.retrieve(key)
            if event is not None:
                found.append(event)
        return found

    def retrieve(self, key: tuple[int, int]) -> kevent | None:
        """The event that may be there for `key`, if its filter agrees."""
        knote = self.knotes.get(key)
        if knote is None or not self.holds(key, knote):
            # Closed here, but open in a copy or another process: for epoll it lives on, for kqueue it does not.
            self.knotes.pop(key, None)
            self.renew(key[1])
            return None
        seen = look(*key) if knote.enabled else None
        if seen is None:
            if knote.enabled and not (knote.file or knote.quiet or knote.flags & EV_CLEAR):
                knote.quiet = True
                self.renew(key[1])
            return None
        if knote.flags & EV_ONESHOT:
            self.drop(key, knote)
        elif knote.flags & EV_DISPATCH or knote.quiet:
            knote.enabled = not knote.flags & EV_DISPATCH
            knote.quiet = False
            self.arm(key, knote)
        data, eof, error = seen
        return kevent(key[0], key[1], knote.flags | EV_EOF if eof else knote.flags, error, data, knote.udata)

    def renew(self, filter: int) -> None:
        """Replace this filter's epoll set: nothing else removes a file from it that has no number here any more."""
        old = self.inner[filter]
        for key, knote in list(self.knotes.items()):
            if key[1] == filter and not self.holds(key, knote):
                del self.knotes[key]
        self.free(old)
        old.close()
        new = self.inner[filter] = linux.epoll()
        for key, knote in self.knotes.items():
            if key[1] == filter and not knote.file:
                new.register(key[0], self.mask(key, knote))
        self.nest(new)


queues: weakref.WeakValueDictionary[int, Queue] = weakref.WeakValueDictionary()
objects: weakref.WeakSet[kqueue] = weakref.WeakSet()


class kqueue:
    """A kqueue as Python shows it: a number, and what the kernel keeps under it."""

    __slots__ = ("__weakref__", "_fd", "_queue")

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._fd = -1
        if args or kwargs:
            raise ValueError("select.kqueue doesn't accept arguments")
        self._queue: Queue | None = Queue()
        self._fd = self._queue.outer.fileno()
        queues[self._fd] = self._queue
        objects.add(self)

    @classmethod
    def fromfd(cls, fd: int, /) -> kqueue:
        """Another object for the same number, unchecked: closing either closes both."""
        number = operator.index(fd)
        self = cls.__new__(cls)
        self._fd = number
        self._queue = queues.get(number)
        objects.add(self)
        return self

    def close(self) -> None:
        """Close the number, whatever it means by now. Never raises."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if self._queue is None or self._queue.outer.closed:
                os.close(fd)
            else:
                self._queue.close()
        except OSError:
            pass

    __del__ = close

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def fileno(self) -> int:
        if self._fd < 0:
            raise ValueError("I/O operation on closed kqueue object")
        return self._fd

    def control(
        self, changelist: Iterable[kevent] | None, max_events: SupportsIndex, timeout: float | None = None, /
    ) -> list[kevent]:
        """Apply the changes, then return at most `max_events` events, waiting `timeout` seconds for the first."""
        room = operator.index(max_events)
        self.fileno()
        if room < 0:
            raise ValueError(f"Length of eventlist must be 0 or positive, got {room}")
        seconds = secondsOf(timeout)
        changes = changesOf(changelist)
        deadline = None if seconds is None else time.monotonic() + seconds
        queue = self._queue
        if queue is None or queue.outer.closed:
            raise failed(errno.EBADF)
        queue.wait(0)
        answers: list[kevent] = []
        for change in changes:
            error = 0
            try:
                queue.change(change)
            except OSError as exception:
                error = exception.errno or 0
            if error or change.flags & EV_RECEIPT:
                if len(answers) == room:
                    if error:
                        raise failed(error)
                    return []
                answers.append(kevent(change.ident, change.filter, EV_ERROR, change.fflags, error, change.udata))
        if answers or not room:
            return answers
        while True:
            events = queue.collect(room)
            left = None if deadline is None else deadline - time.monotonic()
            if events or (left is not None and left <= 0):
                return events
            queue.wait(left)


def secondsOf(timeout: Any) -> float | None:
    """A timeout as Python takes it: None, a float, or what counts as an int."""
    if timeout is None:
        return None
    try:
        seconds: float = timeout if isinstance(timeout, float) else operator.index(timeout)
    except TypeError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise TypeError(f"timeout argument must be a number or None, got {type(timeout).__name__}")
    if seconds < 0:
        raise ValueError("timeout must be positive or None")
    return seconds


def changesOf(changelist: Iterable[Any] | None) -> list[kevent]:
    """The changes, all of them checked before the first is applied."""
    if changelist is None:
        return []
    try:
        iterator = iter(changelist)
    except TypeError:
        raise TypeError("changelist is not iterable") from None
    changes = list(iterator)
    if not all(isinstance(change, kevent) for change in changes):
        raise TypeError("changelist must be an iterable of select.kevent objects")
    return changes


def closeInChild() -> None:
    """A child has no kqueue: the numbers are closed, and from Python 3.12.1 on the objects know it."""
    for queue in list(queues.values()):
        try:
            queue.close()
        except OSError:
            pass
    if sys.version_info >= (3, 12, 1):
        for each in list(objects):
            each._fd = -1


if available():
    os.register_at_fork(after_in_child=closeInChild)
