"""The programs of `benchmarks/`, which need the sources: that they measure, count, and fail when they should."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import guard
from benchmarks.counted import WORKS as COUNTED
from tests.wheels import root

if TYPE_CHECKING:
    from pathlib import Path


def module(name: str, *argv: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`python -m name`, from the sources' folder."""
    done = subprocess.run(
        [sys.executable, "-m", name, *argv], capture_output=True, text=True, cwd=root, timeout=55, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_theProgram() -> None:
    done = module("benchmarks", "cancel", "echo-10x1k", "--rounds", "1", "--seconds", "0.05", "--json")
    told = json.loads(done.stdout)
    assert [each["row"] for each in told["rows"]] == ["echo-10x1k", "cancel"]
    for each in told["rows"]:
        assert {"calandria", "asyncio"} <= set(each["loops"])
        assert each["loops"]["calandria"]["median"] > 0
        assert isinstance(each["reached"], bool)


def test_anIdleConnection_isMeasured_whereTheSystemTells() -> None:
    done = module("benchmarks", "idle", "--rounds", "1", "--json", code=0 if sys.platform == "linux" else 1)
    for row in json.loads(done.stdout)["rows"]:
        assert 0 < row["loops"]["calandria"]["median"] < 20


@pytest.mark.parametrize("whose", ["ours", "bare"])
@pytest.mark.parametrize("work", COUNTED)
def test_everyWork_isDone(work: str, whose: str) -> None:
    module("benchmarks.counted", work, whose, "2")


def test_theBaseline_hasEveryWork_andIsSteady() -> None:
    baseline = json.loads(guard.BASELINE.read_text())
    assert "3.13" in baseline, "the environment `perf` judges nothing"
    for version, rows in baseline.items():
        assert set(rows) == set(COUNTED), version
        assert all(0 <= row["spread"] <= guard.STEADY for row in rows.values()), version


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["cancel", "ecko"], "no row is called ecko"),
        (["cancel", "--rounds", "0"], "a whole number, 1 or more, not '0'"),
        (["cancel", "--seconds", "nan"], "a number of seconds, 0.05 to 60, not 'nan'"),
        (["cancel", "--plot", "nowhere/at/all.svg"], "--plot"),
    ],
)
def test_theProgram_usedInAWrongWay(argv: list[str], said: str) -> None:
    assert said in module("benchmarks", *argv, code=2).stderr


@pytest.mark.timeout(180)
def test_aWorkThatHasBecomeDearer_fails(tmp_path: Path) -> None:
    """The documented command, against a baseline that says it was cheaper; that it passes otherwise, `perf` shows."""
    output = tmp_path / "figures.txt"
    tool, take = guard.findTool()
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (tmp_path / "baseline.json").write_text(
        json.dumps({version: {"cancel": {"ratio": 0.1, "spread": 0.0, "tool": tool}}})
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.guard", "cancel", "--output", str(output)],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=170,
        check=False,
        env={**os.environ, "CALANDRIA_PERF_BASELINE": str(tmp_path / "baseline.json")},
    )
    assert done.returncode == (0 if take is None else 1), done.stderr
    assert output.read_text() == done.stdout
    assert re.search(r"^cancel .*, bare .*, ratio ", done.stdout, re.MULTILINE)
    assert ("not judged" if take is None else "TOO DEAR") in done.stdout
