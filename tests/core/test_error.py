"""The exceptions: who is whose subclass, what each says for itself, and that none keeps frames alive."""

from __future__ import annotations

import builtins
import copy
import errno
import gc
import os
import pickle
import socket
import weakref
from typing import Any

import pytest

from calandria import address, error

classes = sorted(
    {value for value in vars(error).values() if isinstance(value, type) and issubclass(value, Exception)}
    - {value for value in vars(builtins).values() if isinstance(value, type)},
    key=lambda kind: kind.__name__,
)
public = [kind for kind in classes if not kind.__name__.startswith("_")]


class Held:
    """Something in a frame: it lives as long as the frame does."""


def raisedHere(exc: OSError) -> tuple[OSError, weakref.ref[Held]]:
    """`exc` with a traceback, the second of two: it has a context that was raised as well."""
    held = Held()
    try:
        try:
            raise KeyError("the context")
        except KeyError:
            raise exc  # noqa: B904  # the context is what is tested
    except OSError as raised:
        return raised, weakref.ref(held)


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        (error.CannotListenError, error.BindError),
        (error.DNSLookupError, OSError),
        (error.ConnectBindError, error.ConnectError),
        (error.UnknownHostError, error.ConnectError),
        (error.NoRouteError, error.ConnectError),
        (error.ConnectionRefusedError, error.ConnectError),
        (error.TCPTimedOutError, error.ConnectError),
        (error.BadFileError, error.ConnectError),
        (error.ServiceNameUnknownError, error.ConnectError),
        (error.SSLError, error.ConnectError),
        (error.UserError, error.ConnectError),
        (error.TimeoutError, error.UserError),
        (error.PeerVerifyError, error.VerifyError),
        (error.NotConnectingError, RuntimeError),
        (error.NotListeningError, RuntimeError),
        (error.ReactorNotRunning, RuntimeError),
        (error.ReactorAlreadyRunning, RuntimeError),
        (error.ReactorClosed, error.ReactorNotRunning),
        (error.ForkedReactor, RuntimeError),
        (error.AlreadyCalled, ValueError),
        (error.AlreadyCancelled, ValueError),
        (error.InvalidAddressError, ValueError),
        (error.ConnectionDone, error.ConnectionClosed),
        (error.ConnectionLost, error.ConnectionClosed),
        (error.ConnectionAborted, error.ConnectionLost),
        (error.BufferOverflow, error.ConnectionAborted),
        (error.ConnectionFdescWentAway, error.ConnectionLost),
        (error.FileDescriptorOverrun, error.ConnectionLost),
        (error.SSLTruncated, error.ConnectionLost),
        (error.BackendUnavailable, error.PluginError),
        (error.TransportUnavailable, error.PluginError),
        (error.TransportUnavailable, ValueError),
    ],
)
def test_kinds(child: type[Exception], parent: type[Exception]) -> None:
    assert issubclass(child, parent)


def test_a_clean_end_is_no_loss() -> None:
    assert not issubclass(error.ConnectionDone, error.ConnectionLost)
    assert not issubclass(error.DNSLookupError, error.ConnectError)


def made(kind: type[Exception]) -> Exception:
    """One of each, in the shortest way."""
    if kind is error.CannotListenError:
        return error.CannotListenError("127.0.0.1", 80, OSError(errno.EADDRINUSE, "Address already in use"))
    if kind is error.InvalidAddressError:
        return error.InvalidAddressError("nonsense", "not a literal IPv4 address")
    return kind()


@pytest.mark.parametrize("kind", public)
def test_says_something_and_survives_pickling(kind: type[Exception]) -> None:
    exc = made(kind)
    assert len(str(exc)) > 10
    for other in (copy.copy(exc), copy.deepcopy(exc), pickle.loads(pickle.dumps(exc))):
        assert type(other) is kind
        assert str(other) == str(exc)
        assert vars(other).keys() == vars(exc).keys()


@pytest.mark.parametrize("kind", [kind for kind in public if issubclass(kind, error.ConnectError)])
def test_connect_errors_carry_the_system_error(kind: type[error.ConnectError]) -> None:
    assert kind().osError is None
    cause = OSError(errno.EACCES, "Permission denied")
    exc = kind(cause, "192.0.2.1:80")
    assert exc.osError is cause
    assert str(exc).startswith(kind.meaning)
    assert "192.0.2.1:80" in str(exc)
    assert str(exc).endswith(f"Permission denied (EACCES, errno {errno.EACCES})")
    assert str(pickle.loads(pickle.dumps(exc))) == str(exc)


def test_a_connect_error_does_not_repeat_itself() -> None:
    exc = error.ConnectBindError(OSError(errno.EADDRINUSE, "Address already in use"), "no: Address already in use")
    assert str(exc).count("Address already in use") == 1


