"""Tools of the loop's tests: a watched backend, a world with a clock of its own, foreign descriptors, forked children.

`Watched` stands between a reactor and a real backend and changes nothing but the clock, when told to; `Clock` is a
whole world without descriptors, in which time passes only when somebody says so.
"""

from __future__ import annotations

import gc
import os
import resource
import socket
import sys
import warnings
from typing import TYPE_CHECKING, Any

from calandria import Protocol, Reactor, _registry, address
from calandria.plugin import Backend, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calandria.failure import Failure

Trace = list[str]


class Watched(Backend):
    """A real backend that tells a trace of its polls; `shift` moves its clock, `freeze` stops it."""

    name = "watched"

    def __init__(self, backendName: str, trace: Trace | None = None) -> None:
        super().__init__()
        self.inner = _registry.makeBackend(backendName, {})
        self.trace = trace
        self.timeouts: list[float | None] = []
        self.interests: dict[int, int] = {}
        self.watches: list[tuple[int, int]] = []
        self.shift = 0.0
        self.frozen: float | None = None
        # What `poll` is to raise, once each.
        self.raising: list[BaseException] = []

    def seconds(self) -> float:
        return (self.inner.seconds() if self.frozen is None else self.frozen) + self.shift

    def freeze(self) -> None:
        self.frozen = self.inner.seconds()

    def watch(self, fd: int, interest: int) -> None:
        self.inner.watch(fd, interest)
        self.watches.append((fd, interest))
        if interest:
            self.interests[fd] = interest
        else:
            self.interests.pop(fd, None)

    def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        self.timeouts.append(timeout)
        if self.trace is not None:
            self.trace.append("poll")
        if self.raising:
            raise self.raising.pop(0)
        return self.inner.poll(timeout)

    def fileno(self) -> int:
        return self.inner.fileno()

    def close(self) -> None:
        self.inner.close()


class Clock(Backend):
    """A world in which nothing is ever ready, and in which it is `now` until somebody changes that."""

    name = "clock"

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.timeouts: list[float | None] = []
        # Whether a poll passes the time that it was asked to sleep for.
        self.sleeps = False

    def seconds(self) -> float:
        return self.now

    def socketpair(self) -> None:
        return None

    def watch(self, fd: int, interest: int) -> None:
        raise AssertionError("there is nothing to watch in this world")

    def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        self.timeouts.append(timeout)
        assert timeout is not None or not self.sleeps, "this would sleep for ever"
        if self.sleeps and timeout:
            self.now += timeout
        return ()

    def close(self) -> None:
        pass


class Watching:
    """A foreign descriptor on one end of a pair of sockets, whose other end is `peer`.

    It calls `onRead` and `onWrite`, keeps what it was `lost` for, and traces nothing by itself.
    """

    def __init__(
        self,
        onRead: Callable[[], object] | None = None,
        onWrite: Callable[[], object] | None = None,
    ) -> None:
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.onRead = onRead
        self.onWrite = onWrite
        self.reads = 0
        self.writes = 0
        self.lost: list[Failure] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> object:
        self.reads += 1
        return self.onRead() if self.onRead is not None else None

    def doWrite(self) -> object:
        self.writes += 1
        return self.onWrite() if self.onWrite is not None else None

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)

    def logPrefix(self) -> str:
        return "watching"

    def drain(self) -> bytes:
        """What has come so far."""
        try:
            return self.socket.recv(65536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.socket.close()
        self.peer.close()

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Number:
    """A foreign descriptor that is nothing but a number."""

    def __init__(self, fd: int, onRead: Callable[[], object] | None = None) -> None:
        self.fd = fd
        self.onRead = onRead
        self.reads = 0
        self.writes = 0
        self.lost: list[Failure] = []

    def fileno(self) -> int:
        return self.fd

    def doRead(self) -> object:
        self.reads += 1
        return self.onRead() if self.onRead is not None else None

    def doWrite(self) -> object:
        self.writes += 1
        return None

    def connectionLost(self, reason: Failure) -> None:
        self.lost.append(reason)


class TracingChannel:
    """A channel over a socket that tells a trace of its sends."""

    def __init__(self, sock: socket.socket, trace: Trace) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.trace = trace

    def fileno(self) -> int:
        return self.sock.fileno()

    def recv(self, limit: int) -> bytes:
        return self.sock.recv(limit)

    def send(self, data: Any) -> int:
        self.trace.append("send")
        return self.sock.send(data)

    def close(self) -> None:
        self.sock.close()


def tracedStream(reactor: Reactor, trace: Trace, protocol: Protocol | None = None) -> tuple[Stream, socket.socket]:
    """A started stream that traces its sends, and the peer's end."""
    here, there = socket.socketpair()
    where = address.UNIXAddress(None)
    stream = Stream(reactor, TracingChannel(here, trace), host=where, peer=where)
    stream.start(protocol if protocol is not None else Protocol())
    return stream, there


class Spin:
    """The SPIN oracle over a `with`: how often the backend was polled, and the CPU time that the process took."""

    def __init__(self, backend: Watched) -> None:
        self.backend = backend

    def __enter__(self) -> Spin:
        self._polls = len(self.backend.timeouts)
        self._cpu = cpu()
        return self

    def __exit__(self, *exc: object) -> None:
        self.polls = len(self.backend.timeouts) - self._polls
        self.seconds = cpu() - self._cpu


def cpu() -> float:
    """CPU seconds that this process has taken."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def idle(reactor: Reactor, seconds: float) -> None:
    """Run for a while, with nothing to do but to end."""
    reactor.callLater(seconds, reactor.crash)
    reactor.run(installSignalHandlers=False)


def inChild(function: Callable[[], object]) -> str:
    """Fork, call `function` in the child, and give the str of what it returned, or the repr of what it raised.

    Whatever the child writes to its standard error, a warning of the interpreter's end for instance, is appended.
    """
    # What earlier tests left to the collector is not to be found, and complained of, in the child.
    gc.collect()
    out, into = os.pipe()
    errors, intoErrors = os.pipe()
    with warnings.catch_warnings():
        # CPython warns of threads that a child does not have; those of the tests' peers are idle daemons.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 70
        try:
            os.dup2(intoErrors, 2)
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # for the rest of this process's life
            try:
                said = str(function())
            except BaseException as exc:
                said = repr(exc)
                del exc
            gc.collect()
            os.write(into, said.encode())
            sys.stderr.flush()
            status = 0
        finally:
            os._exit(status)
    os.close(into)
    os.close(intoErrors)
    with os.fdopen(out, "rb") as said_, os.fdopen(errors, "rb") as errors_:
        text = said_.read().decode() + errors_.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}: {text}"
    return text
