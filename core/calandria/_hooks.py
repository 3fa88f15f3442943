"""The hooks that pluggy knows: what each is called with, and what it may answer.

Imported on first use, for it needs pluggy. Hooks are for the beginning and the end of things; nothing on the path of a
byte calls one. What is observed continuously goes through an Observer, which is asked for once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from calandria._backend import Backend
    from calandria._endpoint import Transport
    from calandria._reactor import Reactor
    from calandria.failure import Failure
    from calandria.interfaces import HostnameResolver

logger = logging.getLogger("calandria")

hookspec = pluggy.HookspecMarker("calandria")
hookimpl = pluggy.HookimplMarker("calandria")
"""Marks a function of a plugin as the implementation of the hook that it is named after."""


class Observer:
    """Told what a reactor does, on its thread. Define what is wanted: a method that is not there costs nothing.

    It need not derive from this class. One that raises is logged and not called again.
    """

    def turn(self, waited: float, worked: float, events: int, timers: int) -> None:
        """One turn of the loop: seconds asleep, seconds at work, descriptors that were ready, timers that were due."""

    def connectionMade(self, transport: Any) -> None:
        """A connection is there, and its protocol knows."""

    def connectionLost(self, transport: Any, reason: Failure) -> None:
        """A connection has ended, and its protocol knows."""

    def slowCallback(self, what: str, seconds: float) -> None:
        """A callback has kept the loop for longer than 100 ms."""


@dataclass(frozen=True)
class Check:
    """What `calandria_doctor` found out about one thing."""

    name: str
    state: Literal["ok", "warning", "failed"] = "ok"
    message: str = ""
    """What is wrong, and what to do about it."""


class Specifications:
    """The hooks, as pluggy is told of them. An implementation may leave out arguments that it does not need."""

    @hookspec
    def calandria_backends(self) -> Mapping[str, type[Backend]] | Iterable[type[Backend]]:
        """Backends that a plugin registered in code contributes; asked once, by `register`."""
        raise NotImplementedError

    @hookspec
    def calandria_transports(self) -> Mapping[str, Transport] | Iterable[Transport]:
        """Transports that a plugin registered in code contributes; asked once, by `register`."""
        raise NotImplementedError

    @hookspec
    def calandria_reactor_created(self, reactor: Reactor) -> None:
        """A reactor was made."""

    @hookspec
    def calandria_reactor_starting(self, reactor: Reactor) -> None:
        """A run begins, before its 'startup' event."""

    @hookspec
    def calandria_reactor_stopped(self, reactor: Reactor) -> None:
        """A run has ended."""

    @hookspec
    def calandria_observer(self, reactor: Reactor) -> Observer | None:
        """Who is to be told what this reactor does; asked once at the start of each run."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def calandria_resolver(self, reactor: Reactor) -> HostnameResolver | None:
        """What resolves names for this reactor; the first answer that is not None counts."""
        raise NotImplementedError

    @hookspec
    def calandria_cli(self, subparsers: Any) -> None:
        """Add commands: `subparsers.add_parser(...)`, then `parser.set_defaults(command=function)`."""

    @hookspec
    def calandria_doctor(self) -> Iterable[Check]:
        """Look at the installation."""
        raise NotImplementedError


NAMES = tuple(name for name in vars(Specifications) if name.startswith("calandria_"))
CONTRIBUTIONS = ("calandria_backends", "calandria_transports")


class Observers:
    """What a reactor tells its observers through: None for what nobody wants, so that it costs one comparison.

    Owned by the reactor for one run, used on its thread.
    """

    __slots__ = ("connectionLost", "connectionMade", "slowCallback", "turn")

    def __init__(self, observers: Iterable[object]) -> None:
        gone: set[int] = set()
        given = list(observers)
        self.turn: Callable[[float, float, int, int], None] | None = _told("turn", given, gone)
        self.connectionMade: Callable[[Any], None] | None = _told("connectionMade", given, gone)
        self.connectionLost: Callable[[Any, Failure], None] | None = _told("connectionLost", given, gone)
        self.slowCallback: Callable[[str, float], None] | None = _told("slowCallback", given, gone)


def _told(event: str, observers: list[object], gone: set[int]) -> Callable[..., None] | None:
    """A function that tells those of the observers who want to know; None if there are none. `gone` are their ids."""
    inherited = getattr(Observer, event)
    takers = [
        (id(observer), observer, getattr(observer, event))
        for observer in observers
        if getattr(observer, event, None) is not None and getattr(type(observer), event, None) is not inherited
    ]
    if not takers:
        return None

    def tell(*args: Any) -> None:
        for key, observer, method in takers:
            if key not in gone:
                try:
                    method(*args)
                except Exception:
                    gone.add(key)
                    logger.exception("%s of the observer %r raised: it is not called again", event, observer)

    return tell
