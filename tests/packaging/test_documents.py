"""Every code block and every command of the documents is run, and does what the text around it says.

Programs run in an environment that holds our wheel and the plugins that the documents ship, and are talked to by a
client. The README's second command is the one exception: it is what runs these tests.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import tempfile
import termios
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.helpers import DEADLINE, Program, connectTo, exchange, receiveAll
from tests.packaging.documents import blocks, buildPlugins, commands, files, markedCommand
from tests.wheels import Environment, root, run, writeFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


# A run of these tests waits for another to be done with the ports; what it does then has deadlines of its own.
pytestmark = pytest.mark.timeout(600)


class Serving(NamedTuple):
    """A command that serves until it is stopped: where, on which backend, and what it answers to `Some Bytes`."""

    ports: tuple[int, ...] = (8007,)
    backend: str | None = None
    answer: bytes = b"Some Bytes"


# The commands that go on until they are stopped.
serving = {
    "calandria run echo": Serving(),
    "calandria run echo --backend poll": Serving(backend="poll"),
    "CALANDRIA_BACKEND=select calandria run echo": Serving(backend="select"),
    "CALANDRIA_BACKEND=poll calandria run echo": Serving(backend="poll"),
    "CALANDRIA_DEBUG=1 calandria run echo": Serving(),
    "calandria run echo --backend selectors": Serving(backend="selectors"),
    "calandria run shout:Shout --listen tcp:8008:interface=127.0.0.1 --listen tcp:8009:interface=127.0.0.1": Serving(
        ports=(8008, 8009), answer=b"SOME BYTES"
    ),
    "calandria run echo --listen tcp:8008:interface=127.0.0.1 --listen tcp:8009:interface=127.0.0.1 --backend select": (
        Serving(ports=(8008, 8009), backend="select")
    ),
    "calandria run echo --listen swapcase+tcp:8008:interface=127.0.0.1": Serving(ports=(8008,)),
}

# The commands that print and end, each with what must be found in what they print.
printing = {
    "calandria backends": ["kqueue.*kqueue", "poll", "select", "selectors"],
    "calandria backends --json": ['"kqueue"', '"selectors"'],
    "calandria plugins": ["tcp .*calandria", "serial .*calandria-serial", "selectors .*calandria-selectors"],
    "calandria plugins --json": ['"calandria-serial"', '"tcp"'],
    "calandria plugins info serial": ["calandria-serial", "1.0", "device", "baudrate"],
    "calandria plugins info tcp": ["port", "interface", "reuseAddress"],
    "CALANDRIA_DISABLE_PLUGINS='selectors' calandria plugins": ["selectors .*disabled"],
    "CALANDRIA_STRICT_PLUGINS=1 calandria plugins": ["tcp .*calandria"],
    "calandria bench echo timers --rounds 1 --seconds 0.2": ["echo +epoll .*µs/message", "timers .*µs/timer"],
    "calandria bench echo --backend select,poll,epoll --rounds 1": ["echo +select", "echo +poll", "echo +epoll"],
}

# Those with a test of their own.
special = {
    markedCommand("run command"),
    markedCommand("test command"),
    "calandria run echo --listen tcp:0:interface=127.0.0.1 --json",
    "python -m benchmarks cancel --rounds 1",
    "python -m benchmarks.guard cancel",  # in test_benchmarks
}

# Programs and other files, each with its test below.
programs = {
    "echo.py", "shout.py", "backends.py", "terminal.py", "library.py", "talk.py", "observer.py", "threads.py",
    "reactors.py", "hosted.py", "forks.py", "default.py", "clock.py",
}  # fmt: skip
plugins = {
    "calandria_serial/__init__.py", "calandria_selectors/__init__.py", "calandria_memory/__init__.py",
    "calandria_swapcase/__init__.py",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def portsOfTheDocuments() -> Iterator[None]:
    """The documents name ports, so only one run of these tests may be at work on a machine."""
    with open(os.path.join(tempfile.gettempdir(), "calandria-documents.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def environment(wheelhouse: Path, wheelUnderTest: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Our wheel and the plugins of the documents."""
    made = Environment(tmp_path_factory.mktemp("documents") / "environment", wheelhouse)
    made.install(wheelUnderTest, *buildPlugins(tmp_path_factory.mktemp("plugins")))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the documents' programs."""
    writeFiles(tmp_path, {name: files[name] for name in programs})
    return tmp_path


