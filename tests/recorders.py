"""Protocols and factories that remember what they were told, for tests to assert on.

Events are short words in the order in which they came, so that a test states a whole life in one comparison:
`assert protocol.events == ["made", "data", "lost"]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calandria.protocol import ClientFactory, Protocol, ServerFactory

if TYPE_CHECKING:
    from collections.abc import Callable

    from calandria.failure import Failure


class Recorder(Protocol):
    """Keeps what it was told: `received`, `events` in order, and the reason it was `lost` for (None while it lives)."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = bytearray()
        self.lost: Failure | None = None

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append("data")
        self.received += data

    def connectionLost(self, reason: Failure) -> None:
        self.events.append("lost")
        self.lost = reason


class HalfCloseRecorder(Recorder):
    """A Recorder that takes part in half-close."""

    def readConnectionLost(self) -> None:
        self.events.append("readLost")

    def writeConnectionLost(self) -> None:
        self.events.append("writeLost")


class Echo(Recorder):
    """A Recorder that sends back what it gets."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)


class RecordingServer(ServerFactory):
    """Builds `protocolClass` for each connection and keeps every one in `protocols`."""

    def __init__(self, protocolClass: Callable[[], Protocol] = Recorder) -> None:
        self.protocolClass = protocolClass
        self.protocols: list[Any] = []
        self.events: list[str] = []

    def buildProtocol(self, addr: Any) -> Protocol | None:
        protocol = self.protocolClass()
        protocol.factory = self
        self.protocols.append(protocol)
        return protocol

    def startFactory(self) -> None:
        self.events.append("start")

    def stopFactory(self) -> None:
        self.events.append("stop")


class RecordingClient(ClientFactory):
    """The same for connectTCP and its kin: `failed` and `lost` hold the reasons why attempts and connections ended."""

    def __init__(self, protocolClass: Callable[[], Protocol] = Recorder) -> None:
        self.protocolClass = protocolClass
        self.protocols: list[Any] = []
        self.events: list[str] = []
        self.failed: list[Failure] = []
        self.lost: list[Failure] = []

    def buildProtocol(self, addr: Any) -> Protocol | None:
        protocol = self.protocolClass()
        protocol.factory = self
        self.protocols.append(protocol)
        return protocol

    def startFactory(self) -> None:
        self.events.append("start")

    def stopFactory(self) -> None:
        self.events.append("stop")

    def startedConnecting(self, connector: Any) -> None:
        self.events.append("connecting")

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.events.append("failed")
        self.failed.append(reason)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.events.append("lost")
        self.lost.append(reason)
