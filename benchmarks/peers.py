"""Other event loops at the works of `calandria bench`: `python -m benchmarks.peers PEER WORK [COUNT]`.

Each is used as its own documentation shows it for a server that cares about speed: callbacks, no streams.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from calandria.cli._works import BACKLOG, Ours, Peer, main

if TYPE_CHECKING:
    from collections.abc import Callable


class Asyncio(Peer):
    """The loop of the standard library."""

    def __init__(self, backend: str | None) -> None:
        self.loop = self.newLoop()
        self.later, self.fromThread, self.stop = self.loop.call_later, self.loop.call_soon_threadsafe, self.loop.stop

    def newLoop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def listen(self, echo: bool) -> int:
        protocol = _AsyncioEcho if echo else asyncio.Protocol
        server = self.loop.run_until_complete(self.loop.create_server(protocol, "127.0.0.1", 0, backlog=BACKLOG))
        return int(server.sockets[0].getsockname()[1])

    def run(self, begin: Callable[[], object]) -> None:
        self.loop.call_soon(begin)
        self.loop.run_forever()


class _AsyncioEcho(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Uvloop(Asyncio):
    """libuv behind asyncio's interface, in C."""

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
