"""Plugins of strangers: real distributions, installed by pip into an environment, and seen from programs in it.

All of them, the good and the bad, share one environment: that a broken one harms nobody is shown by the others.
"""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.helpers import Program, exchange
from tests.wheels import Environment, buildPlugin, buildWheel, projectFile, run, writeFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TICKING = '''
"""A backend of a stranger's: select(2), told apart from ours by counting what it does."""

from __future__ import annotations

import select

from calandria import error
from calandria.plugin import READABLE, WRITABLE, Backend


class TickingBackend(Backend):
    """Counts its polls in `ticks`; with `limit`, gives no more events than that at once."""

    name = "ticking"

    def __init__(self, *, limit: int = 256, **options: object) -> None:
        super().__init__(**options)
        self.limit = limit
        self.ticks = 0
        self.interests: dict[int, int] = {}

    def watch(self, fd: int, interest: int) -> None:
        self.interests.pop(fd, None)
        if interest:
            try:
                select.select([fd], [], [], 0)
            except (OSError, ValueError) as exc:
                raise error.UnsupportedDescriptor(f"descriptor {fd}: {exc}") from None
            self.interests[fd] = interest

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        self.ticks += 1
        readers = [fd for fd, interest in self.interests.items() if interest & READABLE]
        writers = [fd for fd, interest in self.interests.items() if interest & WRITABLE]
        readable, writable, _ = select.select(readers, writers, [], timeout)
        return [*((fd, READABLE) for fd in readable), *((fd, WRITABLE) for fd in writable)][: self.limit]
'''

LOCAL = '''
"""Sockets in the file system: reactor.listenLocal(path, factory), reactor.connectLocal(path, factory)."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from calandria import error
from calandria.plugin import ClientEndpoint, Connector, Port, ServerEndpoint, Stream, Transport, connectSocket

if TYPE_CHECKING:
    from calandria import ClientFactory, Factory, Reactor


class LocalPort(Port):
    def __init__(self, reactor: Reactor, factory: Factory, endpoint: ListenLocal) -> None:
        super().__init__(reactor, factory, host=endpoint)
        self.endpoint = endpoint

    def createSocket(self) -> socket.socket:
        made = self.reactor.backend.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.bind(self.endpoint.path)
            made.listen(self.endpoint.backlog)
        except OSError as exc:
            made.close()
            raise error.CannotListenError("", self.endpoint.path, exc) from None
        return made

    def makeStream(self, connection: socket.socket, address: Any) -> Stream:
        return Stream(self.reactor, connection, host=self.endpoint, peer=self.endpoint)

    def closed(self) -> None:
        os.unlink(self.endpoint.path)


@dataclass(frozen=True)
class ListenLocal(ServerEndpoint):
    """A socket in the file system.   local:/run/x"""

    path: str
    backlog: int = 5

    def listen(self, reactor: Reactor, factory: Factory) -> LocalPort:
        port = LocalPort(reactor, factory, self)
        port.startListening()
        return port


@dataclass(frozen=True)
class ConnectLocal(ClientEndpoint):
    """A socket in the file system.   local:/run/x"""

    path: str
    mood: Literal["calm", "keen"] = "calm"

    def connect(self, reactor: Reactor, factory: ClientFactory) -> Connector:
        def stream(connection: socket.socket) -> Stream:
            return Stream(reactor, connection, host=self, peer=self)

        def open() -> Any:
            return connectSocket(reactor, [(socket.AF_UNIX, self.path)]).addCallback(stream)

        return Connector(reactor, factory, open, destination=self)


transport = Transport("Local", listen=ListenLocal, connect=ConnectLocal)
'''

SWAP = """
from dataclasses import dataclass
from calandria.plugin import Layer, LayerEndpoint, Transport


class Swapping(Layer):
    def encode(self, data):
        return bytes(data).swapcase()

    def dataReceived(self, data):
        super().dataReceived(data.swapcase())


@dataclass(frozen=True)
class Swap(LayerEndpoint):
    def layer(self, reactor, *, client, below):
        return Swapping(reactor)


transport = Transport("Swap", layer=Swap)
"""

