"""One event loop at one work, as a process of its own: what `calandria bench` measures.

    python -m calandria.cli._works WORK [COUNT] [--backend NAME]

A server (echo, sink, late) prints its port, answers each line of input with a line of JSON, and ends when its input
does. It tells `cpu`, the nanoseconds of CPU that the process has taken; `rss`, its bytes of memory, and `open`, the
number of its descriptors (both 0 where the system does not tell); `late`, by how much (seconds) a timer was late at the
worst since the last line. Any other work is done COUNT times: one line of JSON with `count`, and the nanoseconds of
`cpu` and of `wall` that it took, and by how many bytes the memory grew (`rss`).

The works know a loop by the five names of `Peer` only, so that others can be measured by the same works.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from calandria import Protocol, Reactor, ServerFactory
from calandria.cli._load import raiseLimit
from calandria.cli._output import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# How far apart (seconds) the deadlines of timers that fire are spread.
SPREAD = 0.05
# How often the timer of the work `late` is due (seconds).
TICK = 0.01
# A loop that does not stop for so long (seconds) after it was told to never will.
STOPPING = 2.0
# What a port is to let wait, so that a load may connect at once.
BACKLOG = 1024


class Peer(ABC):
    """An event loop, by the names that the works use."""

    later: Callable[..., Any]
    """later(seconds, function, *args): a timer, which has `cancel()`."""

    fromThread: Callable[..., Any]
    """fromThread(function, *args): a call in the loop's thread, from another one."""

    stop: Callable[[], Any]
    """End `run`, from inside."""

    @abstractmethod
    def listen(self, echo: bool) -> int:
        """Serve on a free port of 127.0.0.1, which is the answer: send back what comes, or throw it away."""

    @abstractmethod
    def run(self, begin: Callable[[], object]) -> None:
        """Run the loop, `begin` first, until `stop`."""


class _Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class _Sink(Protocol):
    def dataReceived(self, data: bytes) -> None:
        pass


class _Factory(ServerFactory):
    noisy = False


class Ours(Peer):
    """A reactor, on any backend that is installed."""

    def __init__(self, backend: str | None) -> None:
        self.reactor = Reactor(backend=backend)
        self.later, self.fromThread, self.stop = self.reactor.callLater, self.reactor.callFromThread, self.reactor.stop

    def listen(self, echo: bool) -> int:
        factory = _Factory()
        factory.protocol = _Echo if echo else _Sink
        host: Any = self.reactor.listenTCP(0, factory, backlog=BACKLOG, interface="127.0.0.1").getHost()
        return int(host.port)

    def run(self, begin: Callable[[], object]) -> None:
        self.reactor.callWhenRunning(begin)
        self.reactor.run()


def residentBytes() -> int:
    """The memory that this process has in use, in bytes; 0 where the system does not tell."""
    system: Any = os  # sysconf is not everywhere, and neither is the file
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * int(system.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return 0


def openCount() -> int:
    """How many descriptors this process has; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


class _Ticker:
    """A timer that is due every TICK, and the worst that it was late; owned by the server that it measures."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.worst = 0.0
        self.arm()

    def arm(self) -> None:
        self.due = time.monotonic() + TICK
        self.peer.later(TICK, self.fire)

    def fire(self) -> None:
        self.worst = max(self.worst, time.monotonic() - self.due)
        self.arm()


def serve(peer: Peer, work: str) -> None:
    """Serve until the input ends."""
    port = peer.listen(work != "sink")
    ticker: list[_Ticker] = []
    ended = threading.Event()

    def answer() -> None:
        for _ in sys.stdin:
            found: dict[str, float] = {"cpu": time.process_time_ns(), "rss": residentBytes(), "open": openCount()}
            for one in ticker:
                found["late"], one.worst = one.worst, 0.0
            say(json.dumps(found))
        peer.fromThread(peer.stop)
        if not ended.wait(STOPPING):
            os.write(2, b"the loop does not stop when another thread tells it to\n")
            os._exit(1)

    def begin() -> None:
        if work == "late":
            ticker.append(_Ticker(peer))
        say(str(port))
        threading.Thread(target=answer, daemon=True).start()

    peer.run(begin)
    ended.set()


def cancelled(peer: Peer, count: int, done: Callable[[], None]) -> None:
    """Timers that are made and cancelled."""
    later = peer.later
    for _ in range(count):
        later(60.0, done).cancel()
    done()


def fired(peer: Peer, count: int, done: Callable[[], None]) -> None:
    """Timers that are made and fire, in another order than they were made in."""
    later = peer.later
    left = count

    def fire() -> None:
        nonlocal left
        left -= 1
        if not left:
            done()

    for number in range(count):
        later(number * 7919 % count * SPREAD / count, fire)


def held(peer: Peer, count: int, done: Callable[[], None]) -> None:
    """Timers that are made and wait."""
    later = peer.later
    waiting = [later(3600.0 + number * 7919 % count, done) for number in range(count)]
    done()
    for one in waiting:
        one.cancel()


def threads(peer: Peer, count: int, done: Callable[[], None]) -> None:
    """Calls from one other thread, as fast as it can."""
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            done()

    def give() -> None:
        fromThread = peer.fromThread
        for _ in range(count):
            fromThread(call)

    threading.Thread(target=give, daemon=True).start()


SERVERS = ("echo", "sink", "late")
WORKS: Mapping[str, Callable[[Peer, int, Callable[[], None]], None]] = {
    "cancelled": cancelled,
    "fired": fired,
    "held": held,
    "threads": threads,
}


def measure(peer: Peer, work: str, count: int) -> dict[str, int]:
    """What `count` of the work take."""

    def look() -> tuple[int, int, int]:
        return residentBytes(), time.perf_counter_ns(), time.process_time_ns()

    before = after = (0, 0, 0)

    def done() -> None:
        nonlocal after
        after = look()
        peer.stop()

    def begin() -> None:
        nonlocal before
        gc.collect()
        before = look()
        WORKS[work](peer, count, done)

    peer.run(begin)
    return {
        "count": count,
        **{name: later - earlier for name, earlier, later in zip(("rss", "wall", "cpu"), before, after, strict=True)},
    }


def main(peers: Mapping[str, Callable[[str | None], Peer]], argv: Sequence[str] | None = None) -> None:
    """One work, as the arguments say; with several `peers` the first argument says of which."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if len(peers) > 1:
        parser.add_argument("peer", choices=peers)
    parser.add_argument("work", choices=(*SERVERS, *WORKS))
    parser.add_argument("count", nargs="?", type=int, default=100_000)
    parser.add_argument("--backend", help="of a reactor: one that is installed")
    arguments = parser.parse_args(argv)
    raiseLimit()
    peer = peers[arguments.peer if len(peers) > 1 else next(iter(peers))](arguments.backend)
    if arguments.work in SERVERS:
        serve(peer, arguments.work)
    else:
        say(json.dumps(measure(peer, arguments.work, arguments.count)))


if __name__ == "__main__":
    main({"calandria": Ours})
