"""One sequence of events against all backends at once: each tells a reactor the same as the others, and as a model.

Hypothesis makes up the sequences, and shortens one that fails.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from calandria import error
from calandria.plugin import READABLE, WRITABLE
from tests.backends.tools import (
    BOTH,
    backendClass,
    drain,
    fill,
    names,
    tried,
)
from tests.helpers import openDescriptors


class Pair:
    """A stream whose state is known without asking a kernel."""

    def __init__(self, ours: socket.socket, peer: socket.socket) -> None:
        self.ours, self.peer = ours, peer
        self.waiting = self.full = self.ended = False
        self.interest = 0

    def expected(self) -> int:
        isReadable = READABLE if self.waiting or self.ended else 0
        isWritable = WRITABLE if not self.full or self.ended else 0
        return (isReadable | isWritable) & self.interest


class Registry(RuleBasedStateMachine):
    """Any order of opening, closing (announced or not), watching, and traffic: all backends tell the same.

    A number that was closed without a word is `stale` until it is watched or forgotten again: about it they may differ.
    """

    def __init__(self) -> None:
        super().__init__()
        self.monkeypatch = pytest.MonkeyPatch()
        self.backends = [backendClass(name, self.monkeypatch)() for name in names]
        self.pairs: dict[int, Pair] = {}
        self.stale: set[int] = set()

    def teardown(self) -> None:
        for backend in self.backends:
            backend.close()
        for pair in self.pairs.values():
            pair.ours.close()
            pair.peer.close()
        self.monkeypatch.undo()

    def pick(self, index: int) -> Pair:
        return list(self.pairs.values())[index % len(self.pairs)]

    @rule()
    @precondition(lambda self: len(self.pairs) < 6)
    def open(self) -> None:
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        peer.setblocking(False)
        self.pairs[ours.fileno()] = Pair(ours, peer)

    @rule(index=st.integers(0, 5), interest=st.sampled_from([0, READABLE, WRITABLE, BOTH]))
    @precondition(lambda self: self.pairs)
    def watch(self, index: int, interest: int) -> None:
        pair = self.pick(index)
        fd = pair.ours.fileno()
        for backend in self.backends:
            backend.watch(fd, interest)
        pair.interest = interest
        self.stale.discard(fd)

    @rule(interest=st.sampled_from([READABLE, WRITABLE, BOTH]))
    @precondition(lambda self: self.stale - openDescriptors().keys())
    def watchClosed(self, interest: int) -> None:
        fd = min(self.stale - openDescriptors().keys())
        for backend in self.backends:
            with pytest.raises(error.UnsupportedDescriptor):
                backend.watch(fd, interest)
        self.stale.discard(fd)

    @rule()
    @precondition(lambda self: self.stale)
    def forget(self) -> None:
        fd = min(self.stale)
        for backend in self.backends:
            backend.watch(fd, 0)
        self.stale.discard(fd)

    @rule(index=st.integers(0, 5), announced=st.booleans(), ended=st.booleans())
    @precondition(lambda self: self.pairs)
    def close(self, index: int, announced: bool, ended: bool) -> None:
        pair = self.pick(index)
        fd = pair.ours.fileno()
        if announced:
            for backend in self.backends:
                backend.watch(fd, 0)
            self.stale.discard(fd)
        elif pair.interest:
            self.stale.add(fd)
        if ended:
            pair.peer.close()
        pair.ours.close()
        pair.peer.close()
        del self.pairs[fd]

    @rule(index=st.integers(0, 5))
    @precondition(lambda self: self.pairs)
    def peerSends(self, index: int) -> None:
        pair = self.pick(index)
        if not pair.ended:
            try:
                pair.peer.send(b"x")
            except BlockingIOError:
                pass
            pair.waiting = True

    @rule(index=st.integers(0, 5))
    @precondition(lambda self: self.pairs)
    def peerEnds(self, index: int) -> None:
        pair = self.pick(index)
        pair.peer.close()
        pair.ended = True

    @rule(index=st.integers(0, 5))
    @precondition(lambda self: self.pairs)
    def peerReads(self, index: int) -> None:
        pair = self.pick(index)
        if not pair.ended:
            drain(pair.peer)
            pair.full = False

    @rule(index=st.integers(0, 5))
    @precondition(lambda self: self.pairs)
    def read(self, index: int) -> None:
        pair = self.pick(index)
        drain(pair.ours)
        pair.waiting = False

    @rule(index=st.integers(0, 5))
    @precondition(lambda self: self.pairs)
    def write(self, index: int) -> None:
        pair = self.pick(index)
        if not pair.ended:
            fill(pair.ours)
            pair.full = True

    @invariant()
    def allTellTheSame(self) -> None:
        expected = {fd: pair.expected() for fd, pair in self.pairs.items() if fd not in self.stale and pair.expected()}
        for backend in self.backends:
            found: dict[int, int] = {}
            for fd, bits in backend.poll(0):
                if fd not in self.stale:
                    assert fd in self.pairs, f"{backend.name} reports {fd}, which is closed and forgotten"
                    assert self.pairs[fd].interest, f"{backend.name} reports {fd}, which nobody watches"
                    found[fd] = found.get(fd, 0) | tried(bits, self.pairs[fd].interest)
            assert found == expected, backend.name


TestRegistry: Any = Registry.TestCase
TestRegistry.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
