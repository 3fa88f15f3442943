"""Connecting by TCP: order, failures, states, names and their races, reconnecting, on every backend."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from calandria import Protocol, Reactor, error
from calandria.address import IPv4Address, IPv6Address
from calandria.protocol import ClientCreator, ReconnectingClientFactory
from tests.helpers import (
    Background,
    descriptorsOpenedSince,
    openDescriptors,
    receiveExactly,
    runUntil,
    unusedPort,
)
from tests.recorders import Echo, Recorder, RecordingClient, RecordingServer
from tests.transports.test_tcp_ports import LOCAL, listen, needsIPv6, number, otherWorld, reset, scopedAddress, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calandria.failure import Failure
    from tests.helpers import LogCapture


class Client(RecordingClient):
    """A RecordingClient whose protocols write into its own list of events, so that it shows the whole order."""

    def buildProtocol(self, addr: Any) -> Protocol | None:
        self.events.append("build")
        protocol = super().buildProtocol(addr)
        if isinstance(protocol, Recorder):
            protocol.events = self.events
        return protocol

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.events.append("clientLost")
        self.lost.append(reason)


def connect(reactor: Reactor, port: Any, factory: Any = None, **options: Any) -> Any:
    """A connector to 127.0.0.1."""
    return reactor.connectTCP(options.pop("host", LOCAL), port, factory or Client(), **options)


def failure(reactor: Reactor, factory: RecordingClient) -> Any:
    """Run until the attempt fails; the reason's value. It failed once, in a later turn, and the factory has stopped."""
    assert factory.failed == [], "not inside connectTCP"
    runUntil(reactor, lambda: factory.failed)
    for _ in range(3):
        reactor.iterate(0)
    assert factory.events == ["start", "connecting", "failed", "stop"]
    (reason,) = factory.failed
    assert isinstance(reason.value, Exception)
    assert reason.type is type(reason.value)
    assert factory.numPorts == 0
    return reason.value


class BlackHole:
    """A listening socket with a full backlog: whoever else connects hears nothing, until `open` is called."""

    def __init__(self, host: str = LOCAL, port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, port))
        self.socket.listen(0)
        self.port: int = self.socket.getsockname()[1]
        self.fillers: list[socket.socket] = []
        for _ in range(20):
            filler = socket.socket(family)
            self.fillers.append(filler)
            filler.setblocking(False)
            filler.connect_ex((host, self.port))
            try:
                filler.getpeername()
            except OSError:
                break  # this one waits, and so will all others
        else:
            self.close()
            pytest.skip("the backlog of this system cannot be filled")

    def open(self) -> None:
        """Take everybody."""
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.accept()[0].close()
        except BlockingIOError:
            pass

    def close(self) -> None:
        for each in (self.socket, *self.fillers):
            each.close()

    def __enter__(self) -> BlackHole:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()


def names(addresses: Sequence[str]) -> Callable[..., list[Any]]:
    """A getaddrinfo that knows these addresses for every name."""

    def getaddrinfo(
        host: object, port: Any, family: int = 0, kind: int = 0, protocol: int = 0, flags: int = 0
    ) -> list[Any]:
        found: list[Any] = []
        for each in addresses:
            if ":" in each:
                found.append((socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, int(port or 0), 0, 0)))
            else:
                found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, int(port or 0))))
        return [one for one in found if family in (0, one[0])]

    return getaddrinfo


def fallback(addresses: Sequence[str]) -> Callable[..., list[Any]]:
    """Names are these addresses; literals are themselves."""
    known = names(addresses)

    def getaddrinfo(host: Any, port: Any, *more: Any) -> list[Any]:
        return known(host, port, *more) if host == "name.invalid" else socket.getaddrinfo(host, port, *more)

    return getaddrinfo


# The order of calls, and states.


def test_theOrderOfCalls(reactor: Reactor) -> None:
    server = RecordingServer()
    port = listen(reactor, server)
    client = Client()
    connector = connect(reactor, number(port), client)
    assert client.events == ["start", "connecting"], "inside connectTCP"
    assert connector.state == "connecting"
    assert connector.transport is None
    assert client.numPorts == 1
    runUntil(reactor, lambda: "made" in client.events)
    assert connector.state == "connected"
    assert connector.transport is client.protocols[0].transport
    assert client.protocols[0].factory is client
    runUntil(reactor, lambda: server.protocols)
    server.protocols[0].transport.write(b"x")
    runUntil(reactor, lambda: "data" in client.events)
    server.protocols[0].transport.loseConnection()
    runUntil(reactor, lambda: client.lost)
    assert client.events == ["start", "connecting", "build", "made", "data", "lost", "clientLost", "stop"]
    assert client.lost[0].type is error.ConnectionDone
    assert client.lost[0].value is client.protocols[0].lost.value
    assert connector.state == "disconnected"
    assert connector.transport is None
    assert client.failed == []


def test_whatAConnectorKnows(reactor: Reactor) -> None:
    port = listen(reactor)
    client = Client()
    connector = connect(reactor, number(port), client, timeout=7)
    assert connector.getDestination() == IPv4Address("TCP", LOCAL, number(port))
    assert (connector.factory, connector.timeout) == (client, 7)
    assert connector.timeoutID.active()
    runUntil(reactor, lambda: client.protocols)
    assert connector.timeoutID is None
    assert reactor.getDelayedCalls() == []
    connector.disconnect()
    runUntil(reactor, lambda: client.lost)
    assert connector.getDestination() == IPv4Address("TCP", LOCAL, number(port))


def test_destinations(reactor: Reactor) -> None:
    six = connect(reactor, 9, host="::1")
    assert six.getDestination() == IPv6Address("TCP", "::1", 9)
    name = connect(reactor, "daytime", host="name.invalid")
    assert (name.getDestination().host, name.getDestination().port) == ("name.invalid", "daytime")
    for connector in (six, name):
        connector.stopConnecting()
    runUntil(reactor, lambda: all(not connector.factory.numPorts for connector in (six, name)))


