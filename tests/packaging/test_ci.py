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
=================== 40 passed, 2 skipped in 3.21s ===================
=================== 30 passed in 61.00s (0:01:01) ===================
  py311: OK (1.00 seconds)
  py312: OK (1.00 seconds)
  py313: OK (1.00 seconds)
  lint: OK (1.00 seconds)
  congratulations :) (3.00 seconds)
"""


@pytest.fixture
def ci(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `.ci/run` where the test command prints `output` and exits with `code`, and only `pythons` are installed."""

    def execute(
        output: str,
        code: int = 0,
        pythons: tuple[str, ...] = ("3.11", "3.12", "3.13"),
        tools: tuple[str, ...] = ("strace",),
    ) -> subprocess.CompletedProcess[str]:
        programs = tmp_path / "bin"
        readme = f'<!-- test command -->\n```sh\ncat output && test -z "$(cat)" && exit {code}\n```\n'
        writeFiles(tmp_path, {"README.md": readme, "output": output})
        (tmp_path / ".ci").mkdir()
        shutil.copy(root / ".ci/run", tmp_path / ".ci/run")
        installed = {"python3", *(f"python{version}" for version in pythons), *tools}
        stubs = dict.fromkeys(installed, "#!/bin/sh\necho /somewhere/python 3.x\n")
        stubs["apt-get"] = '#!/bin/sh\necho "$@" >> apt-get.log\nexit 1\n'
        writeFiles(programs, stubs)
        for name in ("awk", "bash", "cat", "dirname", "grep", "id", "mktemp", "rm", "sed", "tee"):
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
    result = ci(allRan)
    assert result.returncode == 0, result.stdout + result.stderr
    assert lastLine(result) == "70 passed, 0 failed, 2 skipped"
    assert "cat output" in result.stdout, "it does not say what it runs"


def test_theExitCodeIsKept(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    failing = allRan.replace("40 passed", "1 failed, 39 passed, 3 errors")
    result = ci(failing, code=7)
    assert result.returncode == 7
    assert lastLine(result) == "69 passed, 4 failed, 2 skipped"


@pytest.mark.parametrize("skipped", ["py311", "py312", "py313"])
def test_aSkippedPythonIsRed(skipped: str, ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan.replace(f"{skipped}: OK", f"{skipped}: SKIP"))
    assert result.returncode == 1
    assert f"{skipped} did not run" in result.stdout


def test_runningNoTestIsRed(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci("".join(line for line in allRan.splitlines(keepends=True) if "passed" not in line))
    assert result.returncode == 1
    assert lastLine(result) == "0 passed, 0 failed, 0 skipped"


def test_aMissingPythonIsRed(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan, pythons=("3.11", "3.13"))
    assert result.returncode == 1
    assert "missing: Python 3.12" in result.stdout
    assert "passed" not in result.stdout, "the tests ran all the same"


def test_aMissingToolIsOnlyNoted(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    result = ci(allRan, tools=())
    assert result.returncode == 0, result.stdout + result.stderr
    assert "strace" in result.stdout


def test_colouredOutputCounts(ci: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    coloured = allRan.replace("40 passed", "\x1b[32m40 passed\x1b[0m").replace("  py311: OK", "\x1b[32m  py311: OK")
    result = ci(coloured)
    assert result.returncode == 0, result.stdout
    assert lastLine(result).startswith("70 passed")