FORK = """
from dataclasses import dataclass
from calandria.plugin import ClientEndpoint, Transport


@dataclass(frozen=True)
class ConnectFork(ClientEndpoint):
    prongs: int = 4

    def connect(self, reactor, factory):
        return __name__, self.prongs


transport = Transport("Fork", connect=ConnectFork)
"""

TAKEOVER = """
from dataclasses import dataclass
from calandria.plugin import Backend, ServerEndpoint, Transport


class Epoll(Backend):
    name = "epoll"

    def watch(self, fd, interest): ...

    def poll(self, timeout):
        return []


@dataclass(frozen=True)
class ListenTCP(ServerEndpoint):
    port: int

    def listen(self, reactor, factory):
        return "taken over"


transport = Transport("TCP", listen=ListenTCP)
"""

SHAPES = """
from dataclasses import dataclass
from calandria.plugin import Backend, ClientEndpoint, Transport


class Shapeless:
    name = "shapeless"

    def watch(self, fd):
        ...


@dataclass(frozen=True)
class ConnectNamed(ClientEndpoint):
    def connect(self, reactor, factory): ...


named = Transport("Named", connect=ConnectNamed)
number = 5
"""

UNDECLARABLE = """
from calandria.plugin import ClientEndpoint, Transport


class ConnectLoose(ClientEndpoint):
    device: str


transport = Transport("Loose", connect=ConnectLoose)
"""

NEWER = """
from dataclasses import dataclass
from calandria.plugin import Backend, ClientEndpoint, Transport


class Newer(Backend):
    name = "newer"
    api = 2


@dataclass(frozen=True)
class ConnectNewer(ClientEndpoint):
    def connect(self, reactor, factory): ...


transport = Transport("Newer", connect=ConnectNewer, api=2)
"""

HOOKS = """
import sys
from calandria.plugin import Check, Observer, hookimpl

told = []


class Watcher(Observer):
    def connectionMade(self, transport):
        told.append("connection made")


@hookimpl
def calandria_reactor_created(reactor):
    told.append("created on " + reactor.backend.name)


@hookimpl
def calandria_observer(reactor):
    return Watcher()


@hookimpl
def calandria_cli(subparsers):
    parser = subparsers.add_parser("greet", help="greets whoever is there")
    parser.add_argument("whom")
    parser.set_defaults(command=lambda arguments: print("hello,", arguments.whom))


@hookimpl
def calandria_doctor():
    yield Check("weather", "warning", "take an umbrella")
"""

# By distribution: its modules, and its entry points (backends, transports, plugins).
strangers: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, str]]] = {
    "calandria-ticking": (
        {"calandria_ticking/__init__.py": TICKING},
        {"ticking": "calandria_ticking:TickingBackend"},
        {},
        {},
    ),
    "calandria-local": ({"calandria_local/__init__.py": LOCAL}, {}, {"local": "calandria_local:transport"}, {}),
    "calandria-swap": ({"calandria_swap/__init__.py": SWAP}, {}, {"swap": "calandria_swap:transport"}, {}),
    "silver-fork": ({"silver_fork/__init__.py": FORK}, {}, {"fork": "silver_fork:transport"}, {}),
    "Golden.Fork": ({"golden_fork/__init__.py": FORK}, {}, {"fork": "golden_fork:transport"}, {}),
    "takeover": (
        {"takeover/__init__.py": TAKEOVER},
        {"epoll": "takeover:Epoll"},
        {"tcp": "takeover:transport"},
        {},
    ),
    "calandria-broken": (
        {
            "calandria_broken/__init__.py": "",
            "calandria_broken/fails.py": "raise RuntimeError('out of order')",
            "calandria_broken/exits.py": "import sys; sys.exit('bye')",
            "calandria_broken/needs.py": "import surely_not_installed",
            "calandria_broken/undeclarable.py": UNDECLARABLE,
        },
        {"exiting": "calandria_broken.exits:Backend"},
        {
            "failing": "calandria_broken.fails:transport",
            "needing": "calandria_broken.needs:transport",
            "absent": "calandria_broken:transport",
            "vanished": "calandria_broken.vanished:transport",
            "loose": "calandria_broken.undeclarable:transport",
            "Wrong-Name": "calandria_broken:transport",
        },
        {"failing": "calandria_broken.fails"},
    ),
    "calandria-shapes": (
        {"calandria_shapes/__init__.py": SHAPES},
        {"shapeless": "calandria_shapes:Shapeless", "module": "calandria_shapes"},
        {"other": "calandria_shapes:named", "number": "calandria_shapes:number"},
        {"nothing": "calandria_shapes"},
    ),
    "calandria-newer": (
        {"calandria_newer/__init__.py": NEWER},
        {"newer": "calandria_newer:Newer"},
        {"newer": "calandria_newer:transport"},
        {},
    ),
    "calandria-hooks": ({"calandria_hooks/__init__.py": HOOKS}, {}, {}, {"anything": "calandria_hooks"}),
}
modules = sorted({file.split("/")[0] for files, *_ in strangers.values() for file in files})


