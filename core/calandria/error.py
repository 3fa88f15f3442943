"""Every exception that this library raises or gives as a reason, and the one table from errno values to exceptions.

Twisted's names for Twisted's things. What each text says: what we were doing, to whom, and the system's own words. An
exception that keeps an OSError never keeps its traceback, which would keep frames, and all they refer to, alive.
"""

from __future__ import annotations

import errno
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from calandria.address import Address


class _Explained(Exception):
    """Has something to say for itself even when it was made without a message."""

    meaning = ""

    def __str__(self) -> str:
        return super().__str__() or self.meaning


def describe(exc: BaseException) -> str:
    """An exception in the words of a log line: `Connection refused (ECONNREFUSED, errno 111)`."""
    if isinstance(exc, OSError) and exc.strerror and exc.errno is not None:
        name = errno.errorcode.get(exc.errno)
        path = f": {exc.filename!r}" if exc.filename is not None else ""
        return f"{exc.strerror} ({f'{name}, ' if name else ''}errno {exc.errno}){path}"
    return str(exc) or type(exc).__name__


def _bare(exc: OSError) -> OSError:
    """The same exception without what holds on to frames."""
    exc.__traceback__ = exc.__context__ = exc.__cause__ = None
    return exc


# The reactor.


class ReactorNotRunning(_Explained, RuntimeError):
    """Something was asked of a reactor that only a running one can do."""

    meaning = "the reactor does not run"


class ReactorClosed(ReactorNotRunning):
    """The reactor was closed: no use of it is possible any more."""

    meaning = "the reactor was closed"


class ReactorAlreadyRunning(_Explained, RuntimeError):
    """A running reactor was asked to run, to take a turn inside a callback, or to be closed."""

    meaning = "the reactor runs already"


class ForkedReactor(_Explained, RuntimeError):
    """A child process used its parent's reactor."""

    meaning = "this reactor belongs to the parent process: make a new one after a fork"


class AlreadyCalled(_Explained, ValueError):
    """The delayed call was made already."""

    meaning = "the delayed call was made already"


class AlreadyCancelled(_Explained, ValueError):
    """The delayed call was cancelled already."""

    meaning = "the delayed call was cancelled already"


class QueueFull(_Explained, RuntimeError):
    """As many jobs as a thread pool holds wait for a thread."""

    meaning = "the thread pool's queue is full"


class UnsupportedDescriptor(_Explained, ValueError):
    """A descriptor that cannot be waited for: closed, a regular file, or more than the backend can hold."""

    meaning = "this descriptor cannot be waited for"


# Plugins.


class PluginError(_Explained):
    """A backend, a transport or another plugin that cannot be used, and why."""

    meaning = "a plugin cannot be used"


class BackendUnavailable(PluginError):
    """The backend that was asked for is not installed or cannot work here."""

    meaning = "the backend is not available"


class TransportUnavailable(PluginError, ValueError):
    """The transport that was asked for is not installed or cannot work here."""

    meaning = "the transport is not available"


# Listening.


class BindError(_Explained):
    """A local address could not be had."""

    meaning = "the address could not be bound"


class CannotListenError(BindError):
    """A port could not be opened at `interface` and `port`, because of `socketError`.

    `port` is a number for the Internet's protocols; for others, and with no interface, the text of the address.
    """

    def __init__(self, interface: str, port: int | str, socketError: OSError | str) -> None:
        if isinstance(socketError, OSError):
            _bare(socketError)
        super().__init__(interface, port, socketError)
        self.interface = interface
        self.port = port
        self.socketError = socketError

    @property
    def osError(self) -> OSError | None:
        """The system's error, where there is one."""
        return self.socketError if isinstance(self.socketError, OSError) else None

    def __str__(self) -> str:
        interface = f"[{self.interface}]" if ":" in self.interface else self.interface
        if interface:
            where = f"{interface}:{self.port}"
        else:
            where = f"port {self.port} of any interface" if isinstance(self.port, int) else self.port
        why = describe(self.socketError) if isinstance(self.socketError, OSError) else self.socketError
        return f"cannot listen on {where}: {why}"


