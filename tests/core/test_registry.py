"""Which plugin a name means, what becomes of it, and what hooks are called with; here with plugins registered in code.

What pip installs is tests/packaging/test_thirdparty.py.
"""

from __future__ import annotations

import json
import select
import sys
import threading
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from calandria import Factory, ListenTCP, Reactor, _catalogue, _registry, _shapes, error, plugin
from calandria.plugin import Backend, ClientEndpoint, LayerEndpoint, ServerEndpoint, Transport, hookimpl
from calandria.protocol import ClientFactory
from tests.helpers import LogCapture, runPython
from tests.recorders import Echo, RecordingClient, RecordingServer
from tests.wheels import root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Waiting(Backend):
    """A backend for which nothing ever happens."""

    name = "waiting"

    def watch(self, fd: int, interest: int) -> None: ...

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        return []


class Absent(Waiting):
    name = "absent"

    @classmethod
    def unavailable(cls) -> str | None:
        return "it is elsewhere"


@dataclass(frozen=True)
class ConnectSpoon(ClientEndpoint):
    """A spoon.   spoon:silver"""

    metal: str
    size: int = 5

    def connect(self, reactor: Any, factory: Any) -> Any:
        return reactor, factory, self


@dataclass(frozen=True)
class Foam(LayerEndpoint):
    """Foam on top."""

    def layer(self, reactor: Any, *, client: bool, below: Any) -> Any: ...


@dataclass(frozen=True)
class Vapour(Foam):
    """Foam of the future."""


future = Transport("Vapour", layer=Vapour, api=2)
spoon = Transport("Spoon", connect=ConnectSpoon, aliases=("ladle",))
foam = Transport("Foam", layer=Foam)


class Contributing:
    """Brings what it is made with."""

    def __init__(self, *, backends: Any = (), transports: Any = ()) -> None:
        self.backends = backends
        self.transports = transports

    @hookimpl
    def calandria_backends(self) -> Any:
        return self.backends

    @hookimpl
    def calandria_transports(self) -> Any:
        return self.transports


@pytest.fixture
def registered() -> Iterator[Callable[[object], str]]:
    """`registered(plugin)` registers it for the time of the test."""
    taken: list[object] = []

    def take(given: object) -> str:
        name = plugin.register(given)
        taken.append(given)
        return name

    yield take
    for each in taken:
        plugin.unregister(each)


@pytest.fixture(autouse=True)
def plainEnvironment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CALANDRIA_BACKEND", "CALANDRIA_DISABLE_PLUGINS", "CALANDRIA_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)


# What is ours


def test_theTableIsWhatTheDistributionDeclares() -> None:
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]
    groups: dict[Any, str] = dict(_catalogue.GROUPS)
    assert {kind: declared.get(group, {}) for kind, group in groups.items()} == _catalogue.OURS
    assert set(_registry.AUTOMATIC) == set(_catalogue.OURS["backend"])


def test_theTableIsWhatIsInstalled() -> None:
    import importlib_metadata

    for kind, group in _catalogue.GROUPS.items():
        entries = importlib_metadata.distribution("calandria").entry_points.select(group=group)
        assert {entry.name: entry.value for entry in entries} == _catalogue.OURS[kind]


@pytest.mark.parametrize("name", list(_catalogue.OURS["backend"]))
def test_oursHaveTheShapeThatIsAskedOfStrangers(name: str) -> None:
    info = _catalogue.builtin("backend", name)
    assert info is not None
    assert list(_shapes.backendProblems(_catalogue.demand(info), name)) == []


def test_oursNeedNoMetadata() -> None:
    """Not even those that the names of strangers would be looked for in."""
    result = runPython(
        """
import sys
sys.modules["importlib_metadata"] = sys.modules["pluggy"] = None
from calandria import Factory, Protocol, Reactor
for name in ("select", "select@calandria"):
    with Reactor(name) as reactor:
        reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        reactor.listen("tcp@Calandria:0:interface=127.0.0.1", Factory.forProtocol(Protocol))
        assert "calandria_epoll" not in sys.modules
"""
    )
    assert result.returncode == 0, result.stderr


