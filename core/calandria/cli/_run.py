"""`calandria run`: serve a protocol, a factory or one of the built-in services, until a signal comes.

A target is told apart by what it is, never by how it is spelled. Nothing is announced before the signal handlers
stand: whoever reads the line may connect at once, and stop us at once.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from calandria import address, error
from calandria._text import didYouMean
from calandria.cli._output import (
    CANNOT_LISTEN,
    EXIT_CODES,
    FAILED,
    OK,
    UNAVAILABLE,
    USAGE,
    CommandError,
    addJSONOption,
    complain,
    say,
    sayJSON,
)
from calandria.protocol import Factory, Protocol
from calandria.protocols import wire

if TYPE_CHECKING:
    import argparse

    from calandria import Reactor
    from calandria.interfaces import ListeningPort

logger = logging.getLogger("calandria")

# The built-in services, and the ports that they have without --listen: their own are below 1024, where only the
# superuser listens, so these are 8000 more.
SERVICES: dict[str, tuple[type[Protocol], int]] = {
    "echo": (wire.Echo, 8007),
    "discard": (wire.Discard, 8009),
    "daytime": (wire.Daytime, 8013),
    "qotd": (wire.QOTD, 8017),
    "chargen": (wire.Chargen, 8019),
    "time": (wire.Time, 8037),
}

DESCRIPTION = """\
Serve TARGET on every ENDPOINT until SIGINT or SIGTERM.

TARGET is `module:attribute`: a Protocol class, a Factory, or a callable that
takes nothing and returns one of the two (a Factory class, for instance). The
current directory can be imported from, as with `python -m`.

Or it is one of the built-in services, which without --listen have a port of
127.0.0.1 of their own:
"""

EPILOG = f"""\
output:
  one line for each endpoint, with the address that it got:
    listening on tcp:127.0.0.1:8007 (backend epoll)
  with --json one object a line, with the keys
    listening  the address, as in the line above
    endpoint   what was asked for
    host, port of an internet address, otherwise null
    path       of a UNIX socket, otherwise null
    backend    the name of the backend
    pid        of the process that serves

examples:
  calandria run echo
  calandria run echo --listen tcp:0:interface=127.0.0.1 --json
  calandria run chat:ChatFactory --listen tcp:4000 --listen tcp:4000:interface=[::1]
  calandria run package.module:makeFactory --listen tcp:8080 --backend poll

