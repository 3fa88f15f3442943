"""Listening on TCP: arguments and their errors, a port's life, the accept loop and its trouble, on every backend."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from calandria import Factory, Protocol, Reactor, error
from calandria.address import IPv4Address, IPv6Address
from calandria.tcp import makeBinding
from tests.helpers import (
    Background,
    Program,
    connectTo,
    descriptorsOpenedSince,
    exchange,
    openDescriptors,
    receiveAll,
    receiveExactly,
    runPython,
    runUntil,
    runWith,
)
from tests.recorders import Echo, Recorder, RecordingServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from calandria.plugin import Backend
    from tests.helpers import LogCapture

LOCAL = "127.0.0.1"


def listen(reactor: Reactor, factory: Factory | None = None, port: int = 0, **options: Any) -> Any:
    """A port of 127.0.0.1."""
    options.setdefault("interface", LOCAL)
    return reactor.listenTCP(port, RecordingServer() if factory is None else factory, **options)


def number(port: Any) -> int:
    """The number that a port really has."""
    found: int = port.getHost().port
    return found


def stop(reactor: Reactor, port: Any) -> None:
    """Stop a port and wait for it."""
    fired: list[object] = []
    port.stopListening().addCallback(fired.append)
    runUntil(reactor, lambda: fired)


def ended(peer: socket.socket) -> bool:
    """Whether the other side has closed or reset; it must have sent nothing."""
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def reset(peer: socket.socket) -> None:
    """Close without an end of stream."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def scopedAddress() -> str:
    """A link-local address of this machine, with its scope: fe80::1%eth0."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        text, *_, name = line.split()
        if text.startswith("fe80"):
            return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(text))}%{name}"
    pytest.skip("this machine has no link-local IPv6 address")


def otherWorld(reactor: Reactor, **functions: Callable[..., Any]) -> Backend:
    """A backend like the reactor's, with other functions for the world: the seam that every backend's author has."""
    kind = type(reactor.backend)
    made: Backend = type("Other", (kind,), {name: staticmethod(each) for name, each in functions.items()})()
    return made


needsIPv6 = pytest.mark.skipif(
    not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6"
)


# Arguments.


@pytest.mark.parametrize("bad", [-1, 65536, 70000, 1 << 40, True, None, 80.5, "80", "http", b"80"])
def test_whatIsNoPortIsRefused(reactor: Reactor, bad: Any) -> None:
    factory = RecordingServer()
    before = openDescriptors()
    with pytest.raises(ValueError, match=r"^port must be 0-65535, not ") as caught:
        reactor.listenTCP(bad, factory)
    assert str(caught.value) == f"port must be 0-65535, not {bad!r}"
    assert factory.events == []
    assert not descriptorsOpenedSince(before)


def test_theEndpointItselfDoesNotCheck() -> None:
    binding: Any = makeBinding("nonsense", 70000)
    assert (binding.port, binding.interface) == (70000, "nonsense")


@pytest.mark.parametrize(
    "bad", ["localhost", "example.org", "127.0.0.1.1", "1:2", "::1::", "eth0", " ", "127.0.0.1\0", "[::1]"]
)
def test_interfacesAreLiterals(reactor: Reactor, bad: str) -> None:
    factory = RecordingServer()
    before = openDescriptors()
    with pytest.raises(ValueError, match="interface"):
        reactor.listenTCP(0, factory, interface=bad)
    assert factory.events == []
    assert not descriptorsOpenedSince(before)


@pytest.mark.parametrize("bad", [None, 7, b"127.0.0.1"])
def test_anInterfaceIsText(reactor: Reactor, bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="interface"):
        reactor.listenTCP(0, RecordingServer(), interface=bad)


@pytest.mark.parametrize(
    ("interface", "peer"),
    [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")],
)
def test_interfacesOfIPv4(reactor: Reactor, interface: str, peer: str) -> None:
    factory = RecordingServer(Echo)
    port = listen(reactor, factory, interface=interface)
    assert port.getHost() == IPv4Address("TCP", interface or "0.0.0.0", number(port))
    assert runWith(reactor, exchange, number(port), b"hello", peer) == b"hello"
    runUntil(reactor, lambda: factory.protocols[0].lost)
    assert factory.protocols[0].transport.getHost() == IPv4Address("TCP", peer, number(port))


def test_theDefaultIsIPv4Only(reactor: Reactor) -> None:
    port = reactor.listenTCP(0, RecordingServer())
    assert port.socket is not None
    assert port.socket.family == socket.AF_INET


@needsIPv6
@pytest.mark.parametrize("interface", ["::1", "::", "0:0:0:0:0:0:0:1"])
def test_interfacesOfIPv6(reactor: Reactor, interface: str) -> None:
    factory = RecordingServer(Echo)
    port = listen(reactor, factory, interface=interface)
    assert port.getHost() == IPv6Address("TCP", "::" if interface == "::" else "::1", number(port))
    assert runWith(reactor, exchange, number(port), b"hello", "::1") == b"hello"
    runUntil(reactor, lambda: factory.protocols[0].lost)
    transport = factory.protocols[0].transport
    assert transport.getHost() == IPv6Address("TCP", "::1", number(port))
    assert isinstance(transport.getPeer(), IPv6Address)


@needsIPv6
def test_theIPv6WildcardLeavesIPv4ToTheSystem(reactor: Reactor) -> None:
    if Path("/proc/sys/net/ipv6/bindv6only").read_text().strip() != "0":
        pytest.skip("IPv6 sockets of this machine take no IPv4")
    factory = RecordingServer(Echo)
    port = listen(reactor, factory, interface="::")
    with connectTo(number(port)) as peer:
        runUntil(reactor, lambda: factory.protocols)
        name = peer.getsockname()
        assert factory.protocols[0].transport.getPeer() == IPv6Address("TCP", f"::ffff:{name[0]}", name[1])


@needsIPv6
def test_scopesOfIPv6(reactor: Reactor) -> None:
    interface = scopedAddress()
    factory = RecordingServer(Echo)
    port = listen(reactor, factory, interface=interface)
    host = port.getHost()
    scope = socket.if_nametoindex(interface.partition("%")[2])
    assert host == IPv6Address("TCP", interface, number(port), 0, scope)
    assert runWith(reactor, exchange, number(port), b"hello", interface) == b"hello"
    runUntil(reactor, lambda: factory.protocols[0].lost)
    peer = factory.protocols[0].transport.getPeer()
    assert (peer.host, peer.scopeID) == (interface, scope)


@needsIPv6
@pytest.mark.parametrize("bad", ["fe80::1%nosuchinterface", "fe80::1%", "::1%%"])
def test_aScopeThatIsNoneIsRefused(reactor: Reactor, bad: str) -> None:
    factory = RecordingServer()
    with pytest.raises((ValueError, error.CannotListenError)):
        listen(reactor, factory, interface=bad)
    assert factory.events == []


# Bind failures.


def test_aPortInUse(reactor: Reactor) -> None:
    with socket.socket() as holder:
        holder.bind((LOCAL, 0))
        holder.listen()
        taken = holder.getsockname()[1]
        listen(reactor)  # the reactor has its reserve descriptor now
        before = openDescriptors()
        factory = RecordingServer()
        for _ in range(99):
            with pytest.raises(error.CannotListenError):
                listen(reactor, factory, taken)
        with pytest.raises(error.CannotListenError) as caught:
            listen(reactor, factory, taken)
        assert not descriptorsOpenedSince(before)
    cannot = caught.value
    assert (cannot.interface, cannot.port) == (LOCAL, taken)
    assert isinstance(cannot.socketError, OSError)
    assert cannot.osError is cannot.socketError
    assert cannot.socketError.errno == errno.EADDRINUSE
    assert f"{LOCAL}:{taken}" in str(cannot)
    assert factory.events == []
    assert factory.numPorts == 0


def test_anAddressThatIsNotOurs(reactor: Reactor) -> None:
    factory = RecordingServer()
    with pytest.raises(error.CannotListenError) as caught:
        listen(reactor, factory, interface="192.0.2.1")
    assert caught.value.osError is not None
    assert caught.value.osError.errno == errno.EADDRNOTAVAIL
    assert factory.numPorts == 0


def test_aPrivilegedPort(backendName: str) -> None:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if first.exists() and int(first.read_text()) <= 81:
        pytest.skip("this system lets everybody bind every port")
    code = """
