"""`calandria bench`: what a backend costs here, on work that can be compared.

The loop under test and the load are processes of their own, on loopback only. What is counted is the CPU of the loop's
process for each item. A load that is slower than the loop, as this one in Python is, still makes items dearer, because
fewer of them come together: the figures of two backends can be compared, those of two loads cannot. `benchmarks/` of
the sources has a load in C, and puts other loops beside ours, with the same works and the same measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from calandria import Reactor
from calandria._text import didYouMean
from calandria.cli._output import FAILED, OK, CommandError, addJSONOption, say, sayJSON, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DESCRIPTION = """\
Measure what a backend costs on this machine: CPU per item of the process that
runs the reactor, and items per second. The load comes from a process of its
own, over loopback; several backends take turns, round by round.

works:
  echo     messages over TCP, each sent back   (--connections, --size)
  accept   connect, exchange 64 bytes, close   (--connections at a time)
  bulk     one stream without end, per MiB
  timers   callLater, and the call
  cancel   callLater, and its cancel()
  threads  callFromThread, from one other thread"""

EPILOG = """\
--json prints a list of objects with the keys
  work, backend, unit
  cpu              microseconds of CPU per item, the median of all rounds
  cpuMin, cpuMax   the same, of the best and of the worst round
  rate             items per second, the median
  busy             part of the time in which the reactor's process had work

The load is a program in Python: it leaves the reactor idle for a part of the
time, and few items come at a time, which makes each of them dearer. Compare
backends with each other, not with figures of another load.

examples:
  calandria bench
  calandria bench echo --backend select,poll,epoll --connections 10
  calandria bench timers threads --json"""

WARMUP = 0.3
SHORTEST, LONGEST = 0.05, 60.0
# Longer than any measurement takes (seconds); what takes longer hangs, and is ended.
LIMIT = 2 * LONGEST
# How long (seconds) a program may take to end when its input has.
ENDING = 5.0

# Which core a process runs on can be chosen on Linux only.
_system: Any = os

OWN = (sys.executable, "-m", "calandria.cli._works")
LOAD = (sys.executable, "-m", "calandria.cli._load")


@dataclass(frozen=True)
class Work:
    """One thing to measure: `work` is what the loop does, `mode` what the load does (None: the loop works alone)."""

    unit: str
    work: str
    mode: str | None = None
    connections: int = 1
    size: int = 0
    # For a loop alone: how often.
    count: int = 200_000
    # The figure is per so many of what the load counts.
    scale: int = 1


WORKS = {
    "echo": Work("message", "echo", "echo", 100, 1024),
    "accept": Work("connection", "echo", "connect", 10, 64),
    "bulk": Work("MiB", "sink", "sink", scale=1 << 20),
    "timers": Work("timer", "fired"),
    "cancel": Work("timer", "cancelled"),
    "threads": Work("call", "threads"),
}


@dataclass(frozen=True)
class Figure:
    """What one measurement gave: microseconds of CPU per item, and items per second."""

    cpu: float
    rate: float

    @property
    def busy(self) -> float:
        """The part of the time in which the process had work; more than 1 if it has several threads."""
        return self.cpu * self.rate / 1e6


class Program:
    """A process that prints lines; owned by who measures with it, and ended at the end of the `with` at the latest."""

    def __init__(self, command: Sequence[str], cpu: int | None = None) -> None:
        self._command = command
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if cpu is not None:
            _system.sched_setaffinity(self._process.pid, {cpu})
        self._hung = False
        self._limit = threading.Timer(LIMIT, self._hang)
        self._limit.daemon = True
        self._limit.start()

    def line(self) -> str:
        """Its next line. Raises CommandError if it has ended, or hangs."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self.check()
        return line

    def check(self) -> None:
        """Raises CommandError if it has ended."""
        try:
            code = self._process.wait(0.1)
        except subprocess.TimeoutExpired:
            return
        what = f"did nothing for {LIMIT:g} seconds" if self._hung else f"ended early, with exit code {code}"
        raise CommandError(f"{' '.join(self._command)} {what}", FAILED)

    def _hang(self) -> None:
        self._hung = True
        self._process.kill()

    def look(self) -> dict[str, float]:
        """What a server has taken until now."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told: dict[str, float] = json.loads(self.line())
        return told

    def __enter__(self) -> Program:
        return self

    def __exit__(self, kind: type[BaseException] | None, *unused: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # it has ended
        if kind is not None:
            self._process.kill()
        ended = True
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            ended = False
            self._process.kill()
            self._process.wait()
        finally:
            self._limit.cancel()
            self._process.stdout.close()
        if not ended:
            raise CommandError(f"{' '.join(self._command)} did not end when its input did", FAILED)


def cores() -> tuple[int | None, int | None]:
    """One for the loop and another for the load, so that neither takes the other's place; None: wherever."""
    usable: list[int] = sorted(_system.sched_getaffinity(0)) if hasattr(_system, "sched_setaffinity") else []
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def measure(loop: Sequence[str], work: Work, seconds: float, load: Sequence[str] = LOAD) -> Figure:
    """One measurement: of `loop`, a program that does the works of `_works`. Raises CommandError."""
    here, there = cores()
    if work.mode is None:
        # Calls from another thread need a core for that thread.
        with Program([*loop, work.work, str(work.count)], None if work.work == "threads" else here) as program:
            told = json.loads(program.line())
        return Figure(told["cpu"] / told["count"] / 1000, told["count"] / told["wall"] * 1e9)
    with Program([*loop, work.work], here) as server:
        port = server.line().strip()
        told = [work.mode, port, work.connections, work.size, WARMUP, seconds]
        try:
            with Program([*load, *map(str, told)], there) as generator:
                generator.line()
                before = server.look()["cpu"]
                count, wall = map(int, generator.line().split())
                after = server.look()["cpu"]
        except CommandError:
            server.check()  # if the server failed, the load could but fail too
            raise
    if not count:
        raise CommandError(f"nothing was done in {seconds:g} seconds: measure for longer", FAILED)
    items = count / work.scale
    return Figure((after - before) / items / 1000, items / wall * 1e9)


