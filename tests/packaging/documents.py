"""Reads the code blocks out of the documents, so that tests can run them.

A block's fence names its language and, where it is a file, the file: ```` ```python echo.py ````. Shell blocks hold one
command a line. A plugin is a file `package/__init__.py` and the `pyproject.toml` that follows it. Run as a program, it
writes the Python files into the folder that it is given: the environment `types` has them checked.
"""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.wheels import buildWheel, root, writeFiles

if TYPE_CHECKING:
    from collections.abc import Iterator

names = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((root / "docs").glob("*.md"))))


class Block(NamedTuple):
    """A fenced block of a document."""

    document: str
    language: str
    name: str
    text: str


def read() -> Iterator[Block]:
    """Every fenced block of every document, in order."""
    for document in names:
        text = (root / document).read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\S*)(?: +(\S+))?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield Block(document, match[1], match[2] or "", match[3])


blocks = list(read())
commands = [(block.document, line) for block in blocks if block.language == "sh" for line in block.text.splitlines()]
files = {block.name: block.text for block in blocks if block.language == "python"}


def markedCommand(marker: str) -> str:
    """The command of the README's block that follows `<!-- marker -->`."""
    match = re.search(rf"^<!-- {marker} -->\n```sh\n(.*)\n```$", (root / "README.md").read_text(), re.MULTILINE)
    assert match, f"no {marker} in README.md"
    return match[1]


def buildPlugins(folder: Path) -> list[Path]:
    """The wheels of all plugins that the documents hold in full."""
    wheels: list[Path] = []
    for module, settings in itertools.pairwise(blocks):
        if module.name.endswith("/__init__.py"):
            assert settings.name == "pyproject.toml", f"{module.name} in {module.document} has no pyproject.toml"
            project = folder / module.name.partition("/")[0]
            writeFiles(project, {module.name: module.text, settings.name: settings.text})
            wheels.append(buildWheel(project, folder / "wheels"))
    return wheels


def main(folder: Path) -> None:
    """Write what is Python below `folder`, but for the program that uses a method which no type checker can know."""
    writeFiles(folder, {name: text for name, text in files.items() if name != "terminal.py"})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
