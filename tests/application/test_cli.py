"""The command `calandria`: what it serves, prints and refuses, and how it ends.

What runs until it is stopped, and what is about this program's own streams and signals, is tested on real processes;
refusals are tested on `main` itself, which is the same function.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from calandria import address
from calandria.cli import main
from calandria.cli._run import SERVICES, defaultListen, loadTarget, whereIs
from calandria.protocol import Factory, Protocol
from tests.helpers import Program, connectTo, exchange, mergedEnvironment, receiveAll, unusedPort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

COMMAND = [sys.executable, "-W", "error", "-m", "calandria"]

# What Python flushes when it exits is part of what is tested, so nothing may flush it before.
BUFFERED: dict[str, str | None] = {"PYTHONUNBUFFERED": None}

ANY_PORT = "tcp:0:interface=127.0.0.1"

TARGETS = '''
from __future__ import annotations

import functools
import types

from calandria import Factory, Protocol


class Upper(Protocol):
    def dataReceived(self, data):
        self.transport.write(data.upper())


class Counting(Factory):
    """Every protocol sends how many there were before it."""

    protocol = Upper
    built = 0

    def startFactory(self):
        print("started", flush=True)

    def stopFactory(self):
        print("stopped", flush=True)

    def buildProtocol(self, addr):
        protocol = Sending(str(self.built).encode())
        self.built += 1
        return protocol


class Sending(Protocol):
    def __init__(self, data):
        self.data = data

    def connectionMade(self):
        self.transport.write(self.data)
        self.transport.loseConnection()


class WithArguments(Factory):
    protocol = Upper

    def __init__(self, greeting):
        self.greeting = greeting


factory = Factory.forProtocol(Upper)
rooms = types.SimpleNamespace(inner=types.SimpleNamespace(Upper=Upper))


def makeFactory(protocol=Upper):
    return Factory.forProtocol(protocol)


def makeProtocol():
    return Upper


made = functools.partial(makeFactory, Upper)


def makeInstance():
    return Upper()


def makeNothing():
    pass


async def makeLater():
    return factory


number = 7


class Raising(Protocol):
    def dataReceived(self, data):
        if data == b"raise":
            raise RuntimeError("a protocol raised this")
        self.transport.write(data)


class Fatal(BaseException):
    pass


def ending(exception):
    from calandria import reactor

    def end():
        raise exception

    reactor.callLater(0, end)
    return Upper


def makeFatal():
    return ending(Fatal("this ends the reactor"))


def makeExit():
    return ending(SystemExit(7))


def makeReluctant():
    from calandria import Deferred, reactor

    def wait():
        print("stopping", flush=True)
        return Deferred()

    reactor.addSystemEventTrigger("before", "shutdown", wait)
    return Upper


def makeError():
    raise LookupError("the target itself is broken")
'''


@pytest.fixture
def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, in which `targets.py` is; what it adds to this process is undone."""
    modules = {
        "targets": TARGETS,
        "global_": "from calandria import Protocol, reactor\nreactor.callLater(0, reactor.stop)\n",
        "broken": "import moduleThatIsNotThere\n",
        "raising": "raise RuntimeError('raised while importing')\n",
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in modules:
        sys.modules.pop(name, None)


def start(*arguments: str, env: dict[str, str | None] | None = None) -> Program:
    """`calandria run` in a process of its own."""
    return Program([*COMMAND, "run", *arguments], env=env)


def call(
    *arguments: str,
    env: dict[str, str | None] | None = None,
    python: Sequence[str] = (),
    stdout: Any = subprocess.PIPE,
    preexec_fn: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself, in a process of its own."""
    return subprocess.run(
        [COMMAND[0], *python, *COMMAND[1:], *arguments],
        env=mergedEnvironment({**BUFFERED, **(env or {})}),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=preexec_fn,
        text=True,
        timeout=60,
        check=False,
    )


def listeningPort(program: Program, backend: str = r"\w+") -> int:
    """The port in the line that says where it listens."""
    return int(program.waitFor(rf"^listening on tcp:127\.0\.0\.1:(\d+) \(backend {backend}\)$")[1])


def refusal(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """What is said when a command is refused; nothing goes to standard output then."""
    assert main(arguments) == code
    output, errors = capsys.readouterr()
    assert output == ""
    return errors


# Serving


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_runServesOnEachBackendUntilASignal(backendName: str, number: signal.Signals) -> None:
    with start("echo", "--listen", ANY_PORT, "--backend", backendName) as program:
        port = listeningPort(program, backendName)
        assert exchange(port, b"there and back") == b"there and back"
        assert program.stop(number) == 0
    with pytest.raises(ConnectionRefusedError):
        connectTo(port)


def test_stoppedBeforeAnybodyConnected() -> None:
    # The line is printed when the signal handlers stand, so that who reads it may stop us at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        with start("echo", "--listen", ANY_PORT) as program:
            listeningPort(program)
            assert program.stop(number) == 0
            assert "Traceback" not in program.output


def test_stoppedWithConnectionsOpen() -> None:
    with start("chargen", "--listen", ANY_PORT) as program, connectTo(listeningPort(program)) as peer:
        assert peer.recv(1)
        assert program.stop() == 0
        assert "Traceback" not in program.output


def test_backendFromTheEnvironment(backendName: str) -> None:
    with start("echo", "--listen", ANY_PORT, env={"CALANDRIA_BACKEND": backendName}) as program:
        assert exchange(listeningPort(program, backendName), b"x") == b"x"


def test_theArgumentGoesBeforeTheEnvironment() -> None:
    with start(
        "echo", "--listen", ANY_PORT, "--backend", "select", env={"CALANDRIA_BACKEND": "no such backend"}
    ) as program:
        listeningPort(program, "select")


def test_severalEndpointsShareTheFactory(targets: Path) -> None:
    with start("targets:Counting", "--listen", ANY_PORT, "--listen", ANY_PORT) as program:
        ports = [listeningPort(program), listeningPort(program)]
        assert len(set(ports)) == 2
        answers = [exchange(port, b"") for port in (*ports, *ports)]
        assert answers == [b"0", b"1", b"2", b"3"]
        assert program.stop() == 0
        # One factory, started with the first port and stopped with the last.
        assert program.output.count("started") == program.output.count("stopped") == 1


def test_linesForPrograms() -> None:
    with start("echo", "--listen", ANY_PORT, "--listen", ANY_PORT, "--backend", "poll", "--json") as program:
        for _ in range(2):
            told = json.loads(program.waitFor("^{.*}$")[0])
            port = told.pop("port")
            assert told == {
                "listening": f"tcp:127.0.0.1:{port}",
                "endpoint": ANY_PORT,
                "host": "127.0.0.1",
                "path": None,
                "backend": "poll",
                "pid": program.process.pid,
            }
            assert exchange(port, b"x") == b"x"


def test_addressOfIPv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as exc:
        pytest.skip(f"no IPv6 here: {exc}")
    with start("echo", "--listen", "tcp:0:interface=[::1]") as program:
        port = int(program.waitFor(r"^listening on tcp:\[::1\]:(\d+) \(backend \w+\)$")[1])
        assert exchange(port, b"x", "::1") == b"x"


def test_targetInTheCurrentDirectory(targets: Path) -> None:
    with start("targets:Upper", "--listen", ANY_PORT) as program:
        assert exchange(listeningPort(program), b"loud") == b"LOUD"
    # `python -P` says that it shall not be imported from there.
    refused = call("run", "targets:Upper", "--listen", ANY_PORT, python=["-P"])
    assert refused.returncode == 2
    assert "No module named 'targets'" in refused.stderr


def test_anExceptionInAProtocolIsLoggedAndServingGoesOn(targets: Path) -> None:
    with start("targets:Raising", "--listen", ANY_PORT) as program:
        port = listeningPort(program)
        with connectTo(port) as peer:
            peer.sendall(b"raise")
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        assert exchange(port, b"still there") == b"still there"
        assert program.stop() == 0
        assert "RuntimeError: a protocol raised this" in program.output
        assert program.output.count(" ERROR ") == 1


@pytest.mark.parametrize(
    ("endpoint", "host", "told"),
    [
        ("tcp:0", address.IPv4Address("TCP", "0.0.0.0", 80), ("tcp:0.0.0.0:80", "0.0.0.0", 80, None)),
        ("a+tcp:0:x=[::]", address.IPv6Address("TCP", "::", 80), ("a+tcp:[::]:80", "::", 80, None)),
        ("tcp:0", address.IPv6Address("TCP", "fe80::1", 80, 0, 3), ("tcp:[fe80::1%3]:80", "fe80::1%3", 80, None)),
        ("unix:x", address.UNIXAddress(b"/run/x"), ("unix:/run/x", None, None, "/run/x")),
        ("pipe:x", "there", ("pipe:there", None, None, None)),
    ],
)
def test_addressesAsText(endpoint: str, host: object, told: tuple[object, ...]) -> None:
    assert tuple(whereIs(endpoint, host)[key] for key in ("listening", "host", "port", "path")) == told


# Where the built-in services listen


def test_builtInServicesHaveEndpointsOfTheirOwn() -> None:
    assert {service: defaultListen(service) for service in SERVICES} == {
        "echo": ["tcp:8007:interface=127.0.0.1"],
        "discard": ["tcp:8009:interface=127.0.0.1"],
        "daytime": ["tcp:8013:interface=127.0.0.1"],
        "qotd": ["tcp:8017:interface=127.0.0.1"],
        "chargen": ["tcp:8019:interface=127.0.0.1"],
        "time": ["tcp:8037:interface=127.0.0.1"],
    }


def test_echoListensWithoutBeingToldWhere(capsys: pytest.CaptureFixture[str]) -> None:
    holder = socket.socket()
    with holder:
        try:
            holder.bind(("127.0.0.1", 8007))
            holder.listen()
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:  # somebody else holds it: that does as well
                raise
        said = refusal(capsys, 3, "run", "echo")
    assert said.startswith("calandria: cannot listen on tcp:8007:interface=127.0.0.1: ")


@pytest.mark.parametrize("service", SERVICES)
def test_everyBuiltInServiceAnswers(service: str) -> None:
    with start(service, "--listen", ANY_PORT) as program, connectTo(listeningPort(program)) as peer:
        peer.sendall(b"hello")
        if service == "discard":
            peer.shutdown(socket.SHUT_WR)
            assert receiveAll(peer) == b""
        else:
            assert peer.recv(1)


def test_otherTargetsMustBeToldWhere(targets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, 2, "run", "targets:Upper")
    assert "where shall targets:Upper listen? --listen says so" in said


# Targets


@pytest.mark.parametrize(
    "attribute", ["Upper", "rooms.inner.Upper", "factory", "makeFactory", "makeProtocol", "made", "Counting"]
)
def test_targetsAreToldApartByWhatTheyAre(targets: Path, attribute: str) -> None:
    factory = loadTarget(f"targets:{attribute}")
    assert isinstance(factory, Factory)
    protocol = factory.buildProtocol(None)
    assert isinstance(protocol, Protocol)
    assert type(protocol).__name__ == ("Sending" if attribute == "Counting" else "Upper")
    assert factory.buildProtocol(None) is not protocol


def test_aFactoryIsTakenAsItIs(targets: Path) -> None:
    factory = loadTarget("targets:factory")
    assert factory is sys.modules["targets"].factory


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("ecko", "or one of echo, discard, daytime, qotd, chargen, time, not 'ecko'; did you mean 'echo'?"),
        ("targets", "TARGET must be module:attribute or one of"),
        ("targets:", "TARGET must be module:attribute or one of"),
        (":Upper", "TARGET must be module:attribute or one of"),
        (".targets:Upper", "TARGET must be module:attribute or one of"),
        (
            "moduleThatIsNotThere:Upper",
            "cannot find moduleThatIsNotThere:Upper: No module named 'moduleThatIsNotThere'",
        ),
        ("moduleThatIsNotThere.inner:Upper", "No module named 'moduleThatIsNotThere'"),
        ("targets.inner:Upper", "No module named 'targets.inner'; 'targets' is not a package"),
        ("targets..inner:Upper", "cannot find targets..inner:Upper"),
        ("targets:Uper", "cannot find targets:Uper: targets has no attribute 'Uper'; did you mean 'Upper'?"),
        ("targets:rooms.outer.Upper", "targets:rooms has no attribute 'outer'"),
        ("targets:rooms.inner.Uper", "targets:rooms.inner has no attribute 'Uper'; did you mean 'Upper'?"),
        (
            "targets:number",
            "targets:number is an instance of int; TARGET must be a Protocol class, a Factory, or a callable",
        ),
        ("targets:makeInstance", "targets:makeInstance returned an instance of Upper; it must return a Protocol class"),
        ("targets:makeNothing", "targets:makeNothing returned None; it must return a Protocol class or a Factory"),
        ("targets:WithArguments", "targets:WithArguments is called with nothing, but"),
        ("targets:Sending.connectionMade", "missing a required argument: 'self'"),
        ("calandria:Factory", "could build no protocol: its attribute `protocol` is None"),
        ("json:dumps", "missing a required argument: 'obj'"),
    ],
)
def test_targetsThatAreNone(targets: Path, capsys: pytest.CaptureFixture[str], target: str, said: str) -> None:
    text = refusal(capsys, 2, "run", target, "--listen", ANY_PORT)
    assert text.startswith("calandria: ")
    assert said in text


def test_aCoroutineIsNoFactory(targets: Path) -> None:
    refused = call("run", "targets:makeLater", "--listen", ANY_PORT)
    assert refused.returncode == 2
    assert "targets:makeLater returned an instance of coroutine; it must return" in refused.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("broken:Upper", "ModuleNotFoundError: No module named 'moduleThatIsNotThere'"),
        ("raising:Upper", "RuntimeError: raised while importing"),
        ("targets:makeError", "LookupError: the target itself is broken"),
    ],
)
def test_errorsOfTheTargetsOwnCodeAreShownWhole(targets: Path, target: str, said: str) -> None:
    failed = call("run", target, "--listen", ANY_PORT)
    assert failed.returncode == 1
    assert "Traceback (most recent call last)" in failed.stderr
    assert said in failed.stderr


# How it ends


def test_anExceptionThatEndsTheReactor(targets: Path) -> None:
    failed = call("run", "targets:makeFatal", "--listen", ANY_PORT)
    assert failed.returncode == 1
    assert "Fatal: this ends the reactor" in failed.stderr


def test_aSecondInterruptWhileItStops(targets: Path) -> None:
    with start("targets:makeReluctant", "--listen", ANY_PORT) as program:
        listeningPort(program)
        program.process.send_signal(signal.SIGINT)
        program.waitFor("^stopping$")
        assert program.stop(signal.SIGINT) == 1
        assert "calandria: interrupted while shutting down" in program.output
        assert "Traceback" not in program.output


def test_theTargetsOwnExitCode(targets: Path) -> None:
    assert call("run", "targets:makeExit", "--listen", ANY_PORT).returncode == 7


def test_theDefaultReactorOfTheTargetIsTheOneThatRuns(targets: Path) -> None:
    ended = call("run", "global_:Protocol", "--listen", ANY_PORT)
    assert (ended.returncode, ended.stderr.count("Traceback")) == (0, 0)


def test_portInUse(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        said = refusal(capsys, 3, "run", "echo", "--listen", f"tcp:{port}:interface=127.0.0.1")
    assert said.startswith(f"calandria: cannot listen on tcp:{port}:interface=127.0.0.1: ")
    assert f"127.0.0.1:{port}" in said
    assert os.strerror(errno.EADDRINUSE) in said


def test_addressOfSomebodyElse(capsys: pytest.CaptureFixture[str]) -> None:
    # 192.0.2.0/24 is for documentation: no machine has it.
    said = refusal(capsys, 3, "run", "echo", "--listen", "tcp:0:interface=192.0.2.1")
    assert "192.0.2.1" in said
    assert os.strerror(errno.EADDRNOTAVAIL) in said


def test_oneEndpointInUseClosesTheOthers(targets: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = f"tcp:{holder.getsockname()[1]}:interface=127.0.0.1"
        failed = call("run", "targets:Counting", "--listen", ANY_PORT, "--listen", taken)
    assert failed.returncode == 3
    assert f"cannot listen on {taken}" in failed.stderr
    # The first one was closed in order, and never announced.
    assert failed.stdout.split() == ["started", "stopped"]


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("", "--listen takes an endpoint such as tcp:8007:interface=127.0.0.1"),
        ("8007", "--listen takes an endpoint such as tcp:8007:interface=127.0.0.1"),
        (":8007", "--listen takes an endpoint such as tcp:8007:interface=127.0.0.1"),
        ("127.0.0.1:8007", "--listen takes an endpoint such as tcp:8007:interface=127.0.0.1"),
        ("tcp", "port"),
        ("tcp:", "port"),
        ("tcp:eighty", "eighty"),
        ("tcp:70000", "port must be 0-65535, not 70000"),
        ("tcp:-1", "port must be 0-65535, not -1"),
        ("tcp:0:interfase=127.0.0.1", "did you mean 'interface'"),
        ("tcp:0:backlog=many", "many"),
        ("tcp:0:1:2:3:4:5:6:7", ""),
    ],
)
def test_endpointsThatCannotBeRead(capsys: pytest.CaptureFixture[str], endpoint: str, said: str) -> None:
    text = refusal(capsys, 2, "run", "echo", "--listen", endpoint)
    assert text.startswith("calandria: --listen ")
    assert endpoint in text
    assert said in text


def test_transportThatIsNotInstalled(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, 4, "run", "echo", "--listen", "serial:/dev/ttyUSB0")
    assert "no transport 'serial' is installed" in said
    assert "tcp" in refusal(capsys, 4, "run", "echo", "--listen", "tpc:0")


def test_backendThatDoesNotExist(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, 4, "run", "echo", "--listen", ANY_PORT, "--backend", "epol")
    for name in ("select", "poll", "epoll", "kqueue"):
        assert name in said
    assert "'epol'" in said
    if not hasattr(select, "kqueue"):
        assert "no kqueue: it exists on macOS and the BSDs" in said


def test_backendFromTheEnvironmentThatDoesNotExist(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALANDRIA_BACKEND", "nonesuch")
    assert "'nonesuch'" in refusal(capsys, 4, "run", "echo", "--listen", ANY_PORT)


@pytest.mark.skipif(hasattr(select, "kqueue"), reason="this machine has kqueue")
def test_backendThatCannotWorkHere(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, 4, "run", "echo", "--listen", ANY_PORT, "--backend", "kqueue")
    assert "no kqueue: it exists on macOS and the BSDs" in said


# Backends and plugins


def rowsOf(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def jsonOf(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(arguments) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    return json.loads(output)


def test_backendsAsATable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALANDRIA_BACKEND", raising=False)
    assert main(["backends"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    rows = rowsOf(output)
    assert rows[0] == ["NAME", "STATE", "CHOICE", "REASON"]
    states = {row[0]: row[1] for row in rows[1:]}
    for name in ("select", "poll", "epoll", "kqueue"):
        assert states[name] == ("ok" if hasattr(select, name) else "unavailable")
    best = next(name for name in ("kqueue", "epoll", "poll", "select") if hasattr(select, name))
    assert [row[0] for row in rows if "automatic" in row] == [best]
    if not hasattr(select, "kqueue"):
        assert "kqueue: it exists on macOS and the BSDs" in output


def test_backendsForPrograms(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALANDRIA_BACKEND", "select")
    backends = {backend["name"]: backend for backend in jsonOf(capsys, "backends", "--json")}
    assert set(backends) >= {"select", "poll", "epoll", "kqueue"}
    for name, backend in backends.items():
        assert set(backend) == {"name", "distribution", "version", "state", "reason", "automatic", "chosen"}
        assert backend["chosen"] == (name == "select")
        assert (backend["reason"] is None) == (backend["state"] == "ok")
    assert sum(backend["automatic"] for backend in backends.values()) == 1


def test_theEnvironmentsChoiceIsShown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALANDRIA_BACKEND", "select")
    assert main(["backends"]) == 0
    (row,) = [row for row in rowsOf(capsys.readouterr().out) if row[0] == "select"]
    assert row[2] == "$CALANDRIA_BACKEND"


def test_pluginsAsATable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    rows = rowsOf(capsys.readouterr().out)
    assert rows[0] == ["KIND", "NAME", "DISTRIBUTION", "VERSION", "STATE", "REASON"]
    assert {("backend", "select"), ("backend", "kqueue"), ("transport", "tcp")} <= {(row[0], row[1]) for row in rows}


def test_pluginsForPrograms(capsys: pytest.CaptureFixture[str]) -> None:
    plugins = jsonOf(capsys, "plugins", "--json")
    for plugin in plugins:
        assert set(plugin) == {"kind", "name", "distribution", "version", "state", "reason"}
    (tcp,) = [plugin for plugin in plugins if (plugin["kind"], plugin["name"]) == ("transport", "tcp")]
    assert (tcp["distribution"], tcp["state"], tcp["reason"]) == ("calandria", "ok", None)


def test_aDisabledPluginIsShownAsSuch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALANDRIA_DISABLE_PLUGINS", "poll")
    states = {plugin["name"]: plugin["state"] for plugin in jsonOf(capsys, "plugins", "--json")}
    assert states["poll"] == "disabled"
    assert states["select"] == "ok"


def test_allAboutATransport(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "info", "tcp"]) == 0
    output = capsys.readouterr().out
    for expected in (
        "transport tcp",
        "listenTCP",
        "connectTCP",
        "port",
        "backlog",
        "int",
        "50",
        "interface",
        "timeout",
    ):
        assert expected in output


def test_allAboutATransportForPrograms(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = jsonOf(capsys, "plugins", "info", "tcp", "--json")
    assert (told["kind"], told["name"], told["state"]) == ("transport", "tcp", "ok")
    spellings = {spelling["use"]: spelling for spelling in told["spellings"]}
    fields = {field["name"]: field for field in spellings["listen"]["fields"]}
    keys = {"name", "type", "takes", "required", "default", "textual", "doc"}
    assert all(set(field) == keys for field in fields.values())
    assert fields["port"].items() >= {"type": "int", "required": True, "default": None, "textual": True}.items()
    assert fields["backlog"].items() >= {"type": "int", "required": False, "default": 50, "textual": True}.items()
    assert spellings["connect"]["fields"][0]["name"] == "host"


def test_allAboutABackend(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = jsonOf(capsys, "plugins", "info", "kqueue", "--json")
    assert (told["kind"], told["name"]) == ("backend", "kqueue")
    assert told["options"] == []
    if not hasattr(select, "kqueue"):
        assert told["state"] == "unavailable"
        assert "macOS" in told["reason"]
    assert main(["plugins", "info", "kqueue"]) == 0
    assert "backend kqueue" in capsys.readouterr().out


def test_infoOfOneDistributions(capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = jsonOf(capsys, "plugins", "info", "tcp@calandria", "--json")
    assert told["name"] == "tcp"


def test_pluginThatDoesNotExist(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, 4, "plugins", "info", "epol")
    assert "no plugin 'epol'" in said
    assert "did you mean 'epoll'?" in said
    assert "did you mean" not in refusal(capsys, 4, "plugins", "info", "entirely-different")


def test_aTerminalThatIsNotUnicode() -> None:
    told = call("plugins", "info", "tcp", env={"PYTHONIOENCODING": "ascii"})
    assert (told.returncode, told.stderr) == (0, "")
    assert "\\u2026" in told.stdout


# Commands of plugins


def test_commandOfAPlugin(capsys: pytest.CaptureFixture[str]) -> None:
    from calandria import plugin

    class Greeting:
        @plugin.hookimpl
        def calandria_cli(self, subparsers: Any) -> None:
            parser = subparsers.add_parser("greet", help="greets")
            parser.add_argument("whom")
            parser.set_defaults(command=self.greet)

        def greet(self, arguments: Any) -> int | None:
            print(f"hello, {arguments.whom}")
            return {"me": None, "you": 3}[arguments.whom]

    greeting = Greeting()
    name = plugin.register(greeting)
    try:
        assert main(["greet", "me"]) == 0
        assert main(["greet", "you"]) == 3
        assert capsys.readouterr().out == "hello, me\nhello, you\n"
        assert main(["--help"]) == 0
        assert "greets" in capsys.readouterr().out
        (told,) = jsonOf(capsys, "plugins", "info", name, "--json")
        assert (told["kind"], told["state"], told["hooks"]) == ("plugin", "ok", ["calandria_cli"])
    finally:
        plugin.unregister(greeting)
    assert "invalid choice: 'greet'" in refusal(capsys, 2, "greet", "me")


def test_aPluginThatFailsToAddItsCommand(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    from calandria import plugin

    class Broken:
        @plugin.hookimpl
        def calandria_cli(self, subparsers: Any) -> None:
            raise RuntimeError("cannot add my command")

    broken = Broken()
    plugin.register(broken)
    try:
        assert jsonOf(capsys, "backends", "--json")
    finally:
        plugin.unregister(broken)
    assert "cannot add my command" in caplog.text


# The command line itself


def test_theInstalledCommandIsTheSame() -> None:
    import importlib_metadata

    distribution: Any = importlib_metadata.distribution("calandria")
    (entry,) = distribution.entry_points.select(group="console_scripts", name="calandria")
    assert entry.load() is main


def test_version() -> None:
    import importlib_metadata

    told = call("--version")
    assert told.returncode == 0
    assert told.stdout.startswith(f"calandria {importlib_metadata.version('calandria')} (")


@pytest.mark.parametrize("command", [[], ["run"], ["backends"], ["plugins"], ["plugins", "info"]])
def test_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main([*command, "--help"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert output.startswith(f"usage: {' '.join(['calandria', *command])}")
    assert "\nexamples:\n" in output


def test_helpOfRunTellsWhatThereIs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    output = capsys.readouterr().out
    for expected in ("TARGET", "--listen", "--backend", "--log-level", "--debug", "--json", "exit codes", *SERVICES):
        assert expected in output
    assert "tcp:8007:interface=127.0.0.1" in output


def test_noCommand(capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, 2)
    assert "run" in said
    assert "backends" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum", "echo"], "invalid choice: 'rum'"),
        (["rum", "echo"], "; did you mean 'run'?"),
        (["run"], "TARGET"),
        (
            ["run", "echo", "--lisen", "tcp:0"],
            "calandria run: error: unrecognized arguments: --lisen tcp:0; did you mean '--listen'?",
        ),
        (["run", "echo", "--back", "poll"], "unrecognized arguments: --back poll; did you mean '--backend'?"),
        (["run", "echo", "--lisen=tcp:0"], "did you mean '--listen'?"),
        (["run", "echo", "--log-level", "infos"], "did you mean 'info'?"),
        (["backends", "--jsno"], "did you mean '--json'?"),
        (["plugins", "inf", "tcp"], "did you mean 'info'?"),
    ],
)
def test_wrongUsage(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert said in refusal(capsys, 2, *arguments)


def test_logLevel() -> None:
    with start("echo", "--listen", ANY_PORT, "--log-level", "critical") as program:
        listeningPort(program)
        assert program.stop() == 0
        # Both streams: nothing but the line.
        assert program.output.count("\n") == 1


def test_debugMode(targets: Path) -> None:
    (targets / "looking.py").write_text(
        "from calandria import Protocol, reactor\n"
        "def target():\n"
        "    print('debug is', reactor.debug, flush=True)\n"
        "    return Protocol\n"
    )
    for options, expected in ([], "False"), (["--debug"], "True"):
        with start("looking:target", "--listen", ANY_PORT, *options, env={"CALANDRIA_DEBUG": None}) as program:
            assert program.waitFor(r"^debug is (\w+)$")[1] == expected
            assert program.stop() is not None


# Standard output that nobody reads


@pytest.mark.parametrize("arguments", [["plugins"], ["backends", "--json"], ["--help"], ["--version"]])
def test_aReaderThatHasGoneIsNoError(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = call(*arguments, stdout=writing)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_servingGoesOnForAReaderThatHasGone() -> None:
    port = unusedPort()
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [*COMMAND, "run", "echo", "--listen", f"tcp:{port}:interface=127.0.0.1"],
        env=mergedEnvironment(BUFFERED),
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writing)
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "could not tell where it listens" in line:
                    break
            assert exchange(port, b"x") == b"x"
            process.terminate()
            assert process.wait(20) == 0
            assert "BrokenPipeError" not in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["plugins"], ["backends", "--json"]])
def test_outputThatCannotBeWritten(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        ended = call(*arguments, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr == f"calandria: cannot write to standard output: {os.strerror(errno.ENOSPC)}\n"


def test_standardOutputClosedAltogether() -> None:
    ended = call("backends", preexec_fn=lambda: os.close(1))
    assert (ended.returncode, ended.stderr) == (0, "")
