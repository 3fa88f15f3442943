"""Fail if a row of the hot path has become dearer: `python -m benchmarks.guard`, which `tox -e perf` runs.

Times on shared machines are noise, so instructions are counted, of us and of the barest loop that does the same
(`counted`), by valgrind's cachegrind or by `perf stat`; the figure of a row is their ratio, which hardly depends on how
Python was built. A row that is more than a tenth dearer than `baseline.json` says fails; one that the baseline's tool
did not count is not judged, for no two count the same. Where nothing can count, the ratio is one of CPU times, the best
of several runs: the row says so, and is not judged either, for such a ratio differs by more than a tenth from one run
to the next.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.counted import ITEMS, WORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Another one may be named by an environment variable.
BASELINE = Path(os.environ.get("CALANDRIA_PERF_BASELINE") or Path(__file__).with_name("baseline.json"))
# A row may be dearer by so much than it was when the baseline was written.
TOLERANCE = 0.10
# One that is cheaper by so much has a baseline that would let it become dearer again unnoticed.
CHEAPER = 0.03
# Counted is the difference between two runs: start and end cancel out.
ROUNDS = (20, 60)
# The same where time is taken, which needs more of it, and the best of several runs.
TIMED_ROUNDS = (500, 5000)
TIMED_RUNS = 7
# How often a row is counted when a baseline is written, to see whether the figure is steady; and how steady it must be.
RUNS = 20
STEADY = 0.01
COUNTING = ("cachegrind", "perf stat")


def program(work: str, whose: str, rounds: int) -> list[str]:
    """The command whose instructions are counted."""
    return [sys.executable, "-m", "benchmarks.counted", work, whose, str(rounds)]


def environment() -> dict[str, str]:
    """What makes one run like the other."""
    return {**os.environ, "PYTHONHASHSEED": "0"}


def cachegrind(command: Sequence[str]) -> float:
    """The instructions of a process, by valgrind."""
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = subprocess.run([*tool, *command], capture_output=True, text=True, env=environment(), check=True)
    found = re.search(r"I +refs: +([\d,]+)", done.stderr)
    if found is None:
        raise SystemExit(f"valgrind told no count:\n{done.stderr}")
    return float(found[1].replace(",", ""))


def perf(command: Sequence[str]) -> float:
    """The same by the processor's own counter, without the kernel's part."""
    # Without the children: the client of a server is one.
    tool = ["perf", "stat", "--no-inherit", "-x,", "-e", "instructions:u", "--"]
    done = subprocess.run([*tool, *command], capture_output=True, text=True, env=environment(), check=True)
    found = re.search(r"^(\d+),", done.stderr, re.MULTILINE)
    return float(found[1]) if found else 0.0


def cpuTime(command: Sequence[str]) -> float:
    """Seconds of CPU of a process."""
    process = subprocess.Popen(command, env=environment())
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime


def findTool() -> tuple[str, Callable[[Sequence[str]], float] | None]:
    """What counts here, and its name; None if nothing does."""
    if shutil.which("valgrind"):
        return "cachegrind", cachegrind
    if shutil.which("perf"):
        try:
            if perf([sys.executable, "-c", ""]):
                return "perf stat", perf
        except subprocess.CalledProcessError:
            pass  # this machine lets nobody count
    return "nothing counts instructions here", None


def perItem(take: Callable[[Sequence[str]], float], work: str, whose: str) -> float:
    """What one item costs."""
    few, many = ROUNDS
    return (take(program(work, whose, many)) - take(program(work, whose, few))) / (many - few) / ITEMS


def timed(work: str) -> dict[str, float]:
    """One row by the clock: the least that few rounds took, and the least that many took, of both in turn."""
    few, many = TIMED_ROUNDS
    least = {(whose, rounds): float("inf") for whose in ("ours", "bare") for rounds in TIMED_ROUNDS}
    for _ in range(TIMED_RUNS):
        for (whose, rounds), before in least.items():
            least[whose, rounds] = min(before, cpuTime(program(work, whose, rounds)))
    ours, bare = ((least[whose, many] - least[whose, few]) / (many - few) / ITEMS * 1e6 for whose in ("ours", "bare"))
    return {"ours": ours, "bare": bare, "ratio": ours / bare if bare > 0 else float("nan")}


def measureAll(works: Sequence[str], take: Callable[[Sequence[str]], float] | None) -> dict[str, dict[str, float]]:
    """Every row."""
    for work in works:
        # What is compiled, and kept, by the first run is not to be counted.
        subprocess.run(program(work, "ours", 1), check=True)
    if take is None:
        return {work: timed(work) for work in works}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = {
            work: {whose: pool.submit(perItem, take, work, whose) for whose in ("ours", "bare")} for work in works
        }
    figures: dict[str, dict[str, float]] = {}
    for work, both in waiting.items():
        ours, bare = both["ours"].result(), both["bare"].result()
        figures[work] = {"ours": round(ours, 1), "bare": round(bare, 1), "ratio": round(ours / bare, 4)}
    return figures


def spread(take: Callable[[Sequence[str]], float], work: str) -> float:
    """By how much of itself the count differs between RUNS runs, ours or the bare loop's."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = [[pool.submit(perItem, take, work, whose) for _ in range(RUNS)] for whose in ("ours", "bare")]
    counts = [[each.result() for each in several] for several in waiting]
    return max((max(several) - min(several)) / min(several) for several in counts)


