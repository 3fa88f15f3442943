"""`calandria plugins` and `calandria plugins info NAME`: what is installed, in what state, and how it is used.

What is printed about a transport is what its declaration says: nobody writes it twice, and a stranger's plugin is
explained as well as ours.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from calandria import _registry
from calandria._text import didYouMean
from calandria.cli._output import OK, UNAVAILABLE, CommandError, addJSONOption, oneLine, printable, say, sayJSON, table

COLUMNS = ("kind", "name", "distribution", "version", "state", "reason")

STATES = """\
states:
  ok           can be used by its name
  unavailable  cannot work here; the reason says why
  broken       could not be loaded; the reason says why
  disabled     by CALANDRIA_DISABLE_PLUGINS
  shadowed     others have its name too; NAME@DISTRIBUTION means this one"""

EPILOG = f"""\
kinds:
  backend      what a reactor waits for readiness with
  transport    what `--listen` and reactor.listen() take
  plugin       hooks: observers, resolvers, commands

{STATES}

--json prints a list of objects with the keys
  {", ".join(COLUMNS)}
of which reason is null for one that is ok.

examples:
  calandria plugins
  calandria plugins --json
  calandria plugins info tcp"""

INFO_EPILOG = f"""\
{STATES}

--json prints a list of objects, one for each plugin of that name, with the keys
  kind, name, distribution, version, state, reason
  entryPoint   module:attribute, or null if it was registered in code
  group        of the entry point, or null
  file         of its module, or null
and of those that could be loaded
  transport    api, scheme, aliases, and spellings, a list of objects with the keys
               use (listen, connect or layer), string, method, class, doc,
               datagrams, and fields, a list of objects with the keys name,
               type, takes, required, default, textual, doc
  backend      api, doc, and options, what it can be made with
  plugin       hooks, the names of those that it has

examples:
  calandria plugins info tcp
  calandria plugins info epoll --json
  calandria plugins info serial@calandria-serial"""


def addParser(subparsers: Any) -> None:
    """Add `plugins` to the commands; `subparsers` is argparse's, whose type has no public name."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "plugins",
        help="show the plugins, and all about one of them",
        usage="calandria plugins [-h] [--json] [info NAME]",
        description="Show every plugin: where it comes from, in what state it is, and why.",
        epilog=EPILOG,
    )
    addJSONOption(parser, "print a list of objects instead of a table")
    parser.set_defaults(command=plugins)
    inner = parser.add_subparsers(metavar="COMMAND", title="commands", prog=parser.prog)
    about: argparse.ArgumentParser = inner.add_parser(
        "info",
        help="show all about one plugin: its spellings, fields and options",
        description="Show all about the plugins of one name: how they are used, and with what.",
        epilog=INFO_EPILOG,
    )
    about.add_argument("name", metavar="NAME", help="its name, or NAME@DISTRIBUTION")
    # No default of its own, which would undo `calandria plugins --json info NAME`.
    addJSONOption(about, "print a list of objects instead of text", default=argparse.SUPPRESS)
    about.set_defaults(command=info)


def plugins(arguments: argparse.Namespace) -> int:
    """Show them all."""
    found = [{column: getattr(each, column) for column in COLUMNS} for each in _registry.plugins()]
    if arguments.json:
        sayJSON(found)
    else:
        say(
            table(
                [column.upper() for column in COLUMNS], [[each[column] or "" for column in COLUMNS] for each in found]
            )
        )
    return OK


def info(arguments: argparse.Namespace) -> int:
    """Show all about those of one name."""
    found = _registry.find(arguments.name)
    if not found:
        known = dict.fromkeys(each.name for each in _registry.plugins())
        raise CommandError(
            f"no plugin {arguments.name!r} is installed{didYouMean(arguments.name, known)}; "
            f"there are: {', '.join(known)}",
            UNAVAILABLE,
        )
    told = [_registry.describe(each) for each in found]
    if arguments.json:
        sayJSON(told)
    else:
        say("\n\n".join(textOf(each) for each in told))
    return OK


def textOf(told: dict[str, Any]) -> str:
    """One plugin, for people."""
    facts = {
        "from": f"{told['distribution']} {told['version']}",
        "entry point": f"{told['entryPoint']} ({told['group']})" if told["entryPoint"] else "none, registered in code",
        "file": told["file"],
        "state": told["state"],
        "reason": told["reason"],
        "aliases": ", ".join(told.get("aliases", ())),
        "plugin API": told.get("api"),
        "hooks": ", ".join(told.get("hooks", ())),
    }
    parts = [
        "\n".join(
            [
                f"{told['kind']} {told['name']}",
                *(f"  {label:12}{oneLine(fact)}" for label, fact in facts.items() if fact),
            ]
        )
    ]
    if told.get("doc"):
        parts.append(indented(told["doc"]))
    parts += [spellingText(spelling) for spelling in told.get("spellings", ())]
    if "options" in told:
        parts.append(optionsText(told["options"]))
    return "\n\n".join(parts)


def spellingText(spelling: dict[str, Any]) -> str:
    """One side of a transport: how it is written, what it does, and what its fields are."""
    heads = [
        ("string", spelling["string"]),
        ("method", f"reactor.{spelling['method']}" if spelling["method"] else None),
        ("class", spelling["class"]),
    ]
    lines = [f"{spelling['use']}:", *(f"  {label:12}{oneLine(text)}" for label, text in heads if text)]
    parts = ["\n".join(lines)]
    if spelling["doc"]:
        parts.append(indented(spelling["doc"]))
    if spelling["fields"]:
        rows = [
            (
                field["name"],
                field["type"],
                "required" if field["required"] else repr(field["default"]),
                "; ".join(filter(None, (field["takes"] or "has no text", field["doc"]))),
            )
            for field in spelling["fields"]
        ]
        parts.append(indented(table(("FIELD", "TYPE", "DEFAULT", "TAKES"), rows)))
    return "\n\n".join(parts)


def optionsText(options: list[str]) -> str:
    """What a backend can be made with."""
    return f"options:    {', '.join(options) or 'none'}"


def indented(text: str) -> str:
    """A paragraph below its heading. The text of a plugin's author keeps its lines, and nothing but text."""
    return textwrap.indent("\n".join(map(printable, text.expandtabs().splitlines())), "    ")
