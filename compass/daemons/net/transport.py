"""TCP and TLS streams as both daemons use them: what is written goes out at once, dead peers are noticed by the kernel.

Twisted keeps what is written until the reactor's next turn, so that the pieces of one answer leave together. compass
writes whole frames, and one change is written to thousands of sessions: the turn of each cost as much as the rest of a
notice. `PromptTransport` hands octets to the kernel in the call, as long as nothing waits there already.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import ITransport
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

KEEPALIVE_IDLE_SECONDS = range(8, 18)
"""A silent session is asked by the kernel after so long; it costs no message of ours, and 10,000 silent sessions cost
800 small packets a second. Each session has one of these times: otherwise a notice to all would be followed by a
question to all of them in one moment, of which a machine's queues, of 1,000 packets by default, lose most."""
KEEPALIVE_INTERVAL_SECONDS = 4
"""Between two such questions."""
KEEPALIVE_QUESTIONS = 3
"""Without an answer to so many a session is lost; so a host that vanishes is missed after 30 s at the latest."""
NOT_SENT_OCTETS_MAX = 128 * 1024
"""What the kernel takes from us beyond what the peer lets it send: for a peer that does not read it would be megabytes,
and what lies there can neither be released nor replaced by something newer."""


def tune(handle: socket.socket) -> None:
    """Set what every session's socket has."""
    idle = KEEPALIVE_IDLE_SECONDS[handle.fileno() % len(KEEPALIVE_IDLE_SECONDS)]
    # Where it is known, Linux counts no questions but goes by this time alone (RFC 5482): it must have room for all. It
    # is also how long the peer's kernel may leave unacknowledged what it was sent.
    lost = idle + KEEPALIVE_QUESTIONS * KEEPALIVE_INTERVAL_SECONDS
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_QUESTIONS),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", 18), lost * 1000),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25), NOT_SENT_OCTETS_MAX),
    ):
        handle.setsockopt(level, option, value)


class PromptTransport(tcp.Server):
    """Writes to the socket in `write` itself, unless earlier octets still wait for it; all else is Twisted's.

    Only public methods are overridden or called: the reactor is asked for a turn by `startWriting` exactly when the
    buffer of the base class has something in it.
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
        # An error is met again, and dealt with, in the reactor's turn.
        super().write(data[sent:] if isinstance(sent, int) and sent > 0 else data)

    def startWriting(self) -> None:  # noqa: N802
        """See FileDescriptor."""
        self._waits = True
        super().startWriting()

    def stopWriting(self) -> None:  # noqa: N802
        """See FileDescriptor."""
        self._waits = False
        super().stopWriting()


class PromptPort(tcp.Port):
    """A listening port whose connections are prompt and tuned."""

    transport = PromptTransport


class _TunedTls(TLSMemoryBIOProtocol):
    """Without the aggregation of small writes that Twisted's default adds: a notice must not wait for the next."""

    def makeConnection(self, transport: ITransport) -> None:
        handle: Any = getattr(transport, "getHandle", lambda: None)()
        if handle is not None:
            tune(handle)
        super().makeConnection(transport)


class _TunedTlsFactory(TLSMemoryBIOFactory):
    """One that hands on a refusal: Twisted's makes a connection of it that fails at every step, in the log at that."""

    protocol = _TunedTls
    noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        inner = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)


def wrap_tls(context: Any, factory: Any, *, client: bool) -> Any:
    """`factory` behind TLS. `context`: what `tls.accepting` or `tls.dialling` gave.

    Both are Twisted's factories; its interfaces say nothing to the type checker.
    """
    return _TunedTlsFactory(context, client, factory)