def addParser(subparsers: Any) -> None:
    """Add `bench` to the commands; `subparsers` is argparse's, whose type has no public name."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench", help="measure what a backend costs here", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("works", nargs="*", metavar="WORK", type=_work, help="by default all of them")
    parser.add_argument(
        "--backend",
        type=_names,
        metavar="NAME[,NAME...]",
        help="one or several that are installed; by default the one taken unasked",
    )
    parser.add_argument("--connections", type=atLeastOne, metavar="N", help="for echo (100) and accept (10)")
    parser.add_argument("--size", type=atLeastOne, metavar="BYTES", help="of a message of echo (1024)")
    parser.add_argument("--seconds", type=seconds, default=1.0, metavar="S", help="of each measurement (1)")
    parser.add_argument("--rounds", type=atLeastOne, default=3, metavar="N", help="how often each is measured (3)")
    addJSONOption(parser, "print a list of objects instead of a table")
    parser.set_defaults(command=bench)


def _work(text: str) -> str:
    if text not in WORKS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(WORKS)}{didYouMean(text, WORKS)}")
    return text


def atLeastOne(text: str) -> int:
    """A type for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a whole number, 1 or more, not {text!r}")
    return int(text)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"names of backends, separated by commas, not {text!r}")
    return names


def seconds(text: str) -> float:
    """A type for argparse: how long to measure."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not SHORTEST <= value <= LONGEST:
        raise argparse.ArgumentTypeError(f"a number of seconds, {SHORTEST:g} to {LONGEST:g}, not {text!r}")
    return value


def bench(arguments: argparse.Namespace) -> int:
    """Measure, and print."""
    works = {name: adapted(name, arguments) for name in arguments.works or WORKS}
    # By what they are called here, the program that has a reactor on each.
    backends = dict(usable(name) for name in arguments.backend or [None])
    figures: dict[tuple[str, str], list[Figure]] = {}
    for name, work in works.items():
        for _ in range(arguments.rounds):
            for backend, program in backends.items():
                found = measure(program, work, arguments.seconds)
                figures.setdefault((name, backend), []).append(found)
    told = [tell(name, backend, works[name].unit, taken) for (name, backend), taken in figures.items()]
    if arguments.json:
        sayJSON(told)
    else:
        say(table(("WORK", "BACKEND", "CPU", "BEST..WORST", "RATE", "BUSY"), rows(told)))
    return OK


def adapted(name: str, arguments: argparse.Namespace) -> Work:
    """A work with what the arguments say about it."""
    work = WORKS[name]
    if arguments.connections and work.mode in ("echo", "connect"):
        work = replace(work, connections=arguments.connections)
    if arguments.size and work.mode == "echo":
        work = replace(work, size=arguments.size)
    return work


def usable(name: str | None) -> tuple[str, list[str]]:
    """The backend of that name, or the one taken unasked, and how to start it. Raises error.PluginError."""
    with Reactor(name) as reactor:
        if name is not None:
            return name, [*OWN, "--backend", name]
        return reactor.backend.name, [*OWN]


def tell(name: str, backend: str, unit: str, figures: Sequence[Figure]) -> dict[str, Any]:
    """The rounds of one work on one backend, as plain data."""
    cpu = [figure.cpu for figure in figures]
    return {
        "work": name,
        "backend": backend,
        "unit": unit,
        "cpu": round(statistics.median(cpu), 3),
        "cpuMin": round(min(cpu), 3),
        "cpuMax": round(max(cpu), 3),
        "rate": round(statistics.median(figure.rate for figure in figures), 1),
        "busy": round(statistics.median(figure.busy for figure in figures), 2),
    }


def rows(told: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The same as cells of a table."""
    return [
        (
            each["work"],
            each["backend"],
            f"{each['cpu']:.2f} µs/{each['unit']}",
            f"{each['cpuMin']:.2f}..{each['cpuMax']:.2f}",
            f"{each['rate']:,.0f}/s",
            f"{each['busy']:.0%}",
        )
        for each in told
    ]
