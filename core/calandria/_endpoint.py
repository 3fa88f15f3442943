"""What a transport declares: one dataclass per side, and one Transport that puts them together under a name.

From the declaration, and from nothing else, come the reactor's methods, the typed form and the strings (_spellings.py).
Whatever is wrong with it is said where it is made, all at once: only its author can do something about it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from calandria._text import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import ClassVar

    from calandria._connector import Connector
    from calandria._datagram import DatagramPort
    from calandria._layer import Layer
    from calandria._port import Port
    from calandria._reactor import Reactor
    from calandria.protocol import ClientFactory, ConnectedDatagramProtocol, DatagramProtocol, Factory


class _Declared:
    """A value that says where, and how, to listen or connect; its text is the string that stands for it."""

    __slots__ = ()

    _transport: ClassVar[Transport | None] = None

    def __str__(self) -> str:
        from calandria import _spellings

        return _spellings.write(self)


class ServerEndpoint(_Declared):
    """Where to listen for streams. A transport's own is a frozen dataclass on this, with `listen`."""

    __slots__ = ()

    def listen(self, reactor: Reactor, factory: Factory) -> Port:
        """Listen now; `factory` makes a protocol for each connection. Raises error.CannotListenError."""
        raise NotImplementedError(f"{type(self).__name__}.listen")

    def over(self, layer: LayerEndpoint) -> LayeredServer:
        """The same with `layer` around each connection: `ListenTCP(443).over(TLS(...))`."""
        return LayeredServer(self, _checkedLayer(layer))


class ClientEndpoint(_Declared):
    """Where to connect a stream to. A transport's own is a frozen dataclass on this, with `connect`."""

    __slots__ = ()

    def connect(self, reactor: Reactor, factory: ClientFactory) -> Connector:
        """Begin to connect; `factory` makes the protocol, and is told of failures."""
        raise NotImplementedError(f"{type(self).__name__}.connect")

    def over(self, layer: LayerEndpoint) -> LayeredClient:
        """The same with `layer` around the connection: `ConnectTCP("example.org", 443).over(TLS())`."""
        return LayeredClient(self, _checkedLayer(layer))


class DatagramServerEndpoint(_Declared):
    """Where to receive datagrams. A transport's own is a frozen dataclass on this, with `listen`."""

    __slots__ = ()

    def listen(self, reactor: Reactor, protocol: DatagramProtocol[Any]) -> DatagramPort:
        """Receive from now on. Raises error.CannotListenError."""
        raise NotImplementedError(f"{type(self).__name__}.listen")


class DatagramClientEndpoint(_Declared):
    """With whom to exchange datagrams. A transport's own is a frozen dataclass on this, with `connect`."""

    __slots__ = ()

    def connect(self, reactor: Reactor, protocol: ConnectedDatagramProtocol[Any]) -> DatagramPort:
        """Send to there, and receive from there, from now on."""
        raise NotImplementedError(f"{type(self).__name__}.connect")


class LayerEndpoint(_Declared):
    """Something between the bytes of a stream and those of another, over any transport.

    A frozen dataclass on this, all of whose fields have defaults, with `layer`; one that needs more than a Layer per
    connection overrides `listenOver` and `connectOver`.
    """

    __slots__ = ()

    def layer(self, reactor: Reactor, *, client: bool, below: ServerEndpoint | ClientEndpoint) -> Layer:
        """A new Layer, for one connection over the endpoint `below`."""
        raise NotImplementedError(f"{type(self).__name__}.layer")

    def listenOver(self, below: ServerEndpoint, reactor: Reactor, factory: Factory) -> Port:
        """Listen at `below`, with this layer around each connection."""
        from calandria import _layer

        return _layer.listenOver(reactor, self, below, factory)

    def connectOver(self, below: ClientEndpoint, reactor: Reactor, factory: ClientFactory) -> Connector:
        """Connect to `below`, with this layer around the connection."""
        from calandria import _layer

        return _layer.connectOver(reactor, self, below, factory, destination=LayeredClient(below, self))


