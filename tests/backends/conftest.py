"""Fixtures of the backends' tests: each runs on all four, kqueue included, over a stand-in if this kernel has none."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from calandria.plugin import Backend
from tests.backends.tools import (
    backendClass,
    names,
)


@pytest.fixture(params=names)
def backendName(request: pytest.FixtureRequest) -> str:
    """All four, unlike elsewhere: kqueue, through the stand-in if need be, too."""
    name: str = request.param
    return name


@pytest.fixture
def makeBackend(backendName: str, monkeypatch: pytest.MonkeyPatch) -> type[Backend]:
    return backendClass(backendName, monkeypatch)


@pytest.fixture
def backend(makeBackend: type[Backend]) -> Iterator[Backend]:
    with closing(makeBackend()) as made:
        yield made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected stream: ours, which does not block, and the peer's."""
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    with ours, peer:
        yield ours, peer
