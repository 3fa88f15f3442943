"""Tools of the backends' tests: the classes to test, what a reactor would do with their answers, states of sockets.

Bits are read as a reactor reads them (`tried`), so that a backend may say "error" where another says "readable".
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import select
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from calandria.plugin import READABLE, WRITABLE, Backend

BOTH = READABLE | WRITABLE
BATCH = 256
classNames = {"select": "SelectBackend", "poll": "PollBackend", "epoll": "EpollBackend", "kqueue": "KqueueBackend"}
forced = os.environ.get("CALANDRIA_BACKEND")
standin = Path(__file__).parents[1] / "standins" / "kqueue.py"
names = [
    name
    for name in classNames
    if forced in (None, name) and (name != "kqueue" or hasattr(select, "kqueue") or standin.exists())
]


def backendClass(name: str, monkeypatch: pytest.MonkeyPatch) -> type[Backend]:
    """The class; kqueue's over a stand-in where the kernel has none."""
    if name == "kqueue" and not hasattr(select, "kqueue"):
        importlib.import_module("tests.standins.kqueue").install(monkeypatch)
    found: type[Backend] = getattr(importlib.import_module(f"calandria_{name}"), classNames[name])
    reason = found.unavailable()
    if reason is not None:
        pytest.skip(reason)
    return found


def tried(bits: int, interest: int) -> int:
    """What a reactor tries because of these bits: an unknown one means everything that was asked for."""
    return (interest if bits & ~BOTH else bits) & interest


def ready(backend: Backend, interests: dict[int, int], timeout: float | None = 0) -> dict[int, int]:
    """What one poll makes a reactor try; nothing else than `interests` may be reported."""
    found: dict[int, int] = {}
    for fd, bits in backend.poll(timeout):
        assert fd in interests, f"{fd} is reported, but not watched"
        found[fd] = found.get(fd, 0) | tried(bits, interests[fd])
    return {fd: bits for fd, bits in found.items() if bits}


def fill(sock: socket.socket) -> None:
    """Write until nothing more goes in."""
    sock.setblocking(False)
    try:
        while sock.send(bytes(65536)):
            pass
    except BlockingIOError:
        pass


def fillPipe(sink: int) -> None:
    """Write until nothing more goes in."""
    try:
        while os.write(sink, bytes(4096)):
            pass
    except BlockingIOError:
        pass


def drain(sock: socket.socket) -> None:
    """Read until nothing more comes out."""
    sock.setblocking(False)
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass


def tcpPair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    return ours, peer


@contextmanager
def fileLimit(soft: int) -> Generator[None]:
    """Another limit on open files for a while."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@contextmanager
def alarms(handler: Callable[[int, Any], None], first: float, every: float) -> Generator[None]:
    """SIGALRM, handled by `handler`, after `first` seconds and then each `every` seconds.

    No garbage is collected meanwhile: what a handler raises inside a finalizer goes nowhere.
    """
    before = signal.signal(signal.SIGALRM, handler)
    gc.disable()
    signal.setitimer(signal.ITIMER_REAL, first, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)


@contextmanager
def manyDescriptors(sock: socket.socket, count: int) -> Generator[list[int]]:
    """Numbers of one socket."""
    fds = [os.dup(sock.fileno()) for _ in range(count)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def closedWhileWatched(backend: Backend, interest: int) -> int:
    """A number that the backend watches still, though it was closed."""
    ours, peer = socket.socketpair()
    with ours, peer:
        backend.watch(ours.fileno(), interest)
        return ours.fileno()


class Interrupted(Exception):
    """What a signal handler raises."""


def raiseInterrupted(_number: int, _frame: object) -> None:
    raise Interrupted
