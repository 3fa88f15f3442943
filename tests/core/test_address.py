"""Addresses: values that compare, hash and print as expected and cannot be changed."""

from __future__ import annotations

import copy
import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calandria.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress

each = pytest.mark.parametrize(
    ("one", "same", "others", "text", "shown"),
    [
        (
            IPv4Address("TCP", "192.0.2.1", 80),
            IPv4Address("TCP", "192.0.2.1", 80),
            [
                IPv4Address("UDP", "192.0.2.1", 80),
                IPv4Address("TCP", "192.0.2.2", 80),
                IPv4Address("TCP", "192.0.2.1", 81),
            ],
            "192.0.2.1:80",
            "IPv4Address('TCP', '192.0.2.1', 80)",
        ),
        (
            IPv6Address("TCP", "2001:db8::1", 80),
            IPv6Address("TCP", "2001:db8::1", 80, 0, 0),
            [
                IPv6Address("UDP", "2001:db8::1", 80),
                IPv6Address("TCP", "2001:db8::2", 80),
                IPv6Address("TCP", "2001:db8::1", 81),
                IPv6Address("TCP", "2001:db8::1", 80, 1),
                IPv6Address("TCP", "2001:db8::1", 80, 0, 1),
            ],
            "[2001:db8::1]:80",
            "IPv6Address('TCP', '2001:db8::1', 80, 0, 0)",
        ),
        (
            UNIXAddress(b"/nowhere/at/all"),
            UNIXAddress("/nowhere/at/all"),
            [UNIXAddress(b"/nowhere/else"), UNIXAddress(b"\0/nowhere/at/all"), UNIXAddress(None)],
            "/nowhere/at/all",
            "UNIXAddress(b'/nowhere/at/all')",
        ),
        (
            UNIXAddress(b"\0abstract"),
            UNIXAddress("\0abstract"),
            [UNIXAddress(b"abstract"), UNIXAddress(b"\0abstract\0"), UNIXAddress(None)],
            "@abstract",
            r"UNIXAddress(b'\x00abstract')",
        ),
        (UNIXAddress(None), UNIXAddress(b""), [UNIXAddress(b"None")], "(unnamed)", "UNIXAddress(None)"),
        (
            HostnameAddress(b"example.org", 80),
            HostnameAddress(b"example.org", 80),
            [HostnameAddress(b"example.com", 80), HostnameAddress(b"example.org", 81)],
            "example.org:80",
            "HostnameAddress(b'example.org', 80)",
        ),
    ],
)


@each
def test_values(one: Any, same: Any, others: list[Any], text: str, shown: str) -> None:
    assert one == same
    assert hash(one) == hash(same)
    for other in others:
        assert one != other
    assert len({one, same, *others}) == 1 + len(others)
    assert str(one) == text
    assert repr(one) == shown
    assert eval(shown) == one
    assert "\0" not in text + shown


@each
def test_never_equal_to_a_tuple(one: Any, same: Any, others: list[Any], text: str, shown: str) -> None:
    values = tuple(getattr(one, name) for name in one.__match_args__)
    assert one != values
    assert values != one
    assert one != text
    assert one not in [values, text, None, 0]


@each
def test_unchangeable(one: Any, same: Any, others: list[Any], text: str, shown: str) -> None:
    for name in one.__match_args__:
        with pytest.raises(AttributeError, match="make a new address"):
            setattr(one, name, "other")
        with pytest.raises(AttributeError, match="make a new address"):
            delattr(one, name)
    with pytest.raises(AttributeError):
        one.more = 1
    assert one == same


@each
def test_copies(one: Any, same: Any, others: list[Any], text: str, shown: str) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(one, protocol)) == one
    assert copy.copy(one) == one
    assert copy.deepcopy(one) == one


@each
def test_slotted(one: Any, same: Any, others: list[Any], text: str, shown: str) -> None:
    assert not hasattr(one, "__dict__")


@pytest.mark.parametrize("kind", [IPv4Address, IPv6Address])
def test_the_type_is_checked(kind: Any) -> None:
    with pytest.raises(ValueError, match="'TCP' or 'UDP', not 'tcp'"):
        kind("tcp", "::1", 80)


def test_defaults_and_names() -> None:
    one = IPv6Address(type="UDP", host="fe80::1%eth0", port=53, scopeID=3)
    assert (one.type, one.host, one.port, one.flowInfo, one.scopeID) == ("UDP", "fe80::1%eth0", 53, 0, 3)
    assert str(one) == "[fe80::1%eth0]:53"


def test_patterns() -> None:
    match IPv4Address("TCP", "192.0.2.1", 80):
        case IPv4Address("TCP", host, port):
            assert (host, port) == ("192.0.2.1", 80)
        case _:
            pytest.fail("no match")


def test_a_subclass_is_another_kind() -> None:
    class Mine(IPv4Address):
        __slots__ = ()

    assert Mine("TCP", "192.0.2.1", 80) != IPv4Address("TCP", "192.0.2.1", 80)
    assert Mine("TCP", "192.0.2.1", 80) == Mine("TCP", "192.0.2.1", 80)


@given(*[st.tuples(st.sampled_from(["TCP", "UDP"]), st.sampled_from("ab"), st.integers(0, 2))] * 2)
def test_equal_exactly_when_the_values_are(one: Any, other: Any) -> None:
    assert (IPv4Address(*one) == IPv4Address(*other)) == (one == other)
    assert (IPv6Address(*one) == IPv6Address(*other)) == (one == other)
    assert len({IPv4Address(*one), IPv6Address(*one), IPv4Address(*other), IPv6Address(*other)}) == 2 + 2 * (
        one != other
    )


def test_two_names_of_one_socket(tmp_path: Path) -> None:
    path, link, other = tmp_path / "socket", tmp_path / "link", tmp_path / "other"
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(str(path))
        second.bind(str(other))
        link.symlink_to(path)
        assert UNIXAddress(path) == UNIXAddress(link)
        assert hash(UNIXAddress(path)) == hash(UNIXAddress(link))
        assert UNIXAddress(path) != UNIXAddress(other)
        assert len({UNIXAddress(path), UNIXAddress(link), UNIXAddress(other)}) == 2
        one = UNIXAddress(path)
        path.unlink()
        assert one != UNIXAddress(link)
        assert one == UNIXAddress(path)
        assert hash(one) == hash(UNIXAddress(path))


def test_an_abstract_name_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "name").touch()
    (tmp_path / "link").symlink_to("name")
    assert UNIXAddress(b"name") == UNIXAddress(b"link")
    assert UNIXAddress(b"\0name") != UNIXAddress(b"\0link")
    assert UNIXAddress(b"\0name") != UNIXAddress(b"name")


@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="abstract names are Linux's")
def test_an_abstract_socket_as_the_kernel_names_it() -> None:
    name = f"\0calandria-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(name)
        assert UNIXAddress(sock.getsockname()) == UNIXAddress(name)


def test_no_control_character_is_shown() -> None:
    assert str(UNIXAddress(b"/run/a\nb\x1b[31m")) == r"/run/a\nb\x1b[31m"
    assert str(UNIXAddress(b"\0a\0b")) == r"@a\x00b"
    assert str(UNIXAddress(b"/run/\xff")) == r"/run/\udcff"
    assert str(HostnameAddress(b"\xff\0", 80)).isascii()
