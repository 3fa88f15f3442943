"""The text of endpoints: the grammar of `scheme:arg:arg:key=value`, and how a value of each type is read and written.

A field is textual by its annotation alone, so that who declares an endpoint writes no parser. Reading is strict (one
spelling per value, or nearly): lists of what is allowed are compared with these strings. Knows nothing of endpoints.
"""

from __future__ import annotations

import enum
import pathlib
import re
import types
import typing
from typing import Annotated, Any, Generic, Literal, NamedTuple, NoReturn, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

# Of what is quoted in an error, so that a message stays a message whatever came in.
LONGEST_QUOTE = 80


class Text(Generic[T]):
    """How a field's value is read from an endpoint string and written to it: `Annotated[T, Text(parse, format)]`.

    `parse` takes the text and raises ValueError for one that is no value; `format` is its inverse. `takes` says in
    words what the text may be, for errors and help ("a mode in octal, such as 660").
    """

    __slots__ = ("format", "parse", "takes")

    def __init__(self, parse: Callable[[str], T], format: Callable[[T], str] = str, takes: str = "") -> None:
        for function in (parse, format):
            if not callable(function):
                raise TypeError(f"Text takes two functions, parse and format; {function!r} is none")
        self.parse = parse
        self.format = format
        self.takes = takes


def _parseOctal(text: str) -> int:
    if not re.fullmatch("(0o)?[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise ValueError("")
    return int(text, 8)


OctalMode: Text[int] = Text(_parseOctal, lambda mode: f"{mode:03o}", "a mode in octal, such as 660")
"""For permissions: `mode: Annotated[int, OctalMode] = 0o666` is written `mode=666`."""


# The grammar.


class Argument(NamedTuple):
    """One argument of a string. `literal`: it stood in brackets or began with a backslash, and means itself."""

    key: str | None
    value: str
    literal: bool


def split(text: str) -> tuple[str, list[Argument]]:
    """Take `scheme:arg:arg:key=value` apart. Raises ValueError."""
    scheme, _, rest = text.partition(":")
    arguments: list[Argument] = []
    at = 0
    while rest and at <= len(rest):
        argument, at = _argument(rest, at)
        arguments.append(argument)
        at += 1  # over the colon
    return scheme, arguments


def _argument(text: str, at: int) -> tuple[Argument, int]:
    """The argument that begins at `at`, and where it ends."""
    key: str | None = None
    piece: list[str] = []
    start = at
    literal = False
    while at < len(text) and text[at] != ":":
        character = text[at]
        if character == "[" and at == start:
            end = _closing(text, at)
            return Argument(key, text[at + 1 : end], True), end + 1
        if character == "\\":
            literal = literal or at == start
            at += 1
            if at == len(text):
                raise ValueError("the backslash at the end makes nothing literal; write \\\\ for a backslash")
            piece.append(text[at])
        elif character == "=" and key is None:
            key = "".join(piece)
            if not key:
                raise ValueError("an option without a name: '=' at the start of an argument; write \\= if it is meant")
            piece.clear()
            start, literal = at + 1, False
        else:
            piece.append(character)
        at += 1
    return Argument(key, "".join(piece), literal), at


def _closing(text: str, at: int) -> int:
    """Where the bracket that opens at `at` closes; brackets inside it come in pairs."""
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] == "[") - (text[end] == "]")
        if not depth:
            if text[end + 1 : end + 2] not in ("", ":"):
                raise ValueError(
                    "a '[' at the start is literal up to its ']', where it must end; write \\[ for a plain one"
                )
            return end
    raise ValueError("a '[' at the start is literal up to its ']', and there is none; write \\[ for a plain one")


def join(scheme: str, arguments: Iterable[Argument]) -> str:
    """The inverse of `split`."""
    return ":".join([scheme, *(_quoted(argument) for argument in arguments)])


def _quoted(argument: Argument) -> str:
    key, value, literal = argument
    name = "" if key is None else f"{key}="
    # An empty last argument would look like none.
    literal = literal or (key is None and not value)
    if (literal or ":" in value) and _paired(value):
        return f"{name}[{value}]"
    value = value.replace("\\", "\\\\").replace(":", "\\:")
    if key is None:
        value = value.replace("=", "\\=")
    if value and (literal or value[0] == "[") and value[0] != "\\":
        value = f"\\{value}"
    return name + value


def _paired(value: str) -> bool:
    """Whether `[value]` ends where it should."""
    depth = 0
    for character in value:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            return False
    return depth == 0


def quoteStringArgument(argument: str) -> str:
    """Make an argument literal for an endpoint string: backslashes before `\\`, `:`, `=`, `[`, and `<` at the start."""
    return re.sub(r"([\\:=\[]|\A<)", r"\\\1", argument)


