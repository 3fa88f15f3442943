"""Every backend against the contract in `calandria.plugin.Backend`, with real descriptors.

What is asserted is what a reactor relies on: which descriptors it is told to try, and that it is told of each; that
time is kept; that neither signals nor crowds lose anything.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import textwrap
import threading
from contextlib import closing

import pytest

from calandria.plugin import READABLE, WRITABLE, Backend
from tests.backends.tools import (
    BATCH,
    BOTH,
    Interrupted,
    alarms,
    drain,
    fileLimit,
    fill,
    fillPipe,
    manyDescriptors,
    raiseInterrupted,
    ready,
    tcpPair,
)
from tests.helpers import openDescriptors, runPython, unusedPort


class TestReadiness:
    def test_bitsAreTheKernels(self) -> None:
        assert (READABLE, WRITABLE) == (1, 4)

    def test_readable(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        fd = ours.fileno()
        backend.watch(fd, READABLE)
        assert ready(backend, {fd: READABLE}) == {}
        peer.send(b"x")
        assert list(backend.poll(None)) == [(fd, READABLE)]
        assert list(backend.poll(0)) == [(fd, READABLE)], "readiness is level-triggered"
        ours.recv(1)
        assert ready(backend, {fd: READABLE}) == {}

    def test_writable(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        fd = ours.fileno()
        backend.watch(fd, WRITABLE)
        assert list(backend.poll(None)) == [(fd, WRITABLE)]
        fill(ours)
        assert ready(backend, {fd: WRITABLE}) == {}
        drain(peer)
        assert list(backend.poll(None)) == [(fd, WRITABLE)]

    def test_both(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        fd = ours.fileno()
        backend.watch(fd, BOTH)
        assert ready(backend, {fd: BOTH}) == {fd: WRITABLE}
        peer.send(b"x")
        assert ready(backend, {fd: BOTH}) == {fd: BOTH}

    def test_interestChanges(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        fd = ours.fileno()
        peer.send(b"x")
        for interest in (READABLE, WRITABLE, BOTH, READABLE, BOTH, WRITABLE, READABLE):
            backend.watch(fd, interest)
            merged = 0
            for reported, bits in backend.poll(1):
                assert reported == fd
                merged |= bits
            assert merged == interest, "not only masked: the kernel is not asked for what nobody wants"

    def test_forgotten(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        peer.send(b"x")
        for interest in (READABLE, WRITABLE, BOTH):
            backend.watch(ours.fileno(), interest)
            backend.watch(ours.fileno(), 0)
            assert list(backend.poll(0)) == []

    def test_severalDescriptors(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        interests = {ours.fileno(): READABLE, peer.fileno(): BOTH}
        for fd, interest in interests.items():
            backend.watch(fd, interest)
        assert ready(backend, interests) == {peer.fileno(): WRITABLE}
        peer.send(b"x")
        assert ready(backend, interests) == {peer.fileno(): WRITABLE, ours.fileno(): READABLE}


class TestEnds:
    """Ends and errors make a descriptor ready for what was asked; the system call tells what happened."""

    @pytest.mark.parametrize("interest", [READABLE, BOTH])
    def test_endOfStream(self, backend: Backend, pair: tuple[socket.socket, socket.socket], interest: int) -> None:
        ours, peer = pair
        backend.watch(ours.fileno(), interest)
        peer.send(b"last")
        peer.shutdown(socket.SHUT_WR)
        assert ready(backend, {ours.fileno(): interest}, 5)[ours.fileno()] & READABLE
        assert ours.recv(100) == b"last"
        assert ready(backend, {ours.fileno(): interest}, 5)[ours.fileno()] & READABLE
        assert ours.recv(100) == b""

    @pytest.mark.parametrize("interest", [READABLE, WRITABLE, BOTH])
    def test_reset(self, backend: Backend, interest: int) -> None:
        ours, peer = tcpPair()
        with ours:
            fill(ours)
            backend.watch(ours.fileno(), interest)
            assert ready(backend, {ours.fileno(): interest}) == {}
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            assert ready(backend, {ours.fileno(): interest}, 5)[ours.fileno()] == interest
            with pytest.raises(ConnectionResetError):
                ours.recv(1) if interest & READABLE else ours.send(b"x")

    def test_connectRefused(self, backend: Backend) -> None:
        with socket.socket() as ours:
            ours.setblocking(False)
            with pytest.raises(BlockingIOError):
                ours.connect(("127.0.0.1", unusedPort()))
            backend.watch(ours.fileno(), WRITABLE)
            assert ready(backend, {ours.fileno(): WRITABLE}, 5) == {ours.fileno(): WRITABLE}
            with pytest.raises(ConnectionRefusedError):
                raise OSError(ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "refused")

    @pytest.mark.parametrize("early", [False, True])
    def test_pipeWithoutReader(self, backend: Backend, early: bool) -> None:
        source, sink = os.pipe()
        os.set_blocking(sink, False)
        try:
            fillPipe(sink)
            if early:
                os.close(source)
            backend.watch(sink, WRITABLE)
            if not early:
                assert ready(backend, {sink: WRITABLE}) == {}
                os.close(source)
            assert ready(backend, {sink: WRITABLE}, 5) == {sink: WRITABLE}
            with pytest.raises(BrokenPipeError):
                os.write(sink, b"x")
        finally:
            backend.watch(sink, 0)
            os.close(sink)
        assert list(backend.poll(0)) == []

    def test_urgentDataIsNoEvent(self, backend: Backend) -> None:
        ours, peer = tcpPair()
        with ours, peer:
            fill(ours)
            peer.send(b"!", socket.MSG_OOB)
            select.select([], [], [ours], 5)
            for interest in (READABLE, WRITABLE, BOTH):
                backend.watch(ours.fileno(), interest)
                assert list(backend.poll(0)) == []


class TestSleep:
    @pytest.mark.parametrize("watching", [False, True])
    def test_neverEarly(self, backend: Backend, pair: tuple[socket.socket, socket.socket], watching: bool) -> None:
        """By the backend's own clock, at fractions of every unit in use (B15); with nothing to watch as well (B12)."""
        if watching:
            backend.watch(pair[0].fileno(), READABLE)
        generator = random.Random(15)
        timeouts = [0.0003 * n for n in range(12)] + [generator.uniform(0, 0.003) for _ in range(40)]
        for timeout in [*timeouts, 1e-9, 1e-6, 0.0010001, 0.0009999]:
            start = backend.seconds()
            assert list(backend.poll(timeout)) == []
            assert backend.seconds() - start >= timeout

    def test_nothingLeftToWatch(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        backend.watch(pair[0].fileno(), BOTH)
        backend.watch(pair[0].fileno(), 0)
        start = backend.seconds()
        assert list(backend.poll(0.02)) == []
        assert 0.02 <= backend.seconds() - start < 5

    @pytest.mark.parametrize("timeout", [None, 86_400, 86_400.0, 86_399.999999])
    @pytest.mark.parametrize("watching", [False, True])
    def test_longestSleep(
        self, backend: Backend, pair: tuple[socket.socket, socket.socket], timeout: float | None, watching: bool
    ) -> None:
        """The longest time-outs are taken (B14), and what a signal handler raises ends them."""
        if watching:
            backend.watch(pair[0].fileno(), READABLE)
        with alarms(raiseInterrupted, 0.01, 0.5), pytest.raises(Interrupted):
            backend.poll(timeout)

    def test_wokenByAnotherThread(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        backend.watch(ours.fileno(), READABLE)
        thread = threading.Thread(target=lambda: peer.send(b"x"))
        thread.start()
        assert list(backend.poll(None)) == [(ours.fileno(), READABLE)]
        thread.join()


class TestSignals:
    def test_interruptedCallsGoOn(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        """A thousand signals a second make no sleep shorter and lose no readiness (B16)."""
        ours, peer = pair
        backend.watch(ours.fileno(), READABLE)
        calls = 0

        def handler(_number: int, _frame: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 60:
                peer.send(b"x")

        with alarms(handler, 0.001, 0.001):
            start = backend.seconds()
            assert list(backend.poll(0.02)) == []
            assert backend.seconds() - start >= 0.02
            assert 0 < calls < 60
            assert list(backend.poll(None)) == [(ours.fileno(), READABLE)]
            assert calls >= 60

    def test_raisingHandlerLeavesAllWatched(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        fill(ours)
        with closing(os.fdopen(os.dup(ours.fileno()))) as other:
            interests = {ours.fileno(): BOTH, other.fileno(): WRITABLE}
            for fd, interest in interests.items():
                backend.watch(fd, interest)
            for _ in range(5):
                with alarms(raiseInterrupted, 0.002, 0.5), pytest.raises(Interrupted):
                    backend.poll(None)
            peer.send(b"x")
            assert ready(backend, interests) == {ours.fileno(): READABLE}
            drain(peer)
            assert ready(backend, interests) == {ours.fileno(): BOTH, other.fileno(): WRITABLE}


class TestFairness:
    """More ready descriptors than a batch holds (B26)."""

    @pytest.mark.parametrize("wanted", [[READABLE], [BOTH], [READABLE, WRITABLE]])
    @pytest.mark.parametrize("backwards", [False, True])
    def test_allAreServed(
        self,
        backend: Backend,
        backendName: str,
        pair: tuple[socket.socket, socket.socket],
        wanted: list[int],
        backwards: bool,
    ) -> None:
        """Each within as many polls as their number takes, again and again, whatever the order they came in."""
        ours, peer = pair
        peer.send(b"x")
        with fileLimit(4096), manyDescriptors(ours, 600) as fds:
            interests = {fd: wanted[fd % len(wanted)] for fd in sorted(fds, reverse=backwards)}
            for fd, interest in interests.items():
                backend.watch(fd, interest)
            eventsEach = 2 if backendName == "kqueue" and wanted == [BOTH] else 1
            for _ in range(4):
                served: dict[int, int] = {}
                for _ in range(-(-len(fds) * eventsEach // BATCH)):
                    events = backend.poll(0)
                    assert len(events) <= BATCH
                    for fd, bits in events:
                        served[fd] = served.get(fd, 0) | bits
                assert served == interests

    def test_notWhileOthersComeAndGo(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        """The others are forgotten and watched anew, in any order, between the polls: they do not push anybody back."""
        ours, peer = pair
        peer.send(b"x")
        with fileLimit(4096), manyDescriptors(ours, 600) as fds:
            generator = random.Random(26)
            for fd in fds:
                backend.watch(fd, READABLE)
            waiting = set(generator.sample(fds, 20))
            restless = [fd for fd in fds if fd not in waiting]
            for _ in range(8):
                waiting -= {fd for fd, _ in backend.poll(0)}
                for fd in generator.sample(restless, 50):
                    backend.watch(fd, 0)
                    backend.watch(fd, READABLE)
            assert not waiting

    def test_smallBatchesAreWhole(self, backend: Backend, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        peer.send(b"x")
        with manyDescriptors(ours, BATCH) as fds:
            for fd in fds:
                backend.watch(fd, READABLE)
            for _ in range(3):
                assert sorted(backend.poll(0)) == [(fd, READABLE) for fd in sorted(fds)]


class TestLife:
    def test_closeGivesEverythingBack(
        self, makeBackend: type[Backend], pair: tuple[socket.socket, socket.socket]
    ) -> None:
        before = openDescriptors()
        backend = makeBackend()
        backend.watch(pair[0].fileno(), BOTH)
        backend.close()
        backend.close()
        assert openDescriptors() == before
        assert backend.fileno() == -1

    def test_severalSideBySide(self, makeBackend: type[Backend], pair: tuple[socket.socket, socket.socket]) -> None:
        ours, peer = pair
        with closing(makeBackend()) as first, closing(makeBackend()) as second:
            first.watch(ours.fileno(), READABLE)
            second.watch(ours.fileno(), WRITABLE)
            peer.send(b"x")
            assert list(first.poll(0)) == [(ours.fileno(), READABLE)]
            first.close()
            assert list(second.poll(0)) == [(ours.fileno(), WRITABLE)]

    def test_fileno(self, backend: Backend, backendName: str, pair: tuple[socket.socket, socket.socket]) -> None:
        if backendName in ("select", "poll"):
            assert backend.fileno() == -1
            return
        ours, peer = pair
        backend.watch(ours.fileno(), READABLE)
        assert select.select([backend.fileno()], [], [], 0)[0] == []
        peer.send(b"x")
        assert select.select([backend.fileno()], [], [], 5)[0] == [backend.fileno()]

    def test_unknownOption(self, makeBackend: type[Backend], backendName: str) -> None:
        before = openDescriptors()
        with pytest.raises(TypeError) as caught:
            makeBackend(colour="red", size=3)
        assert str(caught.value) == (
            f"the backend {backendName!r} was given colour='red', size=3; the options that it takes: none"
        )
        assert openDescriptors() == before

    def test_nameAndVersion(self, makeBackend: type[Backend], backendName: str) -> None:
        assert makeBackend.name == backendName
        assert makeBackend.api == 1

    def test_onlyItsOwnModule(self, backendName: str) -> None:
        """Importing a backend imports neither another one nor anything heavy."""
        code = f"""
            import sys, calandria_{backendName}
            heavy = {{"typing", "dataclasses", "inspect", "ssl", "asyncio", "concurrent.futures", "pluggy", "random",
                "importlib_metadata"}}
            print(sorted(name for name in sys.modules if name in heavy or name.startswith("calandria_")))
        """
        done = runPython(textwrap.dedent(code))
        assert done.stdout.strip() == str([f"calandria_{backendName}"]), done.stderr
