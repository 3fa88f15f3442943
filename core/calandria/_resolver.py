"""Names to addresses without blocking: getaddrinfo(3) in threads of its own, and one door for whoever connects.

`ThreadedResolver` is the default `reactor.nameResolver`; `resolve` is how transports ask whatever stands there, and it
trusts nobody: a resolver that raises, answers with nonsense, twice, or from a thread of its own, gives one answer, in
the reactor's thread. Address literals need neither of the two.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from functools import partial

from calandria import address, defer, error, failure
from calandria.threads import NoThreadsAvailable, ThreadPool, deferToThreadPool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Literal, NoReturn, TypeAlias

    from calandria import Reactor, interfaces

    IPAddress: TypeAlias = address.IPv4Address | address.IPv6Address
    Kind: TypeAlias = Literal["TCP", "UDP"]

# getaddrinfo(3) waits for the network: few enough to be no burden, enough that a few slow names do not stop the others.
THREADS = 4

# RFC 1035, section 2.3.4; the name as it is written, without the final dot.
LONGEST_NAME = 253
LONGEST_LABEL = 63

_FAMILIES: dict[type[IPAddress], int] = {
    address.IPv4Address: socket.AF_INET,
    address.IPv6Address: socket.AF_INET6,
}


# The default resolver


class ThreadedResolver:
    """Resolves by the backend's getaddrinfo in its own threads; owned by its reactor, used on the reactor's thread.

    The threads come with the first name and end with the run; a name that is being resolved then has no addresses.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._pool: ThreadPool | None = None
        self._closing = False
        self._active: dict[_Resolution, None] = {}
        # What the threads have found out and the receivers have not been told.
        self._answers: deque[Callable[[], None]] = deque()
        self._triggers: dict[str, Any] = {}

    def resolveHostName(
        self,
        receiver: interfaces.ResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IPAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> _Resolution:
        """Tell `receiver` the addresses of a name, in the order of RFC 6724; that of a literal before returning.

        Raises ValueError for what cannot be a name and for other arguments that make no sense; TypeError.
        """
        name = asciiName(hostName)
        port = checkPort(portNumber)
        families = _families(addressTypes)
        kind = _kind(transportSemantics)
        resolution = _Resolution(name, receiver, self._active)
        receiver.resolutionBegan(resolution)
        if resolution.receiver is None:
            return resolution
        try:
            found = literal(name, port, kind)
            if found is None:
                self._lookUp(resolution, name, port, families, kind)
        except (ValueError, error.QueueFull, NoThreadsAvailable, error.ReactorNotRunning, error.ForkedReactor) as exc:
            resolution.failed(exc)
        else:
            if found is not None:
                resolution.resolved([found] if _FAMILIES[type(found)] in families else [])
        return resolution

    def _lookUp(self, resolution: _Resolution, name: str, port: int, families: tuple[int, ...], kind: Kind) -> None:
        reactor = self._reactor
        getaddrinfo = reactor.backend.getaddrinfo
        family = families[0] if len(families) == 1 else socket.AF_UNSPEC
        socketType = socket.SOCK_STREAM if kind == "TCP" else socket.SOCK_DGRAM

        def lookUp() -> list[IPAddress]:
            if resolution.receiver is None:
                return []  # cancelled while it waited: the thread is free for names that are still wanted
            return _addresses(getaddrinfo(name, port, family, socketType), kind)

        def deliver(success: bool, result: Any) -> None:
            self._answers.append(partial(resolution.resolved if success else resolution.failed, result))
            try:
                reactor.callFromThread(self._answer)
            except (error.ReactorNotRunning, error.ForkedReactor):
                pass  # it is between two runs: `_resume` comes with the next one

        self.pool().callInThreadWithCallback(deliver, lookUp)

    def _answer(self) -> None:
        """Give one answer; each in a call of its own, because receivers may raise."""
        if self._answers:
            self._answers.popleft()()

    def _resume(self) -> None:
        """A run begins: give the answers that came since the last one."""
        del self._triggers["startup"]
        for _ in range(len(self._answers)):
            self._reactor.callFromThread(self._answer)
        # Not now, when it would be called again at once.
        self._reactor.callLater(0, self._watch, "startup", self._resume)

    def _watch(self, event: str, function: Callable[[], None]) -> None:
        if self._pool is not None and event not in self._triggers:
            self._triggers[event] = self._reactor.addSystemEventTrigger("during", event, function)

    def pool(self) -> ThreadPool:
        """The threads. Raises error.ReactorNotRunning while they are being ended."""
        if self._closing:
            raise error.ReactorNotRunning("the reactor is stopping: no names are resolved any more")
        if self._pool is None:
            self._reactor.checkUsable()
            self._pool = ThreadPool(0, THREADS, "calandria resolver", spawn=self._reactor.backend.callInThread)
            self._pool.start()
            self._watch("shutdown", self.close)
            self._watch("startup", self._resume)
        return self._pool

    def close(self) -> None:
        """End the threads, waiting for none: all that is being resolved has no addresses. The next name begins anew."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for trigger in self._triggers.values():
            try:
                self._reactor.removeSystemEventTrigger(trigger)
            except (KeyError, ValueError):
                pass  # it is what called us
        self._triggers.clear()
        self._closing = True
        try:
            for resolution in list(self._active):
                try:
                    resolution.failed(error.ReactorNotRunning("the reactor was stopped"))
                except Exception as exc:
                    failure.log(f"the receiver of the addresses of {resolution.name} raised", exc)
            pool.stop(0, quiet=True)
        finally:
            self._closing = False
            self._answers.clear()


class _Resolution:
    """One name that is being resolved; owned by its resolver until it ends or is cancelled."""

    __slots__ = ("_active", "error", "name", "receiver")

    def __init__(self, name: str, receiver: interfaces.ResolutionReceiver, active: dict[_Resolution, None]) -> None:
        self.name = name
        self.error: BaseException | None = None
        """Why there are no addresses, if it is known."""
        self.receiver: interfaces.ResolutionReceiver | None = receiver
        self._active = active
        active[self] = None

    def cancel(self) -> None:
        """Tell the receiver nothing more."""
        self.receiver = None
        self._active.pop(self, None)

    def resolved(self, found: Sequence[IPAddress]) -> None:
        """Tell the receiver. It may cancel at any address."""
        try:
            for each in found:
                if self.receiver is None:
                    return
                self.receiver.addressResolved(each)
        finally:
            receiver = self.receiver
            self.cancel()
        if receiver is not None:
            receiver.resolutionComplete()

    def failed(self, reason: BaseException | failure.Failure) -> None:
        """There are no addresses."""
        self.error = reason.value if isinstance(reason, failure.Failure) else reason
        # The frames lead back to us.
        failure.Failure(self.error).cleanFailure()
        self.resolved(())


def _addresses(found: Sequence[tuple[Any, ...]], kind: Kind) -> list[IPAddress]:
    """What getaddrinfo(3) gave, as addresses, each once."""
    addresses: dict[IPAddress, None] = {}
    for family, _, _, _, name in found:
        if family == socket.AF_INET:
            addresses[address.IPv4Address(kind, name[0], name[1])] = None
        elif family == socket.AF_INET6 and len(name) == 4:
            host, port, flowInfo, scopeID = name
            if scopeID and "%" not in host:
                host = f"{host}%{_scopeName(scopeID)}"
            addresses[address.IPv6Address(kind, host, port, flowInfo, scopeID)] = None
    return list(addresses)


# What transports use


def resolve(
    reactor: Reactor, host: str, port: int | str, *, timeout: float | None = None
) -> defer.Deferred[list[IPAddress]]:
    """The TCP addresses of `host`, a name or an address literal, with `port`, a number or the name of a service.

    At least one, the best first; in a list. Must be called in the reactor's thread; cancelling it ends the resolution.
    The Deferred fails with error.DNSLookupError, whatever was wrong with the name or the reactor's resolver; with
    error.ServiceNameUnknownError; with error.TimeoutError after `timeout` seconds; with ValueError or TypeError for
    what is no port or no str at all.
    """
    try:
        name = _nameToLookUp(host)
        number = _portNumber(port)
    except (TypeError, ValueError, error.DNSLookupError, error.ServiceNameUnknownError) as exc:
        return defer.fail(exc)
    if number is not None:
        found = _resolveName(reactor, name, number)
    else:
        found = _portOfService(reactor, str(port)).addCallback(lambda number: _resolveName(reactor, name, number))
    if timeout is None:
        return found

    def late(result: object, seconds: float) -> NoReturn:
        raise error.TimeoutError(None, f"{_shown(name)} was not resolved in {seconds:g} s")

    return found.addTimeout(timeout, reactor, late)


def _resolveName(reactor: Reactor, name: str, port: int) -> defer.Deferred[list[IPAddress]]:
    try:
        found = literal(name, port)
    except ValueError as exc:
        return defer.fail(error.DNSLookupError(str(exc)))
    if found is not None:
        return defer.succeed([found])
    return _Request(reactor, name, port).begin()


class _Request:
    """One question to the reactor's resolver, and the receiver of its answer, of which nothing is taken on trust."""

    def __init__(self, reactor: Reactor, name: str, port: int) -> None:
        self._reactor = reactor
        self._thread = threading.get_ident()
        self._name = name
        self._port = port
        self._found: list[IPAddress] = []
        self._resolution: Any = None
        self._waiting: defer.Deferred[list[IPAddress]] | None = None

    def begin(self) -> defer.Deferred[list[IPAddress]]:
        """Ask. The Deferred fires once, in this thread."""
        deferred: defer.Deferred[list[IPAddress]] = defer.Deferred(lambda _: self._end())
        self._waiting = deferred
        try:
            resolver = self._reactor.nameResolver
            resolution = resolver.resolveHostName(self, self._name, self._port)
        except Exception as exc:
            self._fail(f"the resolver raised {type(exc).__name__}: {exc}", exc)
            return deferred
        self._begun(resolution)
        return deferred

    def resolutionBegan(self, resolution: interfaces.HostResolution) -> None:
        if self._isMine():
            self._begun(resolution)

    def addressResolved(self, found: Any) -> None:
        if not self._isMine():
            return
        if _isLiteral(found):
            self._found.append(found)
        else:
            self._fail(f"the resolver gave {_shown(found)}, which is no address")

    def resolutionComplete(self) -> None:
        if not self._isMine():
            return
        # It has ended by itself, so there is nothing to cancel.
        resolution, self._resolution = self._resolution, None
        found = self._found
        if found:
            waiting = self._end()
            if waiting is not None:
                waiting.callback(found)
            return
        why = getattr(resolution, "error", None)
        if isinstance(why, BaseException):
            self._fail(error.describe(why), why)
        else:
            self._fail("it has no address")

    def _isMine(self) -> bool:
        """Whether the call is one that we wait for, in the thread that we wait in."""
        if threading.get_ident() != self._thread:
            try:
                self._reactor.callFromThread(self._fail, "the resolver answered in another thread than the reactor's")
            except (error.ReactorNotRunning, error.ForkedReactor):
                pass
            return False
        return self._waiting is not None

    def _begun(self, resolution: Any) -> None:
        if self._waiting is None:
            return
        if callable(getattr(resolution, "cancel", None)):
            self._resolution = resolution
        else:
            self._fail(f"the resolver returned {_shown(resolution)}, which cannot be cancelled")

    def _fail(self, why: str, cause: BaseException | None = None) -> None:
        if self._waiting is None:
            return
        reason = error.DNSLookupError(f"{_shown(self._name)} could not be resolved: {why}")
        reason.__cause__ = cause
        waiting = self._end()
        if waiting is not None:
            waiting.errback(reason)

    def _end(self) -> defer.Deferred[list[IPAddress]] | None:
        """Want nothing more from the resolver."""
        resolution, self._resolution = self._resolution, None
        waiting, self._waiting = self._waiting, None
        self._found = []
        if resolution is not None:
            try:
                resolution.cancel()
            except Exception as exc:
                failure.log(f"cancel of {_shown(resolution)} raised", exc)
        return waiting


def _portOfService(reactor: Reactor, service: str) -> defer.Deferred[int]:
    """The number of a TCP port by its name; in a thread, because the list of them may be somewhere on the network."""
    getaddrinfo = reactor.backend.getaddrinfo

    def lookUp() -> int:
        try:
            found = getaddrinfo(None, service, 0, socket.SOCK_STREAM)
            port: int = found[0][4][1]
        except (OSError, UnicodeError, IndexError) as exc:
            osError = exc if isinstance(exc, OSError) else None
            raise error.ServiceNameUnknownError(osError, _shown(service)) from None
        return port

    resolver = reactor.nameResolver
    pool = resolver.pool() if isinstance(resolver, ThreadedResolver) else reactor.getThreadPool()
    return deferToThreadPool(reactor, pool, lookUp)


# Checks, by which bad input is refused before anybody is asked


def asciiName(host: object) -> str:
    """A host name in ASCII (IDNA 2003 for the rest). Raises ValueError for what cannot be one; TypeError."""
    if not isinstance(host, str):
        raise TypeError(f"a host is a name or an address, a str, not {_shown(host)}")
    if not host:
        raise ValueError("a host name cannot be empty")
    if "\0" in host:
        raise ValueError(f"a host name cannot contain NUL: {_shown(host)}")
    # Before anything is converted, which takes time for long ones.
    if len(host.removesuffix(".")) > LONGEST_NAME:
        raise ValueError(f"a host name has {LONGEST_NAME} characters at the most, not {len(host)}: {_shown(host)}")
    name = host
    if not host.isascii():
        try:
            name = host.encode("idna").decode("ascii")
        except UnicodeError as exc:
            raise ValueError(f"{_shown(host)} is no host name: {exc}") from None
    if ":" not in name:
        for label in name.removesuffix(".").split("."):
            if not 0 < len(label) <= LONGEST_LABEL:
                raise ValueError(
                    f"each part of a host name has 1 to {LONGEST_LABEL} characters, not {len(label)}: {_shown(host)}"
                )
    return name


def checkPort(port: object) -> int:
    """A port number. Raises ValueError, TypeError."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be a number, 0-65535, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be 0-65535, not {port!r}")
    return port


def _isLiteral(found: Any) -> bool:
    """Whether it is an address of ours that connect(2) can take as it stands: a name would be looked up there and then,
    in the reactor's thread.
    """
    if not isinstance(found, (address.IPv4Address, address.IPv6Address)):
        return False
    if not (_isA(str, found.host) and _isA(int, found.port) and 0 <= found.port <= 65535):
        return False
    family, host = socket.AF_INET, found.host
    if isinstance(found, address.IPv6Address):
        if not (_isA(int, found.scopeID) and _isA(int, found.flowInfo)):
            return False
        family, host = socket.AF_INET6, host.partition("%")[0]
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True


def literal(name: str, port: int, kind: Kind = "TCP") -> IPAddress | None:
    """The address that `name` spells out, or None for a name. Raises ValueError for what is neither.

    The scope of an IPv6 address is kept: `fe80::1%eth0` (RFC 4007, section 11).
    """
    if ":" not in name:
        try:
            socket.inet_pton(socket.AF_INET, name)
        except OSError:
            return None
        return address.IPv4Address(kind, name, port)
    host, percent, scope = name.partition("%")
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except OSError:
        raise ValueError(f"{_shown(name)} is neither a name nor an IPv6 address") from None
    return address.IPv6Address(kind, name, port, 0, _scopeID(scope) if percent else 0)


def _scopeID(scope: str) -> int:
    if scope.isascii() and scope.isdecimal() and 0 < int(scope) < 2**32:
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError:
        raise ValueError(
            f"there is no network interface {_shown(scope)}, which an IPv6 address named as its scope"
        ) from None


def _scopeName(scopeID: int) -> str:
    try:
        return socket.if_indextoname(scopeID)
    except OSError:
        return str(scopeID)


def _nameToLookUp(host: str) -> str:
    try:
        return asciiName(host)
    except ValueError as exc:
        raise error.DNSLookupError(str(exc)) from None


def _portNumber(port: int | str) -> int | None:
    """The number of a port; None for the name of a service."""
    if not isinstance(port, str):
        return checkPort(port)
    if port.isascii() and port.isdecimal():
        return checkPort(int(port[:6]))
    if not port or "\0" in port:
        raise error.ServiceNameUnknownError(None, _shown(port))
    return None


def _families(addressTypes: Sequence[type[IPAddress]] | None) -> tuple[int, ...]:
    if addressTypes is None:
        return tuple(_FAMILIES.values())
    families = tuple([_FAMILIES.get(each, 0) for each in addressTypes])
    if not families or 0 in families:
        raise ValueError(f"addressTypes are IPv4Address, IPv6Address or both, not {addressTypes!r}")
    return families


def _kind(transportSemantics: str) -> Kind:
    if transportSemantics == "TCP":
        return "TCP"
    if transportSemantics == "UDP":
        return "UDP"
    raise ValueError(f"transportSemantics is 'TCP' or 'UDP', not {transportSemantics!r}")


def _isA(kind: type, value: object) -> bool:
    """What the annotations promise, and a stranger may not have kept."""
    return isinstance(value, kind)


def _shown(value: object) -> str:
    """A value for a message, which a peer's long name must not flood."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
