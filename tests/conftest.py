"""Fixtures that every test may use: one reactor per backend, and a log that must not hold unexpected errors.

A test that takes `reactor` runs once per backend that this machine has, on those that CALANDRIA_TEST_BACKENDS lists, or
on the one that CALANDRIA_BACKEND forces. It fails if it leaves a descriptor open or an error in the log. Such tests
carry the mark `backend`, so that `pytest -m backend` selects them.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers import LogCapture, descriptorsOpenedSince, openDescriptors
from tests.wheels import Environment, buildWheel, root, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calandria import Reactor

here = [name for name in ("select", "poll", "epoll", "kqueue") if hasattr(select, name)]
chosen = os.environ.get("CALANDRIA_BACKEND") or os.environ.get("CALANDRIA_TEST_BACKENDS")
backendNames = chosen.split(",") if chosen else here


def pytest_itemcollected(item: pytest.Item) -> None:
    if "backendName" in getattr(item, "fixturenames", ()):
        item.add_marker("backend")


@pytest.fixture(params=backendNames)
def backendName(request: pytest.FixtureRequest) -> str:
    """The name of a backend: the test runs once for each."""
    name: str = request.param
    return name


@pytest.fixture
def logs() -> Iterator[LogCapture]:
    """What the logger "calandria" got. An error left in it fails the test; `takeErrors` takes those expected."""
    with LogCapture() as capture:
        yield capture
    errors = capture.takeErrors()
    texts = "\n".join(capture.format(record) for record in errors)
    assert not errors, f"errors were logged that the test did not expect (`logs.takeErrors()` takes them):\n{texts}"


@pytest.fixture
def reactor(backendName: str, logs: LogCapture, request: pytest.FixtureRequest) -> Iterator[Reactor]:
    """A new reactor on `backendName`, closed afterwards. The test fails if descriptors stay open."""
    from calandria import Reactor

    before = openDescriptors()
    failuresBefore = request.session.testsfailed
    reactor = Reactor(backend=backendName)
    try:
        yield reactor
    finally:
        reactor.close()
    # The traceback of a failed test keeps its sockets alive, and one complaint is enough.
    if request.session.testsfailed == failuresBefore:
        left = descriptorsOpenedSince(before)
        assert not left, f"descriptors left open: {left}"


@pytest.fixture(scope="session")
def wheelUnderTest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own wheel: the one that CALANDRIA_WHEEL names, else the one that tox installed, else one built now."""
    given = os.environ.get("CALANDRIA_WHEEL") or os.environ.get("TOX_PACKAGE")
    return Path(given) if given else buildWheel(root, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def wheelhouse(wheelUnderTest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our wheel and those of its dependencies."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", folder, wheelUnderTest)
    return folder


@pytest.fixture
def newEnvironment(wheelhouse: Path, wheelUnderTest: Path, tmp_path: Path) -> Callable[..., Environment]:
    """`newEnvironment(*wheels)`: a virtual environment that holds our wheel, its dependencies and those given."""
    made = 0

    def make(*wheels: str | Path) -> Environment:
        nonlocal made
        made += 1
        environment = Environment(tmp_path / f"environment{made}", wheelhouse)
        environment.install(wheelUnderTest, *wheels)
        return environment

    return make