def shown(text: object) -> str:
    """What somebody gave, for a message: quoted, in ASCII (a look-alike shows), and not too long."""
    quoted = ascii(text)
    return quoted if len(quoted) <= LONGEST_QUOTE else f"{quoted[: LONGEST_QUOTE - 4]}…{quoted[-1]}"


# Values.


class Codec(NamedTuple):
    """How values of one annotation are read and written."""

    takes: str
    """What a text may be, in words; "" if there is none."""
    parse: Callable[[str, bool], Any]
    """(text, literal) -> value. Raises ValueError: with what is wrong, or with nothing if `takes` says it all."""
    format: Callable[[Any], tuple[str, bool] | None]
    """value -> (text, whether it must be literal); None for a value that it cannot write."""
    rank: int = 1
    """In a union the lower ones are tried first."""
    lacks: str = ""
    """The type, or types of a union, that have no text."""


# The rank of codecs that take any text: tried last in a union, and first if the text is literal.
ANY_TEXT = 9


def codecOf(annotation: Any) -> Codec:
    """The codec of an annotation (evaluated, with its extras). A type that has no text gets one that refuses."""
    if isinstance(annotation, str):
        return _opaque(annotation)
    origin = typing.get_origin(annotation)
    inner: tuple[Any, ...] = typing.get_args(annotation)
    if origin is Annotated:
        for extra in inner[1:]:
            if isinstance(extra, Text):
                return _custom(inner[0], typing.cast("Any", extra))
        return codecOf(inner[0])
    if origin is Literal:
        return _choice([(_literalText(value), value) for value in inner])
    if origin is typing.Union or origin is types.UnionType:
        return _union([codecOf(each) for each in inner])
    if origin is tuple and inner == (str, int):
        return Codec("host:port", _parsePair, _formatPair)
    if hasattr(annotation, "__supertype__"):  # a NewType
        return codecOf(annotation.__supertype__)
    if type(annotation).__name__ == "TypeAliasType":  # `type X = ...` of Python 3.12
        return codecOf(annotation.__value__)
    if annotation is None:
        annotation = type(None)
    if isinstance(annotation, type) and origin is None:
        if annotation in _SIMPLE:
            return _SIMPLE[annotation]
        # A set of flags has values without a name.
        if issubclass(annotation, enum.Enum) and not issubclass(annotation, enum.Flag):
            return _choice(list(annotation.__members__.items()))
        if issubclass(annotation, pathlib.PurePath):
            return _path(annotation)
    return _opaque(typeName(annotation))


def typeName(annotation: Any) -> str:
    """A type in the words of its author, without the modules."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__name__
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", repr(annotation))


def listed(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def didYouMean(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'tcp'?`, or nothing if no known word is near."""
    import difflib  # to explain a mistake; nobody else pays for it

    words = {word.lower(): word for word in known}
    near = difflib.get_close_matches(given.lower(), words, 1)
    return f"; did you mean {words[near[0]]!r}?" if near else ""


def _refuse() -> NoReturn:
    raise ValueError("")


def _parseInt(text: str, literal: bool) -> int:
    # Neither "+5", "1_000", " 5", "08" nor the digits of other scripts, all of which int() takes.
    if not re.fullmatch("0|-?[1-9][0-9]{0,99}", text):
        _refuse()
    return int(text)


def _formatInt(value: Any) -> tuple[str, bool] | None:
    return (str(int(value)), False) if isinstance(value, int) and not isinstance(value, bool) else None


