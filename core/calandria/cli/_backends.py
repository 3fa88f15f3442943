"""`calandria backends`: what a reactor can wait for readiness with, here; and which one it takes unasked.

A backend that cannot work here is shown like the others, with its reason: that is the question this command answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calandria import _catalogue, _registry
from calandria._text import didYouMean
from calandria.cli._output import OK, addJSONOption, complain, say, sayJSON, table

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """\
Show every backend: whether it can work here, and why not.

A reactor takes the backend that it is given by --backend (or by its argument),
else the one that the environment variable CALANDRIA_BACKEND names, else the
automatic choice: the first that works of kqueue, epoll, poll and select."""

EPILOG = """\
states:
  ok           can be chosen by its name
  unavailable  cannot work here; the reason says why
  broken       could not be loaded
  disabled     by CALANDRIA_DISABLE_PLUGINS
  shadowed     another has its name; NAME@DISTRIBUTION means this one

--json prints a list of objects with the keys
  name, distribution, version
  state      as above
  reason     why it is not ok, otherwise null
  automatic  whether it is what is taken unasked
  chosen     whether it is what is taken now, with the environment as it is

examples:
  calandria backends
  CALANDRIA_BACKEND=poll calandria backends --json"""


def addParser(subparsers: Any) -> None:
    """Add `backends` to the commands; `subparsers` is argparse's, whose type has no public name."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "backends", help="show the backends, and why one cannot work here", description=DESCRIPTION, epilog=EPILOG
    )
    addJSONOption(parser, "print a list of objects instead of a table")
    parser.set_defaults(command=backends)


def backends(arguments: argparse.Namespace) -> int:
    """Show them."""
    told = list(tell())
    if arguments.json:
        sayJSON(told)
        return OK
    say(
        table(
            ("NAME", "STATE", "CHOICE", "REASON"),
            (
                (
                    each["name"],
                    each["state"],
                    ", ".join(
                        word
                        for word, said in (
                            ("automatic", each["automatic"]),
                            ("$CALANDRIA_BACKEND", each["chosen"] and not each["automatic"]),
                        )
                        if said
                    ),
                    each["reason"] or "",
                )
                for each in told
            ),
        )
    )
    wanted = _catalogue.environment("CALANDRIA_BACKEND")
    if wanted and not any(each["chosen"] for each in told):
        complain(f"CALANDRIA_BACKEND={wanted} is none of them{didYouMean(wanted, [each['name'] for each in told])}")
    return OK


def tell() -> list[dict[str, Any]]:
    """Every backend as plain data."""
    infos = _registry.plugins("backend")
    usable = {info.name: info for info in infos if info.state == "ok"}
    automatic = next((usable[name] for name in _registry.AUTOMATIC if name in usable), None)
    chosen: object = automatic
    wanted = _catalogue.environment("CALANDRIA_BACKEND")
    if wanted:
        named = [info for info in infos if wanted == info.spec or (wanted == info.name and info.state != "shadowed")]
        chosen = named[0] if named else None
    return [
        {
            "name": info.name,
            "distribution": info.distribution,
            "version": info.version,
            "state": info.state,
            "reason": info.reason,
            "automatic": info is automatic,
            "chosen": info is chosen,
        }
        for info in infos
    ]
