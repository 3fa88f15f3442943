"""What importing costs and does: nothing that the program did not ask for.

A library inside somebody else's program must be cheap to import, and importing must not open, start or install
anything. All of it is looked at in fresh interpreters, from the outside.
"""

from __future__ import annotations

import ast
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers import runPython
from tests.wheels import root

if TYPE_CHECKING:
    from pathlib import Path

# Each of these costs milliseconds, or drags in a second event loop.
heavy = {
    "asyncio", "concurrent.futures", "dataclasses", "importlib.metadata", "importlib_metadata", "inspect", "pluggy",
    "ssl", "typing",
}  # fmt: skip


def importedBy(program: str) -> set[str]:
    """The modules that a program adds to those that an interpreter starts with."""
    result = runPython(f"import sys\nbefore = set(sys.modules)\n{program}\nprint(sorted(set(sys.modules) - before))")
    assert result.returncode == 0, result.stderr
    modules: list[str] = ast.literal_eval(result.stdout.splitlines()[-1])
    return set(modules)


def test_anInterpreterStartsWithoutTheHeavyOnes() -> None:
    """Otherwise the tests below could not see who imports them."""
    result = runPython("import sys; print(sorted(sys.modules))")
    assert heavy & set(ast.literal_eval(result.stdout)) == set()


def test_importAndReactorAreLight() -> None:
    assert importedBy("import calandria") & heavy == set()
    assert importedBy("import calandria\nwith calandria.Reactor(): pass") & heavy == set()


@pytest.mark.parametrize("name", ["select", "poll", "epoll"])
def test_onlyTheChosenBackendIsImported(name: str) -> None:
    modules = importedBy(f"import calandria\nwith calandria.Reactor(backend={name!r}): pass")
    assert modules & heavy == set()
    assert {module for module in modules if module.startswith("calandria_")} == {f"calandria_{name}"}


def test_listeningReadsNoMetadata() -> None:
    modules = importedBy(
        "from calandria import Factory, Protocol, Reactor\n"
        "with Reactor() as reactor:\n"
        "    reactor.listenTCP(0, Factory.forProtocol(Protocol), interface='127.0.0.1')"
    )
    assert "calandria_tcp" in modules
    assert modules & {"pluggy", "importlib_metadata", "importlib.metadata", "asyncio", "ssl"} == set()


def everyModule() -> list[str]:
    """All modules that are shipped, but for `__main__`, which is a program."""
    modules: list[str] = []
    for top in ("core", "backends/*", "plugins/*"):
        for folder in root.glob(top):
            for path in folder.rglob("*.py"):
                parts = path.relative_to(folder).with_suffix("").parts
                if parts[-1] != "__main__":
                    modules.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(modules)


# Imports the module that it is given, and fails if that did anything that another program could notice.
probe = """
import importlib, os, signal, sys, threading

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return sorted(os.listdir("/proc/self/fd" if os.path.isdir("/proc") else "/dev/fd")), threading.enumerate(), handlers

events = []
before = state()
sys.addaudithook(lambda event, args: events.append(event))
importlib.import_module(sys.argv[1])
seen = [event for event in events if event.partition(".")[0] in ("socket", "subprocess") or event in (
    "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "_thread.start_new_thread")]
assert not seen, seen
assert state() == before, (before, state())
"""


@pytest.mark.parametrize("module", everyModule())
def test_importingDoesNothing(module: str) -> None:
    """No descriptor, thread, signal handler, socket or process comes into being, and nothing is printed."""
    result = runPython(probe, module)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "source",
    [
        "import os; fd = os.open('/', 0)",
        "import threading; threading.Thread(target=threading.Event().wait, args=(1,), daemon=True).start()",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "import socket; socket.socket().close()",
        "import subprocess; subprocess.run(['true'])",
    ],
)
def test_theProbeSees(source: str, tmp_path: Path) -> None:
    (tmp_path / "noticeable.py").write_text(source)
    result = runPython(probe, "noticeable", env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1
    assert "AssertionError" in result.stderr


def test_theTestsRunAgainstWhatWasInstalled() -> None:
    """The source tree is not importable from its root, so what is imported is what was installed."""
    result = runPython("import sys, calandria; print(calandria.__file__)")
    assert result.returncode == 0, result.stderr
    if "TOX_PACKAGE" in os.environ:
        assert result.stdout.startswith(sys.prefix)