@pytest.fixture
def start(environment: Environment, folder: Path) -> Iterator[Callable[..., Program]]:
    """Starts a shell command with the environment's programs in front; what still runs at the end is killed."""
    started: list[Program] = []

    def begin(command: str, cwd: Path = folder, warnings: str | None = "error") -> Program:
        # The trap makes the shell wait for what it runs, and end with its exit code.
        path = f"{environment.bin}{os.pathsep}{os.environ['PATH']}"
        program = Program(
            ["bash", "-c", f"trap : TERM INT; {command}"],
            env={**clean, "PATH": path, "PYTHONWARNINGS": warnings},
            cwd=cwd,
        )
        started.append(program)
        return program

    yield begin
    for program in started:
        program.__exit__(None, None, None)


# What would change what the commands of the documents do.
clean: dict[str, str | None] = {"CALANDRIA_BACKEND": None, "CALANDRIA_DEBUG": None}


@pytest.fixture
def runProgram(environment: Environment, folder: Path) -> Callable[..., list[str]]:
    """Runs one of the programs to its end; the lines that it printed."""

    def finish(name: str, *args: str) -> list[str]:
        return run(environment.python, "-W", "error", name, *args, cwd=folder, env=clean).stdout.splitlines()

    return finish


def test_everythingIsRun() -> None:
    """No block and no command is without its test, and no test without its block."""
    assert {block.language for block in blocks} == {"sh", "python", "toml", "json", "text"}
    assert {line for _, line in commands if not line.startswith((".venv/", "python3 -m venv"))} == (
        set(serving) | set(printing) | special - {markedCommand("run command"), markedCommand("test command")}
    )
    assert {block.name for block in blocks if block.language == "python"} == programs | plugins
    assert {block.name for block in blocks if block.language == "toml"} == {"pyproject.toml"}
    assert [block.document for block in blocks if block.language == "json"] == ["docs/operators.md"]
    assert [block.document for block in blocks if block.language == "text"] == ["README.md"]
    for block in blocks:
        if block.language == "sh" and ".venv" in block.text:
            assert block.text.strip() in special or block.document == "CONTRIBUTING.md"


@pytest.mark.parametrize("command", serving)
def test_commandServes(command: str, start: Callable[..., Program]) -> None:
    expected = serving[command]
    program = start(command)
    for port in expected.ports:
        line = program.waitFor("listening on")
        assert f":{port}" in line.string
        if expected.backend:
            assert f"(backend {expected.backend})" in line.string
    for port in expected.ports:
        assert exchange(port, b"Some Bytes") == expected.answer
    assert program.stop() == 0, program.output


def test_swapcaseSwaps(start: Callable[..., Program]) -> None:
    """An echo through it, there and back, is as it was; a service that shouts shows the layer at work."""
    program = start("calandria run shout:Shout --listen swapcase+tcp:8008:interface=127.0.0.1")
    program.waitFor("listening on")
    assert exchange(8008, b"abc DEF") == b"abc def"
    assert program.stop() == 0, program.output


@pytest.mark.parametrize("command", printing)
def test_commandPrints(command: str, start: Callable[..., Program]) -> None:
    program = start(command)
    assert program.wait() == 0, program.output
    for pattern in printing[command]:
        assert re.search(pattern, program.output), f"no {pattern!r} in\n{program.output}"
    if "--json" in command:
        json.loads(program.output)


def test_tableOfBackends(start: Callable[..., Program]) -> None:
    """The README shows what is printed, but for the widths of columns and the plugins that are installed here."""
    (example,) = (block.text for block in blocks if block.language == "text")
    program = start("calandria backends")
    assert program.wait() == 0, program.output
    printed = [line.split() for line in program.output.splitlines()]
    assert [line for line in printed if line[0] != "selectors"] == [line.split() for line in example.splitlines()]


def test_exitCodes(start: Callable[..., Program]) -> None:
    """The table for operators says what the command's help says."""
    table = dict(re.findall(r"^\| (\d) \| (.*) \|$", (root / "docs/operators.md").read_text(), re.MULTILINE))
    program = start("calandria --help")
    assert program.wait() == 0
    assert dict(re.findall(r"^  (\d)  (.*)$", program.output, re.MULTILINE)) == table