def judge(work: str, found: dict[str, float], kept: dict[str, Any] | None, tool: str) -> tuple[str, bool]:
    """A line about a row, and whether it is within what the baseline allows."""
    unit = "instructions" if tool in COUNTING else "µs of CPU"
    line = f"{work:8}{found['ours']:10,.1f} {unit}, bare {found['bare']:,.1f}, ratio {found['ratio']:.3f}"
    if tool not in COUNTING:
        return f"{line}; not judged: {tool}", True
    if kept is None:
        return f"{line}; not judged: the baseline has no such row for this Python", True
    if kept["tool"] != tool:
        return f"{line}; not judged: the baseline was counted by {kept['tool']}", True
    change = found["ratio"] / kept["ratio"] - 1
    steady = f"{kept['spread']:.2%} between {RUNS} runs"
    line = f"{line}; baseline {kept['ratio']:.3f} ({change:+.1%}), {steady}"
    if kept["spread"] > STEADY:
        return f"{line}; not judged: not steady", True
    if change > TOLERANCE:
        return f"{line}; TOO DEAR, more than {TOLERANCE:.0%}", False
    return f"{line}; cheaper: write a new baseline" if change < -CHEAPER else line, True


def main() -> int:
    """Compare with the baseline, or write it; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description="Count what the rows of the hot path cost, and fail if one has become a tenth dearer.",
        epilog=f"rows: {', '.join(WORKS)}",
    )
    parser.add_argument("works", nargs="*", metavar="ROW", help="by default all")
    parser.add_argument("--write", action="store_true", help=f"keep the figures as the baseline ({RUNS} runs of each)")
    parser.add_argument("--output", metavar="FILE", help="write what is printed to a file too")
    arguments = parser.parse_args()
    works = arguments.works or list(WORKS)
    unknown = [work for work in works if work not in WORKS]
    if unknown:
        parser.error(f"no row is called {unknown[0]!r}: there are {', '.join(WORKS)}")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    baseline: dict[str, dict[str, Any]] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    tool, take = findTool()
    if arguments.write and take is None:
        parser.error(f"a baseline is counted, and {tool}")
    try:
        figures = measureAll(works, take)
    except subprocess.CalledProcessError as exc:
        print(f"{' '.join(exc.cmd)} failed with exit code {exc.returncode}\n{exc.stderr or ''}", file=sys.stderr)
        return 1
    if arguments.write and take is not None:
        kept = baseline.setdefault(version, {})
        for work, found in figures.items():
            kept[work] = {**found, "spread": round(spread(take, work), 6), "tool": tool}
        BASELINE.write_text(json.dumps(baseline, indent=2, sort_keys=True) + "\n")
    judged = [judge(work, found, baseline.get(version, {}).get(work), tool) for work, found in figures.items()]
    text = "\n".join([f"Python {version}, {tool}", *(line for line, _ in judged)])
    print(text)
    if arguments.output:
        Path(arguments.output).write_text(f"{text}\n")
    return 0 if all(good for _, good in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