def test_addressesAreThoseOfTheSocketAndAnswerAfterTheLoss(reactor: Reactor) -> None:
    """C16."""

    class Asking(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.then: Any = None

        def connectionLost(self, reason: Failure) -> None:
            super().connectionLost(reason)
            self.then = self.transport.getHost(), self.transport.getPeer()

    server = RecordingServer(Asking)
    port = listen(reactor, server)
    client = Client(Asking)
    connect(reactor, number(port), client)
    runUntil(reactor, lambda: client.protocols and server.protocols)
    ours, theirs = client.protocols[0], server.protocols[0]
    host, peer = ours.transport.getHost(), ours.transport.getPeer()
    assert peer == IPv4Address("TCP", LOCAL, number(port))
    assert ours.transport.getHandle().getsockname() == (host.host, host.port)
    assert (theirs.transport.getPeer(), theirs.transport.getHost()) == (host, peer)
    ours.transport.abortConnection()
    runUntil(reactor, lambda: client.lost and theirs.lost)
    assert ours.then == (host, peer) == (ours.transport.getHost(), ours.transport.getPeer())
    assert theirs.then == (peer, host) == (theirs.transport.getHost(), theirs.transport.getPeer())


def test_aWriteInConnectionMadeComesFirst(reactor: Reactor) -> None:
    class Eager(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.write(b"first ")
            reactor.callLater(0, self.transport.write, b"second")

    server = RecordingServer()
    port = listen(reactor, server)
    client = Client(Eager)
    connector = connect(reactor, number(port), client)
    runUntil(reactor, lambda: server.protocols and server.protocols[0].received == b"first second")
    connector.disconnect()
    runUntil(reactor, lambda: client.lost and server.protocols[0].lost)


def test_whatThePeerSentBeforeItClosed(reactor: Reactor) -> None:
    """C12: greeting and end are there before we look for the first time."""
    with socket.socket() as listener:
        listener.bind((LOCAL, 0))
        listener.listen()
        client = Client()
        connect(reactor, listener.getsockname()[1], client)
        reactor.iterate(0)
        peer = listener.accept()[0]
        peer.sendall(b"welcome")
        peer.close()
        runUntil(reactor, lambda: client.lost)
    assert client.events == ["start", "connecting", "build", "made", "data", "lost", "clientLost", "stop"]
    assert client.lost[0].type is error.ConnectionDone
    assert client.protocols[0].received == b"welcome"


def test_aPeerThatResetsAtOnce(reactor: Reactor) -> None:
    """C13: made and lost, or failed; never both, and never a clean end."""
    with socket.socket() as listener:
        listener.bind((LOCAL, 0))
        listener.listen()
        client = Client()
        connect(reactor, listener.getsockname()[1], client)
        reactor.iterate(0)
        reset(listener.accept()[0])
        runUntil(reactor, lambda: client.lost or client.failed)
        reactor.iterate(0)
    if client.failed:
        assert client.events == ["start", "connecting", "failed", "stop"]
    else:
        assert client.events == ["start", "connecting", "build", "made", "lost", "clientLost", "stop"]
        assert client.lost[0].type is error.ConnectionLost


def test_aHintThatComesTooEarlyIsNoConnection(reactor: Reactor) -> None:
    """C04: writable, and yet not connected."""
    with BlackHole() as hole:
        client = Client()
        connector = connect(reactor, hole.port, client)
        runUntil(reactor, reactor.getWriters)
        attempts: list[Any] = [each for each in reactor.getWriters() if hasattr(each, "doWrite")]
        assert attempts
        for _ in range(3):
            attempts[0].doWrite()
        assert connector.state == "connecting"
        assert client.events == ["start", "connecting"]
        connector.stopConnecting()
        runUntil(reactor, lambda: client.failed)


# Failures.


def test_refused(reactor: Reactor) -> None:
    client = Client()
    port = unusedPort()
    before = openDescriptors()
    connect(reactor, port, client)
    value = failure(reactor, client)
    assert type(value) is error.ConnectionRefusedError
    assert getattr(value.osError, "errno", None) == errno.ECONNREFUSED
    assert not descriptorsOpenedSince(before)
    assert client.failed[0].check(error.ConnectError)


class Unreachable(socket.socket):
    """Connecting it fails at once with `code`, as the kernel's routing tables would have it."""

    code = errno.ENETUNREACH

    def connect_ex(self, address: Any) -> int:
        return self.code

    def connect(self, address: Any) -> None:
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ECONNREFUSED", error.ConnectionRefusedError),
        ("ENETUNREACH", error.NoRouteError),
        ("ETIMEDOUT", error.TCPTimedOutError),
        ("EHOSTUNREACH", error.ConnectError),
        ("EACCES", error.ConnectError),
        ("EINVAL", error.ConnectError),
        ("EADDRNOTAVAIL", error.ConnectError),
        ("EAFNOSUPPORT", error.ConnectError),
    ],
)
def test_errorsOfConnecting(reactor: Reactor, name: str, kind: type) -> None:
    code: int = getattr(errno, name)
    sort = type("Sort", (Unreachable,), {"code": code})
    with Reactor(backend=otherWorld(reactor, socket=sort)) as other:
        before = openDescriptors()
        client = Client()
        connect(other, 9, client)
        value = failure(other, client)
        assert isinstance(value, error.ConnectError)
        assert value.osError is not None
        assert value.osError.errno == code
        if kind is error.ConnectError:
            assert not isinstance(value, (error.ConnectionRefusedError, error.TCPTimedOutError))
        else:
            assert type(value) is kind
        assert not descriptorsOpenedSince(before)


def test_noDescriptorIsLeftForAClient(reactor: Reactor) -> None:
    """C130: socket(2) fails."""

    def none(*ignored: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with Reactor(backend=otherWorld(reactor, socket=none)) as other:
        client = Client()
        connect(other, 9, client)
        value = failure(other, client)
        assert type(value) is error.ConnectBindError
        assert getattr(value.osError, "errno", None) == errno.EMFILE


@pytest.mark.parametrize("bad", [-1, 65536, 70000, 123456, True, None, 1.5, b"80", ("80",)])
def test_whatIsNoPort(reactor: Reactor, bad: Any) -> None:
    for host in (LOCAL, "::1", "localhost"):
        client = Client()
        connect(reactor, bad, client, host=host)
        value = failure(reactor, client)
        assert type(value) is ValueError
        assert str(value) == f"port must be 0-65535, not {bad!r}"


@pytest.mark.parametrize("bad", ["no-such-service", "", "80 ", "-1", "0x50"])
def test_whatIsNoService(reactor: Reactor, bad: str) -> None:
    client = Client()
    connect(reactor, bad, client)
    assert type(failure(reactor, client)) is error.ServiceNameUnknownError


def test_aServiceByItsName(reactor: Reactor) -> None:
    server = RecordingServer()
    port = listen(reactor, server)

    def getaddrinfo(host: object, service: object, *ignored: object) -> list[Any]:
        assert service == "calandria"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (LOCAL, number(port)))]

    with Reactor(backend=otherWorld(reactor, getaddrinfo=getaddrinfo)) as other:
        client = Client()
        connector = connect(other, "calandria", client)
        runUntil(other, lambda: client.protocols)
        assert client.protocols[0].transport.getPeer() == IPv4Address("TCP", LOCAL, number(port))
        connector.disconnect()
        runUntil(other, lambda: client.lost)
    runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)


