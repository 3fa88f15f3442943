"""Measure ourselves and the peers, interleaved in one run: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import fnmatch
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rows import LOOPS, ROWS, Row
from calandria.cli._bench import LOAD, WARMUP, Program, atLeastOne, cores, measure, seconds
from calandria.cli._output import FAILED, CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
NAMES = {"c": "C", "calandria": "calandria", "uvloop": "uvloop", "asyncio": "asyncio", "twisted": "Twisted"}
# What `python -c` runs for the row `start`; every loop's is divided by the first.
PLAIN = "import socket, select, heapq, logging"
STARTS = {
    "calandria": "import calandria; calandria.Reactor()",
    "uvloop": "import uvloop; uvloop.new_event_loop()",
    "asyncio": "import asyncio; asyncio.new_event_loop()",
    "twisted": "from twisted.internet import epollreactor; epollreactor.EPollReactor()",
}
# A server that has not accepted, or not let go of, its connections after so long (seconds) has failed.
PATIENCE = 10.0


class Bench:
    """The programs that a run is made of: compiled where there is a compiler, else in Python."""

    def __init__(self, folder: str, seconds: float) -> None:
        self.seconds = seconds
        self.c: list[str] | None = None
        self.load = [*LOAD]
        if shutil.which("gcc") and sys.platform == "linux":
            for name in ("echo", "load"):
                subprocess.run(["gcc", "-O2", "-o", f"{folder}/{name}", str(HERE / f"{name}.c")], check=True)
            self.c = [f"{folder}/echo"]
            self.load = [f"{folder}/load"]

    def program(self, loop: str) -> list[str] | None:
        """How to start a loop; None if it is not here."""
        if loop == "c":
            return self.c
        if loop != "calandria" and importlib.util.find_spec(loop) is None:
            return None
        return [sys.executable, "-m", "benchmarks.peers", loop]

    def figure(self, row: Row, loop: str) -> tuple[float, float | None] | None:
        """One measurement, in the unit of the row, and for how much of the time the loop had work, where a load decided
        that; None if the loop is not here.
        """
        program = self.program(loop)
        if program is None:
            return None
        if row.figure == "memory":
            return self.memory(row, program), None
        if row.figure == "late":
            return self.lateness(row, program), None
        if row.figure == "start":
            return processTime(STARTS[loop]) / processTime(PLAIN), None
        found = measure(program, row.work, self.seconds, self.load)
        return found.cpu if row.figure == "cpu" else found.rate, found.busy if row.work.mode is not None else None

    def memory(self, row: Row, program: Sequence[str]) -> float:
        """KiB of memory that each connection, or each timer, takes."""
        work = row.work
        if work.mode is None:
            with Program([*program, work.work, str(work.count)]) as own:
                told = json.loads(own.line())
            return float(told["rss"] / told["count"] / 1024)
        with Program([*program, work.work]) as server:
            port = server.line().strip()
            none = server.look()["open"]
            if not none:
                raise CommandError("this system does not tell what a process holds", FAILED)
            self.grown(server, port, none, 1)  # what is made on first use is no connection's
            return self.grown(server, port, none, work.connections) / work.connections / 1024

    def grown(self, server: Program, port: str, none: float, connections: int) -> float:
        """By how many bytes a server grows with so many connections; without any it has `none` descriptors."""
        before = self.having(server, none)
        with Program([*self.load, "idle", port, str(connections), "1", "0", "0"]) as load:
            load.line()
            after = self.having(server, none + connections)
        self.having(server, none)
        return after["rss"] - before["rss"]

    def having(self, server: Program, count: float) -> dict[str, float]:
        """What a server tells as soon as it has so many descriptors: it hears of its clients later than they do."""
        until = time.monotonic() + PATIENCE
        while (found := server.look())["open"] != count:
            if time.monotonic() > until:
                raise CommandError(f"the server has {found['open']:g} descriptors, not {count:g}", FAILED)
        return found

    def lateness(self, row: Row, program: Sequence[str]) -> float:
        """Milliseconds that a timer was late at the worst, while there was a load."""
        here, there = cores()
        work = row.work
        with Program([*program, work.work], here) as server:
            told = ["echo", server.line().strip(), work.connections, work.size, WARMUP, self.seconds]
            with Program([*self.load, *map(str, told)], there) as load:
                load.line()
                server.look()
                load.line()
                return server.look()["late"] * 1000


def processTime(code: str) -> float:
    """Seconds of CPU that a Python process takes to run `code`, start and end included: the least of ten."""
    best = float("inf")
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", code])
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{code!r} failed")
        best = min(best, used.ru_utime + used.ru_stime)
    return best


def run(bench: Bench, names: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """All rows: for each the figures of every loop, round by round, one after the other, and another one first in each
    round. A loop that fails has no figure in that round, and the others keep theirs.
    """
    told: list[dict[str, Any]] = []
    for name in names:
        row = ROWS[name]
        figures: dict[str, list[float]] = {}
        busy: dict[str, list[float]] = {}
        for number in range(rounds):
            first = number % len(row.loops)
            for loop in row.loops[first:] + row.loops[:first]:
                try:
                    found = bench.figure(row, loop)
                except CommandError as exc:
                    print(f"{name}, {loop}: {exc}", file=sys.stderr)
                    continue
                if found is not None:
                    figures.setdefault(loop, []).append(found[0])
                    if found[1] is not None:
                        busy.setdefault(loop, []).append(found[1])
        if "calandria" in figures:
            told.append(tell(name, row, figures, busy))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return told


def tell(
    name: str, row: Row, figures: dict[str, list[float]], busy: dict[str, list[float]] | None = None
) -> dict[str, Any]:
    """A row as plain data. `ofBest` is ours in times of the best peer's; below 1 is ahead, whatever the unit. `busy` is
    the part of the time in which a server had work.
    """
    medians = {loop: statistics.median(values) for loop, values in figures.items()}
    ours = medians["calandria"]
    peers = [medians[loop] for loop in LOOPS[1:] if loop in medians]
    best = (max if row.more else min)(peers, default=None)
    ofBest = None if best is None else best / ours if row.more else ours / best
    ofC = ours / medians["c"] if "c" in medians else None
    return {
        "row": name,
        "title": row.title,
        "unit": row.unit,
        "loops": {
            loop: {"median": medians[loop], "min": min(values), "max": max(values), "rounds": values}
            for loop, values in figures.items()
        },
        "busy": {loop: statistics.median(values) for loop, values in (busy or {}).items()},
        "ofBest": ofBest,
        "ofC": ofC,
        "reached": reached(row, ours, ofBest, ofC),
    }


def reached(row: Row, ours: float, ofBest: float | None, ofC: float | None) -> bool | None:
    """Whether the row is where it is to be; None if nobody was there to compare with."""
    if row.most is not None:
        return ours <= row.most
    if ofBest is None:
        return None
    return ofBest < 1 and (row.mostOfC is None or ofC is None or ofC <= row.mostOfC)


def markdown(told: Sequence[dict[str, Any]]) -> str:
    """The table, for people and for docs/performance.md."""
    lines = [
        "| work | unit | " + " | ".join(NAMES.values()) + " | of best peer | of C | reached |",
        "| --- | --- |" + " ---: |" * (len(NAMES) + 2) + " --- |",
    ]
    for each in told:
        cells = [each["title"], each["unit"]]
        for loop in NAMES:
            found = each["loops"].get(loop)
            cells.append(f"{short(found['median'])} ({short(found['min'])}..{short(found['max'])})" if found else "–")
        cells += [f"{each[key]:.2f}" if each[key] is not None else "–" for key in ("ofBest", "ofC")]
        cells.append({True: "yes", False: "**no**", None: "–"}[each["reached"]])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short(value: float) -> str:
    """A figure with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine(load: str) -> str:
    """What the figures were taken on, and with a load in which language."""
    versions: list[str] = []
    for name in ("uvloop", "twisted"):
        try:
            versions.append(f"{NAMES[name]} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {NAMES[name]}")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {', '.join(versions)}, {platform.system()}, {os.cpu_count()} cores, load in {load}"


