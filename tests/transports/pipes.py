"""Transports that a stranger might write, from the public building blocks only: a pipe in memory, and two layers.

The pipe has no descriptor and room for few bytes, so that everything above it meets refusals all the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calandria import address
from calandria.plugin import Buffer, Connector, Layer, Port, Stream

if TYPE_CHECKING:
    from calandria import ClientFactory, Factory, Reactor

ROOM = 1000


class MemoryChannel:
    """One end of a pipe in memory: bytes arrive in the reactor's next turn, at most `room` of them are under way."""

    def __init__(self, reactor: Reactor, room: int = ROOM) -> None:
        self.reactor = reactor
        self.room = room
        self.other: MemoryChannel
        self.stream: Stream
        self.waiting = bytearray()
        self.ending: list[BaseException | None] = []
        self.paused = False
        self.refused = False
        self.closed = False
        self.largest = 0
        self.calls: list[str] = []

    def fileno(self) -> int:
        return -1

    def recv(self, limit: int) -> bytes:
        raise BlockingIOError

    def send(self, data: Buffer) -> int:
        """Take what there is room for."""
        if self.other.closed:
            raise BrokenPipeError(32, "the other end of the pipe is closed")
        taken = bytes(data[: self.room - len(self.other.waiting)])
        if not taken:
            self.refused = True
            raise BlockingIOError
        self.refused = len(taken) < len(data)
        if not self.other.waiting:
            self.reactor.callLater(0, self.other.deliver)
        self.other.waiting += taken
        self.largest = max(self.largest, len(self.other.waiting))
        return len(taken)

    def deliver(self) -> None:
        """Hand on what waits, the end last."""
        if self.closed or self.paused:
            return
        if self.waiting:
            data, self.waiting = bytes(self.waiting), bytearray()
            self.stream.received(data)
            if self.other.refused and not self.other.closed:
                self.other.refused = False
                self.other.stream.drained()
        elif self.ending:
            self.stream.ended(self.ending.pop())
            return
        if self.waiting or self.ending:
            self.reactor.callLater(0, self.deliver)

    def end(self, error: BaseException | None = None) -> None:
        """The other end has gone, or sends no more."""
        if not self.closed and not self.ending:
            self.ending.append(error)
            self.reactor.callLater(0, self.deliver)

    def shutdown(self, how: int) -> None:
        self.calls.append("shutdown")
        self.other.end()

    def pause(self) -> None:
        self.calls.append("pause")
        self.paused = True

    def resume(self) -> None:
        self.calls.append("resume")
        self.paused = False
        self.reactor.callLater(0, self.deliver)

    def abort(self) -> None:
        self.calls.append("abort")
        self.other.end(ConnectionResetError(104, "the other end of the pipe was aborted"))

    def close(self) -> None:
        self.calls.append("close")
        self.closed = True
        self.waiting.clear()
        self.other.end()


def memoryPair(reactor: Reactor, room: int = ROOM) -> tuple[Stream, Stream]:
    """Two streams that are connected to each other in memory, neither of them started."""
    first, second = MemoryChannel(reactor, room), MemoryChannel(reactor, room)
    first.other, second.other = second, first
    here, there = address.UNIXAddress(b"\0here"), address.UNIXAddress(b"\0there")
    first.stream = Stream(reactor, first, host=here, peer=there)
    second.stream = Stream(reactor, second, host=there, peer=here)
    return first.stream, second.stream


def connectMemory(reactor: Reactor, port: Port, factory: ClientFactory, room: int = ROOM) -> Connector:
    """Connect to a port that has no socket."""

    def open() -> Stream:
        client, server = memoryPair(reactor, room)
        reactor.callLater(0, port.accepted, server)
        return client

    return Connector(reactor, factory, open, destination="memory")


def listenMemory(reactor: Reactor, factory: Factory) -> Port:
    """A port that has no socket."""
    port = Port(reactor, factory, host=address.UNIXAddress(b"\0memory"))
    port.startListening()
    return port


class Turned(Layer):
    """Every byte turned upside down (XOR 255)."""

    TABLE = bytes(255 - value for value in range(256))

    def encode(self, data: Buffer) -> bytes:
        return bytes(data).translate(self.TABLE)

    def dataReceived(self, data: bytes) -> None:
        if self.upper is not None:
            self.upper.received(data.translate(self.TABLE))


class Greeted(Layer):
    """Each side says b"hello\\n" first; the upper stream is there when the other's has come."""

    def connectionMade(self) -> None:
        self.seen = b""
        self.transport.write(b"hello\n")

    def dataReceived(self, data: bytes) -> None:
        if self.upper is not None:
            self.upper.received(data)
            return
        self.seen += data
        greeting, end, rest = self.seen.partition(b"\n")
        if end:
            if greeting != b"hello":
                raise ValueError(f"no greeting: {greeting!r}")
            self.establish()
            upper: Any = self.upper
            if rest and upper is not None:
                upper.received(rest)
