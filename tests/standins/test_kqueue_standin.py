"""The stand-in for kqueue: Python's own tests of kqueue pass on it, and it keeps what kqueue(2) says.

Each test is a fact of the page or of Python's documentation on which a backend may rely, tried on real descriptors; so
they were written to hold on a BSD too, were the real kqueue put into `standin`.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import select
import signal
import socket
import struct
import textwrap
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import openDescriptors, runPython
from tests.standins import kqueue as standin
from tests.standins.kqueue import (
    EV_ADD,
    EV_CLEAR,
    EV_DELETE,
    EV_DISABLE,
    EV_DISPATCH,
    EV_ENABLE,
    EV_EOF,
    EV_ERROR,
    EV_ONESHOT,
    EV_RECEIPT,
    READ,
    WRITE,
    kevent,
    kqueue,
)
from tests.wheels import root

pytestmark = pytest.mark.skipif(not standin.available(), reason="the stand-in is made of Linux's epoll")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def queue() -> Iterator[kqueue]:
    """A new kqueue, closed afterwards."""
    queue = kqueue()
    yield queue
    queue.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two UNIX sockets that are connected."""
    ours, peer = socket.socketpair()
    with ours, peer:
        yield ours, peer


@pytest.fixture
def tcp() -> Iterator[Pair]:
    """A TCP connection over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, peer:
        yield ours, peer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe; its ends are closed afterwards, unless the test did."""
    ends = os.pipe()
    before = [os.fstat(end).st_ino for end in ends]
    yield ends
    for end, inode in zip(ends, before, strict=True):
        try:
            if os.fstat(end).st_ino == inode:
                os.close(end)
        except OSError:
            pass


def add(queue: kqueue, fd: int | standin.HasFileno, filter: int, flags: int = 0, udata: int = 0) -> None:
    assert queue.control([kevent(fd, filter, EV_ADD | flags, udata=udata)], 0) == []


def pending(queue: kqueue, timeout: float = 0) -> list[tuple[int, int]]:
    """(ident, filter) of what is pending, sorted."""
    return sorted((event.ident, event.filter) for event in queue.control(None, 64, timeout))


def only(queue: kqueue, timeout: float = 5) -> kevent:
    """The one event that is pending, waited for."""
    (event,) = queue.control(None, 64, timeout)
    return event


def isQuiet(queue: kqueue) -> bool:
    """Whether nothing wakes who waits for the queue, after two looks at it."""
    return pending(queue) == pending(queue) == [] and select.select([queue], [], [], 0)[0] == []


def reset(sock: socket.socket) -> None:
    """Close a connection so that its peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def fill(sock: socket.socket) -> None:
    sock.setblocking(False)
    try:
        while sock.send(bytes(65536)):
            pass
    except BlockingIOError:
        pass


@contextmanager
def alarms(handler: Callable[[int, Any], None]) -> Generator[None, None, None]:
    """SIGALRM again and again: one alone is missed for ever when it comes just before the system call."""
    before = signal.signal(signal.SIGALRM, handler)
    others = signal.getitimer(signal.ITIMER_REAL)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)


def errorOf(queue: kqueue, *change: Any) -> int | None:
    """The errno that a change raises when there is no room for an answer."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is what the caller looks at
        queue.control([kevent(*change)], 0)
    return caught.value.errno


class TestPythonsOwnTests:
    @pytest.mark.skipif(importlib.util.find_spec("test") is None, reason="this Python ships no package `test`")
    def test_allRunAndPass(self) -> None:
        if importlib.util.find_spec("test.test_kqueue") is None:
            pytest.skip("this Python's package `test` lacks test_kqueue")
        script = """
            import json, sys, unittest
            import pytest
            from tests.standins.kqueue import install
            install(pytest.MonkeyPatch())
            from test import test_kqueue
            suite = unittest.defaultTestLoader.loadTestsFromModule(test_kqueue)
            result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2).run(suite)
            bad = (result.errors, result.failures, result.skipped, result.expectedFailures, result.unexpectedSuccesses)
            defined = [name for name in vars(test_kqueue.TestKQueue) if name.startswith("test")]
            print(json.dumps([result.testsRun, len(defined), [str(each) for kind in bad for each in kind]]))
        """
        done = runPython(textwrap.dedent(script), env={"PYTHONPATH": str(root)})
        assert done.returncode == 0, done.stderr
        ran, defined, bad = json.loads(done.stdout)
        assert bad == [], done.stderr
        assert ran == defined >= 7, done.stderr


