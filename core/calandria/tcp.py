"""Twisted's names of `internet.tcp` that have no other room; the TCP transport is asked for them on first use.

`Port` and `Connector` are what listenTCP and connectTCP give, `Server` and `Client` the transports of their
connections; `makeBinding` gives the endpoint that says how a port is bound.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from calandria._connector import BaseConnector as BaseConnector
    from calandria._connector import Connector as Connector
    from calandria_tcp import ListenTCP as Binding
    from calandria_tcp import TCPPort as Port
    from calandria_tcp import TCPStream as Client
    from calandria_tcp import TCPStream as Server

__all__ = ["BaseConnector", "Binding", "Client", "Connector", "Port", "Server", "makeBinding"]

_NAMES = {"Binding": "ListenTCP", "Port": "TCPPort", "Client": "TCPStream", "Server": "TCPStream"}


def makeBinding(interface: str = "", port: int = 0, reuseAddress: bool = False, reusePort: bool = False) -> Binding:
    """How a TCP port is bound: for `reactor.listen(binding, factory)`."""
    from calandria import _registry

    endpoint: Any = _registry.transport("tcp").listen
    binding: Binding = endpoint(port, interface=interface, reuseAddress=reuseAddress, reusePort=reusePort)
    return binding


def __getattr__(name: str) -> object:
    if name in ("BaseConnector", "Connector"):
        from calandria._connector import Connector

        return Connector
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import sys

    from calandria import _registry

    module = sys.modules[str(getattr(_registry.transport("tcp").listen, "__module__", ""))]
    value = getattr(module, _NAMES[name])
    globals()[name] = value
    return value
