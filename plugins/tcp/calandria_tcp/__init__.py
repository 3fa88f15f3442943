"""TCP (RFC 9293) over IPv4 and IPv6: one Transport, made of what calandria.plugin offers to everybody.

Here are only the things that TCP has of its own: ports and addresses, binding, and the socket options.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calandria import address, error
from calandria.plugin import (
    ClientEndpoint,
    Connector,
    Port,
    ServerEndpoint,
    Stream,
    Transport,
    connectSocket,
    interleaved,
    resolve,
)

if TYPE_CHECKING:
    from calandria import Reactor
    from calandria.defer import Deferred
    from calandria.protocol import ClientFactory, Factory


class TCPStream(Stream):
    """A TCP connection. Owned by its reactor, used on its thread."""

    __slots__ = ("_keepAlive", "_noDelay")

    channel: socket.socket

    def __init__(self, reactor: Reactor, connection: socket.socket, *, host: Any, peer: Any) -> None:
        super().__init__(reactor, connection, host=host, peer=peer)
        self._noDelay = True
        self._keepAlive: bool | None = None

    def getHandle(self) -> socket.socket:
        """The socket itself."""
        return self.channel

    def getTcpNoDelay(self) -> bool:
        """Whether small writes leave at once (TCP_NODELAY, tcp(7)); after the loss the last value known."""
        return self._noDelay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Let small writes leave at once (the default), or wait to be gathered (Nagle's algorithm, RFC 896)."""
        self._noDelay = bool(enabled)
        if self.connected:
            self.channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, self._noDelay)

    def getTcpKeepAlive(self) -> bool:
        """Whether the kernel probes an idle connection (SO_KEEPALIVE, socket(7)); after the loss the last value."""
        if self._keepAlive is None:
            if not self.connected:
                return False
            self._keepAlive = bool(self.channel.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        return self._keepAlive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Have the kernel probe an idle connection, or not (the default)."""
        self._keepAlive = bool(enabled)
        if self.connected:
            self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, self._keepAlive)


class TCPPort(Port):
    """A listening TCP port. Owned by its reactor, used on its thread."""

    transport = TCPStream
    """The class of the transports of its connections; may be replaced, on an instance too."""

    def __init__(self, reactor: Reactor, factory: Factory, endpoint: ListenTCP) -> None:
        super().__init__(reactor, factory)
        self.port = endpoint.port
        self.interface = endpoint.interface
        self.backlog = endpoint.backlog
        _checkBacklog(endpoint.backlog)
        self._endpoint = endpoint
        self._local = _literal(reactor, endpoint.interface, endpoint.port)
        # Whether accepted sockets have the options of the listening one, as they do on Linux and the BSDs.
        self._inherits = False
        self._onlyHere = self._local[1][0] not in ("0.0.0.0", "::")

    def getHost(self) -> address.IPv4Address | address.IPv6Address:
        """The address that is being listened at, with the real port; after the end the last one known."""
        found: address.IPv4Address | address.IPv6Address = super().getHost()
        return found

    def createInternetSocket(self) -> socket.socket:
        """A stream socket of the interface's family, with the options that bind(2) looks at."""
        sock = self.reactor.backend.socket(self._local[0], socket.SOCK_STREAM)
        try:
            _sendAtOnce(sock)
            if self._endpoint.reuseAddress:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._endpoint.reusePort:
                option: int | None = getattr(socket, "SO_REUSEPORT", None)
                if option is None:
                    raise OSError(errno.ENOPROTOOPT, "reusePort: this system has no SO_REUSEPORT")
                sock.setsockopt(socket.SOL_SOCKET, option, 1)
        except OSError:
            sock.close()
            raise
        return sock

    def createSocket(self) -> socket.socket:
        sock: socket.socket | None = None
        try:
            sock = self.createInternetSocket()
            sock.bind(self._local[1])
            sock.listen(self.backlog)
        except OSError as exc:
            if sock is not None:
                sock.close()
            raise error.CannotListenError(self.interface, self.port, exc) from None
        self.host = _address(sock.getsockname())
        return sock

    def makeStream(self, connection: socket.socket, address: Any) -> TCPStream:
        if not self._inherits:
            self._inherits = _sendAtOnce(connection)
        # Who came to one address came to that one; the kernel need only be asked where all were listened at.
        host = self.host if self._onlyHere else _address(connection.getsockname())
        return self.transport(self.reactor, connection, host=host, peer=_address(address))


@dataclass(frozen=True)
class ListenTCP(ServerEndpoint):
    """Accept TCP connections.   tcp:8007:interface=127.0.0.1

    `port` is a number (0: a free one), `interface` an address literal: "" is every IPv4 address, "::" every IPv6 one
    (and, as the system is set up, every IPv4 one too). `backlog` connections wait to be accepted at the most.
    `reuseAddress` sets SO_REUSEADDR, `reusePort` SO_REUSEPORT (socket(7)).
    """

    port: int
    backlog: int = 50
    interface: str = ""
    reuseAddress: bool = True
    reusePort: bool = False

    def listen(self, reactor: Reactor, factory: Factory) -> TCPPort:
        """Listen now. Raises ValueError for a bad port or interface, error.CannotListenError."""
        port = TCPPort(reactor, factory, self)
        port.startListening()
        return port


@dataclass(frozen=True)
class ConnectTCP(ClientEndpoint):
    """Connect by TCP.   tcp:example.org:8007

    `host` is a name or an address literal; the addresses of a name are raced (RFC 8305). `port` is a number or the name
    of a service. `timeout` (seconds; none: for ever) covers the resolution of the name and the connecting.
    `bindAddress` is the local address and port to connect from.
    """

    host: str
    port: int | str
    timeout: float | None = 30.0
    bindAddress: tuple[str, int] | None = None

    def connect(self, reactor: Reactor, factory: ClientFactory) -> Connector:
        """Begin to connect; what goes wrong goes to `factory.clientConnectionFailed`. Raises TypeError for a host that
        is no str.
        """
        given: Any = self.host
        if not isinstance(given, str):
            raise TypeError(f"host is a name or an address literal, a str, not {given!r}")

        def connected(sock: socket.socket) -> Stream:
            try:
                _sendAtOnce(sock)
                return TCPStream(reactor, sock, host=_address(sock.getsockname()), peer=_address(sock.getpeername()))
            except OSError as exc:
                sock.close()
                raise error.getConnectError(exc) from None

        def race(found: list[address.IPv4Address | address.IPv6Address]) -> Deferred[Stream]:
            candidates = interleaved([_target(one) for one in found])
            bindAddress: Any = None
            if self.bindAddress is not None:
                try:
                    literal, number = self.bindAddress
                except (TypeError, ValueError):
                    raise TypeError(f"bindAddress is an address literal and a port, not {self.bindAddress!r}") from None
                family, bindAddress = _literal(reactor, literal, number)
                candidates = [candidate for candidate in candidates if candidate[0] == family]
                if not candidates:
                    raise error.ConnectBindError(
                        None, f"{self.host} has no address of the family of {self.bindAddress[0]}"
                    )
            return connectSocket(reactor, candidates, bindAddress).addCallback(connected)

        def open() -> Deferred[Stream]:
            if not isinstance(self.port, str):
                _checkPort(self.port)
            return resolve(reactor, self.host, self.port).addCallback(race)

        return Connector(reactor, factory, open, destination=self._destination(), timeout=self.timeout)

    def _destination(self) -> Any:
        port: Any = self.port
        kind = address.IPv6Address if ":" in self.host else address.IPv4Address
        return kind("TCP", self.host, port)


transport = Transport("TCP", listen=ListenTCP, connect=ConnectTCP)


def _sendAtOnce(sock: socket.socket) -> bool:
    """Small answers are to leave at once: Nagle's algorithm (RFC 896) waits for the peer's delayed acknowledgement.

    Whether it was so already.
    """
    if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY):
        return True
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return False


