"""Failure: what it tells, what it lets go of and when, and what it writes into the log."""

from __future__ import annotations

import copy
import gc
import io
import logging
import pickle
import sys
import traceback
import weakref
from typing import TYPE_CHECKING, Any, assert_type

import pytest

from calandria import failure
from calandria.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.helpers import LogCapture


class Held:
    """Something in a frame: it lives as long as the frame does."""


def divide(numerator: int) -> float:
    return numerator / 0


def caught(function: Any, *args: Any) -> Failure:
    """The Failure of what `function` raises."""
    try:
        function(*args)
    except BaseException as exc:
        return Failure(exc)
    raise AssertionError("nothing was raised")


def printed(exc: BaseException) -> str:
    """What Python prints for it."""
    return "".join(traceback.format_exception(exc))


@pytest.fixture
def withoutCollector() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# What it is made of.


def test_value_and_type() -> None:
    exc = KeyError("x")
    one = Failure(exc)
    assert one.value is exc
    assert one.type is KeyError
    assert repr(one) == "<Failure KeyError: 'x'>"
    assert one.getErrorMessage() == "'x'"


def test_the_current_exception() -> None:
    made: list[Failure] = []
    expected = KeyError("x")
    try:
        raise expected
    except KeyError:
        made.append(Failure())
    assert made[0].value is expected


def test_no_current_exception() -> None:
    with pytest.raises(failure.NoCurrentExceptionError, match="none is"):
        Failure()


@pytest.mark.parametrize("value", ["text", 1, KeyError, Failure(KeyError())])
def test_only_of_exceptions(value: Any) -> None:
    with pytest.raises(TypeError, match="made of an exception, not of"):
        Failure(value)


def test_making_one_formats_and_walks_nothing() -> None:
    class Untellable(Exception):
        def __str__(self) -> str:
            raise AssertionError("formatted")

    one = caught(raiseIt, Untellable())
    assert one.getTracebackObject() is one.value.__traceback__
    assert vars(one.value) == {}
    assert "Untellable" in repr(one)
    assert "whose text cannot be made" in one.getErrorMessage()
    assert "Untellable" in one.getTraceback()


def raiseIt(exc: BaseException) -> None:
    raise exc


# Asking and raising.


def test_check() -> None:
    one = Failure(ZeroDivisionError("x"))
    assert one.check(ZeroDivisionError) is ZeroDivisionError
    assert one.check(KeyError, ArithmeticError, Exception) is ArithmeticError
    assert one.check("builtins.ArithmeticError") == "builtins.ArithmeticError"
    assert one.check(KeyError, "builtins.KeyError", OSError) is None
    assert one.check("ArithmeticError") is None
    assert one.check() is None


def test_trap() -> None:
    one = caught(divide, 1)
    assert one.trap(KeyError, ArithmeticError) is ArithmeticError
    with pytest.raises(ZeroDivisionError) as raised:
        one.trap(KeyError, "builtins.KeyError")
    assert raised.value is one.value


def test_the_types_of_check_and_trap() -> None:
    one = Failure(KeyError())
    assert_type(one.check(KeyError), type[KeyError] | None)
    assert_type(one.trap(KeyError), type[KeyError])
    assert_type(one.value, BaseException)


def test_raising_it() -> None:
    one = caught(divide, 1)
    with pytest.raises(ZeroDivisionError) as raised:
        one.raiseException()
    assert raised.value is one.value
    assert [entry.name for entry in raised.traceback][-2:] == ["caught", "divide"]


def test_throwing_it_into_a_generator() -> None:
    def generator() -> Generator[str, None, None]:
        try:
            yield "started"
        except ZeroDivisionError as exc:
            yield f"told of {exc}"

    running = generator()
    assert next(running) == "started"
    assert caught(divide, 1).throwExceptionIntoGenerator(running) == "told of division by zero"


# What it tells.


def chained() -> None:
    try:
        divide(1)
    except ZeroDivisionError as exc:
        try:
            raiseIt(KeyError("context"))
        except KeyError:
            raise ValueError("outermost") from exc


