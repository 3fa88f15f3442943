"""A stream: the whole life of one connection, over anything that moves bytes.

Below is a `Channel`, which knows bytes and nothing else; above, a Protocol. Here are the buffer, producers, pausing,
half-close, deadlines and the reason of the end, once for every transport. The life is the table `NEXT`: what happens in
which state leads where. Reading the channel and having read bytes are kept apart, and so are sending and having sent,
so that channels without a descriptor use the same life. A user is never called from inside its own call: `write` and
`loseConnection` record, the loop acts. One idea, and longer for it: a life in pieces would be harder to follow.
"""

from __future__ import annotations

import os
import socket
from errno import EBADF

from calandria import error, failure
from calandria._linger import finish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from calandria import interfaces
    from calandria._channel import Buffer, Channel
    from calandria._connector import Connector
    from calandria._debug import Creation
    from calandria._reactor import Reactor
    from calandria._timers import DelayedCall
    from calandria.protocol import Factory, Protocol

# What one read asks for, and what dataReceived gets at the most (bytes).
READ_SIZE = 65536
# Reads of one stream per event; more are taken only while the last one was full, and others get their turn then.
READS = 4
# Bytes gathered for one send, where there are many small ones; what the kernel's buffer takes at once anyway.
SEND_SIZE = 262144
# Pieces longer than this (bytes, on average) are not copied together for one send; and no more of them at once.
LONG_PIECE = 8192
PIECES = 64
# A push producer is paused above the first mark and resumed at the second (bytes).
HIGH_WATER = 65536
LOW_WATER = 32768

# The states, in an order that lets `write` ask one question: up to CLOSING it takes bytes.
OPEN = 0  # both directions
READ_ENDED = 1  # the peer has ended its direction, and the protocol knows about half-closing
WRITE_CLOSING = 2  # loseWriteConnection: what was written is sent, then this direction ends
BOTH_CLOSING = 3  # the same after the peer has ended its direction
CLOSING = 4  # loseConnection: what was written is sent, then everything ends
WRITE_ENDED = 5  # our direction has ended, the peer's goes on
WRITE_FAILED = 6  # a send failed: our direction has ended, and the error waits for the end of the peer's
DRAINING = 7  # the peer has ended, and the protocol does not know about half-closing: what was written is sent
ABORTING = 8  # abortConnection: the next turn ends it
LOST = 9  # connectionLost was, or is being, called

NAMES = (
    "open",
    "read-ended",
    "write-closing",
    "both-closing",
    "closing",
    "write-ended",
    "write-failed",
    "draining",
    "aborting",
    "lost",
)

# What happens, and where it leads from each state; a state that is not named stays as it is.
NEXT: dict[str, dict[int, int]] = {
    # The peer has ended its direction, and the protocol has readConnectionLost (or has not).
    "halfEnd": {OPEN: READ_ENDED, WRITE_CLOSING: BOTH_CLOSING, WRITE_ENDED: LOST, WRITE_FAILED: LOST},
    "end": {OPEN: DRAINING, WRITE_CLOSING: DRAINING, WRITE_ENDED: LOST, WRITE_FAILED: LOST},
    # The user's calls.
    "loseWrite": {OPEN: WRITE_CLOSING, READ_ENDED: BOTH_CLOSING},
    "lose": {
        OPEN: CLOSING,
        READ_ENDED: CLOSING,
        WRITE_CLOSING: CLOSING,
        BOTH_CLOSING: CLOSING,
        WRITE_ENDED: CLOSING,
        WRITE_FAILED: CLOSING,
    },
    "abort": dict.fromkeys(range(ABORTING), ABORTING),
    # All that was written has been sent, and no producer is left.
    "sent": {WRITE_CLOSING: WRITE_ENDED, BOTH_CLOSING: LOST, CLOSING: LOST, DRAINING: LOST},
    # A send failed.
    "sendFailed": {
        OPEN: WRITE_FAILED,
        WRITE_CLOSING: WRITE_FAILED,
        READ_ENDED: LOST,
        BOTH_CLOSING: LOST,
        CLOSING: LOST,
        DRAINING: LOST,
    },
}

