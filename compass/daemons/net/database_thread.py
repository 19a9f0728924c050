"""The database thread: SQL runs on it, and a call that hangs is aborted."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from compass.model.interfaces import StoreUnavailable

HANG_SECONDS = 30.0
"""Time after which a call to the database is aborted, and a new connection made, perhaps to another machine: six times
the wait of a transaction for a lock, and longer than reading 100,000 listeners takes."""
STOP_SECONDS = 2.0
"""Time that a running call gets when the daemon stops; then it is aborted: supervisors do not wait for ever."""
CHECK_SECONDS = 1.0
"""Interval at which the duration of a running call is checked."""

_Call = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


class DatabaseThread:
    """Thread that all SQL runs on; a call that does not end is aborted.

    A thread and a queue instead of a pool: a pool of futures makes a lock and two conditions for each call, and with
    Twisted's pool a lone client waits 4 % longer.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._work: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._since: float | None = None
        """Start of the running call; written by the thread. None: no call is running."""
        self._abort: Callable[[], None] = lambda: None
        self._check: Any = None
        self._stopping = False

    def start(self) -> None:
        """Start the thread."""
        # A process that ends without `stop` does not wait for the thread: its call ends as if the server were killed.
        self._thread = Thread(target=self._serve, name="database", daemon=True)
        self._thread.start()

    def guard(self, abort: Callable[[], None], hang_seconds: float = HANG_SECONDS) -> None:
        """Abort each call that takes longer from now on. `abort` makes the running call raise StoreUnavailable."""
        self._abort = abort
        self._check = self._reactor.callLater(CHECK_SECONDS, self._guard, hang_seconds)

    def stop(self) -> Deferred[None]:
        """Stop after the running call, which gets STOP_SECONDS. Returns a Deferred that fires at the thread's end."""
        self._stopping = True
        if self._check is not None and self._check.active():
            self._check.cancel()
        stopped: Deferred[None] = Deferred()
        self._end(stopped, time.monotonic() + STOP_SECONDS)
        return stopped

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run `work` on the thread. Returns a Deferred of its result."""
        assert self._thread is not None, "the database thread has not started"
        done: Deferred[Any] = Deferred()
        self._work.put((done, work, args))
        return done

    def _serve(self) -> None:
        while (call := self._work.get()) is not None:
            self._do(*call)

    def _do(self, done: Deferred[Any], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._since = time.monotonic()
        try:
            if self._stopping:
                raise StoreUnavailable("this server is stopping")
            result = work(*args)
        except BaseException:
            self._reactor.callFromThread(done.errback, Failure())
        else:
            self._reactor.callFromThread(done.callback, result)
        finally:
            self._since = None

    def _guard(self, hang_seconds: float) -> None:
        since = self._since
        if since is not None and time.monotonic() - since > hang_seconds:
            self._log.warn("the database has not answered for {n:g} s; reconnecting", n=hang_seconds)
            self._abort()
        self._check = self._reactor.callLater(CHECK_SECONDS, self._guard, hang_seconds)

    def _end(self, stopped: Deferred[None], until: float) -> None:
        if self._since is not None:
            if time.monotonic() >= until:
                self._abort()
            self._reactor.callLater(CHECK_SECONDS / 10, self._end, stopped, until)
            return
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
        stopped.callback(None)