def suppressed() -> None:
    try:
        divide(1)
    except ZeroDivisionError:
        raise ValueError("outermost") from None


def grouped() -> None:
    more = BaseExceptionGroup("more", [caught(chained).value])
    raise BaseExceptionGroup("several", [caught(divide, 1).value, more])


def noted() -> None:
    exc = ValueError("line\nbroken")
    exc.add_note("and a note")
    raise exc


def wrong() -> None:
    compile("1 +", "<nowhere>", "exec")


def deep(levels: int = 200) -> None:
    if levels:
        deep(levels - 1)
    divide(1)


each = pytest.mark.parametrize("function", [lambda: divide(1), chained, suppressed, grouped, noted, wrong, deep])


@each
def test_the_text_is_pythons(function: Any) -> None:
    one = caught(function)
    assert one.getTraceback() == printed(one.value)


@each
def test_cleaning_changes_no_text(function: Any) -> None:
    one = caught(function)
    before = one.getTraceback()
    one.cleanFailure()
    assert one.getTraceback() == before
    one.cleanFailure()
    assert one.getTraceback() == before


def test_never_raised() -> None:
    one = Failure(ValueError("x"))
    one.cleanFailure()
    assert one.getTraceback() == printed(one.value) == "ValueError: x\n"
    assert one.getTracebackObject() is None
    assert one.getBriefTraceback() == "ValueError: x\n"


def test_raised_again_after_cleaning_tells_the_whole_way() -> None:
    one = caught(divide, 1)
    one.cleanFailure()
    two = caught(one.raiseException)
    text = two.getTraceback()
    assert text.index("in raiseException") < text.index("in divide")
    two.cleanFailure()
    assert two.getTraceback() == one.getTraceback() == text


def test_what_is_raised_for_ever_does_not_grow_for_ever() -> None:
    exc = KeyError("one for all")
    for _ in range(3000):
        caught(raiseIt, exc).cleanFailure()
    assert len(Failure(exc).getBriefTraceback().splitlines()) <= 1001


def test_brief() -> None:
    one = caught(chained)
    for _ in range(2):
        *places, last = one.getBriefTraceback().splitlines()
        assert last == "ValueError: outermost"
        assert [place.rpartition(": ")[2] for place in places] == ["caught", "chained"]
        assert all(place.startswith(f"{__file__}:") for place in places)
        one.cleanFailure()


def test_printing(capsys: pytest.CaptureFixture[str]) -> None:
    one = caught(divide, 1)
    file = io.StringIO()
    one.printTraceback(file)
    one.printTraceback()
    assert file.getvalue() == capsys.readouterr().err == one.getTraceback()


@each
def test_pickling(function: Any) -> None:
    one = caught(function)
    one.cleanFailure()
    for other in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
        assert other.type is one.type
        assert other.getErrorMessage() == one.getErrorMessage()
        assert other.getBriefTraceback() == one.getBriefTraceback()
        assert other.getTraceback().splitlines()[-1] == one.getTraceback().splitlines()[-1]


# What it lets go of.


class Dying:
    """Keeps the Failure that it died of."""

    def __init__(self) -> None:
        self.reason: Failure | None = None

    def die(self, function: Any) -> None:
        self.work(function)

    def work(self, function: Any) -> None:
        mine = [self, Held()]
        assert mine
        function()


def dyingOf(function: Any, *, cleaned: bool) -> weakref.ref[Dying]:
    dying = Dying()
    try:
        dying.die(function)
    except BaseException as exc:
        dying.reason = Failure(exc)
    if cleaned and dying.reason is not None:
        dying.reason.cleanFailure()
    return weakref.ref(dying)


@each
@pytest.mark.usefixtures("withoutCollector")
def test_who_keeps_a_cleaned_failure_is_freed(function: Any) -> None:
    assert dyingOf(function, cleaned=True)() is None
    # What it is for: without it, nothing but the collector would help.
    assert dyingOf(function, cleaned=False)() is not None