def test_environmentVariables() -> None:
    """Every variable that the library reads is told to operators, and no other."""
    told = re.findall(r"^\| `(CALANDRIA_[A-Z_]+)", (root / "docs/operators.md").read_text(), re.MULTILINE)
    sources = (path.read_text() for top in ("core", "backends", "plugins") for path in (root / top).rglob("*.py"))
    assert set(told) == {name for source in sources for name in re.findall(r"\bCALANDRIA_[A-Z_]+", source)}


def test_jsonLine(start: Callable[..., Program]) -> None:
    """The example in the text has the keys, in the order and of the kinds, of what is printed."""
    (example,) = (json.loads(block.text) for block in blocks if block.language == "json")
    program = start("calandria run echo --listen tcp:0:interface=127.0.0.1 --json")
    line = json.loads(program.waitFor("^{").string)
    assert list(line) == list(example)
    assert [type(value) for value in line.values()] == [type(value) for value in example.values()]
    assert exchange(line["port"], b"json") == b"json"
    assert program.stop() == 0


def test_aRowOfTheTable(start: Callable[..., Program]) -> None:
    program = start("python -m benchmarks cancel --rounds 1", cwd=root)
    assert program.wait(timeout=120) == 0, program.output
    assert re.search(r"^\| timer made and cancelled \| µs of CPU \|", program.output, re.MULTILINE), program.output


# The two commands, and what contributors are told


@pytest.fixture
def copyOfTheSources(tmp_path: Path) -> Path:
    """The tree as a fresh clone has it: what git has or would take; without git, all but what is built or cached."""
    copied = tmp_path / "clone"
    if (root / ".git").exists() and shutil.which("git"):
        listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=root).stdout
        for name in filter(None, listed.split("\0")):
            if (root / name).exists():
                (copied / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, copied / name)
    else:
        left = shutil.ignore_patterns(".tox", ".venv", "*_cache", ".hypothesis", "__pycache__", "dist")
        shutil.copytree(root, copied, ignore=left)
    return copied


@pytest.mark.clone
def test_firstCommandInstallsAndServes(copyOfTheSources: Path, start: Callable[..., Program]) -> None:
    program = start(markedCommand("run command"), cwd=copyOfTheSources, warnings=None)
    program.waitFor(r"listening on tcp:127\.0\.0\.1:8007", timeout=240)
    assert exchange(8007, b"a client gets its bytes back") == b"a client gets its bytes back"
    assert program.stop() == 0, program.output


def test_ciRunsTheSecondCommand() -> None:
    """`.ci/run` takes the command out of the README: what it would run is what the README says."""
    extraction = re.search(r"^command=\$\((sed -n .*)\)$", (root / ".ci/run").read_text(), re.MULTILINE)
    assert extraction
    result = run("bash", "-c", extraction[1], cwd=root)
    assert result.stdout.strip() == markedCommand("test command")
    assert os.access(root / ".ci/run", os.X_OK)


@pytest.mark.clone
def test_contributorsCanWork(copyOfTheSources: Path) -> None:
    steps = [line for document, line in commands if document == "CONTRIBUTING.md"]
    assert len(steps) == 3
    results = [run("bash", "-c", step, cwd=copyOfTheSources, timeout=240) for step in steps]
    assert re.search(r"\d+ passed", results[-1].stdout), results[-1].stdout


# The programs


def test_theProgramHasTwelveLines() -> None:
    assert len(files["echo.py"].splitlines()) == 12


@pytest.mark.parametrize("name", sorted(plugins))
def test_pluginsAreShort(name: str) -> None:
    """A transport in under 60 lines; the one with both directions and no descriptor is two of them."""
    assert len(files[name].splitlines()) < (120 if "memory" in name else 60)


def test_echo(start: Callable[..., Program]) -> None:
    program = start("python echo.py")
    assert "8007" in program.waitFor("echo on").string
    assert exchange(8007, bytes(range(256)) * 4096) == bytes(range(256)) * 4096
    assert program.stop(signal.SIGINT) == 0, program.output


def test_backends(runProgram: Callable[..., list[str]]) -> None:
    lines = "\n".join(runProgram("backends.py"))
    for name in ("select", "poll", "epoll"):
        assert re.search(f"^{name} works", lines, re.MULTILINE)
    assert re.search("^kqueue does not: .*kqueue", lines, re.MULTILINE)
    assert re.search("^kqeue does not: .*kqueue", lines, re.MULTILINE)