def wheelOf(folder: Path, name: str) -> Path:
    files, *points = strangers[name]
    groups = ("calandria.backends", "calandria.transports", "calandria.plugins")
    return buildPlugin(folder / name, name, files, dict(zip(groups, points, strict=True)))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of all strangers, by distribution."""
    folder = tmp_path_factory.mktemp("strangers")

    def build(name: str) -> Path:
        return wheelOf(folder, name)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(strangers, pool.map(build, strangers), strict=True))


@pytest.fixture(scope="module")
def world(
    wheels: dict[str, Path], wheelhouse: Path, wheelUnderTest: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """An environment in which all strangers are installed."""
    environment = Environment(tmp_path_factory.mktemp("world") / "environment", wheelhouse)
    environment.install(wheelUnderTest, *wheels.values())
    return environment


def program(world: Environment, text: str, *args: str, env: dict[str, str | None] | None = None) -> str:
    """Run a program text; what it prints. `seen()` in it are the strangers' modules that were imported."""
    start = (
        "import sys\n"
        "from calandria import ClientFactory, Factory, Protocol, Reactor, _registry, error\n"
        f"def seen(): return [name for name in {modules!r} if name in sys.modules]\n"
    )
    unset: dict[str, str | None] = dict.fromkeys(
        ("CALANDRIA_BACKEND", "CALANDRIA_DISABLE_PLUGINS", "CALANDRIA_STRICT_PLUGINS")
    )
    return world.runPython(start + text, *args, env=unset | (env or {})).stdout


def refusal(world: Environment, expression: str, kind: str, env: dict[str, str | None] | None = None) -> str:
    """The text of the error that an expression raises in a program; `kind` is what it must be an instance of."""
    text = f"reactor = Reactor()\ntry: {expression}\nexcept {kind} as exc: print(exc)\nreactor.close()"
    return program(world, text, env=env).rstrip("\n")


# A backend


def test_aStrangersBackendIsShort() -> None:
    assert len(TICKING.splitlines()) < 60
    assert len(LOCAL.splitlines()) < 80  # both sides; the one that connects is a third of it


ECHO_ONCE = """
class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

class Client(Protocol):
    def connectionMade(self):
        self.transport.write(b"Hello")
    def dataReceived(self, data):
        print("got", data.decode())
        self.transport.loseConnection()
    def connectionLost(self, reason):
        print(reason.type.__name__)
        reactor.callLater(0, reactor.stop)

server, client = Factory.forProtocol(Echo), ClientFactory.forProtocol(Client)
"""


@pytest.mark.parametrize("name", ["ticking", "ticking@calandria-ticking", "ticking@Calandria_Ticking"])
def test_aStrangersBackendRunsAReactor(world: Environment, name: str) -> None:
    told = program(
        world,
        f"""
{ECHO_ONCE}
with Reactor({name!r}, limit=1) as reactor:
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    reactor.connectTCP("127.0.0.1", port.getHost().port, client)
    reactor.run()
    print(reactor.backend.name, reactor.backend.limit, reactor.backend.ticks > 3, seen())
""",
    )
    assert told.splitlines() == ["got Hello", "ConnectionDone", "ticking 1 True ['calandria_ticking']"]


def test_aStrangersBackendIsChosenFromOutside(world: Environment) -> None:
    text = "with Reactor() as reactor: print(reactor.backend.name)"
    assert program(world, text, env={"CALANDRIA_BACKEND": "ticking"}) == "ticking\n"
    assert program(world, text, env={"CALANDRIA_BACKEND": "ticking@calandria-ticking"}) == "ticking\n"
    command = [str(world.bin / "calandria"), "run", "echo", "--backend", "ticking", "--listen", ANY_PORT]
    with Program(command) as served:
        match = served.waitFor(r"listening on tcp:127.0.0.1:(\d+) \(backend ticking\)")
        assert exchange(int(match[1]), b"through a stranger's loop") == b"through a stranger's loop"
        assert served.stop() == 0


