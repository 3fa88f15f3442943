"""The rules of the house that no linter knows, held by reading the sources: who imports whom, and who asks the world.

Simulation replaces clock, sockets, names and chance by replacing the backend, and a stranger's plugin can do all that
ours can: both end with the first module that reaches around. Each rule is also shown to see what it forbids.
"""

from __future__ import annotations

import ast
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.wheels import root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

core = sorted((root / "core").rglob("*.py"))
backends = sorted((root / "backends").rglob("*.py"))
transports = sorted((root / "plugins").rglob("*.py"))
pluginPackages = {path.parent.name for path in (root / "backends").glob("*/*/__init__.py")} | {
    path.parent.name for path in (root / "plugins").glob("*/*/__init__.py")
}

# What belongs to the backend: clock, chance, sockets and names. Whoever needs one asks `reactor.backend` for it.
worldly = {
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns",
    "time.sleep", "socket.socket", "socket.socketpair", "socket.create_connection", "socket.create_server",
    "socket.fromfd", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyname_ex", "socket.gethostbyaddr",
    "random",
}  # fmt: skip

# The world itself, and the programs that measure a reactor with the real one.
allowedWorldly = {
    "core/calandria/_backend.py": worldly,
    "core/calandria/cli/_load.py": {"socket.create_connection", "time.monotonic", "time.monotonic_ns"},
    "core/calandria/cli/_works.py": {"time.monotonic", "time.perf_counter_ns"},
}


def relative(path: Path) -> str:
    return path.relative_to(root).as_posix()


def imports(tree: ast.Module, *, checkers: bool) -> Iterator[tuple[int, str]]:
    """Every module that a source imports, `from a import b` as both `a` and `a.b`.

    `checkers` says whether imports under `if TYPE_CHECKING:`, which never run, count.
    """

    def visit(node: ast.AST) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for child in (*(node.body if checkers else ()), *node.orelse):
                yield from visit(child)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield node.lineno, module
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    yield from visit(tree)


def strangersInCore(source: str) -> list[str]:
    """Imports of backends and transports that would run."""
    return [
        f"{line}: {module}"
        for line, module in imports(ast.parse(source), checkers=False)
        if module.partition(".")[0] in pluginPackages
    ]


def forbiddenInPlugin(source: str, package: str) -> list[str]:
    """Imports of core's private modules and of other plugins, those for type checkers included."""
    found: list[str] = []
    for line, module in imports(ast.parse(source), checkers=True):
        top, *inner = module.split(".")
        private = top == "calandria" and any(part.startswith("_") and not part.startswith("__") for part in inner)
        if private or top in pluginPackages - {package}:
            found.append(f"{line}: {module}")
    return found