class TestInstall:
    def test_namesComeAndGo(self) -> None:
        before = set(vars(select))
        with pytest.MonkeyPatch.context() as monkeypatch:
            standin.install(monkeypatch)
            names = vars(select)
            assert names["kqueue"] is kqueue
            assert names["kevent"] is kevent
            assert (names["KQ_FILTER_READ"], names["KQ_EV_EOF"]) == (-1, 0x8000)
            assert "KQ_EV_RECEIPT" not in names, "Python has no such name"
            assert "KQ_EV_DISPATCH" not in names, "Python has no such name"
        assert set(vars(select)) == before


class TestKevent:
    def test_defaults(self) -> None:
        event = kevent(7)
        assert (event.ident, event.filter, event.flags, event.fflags, event.data, event.udata) == (
            7,
            READ,
            EV_ADD,
            0,
            0,
            0,
        )

    def test_keywordsAndDescriptors(self, pair: Pair) -> None:
        ours, _ = pair
        event = kevent(ident=ours, filter=WRITE, flags=EV_DELETE, fflags=1, data=2, udata=3)
        assert event == kevent(ours.fileno(), WRITE, EV_DELETE, 1, 2, 3)

    def test_orderIsThatOfTheFields(self) -> None:
        assert kevent(1, WRITE) < kevent(1, READ) < kevent(1, READ, EV_ADD, 1) < kevent(2, WRITE)
        assert kevent(1) != kevent(1, udata=1)
        assert kevent(1) != 1
        with pytest.raises(TypeError):
            _ = kevent(1) < 1
        with pytest.raises(TypeError, match="unhashable"):
            hash(kevent(1))

    def test_attributesCanBeSet(self) -> None:
        event = kevent(1)
        event.udata = 5
        assert event == kevent(1, udata=5)
        with pytest.raises(AttributeError):
            event.other = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    def test_repr(self) -> None:
        text = "<select.kevent ident=1 filter=-2 flags=0x3 fflags=0x4 data=0xffffffffffffffff udata=0x10>"
        assert repr(kevent(1, -2, 3, 4, -1, 16)) == text

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ((), TypeError),
            (("1",), TypeError),
            ((None,), TypeError),
            ((1.0,), TypeError),
            ((1, "r"), TypeError),
            ((-1,), OverflowError),
            ((1, 1 << 15), OverflowError),
            ((1, READ, EV_ADD, 0, 1 << 63), OverflowError),
        ],
    )
    def test_wrongArguments(self, arguments: tuple[Any, ...], error: type[Exception]) -> None:
        with pytest.raises(error):
            kevent(*arguments)

    def test_closedSocketHasNoNumber(self) -> None:
        sock = socket.socket()
        sock.close()
        with pytest.raises(ValueError, match="negative"):
            kevent(sock)