ANY_PORT = "tcp:0:interface=127.0.0.1"


def test_aStrangersBackendIsNeverChosenUnasked(world: Environment) -> None:
    text = "with Reactor() as reactor: print(reactor.backend.name in ('kqueue', 'epoll', 'poll', 'select'), seen())"
    assert program(world, text) == "True []\n"
    disabled = program(world, text, env={"CALANDRIA_DISABLE_PLUGINS": "kqueue,epoll,poll"})
    assert disabled == "True []\n"


def test_optionsThatABackendDoesNotTake(world: Environment) -> None:
    said = refusal(world, "Reactor('ticking', speed=5)", "TypeError")
    assert said == "the backend 'ticking' was given speed=5; the options that it takes: limit"


# A transport


@pytest.mark.parametrize(
    "connect",
    [
        "reactor.connectLocal(path, client, mood='keen')",
        "reactor.connect(ConnectLocal(path, mood='keen'), client)",
        "reactor.connect(f'local:{path}:mood=keen', client)",
        "reactor.connect(f'local@calandria-local:{path}:mood=keen', client)",
        "reactor.connect(str(ConnectLocal(path, mood='keen')), client)",
        "getattr(reactor, 'connectLocal@calandria-local')(path, client, 'keen')",
    ],
)
def test_aStrangersTransportInEverySpelling(world: Environment, tmp_path: Path, connect: str) -> None:
    listen = connect.replace("connect", "listen").replace("Connect", "Listen").replace("client", "server")
    for old in ("mood=keen", "mood='keen'", "'keen'"):
        listen = listen.replace(old, old.replace("mood", "backlog").replace("keen", "3").replace("'3'", "3"))
    told = program(
        world,
        f"""
{ECHO_ONCE}
from calandria_local import ConnectLocal, ListenLocal
path = sys.argv[1]
with Reactor() as reactor:
    port = {listen}
    connector = {connect}
    print(port.getHost() == ListenLocal(path, 3), connector.getDestination() == ConnectLocal(path, "keen"))
    reactor.run()
print(seen())
""",
        str(tmp_path / "socket"),
    )
    assert told.splitlines() == ["True True", "got Hello", "ConnectionDone", "['calandria_local']"]
    assert not (tmp_path / "socket").exists()


def test_aStrangersTransportOnTheCommandLine(world: Environment, tmp_path: Path) -> None:
    import socket

    path = str(tmp_path / "socket")
    with Program([str(world.bin / "calandria"), "run", "echo", "--listen", f"swap+local:{path}"]) as served:
        served.waitFor("listening on ")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(20)
            peer.connect(path)
            peer.sendall(b"Swapped twice")
            assert peer.recv(100) == b"Swapped twice"
        assert served.stop() == 0


def test_aLayerGoesOverOurTransport(world: Environment) -> None:
    told = program(
        world,
        f"""
{ECHO_ONCE}
class Upper(Echo):
    def dataReceived(self, data):
        self.transport.write(data.upper())

with Reactor() as reactor:
    port = reactor.listen("tcp:0:interface=127.0.0.1", Factory.forProtocol(Upper))
    connector = reactor.connect(f"swap+tcp:127.0.0.1:{{port.getHost().port}}:tcp.timeout=5", client)
    print(str(connector.getDestination()).partition(":")[0])
    reactor.run()
""",
    )
    assert told.splitlines() == ["swap+tcp", "got hello", "ConnectionDone"]


def test_theMethodLooksWritten(world: Environment) -> None:
    told = program(
        world,
        """
import inspect
with Reactor() as reactor:
    method = reactor.connectLocal
    print(method.__name__, *inspect.signature(method).parameters)
    print(inspect.signature(method).return_annotation)
    print(inspect.getdoc(method).partition(".")[0])
    for call in (lambda: method("x"), lambda: method("x", ClientFactory(), mod="keen")):
        try: call()
        except TypeError as exc: print(exc)
""",
    ).splitlines()
    assert told[:3] == ["connectLocal path factory mood", "Connector", "A socket in the file system"]
    assert told[3] == "connectLocal() missing a required argument: 'factory': connectLocal(path, factory, mood='calm')"
    assert "unexpected keyword argument 'mod'; did you mean 'mood'?" in told[4]