@dataclasses.dataclass(frozen=True)
class LayeredServer(ServerEndpoint):
    """`layer` over each connection that is accepted at `below`."""

    below: ServerEndpoint
    layer: LayerEndpoint

    def listen(self, reactor: Reactor, factory: Factory) -> Port:
        return self.layer.listenOver(self.below, reactor, factory)


@dataclasses.dataclass(frozen=True)
class LayeredClient(ClientEndpoint):
    """`layer` over a connection to `below`."""

    below: ClientEndpoint
    layer: LayerEndpoint

    def connect(self, reactor: Reactor, factory: ClientFactory) -> Connector:
        return self.layer.connectOver(self.below, reactor, factory)


def _checkedLayer(layer: object) -> LayerEndpoint:
    if not isinstance(layer, LayerEndpoint):
        raise TypeError(f"over() takes a layer, such as TLS(), not {layer!r}")
    return layer


class Transport:
    """The declaration of a transport: its name, and the dataclass of each side that it has.

    The scheme of its strings is the name in lower case, which is also the name of its entry point; `aliases` are
    further schemes for the same. `api` is the version of the plugin interface that it was written for. Raises TypeError
    with everything that is wrong.
    """

    __slots__ = ("__weakref__", "aliases", "api", "connect", "layer", "listen", "name", "scheme", "spelling")

    def __init__(
        self,
        name: str,
        *,
        listen: type[ServerEndpoint] | type[DatagramServerEndpoint] | None = None,
        connect: type[ClientEndpoint] | type[DatagramClientEndpoint] | None = None,
        layer: type[LayerEndpoint] | None = None,
        aliases: Collection[str] = (),
        api: int = 1,
    ) -> None:
        problems = list(_problems(name, listen, connect, layer, aliases, api))
        if problems:
            raise TypeError(f"Transport({name!r}): {'; '.join(problems)}")
        self.name = name
        self.scheme = name.lower()
        self.listen = listen
        self.connect = connect
        self.layer = layer
        self.aliases = tuple(aliases)
        self.api = api
        # What strings begin with; "scheme@distribution" if the registry found that others claim the scheme too.
        self.spelling = self.scheme
        for side in (listen, connect, layer):
            if side is not None:
                side._transport = self  # pyright: ignore[reportPrivateUsage]  # it is ours, in a class of a stranger's

    def __repr__(self) -> str:
        sides = [("listen", self.listen), ("connect", self.connect), ("layer", self.layer)]
        given = "".join(f", {side}={cls.__name__}" for side, cls in sides if cls is not None)
        return f"Transport({self.name!r}{given})"


def transportOf(endpoint: type) -> Transport | None:
    """The transport that names an endpoint class itself (a base of it does not count); None if there is none."""
    return vars(endpoint).get("_transport")


# What an author can get wrong.

_STREAMS = {"listen": ServerEndpoint, "connect": ClientEndpoint}
_DATAGRAMS = {"listen": DatagramServerEndpoint, "connect": DatagramClientEndpoint}


def kindsOf(side: str) -> tuple[type, type]:
    """What can be listened at, or connected to."""
    return _STREAMS[side], _DATAGRAMS[side]


def carriesDatagrams(endpoint: type) -> bool:
    """Whether an endpoint class is one for datagrams."""
    return issubclass(endpoint, DatagramServerEndpoint | DatagramClientEndpoint)


def _problems(name: Any, listen: Any, connect: Any, layer: Any, aliases: Any, api: Any) -> Iterator[str]:
    # Of the method listenX; in lower case it is a scheme.
    if not isinstance(name, str) or not re.fullmatch("[A-Z][A-Za-z0-9_]{0,31}", name):
        yield "the name must be a capital and up to 31 letters, digits and underscores after it, such as 'Serial'"
    if isinstance(aliases, str) or not all(
        isinstance(alias, str) and re.fullmatch("[a-z][a-z0-9_-]{0,31}", alias) for alias in aliases
    ):
        yield f"aliases are a tuple of schemes in lower case, not {aliases!r}"
    if type(api) is not int or api < 1:
        yield f"api is the number of a version of the plugin interface, not {api!r}"
    if listen is None and connect is None and layer is None:
        yield "it needs listen=, connect= or layer="
    for side, cls in (("listen", listen), ("connect", connect)):
        if cls is not None:
            yield from _endpointProblems(name, side, cls)
    if layer is not None:
        yield from _layerProblems(name, layer)