def worldlyCalls(source: str) -> set[str]:
    """What a source takes from clock, chance, sockets and names without asking the backend.

    Naming a class (in an annotation, or to compare types) is no use of it; calling it or keeping it is.
    """
    tree = ast.parse(source)
    modules = {"time": "time", "socket": "socket"}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in worldly:
                    found.add(alias.name)
                elif alias.asname and alias.name in modules:
                    modules[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "socket", "random"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & worldly
            found |= {node.module} & worldly
    for node in ast.walk(tree):
        used: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            used = [node.func, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Return):
            used = [node.value]
        for value in used:
            if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
                name = f"{modules.get(value.value.id)}.{value.attr}"
                if name in worldly:
                    found.add(name)
    return found


@pytest.mark.parametrize("path", core, ids=relative)
def test_coreImportsNoPlugin(path: Path) -> None:
    assert strangersInCore(path.read_text()) == []


@pytest.mark.parametrize("path", backends + transports, ids=relative)
def test_pluginsImportPublicModulesOnly(path: Path) -> None:
    package = path.relative_to(root).parts[2]
    assert forbiddenInPlugin(path.read_text(), package) == []


@pytest.mark.parametrize("path", core + transports, ids=relative)
def test_theWorldIsAskedThroughTheBackend(path: Path) -> None:
    assert worldlyCalls(path.read_text()) - allowedWorldly.get(relative(path), set()) == set()


@pytest.mark.parametrize("path", backends, ids=relative)
def test_backendsAreSmall(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 110


@pytest.mark.parametrize("path", core + backends + transports, ids=relative)
def test_modulesSayWhatTheyAreFor(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "no docstring"
    names = [module for _, module in imports(tree, checkers=True)]
    assert "__future__.annotations" in names or len(tree.body) == 1, "no `from __future__ import annotations`"


def test_everySourceRootIsBuilt() -> None:
    """The list of packages in pyproject.toml, which names each by hand, has all of them; so has the editable one."""
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    folders = {relative(path.parent) for top in ("core", "backends", "plugins") for path in packageFiles(root / top)}
    assert set(build["targets"]["wheel"]["packages"]) == folders
    assert set(build["dev-mode-dirs"]) == {folder.rpartition("/")[0] for folder in folders}


def test_theTableOfOurNamesIsTheMetadata() -> None:
    """Names of ours resolve from a table that is faster than the metadata, and says the same."""
    from calandria import _catalogue, _registry

    points = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]
    assert {_catalogue.GROUPS[kind]: table for kind, table in _catalogue.OURS.items() if table} == points
    assert set(_registry.AUTOMATIC) <= set(_catalogue.OURS["backend"])


def packageFiles(top: Path) -> Iterator[Path]:
    """The `__init__.py` of the outermost packages below a folder."""
    for path in top.rglob("__init__.py"):
        if not (path.parent.parent / "__init__.py").exists():
            yield path


class TestTheRulesSee:
    """The checks above are themselves checked: each finds what it is there for, and nothing else."""

    @pytest.mark.parametrize(
        "source",
        [
            "import calandria_epoll",
            "from calandria_tcp import transport",
            "def f():\n    import calandria_select as s",
            "if TYPE_CHECKING:\n    pass\nelse:\n    import calandria_poll",
        ],
    )
    def test_aPluginInCore(self, source: str) -> None:
        assert strangersInCore(source)

    def test_typesInCoreAreAllowed(self) -> None:
        assert not strangersInCore("if TYPE_CHECKING:\n    from calandria_tcp import ListenTCP")

    @pytest.mark.parametrize(
        "source",
        [
            "import calandria._backend",
            "from calandria import _stream",
            "from calandria._stream import Stream",
            "if TYPE_CHECKING:\n    from calandria._reactor import Reactor",
            "import calandria_epoll",
            "from calandria.protocols._inner import x",
        ],
    )
    def test_aPrivateModuleInAPlugin(self, source: str) -> None:
        assert forbiddenInPlugin(source, "calandria_tcp")

    def test_publicModulesInAPluginAreAllowed(self) -> None:
        source = "from calandria import error\nfrom calandria.plugin import Backend\nfrom calandria_tcp import x"
        assert not forbiddenInPlugin(source, "calandria_tcp")

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("import time\ntime.monotonic()", "time.monotonic"),
            ("import time as clock\nnow = clock.time()", "time.time"),
            ("import time\nseconds = time.monotonic", "time.monotonic"),
            ("from time import sleep", "time.sleep"),
            ("import socket\nsocket.socket(1, 2)", "socket.socket"),
            ("import socket as sockets\nmake(factory=sockets.socket)", "socket.socket"),
            ("import socket\nsocket.getaddrinfo('a', 1)", "socket.getaddrinfo"),
            ("def f():\n    import random\n", "random"),
            ("from random import gauss", "random"),
        ],
    )
    def test_theWorldTakenDirectly(self, source: str, expected: str) -> None:
        assert worldlyCalls(source) == {expected}

    @pytest.mark.parametrize(
        "source",
        [
            "import socket\ndef f(s: socket.socket) -> bool:\n    return type(s) is socket.socket",
            "import socket\nisinstance(x, socket.socket)",
            "import time\ntime.strftime('%Y', moment)",
            "backend.socket(1, 2)\nself.time.time()",
        ],
    )
    def test_namingATypeIsAllowed(self, source: str) -> None:
        assert not worldlyCalls(source)
