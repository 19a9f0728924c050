"""Ports for the programs of this machine: a connection that its user may not have is closed before it costs anything.

All connections wait in one queue of the kernel. So the ones that a user has no right to are taken out of it and closed
faster than a program can make them, and those of the other users come next.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from compass.daemons.net.descriptors import UnixPort
from compass.daemons.net.reuseport import StreamPort

ACCEPT_SECONDS = 0.0005
"""Time for which a port accepts or closes connections before others have a turn: a few of them. A registration
needs six turns, with its write to disk and the answer of a server, and each waits for both ports."""


class LocalFactory(Protocol):
    """Factory that knows the users of this machine; `gateway.host_api.local_peers.LocalPeers`."""

    def admit(self, handle: socket.socket) -> int | None:
        """Count a connection. Returns the user that it is counted for; None: there may not be one more."""

    def build(self, addr: Any, user: int) -> Any:
        """Return the protocol of an admitted connection, or None if there is none for it."""


def _accept(port: Any, leave_to_port: Callable[[], None]) -> None:
    """Take connections out of the kernel's queue; see tcp.Port. An error of the system is left to the port."""
    until = time.perf_counter() + ACCEPT_SECONDS
    while time.perf_counter() < until:
        try:
            accepted, address = port.socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.ECONNABORTED, errno.EINTR, errno.EPERM):
                continue
            leave_to_port()
            return
        if not port.has_room(accepted):
            continue
        user = port.factory.admit(accepted)
        protocol = port.factory.build(port._buildAddr(address), user) if user is not None else None
        if protocol is None:
            accepted.close()
            continue
        accepted.setblocking(False)
        number, port.sessionno = port.sessionno, port.sessionno + 1
        protocol.makeConnection(port.transport(accepted, protocol, address, port, number, port.reactor))


class LocalPort(StreamPort):
    """Port on the loopback, in front of a `LocalFactory`."""

    def doRead(self) -> None:  # noqa: N802
        """Accept connections."""
        _accept(self, super().doRead)


class LocalUnixPort(UnixPort):
    """Unix socket, in front of a `LocalFactory`."""

    def doRead(self) -> None:  # noqa: N802
        """Accept connections."""
        _accept(self, super().doRead)


def adopted(reactor: Any, descriptor: int, family: int, factory: Any) -> Any:
    """Return the port of a socket that listens already."""
    whole: Any = LocalUnixPort if family == socket.AF_UNIX else LocalPort
    more = () if family == socket.AF_UNIX else (family,)
    port = whole._fromListeningDescriptor(reactor, descriptor, *more, factory)
    port.startListening()
    return port