def _endpointProblems(name: str, side: str, cls: Any) -> Iterator[str]:
    kinds = kindsOf(side)
    if not isinstance(cls, type) or not issubclass(cls, kinds):
        yield f"{side}= takes a subclass of {listed(kind.__name__ for kind in kinds)}, not {cls!r}"
        return
    base = kinds[carriesDatagrams(cls)]
    receiver = "protocol" if carriesDatagrams(cls) else "factory"
    yield from _classProblems(name, cls, {receiver, "listen", "connect", "over"})
    if getattr(cls, side) is getattr(base, side):
        yield f"{cls.__name__} has no method {side}(self, reactor, {receiver})"
    elif not _accepts(getattr(cls, side), None, None, None):
        yield f"{cls.__name__}.{side} must take (self, reactor, {receiver})"


def _layerProblems(name: str, cls: Any) -> Iterator[str]:
    if not isinstance(cls, type) or not issubclass(cls, LayerEndpoint):
        yield f"layer= takes a subclass of LayerEndpoint, not {cls!r}"
        return
    yield from _classProblems(name, cls, {"layer", "listenOver", "connectOver"})
    if dataclasses.is_dataclass(cls):
        missing = dataclasses.MISSING
        required = [
            field.name
            for field in dataclasses.fields(cls)
            if field.init and field.default is missing and field.default_factory is missing
        ]
        if required:
            yield f"every field of a layer needs a default, and {cls.__name__} has none for {', '.join(required)}"
    own = [getattr(cls, method) is not getattr(LayerEndpoint, method) for method in ("listenOver", "connectOver")]
    if cls.layer is LayerEndpoint.layer:
        if not all(own):
            yield f"{cls.__name__} has no method layer(self, reactor, *, client, below)"
    elif not _accepts(cls.layer, None, None, client=True, below=None):
        yield f"{cls.__name__}.layer must take (self, reactor, *, client, below)"


def _classProblems(name: str, cls: Any, taken: set[str]) -> Iterator[str]:
    """What can be wrong with any dataclass of a declaration; `taken` are names that no field may have."""
    declared: Any = getattr(cls, "__dataclass_fields__", None)
    if declared is None:
        yield f"{cls.__name__} is no dataclass: put @dataclass(frozen=True) before it"
        return
    other = transportOf(cls)
    if other is not None and other.name != name:
        yield f"{cls.__name__} belongs to {other!r} already"
    parameters: Any = cls.__dict__.get("__dataclass_params__")
    if parameters is not None and not parameters.frozen:
        yield f"{cls.__name__} can be changed, and endpoints are values: make it @dataclass(frozen=True)"
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for field in sorted(fields.keys() & taken):
        yield f"a field of {cls.__name__} is called {field!r}, which is something else in an endpoint"
    if parameters is None:
        forgotten = [name for name in inspect.get_annotations(cls) if name not in fields and not name.startswith("_")]
        if forgotten:
            yield f"{cls.__name__} has no @dataclass(frozen=True) of its own, so {', '.join(forgotten)} is no field"
    made = {name for name, field in fields.items() if field.init}
    signature = inspect.signature(cls)
    if set(signature.parameters) != made:
        yield f"{cls.__name__} is made with {signature}, which are not its fields ({', '.join(sorted(made)) or 'none'})"


def _accepts(function: Any, *args: object, **kwargs: object) -> bool:
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # written in C, and keeps its signature to itself
        return callable(function)
    return True