def test_dirShowsTheMethodsOfStrangers(world: Environment) -> None:
    text = "with Reactor() as reactor: print(sorted(name for name in dir(reactor) if name[:7] == 'connect'))"
    # Not of the two that claim one name; those are asked for with the distribution.
    assert program(world, text) == "['connect', 'connectLocal', 'connectTCP']\n"


# What is not asked for is not imported


def test_importingAndListeningImportNobody(world: Environment) -> None:
    text = """
with Reactor() as reactor:
    reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    reactor.callWhenRunning(reactor.stop)
    reactor.run()
    print(seen(), [name for name in ("pluggy", "importlib_metadata") if name in sys.modules])
"""
    assert program(world, text) == "[] []\n"


def test_aTypoImportsOnlyWhatItIsNearestTo(world: Environment) -> None:
    told = program(
        world,
        """
with Reactor() as reactor:
    for name in ("connectSerial", "connectLoca"):
        try: getattr(reactor, name)
        except AttributeError as exc: print(exc, seen())
""",
    ).splitlines()
    assert told[0].endswith("reactor.connectSerial() comes with calandria-serial []")
    assert told[1].endswith("did you mean connectLocal? ['calandria_local']")


def test_theTracebackOfATypoImportsNobody(world: Environment) -> None:
    text = (
        "import atexit, sys\n"
        "from calandria import Reactor\n"
        f"atexit.register(lambda: print([name for name in {modules!r} if name in sys.modules]))\n"
        "Reactor().connectSerial()"
    )
    result = run(world.python, "-c", text, expect=1)
    assert "reactor.connectSerial() comes with calandria-serial" in result.stderr
    assert result.stdout == "[]\n"


# What is wrong with the others


BROKEN: dict[tuple[str, str], str] = {
    ("backend", "exiting"): "SystemExit: bye",
    ("transport", "failing"): "RuntimeError: out of order",
    ("transport", "needing"): "it needs the module 'surely_not_installed', which is not installed",
    ("transport", "absent"): "AttributeError: module 'calandria_broken' has no attribute 'transport'",
    ("transport", "vanished"): "ModuleNotFoundError: No module named 'calandria_broken.vanished'",
    ("transport", "loose"): "TypeError: Transport('Loose'): ConnectLoose is no dataclass: put @dataclass(frozen=True)",
    ("backend", "shapeless"): "it does not derive from calandria.plugin.Backend; its method watch must be",
    ("backend", "module"): "it is the module calandria_shapes, and a backend is a class",
    ("transport", "other"): "it is known as 'other', and Transport('Named', connect=ConnectNamed) must be known as",
    ("transport", "number"): "it is 5, and not a calandria.plugin.Transport",
    ("backend", "newer"): "it was written for plugin API 2, and this calandria (0.1.0) has API 1",
    ("transport", "newer"): "it was written for plugin API 2, and this calandria (0.1.0) has API 1",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), BROKEN)
def test_whoAsksForABrokenOneIsToldWhy(world: Environment, kind: str, name: str) -> None:
    distribution = next(
        each for each, (_, *points) in strangers.items() if name in points[["backend", "transport"].index(kind)]
    )
    expected = f"{kind} {name!r} of {distribution} 1.0 is broken: {BROKEN[kind, name]}"
    if kind == "backend":
        assert refusal(world, f"Reactor({name!r})", "error.BackendUnavailable").startswith(expected)
    else:
        text = f"reactor.connect('{name}:x', ClientFactory())"
        assert refusal(world, text, "error.TransportUnavailable").startswith(expected)
        said = refusal(world, f"reactor.connect{name.capitalize()}", "AttributeError")
        assert said.startswith(expected)


def test_theCauseOfABrokenOneIsKept(world: Environment) -> None:
    text = "_registry.transport('failing')"
    result = world.runPython(f"from calandria import _registry\n{text}", expect=1)
    assert 'calandria_broken/fails.py", line 1' in result.stderr
    assert "RuntimeError: out of order" in result.stderr


