"""The catalogue of plugins: who claims which name, what is found when one is loaded, and in what state it is.

Ours resolve from a table, so that making a reactor and listening by TCP read no metadata; that is done on the first
name that is not in it. By name, and only the plugin that is asked for is imported. One that cannot be loaded is broken,
with the reason, for whoever asks for it and for nobody else.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading

from calandria import error
from calandria._backend import API

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Literal, NoReturn, TypeAlias

    from calandria._backend import Backend

    Kind: TypeAlias = Literal["backend", "transport", "plugin"]
    State: TypeAlias = Literal["ok", "unavailable", "broken", "disabled", "shadowed"]

logger = logging.getLogger("calandria")

# What we ship, by kind and name; a test holds it against the metadata.
OURS: dict[Kind, dict[str, str]] = {
    "backend": {
        "select": "calandria_select:SelectBackend",
        "poll": "calandria_poll:PollBackend",
        "epoll": "calandria_epoll:EpollBackend",
        "kqueue": "calandria_kqueue:KqueueBackend",
    },
    "transport": {"tcp": "calandria_tcp:transport"},
    "plugin": {},
}
GROUPS: dict[Kind, str] = {
    "backend": "calandria.backends",
    "transport": "calandria.transports",
    "plugin": "calandria.plugins",
}

# Nothing that does not look like this is ever looked up, let alone imported.
NAME = re.compile("[a-z][a-z0-9_-]{0,31}")
_SPEC = re.compile("([a-z][a-z0-9_-]{0,31})(?:@([A-Za-z0-9_.-]{1,100}))?")


class PluginInfo:
    """One plugin: where it comes from, and what became of it. Owned by the registry; looked at from any thread."""

    __slots__ = (
        "cause",
        "distribution",
        "entry",
        "entryPoint",
        "failure",
        "kind",
        "loaded",
        "name",
        "reason",
        "state",
        "value",
        "version",
    )

    def __init__(
        self, kind: Kind, name: str, distribution: str, version: str, entryPoint: str | None, entry: Any = None
    ) -> None:
        self.kind: Kind = kind
        self.name = name
        self.distribution = distribution
        """The distribution that it was installed with; of one registered in code, the module."""
        self.version = version
        self.entryPoint = entryPoint
        """`module:attribute`; None: it was registered in code."""
        self.state: State = "ok"
        self.reason: str | None = None
        """Why it is not ok. Both are as of the last `plugins()`."""
        self.value: Any = None
        """The Backend class, the Transport, or the plugin with hooks; None if it is not, or could not be, loaded."""
        self.loaded = False
        self.failure: str | None = None
        self.cause: BaseException | None = None
        self.entry = entry

    @property
    def spec(self) -> str:
        """The name that means this one, whoever else claims it."""
        return f"{self.name}@{self.distribution}"

    @property
    def origin(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}".rstrip()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name!r} of {self.origin}>"


# What is known in this process. Metadata is read once; `forget` makes it be read again.
_lock = threading.Lock()
_builtin: dict[tuple[Kind, str], PluginInfo] = {}
_installed: list[PluginInfo] | None = None
# What plugins that were registered in code bring, by the name of the plugin.
contributed: dict[str, list[PluginInfo]] = {}


def forget() -> None:
    """Know nothing of what is installed any more."""
    global _installed
    with _lock:
        _builtin.clear()
        _installed = None


def environment(name: str) -> str:
    """An environment variable; "" if there is none, or if Python was told to ignore them (-E, -I)."""
    return "" if sys.flags.ignore_environment else os.environ.get(name, "")


# Finding.


def builtin(kind: Kind, name: str) -> PluginInfo | None:
    """The one of ours that is called so; from the table alone, and so also where there is no metadata of us."""
    entryPoint = OURS[kind].get(name)
    if entryPoint is None:
        return None
    info = _builtin.get((kind, name))
    if info is None:
        from calandria import __version__

        info = _builtin[kind, name] = PluginInfo(kind, name, "calandria", __version__, entryPoint)
    return info


def strangers() -> list[PluginInfo]:
    """What others have installed, and what was registered in code."""
    global _installed
    if _installed is None:
        found = list(_readMetadata())
        with _lock:
            if _installed is None:
                _installed = found
    return [*_installed, *(each for brought in list(contributed.values()) for each in brought)]


def _readMetadata() -> Iterator[PluginInfo]:
    """All entry points of our groups; reading them imports nothing of theirs and writes nothing."""
    kinds: dict[str, Kind] = {group: kind for kind, group in GROUPS.items()}
    for distribution in _distributions():
        name, version = str(distribution.name), str(distribution.version)
        for entry in distribution.entry_points:
            kind = kinds.get(entry.group)
            if kind is None or (sameName(name, "calandria") and OURS[kind].get(entry.name) == entry.value):
                continue
            info = PluginInfo(kind, entry.name, name, version, entry.value, entry)
            if not NAME.fullmatch(entry.name):
                info.loaded, info.failure = True, f"its name is not of the form {NAME.pattern}"
            yield info


def _distributions() -> Iterator[Any]:
    """The distributions that name one of our groups, and whose metadata can be read.

    Not importlib_metadata.entry_points(): it reads and parses three times as much (of 340 distributions in 123 ms,
    where this took 35), and one damaged file hides all others from it.
    """
    import importlib_metadata

    metadata: Any = importlib_metadata
    seen: set[str] = set()
    for found in metadata.distributions():
        try:
            if "calandria." not in (found.read_text("entry_points.txt") or ""):
                continue
            name = _canonical(found.name)
            if name not in seen:
                seen.add(name)
                # Of several with one name the first on the path is the one that counts, and is whole.
                first = metadata.distribution(found.name)
                tuple(first.entry_points)
                yield first
        except Exception as exc:
            logger.warning("cannot read the entry points of %s: %s: %s", found, type(exc).__name__, exc)


def _canonical(distribution: str) -> str:
    """A distribution's name as packaging tools compare it."""
    return re.sub("[-_.]+", "-", distribution).lower()