import os, sys
from calandria import Factory, Reactor, error
reactor = Reactor(backend=sys.argv[1])
listening = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
before = set(os.listdir("/proc/self/fd"))
factory = Factory()
try:
    reactor.listenTCP(81, factory, interface="127.0.0.1")
except error.CannotListenError as exc:
    print(exc.port, exc.socketError.errno, factory.numPorts, set(os.listdir("/proc/self/fd")) == before)
reactor.close()
"""
    ended = runPython(code, backendName)
    assert ended.stderr == ""
    assert ended.stdout.split() == ["81", str(errno.EACCES), "0", "True"]


def test_aBindErrorOfTheFirstPortLeavesNothing(reactor: Reactor) -> None:
    before, readers = openDescriptors(), reactor.getReaders()
    with pytest.raises(error.CannotListenError):
        listen(reactor, interface="192.0.2.1")
    assert not descriptorsOpenedSince(before)
    assert reactor.getReaders() == readers


def test_aFactoryThatCannotStart(reactor: Reactor) -> None:
    class Unwilling(RecordingServer):
        def startFactory(self) -> None:
            raise ValueError("not today")

    before, readers = openDescriptors(), reactor.getReaders()
    with pytest.raises(ValueError, match="not today"):
        listen(reactor, Unwilling())
    # Nobody has the port, so nobody could stop it.
    left = descriptorsOpenedSince(before)
    assert not [what for what in left.values() if what.startswith("socket:")]
    assert reactor.getReaders() == readers


# Port 0, and a port's life.


def test_portNull(reactor: Reactor, logs: LogCapture) -> None:
    factory = RecordingServer(Echo)
    port = listen(reactor, factory)
    assert port.port == 0
    real = number(port)
    assert real > 0
    assert (port.interface, port.backlog, port.factory) == (LOCAL, 50, factory)
    assert port.socket.getsockname() == (LOCAL, real)
    assert port.fileno() == port.socket.fileno()
    assert port.connected
    assert runWith(reactor, exchange, real, b"x") == b"x"
    stop(reactor, port)
    assert not port.connected
    assert number(port) == real, "the last address known"
    messages = [record.getMessage() for record in logs.records]
    assert f"RecordingServer starting on {real}" in messages
    assert f"(TCP Port {real} Closed)" in messages


def test_aQuietFactory(reactor: Reactor, logs: LogCapture) -> None:
    factory = RecordingServer()
    factory.noisy = False
    logs.records.clear()
    stop(reactor, listen(reactor, factory))
    assert logs.records == []


def test_theBacklogIsGivenToTheKernel(reactor: Reactor) -> None:
    port = listen(reactor, backlog=0)
    peers: list[socket.socket] = []
    try:
        waits = 0
        for _ in range(8):
            peer = socket.socket()
            peers.append(peer)
            peer.setblocking(False)
            waits += peer.connect_ex((LOCAL, number(port))) == errno.EINPROGRESS and not writable(peer)
        assert waits, "nobody accepts, so a backlog of 0 is full soon"
    finally:
        for peer in peers:
            peer.close()


def writable(peer: socket.socket) -> bool:
    """Whether it is connected by now; loopback needs no time for it."""
    try:
        peer.getpeername()
    except OSError:
        return False
    return True


def test_theOrderOfTheFactorysCalls(reactor: Reactor) -> None:
    class Telling(RecordingServer):
        def buildProtocol(self, addr: Any) -> Protocol | None:
            assert isinstance(addr, IPv4Address)
            self.events.append("build")
            self.addresses.append(addr)
            return super().buildProtocol(addr)

        addresses: ClassVar[list[Any]] = []

    Telling.addresses = []
    factory = Telling()
    port = listen(reactor, factory)
    assert factory.events == ["start"], "inside listenTCP"
    assert factory.numPorts == 1
    with connectTo(number(port)) as peer:
        runUntil(reactor, lambda: factory.protocols)
        assert factory.addresses == [IPv4Address("TCP", *peer.getsockname())]
        (protocol,) = factory.protocols
        assert protocol.events == ["made"]
        assert protocol.factory is factory
        stop(reactor, port)
        assert factory.events == ["start", "build", "stop"]
        assert factory.numPorts == 0
    runUntil(reactor, lambda: protocol.lost)


def test_aFactoryOnSeveralPortsStartsAndStopsOnce(reactor: Reactor) -> None:
    factory = RecordingServer()
    first, second = listen(reactor, factory), listen(reactor, factory)
    assert factory.numPorts == 2
    stop(reactor, first)
    assert factory.events == ["start"]
    stop(reactor, second)
    assert factory.events == ["start", "stop"]


def test_stopListeningMayBeCalledAnyNumberOfTimes(reactor: Reactor) -> None:
    factory = RecordingServer()
    port = listen(reactor, factory)
    sock = port.socket
    fired: list[tuple[object, int, list[str]]] = []

    def note(result: object) -> None:
        fired.append((result, sock.fileno(), list(factory.events)))

    port.stopListening().addCallback(note)
    port.loseConnection().addCallback(note)
    assert fired == []
    assert sock.fileno() >= 0
    runUntil(reactor, lambda: len(fired) == 2)
    assert fired == [(None, -1, ["start", "stop"])] * 2, "after the socket is closed and the factory has stopped"
    later: list[object] = []
    port.stopListening().addCallback(later.append)
    runUntil(reactor, lambda: later)
    assert later == [None]
    assert factory.events == ["start", "stop"]


def test_nothingIsAcceptedAfterStopListening(reactor: Reactor) -> None:
    factory = RecordingServer()
    port = listen(reactor, factory)
    peers = [connectTo(number(port)) for _ in range(3)]
    port.stopListening()
    runUntil(reactor, lambda: not port.connected)
    assert factory.protocols == []
    for peer in peers:
        assert ended(peer), "the backlog is not forgotten: the kernel resets it"
        peer.close()


def test_stopListeningInsideBuildProtocol(reactor: Reactor) -> None:
    class Once(RecordingServer):
        def buildProtocol(self, addr: Any) -> Protocol | None:
            port.stopListening()
            return super().buildProtocol(addr)

    factory = Once(Echo)
    port = listen(reactor, factory)
    peers = [connectTo(number(port)) for _ in range(5)]
    runUntil(reactor, lambda: not port.connected)
    assert len(factory.protocols) == 1
    peers[0].sendall(b"x")
    assert runWith(reactor, receiveExactly, peers[0], 1) == b"x", "the one that was taken lives on"
    for peer in peers:
        peer.close()
    runUntil(reactor, lambda: factory.protocols[0].lost)


def test_stoppedByTheReactor(reactor: Reactor) -> None:
    factory = RecordingServer()
    port = listen(reactor, factory)
    reactor.callLater(0, reactor.stop)
    reactor.run(installSignalHandlers=False)
    assert not port.connected
    assert factory.events == ["start", "stop"]
    fired: list[object] = []
    port.stopListening().addCallback(fired.append)
    runUntil(reactor, lambda: fired)


def test_theDeferredFiresWhenTheReactorStopsFirst(reactor: Reactor) -> None:
    port = listen(reactor)
    fired: list[object] = []

    def end() -> None:
        port.stopListening().addCallback(fired.append)
        reactor.stop()

    reactor.callLater(0, end)
    reactor.run(installSignalHandlers=False)
    assert fired == [None]
    assert port.socket is None


def test_listeningAgainIsListeningOnTheRequestedPort(reactor: Reactor) -> None:
    factory = RecordingServer(Echo)
    port = listen(reactor, factory)
    fixed = number(port)
    stop(reactor, port)
    again = listen(reactor, factory, fixed)
    for _ in range(3):
        stop(reactor, again)
        again.startListening()
        assert number(again) == fixed
        assert runWith(reactor, exchange, fixed, b"again") == b"again"
    again.startListening()  # listens already
    stop(reactor, again)
    assert factory.events == ["start", "stop"] * 5
    port.startListening()
    assert number(port) > 0
    assert runWith(reactor, exchange, number(port), b"anywhere") == b"anywhere"
    runUntil(reactor, lambda: all(protocol.lost for protocol in factory.protocols))


def test_listeningAgainWhereSomebodyElseListensNow(reactor: Reactor) -> None:
    factory = RecordingServer()
    fixed = number(first := listen(reactor, factory))
    stop(reactor, first)
    port = listen(reactor, factory, fixed)
    stop(reactor, port)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((LOCAL, fixed))
        other.listen()
        with pytest.raises(error.CannotListenError):
            port.startListening()
    assert factory.numPorts == 0
    port.startListening()
    assert number(port) == fixed


def test_acceptedConnectionsSurviveAndThePortIsFreeAtOnce(reactor: Reactor) -> None:
    """S27, with connections that live and connections in TIME_WAIT (we have closed first)."""
    factory = RecordingServer(Echo)
    port = listen(reactor, factory)
    fixed = number(port)
    living: list[socket.socket] = []
    for _ in range(100):
        peer = connectTo(fixed)
        dying = connectTo(fixed)
        count = len(factory.protocols) + 2
        runUntil(reactor, lambda: len(factory.protocols) == count)  # noqa: B023  # run at once
        factory.protocols[-1].transport.loseConnection()
        runUntil(reactor, lambda: factory.protocols[-1].lost)
        assert ended(dying)
        dying.close()
        living.append(peer)
        stop(reactor, port)
        port = listen(reactor, factory, fixed)
    for peer in living:
        peer.sendall(b"alive")
    answers = runWith(reactor, lambda: [receiveExactly(peer, 5) for peer in living])
    assert answers == [b"alive"] * 100
    for peer in living:
        peer.close()
    runUntil(reactor, lambda: all(protocol.lost for protocol in factory.protocols))


# Options.


def test_reuseAddress(reactor: Reactor) -> None:
    for option in (True, False):
        port = listen(reactor, reuseAddress=option)
        assert bool(port.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is option
        sock = port.createInternetSocket()
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is option
        sock.close()
    binding: Any = makeBinding(LOCAL, 0)
    port = reactor.listen(binding, RecordingServer())
    assert not port.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR), "only what it says"


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this system has no SO_REUSEPORT")
def test_reusePort(reactor: Reactor) -> None:
    factories = [RecordingServer(Echo), RecordingServer(Echo)]
    first = listen(reactor, factories[0], reusePort=True)
    second = listen(reactor, factories[1], number(first), reusePort=True)
    assert number(first) == number(second)
    with pytest.raises(error.CannotListenError):
        listen(reactor, None, number(first))
    stop(reactor, first)
    assert runWith(reactor, exchange, number(second), b"x") == b"x"
    assert factories[0].protocols == []
    runUntil(reactor, lambda: factories[1].protocols[0].lost)


def test_theListeningSocketIsNotInherited(reactor: Reactor) -> None:
    port = listen(reactor)
    assert not port.socket.get_inheritable()
    assert port.socket.getblocking() is False


def test_theTransportMayBeReplaced(reactor: Reactor) -> None:
    """B.5: `port.transport` is the class that connections get."""
    factory = RecordingServer()
    port = listen(reactor, factory)
    plain = port.transport

    class Special(plain):  # type: ignore[misc, valid-type]  # known at run time only
        __slots__ = ()

    port.transport = Special
    with connectTo(number(port)):
        runUntil(reactor, lambda: factory.protocols)
        assert type(factory.protocols[0].transport) is Special


# buildProtocol.


@pytest.mark.parametrize("raises", [False, True])
def test_aRefusedConnectionIsClosedAtOnce(reactor: Reactor, logs: LogCapture, raises: bool) -> None:
    class Refusing(RecordingServer):
        def buildProtocol(self, addr: Any) -> Protocol | None:
            if len(self.refused) < 20:
                self.refused.append(addr)
                if raises:
                    raise ValueError("no protocol today")
                return None
            return super().buildProtocol(addr)

        refused: ClassVar[list[Any]] = []

    Refusing.refused = []
    factory = Refusing(Echo)
    port = listen(reactor, factory)
    reactor.iterate(0)
    before = openDescriptors()
    peers = [connectTo(number(port)) for _ in range(21)]
    call = Background(lambda: [ended(peer) for peer in peers[:20]])
    runUntil(reactor, call)
    assert call.result() == [True] * 20
    peers[20].sendall(b"well")
    assert runWith(reactor, receiveExactly, peers[20], 4) == b"well"
    for peer in peers:
        peer.close()
    runUntil(reactor, lambda: factory.protocols[0].lost)
    assert not descriptorsOpenedSince(before)
    errors = logs.takeErrors()
    assert len(errors) == (20 if raises else 0)
    for record in errors:
        assert "buildProtocol" in record.getMessage()
        assert "no protocol today" in (record.exc_text or "")


def test_aBuildProtocolThatRaisesKeepsNoDescriptorByItsTraceback(reactor: Reactor, logs: LogCapture) -> None:
    class Refusing(RecordingServer):
        def buildProtocol(self, addr: Any) -> Protocol | None:
            raise ValueError("no")

    port = listen(reactor, Refusing())
    with connectTo(number(port)) as peer:
        reactor.iterate(0)
        peer.setblocking(False)
        assert peer.recv(1) == b"", "closed in the same turn"
    assert len(logs.takeErrors()) == 1


def test_somethingElseThanAProtocol(reactor: Reactor, logs: LogCapture) -> None:
    class Wrong(RecordingServer):
        def buildProtocol(self, addr: Any) -> Any:
            return "a protocol"

    port = listen(reactor, Wrong())
    bystander = RecordingServer(Echo)
    other = listen(reactor, bystander)
    with connectTo(number(port)) as peer:
        call = Background(ended, peer)
        runUntil(reactor, call)
        assert call.result()
    assert logs.takeErrors()
    assert port.connected
    assert runWith(reactor, exchange, number(other), b"x") == b"x"
    runUntil(reactor, lambda: bystander.protocols[0].lost)


# The accept loop.


def test_sixteenPerTurn(reactor: Reactor) -> None:
    factory = RecordingServer()
    port = listen(reactor, factory, backlog=200)
    peers = [connectTo(number(port)) for _ in range(100)]
    taken: list[int] = []
    while len(factory.protocols) < 100 and len(taken) < 100:
        before = len(factory.protocols)
        reactor.iterate(0)
        taken.append(len(factory.protocols) - before)
    assert len(factory.protocols) == 100
    assert max(taken) == 16, taken
    assert sum(taken) == 100
    assert port.numberAccepts == 16
    for peer in peers:
        peer.close()
    runUntil(reactor, lambda: all(protocol.lost for protocol in factory.protocols))


def test_othersAreServedDuringABurst(reactor: Reactor) -> None:
    """S05: a thousand clients at once and somebody who is being served already."""
    code = """