def test_theStatesAreShownWithTheirReasons(world: Environment) -> None:
    shown = json.loads(world.command("plugins", "--json").stdout)
    table = {(each["kind"], each["name"], each["distribution"]): each for each in shown}
    assert len(table) == len(shown)
    for (kind, name), reason in BROKEN.items():
        (found,) = [each for each in shown if (each["kind"], each["name"]) == (kind, name)]
        assert found["state"] == "broken"
        assert found["reason"].startswith(reason)
        assert found["version"] == "1.0"
    states = {key: each["state"] for key, each in table.items()}
    assert states["backend", "ticking", "calandria-ticking"] == "ok"
    assert states["transport", "local", "calandria-local"] == "ok"
    assert states["transport", "swap", "calandria-swap"] == "ok"
    assert states["plugin", "anything", "calandria-hooks"] == "ok"
    assert states["transport", "tcp", "calandria"] == "ok"
    assert states["transport", "Wrong-Name", "calandria-broken"] == "broken"
    assert "not of the form" in table["transport", "Wrong-Name", "calandria-broken"]["reason"]
    assert table["plugin", "failing", "calandria-broken"]["reason"] == "RuntimeError: out of order"
    assert "without a function marked with" in table["plugin", "nothing", "calandria-shapes"]["reason"]
    assert states["transport", "tcp", "takeover"] == states["backend", "epoll", "takeover"] == "shadowed"
    assert table["backend", "epoll", "takeover"]["reason"] == (
        "the name is calandria's own; epoll@takeover means this one"
    )
    assert table["transport", "fork", "silver-fork"]["reason"] == (
        "Golden.Fork 1.0 claims the name too; fork@silver-fork means this one"
    )
    assert "silver-fork 1.0 claims the name too" in table["transport", "fork", "Golden.Fork"]["reason"]


def test_backendsThatCannotBeAreListedForWhoAsksForAnother(world: Environment) -> None:
    said = refusal(world, "Reactor('tickin')", "error.BackendUnavailable").splitlines()
    assert said[0] == "no backend 'tickin' is installed; did you mean 'ticking'?"
    assert "  ticking of calandria-ticking 1.0: ok" in said
    assert "  exiting of calandria-broken 1.0: broken, SystemExit: bye" in said


def test_allAboutAStrangersTransport(world: Environment) -> None:
    (told,) = json.loads(world.command("plugins", "info", "local", "--json").stdout)
    assert (told["distribution"], told["version"], told["entryPoint"]) == (
        "calandria-local",
        "1.0",
        "calandria_local:transport",
    )
    assert told["file"].endswith("calandria_local/__init__.py")
    listen, connect = told["spellings"]
    assert listen["method"] == "listenLocal(path, factory, backlog=5)"
    assert connect["fields"][1]["takes"] == "calm or keen"
    plain = world.command("plugins", "info", "local@calandria-local").stdout
    for word in ("calandria-local 1.0", "local:path[:mood=…]", "connectLocal", "calm or keen"):
        assert word in plain


# Two that claim one name, and one that claims ours


def test_twoThatClaimOneName(world: Environment) -> None:
    expected = (
        r"transport 'fork' is claimed by several, so say which: "
        r"(fork@silver-fork \(silver-fork 1.0\), fork@Golden.Fork \(Golden.Fork 1.0\)|"
        r"fork@Golden.Fork \(Golden.Fork 1.0\), fork@silver-fork \(silver-fork 1.0\))"
    )
    assert re.match(expected, refusal(world, "reactor.connect('fork:', None)", "error.TransportUnavailable"))
    assert re.match(expected, refusal(world, "reactor.connectFork(None)", "AttributeError"))


def test_theDistributionChoosesInEverySpelling(world: Environment) -> None:
    told = program(
        world,
        """
factory = ClientFactory()
with Reactor() as reactor:
    print(reactor.connect("fork@silver-fork:", factory), reactor.connect("fork@golden-fork:prongs=3", factory))
    print(getattr(reactor, "connectFork@golden.fork")(factory, 2))
    endpoint = _registry.endpoint("fork@Golden_Fork:prongs=3", "connect")
    print(endpoint, reactor.connect(str(endpoint), factory))
""",
        env={"PYTHONHASHSEED": "1"},
    )
    assert told.splitlines() == [
        "('silver_fork', 4) ('golden_fork', 3)",
        "('golden_fork', 2)",
        "fork@Golden.Fork:prongs=3 ('golden_fork', 3)",
    ]
    alone = program(
        world, "print(_registry.transport('fork'))", env={"CALANDRIA_DISABLE_PLUGINS": "fork@silver*,local"}
    )
    assert "Fork" in alone