def sameName(distribution: str, other: str) -> bool:
    """Whether two spellings mean the same distribution."""
    return _canonical(distribution) == _canonical(other)


def claims(kind: Kind, name: str) -> list[PluginInfo]:
    """Everybody who claims a name, ours first."""
    ours = builtin(kind, name)
    return [*([ours] if ours else ()), *(each for each in strangers() if each.kind == kind and each.name == name)]


def disabledBy(info: PluginInfo) -> str | None:
    """The pattern of CALANDRIA_DISABLE_PLUGINS that names a plugin, by its name or as name@distribution."""
    patterns = environment("CALANDRIA_DISABLE_PLUGINS")
    if patterns:
        from fnmatch import fnmatchcase

        for pattern in patterns.replace(" ", "").split(","):
            if fnmatchcase(info.name, pattern) or fnmatchcase(info.spec, pattern):
                return pattern
    return None


def find(kind: Kind, spec: str) -> PluginInfo:
    """The one plugin that `name` or `name@distribution` stands for. Raises what explains why there is none."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        refuse(kind, f"{shown(spec)} cannot be the name of a {kind}{_didYouMean(kind, spec)}")
    name, distribution = match.groups()
    info = builtin(kind, name)
    if info is None or (distribution is not None and not sameName(distribution, "calandria")):
        found = claims(kind, name)
        if distribution is not None:
            of = [each for each in found if sameName(each.distribution, distribution)]
            if found and not of:
                refuse(kind, f"no {kind} {name!r} of {distribution!r} is installed, but {_listed(found)}")
            found = of
        enabled = [each for each in found if not disabledBy(each)]
        if len(enabled) > 1:
            refuse(kind, f"{kind} {name!r} is claimed by several, so say which: {_listed(enabled)}")
        if not found:
            refuse(kind, _missing(kind, name))
        info = (enabled or found)[0]
    pattern = disabledBy(info)
    if pattern is not None:
        refuse(kind, f"{kind} {name!r} is disabled by CALANDRIA_DISABLE_PLUGINS ({pattern})")
    return info


def _missing(kind: Kind, name: str) -> str:
    near = _didYouMean(kind, name)
    comes = "" if kind != "transport" or near else f" ({name}: comes with calandria-{name})"
    return f"no {kind} {name!r} is installed{near}{comes}"


def _listed(infos: Iterable[PluginInfo]) -> str:
    return ", ".join(f"{each.spec} ({each.origin})" for each in infos)


def names(kind: Kind) -> list[str]:
    """Every name that somebody claims."""
    return list(dict.fromkeys([*OURS[kind], *(each.name for each in strangers() if each.kind == kind)]))


def _didYouMean(kind: Kind, given: str) -> str:
    from calandria._text import didYouMean

    return didYouMean(given, names(kind))


def shown(given: object) -> str:
    """What somebody gave, for a message."""
    from calandria._text import shown

    return shown(given)


def refuse(kind: Kind, why: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the error of a kind, with all that there is instead."""
    if kind == "backend":
        raise error.BackendUnavailable(f"{why}\n{_backendTable()}") from cause
    if kind == "transport":
        # By their names only: a typo is no reason to import what nobody has asked for.
        raise error.TransportUnavailable(f"{why}; there are: {', '.join(names(kind))}") from cause
    raise error.PluginError(why) from cause


