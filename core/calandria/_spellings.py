"""What comes from the declaration of a transport: its strings, both ways, the reactor's methods, and its description.

All of it is read off the fields of the dataclasses, whose order and defaults say what is positional and what is a
keyword, and whose annotations say what is taken. Errors name the field, what was given, what it takes, and the nearest
right name.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import inspect
import sys
import types
import typing
from typing import Any, Literal, NamedTuple

from calandria import _text
from calandria._endpoint import (
    ClientEndpoint,
    DatagramClientEndpoint,
    DatagramServerEndpoint,
    LayeredClient,
    LayeredServer,
    LayerEndpoint,
    ServerEndpoint,
    Transport,
    carriesDatagrams,
    transportOf,
)
from calandria._text import Argument, Codec, didYouMean, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

Endpoint: typing.TypeAlias = ServerEndpoint | ClientEndpoint | DatagramServerEndpoint | DatagramClientEndpoint
Side: typing.TypeAlias = Literal["listen", "connect"]


class Field(NamedTuple):
    """One field of a declaration."""

    name: str
    type: str
    """The annotation, in the words of the author."""
    codec: Codec
    required: bool
    positional: bool
    hidden: bool
    """Made with `field(repr=False)`: a secret, which no text and no error shows."""
    default: Callable[[], Any]
    anew: bool
    """Whether the default is made anew each time."""
    doc: str


@functools.cache
def fieldsOf(cls: Any) -> tuple[Field, ...]:
    """The fields that an endpoint or layer is made with, in their order."""
    hints = _hintsOf(cls)
    return tuple(_field(each, hints[each.name]) for each in dataclasses.fields(cls) if each.init)


def _field(field: dataclasses.Field[Any], hint: Any) -> Field:
    anew = field.default_factory is not dataclasses.MISSING
    make: Any = field.default_factory if anew else lambda: field.default
    return Field(
        name=field.name,
        type=field.type if isinstance(field.type, str) else _text.typeName(field.type),
        codec=_text.codecOf(hint),
        required=field.default is dataclasses.MISSING and not anew,
        positional=not field.kw_only,
        hidden=not field.repr,
        default=make,
        anew=anew,
        doc=str(field.metadata.get("doc", "")),
    )


def _hintsOf(cls: type) -> dict[str, Any]:
    """The annotations as objects. A name that only type checkers know stands for a type that has no text."""
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        module = sys.modules.get(base.__module__)
        names = _Names({**(vars(module) if module else {}), **vars(base)})
        for name, annotation in inspect.get_annotations(base).items():
            alone = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hints |= typing.get_type_hints(alone, {}, names, include_extras=True)
            except Exception:
                hints[name] = annotation if isinstance(annotation, str) else _text.typeName(annotation)
    return hints


class _Names(dict[str, Any]):
    """The names that annotations are made of; one that is missing is made up."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name) if hasattr(builtins, name) else _Unknown(name, (), {})