def test_everythingThatPluginsImportIsThere() -> None:
    names = [name for names in vars(plugin)["_LATER"].values() for name in names]
    for name in names:
        assert getattr(plugin, name) is not None
    assert set(names) <= set(dir(plugin))
    with pytest.raises(AttributeError, match=r"module .calandria\.plugin. has no attribute 'Transprot'"):
        plugin.Transprot  # noqa: B018  # it is the looking that raises


# Choosing a backend


def test_theOrderOfAuthority(monkeypatch: pytest.MonkeyPatch) -> None:
    best = next(name for name in ("kqueue", "epoll", "poll", "select") if hasattr(select, name))
    assert nameOfBackend(None) == best
    monkeypatch.setenv("CALANDRIA_BACKEND", "select")
    assert nameOfBackend(None) == "select"
    assert nameOfBackend(best) == best


def nameOfBackend(choice: Any) -> str:
    backend = _registry.makeBackend(choice, {})
    backend.close()
    return backend.name


def test_aBackendIsAlsoGivenAsAClassOrMade() -> None:
    made = Waiting()
    assert _registry.makeBackend(made, {}) is made
    assert type(_registry.makeBackend(Waiting, {})) is Waiting
    with pytest.raises(TypeError, match="was made already, and takes no more options: size"):
        _registry.makeBackend(made, {"size": 5})
    with pytest.raises(TypeError, match="size=5"):
        _registry.makeBackend(Waiting, {"size": 5})
    with pytest.raises(error.BackendUnavailable, match=r"^the backend Absent cannot work here: it is elsewhere$"):
        _registry.makeBackend(Absent, {})


@pytest.mark.parametrize("choice", [5, object, b"epoll", Waiting.poll])
def test_nothingElseIsABackend(choice: Any) -> None:
    with pytest.raises(TypeError, match=r"by name, as a Backend class or as an instance, not"):
        Reactor(choice)


@pytest.mark.parametrize(
    "name", ["../../x", "os:system", "Epoll", "\u0435poll", "a" * 33, "", " epoll", "epoll\n", "9poll", "epoll@", "@x"]
)
def test_whatCannotBeANameIsNotLookedFor(name: str) -> None:
    with pytest.raises(error.BackendUnavailable, match="cannot be the name of a backend") as caught:
        Reactor(name)
    assert str(caught.value).partition("\n")[0].isascii()


def test_anUnknownBackendIsExplainedByThoseThereAre() -> None:
    with pytest.raises(error.BackendUnavailable) as caught:
        Reactor("epol")
    first, second, *rest = str(caught.value).splitlines()
    assert first == "no backend 'epol' is installed; did you mean 'epoll'?"
    assert second == "known backends:"
    assert "  select: ok" in rest
    if not hasattr(select, "kqueue"):
        assert any(line.startswith("  kqueue: unavailable, the select module of this Python has no") for line in rest)


