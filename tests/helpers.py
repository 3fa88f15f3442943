"""Tools of the tests: drive a reactor to a condition, be its peer in a thread or a process, capture its log.

Nothing here waits by sleeping, and nothing waits for ever: each wait names a condition and has a deadline, after which
the test fails with what was awaited. Peers are blocking sockets, so that they share no code with what they test.
"""

from __future__ import annotations

import copy
import logging
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from calandria import Reactor

ResultT = TypeVar("ResultT")

# Generous, because machines that run tests are slow and shared: a passing test never waits for it.
DEADLINE = 20.0


# Driving a reactor


def runUntil(reactor: Reactor, predicate: Callable[[], object], timeout: float = DEADLINE) -> None:
    """Run `reactor` until `predicate()` is true; ports and connections survive, so it may be called again.

    It leaves the loop with `crash()`, which fires no shutdown. AssertionError after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    late = False

    def look() -> None:
        nonlocal late
        late = time.monotonic() > deadline
        if late or predicate():
            reactor.crash()
        else:
            reactor.callLater(0.001, look)

    reactor.callLater(0, look)
    reactor.run(installSignalHandlers=False)
    assert not late, f"not so after {timeout} s: {describe(predicate)}"


def describe(predicate: Callable[[], object]) -> str:
    """Where a predicate was written, for messages."""
    code = getattr(predicate, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(predicate)


# Peers


class Background(Generic[ResultT]):
    """A call in a thread of its own, for peers that block. Given to `runUntil` it is true when the call has ended."""

    def __init__(self, function: Callable[..., ResultT], *args: object) -> None:
        self._outcome: list[Callable[[], ResultT]] = []
        self._thread = threading.Thread(
            target=self._call, args=(function, *args), name=f"peer {function!r}", daemon=True
        )
        self._thread.start()

    def _call(self, function: Callable[..., ResultT], *args: object) -> None:
        try:
            result = function(*args)
        except BaseException as exception:
            error = exception

            def fail() -> ResultT:
                raise error

            self._outcome.append(fail)
        else:
            self._outcome.append(lambda: result)

    def __call__(self) -> bool:
        return bool(self._outcome)

    def result(self, timeout: float = DEADLINE) -> ResultT:
        """What the call returned; what it raised is raised here."""
        self._thread.join(timeout)
        assert self._outcome, f"{self._thread.name} still runs after {timeout} s"
        return self._outcome[0]()


def runWith(reactor: Reactor, function: Callable[..., ResultT], *args: object, timeout: float = DEADLINE) -> ResultT:
    """Run `reactor` for as long as `function(*args)` takes in a thread; its result."""
    call = Background(function, *args)
    runUntil(reactor, call, timeout)
    return call.result()


def connectTo(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A blocking TCP connection, each of whose operations may take DEADLINE seconds."""
    return socket.create_connection((host, port), DEADLINE)


def receiveExactly(peer: socket.socket, count: int) -> bytes:
    """`count` bytes, or fewer if the stream ends before."""
    received = bytearray()
    while len(received) < count and (data := peer.recv(min(65536, count - len(received)))):
        received += data
    return bytes(received)


