"""An exception that is passed around instead of raised: what Deferreds and `connectionLost` are told of.

Cheap to make: it holds the exception, nothing more. What an exception must not do for long is hold its traceback, which
refers to every frame from `run()` down and to all their variables, a cycle for whoever keeps it. `cleanFailure` takes
the frames away and leaves on the exception where they were, so that the text can still be made when somebody asks.
"""

from __future__ import annotations

import itertools
import linecache
import logging
import sys
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Generator, Sequence
    from types import CodeType, TracebackType
    from typing import Any, NoReturn, TextIO, TypeAlias, TypeVar, overload

    E = TypeVar("E", bound=BaseException)

    # File, line, name of the function; the code and the place in it for the marks below a line, unless it was pickled.
    Place: TypeAlias = tuple[str, int, str, CodeType | None, int]

logger = logging.getLogger("calandria")

# Where an exception keeps its places. On the exception and not on the Failure, because one that is raised again is the
# value of several Failures, and each should tell the whole way.
_KEPT = "_calandriaPlaces"

# Of the places of one exception; one that is raised again for ever must not grow for ever. CPython's own limit for
# recursion is 1,000, and what is worth reading stands at the two ends.
_MOST_PLACES = 1000

# Generators, coroutines, asynchronous generators: clearing a suspended one's frame would close it.
_SUSPENDABLE = 0x20 | 0x80 | 0x200

# Contract A32: each field of a log record.
_LONGEST_FIELD = 1024


# Of whatever members: isinstance with the class itself would leave their type unknown.
_GROUP: type[BaseException] = BaseExceptionGroup


class NoCurrentExceptionError(Exception):
    """A Failure of the current exception was wanted while none was being handled."""


class _Places(list["Place"]):
    """The places of a traceback whose frames are gone, the outermost first. Pickled as a plain list."""

    def __reduce__(self) -> tuple[Any, ...]:
        return list, ([(file, line, name, None, -1) for file, line, name, _, _ in self],)


