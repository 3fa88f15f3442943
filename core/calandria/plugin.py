"""Everything that the author of a plugin imports, and all that our own plugins import of us.

Backends need the first three names, and a reactor that is made imports nothing else: whatever costs something (the
declarations of transports, pluggy) is made on first use.
"""

from __future__ import annotations

from calandria._backend import API as API
from calandria._backend import READABLE as READABLE
from calandria._backend import WRITABLE as WRITABLE
from calandria._backend import Backend as Backend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from calandria._channel import Buffer as Buffer
    from calandria._channel import Channel as Channel
    from calandria._channel import FileChannel as FileChannel
    from calandria._connector import Connector as Connector
    from calandria._connector import connectSocket as connectSocket
    from calandria._connector import interleaved as interleaved
    from calandria._datagram import DatagramPort as DatagramPort
    from calandria._endpoint import ClientEndpoint as ClientEndpoint
    from calandria._endpoint import DatagramClientEndpoint as DatagramClientEndpoint
    from calandria._endpoint import DatagramServerEndpoint as DatagramServerEndpoint
    from calandria._endpoint import LayerEndpoint as LayerEndpoint
    from calandria._endpoint import ServerEndpoint as ServerEndpoint
    from calandria._endpoint import Transport as Transport
    from calandria._hooks import Check as Check
    from calandria._hooks import Observer as Observer
    from calandria._hooks import hookimpl as hookimpl
    from calandria._hooks import hookspec as hookspec
    from calandria._layer import Layer as Layer
    from calandria._port import Port as Port
    from calandria._registry import refresh as refresh
    from calandria._registry import register as register
    from calandria._registry import unregister as unregister
    from calandria._resolver import resolve as resolve
    from calandria._stream import Stream as Stream
    from calandria._text import OctalMode as OctalMode
    from calandria._text import Text as Text

# Where each name that is made on first use comes from.
_LATER = {
    "_channel": ("Buffer", "Channel", "FileChannel"),
    "_connector": ("Connector", "connectSocket", "interleaved"),
    "_datagram": ("DatagramPort",),
    "_endpoint": (
        "ClientEndpoint",
        "DatagramClientEndpoint",
        "DatagramServerEndpoint",
        "LayerEndpoint",
        "ServerEndpoint",
        "Transport",
    ),
    "_hooks": ("Check", "Observer", "hookimpl", "hookspec"),
    "_layer": ("Layer",),
    "_port": ("Port",),
    "_registry": ("refresh", "register", "unregister"),
    "_resolver": ("resolve",),
    "_stream": ("Stream",),
    "_text": ("OctalMode", "Text"),
}


def __getattr__(name: str) -> object:
    for module, names in _LATER.items():
        if name in names:
            from importlib import import_module

            value: object = getattr(import_module(f"calandria.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for names in _LATER.values() for name in names)})
