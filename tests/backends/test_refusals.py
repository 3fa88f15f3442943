"""What backends do with descriptors that they cannot watch, and on systems that they cannot work on.

The mistake is told to whoever made it, and nobody else notices: not when a descriptor was closed without a word either,
nor when its number is another file's by then.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

import calandria_select
from calandria import error
from calandria.plugin import READABLE, WRITABLE, Backend
from tests.backends.tools import (
    BOTH,
    backendClass,
    classNames,
    closedWhileWatched,
    fileLimit,
    fill,
    manyDescriptors,
    ready,
    tcpPair,
)
from tests.helpers import openDescriptors, runPython


class TestForeignClose:
    """Descriptors that were closed without a word to the backend, and their numbers in other hands (B04, B09)."""

    @pytest.mark.parametrize("interest", [READABLE, WRITABLE, BOTH])
    def test_othersAreServed(
        self, backend: Backend, backendName: str, pair: tuple[socket.socket, socket.socket], interest: int
    ) -> None:
        ours, peer = pair
        number = closedWhileWatched(backend, interest)
        backend.watch(ours.fileno(), READABLE)
        interests = {number: interest, ours.fileno(): READABLE}
        peer.send(b"x")
        # These two kernels forget a closed descriptor and tell nobody; the other two tell whoever asks.
        expected = {ours.fileno(): READABLE}
        if backendName in ("select", "poll"):
            expected[number] = interest
        for _ in range(3):
            assert ready(backend, interests, None) == expected
        backend.watch(number, 0)
        assert ready(backend, {ours.fileno(): READABLE}, None) == {ours.fileno(): READABLE}

    @pytest.mark.parametrize("before", [READABLE, WRITABLE, BOTH])
    @pytest.mark.parametrize("after", [READABLE, WRITABLE, BOTH])
    @pytest.mark.parametrize("forget", [False, True])
    def test_reusedNumberIsWatchedAnew(
        self, backend: Backend, pair: tuple[socket.socket, socket.socket], before: int, after: int, forget: bool
    ) -> None:
        ours, peer = pair
        number = closedWhileWatched(backend, before)
        os.dup2(ours.fileno(), number)
        try:
            if forget:
                backend.watch(number, 0)
            backend.watch(number, after)
            assert ready(backend, {number: after}) == ({number: WRITABLE} if after & WRITABLE else {})
            peer.send(b"x")
            assert ready(backend, {number: after}) == {number: after}
            backend.watch(number, 0)
            assert list(backend.poll(0)) == []
        finally:
            os.close(number)

    def test_reusedNumberForgotten(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        number = closedWhileWatched(backend, READABLE)
        os.dup2(ours.fileno(), number)
        try:
            peer.send(b"x")
            backend.watch(number, 0)
            assert list(backend.poll(0)) == []
        finally:
            os.close(number)

    def test_sameFileAgainUnderItsNumber(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        """A duplicate keeps the file in epoll's set while its number is closed: EEXIST, when it comes back."""
        ours, peer = pair
        number = os.dup(ours.fileno())
        backend.watch(number, WRITABLE)
        os.close(number)
        backend.watch(number, 0)
        os.dup2(ours.fileno(), number)
        try:
            backend.watch(number, READABLE)
            assert ready(backend, {number: READABLE}) == {}
            peer.send(b"x")
            assert list(backend.poll(1)) == [(number, READABLE)]
        finally:
            backend.watch(number, 0)
            os.close(number)


