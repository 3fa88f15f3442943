"""Layers: something between the bytes of one stream and the bytes of another, such as TLS, or the framing of a
websocket.

Seen from below a layer is the protocol of a stream, whatever that runs over; seen from above it is a channel, so that
the protocol of the upper stream has the same life as on a socket. Back-pressure, closing and errors go through in both
directions.
"""

from __future__ import annotations

from calandria import defer, error, failure
from calandria._connector import Connector
from calandria._port import accept
from calandria._stream import Stream
from calandria.protocol import ClientFactory, Factory, Protocol, connectionDone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from calandria import interfaces
    from calandria._channel import Buffer
    from calandria._endpoint import ClientEndpoint, LayerEndpoint, ServerEndpoint
    from calandria._port import Port
    from calandria._reactor import Reactor


class Layer(Protocol):
    """One layer of one connection; owned by the lower stream and the upper one, used on the reactor's thread.

    As it stands it passes bytes on unchanged. Subclasses override `dataReceived` (give what comes of it to
    `self.upper.received`) and `encode`. One that has to talk to its counterpart before there is anything to be seen
    above (a PROXY header) overrides `connectionMade` too and calls `establish` when it is time.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.upper: Stream | None = None
        # What whoever made the layer does with the upper stream.
        self.established: Callable[[Stream], None] | None = None
        self._full = False
        self._ended = False

    def encode(self, data: Buffer) -> bytes:
        """What is to be sent below for `data` from above."""
        return bytes(data)

    def establish(self, *, host: Any = None, peer: Any = None) -> None:
        """Make the upper stream, and have its protocol made; its addresses are the lower one's unless given."""
        made, self.established = self.established, None
        if made is None or self._ended:
            return
        lower: Any = self.transport
        self.upper = Stream(self.reactor, self, host=host or lower.getHost(), peer=peer or lower.getPeer())
        lower.registerProducer(self, True)
        made(self.upper)

    # As the protocol of the lower stream.

    def connectionMade(self) -> None:
        """The lower stream is there."""
        self.establish()

    def dataReceived(self, data: bytes) -> None:
        """Bytes from below."""
        if self.upper is not None:
            self.upper.received(data)

    def readConnectionLost(self) -> None:
        """The peer has ended its direction below, and so above."""
        if self.upper is not None:
            self.upper.ended()
        else:
            self.transport.loseConnection()

    def connectionLost(self, reason: failure.Failure = connectionDone) -> None:
        """There is nothing below any more."""
        self._ended = True
        self._full = False
        self.established = None
        upper = self.upper
        if upper is not None:
            upper.ended(None if isinstance(reason.value, error.ConnectionDone) else reason.value)
            upper.drained()

    def logPrefix(self) -> str:
        """What log records call the connection: its upper protocol's own prefix."""
        name = type(self).__name__
        return f"{self.upper.logPrefix()} over {name}" if self.upper is not None and self.upper.protocol else name

    # As the producer of the lower stream.

    def pauseProducing(self) -> None:
        """Enough waits below."""
        self._full = True

    def resumeProducing(self) -> None:
        """Below there is room again."""
        self._full = False
        if self.upper is not None:
            self.upper.drained()

    def stopProducing(self) -> None:
        """Below it is over; connectionLost comes next."""

    # As the channel of the upper stream.

    def fileno(self) -> int:
        """No descriptor: the lower stream is what is watched."""
        return -1

    def recv(self, limit: int) -> bytes:
        """Nothing to be fetched: `received` brings it."""
        raise BlockingIOError

    def send(self, data: Buffer) -> int:
        """Take all of `data`, or nothing while enough waits below."""
        if self._ended:
            raise BrokenPipeError("the connection below has ended")
        if self._full:
            raise BlockingIOError
        self.transport.write(self.encode(data))
        return len(data)

    def pause(self) -> None:
        """Above nothing is wanted now."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Above more is wanted."""
        self.transport.resumeProducing()

    def abort(self) -> None:
        """The upper connection is reset, and so is the lower one."""
        self.transport.abortConnection()

    def close(self) -> None:
        """The upper connection has ended: send what is on its way, and end the lower one."""
        upper, self.upper = self.upper, None
        if not self._ended:
            if upper is not None:
                self.transport.closeTimeout = upper.closeTimeout
            self.transport.unregisterProducer()
            self.transport.loseConnection()


class _Layering(Factory):
    """The factory of the lower connections of a server; owned by the port below."""

    noisy = False

    def __init__(self, reactor: Reactor, layer: LayerEndpoint, below: ServerEndpoint, factory: Factory) -> None:
        self._reactor = reactor
        self._layer = layer
        self._below = below
        self._factory = factory
        self.closeTimeout = factory.closeTimeout

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: Any) -> Layer:
        layer: Layer = self._layer.layer(self._reactor, client=False, below=self._below)
        layer.established = self._accept
        return layer

    def _accept(self, upper: Stream) -> None:
        accept(self._reactor, self._factory, upper)


class _Opening(ClientFactory):
    """The factory of the lower connection of a client; owned by the connector below until it is established."""

    noisy = False

    def __init__(self, reactor: Reactor, layer: LayerEndpoint, below: ClientEndpoint) -> None:
        self._reactor = reactor
        self._layer = layer
        self._below = below
        self._connector: interfaces.Connector | None = None
        self.opened: defer.Deferred[Stream] | None = defer.Deferred(self._cancel)

    def buildProtocol(self, addr: Any) -> Layer:
        layer: Layer = self._layer.layer(self._reactor, client=True, below=self._below)
        layer.established = self._opened
        return layer

    def startedConnecting(self, connector: Any) -> None:
        self._connector = connector

    def clientConnectionFailed(self, connector: Any, reason: failure.Failure) -> None:
        self._failed(reason)

    def clientConnectionLost(self, connector: Any, reason: failure.Failure) -> None:
        self._failed(reason)

    def _opened(self, upper: Stream) -> None:
        opened, self.opened = self.opened, None
        if opened is not None:
            opened.callback(upper)
        else:
            upper.discard()

    def _failed(self, reason: failure.Failure) -> None:
        self._connector = None
        opened, self.opened = self.opened, None
        if opened is not None:
            opened.errback(reason)

    def _cancel(self, opened: defer.Deferred[Stream]) -> None:
        self.opened = None
        connector, self._connector = self._connector, None
        if connector is not None:
            connector.disconnect()


def listenOver(reactor: Reactor, layer: LayerEndpoint, below: ServerEndpoint, factory: Factory) -> Port:
    """Listen at `below`, with `layer` around each connection."""
    return below.listen(reactor, _Layering(reactor, layer, below, factory))


def connectOver(
    reactor: Reactor, layer: LayerEndpoint, below: ClientEndpoint, factory: ClientFactory, destination: object
) -> Connector:
    """Connect to `below`, with `layer` around the connection; the timeout of `below` is that of the whole."""

    def open() -> defer.Deferred[Stream]:
        opening = _Opening(reactor, layer, below)
        opened = opening.opened
        assert opened is not None
        below.connect(reactor, opening)
        return opened

    return Connector(reactor, factory, open, destination=destination, timeout=getattr(below, "timeout", 30.0))