class Failure:
    """An exception that is told instead of raised. `value` is the exception; without one, that now being handled.

    Raises NoCurrentExceptionError if there is none, TypeError for anything that is no exception.
    """

    __slots__ = ("__weakref__", "value")

    value: BaseException

    def __init__(self, value: BaseException | None = None) -> None:
        if not isinstance(value, BaseException):
            if value is not None:
                raise TypeError(f"a Failure is made of an exception, not of {value!r}")
            value = sys.exception()
            if value is None:
                raise NoCurrentExceptionError(
                    "a Failure without a value is one of the exception being handled: none is"
                )
        self.value = value

    @property
    def type(self) -> builtins.type[BaseException]:
        """The exception's class."""
        return self.value.__class__

    def __reduce__(self) -> tuple[Any, ...]:
        return Failure, (self.value,)

    def __repr__(self) -> str:
        return f"<Failure {_brief(self.value)}>"

    if TYPE_CHECKING:

        @overload
        def check(self, *errorTypes: builtins.type[E]) -> builtins.type[E] | None: ...

        @overload
        def check(
            self, *errorTypes: builtins.type[BaseException] | str
        ) -> builtins.type[BaseException] | str | None: ...

    def check(self, *errorTypes: Any) -> Any:
        """The first of `errorTypes` (classes, or their full names as strings) that the exception is of, or None."""
        names: list[str] | None = None
        for errorType in errorTypes:
            if isinstance(errorType, str):
                if names is None:
                    names = [f"{base.__module__}.{base.__qualname__}" for base in self.type.__mro__]
                if errorType in names:
                    return errorType
            elif isinstance(self.value, errorType):
                return errorType
        return None

    if TYPE_CHECKING:

        @overload
        def trap(self, *errorTypes: builtins.type[E]) -> builtins.type[E]: ...

        @overload
        def trap(self, *errorTypes: builtins.type[BaseException] | str) -> builtins.type[BaseException] | str: ...

    def trap(self, *errorTypes: Any) -> Any:
        """Like `check`, but raises the exception if it is of none of them: for an errback that handles only some."""
        found = self.check(*errorTypes)
        if found is None:
            raise self.value
        return found

    def raiseException(self) -> NoReturn:
        """Raise the exception here."""
        raise self.value

    def throwExceptionIntoGenerator(self, generator: Generator[Any, Any, Any]) -> Any:
        """Raise the exception in `generator`, where it waits; what it yields next is returned."""
        return generator.throw(self.value)

    def getErrorMessage(self) -> str:
        """The exception's own text."""
        return _message(self.value)

    def getTracebackObject(self) -> TracebackType | None:
        """The traceback, for debuggers; None if there is none (any more): see `cleanFailure`."""
        return self.value.__traceback__

    def getTraceback(self) -> str:
        """The text that Python prints for an exception nobody caught, also after `cleanFailure`."""
        told = traceback.TracebackException(type(self.value), self.value, self.value.__traceback__)
        pairs: list[tuple[traceback.TracebackException | None, BaseException | None]] = [(told, self.value)]
        # What `told` holds has no cycles, whatever the exceptions have.
        while pairs:
            shown, exc = pairs.pop()
            if shown is None or exc is None:
                continue
            shown.stack.extend([_summary(place) for place in _kept(exc)])
            pairs += ((shown.__cause__, exc.__cause__), (shown.__context__, exc.__context__))
            pairs += zip(shown.exceptions or (), _members(exc), strict=False)
        return "".join(told.format())

    def getBriefTraceback(self) -> str:
        """One line for each place, `file:line: function`, and the exception in the last."""
        places = [*_live(self.value.__traceback__), *_kept(self.value)]
        lines = [f"{file}:{line}: {name}" for file, line, name, _, _ in places]
        return "\n".join([*lines, _brief(self.value)]) + "\n"

    def printTraceback(self, file: TextIO | None = None) -> None:
        """Write the traceback to `file`, by default to standard error."""
        (sys.stderr if file is None else file).write(self.getTraceback())

    def cleanFailure(self) -> None:
        """Let go of every frame: of the exception, its causes and contexts, and the members of a group.

        The variables of frames that have ended are cleared, whoever else holds them. `getTraceback` tells the same
        text as before.
        """
        value = self.value
        if _trace(value) is None and _context(value) is None and _cause(value) is None and not _members(value):
            return
        for exc in _related(value):
            trace = _trace(exc)
            if trace is None:
                continue
            places = _Places(_live(trace))
            places += _kept(exc)
            if len(places) > _MOST_PLACES:
                del places[_MOST_PLACES // 2 : -_MOST_PLACES // 2]
            _attributes(exc)[_KEPT] = places
            BaseException.with_traceback(exc, None)
            while trace is not None:
                frame, trace = trace.tb_frame, trace.tb_next
                if not frame.f_code.co_flags & _SUSPENDABLE:
                    try:
                        frame.clear()
                    except RuntimeError:
                        pass  # it still runs


# What Python keeps of an exception, whatever its class makes of attributes: a frozen dataclass refuses to set any.
_trace: Callable[[BaseException], TracebackType | None] = BaseException.__dict__["__traceback__"].__get__
_context: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__context__"].__get__
_cause: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__cause__"].__get__
_attributes: Callable[[BaseException], dict[str, Any]] = BaseException.__dict__["__dict__"].__get__


def _members(exc: BaseException) -> Sequence[BaseException]:
    """The exceptions of a group; none for any other."""
    members: Sequence[BaseException] = getattr(exc, "exceptions", ()) if isinstance(exc, _GROUP) else ()
    return members


def _related(value: BaseException) -> list[BaseException]:
    """The exception and all that it refers to as exceptions do, each once."""
    found = {id(value): value}
    waiting: list[BaseException | None] = [value]
    while waiting:
        exc = waiting.pop()
        if exc is None:
            continue
        for other in (_cause(exc), _context(exc), *_members(exc)):
            if other is not None and id(other) not in found:
                found[id(other)] = other
                waiting.append(other)
    return list(found.values())


def _live(trace: TracebackType | None) -> list[Place]:
    """The places of a traceback, the outermost first."""
    places: list[Place] = []
    while trace is not None:
        frame = trace.tb_frame
        code = frame.f_code
        # Only the frame's globals tell where the source is that came out of an archive.
        linecache.lazycache(code.co_filename, frame.f_globals)
        places.append((code.co_filename, trace.tb_lineno, code.co_name, code, trace.tb_lasti))
        trace = trace.tb_next
    return places


def _kept(exc: BaseException) -> list[Place]:
    places: list[Place] = _attributes(exc).get(_KEPT, [])
    return places


def _summary(place: Place) -> traceback.FrameSummary:
    file, line, name, code, instruction = place
    if code is None or instruction < 0:
        return traceback.FrameSummary(file, line, name)
    _, endLine, column, endColumn = next(
        itertools.islice(code.co_positions(), instruction // 2, None), (None, None, None, None)
    )
    return traceback.FrameSummary(file, line, name, end_lineno=endLine, colno=column, end_colno=endColumn)


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException as broken:
        return f"<a {type(exc).__qualname__} whose text cannot be made: {type(broken).__qualname__}>"


def _brief(exc: BaseException) -> str:
    kind = type(exc)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    message = _message(exc)
    return f"{name}: {message}" if message else name


# The log.


def escaped(text: str) -> str:
    """What may have come from a peer, made fit for a log: on one line, without control characters, at most 1 KiB."""
    fits = len(text) * 4 <= _LONGEST_FIELD
    if fits and text.isprintable():
        return text
    # No character gets shorter, so what cannot fit need not be looked at.
    text = "".join([c if c.isprintable() else ascii(c)[1:-1] for c in text[: _LONGEST_FIELD + 1]])
    whole = text.encode()
    if len(whole) <= _LONGEST_FIELD:
        return text
    return whole[: _LONGEST_FIELD - 3].decode(errors="ignore") + "…"


def _escapedTraceback(reason: Failure) -> str:
    """The traceback with what a peer may have had a hand in escaped; else its newlines could forge other records."""
    text = reason.getTraceback()
    for exc in _related(reason.value):
        message = _message(exc)
        harmless = escaped(message)
        if harmless != message:
            text = text.replace(f": {message}\n", f": {harmless}\n")
    return "\n".join([line if line.isascii() and line.isprintable() else escaped(line) for line in text.split("\n")])


def log(what: str, reason: Failure | BaseException, details: str = "") -> None:
    """Log an exception nobody caught, once, at ERROR, and let go of its frames.

    `what` says what was being called ("connectionMade of Echo raised"); `details` are lines below the traceback.
    """
    if not isinstance(reason, Failure):
        reason = Failure(reason)
    try:
        _record(what, reason, details)
    except Exception as exc:
        # A handler, or the exception itself, raised: whoever is being told of is not to suffer for that.
        if sys.stderr is not None:
            sys.stderr.write(f"calandria: {escaped(what)}, and logging that raised {type(exc).__qualname__}\n")
    reason.cleanFailure()


def _record(what: str, reason: Failure, details: str) -> None:
    if logger.isEnabledFor(logging.ERROR):
        value = reason.value
        what = escaped(what)
        message = escaped(_brief(value))
        file, line, function, _ = logger.findCaller(stacklevel=3)
        record = logger.makeRecord(
            logger.name,
            logging.ERROR,
            file,
            line,
            "%s: %s",
            (what, message),
            (type(value), value, value.__traceback__),
            function,
            {"calandria_what": what, "calandria_error": message},
        )
        # Formatters take this text where it is set, instead of making one in which nothing is escaped.
        text = _escapedTraceback(reason).rstrip("\n")
        record.exc_text = f"{text}\n{details}".rstrip("\n")
        logger.handle(record)
        # A handler that collects records would hold the frames.
        record.exc_info = (type(value), value, None)
