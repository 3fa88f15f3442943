"""What the reactor and the commands ask of plugins: a backend, a transport, a method, a hook; and pluggy's one manager.

pluggy wires, it does not carry: hooks are called when a reactor is made, starts and stops, and it is imported only if
somebody has one. Which plugins there are is the business of _catalogue.py.
"""

from __future__ import annotations

import logging
import re
import sys
import threading

from calandria import _catalogue, error
from calandria._backend import Backend
from calandria._catalogue import PluginInfo as PluginInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any

    import pluggy

    from calandria._catalogue import Kind
    from calandria._endpoint import Transport
    from calandria._hooks import Check, Observers
    from calandria._reactor import Reactor
    from calandria._spellings import Side

logger = logging.getLogger("calandria")

AUTOMATIC = ("kqueue", "epoll", "poll", "select")
"""The backends that are chosen unasked: the first of these that can work here."""

_METHOD = re.compile("(listen|connect)([A-Z][A-Za-z0-9_]{0,31})(@[A-Za-z0-9_.-]{1,100})?")

_lock = threading.RLock()
_methods: dict[str, Callable[..., Any]] = {}
_manager: pluggy.PluginManager | None = None
# What `register` was given, by its name in the manager: their hooks are called for every reactor.
_registered: dict[str, PluginInfo] = {}


# Backends.


def makeBackend(choice: str | type[Backend] | Backend | None, options: dict[str, Any]) -> Backend:
    """The backend of a new reactor: the one that was asked for, else CALANDRIA_BACKEND, else the best one here.

    Raises error.BackendUnavailable, and TypeError for options that it does not take.
    """
    given: Any = choice
    if _isBackend(given):
        why = _catalogue.whyUnavailable(given)
        if why is not None:
            raise error.BackendUnavailable(f"the backend {given.__qualname__} cannot work here: {why}")
        made: Backend = given(**options)
        return made
    if isinstance(given, Backend):
        if options:
            raise TypeError(f"{given!r} was made already, and takes no more options: {', '.join(options)}")
        return given
    if given is not None and not isinstance(given, str):
        what = _catalogue.shown(given)
        raise TypeError(f"a backend is given by name, as a Backend class or as an instance, not {what}")
    by = "asked for" if given is not None else "CALANDRIA_BACKEND"
    name = given if given is not None else _catalogue.environment("CALANDRIA_BACKEND")
    if given is None and not name:
        by, found = "automatic", _best()
    else:
        found = _backend(name)
    backend = found(**options)
    logger.debug("the backend is %s (%s)", backend.name, by)
    return backend


def _isBackend(given: Any) -> bool:
    return isinstance(given, type) and issubclass(given, Backend)


def _backend(name: str) -> type[Backend]:
    info = _catalogue.find("backend", name)
    cls: type[Backend] = _catalogue.demand(info)
    why = _catalogue.whyUnavailable(cls)
    if why is not None:
        _catalogue.refuse("backend", f"backend {name!r} cannot work here: {why}")
    return cls


def _best() -> type[Backend]:
    for name in AUTOMATIC:
        info = _catalogue.builtin("backend", name)
        if info is not None and _catalogue.usable(info) and _catalogue.whyUnavailable(info.value) is None:
            cls: type[Backend] = info.value
            break
    else:
        _catalogue.refuse("backend", "no backend that would be chosen unasked can work here")
    return cls


# Transports.


def transport(scheme: str) -> Transport:
    """The transport of a scheme, also `scheme@distribution`. Raises error.TransportUnavailable."""
    info = _catalogue.find("transport", scheme)
    found: Transport = _catalogue.demand(info)
    if "@" in scheme and info.entry is not None and _catalogue.shadow(info) is not None:
        found.spelling = f"{found.scheme}@{info.distribution}"
    return found


def endpoint(where: object, side: Side, allowed: Collection[str] | None = None) -> Any:
    """The endpoint that was given, or the one that a string stands for, to listen at or to connect to.

    `allowed`, for strings from strangers, are the schemes that may be used. Raises TypeError, ValueError,
    error.TransportUnavailable.
    """
    from calandria import _endpoint, _spellings

    if isinstance(where, str):
        return _spellings.read(where, side, transport, allowed)
    kinds = _endpoint.kindsOf(side)
    if isinstance(where, kinds):
        return where
    names = " or a ".join(kind.__name__ for kind in kinds)
    raise TypeError(f"to {side}, it takes a {names}, or a string such as 'tcp:…', not {where!r}")


