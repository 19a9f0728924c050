"""Ports that the worker processes of one server share: the kernel distributes connections over them (SO_REUSEPORT).

Each process has a socket of its own, and so a queue of its own. With one common socket, the process that wakes first
would empty the queue, and the sessions of a name service stay for days where they were accepted. A starting process
listens once it can serve, and a process that dies gets no further connections: the others serve meanwhile.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import udp
from twisted.internet.error import CannotListenError

from compass.daemons.net.transport import PromptPort

NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
"""Errors of a socket, or of its address, on a machine without IPv6."""


_this_process_shares = False


def share_ports() -> None:
    """Share every port that this process listens on from now on with other workers of its server."""
    global _this_process_shares
    _this_process_shares = True


def _sharing(made: socket.socket) -> socket.socket:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made


class StreamPort(PromptPort):
    """Listening port of a daemon, shared in a worker."""

    def createInternetSocket(self) -> Any:  # noqa: N802
        """See tcp.Port."""
        made = super().createInternetSocket()
        return _sharing(made) if _this_process_shares else made


class DatagramPort(udp.Port):
    """Datagram port of a daemon, shared in a worker."""

    def createInternetSocket(self) -> Any:  # noqa: N802
        """See udp.Port."""
        made = super().createInternetSocket()
        return _sharing(made) if _this_process_shares else made


class PortReservation:
    """Reservation of an address and port for the workers of one server only."""

    def __init__(self, address: str, port: int) -> None:
        """Reserve. `::` is every IPv4 address on a machine without IPv6. Raises CannotListenError if it is in use."""
        # Before the first worker listens, the kernel would let a second server share the port. An abstract name has the
        # same scope as ports (a network namespace), and vanishes with this process.
        self._name = socket.socket(socket.AF_UNIX)
        try:
            self._name.bind(f"\0opengnssd {address} {port}")
        except OSError as error:
            self._name.close()
            raise CannotListenError(address, port, error) from None
        try:
            self.address, self._bound = _bind(address, port)
        except CannotListenError:
            self._name.close()
            raise
        self.port = port

    def close(self) -> None:
        """End the reservation; the workers have closed their ports."""
        self._bound.close()
        self._name.close()


def _bind(address: str, port: int) -> tuple[str, socket.socket]:
    """Bind a socket that does not listen, and so gets no connections. Returns its address and the socket."""
    try:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        return _without_ipv6(address, port, error)
    try:
        # Connections in TIME_WAIT, of a server that has just ended, do not block the port.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except OSError as error:
        made.close()
        return _without_ipv6(address, port, error)
    # Only now: until here the bind failed if any socket listened. The kernel asks both sides at each bind.
    return address, _sharing(made)


def _without_ipv6(address: str, port: int, error: OSError) -> tuple[str, socket.socket]:
    if address == "::" and error.errno in NO_IPV6:
        return _bind("0.0.0.0", port)
    raise CannotListenError(address, port, error) from None