@pytest.mark.parametrize("spelling", ["method", "object", "string"])
def test_serial(spelling: str, start: Callable[..., Program]) -> None:
    ours, theirs = pty.openpty()
    try:
        device = os.ttyname(theirs)
        program = start(f"python terminal.py {device} {spelling}")
        received = b""
        while not received.endswith(b"AT\r\n") and select.select([ours], [], [], DEADLINE)[0]:
            received += os.read(ours, 100)
        if received != b"AT\r\n":
            program.stop()
            pytest.fail(f"the port got {received!r}:\n{program.output}")
        assert termios.tcgetattr(theirs)[4] == termios.B115200
        os.write(ours, b"OK\r\n")
        assert device in program.waitFor("says").string
        assert r"OK\r\n" in program.output
        assert program.wait() == 0, program.output
    finally:
        os.close(ours)
        os.close(theirs)


def test_serialRefusesWhatItCannotDo(environment: Environment) -> None:
    result = environment.runPython(
        "from calandria import ClientFactory, Reactor\n"
        "with Reactor() as reactor:\n"
        "    try:\n"
        "        reactor.connect('serial:/dev/null:baudrate=1234', ClientFactory())\n"
        "    except ValueError as refusal:\n"
        "        print(refusal)\n"
    )
    assert "1234" in result.stdout
    assert "9600" in result.stdout


def test_library(runProgram: Callable[..., list[str]]) -> None:
    assert runProgram("library.py") == [repr(b"A LIBRARY IN SOMEBODY ELSE'S PROGRAM")]


def test_talk(runProgram: Callable[..., list[str]]) -> None:
    (line,) = runProgram("talk.py")
    assert line == "b'through memory' from memory:talk"


def test_memoryHasBackPressureAndEnds(environment: Environment) -> None:
    """A megabyte to a reader that pauses, a name that is taken, and one that nobody listens on."""
    result = environment.runPython(
        """
from calandria import ClientFactory, Factory, Protocol, Reactor, error

class Reader(Protocol):
    got = pauses = 0
    def dataReceived(self, data):
        Reader.got += len(data)
        Reader.pauses += 1
        self.transport.pauseProducing()
        reactor.callLater(0.001, self.transport.resumeProducing)
    def connectionLost(self, reason):
        print(Reader.got, Reader.pauses > 1, reason.type.__name__)
        reactor.connect("memory:nobody", Nobody())

class Writer(Protocol):
    def connectionMade(self):
        for _ in range(16):
            self.transport.write(bytes(65536))
        self.transport.loseConnection()

class Nobody(ClientFactory):
    def clientConnectionFailed(self, connector, reason):
        print(reason.type.__name__)
        reactor.stop()

with Reactor() as reactor:
    reactor.listen("memory:x", Factory.forProtocol(Reader))
    try:
        reactor.listen("memory:x", Factory())
    except error.CannotListenError as refusal:
        print("taken")
    reactor.connect("memory:x", ClientFactory.forProtocol(Writer))
    reactor.run()
"""
    )
    assert result.stdout.splitlines() == ["taken", "1048576 True ConnectionDone", "ConnectionRefusedError"]


def test_observer(runProgram: Callable[..., list[str]]) -> None:
    assert runProgram("observer.py") == ["1 timer was due"]


def test_threads(runProgram: Callable[..., list[str]]) -> None:
    assert runProgram("threads.py") == ["not in the main thread: True"]


def test_reactors(runProgram: Callable[..., list[str]]) -> None:
    expected = [f"{name}: run {turn}" for name in ("poll", "select") for turn in (1, 2)]
    assert sorted(runProgram("reactors.py")) == expected


def test_hosted(start: Callable[..., Program]) -> None:
    program = start("python hosted.py")
    port = int(program.waitFor(r"^\d+$").string)
    with connectTo(port) as client:
        assert receiveAll(client) == b"from a foreign loop\n"
    assert program.wait() == 0, program.output


def test_forks(runProgram: Callable[..., list[str]]) -> None:
    child, parent = runProgram("forks.py")
    assert child.startswith("child: ")
    assert "fork" in child
    assert parent == "parent: undisturbed"


def test_default(runProgram: Callable[..., list[str]]) -> None:
    assert runProgram("default.py") == ["the default is mine: True"]


def test_clock(runProgram: Callable[..., list[str]]) -> None:
    began = time.monotonic()
    assert runProgram("clock.py") == ["an hour later", "it is 7200.0"]
    assert time.monotonic() - began < DEADLINE