def method(name: str) -> Callable[..., Any]:
    """`listenX` or `connectX` of a transport, a function whose first argument is the reactor.

    `connectX@distribution` means one of several that claim the name. Raises AttributeError with the explanation, which
    is an error.TransportUnavailable too unless the name could be no transport's.
    """
    made = _methods.get(name)
    if made is None:
        made = _methods[name] = _makeMethod(name)
    return made


class _NoMethod(error.TransportUnavailable, AttributeError):
    """A transport that is not there, asked for by a method: to `hasattr` a missing attribute like any other."""


def _makeMethod(name: str) -> Callable[..., Any]:
    match = _METHOD.fullmatch(name)
    if match is None:
        raise AttributeError(f"a reactor has no attribute {name!r}", name=name)
    side: Side = match[1]  # type: ignore[assignment]  # the expression matches nothing else
    try:
        found = transport(match[2].lower() + (match[3] or ""))
        why = _unlike(found, side, match[2])
    except error.TransportUnavailable as exc:
        why, cause = _explain(name, side, match[2].lower(), exc), exc.__cause__
    else:
        if why is None:
            from calandria._spellings import makeMethod

            return makeMethod(found, side)
        cause = None
    missing = _NoMethod(why)
    # Set here, or Python would look for something similar in dir(reactor), which loads every transport.
    missing.name = name
    raise missing from cause


def _unlike(found: Transport, side: Side, name: str) -> str | None:
    """Why a transport that was found has no such method, if so."""
    sides = [each for each in ("listen", "connect") if getattr(found, each) is not None]
    if not sides:
        return f"{found.name} is a layer, which goes over a transport: reactor.{side}('{found.scheme}+tcp:…', factory)"
    if side not in sides:
        return f"{found.name} can only {sides[0]}: reactor.{sides[0]}{found.name}()"
    if found.name != name:
        return f"there is no reactor.{side}{name}(); did you mean {side}{found.name}?"
    return None


def _explain(name: str, side: Side, scheme: str, exc: error.TransportUnavailable) -> str:
    """What is wrong with a method, in terms of methods."""
    if _catalogue.claims("transport", scheme):
        return str(exc)
    from difflib import get_close_matches

    near = get_close_matches(scheme, _catalogue.names("transport"), 1)
    if near:
        # This one is loaded, for only it knows its capitals.
        for info in _catalogue.claims("transport", near[0]):
            if _catalogue.good(info) and getattr(info.value, side) is not None:
                return f"no transport {scheme!r} is installed: did you mean {side}{info.value.name}?"
    return f"no transport {scheme!r} is installed: reactor.{name}() comes with calandria-{scheme}"


def methodNames() -> list[str]:
    """The names of all methods of transports, each loaded for it; those that cannot be are left out."""
    names: set[str] = set()
    for scheme in _catalogue.names("transport"):
        claims = [each for each in _catalogue.claims("transport", scheme) if _catalogue.disabledBy(each) is None]
        alone = len(claims) == 1 or claims[:1] == [_catalogue.builtin("transport", scheme)]
        if alone and _catalogue.usable(claims[0]):
            found: Transport = claims[0].value
            names |= {f"{side}{found.name}" for side in ("listen", "connect") if getattr(found, side) is not None}
    return sorted(names)


# All of them.


def plugins(kind: Kind | None = None) -> list[PluginInfo]:
    """Every plugin (of a kind), each loaded to find out what state it is in."""
    kinds: tuple[Kind, ...] = (kind,) if kind is not None else ("backend", "transport", "plugin")
    if "plugin" in kinds:
        _loadHooks(tolerant=True)
    found = [info for each in kinds for info in _catalogue.everything(each)]
    return found + [_catalogue.judge(info) for info in list(_registered.values()) if "plugin" in kinds]


def refresh() -> None:
    """Forget what is installed, and look again when next asked: distributions come and go. Running reactors go on."""
    import importlib

    importlib.invalidate_caches()
    with _lock:
        _catalogue.forget()
        _methods.clear()
        if _manager is not None:
            for name, _ in _manager.list_name_plugin():
                if name not in _registered:
                    _manager.unregister(name=name)


# Hooks.


