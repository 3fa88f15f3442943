"""Real distributions: write a project, build its wheel, install it with pip into an environment that is thrown away.

A plugin is only a plugin when pip has put its metadata where an interpreter finds it, so no test of discovery fakes an
entry point. The fixtures `wheelUnderTest` and `newEnvironment` of conftest.py give the usual start.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from tests.helpers import mergedEnvironment

if TYPE_CHECKING:
    from collections.abc import Mapping

root = Path(__file__).resolve().parent.parent


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    timeout: float = 120.0,
    expect: int | None = 0,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output kept; AssertionError with that output unless it exits with `expect`."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=mergedEnvironment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if expect is not None:
        assert result.returncode == expect, f"{command} exited {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def writeFiles(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts below `folder`, making the folders between."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def projectFile(
    name: str,
    entryPoints: Mapping[str, Mapping[str, str]],
    *,
    version: str = "1.0",
    packages: tuple[str, ...] = (),
    dependencies: tuple[str, ...] = (),
) -> str:
    """The pyproject.toml of a plugin; `packages` are the import packages that it ships, by default `name` itself."""
    shipped = packages or (name.replace("-", "_"),)
    lines = [
        "[build-system]",
        'requires = ["hatchling"]',
        'build-backend = "hatchling.build"',
        "[project]",
        f'name = "{name}"',
        f'version = "{version}"',
        f"dependencies = {list(dependencies)!r}",
        "[tool.hatch.build.targets.wheel]",
        f"packages = {list(shipped)!r}",
    ]
    for group, points in entryPoints.items():
        lines.append(f'[project.entry-points."{group}"]')
        lines.extend(f'"{point}" = "{value}"' for point, value in points.items())
    return "\n".join(lines) + "\n"


def buildWheel(project: Path, into: Path) -> Path:
    """Build the wheel of a project that uses hatchling, with the hatchling of this environment."""
    into.mkdir(parents=True, exist_ok=True)
    before = set(into.glob("*.whl"))
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", into, cwd=project)
    (wheel,) = set(into.glob("*.whl")) - before
    return wheel


def buildPlugin(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    entryPoints: Mapping[str, Mapping[str, str]],
    *,
    version: str = "1.0",
    dependencies: tuple[str, ...] = (),
) -> Path:
    """Write a distribution below `folder`, build its wheel; the top folders of `files` are its import packages."""
    project = folder / f"{name}-{version}"
    packages = tuple(sorted({file.partition("/")[0] for file in files}))
    settings = projectFile(name, entryPoints, version=version, packages=packages, dependencies=dependencies)
    writeFiles(project, {"pyproject.toml": settings, **files})
    return buildWheel(project, folder / "wheels")


class Environment:
    """A virtual environment of its own, empty at first, into which pip installs from `wheelhouse` and nowhere else."""

    def __init__(self, folder: Path, wheelhouse: Path) -> None:
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        self.wheelhouse = wheelhouse

    def install(self, *what: str | Path) -> None:
        """Install wheels (paths) or requirements that the wheelhouse can satisfy."""
        pip = (sys.executable, "-m", "pip", "--python", self.python)
        run(
            *pip,
            "install",
            "--quiet",
            "--no-index",
            "--find-links",
            self.wheelhouse,
            *what,
            env={"PIP_FIND_LINKS": None},
        )

    def runPython(
        self, code: str, *args: str, env: Mapping[str, str | None] | None = None, expect: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program text in this environment, warnings being errors."""
        return run(self.python, "-W", "error", "-c", code, *args, env=env, expect=expect)

    def command(
        self, *args: str, env: Mapping[str, str | None] | None = None, expect: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run this environment's `calandria` command."""
        return run(self.bin / "calandria", *args, env=env, expect=expect)