def _checkPort(port: object) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f"port must be 0-65535, not {port!r}")


def _checkBacklog(backlog: object) -> None:
    if isinstance(backlog, bool) or not isinstance(backlog, int) or not 0 <= backlog < 1 << 31:
        raise ValueError(f"backlog is how many connections may wait, 0 to 2147483647, not {backlog!r}")


def _literal(reactor: Reactor, interface: Any, port: Any) -> tuple[int, Any]:
    """The family of a local address literal, and the address as bind(2) of that family takes it. Raises ValueError."""
    _checkPort(port)
    if not isinstance(interface, str):
        raise TypeError(f"an interface is an address literal, a str, not {interface!r}")
    if not interface:
        return socket.AF_INET, ("0.0.0.0", port)
    try:
        if "\0" in interface:
            raise ValueError  # getaddrinfo(3) would not see the rest
        # A literal is not looked up anywhere, so this does not block; it is what knows scope ids.
        found = reactor.backend.getaddrinfo(
            interface, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV | socket.AI_PASSIVE
        )
    except (OSError, ValueError):
        raise ValueError(
            f"interface must be an IPv4 or IPv6 address literal such as 127.0.0.1, ::1 or fe80::1%eth0, "
            f"not {interface!r}"
        ) from None
    return found[0][0], found[0][4]


def _target(found: address.IPv4Address | address.IPv6Address) -> tuple[int, Any]:
    """The family of a resolved address, and the address as connect(2) takes it."""
    if isinstance(found, address.IPv6Address):
        host = found.host.partition("%")[0]
        return socket.AF_INET6, (host, found.port, found.flowInfo, found.scopeID)
    return socket.AF_INET, (found.host, found.port)


def _address(name: tuple[Any, ...]) -> address.IPv4Address | address.IPv6Address:
    """An address from what getsockname(2) and accept(2) give; a scope shows in the host, as fe80::1%eth0."""
    if len(name) == 2:
        return address.IPv4Address("TCP", name[0], name[1])
    host, port, flowInfo, scopeID = name
    if scopeID and "%" not in host:
        try:
            host = f"{host}%{socket.if_indextoname(scopeID)}"
        except OSError:
            host = f"{host}%{scopeID}"
    return address.IPv6Address("TCP", host, port, flowInfo, scopeID)
