"""Wake-ups: who has written to the store lets all its servers know at once (opengnsp.md, P2).

PostgreSQL tells it at the commit (LISTEN and NOTIFY). SQLite tells nobody, but a look whether another process has
written costs it 5 us, so it is looked at some fifty times a second, as cheap as a notification and without anything
beside the database that could fail by itself. Whoever gets no wake-up finds the same by looking now and then.
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
"""Between two looks at a SQLite store: short beside a commit with its sync, and a thousandth of a core."""
PAUSE_SECONDS = 0.1
"""Before a lost connection is made again; doubles up to the next one."""
PAUSE_SECONDS_MAX = 5.0
"""Longest such pause: a database that was away has everybody's wake-ups again so soon."""
LISTENER = "opengnssd wake-ups"
"""What PostgreSQL calls the connection among its sessions."""

Wake = Callable[[int], None]
"""Called with the revision of the store, from a thread of its own."""


class ChangeNotifier(ABC):
    """Calls `wake` whenever somebody has written, and once after each new connection: nothing is missed for good."""

    def __init__(self, url: URL, wake: Wake) -> None:
        self._url = url
        self._wake = wake
        # The engines' own exceptions for all that the drivers themselves raise.
        loaded: Any = engine_for(url).dialect.loaded_dbapi
        self._error: type[Exception] = loaded.Error
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wake-ups", daemon=True)

    def start(self) -> None:
        """Begin; a database that is away now is connected to when it is there."""
        self._thread.start()

    def stop(self) -> None:
        """No more calls; the connection is closed."""
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
                # Why is told by those who read and write; a wake-up that does not come is only a little late.
                self._stopping.wait(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, PAUSE_SECONDS_MAX)
            finally:
                engine.dispose()

    @staticmethod
    def _connect(engine: Engine) -> Any:
        """The driver's own connection, as it is made for everything else, but out of the pool's care: what it can
        beyond the common interface is needed here, and what becomes of it is seen here."""
        pooled = engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        return connection

    @abstractmethod
    def _watch(self, connection: Any) -> None:
        """Call `wake` until stopped."""


class PostgresListener(ChangeNotifier):
    """Of PostgreSQL."""

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
        # Between the two statements somebody may have written.
        ((revision,),) = connection.execute("SELECT revision FROM clock").fetchall()
        self._wake(revision)
        # Not select(): among thousands of sessions the numbers of these two are beyond what it can hold.
        ready = select.poll()
        ready.register(connection.fileno(), select.POLLIN)
        ready.register(self._waker, select.POLLIN)
        while not self._stopping.is_set():
            ready.poll()
            told = [int(notice.payload) for notice in connection.notifies(timeout=0)]
            if told:
                self._wake(max(told))


class SqlitePoller(ChangeNotifier):
    """At a SQLite file."""

    def _watch(self, connection: Any) -> None:
        seen = None
        while not self._stopping.is_set():
            ((version,),) = connection.execute("PRAGMA data_version").fetchall()
            if version != seen:
                seen = version
                ((revision,),) = connection.execute("SELECT revision FROM clock").fetchall()
                self._wake(revision)
            self._stopping.wait(LOOK_SECONDS)


def wakeups_for(url: URL, wake: Wake) -> ChangeNotifier | None:
    """Those of a store; None for one in memory, which nobody else can write."""
    if url.drivername != "sqlite":
        return PostgresListener(url, wake)
    return SqlitePoller(url, wake) if file_of(url) else None
