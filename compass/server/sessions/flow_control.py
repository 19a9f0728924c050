"""Flow control: a session writes no faster than its peer reads, and keeps little for a peer that reads slowly (P10).

What the transport does not accept is queued, and messages in parts are written in turns with other sessions. A host
whose queue is full is lagging: its queued notices are dropped, none is queued any longer, and when it reads again the
server sends at once all that it missed. A peer that does not read at all is disconnected, and resumes on its next
session.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, cast

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from zope.interface import implementer

from compass.model.interfaces import Clock, Stream, Timer
from compass.model.rules.draft import Principal
from compass.server.sessions.write_turns import WriteTurns
from compass.wire import limits
from compass.wire.messages import Inquiry
from compass.wire.server_connection import ServerConnection

CLOSE_SECONDS = 2.0
"""Seconds from our goodbye to the end of the transport, which is then cut. Only from then on is a host lost."""


class CatchUp(NamedTuple):
    """A notice or a resync that a host missed, as encoded."""

    revision: int
    """Revision that the host holds with it."""
    encoded: bytes | Iterator[bytes]
    """Frame; or the pieces of a resync that is encoded while the host reads it, and sent in parts."""
    complete_to: int
    """Revision up to which the host was sent everything before it."""


class CatchUpSource(Protocol):
    """Source of the notices that lagging hosts missed."""

    def missed(self, session: FlowControl, since: int) -> list[CatchUp] | None:
        """Return all that the session's host was not sent after revision `since`, or None if it has to reconnect."""