class _Unknown(type):
    """A type of which nothing is known but the name."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Unknown(name, (), {})

    def __getitem__(cls, inner: object) -> Any:
        return cls


# Strings.


def write(endpoint: object) -> str:
    """The string that stands for an endpoint. A value that has no text is shown by its type, `<SSLContext>`."""
    parts: list[Any] = []
    innermost: Any = endpoint
    while isinstance(innermost, LayeredServer | LayeredClient):
        parts.append(innermost.layer)
        innermost = innermost.below
    declared = [_transportOf(part) for part in (*parts, innermost)]
    if None in declared:
        return repr(endpoint)
    spellings = [transport.spelling for transport in declared if transport is not None]
    arguments = list(_arguments(innermost, ""))
    for part, spelling in zip(parts, spellings, strict=False):
        arguments += _arguments(part, f"{spelling.partition('@')[0]}.")
    return _text.join("+".join(spellings), arguments)


def _transportOf(part: object) -> Transport | None:
    return transportOf(type(part))


def _arguments(part: object, prefix: str) -> Iterator[Argument]:
    cls: Any = type(part)
    for field in fieldsOf(cls):
        value = getattr(part, field.name)
        if not field.required:
            default = field.default()
            if value is default or value == default:
                continue
        written = None if field.hidden else field.codec.format(value)
        if written is None:
            written = f"<{type(value).__name__}>", False
        elif _standsForAnObject(written[0]):
            written = written[0], True
        key = None if field.required and field.positional else f"{prefix}{field.name}"
        yield Argument(key, *written)


def _standsForAnObject(text: str) -> bool:
    return text.startswith("<") and text.endswith(">")


def read(text: str, side: Side, find: Callable[[str], Transport], allowed: Collection[str] | None = None) -> Endpoint:
    """The endpoint that a string stands for.

    `find` gives the transport of a scheme. `allowed`, for strings from strangers, are the schemes that may be used,
    each part of a stack being one. Raises ValueError, and error.TransportUnavailable from `find`.
    """
    stack, arguments = _text.split(text)
    names = stack.split("+")
    for name in names:
        if allowed is not None and name not in allowed:
            raise ValueError(f"{shown(name)} is not allowed here; allowed: {', '.join(sorted(allowed)) or 'nothing'}")
    schemes = [name.partition("@")[0] for name in names]
    *layers, transport = [find(name) for name in names]
    cls = _sideOf(transport, side, schemes[-1])
    for scheme, layer in zip(schemes, layers, strict=False):
        if layer.layer is None:
            raise ValueError(f"{stack}: {scheme} is no layer, so it cannot stand before a '+'")
        if carriesDatagrams(cls):
            raise ValueError(f"{stack}: {scheme} goes over streams, and {schemes[-1]} carries datagrams")
    shares: dict[str, list[Argument]] = {scheme: [] for scheme in schemes}
    if len(shares) < len(schemes):
        raise ValueError(f"{stack}: a layer can be there only once in a string")
    for argument in arguments:
        owner, key = schemes[-1], argument.key
        if key is not None and "." in key:
            owner, _, key = key.partition(".")
            if owner not in shares:
                hint = didYouMean(owner, schemes)
                raise ValueError(f"{stack}: {shown(argument.key)} is an option of nobody here{hint}")
        shares[owner].append(argument._replace(key=key))
    endpoint: Any = _made(cls, schemes[-1], shares[schemes[-1]])
    for scheme, layer in zip(reversed(schemes[:-1]), reversed(layers), strict=True):
        assert layer.layer is not None
        endpoint = endpoint.over(_made(layer.layer, scheme, shares[scheme]))
    made: Endpoint = endpoint
    return made


def _sideOf(transport: Transport, side: Side, scheme: str) -> type[Endpoint]:
    cls = getattr(transport, side)
    if cls is not None:
        found: type[Endpoint] = cls
        return found
    if transport.listen is None and transport.connect is None:
        raise ValueError(f"{scheme} is a layer, which goes over a transport: {scheme}+tcp:…")
    raise ValueError(f"{scheme} can only {'connect' if side == 'listen' else 'listen'}, and this is to {side}")


def _made(cls: type, scheme: str, arguments: list[Argument]) -> Any:
    """An instance of a declared class from the arguments that are its share of a string."""
    fields = {field.name: field for field in fieldsOf(cls)}
    places = [field.name for field in fields.values() if field.required and field.positional]
    given: dict[str, Argument] = {}
    position = 0
    for argument in arguments:
        if argument.key is None:
            if position == len(places):
                raise ValueError(
                    f"{scheme}: {shown(argument.value)} is one argument too many, options are written key=value "
                    f"({usage(cls, scheme)})"
                )
            name = places[position]
            position += 1
        else:
            name = argument.key
            if name not in fields:
                raise ValueError(f"{scheme}: no option {shown(name)}{didYouMean(name, fields)} ({usage(cls, scheme)})")
        if name in given:
            raise ValueError(f"{scheme}: {name} is given twice")
        given[name] = argument
    missing = [field.name for field in fields.values() if field.required and field.name not in given]
    if missing:
        raise ValueError(f"{scheme}: no {' and no '.join(missing)} given ({usage(cls, scheme)})")
    values = {name: _value(fields[name], scheme, argument) for name, argument in given.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{scheme}: {exc}") from exc


def _value(field: Field, scheme: str, argument: Argument) -> Any:
    codec = field.codec
    given = "what was given" if field.hidden else shown(argument.value)
    if not codec.takes:
        lacks = f"a value of type {codec.lacks}, which has no text"
        raise ValueError(f"{scheme}: {field.name} takes {lacks}: only an endpoint object can have it")
    takes = f"{scheme}: {field.name} takes {codec.takes}"
    if codec.lacks:
        takes += f" (or a value of type {codec.lacks}, which has no text)"
    if _standsForAnObject(argument.value) and not argument.literal:
        raise ValueError(f"{takes}; {given} stands for a value that has no text")
    try:
        return codec.parse(argument.value, argument.literal)
    except ValueError as exc:
        raise ValueError(f"{takes}, not {given}{f'; {exc}' if str(exc) and not field.hidden else ''}") from None
    except Exception as exc:
        raise ValueError(f"{takes}, not {given}; {type(exc).__name__}: {exc}") from exc


def usage(cls: type, scheme: str, prefix: str = "") -> str:
    """How the string is written: `serial:device[:baudrate=…][:parity=…]`."""
    said: list[str] = []
    for field in fieldsOf(cls):
        written = f"{prefix}{field.name}=…"
        said.append((f":{field.name}" if field.positional else f":{written}") if field.required else f"[:{written}]")
    return scheme + ("".join(said) or ":")


# Methods.


class _Default:
    """Stands in a signature for a default that is made anew each time."""

    def __repr__(self) -> str:
        return "…"


def makeMethod(transport: Transport, side: Side) -> Callable[..., Any]:
    """`reactor.connectSerial(device, factory, baudrate=9600)`, from the declaration: a function whose first argument is
    the reactor. It has the signature, the name and the docstring that it would have if somebody had written it.
    """
    cls = _sideOf(transport, side, transport.scheme)
    name = f"{side}{transport.name}"
    receiver = "protocol" if carriesDatagrams(cls) else "factory"
    offers = "datagramReceived" if carriesDatagrams(cls) else "buildProtocol"
    signature = _signature(cls, side, receiver)
    plain = _withoutTypes(signature)

    def method(reactor: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            values = signature.bind(reactor, *args, **kwargs).arguments
        except TypeError as exc:
            unknown = [key for key in kwargs if key not in signature.parameters]
            hint = didYouMean(unknown[0], signature.parameters) if unknown else ""
            raise TypeError(f"{name}() {exc}{hint}: {name}{plain}") from None
        del values["self"]
        given = values.pop(receiver)
        if not callable(getattr(given, offers, None)):
            raise TypeError(f"{name}() takes a {receiver} (with {offers}), not {shown(given)}: {name}{plain}")
        return getattr(cls(**values), side)(reactor, given)

    method.__name__ = name
    method.__qualname__ = f"Reactor.{name}"
    method.__module__ = cls.__module__
    method.__doc__ = inspect.getdoc(cls)
    method.__signature__ = signature  # type: ignore[attr-defined]  # what inspect looks at
    return method


def _signature(cls: type, side: Side, receiver: str) -> inspect.Signature:
    """self, the required fields, the factory, the options; then what is keyword-only in the dataclass."""
    Parameter = inspect.Parameter
    required = [Parameter("self", Parameter.POSITIONAL_ONLY)]
    options: list[inspect.Parameter] = []
    keywords: list[inspect.Parameter] = []
    for field in fieldsOf(cls):
        default: Any = Parameter.empty
        if not field.required:
            default = _Default() if field.anew else field.default()
        kind = Parameter.POSITIONAL_OR_KEYWORD if field.positional else Parameter.KEYWORD_ONLY
        parameters = keywords if not field.positional else required if field.required else options
        parameters.append(Parameter(field.name, kind, default=default, annotation=field.type))
    implementation = inspect.signature(getattr(cls, side))
    annotations = [each.annotation for each in implementation.parameters.values()]
    taker = Parameter(receiver, Parameter.POSITIONAL_OR_KEYWORD, annotation=(*annotations, *[Parameter.empty] * 3)[2])
    return inspect.Signature(
        [*required, taker, *options, *keywords], return_annotation=implementation.return_annotation
    )


def _withoutTypes(signature: inspect.Signature) -> str:
    """`(device, factory, baudrate=9600)`."""
    shownParameters = [each.replace(annotation=each.empty) for each in list(signature.parameters.values())[1:]]
    return str(inspect.Signature(shownParameters))


# Descriptions.


def describe(transport: Transport) -> list[dict[str, Any]]:
    """What a transport offers, as plain data: for each side `use`, `method`, `string`, `class`, `doc`, `fields`.

    A field is told by `name`, `type` (the annotation), `takes` (in words; None: it has no text), `required`,
    `default`, `textual` and `doc`.
    """
    told: list[dict[str, Any]] = []
    for use in ("listen", "connect", "layer"):
        cls = getattr(transport, use)
        if cls is None:
            continue
        layer = issubclass(cls, LayerEndpoint)
        string = (
            usage(cls, f"{transport.spelling}+tcp:…", f"{transport.scheme}.")
            if layer
            else usage(cls, transport.spelling)
        )
        told.append(
            {
                "use": use,
                "method": None if layer else _methodText(transport, typing.cast("Side", use)),
                "string": string.removesuffix(":") if layer else string,
                "class": f"{cls.__module__}.{cls.__qualname__}",
                "datagrams": carriesDatagrams(cls),
                "doc": inspect.getdoc(cls) or "",
                "fields": [_described(field) for field in fieldsOf(cls)],
            }
        )
    return told


def _methodText(transport: Transport, side: Side) -> str:
    return f"{side}{transport.name}{_withoutTypes(inspect.signature(makeMethod(transport, side)))}"


def _described(field: Field) -> dict[str, Any]:
    default: Any = None
    if not field.required:
        default = field.default()
        if not isinstance(default, bool | int | float | str | None):
            written = field.codec.format(default)
            default = written[0] if written else f"<{type(default).__name__}>"
    return {
        "name": field.name,
        "type": field.type,
        "takes": field.codec.takes or None,
        "required": field.required,
        "default": default,
        "textual": bool(field.codec.takes),
        "doc": field.doc,
    }
