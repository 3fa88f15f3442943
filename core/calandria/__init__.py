"""calandria: a small, fast reactor whose backends and transports are plugins.

    from calandria import Factory, Protocol, Reactor

Everything but the first few names is made on first use, so that importing costs little and does nothing.
"""

from __future__ import annotations

from calandria._default import setDefault
from calandria._reactor import Reactor
from calandria.protocol import ClientFactory, Factory, Protocol, ServerFactory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from calandria.defer import Deferred as Deferred
    from calandria.failure import Failure as Failure
    from calandria.protocol import ConnectedDatagramProtocol as ConnectedDatagramProtocol
    from calandria.protocol import DatagramProtocol as DatagramProtocol
    from calandria.protocol import ReconnectingClientFactory as ReconnectingClientFactory
    from calandria_tcp import ConnectTCP as ConnectTCP
    from calandria_tcp import ListenTCP as ListenTCP

    reactor: Reactor
    """This thread's default reactor: the one that runs in it, else the one given to `setDefault`, else one made now."""

__version__ = "0.1.0"

# Where each name that is made on first use comes from.
_LATER = {
    "Deferred": "calandria.defer",
    "Failure": "calandria.failure",
    "ConnectedDatagramProtocol": "calandria.protocol",
    "DatagramProtocol": "calandria.protocol",
    "ReconnectingClientFactory": "calandria.protocol",
}
# The endpoints of the first-party transports, by scheme and side.
_ENDPOINTS = {"ListenTCP": ("tcp", "listen"), "ConnectTCP": ("tcp", "connect")}

__all__ = [
    "ClientFactory",
    "ConnectTCP",
    "ConnectedDatagramProtocol",
    "DatagramProtocol",
    "Deferred",
    "Factory",
    "Failure",
    "ListenTCP",
    "Protocol",
    "Reactor",
    "ReconnectingClientFactory",
    "ServerFactory",
    "reactor",
    "setDefault",
]


def __getattr__(name: str) -> object:
    if name == "reactor":
        # Looked up at each use: which reactor it is depends on the thread, and changes with time.
        from calandria._default import current

        return current()
    if name in _ENDPOINTS:
        from calandria import _registry

        scheme, side = _ENDPOINTS[name]
        value: object = getattr(_registry.transport(scheme), side)
    elif name in _LATER:
        from importlib import import_module

        value = getattr(import_module(_LATER[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