class TestArguments:
    def test_kqueueTakesNone(self) -> None:
        with pytest.raises(ValueError, match="doesn't accept arguments"):
            kqueue(1)

    def test_maxEvents(self, queue: kqueue) -> None:
        with pytest.raises(ValueError, match="0 or positive, got -1"):
            queue.control(None, -1)
        wrong: list[Any] = ["1", None, 1.0]
        for each in wrong:
            with pytest.raises(TypeError):
                queue.control(None, each)

    def test_timeout(self, queue: kqueue) -> None:
        for negative in (-1, -0.5):
            with pytest.raises(ValueError, match="positive or None"):
                queue.control(None, 1, negative)
        wrong: list[Any] = ["1", [], float("nan")]
        for each in wrong:
            with pytest.raises(TypeError, match="timeout argument must be a number or None"):
                queue.control(None, 1, each)

    def test_changelist(self, queue: kqueue, pair: Pair) -> None:
        good = kevent(pair[0], WRITE)
        with pytest.raises(TypeError, match="not iterable"):
            queue.control(good, 0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        wrong: list[Iterable[Any]] = [[good, 1], (good, None), "ab"]
        for each in wrong:
            with pytest.raises(TypeError, match="iterable of select"):
                queue.control(each, 0)
        assert pending(queue) == [], "nothing was applied"
        assert len(queue.control((each for each in [good]), 1, 0)) == 1

    def test_argumentsHaveNoNames(self, queue: kqueue) -> None:
        with pytest.raises(TypeError):
            queue.control(changelist=None, max_events=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    def test_otherFilters(self, queue: kqueue) -> None:
        assert errorOf(queue, 0, -99) == errno.EINVAL
        assert errorOf(queue, 0, 1) == errno.EINVAL
        with pytest.raises(NotImplementedError):
            queue.control([kevent(1, -7)], 0)


class TestHandle:
    def test_closing(self) -> None:
        before = openDescriptors()
        queue = kqueue()
        fd = queue.fileno()
        assert not queue.closed
        assert not os.get_inheritable(fd)
        queue.close()
        queue.close()
        assert queue.closed
        assert openDescriptors() == before
        for use in (queue.fileno, lambda: queue.control(None, 1, 0)):
            with pytest.raises(ValueError, match="I/O operation on closed kqueue object"):
                use()

    def test_closedWhenDropped(self) -> None:
        before = openDescriptors()
        kqueue()
        assert openDescriptors() == before

    def test_fromfdSharesTheQueue(self, queue: kqueue, pair: Pair) -> None:
        other = kqueue.fromfd(queue.fileno())
        add(other, pair[0], WRITE)
        assert pending(queue) == pending(other) == [(pair[0].fileno(), WRITE)]
        del other
        assert not queue.closed
        with pytest.raises(OSError, match="Bad file descriptor"):
            queue.control(None, 1, 0)

    def test_fromfdOfNoKqueue(self) -> None:
        before = openDescriptors()
        other = kqueue.fromfd(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Bad file descriptor"):
            other.control(None, 1, 0)
        other.close()
        assert openDescriptors() == before

    def test_numberClosedUnderneath(self, pair: Pair) -> None:
        queue = kqueue()
        add(queue, pair[0], WRITE)
        os.close(queue.fileno())
        with pytest.raises(OSError, match="Bad file descriptor"):
            queue.control(None, 1, 0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            queue.control(None, 0)
        queue.close()

    def test_readableWhenSomethingIsPending(self, queue: kqueue, pair: Pair) -> None:
        ours, peer = pair
        add(queue, ours, READ)
        assert select.select([queue], [], [], 0)[0] == []
        peer.send(b"x")
        assert select.select([queue], [], [], 5)[0] == [queue]
        assert pending(queue) == [(ours.fileno(), READ)]
        ours.recv(1)
        assert select.select([queue], [], [], 0)[0] == []

    def test_oneKqueueInAnother(self, queue: kqueue, pair: Pair) -> None:
        inner = kqueue()
        add(queue, inner, READ)
        add(inner, pair[0], READ)
        assert pending(queue) == []
        pair[1].send(b"x")
        assert pending(queue, 5) == [(inner.fileno(), READ)]
        inner.close()


class TestFork:
    def test_notInherited(self) -> None:
        # In a process of its own, because a fork of one with threads is warned of.
        script = """
            import errno, os, socket, sys
            from tests.standins.kqueue import WRITE, kevent, kqueue

            ours, peer = socket.socketpair()
            queue = kqueue()
            fd = queue.fileno()
            queue.control([kevent(ours, WRITE)], 0)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    try:
                        os.fstat(fd)
                    except OSError as exception:
                        assert exception.errno == errno.EBADF
                        code += 1
                    for use in (kqueue.fromfd(fd), queue):
                        try:
                            use.control([kevent(ours, WRITE)], 1, 0)
                        except OSError as exception:
                            assert exception.errno == errno.EBADF
                            code += 1
                        except ValueError:
                            assert use.closed and sys.version_info >= (3, 12, 1)
                            code += 1
                    ours.close()
                    queue.close()
                    mine = kqueue()
                    assert len(mine.control([kevent(peer, WRITE)], 1, 0)) == 1
                    code += 1
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
            print([event.ident == ours.fileno() for event in queue.control(None, 9, 5)])
            ours.close()
            peer.close()
        """
        done = runPython(textwrap.dedent(script), env={"PYTHONPATH": str(root)})
        assert (done.stdout, done.stderr, done.returncode) == ("[True]\n", "", 0)

    def test_closedHereAndOpenInAnotherProcess(self, queue: kqueue) -> None:
        ours, peer = socket.socketpair()
        with ours, peer:
            add(queue, ours, READ)
            copy = os.dup(ours.fileno())
            ours.close()
            peer.send(b"x")
            assert select.select([copy], [], [], 5)[0] == [copy]
            assert pending(queue, 0.01) == []
            assert isQuiet(queue), "it must not spin"
            os.close(copy)


class TestChanges:
    def test_changesComeBeforeEvents(self, queue: kqueue, pair: Pair) -> None:
        (event,) = queue.control([kevent(pair[0], WRITE, udata=9)], 8, 0)
        assert (event.ident, event.filter, event.udata, event.flags & EV_EOF) == (pair[0].fileno(), WRITE, 9, 0)
        assert queue.control([kevent(pair[0], WRITE, EV_DELETE)], 8, 0) == []

    def test_filtersAreReportedApart(self, queue: kqueue, pair: Pair) -> None:
        ours, peer = pair
        fd = ours.fileno()
        add(queue, ours, READ)
        add(queue, ours, WRITE)
        assert pending(queue) == [(fd, WRITE)]
        peer.send(b"x")
        assert pending(queue) == [(fd, WRITE), (fd, READ)]
        queue.control([kevent(ours, WRITE, EV_DELETE)], 0)
        assert pending(queue) == [(fd, READ)]

    def test_addingAgain(self, queue: kqueue, pair: Pair) -> None:
        add(queue, pair[0], WRITE, udata=1)
        add(queue, pair[0], WRITE, EV_DISABLE, udata=2)
        assert pending(queue) == []
        add(queue, pair[0], WRITE, udata=3)
        assert only(queue).udata == 3
        queue.control([kevent(pair[0], WRITE, EV_DELETE)], 0)
        assert errorOf(queue, pair[0], WRITE, EV_DELETE) == errno.ENOENT, "there was one only"

    @pytest.mark.parametrize("flags", [EV_DELETE, EV_ENABLE, EV_DISABLE])
    def test_whatIsNotThere(self, queue: kqueue, pair: Pair, flags: int) -> None:
        add(queue, pair[0], READ)
        assert errorOf(queue, pair[0], WRITE, flags) == errno.ENOENT
        assert errorOf(queue, pair[1], READ, flags) == errno.ENOENT

    @pytest.mark.parametrize("flags", [EV_ADD, EV_DELETE])
    def test_closedDescriptor(self, queue: kqueue, flags: int) -> None:
        ours, peer = socket.socketpair()
        with peer:
            fd = ours.fileno()
            add(queue, fd, READ)
            ours.close()
            assert errorOf(queue, fd, READ, flags) == errno.EBADF
        assert errorOf(queue, 1 << 40, READ, flags) == errno.EBADF

    def test_errorsTakePlaces(self, queue: kqueue, pair: Pair) -> None:
        ours, _ = pair
        wrong = kevent(ours, READ, EV_DELETE, udata=4)
        answers = queue.control([kevent(ours, WRITE), wrong], 8, 5)
        assert answers == [kevent(ours, READ, EV_ERROR, 0, errno.ENOENT, 4)], "and no events are returned with it"
        assert pending(queue) == [(ours.fileno(), WRITE)], "the other change was applied"
        with pytest.raises(FileNotFoundError):
            queue.control([wrong, wrong], 1, 5)

    def test_receipt(self, queue: kqueue, pair: Pair) -> None:
        ours, _ = pair
        changes = [kevent(ours, WRITE, EV_ADD | EV_RECEIPT), kevent(ours, READ, EV_DELETE | EV_RECEIPT)]
        answers = queue.control(changes, 2, 5)
        assert [(each.filter, each.flags, each.data) for each in answers] == [
            (WRITE, EV_ERROR, 0),
            (READ, EV_ERROR, errno.ENOENT),
        ]
        assert pending(queue) == [(ours.fileno(), WRITE)]

    def test_noRoomMeansNoWaiting(self, queue: kqueue, pair: Pair) -> None:
        started = time.monotonic()
        assert queue.control([kevent(pair[0], WRITE)], 0, 30) == []
        assert queue.control(None, 0) == []
        assert time.monotonic() - started < 5

    def test_disabled(self, queue: kqueue, pair: Pair) -> None:
        ours, peer = pair
        add(queue, ours, READ, EV_DISABLE)
        peer.send(b"x")
        assert pending(queue) == []
        assert select.select([queue], [], [], 0)[0] == []
        queue.control([kevent(ours, READ, EV_ENABLE)], 0)
        assert pending(queue) == [(ours.fileno(), READ)]
        queue.control([kevent(ours, READ, EV_DISABLE)], 0)
        peer.close()
        assert pending(queue, 0.01) == [], "not even the end of file"
        assert isQuiet(queue), "it must not spin"
        assert errorOf(queue, ours, WRITE, EV_ENABLE) == errno.ENOENT
        queue.control([kevent(ours, READ, EV_DELETE)], 0)

    def test_oneshot(self, queue: kqueue, pair: Pair) -> None:
        add(queue, pair[0], WRITE, EV_ONESHOT)
        assert pending(queue) == [(pair[0].fileno(), WRITE)]
        assert pending(queue) == []
        assert errorOf(queue, pair[0], WRITE, EV_DELETE) == errno.ENOENT

    def test_dispatch(self, queue: kqueue, pair: Pair) -> None:
        add(queue, pair[0], WRITE, EV_DISPATCH)
        assert pending(queue) == [(pair[0].fileno(), WRITE)]
        assert pending(queue) == []
        queue.control([kevent(pair[0], WRITE, EV_ENABLE)], 0)
        assert pending(queue) == [(pair[0].fileno(), WRITE)]

    def test_clear(self, queue: kqueue, pair: Pair) -> None:
        ours, peer = pair
        peer.send(b"abc")
        add(queue, ours, READ, EV_CLEAR)
        assert only(queue).data == 3
        assert pending(queue) == [], "the state did not change"
        peer.send(b"d")
        assert only(queue).data == 4
        assert pending(queue) == []


class TestEvents:
    def test_levelTriggeredWithTheCount(self, queue: kqueue, pair: Pair) -> None:
        ours, peer = pair
        add(queue, ours, READ)
        assert pending(queue) == []
        peer.send(b"hello")
        assert only(queue).data == only(queue).data == 5
        ours.recv(3)
        assert only(queue).data == 2
        ours.recv(2)
        assert pending(queue) == []

    def test_roomForWriting(self, queue: kqueue, tcp: Pair) -> None:
        ours, peer = tcp
        add(queue, ours, WRITE)
        assert only(queue).data > 0
        fill(ours)
        assert pending(queue) == []
        peer.setblocking(False)
        while not pending(queue):
            select.select([peer], [], [], 5)
            peer.recv(1 << 20)

    def test_roomGetsLess(self, queue: kqueue, pair: Pair) -> None:
        add(queue, pair[0], WRITE)
        before = only(queue).data
        pair[0].send(bytes(1000))
        assert only(queue).data <= before - 1000

    def test_endOfFileWithDataPending(self, queue: kqueue, tcp: Pair) -> None:
        ours, peer = tcp
        add(queue, ours, READ)
        peer.send(b"last words")
        peer.close()
        while not (event := only(queue)).flags & EV_EOF:
            pass
        assert (event.data, event.fflags) == (10, 0)
        assert ours.recv(10) == b"last words"
        event = only(queue)
        assert (event.data, event.flags & EV_EOF, ours.recv(1)) == (0, EV_EOF, b"")

    def test_peerThatOnlyStoppedSending(self, queue: kqueue, tcp: Pair) -> None:
        ours, peer = tcp
        add(queue, ours, READ)
        add(queue, ours, WRITE)
        peer.shutdown(socket.SHUT_WR)
        while len(events := {event.filter: event for event in queue.control(None, 4, 5)}) < 2:
            pass
        assert events[READ].flags & EV_EOF
        assert not events[WRITE].flags & EV_EOF

    def test_ownShutdown(self, queue: kqueue, tcp: Pair) -> None:
        ours, _ = tcp
        add(queue, ours, READ)
        add(queue, ours, WRITE)
        ours.shutdown(socket.SHUT_WR)
        event = only(queue)
        assert (event.filter, event.flags & EV_EOF) == (WRITE, EV_EOF)

    def test_reset(self, queue: kqueue, tcp: Pair) -> None:
        ours, peer = tcp
        peer.send(b"abc")
        add(queue, ours, READ)
        assert only(queue).data == 3
        reset(peer)
        add(queue, ours, WRITE)
        while len(events := [event for event in queue.control(None, 4, 5) if event.flags & EV_EOF]) < 2:
            pass
        assert {(event.filter, event.fflags) for event in events} == {
            (READ, errno.ECONNRESET),
            (WRITE, errno.ECONNRESET),
        }
        assert events[0].fflags == queue.control(None, 1, 5)[0].fflags, "looking does not take the error away"
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        assert {event.fflags for event in queue.control(None, 4, 5)} == {0}, "now it was taken"

    def test_refusedConnection(self, queue: kqueue) -> None:
        with socket.socket() as bound, socket.socket() as client:
            bound.bind(("127.0.0.1", 0))
            client.setblocking(False)
            client.connect_ex(bound.getsockname())
            add(queue, client, WRITE)
            event = only(queue)
            assert (event.flags & EV_EOF, event.fflags) == (EV_EOF, errno.ECONNREFUSED)
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED

    def test_closedPeerEndsBothDirections(self, queue: kqueue, pair: Pair) -> None:
        ours, peer = pair
        add(queue, ours, READ)
        add(queue, ours, WRITE)
        peer.close()
        events = queue.control(None, 4, 5)
        assert sorted((event.filter, event.flags & EV_EOF) for event in events) == [(WRITE, EV_EOF), (READ, EV_EOF)]

    def test_unconnectedSocket(self, queue: kqueue) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
            add(queue, client, READ)
            add(queue, client, WRITE)
            assert pending(queue, 0.01) == [], "Linux calls it writable and hung up"
            assert isQuiet(queue), "it must not spin"
            client.connect(server.getsockname())
            assert select.select([queue], [], [], 5)[0] == [queue]
            assert pending(queue, 5) == [(client.fileno(), WRITE)]
            assert pending(queue, 5) == [(client.fileno(), WRITE)], "level-triggered again"

    def test_backlog(self, queue: kqueue) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            add(queue, server, READ)
            assert pending(queue) == []
            clients = [socket.create_connection(server.getsockname()) for _ in range(3)]
            assert only(queue).data == 3
            server.accept()[0].close()
            assert only(queue).data == 2
            for client in clients:
                client.close()

    def test_pipe(self, queue: kqueue, pipe: tuple[int, int]) -> None:
        source, sink = pipe
        add(queue, source, READ)
        add(queue, sink, WRITE)
        event = only(queue)
        assert (event.ident, event.data) == (sink, 65536)
        os.write(sink, b"abc")
        (event,) = queue.control([kevent(source, READ, EV_DISABLE)], 2, 0)
        assert event.data < 65536
        queue.control([kevent(source, READ, EV_ENABLE), kevent(sink, WRITE, EV_DELETE)], 0)
        assert only(queue).data == 3
        os.close(sink)
        event = only(queue)
        assert (event.data, event.flags & EV_EOF) == (3, EV_EOF)

    def test_pipeWithoutReader(self, queue: kqueue, pipe: tuple[int, int]) -> None:
        source, sink = pipe
        os.set_blocking(sink, False)
        os.write(sink, bytes(65536))
        add(queue, sink, WRITE)
        assert pending(queue) == []
        os.close(source)
        assert only(queue).flags & EV_EOF

    def test_terminal(self, queue: kqueue) -> None:
        master, slave = os.openpty()
        add(queue, master, READ)
        add(queue, master, WRITE)
        assert pending(queue) == [(master, WRITE)]
        os.write(slave, b"ok")
        queue.control([kevent(master, WRITE, EV_DELETE)], 0)
        assert only(queue).data == 2
        os.close(slave)
        assert only(queue).flags & EV_EOF
        os.close(master)

    def test_file(self, queue: kqueue, tmp_path: Path) -> None:
        with (tmp_path / "file").open("wb+", buffering=0) as file:
            add(queue, file, READ)
            assert pending(queue) == [], "it is empty"
            file.write(b"abcdef")
            assert pending(queue) == [], "the offset is at the end"
            file.seek(2)
            assert only(queue).data == 4
            file.truncate(1)
            assert only(queue).data == -1
            add(queue, file, WRITE)
            assert pending(queue) == [(file.fileno(), WRITE), (file.fileno(), READ)]
            fd = file.fileno()
        assert pending(queue) == []
        assert errorOf(queue, fd, READ, EV_DELETE) == errno.EBADF

    def test_fileThatGrows(self, queue: kqueue, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.touch()

        def grow(*_: object) -> None:
            path.write_bytes(b"abc")

        with path.open("rb") as file, alarms(grow):
            add(queue, file, READ)
            started = time.monotonic()
            assert only(queue, 20).data == 3
            assert time.monotonic() - started < 10

    def test_deviceThatCannotBePolled(self, queue: kqueue) -> None:
        with open(os.devnull, "rb") as device:
            assert errorOf(queue, device, READ) == errno.ENODEV


class TestForgetting:
    def test_closedDescriptorIsForgotten(self, queue: kqueue) -> None:
        ours, peer = socket.socketpair()
        with ours, peer:
            add(queue, ours, READ)
            add(queue, ours, WRITE)
            assert pending(queue) != []
        assert pending(queue) == []

    def test_numberThatIsReused(self, queue: kqueue) -> None:
        ours, peer = socket.socketpair()
        other, otherPeer = socket.socketpair()
        with peer, other, otherPeer:
            fd = ours.detach()
            add(queue, fd, READ)
            add(queue, fd, WRITE, udata=1)
            os.dup2(other.fileno(), fd)
            otherPeer.send(b"x")
            assert pending(queue) == [], "the events were those of the file that was closed"
            assert errorOf(queue, fd, WRITE, EV_DELETE) == errno.ENOENT
            assert errorOf(queue, fd, READ, EV_ENABLE) == errno.ENOENT
            add(queue, fd, READ, udata=2)
            assert (only(queue).ident, only(queue).udata, only(queue).data) == (fd, 2, 1)
            os.close(fd)

    def test_sameFileUnderTheSameNumberAgain(self, queue: kqueue, pair: Pair) -> None:
        ours, peer = pair
        fd = os.dup(ours.fileno())
        add(queue, fd, WRITE)
        os.close(fd)
        assert errorOf(queue, fd, WRITE, EV_DELETE) == errno.EBADF
        os.dup2(ours.fileno(), fd)
        assert pending(queue) == []
        add(queue, fd, READ)
        peer.send(b"x")
        assert pending(queue, 5) == [(fd, READ)]
        os.close(fd)

    def test_numberThatIsReusedWhileACopyLives(self, queue: kqueue) -> None:
        ours, peer = socket.socketpair()
        copy = ours.dup()
        with ours, peer, copy:
            fd = ours.fileno()
            add(queue, ours, WRITE)
            other, otherPeer = socket.socketpair()
            with other, otherPeer:
                os.dup2(other.fileno(), fd)
                assert pending(queue) == [], "a copy does not keep the events"
                assert errorOf(queue, fd, WRITE, EV_DELETE) == errno.ENOENT
                peer.send(b"x")
                add(queue, fd, READ)
                assert pending(queue, 0.05) == []
                otherPeer.send(b"xy")
                assert only(queue).data == 2


class TestWaiting:
    def test_timeouts(self, queue: kqueue, pair: Pair) -> None:
        add(queue, pair[0], READ)
        for timeout, least in ((0, 0.0), (0.05, 0.05), (1e-9, 0.0)):
            started = time.monotonic()
            assert queue.control(None, 1, timeout) == []
            assert least <= time.monotonic() - started < 5

    def test_noneWaits(self, queue: kqueue, pair: Pair) -> None:
        ours, peer = pair
        add(queue, ours, READ)
        calls = 0

        def handler(*_: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 5:
                peer.send(b"x")

        with alarms(handler):
            assert queue.control(None, 1)[0].data == 1
        assert calls >= 5, "it goes on after a signal (PEP 475)"

    def test_handlerThatRaises(self, queue: kqueue) -> None:
        failed = False

        def fail(*_: object) -> None:
            nonlocal failed
            if not failed:
                failed = True
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), alarms(fail):
            queue.control(None, 1)

    def test_signalsDoNotProlong(self, queue: kqueue) -> None:
        def ignore(*_: object) -> None:
            pass

        started = time.monotonic()
        with alarms(ignore):
            assert queue.control(None, 1, 0.1) == []
        assert 0.1 <= time.monotonic() - started < 5

    def test_shortListServesEverybody(self, queue: kqueue) -> None:
        pairs = [socket.socketpair() for _ in range(20)]
        for ours, peer in pairs:
            add(queue, ours, READ)
            add(queue, ours, WRITE)
            peer.send(b"x")
        for _ in range(3):
            seen = {(event.ident, event.filter) for _ in range(10) for event in queue.control(None, 4, 0)}
            assert len(seen) == 40, "ten lists of four, nobody twice"
        for each in pairs:
            for sock in each:
                sock.close()

    def test_shortListKeepsWhatIsReportedOnce(self, queue: kqueue) -> None:
        pairs = [socket.socketpair() for _ in range(5)]
        for ours, _ in pairs:
            add(queue, ours, WRITE, EV_CLEAR)
        assert [len(queue.control(None, 2, 0)) for _ in range(4)] == [2, 2, 1, 0]
        for ours, _ in pairs:
            add(queue, ours, WRITE)
        seen = {event.ident for event in queue.control(None, 4, 0)}
        (left,) = {ours for ours, _ in pairs if ours.fileno() not in seen}
        queue.control([kevent(left, WRITE, EV_DELETE)], 0)
        assert [pending(queue), pending(queue)] == [[], []], "nor does the end of one report the others again"
        for each in pairs:
            for sock in each:
                sock.close()

    def test_oneFileUnderManyNumbers(self, queue: kqueue, pair: Pair) -> None:
        """More than Linux takes in nested epoll sets."""
        ours, peer = pair
        copies = [ours.dup() for _ in range(600)]
        for sock in copies:
            add(queue, sock, READ)
            add(queue, sock, WRITE)
        peer.send(b"x")
        assert len(queue.control(None, 2000, 5)) == 1200
        for sock in copies:
            sock.close()
        assert pending(queue) == []