@pytest.mark.skipif(hasattr(select, "kqueue"), reason="this machine has kqueue")
def test_whoAsksForOneIsNeverGivenAnother(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(error.BackendUnavailable, match=r"^backend 'kqueue' cannot work here: the select module"):
        Reactor("kqueue")
    monkeypatch.setenv("CALANDRIA_BACKEND", "kqueue")
    with pytest.raises(error.BackendUnavailable, match=r"^backend 'kqueue' cannot work here: the select module"):
        Reactor()


def test_disabledOnesAreNotChosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALANDRIA_DISABLE_PLUGINS", "kqueue, e*,poll@calandria")
    assert nameOfBackend(None) == "select"
    with pytest.raises(
        error.BackendUnavailable, match=r"^backend 'epoll' is disabled by CALANDRIA_DISABLE_PLUGINS \(e\*\)"
    ):
        Reactor("epoll")
    with pytest.raises(error.BackendUnavailable, match="is disabled by"):
        Reactor("poll")
    states = {info.name: (info.state, info.reason) for info in _registry.plugins("backend")}
    assert states["epoll"] == ("disabled", "CALANDRIA_DISABLE_PLUGINS=e*")
    monkeypatch.setenv("CALANDRIA_DISABLE_PLUGINS", "*")
    with pytest.raises(error.BackendUnavailable, match="no backend that would be chosen unasked can work here"):
        Reactor()
    with pytest.raises(error.TransportUnavailable, match="transport 'tcp' is disabled"):
        _registry.endpoint("tcp:80", "listen")


def test_theEnvironmentIsIgnoredIfPythonIsToldTo() -> None:
    program = """
import sys
sys.path[:0] = sys.argv[1:]
from calandria import Reactor, _registry
with Reactor() as reactor:
    print(reactor.backend.name, _registry.transport("tcp"))
"""
    environment = {"CALANDRIA_BACKEND": "nonsense", "CALANDRIA_DISABLE_PLUGINS": "*"}
    assert runPython(program, env=environment).returncode == 1
    result = runPython(
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-I', '-c', *sys.argv[1:]]).returncode)",
        program,
        *sys.path,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    assert "Transport('TCP'" in result.stdout


# Transports by name


def test_aMissingTransportIsExplained() -> None:
    with pytest.raises(error.TransportUnavailable) as caught:
        _registry.endpoint("serial:/dev/ttyUSB0", "connect")
    assert str(caught.value) == (
        "no transport 'serial' is installed (serial: comes with calandria-serial); there are: tcp"
    )
    with pytest.raises(error.TransportUnavailable, match=r"^no transport 'tpc' is installed; did you mean 'tcp'\?"):
        _registry.endpoint("tpc:80", "listen")
    with pytest.raises(
        error.TransportUnavailable, match=r"^'TCP' cannot be the name of a transport; did you mean 'tcp'"
    ):
        _registry.endpoint("TCP:80", "listen")


def test_whatIsNoEndpoint() -> None:
    with pytest.raises(
        TypeError, match="to connect, it takes a ClientEndpoint or a DatagramClientEndpoint, or a string"
    ):
        _registry.endpoint(ListenTCP(80), "connect")
    for wrong in (None, 80, b"tcp:80", ListenTCP, Foam()):
        with pytest.raises(TypeError, match="to listen, it takes a ServerEndpoint or a DatagramServerEndpoint"):
            _registry.endpoint(wrong, "listen")
    endpoint = ListenTCP(80)
    assert _registry.endpoint(endpoint, "listen") is endpoint


def test_aMissingMethodIsExplained() -> None:
    with Reactor() as made:
        reactor: Any = made  # type checkers know no method of a stranger's
        assert refusedMethod(reactor, "connectSerial") == (
            "no transport 'serial' is installed: reactor.connectSerial() comes with calandria-serial"
        )
        assert refusedMethod(reactor, "listenTPC").endswith("did you mean listenTCP?")
        assert refusedMethod(reactor, "connectTcp") == "there is no reactor.connectTcp(); did you mean connectTCP?"
        assert not hasattr(reactor, "connectSerial")
        with pytest.raises(AttributeError) as caught:
            reactor.noSuchThing  # noqa: B018  # it is the looking that raises
        assert not isinstance(caught.value, error.PluginError)


def refusedMethod(reactor: Any, name: str) -> str:
    with pytest.raises(AttributeError) as caught:
        getattr(reactor, name)
    assert isinstance(caught.value, error.TransportUnavailable)
    assert caught.value.name == name
    return str(caught.value)


# Registered in code


def test_aRegisteredTransportWorksInAllSpellings(registered: Callable[[object], str]) -> None:
    registered(Contributing(transports=[spoon, foam]))
    factory = ClientFactory()
    with Reactor() as made:
        reactor: Any = made
        expected = (made, factory, ConnectSpoon("silver", 3))
        assert reactor.connectSpoon("silver", factory, size=3) == expected
        assert reactor.connect(ConnectSpoon("silver", 3), factory) == expected
        assert reactor.connect("spoon:silver:size=3", factory) == expected
        assert reactor.connect(f"spoon@{__name__}:silver:size=3", factory) == expected
        assert getattr(reactor, f"connectSpoon@{__name__}")("silver", factory, size=3) == expected
        assert "connectSpoon" in dir(reactor)
        with pytest.raises(ValueError, match="spoon can only connect"):
            reactor.listen("spoon:x", factory)
        assert refusedMethod(reactor, "listenSpoon") == "Spoon can only connect: reactor.connectSpoon()"
        assert refusedMethod(reactor, "connectSPOON").endswith("did you mean connectSpoon?")
        assert refusedMethod(reactor, "connectSpon").endswith("did you mean connectSpoon?")
        assert refusedMethod(reactor, "connectFoam").startswith("Foam is a layer, which goes over a transport")
        with pytest.raises(TypeError, match="connectSpoon\\(metal, factory, size=5\\)"):
            reactor.connectSpoon("silver", factory, colour="red")


def test_itGoesWhenItIsUnregistered() -> None:
    contributing = Contributing(transports=[spoon], backends=[Waiting])
    plugin.register(contributing)
    assert _registry.transport("spoon") is spoon
    assert _registry.method("connectSpoon").__name__ == "connectSpoon"
    plugin.unregister(contributing)
    with pytest.raises(error.TransportUnavailable):
        _registry.transport("spoon")
    with pytest.raises(AttributeError):
        _registry.method("connectSpoon")
    with pytest.raises(error.BackendUnavailable):
        Reactor("waiting")
    with pytest.raises(ValueError, match="is not registered"):
        plugin.unregister(contributing)


def test_contributionsMayBeNamed(registered: Callable[[object], str]) -> None:
    registered(Contributing(backends={"waiting": Waiting}, transports={"ladle": spoon}))
    assert nameOfBackend("waiting") == "waiting"
    assert _registry.transport("ladle") is spoon


def test_aRegisteredBackendThatCannotWork(registered: Callable[[object], str]) -> None:
    registered(Contributing(backends=(Waiting, Absent)))
    with pytest.raises(error.BackendUnavailable) as caught:
        Reactor("absent")
    assert str(caught.value).startswith("backend 'absent' cannot work here: it is elsewhere\n")
    assert f"  waiting of {__name__}: ok" in str(caught.value)


def test_aFirstPartyNameIsNeverTakenOver(registered: Callable[[object], str]) -> None:
    class Epoll(Waiting):
        name = "epoll"

    @dataclass(frozen=True)
    class ListenMine(ServerEndpoint):
        def listen(self, reactor: Any, factory: Any) -> Any: ...

    mine = Transport("TCP", listen=ListenMine)
    registered(Contributing(backends=[Epoll], transports=[mine]))
    assert _registry.transport("tcp").listen is ListenTCP
    assert type(_registry.makeBackend(f"epoll@{__name__}", {})) is Epoll
    assert _registry.transport(f"tcp@{__name__}") is mine
    (info,) = [each for each in _registry.plugins("backend") if each.value is Epoll]
    assert (info.state, info.reason) == (
        "shadowed",
        f"the name is calandria's own; epoll@{__name__} means this one",
    )


def test_twoClaimsOnOneName(registered: Callable[[object], str], monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherSpoon(Contributing):
        pass

    OtherSpoon.__module__ = "elsewhere"
    other = Transport("Spoon", connect=ConnectSpoon)
    registered(Contributing(transports=[spoon]))
    registered(OtherSpoon(transports=[other]))
    expected = f"transport 'spoon' is claimed by several, so say which: spoon@{__name__} .*, spoon@elsewhere "
    with pytest.raises(error.TransportUnavailable, match=expected):
        _registry.transport("spoon")
    with pytest.raises(AttributeError, match="is claimed by several"):
        _registry.method("connectSpoon")
    assert _registry.transport("spoon@elsewhere") is other
    assert "connectSpoon" not in _registry.methodNames()
    states = {info.distribution: info.state for info in _registry.find("spoon")}
    assert states == {__name__: "shadowed", "elsewhere": "shadowed"}
    assert len(_registry.find("spoon@elsewhere")) == 1
    with pytest.raises(error.TransportUnavailable, match=r"no transport 'spoon' of 'nowhere' is installed, but spoon@"):
        _registry.transport("spoon@nowhere")
    monkeypatch.setenv("CALANDRIA_DISABLE_PLUGINS", "spoon@elsewhere")
    assert _registry.transport("spoon") is spoon


class NewerBackend(Waiting):
    api = 2


class BananaBackend(Waiting):
    api: ClassVar[Any] = "banana"


class Misnamed(Waiting):
    name = "other"


class Shapeless:
    name = "waiting"

    def watch(self, fd: int) -> None: ...

    def unavailable(self) -> None: ...


class Half(Backend):
    name = "waiting"

    def watch(self, fd: int, interest: int) -> None: ...


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (NewerBackend, "it was written for plugin API 2, and this calandria (0.1.0) has API 1: it needs a newer one"),
        (BananaBackend, "it says that it was written for plugin API 'banana', which is no version"),
        (Misnamed, "its attribute `name` is 'other', and it is known as 'waiting'"),
        (Half, "it has no method poll(self, timeout)"),
        (json, "it is the module json, and a backend is a class"),
        (Waiting(), "it is an object of type Waiting, and a backend is a class"),
        (
            Shapeless,
            (
                "it does not derive from calandria.plugin.Backend; its method watch must be watch(self, fd, interest); "
                "it has no method poll(self, timeout); it has no method fileno(self); it has no method close(self); "
                "its method unavailable must be a classmethod that takes nothing else"
            ),
        ),
    ],
)
def test_aBackendOfAWrongShapeIsRefusedWithAllThatIsWrong(backend: Any, expected: str) -> None:
    contributing = Contributing(backends={"waiting": backend})
    with pytest.raises(error.PluginError) as caught:
        plugin.register(contributing)
    assert str(caught.value).endswith(f"is broken: {expected}")
    with pytest.raises(ValueError, match="is not registered"):
        plugin.unregister(contributing)


@pytest.mark.parametrize(
    ("transports", "expected"),
    [
        ({"fork": spoon}, "it is known as 'fork', and Transport('Spoon', connect=ConnectSpoon) must be known as"),
        ({"Spoon": spoon}, "its name is not of the form"),
        ([5], "its name is not of the form"),
        ({"spoon": ConnectSpoon}, "and not a calandria.plugin.Transport"),
        (5, "gave 5, and not several transports"),
        ([future], "it was written for plugin API 2"),
    ],
)
def test_aTransportOfAWrongShapeIsRefused(transports: Any, expected: str) -> None:
    with pytest.raises(error.PluginError) as caught:
        plugin.register(Contributing(transports=transports))
    assert expected in str(caught.value)


def test_aPluginIsRegisteredOnce(registered: Callable[[object], str]) -> None:
    one, two = Contributing(), Contributing()
    assert registered(one) == f"{__name__}.Contributing"
    assert registered(two) == f"{__name__}.Contributing-2"
    with pytest.raises(ValueError, match="is registered already"):
        plugin.register(one)


class Mistyped:
    @hookimpl
    def calandria_reactor_createt(self, reactor: Any) -> None: ...


class WrongArguments:
    @hookimpl
    def calandria_reactor_created(self, reaktor: Any) -> None: ...


class Wrapping:
    @hookimpl(wrapper=True)
    def calandria_reactor_created(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Mistyped(), "there is no hook 'calandria_reactor_createt'; did you mean 'calandria_reactor_created'?"),
        (WrongArguments(), "reaktor"),
        (Wrapping(), "calandria_reactor_created is a wrapper, and hooks are called one by one"),
        (object(), "an object of type object without a function marked with @calandria.plugin.hookimpl"),
        (type("Newer", (Contributing,), {"API": 2})(), "it was written for plugin API 2"),
    ],
)
def test_aPluginOfAWrongShapeIsRefused(given: object, expected: str) -> None:
    with pytest.raises(error.PluginError) as caught:
        plugin.register(given)
    assert expected in str(caught.value)
    with pytest.raises(ValueError, match="is not registered"):
        plugin.unregister(given)


