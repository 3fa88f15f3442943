"""What is measured: the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass

from calandria.cli._bench import WORKS, Work

LOOPS = ("calandria", "uvloop", "asyncio", "twisted")
"""What can do the works; `c` is the plain program that shows what they cost at the least."""


@dataclass(frozen=True)
class Row:
    """One line of the table. `figure` says what is taken of a measurement: cpu, rate, memory, late or start."""

    title: str
    unit: str
    work: Work
    figure: str = "cpu"
    loops: tuple[str, ...] = LOOPS
    # The most that is asked for, in the row's unit, where that is no matter of peers.
    most: float | None = None
    # The most that is asked for, in times of the plain program.
    mostOfC: float | None = None

    @property
    def more(self) -> bool:
        """Whether a larger figure is the better one."""
        return self.figure == "rate"


def _echo(connections: int, kibibytes: int, mostOfC: float | None = 1.25) -> Row:
    work = Work("message", "echo", "echo", connections, kibibytes * 1024)
    title = f"TCP echo, {connections} x {kibibytes} KiB"
    return Row(title, "µs of CPU", work, loops=("c", *LOOPS), mostOfC=mostOfC)


ROWS = {
    "echo-100x1k": _echo(100, 1),
    "echo-1000x1k": _echo(1000, 1),
    "echo-10x1k": _echo(10, 1),
    "echo-100x10k": _echo(100, 10),
    "echo-10x100k": _echo(10, 100, None),
    "accept": Row("connect, 64 B, close", "µs of CPU", WORKS["accept"], loops=("c", *LOOPS)),
    "bulk": Row("one stream, per MiB", "µs of CPU", WORKS["bulk"], loops=("c", *LOOPS)),
    "cancel": Row("timer made and cancelled", "µs of CPU", WORKS["cancel"]),
    "timers": Row("timer made and fired", "µs of CPU", WORKS["timers"]),
    "threads": Row("callFromThread, one thread", "calls/s", WORKS["threads"], "rate"),
    "idle": Row("memory of an idle connection", "KiB", Work("", "echo", "idle", 1000), "memory", most=2.5),
    "held": Row("memory of a waiting timer", "KiB", Work("", "held", count=1_000_000), "memory", most=0.45),
    "late": Row(
        "10 ms timer beside 1,000 x 1 KiB, worst", "ms late", Work("", "late", "echo", 1000, 1024), "late", most=20
    ),
    "start": Row("import and make a loop", "x of plain imports", Work("", ""), "start", most=1.5),
}