def _backendTable() -> str:
    """Every known backend with its state and the reason."""
    lines = ["known backends:"]
    for info in everything("backend"):
        of = "" if info.distribution == "calandria" else f" of {info.origin}"
        lines.append(f"  {info.name}{of}: {info.state}{f', {info.reason}' if info.reason else ''}")
    return "\n".join(lines)


# Loading.


def load(info: PluginInfo) -> None:
    """Import a plugin and look at it, once; whatever goes wrong is kept in `failure`."""
    if info.loaded:
        return
    try:
        value = _imported(info)
        check(info, value)
    except error.PluginError as exc:
        info.failure = str(exc)
    except (Exception, SystemExit) as exc:
        info.failure = _importFailure(info, exc)
        info.cause = exc
    else:
        info.value = value
    info.loaded = True
    if info.entry is not None:
        # Installed code was run: which, and from where.
        where = f"{info.kind} {info.name!r} of {info.origin} ({info.entryPoint}, {fileOf(info)})"
        logger.debug("loaded the %s%s", where, f": broken, {info.failure}" if info.failure else "")


def _imported(info: PluginInfo) -> Any:
    if info.entry is not None:
        return info.entry.load()
    assert info.entryPoint is not None
    module, _, attribute = info.entryPoint.partition(":")
    __import__(module)
    return getattr(sys.modules[module], attribute)


def _importFailure(info: PluginInfo, exc: BaseException) -> str:
    """Why a plugin could not be imported; a missing dependency is told from a missing plugin."""
    own = str(info.entryPoint).partition(":")[0]
    if not isinstance(exc, ModuleNotFoundError) or exc.name is None or f"{own}.".startswith(f"{exc.name}."):
        return f"{type(exc).__name__}: {exc}".rstrip(": ")
    extras: list[str] = []
    if info.entry is not None:
        extras = info.entry.dist.metadata.get_all("Provides-Extra") or []
    more = f" (perhaps with one of the extras of {info.distribution}: {', '.join(extras)})" if extras else ""
    return f"it needs the module {exc.name!r}, which is not installed{more}"