class TestRefusals:
    def test_forgettingNeverRaises(self, makeBackend: type[Backend], pair: tuple[socket.socket, socket.socket]) -> None:
        backend = makeBackend()
        number = closedWhileWatched(backend, BOTH)
        anything = (number, pair[0].fileno(), -1, 19_999, 1 << 40)
        for fd in anything:
            backend.watch(fd, 0)
            backend.watch(fd, 0)
        backend.watch(pair[0].fileno(), BOTH)
        backend.close()
        for fd in anything:
            backend.watch(fd, 0)

    @pytest.mark.parametrize("interest", [READABLE, WRITABLE, BOTH])
    @pytest.mark.parametrize("fd", [-1, 5000, 1 << 40, None])
    def test_refused(self, backend: Backend, fd: int | None, interest: int) -> None:
        """At once, saying which descriptor, by whom and why. (None: a low number that is closed.)"""
        if fd is None:
            fd = os.dup(0)
            os.close(fd)
        with pytest.raises(error.UnsupportedDescriptor, match=rf"^{backend.name} cannot watch descriptor {fd}: \w"):
            backend.watch(fd, interest)
        assert list(backend.poll(0)) == []

    def test_closedBeyondTheTable(self, backendName: str) -> None:
        """Linux's select overlooks closed numbers beyond the files that a process ever had; this one has had few."""
        if backendName == "kqueue":
            pytest.skip("a new process has no stand-in")
        code = f"""
            from calandria import error
            from calandria_{backendName} import {classNames[backendName]} as Backend
            try:
                Backend().watch(900, 1)
            except error.UnsupportedDescriptor as exc:
                print(exc)
        """
        done = runPython(textwrap.dedent(code))
        assert done.stdout.startswith(f"{backendName} cannot watch descriptor 900: "), done.stderr

    def test_refusedIsForgotten(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        number = os.dup(ours.fileno())
        backend.watch(number, READABLE)
        os.close(number)
        with pytest.raises(error.UnsupportedDescriptor):
            backend.watch(number, BOTH)
        replacement = os.dup2(peer.fileno(), number)
        try:
            ours.send(b"x")
            assert list(backend.poll(0)) == []
        finally:
            os.close(replacement)

    def test_regularFile(self, backend: Backend, backendName: str, tmp_path: Path) -> None:
        """The reactor refuses these itself; a backend says what its kernel says."""
        if backendName == "kqueue":
            pytest.skip("real kernels take these, a stand-in may be unable to")
        with open(tmp_path / "file", "w+b") as file:
            if backendName == "epoll":
                with pytest.raises(error.UnsupportedDescriptor, match="regular file"):
                    backend.watch(file.fileno(), BOTH)
                assert list(backend.poll(0)) == []
            else:
                backend.watch(file.fileno(), WRITABLE)
                backend.watch(file.fileno(), 0)

    def test_highNumber(self, backend: Backend, backendName: str, pair: tuple[socket.socket, socket.socket]) -> None:
        """Above select's table (B10): refused there at once, the others go on; taken elsewhere."""
        ours, peer = pair
        backend.watch(ours.fileno(), READABLE)
        with fileLimit(4096):
            high = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, 1024)
        try:
            if backendName == "select":
                with pytest.raises(
                    error.UnsupportedDescriptor, match=f"^select cannot watch descriptor {high}: .*range"
                ):
                    backend.watch(high, READABLE)
                interests = {ours.fileno(): READABLE}
            else:
                backend.watch(high, READABLE)
                interests = {ours.fileno(): READABLE, high: READABLE}
            peer.send(b"x")
            assert ready(backend, interests, 5) == interests
        finally:
            backend.watch(high, 0)
            os.close(high)


class TestUnavailable:
    def test_missing(self, backendName: str, monkeypatch: pytest.MonkeyPatch) -> None:
        if backendName == "select":
            pytest.skip("every Python has it")
        found = backendClass(backendName, monkeypatch)
        monkeypatch.delattr(select, backendName)
        reason = found.unavailable()
        assert reason is not None
        assert reason.startswith(f"the select module of this Python has no {backendName}: it exists on ")

    def test_noDescriptorLeft(self, makeBackend: type[Backend], backendName: str) -> None:
        if backendName in ("select", "poll"):
            pytest.skip("it needs none")
        with fileLimit(0):
            reason = makeBackend.unavailable()
        assert reason == f"the kernel gives no {backendName} descriptor: Too many open files"

    def test_asking(self, makeBackend: type[Backend]) -> None:
        before = openDescriptors()
        assert makeBackend.unavailable() is None
        assert openDescriptors() == before


class TestSelectOnWindows:
    """The code for Windows, as far as it can run here."""

    @pytest.fixture(autouse=True)
    def windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(calandria_select, "windows", True)

    def test_exceptionalSet(self) -> None:
        """There it tells of a failed connect. Here it tells of urgent data, which shows that it is asked."""
        ours, peer = tcpPair()
        with ours, peer, closing(calandria_select.SelectBackend()) as backend:
            fill(ours)
            backend.watch(ours.fileno(), WRITABLE)
            peer.send(b"!", socket.MSG_OOB)
            assert list(backend.poll(5)) == [(ours.fileno(), WRITABLE)]

    def test_fullSet(self, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, _ = pair
        with fileLimit(4096), manyDescriptors(ours, 513) as fds, closing(calandria_select.SelectBackend()) as backend:
            for fd in fds[:512]:
                backend.watch(fd, BOTH)
            with pytest.raises(error.UnsupportedDescriptor, match="no more than 512"):
                backend.watch(fds[512], READABLE)
            backend.watch(fds[0], READABLE)
            backend.watch(fds[1], 0)
            backend.watch(fds[512], READABLE)