class AlreadyListened(_Explained):
    """An endpoint that can listen only once was asked to a second time."""

    meaning = "this endpoint listens already, and can do so only once"


class NotListeningError(_Explained, RuntimeError):
    """The port does not listen."""

    meaning = "the port does not listen"


class UnsupportedAddressFamily(_Explained):
    """A socket of a family that this transport cannot use."""

    meaning = "sockets of this address family are not supported here"


class UnsupportedSocketType(_Explained):
    """A socket of a type (stream, datagram) that this transport cannot use."""

    meaning = "sockets of this type are not supported here"


# Datagrams.


class MulticastJoinError(_Explained):
    """A multicast group could not be joined or left."""

    meaning = "the multicast group could not be joined or left"


class MessageLengthError(_Explained):
    """The datagram is longer than can be sent."""

    meaning = "the datagram is too long"


class DatagramBufferFull(_Explained):
    """The system's send buffer is full: the datagram was not sent."""

    meaning = "the send buffer is full: the datagram was not sent"


class InvalidAddressError(ValueError):
    """A string that is no literal address, where no name will be resolved."""

    def __init__(self, address: object, message: str) -> None:
        super().__init__(address, message)
        self.address = address
        self.message = message

    def __str__(self) -> str:
        return f"{self.address!r} is no address: {self.message}"


# Names.


class DNSLookupError(_Explained, OSError):
    """A name could not be resolved."""

    meaning = "the name could not be resolved"


# Connecting.


class ConnectInProgressError(_Explained):
    """The attempt to connect has not ended yet."""

    meaning = "the attempt to connect has not ended yet"


class ConnectError(Exception):
    """A connection could not be made. `osError` is the system's error, where there is one; `string` tells more."""

    meaning = "could not connect"

    def __init__(self, osError: OSError | None = None, string: object = "") -> None:
        super().__init__(osError, string)
        self.osError = osError if osError is None else _bare(osError)
        self.string = string

    def __str__(self) -> str:
        parts = [self.meaning]
        if str(self.string):
            parts.append(str(self.string))
        if self.osError is not None and not (self.osError.strerror and self.osError.strerror in parts[-1]):
            parts.append(describe(self.osError))
        return ": ".join(parts)


class ConnectBindError(ConnectError):
    """The local end of a connection could not be made."""

    meaning = "could not make the local end of the connection"


class UnknownHostError(ConnectError):
    """There is no address for this name."""

    meaning = "could not connect, the host is not known"


class NoRouteError(ConnectError):
    """The network says that it has no way to this address."""

    meaning = "could not connect, there is no route to the host"


class ConnectionRefusedError(ConnectError):
    """Nobody listens at this address."""

    meaning = "could not connect, the other side refused"


class TCPTimedOutError(ConnectError):
    """The system gave up waiting for the other side."""

    meaning = "could not connect, the other side did not answer"


class BadFileError(ConnectError):
    """The path of a UNIX socket is not one that can be connected to."""

    meaning = "could not connect, the path is no usable socket"


class ServiceNameUnknownError(ConnectError):
    """The port was given as a service name that is not known."""

    meaning = "could not connect, the service name is not known"


class UserError(ConnectError):
    """The attempt was given up by whoever had begun it."""

    meaning = "the attempt to connect was given up"


class TimeoutError(UserError):
    """Our own deadline for connecting, resolving the name included, has passed."""

    meaning = "could not connect in time"


class SSLError(ConnectError):
    """TLS could not be set up."""

    meaning = "could not connect, TLS failed"


class VerifyError(_Explained):
    """A certificate could not be verified."""

    meaning = "the certificate could not be verified"


class PeerVerifyError(VerifyError):
    """The other side's certificate could not be verified."""

    meaning = "the other side's certificate could not be verified"


class CertificateError(_Explained):
    """There is something wrong with a certificate."""

    meaning = "there is something wrong with a certificate"