@implementer(IPushProducer)
class FlowControl(TwistedProtocol):
    """The sending side of a session: a base class, so that a notice costs one call for each of its subscribers."""

    log = Logger()

    def __init__(self, clock: Clock, turns: WriteTurns) -> None:
        self.asker = Principal("host", "", "")
        """The peer; without a name until its certificate is verified."""
        self.host = ""
        """Host that watches on this session; empty: none does."""
        self.takes_resync = False
        """The host accepts a resync in place of the notices that it missed."""
        self._clock = clock
        self._stream: Stream
        self._connection: ServerConnection | None = None
        """None until the peer is known."""
        self._timer: Timer | None = None
        self._paused = False
        """The transport's buffer is full."""
        self._turns = turns
        self._awaits_turn = False
        """The next part of a message waits for this session's turn."""
        self._receiving = False
        """Received octets are being handled; what is to be sent is gathered until all of them are."""
        self._source: CatchUpSource | None = None
        self._replay: list[CatchUp] = []
        """Notices that the host missed before it watched, to be sent after the reply to its watch."""
        self._bookmark: tuple[bytes, int] | None = None
        """The bookmark that follows the reply to a watch."""
        self._complete_to: int | None = None
        """Revision up to which a lagging host was sent everything; None: the host is not lagging."""

    # The transport's side.

    def connectionMade(self) -> None:
        self._stream = cast(Stream, self.transport)
        self._stream.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Write again: the peer has read what the transport had."""
        self._paused = False
        if self._connection is not None:
            self._connection.peer_consumed(self._clock.seconds())
        self._flush()

    def stopProducing(self) -> None:
        """Stop writing for good: the transport is closed."""
        self._paused = True

    # The server's side.

    @property
    def waiting(self) -> bool:
        """True if something is not sent, not acknowledged or not answered yet."""
        connection = self._connection
        if connection is None:
            return False
        return self._complete_to is not None or bool(connection.unacknowledged or connection.in_flight)

    @property
    def behind(self) -> bool:
        """True if the host is lagging: it reads so slowly that it gets no notices."""
        return self._complete_to is not None

    @property
    def queued_octets(self) -> int:
        """Octets that the transport does not accept yet."""
        return _queued(self._connection) if self._connection is not None else 0

    @property
    def message_max(self) -> int:
        """Octets of the longest message that the peer accepts in parts; 0: it accepts none."""
        return self._connection.message_max if self._connection is not None else 0

    @property
    def awaited_since(self) -> float | None:
        """Commit time of the notice whose acknowledgement is timed; None: none is awaited."""
        return self._connection.timed_since if self._connection is not None else None

    def watch(
        self, host: str, source: CatchUpSource, replay: list[CatchUp], bookmark: tuple[bytes, int] | None
    ) -> None:
        """Make the session the host's subscription; `replay` and `bookmark` follow the reply to its watch."""
        self.host = host
        self._source = source
        self._replay = replay
        self._bookmark = bookmark
        self._complete_to = None
        if self._connection is not None:
            self._connection.watching = True

    def deliver(self, encoded: bytes, revision: int, now: float) -> None:
        """Write a notice that was encoded once for all subscribers; `now` is when it was committed."""
        connection = self._connection
        if connection is None or connection.state != "open" or self._complete_to is not None:
            return
        if not (self._paused or self._receiving or connection.octets_to_send):
            # The usual case, thousands of times for one change: nothing is queued, nothing joined.
            connection.note_written(revision, now)
            self._stream.write(encoded)
            if self._timer is None or not self._timer.active():
                self._set_timer(connection)
        elif (self._paused or self._awaits_turn) and _queued(connection) + len(encoded) > limits.SEND_QUEUE_MAX:
            self._drop_pushes(connection, revision - 1)
        else:
            connection.push(encoded, revision, now)
            self._flush()

    def fall_behind(self, complete_to: int) -> None:
        """Send the host everything again in place of a notice that would be too large; it holds `complete_to`."""
        connection = self._connection
        if connection is not None and connection.state == "open" and self._complete_to is None:
            self._drop_pushes(connection, complete_to)
            self._flush()

    def _drop_pushes(self, connection: ServerConnection, complete_to: int) -> None:
        """Drop the queued notices: from now on the host is lagging."""
        dropped = connection.drop_pushes()
        self._complete_to = complete_to if dropped is None else dropped
        self._disconnect_unless_bounded(connection)

    def deliver_bookmark(self, encoded: bytes, revision: int) -> None:
        """Write a bookmark that was encoded once for all subscribers."""
        if self._connection is not None and self._complete_to is None:
            self._connection.bookmark(encoded, revision)
            self._flush()

    def inquire(self, inquiry: Inquiry) -> None:
        """Ask this session's host to probe a listener."""
        if self._connection is not None:
            self._connection.inquire(inquiry)
            self._flush()

    def send_unacknowledged(self, encoded: bytes) -> None:
        """Write a suspicion that was encoded once for all hosts, unless the host is lagging: it gets the next one."""
        connection = self._connection
        if connection is not None and connection.state == "open" and self._complete_to is None:
            connection.send_unacknowledged(encoded)
            self._flush()

    def goodbye(self, reason: str, retry_after_seconds: float = 0.0, instead: tuple[str, ...] = ()) -> None:
        """End the session from our side; `instead`: servers to which its host should go."""
        if self._connection is None:
            self._abort(reason)
            return
        self._connection.goodbye(reason, retry_after_seconds, instead)
        self._close(self._connection)

    # Writing.

    def _send_replay(self, connection: ServerConnection) -> None:
        """Queue what follows the reply to a watch."""
        replay, self._replay = self._replay, []
        self._send_missed(connection, replay)
        if self._bookmark is not None:
            bookmark, self._bookmark = self._bookmark, None
            connection.bookmark(*bookmark)

    def _send_missed(self, connection: ServerConnection, missed: list[CatchUp]) -> None:
        now = self._clock.seconds()
        for one in missed:
            if isinstance(one.encoded, bytes):
                connection.replay(one.encoded, one.revision, one.complete_to, now)
            else:
                connection.resync(one.encoded, one.revision, one.complete_to, now)

    def _is_overfull(self, connection: ServerConnection) -> bool:
        """Return whether the peer asks for replies faster than it reads them."""
        if _queued(connection) > limits.REPLIES_QUEUED_MAX:
            self._write_out(connection)
        return _queued(connection) > limits.REPLIES_QUEUED_MAX

    def _flush(self) -> None:
        """Write what the transport accepts, and keep the timer at the deadline."""
        connection = self._connection
        if connection is None or self._receiving:
            return
        if connection.octets_to_send:
            self._write_out(connection)
        if self._complete_to is not None and not (self._paused or self._awaits_turn) and connection.state == "open":
            self._catch_up(connection, self._complete_to)
        if self._paused:
            self._disconnect_unless_bounded(connection)
        self._set_timer(connection)

    def _write_out(self, connection: ServerConnection) -> None:
        """Write as much as the transport accepts; of a message in parts one part, and the next one at the next turn."""
        while connection.octets_to_send and not (self._paused or self._awaits_turn):
            self._stream.write(connection.bytes_to_send(limits.WRITE_OCTETS))
            if connection.has_behind:
                self._awaits_turn = True
                self._turns.request(self)

    def take_turn(self) -> int:
        """Write the next part of a message, unless the transport does not accept it. Returns the octets."""
        self._awaits_turn = False
        connection = self._connection
        if connection is None or connection.state == "ended" or self._paused:
            return 0
        # Until now the peer has waited for this server, not the server for the peer.
        connection.peer_consumed(self._clock.seconds())
        octets = min(connection.octets_to_send, limits.WRITE_OCTETS)
        self._flush()
        return octets

    def _catch_up(self, connection: ServerConnection, since: int) -> None:
        """Send a lagging host that reads again all that it missed."""
        self._complete_to = None
        missed = self._source.missed(self, since) if self._source is not None else []
        if missed is None:
            self.goodbye("it read too slowly; it resumes on a new session")
            return
        self._send_missed(connection, missed)
        self._write_out(connection)

    def _disconnect_unless_bounded(self, connection: ServerConnection) -> None:
        if _queued(connection) > limits.SEND_BUFFER_MAX:
            self._abort("it reads too slowly")

    # Deadlines and the end.

    def _set_timer(self, connection: ServerConnection) -> None:
        """Keep one timer, moved only when the deadline comes nearer: most deadlines move away."""
        at = connection.deadline()
        if at is None:
            return
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= at:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._time_passed)

    def _time_passed(self) -> None:
        raise NotImplementedError

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _close(self, connection: ServerConnection) -> None:
        self._stop_timer()
        if not self._paused:
            # The rest, for the transport to write before it closes; a peer that does not read gets no goodbye.
            self._stream.write(connection.bytes_to_send())
        # A stream waits for its producer before it closes, and this one produces nothing more.
        self._stream.unregisterProducer()
        self._stream.loseConnection()
        # A peer that does not read would keep the transport open for ever.
        self._timer = self._clock.callLater(CLOSE_SECONDS, self._abort, "it does not read")

    def _abort(self, reason: str) -> None:
        self.log.debug("connection of {asker} dropped: {reason}", asker=self.asker, reason=reason)
        self._stream.abortConnection()


def _queued(connection: ServerConnection) -> int:
    """Return the octets that wait in memory; a message in parts counts with one part."""
    return connection.octets_to_send + connection.octets_behind
