"""Channels: what moves the bytes of a stream and knows nothing else.

A non-blocking socket is one as it is. Here are the contract, and the channel of any other descriptor.
"""

from __future__ import annotations

import os
import stat
from errno import EIO
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from calandria import error

if TYPE_CHECKING:
    from collections.abc import Callable

Buffer: TypeAlias = bytes | memoryview
"""What a stream offers a channel to send."""


class Channel(Protocol):
    """What a Stream needs of whatever it runs over; owned by its stream, used on the reactor's thread.

    Optional, found by looking: `shutdown(how)`, which ends one direction as socket.shutdown(2) does, makes half-closing
    possible; `abort()` is called before `close()` when the connection is to be reset; `pause()` and `resume()` tell a
    channel without a descriptor when bytes are wanted; `detach()` is called instead of `close()` when the descriptor
    was closed by somebody else.
    """

    def fileno(self) -> int:
        """The descriptor that the reactor is to watch; -1: none, and the owner calls `received`, `ended` and `drained`
        of the stream.
        """
        ...

    def recv(self, limit: int, /) -> bytes:
        """At most `limit` bytes; b"" at the end of the stream. Raises BlockingIOError: nothing now; OSError: lost."""
        ...

    def send(self, data: Buffer, /) -> int:
        """How many bytes of `data` were taken. Raises BlockingIOError: none now; OSError: none ever again."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class FileChannel:
    """The channel of a descriptor that is no socket: a pipe, a terminal, a serial line, a regular file.

    `close` is called instead of os.close if something else owns the descriptor. The descriptor is made non-blocking.
    Owned by its stream.
    """

    __slots__ = ("_close", "_fd", "alwaysReady")

    def __init__(self, fd: int, close: Callable[[], object] | None = None) -> None:
        self._fd = fd
        self._close = close
        setBlocking: Any = getattr(os, "set_blocking", None)
        if setBlocking is None:
            raise error.UnsupportedDescriptor("this system can make only sockets non-blocking")
        setBlocking(fd, False)
        self.alwaysReady = stat.S_ISREG(os.fstat(fd).st_mode)

    def fileno(self) -> int:
        return self._fd

    def recv(self, limit: int) -> bytes:
        """Up to `limit` bytes; b"" at the end of the stream, which for a terminal whose other side has gone is EIO
        (tty_ioctl(4)).
        """
        try:
            return os.read(self._fd, limit)
        except OSError as exc:
            if exc.errno == EIO:
                return b""
            raise

    def send(self, data: Buffer) -> int:
        """How many bytes of `data` were taken."""
        return os.write(self._fd, data)

    def detach(self) -> None:
        """The descriptor is not ours any more."""
        self._fd = -1

    def close(self) -> None:
        """Close the descriptor, once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if self._close is None:
                os.close(fd)
            else:
                self._close()