def main() -> int:
    """Measure, and print; the exit code, 1 if a row has no figure of ours."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure calandria and its peers, interleaved in one run. The peers come with the extra `bench`.",
        epilog=f"rows: {', '.join(ROWS)}",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="by default all; may be patterns, as in 'echo*'")
    parser.add_argument("--rounds", type=atLeastOne, default=5, help="how often each is measured (5)")
    parser.add_argument("--seconds", type=seconds, default=1.0, help="of each measurement of a server (1)")
    parser.add_argument("--json", action="store_true", help="print the figures of every round, as JSON")
    parser.add_argument("--plot", metavar="FILE", help="also draw them, as SVG (needs matplotlib)")
    arguments = parser.parse_args()
    for one in arguments.rows:
        if not fnmatch.filter(ROWS, one):
            parser.error(f"no row is called {one}: there are {', '.join(ROWS)}")
    names = [name for name in ROWS if any(fnmatch.fnmatch(name, one) for one in arguments.rows or ["*"])]
    if arguments.plot:
        # Whatever would be wrong at the end is wrong now.
        if importlib.util.find_spec("matplotlib") is None:
            parser.error("--plot needs matplotlib, which comes with the extra `bench`")
        if not os.access(Path(arguments.plot).parent, os.W_OK):
            parser.error(f"--plot: {arguments.plot} cannot be written")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, arguments.seconds)
        told = run(bench, names, arguments.rounds)
        about = machine("C" if bench.c else "Python")
    if arguments.json:
        print(json.dumps({"machine": about, "rows": told}, indent=2))
    else:
        print(f"{about}; median of {arguments.rounds} rounds, with the best and the worst\n\n{markdown(told)}")
    if arguments.plot:
        from benchmarks.plot import draw

        draw(told, about, arguments.plot)
    return 0 if len(told) == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