# Hooks


class Diary:
    """Writes down which hooks were called."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    @hookimpl
    def calandria_reactor_created(self, reactor: Reactor) -> None:
        self.entries.append(("created", reactor))

    @hookimpl
    def calandria_reactor_starting(self) -> None:
        self.entries.append("starting")

    @hookimpl
    def calandria_reactor_stopped(self, reactor: Reactor) -> None:
        self.entries.append(("stopped", reactor.running))


class Clumsy:
    @hookimpl(tryfirst=True)
    def calandria_reactor_created(self, reactor: Reactor) -> None:
        raise RuntimeError("I always do that")

    @hookimpl(tryfirst=True)
    def calandria_resolver(self, reactor: Reactor) -> Any:
        raise RuntimeError("that too")


def test_registeredHooksAreCalledForEveryReactor(registered: Callable[[object], str]) -> None:
    diary = Diary()
    registered(diary)
    with Reactor() as reactor:
        for _ in range(2):
            reactor.callWhenRunning(reactor.stop)
            reactor.run()
        assert diary.entries == [
            ("created", reactor), "starting", ("stopped", False), "starting", ("stopped", False),
        ]  # fmt: skip


def test_aHookThatRaisesIsLoggedAndKeepsNobodyFromTheirs(registered: Callable[[object], str], logs: LogCapture) -> None:
    diary = Diary()
    registered(Clumsy())
    registered(diary)
    Reactor().close()
    assert len(diary.entries) == 1
    (record,) = logs.takeErrors()
    assert record.message == f"calandria_reactor_created of the plugin {__name__}.Clumsy raised"
    assert "I always do that" in (record.exc_text or "")


def test_theFirstResolverCounts(registered: Callable[[object], str], logs: LogCapture) -> None:
    class Resolving:
        def __init__(self, resolver: object) -> None:
            self.resolver = resolver

        @hookimpl
        def calandria_resolver(self, reactor: Reactor) -> Any:
            return self.resolver

    first = object()
    registered(Resolving(object()))
    registered(Resolving(first))
    registered(Resolving(None))
    registered(Clumsy())
    with Reactor() as reactor:
        assert reactor.nameResolver is first
    assert [record.message.partition(" ")[0] for record in logs.takeErrors()] == [
        "calandria_reactor_created",
        "calandria_resolver",
    ]


class Watching:
    def __init__(self, observer: object) -> None:
        self.observer = observer

    @hookimpl
    def calandria_observer(self, reactor: Reactor) -> Any:
        return self.observer


class Turns:
    def __init__(self) -> None:
        self.turns: list[tuple[float, float, int, int]] = []

    def turn(self, waited: float, worked: float, events: int, timers: int) -> None:
        self.turns.append((waited, worked, events, timers))


class Lives(plugin.Observer):
    def __init__(self) -> None:
        self.lives: list[tuple[str, Any]] = []

    def connectionMade(self, transport: Any) -> None:
        self.lives.append(("made", transport))

    def connectionLost(self, transport: Any, reason: Any) -> None:
        self.lives.append(("lost", reason.type))


def test_whatNobodyObservesCostsNothing(registered: Callable[[object], str]) -> None:
    registered(Watching(None))
    with Reactor() as reactor:
        assert _registry.observer(reactor) is None
        registered(Watching(Lives()))
        observers = _registry.observer(reactor)
        assert observers is not None
        assert observers.turn is None
        assert observers.slowCallback is None
        assert observers.connectionMade is not None


def test_everyObserverIsTold(registered: Callable[[object], str], reactor: Reactor) -> None:
    turns, others, lives = Turns(), Turns(), Lives()
    for each in (turns, others, lives):
        registered(Watching(each))
    server = RecordingServer(Echo)
    client = RecordingClient()
    port: Any = reactor.listenTCP(0, server, interface="127.0.0.1")
    reactor.connectTCP("127.0.0.1", port.getHost().port, client)
    reactor.callLater(0.05, lambda: client.protocols[0].transport.loseConnection())
    reactor.callLater(0.1, reactor.stop)
    reactor.run(installSignalHandlers=False)
    assert turns.turns == others.turns
    assert sum(timers for *_, timers in turns.turns) >= 2
    assert any(waited > 0.01 for waited, *_ in turns.turns)
    assert [what for what, _ in lives.lives] == ["made", "made", "lost", "lost"]
    assert {reason for what, reason in lives.lives if what == "lost"} == {error.ConnectionDone}


def test_anObserverThatRaisesIsNotCalledAgain(registered: Callable[[object], str], logs: LogCapture) -> None:
    class Broken(Turns):
        def turn(self, waited: float, worked: float, events: int, timers: int) -> None:
            super().turn(waited, worked, events, timers)
            raise RuntimeError("I look no more")

    broken, turns = Broken(), Turns()
    registered(Watching(turns))
    registered(Watching(broken))
    with Reactor() as reactor:
        reactor.callLater(0, reactor.callLater, 0, reactor.stop)
        reactor.run(installSignalHandlers=False)
    assert len(broken.turns) == 1
    assert len(turns.turns) > 1
    (record,) = logs.takeErrors()
    assert record.message.startswith("turn of the observer <")
    assert "I look no more" in (record.exc_text or "")


def test_theDoctorAsksEverybody(registered: Callable[[object], str]) -> None:
    class Doctor:
        @hookimpl
        def calandria_doctor(self) -> Iterator[plugin.Check]:
            yield plugin.Check("spoons", "warning", "there is no spoon")
            raise RuntimeError("and no fork")

    registered(Doctor())
    spoons, failed = _registry.doctor()
    assert spoons == plugin.Check("spoons", "warning", "there is no spoon")
    assert (failed.state, failed.message) == ("failed", "calandria_doctor raised RuntimeError: and no fork")


# Descriptions


def test_allAboutAPluginIsPlainData(registered: Callable[[object], str]) -> None:
    registered(Contributing(transports=[spoon], backends=[Waiting]))
    told = [_registry.describe(info) for info in _registry.plugins()]
    assert json.loads(json.dumps(told)) == told
    described = {(each["kind"], each["name"]): each for each in told}
    assert described["transport", "spoon"]["spellings"][0]["method"] == "connectSpoon(metal, factory, size=5)"
    assert described["transport", "spoon"]["aliases"] == ["ladle"]
    assert described["transport", "spoon"]["file"] == __file__
    assert described["backend", "waiting"]["doc"] == "A backend for which nothing ever happens."
    assert described["plugin", f"{__name__}.Contributing"]["hooks"] == ["calandria_backends", "calandria_transports"]
    assert described["backend", "epoll"]["entryPoint"] == "calandria_epoll:EpollBackend"


# Threads


def test_manyThreadsMayDiscoverAtOnce() -> None:
    """The first look at what is installed, and the first registration, in many threads."""
    result = runPython(
        """
