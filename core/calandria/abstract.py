"""Twisted's names of `internet.abstract`: the base class of descriptors that write, and the test for address literals.

New code makes a transport of a `Channel` and a `Stream` (docs/plugins.md); a FileDescriptor is a Stream whose channel
is its own subclass.
"""

from __future__ import annotations

import socket

from calandria._stream import LOST, READ_SIZE, READING, SEND_SIZE, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from calandria._channel import Buffer
    from calandria._reactor import Reactor
    from calandria.failure import Failure

__all__ = ["FileDescriptor", "isIPAddress", "isIPv6Address"]


class _Answered(OSError):
    """What `writeSomeData` answered, on its way through the stream."""

    def __init__(self, answer: BaseException) -> None:
        super().__init__()
        self.answer = answer


class _Own:
    """The channel of a FileDescriptor: what its subclass says. Owned by it."""

    def __init__(self) -> None:
        self.owner: FileDescriptor | None = None

    def fileno(self) -> int:
        return -1 if self.owner is None else self.owner.fileno()

    def recv(self, limit: int) -> bytes:
        raise BlockingIOError  # whoever has a doRead of its own reads for itself

    def send(self, data: Buffer) -> int:
        assert self.owner is not None
        sent = self.owner.writeSomeData(data)
        if isinstance(sent, BaseException):
            raise _Answered(sent)
        return sent

    def close(self) -> None:
        self.owner = None


class FileDescriptor(Stream):
    """Writes with a buffer, takes producers, and ends in order; owned by its reactor, used on its thread.

    A subclass gives `fileno`, `doRead` and `writeSomeData`, and closes its descriptor in `connectionLost`, which is
    called once, whatever the reason. `reactor` is this thread's default if none is given.
    """

    SEND_LIMIT = SEND_SIZE
    """How many bytes are gathered for one call of `writeSomeData`, where there are many small ones."""

    bufferSize = READ_SIZE
    """How many bytes `doRead` had better ask for."""

    def __init__(self, reactor: Reactor | None = None) -> None:
        if reactor is None:
            from calandria import _default

            reactor = _default.current()
        channel = _Own()
        super().__init__(reactor, channel, host=None, peer=None)
        channel.owner = self
        self._ending = False

    # What a subclass gives.

    def fileno(self) -> int:
        """The descriptor; -1 while there is none."""
        return -1

    def writeSomeData(self, data: Buffer) -> int | BaseException:
        """Send some of `data`: how many bytes were taken (0: none now), or the exception that ends the connection."""
        raise NotImplementedError(f"{type(self).__name__} has no writeSomeData")

    def doRead(self) -> object:
        """The descriptor may be read. Any true result, an exception or a Failure, ends it."""
        raise NotImplementedError(f"{type(self).__name__} has no doRead")

    def connectionLost(self, reason: Failure) -> None:
        """It has ended; a subclass that overrides this calls it first."""
        self._ending = True
        super().connectionLost(reason)

    # What it may ask for.

    def startReading(self) -> None:
        """Call `doRead` whenever the descriptor may be read. Raises error.UnsupportedDescriptor."""
        if not self.reading and self.state in READING and self._begun():
            self.reactor.descriptors.addReader(self.fd, self)
            self.reading = True

    resumeProducing = startReading

    def stopReading(self) -> None:
        """Call it no more."""
        if self.fd >= 0:
            self.pauseProducing()

    def startWriting(self) -> None:
        """Call `doWrite` when the descriptor may be written. Raises error.UnsupportedDescriptor."""
        if self.state != LOST and self._begun():
            self.reactor.descriptors.addWriter(self.fd, self)

    def stopWriting(self) -> None:
        """Call it no more."""
        if self.fd >= 0:
            self.reactor.descriptors.removeWriter(self.fd)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` before the reactor sleeps again. Raises TypeError for anything that is not bytes."""
        self._begun()
        super().write(data)

    @property
    def dataBuffer(self) -> bytes:
        """What was written and has not been sent."""
        return b"".join((self._chunk, *(self._rest or ())[self._used :]))

    @property
    def streamingProducer(self) -> bool:
        """Whether the producer is a push producer."""
        return self._streaming

    @property
    def producerPaused(self) -> bool:
        """Whether the push producer is paused."""
        return self._producerPaused

    def _begun(self) -> bool:
        """Whether there is a descriptor; the reactor knows of us from then on."""
        if self.fd < 0 and self.state != LOST:
            self.fd = self.fileno()
            if self.fd >= 0:
                self.reactor.owned[self] = None
        return self.fd >= 0

    def _sendFailed(self, exc: OSError) -> None:
        """Of another stream only the writing would have ended; here the answer of `writeSomeData` is the end."""
        self._fail(exc.answer if isinstance(exc, _Answered) else exc)

    def _lost(self, reason: Failure, *, linger: bool = False, abort: bool = False) -> None:
        if self._ending or self.state == LOST:
            super()._lost(reason, linger=linger, abort=abort)
        else:
            self.connectionLost(reason)


def isIPAddress(addr: str, family: int = socket.AF_INET) -> bool:
    """Whether `addr` is an address literal of the family, and no name. An IPv6 literal may have a scope (RFC 4007).

    Nothing is ever resolved. Raises ValueError for a family that is neither AF_INET nor AF_INET6.
    """
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise ValueError(f"isIPAddress knows AF_INET and AF_INET6, not the family {family!r}")
    if family == socket.AF_INET6:
        addr, percent, scope = addr.partition("%")
        if percent and not scope:
            return False
    elif addr.count(".") != 3:
        return False  # inet_pton of some systems takes the short forms of inet_aton(3)
    try:
        socket.inet_pton(family, addr)
    except (OSError, ValueError):  # a NUL in it, no ASCII
        return False
    return True


def isIPv6Address(addr: str) -> bool:
    """Whether `addr` is an IPv6 literal."""
    return isIPAddress(addr, socket.AF_INET6)