@pytest.mark.parametrize("kind", [kind for kind in public if issubclass(kind, error.ConnectionClosed)])
def test_ends_of_connections_carry_the_system_error(kind: type[error.ConnectionClosed]) -> None:
    assert kind().osError is None
    assert str(kind()) == kind.meaning
    exc = kind("while tested", osError=OSError(errno.ECONNRESET, "Connection reset by peer"))
    assert str(exc) == f"{kind.meaning}: while tested: Connection reset by peer (ECONNRESET, errno {errno.ECONNRESET})"
    assert (
        repr(exc) == f"{kind.__name__}('while tested', osError=ConnectionResetError(104, 'Connection reset by peer'))"
    )
    again: error.ConnectionClosed = pickle.loads(pickle.dumps(exc))
    assert str(again) == str(exc)
    assert isinstance(again.osError, builtins.ConnectionResetError)


def test_cannot_listen_says_where_and_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with socket.socket() as second, pytest.raises(OSError, match="in use") as caught:
            second.bind(("127.0.0.1", port))
    exc = error.CannotListenError("127.0.0.1", port, caught.value)
    assert (
        str(exc) == f"cannot listen on 127.0.0.1:{port}: Address already in use (EADDRINUSE, errno {errno.EADDRINUSE})"
    )
    assert (exc.interface, exc.port, exc.socketError, exc.osError) == ("127.0.0.1", port, caught.value, caught.value)
    assert caught.value.__traceback__ is None


@pytest.mark.parametrize(
    ("interface", "port", "where"),
    [
        ("::1", 80, "[::1]:80"),
        ("", 80, "port 80 of any interface"),
        ("", str(address.UNIXAddress("/run/x")), "/run/x"),
    ],
)
def test_cannot_listen_names_every_kind_of_address(interface: str, port: int | str, where: str) -> None:
    assert str(error.CannotListenError(interface, port, "reasons")) == f"cannot listen on {where}: reasons"
    assert error.CannotListenError(interface, port, "reasons").osError is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ECONNREFUSED, error.ConnectionRefusedError),
        (errno.ENETUNREACH, error.NoRouteError),
        (errno.EHOSTUNREACH, error.NoRouteError),
        (errno.ETIMEDOUT, error.TCPTimedOutError),
        (errno.EACCES, error.ConnectError),
        (errno.ENOENT, error.ConnectError),
    ],
)
def test_the_table(code: int, kind: type[error.ConnectError]) -> None:
    cause = OSError(code, os.strerror(code))
    exc = error.getConnectError(cause)
    assert type(exc) is kind
    assert exc.osError is cause
    assert os.strerror(code) in str(exc)
    assert errno.errorcode[code] in str(exc)


def test_an_unknown_name() -> None:
    cause = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    exc = error.getConnectError(cause, "nowhere.invalid")
    assert type(exc) is error.UnknownHostError
    assert exc.osError is cause
    assert "nowhere.invalid: Name or service not known" in str(exc)


def test_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = server.getsockname()
    with socket.socket() as client, pytest.raises(OSError, match="refused") as caught:
        client.connect(peer)
    exc = error.getConnectError(caught.value, f"{peer[0]}:{peer[1]}")
    assert type(exc) is error.ConnectionRefusedError
    assert f"127.0.0.1:{peer[1]}: Connection refused (ECONNREFUSED" in str(exc)


def test_what_is_no_os_error_keeps_its_words() -> None:
    exc = error.getConnectError(OverflowError("port must be 0-65535"), "192.0.2.1")
    assert type(exc) is error.ConnectError
    assert exc.osError is None
    assert str(exc) == "could not connect: 192.0.2.1: port must be 0-65535"


def test_what_is_a_connect_error_stays_what_it_is() -> None:
    exc = error.UserError(string="enough")
    assert error.getConnectError(exc) is exc


@pytest.mark.parametrize("wrap", [error.getConnectError, error.connectionLost])
def test_no_frame_is_kept(wrap: Any) -> None:
    gc.disable()
    try:
        cause, held = raisedHere(OSError(errno.ECONNRESET, "Connection reset by peer"))
        assert held() is not None
        exc = wrap(cause)
        assert exc.osError is cause
        assert held() is None
        assert exc.__traceback__ is None
    finally:
        gc.enable()


def test_a_lost_connection_without_an_error() -> None:
    exc = error.connectionLost(None)
    assert type(exc) is error.ConnectionLost
    assert exc.osError is None
    assert str(exc) == "the connection was lost"


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (OSError(errno.ENOENT, "No such file or directory", "/x"), "No such file or directory (ENOENT, errno 2): '/x'"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known (errno -2)"),
        (OSError("words only"), "words only"),
        (KeyError(), "KeyError"),
    ],
)
def test_describe(exc: BaseException, text: str) -> None:
    assert error.describe(exc) == text


def test_who_was_being_connected_to() -> None:
    where = address.IPv4Address("TCP", "192.0.2.1", 80)
    exc = error.ConnectingCancelledError(where)
    assert exc.address is where
    assert str(exc) == "connecting to 192.0.2.1:80 was cancelled"


def test_what_is_no_address() -> None:
    exc = error.InvalidAddressError("localhost", "not a literal IPv4 address")
    assert (exc.address, exc.message) == ("localhost", "not a literal IPv4 address")
    assert str(exc) == "'localhost' is no address: not a literal IPv4 address"
