"""What the base class of all backends offers: the real world, without a detour, and the handling of options."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import ClassVar

import pytest

from calandria.plugin import Backend


class TestWorld:
    """What the base class offers: the real world, without a detour."""

    class Named(Backend):
        name: ClassVar[str] = "named"

        def __init__(self, *, seed: int = 0, speed: float = 1.0, **options: object) -> None:
            super().__init__(**options)
            self.seed, self.speed = seed, speed

    def test_itIsTheRealOne(self) -> None:
        backend = self.Named()
        for offered, real in (
            (backend.seconds, time.monotonic),
            (backend.socket, socket.socket),
            (backend.socketpair, socket.socketpair),
            (backend.getaddrinfo, socket.getaddrinfo),
            (backend.unlink, os.unlink),
            (backend.stat, os.stat),
            (backend.chmod, os.chmod),
        ):
            assert offered is real

    def test_random(self) -> None:
        numbers = {self.Named().random() for _ in range(50)}
        assert len(numbers) > 40
        assert all(0 <= number < 1 for number in numbers)

    def test_callInThread(self) -> None:
        seen: list[threading.Thread] = []
        done = threading.Event()

        def work() -> None:
            seen.append(threading.current_thread())
            done.set()

        self.Named().callInThread(work)
        assert done.wait(20)
        assert seen[0] is not threading.current_thread()
        assert seen[0].daemon
        seen[0].join()

    def test_options(self) -> None:
        backend = self.Named(seed=3)
        assert (backend.seed, backend.speed) == (3, 1.0)
        with pytest.raises(
            TypeError, match=r"^the backend 'named' was given sed=3; the options that it takes: seed, speed$"
        ):
            self.Named(seed=1, sed=3)

    def test_whatAnAuthorHasToWrite(self) -> None:
        backend = self.Named()
        assert self.Named.unavailable() is None
        assert backend.fileno() == -1
        backend.close()
        for unwritten in (lambda: backend.watch(0, 1), lambda: backend.poll(0)):
            with pytest.raises(NotImplementedError, match=r"^Named\."):
                unwritten()