{EXIT_CODES}"""


def addParser(subparsers: Any) -> None:
    """Add `run` to the commands; `subparsers` is argparse's, whose type has no public name."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="serve a protocol, a factory or a built-in service",
        description=DESCRIPTION + "\n".join(f"  {name:10}{defaultEndpoint(name)}" for name in SERVICES),
        epilog=EPILOG,
    )
    parser.add_argument("target", metavar="TARGET", help="module:attribute, or a built-in service")
    parser.add_argument(
        "--listen",
        metavar="ENDPOINT",
        action="append",
        default=[],
        help="where to listen, such as tcp:8007:interface=127.0.0.1; may be given several times",
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="what to wait for readiness with (see `calandria backends`); "
        "without it $CALANDRIA_BACKEND counts, and without that the best one available",
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error", "critical"),
        help="the least severe log messages that go to standard error (default: info; with --debug: debug)",
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="look for calls from wrong threads, slow callbacks and leaks; costs speed",
    )
    addJSONOption(parser, "print one JSON object per endpoint instead of a sentence")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped; the exit code."""
    from calandria import Reactor, setDefault

    where: list[str] = arguments.listen or defaultListen(arguments.target)
    logging.basicConfig(
        stream=sys.stderr,
        level=(arguments.log_level or ("debug" if arguments.debug else "info")).upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    with Reactor(arguments.backend, debug=arguments.debug, plugins=True) as reactor:
        # Before the target is imported: what it says of `calandria.reactor` shall mean this one.
        setDefault(reactor)
        factory = loadTarget(arguments.target)
        listening = listen(reactor, where, factory)

        def announce() -> None:
            try:
                for line in listening:
                    if arguments.json:
                        sayJSON({**line, "backend": reactor.backend.name, "pid": os.getpid()}, indent=None)
                    else:
                        say(f"listening on {line['listening']} (backend {reactor.backend.name})")
            except (BrokenPipeError, CommandError) as exc:
                # Nobody can read it, which is no reason to leave those whom we serve.
                logger.warning("could not tell where it listens: %s", exc)

        reactor.callWhenRunning(announce)
        try:
            reactor.run()
        except SystemExit:
            raise  # somebody's own wish, with an exit code of its own
        except KeyboardInterrupt:
            complain("interrupted while shutting down")
            return FAILED
        except BaseException:
            logger.critical("an exception ended the reactor", exc_info=True)
            return FAILED
    return OK


def defaultEndpoint(service: str) -> str:
    """Where a built-in service listens if nothing else is said."""
    return f"tcp:{SERVICES[service][1]}:interface=127.0.0.1"


def defaultListen(target: str) -> list[str]:
    """The endpoints of a command without --listen."""
    if target in SERVICES:
        return [defaultEndpoint(target)]
    checkSpelling(target)
    raise CommandError(
        f"where shall {target} listen? --listen says so, for example --listen tcp:8080 "
        f"(only the built-in services have endpoints of their own)",
        USAGE,
    )


def checkSpelling(target: str) -> tuple[str, str]:
    """Module and attribute, or a refusal that says what a target looks like."""
    module, colon, attribute = target.partition(":")
    if not (colon and module and attribute) or module.startswith("."):
        raise CommandError(
            f"TARGET must be module:attribute or one of {', '.join(SERVICES)}, not {target!r}"
            f"{didYouMean(target, SERVICES)}",
            USAGE,
        )
    return module, attribute


# Finding the target


def loadTarget(target: str) -> Factory:
    """The factory that a TARGET stands for. CommandError if it stands for none; errors of its code are let through."""
    if target in SERVICES:
        return Factory.forProtocol(SERVICES[target][0])
    found = importTarget(target)
    factory = factoryFrom(found)
    if factory is None and callable(found):
        factory = factoryFrom(called := callTarget(target, found))
        if factory is None:
            raise CommandError(
                f"{target} returned {describe(called)}; it must return a Protocol class or a Factory", USAGE
            )
    if factory is None:
        raise CommandError(
            f"{target} is {describe(found)}; TARGET must be a Protocol class, a Factory, "
            f"or a callable that takes nothing and returns one of these",
            USAGE,
        )
    if buildsNothing(factory):
        raise CommandError(
            f"{target} gives {describe(factory)} that could build no protocol: its attribute `protocol` is None", USAGE
        )
    return factory


def factoryFrom(found: Any) -> Factory | None:
    """The factory that an object is or, being a Protocol class, is wrapped in.

    Having the methods is enough, as everywhere: neither has to be derived from ours.
    """
    # The classes first: they are callable too, and a call would make one protocol for all connections.
    if isinstance(found, type):
        return Factory.forProtocol(found) if offers(found, "makeConnection", "dataReceived", "connectionLost") else None
    return found if offers(found, "buildProtocol", "doStart", "doStop") else None


def buildsNothing(factory: object) -> bool:
    """Whether a factory was told of no protocol, and does not make its own either."""
    return (
        isinstance(factory, Factory)
        and factory.protocol is None
        and type(factory).buildProtocol is Factory.buildProtocol
    )


def offers(found: object, *methods: str) -> bool:
    """Whether an object has all these methods."""
    return all(callable(getattr(found, method, None)) for method in methods)


def callTarget(target: str, found: Any) -> object:
    """What a callable returns when it is called with nothing."""
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        pass  # written in C: the call itself will tell
    else:
        try:
            signature.bind()
        except TypeError as exc:
            raise CommandError(
                f"{target} is called with nothing, but {found!r} takes {signature}: {exc}", USAGE
            ) from None
    return found()


def importTarget(target: str) -> object:
    """The object that `module:attribute` names. A module that is there and fails to import raises what it raises."""
    moduleName, attribute = checkSpelling(target)
    importFromHere()
    try:
        found: Any = importlib.import_module(moduleName)
    except ModuleNotFoundError as exc:
        # It, or a package that it is in; any other module is missing in the code of the target.
        if exc.name is None or not f"{moduleName}.".startswith(f"{exc.name}."):
            raise
        raise CommandError(f"cannot find {target}: {exc}", USAGE) from None
    path = moduleName
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CommandError(
                f"cannot find {target}: {path} has no attribute {name!r}{didYouMean(name, dir(found))}", USAGE
            ) from None
        path += f"{':' if path == moduleName else '.'}{name}"
    return found


def importFromHere() -> None:
    """Let modules of the current directory be imported, as `python -m` does; and like it, not under `python -P`."""
    try:
        here = os.getcwd()
    except OSError:
        return  # removed under our feet
    if not sys.flags.safe_path and here not in sys.path:
        sys.path.insert(0, here)


def describe(found: object) -> str:
    """What something is, for a message: `the class Thing`, or `an instance of Thing`."""
    if isinstance(found, type):
        return f"the class {found.__qualname__}"
    return "None" if found is None else f"an instance of {type(found).__qualname__}"


# Listening


def listen(reactor: Reactor, where: list[str], factory: Factory) -> list[dict[str, Any]]:
    """Listen everywhere; what is to be said of each endpoint. If one cannot, closing the reactor closes the others."""
    return [{**whereIs(text, listenOn(reactor, text, factory).getHost()), "endpoint": text} for text in where]


def listenOn(reactor: Reactor, text: str, factory: Factory) -> ListeningPort:
    """The port of one endpoint. What keeps it from listening becomes a sentence with the exit code that it means."""
    if not text[:1].isalpha():
        raise CommandError(f"--listen takes an endpoint such as tcp:8007:interface=127.0.0.1, not {text!r}", USAGE)
    try:
        port: ListeningPort = reactor.listen(text, factory)
    except error.PluginError as exc:
        raise CommandError(f"--listen {text}: {exc}", UNAVAILABLE) from exc
    except (ValueError, TypeError) as exc:
        raise CommandError(f"--listen {text}: {exc}", USAGE) from exc
    except (error.CannotListenError, OSError) as exc:
        raise CommandError(f"cannot listen on {text}: {exc}", CANNOT_LISTEN) from exc
    return port


def whereIs(endpoint: str, host: object) -> dict[str, Any]:
    """An address as text that an endpoint string could have, and in its parts."""
    scheme = endpoint.partition(":")[0]
    if isinstance(host, address.IPv6Address):
        scope = f"%{host.scopeID}" if host.scopeID and "%" not in host.host else ""
        name = f"{host.host}{scope}"
        return {"listening": f"{scheme}:[{name}]:{host.port}", "host": name, "port": host.port, "path": None}
    if isinstance(host, address.IPv4Address):
        return {"listening": f"{scheme}:{host.host}:{host.port}", "host": host.host, "port": host.port, "path": None}
    if isinstance(host, address.UNIXAddress):
        path = os.fsdecode(host.name or b"")
        return {"listening": f"{scheme}:{path}", "host": None, "port": None, "path": path}
    return {"listening": f"{scheme}:{host}", "host": None, "port": None, "path": None}
