"""Abort, from another thread, of a call to a PostgreSQL that does not answer.

A primary whose processes are suspended does not close its connections: its client would wait for ever, and never
connect to another server.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, event


class ConnectionAborter:
    """Aborter of calls on the last connection of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._postgresql = engine.dialect.name == "postgresql"
        self._line: Any = None
        # The first listener, because the first commit of a connection can also hang.
        event.listen(engine, "connect", self._connected, insert=True)

    def abort(self) -> None:
        """Make the current call fail as if the connection were lost; the next call connects again."""
        line = self._line
        if line is not None and not line.closed:
            with suppress(OSError), socket.socket(fileno=os.dup(line.fileno())) as stream:
                stream.shutdown(socket.SHUT_RDWR)

    def _connected(self, line: Any, _: Any) -> None:
        # SQLite has a timeout of its own.
        self._line = line if self._postgresql else None