import sys, threading
from calandria import Reactor, _registry, error, plugin

class Plugin:
    @staticmethod
    def mark(): pass

start = threading.Barrier(8)
failures = []

def work(number):
    start.wait()
    try:
        class Own:
            @plugin.hookimpl
            def calandria_reactor_created(self, reactor): created.append(number)
        created = []
        own = Own()
        plugin.register(own)
        with Reactor("select", plugins=True):
            assert created[:1] == [number], created
        try:
            _registry.transport("nothing")
        except error.TransportUnavailable:
            pass
        plugin.unregister(own)
    except BaseException as exc:
        failures.append(exc)

sys.setswitchinterval(1e-5)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
assert _registry._registered == {}
"""
    )
    assert result.returncode == 0, result.stderr


def test_lookingAgainForgetsNothingThatWasRegistered(registered: Callable[[object], str]) -> None:
    registered(Contributing(transports=[spoon]))
    plugin.refresh()
    assert _registry.transport("spoon") is spoon
    assert threading.active_count() >= 1
    assert _registry.endpoint("tcp:80", "listen") == ListenTCP(80)


def test_aFactoryIsEnough() -> None:
    """The four spellings of ours, side by side."""
    with Reactor() as reactor:
        factory = Factory.forProtocol(Echo)
        options: dict[str, Any] = {"interface": "127.0.0.1", "backlog": 5}
        ports: list[Any] = [
            reactor.listenTCP(0, factory, **options),
            reactor.listen(ListenTCP(0, **options), factory),
            reactor.listen("tcp:0:interface=127.0.0.1:backlog=5", factory),
            reactor.listen(str(ListenTCP(0, **options)), factory),
        ]
        assert {port.getHost().host for port in ports} == {"127.0.0.1"}
        assert len({port.getHost().port for port in ports}) == 4
