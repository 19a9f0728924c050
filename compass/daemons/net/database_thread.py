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
"""A call to the database that takes longer is ended, and a new connection made, perhaps to another machine: six times
what a transaction waits for a lock, and longer than it takes to read 100,000 listeners."""


DATABASE_STOP_SECONDS = 2.0
"""What the call under way may take when the daemon stops; then it is ended: supervisors do not wait for ever."""


LOOK_SECONDS = 1.0
"""How often it is looked how long a call has taken."""


_Call = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


class DatabaseThread:
    """The one thread that SQL runs on, and what is done about a call on it that does not end.

    A thread and a queue, and no pool: one of futures makes a lock and two conditions for each call, and Twisted's makes
    a lone client wait 4 % longer.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._work: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._since: float | None = None
        """When the call under way began; written by the thread."""
        self._cut: Callable[[], None] = lambda: None
        self._look: Any = None
        self._stopping = False

    def start(self) -> None:
        """Begin to take work."""
        # Whoever ends without `stop` does not wait for it: what is under way ends as it does when a server is killed.
        self._thread = Thread(target=self._serve, name="database", daemon=True)
        self._thread.start()

    def guard(self, cut: Callable[[], None], hang_seconds: float = HANG_SECONDS) -> None:
        """From now on a call that takes longer is ended by `cut`, which makes it raise StoreUnavailable."""
        self._cut = cut
        self._look = self._reactor.callLater(LOOK_SECONDS, self._guard, hang_seconds)

    def stop(self) -> Deferred[None]:
        """Finish what was begun, unless that takes long; fires when the thread has ended."""
        self._stopping = True
        if self._look is not None and self._look.active():
            self._look.cancel()
        stopped: Deferred[None] = Deferred()
        self._end(stopped, time.monotonic() + DATABASE_STOP_SECONDS)
        return stopped

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The result of `work`, which runs on the thread."""
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
                raise StoreUnavailable("this server stops")
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
            self._log.warn("the database has not answered for {n:g} s; connecting anew", n=hang_seconds)
            self._cut()
        self._look = self._reactor.callLater(LOOK_SECONDS, self._guard, hang_seconds)

    def _end(self, stopped: Deferred[None], until: float) -> None:
        if self._since is not None:
            if time.monotonic() >= until:
                self._cut()
            self._reactor.callLater(LOOK_SECONDS / 10, self._end, stopped, until)
            return
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
        stopped.callback(None)
