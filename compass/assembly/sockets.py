"""One address that several processes listen on: the kernel spreads the connections over them (SO_REUSEPORT, socket(7)).

Each process has a socket of its own, and so a queue of its own. With one common socket whoever wakes first empties the
queue, and the sessions of a name service stay where they were accepted for days.
"""

from __future__ import annotations

import errno
import socket

from twisted.internet.error import CannotListenError

BACKLOG = 4096
"""Connections that the kernel keeps until we take them: all hosts may come in one moment. Of one that finds no room the
host hears nothing, and its kernel tries again after 1, 3 and 7 seconds."""
NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
"""What a machine without IPv6 says to a socket, or to an address of it."""


class SharedAddress:
    """An address and port that is ours; processes get listening sockets of it as they come and go."""

    def __init__(self, address: str, port: int) -> None:
        """`::` is every IPv4 address on a machine without IPv6. Raises CannotListenError, also when another program
        listens there: the first socket does not share, and is kept so that the address stays ours meanwhile."""
        try:
            self._kept = _bound(address, port, shares=False)
        except CannotListenError as error:
            if address != "::" or error.socketError.errno not in NO_IPV6:
                raise
            address = "0.0.0.0"
            self._kept = _bound(address, port, shares=False)
        # The kernel asks both sides whether they share, each time that one more is bound.
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.address, self.port = address, port

    def socket(self, *, listens: bool) -> socket.socket:
        """One more socket of it. One that does not listen yet gets no connections. Raises CannotListenError."""
        made = _bound(self.address, self.port, shares=True)
        try:
            if listens:
                made.listen(BACKLOG)
        except OSError as error:
            made.close()
            raise CannotListenError(self.address, self.port, error) from None
        return made

    def close(self) -> None:
        """Let the address go, once the processes have."""
        self._kept.close()


def _bound(address: str, port: int, *, shares: bool) -> socket.socket:
    try:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise CannotListenError(address, port, error) from None
    try:
        made.setblocking(False)
        # What a server that has just ended leaves in TIME_WAIT does not keep the next one from its port.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
        made.bind((address, port))
    except OSError as error:
        made.close()
        raise CannotListenError(address, port, error) from None
    return made
