"""Ports that the worker processes of one server share: the kernel spreads what comes over them (SO_REUSEPORT).

Each process has a socket of its own, and so a queue of its own. With one common socket whoever wakes first empties the
queue, and the sessions of a name service stay for days where they were accepted. A process that is being started
listens when it can serve, and to one that dies the kernel gives nothing more: the others serve meanwhile.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import udp
from twisted.internet.error import CannotListenError

from compass.daemons.net.transport import PromptPort

NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
"""What a machine without IPv6 says to a socket, or to an address of it."""


_this_process_shares = False


def share_ports() -> None:
    """Whatever this process listens on from now on, other workers of its server may listen on, too."""
    global _this_process_shares
    _this_process_shares = True


def _sharing(made: socket.socket) -> socket.socket:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made


class StreamPort(PromptPort):
    """A listening port of a daemon, shared in a worker."""

    def createInternetSocket(self) -> Any:  # noqa: N802
        """See tcp.Port."""
        made = super().createInternetSocket()
        return _sharing(made) if _this_process_shares else made


class DatagramPort(udp.Port):
    """The same for datagrams."""

    def createInternetSocket(self) -> Any:  # noqa: N802
        """See udp.Port."""
        made = super().createInternetSocket()
        return _sharing(made) if _this_process_shares else made


class PortReservation:
    """An address and port that is this server's, to be shared by its workers and nobody else."""

    def __init__(self, address: str, port: int) -> None:
        """`::` is every IPv4 address on a machine without IPv6. Raises CannotListenError when it is another's."""
        # Before the first worker listens, the kernel would let a second server share the port. Such a name is as wide
        # as the ports are (a network namespace), and gone with this process.
        self._name = socket.socket(socket.AF_UNIX)
        try:
            self._name.bind(f"\0opengnssd {address} {port}")
        except OSError as error:
            self._name.close()
            raise CannotListenError(address, port, error) from None
        try:
            self.address, self._place = _bound(address, port)
        except CannotListenError:
            self._name.close()
            raise
        self.port = port

    def close(self) -> None:
        """Let it go, once the workers have."""
        self._place.close()
        self._name.close()


def _bound(address: str, port: int) -> tuple[str, socket.socket]:
    """A socket that keeps the place and gets nothing, because it does not listen; and where it is."""
    try:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        return _without_ipv6(address, port, error)
    try:
        # What a server that has just ended leaves in TIME_WAIT does not keep the next one from its port.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except OSError as error:
        made.close()
        return _without_ipv6(address, port, error)
    # Not before: so far it was refused where anybody listens. The kernel asks both sides each time that one is bound.
    return address, _sharing(made)


def _without_ipv6(address: str, port: int, error: OSError) -> tuple[str, socket.socket]:
    if address == "::" and error.errno in NO_IPV6:
        return _bound("0.0.0.0", port)
    raise CannotListenError(address, port, error) from None