@pytest.mark.usefixtures("withoutCollector")
def test_contexts_causes_and_members_let_go_too() -> None:
    held: list[weakref.ref[Held]] = []

    def inner(kind: type[Exception]) -> None:
        local = Held()
        held.append(weakref.ref(local))
        raise kind("x")

    def outer() -> None:
        try:
            inner(KeyError)
        except KeyError as cause:
            try:
                inner(OSError)
            except OSError:
                members = [caught(inner, IndexError).value, caught(inner, TypeError).value]
                raise BaseExceptionGroup("all", members) from cause

    one = caught(outer)
    assert len([reference for reference in held if reference() is not None]) == 4
    one.cleanFailure()
    assert [reference() for reference in held] == [None] * 4


@pytest.mark.usefixtures("withoutCollector")
def test_a_cycle_of_exceptions() -> None:
    one, two = caught(divide, 1), caught(raiseIt, KeyError())
    one.value.__cause__, two.value.__cause__ = two.value, one.value
    one.value.__context__ = one.value
    one.cleanFailure()
    assert one.value.__traceback__ is two.value.__traceback__ is None
    assert "ZeroDivisionError" in one.getTraceback()
    one.value.__cause__ = one.value.__context__ = None


@pytest.mark.usefixtures("withoutCollector")
def test_the_variables_of_frames_that_others_keep_are_cleared() -> None:
    held: list[weakref.ref[Held]] = []

    def inner() -> None:
        local = Held()
        held.append(weakref.ref(local))
        divide(1)

    one = caught(inner)
    kept = one.getTracebackObject()
    one.cleanFailure()
    assert kept is not None
    assert held[0]() is None


def test_running_frames_keep_their_variables() -> None:
    local = Held()
    made: list[Failure] = []
    try:
        divide(1)
    except ZeroDivisionError as exc:
        made.append(Failure(exc))
        made[0].cleanFailure()
    assert made[0].getTracebackObject() is None
    assert isinstance(local, Held)


def test_suspended_generators_go_on() -> None:
    def generator() -> Generator[str, None, None]:
        mine = "kept"
        try:
            divide(1)
        except ZeroDivisionError as exc:
            yield exc  # type: ignore[misc]  # the exception first, then what is left of the variables
        yield mine

    running = generator()
    one = Failure(next(running))  # type: ignore[arg-type]  # see there
    one.cleanFailure()
    assert next(running) == "kept"


def test_suspended_coroutines_go_on() -> None:
    raised: list[BaseException] = []

    class Pause:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def coroutine() -> str:
        mine = "kept"
        try:
            divide(1)
        except ZeroDivisionError as exc:
            raised.append(exc)
            await Pause()
        return mine

    running = coroutine()
    running.send(None)
    Failure(raised.pop()).cleanFailure()
    with pytest.raises(StopIteration) as stopped:
        running.send(None)
    assert stopped.value.value == "kept"


