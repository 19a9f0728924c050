"""Connections to the daemon in the children of a fork: a child must not keep open what only its parent uses.

The daemon takes a registration out of use, or ends a watch, when its connection is closed; a child that has inherited
the connection would keep it for its dead parent. So each child replaces its copies as soon as it begins. A program that
is executed inherits none (PEP 446).
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any, Protocol


class Connection(Protocol):
    """Connection whose socket the children of a fork give up."""

    @property
    def socket(self) -> Any:
        """Socket of the connection."""


_connections: weakref.WeakSet[Any] = weakref.WeakSet()


def keep_from_forks(connection: Connection) -> None:
    """Have the children of this process give up their copy of a connection, as long as it is open."""
    _connections.add(connection)


def _replace_in_child() -> None:
    """Put an empty file in the place of each connection's socket.

    The parent's connection goes on: nothing is shut down. The descriptor is replaced and not closed, because an event
    loop of the parent, of which the child has a copy, may close its number later.
    """
    open_ones = [number for connection in _connections if (number := _number_of(connection)) >= 0]
    _connections.clear()
    if not open_ones:
        return
    with contextlib.suppress(OSError):
        empty = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for number in open_ones:
            os.dup2(empty, number, inheritable=False)
        os.close(empty)


def _number_of(connection: Connection) -> int:
    """Return the number of a connection's descriptor; negative if it is closed."""
    try:
        return int(connection.socket.fileno())
    except (AttributeError, OSError, ValueError):
        # Twisted removes the socket of a connection that is closed.
        return -1


os.register_at_fork(after_in_child=_replace_in_child)
