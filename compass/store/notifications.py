"""Notifications of changes: a server that writes to the store wakes all its servers at once (opengnsp.md, P2).

PostgreSQL notifies at the commit (LISTEN and NOTIFY). SQLite has no notifications, but a check for writes of another
process costs 5 us, so it is polled fifty times a second, which is as cheap as a notification and needs no other
component that could fail. A server that misses a notification finds the change by its own periodic poll.
"""

from __future__ import annotations

import os
import random
import select
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from typing import Any

from sqlalchemy import URL, Engine
from sqlalchemy.exc import SQLAlchemyError

from compass.store.engine import engine_for, file_of
from compass.store.statements import CHANNEL

LOOK_SECONDS = 0.02
"""Seconds between two polls of a SQLite store: short compared with a commit and its sync, and a thousandth of a core.
"""
PAUSE_SECONDS = 0.1
"""Seconds before the first attempt to connect again; doubles up to PAUSE_SECONDS_MAX."""
PAUSE_SECONDS_MAX = 5.0
"""Longest such pause: after an outage of the database every server gets notifications again within this time."""
LISTENER = "opengnssd wake-ups"
"""Name of the connection among PostgreSQL's sessions."""

Wake = Callable[[int], None]
"""Callback with the revision of the store, from the notifier's thread."""


class ChangeNotifier(ABC):
    """Notifier that calls `wake` after each write by any server, and once after each new connection, so that no change
    is missed permanently."""

    def __init__(self, url: URL, wake: Wake) -> None:
        self._url = url
        self._wake = wake
        # The driver's own exceptions, which SQLAlchemy does not translate on a detached connection.
        loaded: Any = engine_for(url).dialect.loaded_dbapi
        self._error: type[Exception] = loaded.Error
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wake-ups", daemon=True)

    def start(self) -> None:
        """Start the thread; it connects to an unavailable database as soon as this is available."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the calls and close the connection."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = PAUSE_SECONDS
        while not self._stopping.is_set():
            engine = engine_for(self._url)
            try:
                with closing(self._connect(engine)) as connection:
                    pause = PAUSE_SECONDS
                    self._watch(connection)
            except (SQLAlchemyError, OSError, self._error):
                # Readers and writers report the reason; a notification that is missing only costs a little time.
                self._stopping.wait(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, PAUSE_SECONDS_MAX)
            finally:
                engine.dispose()

    @staticmethod
    def _connect(engine: Engine) -> Any:
        """Connect, and return the driver's connection detached from the pool: this module uses methods of the driver
        and handles failures itself."""
        pooled = engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        return connection

    @abstractmethod
    def _watch(self, connection: Any) -> None:
        """Call `wake` until stopped."""


class PostgresListener(ChangeNotifier):
    """Notifier for PostgreSQL, by LISTEN."""

    def __init__(self, url: URL, wake: Wake) -> None:
        super().__init__(url, wake)
        self._waker, self._woken = os.pipe()

    def stop(self) -> None:
        os.write(self._woken, b".")
        super().stop()
        os.close(self._waker)
        os.close(self._woken)

    def _watch(self, connection: Any) -> None:
        connection.autocommit = True
        connection.execute(f"SET application_name = '{LISTENER}'")
        ((store, revision),) = connection.execute("SELECT store, revision FROM clock").fetchall()
        connection.execute(f'LISTEN "{CHANNEL}{store}"')
        # Another server may have written between the two statements.
        ((revision,),) = connection.execute("SELECT revision FROM clock").fetchall()
        self._wake(revision)
        # Not select(), which fails for file descriptors above 1023: a server may have thousands of sessions.
        ready = select.poll()
        ready.register(connection.fileno(), select.POLLIN)
        ready.register(self._waker, select.POLLIN)
        while not self._stopping.is_set():
            ready.poll()
            revisions = [int(notice.payload) for notice in connection.notifies(timeout=0)]
            if revisions:
                self._wake(max(revisions))


class SqlitePoller(ChangeNotifier):
    """Notifier for a SQLite file, by polling."""

    def _watch(self, connection: Any) -> None:
        seen = None
        while not self._stopping.is_set():
            ((version,),) = connection.execute("PRAGMA data_version").fetchall()
            if version != seen:
                seen = version
                ((revision,),) = connection.execute("SELECT revision FROM clock").fetchall()
                self._wake(revision)
            self._stopping.wait(LOOK_SECONDS)


def notifier_for(url: URL, wake: Wake) -> ChangeNotifier | None:
    """Return the notifier of a store, or None for a store in memory, which no other process can write."""
    if url.drivername != "sqlite":
        return PostgresListener(url, wake)
    return SqlitePoller(url, wake) if file_of(url) else None
