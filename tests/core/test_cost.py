"""What the path of a byte costs: system calls, frames and memory, each counted, none timed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.idle import measure
from calandria import Protocol
from tests.helpers import Background, exchange, runUntil
from tests.recorders import RecordingServer

if TYPE_CHECKING:
    from calandria import Reactor

SERVER = """
import socket, sys, threading
from calandria import Factory, Protocol, Reactor

ROUNDS = 200
MARK = "/the/echoes/{}"

class Echo(Protocol):
    count = 0
    def dataReceived(self, data):
        self.count += 1
        if self.count in (10, 10 + ROUNDS):  # a system call that can be found again: the first and the last one counted
            try:
                open(MARK.format(self.count))
            except OSError:
                pass
        self.transport.write(data)
    def connectionLost(self, reason):
        reactor.stop()

reactor = Reactor(backend=sys.argv[1])
port = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1").getHost().port

def talk():
    peer = socket.create_connection(("127.0.0.1", port))
    for _ in range(ROUNDS + 20):
        peer.sendall(b"x" * 1024)
        assert len(peer.recv(2048)) == 1024
    peer.close()

thread = threading.Thread(target=talk)
thread.start()
reactor.run()
thread.join()
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_anEchoCostsThreeSystemCalls(backendName: str, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    # Only the main thread is followed (no -f), which is the reactor's.
    command = ["strace", "-o", str(log), sys.executable, "-c", SERVER, backendName]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "Operation not permitted" in result.stderr and "ptrace" in result.stderr.lower():
        pytest.skip("strace may not trace here")
    assert result.returncode == 0, result.stderr
    lines = log.read_text().splitlines()
    first, last = (next(i for i, line in enumerate(lines) if f"/the/echoes/{count}" in line) for count in (10, 210))
    between = [line for line in lines[first + 1 : last] if line[0].isalpha()]
    calls = Counter(line.partition("(")[0] for line in between)
    calls.pop("futex", None)  # the two threads of this test hand the interpreter to each other
    poll = {"select": {"select", "pselect6"}, "poll": {"poll", "ppoll"}, "epoll": {"epoll_wait", "epoll_pwait"}}[
        backendName
    ]
    polls = sum(calls.pop(name, 0) for name in poll)
    received = sum(calls.pop(name, 0) for name in ("recvfrom", "recv", "read"))
    sent = sum(calls.pop(name, 0) for name in ("sendto", "send", "write"))
    assert calls == {}, "nothing else, no epoll_ctl above all"
    assert received == 200
    assert sent == 200
    # The last read's own poll is counted, and one poll more may find nothing.
    assert 200 <= polls <= 204


def test_oneLibraryFrameBetweenTheLoopAndTheUser(reactor: Reactor) -> None:
    frames: list[list[str]] = []

    class Looking(Protocol):
        def dataReceived(self, data: bytes) -> None:
            names = [entry.name for entry in traceback.extract_stack()]
            frames.append(names[names.index("mainLoop") : -1])
            self.transport.loseConnection()

    port = reactor.listenTCP(0, RecordingServer(Looking), interface="127.0.0.1")
    peer = Background(exchange, port.getHost().port, b"x")
    runUntil(reactor, peer)
    peer.result()
    assert frames == [["mainLoop", "turns", "doRead"]]


def test_anIdleConnectionIsSmall(backendName: str) -> None:
    connections, sockets = measure(200, backendName)
    assert 0 < sockets < connections
    assert connections - sockets <= 1024
