"""Where the ends of a connection are: small values that are compared, hashed and printed, never changed.

Plain slotted classes: a connection makes two of them, and dataclasses would cost every program their import. None is
equal to a tuple, so that an address and what a socket returned are never mistaken for each other.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Literal, NoReturn, TypeAlias

_set = object.__setattr__


class _Fields:
    """What the addresses share: the values of `__match_args__`, in the order of the constructor's arguments."""

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__match_args__])

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{self!r} cannot be changed: make a new address")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self!r} cannot be changed: make a new address")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), *self._values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([repr(value) for value in self._values()])})"

    def __reduce__(self) -> tuple[type[_Fields], tuple[Any, ...]]:
        return type(self), self._values()


class IPv4Address(_Fields):
    """One end of an IPv4 conversation: `type` "TCP" or "UDP", `host` in dotted decimal, `port`."""

    __slots__ = ("host", "port", "type")
    __match_args__ = ("type", "host", "port")

    if TYPE_CHECKING:
        type: Literal["TCP", "UDP"]
        host: str
        port: int

    def __init__(self, type: Literal["TCP", "UDP"], host: str, port: int) -> None:
        if type not in ("TCP", "UDP"):
            raise ValueError(f"the type of an address is 'TCP' or 'UDP', not {type!r}")
        _set(self, "type", type)
        _set(self, "host", host)
        _set(self, "port", port)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class IPv6Address(_Fields):
    """One end of an IPv6 conversation. `host` shows the scope where there is one, as in `fe80::1%eth0`."""

    __slots__ = ("flowInfo", "host", "port", "scopeID", "type")
    __match_args__ = ("type", "host", "port", "flowInfo", "scopeID")

    if TYPE_CHECKING:
        type: Literal["TCP", "UDP"]
        host: str
        port: int
        flowInfo: int
        scopeID: int | str

    def __init__(
        self, type: Literal["TCP", "UDP"], host: str, port: int, flowInfo: int = 0, scopeID: int | str = 0
    ) -> None:
        if type not in ("TCP", "UDP"):
            raise ValueError(f"the type of an address is 'TCP' or 'UDP', not {type!r}")
        _set(self, "type", type)
        _set(self, "host", host)
        _set(self, "port", port)
        _set(self, "flowInfo", flowInfo)
        _set(self, "scopeID", scopeID)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}"


class UNIXAddress(_Fields):
    """The path of a UNIX socket as bytes (str is encoded); None for a socket without one.

    Two names of one file are equal, and hash alike while the file exists. A name that begins with NUL is abstract
    (Linux): it is no path, and only ever equal to itself.
    """

    __slots__ = ("name",)
    __match_args__ = ("name",)

    if TYPE_CHECKING:
        name: bytes | None

    def __init__(self, name: bytes | str | os.PathLike[bytes] | os.PathLike[str] | None) -> None:
        # A socket without a name is reported by the kernel as an empty one.
        _set(self, "name", os.fsencode(name) or None if name is not None else None)

    def _file(self) -> tuple[int, int] | None:
        """Device and inode, if the name is the path of something that exists."""
        if self.name is None or b"\0" in self.name:
            return None
        try:
            status = os.stat(self.name)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        if self.name == other.name:
            return True
        file = self._file()
        return file is not None and file == other._file()

    def __hash__(self) -> int:
        return hash((type(self), self._file() or self.name))

    def __str__(self) -> str:
        if self.name is None:
            return "(unnamed)"
        abstract = self.name.startswith(b"\0")
        text = os.fsdecode(self.name[1:] if abstract else self.name)
        return ("@" if abstract else "") + "".join([c if c.isprintable() else ascii(c)[1:-1] for c in text])


class HostnameAddress(_Fields):
    """A host by its name, not resolved yet: `hostname` as ASCII bytes, `port`."""

    __slots__ = ("hostname", "port")
    __match_args__ = ("hostname", "port")

    if TYPE_CHECKING:
        hostname: bytes
        port: int

    def __init__(self, hostname: bytes, port: int) -> None:
        _set(self, "hostname", hostname)
        _set(self, "port", port)

    def __str__(self) -> str:
        return f"{self.hostname.decode('ascii', 'backslashreplace')}:{self.port}"


if TYPE_CHECKING:
    Address: TypeAlias = IPv4Address | IPv6Address | UNIXAddress | HostnameAddress