class NotConnectingError(_Explained, RuntimeError):
    """There is no attempt to connect that could be stopped."""

    meaning = "no attempt to connect is under way"


class ConnectingCancelledError(Exception):
    """The Deferred of an attempt to connect to `address` was cancelled."""

    def __init__(self, address: Address | str | None = None) -> None:
        super().__init__(address)
        self.address = address

    def __str__(self) -> str:
        return f"connecting to {self.address} was cancelled" if self.address is not None else "connecting was cancelled"


class NoProtocol(_Explained):
    """The factory made no protocol for the new connection."""

    meaning = "the factory made no protocol for the connection"


# The end of a connection.


class ConnectionClosed(Exception):
    """A connection has ended, in whichever way. `osError` is the system's error, where there is one."""

    meaning = "the connection has ended"

    def __init__(self, *args: object, osError: OSError | None = None) -> None:
        super().__init__(*args)
        self.osError = osError if osError is None else _bare(osError)

    def __str__(self) -> str:
        parts = [self.meaning, *(str(arg) for arg in self.args)]
        if self.osError is not None:
            parts.append(describe(self.osError))
        return ": ".join(parts)

    def __repr__(self) -> str:
        parts = [repr(arg) for arg in self.args]
        if self.osError is not None:
            parts.append(f"osError={self.osError!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


class ConnectionDone(ConnectionClosed):
    """The connection was closed as it should be, by either side."""

    meaning = "the connection was closed cleanly"


class ConnectionLost(ConnectionClosed):
    """The connection was closed, but not as it should be."""

    meaning = "the connection was lost"


class ConnectionAborted(ConnectionLost):
    """The connection was aborted on our side."""

    meaning = "the connection was aborted on our side"


class BufferOverflow(ConnectionAborted):
    """The connection was aborted because more bytes than its `maxBufferedBytes` waited to be sent."""

    meaning = "the connection was aborted, the other side takes too little"


class ConnectionFdescWentAway(ConnectionLost):
    """Somebody else closed the connection's descriptor."""

    meaning = "the connection's descriptor went away"


class FileDescriptorOverrun(ConnectionLost):
    """Descriptors cannot be passed: the other side broke the rules, or too few bytes were written to send them with."""

    meaning = "the connection was lost, its descriptors could not be passed"


class SSLTruncated(ConnectionLost):
    """The other side ended the connection without TLS's own farewell: what arrived may have been cut short."""

    meaning = "the connection was cut without TLS's close_notify"


class HalfCloseUnsupported(_Explained, RuntimeError):
    """This transport cannot end one direction alone."""

    meaning = "this transport cannot end one direction alone"


class PlaintextAfterStartTLS(_Explained, RuntimeError):
    """TLS was to start while bytes received before it were still unread: they would pass for encrypted ones."""

    meaning = "TLS was to start while plaintext was still unread"


# The one table from errno values to what a failed attempt to connect is called.
_connectErrors: dict[int | None, type[ConnectError]] = {
    errno.ECONNREFUSED: ConnectionRefusedError,
    errno.ENETUNREACH: NoRouteError,
    errno.EHOSTUNREACH: NoRouteError,
    errno.ETIMEDOUT: TCPTimedOutError,
}


def getConnectError(exc: Exception, string: str = "") -> ConnectError:
    """What went wrong while connecting, as a ConnectError; `string` may say to whom.

    An OSError becomes its `osError` and loses its traceback; a ConnectError is returned as it is.
    """
    if isinstance(exc, ConnectError):
        return exc
    if isinstance(exc, socket.gaierror):
        return UnknownHostError(exc, string)
    if isinstance(exc, OSError):
        return _connectErrors.get(exc.errno, ConnectError)(exc, string)
    return ConnectError(None, f"{string}: {describe(exc)}" if string else describe(exc))


def connectionLost(exc: OSError | None = None) -> ConnectionLost:
    """The reason of an established connection that ended with `exc`, which loses its traceback."""
    return ConnectionLost(osError=exc)