def test_ourNamesAreNotTakenOver(world: Environment) -> None:
    told = program(
        world,
        """
with Reactor("epoll@takeover") as reactor:
    print(type(reactor.backend).__module__)
with Reactor("select") as reactor:
    print(reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1").getHost().host)
    print(reactor.listen("tcp:0:interface=127.0.0.1", Factory.forProtocol(Protocol)).getHost().host)
    print(reactor.listen("tcp@takeover:0", Factory.forProtocol(Protocol)))
    from calandria import ListenTCP
    print(ListenTCP.__module__)
""",
    )
    assert told.splitlines() == ["takeover", "127.0.0.1", "127.0.0.1", "taken over", "calandria_tcp"]


# Disabled, and strict


def test_disabledOnesAreNotImported(world: Environment) -> None:
    env: dict[str, str | None] = {"CALANDRIA_DISABLE_PLUGINS": "loc*, ticking@calandria-ticking,anything"}
    said = refusal(world, "reactor.connect('local:x', None)", "error.TransportUnavailable", env)
    assert said.startswith("transport 'local' is disabled by CALANDRIA_DISABLE_PLUGINS (loc*)")
    assert "is disabled by" in refusal(world, "reactor.listenLocal", "AttributeError", env)
    text = """
infos = {(info.kind, info.name): info.state for info in _registry.plugins()}
print(infos["transport", "local"], infos["backend", "ticking"], infos["plugin", "anything"])
print([name for name in seen() if name in ("calandria_local", "calandria_ticking", "calandria_hooks")])
"""
    assert program(world, text, env=env).splitlines() == ["disabled disabled disabled", "[]"]


def test_strictnessRaisesWhatWouldBeLeftOut(world: Environment) -> None:
    env: dict[str, str | None] = {"CALANDRIA_STRICT_PLUGINS": "1"}
    expected = "is broken: "
    assert expected in refusal(world, "dir(reactor)", "error.PluginError", env)
    assert expected in refusal(world, "Reactor(plugins=True)", "error.PluginError", env)
    text = "with Reactor() as reactor: print(len(_registry.plugins()) > 10)"
    assert program(world, text, env=env) == "True\n"


# Hooks


def test_hooksAreCalledForWhoWantsPlugins(world: Environment) -> None:
    told = program(
        world,
        f"""
{ECHO_ONCE}
with Reactor("select") as reactor:
    reactor.callWhenRunning(reactor.stop)
    reactor.run()
print(seen())
with Reactor("select", plugins=True) as reactor:
    port = reactor.listenTCP(0, server, interface="127.0.0.1")
    reactor.connectTCP("127.0.0.1", port.getHost().port, client)
    reactor.run()
import calandria_hooks
print(calandria_hooks.told, "calandria_local" in sys.modules)
""",
    )
    assert told.splitlines() == [
        "[]",
        "got Hello",
        "ConnectionDone",
        "['created on select', 'connection made', 'connection made'] False",
    ]


def test_aPluginsCommandAndItsChecks(world: Environment) -> None:
    assert world.command("greet", "stranger").stdout == "hello, stranger\n"
    assert "greets whoever is there" in world.command("--help").stdout
    told = program(world, "for check in _registry.doctor(): print(check.state, check.name, check.message)")
    assert "warning weather take an umbrella" in told.splitlines()
    assert "failed transport failing@calandria-broken RuntimeError: out of order" in told.splitlines()


# Coming and going


