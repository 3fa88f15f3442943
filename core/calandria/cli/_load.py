"""A load for a server of 127.0.0.1 that speaks TCP: raw sockets and no reactor, as a process of its own.

    python -m calandria.cli._load MODE PORT CONNECTIONS SIZE WARMUP SECONDS

`echo`: each connection sends SIZE bytes, waits for as many, and begins again; counts those rounds. `connect`: the same
once for each connection, which is closed and replaced; counts connections. `sink`: each connection sends without end;
counts bytes. `idle`: connects, says so, and holds the connections until its input ends.

Prints "measuring" after WARMUP seconds, "COUNT NANOSECONDS" SECONDS later, each at once, and ends by itself.
"""

from __future__ import annotations

import argparse
import importlib
import selectors
import socket
import struct
import sys
import time
from typing import Any

from calandria.cli._output import say

CHUNK = 1 << 20
# A server that does not answer for so long (seconds) has failed.
PATIENCE = 10.0

_RESET = struct.pack("ii", 1, 0)


class Load:
    """Some connections to one server, and the count of what they did; used on one thread."""

    def __init__(self, mode: str, port: int, size: int) -> None:
        self.mode = mode
        self.port = port
        self.size = CHUNK if mode == "sink" else size
        self.message = memoryview(bytes(self.size))
        self.count = 0
        self.selector = selectors.DefaultSelector()

    def connect(self) -> None:
        """One more connection, which begins its work."""
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        # What is still to be sent, and to be received.
        self.selector.register(sock, selectors.EVENT_READ, [self.size, self.size])
        if self.mode != "idle":
            self.send(sock, self.selector.get_key(sock).data)

    def send(self, sock: socket.socket, left: list[int]) -> None:
        try:
            sent = sock.send(self.message[self.size - left[0] :])
        except BlockingIOError:
            sent = 0
        left[0] -= sent
        if self.mode == "sink":
            self.count += sent
            left[0] = self.size
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if left[0] else 0)
        if self.selector.get_key(sock).events != wanted:
            self.selector.modify(sock, wanted, left)

    def receive(self, sock: socket.socket, left: list[int]) -> None:
        try:
            data = sock.recv(CHUNK)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the server has closed a connection")
        left[1] -= len(data)
        if left[1] > 0:
            return
        self.count += 1
        if self.mode == "connect":
            self.selector.unregister(sock)
            sock.close()
            self.connect()
            return
        left[:] = self.size, self.size
        self.send(sock, left)

    def work(self, until: float) -> None:
        """Work until that moment of time.monotonic()."""
        while (now := time.monotonic()) < until:
            ready = self.selector.select(min(until - now, PATIENCE))
            if not ready and until - now > PATIENCE:
                raise ConnectionError(f"the server did nothing for {PATIENCE:g} seconds")
            for key, events in ready:
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if events & selectors.EVENT_WRITE:
                    self.send(sock, key.data)
                if events & selectors.EVENT_READ:
                    self.receive(sock, key.data)

    def close(self) -> None:
        """Close all, with a reset: closing in order would leave thousands of them waiting in the system."""
        for key in list(self.selector.get_map().values()):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
        self.selector.close()


def raiseLimit() -> None:
    """As many descriptors as the system lets us have."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:
        return  # Windows
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """One load, as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("echo", "connect", "sink", "idle"))
    for name in ("port", "connections", "size"):
        parser.add_argument(name, type=int)
    for name in ("warmup", "seconds"):
        parser.add_argument(name, type=float)
    arguments = parser.parse_args()
    raiseLimit()
    try:
        work(arguments)
    except (OSError, MemoryError) as exc:
        sys.exit(f"load: {str(exc) or 'out of memory'}")


def work(arguments: argparse.Namespace) -> None:
    """Connect, work, and tell. Raises OSError, MemoryError."""
    load = Load(arguments.mode, arguments.port, arguments.size)
    try:
        for _ in range(arguments.connections):
            load.connect()
        if arguments.mode == "idle":
            say("measuring")
            sys.stdin.read()
            return
        load.work(time.monotonic() + arguments.warmup)
        say("measuring")
        load.count, began = 0, time.monotonic_ns()
        load.work(time.monotonic() + arguments.seconds)
        took = time.monotonic_ns() - began
        say(f"{load.count} {took}")
    finally:
        load.close()


if __name__ == "__main__":
    main()