def register(plugin: object) -> str:
    """Use an object or a module with `@hookimpl`s from now on, for every reactor; gives the name that it goes by.

    What its `calandria_backends()` and `calandria_transports()` give can be chosen by name, as if it were installed;
    the module of the plugin counts as the distribution. Raises error.PluginError with everything that is wrong,
    ValueError if it is registered already.
    """
    manager = _pluginManager()
    label = str(getattr(plugin, "__name__", None) or type(plugin).__module__)
    kind = type(plugin)
    name = label if isinstance(plugin, type(sys)) else f"{kind.__module__}.{kind.__qualname__}"
    with _lock:
        if manager.is_registered(plugin):
            raise ValueError(f"{plugin!r} is registered already")
        known = {each for each, _ in manager.list_name_plugin()}
        name = next(each for each in (name, *(f"{name}-{number}" for number in range(2, 10_000))) if each not in known)
        info = PluginInfo("plugin", name, label, "", None)
        info.value, info.loaded = plugin, True
        _catalogue.check(info, plugin)
        _take(manager, info, contributes=True)
    try:
        contributed = [*_contributions("backend", plugin, label), *_contributions("transport", plugin, label)]
    except BaseException:
        manager.unregister(name=name)
        raise
    with _lock:
        _registered[name] = info
        _catalogue.contributed[name] = contributed
        _methods.clear()
    return name


def unregister(plugin: object) -> None:
    """Undo `register`. Raises ValueError if it is not registered."""
    with _lock:
        names = [name for name, info in _registered.items() if info.value is plugin]
        if not names:
            raise ValueError(f"{plugin!r} is not registered")
        for name in names:
            _pluginManager().unregister(name=name)
            del _registered[name], _catalogue.contributed[name]
        _methods.clear()


def _contributions(kind: Kind, plugin: object, label: str) -> list[PluginInfo]:
    """What a plugin registered in code brings, held to the same rules as what is installed."""
    hook = f"calandria_{kind}s"
    result: Any = None
    for implementation in _implementations(hook):
        if implementation.plugin is plugin:
            result = implementation.function()
    if result is None:
        return []
    try:
        pairs: list[tuple[object, Any]] = _named(result)
    except TypeError:
        given = _catalogue.shown(result)
        raise error.PluginError(f"{hook}() of {plugin!r} gave {given}, and not several {kind}s") from None
    infos: list[PluginInfo] = []
    for name, value in pairs:
        info = PluginInfo(kind, str(name), label, "", None)
        try:
            if not _catalogue.NAME.fullmatch(info.name):
                raise error.PluginError(f"its name is not of the form {_catalogue.NAME.pattern}")
            _catalogue.check(info, value)
        except error.PluginError as exc:
            raise error.PluginError(f"{kind} {info.name!r} of {plugin!r} is broken: {exc}") from None
        info.value, info.loaded = value, True
        infos.append(info)
    return infos


def _named(values: Any) -> list[tuple[object, Any]]:
    """Contributions by name; those that come without one bring it themselves."""
    if hasattr(values, "items"):
        return list(values.items())
    return [(getattr(each, "scheme", None) or getattr(each, "name", "?"), each) for each in values]


def _pluginManager() -> pluggy.PluginManager:
    global _manager
    if _manager is None:
        import pluggy

        from calandria import _hooks

        with _lock:
            if _manager is None:
                manager = pluggy.PluginManager("calandria")
                manager.add_hookspecs(_hooks.Specifications)
                _manager = manager
    return _manager


def _take(manager: pluggy.PluginManager, info: PluginInfo, *, contributes: bool) -> None:
    """Give a plugin to pluggy, and look at what pluggy found in it. Raises error.PluginError."""
    from calandria._shapes import hookProblems

    name = info.name if contributes else info.spec
    try:
        manager.register(info.value, name)
        problems = list(hookProblems(manager, info.value, contributes=contributes))
    except Exception as exc:
        problems = [" ".join(str(exc).split())]
    if problems:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        raise error.PluginError("; ".join(problems))


def _loadHooks(*, tolerant: bool = False) -> set[str]:
    """Load, guarded, all installed plugins with hooks, and give them to pluggy; the names of those that may be called.

    A broken one raises if strictness was asked for, unless `tolerant`.
    """
    names = set(_registered)
    for info in [each for each in _catalogue.strangers() if each.kind == "plugin"]:
        if _catalogue.good(info):
            manager = _pluginManager()
            with _lock:
                if not manager.is_registered(info.value):
                    try:
                        _take(manager, info, contributes=False)
                    except error.PluginError as exc:
                        info.failure, info.value = str(exc), None
        if tolerant or _catalogue.usable(info):
            names.add(info.spec)
    return names


def _implementations(hook: str) -> list[Any]:
    """What implements a hook, in the order in which pluggy would call it."""
    return [] if _manager is None else getattr(_manager.hook, hook).get_hookimpls()[::-1]