def check(info: PluginInfo, value: Any) -> None:
    """Raise error.PluginError unless a value is what its entry point promises, written for an API that we have."""
    if info.kind == "transport" and not _isTransport(value):
        raise error.PluginError(f"it is {shown(value)}, and not a calandria.plugin.Transport")
    # Of a backend that is no class, the shape is what has to be said.
    says = getattr(value, "API" if info.kind == "plugin" else "api", 1)
    api: Any = says if info.kind != "backend" or issubclass(type(value), type) else 1
    if type(api) is not int or api < 1:
        raise error.PluginError(f"it says that it was written for plugin API {shown(api)}, which is no version")
    if api > API:
        ours = f"this calandria ({_version()}) has API {API}"
        raise error.PluginError(f"it was written for plugin API {api}, and {ours}: it needs a newer one")
    if info.kind == "transport":
        schemes: list[str] = [value.scheme, *value.aliases]
        if info.name not in schemes:
            known = " or ".join(map(repr, schemes))
            raise error.PluginError(f"it is known as {info.name!r}, and {value!r} must be known as {known}")
    # Ours are checked by a test instead, for it takes `inspect`.
    if info.kind == "backend" and info is not _builtin.get((info.kind, info.name)):
        from calandria._shapes import backendProblems

        problems = list(backendProblems(value, info.name))
        if problems:
            raise error.PluginError("; ".join(problems))


def _isTransport(value: object) -> bool:
    from calandria._endpoint import Transport

    return isinstance(value, Transport)


def _version() -> str:
    from calandria import __version__

    return __version__


def demand(info: PluginInfo) -> Any:
    """A plugin that was asked for. Raises the explanation if it is broken."""
    load(info)
    if info.failure is not None:
        refuse(info.kind, f"{info.kind} {info.name!r} of {info.origin} is broken: {info.failure}", info.cause)
    return info.value


def good(info: PluginInfo) -> bool:
    """Whether a plugin is neither disabled nor broken; it is loaded to find out."""
    if disabledBy(info) is not None:
        return False
    load(info)
    return info.failure is None


def usable(info: PluginInfo) -> bool:
    """The same; but if it is broken, and strictness was asked for, that is raised."""
    if good(info):
        return True
    if info.failure is not None and environment("CALANDRIA_STRICT_PLUGINS") not in ("", "0"):
        demand(info)
    return False


def everything(kind: Kind) -> list[PluginInfo]:
    """All plugins of a kind, ours first, in the states that they are in."""
    ours = [builtin(kind, name) for name in OURS[kind]]
    others = sorted(
        (each for each in strangers() if each.kind == kind), key=lambda each: (each.name, each.distribution)
    )
    return [judge(each) for each in (*ours, *others) if each is not None]


def judge(info: PluginInfo) -> PluginInfo:
    """Fill in state and reason."""
    info.state, info.reason = _stateOf(info)
    return info


def _stateOf(info: PluginInfo) -> tuple[State, str | None]:
    pattern = disabledBy(info)
    if pattern is not None:
        return "disabled", f"CALANDRIA_DISABLE_PLUGINS={pattern}"
    load(info)
    if info.failure is not None:
        return "broken", info.failure
    why = shadow(info)
    if why is not None:
        return "shadowed", why
    if info.kind == "backend":
        why = whyUnavailable(info.value)
        if why is not None:
            return "unavailable", why
    return "ok", None


def shadow(info: PluginInfo) -> str | None:
    """Why a plugin's bare name does not mean it, if so. (Those with hooks are not asked for by name.)"""
    if info.kind == "plugin" or info is _builtin.get((info.kind, info.name)):
        return None
    if info.name in OURS[info.kind]:
        return f"the name is calandria's own; {info.spec} means this one"
    others = [each for each in claims(info.kind, info.name) if each is not info and disabledBy(each) is None]
    if others:
        return f"{', '.join(each.origin for each in others)} claims the name too; {info.spec} means this one"
    return None


def whyUnavailable(cls: type[Backend]) -> str | None:
    """Why a backend cannot work here; None if it can."""
    try:
        why: Any = cls.unavailable()
    except Exception as exc:
        return f"its unavailable() raised {type(exc).__name__}: {exc}"
    if why is not None and not isinstance(why, str):
        return f"its unavailable() gave {shown(why)}, which is neither a sentence nor None"
    return why if why is None else why or "it does not say why"


def fileOf(info: PluginInfo) -> str | None:
    """The file of the module that a plugin was loaded from."""
    name = info.distribution if info.entryPoint is None else re.split("[: ]", info.entryPoint, maxsplit=1)[0]
    return getattr(sys.modules.get(name), "__file__", None)
