"""The works whose instructions are counted, each done by us and, for comparison, by the barest loop that does the same.

    python -m benchmarks.counted WORK ours|bare ROUNDS

Nothing here depends on time: a client process and the loop take turns, by a byte over a socket of their own, so that
every run takes the same steps. One round is ITEMS messages, connections, timers or calls.
"""

from __future__ import annotations

import heapq
import select
import socket
import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from calandria import Protocol, Reactor, ServerFactory

if TYPE_CHECKING:
    from collections.abc import Callable

ITEMS = 16
"""What a port accepts in one turn: all of a round is done in the same turns."""

SIZE = 1024


class Client:
    """The other process, which connects, and then works while we wait."""

    def __init__(self, port: int, work: str, rounds: int) -> None:
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-m", "benchmarks.counted", "client", work, str(rounds), str(port)]
        with theirs:
            self._process = subprocess.Popen([*command, str(theirs.fileno())], pass_fds=[theirs.fileno()])

    def step(self) -> bool:
        """Let it take its next step; whether there is one."""
        self._control.send(b"\0")
        return bool(self._control.recv(1))

    def close(self) -> None:
        self._control.close()
        self._process.wait()


def client(work: str, rounds: int, port: int, control: socket.socket) -> None:
    """What the other process does: after each step a byte, before each step a byte."""

    def step() -> None:
        control.recv(1)

    def connect() -> list[socket.socket]:
        return [socket.create_connection(("127.0.0.1", port)) for _ in range(ITEMS)]

    def exchange(connections: list[socket.socket], message: bytes) -> None:
        for one in connections:
            one.sendall(message)
        control.send(b"\0")
        step()
        for one in connections:
            left = len(message)
            while left:
                left -= len(one.recv(left))

    step()
    if work == "accept":
        for _ in range(rounds):
            connections = connect()
            control.send(b"\0")
            step()
            exchange(connections, b"x" * 64)
            for one in connections:
                one.close()
            control.send(b"\0")
            step()
    else:
        connections = connect()
        control.send(b"\0")
        step()
        for _ in range(rounds):
            exchange(connections, b"x" * SIZE)


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


def serveOurs(work: str, rounds: int) -> None:
    """Echo by a reactor."""
    factory = ServerFactory.forProtocol(Echo)
    factory.noisy = False
    with Reactor("epoll") as reactor:
        host: Any = reactor.listenTCP(0, factory, backlog=ITEMS, interface="127.0.0.1").getHost()
        other = Client(host.port, work, rounds)
        while other.step():
            reactor.iterate(0)
        other.close()


def serveBare(work: str, rounds: int) -> None:
    """Echo by system calls and a table."""
    epoll: Any = getattr(select, "epoll")()  # noqa: B009  # not on every platform
    connections: dict[int, socket.socket] = {}
    with socket.create_server(("127.0.0.1", 0), backlog=ITEMS) as listener:
        listener.setblocking(False)
        epoll.register(listener.fileno(), 1)
        other = Client(listener.getsockname()[1], work, rounds)
        while other.step():
            for fd, _ in epoll.poll(0, 256):
                one = connections.get(fd)
                if one is None:
                    for _ in range(ITEMS):
                        new, _ = listener.accept()
                        new.setblocking(False)
                        epoll.register(new.fileno(), 1)
                        connections[new.fileno()] = new
                    continue
                data = one.recv(65536)
                if data:
                    one.send(data)
                else:
                    epoll.unregister(fd)
                    connections.pop(fd).close()
        other.close()
    epoll.close()
    for one in connections.values():
        one.close()


def nothing() -> None:
    """What timers and calls from threads call."""


def timersOurs(rounds: int) -> None:
    with Reactor("epoll") as reactor:
        for _ in range(rounds):
            for _ in range(ITEMS):
                reactor.callLater(0, nothing)
            reactor.iterate(0)


def timersBare(rounds: int) -> None:
    heap: list[tuple[float, int, Callable[[], None]]] = []
    for _ in range(rounds):
        for number in range(ITEMS):
            heapq.heappush(heap, (time.monotonic(), number, nothing))
        while heap:
            heapq.heappop(heap)[2]()


def cancelOurs(rounds: int) -> None:
    with Reactor("epoll") as reactor:
        for _ in range(rounds * ITEMS):
            reactor.callLater(60, nothing).cancel()


def cancelBare(rounds: int) -> None:
    heap: list[tuple[float, int, Callable[[], None]]] = []
    for number in range(rounds * ITEMS):
        heapq.heappush(heap, (time.monotonic() + 60, number, nothing))
        heap.clear()


def callsOurs(rounds: int) -> None:
    with Reactor("epoll") as reactor:
        for _ in range(rounds):
            for _ in range(ITEMS):
                reactor.callFromThread(nothing)
            reactor.iterate(0)


def callsBare(rounds: int) -> None:
    calls: deque[Callable[[], None]] = deque()
    for _ in range(rounds):
        for _ in range(ITEMS):
            calls.append(nothing)
        while calls:
            calls.popleft()()


SERVED = ("echo", "accept")
ALONE: dict[str, dict[str, Callable[[int], None]]] = {
    "timers": {"ours": timersOurs, "bare": timersBare},
    "cancel": {"ours": cancelOurs, "bare": cancelBare},
    "calls": {"ours": callsOurs, "bare": callsBare},
}
WORKS = (*SERVED, *ALONE)


def main() -> None:
    """One work, as the arguments say."""
    if sys.argv[1] == "client":
        work, rounds, port, control = sys.argv[2], *map(int, sys.argv[3:])
        with socket.socket(fileno=control) as mine:
            client(work, rounds, port, mine)
        return
    work, whose, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if work in SERVED:
        (serveOurs if whose == "ours" else serveBare)(work, rounds)
    else:
        ALONE[work][whose](rounds)


if __name__ == "__main__":
    main()