def test_an_exception_that_refuses_attributes() -> None:
    class Frozen(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            if not name.startswith("__"):
                raise AttributeError(name)
            super().__setattr__(name, value)

    one = caught(raiseIt, Frozen("x"))
    before = one.getTraceback()
    one.cleanFailure()
    assert one.getTraceback() == before


# The log.


class Handler(logging.Handler):
    """Looks at records as they pass."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.tracebacks: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.tracebacks.append([entry.name for entry in traceback.extract_tb(record.exc_info and record.exc_info[2])])


@pytest.fixture
def handler() -> Iterator[Handler]:
    handler = Handler()
    logger = logging.getLogger("calandria")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def logged(handler: Handler) -> str:
    (record,) = handler.records
    return logging.Formatter("%(levelname)s %(name)s %(message)s").format(record)


def test_logging(handler: Handler) -> None:
    one = caught(divide, 1)
    text = one.getTraceback()
    failure.log("dataReceived of Echo raised", one)
    (record,) = handler.records
    assert logged(handler) == (
        f"ERROR calandria dataReceived of Echo raised: ZeroDivisionError: division by zero\n{text}".rstrip("\n")
    )
    assert vars(record)["calandria_what"] == "dataReceived of Echo raised"
    assert vars(record)["calandria_error"] == "ZeroDivisionError: division by zero"
    assert (record.funcName, record.pathname) == ("test_logging", __file__)
    assert record.exc_info == (ZeroDivisionError, one.value, None)
    assert handler.tracebacks == [["caught", "divide"]]
    assert one.getTracebackObject() is None


def test_logging_an_exception(handler: Handler) -> None:
    exc = caught(divide, 1).value
    failure.log("it raised", exc, "more lines\nbelow")
    assert exc.__traceback__ is None
    assert "in divide" in logged(handler)
    assert logged(handler).endswith("division by zero\nmore lines\nbelow")


def test_logging_after_cleaning_still_tells_where(handler: Handler) -> None:
    one = caught(divide, 1)
    one.cleanFailure()
    failure.log("it raised", one)
    assert "in divide" in logged(handler)


@pytest.mark.usefixtures("withoutCollector")
def test_a_handler_that_collects_records_keeps_no_frames(handler: Handler) -> None:
    held: list[weakref.ref[Held]] = []

    def inner() -> None:
        local = Held()
        held.append(weakref.ref(local))
        divide(1)

    failure.log("it raised", caught(inner))
    assert held[0]() is None
    assert len(handler.records) == 1


def test_nothing_is_formatted_for_nobody(handler: Handler) -> None:
    class Untellable(Exception):
        def __str__(self) -> str:
            raise AssertionError("formatted")

    logger = logging.getLogger("calandria")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        one = caught(raiseIt, Untellable())
        failure.log("it raised", one)
    finally:
        logger.setLevel(before)
    assert handler.records == []
    assert one.getTracebackObject() is None


@pytest.mark.parametrize(
    "evil", ["a\nERROR root forged", "\r\nERROR root forged", "\x1b[31mred\x1b[0m", "\0", "a\u202eb", "a\x85b", "\n"]
)
def test_no_peer_writes_our_log(handler: Handler, evil: str) -> None:
    class Group(ExceptionGroup[Exception]):
        pass

    def raising() -> None:
        try:
            raise OSError(evil)
        except OSError as exc:
            raise Group(evil, [ValueError(evil)]) from exc

    failure.log(f"what {evil}", caught(raising))
    text = logged(handler)
    assert all(line.isprintable() for line in text.split("\n"))
    assert not [line for line in text.split("\n")[1:] if line.startswith("ERROR")]
    assert failure.escaped(evil) in text.split("\n")[0]
    assert evil not in vars(handler.records[0])["calandria_what"]


def test_fields_are_limited(handler: Handler) -> None:
    failure.log("w" * 5000, caught(raiseIt, ValueError("v" * 100_000)))
    for field in ("calandria_what", "calandria_error"):
        assert len(vars(handler.records[0])[field].encode()) == 1024
    assert max(len(line.encode()) for line in str(handler.records[0].exc_text).split("\n")) <= 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("ünïcode ✓", "ünïcode ✓"),
        ("tab\tnul\0", r"tab\tnul\x00"),
        ("\ud800", r"\ud800"),
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1021 + "…"),
        ("é" * 600, "é" * 510 + "…"),
        ("\0" * 300, r"\x00" * 255 + r"\…"),
    ],
)
def test_escaped(text: str, expected: str) -> None:
    assert failure.escaped(text) == expected
    assert len(expected.encode()) <= 1024


def test_a_logged_error_passes_the_fixture(logs: LogCapture) -> None:
    failure.log("it raised", caught(divide, 1))
    (record,) = logs.takeErrors()
    assert record.getMessage() == "it raised: ZeroDivisionError: division by zero"


def test_cheap_to_make() -> None:
    one = Failure(KeyError())
    assert not hasattr(one, "__dict__")
    assert sys.getsizeof(one) <= 64