import selectors, socket, sys
address = ("127.0.0.1", int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
peers = []
for _ in range(1000):
    peer = socket.socket()
    peer.setblocking(False)
    peer.connect_ex(address)
    peers.append(peer)
answered = 0
for peer in peers:
    peer.settimeout(20)
    answered += peer.recv(2) == b"hi"
    peer.close()
print("answered", answered, flush=True)
"""

    class Greeting(Recorder):
        def connectionMade(self) -> None:
            self.transport.write(b"hi")
            self.transport.loseConnection()

    greeting, echo = RecordingServer(Greeting), RecordingServer(Echo)
    port = listen(reactor, greeting, backlog=1000)
    bystander = connectTo(number(listen(reactor, echo)))
    runUntil(reactor, lambda: echo.protocols)
    program = subprocess.Popen(
        [sys.executable, "-c", code, str(number(port))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.stdin.write("go\n")
    program.stdin.flush()
    gaps: list[int] = []

    def ask() -> list[int]:
        while program.poll() is None:
            bystander.sendall(b"?")
            receiveExactly(bystander, 1)
            gaps.append(len(greeting.protocols))
        return gaps

    answers = runWith(reactor, ask)
    output = program.communicate()[0]
    assert output == "answered 1000\n"
    assert len(greeting.protocols) == 1000
    # Accepted between one answer to the bystander and the next: some turns' worth, whatever the machine does.
    during = [later - earlier for earlier, later in pairwise(answers) if later != earlier]
    assert len(during) >= 10, "the bystander was answered again and again in the middle of it"
    assert sorted(during)[len(during) // 2] <= 5 * 16
    bystander.close()
    runUntil(reactor, lambda: all(protocol.lost for protocol in greeting.protocols) and echo.protocols[0].lost)


def test_aClientThatIsGoneBeforeItIsAccepted(reactor: Reactor) -> None:
    factory = RecordingServer(Echo)
    port = listen(reactor, factory)
    for _ in range(20):
        reset(connectTo(number(port)))
    assert runWith(reactor, exchange, number(port), b"well") == b"well"
    runUntil(reactor, lambda: all(protocol.lost for protocol in factory.protocols))
    for protocol in factory.protocols:
        assert protocol.events[0] == "made"
        assert protocol.events[-1] == "lost"


class Troubled(socket.socket):
    """A socket whose accept(2) fails with each number of `trouble` first; `accepts` counts the calls."""

    trouble: list[int]
    accepts = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.accepts += 1
        if self.trouble:
            code = self.trouble.pop(0)
            raise OSError(code, os.strerror(code))
        return super().accept()


class TroubledPort:
    """A reactor whose listening socket is a Troubled one, with one client in the backlog."""

    def __init__(self, like: Reactor, trouble: list[int]) -> None:
        made: list[Troubled] = []

        def create(family: int = -1, kind: int = -1, protocol: int = -1, fileno: int | None = None) -> socket.socket:
            made.append(Troubled(family, kind, protocol, fileno))
            made[0].trouble = trouble
            return made[0]

        self.reactor = Reactor(backend=otherWorld(like, socket=create))
        self.factory = RecordingServer(Echo)
        self.port = listen(self.reactor, self.factory)
        (self.socket,) = made

    def __enter__(self) -> TroubledPort:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.reactor.close()


TRANSIENT = "ECONNABORTED EPERM EPROTO EINTR ENETDOWN EHOSTUNREACH ENONET EOPNOTSUPP ENETUNREACH EHOSTDOWN ENOPROTOOPT"


@pytest.mark.parametrize("name", TRANSIENT.split())
def test_aConnectionThatCannotBeAcceptedIsNotThePortsTrouble(reactor: Reactor, logs: LogCapture, name: str) -> None:
    code = getattr(errno, name, None)
    if code is None:
        pytest.skip(f"this system has no {name}")
    with TroubledPort(reactor, [code]) as troubled:
        assert runWith(troubled.reactor, exchange, number(troubled.port), b"well") == b"well"
        runUntil(troubled.reactor, lambda: troubled.factory.protocols[0].lost)
        assert troubled.socket.trouble == []
    assert logs.takeErrors() == []


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"])
def test_aMachineWithoutRoomRefusesPolitely(reactor: Reactor, logs: LogCapture, name: str) -> None:
    with TroubledPort(reactor, [getattr(errno, name)]) as troubled, connectTo(number(troubled.port)) as peer:
        call = Background(ended, peer)
        began = time.monotonic()
        runUntil(troubled.reactor, call)
        assert call.result()
        assert runWith(troubled.reactor, exchange, number(troubled.port), b"well") == b"well"
        assert time.monotonic() - began < 1.0
        assert len(troubled.factory.protocols) == 1
        runUntil(troubled.reactor, lambda: troubled.factory.protocols[0].lost)
    (record,) = logs.takeErrors()
    assert os.strerror(getattr(errno, name)) in record.getMessage()


def test_anUnknownErrorIsReportedAndDoesNotSpin(reactor: Reactor, logs: LogCapture) -> None:
    with TroubledPort(reactor, [errno.EIO] * 3) as troubled, connectTo(number(troubled.port)) as peer:
        peer.sendall(b"patient")
        assert runWith(troubled.reactor, receiveExactly, peer, 7) == b"patient"
        assert troubled.socket.trouble == []
        assert troubled.socket.accepts <= 8
    (record,) = logs.takeErrors()
    assert os.strerror(errno.EIO) in record.getMessage()


def test_anErrorThatNeverEndsDoesNotSpin(reactor: Reactor, logs: LogCapture) -> None:
    with TroubledPort(reactor, [errno.EIO] * 1000) as troubled, connectTo(number(troubled.port)):
        end = time.monotonic() + 0.5
        turns = 0
        while (left := end - time.monotonic()) > 0:
            troubled.reactor.iterate(left)
            turns += 1
        assert turns <= 20
        assert troubled.socket.accepts <= 20
        assert troubled.port.connected
        stop(troubled.reactor, troubled.port)
    assert len(logs.takeErrors()) == 1


def test_stopListeningWhileAcceptingPauses(reactor: Reactor, logs: LogCapture) -> None:
    with TroubledPort(reactor, [errno.EIO]) as troubled, connectTo(number(troubled.port)):
        runUntil(troubled.reactor, lambda: not troubled.socket.trouble)
        stop(troubled.reactor, troubled.port)
        assert troubled.port not in troubled.reactor.getReaders()
        assert troubled.reactor.getDelayedCalls() == [], "nothing of the pause is left"
    assert len(logs.takeErrors()) == 1


def test_somebodyClosesTheListeningSocket(reactor: Reactor, logs: LogCapture) -> None:
    factory, bystander = RecordingServer(), RecordingServer(Echo)
    port, other = listen(reactor, factory), listen(reactor, bystander)
    with connectTo(number(port)):
        os.close(port.fileno())
        assert runWith(reactor, exchange, number(other), b"alive") == b"alive"
        runUntil(reactor, lambda: bystander.protocols[0].lost)
    stop(reactor, port)
    assert factory.events == ["start", "stop"]
    logs.takeErrors()


def test_somebodyShutsTheListeningSocketDown(reactor: Reactor, logs: LogCapture) -> None:
    factory = RecordingServer()
    port = listen(reactor, factory)
    before = openDescriptors()
    fd = port.fileno()
    port.socket.shutdown(socket.SHUT_RDWR)
    end = time.monotonic() + 0.3
    turns = 0
    while (left := end - time.monotonic()) > 0:
        reactor.iterate(left)
        turns += 1
    assert turns <= 20
    stop(reactor, port)
    assert factory.events == ["start", "stop"]
    assert fd in before
    assert fd not in openDescriptors(), "the descriptor was still ours"
    logs.takeErrors()


# Out of descriptors.

EXHAUSTED = """
import json, logging, os, resource, sys, threading, time
from calandria import Factory, Protocol, Reactor

records = []
class Remember(logging.Handler):
    def emit(self, record):
        records.append((time.monotonic(), record.levelno, record.getMessage()))
logging.getLogger("calandria").addHandler(Remember(logging.WARNING))

class Greeting(Protocol):
    def connectionMade(self):
        self.transport.write(b"hi")

class Control(Protocol):
    # Measures half a second without traffic, and tells what was logged.
    def dataReceived(self, data):
        self.before = counted.polls, time.process_time()
        reactor.callLater(0.5, self.tell)
    def tell(self):
        polls, cpu = counted.polls - self.before[0], time.process_time() - self.before[1]
        answer = {"polls": polls, "cpu": cpu, "records": records}
        self.transport.write(json.dumps(answer).encode() + b"\\n")

plain = Reactor(backend=sys.argv[1])
kind = type(plain.backend)
plain.close()
class Counted(kind):
    polls = 0
    def poll(self, timeout):
        self.polls += 1
        return super().poll(timeout)
counted = Counted()
reactor = Reactor(backend=counted)
other = Reactor(backend=sys.argv[1])
ports = [
    each.listenTCP(0, Factory.forProtocol(Greeting), backlog=200, interface="127.0.0.1") for each in (reactor, other)
]
control = reactor.listenTCP(0, Factory.forProtocol(Control), interface="127.0.0.1")
threading.Thread(target=other.run, daemon=True).start()
used = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]) + used, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(*[each.getHost().port for each in (*ports, control)], flush=True)
reactor.run()
"""


def greetings(peers: list[socket.socket]) -> list[bool]:
    """Whether each was greeted; each must be greeted or sent away within the peers' deadline."""
    answers: list[bool] = []
    for peer in peers:
        try:
            answers.append(peer.recv(2) == b"hi")
        except ConnectionResetError:
            answers.append(False)
    return answers


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_outOfDescriptors(backendName: str) -> None:
    """S01, with two reactors of one process."""
    room = 40
    with Program([sys.executable, "-W", "error", "-c", EXHAUSTED, backendName, str(room)]) as program:
        first, second, control = map(int, program.waitFor(r"(\d+) (\d+) (\d+)").groups())
        commander = connectTo(control)

        def report() -> Any:
            commander.sendall(b"?")
            line = bytearray()
            while not line.endswith(b"\n") and (data := commander.recv(65536)):
                line += data
            return json.loads(line)

        report()  # it is accepted before the others come
        peers = [connectTo(first) for _ in range(80)]
        answers = greetings(peers)
        served = [peer for peer, answer in zip(peers, answers, strict=True) if answer]
        assert 20 <= len(served) <= room
        quiet = report()
        assert quiet["polls"] <= 20
        assert quiet["cpu"] <= 0.05

        others = [connectTo(second) for _ in range(10)]
        assert not any(greetings(others)), "the other reactor has a reserve of its own"

        # Whatever a passing need of the process has left free.
        while True:
            peers.append(connectTo(first))
            if greetings([peers[-1]]) == [False]:
                break
            assert len(peers) < 80 + room
        # For a second and more, one client after the other.
        began = time.monotonic()
        knocks = 0
        while time.monotonic() - began < 1.3:
            with connectTo(first) as peer:
                assert greetings([peer]) == [False]
            knocks += 1
        assert knocks >= 5
        records = report()["records"]
        errors = [(when, text) for when, _, text in records if os.strerror(errno.EMFILE) in text]
        for portNumber in (first, second):
            times = [when for when, text in errors if str(portNumber) in text]
            assert times
            gaps = [later - earlier for earlier, later in pairwise(times)]
            assert all(gap >= 0.99 for gap in gaps), gaps
        assert len(records) == len(errors), "nothing else was logged"

        for peer in served[:20]:
            peer.close()
        freed = time.monotonic()
        for portNumber in (first, second):
            while True:
                peer = connectTo(portNumber)
                peers.append(peer)
                if greetings([peer]) == [True]:
                    break
                assert time.monotonic() - freed < 1.0, "accepting goes on within a second"
        commander.sendall(b"?")
        for peer in [*peers, *others]:
            peer.close()
        commander.close()
        assert program.stop() == 0, program.output
        assert "Traceback" not in program.output


