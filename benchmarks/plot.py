"""The table as a picture, by matplotlib: each loop in times of the best peer, so that all units fit together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = {"c": "#9a9a9a", "calandria": "#c2410c", "uvloop": "#2563eb", "asyncio": "#7c9cbf", "twisted": "#65a30d"}
# Longer bars are cut here, or one loop's worst row would make all others too short to tell apart.
LONGEST = 4.0


def draw(told: Sequence[dict[str, Any]], machine: str, path: str) -> None:
    """Write the picture to `path`."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    # The same figures are to give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "calandria"
    plt: Any = importlib.import_module("matplotlib.pyplot")
    rows = [each for each in told if each["ofBest"] is not None][::-1]
    figure, axes = plt.subplots(figsize=(9, 0.75 * len(rows) + 1.5), layout="constrained")
    width = 0.8 / len(COLOURS)
    for index, (loop, colour) in enumerate(COLOURS.items()):
        places: list[float] = []
        lengths: list[float] = []
        for place, each in enumerate(rows):
            if loop in each["loops"]:
                places.append(place + 0.4 - (index + 0.5) * width)
                lengths.append(min(ratio(each, loop), LONGEST))
        axes.barh(places, lengths, width, color=colour, label={"c": "C", "twisted": "Twisted"}.get(loop, loop))
    axes.set_yticks(range(len(rows)), [each["title"] for each in rows])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(0, LONGEST)
    axes.set_xlabel(f"cost in times of the best of uvloop, asyncio and Twisted (shorter is better, cut at {LONGEST:g})")
    axes.set_title(machine, fontsize="small")
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def ratio(each: dict[str, Any], loop: str) -> float:
    """What a loop costs in times of the best peer."""
    ours, theirs = each["loops"]["calandria"]["median"], each["loops"][loop]["median"]
    more = each["unit"].endswith("/s")
    return float(each["ofBest"] * (ours / theirs if more else theirs / ours))