@pytest.mark.parametrize("host", ["", "a" * 300, "a..b", "nul\0", "1:2:3", "fe80::1%nosuchinterface", "[::1]"])
def test_whatIsNoHost(reactor: Reactor, host: str) -> None:
    client = Client()
    connect(reactor, 9, client, host=host)
    assert type(failure(reactor, client)) is error.DNSLookupError


def test_anUnknownName(reactor: Reactor) -> None:
    def unknown(*ignored: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with Reactor(backend=otherWorld(reactor, getaddrinfo=unknown)) as other:
        client = Client()
        connect(other, 9, client, host="name.invalid")
        value = failure(other, client)
        assert type(value) is error.DNSLookupError
        assert "name.invalid" in str(value)
        assert isinstance(value, OSError)


def test_aNameWithoutAddresses(reactor: Reactor) -> None:
    with Reactor(backend=otherWorld(reactor, getaddrinfo=fallback([]))) as other:
        client = Client()
        connect(other, 9, client, host="name.invalid")
        assert type(failure(other, client)) is error.DNSLookupError


# bindAddress.


@pytest.mark.parametrize("local", ["127.0.0.1", "127.0.0.3", ""])
def test_bindAddress(reactor: Reactor, local: str) -> None:
    server = RecordingServer()
    port = listen(reactor, server)
    for localPort in (0, unusedPort(local or LOCAL)):
        client = Client()
        connector = connect(reactor, number(port), client, bindAddress=(local, localPort))
        count = len(server.protocols) + 1
        runUntil(reactor, lambda: client.protocols and len(server.protocols) == count)  # noqa: B023  # run at once
        peer = server.protocols[-1].transport.getPeer()
        assert peer.host == (local or LOCAL)
        assert peer.port == localPort or not localPort
        connector.disconnect()
        runUntil(reactor, lambda: client.lost)  # noqa: B023  # run at once
    runUntil(reactor, lambda: all(protocol.lost for protocol in server.protocols))


@needsIPv6
def test_bindAddressOfIPv6(reactor: Reactor) -> None:
    server = RecordingServer()
    port = listen(reactor, server, interface="::1")
    client = Client()
    local = unusedPort("::1")
    connector = connect(reactor, number(port), client, host="::1", bindAddress=("::1", local))
    runUntil(reactor, lambda: client.protocols and server.protocols)
    assert server.protocols[0].transport.getPeer() == IPv6Address("TCP", "::1", local)
    connector.disconnect()
    runUntil(reactor, lambda: client.lost and server.protocols[0].lost)


def test_bindAddressInUse(reactor: Reactor) -> None:
    with socket.socket() as holder:
        holder.bind((LOCAL, 0))
        holder.listen()
        before = openDescriptors()
        client = Client()
        connect(reactor, number(listen(reactor)), client, bindAddress=holder.getsockname())
        value = failure(reactor, client)
    assert type(value) is error.ConnectBindError
    assert getattr(value.osError, "errno", None) == errno.EADDRINUSE
    assert len(descriptorsOpenedSince(before)) <= 2, "the port and the reactor's reserve"


@pytest.mark.parametrize("bind", [("192.0.2.1", 0), ("::1", 0)])
def test_bindAddressOfSomebodyElse(reactor: Reactor, bind: tuple[str, int]) -> None:
    client = Client()
    connect(reactor, number(listen(reactor)), client, bindAddress=bind)
    assert type(failure(reactor, client)) is error.ConnectBindError


@pytest.mark.parametrize("bind", [("localhost", 0), (LOCAL, 70000), (LOCAL, None), (LOCAL,), LOCAL, 7])
def test_bindAddressThatIsNone(reactor: Reactor, bind: Any) -> None:
    """Refused at the call, or the reason of the failure: never nothing."""
    client = Client()
    port = number(listen(reactor))
    try:
        connect(reactor, port, client, bindAddress=bind)
    except (TypeError, ValueError):
        assert client.events == []
    else:
        assert isinstance(failure(reactor, client), (TypeError, ValueError, error.ConnectBindError))


# Timeouts.


def test_theTimeout(reactor: Reactor) -> None:
    """C02: and no late success when the backlog has room again."""
    with BlackHole() as hole:
        before = openDescriptors()
        client = Client()
        began = time.monotonic()
        connector = connect(reactor, hole.port, client, timeout=0.2)
        runUntil(reactor, lambda: client.failed)
        took = time.monotonic() - began
        assert 0.2 <= took < 1.0
        assert connector.timeoutID is None
        hole.open()
        reactor.iterate(0.01)
        assert type(client.failed[0].value) is error.TimeoutError
        assert isinstance(client.failed[0].value, error.UserError)
        assert client.events == ["start", "connecting", "failed", "stop"]
        assert not descriptorsOpenedSince(before)


@pytest.mark.parametrize("bad", [-1, float("nan"), "soon"])
def test_whatIsNoTimeout(reactor: Reactor, bad: Any) -> None:
    client = Client()
    with pytest.raises((TypeError, ValueError)):
        connect(reactor, 9, client, timeout=bad)
    assert client.events == []
    assert reactor.getDelayedCalls() == []


def test_noTimeout(reactor: Reactor) -> None:
    with BlackHole() as hole:
        client = Client()
        connector = connect(reactor, hole.port, client, timeout=None)
        reactor.iterate(0.01)
        assert connector.timeoutID is None
        assert reactor.getDelayedCalls() == []
        connector.cancelTimeout()
        connector.disconnect()
        runUntil(reactor, lambda: client.failed)


def test_cancelTimeout(reactor: Reactor) -> None:
    with BlackHole() as hole:
        client = Client()
        connector = connect(reactor, hole.port, client, timeout=0.05)
        connector.cancelTimeout()
        connector.cancelTimeout()
        later: list[str] = []
        reactor.callLater(0.15, later.append, "well")
        runUntil(reactor, lambda: later)
        assert connector.state == "connecting"
        connector.stopConnecting()
        runUntil(reactor, lambda: client.failed)
        assert client.failed[0].type is error.UserError


class SlowNames:
    """A reactor on which names are being resolved until `answer` is set."""

    def __init__(self, like: Reactor, addresses: Sequence[str] = (LOCAL,)) -> None:
        self.answer = threading.Event()
        self.asked = threading.Event()
        known = fallback(addresses)

        def getaddrinfo(host: Any, *more: Any) -> list[Any]:
            if host == "name.invalid":
                self.asked.set()
                assert self.answer.wait(20)
            return known(host, *more)

        self.reactor = Reactor(backend=otherWorld(like, getaddrinfo=getaddrinfo))

    def __enter__(self) -> SlowNames:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.answer.set()
        self.reactor.close()


def test_theTimeoutCoversTheResolution(reactor: Reactor) -> None:
    with SlowNames(reactor) as slow:
        client = Client()
        began = time.monotonic()
        connect(slow.reactor, 9, client, host="name.invalid", timeout=0.1)
        assert type(failure(slow.reactor, client)) is error.TimeoutError
        assert time.monotonic() - began < 1.0
        slow.answer.set()
        for _ in range(3):
            slow.reactor.iterate(0.01)
        assert client.events == ["start", "connecting", "failed", "stop"]


def test_aSlowNameDelaysNobody(reactor: Reactor) -> None:
    server = RecordingServer(Echo)
    with SlowNames(reactor) as slow:
        port = listen(slow.reactor, server)
        waiting, client = Client(), Client()
        connector = connect(slow.reactor, number(port), waiting, host="name.invalid")
        runUntil(slow.reactor, slow.asked.is_set)
        other = connect(slow.reactor, number(port), client)
        runUntil(slow.reactor, lambda: client.protocols)
        assert waiting.protocols == []
        slow.answer.set()
        runUntil(slow.reactor, lambda: waiting.protocols)
        for each in (connector, other):
            each.disconnect()
        runUntil(slow.reactor, lambda: waiting.lost and client.lost)


# Giving up.


def test_stopConnectingInStartedConnecting(reactor: Reactor) -> None:
    class GivingUp(Client):
        def startedConnecting(self, connector: Any) -> None:
            super().startedConnecting(connector)
            connector.stopConnecting()

    client = GivingUp()
    connector = connect(reactor, number(listen(reactor)), client)
    assert connector.state == "disconnected"
    assert type(failure(reactor, client)) is error.UserError


@pytest.mark.parametrize("method", ["stopConnecting", "disconnect"])
@pytest.mark.parametrize("phase", ["atOnce", "resolving", "connecting"])
def test_givingUp(reactor: Reactor, phase: str, method: str) -> None:
    with BlackHole() as hole, SlowNames(reactor) as slow:
        before = openDescriptors()
        client = Client()
        host = "name.invalid" if phase == "resolving" else LOCAL
        connector = connect(slow.reactor, hole.port, client, host=host)
        if phase == "resolving":
            runUntil(slow.reactor, slow.asked.is_set)
        elif phase == "connecting":
            runUntil(slow.reactor, lambda: slow.reactor.getWriters())
        getattr(connector, method)()
        assert connector.state == "disconnected"
        assert type(failure(slow.reactor, client)) is error.UserError
        slow.answer.set()
        hole.open()
        for _ in range(3):
            slow.reactor.iterate(0.01)
        assert client.events == ["start", "connecting", "failed", "stop"]
        assert slow.reactor.getWriters() == []
        assert slow.reactor.getDelayedCalls() == []
        left = descriptorsOpenedSince(before).values()
        assert not [what for what in left if what.startswith("socket:")]


def test_stopConnectingWithoutAnAttempt(reactor: Reactor) -> None:
    server = RecordingServer()
    client = Client()
    connector = connect(reactor, number(listen(reactor, server)), client)
    runUntil(reactor, lambda: client.protocols and server.protocols)
    with pytest.raises(error.NotConnectingError):
        connector.stopConnecting()
    connector.disconnect()
    connector.disconnect()
    runUntil(reactor, lambda: client.lost)
    assert client.lost[0].type is error.ConnectionDone
    with pytest.raises(error.NotConnectingError):
        connector.stopConnecting()
    connector.disconnect()  # nothing
    runUntil(reactor, lambda: server.protocols[0].lost)
    assert client.events.count("clientLost") == 1


def test_disconnectInsideConnectionMade(reactor: Reactor) -> None:
    class Leaving(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            connector.disconnect()
            assert self.lost is None

    server = RecordingServer()
    client = Client(Leaving)
    connector = connect(reactor, number(listen(reactor, server)), client)
    runUntil(reactor, lambda: client.lost)
    assert client.events == ["start", "connecting", "build", "made", "lost", "clientLost", "stop"]
    runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)


def test_disconnectInsideBuildProtocol(reactor: Reactor) -> None:
    """The connector says that it is connected, so this ends the connection: before or after it is made."""

    class Leaving(Client):
        def buildProtocol(self, addr: Any) -> Protocol | None:
            assert connector.state == "connected"
            connector.disconnect()
            return super().buildProtocol(addr)

    server = RecordingServer()
    client = Leaving()
    connector = connect(reactor, number(listen(reactor, server)), client)
    runUntil(reactor, lambda: client.lost or client.failed, timeout=2)
    assert connector.state == "disconnected"
    assert client.events[-1] == "stop"
    runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)


