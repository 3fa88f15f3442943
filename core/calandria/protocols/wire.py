"""The small services of the early internet: echo, discard, chargen, quote of the day, daytime and time.

They are the shortest useful programs for a stream, so they serve to try out a transport, a backend or a network with,
and `calandria run NAME` serves each of them. They ask of a transport nothing but what every stream has. The three
that tell the time ask the wall clock, which is what their documents mean, or whatever clock they are given.
"""

from __future__ import annotations

import time

from calandria.protocol import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ClassVar

# From 1900-01-01, where RFC 868 begins to count, to 1970-01-01, where the clock of this machine does.
SECONDS_FROM_1900_TO_1970 = 2_208_988_800


class Echo(Protocol):
    """RFC 862: sends back what it receives.

    A client that sends and never reads is not read from either, once 64 KiB wait for it: the transport is its own
    producer, so what a connection can make us hold is bounded. (A subclass that wants to close therefore calls
    `transport.stopConsuming()`; `loseConnection` alone would wait for the producer to end.)
    """

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Discard(Protocol):
    """RFC 863: reads and throws away."""

    def dataReceived(self, data: bytes) -> None:
        pass


def _chargenCycle() -> bytes:
    """The whole of RFC 864's recommended pattern: 95 lines of 72 printing characters, each begun one further along."""
    ring = bytes(range(0x20, 0x7F))
    return b"".join((ring + ring)[start : start + 72] + b"\r\n" for start in range(len(ring)))


class Chargen(Protocol):
    """RFC 864: sends the printing characters in lines of 72, for ever, and throws away what it receives.

    A push producer: it writes until it is told to pause, and goes on when the client has read, so that it holds as
    much for a client that does not read as the transport lets it, and no more.
    """

    # One write is one whole cycle of the pattern, 7030 bytes: nothing need be remembered of where the last one ended.
    cycle: ClassVar[bytes] = _chargenCycle()

    _paused = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        pass

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused:  # the transport pauses us from inside the write that is too much
            waiting = self.transport.bufferedBytes
            self.transport.write(self.cycle)
            if self.transport.bufferedBytes <= waiting:
                break  # it takes no more: the connection is about to end

    def stopProducing(self) -> None:
        pass


class _Told(Protocol):
    """Sends one message as soon as somebody connects, then closes; what it receives is thrown away.

    `clock` tells the seconds since 1970 (`time.time`).
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock

    def connectionMade(self) -> None:
        self.transport.write(self.message())
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        pass

    def message(self) -> bytes:
        """What is sent."""
        raise NotImplementedError


class QOTD(_Told):
    """RFC 865: sends the quote of the day, another one each day (of UTC), and closes.

    A subclass brings `quotes` of its own: printing ASCII, fewer than 512 bytes each.
    """

    quotes: ClassVar[Sequence[bytes]] = (
        b"Make haste slowly.\r\n",
        b"Well begun is half done.\r\n",
        b"Measure twice, cut once.\r\n",
        b"Still waters run deep.\r\n",
        b"Many hands make light work.\r\n",
        b"A chain is as strong as its weakest link.\r\n",
        b"The proof of the pudding is in the eating.\r\n",
    )

    def message(self) -> bytes:
        return self.quotes[int(self.clock() // 86_400) % len(self.quotes)]


class Daytime(_Told):
    """RFC 867: sends date and time as a line for people to read, in UTC: `Mon Jan 31 17:37:43 2000 UTC`."""

    def message(self) -> bytes:
        # asctime, because strftime would speak the language of the locale and the document wants ASCII.
        return f"{time.asctime(time.gmtime(self.clock()))} UTC\r\n".encode("ascii")


class Time(_Told):
    """RFC 868: sends the seconds since 1900-01-01 00:00 UTC as 32 bits, the most significant byte first, and closes.

    The field begins anew on 2036-02-07; a client tells the eras apart by its own calendar.
    """

    def message(self) -> bytes:
        return ((int(self.clock()) + SECONDS_FROM_1900_TO_1970) % 2**32).to_bytes(4, "big")
