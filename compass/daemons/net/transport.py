"""TCP and TLS transports of both daemons: writes reach the kernel at once, and the kernel detects dead peers.

Twisted buffers writes until the reactor's next turn, so that the pieces of one answer leave together. compass writes
whole frames, and writes one change to thousands of sessions: each session's turn cost as much as the rest of a notice.
`PromptTransport` passes octets to the kernel within the call, unless earlier octets are still waiting.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import ITransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from compass.daemons.net.descriptors import CarefulPort

KEEPALIVE_IDLE_SECONDS = range(8, 18)
"""Times of silence after which the kernel probes a session. This needs no message of compass; 10,000 silent sessions
cost 800 small packets per second. Each session has one of these times: otherwise a notice to all would be followed by
probes of all at the same moment, most of which a machine's queues, of 1,000 packets by default, would lose."""
KEEPALIVE_INTERVAL_SECONDS = 4
"""Interval between two such probes."""
KEEPALIVE_PROBES = 3
"""Unanswered probes after which a session is lost; so a host that vanishes is detected after 30 s at the latest."""
NOT_SENT_OCTETS_MAX = 128 * 1024
"""Octets that the kernel buffers beyond what the peer's window allows: for a peer that does not read it would be
megabytes, and buffered octets can neither be released nor replaced by newer ones."""


def tune(handle: socket.socket) -> None:
    """Set the options of a session's socket."""
    idle = KEEPALIVE_IDLE_SECONDS[handle.fileno() % len(KEEPALIVE_IDLE_SECONDS)]
    # If TCP_USER_TIMEOUT is set, Linux does not count probes but uses this time alone (RFC 5482): all probes must fit.
    # It is also the time for which the peer's kernel may leave sent octets unacknowledged.
    lost = idle + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_SECONDS
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", 18), lost * 1000),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25), NOT_SENT_OCTETS_MAX),
    ):
        handle.setsockopt(level, option, value)


class PromptTransport(tcp.Server):
    """Transport that writes to the socket within `write`, unless earlier octets still wait; all else is Twisted's.

    Only public methods are overridden or called: `startWriting` requests a turn of the reactor exactly when the buffer
    of the base class is not empty.
    """

    _waits = False

    def write(self, data: bytes) -> None:
        """See ITransport."""
        if self._waits or not self.connected:
            super().write(data)
            return
        sent = self.writeSomeData(data)
        if sent == len(data):
            return
        # An error occurs again, and is handled, in the reactor's turn.
        super().write(data[sent:] if isinstance(sent, int) and sent > 0 else data)

    def startWriting(self) -> None:  # noqa: N802
        """See FileDescriptor."""
        self._waits = True
        super().startWriting()

    def stopWriting(self) -> None:  # noqa: N802
        """See FileDescriptor."""
        self._waits = False
        super().stopWriting()


class PromptPort(CarefulPort):
    """Listening port whose connections are prompt and tuned."""

    transport = PromptTransport


class _TunedTls(TLSMemoryBIOProtocol):
    """TLS without Twisted's aggregation of small writes: a notice must not wait for the next one."""

    def makeConnection(self, transport: ITransport) -> None:
        handle: Any = getattr(transport, "getHandle", lambda: None)()
        if handle is not None:
            tune(handle)
        super().makeConnection(transport)


class _TunedTlsFactory(TLSMemoryBIOFactory):
    """TLS factory that passes on a refusal of the inner factory; Twisted's makes a connection that fails instead."""

    protocol = _TunedTls
    noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        inner = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)


def wrap_tls(context: Any, factory: Any, *, client: bool) -> Any:
    """Return `factory` behind TLS. `context`: from `server_context` or `client_context` of `compass.pki.tls_contexts`.

    Both factories are Twisted's, whose interfaces the type checker does not understand.
    """
    return _TunedTlsFactory(context, client, factory)
