"""What every command shares: how it ends, how it prints, and a parser that guesses what was meant.

Scripts read what we print and how we end, so exit codes, tables and JSON are made in one place. What is printed comes
partly from strangers (the names and errors of their plugins): it is put on one line, without control characters.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from calandria._text import didYouMean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OK = 0
FAILED = 1
USAGE = 2
CANNOT_LISTEN = 3
UNAVAILABLE = 4

EXIT_CODES = """\
exit codes:
  0  done, or stopped by SIGINT or SIGTERM
  1  ended by an error
  2  wrong usage
  3  cannot listen
  4  a plugin or a backend is unavailable"""


class CommandError(Exception):
    """A command cannot do what was asked: the sentence that says why, and the exit code that it ends with."""

    def __init__(self, message: str, exitCode: int) -> None:
        super().__init__(message)
        self.exitCode = exitCode


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that names the nearest right word, takes no abbreviations, and keeps examples as written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Abbreviations would make every new option a risk for somebody's script.
        super().__init__(
            *args, **{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **kwargs}
        )

    # Typed for what the commands need; argparse's two overloads say the same of namespaces of other types.
    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]  # see above
        """Refuse what is left over here, in the parser of the command, which knows the options that could be meant."""
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            hint = didYouMean(rest[0].partition("=")[0], options) if rest[0].startswith("-") else ""
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return parsed, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as exc:
            hint = didYouMean(str(value), [str(choice) for choice in action.choices or ()])
            raise argparse.ArgumentError(action, f"{exc.message}{hint}") from None


def say(text: str, end: str = "\n") -> None:
    """Print to standard output and flush, so that whoever reads it through a pipe has it now.

    Raises BrokenPipeError if nobody reads any more, and CommandError if it cannot be written for another reason.
    """
    if sys.stdout is None:  # closed by whoever started us
        return
    # A terminal that is not Unicode gets an escape for what it does not have, like standard error.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end=end, flush=True)
    except OSError as exc:
        abandonOutput()
        if isinstance(exc, BrokenPipeError):
            raise
        raise CommandError(f"cannot write to standard output: {exc.strerror}", FAILED) from exc


def abandonOutput() -> None:
    """Lead standard output nowhere: what Python flushes at exit would end in one more complaint about the same."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, sys.stdout.fileno())
        finally:
            os.close(null)
    except (OSError, ValueError):
        pass  # not a real file: nothing is flushed to one at exit


def complain(message: str) -> None:
    """Print to standard error, under our name."""
    try:
        print(f"calandria: {message}", file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is there to read it, and the exit code says the same


def oneLine(text: object) -> str:
    """Text for one cell of a table, whatever it was."""
    return printable(" ".join(str(text).split()))


def printable(line: str) -> str:
    """A line without anything that a terminal would act on: control characters are escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as what they hold, the last one as it comes; an empty cell is a dash."""
    cells = [list(headings), *([oneLine(cell) or "-" for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    widths[-1] = 0
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def sayJSON(value: object, *, indent: int | None = 2) -> None:
    """Print as JSON, in ASCII, so that no locale can spoil it. What JSON does not know is printed as its text."""
    say(json.dumps(value, indent=indent, default=str))


def addJSONOption(parser: argparse.ArgumentParser, help: str, **kwargs: Any) -> None:
    """Every table is there for programs too, under the same option."""
    parser.add_argument("--json", action="store_true", help=help, **kwargs)