def test_connectTwice(reactor: Reactor) -> None:
    client = Client()
    server = RecordingServer()
    connector = connect(reactor, number(listen(reactor, server)), client)
    with pytest.raises(RuntimeError, match="connecting"):
        connector.connect()
    runUntil(reactor, lambda: client.protocols)
    with pytest.raises(RuntimeError, match="connected"):
        connector.connect()
    assert client.events == ["start", "connecting", "build", "made"]
    connector.disconnect()
    runUntil(reactor, lambda: client.lost)
    connector.connect()
    assert client.events[-2:] == ["start", "connecting"]
    runUntil(reactor, lambda: len(client.protocols) == 2)
    connector.disconnect()
    runUntil(reactor, lambda: len(client.lost) == 2)
    runUntil(reactor, lambda: all(protocol.lost for protocol in server.protocols))
    assert client.events.count("start") == client.events.count("stop") == 2


@pytest.mark.parametrize("end", ["stop", "close"])
@pytest.mark.parametrize("phase", ["atOnce", "resolving", "connecting", "givenUp"])
def test_theReactorEndsDuringTheAttempt(reactor: Reactor, phase: str, end: str) -> None:
    with BlackHole() as hole, SlowNames(reactor) as slow:
        before = openDescriptors()
        client = Client()
        connector = connect(slow.reactor, hole.port, client, host="name.invalid" if phase == "resolving" else LOCAL)
        if phase == "resolving":
            runUntil(slow.reactor, slow.asked.is_set)
        elif phase == "connecting":
            runUntil(slow.reactor, lambda: slow.reactor.getWriters())
        elif phase == "givenUp":
            connector.stopConnecting()
        if end == "stop":
            slow.reactor.callWhenRunning(slow.reactor.stop)
            slow.reactor.run(installSignalHandlers=False)
            if phase == "givenUp":
                slow.reactor.iterate(0)  # timers survive the stop, and the news with them
        else:
            slow.reactor.close()
        assert client.events == ["start", "connecting", "failed", "stop"]
        assert connector.state == "disconnected"
        left = descriptorsOpenedSince(before).values()
        assert not [what for what in left if what.startswith("socket:") and end == "close"]