def test_whatIsUninstalledIsGoneAndRunningReactorsGoOn(
    newEnvironment: Callable[..., Environment], wheels: dict[str, Path]
) -> None:
    environment = newEnvironment(wheels["calandria-ticking"], wheels["calandria-local"])
    pip = [sys.executable, "-m", "pip", "--python", str(environment.python), "uninstall", "--quiet", "--yes"]
    text = f"""
import subprocess, sys
from calandria import Reactor, _registry, error, plugin
reactor = Reactor("ticking")
_registry.transport("local")
subprocess.run({pip!r} + ["calandria-ticking", "calandria-local"], check=True)
_registry.transport("local")
plugin.refresh()
for ask in (lambda: _registry.transport("local"), lambda: Reactor("ticking"), lambda: reactor.connectLocal):
    try: ask()
    except error.PluginError as exc: print(str(exc).splitlines()[0])
reactor.callLater(0, reactor.stop)
reactor.run()
reactor.close()
"""
    told = environment.runPython(text).stdout.splitlines()
    assert told == [
        "no transport 'local' is installed (local: comes with calandria-local); there are: tcp",
        "no backend 'ticking' is installed",
        "no transport 'local' is installed: reactor.connectLocal() comes with calandria-local",
    ]


def test_damagedMetadataHidesNobodyElse(newEnvironment: Callable[..., Environment], wheels: dict[str, Path]) -> None:
    environment = newEnvironment(wheels["calandria-swap"], wheels["calandria-local"])
    (entryPoints,) = environment.bin.parent.glob("lib/python*/site-packages/calandria_swap-*/entry_points.txt")
    for damage in (b"[calandria.transports]\nno equals sign\n", b"[calandria.transports]\n\xff\xfe = x\n"):
        entryPoints.write_bytes(damage)
        text = "from calandria import _registry\nprint(_registry.transport('local'))"
        result = environment.runPython(text)
        assert result.stdout == "Transport('Local', listen=ListenLocal, connect=ConnectLocal)\n"
        assert "cannot read the entry points of" in result.stderr


def test_theFirstOnThePathCounts(
    newEnvironment: Callable[..., Environment], wheels: dict[str, Path], tmp_path: Path
) -> None:
    """As with modules: an older copy further down the path is not there at all, whatever it declares."""
    environment = newEnvironment(wheels["calandria-local"])
    (metadata,) = environment.bin.parent.glob("lib/python*/site-packages/calandria_local-*.dist-info/METADATA")
    first = tmp_path / "first" / "calandria_local-2.0.dist-info"
    writeFiles(first, {"METADATA": metadata.read_text().replace("Version: 1.0", "Version: 2.0")})
    text = "from calandria import _registry\nprint([each.version for each in _registry.find('local')])"
    assert environment.runPython(text).stdout == "['1.0']\n"
    assert environment.runPython(text, env={"PYTHONPATH": str(first.parent)}).stdout == "[]\n"
    writeFiles(first, {"entry_points.txt": "[calandria.transports]\nlocal = calandria_local:transport\n"})
    assert environment.runPython(text, env={"PYTHONPATH": str(first.parent)}).stdout == "['2.0']\n"


def test_aMissingDependencyNamesTheExtras(newEnvironment: Callable[..., Environment], tmp_path: Path) -> None:
    settings = projectFile("calandria-optional", {"calandria.transports": {"optional": "calandria_optional:transport"}})
    settings = settings.replace(
        "[tool.hatch", "[project.optional-dependencies]\nserial = ['surely-not-installed']\n[tool.hatch", 1
    )
    project = tmp_path / "optional"
    writeFiles(project, {"pyproject.toml": settings, "calandria_optional/__init__.py": "import surely_not_installed"})
    environment = newEnvironment(buildWheel(project, tmp_path / "wheels"))
    text = "from calandria import _registry\n_registry.transport('optional')"
    result = environment.runPython(text, expect=1)
    assert (
        "is broken: it needs the module 'surely_not_installed', which is not installed "
        "(perhaps with one of the extras of calandria-optional: serial)"
    ) in result.stderr


def test_nothingIsWritten(newEnvironment: Callable[..., Environment], wheels: dict[str, Path]) -> None:
    """Discovery keeps no cache beside the code."""
    environment = newEnvironment(wheels["calandria-local"])
    site = next(environment.bin.parent.glob("lib/python*/site-packages"))

    def files() -> set[str]:
        return {str(path.relative_to(site)) for path in site.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    environment.runPython(
        "from calandria import _registry\n_registry.plugins()\n_registry.refresh()\n_registry.plugins()"
    )
    assert files() == before
