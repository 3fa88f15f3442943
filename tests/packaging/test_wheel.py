"""What is shipped: wheel and sdist hold exactly the files they should, and the metadata says what the sources say.

hatchling builds an empty wheel without a complaint when a package's folder is misspelt, and ships whatever lies about
when it is told too little; so the contents are compared with the tree, file by file.
"""

from __future__ import annotations

import email
import json
import sys
import tarfile
import tomllib
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.wheels import buildWheel, root, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.wheels import Environment

settings = tomllib.loads((root / "pyproject.toml").read_text())
project = settings["project"]
packages: list[str] = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
distInfo = f"calandria-{project['version']}.dist-info"

# The folders and files of the source distribution; what lies beside them in a work tree is nobody's business.
sourceFolders = (".ci", "backends", "benchmarks", "changes", "core", "docs", "plugins", "tests")
sourceFiles = {
    ".gitignore", "CONTRIBUTING.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "tox.ini",
}  # fmt: skip


def filesBelow(folder: Path) -> set[str]:
    """Every file below a folder, as paths from the folder, but for what Python and the tools leave behind."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and "__pycache__" not in parts and not any(part.endswith("_cache") for part in parts):
            found.add("/".join(parts))
    return found


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder, cwd=root)
    (path,) = folder.iterdir()
    return path


def test_wheelHoldsExactlyThePackages(wheelUnderTest: Path) -> None:
    expected = {
        f"{distInfo}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    }
    for package in packages:
        name = package.rpartition("/")[2]
        expected |= {f"{name}/{file}" for file in filesBelow(root / package)}
    with zipfile.ZipFile(wheelUnderTest) as wheel:
        assert set(wheel.namelist()) == expected
        for package in packages:
            name = package.rpartition("/")[2]
            assert wheel.read(f"{name}/__init__.py") == (root / package / "__init__.py").read_bytes()


def test_everyPackageIsTyped(wheelUnderTest: Path) -> None:
    with zipfile.ZipFile(wheelUnderTest) as wheel:
        names = set(wheel.namelist())
    assert {f"{package.rpartition('/')[2]}/py.typed" for package in packages} <= names


def test_wheelHoldsPythonAndNothingElse(wheelUnderTest: Path) -> None:
    with zipfile.ZipFile(wheelUnderTest) as wheel:
        names = [name for name in wheel.namelist() if not name.startswith(distInfo)]
    assert {name.rpartition(".")[2] for name in names} == {"py", "typed"}


def test_metadata(wheelUnderTest: Path) -> None:
    with zipfile.ZipFile(wheelUnderTest) as wheel:
        metadata = email.message_from_bytes(wheel.read(f"{distInfo}/METADATA"))
    assert metadata["Name"] == "calandria"
    assert metadata["Version"] == project["version"]
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    required = metadata.get_all("Requires-Dist") or []
    assert sorted(one for one in required if "extra ==" not in one) == sorted(project["dependencies"])
    assert metadata.get_all("Provides-Extra") == list(project["optional-dependencies"]) == ["bench"]
    assert metadata.get_payload(decode=True) == (root / "README.md").read_bytes()


def test_sdistHoldsExactlyTheSources(sdist: Path) -> None:
    expected = set(sourceFiles)
    for folder in sourceFolders:
        expected |= {f"{folder}/{file}" for file in filesBelow(root / folder)}
    prefix = f"calandria-{project['version']}/"
    with tarfile.open(sdist) as archive:
        names = {member.name.removeprefix(prefix) for member in archive if member.isfile()}
        mode = archive.getmember(f"{prefix}.ci/run").mode
    assert names == expected
    assert mode & 0o111, ".ci/run lost its run bit"


def test_sdistBuildsTheSameWheel(sdist: Path, wheelUnderTest: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    rebuilt = buildWheel(tmp_path / f"calandria-{project['version']}", tmp_path / "wheels")
    with zipfile.ZipFile(rebuilt) as ours, zipfile.ZipFile(wheelUnderTest) as theirs:
        assert sorted(ours.namelist()) == sorted(theirs.namelist())
        for name in ours.namelist():
            assert ours.read(name) == theirs.read(name), name


def test_everyEntryPointLoads(newEnvironment: Callable[..., Environment]) -> None:
    """As strangers do it: from the installed metadata. Each backend bears the name it is found by."""
    expected = {group: set(points) for group, points in project["entry-points"].items()}
    environment = newEnvironment()
    result = environment.runPython(
        """
import importlib_metadata, json
found = {}
for point in importlib_metadata.distribution("calandria").entry_points:
    value = point.load()
    if point.group == "calandria.backends":
        assert value.name == point.name, point
        assert value.unavailable() is None or isinstance(value.unavailable(), str), point
    if point.group == "calandria.transports":
        assert value.name.lower() == point.name, point
    found.setdefault(point.group, []).append(point.name)
print(json.dumps(found))
"""
    )
    found = {group: set(names) for group, names in json.loads(result.stdout).items()}
    assert found == {**expected, "console_scripts": {"calandria"}}
