"""End, from another thread, of a call to a PostgreSQL that does not answer.

A primary whose processes stand still keeps its connections: a client that waits for it would wait for ever, and never
look for another one.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, event


class ConnectionAborter:
    """The connection that an engine made last, so that it can be cut."""

    def __init__(self, engine: Engine) -> None:
        self._postgresql = engine.dialect.name == "postgresql"
        self._line: Any = None
        # First of all: the commit that a connection begins with can hang, too.
        event.listen(engine, "connect", self._connected, insert=True)

    def abort(self) -> None:
        """Make the current call fail, as if the connection had been lost; the next call connects again."""
        line = self._line
        if line is not None and not line.closed:
            with suppress(OSError), socket.socket(fileno=os.dup(line.fileno())) as stream:
                stream.shutdown(socket.SHUT_RDWR)

    def _connected(self, line: Any, _: Any) -> None:
        # SQLite gives up waiting by itself.
        self._line = line if self._postgresql else None
