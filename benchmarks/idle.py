"""The Python heap that an idle TCP connection costs, beyond its socket object: `python benchmarks/idle.py [count]`.

Counts with tracemalloc what a server allocates for so many connections that were made and say nothing, and what as many
bare socket objects cost, and prints the difference, per connection, in bytes.
"""

from __future__ import annotations

import socket
import sys
import tracemalloc

from calandria import Factory, Protocol, Reactor


def measure(count: int, backend: str | None = None) -> tuple[float, float]:
    """Bytes per connection: of a connection in all, and of a bare non-blocking socket object."""
    with Reactor(backend) as reactor:
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, backlog=count, interface="127.0.0.1")
        # One connection first: what is made on first use is no connection's.
        clients = [socket.create_connection(("127.0.0.1", port.getHost().port))]
        while len(reactor.owned) < 2:
            reactor.iterate(1)
        clients += [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(count)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        while len(reactor.owned) < count + 2:
            reactor.iterate(1)
        connections = (tracemalloc.get_traced_memory()[0] - before) / count
        before = tracemalloc.get_traced_memory()[0]
        bare = [socket.socket() for _ in range(count)]
        for one in bare:
            one.setblocking(False)
        sockets = (tracemalloc.get_traced_memory()[0] - before) / count
        tracemalloc.stop()
        for one in (*bare, *clients):
            one.close()
    return connections, sockets


def main() -> None:
    """Print what was measured."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    connections, sockets = measure(count)
    sys.stdout.write(
        f"{count} idle connections: {connections:.0f} bytes of Python heap each, {sockets:.0f} of them the socket\n"
        f"beyond the socket object: {connections - sockets:.0f} bytes\n"
    )


if __name__ == "__main__":
    main()
