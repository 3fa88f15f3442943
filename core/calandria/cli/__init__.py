"""The command `calandria`: its parser, the plugins that add commands to it, and how it ends.

Each command is a module of its own that adds a parser and names the function behind it. Plugins add theirs by the same
door, the hook `calandria_cli(subparsers)`: `subparsers.add_parser(...)`, then `parser.set_defaults(command=function)`.
"""

from __future__ import annotations

import argparse
import logging
import platform
import sys
from typing import TYPE_CHECKING, Any

import calandria
from calandria import _registry, error
from calandria.cli._backends import addParser as addBackends
from calandria.cli._bench import addParser as addBench
from calandria.cli._output import EXIT_CODES, FAILED, OK, UNAVAILABLE, USAGE, CommandError, Parser, complain, say
from calandria.cli._plugins import addParser as addPlugins
from calandria.cli._run import addParser as addRun

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("calandria")

EPILOG = f"""\
examples:
  calandria run echo
  calandria run package.module:Factory --listen tcp:8080 --backend poll
  calandria backends
  calandria plugins info tcp

`calandria COMMAND --help` tells all about one command. `python -m calandria` is
the same program.

{EXIT_CODES}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (by default this process's arguments) says; the exit code."""
    try:
        arguments = parse(argv)
        code: int | None = arguments if isinstance(arguments, int) else arguments.command(arguments)
    except CommandError as exc:
        logger.debug("the cause of what follows", exc_info=True)
        complain(str(exc))
        return exc.exitCode
    except error.PluginError as exc:
        logger.debug("the cause of what follows", exc_info=True)
        complain(str(exc))
        return UNAVAILABLE
    except BrokenPipeError:
        return OK  # `calandria plugins | head -1` got what it wanted
    except KeyboardInterrupt:
        complain("interrupted")
        return FAILED
    return OK if code is None else code


def parse(argv: Sequence[str] | None) -> argparse.Namespace | int:
    """The arguments; or, if they asked for help or cannot be understood, the exit code: that has been printed."""
    try:
        return makeParser().parse_args(argv)
    except SystemExit as exc:
        say("", end="")  # argparse does not flush, and a reader that has gone is noticed by flushing only
        return exc.code if isinstance(exc.code, int) else OK


def makeParser() -> argparse.ArgumentParser:
    """The parser with all commands, those of plugins included."""
    parser = Parser(
        prog="calandria",
        description="A reactor whose backends and transports are plugins.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action=_Version, help="print the version of calandria and of Python, and end")
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands")
    addRun(subparsers)
    addBackends(subparsers)
    addPlugins(subparsers)
    addBench(subparsers)
    _registry.commands(subparsers)

    def explain(arguments: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)
        return USAGE

    parser.set_defaults(command=explain)
    return parser


class _Version(argparse.Action):
    """`--version`, printed as everything else is: argparse's own would wrap the line."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        say(f"calandria {calandria.__version__} ({platform.python_implementation()} {platform.python_version()})")
        parser.exit()
