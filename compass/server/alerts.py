"""Tell the administrators: once per incident, to the log and to a configured command.

Which incident is open is a row of the catalogue; what is here only carries the news out of the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.rows import Alert, Change

NEWS_MAX = 1_000
"""Alerts waiting for the command; more are in the log only."""

RunCommand = Callable[[bytes], Deferred[None]]
"""Runs the configured command with JSON on its standard input; fails when it does."""


class Alerts:
    """One command at a time, in order."""

    log = Logger()

    def __init__(self, run_command: RunCommand | None) -> None:
        self._run_command = run_command
        self._news: deque[bytes] = deque()
        self._running = False

    def committed(self, change: Change, *, own: bool) -> None:
        """An incident has begun or ended. The server that committed it tells it, so that of several only one does."""
        alert = change.row
        if not own or not isinstance(alert, Alert):
            return
        if change.removed:
            self.log.info("alert over: {text}", text=alert.text)
        else:
            self.log.warn("alert: {text}", text=alert.text)
        if self._run_command is None:
            return
        if len(self._news) >= NEWS_MAX:
            self.log.error("the alert command is {n} alerts behind; this one is only here", n=NEWS_MAX)
            return
        news = {
            "event": "resolved" if change.removed else "opened",
            "time": change.time,
            "revision": change.revision,
            **msgspec.to_builtins(alert),
        }
        self._news.append(msgspec.json.encode(news))
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run(self._run_command))

    async def _run(self, run_command: RunCommand) -> None:
        while self._news:
            news = self._news.popleft()
            try:
                await run_command(news)
            except Exception as error:
                self.log.error("the alert command failed: {why}", why=error)
        self._running = False
