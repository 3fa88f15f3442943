"""`calandria bench`; and what `benchmarks/` makes of its figures (its programs: tests/packaging/test_benchmarks.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from benchmarks import guard
from benchmarks.__main__ import markdown, reached, tell
from benchmarks.plot import ratio
from benchmarks.rows import Row
from calandria.cli import _bench, main
from calandria.cli._bench import WORKS, Program, Work, measure
from calandria.cli._output import CommandError

QUICK = ["--seconds", "0.05", "--rounds", "1"]
# Few enough to be quick: what a figure is worth is not tested here.
FEW = 200
# A server that fails as soon as a client is there.
FAILING = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    listener.accept()
raise SystemExit(3)
"""
MUTE = """
from calandria import Reactor
from calandria.cli import _works
from calandria_select import SelectBackend

class Mute(SelectBackend):
    def socketpair(self):
        return None

    def poll(self, timeout):
        if timeout is None:
            print("asleep", flush=True)
        return super().poll(timeout)

_works.main({"calandria": lambda backend: _works.Ours(Mute())})
"""


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert main(["bench", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


class TestCommand:
    def test_everyWork_onABackend(self, backendName: str, capsys: pytest.CaptureFixture[str]) -> None:
        works = ["echo", "accept", "bulk"]
        told = printed(capsys, *works, "--backend", backendName, "--connections", "3", *QUICK)
        assert [(each["work"], each["backend"]) for each in told] == [(work, backendName) for work in works]
        for each in told:
            assert 0 < each["cpuMin"] <= each["cpu"] <= each["cpuMax"], each
            assert each["rate"] > 0

    @pytest.mark.parametrize("name", ["timers", "cancel", "threads"])
    def test_worksWithoutALoad(self, name: str) -> None:
        work = Work(WORKS[name].unit, WORKS[name].work, count=FEW)
        figure = measure([sys.executable, "-m", "calandria.cli._works"], work, 1.0)
        assert figure.cpu > 0
        assert figure.rate > 0

    def test_severalBackends_takeTurns_andTheTableSaysSo(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "echo", "--backend", "select,poll", "--size", "10", *QUICK]) == 0
        heading, *lines = capsys.readouterr().out.splitlines()
        assert heading.split()[:3] == ["WORK", "BACKEND", "CPU"]
        assert [line.split()[:2] for line in lines] == [["echo", "select"], ["echo", "poll"]]
        assert all("µs/message" in line for line in lines)

    def test_unasked_itIsTheBackendThatIsTakenUnasked(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CALANDRIA_BACKEND", "poll")
        assert [each["backend"] for each in printed(capsys, "echo", "--connections", "1", *QUICK)] == ["poll"]

    @pytest.mark.parametrize(
        ("argv", "code", "said"),
        [
            (["ecko"], 2, "did you mean 'echo'"),
            (["echo", "--backend", "epol"], 4, "no backend 'epol' is installed"),
            (["echo", "--connections", "0"], 2, "a whole number, 1 or more, not '0'"),
            (["echo", "--size", "many"], 2, "a whole number, 1 or more, not 'many'"),
            (["echo", "--seconds", "0"], 2, "a number of seconds, 0.05 to 60, not '0'"),
            (["echo", "--seconds", "nan"], 2, "a number of seconds, 0.05 to 60, not 'nan'"),
            (["echo", "--backend", ","], 2, "names of backends, separated by commas, not ','"),
            (["echo", "--rounds", "-1"], 2, "a whole number, 1 or more, not '-1'"),
        ],
    )
    def test_wrongUse(self, argv: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", *argv]) == code
        assert said in capsys.readouterr().err

    def test_aMessageThatNoMemoryHolds(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "echo", "--size", str(1 << 60), *QUICK]) == 1
        said = capfd.readouterr().err
        assert "load: " in said
        assert "Traceback" not in said

    def test_aBackendThatFails_isNamed_andNotTheLoad(self) -> None:
        with pytest.raises(CommandError, match="the loop echo ended early, with exit code 3"):
            measure([sys.executable, "-c", FAILING, "the loop"], replace(WORKS["echo"], connections=2), 0.2)

    def test_aLoopThatNobodyCanWake_endsAllTheSame(self) -> None:
        """The backend gives no pair of sockets, which it need not; and this one's polls end of themselves never."""
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", MUTE, "echo"]
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)][1] == "asleep\n"
            _, said = process.communicate(timeout=30)
        assert process.returncode == 1
        assert said == "the loop does not stop when another thread tells it to\n"

    def test_aProgramThatDoesNotEnd_isEnded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_bench, "ENDING", 0.1)
        program = Program([sys.executable, "-c", "import threading; print('up', flush=True); threading.Event().wait()"])
        with pytest.raises(CommandError, match="did not end when its input did"), program:
            assert program.line() == "up\n"
        with pytest.raises(CommandError, match="exit code -9"):
            program.check()

    def test_aProgramThatEndsEarly_isNamed(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(CommandError, match="ended early, with exit code 3"):
            measure([sys.executable, "-c", "raise SystemExit(3)"], WORKS["timers"], 1.0)


class TestTable:
    def row(self, figure: str = "cpu", most: float | None = None, mostOfC: float | None = None) -> Row:
        return Row("a row", "µs of CPU", WORKS["echo"], figure, most=most, mostOfC=mostOfC)

    def test_ahead_isCheaperThanTheBestPeer_andNearEnoughToC(self) -> None:
        figures = {"c": [8.0], "calandria": [9.0, 10.0, 9.5], "uvloop": [10.0], "asyncio": [30.0]}
        told = tell("echo", self.row(mostOfC=1.25), figures)
        assert (told["ofBest"], told["ofC"], told["reached"]) == (0.95, 9.5 / 8, True)
        told = tell("echo", self.row(mostOfC=1.1), figures)
        assert told["reached"] is False
        told = tell("echo", self.row(), {**figures, "uvloop": [9.0]})
        assert told["reached"] is False

    def test_rates_areTheBetterTheLarger(self) -> None:
        told = tell("threads", self.row("rate"), {"calandria": [200.0], "uvloop": [100.0], "twisted": [50.0]})
        assert (told["ofBest"], told["reached"]) == (0.5, True)

    def test_aLimitOfItsOwn_isWhatCounts(self) -> None:
        assert reached(self.row(most=2.5), 2.4, 3.0, None) is True
        assert reached(self.row(most=2.5), 2.6, 0.1, None) is False

    def test_inThePicture_allAreInTimesOfTheBestPeer(self) -> None:
        cost = tell("echo", self.row(), {"calandria": [9.0], "uvloop": [6.0], "asyncio": [12.0]})
        assert [ratio(cost, loop) for loop in ("calandria", "uvloop", "asyncio")] == [1.5, 1.0, 2.0]
        row = Row("a row", "calls/s", WORKS["threads"], "rate")
        rate = tell("threads", row, {"calandria": [50.0], "uvloop": [100.0], "asyncio": [25.0]})
        assert [ratio(rate, loop) for loop in ("calandria", "uvloop", "asyncio")] == [2.0, 1.0, 4.0]

    def test_withoutAnyPeer_nothingIsClaimed(self) -> None:
        told = tell("echo", self.row(), {"calandria": [9.0]})
        assert (told["ofBest"], told["reached"]) == (None, None)

    def test_markdown_saysPlainlyWhatIsNotReached(self) -> None:
        figures = {"calandria": [9.0, 11.0, 10.0], "uvloop": [5.0]}
        *_, line = markdown([tell("echo", self.row(), figures)]).splitlines()
        assert line == "| a row | µs of CPU | – | 10 (9..11) | 5 (5..5) | – | – | 2.00 | – | **no** |"


class TestGuard:
    kept: ClassVar = {"ratio": 2.0, "spread": 0.0, "tool": "cachegrind"}

    @pytest.mark.parametrize(("ratio", "good"), [(1.5, True), (2.0, True), (2.19, True), (2.21, False)])
    def test_aTenth(self, ratio: float, good: bool) -> None:
        line, judged = guard.judge("echo", {"ours": 1.0, "bare": 1.0, "ratio": ratio}, self.kept, "cachegrind")
        assert judged is good
        assert ("TOO DEAR" in line) is not good
        assert ("cheaper" in line) is (ratio < 1.9)

    def test_whereNothingCounts_itIsTimed(self) -> None:
        found = guard.measureAll(["cancel"], None)["cancel"]
        assert 0 < found["bare"] < found["ours"]
        assert found["ratio"] > 1

    @pytest.mark.parametrize(
        ("kept", "tool", "said"),
        [
            (None, "cachegrind", "the baseline has no such row for this Python"),
            (kept, "perf stat", "the baseline was counted by cachegrind"),
            (kept, "nothing counts instructions here", "nothing counts instructions here"),
            ({**kept, "spread": 0.5}, "cachegrind", "not steady"),
        ],
    )
    def test_whatIsNotJudged_saysSo(self, kept: dict[str, Any] | None, tool: str, said: str) -> None:
        line, judged = guard.judge("echo", {"ours": 1.0, "bare": 1.0, "ratio": 9.0}, kept, tool)
        assert judged
        assert f"not judged: {said}" in line
