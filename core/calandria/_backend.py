"""What a reactor asks of a backend, and the real world as the default.

A backend knows numbers and two bits: which descriptors are ready, for reading or for writing. Protocols, buffers and
timers are not its business, so that one is written in a hundred lines and all of them behave alike. The world (clock,
sockets, names, threads, files) goes through it too: whoever replaces the backend can replace everything.
"""

from __future__ import annotations

import os
import socket as sockets
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ClassVar

API = 1
"""The version of the plugin interface that this calandria speaks. A plugin that asks for a newer one is refused."""

READABLE = 1
WRITABLE = 4
"""The two bits. They are the kernel's own (POLLIN and POLLOUT, EPOLLIN and EPOLLOUT), so that nothing is translated."""


class Backend:
    """Where a reactor gets readiness from, and the world around it. It belongs to one reactor, and to its thread.

    An author writes `unavailable`, `watch`, `poll`, `close`, and `fileno` if there is a descriptor. The contract:

    Readiness is a hint, the system call is the truth. An event makes the reactor try what it wants to do with that
    descriptor, and what the `recv`, `send` or `accept` answers is what counts. Therefore

    - spurious events are allowed: `poll` may name a descriptor that is not ready, and may return early with nothing;
    - READABLE and WRITABLE are the only bits with a meaning. Any other bit (error, hang-up, invalid) means "try what
      was asked for"; a backend may also leave those out and set what was asked for instead;
    - end of stream, a reset, a failed connect and a descriptor closed behind our back are not told apart: they make
      the descriptor ready, as far as the kernel notices them;
    - one descriptor may appear several times in a list, with different bits.

    What is not allowed is to lose one. Readiness is level-triggered: a descriptor that is ready for what was asked is
    reported by every `poll` until it is ready no more or watched no more. A `poll` gives at most 256 events, so that
    the reactor gets to its other work; if more are ready, those left out come first the next time, and none starves.
    An exception out of `poll`, such as a signal handler's, leaves everything watched as it was.

    Nothing here may be called from another thread, and nothing that the reactor has checked is checked again.
    """

    name: ClassVar[str]
    """How the backend is chosen: "epoll"."""

    # A number, not API: a plugin that does not say was written for the first version, whatever ours is by then.
    api: ClassVar[int] = 1
    """The version of the plugin interface that the backend was written for."""

    @classmethod
    def unavailable(cls) -> str | None:
        """A sentence that says why the backend cannot work here, or None if it can. Never raises."""
        return None

    def __init__(self, **options: object) -> None:
        """Take the options of the backend. One that has some names them as keywords, and passes the others on to here.

        Raises TypeError for an option that nobody took.
        """
        if options:
            given = ", ".join(f"{key}={value!r}" for key, value in options.items())
            taken = ", ".join(_optionsOf(type(self))) or "none"
            raise TypeError(f"the backend {self.name!r} was given {given}; the options that it takes: {taken}")

    def watch(self, fd: int, interest: int) -> None:
        """From now on, report `fd` when it is ready for `interest`: READABLE, WRITABLE, both, or 0 to forget it.

        Raises error.UnsupportedDescriptor at once, with the reason, if the kernel refuses: the descriptor is closed, of
        a kind that cannot be waited for, or too high a number. One that was refused is not watched any more.

        Forgetting never raises, not for a descriptor that is closed, nor for one that was never watched. A number that
        was closed behind our back, and is another file's by now, is watched anew like any other. (Forget a descriptor
        before it is closed: if a duplicate lives on, in a child process for instance, epoll goes on reporting it.)
        """
        raise NotImplementedError(f"{type(self).__name__}.watch")

    def poll(self, timeout: float | None) -> Sequence[tuple[int, int]]:
        """Sleep until something is ready or `timeout` seconds have passed. Returns what is ready: (descriptor, bits).

        None: until something is ready. Otherwise 0 <= timeout <= 86,400: the reactor clamps, the backend rounds up to
        its unit, because waking before a timer is due would mean to ask again and again until it is. An interrupted
        system call is continued. With nothing to watch it sleeps all the same.
        """
        raise NotImplementedError(f"{type(self).__name__}.poll")

    def fileno(self) -> int:
        """A descriptor that is readable when `poll` would return something, for a foreign loop; -1 if there is none."""
        return -1

    def close(self) -> None:
        """Give back what the kernel lent. Does nothing the second time; after it, only forgetting is allowed."""

    # The world. A reactor binds each of these once; so the real ones are the functions themselves, without a frame of
    # ours around them, and the type checkers are shown what a replacement has to look like.
    if TYPE_CHECKING:

        def seconds(self) -> float:
            """The time in seconds, of a clock that never goes back."""
            raise NotImplementedError

        def socket(
            self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
        ) -> sockets.socket:
            """A new socket, like `socket.socket`."""
            raise NotImplementedError

        def getaddrinfo(
            self,
            host: bytes | str | None,
            port: bytes | str | int | None,
            family: int = 0,
            type: int = 0,
            proto: int = 0,
            flags: int = 0,
        ) -> list[Any]:
            """Resolve a name, like `socket.getaddrinfo`. It blocks, and is called in a worker thread."""
            raise NotImplementedError

        def socketpair(self) -> tuple[sockets.socket, sockets.socket] | None:
            """Two connected sockets to wake the reactor with. None: no waker is needed, there are no other threads."""
            raise NotImplementedError

        def unlink(self, path: str | bytes) -> None:
            """Remove the file of a UNIX socket."""

        def stat(self, path: str | bytes) -> os.stat_result:
            """The state of a file."""
            raise NotImplementedError

        def chmod(self, path: str | bytes, mode: int) -> None:
            """Change the permissions of a file."""

    else:
        seconds = staticmethod(time.monotonic)
        socket = staticmethod(sockets.socket)
        socketpair = staticmethod(sockets.socketpair)
        getaddrinfo = staticmethod(sockets.getaddrinfo)
        unlink = staticmethod(os.unlink)
        stat = staticmethod(os.stat)
        chmod = staticmethod(os.chmod)

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        import random  # here, for it costs more to import than all the rest and few programs need it

        return random.random()

    def callInThread(self, function: Callable[[], object]) -> None:
        """Run `function` in a thread of its own, which does not keep the process alive."""
        import threading

        threading.Thread(target=function, daemon=True).start()


def _optionsOf(backend: type[Backend]) -> list[str]:
    """The names of the options that a backend and its bases take, without Backend's own catch-all."""
    import inspect  # only to explain a mistake: too heavy for anything else

    names: dict[str, None] = {}
    for each in backend.__mro__:
        initialise = each.__dict__.get("__init__")
        if initialise is not None and each is not object:
            for parameter in list(inspect.signature(initialise).parameters.values())[1:]:
                if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                    names[parameter.name] = None
    return list(names)