def receiveAll(peer: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    return receiveExactly(peer, sys.maxsize)


def exchange(port: int, data: bytes, host: str = "127.0.0.1") -> bytes:
    """Connect, send, say that no more comes, and return everything that comes back."""
    with connectTo(port, host) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        return receiveAll(peer)


def unusedPort(host: str = "127.0.0.1") -> int:
    """A port number that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


# Processes


def runPython(
    code: str, *args: str, env: Mapping[str, str | None] | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a program text in a new interpreter, warnings being errors; `env` changes ours, None removes a variable."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args],
        env=mergedEnvironment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def mergedEnvironment(changes: Mapping[str, str | None] | None) -> dict[str, str]:
    """Our environment with `changes` applied; None removes a variable."""
    merged: dict[str, str | None] = {**os.environ, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


class Program:
    """A process that goes on until it is stopped; `output` collects what it prints, both streams together.

    Use it in a `with`, which kills what still runs.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self.command = list(command)
        self.output = ""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            self.command,
            env=mergedEnvironment({"PYTHONUNBUFFERED": "1", **(env or {})}),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(None)

    def waitFor(self, pattern: str, timeout: float = DEADLINE) -> re.Match[str]:
        """The first line, from here on, in which the regular expression is found."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no {pattern!r} in the output of {self.command}:\n{self.output}")
            self.output += line
            if match := re.search(pattern, line):
                return match

    def stop(self, signalNumber: int = signal.SIGTERM, timeout: float = DEADLINE) -> int:
        """Send a signal to the whole process group, wait, and return the exit code."""
        os.killpg(self.process.pid, signalNumber)
        return self.wait(timeout)

    def wait(self, timeout: float = DEADLINE) -> int:
        """Wait for the end by itself; the exit code. The rest of the output is in `output` then."""
        code = self.process.wait(timeout)
        while (line := self._lines.get(timeout=timeout)) is not None:
            self.output += line
        return code

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self._reader.join()


# Logs and descriptors


class LogCapture(logging.Handler):
    """Collects the records of the logger "calandria" and of those below it, from DEBUG on, in `records`.

    A record is kept without the exception itself: its text is in `exc_text`, and no traceback keeps frames alive.
    (pytest's own capture keeps them: a test about garbage calls `keepToItself`.)
    """

    def __init__(self, name: str = "calandria") -> None:
        super().__init__(logging.DEBUG)
        self.logger = logging.getLogger(name)
        self.records: list[logging.LogRecord] = []
        self._formatter = logging.Formatter("%(levelname)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        kept = copy.copy(record)
        kept.message = record.getMessage()
        kept.msg, kept.args = kept.message, ()
        if record.exc_info and not record.exc_text:
            kept.exc_text = self._formatter.formatException(record.exc_info)
        kept.exc_info = None
        self.records.append(kept)

    def format(self, record: logging.LogRecord) -> str:
        return self._formatter.format(record)

    def takeErrors(self) -> list[logging.LogRecord]:
        """The records of ERROR and above, which are removed."""
        return self.take(logging.ERROR)

    def take(self, level: int) -> list[logging.LogRecord]:
        """The records of `level` and above, which are removed."""
        taken = [record for record in self.records if record.levelno >= level]
        self.records = [record for record in self.records if record.levelno < level]
        return taken

    def keepToItself(self) -> None:
        """Nobody else sees the records until the end of the test."""
        self.logger.propagate = False

    def __enter__(self) -> LogCapture:
        self._before = self.logger.level, self.logger.propagate
        self.logger.setLevel(logging.DEBUG)
        self.logger.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.logger.removeHandler(self)
        level, self.logger.propagate = self._before
        self.logger.setLevel(level)


def openDescriptors() -> dict[int, str]:
    """This process's open descriptors and what each one is."""
    linux = os.path.isdir("/proc/self/fd")
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd" if linux else "/dev/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}") if linux else str(os.fstat(int(name)))
        except OSError:
            continue  # the one that listed the folder
    return found


def descriptorsOpenedSince(before: Mapping[int, str], timeout: float = 2.0) -> dict[int, str]:
    """What is open now and was not then. While other threads still run they get `timeout` seconds to close theirs."""
    deadline = time.monotonic() + timeout
    while True:
        left = {fd: what for fd, what in openDescriptors().items() if before.get(fd) != what}
        # The one that looks is none of them, nor the clock of the test's own time limit.
        others = [
            thread
            for thread in threading.enumerate()
            if thread is not threading.current_thread() and not isinstance(thread, threading.Timer)
        ]
        if not left or not others or time.monotonic() > deadline:
            return left
        others[0].join(0.01)