def _answers(hook: str, everybody: bool, **given: object) -> Iterator[tuple[str, Any]]:
    """Call a hook of those registered, or of everybody, one by one: what each answers. One that raises is logged."""
    names = _loadHooks() if everybody else set(_registered)
    for implementation in _implementations(hook):
        name: str = implementation.plugin_name
        if name in names:
            try:
                answer = implementation.function(*(given[each] for each in implementation.argnames))
            except Exception:
                logger.exception("%s of the plugin %s raised", hook, name)
            else:
                if answer is not None:
                    yield name, answer


def _tell(hook: str, reactor: Reactor) -> None:
    if reactor.plugins or _registered:
        for _ in _answers(hook, reactor.plugins, reactor=reactor):
            pass


def reactorCreated(reactor: Reactor) -> None:
    """Call `calandria_reactor_created`."""
    _tell("calandria_reactor_created", reactor)


def reactorStarting(reactor: Reactor) -> None:
    """Call `calandria_reactor_starting`."""
    _tell("calandria_reactor_starting", reactor)


def reactorStopped(reactor: Reactor) -> None:
    """Call `calandria_reactor_stopped`."""
    _tell("calandria_reactor_stopped", reactor)


def observer(reactor: Reactor) -> Observers | None:
    """Who is to be told what a reactor does; None: nobody."""
    if not reactor.plugins and not _registered:
        return None
    observers = [answer for _, answer in _answers("calandria_observer", reactor.plugins, reactor=reactor)]
    if not observers:
        return None
    from calandria._hooks import Observers

    return Observers(observers)


def resolver(reactor: Reactor) -> Any | None:
    """The name resolver that the first plugin to have one gives; None: none has."""
    if reactor.plugins or _registered:
        for _, answer in _answers("calandria_resolver", reactor.plugins, reactor=reactor):
            return answer
    return None


def commands(subparsers: Any) -> None:
    """Let plugins add commands to `calandria`; `subparsers` is argparse's."""
    for _ in _answers("calandria_cli", True, subparsers=subparsers):
        pass


def doctor() -> list[Check]:
    """What plugins find out about the installation, and which of them are broken."""
    from calandria._hooks import Check

    checks = [
        Check(f"{info.kind} {info.spec}", "failed", info.reason or "") for info in plugins() if info.state == "broken"
    ]
    for name, answer in _answers("calandria_doctor", True):
        try:
            for each in answer:
                checks.append(_checked(each))
        except Exception as exc:
            checks.append(Check(f"plugin {name}", "failed", f"calandria_doctor raised {type(exc).__name__}: {exc}"))
    return checks


def _checked(check: Any) -> Check:
    from calandria._hooks import Check

    if not isinstance(check, Check):
        raise TypeError(f"{_catalogue.shown(check)} is no calandria.plugin.Check")
    return check


# Descriptions.


def describe(info: PluginInfo) -> dict[str, Any]:
    """All about one plugin, as plain data; of a transport that is loaded `spellings` too, of a backend `options`."""
    _catalogue.judge(info)
    told: dict[str, Any] = {
        "kind": info.kind,
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "entryPoint": info.entryPoint,
        "group": _catalogue.GROUPS[info.kind] if info.entryPoint is not None else None,
        "file": _catalogue.fileOf(info),
        "state": info.state,
        "reason": info.reason,
    }
    if info.value is not None and info.kind == "transport":
        told |= {"scheme": info.value.scheme, "aliases": list(info.value.aliases), "api": info.value.api}
        told["spellings"] = options(info.value)
    if info.value is not None and info.kind == "backend":
        from calandria._shapes import optionsOf

        told |= {"doc": (info.value.__doc__ or "").strip(), "api": info.value.api, "options": optionsOf(info.value)}
    if info.value is not None and info.kind == "plugin":
        callers = _pluginManager().get_hookcallers(info.value) or []
        told["hooks"] = sorted(caller.name for caller in callers)
    return told


def options(transport: Transport) -> list[dict[str, Any]]:
    """What a transport offers, by side, as plain data: see _spellings.describe."""
    from calandria._spellings import describe

    return describe(transport)


def find(name: str, kind: Kind | None = None) -> list[PluginInfo]:
    """Every plugin that is called `name` (or `name@distribution`), of whatever kind; with its state."""
    name, _, distribution = name.partition("@")
    return [
        each
        for each in plugins(kind)
        if each.name == name and (not distribution or _catalogue.sameName(each.distribution, distribution))
    ]