# Connecting again.


class Again(Client):
    """Connects again inside the callback for as often as `times` says."""

    times = 3

    def again(self, connector: Any) -> None:
        if self.times:
            self.times -= 1
            connector.connect()
            assert connector.state == "connecting"

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        super().clientConnectionFailed(connector, reason)
        self.again(connector)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        super().clientConnectionLost(connector, reason)
        self.again(connector)


def test_againInsideClientConnectionFailed(reactor: Reactor) -> None:
    client = Again()
    connector = connect(reactor, unusedPort(), client)
    runUntil(reactor, lambda: len(client.failed) == 4)
    assert client.events == ["start", *["connecting", "failed"] * 4, "stop"]
    assert connector.state == "disconnected"


def test_againAfterGivingUpKeepsTheNewConnection(reactor: Reactor) -> None:
    """C54: the end of the old attempt takes nothing from the new one."""
    server = RecordingServer()
    client = Again()
    client.times = 1
    connector = connect(reactor, number(listen(reactor, server)), client)
    connector.stopConnecting()
    runUntil(reactor, lambda: client.protocols)
    assert connector.state == "connected"
    assert connector.transport is client.protocols[0].transport
    assert client.events == ["start", "connecting", "failed", "connecting", "build", "made"]
    connector.disconnect()
    runUntil(reactor, lambda: client.lost)
    assert client.events[-1] == "stop"
    runUntil(reactor, lambda: server.protocols[0].lost)


def test_againRightAfterGivingUp(reactor: Reactor) -> None:
    """The old attempt's failure is told while the new one is under way, and ends nothing of it."""
    server = RecordingServer()
    client = Client()
    connector = connect(reactor, number(listen(reactor, server)), client)
    connector.stopConnecting()
    connector.connect()
    runUntil(reactor, lambda: client.protocols)
    assert len(client.failed) == 1
    assert connector.state == "connected"
    assert client.numPorts == 1
    connector.disconnect()
    runUntil(reactor, lambda: client.lost and server.protocols[0].lost)
    assert client.events.count("start") == client.events.count("stop") == 1


def test_againInsideClientConnectionLost(reactor: Reactor) -> None:
    class Leaving(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.loseConnection()

    server = RecordingServer()
    client = Again(Leaving)
    connector = connect(reactor, number(listen(reactor, server)), client)
    runUntil(reactor, lambda: len(client.lost) == 4)
    assert client.events == ["start", *["connecting", "build", "made", "lost", "clientLost"] * 4, "stop"]
    assert connector.state == "disconnected"
    runUntil(reactor, lambda: len(server.protocols) == 4 and all(protocol.lost for protocol in server.protocols))


def test_oneFactoryForManyConnectors(reactor: Reactor) -> None:
    server = RecordingServer()
    port = number(listen(reactor, server))
    client = Client()
    connectors = [connect(reactor, port, client) for _ in range(10)]
    assert client.numPorts == 10
    runUntil(reactor, lambda: len(client.protocols) == len(server.protocols) == 10)
    for connector in connectors:
        connector.disconnect()
    runUntil(reactor, lambda: len(client.lost) == 10 and all(protocol.lost for protocol in server.protocols))
    assert client.events.count("start") == client.events.count("stop") == 1
    assert client.events[-1] == "stop"


# buildProtocol, and factories that raise.


def test_buildProtocolGivesNone(reactor: Reactor) -> None:
    """C59: made in the factory's eyes, and lost again."""

    class Refusing(Client):
        def buildProtocol(self, addr: Any) -> Protocol | None:
            self.events.append("build")
            return None

    server = RecordingServer()
    client = Refusing()
    connector = connect(reactor, number(listen(reactor, server)), client)
    runUntil(reactor, lambda: client.lost)
    assert client.lost[0].type is error.ConnectionDone
    assert client.events == ["start", "connecting", "build", "clientLost", "stop"]
    assert connector.state == "disconnected"
    runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)


def test_buildProtocolRaises(reactor: Reactor, logs: LogCapture) -> None:
    class Raising(Client):
        def buildProtocol(self, addr: Any) -> Protocol | None:
            self.events.append("build")
            raise ValueError("no protocol")

    server = RecordingServer()
    client = Raising()
    connector = connect(reactor, number(listen(reactor, server)), client)
    runUntil(reactor, lambda: client.failed)
    assert client.failed[0].type is ValueError
    assert client.events == ["start", "connecting", "build", "failed", "stop"]
    assert connector.state == "disconnected"
    assert connector.transport is None
    (record,) = logs.takeErrors()
    assert "buildProtocol" in record.getMessage()
    runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)
    assert reactor.getDelayedCalls() == []


