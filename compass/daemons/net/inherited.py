"""Listening sockets that a service manager holds and passes on (socket activation, sd_listen_fds(3)).

The manager keeps them over a restart: connections wait in the kernel meanwhile, and no other program takes the place.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from compass.daemons.net.local_ports import adopted


class InheritedPorts:
    """Sockets that were passed to this process, each of which is used once."""

    log = Logger("compass.daemons")

    def __init__(self, reactor: Any, sockets: Sequence[socket.socket]) -> None:
        self._reactor = reactor
        self._sockets = {_place_of(one): one for one in sockets}

    def adopt(self, place: tuple[str, int] | Path, factory: Any) -> AdoptedPort | None:
        """Serve at an address and port, or at a path, if the socket of this place was passed."""
        found = self._sockets.pop(place, None)
        if found is None:
            return None
        found.setblocking(False)
        return AdoptedPort(adopted(self._reactor, found.fileno(), found.family, factory))

    def warn_of_unused(self) -> None:
        """Log the sockets that no setting names: what connects to them is answered by no program."""
        for place in self._sockets:
            self.log.warn("the service manager passed a socket at {place}, which no setting names", place=str(place))


class AdoptedPort:
    """Port of a socket that belongs to the service manager: it is not closed, and its path is not removed."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def getHost(self) -> Any:
        """Return the address, as every port of Twisted does."""
        return self._port.getHost()

    def stopListening(self) -> None:  # noqa: N802
        """Accept no further connection; they wait for the next run."""
        self._port.stopReading()


def _place_of(one: socket.socket) -> tuple[str, int] | Path:
    name = one.getsockname()
    return Path(os.fsdecode(name)) if one.family == socket.AF_UNIX else (name[0], name[1])