# The states in which the peer's bytes are still wanted.
READING = frozenset({OPEN, WRITE_CLOSING, WRITE_ENDED, WRITE_FAILED})


class Stream:
    """One connection, as its protocol sees it: the transport. Owned by its reactor, used on its thread.

    `channel` moves the bytes; `host` and `peer` are what `getHost` and `getPeer` answer, in this life and after it. The
    stream begins to live with `start`, which ports and connectors call.
    """

    __slots__ = (
        "__weakref__",
        "_blocked",
        "_chunk",
        "_closeTimer",
        "_connector",
        "_end",
        "_error",
        "_host",
        "_limit",
        "_mark",
        "_peer",
        "_polling",
        "_producerPaused",
        "_queued",
        "_recv",
        "_rest",
        "_send",
        "_streaming",
        "_used",
        "bufferedBytes",
        "channel",
        "closeTimeout",
        "creator",
        "fd",
        "held",
        "producer",
        "protocol",
        "reactor",
        "reading",
        "state",
    )

    def __init__(self, reactor: Reactor, channel: Channel, *, host: Any, peer: Any) -> None:
        self.reactor = reactor
        self.channel = channel
        self.fd = channel.fileno()
        self._recv = channel.recv
        self._send = channel.send
        self._host = host
        self._peer = peer
        self.protocol: Protocol[Any, Any] | None = None
        self.state = OPEN
        # Whether bytes are wanted now: not paused, not ended.
        self.reading = False
        self.bufferedBytes = 0
        """How many bytes `write` took that the channel has not taken yet."""
        # What was written and not yet sent: the chunk that is next, and those after it, if there are any, of which the
        # first few may be used up.
        self._chunk: Buffer = b""
        self._rest: list[Buffer] | None = None
        self._used = 0
        # Whether the loop will come by itself: we are in `reactor.unsent`, or wait for the channel to take more.
        self._queued = False
        # Whether a channel without a descriptor has refused bytes, and owes us a call of `drained`.
        self._blocked = False
        self.closeTimeout: float | None = 60.0
        """How long (seconds) a closing connection may go without progress; None: for ever."""
        self._limit: int | None = None
        # When more waits, somebody has to do something about it.
        self._mark = HIGH_WATER
        self.producer: Any = None
        self._streaming = False
        self._producerPaused = False
        self._error: BaseException | None = None
        self._connector: Connector | None = None
        self._closeTimer: DelayedCall | None = None
        # For channels without a descriptor: what came while paused, and whether and how they ended.
        self.held: list[bytes] | None = None
        self._end: tuple[BaseException | None] | None = None
        # A regular file: always ready, so no backend can wait for it, and a delayed call reads it.
        self._polling: DelayedCall | None = None
        self.creator: Creation | None = None

    # Its beginning.

    def start(
        self, protocol: Protocol[Any, Any], *, factory: Factory | None = None, connector: Connector | None = None
    ) -> None:
        """Begin to read, and tell `protocol` that the connection is made; for whoever made the stream.

        The limits are the factory's; `connector` is told of the loss after the protocol. Raises
        error.UnsupportedDescriptor (and closes the channel) if the backend cannot watch the descriptor.
        """
        reactor = self.reactor
        if factory is not None:
            self.closeTimeout = getattr(factory, "closeTimeout", self.closeTimeout)
            limit = getattr(factory, "maxBufferedBytes", None)
            if limit is not None:
                self.maxBufferedBytes = limit
        if self.fd >= 0:
            if getattr(self.channel, "alwaysReady", False):
                self._polling = reactor.callLater(0, self._poll)
            else:
                try:
                    reactor.descriptors.enter(self.fd, self)
                except error.UnsupportedDescriptor:
                    self.state = LOST
                    self.channel.close()
                    raise
        self.reading = True
        self.protocol = protocol
        self._connector = connector
        reactor.owned[self] = None
        if reactor.debug:
            from calandria._debug import watched

            watched(self)
        try:
            protocol.makeConnection(self)
        except Exception as exc:
            reason = failure.Failure(exc)
            failure.log(f"connectionMade of {type(protocol).__name__} raised", reason)
            self.connectionLost(reason)
            return
        except BaseException as exc:
            reactor.loop.callbackRaised(f"connectionMade of {type(protocol).__name__}", exc)
        observers = reactor.observers
        if observers is not None and observers.connectionMade is not None:
            observers.connectionMade(self)

    def discard(self) -> None:
        """Close a stream that was never started: nobody wants it."""
        self.state = LOST
        self.channel.close()

    @property
    def maxBufferedBytes(self) -> int | None:
        """A connection for which more bytes wait is aborted (error.BufferOverflow); None: no limit."""
        return self._limit

    @maxBufferedBytes.setter
    def maxBufferedBytes(self, limit: int | None) -> None:
        self._limit = limit
        self._mark = HIGH_WATER if limit is None else min(limit, HIGH_WATER)

    @property
    def connected(self) -> bool:
        """Whether the connection has not been lost."""
        return self.state != LOST

    @property
    def disconnected(self) -> bool:
        """Whether the connection has been lost."""
        return self.state == LOST

    @property
    def disconnecting(self) -> bool:
        """Whether the end was asked for, by us or by the peer, and has not come yet."""
        return self.state in (CLOSING, DRAINING, ABORTING)

    @property
    def canHalfClose(self) -> bool:
        """Whether one direction can be ended without the other: what loseWriteConnection needs."""
        return hasattr(self.channel, "shutdown")

    def getHost(self) -> Any:
        """Our own address; after the loss the last one known."""
        return self._host

    def getPeer(self) -> Any:
        """The peer's address; after the loss the last one known."""
        return self._peer

    def fileno(self) -> int:
        """The descriptor; -1 if there is none, or none any more."""
        return self.channel.fileno() if self.state != LOST else -1

    def logPrefix(self) -> str:
        """What log records call this connection: its protocol's own prefix."""
        protocol = self.protocol
        if protocol is None:
            return type(self).__name__
        return protocol.logPrefix() if hasattr(protocol, "logPrefix") else type(protocol).__name__

    def __repr__(self) -> str:
        protocol = f" of {type(self.protocol).__name__}" if self.protocol is not None else ""
        return f"<{type(self).__name__}{protocol} {NAMES[self.state]}, {self._host!r} to {self._peer!r}>"

    # Reading.

    def doRead(self) -> object:
        """The channel may have bytes: read them and hand them on. The loop calls this."""
        try:
            data = self._recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as exc:
            self._readFailed(exc)
            return None
        if not data:
            self._readEnded()
            return None
        self.protocol.dataReceived(data)  # type: ignore[union-attr]  # a stream that reads has a protocol
        if len(data) == READ_SIZE and self.reading:
            self._readMore()
        return None

    def _readMore(self) -> None:
        """The last read was full: more may wait, and a few reads more are taken before others get their turn."""
        for _ in range(READS - 1):
            try:
                data = self._recv(READ_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                self._readFailed(exc)
                return
            if not data:
                self._readEnded()
                return
            self.protocol.dataReceived(data)  # type: ignore[union-attr]  # a stream that reads has a protocol
            if len(data) < READ_SIZE or not self.reading:
                return

    def received(self, data: bytes) -> None:
        """A channel without a descriptor has `data`; not to be called from inside one of the protocol's own calls."""
        if self.reading and not self.held:
            try:
                self.protocol.dataReceived(data)  # type: ignore[union-attr]  # a stream that reads has a protocol
            except BaseException as exc:
                self.reactor.loop.raised(self, exc)
        elif self.state in READING and self._end is None:
            if self.held is None:
                self.held = []
            self.held.append(data)

    def ended(self, error: BaseException | None = None) -> None:
        """A channel without a descriptor has ended: with an end of stream, or with `error`."""
        if self.state == LOST:
            return
        if self._error is None and error is not None and self.state not in READING:
            # Nobody reads any more; whatever was still to be sent is lost.
            self._fail(error)
        elif self.reading and not self.held:
            self._ended(error)
        elif self.state in READING:
            self._end = (error,)

    def _ended(self, exc: BaseException | None) -> None:
        try:
            if exc is None:
                self._readEnded()
            elif isinstance(exc, OSError):
                self._readFailed(exc)
            else:
                self._fail(exc)
        except BaseException as raised:
            self.reactor.loop.raised(self, raised)

    def _readEnded(self) -> None:
        """The peer has ended its direction."""
        if self._error is not None:
            # It is no clean end after a send that failed: the kernel reports a reset only once.
            self._fail(self._error)
            return
        protocol = self.protocol
        half = getattr(protocol, "readConnectionLost", None)
        before = self.state
        if half is None and not self.bufferedBytes and before == OPEN:
            # What nearly every end is: nothing is left to be sent.
            self._lost(failure.Failure(error.ConnectionDone()))
            return
        self._stopReading()
        after = NEXT["end" if half is None else "halfEnd"].get(before, before)
        if after != LOST:
            self.state = after
        if half is not None and before in READING:
            half()
        if after == LOST:
            if self.state in (before, CLOSING):
                self._lost(failure.Failure(error.ConnectionDone()))
        elif self.state == DRAINING:
            self._drain()

    def _drain(self) -> None:
        """The peer has ended, and so do we as soon as what was written is sent."""
        # Whatever it still produces, nobody takes.
        self._stopProducer()
        if self.state != DRAINING:
            return  # the producer aborted
        if self.bufferedBytes:
            self._queue()
            self._watchClosing()
        else:
            self._lost(failure.Failure(error.ConnectionDone()))

    def _readFailed(self, exc: OSError) -> None:
        self._fail(self._error if self._error is not None else exc)

    def _fail(self, exc: BaseException) -> None:
        """The connection has ended with an error."""
        if isinstance(exc, OSError) and not isinstance(exc, error.ConnectionClosed):
            if exc.errno == EBADF and self._isGone():
                reason: BaseException = error.ConnectionFdescWentAway("its descriptor was closed by somebody else")
                self.disown()
            else:
                reason = error.connectionLost(exc)
        else:
            reason = exc
        self._lost(failure.Failure(reason))

    def _poll(self) -> None:
        """Read a channel that is always ready, once a turn."""
        self._polling = None
        try:
            self._pollOnce()
        except BaseException as exc:
            self.reactor.loop.raised(self, exc)
        self._pollLater()

    def _pollLater(self) -> None:
        if self.reading and self._polling is None:
            self._polling = self.reactor.callLater(0, self._poll)

    def _pollOnce(self) -> None:
        try:
            data = self._recv(READ_SIZE)
        except OSError as exc:
            self._readFailed(exc)
            return
        if data:
            self.protocol.dataReceived(data)  # type: ignore[union-attr]  # a stream that reads has a protocol
        else:
            self._readEnded()

    def pauseProducing(self) -> None:
        """Read no more: when this has returned, nothing is received until `resumeProducing`."""
        if self.reading:
            self._stopReading()
        elif self.state == LOST:
            self._refused()

    def resumeProducing(self) -> None:
        """Read again; nothing on a connection that is ending or has ended."""
        if self.state not in READING or self.reading or self.protocol is None:
            if self.state == LOST:
                self._refused()
            return
        self.reading = True
        if self.held or self._end is not None:
            self._enqueue()
        if self.fd < 0:
            resume = getattr(self.channel, "resume", None)
            if resume is not None:
                resume()
        elif getattr(self.channel, "alwaysReady", False):
            self._pollLater()
        else:
            self.reactor.descriptors.addReader(self.fd, self)

    def stopProducing(self) -> None:
        """As a producer: the consumer wants no more. Loses the connection."""
        self.loseConnection()

    def _stopReading(self) -> None:
        self.reading = False
        if self.fd < 0:
            pause = getattr(self.channel, "pause", None)
            if pause is not None:
                pause()
        elif self._polling is not None:
            self._polling.cancel()
            self._polling = None
        else:
            self.reactor.descriptors.removeReader(self.fd)

    def _deliverHeld(self) -> None:
        """What came while the protocol had paused, one piece after the other until it pauses again."""
        while self.held and self.reading:
            data = self.held.pop(0)
            self.protocol.dataReceived(data)  # type: ignore[union-attr]  # a stream that reads has a protocol
        if self._end is not None and self.reading and not self.held:
            (exc,), self._end = self._end, None
            self._ended(exc)

    # Writing.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` before the reactor sleeps again; never calls anybody but a push producer that is to pause.

        After the connection is lost: nothing. Raises TypeError for anything but bytes, bytearray and memoryview.
        """
        if type(data) is not bytes:
            data = asBytes(data, "write")
        if self.state > CLOSING:
            self._refused()
            return
        size = len(data)
        if not size:
            return
        if not self._queued:
            reactor = self.reactor
            reactor.unsent.append(self)
            self._queued = True
            if reactor.announce is not None:
                reactor.pending()
        buffered = self.bufferedBytes
        if not buffered:
            self._chunk = data
        elif self._rest is None:
            self._rest = [data]
        else:
            self._rest.append(data)
        self.bufferedBytes = buffered = buffered + size
        if buffered > self._mark:
            self._full()

    def writeSequence(self, iovec: Iterable[bytes | bytearray | memoryview]) -> None:
        """`write` for each of `iovec`, any iterable."""
        self.write(b"".join([data if type(data) is bytes else asBytes(data, "writeSequence") for data in iovec]))

    def _refused(self) -> None:
        """`write` in a state that takes nothing: silence, but for a copy of us in another process."""
        if self.reactor.inherited:
            self.reactor.checkUsable()

    def _full(self) -> None:
        """More waits than the high-water mark, or than is allowed. The producer is paused in either case, or one that
        writes until it is paused would do so for ever.
        """
        limit, waiting = self._limit, self.bufferedBytes
        overflow = limit is not None and waiting > limit
        goes = self._streaming and not self._producerPaused and (overflow or waiting > HIGH_WATER)
        if goes and self.producer is not None:
            self._producerPaused = True
            self.producer.pauseProducing()
        if overflow and self.state < ABORTING:
            self._abort(error.BufferOverflow(f"{waiting} bytes wait to be sent, {limit} are allowed"))

    def _enqueue(self) -> None:
        """Have the loop come by."""
        if not self._queued:
            self._queue()

    def _queue(self) -> None:
        reactor = self.reactor
        reactor.unsent.append(self)
        self._queued = True
        if reactor.announce is not None:
            reactor.pending()

    def flush(self) -> None:
        """Our turn in the loop: deliver what was held, end what is to end, and send with one call of the channel."""
        self._queued = False
        if self.fd < 0 and (self.held or self._end is not None):
            self._deliverHeld()
        data = self._chunk
        if data and self.state == OPEN and self._rest is None:
            # What nearly every turn is, without another frame: one chunk, all of it taken, nothing to do afterwards.
            try:
                sent = self._send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as exc:
                self._sendFailed(exc)
                return
            if sent == len(data) and self.producer is None:
                self._chunk = b""
                self.bufferedBytes = 0
            else:
                self._sent(sent, sent < len(data))
            return
        state = self.state
        if data and state < ABORTING:
            self._sendSome()
        elif state == ABORTING:
            self._aborted()
        elif state != LOST:
            if self._error is not None and state == CLOSING:
                self._fail(self._error)
            else:
                self._allSent()

    def doWrite(self) -> None:
        """The channel may take more: send. The loop calls this."""
        if self.bufferedBytes:
            self._sendSome()
        elif self.state != LOST:
            self._queued = False
            self.reactor.descriptors.removeWriter(self.fd)

    def drained(self) -> None:
        """A channel without a descriptor, which refused bytes, takes more."""
        if self._blocked and self.state != LOST:
            self._blocked = False
            self._queue()

    def _sendSome(self) -> None:
        rest = self._rest
        try:
            if rest is None:
                offered = len(self._chunk)
                sent = self._send(self._chunk)
            elif self._scatters(rest):
                offered, pieces = self._pieces(rest)
                sock: Any = self.channel
                sent = int(sock.sendmsg(pieces))
            else:
                self._gather(rest)
                offered = len(self._chunk)
                sent = self._send(self._chunk)
        except (BlockingIOError, InterruptedError):
            offered, sent = 1, 0
        except OSError as exc:
            self._sendFailed(exc)
            return
        self._sent(sent, sent < offered)

    def _scatters(self, rest: list[Buffer]) -> bool:
        """Whether what waits goes to sendmsg(2) as it is: for long pieces copying them together costs more than that
        does (of an echo of 100 KiB a seventh), for short ones less.
        """
        long = self.bufferedBytes > LONG_PIECE * (len(rest) - self._used + 1)
        return long and type(self.channel) is socket.socket and hasattr(socket.socket, "sendmsg")

    def _pieces(self, rest: list[Buffer]) -> tuple[int, list[Buffer]]:
        """The next chunks, up to SEND_SIZE bytes and PIECES, and how many bytes they are."""
        pieces = [self._chunk]
        total = len(self._chunk)
        for piece in rest[self._used : self._used + PIECES - 1]:
            if total >= SEND_SIZE:
                break
            pieces.append(piece)
            total += len(piece)
        return total, pieces

    def _gather(self, rest: list[Buffer]) -> None:
        """Make one chunk of the next one and as many of the others as it takes to have SEND_SIZE bytes."""
        last = used = self._used
        if self.bufferedBytes <= SEND_SIZE:
            last = len(rest)
        else:
            total = len(self._chunk)
            while total < SEND_SIZE:
                total += len(rest[last])
                last += 1
        if last > used:
            self._chunk = b"".join((self._chunk, *rest[used:last]))
            self._use(rest, last)

    def _use(self, rest: list[Buffer], last: int) -> None:
        """Those before `last` are no longer of the rest: they go at once, and the list is shortened now and then, or a
        long one would take a time that grows with its square.
        """
        if last == len(rest):
            self._dropRest()
            return
        rest[self._used : last] = (b"",) * (last - self._used)
        if last > 64 and 2 * last > len(rest):
            del rest[:last]
            last = 0
        self._used = last

    def _dropRest(self) -> None:
        self._rest = None
        self._used = 0

    def _advance(self, sent: int) -> None:
        """So many bytes of the next chunks are gone, and others are left."""
        chunk, rest, used = self._chunk, self._rest, self._used
        while rest is not None and sent >= len(chunk):
            sent -= len(chunk)
            chunk = rest[used]
            used += 1
        self._chunk = memoryview(chunk)[sent:] if sent else chunk
        if rest is not None:
            self._use(rest, used)

    def _sent(self, sent: int, refused: bool) -> None:
        """The channel took `sent` bytes of the next chunks, and perhaps refused others."""
        self.bufferedBytes = left = self.bufferedBytes - sent
        if sent and self._closeTimer is not None and self.closeTimeout is not None:
            self._closeTimer.reset(self.closeTimeout)
        if not left:
            self._chunk = b""
            self._dropRest()
            if self._queued:
                self._queued = False
                self.reactor.descriptors.removeWriter(self.fd)
            self._allSent()
            return
        self._advance(sent)
        self._queued = True
        if self.fd < 0 and refused:
            self._blocked = True
        elif self.fd < 0 or getattr(self.channel, "alwaysReady", False):
            # Nobody was refused, so nobody will tell us to go on.
            self.reactor.unsent.append(self)
        elif self.fd not in self.reactor.descriptors.writers:
            self.reactor.descriptors.addWriter(self.fd, self)
        if self.state >= CLOSING:
            self._watchClosing()
        if self._producerPaused and left <= LOW_WATER:
            self._resumeProducer()

    def _allSent(self) -> None:
        """Nothing waits: the producer's turn, or the end."""
        if self.producer is not None and self.state != DRAINING:
            if self._streaming:
                if self._producerPaused:
                    self._resumeProducer()
            else:
                self.producer.resumeProducing()
            return
        before = self.state
        after = NEXT["sent"].get(before)
        if after is None:
            return
        if after == LOST and before != BOTH_CLOSING:
            self._lost(failure.Failure(error.ConnectionDone()), linger=before == CLOSING)
            return
        self._endWriting(after)

    def _endWriting(self, after: int) -> None:
        """All is sent, and our direction ends."""
        channel: Any = self.channel
        try:
            channel.shutdown(socket.SHUT_WR)
        except OSError as exc:
            self._sendFailed(exc)
            return
        if after != LOST:
            self.state = after
        before = self.state
        told = getattr(self.protocol, "writeConnectionLost", None)
        if told is not None:
            told()
        if after == LOST and self.state in (before, CLOSING):
            self._lost(failure.Failure(error.ConnectionDone()))

    def _sendFailed(self, exc: OSError) -> None:
        """Only the writing has ended: what the peer had sent before is still to be read."""
        if exc.errno == EBADF and self._isGone():
            self._fail(exc)
            return
        self._dropChunks()
        if self._error is None:
            self._error = exc.with_traceback(None)
        after = NEXT["sendFailed"].get(self.state, self.state)
        if after == LOST:
            self._fail(self._error)
        else:
            self.state = after
            # Whatever it still produces, nobody takes.
            self._stopProducer()

    def _dropChunks(self) -> None:
        self._chunk = b""
        self._dropRest()
        self.bufferedBytes = 0
        self._queued = False
        if self.fd >= 0:
            self.reactor.descriptors.removeWriter(self.fd)

    # Producers.

    def registerProducer(self, producer: interfaces.PushProducer | interfaces.PullProducer, streaming: bool) -> None:
        """Let `producer` fill the buffer.

        With `streaming` it is a push producer, paused when more than 64 KiB wait and resumed at 32 KiB; otherwise a
        pull producer, asked for one write whenever nothing waits, now for the first time. On a lost connection it is
        stopped at once. Raises RuntimeError if there is one already.
        """
        if self.producer is not None:
            raise RuntimeError(f"{self!r} has a producer already: {self.producer!r}; unregister it first")
        if self.state > CLOSING:  # nothing is sent any more
            self._refused()
            producer.stopProducing()
            return
        self.producer = producer
        self._streaming = streaming
        self._producerPaused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """The producer has produced all; a connection that waited for it to end may end."""
        self.producer = None
        self._producerPaused = False
        if self.state in (CLOSING, WRITE_CLOSING, BOTH_CLOSING) and not self.bufferedBytes:
            self._enqueue()

    def stopConsuming(self) -> None:
        """As a consumer: no more is wanted. Unregisters the producer and loses the connection."""
        self.unregisterProducer()
        self.loseConnection()

    def _resumeProducer(self) -> None:
        self._producerPaused = False
        self.producer.resumeProducing()

    def _stopProducer(self) -> None:
        producer, self.producer = self.producer, None
        self._producerPaused = False
        if producer is not None:
            try:
                producer.stopProducing()
            except BaseException as exc:
                self.reactor.loop.callbackRaised(f"stopProducing of {type(producer).__name__}", exc)

    # Its end.

    def loseConnection(self) -> None:
        """Read no more, send what was written (and what a registered producer still produces), then end.

        `connectionLost(ConnectionDone)` follows in a later turn.
        """
        after = NEXT["lose"].get(self.state)
        if after is None:
            self._refused()
            return
        if self.reading:
            self._stopReading()
        failed = self.state == WRITE_FAILED
        self.state = after
        if failed or not self.bufferedBytes:
            self._enqueue()
        elif self.fd < 0 or self.fd in self.reactor.descriptors.writers:
            self._watchClosing()

    def loseWriteConnection(self) -> None:
        """Send what was written, then end our direction only; the protocol's `writeConnectionLost` follows, if it has
        one.

        Raises error.HalfCloseUnsupported if the channel cannot do that.
        """
        if not self.canHalfClose:
            raise error.HalfCloseUnsupported(f"{self!r} cannot end one direction alone: use loseConnection()")
        after = NEXT["loseWrite"].get(self.state)
        if after is None:
            self._refused()
            return
        self.state = after
        if not self.bufferedBytes:
            self._enqueue()

    def abortConnection(self) -> None:
        """Drop what was written and reset; `connectionLost(ConnectionAborted)` follows in the next turn."""
        self._abort(error.ConnectionAborted())

    def _abort(self, reason: BaseException) -> None:
        after = NEXT["abort"].get(self.state)
        if after is None:
            self._refused()
            return
        if self.reading:
            self._stopReading()
        self._dropChunks()
        self._error = reason
        self.state = after
        self._queue()

    def _aborted(self) -> None:
        """The turn after `abortConnection`."""
        reason = self._error if self._error is not None else error.ConnectionAborted()
        self._lost(failure.Failure(reason), abort=True)

    def connectionLost(self, reason: failure.Failure) -> None:
        """End at once, with this reason: a callback raised, or the descriptor is not ours any more. For the loop."""
        if isinstance(reason.value, error.ConnectionFdescWentAway):
            self.disown()
        self._lost(reason, abort=not isinstance(reason.value, error.ConnectionClosed))

    def abandon(self, reason: failure.Failure) -> None:
        """The reactor stops or is closed."""
        self._lost(reason)

    def forked(self) -> None:
        """We are a copy in a child process: take nothing, and close our copy of the descriptor if it is a socket's.

        Any other channel stays as it is: who knows what its `close` does to what both processes share.
        """
        self.state = LOST
        self.reading = False
        self._chunk = b""
        self._dropRest()
        if isinstance(self.channel, socket.socket):
            self.channel.close()

    def _isGone(self) -> bool:
        """Whether EBADF says that our descriptor was closed; else it was not opened for what was tried."""
        fd = self.channel.fileno()
        if fd < 0:
            return True
        try:
            os.fstat(fd)
        except OSError:
            return True
        return False

    def disown(self) -> None:
        """Somebody else closed our descriptor, and the number may be another's by now: it is not ours to close."""
        self.reactor.descriptors.forget(self.fd, self)
        detach = getattr(self.channel, "detach", None)
        if detach is not None:
            detach()
        self.fd = -1

    def _watchClosing(self) -> None:
        """A closing connection must get on."""
        if self.closeTimeout is not None and self._closeTimer is None:
            self._closeTimer = self.reactor.callLater(self.closeTimeout, self._closeTimedOut)

    def _closeTimedOut(self) -> None:
        self._closeTimer = None
        if self.bufferedBytes:
            self._abort(error.ConnectionAborted("the peer took no byte while the connection was closing"))

    def _lost(self, reason: failure.Failure, *, linger: bool = False, abort: bool = False) -> None:
        """The end, once: first the kernel, then our books, then the producer, the protocol and the connector."""
        if self.state == LOST:
            return
        self.state = LOST
        self.reading = False
        reactor, channel, protocol, connector = self.reactor, self.channel, self.protocol, self._connector
        if self.fd >= 0:
            reactor.descriptors.forget(self.fd, self)
        if self._closeTimer is not None or self._polling is not None:
            self._cancelTimers()
        self._chunk = b""
        self._dropRest()
        self.bufferedBytes = 0
        self.held = self._end = self._error = None
        try:
            if linger or abort:
                finish(reactor, channel, self.closeTimeout, linger=linger, abort=abort)
            else:
                channel.close()
        except Exception as exc:
            # EBADF: somebody else has closed it for us, and nothing told us so.
            if not isinstance(exc, OSError) or exc.errno != EBADF:
                failure.log(f"closing {self!r} raised", exc)
        reactor.owned.pop(self, None)
        if self.producer is not None:
            self._stopProducer()
        self.protocol = self._connector = None
        if protocol is not None:
            try:
                protocol.connectionLost(reason)
            except BaseException as exc:
                reactor.loop.callbackRaised(f"connectionLost of {type(protocol).__name__}", exc)
        if connector is not None:
            connector.connectionLost(reason)
        observers = reactor.observers
        if observers is not None and observers.connectionLost is not None:
            observers.connectionLost(self, reason)
        # A traceback is a cycle through its frames; whoever keeps the reason keeps its text.
        reason.cleanFailure()

    def _cancelTimers(self) -> None:
        for timer in (self._closeTimer, self._polling):
            if timer is not None and timer.active():
                timer.cancel()
        self._closeTimer = self._polling = None


def asBytes(data: Any, method: str) -> bytes:
    """Bytes from what a user wrote; a mutable buffer is copied. Raises TypeError."""
    if isinstance(data, bytes):
        return data
    if type(data) in (bytearray, memoryview) or isinstance(data, bytearray):
        return bytes(data)
    hint = ": encode it first" if isinstance(data, str) else ""
    raise TypeError(f"{method} takes bytes, bytearray or memoryview, not {type(data).__name__}{hint}")
