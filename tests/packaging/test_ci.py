"""`.ci/run` is nothing weaker than the README's command: it ends red for whatever could make a green one mean less.

It runs here with a README of our own, whose command is a stand-in that prints what tox and pytest would print, and with
a PATH of stand-ins for the programs that it looks for; the script itself is the real one.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.wheels import root, writeFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

allRan = """\
lint: OK (1.00 seconds)
  py311: OK (1.00 seconds)
  py312: OK (1.00 seconds)
  py313: OK (1.00 seconds)
  lint: OK (1.00 seconds)
  congratulations :) (3.00 seconds)
"""
results = (
    '<testsuites name="t"><testsuite name="pytest" errors="0" failures="0" skipped="2" tests="42" time="1"></testsuite>'
)
environments = ("py311", "py312", "py313", "epoll")


@pytest.fixture
def ci(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `.ci/run` where the test command prints `output` and exits with `code`, and only `pythons` are installed."""

    def execute(
        output: str,
        code: int = 0,
        *,
        pythons: tuple[str, ...] = ("3.11", "3.12", "3.13"),
        tools: tuple[str, ...] = ("strace", "valgrind"),
        reports: dict[str, str] | None = None,
        figures: str = "echo 13,000 instructions",
    ) -> subprocess.CompletedProcess[str]:
        programs = tmp_path / "bin"
        command = f'cp -r new/. .tox && cat output && test -z "$(cat)" && exit {code}'
        written = dict.fromkeys(environments, results) | (reports or {})
        writeFiles(tmp_path, {"README.md": f"<!-- test command -->\n```sh\n{command}\n```\n", "output": output})
        writeFiles(tmp_path / ".tox", {"py311/results.xml": results.replace("42", "1000"), "old/results.xml": results})
        writeFiles(tmp_path / "new", {f"{name}/results.xml": text for name, text in written.items() if text})
        if figures:
            writeFiles(tmp_path / "new", {"perf/figures.txt": figures})
        writeFiles(tmp_path / ".tox", {"perf/figures.txt": "of an earlier run"})
        (tmp_path / ".ci").mkdir()
        shutil.copy(root / ".ci/run", tmp_path / ".ci/run")
        installed = {"python3", *(f"python{version}" for version in pythons), *tools}
        stubs = dict.fromkeys(installed, "#!/bin/sh\necho /somewhere/python 3.x\n")
        stubs["apt-get"] = '#!/bin/sh\necho "$@" >> apt-get.log\nexit 1\n'
        writeFiles(programs, stubs)
        for name in ("awk", "bash", "cat", "cp", "dirname", "grep", "id", "mktemp", "rm", "sed", "tee"):
            found = shutil.which(name)
            assert found, name
            (programs / name).symlink_to(found)
        for name in stubs:
            (programs / name).chmod(0o755)
        return subprocess.run(
            ["bash", ".ci/run"],
            cwd=tmp_path,
            env={"PATH": str(programs), "CI": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return execute


def lastLine(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout.rstrip().rpartition("\n")[2]


def test_allRan(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """What an earlier run left does not count."""
    result = ci(allRan)
    assert result.returncode == 0, result.stdout + result.stderr
    assert lastLine(result) == "160 passed, 0 failed, 8 skipped"
    assert "cat output" in result.stdout, "it does not say what it runs"


def test_theExitCodeIsKept(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    failing = results.replace('errors="0" failures="0"', 'errors="3" failures="1"')
    result = ci(allRan, 7, reports={"py312": failing})
    assert result.returncode == 7
    assert lastLine(result) == "156 passed, 4 failed, 8 skipped"


@pytest.mark.parametrize("skipped", ["py311", "py312", "py313"])
def test_aSkippedPythonIsRed(skipped: str, ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan.replace(f"{skipped}: OK", f"{skipped}: SKIP"))
    assert result.returncode == 1
    assert f"{skipped} did not run" in result.stdout


@pytest.mark.parametrize("report", ["", results.replace("42", "0").replace('skipped="2"', 'skipped="0"')])
def test_aPythonWithoutTestsIsRed(report: str, ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan, reports={"py312": report})
    assert result.returncode == 1
    assert "py312 ran no test" in result.stdout


def test_aMissingPythonIsRed(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan, pythons=("3.11", "3.13"))
    assert result.returncode == 1
    assert "missing: Python 3.12" in result.stdout
    assert "cat output" not in result.stdout, "the tests ran all the same"


def test_aMissingToolIsOnlyNoted(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan, tools=())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "strace" in result.stdout
    assert "valgrind" in result.stdout


def test_figuresArePrinted(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan)
    assert "echo 13,000 instructions" in result.stdout
    assert "of an earlier run" not in result.stdout


def test_withoutFiguresItIsRed(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan, figures="")
    assert result.returncode == 1
    assert "perf did not run" in result.stdout


def test_colouredOutputCounts(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan.replace("  py311: OK", "\x1b[32m  py311: OK\x1b[0m"))
    assert result.returncode == 0, result.stdout