def _parseFloat(text: str, literal: bool) -> float:
    if not re.fullmatch(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|-?inf|nan", text):
        _refuse()
    return float(text)


def _formatFloat(value: Any) -> tuple[str, bool] | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return repr(value).removesuffix(".0"), False


# The digits are Twisted's spelling.
_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _parseBool(text: str, literal: bool) -> bool:
    if text not in _BOOLS:
        _refuse()
    return _BOOLS[text]


def _formatBool(value: Any) -> tuple[str, bool] | None:
    return (str(value).lower(), False) if isinstance(value, bool) else None


def _parseStr(text: str, literal: bool) -> str:
    return text


def _formatStr(value: Any) -> tuple[str, bool] | None:
    return (str(value), False) if isinstance(value, str) else None


def _parseBytes(text: str, literal: bool) -> bytes:
    # Bytes that are no UTF-8 come, and go, as Python shows them in arguments and paths.
    return text.encode("utf-8", "surrogateescape")


def _formatBytes(value: Any) -> tuple[str, bool] | None:
    return (value.decode("utf-8", "surrogateescape"), False) if isinstance(value, bytes) else None


def _parseNone(text: str, literal: bool) -> None:
    if literal or text != "none":
        _refuse()


def _formatNone(value: Any) -> tuple[str, bool] | None:
    return ("none", False) if value is None else None


def _parsePair(text: str, literal: bool) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if host[:1] == "[" and host[-1:] == "]":
        host = host[1:-1]
    elif ":" in host or host[:1] == "[":
        raise ValueError("an IPv6 address goes in brackets, and so does the whole value: [[::1]:0]")
    if not colon:
        raise ValueError("the value goes in brackets: [127.0.0.1:0]")
    return host, _parseInt(port, literal)


def _formatPair(value: Any) -> tuple[str, bool] | None:
    try:
        host, port = value
    except (TypeError, ValueError):
        return None
    if type(host) is not str or type(port) is not int:
        return None
    return (f"[{host}]:{port}" if ":" in host or host[:1] == "[" else f"{host}:{port}"), False


_SIMPLE: dict[Any, Codec] = {
    type(None): Codec("none", _parseNone, _formatNone, 0),
    int: Codec("a whole number", _parseInt, _formatInt, 2),
    float: Codec("a number", _parseFloat, _formatFloat, 3),
    bool: Codec("true or false", _parseBool, _formatBool, 4),
    str: Codec("text", _parseStr, _formatStr, ANY_TEXT),
    bytes: Codec("text (bytes in UTF-8)", _parseBytes, _formatBytes, ANY_TEXT),
}


def _path(kind: type[pathlib.PurePath]) -> Codec:
    def parse(text: str, literal: bool) -> pathlib.PurePath:
        return kind(text)

    def format(value: Any) -> tuple[str, bool] | None:
        return (str(value), False) if isinstance(value, kind) else None

    return Codec("a path", parse, format, ANY_TEXT)


def _literalText(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    written = _SIMPLE[type(value)].format(value)
    assert written is not None
    return written[0]


def _choice(choices: list[tuple[str, Any]]) -> Codec:
    """One of several values, each with its text; of two with one text, such as 1 and "1", a literal one is the str."""
    plain: dict[str, Any] = {}
    literal: dict[str, Any] = {}
    for text, value in choices:
        literal.setdefault(text, value)
        if isinstance(value, str):
            literal[text] = value
            plain.setdefault(text, value)
        else:
            plain[text] = value

    def parse(text: str, isLiteral: bool) -> Any:
        if text not in plain:
            raise ValueError(didYouMean(text, plain).removeprefix("; "))
        return (literal if isLiteral else plain)[text]

    def format(value: Any) -> tuple[str, bool] | None:
        for text, choice in choices:
            if type(choice) is type(value) and choice == value:
                return text, plain[text] is not choice
        return None

    return Codec(listed(plain), parse, format)


def _custom(annotation: Any, text: Text[Any]) -> Codec:
    def parse(given: str, literal: bool) -> Any:
        return text.parse(given)

    def format(value: Any) -> tuple[str, bool] | None:
        # A value of another type, which no dataclass would notice, is shown by its type.
        try:
            return str(text.format(value)), False
        except Exception:
            return None

    return Codec(text.takes or f"the text of a value of type {typeName(annotation)}", parse, format)


def _union(members: list[Codec]) -> Codec:
    textual = sorted((each for each in members if each.takes), key=lambda each: each.rank)
    lacks = listed([each.lacks for each in members if each.lacks] or [""])
    if not textual:
        return _opaque(lacks)
    takesAnything = [each for each in textual if each.rank == ANY_TEXT]
    literally = takesAnything + [each for each in textual if each.rank != ANY_TEXT]

    def parse(text: str, literal: bool) -> Any:
        why = ""
        for each in literally if literal else textual:
            try:
                return each.parse(text, literal)
            except ValueError as exc:
                why = str(exc) or why
        raise ValueError(why)

    def format(value: Any) -> tuple[str, bool] | None:
        for each in textual:
            written = each.format(value)
            if written is not None:
                # Another member of the union may be what reads the text: the word "none", the digits of a str.
                try:
                    back = parse(written[0], written[1])
                    same = type(back) is type(value) and back == value
                except ValueError:
                    same = False
                return written[0], written[1] or not same
        return None

    takes = listed(each.takes for each in textual[:: -1 if textual[0].rank == 0 else 1])
    return Codec(takes, parse, format, max(each.rank for each in textual), lacks)


def _opaque(name: str) -> Codec:
    def parse(text: str, literal: bool) -> NoReturn:
        _refuse()

    def format(value: Any) -> None:
        return None

    return Codec("", parse, format, lacks=name)