HIGH = """
import os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from calandria import Factory, Protocol, Reactor
import logging
records = []
class Remember(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
logging.getLogger("calandria").addHandler(Remember(logging.WARNING))
class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)
reactor = Reactor(backend="select")
port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
address = "127.0.0.1", port.getHost().port
def turn(times=20):
    for _ in range(times):
        reactor.iterate(0.01)
early = socket.create_connection(address)
turn(3)
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
late = [socket.create_connection(address) for _ in range(3)]
before = len(os.listdir("/proc/self/fd"))
turn()
print(len(os.listdir("/proc/self/fd")) == before)
for each in late:
    each.settimeout(5)
    try:
        print(each.recv(1) == b"")
    except ConnectionResetError:
        print(True)
early.sendall(b"x")
turn(3)
print(early.recv(1) == b"x")
print(len(records) == 1 and "refused" in records[0] or records)
for fd in held:
    os.close(fd)
last = socket.create_connection(address)
last.sendall(b"y")
turn()
print(last.recv(1) == b"y")
try:
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    reactor.listenTCP(0, Factory(), interface="127.0.0.1")
except Exception as exc:
    print(type(exc).__name__)
for each in (early, last, *late):
    each.close()
reactor.close()
"""


@pytest.mark.backend
@pytest.mark.skipif(os.environ.get("CALANDRIA_BACKEND", "select") != "select", reason="select(2) only")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_descriptorsTooHighForSelect() -> None:
    """B10: what select(2) cannot watch is refused, and everybody else goes on."""
    ended = runPython(HIGH)
    assert ended.stderr == ""
    assert ended.stdout.split("\n") == ["True"] * 7 + ["CannotListenError", ""]


# Many times.


def test_aThousandRefusalsLeaveNothing(reactor: Reactor) -> None:
    class Refusing(RecordingServer):
        count = 0

        def buildProtocol(self, addr: Any) -> Protocol | None:
            self.count += 1
            return None

    factory = Refusing()
    port = listen(reactor, factory, backlog=1000)
    before = openDescriptors()

    def knock() -> None:
        for _ in range(1000):
            with connectTo(number(port)) as peer:
                assert ended(peer)

    runWith(reactor, knock)
    assert factory.count == 1000
    assert not descriptorsOpenedSince(before)
    assert list(reactor.owned) == [port]


def test_aServerMayAnswerAndCloseBeforeTheClientLooks(reactor: Reactor) -> None:
    class Greeting(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.transport.write(b"welcome")
            self.transport.loseConnection()

    factory = RecordingServer(Greeting)
    port = listen(reactor, factory)
    with connectTo(number(port)) as peer:
        runUntil(reactor, lambda: factory.protocols and factory.protocols[0].lost)
        assert receiveAll(peer) == b"welcome"
    assert factory.protocols[0].events == ["made", "lost"]
