"""What type checkers make of endpoints: nothing here runs, mypy and pyright read it.

Each comment that ignores an error is an expected one: both checkers report those that they do not need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_type

from calandria import ClientFactory, ConnectTCP, DatagramProtocol, Factory, ListenTCP, Protocol, Reactor, error
from calandria.plugin import (
    READABLE,
    Backend,
    Check,
    ClientEndpoint,
    Connector,
    DatagramPort,
    DatagramServerEndpoint,
    FileChannel,
    Layer,
    LayerEndpoint,
    Observer,
    OctalMode,
    Port,
    ServerEndpoint,
    Stream,
    Text,
    Transport,
    hookimpl,
    register,
)
from calandria_tcp import TCPPort

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


# A third party's whole plugin, as the documentation has it.


@dataclass(frozen=True)
class ConnectSerial(ClientEndpoint):
    """A serial port.   serial:/dev/ttyUSB0:baudrate=115200"""

    device: str
    baudrate: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    mode: Annotated[int, OctalMode] = 0o600
    window: Annotated[range, Text(lambda text: range(int(text)), lambda value: str(len(value)))] = range(1)

    def connect(self, reactor: Reactor, factory: ClientFactory) -> Connector:
        def open() -> Stream:
            return Stream(reactor, FileChannel(0), host=self, peer=self)

        return Connector(reactor, factory, open, destination=self)


class SerialPort(Port):
    speed: int


@dataclass(frozen=True)
class ListenSerial(ServerEndpoint):
    device: str

    def listen(self, reactor: Reactor, factory: Factory) -> SerialPort:
        return SerialPort(reactor, factory)


@dataclass(frozen=True)
class ListenPacket(DatagramServerEndpoint):
    port: int

    def listen(self, reactor: Reactor, protocol: DatagramProtocol) -> DatagramPort:
        raise NotImplementedError


@dataclass(frozen=True)
class Swap(LayerEndpoint):
    strong: bool = False

    def layer(self, reactor: Reactor, *, client: bool, below: object) -> Layer:
        return Layer(reactor)


transport = Transport("Serial", listen=ListenSerial, connect=ConnectSerial, aliases=("tty",))
layer = Transport("Swap", layer=Swap)


class Silent(Backend):
    name = "silent"

    def watch(self, fd: int, interest: int) -> None:
        assert interest & READABLE

    def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        return []


class Watcher(Observer):
    def turn(self, waited: float, worked: float, events: int, timers: int) -> None: ...


class Hooks:
    @hookimpl
    def calandria_observer(self, reactor: Reactor) -> Observer | None:
        return Watcher()

    @hookimpl(tryfirst=True)
    def calandria_doctor(self) -> Iterator[Check]:
        yield Check("serial", "warning", "no port is there")


# Used rightly: checked, and inferred through.


def rightly(reactor: Reactor, server: Factory, client: ClientFactory, protocol: DatagramProtocol) -> None:
    assert_type(reactor.listenTCP(8007, server, interface="127.0.0.1"), TCPPort)
    assert_type(reactor.connectTCP("localhost", "http", client, bindAddress=("127.0.0.1", 0)), Connector)
    assert_type(reactor.listen(ListenTCP(8007), server), TCPPort)
    assert_type(reactor.connect(ConnectTCP("localhost", 8007), client), Connector)
    assert_type(reactor.connect(ConnectSerial("/dev/ttyUSB0", baudrate=115200), client), Connector)
    assert_type(reactor.listen(ListenSerial("/dev/ttyUSB0"), server).speed, int)
    assert_type(reactor.listen(ListenSerial("/dev/ttyUSB0").over(Swap()), server), Port)
    assert_type(reactor.connect(ConnectTCP("localhost", 1).over(Swap(strong=True)).over(Swap()), client), Connector)
    assert_type(reactor.listen(ListenPacket(53), protocol), DatagramPort)
    assert_type(reactor.connect("serial:/dev/ttyUSB0", client), Any)
    assert_type(str(ListenTCP(80)), str)
    assert_type(register(Hooks()), str)
    reactor.listen(ListenTCP(80), Factory.forProtocol(Protocol))
    Reactor(Silent)
    Reactor(Silent())
    Reactor(backend="epoll", size=5)


def anyEndpoint(reactor: Reactor, where: ServerEndpoint, whither: ClientEndpoint, client: ClientFactory) -> None:
    assert_type(reactor.listen(where, client), Port)
    assert_type(reactor.connect(whither, client), Connector)


# Used wrongly.


def wrongly(reactor: Reactor, server: Factory, client: ClientFactory, protocol: DatagramProtocol) -> None:
    ConnectSerial()  # type: ignore[call-arg]
    ConnectSerial(5)  # type: ignore[arg-type]
    ConnectSerial("x", baudrate="fast")  # type: ignore[arg-type]
    ConnectSerial("x", parity="Q")  # type: ignore[arg-type]
    ConnectSerial("x", colour="red")  # type: ignore[call-arg]
    ConnectSerial("x").device = "y"  # type: ignore[misc]
    ConnectTCP("localhost")  # type: ignore[call-arg]
    ListenTCP(80).over(ListenTCP(81))  # type: ignore[arg-type]
    reactor.listen(ConnectSerial("x"), server)  # type: ignore[call-overload]
    reactor.connect(ListenSerial("x"), client)  # type: ignore[call-overload]
    reactor.connect(ConnectSerial("x"), server)  # type: ignore[misc]
    reactor.connect(ConnectSerial("x"), Protocol())  # type: ignore[misc]
    reactor.listen(ListenPacket(53), server)  # type: ignore[misc]
    reactor.listen(ListenTCP(53), protocol)  # type: ignore[misc]
    reactor.listen(80, server)  # type: ignore[call-overload]
    reactor.listenTCP("http", server)  # type: ignore[arg-type]
    Transport("Serial", connect=ListenSerial)  # type: ignore[arg-type]
    Transport("Serial", layer=ConnectSerial)  # type: ignore[arg-type]
    Transport("Serial", ConnectSerial)  # type: ignore[call-arg, arg-type]
    Reactor(5)  # type: ignore[arg-type]
    Check("serial", "bad")  # type: ignore[arg-type]
    raise error.BackendUnavailable


# What `Reactor.__getattr__` finds is unknown to type checkers: a misspelt listenTCP is an error. The method of a
# stranger's transport is for programs without types; with them, `reactor.connect` takes its endpoint.


def methodsOfStrangers(reactor: Reactor, client: ClientFactory) -> None:
    reactor.connectSerial("/dev/ttyUSB0", client)  # type: ignore[attr-defined]
    reactor.listenTPC(80, client)  # type: ignore[attr-defined]


# A declaration that is wrong.


@dataclass(frozen=True)
class Narrow(ClientEndpoint):
    def connect(self, reactor: Reactor, factory: ClientFactory) -> int:  # type: ignore[override]
        return 5


class Deaf(Backend):
    name = "deaf"

    def poll(self, timeout: float) -> Sequence[tuple[int, int]]:  # type: ignore[override]
        return []
