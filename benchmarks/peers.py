"""Other event loops at the works of `calandria bench`: `python -m benchmarks.peers PEER WORK [COUNT]`.

Each is used with callbacks and no streams, by those of its interfaces that proved to be the fastest: asyncio reads into
a buffer (`BufferedProtocol`: half the CPU of an echo), uvloop does for bytes that are thrown away, and is no faster for
it where they must be `bytes` in the end.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from calandria.cli._works import BACKLOG, Ours, Peer, main

if TYPE_CHECKING:
    from collections.abc import Callable


class _Buffered(asyncio.BufferedProtocol):
    """Throws away what comes; one buffer for all connections, which is empty again before the next one reads."""

    buffer = memoryview(bytearray(65536))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        pass


class _BufferedEcho(_Buffered):
    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Asyncio(Peer):
    """The loop of the standard library."""

    echo: Callable[[], asyncio.BaseProtocol] = _BufferedEcho

    def __init__(self, backend: str | None) -> None:
        self.loop = self.newLoop()
        self.later, self.fromThread, self.stop = self.loop.call_later, self.loop.call_soon_threadsafe, self.loop.stop

    def newLoop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def listen(self, echo: bool) -> int:
        protocol = self.echo if echo else _Buffered
        server = self.loop.run_until_complete(self.loop.create_server(protocol, "127.0.0.1", 0, backlog=BACKLOG))
        return int(server.sockets[0].getsockname()[1])

    def run(self, begin: Callable[[], object]) -> None:
        self.loop.call_soon(begin)
        self.loop.run_forever()


class Uvloop(Asyncio):
    """libuv behind asyncio's interface, in C."""

    echo = _Echo

    def newLoop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
        return loop


class Twisted(Peer):
    """Twisted's reactor, on epoll."""

    def __init__(self, backend: str | None) -> None:
        self.reactor = importlib.import_module("twisted.internet.epollreactor").EPollReactor()
        self.later, self.fromThread, self.stop = self.reactor.callLater, self.reactor.callFromThread, self.reactor.stop

    def listen(self, echo: bool) -> int:
        names: Any = importlib.import_module("twisted.internet.protocol")

        def dataReceived(self: Any, data: bytes) -> None:
            self.transport.write(data)

        made = type("Echo", (names.Protocol,), {"dataReceived": dataReceived}) if echo else names.Protocol
        factory = names.ServerFactory.forProtocol(made)
        factory.noisy = False
        return int(self.reactor.listenTCP(0, factory, backlog=BACKLOG, interface="127.0.0.1").getHost().port)

    def run(self, begin: Callable[[], object]) -> None:
        self.reactor.callWhenRunning(begin)
        self.reactor.run()


PEERS = {"calandria": Ours, "uvloop": Uvloop, "asyncio": Asyncio, "twisted": Twisted}

if __name__ == "__main__":
    main(PEERS)
