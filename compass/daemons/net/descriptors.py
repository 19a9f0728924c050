"""File descriptors of a process: connections never use the last ones, which files and the Unix socket need.

The kernel hands out the lowest free number, so the number of a new connection shows how many descriptors are left. A
connection beyond the limit is closed at once. The log gets one line a minute for all of them.
"""

from __future__ import annotations

import errno
import resource
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.logger import Logger

from compass.daemons.process.minute_log import MinuteLog

FILES_RESERVED = 32
"""Descriptors that no connection uses: the store, its log, caches that are replaced, pipes of commands, and a probe."""
UNIX_RESERVED = 64
"""Descriptors that only connections of the Unix socket use: local programs reach their daemon when the ports are full.
"""
SHARE_RESERVED = 0.25
"""Most of a small limit that is reserved: a limit of 256 still leaves room for peers."""
PAUSE_SECONDS = 0.5
"""Seconds for which a port does not accept after the kernel had no descriptor: it would be ready, and fail, at once."""
ACCEPTS_AT_ONCE = 100
"""Connections that one port accepts before others have a turn."""


def room_for(reserved: int) -> int:
    """Return the number of descriptors that are not reserved."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit - min(reserved, int(limit * SHARE_RESERVED))


_refused = MinuteLog(
    Logger(), "no file descriptors left (limit {limit}): {n} connections refused; raise the limit (LimitNOFILE)"
)


class CarefulPort(tcp.Port):
    """Listening port that leaves descriptors to others, and says once a minute that it has to."""

    reserved = FILES_RESERVED + UNIX_RESERVED

    def doRead(self) -> None:  # noqa: N802
        """Accept connections; see tcp.Port, which would write three lines to the log for each that it refuses."""
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                accepted, address = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.ECONNABORTED, errno.EPERM):
                    continue
                self._pause()
                return
            if not self.has_room(accepted):
                continue
            try:
                self._begin(accepted, address)
            except Exception:
                self._logger.failure("a connection could not be served")

    def has_room(self, accepted: socket.socket) -> bool:
        """Return whether a connection leaves the reserved descriptors free; close and log one that does not."""
        if accepted.fileno() < room_for(self.reserved):
            return True
        accepted.close()
        _refused.add(self.reactor, limit=room_for(0))
        return False

    def _begin(self, accepted: socket.socket, address: Any) -> None:
        if self.addressFamily == socket.AF_INET6:
            # The address with its scope, if it is local to a link.
            name, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
            address = (name, *address[1:])
        whole: Any = self
        protocol = whole.factory.buildProtocol(whole._buildAddr(address))
        if protocol is None:
            accepted.close()
            return
        number = whole.sessionno
        whole.sessionno = number + 1
        protocol.makeConnection(whole.transport(accepted, protocol, address, self, number, self.reactor))

    def _pause(self) -> None:
        _refused.add(self.reactor, limit=room_for(0))
        self.stopReading()
        self.reactor.callLater(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self.connected and not self.disconnecting:
            self.startReading()


class UnixPort(unix.Port, CarefulPort):
    """Unix socket that still accepts when the ports are full."""

    reserved = FILES_RESERVED