def test_connectionMadeRaises(reactor: Reactor, logs: LogCapture) -> None:
    class Raising(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            raise ValueError("in connectionMade")

    server = RecordingServer()
    client = Client(Raising)
    connect(reactor, number(listen(reactor, server)), client)
    runUntil(reactor, lambda: client.lost)
    assert client.lost[0].type is ValueError
    assert client.events == ["start", "connecting", "build", "made", "lost", "clientLost", "stop"]
    assert len(logs.takeErrors()) == 1
    runUntil(reactor, lambda: server.protocols and server.protocols[0].lost)


@pytest.mark.parametrize("method", ["clientConnectionFailed", "clientConnectionLost"])
def test_theFactoryRaisesAndIsStoppedAllTheSame(reactor: Reactor, logs: LogCapture, method: str) -> None:
    class Raising(Client):
        pass

    def fail(self: Raising, connector: Any, reason: Failure) -> None:
        getattr(Client, method)(self, connector, reason)
        raise ValueError(method)

    setattr(Raising, method, fail)
    server = RecordingServer()
    port = number(listen(reactor, server))
    client = Raising()
    connector = connect(reactor, unusedPort() if method == "clientConnectionFailed" else port, client)
    runUntil(reactor, lambda: client.failed or client.protocols)
    connector.disconnect()
    runUntil(reactor, lambda: client.failed or client.lost)
    assert client.events[-1] == "stop"
    (record,) = logs.takeErrors()
    assert method in record.getMessage()
    runUntil(reactor, lambda: all(protocol.lost for protocol in server.protocols))


def test_startedConnectingRaises(reactor: Reactor, logs: LogCapture) -> None:
    """Where the contract is silent: whatever becomes of the exception, no attempt goes on that nobody can stop."""

    class Raising(Client):
        def startedConnecting(self, connector: Any) -> None:
            super().startedConnecting(connector)
            raise ValueError("in startedConnecting")

    server = RecordingServer()
    client = Raising()
    try:
        connect(reactor, number(listen(reactor, server)), client)
    except ValueError:
        for _ in range(10):
            reactor.iterate(0.01)
        assert client.protocols == []
        assert client.numPorts == 0
    else:
        assert len(logs.takeErrors()) == 1


# Races between addresses.


@needsIPv6
def test_theFirstIsRefusedAndTheNextIsTriedAtOnce(reactor: Reactor) -> None:
    server = RecordingServer()
    with Reactor(backend=otherWorld(reactor, getaddrinfo=fallback(["::1", LOCAL]))) as other:
        port = listen(other, server)
        client = Client()
        began = time.monotonic()
        connector = connect(other, number(port), client, host="name.invalid")
        runUntil(other, lambda: client.protocols)
        assert time.monotonic() - began < 0.2
        assert client.protocols[0].transport.getPeer() == IPv4Address("TCP", LOCAL, number(port))
        connector.disconnect()
        runUntil(other, lambda: client.lost and server.protocols[0].lost)


@needsIPv6
def test_familiesTakeTurns(reactor: Reactor) -> None:
    order: list[Any] = []

    class Noting(Unreachable):
        code = errno.ECONNREFUSED

        def connect_ex(self, address: Any) -> int:
            order.append(address[0])
            return self.code

    found = ["::1", "::2", "::3", "127.0.0.1", "127.0.0.2"]
    world = otherWorld(reactor, getaddrinfo=fallback(found), socket=Noting)
    with Reactor(backend=world) as other:
        client = Client()
        connect(other, 9, client, host="name.invalid")
        value = failure(other, client)
    assert order == ["::1", "127.0.0.1", "::2", "127.0.0.2", "::3"]
    assert type(value) is error.ConnectionRefusedError


@needsIPv6
def test_theFirstIsSilentAndTheNextIsTriedAfterAQuarterSecond(reactor: Reactor) -> None:
    server = RecordingServer()
    with Reactor(backend=otherWorld(reactor, getaddrinfo=fallback(["::1", LOCAL]))) as other:
        port = listen(other, server)
        with BlackHole("::1", number(port)) as hole:
            before = openDescriptors()
            client = Client()
            began = time.monotonic()
            connector = connect(other, number(port), client, host="name.invalid")
            runUntil(other, lambda: len(other.getWriters()) == 1 or client.protocols)
            assert connector.transport is None
            runUntil(other, lambda: client.protocols and server.protocols)
            took = time.monotonic() - began
            assert 0.25 <= took < 0.6
            assert client.protocols[0].transport.getPeer().host == LOCAL
            assert other.getDelayedCalls() == []
            hole.open()
            other.iterate(0.01)
            assert len(client.protocols) == 1
            connector.disconnect()
            runUntil(other, lambda: client.lost and server.protocols[0].lost)
            left = descriptorsOpenedSince(before).values()
            assert not [what for what in left if what.startswith("socket:")], "the loser is closed"


@needsIPv6
def test_theSlowOneMayStillWin(reactor: Reactor) -> None:
    """The second is silent as well; the first answers after both have begun."""
    with (
        Reactor(backend=otherWorld(reactor, getaddrinfo=fallback(["::1", LOCAL]))) as other,
        BlackHole() as second,
        BlackHole("::1", second.port) as first,
    ):
        client = Client()
        connector = connect(other, second.port, client, host="name.invalid")
        runUntil(other, lambda: len(other.getWriters()) == 2)
        assert connector.transport is None
        assert connector.state == "connecting"

        def take() -> bool:
            first.open()  # the kernel tries again after a second
            return bool(client.protocols)

        runUntil(other, take)
        assert client.protocols[0].transport.getPeer().host == "::1"
        assert other.getWriters() == []
        connector.disconnect()
        runUntil(other, lambda: client.lost)
    assert client.events == ["start", "connecting", "build", "made", "lost", "clientLost", "stop"]


@needsIPv6
@pytest.mark.parametrize("method", ["stopConnecting", "timeout"])
def test_givingUpEndsEveryAttempt(reactor: Reactor, method: str) -> None:
    with (
        Reactor(backend=otherWorld(reactor, getaddrinfo=fallback(["::1", LOCAL, "127.0.0.2"]))) as other,
        BlackHole() as second,
        BlackHole("::1", second.port),
    ):
        client = Client()
        timeout = 0.35 if method == "timeout" else 30.0
        connector = connect(other, second.port, client, host="name.invalid", timeout=timeout)
        runUntil(other, lambda: len(other.getWriters()) == 2)
        before = openDescriptors()
        if method == "stopConnecting":
            connector.stopConnecting()
        runUntil(other, lambda: client.failed)
        assert client.failed[0].type is (error.TimeoutError if method == "timeout" else error.UserError)
        assert other.getWriters() == []
        assert other.getDelayedCalls() == []
        assert len(before) - len(openDescriptors()) >= 2


@needsIPv6
def test_allFail(reactor: Reactor) -> None:
    """The last error is the reason, and it tells of the others."""
    found = ["::1", "127.0.0.1", "127.0.0.2"]
    with Reactor(backend=otherWorld(reactor, getaddrinfo=fallback(found))) as other:
        client = Client()
        began = time.monotonic()
        connect(other, unusedPort(), client, host="name.invalid")
        value = failure(other, client)
        assert time.monotonic() - began < 0.25
    assert type(value) is error.ConnectionRefusedError
    notes = " ".join(getattr(value, "__notes__", []))
    assert "::1" in notes
    assert "127.0.0.1" in notes


def test_aNameWithVeryManyAddresses(reactor: Reactor) -> None:
    """Whoever answers for a name may send thousands; each is refused at once."""
    found = [f"127.1.{each // 250}.{each % 250 + 1}" for each in range(2000)]
    with Reactor(backend=otherWorld(reactor, getaddrinfo=fallback(found), socket=Unreachable)) as other:
        client = Client()
        connect(other, 9, client, host="name.invalid")
        assert type(failure(other, client)) is error.NoRouteError


def test_bindAddressChoosesTheFamily(reactor: Reactor) -> None:
    server = RecordingServer()
    with Reactor(backend=otherWorld(reactor, getaddrinfo=fallback(["::1", LOCAL]))) as other:
        port = listen(other, server)
        client = Client()
        connector = connect(other, number(port), client, host="name.invalid", bindAddress=("127.0.0.4", 0))
        runUntil(other, lambda: client.protocols and server.protocols)
        assert server.protocols[0].transport.getPeer().host == "127.0.0.4"
        connector.disconnect()
        runUntil(other, lambda: client.lost and server.protocols[0].lost)


# IPv6.


@needsIPv6
def test_literalsOfIPv6(reactor: Reactor) -> None:
    server = RecordingServer()
    port = listen(reactor, server, interface="::1")
    client = Client()
    connector = connect(reactor, number(port), client, host="::1")
    runUntil(reactor, lambda: client.protocols and server.protocols)
    transport = client.protocols[0].transport
    assert transport.getPeer() == IPv6Address("TCP", "::1", number(port))
    assert transport.getHost() == server.protocols[0].transport.getPeer()
    connector.disconnect()
    runUntil(reactor, lambda: client.lost and server.protocols[0].lost)


@needsIPv6
@pytest.mark.parametrize("numeric", [False, True])
def test_scopesOfIPv6(reactor: Reactor, numeric: bool) -> None:
    host = scopedAddress()
    plain, _, interface = host.partition("%")
    scope = socket.if_nametoindex(interface)
    server = RecordingServer()
    port = listen(reactor, server, interface=host)
    client = Client()
    connector = connect(reactor, number(port), client, host=f"{plain}%{scope}" if numeric else host)
    runUntil(reactor, lambda: client.protocols and server.protocols)
    assert client.protocols[0].transport.getPeer() == IPv6Address("TCP", host, number(port), 0, scope)
    # What getPeer says is enough to connect again.
    connector.disconnect()
    runUntil(reactor, lambda: client.lost and server.protocols[0].lost)


def test_aRealName(reactor: Reactor) -> None:
    server = RecordingServer()
    port = listen(reactor, server)
    client = Client()
    connector = connect(reactor, number(port), client, host="localhost")
    runUntil(reactor, lambda: client.protocols)
    connector.disconnect()
    runUntil(reactor, lambda: client.lost and server.protocols[0].lost)


# ReconnectingClientFactory.


class Persistent(ReconnectingClientFactory):
    """Quick, and remembers."""

    initialDelay = 0.01
    maxDelay = 0.05
    noisy = False

    def __init__(self, protocolClass: Callable[[], Protocol] = Recorder) -> None:
        self.protocolClass = protocolClass
        self.protocols: list[Any] = []
        self.events: list[str] = []
        self.delays: list[float] = []

    def startFactory(self) -> None:
        self.events.append("start")

    def stopFactory(self) -> None:
        self.events.append("stop")

    def startedConnecting(self, connector: Any) -> None:
        super().startedConnecting(connector)
        self.events.append("connecting")

    def buildProtocol(self, addr: Any) -> Protocol | None:
        protocol = self.protocolClass()
        self.protocols.append(protocol)
        return protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.events.append("failed")
        super().clientConnectionFailed(connector, reason)
        self.delays.append(self.delay)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.events.append("lost")
        super().clientConnectionLost(connector, reason)


def test_aServerThatComesAndGoes(reactor: Reactor) -> None:
    fixed = unusedPort()
    client = Persistent()
    connector = connect(reactor, fixed, client)
    runUntil(reactor, lambda: client.events.count("failed") >= 3)
    for times in range(1, 4):
        server = RecordingServer()
        port = listen(reactor, server, fixed)
        runUntil(reactor, lambda: len(client.protocols) == times and server.protocols)  # noqa: B023  # run at once
        stop(reactor, port)
        client.resetDelay()
        assert client.retries == 0
        failed = client.events.count("failed")
        server.protocols[0].transport.loseConnection()
        runUntil(reactor, lambda: client.events.count("failed") >= failed + 2)  # noqa: B023  # run at once
    client.stopTrying()
    runUntil(reactor, lambda: client.numPorts == 0)
    assert client.events[0] == "start"
    assert client.events[-1] == "stop"
    # Between two attempts the connector is disconnected, so the factory stops and starts with each (C61).
    assert client.events.count("start") == client.events.count("stop")
    assert connector.state == "disconnected"
    assert reactor.getDelayedCalls() == []


def test_delaysGrowToTheLimit(reactor: Reactor) -> None:
    client = Persistent()
    client.jitter = 0
    client.factor = 2
    client.maxDelay = 0.04
    client.maxRetries = 4
    connect(reactor, unusedPort(), client)
    runUntil(reactor, lambda: client.events.count("failed") == 5)
    assert client.delays[:4] == [0.02, 0.04, 0.04, 0.04]
    reactor.iterate(0)
    assert reactor.getDelayedCalls() == [], "given up"
    assert client.events[-1] == "stop"
    assert client.connector is None


@pytest.mark.parametrize("phase", ["first", "delay", "connecting", "clientConnectionFailed", "connected"])
def test_stopTrying(reactor: Reactor, phase: str) -> None:
    """C08: no attempt after it, and a connection that lives lives on."""

    class Stopping(Persistent):
        def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
            if phase == "clientConnectionFailed":
                self.stopTrying()
            super().clientConnectionFailed(connector, reason)

    client = Stopping()
    server = RecordingServer()
    with BlackHole() as hole:
        if phase == "connecting":
            connector = connect(reactor, hole.port, client)
            runUntil(reactor, lambda: reactor.getWriters())
        elif phase == "connected":
            connector = connect(reactor, number(listen(reactor, server)), client)
            runUntil(reactor, lambda: client.protocols and server.protocols)
        else:
            connector = connect(reactor, unusedPort(), client)
            if phase in ("delay", "clientConnectionFailed"):
                runUntil(reactor, lambda: "failed" in client.events)
        attempts = client.events.count("connecting")
        if phase == "delay":
            # Somewhere between two attempts.
            runUntil(reactor, lambda: connector.state == "disconnected")
            attempts = client.events.count("connecting")
        if phase != "clientConnectionFailed":
            client.stopTrying()
        if phase == "connected":
            reactor.iterate(0.01)
            assert connector.state == "connected"
            server.protocols[0].transport.loseConnection()
        runUntil(reactor, lambda: client.numPorts == 0)
        assert reactor.getDelayedCalls() == []
        assert client.events.count("connecting") == attempts
        assert client.events[-1] == "stop"
        assert client.connector is None or phase == "delay"
    runUntil(reactor, lambda: all(protocol.lost for protocol in server.protocols))


# ClientCreator.


def test_clientCreator(reactor: Reactor) -> None:
    class Named(Recorder):
        def __init__(self, first: str, *, second: str) -> None:
            super().__init__()
            self.names = first, second

    server = RecordingServer(Echo)
    port = listen(reactor, server)
    got: list[Any] = []
    creator = ClientCreator(reactor, Named, "one", second="two")
    creator.connectTCP(LOCAL, number(port)).addCallback(got.append)
    runUntil(reactor, lambda: got)
    (protocol,) = got
    assert protocol.names == ("one", "two")
    assert protocol.events == ["made"], "after connectionMade"
    protocol.transport.write(b"x")
    runUntil(reactor, lambda: protocol.received == b"x")
    protocol.transport.loseConnection()
    runUntil(reactor, lambda: protocol.lost and server.protocols[0].lost)
    assert reactor.getDelayedCalls() == []


def test_clientCreatorFails(reactor: Reactor) -> None:
    got: list[Any] = []
    creator = ClientCreator(reactor, Recorder)
    creator.connectTCP(LOCAL, unusedPort()).addErrback(got.append)
    creator.connectTCP(LOCAL, 70000).addErrback(got.append)
    with BlackHole() as hole:
        creator.connectTCP(LOCAL, hole.port, timeout=0.05).addErrback(got.append)
        runUntil(reactor, lambda: len(got) == 3)
    assert {reason.type for reason in got[:2]} == {ValueError, error.ConnectionRefusedError}
    assert got[2].type is error.TimeoutError


@pytest.mark.parametrize("phase", ["atOnce", "connecting"])
def test_clientCreatorIsCancelled(reactor: Reactor, phase: str) -> None:
    from calandria import defer

    with BlackHole() as hole:
        before = openDescriptors()
        got: list[Any] = []
        deferred = ClientCreator(reactor, Recorder).connectTCP(LOCAL, hole.port)
        deferred.addErrback(got.append)
        if phase == "connecting":
            runUntil(reactor, lambda: reactor.getWriters())
        deferred.cancel()
        runUntil(reactor, lambda: got)
        assert got[0].check(defer.CancelledError)
        for _ in range(3):
            reactor.iterate(0)
        assert reactor.getWriters() == []
        assert reactor.getDelayedCalls() == []
        assert not descriptorsOpenedSince(before)


# Simultaneous ends, and many.


def test_bothSidesCloseInOneTurn(reactor: Reactor) -> None:
    server = RecordingServer()
    client = Client()
    connect(reactor, number(listen(reactor, server)), client)
    runUntil(reactor, lambda: client.protocols and server.protocols)
    client.protocols[0].transport.loseConnection()
    server.protocols[0].transport.loseConnection()
    runUntil(reactor, lambda: client.lost and server.protocols[0].lost)
    assert client.lost[0].type is error.ConnectionDone
    assert server.protocols[0].lost.type is error.ConnectionDone
    assert server.protocols[0].events == ["made", "lost"]
    assert client.events.count("lost") == 1


def test_manyClientsAndServersLeaveNothing(reactor: Reactor) -> None:
    server = RecordingServer(Echo)
    port = listen(reactor, server, backlog=200)
    reactor.iterate(0)
    before = openDescriptors()
    clients = [Client() for _ in range(150)]
    for each in clients:
        connect(reactor, number(port), each)
    others = [Client() for _ in range(50)]
    with socket.socket() as deaf:
        deaf.bind((LOCAL, 0))  # and does not listen
        for each in others:
            connect(reactor, deaf.getsockname()[1], each)
        runUntil(reactor, lambda: all(each.failed for each in others))
    runUntil(reactor, lambda: all(each.protocols for each in clients) and len(server.protocols) == 150)
    for each in clients:
        each.protocols[0].transport.write(b"x")
    runUntil(reactor, lambda: all(each.protocols[0].received == b"x" for each in clients))
    for each in clients:
        each.protocols[0].transport.loseConnection()
    runUntil(reactor, lambda: all(each.lost for each in clients) and all(one.lost for one in server.protocols))
    runUntil(reactor, lambda: reactor.lingering == 0)
    assert not descriptorsOpenedSince(before)
    assert list(reactor.owned) == [port]


def test_aBlockingPeer(reactor: Reactor) -> None:
    """A server that is not ours."""
    with socket.socket() as listener:
        listener.bind((LOCAL, 0))
        listener.listen()

        def serve() -> bytes:
            peer = listener.accept()[0]
            with peer:
                peer.sendall(b"name? ")
                return receiveExactly(peer, 5)

        class Answering(Recorder):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.write(b"calan")

        call = Background(serve)
        client = Client(Answering)
        connect(reactor, listener.getsockname()[1], client)
        runUntil(reactor, call)
        assert call.result() == b"calan"
        runUntil(reactor, lambda: client.lost)
    assert client.lost[0].type is error.ConnectionDone
