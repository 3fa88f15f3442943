"""What a stranger's plugin has to look like, checked when it is loaded: everything that is wrong with it, in words.

A backend that lacks a method, or a hook that pluggy does not know, would otherwise be found out in the middle of a
turn, or never. (Transports check themselves where they are declared.)
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from calandria import _hooks
from calandria._backend import Backend
from calandria._text import didYouMean, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pluggy


def backendProblems(value: Any, name: str) -> Iterator[str]:
    """What is wrong with a backend that is to be called `name`."""
    cls: Any = value
    if not isinstance(value, type):
        yield f"it is {_kindOf(cls)}, and a backend is a class"
        return
    if not issubclass(cls, Backend):
        yield "it does not derive from calandria.plugin.Backend"
    given = getattr(cls, "name", None)
    if given != name:
        yield f"its attribute `name` is {shown(given)}, and it is known as {name!r}"
    for method, arguments in (("watch", "fd, interest"), ("poll", "timeout"), ("fileno", ""), ("close", "")):
        function = getattr(cls, method, None)
        signature = f"{method}(self{', ' if arguments else ''}{arguments})"
        if function is None or (method in ("watch", "poll") and function is getattr(Backend, method)):
            yield f"it has no method {signature}"
        elif not _accepts(function, 1 + len(arguments.split())):
            yield f"its method {method} must be {signature}"
    if not _accepts(getattr(cls, "unavailable", None), 0):
        yield "its method unavailable must be a classmethod that takes nothing else"


def hookProblems(manager: pluggy.PluginManager, plugin: Any, *, contributes: bool) -> Iterator[str]:
    """What is wrong with a plugin that `manager` has just taken; `contributes`: it may bring backends, transports."""
    callers = manager.get_hookcallers(plugin) or []
    if not callers:
        yield f"{_kindOf(plugin)} without a function marked with @calandria.plugin.hookimpl"
    for caller in callers:
        (implementation,) = [each for each in caller.get_hookimpls() if each.plugin is plugin]
        if not caller.has_spec():
            if not implementation.optionalhook:
                yield f"there is no hook {shown(caller.name)}{didYouMean(caller.name, _hooks.NAMES)}"
        elif implementation.wrapper or implementation.hookwrapper:
            yield f"{caller.name} is a wrapper, and hooks are called one by one"
        elif caller.name in _hooks.CONTRIBUTIONS and not contributes:
            group = caller.name.replace("_", ".")
            yield f"{caller.name} is for plugins registered in code; what is installed has entry points in {group}"


def optionsOf(backend: type[Backend]) -> list[str]:
    """The names of the options that a backend takes: the keywords of its and its bases' `__init__`."""
    from calandria._backend import _optionsOf  # pyright: ignore[reportPrivateUsage]  # what its TypeError says, too

    return _optionsOf(backend)


def _accepts(function: Any, count: int) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # written in C, and keeps its signature to itself
        return True
    return True


def _kindOf(value: Any) -> str:
    if inspect.ismodule(value):
        return f"the module {value.__name__}"
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return f"an object of type {type(value).__qualname__}"
